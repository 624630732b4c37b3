"""Files that appear whole or not at all."""

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
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


class UsageError(ValueError):
    """What a user can mend: a command shows its sentence, and no traceback."""
