"""The user's own arrays, good and bad."""

import resource
import time

import numpy as np
import pytest

from camri_jax.datasets import DatasetError, DatasetWarning, load

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
    grey = _RNG.integers(0, 256, (18, 4, 4), dtype=np.uint8)
    dataset = load(save(train_images=grey[:12], test_images=grey[12:]))
    assert dataset.train_images.shape == (12, 4, 4, 1)


def test_images_are_resized(save):
    assert load(save(), image_size=9).train_images.shape == (12, 9, 9, 3)


def test_class_names_may_be_in_any_script(save):
    names = np.array(["кошка", "собака", "two words"])
    assert load(save(class_names=names)).class_names == ("кошка", "собака", "two words")


def test_a_validation_part_of_the_file_is_kept(save):
    images = _RNG.integers(0, 256, (3, 6, 5, 3), dtype=np.uint8)
    labels = np.arange(3)
    name = save(validation_images=images, validation_labels=labels)
    dataset = load(name, validation_fraction=0.5)
    assert (dataset.validation_images == images).all()
    assert len(dataset.train_labels) == 12


@pytest.mark.parametrize("name", ["train_track", "train_groups"])
@pytest.mark.parametrize("kind", ["U", "i8", "i8 large", "latin-1", "utf-8"])
def test_tracks_are_not_cut(save, name, kind):
    track = np.array([0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5])
    if kind in ("latin-1", "utf-8"):
        track = np.char.encode(np.array(list("äöüßéñ"))[track], kind)
    else:
        track = track + 2**40 if "large" in kind else track.astype(kind)
    dataset = load(save(**{name: track}), validation_fraction=0.5)
    groups = [dataset.parts[part].groups for part in ("train", "validation")]
    assert groups[0].dtype == np.int32
    assert not set(groups[0]) & set(groups[1])
    assert [np.unique(g, return_counts=True)[1].tolist() for g in groups] == [
        [2] * 3
    ] * 2


def test_a_group_in_train_and_in_test_is_told(save):
    name = save(train_groups=np.arange(12), test_groups=np.arange(6) + 10)
    with pytest.warns(DatasetWarning, match="2 groups lie both in train and in test"):
        load(name)


def test_groups_as_python_objects_may_be_saved_as_strings(save):
    name = save(train_groups=np.array(list("abcdefghijkl"), object))
    with pytest.raises(DatasetError, match=r"train_groups .* numbers or strings"):
        load(name)


def test_arrays_may_be_larger_than_a_picture_may(save, monkeypatch):
    name = save()
    monkeypatch.setattr("camri_jax.datasets.trees._MAX_BYTES", 100)
    assert len(load(name).train_labels) == 12


def test_a_class_too_small_after_the_test_part_is_told_why(save):
    labels = np.array([0] * 9 + [1] * 3)
    name = save(test_images=None, test_labels=None, train_labels=labels)
    with pytest.raises(DatasetError, match=r"'1' has 2 .* 20% of each class became"):
        load(name, validation_fraction=0.1, calibration_fraction=0.1)


def test_without_a_test_part_a_fifth_is_held_out(save):
    name = save(test_images=None, test_labels=None)
    assert load(name).counts("test").tolist() == [1, 1, 1]


def _renamed(part, images="{}_images", labels="{}_labels"):
    arrays = _arrays()
    kept = {n: a for n, a in arrays.items() if not n.startswith("test")}
    kept |= {images.format(part): arrays["test_images"]}
    return kept | {labels.format(part): arrays["test_labels"]}


@pytest.mark.parametrize(
    ("part", "expected", "names"),
    [
        ("val", "validation", ()),
        ("Valid", "validation", ()),
        ("CALIB", "calibration", ()),
        ("testing", "test", ()),
        ("test", "test", ("x_{}", "y_{}")),
        ("val", "validation", ("X_{}", "Y_{}")),
    ],
)
def test_parts_have_their_usual_names(tmp_path, part, expected, names):
    np.savez(tmp_path / "mine.npz", **_renamed(part, *names))
    data = load(f"npz:{tmp_path / 'mine.npz'}")
    assert len(data.parts[expected].labels) == 6


@pytest.mark.parametrize(
    ("extra", "hint"),
    [
        ("tset_images", "test_images"),
        ("class_name", "class_names"),
        ("train_image", "train_images"),
        ("ids", "there are"),
    ],
)
def test_arrays_that_are_not_read_are_named(save, extra, hint):
    with pytest.warns(DatasetWarning, match=rf"not read: {extra} \(.*{hint}"):
        load(save(**{extra: np.arange(3)}))


def test_two_names_of_one_array_are_refused(save):
    name = save(val_labels=np.arange(3), validation_labels=np.arange(3))
    with pytest.raises(DatasetError, match="are both validation_labels"):
        load(name)


def test_labels_in_a_column_are_labels(save):
    data = load(save(train_labels=(np.arange(12) % 3)[:, None].astype(np.uint8)))
    assert data.train_labels.tolist() == [0, 1, 2] * 4


def test_two_classes_may_be_true_and_false(save):
    truth = np.arange(12) % 2 == 1
    assert load(save(train_labels=truth, test_labels=truth[:6])).train_labels.sum() == 6


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_features_come_back_as_float32(save, dtype):
    rng = np.random.default_rng(0)
    arrays = {
        "train_features": rng.normal(size=(12, 7)).astype(dtype),
        "test_features": rng.normal(size=(6, 7)).astype(dtype),
        "train_images": None,
        "test_images": None,
    }
    data = load(save(**arrays), validation_fraction=0.3)
    assert data.test_images.dtype == np.float32
    assert data.test_images.shape == (6, 7)
    assert data.validation_images.shape == (3, 7)
    with pytest.raises(DatasetError, match="holds features, not images"):
        load(save(**arrays), image_size=8)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_features_that_are_no_numbers_are_counted(save, value):
    features = np.ones([12, 3]) * np.arange(12)[:, None]
    features[4, 1] = value
    with pytest.raises(DatasetError, match="train_images hold 1 values"):
        load(save(train_images=features, test_images=None, test_labels=None))


@pytest.mark.parametrize(
    "labels", [(0, 1, 2_026_010), (0, 1, 2**32 + 1), (0, 1, 2**62), (5, 6, 7)]
)
def test_labels_that_are_other_numbers_are_refused_at_once(save, labels):
    column = np.array(labels)[np.arange(12) % 3]
    name = save(train_labels=column, test_labels=column[:6])
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.time()
    with pytest.raises(DatasetError, match=r"span|no example of class") as caught:
        load(name)
    assert len(str(caught.value)) < 500
    assert time.time() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_an_array_larger_than_memory_is_refused(save, monkeypatch):
    name = save()
    few = type("Memory", (), {"available": 1000})
    monkeypatch.setattr("psutil.virtual_memory", few)
    with pytest.raises(DatasetError, match="of free memory are too little"):
        load(name)


def test_a_header_that_promises_more_than_the_file_holds_is_refused(tmp_path):
    import io
    import zipfile

    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"shape": (10**12, 3, 3), "fortran_order": False, "descr": "|u1"}
    )
    with zipfile.ZipFile(tmp_path / "mine.npz", "w") as archive:
        archive.writestr("train_images.npy", file.getvalue())
    with pytest.raises(DatasetError, match="promises"):
        load(f"npz:{tmp_path / 'mine.npz'}")


@pytest.mark.parametrize(
    ("name", "cure"),
    [("class_names", "np.array\\(names, str\\)"), ("train_labels", "numbers")],
)
def test_objects_are_named_with_the_cure(save, name, cure):
    values = np.array(["a", "b", "c"] * 4, dtype=object)
    with pytest.raises(DatasetError, match=f"{name} is an array of Python obj.*{cure}"):
        load(save(**{name: values}))


def test_names_may_be_bytes(save):
    names = np.array(["caf\u00e9".encode(), b"b", b"c"])
    assert load(save(class_names=names)).class_names == ("caf\u00e9", "b", "c")


def test_copies_are_told_and_stay_together(save):
    arrays = _arrays()
    arrays["test_images"][2] = arrays["train_images"][5]
    message = r"1 test images are copies.*test_images\[2\] = train_images\[5\]"
    with pytest.warns(DatasetWarning, match=message):
        load(save(**arrays))
    arrays = _arrays()
    arrays["train_images"][3] = arrays["train_images"][0]
    message = "1 train images are copies of others of their class.*one: train_im"
    for seed in range(5):
        with pytest.warns(DatasetWarning, match=message):
            data = load(save(**arrays), validation_fraction=0.4, seed=seed)
        kept = {bytes(image) for image in data.train_images}
        assert not kept & {bytes(image) for image in data.validation_images}


def test_a_copy_in_another_class_is_told(save):
    arrays = _arrays()
    arrays["train_images"][1] = arrays["train_images"][0]
    message = r"in another class: train_images\[1\] = train_images\[0\]"
    with pytest.warns(DatasetWarning, match=message):
        load(save(**arrays))


def test_a_class_without_images_of_a_part_is_told_with_counts(save):
    arrays = {
        "val_images": _arrays()["test_images"][:2],
        "val_labels": np.array([0, 2]),
    }
    with pytest.warns(DatasetWarning, match=r"without a validation .*: 1 \(4 in train"):
        assert load(save(**arrays)).counts("validation").tolist() == [1, 0, 1]


def test_the_same_file_elsewhere_is_the_same_data(save, tmp_path, monkeypatch):
    one = load(save()).fingerprint
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "other.npz").write_bytes((tmp_path / "mine.npz").read_bytes())
    monkeypatch.chdir(tmp_path)
    for name in ("npz:mine.npz", "npz:./mine.npz", "npz:away/../away/other.npz"):
        assert load(name).fingerprint == one


_BAD = {
    "there are no test_labels": {"test_labels": None},
    "lacks train_images": {"train_images": None},
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
    "12., one for each image": {"train_labels": np.arange(11) % 3},
    "train_labels are float64": {"train_labels": np.arange(12) / 1.0},
    "all parts must have one size": {"test_images": np.zeros([6, 8, 8, 3], np.uint8)},
    "span -1": {"train_labels": np.arange(12) % 3 - 1},
    "span 0..2; they must lie in 0..1": {"class_names": np.array(["a", "b"])},
    "class_names must be different": {"class_names": np.array(["a", "b", "a"])},
    "they must be different strings": {"class_names": np.arange(3)},
    "no example of class 1:": {"train_labels": np.arange(12) % 2 * 2},
    "all but one": {
        "train_labels": np.zeros(12, np.int64),
        "test_labels": np.zeros(6, np.int64),
    },
    "train_groups are int64 .11": {"train_track": np.arange(11)},
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
    with pytest.raises(DatasetError, match=r"evil\.npz: class_names is an array of"):
        load(f"npz:{tmp_path / 'evil.npz'}")


def test_what_names_no_part_is_split(tmp_path):
    arrays = _arrays()
    plain = {"images": arrays["train_images"], "labels": arrays["train_labels"]}
    np.savez(tmp_path / "plain.npz", **plain)
    data = load(f"npz:{tmp_path / 'plain.npz'}")
    counts = [len(part.labels) for part in data.parts.values()]
    assert sum(counts) == 12
    assert len(data.test_labels)
