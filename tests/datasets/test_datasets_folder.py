"""The user's own pictures, good and bad."""

import io
import itertools
import os
import shutil
import subprocess
import sys
import warnings
import zipfile

import numpy as np
import pytest
from PIL import Image
from test_datasets_pictures import pixel_bomb
from tiny_datasets import picture, pixels, write

from camri_jax.datasets import (
    DatasetError,
    DatasetWarning,
    load,
    load_labelled,
    pictures,
)
from camri_jax.datasets.reading import read_images


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
    with pytest.warns(DatasetWarning, match=r"bomb.png .*2,500,000,000 pixels"):
        load_folder(root)


def test_a_link_to_nothing_is_a_broken_picture(tmp_path):
    root = write_folder(tmp_path / "mine", each=60)
    (root / "test" / "dog" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.warns(DatasetWarning, match=r"gone.png \(.*No such file"):
        load_folder(root)


def test_files_that_are_no_pictures_are_counted(tmp_path):
    root = write_folder(tmp_path / "mine")
    write(root / "train" / "cat" / "photo.heic", b"unknown to Pillow")
    write(root / "train" / "stray.png", picture(0))
    write(root / "README.md", b"of no class: not worth a word")
    with pytest.warns(DatasetWarning) as caught:
        load_folder(root)
    said = sorted(str(warning.message) for warning in caught)
    assert said == [
        "1 files are no pictures to Pillow: train/cat/photo.heic",
        "1 pictures lie in no class folder: train/stray.png",
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("clip.mpg", b"\x00\x00\x01\xb3" + bytes(100)),
        ("features.h5", b"\x89HDF\r\n\x1a\n" + bytes(100)),
        ("drawing.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
        ("weather.grib", b"GRIB" + bytes(100)),
    ],
)
def test_what_pillow_only_names_is_no_broken_picture(tmp_path, name, content):
    root = write_folder(tmp_path / "mine", parts=(), each=4)
    write(root / "cat" / name, content)
    with pytest.warns(DatasetWarning, match=f"no pictures to Pillow: cat/{name}"):
        assert len(load_folder(root).train_labels) == 6


def test_a_class_of_unknown_formats_only_is_explained(tmp_path):
    root = write_folder(tmp_path / "mine")
    write(root / "train" / "eel" / "photo.heic", b"unknown to Pillow")
    message = (
        r"without a training picture: eel; add pictures or remove the folders\. "
        r"What else was seen: 1 files are no pictures.*photo.heic"
    )
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
    message = r"1 train .*in another class: train/dog/copy.png = train/cat/0.png"
    with pytest.warns(DatasetWarning, match=message):
        load_folder(root, validation_fraction=0.3)


@pytest.mark.filterwarnings("ignore:.*which they count as one")
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


def _again(content, how):
    """The same pixels in another file."""
    image = Image.open(io.BytesIO(content))
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    if how == "turned":
        exif[0x0112] = 6
        image = image.transpose(Image.Transpose.ROTATE_90)
    if how == "in colour":
        image = image.convert("RGB")
    if how == "other metadata":
        raw = b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")
        segment = b"\xff\xe1" + (len(raw) + 2).to_bytes(2, "big") + raw
        return "jpg", content[:2] + segment + content[2:]
    file = io.BytesIO()
    suffix = "bmp" if how == "another format" else "png"
    options = {} if suffix == "bmp" else {"compress_level": 0, "exif": exif}
    image.save(file, suffix, **options)
    return suffix, file.getvalue()


SAVED_AGAIN = {
    "other compression": ("png", "RGB"),
    "another format": ("png", "RGB"),
    "turned": ("png", "RGB"),
    "in colour": ("png", "L"),
    "other metadata": ("jpg", "RGB"),
    "decoded": ("jpg", "RGB"),
}


def _write_twice(root, how):
    """100 x 90 pixels, of which a JPEG is decoded at a quarter for 16."""
    suffix, mode = SAVED_AGAIN[how]
    for c, class_name in enumerate(("cat", "dog")):
        for i in range(8):
            content = picture(100 * c + i, (100, 90), mode, suffix)
            write(root / class_name / f"{i}.{suffix}", content)
            other, copy = _again(content, how)
            assert copy != content
            write(root / class_name / f"{i} (1).{other}", copy)
    return root


@pytest.mark.parametrize("how", SAVED_AGAIN)
@pytest.mark.filterwarnings("ignore:.*which they count as one")
def test_a_picture_saved_again_stays_with_itself_at_every_size(tmp_path, how):
    """Groups are of the files' own pixels, so that all sizes have the same parts."""
    root = _write_twice(tmp_path / "mine", how)
    fractions = {"validation_fraction": 0.2, "calibration_fraction": 0.2}
    found = []
    for size, fit in [(16, "pad"), (16, "crop"), (128, "pad")]:
        data = load(f"folder:{root}", image_size=size, fit=fit, seed=1, **fractions)
        groups = [p.groups.tolist() for p in data.parts.values()]
        found.append(groups)
        sizes = [np.unique(each, return_counts=True)[1] for each in groups]
        assert all((each == 2).all() for each in sizes)
        assert sum(map(len, sizes)) == 16
    assert found[0] == found[1] == found[2]


def test_pictures_that_are_equal_only_when_they_are_small_are_not_copies(tmp_path):
    root = tmp_path / "mine"
    for i, class_name in itertools.product(range(5), ("cat", "dog")):
        image = np.full((32, 32, 1), 100, np.uint8)
        image[i, int(class_name == "dog")] = 101
        write(root / class_name / f"{i}.png", pictures.encode(image))
        larger = Image.new("L", (40 + i, 40 + i), 100)
        larger.save(root / class_name / f"larger {i}.png")
        larger.resize((60, 40 + i)).save(root / class_name / f"wider {i}.png")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", DatasetWarning)
        data = load(f"folder:{root}", image_size=2, fit="crop")
    assert not any("count as one" in str(each.message) for each in told)
    images = np.concatenate([p.images for p in data.parts.values()])
    assert len(np.unique(images, axis=0)) == 1
    groups = np.concatenate([p.groups for p in data.parts.values()])
    # Those of one size are the same in both classes, and these alone.
    assert len(np.unique(groups)) == 10 + 10


def test_a_picture_saved_again_for_testing_is_told_though_it_looks_another(tmp_path):
    root = tmp_path / "mine"
    files = itertools.product(("train", "test"), ("cat", "dog"), range(2))
    for seed, (part, class_name, i) in enumerate(files):
        write(root / part / class_name / f"{i}.png", picture(seed, (90, 90)))
    content = picture(99, (90, 90), suffix="jpg")
    write(root / "train/cat/photo.jpg", content)
    write(root / "test/cat/photo.png", _again(content, "decoded")[1])
    with pytest.warns(DatasetWarning, match="1 groups lie both in train and in test"):
        load(f"folder:{root}", image_size=16)


def test_a_class_without_test_pictures_is_told(tmp_path):
    root = write_folder(tmp_path / "mine")
    shutil.rmtree(root / "test" / "dog")
    with pytest.warns(DatasetWarning, match=r"without a test image.*dog \(6 in train"):
        assert load_folder(root).counts("test").tolist() == [6, 0]


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


def _case(root):
    (root / "train" / "dog").rename(root / "train" / "Dog")


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
        (_case, "dog lie only in 'test'.*did you mean 'Dog'"),
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
    for path in (root, root / "cat"):
        with pytest.raises(DatasetError, match="two or more class folders are needed"):
            load_folder(path)


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


def test_own_parts_are_used_and_not_divided_again(tmp_path):
    root = write_folder(
        tmp_path / "mine", parts=("Training", "val", "calibration", "TEST")
    )
    data = load_folder(root, validation_fraction=0.5, calibration_fraction=0.2)
    assert [len(part.labels) for part in data.parts.values()] == [12, 12, 12, 12]


def test_the_split_is_of_files_whatever_the_size(tmp_path):
    """8 pixels blur differences that 32 pixels show; the files stay the same."""
    root = tmp_path / "mine"
    for c, class_name in enumerate(("cat", "dog")):
        for i in range(20):
            image = np.zeros((32, 32), np.uint8)
            image[16 * c + i // 2, i] = 255  # vanishes when it shrinks to one pixel
            write(root / class_name / f"{i}.png", pictures.encode(image[..., None]))
    settings = {"validation_fraction": 0.3, "calibration_fraction": 0.2, "seed": 5}
    large = load(f"folder:{root}", image_size=32, **settings)
    with pytest.warns(DatasetWarning):
        small = load(f"folder:{root}", image_size=2, **settings)
    for part in large.parts:
        shrunk = pictures.resize_all(large.parts[part].images, 2)
        assert (shrunk == small.parts[part].images).all()
        assert (large.parts[part].labels == small.parts[part].labels).all()


@pytest.mark.parametrize(
    ("pattern", "file_name", "number"),
    [
        (r"p\d+", "p{g}_{i}.png", 5),
        (".*/", "series {g}/{i}.png", 10),
        (r"/(\d)", "{g}{i}.png", 5),
    ],
)
def test_groups_are_stated_by_a_pattern(tmp_path, pattern, file_name, number):
    root = tmp_path / "mine"
    for c, class_name in enumerate(("cat", "dog")):
        for g, i in itertools.product(range(5), range(3)):
            path = root / "train" / class_name / file_name.format(g=g, i=i)
            write(path, picture(100 * c + 10 * g + i))
    data = load_folder(root, groups=pattern, validation_fraction=0.3)
    groups = [set(p.groups) for p in data.parts.values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == number
    assert all(
        np.unique(p.groups, return_counts=True)[1].min() >= 3
        for p in (data.parts["train"], data.parts["validation"], data.parts["test"])
    )


def test_a_pattern_that_finds_nothing_is_refused(tmp_path):
    root = write_folder(tmp_path / "mine")
    with pytest.raises(DatasetError, match="found in no picture's path"):
        load_folder(root, groups="patient")
    with pytest.raises(DatasetError, match="no regular expression"):
        load_folder(root, groups="(")
    shutil.rmtree(root / "test")
    with pytest.warns(DatasetWarning, match=r"not found in .*cat/3.jpg"):
        load_folder(root, groups=r"dog/\d|cat/0\.png")
    with pytest.raises(DatasetError, match=r"groups is a pattern for folder.*digits$"):
        load("digits", groups="x")
    with pytest.raises(DatasetError, match="groups is '', which is found everywhere"):
        load_folder(root, groups="")


@pytest.mark.parametrize("groups", ["patient", "("])
def test_what_names_alone_tell_is_told_before_pictures_are_decoded(
    tmp_path, monkeypatch, groups
):
    root = write_folder(tmp_path / "mine")
    monkeypatch.delattr("camri_jax.datasets.pictures.decode")
    with pytest.raises(DatasetError, match="groups is "):
        load_folder(root, groups=groups)
    (root / "train" / "empty").mkdir()
    with pytest.raises(DatasetError, match="without a training picture: empty"):
        load_folder(root)


@pytest.mark.parametrize("copied", [False, True])
def test_a_copy_hides_no_other_group_that_lies_in_two_parts(tmp_path, copied):
    root = write_folder(tmp_path / "mine")
    if copied:
        shutil.copy(root / "train/cat/0.png", root / "test/cat/0 again.png")
    with pytest.warns(DatasetWarning) as told:
        load_folder(root, groups=r"/(\d)")
    notes = [str(each.message) for each in told]
    assert any("6 groups lie both in train and in test" in note for note in notes)
    assert any("1 test images are copies" in note for note in notes) == copied


def test_a_copy_is_told_once_and_not_as_a_group_too(tmp_path):
    root = write_folder(tmp_path / "mine")
    shutil.copy(root / "train/cat/0.png", root / "test/cat/copy.png")
    with pytest.warns(DatasetWarning) as told:
        load_folder(root)
    assert not any("groups" in str(each.message) for each in told)


@pytest.mark.parametrize("name", ["digits", "npz:absent.npz", "mnist", "awa2"])
def test_a_fit_that_would_be_ignored_is_refused(name):
    message = "fit is 'crop', which is for folder:PATH; for other data it must be 'pad'"
    with pytest.raises(DatasetError, match=message):
        load(name, fit="crop")


@pytest.mark.parametrize("fit", ["pad", "crop", "stretch"])
def test_a_models_fit_is_for_folders_and_no_matter_for_other_data(tmp_path, fit):
    assert load_labelled("digits", image_size=8, fit=fit).counts("test").all()
    root = write_folder(tmp_path / "mine", each=1)
    data = load_labelled(f"folder:{root}", image_size=8, fit=fit)
    assert data.fit == fit
    assert len(load("digits", fit="pad").test_labels)


def test_a_group_in_train_and_in_test_is_told(tmp_path):
    root = write_folder(tmp_path / "mine")
    with pytest.warns(DatasetWarning, match="6 groups lie both in train and in test"):
        load_folder(root, groups=r"/(\d)")


def _deep(folder, most, suffix="png", number=6):
    for c, class_name in enumerate(("a", "b")):
        for i in range(number):
            values = np.random.default_rng(10 * c + i).integers(0, most, (8, 8))
            path = folder / class_name / f"{i}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values.astype(np.uint16)).save(path)
    return folder


@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_deep_pictures_fill_eight_bits(tmp_path, bits, suffix):
    root = _deep(tmp_path / "xray", 2**bits, suffix)
    with pytest.warns(DatasetWarning, match=f"upper 8 of {bits} bits are kept"):
        data = load_folder(root)
    assert data.train_images.max() > 240


def test_pictures_are_read_again_as_they_were_loaded(tmp_path):
    """What a trained model is given is what training saw, to the bit."""
    root = _deep(tmp_path / "xray" / "train", 4096).parent
    with pytest.warns(DatasetWarning, match="12 bits"):
        data = load_folder(root, fit="crop")
    assert (data.fit, data.bits) == ("crop", 12)
    paths = [root / "train" / name / f"{i}.png" for name in "ab" for i in range(6)]
    again = read_images(paths, data.train_images.shape[1:], data.fit, data.bits)
    loaded = {bytes(image) for p in data.parts.values() for image in p.images}
    assert {bytes(image) for image in again} == loaded


def test_deep_pictures_have_one_scale(tmp_path):
    """A dark one of 12 bits does not become as bright as the others."""
    root = _deep(tmp_path / "xray", 4096)
    dark = np.arange(137, 201).reshape(8, 8).astype(np.uint16)
    Image.fromarray(dark).save(root / "a" / "dark.png")
    with pytest.warns(DatasetWarning, match="12 bits"):
        data = load_folder(root)
    images = np.concatenate([data.train_images, data.test_images])
    assert min(image.max() for image in images) == 200 >> 4


def test_what_is_lost_of_a_picture_is_told(tmp_path):
    root = write_folder(tmp_path / "mine", each=3)
    Image.new("RGBA", (9, 9), (0, 0, 0, 0)).save(root / "train/cat/logo.png")
    frames = [Image.new("L", (9, 9), i) for i in (40, 80)]
    frames[0].save(root / "train/dog/film.gif", save_all=True, append_images=frames[1:])
    Image.new("L", (400, 2), 9).save(root / "train/dog/line.png")
    with pytest.warns(DatasetWarning) as caught:
        load_folder(root)
    said = " | ".join(str(warning.message) for warning in caught)
    assert "transparent, with black behind it: train/cat/logo.png" in said
    assert "one colour only: train/cat/logo.png, train/dog/film.gif" in said
    assert "the first is read: train/dog/film.gif" in said
    assert "longer than wide: train/dog/line.png" in said


def test_more_than_memory_holds_is_refused_before_it_is_tried(tmp_path, monkeypatch):
    root = write_folder(tmp_path / "mine")
    few = type("Memory", (), {"available": 1000})
    monkeypatch.setattr("psutil.virtual_memory", few)
    with pytest.raises(DatasetError, match=r"24 images of 8x8 need .* image_size"):
        load_folder(root)


def _swap(root):
    one, two, aside = root / "train/cat/0.png", root / "train/dog/0.png", root / "aside"
    one.rename(aside)
    two.rename(one)
    aside.rename(two)


def _rewrite(root):
    path = root / "train/cat/0.png"
    status = path.stat()
    write(path, (root / "train/dog/0.png").read_bytes())
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _move_to_another_class(root):
    (root / "train/cat/0.png").rename(root / "train/dog/moved.png")


def _rename_class(root):
    for part in ("train", "test"):
        (root / part / "cat").rename(root / part / "lynx")


@pytest.mark.parametrize(
    "edit", [_swap, _rewrite, _move_to_another_class, _rename_class]
)
def test_edits_that_keep_size_and_time_are_seen(tmp_path, edit):
    root = tmp_path / "mine"
    for part, c, i in itertools.product(("train", "test"), range(2), range(4)):
        seed = 100 * len(part) + 10 * c + i
        path = root / part / ("cat", "dog")[c] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(seed, 8, 8)).save(path, "bmp")
        os.utime(path, (1_700_000_000, 1_700_000_000))
    before = load_folder(root).fingerprint
    edit(root)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DatasetWarning)
        assert load_folder(root).fingerprint != before


def test_a_copy_elsewhere_is_the_same_data(tmp_path):
    root = write_folder(tmp_path / "mine")
    shutil.copytree(root, tmp_path / "far" / "away")
    one, two = load_folder(root), load_folder(tmp_path / "far" / "away")
    assert one.fingerprint == two.fingerprint
