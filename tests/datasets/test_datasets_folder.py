"""The user's own pictures, good and bad."""

import itertools
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from test_datasets_pictures import pixel_bomb
from tiny_datasets import picture, write

from camri_jax.datasets import DatasetError, DatasetWarning, load


def write_folder(root, *, classes=("cat", "dog"), parts=("train", "test"), each=6):
    """Pictures of all sizes and two formats, `each` a class and part."""
    for part in parts or [""]:
        for c, class_name in enumerate(classes):
            for i in range(each):
                suffix = ("png", "jpg")[i % 2]
                path = root / part / class_name / f"{i}.{suffix}"
                seed = 10_000 * len(part) + 100 * c + i
                write(path, picture(seed, (10 + i % 9, 20 - i % 9), suffix=suffix))
    return root


def zip_folder(root):
    return shutil.make_archive(str(root), "zip", root.parent, root.name)


def load_folder(root, **settings):
    return load(f"folder:{root}", image_size=8, **settings)


def test_train_and_test_folders(tmp_path):
    dataset = load_folder(write_folder(tmp_path / "mine"))
    assert dataset.class_names == ("cat", "dog")
    assert dataset.train_images.shape == (12, 8, 8, 3)
    assert np.bincount(dataset.train_labels).tolist() == [6, 6]
    assert np.bincount(dataset.test_labels).tolist() == [6, 6]


def test_a_zip_is_read_like_the_directory(tmp_path):
    root = write_folder(tmp_path / "mine")
    unpacked, packed = load_folder(root), load_folder(zip_folder(root))
    assert (unpacked.train_images == packed.train_images).all()
    assert unpacked.fingerprint == packed.fingerprint


def test_without_parts_a_fifth_is_held_out_by_seed(tmp_path):
    root = write_folder(tmp_path / "mine", parts=(), each=10)
    one, again, two = (load_folder(root, seed=seed) for seed in (1, 1, 2))
    assert np.bincount(one.test_labels).tolist() == [2, 2]
    assert (one.test_images == again.test_images).all()
    assert not np.array_equal(one.test_images, two.test_images)
    assert one.fingerprint == again.fingerprint != two.fingerprint


def test_a_validation_part_comes_out_of_train(tmp_path):
    dataset = load_folder(write_folder(tmp_path / "mine"), validation_fraction=0.5)
    assert np.bincount(dataset.validation_labels).tolist() == [3, 3]
    assert np.bincount(dataset.train_labels).tolist() == [3, 3]


@pytest.mark.parametrize(("fit", "dark"), [("pad", True), ("crop", False)])
def test_aspect_is_kept_by_padding_or_cropping(tmp_path, fit, dark):
    for class_name in ("cat", "dog"):
        for i in range(3):
            wide = picture(i, (40, 10)) if class_name == "cat" else picture(i, (10, 40))
            write(tmp_path / "mine" / class_name / f"{i}.png", wide)
    dataset = load_folder(tmp_path / "mine", fit=fit)
    images = np.concatenate([dataset.train_images, dataset.test_images])
    corners = images[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == 0).all() == dark


def test_grey_pictures_give_one_channel_and_one_in_colour_gives_three(tmp_path):
    root = tmp_path / "mine"
    files = itertools.product(("train", "test"), ("a", "b"), range(3))
    for seed, (part, class_name, i) in enumerate(files):
        path = root / part / class_name / f"{i}.png"
        write(path, picture(seed, mode="L"))
    assert load_folder(root).train_images.shape == (6, 8, 8, 1)
    write(root / "test" / "b" / "3.png", picture(12))
    dataset = load_folder(root)
    assert dataset.train_images.shape == (6, 8, 8, 3)
    assert (dataset.train_images == dataset.train_images[..., :1]).all()


def test_class_names_with_spaces_and_in_any_script(tmp_path):
    names = ("Ende 80 km-h", "кошка", "日本", "two words")
    root = write_folder(tmp_path / "mine", classes=names)
    assert set(load_folder(root).class_names) == set(names)
    assert set(load_folder(zip_folder(root)).class_names) == set(names)


def test_both_spellings_of_an_accent_are_one_class(tmp_path):
    root = tmp_path / "mine"
    write_folder(root, classes=("caf\u00e9", "tea"), parts=("train",))
    write_folder(root, classes=("cafe\u0301", "tea"), parts=("test",))
    assert load_folder(root).class_names == ("caf\u00e9", "tea")


def test_numbered_classes_are_in_the_order_of_numbers(tmp_path):
    root = write_folder(tmp_path / "mine", classes=("0", "2", "10"), each=2)
    assert load_folder(root).class_names == ("0", "2", "10")


def test_an_outer_folder_and_hidden_files_do_not_matter(tmp_path):
    root = write_folder(tmp_path / "mine")
    expected = load_folder(root).fingerprint
    outer = tmp_path / "outer"
    shutil.copytree(root, outer / "inner")
    write(outer / ".DS_Store", b"x")
    write(outer / "inner" / "train" / "cat" / "._0.png", b"x")
    assert load_folder(outer).fingerprint == expected
    packed = zip_folder(outer)
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr("__MACOSX/outer/inner/train/cat/0.png", b"x")
    assert load_folder(packed).fingerprint == expected


def test_an_edit_is_seen(tmp_path):
    root = write_folder(tmp_path / "mine")
    before = load_folder(root).fingerprint
    write(root / "train" / "cat" / "0.png", picture(777, (10, 20)))
    assert load_folder(root).fingerprint != before


def test_a_broken_picture_is_named_and_skipped(tmp_path):
    root = write_folder(tmp_path / "mine", each=60)
    path = root / "train" / "cat" / "0.png"
    write(path, path.read_bytes()[:50])
    for _ in range(2):  # the second time from the cache
        with pytest.warns(DatasetWarning, match=r"1 of 240 .* train/cat/0.png \(") as w:
            dataset = load_folder(root)
        assert len(w) == 1
    assert np.bincount(dataset.train_labels).tolist() == [59, 60]


def test_more_than_one_percent_broken_is_an_error(tmp_path):
    root = write_folder(tmp_path / "mine")
    write(root / "train" / "dog" / "0.png", b"<html>not found</html>")
    with pytest.raises(DatasetError, match=r"1 of 24 .*dog/0.png \(it is no picture"):
        load_folder(root)


def test_a_pixel_bomb_is_a_broken_picture(tmp_path):
    root = write_folder(tmp_path / "mine", each=60)
    write(root / "train" / "cat" / "bomb.png", pixel_bomb())
    with pytest.warns(DatasetWarning, match=r"bomb.png .*2500000000 pixels"):
        load_folder(root)


def test_a_link_to_nothing_is_a_broken_picture(tmp_path):
    root = write_folder(tmp_path / "mine", each=60)
    (root / "test" / "dog" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.warns(DatasetWarning, match=r"gone.png \(.*No such file"):
        load_folder(root)


def test_files_that_are_no_pictures_are_counted(tmp_path):
    root = write_folder(tmp_path / "mine")
    write(root / "train" / "cat" / "photo.heic", b"unknown to Pillow")
    write(root / "stray.png", picture(0))
    write(root / "README.md", b"of no class: not worth a word")
    with pytest.warns(DatasetWarning, match=r"2 files were ignored.*photo.heic"):
        load_folder(root)


def test_a_class_of_unknown_formats_only_is_explained(tmp_path):
    root = write_folder(tmp_path / "mine")
    write(root / "train" / "eel" / "photo.heic", b"unknown to Pillow")
    message = r"without a training picture: eel; .*1 files were ignored.*photo.heic"
    with pytest.raises(DatasetError, match=message):
        load_folder(root)


def test_a_test_picture_that_is_also_a_training_picture_is_told(tmp_path):
    root = write_folder(tmp_path / "mine")
    shutil.copy(root / "train/cat/0.png", root / "test/cat/copy.png")
    with pytest.warns(
        DatasetWarning, match=r"1 test .*test/cat/copy.png = train/cat/0"
    ):
        load_folder(root)


def test_a_picture_in_two_classes_is_told(tmp_path):
    root = write_folder(tmp_path / "mine")
    shutil.copy(root / "train/cat/0.png", root / "train/dog/copy.png")
    message = r"1 training .*in another class: train/dog/copy.png = train/cat/0.png"
    with pytest.warns(DatasetWarning, match=message):
        load_folder(root, validation_fraction=0.3)


def test_copies_within_a_class_are_never_split_apart(tmp_path):
    root = write_folder(tmp_path / "mine", parts=(), each=5)
    for i in range(5):
        shutil.copy(root / "cat/0.png", root / f"cat/copy {i}.png")
    for seed in range(5):
        dataset = load_folder(root, seed=seed, validation_fraction=0.3)
        seen = [
            {image.tobytes() for image in images}
            for images in (
                dataset.train_images,
                dataset.validation_images,
                dataset.test_images,
            )
        ]
        assert not seen[0] & seen[1]
        assert not seen[0] & seen[2]
        assert not seen[1] & seen[2]


def test_a_class_without_test_pictures_is_told(tmp_path):
    root = write_folder(tmp_path / "mine")
    shutil.rmtree(root / "test" / "dog")
    with pytest.warns(DatasetWarning, match="without a test picture.*dog"):
        load_folder(root)


def _empty_class(root):
    shutil.rmtree(root / "train" / "dog")
    (root / "train" / "dog").mkdir()


def _empty_class_without_test(root):
    shutil.rmtree(root / "test")
    _empty_class(root)


def _one_class(root):
    shutil.rmtree(root / "train" / "dog")
    shutil.rmtree(root / "test" / "dog")


def _class_only_in_test(root):
    shutil.rmtree(root / "train" / "dog")


def _only_test(root):
    shutil.rmtree(root / "train")


def _nothing(root):
    shutil.rmtree(root)
    root.mkdir()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_empty_class, "without a training picture: dog"),
        (_empty_class_without_test, "without a training picture: dog"),
        (_one_class, "two or more class folders are needed.* there is cat"),
        (_class_only_in_test, "dog lie only in 'test'"),
        (_only_test, "cat, dog lie only in 'test'"),
        (_nothing, "two or more class folders are needed.* there is none"),
    ],
)
def test_what_cannot_be_learnt_is_refused(tmp_path, spoil, message):
    root = write_folder(tmp_path / "mine")
    spoil(root)
    with pytest.raises(DatasetError, match=message) as caught:
        load_folder(root)
    assert str(root) in str(caught.value)


def test_a_folder_of_pictures_alone_is_one_class(tmp_path):
    root = write_folder(tmp_path / "mine", classes=("cat",), parts=())
    with pytest.raises(DatasetError, match="there is cat"):
        load_folder(root)
    with pytest.raises(DatasetError, match="there is none"):
        load_folder(root / "cat")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"absent: no such directory or \.zip"):
        load_folder(tmp_path / "absent")


@pytest.mark.parametrize("content", [b"<html></html>", b"", b"PK\x03\x04 cut short"])
def test_what_is_no_zip_is_named(tmp_path, content):
    path = write(tmp_path / "mine.zip", content)
    with pytest.raises(DatasetError, match=r"mine.zip is neither"):
        load_folder(path)


def test_a_truncated_zip_is_named(tmp_path):
    path = zip_folder(write_folder(tmp_path / "mine"))
    content = (tmp_path / "mine.zip").read_bytes()
    write(tmp_path / "mine.zip", content[:-100])
    with pytest.raises(DatasetError, match=r"mine.zip is neither"):
        load_folder(path)


@pytest.mark.parametrize(
    "name",
    ["/tmp/evil.png", "../evil.png", "train/cat/../../../evil.png", "C:\\evil.png"],
)
def test_a_zip_that_points_outside_is_refused(tmp_path, name):
    path = zip_folder(write_folder(tmp_path / "mine"))
    before = sorted(tmp_path.rglob("*"))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, picture(0))
    with pytest.raises(DatasetError, match=r"outside of itself.*nothing was read"):
        load_folder(path)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_that_unpacks_to_too_much_is_a_broken_picture(tmp_path, monkeypatch):
    path = zip_folder(write_folder(tmp_path / "mine", each=60))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mine/train/cat/bomb.png", picture(0) + bytes(100_000))
    monkeypatch.setattr("camri_jax.datasets.trees._MAX_BYTES", 50_000)
    with pytest.warns(DatasetWarning, match=r"bomb.png \(it unpacks to more than"):
        load_folder(path)


def test_what_is_prepared_inside_the_folder_is_not_part_of_it(tmp_path, monkeypatch):
    monkeypatch.delenv("CAMRI_CACHE_DIR")
    root = write_folder(tmp_path / "mine")
    one = load_folder(root, data_dir=root)
    assert load_folder(root, data_dir=root).fingerprint == one.fingerprint


def test_the_second_load_decodes_nothing(tmp_path, monkeypatch):
    root = write_folder(tmp_path / "mine")
    load_folder(root)
    monkeypatch.setattr("camri_jax.datasets.pictures.decode", None)
    assert isinstance(load_folder(root).train_images, np.memmap)


def test_loading_from_python_needs_no_tensorflow_datasets(tmp_path):
    root = write_folder(tmp_path / "mine")
    program = (
        "import sys; from camri_jax.datasets import load; "
        f"load('folder:{root}'); sys.exit('tensorflow_datasets' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
