"""Which folders are parts and which are classes; one walk for all that holds files."""

import os
import stat
import zipfile

import numpy as np
import pytest
from tiny_datasets import picture, write

from camri_jax.datasets import DatasetError, load
from camri_jax.datasets.layout import list_pictures
from camri_jax.datasets.trees import open_tree


def listed(*folders, each=2):
    """Lists folders of pictures, or empty ones that end in `/`, or the one above."""
    names = []
    for folder in folders:
        if folder.endswith("/.."):
            names += [f"{i}.png" for i in range(each)]
            continue
        steps = folder.rstrip("/").split("/")
        names += ["/".join(steps[: i + 1]) + "/" for i in range(len(steps))]
        if not folder.endswith("/"):
            names += [f"{folder}/{i}.png" for i in range(each)]
    return list_pictures(sorted(set(names)))


def tree(parts, classes):
    return [f"{part}/{name}" for part in parts for name in classes]


_TWO = ("cat", "dog")


@pytest.mark.parametrize(
    ("folders", "parts", "classes"),
    [
        (_TWO, ["train"], _TWO),
        (tree(("train", "test"), _TWO), ["train", "test"], _TWO),
        (tree(("Training", "Testing"), _TWO), ["train", "test"], _TWO),
        (tree(("TRAIN", "Valid"), _TWO), ["train", "validation"], _TWO),
        (tree(("training_set", "test_set"), _TWO), ["train", "test"], _TWO),
        (
            tree(("test", "calib", "val", "train"), _TWO),
            ["train", "validation", "calibration", "test"],
            _TWO,
        ),
        (tree(("mine/inner/train", "mine/inner/test"), _TWO), ["train", "test"], _TWO),
        (tree(("train/train", "train/test"), _TWO), ["train", "test"], _TWO),
        (tree(("mine",), _TWO), ["train"], _TWO),
        (tree(_TWO, ("train", "val")), ["train", "validation"], _TWO),
        (("bus", "car", "train"), ["train"], ("bus", "car", "train")),
        (("test", "tube"), ["train"], ("test", "tube")),
        (("cat/a/b/c", "dog"), ["train"], _TWO),
        (("cat/summer", "cat/winter", "dog/summer"), ["train"], _TWO),
        (tree(("train",), ("train", "bus")), ["train"], ("bus", "train")),
        (
            tree(("train", "test"), ("1", "10", "9")),
            ["train", "test"],
            ("1", "9", "10"),
        ),
        ((*_TWO, "validation/"), ["train"], _TWO),
        (tree(("train/train", "test/test"), _TWO), ["train", "test"], _TWO),
        (
            tree(("seg_train/seg_train", "seg_test/seg_test"), _TWO),
            ["train", "test"],
            _TWO,
        ),
        (tree(("train2017", "val2017"), _TWO), ["train", "validation"], _TWO),
        (tree(("My Test", "images-train"), _TWO), ["train", "test"], _TWO),
        (
            ("train station", "test tube", "bus"),
            ["train"],
            ("bus", "test tube", "train station"),
        ),
    ],
)
def test_layouts(folders, parts, classes):
    listing = listed(*folders)
    assert list(listing.files) == parts
    assert listing.class_names == tuple(classes)
    for files in listing.files.values():
        assert set(files.values()) == set(range(len(classes)))
        for name, label in files.items():
            assert classes[label] in name.split("/")
            assert listing.inside[name].startswith(f"{classes[label]}/")


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("train", "test"), "lie directly in test, train: .* are parts.* are classes"),
        (("Training", "val"), "lie directly in Training, val"),
        ((*tree(("train",), "ab"), "bus", "car"), "two ways: as the part 'train' of"),
        (tree(("Set 1", "Set 2"), _TWO), "as parts called Set 1, Set 2 .* cat, dog"),
        (tree(("fold0", "fold1", "fold2"), _TWO), "as classes called fold0, fold1"),
        (tree(("train", "Training"), _TWO), "Training, train all stand for .*'train'"),
        (tree(("val", "valid", "train"), _TWO), "val, valid all stand for"),
        (tree(("train", "test"), ("cat",)), "two or more .* there is cat"),
        ((*tree(("train",), _TWO), "test/cow"), "cow lie only in 'test'"),
        (tree(("test", "val"), _TWO), "cat, dog lie only in"),
        ((*tree(_TWO, ("train", "test")), "cat"), "train inside, .* directly in cat;"),
        ((*tree(("cat",), ("train", "test")), "dog"), "lie directly in dog; or"),
        (
            (*tree(("cat",), ("train", "val")), "dog/train", "dog/masks"),
            "the parts train, val inside, though masks is no part; or",
        ),
        (("data/..", *tree(("data",), _TWO)), "2 pictures lie beside 'data', the only"),
        ((), "there is none"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(folders, message):
    with pytest.raises(DatasetError, match=message):
        listed(*folders)


@pytest.mark.parametrize(
    ("folders", "note"),
    [
        (
            (*tree(("train", "test"), _TWO), "spare"),
            "2 pictures .* 'spare', .* no name",
        ),
        (
            tree(("train", "holdout"), _TWO),
            "4 pictures .* 'holdout'.*call it validation",
        ),
        ((*tree(("train",), _TWO), "test"), "2 pictures .*'test', .* no class folders"),
        (
            (*tree(("train",), _TWO), "test/"),
            "'test' is empty",
        ),
        (("bus", "car", "train"), "'train' is read as a class"),
        ((*_TWO, "validation/"), "'validation' is empty"),
        ((*_TWO, "Cat"), "differ only in case: Cat, cat"),
    ],
)
def test_what_is_not_read_is_told_with_its_reason(folders, note):
    import re

    notes = listed(*folders).notes
    assert any(re.search(note, said) for said in notes)
    # Once, and not again as strays.
    assert not any("lie in no class folder" in said for said in notes)


def names_of(path):
    with open_tree(path) as opened:
        return [name for name in opened.names if not name.endswith("/")]


_LITTER = [
    "__MACOSX/cat/._0.png",
    "cat/._0.png",
    "cat/.thumbs/0.png",
    "cat/@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg",
    "cat/#recycle/old.png",
    "cat/Thumbs.db",
    "cat/DESKTOP.INI",
    "$RECYCLE.BIN/S-1/0.png",
    "System Volume Information/x.png",
    "lost+found/1.png",
    ".Trash-1000/files/0.png",
    "@Recycle/0.png",
    "~snapshot/cat/0.png",
]


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_what_systems_leave_behind_is_not_seen(tmp_path, kind):
    for name in (*_LITTER, "cat/0.png", "dog/0.png"):
        write(tmp_path / "mine" / name, picture(0))
    path = tmp_path / "mine"
    if kind == "zip":
        path = tmp_path / "mine.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name in (*_LITTER, "cat/0.png", "./dog//0.png"):
                archive.writestr(name, b"")
    assert names_of(path) == ["cat/0.png", "dog/0.png"]


def test_empty_folders_of_systems_are_no_classes(tmp_path):
    for name in ("__MACOSX", "lost+found", "$RECYCLE.BIN", "@eaDir", ".git"):
        (tmp_path / "mine" / name).mkdir(parents=True)
    for name in ("cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"):
        write(tmp_path / "mine" / name, picture(10 * ord(name[0]) + ord(name[4])))
    assert load(f"folder:{tmp_path / 'mine'}", image_size=8).class_names == _TWO


def packed(path, *names, edit=lambda info: None, flag_bits=0):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            info = zipfile.ZipInfo("x")
            info.filename = name
            edit(info)
            archive.writestr(info, b"x")
    return path


@pytest.mark.parametrize(
    "name",
    [
        "train\\cat\\0.png",
        "./train/cat/0.png",
        "train//cat/0.png",
        ".\\train/cat\\0.png",
    ],
)
def test_names_in_a_zip_may_be_separated_as_windows_does(tmp_path, name):
    assert names_of(packed(tmp_path / "a.zip", name)) == ["train/cat/0.png"]


def test_a_folder_unpacked_with_backslashes_is_read(tmp_path):
    for c, i in ((0, 0), (0, 1), (1, 0), (1, 1)):
        name = f"train\\{_TWO[c]}\\{i}.png"
        write(tmp_path / "mine" / name, picture(2 * c + i))
    assert load(f"folder:{tmp_path / 'mine'}", image_size=8).class_names == _TWO


@pytest.mark.parametrize(
    "raw", [b"caf\xe9", b"\x93\xfa\x96{", b"\x81\x8d", "日本".encode()]
)
def test_names_in_any_encoding_are_read(tmp_path, raw):
    for i in range(4):
        write(tmp_path / "mine" / "tea" / f"{i}.png", picture(i))
    root = os.fsencode(tmp_path / "mine") + b"/" + raw
    os.mkdir(root)
    for i in range(4):
        with open(root + b"/%d.png" % i, "wb") as file:
            file.write(picture(10 + i))
    dataset = load(f"folder:{tmp_path / 'mine'}", image_size=8)
    assert len(dataset.class_names) == 2
    "".join(dataset.class_names).encode()  # can be printed and stored


def test_a_zip_that_does_not_say_utf_8_is_read_as_such(tmp_path):
    path = packed(tmp_path / "a.zip", "кошка/0.png", "日本/0.png")
    content = bytearray(path.read_bytes())
    for at in range(len(content) - 9):  # take the flag that says so away
        if content[at : at + 4] == b"PK\x03\x04":
            content[at + 7] &= ~8
        elif content[at : at + 4] == b"PK\x01\x02":
            content[at + 9] &= ~8
    path.write_bytes(content)
    assert names_of(path) == ["кошка/0.png", "日本/0.png"]


@pytest.mark.parametrize("target", ["..", ".", "../..", "../../train/cat"])
def test_a_link_to_a_folder_above_is_walked_once(tmp_path, target):
    for c, i in ((0, 0), (0, 1), (1, 0), (1, 1)):
        write(tmp_path / "mine/train" / _TWO[c] / f"{i}.png", picture(2 * c + i))
    (tmp_path / "mine" / "train" / "cat" / "all").symlink_to(target)
    names = names_of(tmp_path / "mine")
    assert [n for n in names if "all" not in n] == sorted(
        f"train/{name}/{i}.png" for name in _TWO for i in range(2)
    )
    assert len(names) < 20


def test_links_to_pictures_elsewhere_are_followed(tmp_path):
    for c, i in ((0, 0), (0, 1), (1, 0), (1, 1)):
        write(tmp_path / "store" / _TWO[c] / f"{i}.png", picture(2 * c + i))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "cat").symlink_to(tmp_path / "store" / "cat")
    (tmp_path / "mine" / "dog").mkdir()
    (tmp_path / "mine" / "dog" / "0.png").symlink_to(tmp_path / "store/dog/0.png")
    assert names_of(tmp_path / "mine") == ["cat/0.png", "cat/1.png", "dog/0.png"]


def test_what_is_no_file_is_not_opened(tmp_path):
    write(tmp_path / "mine" / "cat" / "0.png", picture(0))
    os.mkfifo(tmp_path / "mine" / "cat" / "pipe.png")  # reading would wait for ever
    assert names_of(tmp_path / "mine") == ["cat/0.png"]


def _link(info):
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("/tmp/evil.png", lambda info: None, "outside of itself"),
        ("../evil.png", lambda info: None, "outside of itself"),
        ("train/cat/../../../evil.png", lambda info: None, "outside of itself"),
        ("..\\evil.png", lambda info: None, "outside of itself"),
        ("C:\\evil.png", lambda info: None, "outside of itself"),
        ("cat/0.png", _link, "holds a link, 'dog/0.png'"),
    ],
)
def test_a_zip_that_means_harm_is_refused(tmp_path, name, edit, message):
    path = packed(tmp_path / "mine.zip", "dog/0.png", name, edit=edit)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DatasetError, match=rf"{message}.*nothing was read"):
        names_of(path)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_zip_with_a_password_is_named(tmp_path):
    path = packed(tmp_path / "mine.zip", "cat/0.png")
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="locked by a password"):
        names_of(path)


def test_a_bomb_in_a_zip_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "mine.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"):
            archive.writestr(name, picture(10 * ord(name[0]) + ord(name[4])))
        archive.writestr("dog/bomb.png", picture(0) + bytes(100_000))
    monkeypatch.setattr("camri_jax.datasets.trees._MAX_BYTES", 50_000)
    with pytest.raises(DatasetError, match=r"'dog/bomb.png', which unpacks to more"):
        load(f"folder:{path}", image_size=8)


def test_the_npz_walk_is_the_same(tmp_path):
    """Packed anew on a Mac or by hand, in a folder, with what systems add."""
    arrays = {
        "train_images": np.random.default_rng(0).integers(0, 9, (4, 3, 3), np.uint8),
        "train_labels": np.array([0, 1, 0, 1]),
    }
    np.savez(tmp_path / "plain.npz", **arrays)
    with zipfile.ZipFile(tmp_path / "plain.npz") as plain:
        contents = {name: plain.read(name) for name in plain.namelist()}
    with zipfile.ZipFile(tmp_path / "mac.npz", "w") as mac:
        for name, content in contents.items():
            mac.writestr(f"mine/{name}", content)
            mac.writestr(f"__MACOSX/mine/._{name}", b"\x00\x05\x16\x07")
    one, two = (load(f"npz:{tmp_path / name}.npz") for name in ("plain", "mac"))
    assert one.fingerprint == two.fingerprint
