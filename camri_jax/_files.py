"""Files that appear whole or not at all, and errors that are the user's to mend."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yields a path beside `path`; what is written there becomes `path` at the end.

    Args:
      path: the file; its directory is made if need be. An error leaves it as it was.

    Yields:
      A path in the same directory.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Short, so that a name that the file system just bears can be written as well.
    unfinished = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    try:
        yield unfinished
        # On the disk before it has its name: else a power cut leaves an empty file.
        _sync(unfinished)
        os.replace(unfinished, path)
        _sync(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    # Not every file system can do this for a directory, nor every system open one.
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class UsageError(ValueError):
    """What a user can mend: a command shows its sentence, and no traceback."""
