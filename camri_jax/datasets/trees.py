"""A directory and a .zip of it, looked at in the same way."""

import contextlib
import io
import os
import re
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from camri_jax.datasets.dataset import DatasetError, digest

_OUTSIDE = re.compile(r"^[/\\]|^[A-Za-z]:|(^|[/\\])\.\.([/\\]|$)")
_MAX_BYTES = 2**30  # of one file in a .zip, which may promise far more than it weighs
_HIDDEN = re.compile(r"(^|/)\.|^__MACOSX/")


class Tree(NamedTuple):
    """The files below one directory, or inside one .zip.

    Attributes:
      names: relative paths with `/`, sorted; those of directories end in `/`. Hidden
        files, whose names begin with a dot, are left out.
      fingerprint: changes whenever a file is added, removed or edited.
      open: opens a file by its name, for reading bytes.
    """

    names: list[str]
    fingerprint: str
    open: Callable[[str], IO[bytes]]


@contextlib.contextmanager
def open_tree(path: Path) -> Iterator[Tree]:
    """Opens a directory or a .zip; nothing is ever unpacked to disk.

    Args:
      path: the directory or the .zip file.

    Yields:
      Its files.

    Raises:
      DatasetError: there is nothing, it is neither, or a name in the .zip points
        outside of it.
    """
    if path.is_dir():
        stats = dict(sorted(_walk(path, "")))
        lines = (f"{name} {stat}" for name, stat in stats.items())
        yield Tree(list(stats), digest(*lines), lambda name: (path / name).open("rb"))
        return
    if not path.exists():
        raise DatasetError(f"{path}: no such directory or .zip file")
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise DatasetError(
            f"{path} is neither a directory nor a whole .zip file ({error}); fetch it "
            "again from where it came"
        ) from error
    with archive:
        yield _zip_tree(archive, path)


def _zip_tree(archive: zipfile.ZipFile, path: Path) -> Tree:
    members = sorted(archive.infolist(), key=lambda member: member.filename)
    for member in members:
        if _OUTSIDE.search(member.filename):
            raise DatasetError(
                f"{path} names a file outside of itself, {member.filename!r}; it is "
                "broken or meant to do harm, so nothing was read from it"
            )
    shown = [member for member in members if not _HIDDEN.search(member.filename)]
    lines = (f"{m.filename} {m.file_size} {m.CRC}" for m in shown)
    lock = threading.Lock()

    def read(name: str) -> IO[bytes]:
        if archive.getinfo(name).file_size > _MAX_BYTES:
            raise ValueError("it unpacks to more than 1 GB")
        with lock:  # threads that open and close members lose count of each other
            return io.BytesIO(archive.read(name))

    return Tree([member.filename for member in shown], digest(*lines), read)


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield f"{prefix}{entry.name}/", ""
                yield from _walk(folder / entry.name, f"{prefix}{entry.name}/")
            elif entry.is_file():
                stat = entry.stat()
                yield f"{prefix}{entry.name}", f"{stat.st_size} {stat.st_mtime_ns}"
            else:
                yield f"{prefix}{entry.name}", "a link to nothing"
