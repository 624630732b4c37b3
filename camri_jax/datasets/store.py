"""Prepared data on disk: built once, whole or not at all, read by memory map."""

import atexit
import contextlib
import functools
import hashlib
import json
import logging
import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from camri_jax._machine import free_bytes
from camri_jax.datasets.dataset import (
    PARTS,
    Dataset,
    DatasetError,
    DatasetWarning,
    Part,
    make_dataset,
)

_MANIFEST = "manifest.json"
_logger = logging.getLogger(__name__)


def cache_root(data_dir: Path | None) -> Path:
    """Returns where prepared data are kept.

    That is `CAMRI_CACHE_DIR` if set, else a hidden folder `.camri_jax` inside the data
    directory that the user named, else `~/.cache/camri_jax`; and where none of these
    can be written, a directory for this process alone, with a warning.

    Args:
      data_dir: the directory that the user named, or None.
    """
    wanted = []
    if named := os.environ.get("CAMRI_CACHE_DIR"):
        wanted = [Path(named)]
    else:
        if data_dir is not None:
            wanted.append(data_dir / ".camri_jax")
        wanted.append(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "camri_jax"))
    for path in wanted:
        # A home directory may be unknown.
        with contextlib.suppress(OSError, RuntimeError):
            path = path.expanduser().absolute()
            path.mkdir(parents=True, exist_ok=True)
            if os.access(path, os.W_OK):
                return path
    warnings.warn(
        f"prepared data cannot be kept, for {wanted[0]} cannot be written: they are "
        "made anew in each run; CAMRI_CACHE_DIR names another directory",
        DatasetWarning,
        stacklevel=2,
    )
    return _passing()


@functools.cache
def _passing() -> Path:
    folder = tempfile.mkdtemp(prefix="camri_jax_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def build_once(target: Path, build: Callable[[Path], None]) -> None:
    """Builds a directory unless it is there; other processes wait and then share it.

    The work happens in a directory beside the target that is renamed at the end, so an
    interruption at any moment leaves either no target or a whole one. A list of the
    files, with sizes and checksums, is written last; a target that disagrees with its
    list is built again.

    Args:
      target: the directory.
      build: fills the empty directory that it is given.

    Raises:
      DatasetError: the disk is full or otherwise refuses.
    """
    if _is_whole(target):
        return
    partial = target.with_name(target.name + ".partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target):
            if _is_whole(target):  # another process was faster
                return
            shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
            try:
                partial.mkdir()
                build(partial)
                _write_manifest(partial)
                shutil.rmtree(target, ignore_errors=True)
                partial.rename(target)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise DatasetError(
            f"could not prepare {target}: {error}; {_free(target)} are free there; "
            "make room, or set CAMRI_CACHE_DIR to another directory that can be written"
        ) from error


def _write_manifest(directory: Path) -> None:
    listed = {}
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        name = path.relative_to(directory).as_posix()
        listed[name] = [path.stat().st_size, _checksum(path)]
        with path.open("rb") as file:
            os.fsync(file.fileno())
    with (directory / _MANIFEST).open("w", encoding="utf-8") as file:
        json.dump(listed, file)
        file.flush()
        os.fsync(file.fileno())


def _is_whole(target: Path) -> bool:
    if not target.is_dir():
        return False
    try:
        listed = json.loads((target / _MANIFEST).read_text(encoding="utf-8"))
        whole = all(
            (target / name).stat().st_size == size
            and _checksum(target / name) == checksum
            for name, (size, checksum) in listed.items()
        )
    except (OSError, ValueError, AttributeError, TypeError):
        whole = False
    if not whole:
        _logger.warning("%s is damaged and will be made anew", target)
    return whole


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def locked(target: Path) -> Iterator[None]:
    """Holds a lock that the system releases even if this process is killed.

    Args:
      target: what the lock is for; a hidden empty file beside it stays behind.

    Yields:
      Nothing, once all other processes have released it; at once where the system or
      the disk knows no locks.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with target.with_name(f".{target.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _logger.warning("waiting for another process to finish %s", target)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            _logger.warning("%s cannot be locked: %s", target, error)
        yield


def refuse_what_does_not_fit(shape: Sequence[int]) -> None:
    """Compares arrays with the free memory before they are allocated.

    Args:
      shape: of uint8 images, `[n, height, width, channels]`.

    Raises:
      DatasetError: twice as much is not free.
    """
    wanted, free = 2 * math.prod(shape), free_bytes()
    if wanted > free:
        raise DatasetError(
            f"{shape[0]:,} images of {shape[1]}x{shape[2]} need {wanted / 1e9:,.1f} GB "
            f"of memory, and {free / 1e9:,.1f} GB are free; choose a smaller image_size"
        )


def write(
    directory: Path,
    parts: Mapping[str, Part],
    class_names: Sequence[str],
    *,
    notes: Sequence[str] = (),
    bits: int | None = None,
) -> None:
    """Writes a data set as .npy files, and what is known beside them.

    Args:
      directory: where.
      parts: `train` and any others.
      class_names: the name of each label.
      notes: warnings to be given at every load.
      bits: see `Dataset`.
    """
    for name, part in parts.items():
        for field in ("images", "labels", "groups"):
            if (array := getattr(part, field)) is not None:
                np.save(directory / f"{name}_{field}.npy", array)
    about = {
        "class_names": list(class_names),
        "fingerprint": make_dataset("", parts, class_names).fingerprint,
        "notes": list(notes),
        "bits": bits,
    }
    text = json.dumps(about, indent=1)
    (directory / "about.json").write_text(text, encoding="utf-8")


def read(directory: Path, name: str, **facts: Any) -> Dataset:
    """Opens the arrays of a directory by memory map.

    Args:
      directory: one that `write` filled.
      name: of the data set.
      **facts: `mirror`, `fit` and `grouped_by`, see `Dataset`.

    Returns:
      The data set; its notes are given as warnings.
    """
    about = json.loads((directory / "about.json").read_text(encoding="utf-8"))
    for note in about["notes"]:
        warnings.warn(note, DatasetWarning, stacklevel=2)

    parts = {}
    for part in PARTS:
        files = {
            f: directory / f"{part}_{f}.npy" for f in ("images", "labels", "groups")
        }
        if files["images"].exists():
            parts[part] = Part(
                np.load(files["images"], mmap_mode="r"),
                np.load(files["labels"]),
                np.load(files["groups"]) if files["groups"].exists() else None,
            )
    return make_dataset(
        name,
        parts,
        about["class_names"],
        fingerprint=about["fingerprint"],
        bits=about["bits"],
        **facts,
    )


def _free(path: Path) -> str:
    while not path.is_dir():
        path = path.parent
    return f"{shutil.disk_usage(path).free / 1e6:,.0f} MB"
