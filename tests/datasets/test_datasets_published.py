"""MNIST and CIFAR-10 from tiny archives of the official layouts, good and bad."""

import contextlib
import functools
import http.server
import pickle
import shutil
import threading

import numpy as np
import pytest
from tiny_datasets import official, use, write, write_cifar10, write_mnist

from camri_jax.datasets import DatasetError, cifar10, load, mnist


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A directory with all official files of both data sets."""
    use(monkeypatch, cifar10, write_cifar10(tmp_path / "data"))
    use(monkeypatch, mnist, write_mnist(tmp_path / "data" / "mnist"))
    return tmp_path / "data"


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


def test_cifar10_comes_out_as_it_lies_in_the_batches(source):
    dataset = load("cifar10", data_dir=source)
    batches = [
        pickle.loads((source / "cifar-10-batches-py" / f.name).read_bytes())
        for f in (*cifar10.TRAIN_FILES, *cifar10.TEST_FILES)
    ]
    pixels = np.concatenate([b[b"data"].reshape(-1, 3, 32, 32) for b in batches])
    images = np.concatenate([dataset.train_images, dataset.test_images])
    assert (images == pixels.transpose(0, 2, 3, 1)).all()
    labels = [label for b in batches[:5] for label in b[b"labels"]]
    assert dataset.train_labels.tolist() == labels
    assert dataset.class_names[3] == "cat"
    assert dataset.train_labels.dtype == np.int32


def test_mnist_comes_out_as_it_lies_in_the_files(source):
    dataset = load("mnist", data_dir=source)
    content = (source / "mnist" / "train-images-idx3-ubyte").read_bytes()[16:]
    assert dataset.train_images.tobytes() == content
    assert dataset.train_images.shape == (40, 28, 28, 1)
    assert dataset.test_labels.tolist() == [i % 10 for i in range(20)]


def test_archive_and_directory_give_the_same(source, monkeypatch, tmp_path):
    unpacked = load("cifar10", data_dir=source)
    shutil.rmtree(source / "cifar-10-batches-py")
    monkeypatch.setenv("CAMRI_CACHE_DIR", str(tmp_path / "other cache"))
    packed = load("cifar10", data_dir=source)
    assert packed.fingerprint == unpacked.fingerprint


def test_packed_files_give_the_same(source, monkeypatch, tmp_path):
    unpacked = load("mnist", data_dir=source)
    for path in (source / "mnist").glob("*ubyte"):
        path.unlink()
    monkeypatch.setenv("CAMRI_CACHE_DIR", str(tmp_path / "other cache"))
    assert load("mnist", data_dir=source).fingerprint == unpacked.fingerprint


def test_the_environment_names_the_directory(source, monkeypatch):
    monkeypatch.setenv("CAMRI_DATA_DIR", str(source))
    assert len(load("mnist").train_labels) == 40


def test_prepared_data_lie_beside_the_files_unless_told_otherwise(source, monkeypatch):
    monkeypatch.delenv("CAMRI_CACHE_DIR")
    load("mnist", data_dir=source)
    assert list((source / ".camri_jax" / "mnist").glob("*/train_images.npy"))


def test_images_are_resized(source):
    assert load("cifar10", data_dir=source, image_size=8).train_images.shape[1] == 8
    assert load("cifar10", data_dir=source).train_images.shape[1] == 32


def test_the_second_load_needs_neither_source_nor_tfds(source, monkeypatch):
    first = load("cifar10", data_dir=source)
    shutil.rmtree(source / "cifar-10-batches-py")
    (source / "cifar-10-python.tar.gz").unlink()
    monkeypatch.setattr("camri_jax.datasets.prepared.load_prepared", None)
    monkeypatch.setattr("camri_jax.datasets.builder.write_records", None)
    monkeypatch.setattr("camri_jax.datasets.builder.write_arrays", None)
    second = load("cifar10", data_dir=source)
    assert isinstance(second.train_images, np.memmap)
    assert second.fingerprint == first.fingerprint


def test_files_are_downloaded_once(source, monkeypatch, tmp_path):
    with serve(source / "mnist") as (url, asked):
        archives = {
            name: file._replace(url=f"{url}/{name}.gz")
            for name, file in mnist.ARCHIVES.items()
        }
        monkeypatch.setattr(mnist, "ARCHIVES", archives)
        assert len(load("mnist").train_labels) == 40
        assert len(load("mnist", image_size=14).train_labels) == 40
    downloaded = [path for path in asked if "GET" in path or path.endswith(".gz")]
    assert len(downloaded) == 5  # the first is asked for twice: is the server there?


@pytest.mark.parametrize("content", [b"<!DOCTYPE html><html>moved</html>", b"\x1f\x8b"])
def test_a_download_of_something_else_is_refused_and_forgotten(
    source, monkeypatch, content, cache
):
    name = cifar10.ARCHIVE.name
    good = (source / name).read_bytes()
    with serve(source) as (url, _):
        monkeypatch.setattr(
            cifar10, "ARCHIVE", cifar10.ARCHIVE._replace(url=f"{url}/{name}")
        )
        write(source / name, content)
        with pytest.raises(DatasetError, match=cifar10.ARCHIVE.md5):
            load("cifar10")
        assert not list(cache.rglob("*.array_record*"))
        write(source / name, good)
        assert len(load("cifar10").train_labels) == 100


def test_an_address_that_answers_nothing_is_named(source):
    message = r"could not download cifar10: .*by hand .*http://localhost"
    with pytest.raises(DatasetError, match=message):
        load("cifar10")


def test_an_address_without_the_file_is_named(source, monkeypatch, tmp_path):
    with serve(tmp_path) as (url, _):
        archive = cifar10.ARCHIVE._replace(url=f"{url}/absent.tar.gz")
        monkeypatch.setattr(cifar10, "ARCHIVE", archive)
        with pytest.raises(DatasetError, match="HTTP code: 404"):
            load("cifar10")


def _truncated(path):
    path.write_bytes(path.read_bytes()[:-100])


def _damaged(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _web_page(path):
    path.write_bytes(b"\n<!DOCTYPE html><html><body>Please log in</body></html>")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("cifar10", "cifar-10-batches-py/data_batch_3"),
        ("cifar10", "cifar-10-batches-py/test_batch"),
        ("cifar10", "cifar-10-python.tar.gz"),
        ("mnist", "mnist/train-labels-idx1-ubyte"),
        ("mnist", "mnist/t10k-images-idx3-ubyte.gz"),
    ],
)
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_truncated, "is not the official"),
        (_damaged, "is not the official"),
        (_web_page, "bytes of a web page"),
    ],
)
def test_a_bad_file_is_named_with_its_checksum(
    source, cache, name, path, spoil, message
):
    bad, others = source / path, ".gz" if ".gz" not in path else "ubyte"
    for other in [*source.rglob(f"*{others}")]:
        other.unlink()
    if path.endswith(".tar.gz"):
        shutil.rmtree(source / "cifar-10-batches-py")
    md5 = official(bad).md5
    spoil(bad)
    with pytest.raises(DatasetError, match=message) as caught:
        load(name, data_dir=source)
    for told in (str(bad), md5, "fetch it again"):
        assert told in str(caught.value)
    assert not [file for file in (cache / name).iterdir() if file.suffix != ".lock"]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("cifar10", "cifar-10-batches-py/data_batch_3"),
        ("mnist", "mnist/t10k-images-idx3-ubyte.gz"),
    ],
)
def test_a_missing_file_is_named_with_its_checksum(source, name, path):
    for unpacked in (source / "mnist").glob("*ubyte"):
        unpacked.unlink()
    md5 = official(source / path).md5
    (source / path).unlink()
    with pytest.raises(DatasetError, match=rf"{path} is missing \(md5 {md5}\)"):
        load(name, data_dir=source)


def test_a_pickle_is_not_opened_before_its_checksum_held(source, tmp_path):
    class Evil:
        def __reduce__(self):
            return write, (tmp_path / "written by evil", b"")

    write(source / "cifar-10-batches-py" / "data_batch_1", pickle.dumps(Evil()))
    with pytest.raises(DatasetError, match="data_batch_1 is not the official"):
        load("cifar10", data_dir=source)
    assert not (tmp_path / "written by evil").exists()
