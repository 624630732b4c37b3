"""Prepared data on disk: built once, whole or not at all, read by memory map."""

import contextlib
import json
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from camri_jax.datasets.dataset import (
    Dataset,
    DatasetError,
    DatasetWarning,
    make_dataset,
)

_logger = logging.getLogger(__name__)


def cache_root(data_dir: Path | None) -> Path:
    """Returns where prepared data are kept.

    That is `CAMRI_CACHE_DIR` if set, else a hidden folder `.camri_jax` inside the data
    directory that the user named, else `~/.cache/camri_jax`.

    Args:
      data_dir: the directory that the user named, or None.
    """
    if named := os.environ.get("CAMRI_CACHE_DIR"):
        return Path(named).expanduser().absolute()
    if data_dir is not None:
        return data_dir.absolute() / ".camri_jax"
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser().absolute() / "camri_jax"


def build_once(target: Path, build: Callable[[Path], None]) -> None:
    """Builds a directory unless it is there; other processes wait and then share it.

    The work happens in a directory beside the target that is renamed at the end, so an
    interruption at any moment leaves either no target or a whole one.

    Args:
      target: the directory.
      build: fills the empty directory that it is given.

    Raises:
      DatasetError: the disk is full, read-only, or otherwise refuses.
    """
    if target.is_dir():
        return
    partial = target.with_name(target.name + ".partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target):
            if target.is_dir():  # another process was faster
                return
            shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
            try:
                partial.mkdir()
                build(partial)
                partial.rename(target)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise DatasetError(
            f"could not prepare {target}: {error}; {_free(target)} are free there; "
            "make room, or set CAMRI_CACHE_DIR to another directory that can be written"
        ) from error


@contextlib.contextmanager
def locked(target: Path) -> Iterator[None]:
    """Holds a lock that the system releases even if this process is killed.

    Args:
      target: what the lock is for; a hidden empty file beside it stays behind.

    Yields:
      Nothing, once all other processes have released it.
    """
    import fcntl  # Windows has none, but can load what needs no preparing

    with target.with_name(f".{target.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _logger.warning("waiting for another process to finish %s", target)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_part(
    directory: Path,
    part: str,
    images: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray | None = None,
) -> None:
    """Writes one part of a data set as .npy files.

    Args:
      directory: where.
      part: `train` or `test`.
      images: uint8 `[n, height, width, channels]`.
      labels: int32 `[n]`.
      groups: int64 `[n]` or None.
    """
    np.save(directory / f"{part}_images.npy", images)
    np.save(directory / f"{part}_labels.npy", labels)
    if groups is not None:
        np.save(directory / f"{part}_groups.npy", groups)


def write_about(
    directory: Path,
    class_names: Sequence[str],
    *,
    notes: Sequence[str] = (),
    skipped: Sequence[str] = (),
) -> None:
    """Writes what is known beside the arrays, their fingerprint included.

    Args:
      directory: where the parts were written.
      class_names: the name of each label.
      notes: warnings to be given at every load.
      skipped: the pictures that could not be read, with the reasons.
    """
    dataset = _dataset(directory, class_names, None)
    about = {
        "class_names": list(class_names),
        "fingerprint": dataset.fingerprint,
        "notes": list(notes),
        "skipped": list(skipped),
    }
    text = json.dumps(about, ensure_ascii=False, indent=1)
    (directory / "about.json").write_text(text, encoding="utf-8")


def read(directory: Path) -> Dataset:
    """Opens the arrays of a directory by memory map.

    Args:
      directory: one that `write_part` and `write_about` filled.

    Returns:
      The data set; its notes are given as warnings.
    """
    about = json.loads((directory / "about.json").read_text(encoding="utf-8"))
    for note in about["notes"]:
        warnings.warn(note, DatasetWarning, stacklevel=2)
    return _dataset(directory, about["class_names"], about["fingerprint"])


def _dataset(
    directory: Path, class_names: Sequence[str], fingerprint: str | None
) -> Dataset:
    def part(name: str) -> tuple[np.ndarray, np.ndarray] | None:
        images = directory / f"{name}_images.npy"
        if not images.exists():
            return None
        labels = np.load(directory / f"{name}_labels.npy")
        return np.load(images, mmap_mode="r"), labels

    train, groups = part("train"), directory / "train_groups.npy"
    assert train is not None
    return make_dataset(
        train,
        part("test"),
        class_names,
        train_groups=np.load(groups) if groups.exists() else None,
        fingerprint=fingerprint,
    )


def _free(path: Path) -> str:
    while not path.is_dir():
        path = path.parent
    return f"{shutil.disk_usage(path).free / 1e6:,.0f} MB"
