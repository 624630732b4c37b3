"""Preparing data: once, by one process, whole or not at all, on any disk."""

import contextlib
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from tiny_datasets import picture, write

from camri_jax._files import UsageError
from camri_jax.datasets import DatasetError, DatasetWarning, load, store

_PRELUDE = """
    import os, resource, signal
    from pathlib import Path
    from camri_jax.datasets import load, pictures
    name = {name!r}
"""


@pytest.fixture
def source(tmp_path):
    """Names a folder of 100 pictures to train and 20 to test."""
    for part, number in (("train", 50), ("test", 10)):
        for c, class_name in enumerate(("cat", "dog")):
            for i in range(number):
                path = tmp_path / "mine" / part / class_name / f"{i}.png"
                write(path, picture(1000 * number + 100 * c + i))
    return f"folder:{tmp_path / 'mine'}"


@pytest.fixture
def program(source):
    """Starts a process that runs some lines."""

    def start(lines):
        prelude = textwrap.dedent(_PRELUDE).format(name=source)
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
    processes = [program("print(load(name).fingerprint)") for _ in range(3)]
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0] * 3, outputs
    assert len({output for output, _ in outputs}) == 1
    assert not _left_over(cache)
    assert len(list(cache.rglob("train_images.npy"))) == 1


def test_a_killed_preparation_starts_again(program, source, cache):
    killed = program("""
        original, calls = pictures.decode, []
        def dying(*arguments, **options):
            calls.append(1)
            if len(calls) > 50:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **options)
        pictures.decode = dying
        load(name)
    """)
    _, errors = killed.communicate()
    assert killed.returncode < 0, errors
    assert _left_over(cache)
    assert not list(cache.rglob("manifest.json"))
    assert len(load(source).train_labels) == 100
    assert not _left_over(cache)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_preparation_leaves_nothing(source, cache, monkeypatch, error):
    def interrupted(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(store, "write", interrupted)
        with pytest.raises(error):
            load(source)
    assert not _left_over(cache)
    assert not list(cache.rglob("*.npy"))
    assert len(load(source).train_labels) == 100


def _remove(path):
    path.unlink()


def _empty(path):
    path.write_bytes(b"")


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def _change(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("spoil", [_remove, _empty, _truncate, _change])
@pytest.mark.parametrize(
    "name",
    ["test_images.npy", "test_labels.npy", "train_images.npy", "about.json"],
)
def test_a_damaged_cache_is_made_anew(source, cache, name, spoil):
    expected = load(source)
    (path,) = cache.rglob(name)
    spoil(path)
    again = load(source)
    assert again.fingerprint == expected.fingerprint
    assert len(again.test_labels) == 20


@pytest.mark.parametrize("content", [None, "", "{", '{"absent.npy": [1, "x"]}', "[]"])
def test_a_cache_without_a_manifest_is_made_anew(source, cache, content):
    expected = load(source).fingerprint
    (path,) = cache.rglob("manifest.json")
    path.unlink() if content is None else path.write_text(content)
    next(cache.rglob("test_labels.npy")).unlink()
    assert load(source).fingerprint == expected
    assert len(load(source).test_labels) == 20


def test_a_cache_that_cannot_be_written_stops_nothing(source, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CAMRI_CACHE_DIR", str(tmp_path / "file"))
    for _ in range(2):
        with pytest.warns(
            DatasetWarning, match=r"file cannot be written: .*CAMRI_CACHE"
        ):
            assert len(load(source).train_labels) == 100


def test_no_home_stops_nothing(source, monkeypatch):
    for name in ("CAMRI_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(*_):
        raise KeyError("no such user")

    monkeypatch.setattr("pwd.getpwuid", unknown)
    with pytest.warns(DatasetWarning, match="made anew in each run"):
        assert len(load(source).train_labels) == 100
    assert len(load("digits").test_labels)
    with pytest.raises(UsageError, match=r"~/mine.npz"):
        load("npz:~/mine.npz")


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


def test_a_read_only_cache_stops_nothing(source, monkeypatch, tmp_path):
    monkeypatch.setenv("CAMRI_CACHE_DIR", str(tmp_path / "cd"))
    with (
        _mounted(tmp_path / "cd", "ro"),
        pytest.warns(DatasetWarning, match=r"cd cannot"),
    ):
        assert len(load(source).train_labels) == 100


def test_a_full_disk_is_named_and_can_be_mended(source, monkeypatch, tmp_path):
    disk = tmp_path / "disk"
    monkeypatch.setenv("CAMRI_CACHE_DIR", str(disk))
    with _mounted(disk, "size=200k"):
        with pytest.raises(
            DatasetError, match=r"could not prepare .* are free there.*CAMRI"
        ):
            load(source)
        assert not _left_over(disk)
        subprocess.run(["mount", "-o", "remount,size=9m", str(disk)], check=True)
        dataset = load(source)
        assert len(dataset.train_labels) == 100
        del dataset


def test_a_quota_is_named(program, cache):
    """As a full disk, but for anyone: files may not grow beyond a limit."""
    process = program("""
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        load(name)
    """)
    _, errors = process.communicate()
    assert "DatasetError: could not prepare" in errors
    assert not _left_over(cache)


def test_a_disk_without_locks_is_used(source, monkeypatch):
    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    assert len(load(source).train_labels) == 100


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
        from camri_jax.datasets import Part, store
        from camri_jax.datasets.splitting import hold_out
        def build(directory):
            parts = {{
                part: Part(np.ones((n, 32, 32, 1), np.uint8), np.zeros(n, np.int32))
                for part, n in (("train", 50_000), ("test", 10_000))
            }}
            store.write(directory, parts, ("a",))
        def peak():  # getrusage would begin with the peak of the parent process
            status = open("/proc/self/status").read()
            return int(status.split("VmHWM:")[1].split()[0]) / 1024
        before = peak()
        target = Path({str(tmp_path / "arrays")!r})
        store.build_once(target, build)
        print(peak() - before)
        hold_out(store.read(target, "mine"), {{"validation": 0.1}}, seed=0)
        print(peak() - before)
    """)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert max(map(float, output.split())) < 1.5 * 60_000 * 1024 / 2**20


def test_the_cache_may_be_named(monkeypatch, tmp_path):
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("CAMRI_CACHE_DIR", str(tmp_path / "named"))
    assert store.cache_root(tmp_path / "data") == tmp_path / "named"
    monkeypatch.delenv("CAMRI_CACHE_DIR")
    assert store.cache_root(tmp_path / "data") == tmp_path / "data" / ".camri_jax"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert store.cache_root(None) == tmp_path / "camri_jax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CAMRI_CACHE_DIR", "~/kept")
    assert store.cache_root(None) == tmp_path / "home" / "kept"


def test_arrays_cannot_be_written_to(source):
    images = load(source).train_images
    assert isinstance(images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0


def test_another_size_or_fit_is_prepared_beside_the_first(source, cache):
    loaded = [load(source), load(source, image_size=9), load(source, fit="crop")]
    assert len({data.fingerprint for data in loaded}) == 3
    assert len(list(cache.glob("folder/*/manifest.json"))) == 3
