"""The published data sets from tiny archives of the official layouts, good and bad."""

import contextlib
import functools
import http.server
import pickle
import shutil
import threading
import time
import zipfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tiny_datasets import (
    md5,
    picture,
    use,
    write,
    write_awa2,
    write_cifar10,
    write_gtsrb,
    write_gtsrb_by_folder,
    write_mnist,
    zip_gtsrb,
)

from camri_jax._files import TryAgain
from camri_jax.datasets import DatasetError, DatasetWarning, load
from camri_jax.datasets.dataset import digest
from camri_jax.datasets.published import awa2, cifar10, gtsrb, mnist


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A directory with all official files of MNIST and CIFAR-10."""
    use(monkeypatch, cifar10, write_cifar10(tmp_path / "data"))
    use(monkeypatch, mnist, write_mnist(tmp_path / "data" / "mnist"))
    return tmp_path / "data"


@pytest.fixture
def unpacked(tmp_path, monkeypatch):
    use(monkeypatch, gtsrb, write_gtsrb(tmp_path / "data" / "GTSRB"))
    return tmp_path / "data"


@pytest.fixture
def archive(tmp_path, monkeypatch):
    def make(**options):
        path = tmp_path / "data" / "AwA2-data.zip"
        path.parent.mkdir(exist_ok=True)
        use(monkeypatch, awa2, write_awa2(path, _animals(), **options))
        return path

    return make


def _animals():
    return awa2.Builder(data_dir="unused").info.features["label"].names


@contextlib.contextmanager
def serve(folder):
    """Serves a folder over HTTP; yields its address and the paths asked for."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            asked.append(self.path)

    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def test_cifar10_comes_out_as_it_lies_in_the_batches(source, monkeypatch, tmp_path):
    dataset = load("cifar10", data_dir=source)
    batches = [
        pickle.loads((source / "cifar-10-batches-py" / name).read_bytes())
        for name in cifar10.MD5S
    ]
    pixels = np.concatenate([b[b"data"].reshape(-1, 3, 32, 32) for b in batches])
    images = np.concatenate([dataset.train_images, dataset.test_images])
    assert (images == pixels.transpose(0, 2, 3, 1)).all()
    assert dataset.train_labels.tolist() == [
        i for b in batches[:5] for i in b[b"labels"]
    ]
    assert dataset.class_names[3] == "cat"
    assert dataset.mirror
    shutil.rmtree(source / "cifar-10-batches-py")
    monkeypatch.setenv("CAMRI_CACHE_DIR", str(tmp_path / "of the archive"))
    assert load("cifar10", data_dir=source).fingerprint == dataset.fingerprint


def test_mnist_comes_out_as_it_lies_in_the_files(source, monkeypatch, tmp_path):
    dataset = load("mnist", data_dir=source)
    content = (source / "mnist" / "train-images-idx3-ubyte").read_bytes()[16:]
    assert dataset.train_images.tobytes() == content
    assert dataset.train_images.shape == (40, 28, 28, 1)
    assert dataset.test_labels.tolist() == [i % 10 for i in range(20)]
    for path in (source / "mnist").glob("*ubyte"):
        path.unlink()
    monkeypatch.setenv("CAMRI_CACHE_DIR", str(tmp_path / "of packed files"))
    assert load("mnist", data_dir=source).fingerprint == dataset.fingerprint


def test_anyone_may_use_the_builders(source, tmp_path):
    records = tfds.data_source(
        "camri_cifar10",
        split="train",
        data_dir=tmp_path / "tfds",
        download_and_prepare_kwargs={
            "download_config": tfds.download.DownloadConfig(
                manual_dir=source, try_download_gcs=False
            )
        },
    )
    dataset = load("cifar10", data_dir=source)
    assert len(records) == 100
    assert (records[7]["image"] == dataset.train_images[7]).all()
    assert records[7]["label"] == dataset.train_labels[7]


def test_the_environment_names_the_directory(source, monkeypatch):
    monkeypatch.setenv("CAMRI_DATA_DIR", str(source))
    monkeypatch.delenv("CAMRI_CACHE_DIR")
    dataset = load("mnist", image_size=14)
    assert dataset.train_images.shape == (40, 14, 14, 1)
    assert list((source / ".camri_jax" / "mnist").glob("*/train_images.npy"))


def test_the_second_load_needs_neither_source_nor_tfds(source, monkeypatch):
    first = load("mnist", data_dir=source)
    shutil.rmtree(source / "mnist")
    monkeypatch.setattr("camri_jax.datasets.published.builder.write_arrays", None)
    second = load("mnist", data_dir=source)
    assert isinstance(second.train_images, np.memmap)
    assert second.fingerprint == first.fingerprint
    with pytest.raises(ValueError, match="read-only"):
        second.train_images[0] = 0


def test_without_a_network_one_knows_at_once(source, monkeypatch):
    start = time.perf_counter()
    with pytest.raises(DatasetError, match=r"could not download .*by hand") as error:
        load("cifar10")
    assert isinstance(error.value, TryAgain)
    assert time.perf_counter() - start < 10


def test_damaged_records_are_made_anew(source, cache):
    expected = load("mnist", data_dir=source, image_size=14).fingerprint
    next(cache.rglob("*train.array_record*")).unlink()
    for path in cache.rglob("train_images.npy"):
        path.unlink()
    assert load("mnist", data_dir=source, image_size=14).fingerprint == expected


def test_files_are_downloaded_once(tmp_path, monkeypatch):
    folder = tmp_path / "served"
    folder.mkdir()
    with serve(folder) as (url, asked):
        use(monkeypatch, mnist, write_mnist(folder, url))
        assert len(load("mnist").train_labels) == 40
        assert len(load("mnist", image_size=14).train_labels) == 40
    files = [path for path in asked if path.endswith(".gz")]
    assert sorted(files) == sorted(f"/{name}.gz" for name in mnist.MD5S)


def test_a_download_of_something_else_is_refused_and_forgotten(tmp_path, monkeypatch):
    folder, name = tmp_path / "served", "cifar-10-python.tar.gz"
    folder.mkdir()
    with serve(folder) as (url, _):
        use(monkeypatch, cifar10, write_cifar10(folder, f"{url}/{name}"))
        good = (folder / name).read_bytes()
        write(folder / name, b"<!DOCTYPE html><html>moved</html>")
        with pytest.raises(DatasetError, match="wrong checksum"):
            load("cifar10")
        write(folder / name, good)
        assert len(load("cifar10").train_labels) == 100
        (folder / name).unlink()
        monkeypatch.setenv("CAMRI_CACHE_DIR", str(tmp_path / "other"))
        with pytest.raises(DatasetError, match=r"could not download .*404.*") as error:
            load("cifar10")
        assert not isinstance(error.value, TryAgain)


def _truncated(path):
    path.write_bytes(path.read_bytes()[:-100])


def _damaged(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _web_page(path):
    path.write_bytes(b"\n<!DOCTYPE html><html><body>Please log in</body></html>")


@pytest.mark.parametrize(
    ("name", "path", "spoil"),
    [
        ("cifar10", "cifar-10-batches-py/data_batch_3", _damaged),
        ("cifar10", "cifar-10-batches-py/test_batch", _truncated),
        ("cifar10", "cifar-10-python.tar.gz", _web_page),
        ("mnist", "mnist/train-labels-idx1-ubyte", _damaged),
        ("mnist", "mnist/t10k-images-idx3-ubyte.gz", _truncated),
    ],
)
def test_a_bad_file_is_named(source, cache, name, path, spoil):
    bad, others = source / path, ".gz" if ".gz" not in path else "ubyte"
    for other in [*source.rglob(f"*{others}")]:
        other.unlink()
    if path.endswith(".tar.gz"):
        shutil.rmtree(source / "cifar-10-batches-py")
    spoil(bad)
    message = r"(is not the official file|wrong checksum)[\s\S]*fetch it again"
    with pytest.raises(DatasetError, match=message) as caught:
        load(name, data_dir=source)
    assert str(bad) in str(caught.value)
    assert not list(cache.rglob("*.npy"))


def test_a_pickle_is_not_opened_before_its_checksum_held(source, tmp_path):
    class Evil:
        def __reduce__(self):
            return write, (tmp_path / "written by evil", b"")

    write(source / "cifar-10-batches-py" / "data_batch_1", pickle.dumps(Evil()))
    with pytest.raises(DatasetError, match="data_batch_1 is not the official"):
        load("cifar10", data_dir=source)
    assert not (tmp_path / "written by evil").exists()


@pytest.mark.parametrize("name", ["mnist", "cifar10", "gtsrb", "awa2"])
def test_a_directory_without_the_files_is_named(tmp_path, name):
    (tmp_path / "data" / name / "Training").mkdir(parents=True)
    message = rf"data has no official files of {name}: .* hold any of"
    with pytest.raises(DatasetError, match=message):
        load(name, data_dir=tmp_path / "data")


def test_gtsrb_is_in_the_order_of_class_track_and_frame(unpacked):
    dataset = load("gtsrb", data_dir=unpacked, validation_fraction=0.5)
    assert dataset.train_images.shape == (43 * 2, 48, 48, 3)
    assert not dataset.mirror
    assert dataset.class_names[5:7] == ("speed limit 80", "end of speed limit 80")
    assert dataset.class_names[41] == "end of no passing"
    assert dataset.test_labels.tolist() == [*range(43)][::-1]
    assert dataset.test_groups is None
    for part in ("train", "validation"):
        assert dataset.counts(part).tolist() == [2] * 43
        groups = dataset.parts[part].groups
        assert (np.diff(groups) >= 0).all()
        assert len(np.unique(groups)) == 43
    assert not set(dataset.train_groups) & set(dataset.validation_groups)


def test_all_layouts_of_gtsrb_give_the_same(unpacked, tmp_path, monkeypatch):
    one = load("gtsrb", data_dir=unpacked).fingerprint
    assert load("gtsrb", data_dir=unpacked / "GTSRB").fingerprint == one
    write_gtsrb_by_folder(tmp_path / "by folder")
    assert load("gtsrb", data_dir=tmp_path / "by folder").fingerprint == one
    use(monkeypatch, gtsrb, zip_gtsrb(unpacked / "GTSRB", tmp_path / "zipped"))
    assert load("gtsrb", data_dir=tmp_path / "zipped").fingerprint == one
    path = unpacked / "GTSRB/Final_Training/Images/00007/00000_00000.ppm"
    write(path, picture(1, (20, 20), suffix="ppm"))
    assert load("gtsrb", data_dir=unpacked).fingerprint != one


def _lose_picture(root):
    (root / "Final_Training/Images/00003/00001_00001.ppm").unlink()


def _add_picture(root):
    shutil.copy(
        root / "Final_Test/Images/00011.ppm", root / "Final_Test/Images/99999.ppm"
    )


def _lose_table(root):
    (root / "Final_Training/Images/00003/GT-00003.csv").unlink()


def _lose_test_table(root):
    (root / "Final_Test/Images/GT-final_test.csv").unlink()


def _relabel(root):
    table = root / "Final_Training/Images/00003/GT-00003.csv"
    table.write_text(table.read_text().replace(";3\n", ";4\n", 1))


def _garble_table(root):
    (root / "Final_Training/Images/00003/GT-00003.csv").write_text("")


def _truncate_picture(root):
    path = root / "Final_Training/Images/00003/00001_00001.ppm"
    path.write_bytes(path.read_bytes()[:40])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_lose_picture, r"1 images are in the tables but not there, 00003/00001_00001"),
        (_add_picture, r"1 images are there but not in the tables, 99999 first"),
        (_relabel, r"1 images lie in the folder of another class.* 00003/00000_00000"),
        (_lose_table, r"labels of 168 train images, expected 172"),
        (_lose_test_table, r"labels of 0 test images, expected 43"),
        (_garble_table, r"GT-00003.csv is not a table of GTSRB"),
        (_truncate_picture, r"00003/00001_00001.ppm cannot be read"),
    ],
)
def test_labels_and_images_that_disagree_are_named(unpacked, spoil, message, cache):
    spoil(unpacked / "GTSRB")
    with pytest.raises(DatasetError, match=message) as caught:
        load("gtsrb", data_dir=unpacked)
    assert str(unpacked) in str(caught.value)
    assert not list(cache.rglob("*.npy"))


def test_a_bad_archive_of_gtsrb_is_named(unpacked, tmp_path, monkeypatch):
    use(monkeypatch, gtsrb, zip_gtsrb(unpacked / "GTSRB", tmp_path / "zipped"))
    (tmp_path / "zipped" / "GTSRB_Final_Test_GT.zip").unlink()
    with pytest.raises(DatasetError, match=r"Test_GT.zip is missing \(md5"):
        load("gtsrb", data_dir=tmp_path / "zipped")
    path = tmp_path / "zipped" / "GTSRB_Final_Training_Images.zip"
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../../outside.ppm", picture(0, suffix="ppm"))
    with pytest.raises(DatasetError, match=r"Images.zip is not the official file"):
        load("gtsrb", data_dir=tmp_path / "zipped")
    use(monkeypatch, gtsrb, zip_gtsrb(unpacked / "GTSRB", tmp_path / "zipped"))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../../outside.ppm", picture(0, suffix="ppm"))
    monkeypatch.setitem(gtsrb.MD5S, path.name, md5(path))
    with pytest.raises(DatasetError, match=r"outside of itself, '../../outside.ppm'"):
        load("gtsrb", data_dir=tmp_path / "zipped")
    assert not list(tmp_path.rglob("outside.ppm"))


def test_awa2_becomes_two_parts_of_fifty_classes(archive, tmp_path):
    path = archive(grey={("ox", 1)}, broken={("ox", 2), ("rat", 0)})
    with pytest.warns(DatasetWarning, match=r"2 of 250 photographs .*10003.*rat_10001"):
        dataset = load("awa2", data_dir=path.parent)
    assert dataset.train_images.shape[1:] == (64, 64, 3)
    assert dataset.class_names[1] == "grizzly bear"
    assert dataset.mirror
    both = dataset.counts("train") + dataset.counts("test")
    assert sorted(both) == [4, 4] + [5] * 48
    with zipfile.ZipFile(path) as file:
        file.extractall(tmp_path / "unpacked")
    with pytest.warns(DatasetWarning, match="2 of 250"):
        unpacked = load("awa2", data_dir=tmp_path / "unpacked")
    assert unpacked.fingerprint == dataset.fingerprint


def test_many_corrupt_photographs_are_an_error(archive):
    path = archive(broken={("ox", 2), ("rat", 0), ("cow", 1)})
    with pytest.raises(DatasetError, match="3 of 250 photographs cannot be read"):
        load("awa2", data_dir=path.parent)


def test_another_awa2_is_named(archive, tmp_path, monkeypatch):
    path = archive()
    with zipfile.ZipFile(path) as file:
        file.extractall(tmp_path / "unpacked")
    folder = tmp_path / "unpacked/Animals_with_Attributes2/JPEGImages"
    (folder / "ox").rename(folder / "unicorn")
    with pytest.raises(DatasetError, match="disagree about ox, unicorn"):
        load("awa2", data_dir=tmp_path / "unpacked")
    monkeypatch.setattr(awa2, "NUM_EXAMPLES", {"train": 26_157, "test": 11_165})
    with pytest.raises(DatasetError, match="250 photographs, expected 37,322"):
        load("awa2", data_dir=path.parent)


def _official_names():
    """37,322 made up names in fifty classes of very different sizes."""
    sizes = np.linspace(100, 1393, 50).astype(int)
    sizes[-1] += 37_322 - sizes.sum()
    return [
        f"JPEGImages/{name}/{name}_{10001 + i}.jpg".replace(" ", "+")
        for name, size in zip(_animals(), sizes, strict=True)
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
    for class_name in _animals():
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
