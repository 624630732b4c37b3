"""A directory or a .zip of it, read in the same way."""

import contextlib
import io
import os
import re
import stat
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from camri_jax.datasets.dataset import DatasetError, digest

_OUTSIDE = re.compile(r"^[/\\]|^[A-Za-z]:|(^|[/\\])\.\.([/\\]|$)")
_MAX_BYTES = 2**30  # of one picture
_MAX_FILES = 10_000_000
# What systems and network disks leave behind, besides all that begins with a dot.
_LITTER = {
    "__macosx",
    "__pycache__",
    "lost+found",
    "$recycle.bin",
    "recycler",
    "system volume information",
    "found.000",
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "icon\r",
    "network trash folder",
    "temporary items",
    "@eadir",
    "@tmp",
    "@recycle",
    "@recently-snapshot",
    "@synoeastream",
    "@syno-eastream",
    "#recycle",
    "#snapshot",
    "~snapshot",
}


class Tree(NamedTuple):
    """The files below one directory, or inside one .zip.

    Attributes:
      names: relative paths with `/`, sorted; those of directories end in `/`. What is
        hidden or left behind by systems is left out.
      fingerprint: changes whenever a file is added, removed or edited.
      open: opens a file by its name, for reading bytes.
    """

    names: list[str]
    fingerprint: str
    open: Callable[[str], IO[bytes]]


@contextlib.contextmanager
def open_tree(path: Path, *, max_bytes: float | None = None) -> Iterator[Tree]:
    """Opens a directory or a .zip; nothing is ever unpacked to disk.

    Args:
      path: the directory or the .zip file.
      max_bytes: of one file, by default what a picture may have; larger ones are not
        read.

    Yields:
      Its files.

    Raises:
      DatasetError: nothing is there, it is neither, it cannot be read, or a .zip has
        a password, links, or names that point outside of it.
    """
    max_bytes = _MAX_BYTES if max_bytes is None else max_bytes
    if path.is_dir():
        yield _directory_tree(path, max_bytes)
        return
    if not path.exists():
        raise DatasetError(f"{path}: no such directory or .zip file")
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
        raise DatasetError(
            f"{path} is neither a directory nor a whole .zip file ({error}); fetch it "
            "again from where it came"
        ) from error
    with archive:
        yield _zip_tree(archive, path, max_bytes)


def _directory_tree(root: Path, max_bytes: float) -> Tree:
    paths: dict[str, str] = {}
    lines = []
    try:
        for path, is_folder, line in _walk(str(root), ()):
            name = _clean(_decoded(os.fsencode(path[len(str(root)) :])))
            if name is None:
                continue
            name += "/" * is_folder
            if name in paths and not is_folder:
                raise DatasetError(f"{root} has two files called {name!r}; rename one")
            paths[name] = path
            lines.append(f"{name} {line}")
            if len(paths) > _MAX_FILES:
                raise DatasetError(f"{root} has more than {_MAX_FILES:,} files")
    except OSError as error:
        raise DatasetError(f"{root} cannot be read: {error}") from error

    def read(name: str) -> IO[bytes]:
        if os.path.getsize(paths[name]) > max_bytes:
            raise ValueError("it is larger than 1 GB")
        return open(paths[name], "rb")

    return Tree(sorted(paths), digest(*sorted(lines)), read)


def _walk(
    folder: str, above: tuple[tuple[int, int], ...]
) -> Iterator[tuple[str, bool, str]]:
    """Yields path, whether it is a folder, and what changes when it is edited."""
    status = os.stat(folder)
    here = status.st_dev, status.st_ino
    if here in above:  # a link to a folder that it lies in
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if _is_litter(entry.name):
                continue
            if entry.is_dir():
                yield entry.path, True, ""
                yield from _walk(entry.path, (*above, here))
            elif entry.is_file():
                s = entry.stat()
                # Files that swap names keep size and time, but not all of these.
                times = f"{s.st_mtime_ns} {s.st_ctime_ns}"
                yield entry.path, False, f"{s.st_size} {times} {s.st_ino}"
            elif entry.is_symlink():
                yield entry.path, False, "a link to nothing"


def _zip_tree(archive: zipfile.ZipFile, path: Path, max_bytes: float) -> Tree:
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        raw = member.filename
        if _OUTSIDE.search(raw):
            _refuse(path, f"names a file outside of itself, {raw!r}")
        if not member.flag_bits & 0x800:  # no word on the encoding: cp437 or UTF-8
            raw = _decoded(raw.encode("cp437", "replace"), otherwise=raw)
        name = _clean(raw)
        if name is None:
            continue
        if stat.S_ISLNK(member.external_attr >> 16):
            _refuse(path, f"holds a link, {raw!r}")
        if member.flag_bits & 1:
            raise DatasetError(f"{path} is locked by a password: pack it without one")
        members[name + "/" * raw.endswith(("/", "\\"))] = member
    lines = (f"{name} {m.file_size} {m.CRC}" for name, m in sorted(members.items()))
    lock = threading.Lock()

    def read(name: str) -> IO[bytes]:
        if members[name].file_size > max_bytes:
            _refuse(path, f"holds {name!r}, which unpacks to more than 1 GB")
        with lock:  # threads that open and close members lose count of each other
            return io.BytesIO(archive.read(members[name]))

    return Tree(sorted(members), digest(*lines), read)


def _refuse(path: Path, reason: str) -> None:
    raise DatasetError(
        f"{path} {reason}; it is broken or meant to do harm, so nothing was read from "
        "it"
    )


def _clean(name: str) -> str | None:
    """Returns a relative path with plain `/`, or None for what systems leave behind."""
    steps = [step for step in re.split(r"[/\\]", name) if step not in ("", ".")]
    return None if not steps or any(map(_is_litter, steps)) else "/".join(steps)


def _is_litter(name: str) -> bool:
    return name.startswith((".", "~$")) or name.casefold() in _LITTER


def _decoded(name: bytes, otherwise: str | None = None) -> str:
    for encoding in ("utf-8", "cp1252"):
        try:
            return name.decode(encoding)
        except UnicodeDecodeError:
            if otherwise is not None:
                return otherwise
    return name.decode("latin-1")
