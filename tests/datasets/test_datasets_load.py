"""The way in: names, arguments, digits, class names, fingerprints."""

import copy
import dataclasses
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from camri_jax._files import UsageError
from camri_jax.datasets import (
    PARTS,
    DatasetError,
    Part,
    class_index,
    class_indices,
    load,
    load_labelled,
)
from camri_jax.datasets.dataset import digest, make_dataset, part_of


def test_digits_are_8x8_and_cover_the_range():
    dataset = load("digits")
    assert dataset.train_images.shape[1:] == (8, 8, 1)
    assert len(dataset.train_labels) + len(dataset.test_labels) == 1797
    assert dataset.train_images.dtype == np.uint8
    assert dataset.train_labels.dtype == np.int32
    assert (dataset.train_images.min(), dataset.train_images.max()) == (0, 255)
    assert dataset.class_names == tuple("0123456789")
    assert dataset.validation_images.shape == (0, 8, 8, 1)


def test_digits_have_the_same_test_part_for_every_seed():
    one, two = (load("digits", validation_fraction=0.2, seed=seed) for seed in (1, 2))
    large = load("digits", validation_fraction=0.2, seed=1, image_size=16)
    assert (one.test_images == two.test_images).all()
    assert (one.validation_labels == large.validation_labels).all()
    assert not np.array_equal(one.validation_images, two.validation_images)


def test_digits_are_resized():
    assert load("digits", image_size=12).test_images.shape[1:] == (12, 12, 1)


def test_digits_without_scikit_learn_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"pip install 'camri-jax\[experiments\]'"):
        load("digits")


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 2.0, float("nan"), "0.2", None])
def test_a_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(DatasetError, match="validation_fraction is"):
        load("digits", validation_fraction=fraction)


@pytest.mark.parametrize("name", [Path("folder:x"), 3, None])
def test_a_name_that_is_no_text_is_refused(name):
    with pytest.raises(DatasetError, match=r"^name is .*; it must be a text"):
        load(name)
    with pytest.raises(DatasetError, match=r"^name is .*; it must be a text"):
        load_labelled(name, image_size=8, fit="pad")


@pytest.mark.parametrize("part", ["validation", "calibration"])
def test_each_part_has_its_fraction(part):
    data = load("digits", **{f"{part}_fraction": 0.25})
    whole = load("digits").counts("train")
    assert (abs(data.counts(part) - whole / 4) <= 0.5).all()
    assert (data.counts(part) + data.counts("train") == whole).all()


def test_calibration_takes_nothing_from_validation():
    one = load("digits", validation_fraction=0.2, seed=3)
    two = load("digits", validation_fraction=0.2, calibration_fraction=0.3, seed=3)
    assert (one.validation_images == two.validation_images).all()
    assert tuple(two.parts) == PARTS
    images = [set(map(bytes, two.parts[part].images)) for part in PARTS]
    assert sum(map(len, images)) == len(set.union(*images))


def test_fractions_that_leave_nothing_are_refused():
    with pytest.raises(DatasetError, match="leave nothing to train on"):
        load("digits", validation_fraction=0.5, calibration_fraction=0.5)


@pytest.mark.parametrize("image_size", [0, -1, 5000, 8.5, "8", True])
def test_an_image_size_out_of_range_is_refused(image_size):
    with pytest.raises(UsageError, match="image_size must be"):
        load("digits", image_size=image_size)


@pytest.mark.parametrize("seed", [-1, 0.5, None, True])
def test_a_seed_that_is_none_is_refused(seed):
    with pytest.raises(UsageError, match="seed must be"):
        load("digits", seed=seed)


def test_integers_of_numpy_are_integers():
    two = load("digits", image_size=np.int32(9), seed=np.uint8(2))
    assert two.train_images.shape[1] == 9


def test_what_a_user_can_mend_is_a_usage_error():
    with pytest.raises(UsageError):
        load("nothing")


def test_an_unknown_fit_is_refused():
    with pytest.raises(DatasetError, match="'pad' or 'crop'"):
        load("digits", fit="squash")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("name", "offered"),
    [
        ("cifar-10", "cifar10"),
        ("CIFAR10", "cifar10"),
        ("gtrsb", "gtsrb"),
        ("awa", "awa2"),
        ("minst", "mnist"),
        ("npz", "npz:FILE"),
        ("folder", "folder:PATH"),
        ("xyzzy", "digits, mnist, cifar10, gtsrb, awa2"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, offered):
    with pytest.raises(DatasetError, match=offered):
        load(name)


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("folder:{}/a.npz", "npz:"),
        ("{}/a.npz", "npz:"),
        ("npz:{}", "folder:"),
        ("{}", "folder:"),
        ("npz:{}/a.zip", "folder:"),
        ("zip:{}/a.zip", "folder:"),
    ],
)
def test_another_kind_of_path_is_told(tmp_path, name, right):
    with pytest.raises(DatasetError, match=f"must be called '{right}"):
        load(name.format(tmp_path))


def test_a_data_directory_that_is_not_there_is_named(tmp_path):
    for name in ("cifar10", "digits", f"folder:{tmp_path}"):
        with pytest.raises(DatasetError, match="nowhere: there is no such data dir"):
            load(name, data_dir=tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_missing_directory_of_the_environment_matters_where_it_is_used(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("CAMRI_DATA_DIR", str(tmp_path / "unmounted"))
    assert len(load("digits").test_labels)
    with pytest.raises(DatasetError, match="unmounted: there is no such data dir"):
        load("mnist")


def test_a_home_is_put_for_its_sign(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("npz:~/mine.npz", "folder:~/mine"):
        with pytest.raises(DatasetError, match=str(tmp_path / "mine")):
            load(name)


def test_importing_the_package_imports_no_loader():
    program = (
        "import sys, camri_jax.datasets; "
        "heavy = {'jax', 'tensorflow_datasets', 'sklearn', 'flax', 'pandas'}; "
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], stderr=subprocess.PIPE)
    assert done.returncode == 0, done.stderr


_SIGNS = ("stop", "yield", "no passing", "end of no passing", "7")


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        ("stop", 0),
        ("Stop ", 0),
        ("no passing", 2),
        (1, 1),
        ("1", 1),
        (np.int64(3), 3),
        ("7", 4),  # a name wins over an index
    ],
)
def test_a_class_is_found_by_name_or_index(wanted, index):
    assert class_index(_SIGNS, wanted) == index


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("stopp", "did you mean 'stop'"),
        ("end of no pasing", "did you mean 'end of no passing'"),
        ("zebra", "there are 'stop', 'yield'"),
        ("", "there are 'stop', 'yield'"),
        (5, "5 is outside 0..4"),
        ("-1", "-1 is outside 0..4"),
    ],
)
def test_an_unknown_class_is_answered_with_the_nearest(wanted, message):
    with pytest.raises(DatasetError, match=message):
        class_index(_SIGNS, wanted)


@pytest.mark.parametrize(
    ("names", "wanted", "index"),
    [
        (("c++", "c", "a+b"), "C++", 0),
        (("c++", "c", "a+b"), "A+B", 2),
        (("caf\u00e9", "tea"), "cafe\u0301", 0),
        (("A", "a"), "a", 1),
    ],
)
def test_signs_in_names_are_nothing_special(names, wanted, index):
    assert class_index(names, wanted) == index


@pytest.mark.parametrize(
    ("names", "given", "indices"),
    [
        (("a", "b", "a+b"), "A+B", (2,)),
        (("a", "b", "a+b"), "b+a", (0, 1)),
        (("a", "b", "a+b"), ("b", "a", "b"), (0, 1)),
        (("2", "10", "0"), (2,), (2,)),
        (("2", "10", "0"), np.int64(0), (0,)),
        (("2", "10", "0"), "2", (0,)),
    ],
)
def test_a_choice_is_its_classes_in_order(names, given, indices):
    assert class_indices(names, given) == indices


@pytest.mark.parametrize("given", ["a+c", (), (7,), "+"])
def test_a_choice_of_no_class_is_refused(given):
    with pytest.raises(DatasetError):
        class_indices(("a", "b", "7"), given)


def test_two_classes_that_differ_in_case_are_not_confused():
    with pytest.raises(DatasetError, match="may be 'Stop' or 'stop'"):
        class_index(("Stop", "stop"), "STOP")


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("TRAIN", "train"),
        ("training", "train"),
        ("Training_Set", "train"),
        ("valid", "validation"),
        ("dev", "validation"),
        ("Val", "validation"),
        ("calib", "calibration"),
        ("Testing", "test"),
        ("test-images", "test"),
        ("trainer", None),
        ("station", None),
        ("protest", None),
        ("", None),
    ],
)
def test_parts_are_known_by_their_usual_names(name, part):
    assert part_of(name) == part


def test_the_fingerprint_changes_with_the_content():
    images = np.zeros([4, 2, 2, 1], np.uint8)
    labels = np.array([0, 1, 0, 1], np.int32)
    other_pixel, other_label = images.copy(), labels.copy()
    other_pixel[3, 1, 1, 0], other_label[0] = 1, 1
    part, pixel, label = (
        Part(images, labels),
        Part(other_pixel, labels),
        Part(images, other_label),
    )
    made = [
        make_dataset("mine", {"train": part, "test": part}, ("a", "b")),
        make_dataset("mine", {"train": pixel, "test": part}, ("a", "b")),
        make_dataset("mine", {"train": part, "test": pixel}, ("a", "b")),
        make_dataset("mine", {"train": part, "calibration": part}, ("a", "b")),
        make_dataset("mine", {"train": label, "test": part}, ("a", "b")),
        make_dataset("mine", {"train": part, "test": part}, ("a", "c")),
        make_dataset("mine", {"train": part}, ("a", "b")),
        make_dataset("mine", {"train": Part(images, labels, labels)}, ("a", "b")),
    ]
    assert len({dataset.fingerprint for dataset in made}) == len(made)
    renamed = make_dataset("yours", {"train": part, "test": part}, ("a", "b"))
    assert renamed.fingerprint == made[0].fingerprint


def test_the_fingerprint_changes_with_the_split_only():
    def fingerprint(**settings):
        return load("digits", **settings).fingerprint

    assert fingerprint() == fingerprint(seed=1)
    split = fingerprint(validation_fraction=0.1)
    assert split == fingerprint(validation_fraction=0.1)
    assert split != fingerprint(validation_fraction=0.1, seed=1)
    assert split != fingerprint(validation_fraction=0.2)
    assert split != fingerprint(calibration_fraction=0.1)


def test_a_digest_keeps_its_parts_apart():
    assert digest("ab", "c") != digest("a", "bc")
    assert digest(np.zeros(2, np.uint8)) != digest(np.zeros([2, 1], np.uint8))


def test_a_dataset_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        load("digits").class_names = ()  # pyright: ignore[reportAttributeAccessIssue]


def test_a_dataset_survives_copies_and_pickles():
    data = load("digits")
    for other in (copy.deepcopy(data), pickle.loads(pickle.dumps(data))):
        assert (other.test_images == data.test_images).all()
    with pytest.raises(AttributeError, match="no 'train_pictures'"):
        data.train_pictures  # noqa: B018
