"""The way in: names, arguments, digits, class names, fingerprints."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from camri_jax.datasets import DatasetError, class_index, load
from camri_jax.datasets.dataset import digest, make_dataset


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
    assert (one.test_images == two.test_images).all()
    assert not np.array_equal(one.validation_images, two.validation_images)


def test_digits_are_resized():
    assert load("digits", image_size=12).test_images.shape[1:] == (12, 12, 1)


def test_digits_without_scikit_learn_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"pip install 'camri-jax\[experiments\]'"):
        load("digits")


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 2.0, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(DatasetError, match="validation_fraction is"):
        load("digits", validation_fraction=fraction)


@pytest.mark.parametrize("image_size", [0, -1, 5000])
def test_an_image_size_out_of_range_is_refused(image_size):
    with pytest.raises(DatasetError, match="image_size is"):
        load("digits", image_size=image_size)


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


def test_a_data_directory_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DatasetError, match="nowhere: there is no such data directory"):
        load("cifar10", data_dir=tmp_path / "nowhere")


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
        (5, "5 is outside 0..4"),
        ("-1", "-1 is outside 0..4"),
    ],
)
def test_an_unknown_class_is_answered_with_the_nearest(wanted, message):
    with pytest.raises(DatasetError, match=message):
        class_index(_SIGNS, wanted)


def test_the_fingerprint_changes_with_the_content():
    images = np.zeros([4, 2, 2, 1], np.uint8)
    labels = np.array([0, 1, 0, 1], np.int32)
    other_pixel, other_label = images.copy(), labels.copy()
    other_pixel[3, 1, 1, 0], other_label[0] = 1, 1
    fingerprints = {
        make_dataset((images, labels), (images, labels), ("a", "b")).fingerprint,
        make_dataset((other_pixel, labels), (images, labels), ("a", "b")).fingerprint,
        make_dataset((images, labels), (other_pixel, labels), ("a", "b")).fingerprint,
        make_dataset((images, other_label), (images, labels), ("a", "b")).fingerprint,
        make_dataset((images, labels), (images, labels), ("a", "c")).fingerprint,
        make_dataset((images, labels), None, ("a", "b")).fingerprint,
    }
    assert len(fingerprints) == 6


def test_the_fingerprint_changes_with_the_split_only():
    def fingerprint(**settings):
        return load("digits", **settings).fingerprint

    assert fingerprint() == fingerprint(seed=1)
    split = fingerprint(validation_fraction=0.1)
    assert split == fingerprint(validation_fraction=0.1)
    assert split != fingerprint(validation_fraction=0.1, seed=1)
    assert split != fingerprint(validation_fraction=0.2)


def test_a_digest_keeps_its_parts_apart():
    assert digest("ab", "c") != digest("a", "bc")
    assert digest(np.zeros(2, np.uint8)) != digest(np.zeros([2, 1], np.uint8))


def test_a_dataset_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        load("digits").class_names = ()  # pyright: ignore[reportAttributeAccessIssue]
