"""The user's own arrays, good and bad."""

import numpy as np
import pytest

from camri_jax.datasets import DatasetError, load

_RNG = np.random.default_rng(0)


def _arrays(**changes):
    arrays = {
        "train_images": _RNG.integers(0, 256, (12, 6, 5, 3), dtype=np.uint8),
        "train_labels": np.arange(12) % 3,
        "test_images": _RNG.integers(0, 256, (6, 6, 5, 3), dtype=np.uint8),
        "test_labels": np.arange(6) % 3,
    }
    arrays |= changes
    return {name: array for name, array in arrays.items() if array is not None}


@pytest.fixture
def save(tmp_path):
    def save(**changes):
        np.savez(tmp_path / "mine.npz", **_arrays(**changes))
        return f"npz:{tmp_path / 'mine.npz'}"

    return save


def test_arrays_come_back(save):
    arrays = _arrays()
    dataset = load(save(**arrays))
    assert (dataset.train_images == arrays["train_images"]).all()
    assert (dataset.test_labels == arrays["test_labels"]).all()
    assert dataset.test_labels.dtype == np.int32
    assert dataset.class_names == ("0", "1", "2")


def test_grey_images_get_a_channel(save):
    grey = np.zeros([12, 4, 4], np.uint8)
    dataset = load(save(train_images=grey, test_images=grey[:6]))
    assert dataset.train_images.shape == (12, 4, 4, 1)


def test_images_are_resized(save):
    assert load(save(), image_size=9).train_images.shape == (12, 9, 9, 3)


def test_class_names_may_be_in_any_script(save):
    names = np.array(["кошка", "собака", "two words"])
    assert load(save(class_names=names)).class_names == ("кошка", "собака", "two words")


def test_a_validation_part_of_the_file_is_kept(save):
    images, labels = np.ones([3, 6, 5, 3], np.uint8), np.arange(3)
    name = save(validation_images=images, validation_labels=labels)
    dataset = load(name, validation_fraction=0.5)
    assert (dataset.validation_images == images).all()
    assert len(dataset.train_labels) == 12


def test_tracks_are_not_cut(save):
    track = np.array([0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5])
    dataset = load(save(train_track=track), validation_fraction=0.5)
    assert dataset.train_groups is not None
    assert dataset.validation_groups is not None
    assert not set(dataset.train_groups) & set(dataset.validation_groups)


_BAD = {
    "lacks test_labels": {"test_labels": None},
    "there are no validation_labels": {
        "validation_images": np.zeros([2, 6, 5, 3], np.uint8)
    },
    "there are no validation_images": {"validation_labels": np.arange(2)},
    "train_images are float64": {"train_images": np.zeros([12, 6, 5, 3])},
    "train_images are uint8 .12, 5": {"train_images": np.zeros([12, 5], np.uint8)},
    "1 or 3": {"train_images": np.zeros([12, 6, 5, 4], np.uint8)},
    "are empty": {
        "train_images": np.zeros([0, 6, 5, 3], np.uint8),
        "train_labels": np.zeros(0, np.int64),
    },
    "one for each of train_images": {"train_labels": np.arange(11) % 3},
    "train_labels are float64": {"train_labels": np.arange(12) / 1.0},
    "all parts must have one size": {"test_images": np.zeros([6, 8, 8, 3], np.uint8)},
    "span -1": {"train_labels": np.arange(12) % 3 - 1},
    "span 0..2; they must lie in 0..1": {"class_names": np.array(["a", "b"])},
    "class_names must be different": {"class_names": np.array(["a", "b", "a"])},
    "class_names must be": {"class_names": np.arange(3)},
    "no example of class 1:": {"train_labels": np.arange(12) % 2 * 2},
    "all but one": {
        "train_labels": np.zeros(12, np.int64),
        "test_labels": np.zeros(6, np.int64),
    },
    "train_track is int64 .11": {"train_track": np.arange(11)},
}


@pytest.mark.parametrize("message", _BAD)
def test_bad_arrays_are_named(save, message):
    with pytest.raises(DatasetError, match=message) as caught:
        load(save(**_BAD[message]))
    assert "mine.npz" in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"absent\.npz: no such file"):
        load(f"npz:{tmp_path / 'absent.npz'}")


@pytest.mark.parametrize(
    "content", [b"<!DOCTYPE html><html>404</html>", b"", b"\x93NUMPY", b"PK\x03\x04..."]
)
def test_another_kind_of_file_is_named(tmp_path, content):
    path = tmp_path / "page.npz"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"page.npz is not a readable .npz"):
        load(f"npz:{path}")


def test_a_truncated_file_is_named(save, tmp_path):
    save()
    path = tmp_path / "mine.npz"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DatasetError, match=r"mine.npz is not a readable .npz"):
        load(f"npz:{path}")


def test_a_damaged_file_is_named(save, tmp_path):
    save()
    path = tmp_path / "mine.npz"
    content = bytearray(path.read_bytes())
    content[1000] ^= 255
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"mine\.npz is not a readable .npz"):
        load(f"npz:{path}")


def test_python_objects_are_not_unpickled(tmp_path):
    names = np.array(["a", {"not": "a name"}], dtype=object)
    np.savez(tmp_path / "evil.npz", **_arrays(class_names=names))
    with pytest.raises(DatasetError, match=r"evil\.npz is not a readable"):
        load(f"npz:{tmp_path / 'evil.npz'}")
