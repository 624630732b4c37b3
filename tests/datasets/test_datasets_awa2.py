"""AwA2 from a tiny archive of the official layout, good and bad."""

import zipfile

import numpy as np
import pytest
from tiny_datasets import use, write_awa2

from camri_jax.datasets import DatasetError, DatasetWarning, awa2, load
from camri_jax.datasets.awa2 import resize
from camri_jax.datasets.dataset import digest


@pytest.fixture
def archive(tmp_path, monkeypatch):
    def make(**options):
        path = tmp_path / "data" / "AwA2-data.zip"
        path.parent.mkdir(exist_ok=True)
        use(monkeypatch, awa2, write_awa2(path, awa2.CLASS_NAMES, **options))
        return path

    return make


def test_the_archive_becomes_two_parts_of_fifty_classes(archive):
    dataset = load("awa2", data_dir=archive(grey={("ox", 1)}).parent)
    assert dataset.train_images.shape[1:] == (64, 64, 3)
    assert dataset.class_names[1] == "grizzly bear"
    counts = [
        np.bincount(labels, minlength=50)
        for labels in (dataset.train_labels, dataset.test_labels)
    ]
    assert (sum(counts) == 5).all()
    assert counts[1].sum() == awa2.NUM_EXAMPLES["test"]
    assert set(counts[1]) <= {1, 2}


def test_directory_and_archive_give_the_same(archive, tmp_path):
    path = archive()
    packed = load("awa2", data_dir=path.parent)
    with zipfile.ZipFile(path) as file:
        file.extractall(tmp_path / "unpacked")
    unpacked = load("awa2", data_dir=tmp_path / "unpacked")
    assert unpacked.fingerprint == packed.fingerprint


def test_a_corrupt_photograph_is_named_and_skipped(archive):
    path = archive(broken={("ox", 2), ("rat", 0)})
    with pytest.warns(DatasetWarning, match=r"2 photographs .*ox_10003.jpg.*rat_10001"):
        dataset = load("awa2", data_dir=path.parent)
    assert len(dataset.train_labels) + len(dataset.test_labels) == 248


def test_many_corrupt_photographs_are_an_error(archive):
    path = archive(broken={("ox", 2), ("rat", 0), ("cow", 1)})
    with pytest.raises(DatasetError, match="3 of 250 photographs cannot be read"):
        load("awa2", data_dir=path.parent)


def test_chunks_that_are_there_are_not_made_again(archive, tmp_path, monkeypatch):
    path = archive()
    monkeypatch.setattr(resize, "_CHUNK", 40)
    with zipfile.ZipFile(path) as file:
        names = [name for name in file.namelist() if name.endswith(".jpg")]
    chunks = resize.resize_all(path, names, 16, tmp_path / "scratch")
    assert len(chunks) == 7
    chunks[3].unlink()
    others = [chunk for chunk in chunks if chunk != chunks[3]]
    written = [chunk.stat().st_mtime_ns for chunk in others]
    assert resize.resize_all(path, names, 16, tmp_path / "scratch") == chunks
    assert [chunk.stat().st_mtime_ns for chunk in others] == written
    assert [n for chunk in chunks for n, _ in resize.read_chunk(chunk)] == names


def test_a_stopped_preparation_goes_on_where_it_was(archive, cache, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    path = archive()
    builder = "camri_jax.datasets.awa2.awa2_dataset_builder"
    with monkeypatch.context() as patch:
        patch.setattr(f"{builder}.read_chunk", stopped)
        with pytest.raises(KeyboardInterrupt):
            load("awa2", data_dir=path.parent)
    assert list(cache.glob("awa2/*-resized"))
    assert not list(cache.glob("awa2/*.partial"))
    monkeypatch.setattr("concurrent.futures.ProcessPoolExecutor.submit", stopped)
    dataset = load("awa2", data_dir=path.parent)
    assert len(dataset.train_labels) + len(dataset.test_labels) == 250


def test_nothing_is_kept_when_all_is_done(archive, cache):
    load("awa2", data_dir=archive().parent)
    assert not list(cache.glob("awa2/*-resized"))


def test_an_incomplete_archive_is_named(archive, monkeypatch):
    path = archive()
    monkeypatch.setattr(awa2, "NUM_EXAMPLES", {"train": 26_157, "test": 11_165})
    with pytest.raises(DatasetError, match="250 photographs, expected 37,322"):
        load("awa2", data_dir=path.parent)


def test_another_file_is_named_with_its_checksum(archive):
    path = archive()
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DatasetError, match="cut short") as caught:
        load("awa2", data_dir=path.parent)
    assert awa2.ARCHIVE.md5 in str(caught.value)


def test_a_strange_animal_is_named(archive, tmp_path):
    path = archive()
    with zipfile.ZipFile(path) as file:
        file.extractall(tmp_path / "unpacked")
    folder = tmp_path / "unpacked/Animals_with_Attributes2/JPEGImages"
    (folder / "ox").rename(folder / "unicorn")
    with pytest.raises(DatasetError, match="disagree about ox, unicorn"):
        load("awa2", data_dir=tmp_path / "unpacked")


def _official_names():
    """37,322 made up names in fifty classes of very different sizes."""
    sizes = np.linspace(100, 1393, 50).astype(int)
    sizes[-1] += 37_322 - sizes.sum()
    return [
        f"JPEGImages/{name}/{name}_{10001 + i}.jpg".replace(" ", "+")
        for name, size in zip(awa2.CLASS_NAMES, sizes, strict=True)
        for i in range(size)
    ]


def test_the_split_has_exactly_the_sizes_of_the_paper():
    names = _official_names()
    parts = awa2.split(names)
    assert {part: len(members) for part, members in parts.items()} == {
        "train": 26_157,
        "test": 11_165,
    }
    assert sorted(parts["train"] + parts["test"]) == sorted(names)
    for class_name in awa2.CLASS_NAMES:
        folder = f"/{class_name.replace(' ', '+')}/"
        inside = [folder in name for name in names]
        tested = [folder in name for name in parts["test"]]
        assert abs(sum(tested) - sum(inside) * 11_165 / 37_322) < 1


def test_the_split_is_fixed_for_ever():
    """The names alone decide, not their order; and no release may change it."""
    names = _official_names()
    parts = awa2.split(names)
    assert awa2.split(names[::-1]) == parts
    assert digest(*parts["test"]) == "3efb10bc15d83ce8"
