"""Preparing data: once, by one process, whole or not at all, on any disk."""

import contextlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from tiny_datasets import use, write_cifar10

from camri_jax.datasets import DatasetError, cifar10, load, pictures, store

_PRELUDE = """
    import os, sys, resource, signal
    sys.path.insert(0, {tests!r})
    from pathlib import Path
    from tiny_datasets import write_cifar10
    from camri_jax.datasets import cifar10, load, pictures
    source = Path({source!r})
    for name, value in write_cifar10(Path({twin!r})).items():
        setattr(cifar10, name, value)
"""


@pytest.fixture
def source(tmp_path, monkeypatch):
    use(monkeypatch, cifar10, write_cifar10(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def program(source, tmp_path):
    """Starts a process that holds the same facts and runs some lines."""

    def start(lines, number=0):
        prelude = textwrap.dedent(_PRELUDE).format(
            tests=str(Path(__file__).parent),
            source=str(source),
            twin=str(tmp_path / f"twin {number}"),
        )
        return subprocess.Popen(
            [sys.executable, "-c", prelude + textwrap.dedent(lines)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def _left_over(cache):
    return [path for path in cache.rglob("*partial*")]


def test_processes_that_prepare_at_once_share_one_result(program, cache):
    lines = """
        print(load("cifar10", data_dir=source).fingerprint)
    """
    processes = [program(lines, i) for i in range(4)]
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, outputs
    assert len({output for output, _ in outputs}) == 1
    assert not _left_over(cache)
    arrays = list(cache.rglob("train_images.npy"))
    assert len(arrays) == 1


@pytest.mark.parametrize("step", ["pictures.encode", "pictures.decode"])
def test_a_killed_preparation_starts_again(program, source, cache, step):
    killed = program(f"""
        original, calls = {step}, []
        def dying(*arguments):
            calls.append(1)
            if len(calls) > 50:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments)
        {step} = dying
        load("cifar10", data_dir=source)
    """)
    _, errors = killed.communicate()
    assert killed.returncode < 0, errors
    assert _left_over(cache)
    assert not list(cache.rglob("about.json"))
    assert len(load("cifar10", data_dir=source).train_labels) == 100
    assert not _left_over(cache)


@pytest.mark.parametrize("step", ["encode", "decode"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_preparation_leaves_nothing(
    source, cache, monkeypatch, step, error
):
    original, calls = getattr(pictures, step), []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) > 50:
            raise error
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(pictures, step, interrupted)
        with pytest.raises(error):
            load("cifar10", data_dir=source)
    assert not _left_over(cache)
    assert not list(cache.rglob("about.json"))
    assert len(load("cifar10", data_dir=source).train_labels) == 100


def test_a_cache_that_is_a_file_is_named(source, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CAMRI_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(DatasetError, match=r"could not prepare .*CAMRI_CACHE_DIR"):
        load("cifar10", data_dir=source)


@contextlib.contextmanager
def _mounted(folder, options):
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_read_only_cache_is_named(source, monkeypatch, tmp_path):
    monkeypatch.setenv("CAMRI_CACHE_DIR", str(tmp_path / "cd"))
    message = r"Read-only file system.*CAMRI_CACHE_DIR"
    with _mounted(tmp_path / "cd", "ro"), pytest.raises(DatasetError, match=message):
        load("cifar10", data_dir=source)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_without_permission_is_named(source, monkeypatch, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    monkeypatch.setenv("CAMRI_CACHE_DIR", str(locked / "cache"))
    with pytest.raises(DatasetError, match=r"Permission denied.*CAMRI_CACHE_DIR"):
        load("cifar10", data_dir=source)


@pytest.mark.parametrize("room", ["200k", "700k"])  # full of records, full of arrays
def test_a_full_disk_is_named_and_can_be_mended(source, monkeypatch, tmp_path, room):
    disk = tmp_path / "disk"
    monkeypatch.setenv("CAMRI_CACHE_DIR", str(disk))
    with _mounted(disk, f"size={room}"):
        with pytest.raises(
            DatasetError, match=r"could not prepare .* are free there.*CAMRI"
        ):
            load("cifar10", data_dir=source)
        assert not _left_over(disk)
        subprocess.run(["mount", "-o", "remount,size=9m", str(disk)], check=True)
        dataset = load("cifar10", data_dir=source)
        assert len(dataset.train_labels) == 100
        del dataset


@pytest.mark.parametrize("limit", [100_000, 290_000])
def test_a_quota_is_named(program, cache, limit):
    """As a full disk, but for anyone: files may not grow beyond a limit."""
    process = program(f"""
        resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
        load("cifar10", data_dir=source)
    """)
    _, errors = process.communicate()
    assert "DatasetError: could not prepare" in errors
    assert not _left_over(cache)


def test_what_was_built_is_not_built_again(tmp_path):
    built = []

    def build(directory):
        (directory / "file").write_text("x")
        built.append(directory)

    for _ in range(2):
        store.build_once(tmp_path / "target", build)
    assert len(built) == 1
    assert (tmp_path / "target" / "file").read_text() == "x"


def test_memory_stays_under_twice_the_arrays(tmp_path, program):
    """Peak of a process that writes, opens and splits 60 MB, over an idle one."""
    process = program(f"""
        import numpy as np
        from camri_jax.datasets import store
        from camri_jax.datasets.splitting import hold_out
        def build(directory):
            for part, n in (("train", 50_000), ("test", 10_000)):
                images = np.ones((n, 32, 32, 1), np.uint8)
                store.write_part(directory, part, images, np.zeros(n, np.int32))
            store.write_about(directory, ("a",))
        def peak():  # getrusage would begin with the peak of the parent process
            status = open("/proc/self/status").read()
            return int(status.split("VmHWM:")[1].split()[0]) / 1024
        before = peak()
        target = Path({str(tmp_path / "arrays")!r})
        store.build_once(target, build)
        print(peak() - before)
        hold_out(store.read(target), 0.1, seed=0, part="validation")
        print(peak() - before)
    """)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert max(map(float, output.split())) < 1.5 * 60_000 * 1024 / 2**20


def test_the_cache_may_be_named(monkeypatch, tmp_path):
    monkeypatch.setenv("CAMRI_CACHE_DIR", str(tmp_path / "named"))
    assert store.cache_root(tmp_path / "data") == tmp_path / "named"
    monkeypatch.delenv("CAMRI_CACHE_DIR")
    assert store.cache_root(tmp_path / "data") == tmp_path / "data" / ".camri_jax"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert store.cache_root(None) == tmp_path / "camri_jax"


def test_arrays_cannot_be_written_to(source):
    images = load("cifar10", data_dir=source).train_images
    assert isinstance(images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0
