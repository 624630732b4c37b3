"""Files that appear whole or not at all, here or in a store, and the user's errors.

A path is a `pathlib.Path`, or for a URL such as `s3://bucket/folder` an object with
the same methods; where this module treats them alike, so does all else.
"""

import contextlib
import errno
import io
import operator
import os
import re
import signal
import tempfile
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np


class UsageError(ValueError):
    """What a user can mend: a command shows its sentence, and no traceback."""


class TryAgain(UsageError):
    """What may pass by itself, such as a store that is away; trying later may succeed.

    A command then ends with a status of its own, for whatever starts it again.
    """


_LASTING = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EEXIST,
    errno.EINVAL,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}


def may_pass(error: BaseException) -> bool:
    """Returns whether what a store raised may pass by itself, like a lost connection.

    Stores raise errors of every kind; those about the request rather than the moment
    are known by type or name.

    Args:
      error: any.

    >>> may_pass(TimeoutError()), may_pass(PermissionError("Access Denied"))
    (True, False)
    """
    lasting = (
        PermissionError,
        FileExistsError,
        FileNotFoundError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        ImportError,
        MemoryError,
        NotImplementedError,
    )
    if isinstance(error, lasting) or not isinstance(error, Exception):
        return False
    said = f"{type(error).__name__} {error}"
    named = re.search("Credential|Authenti|Forbidden|NotFound|Validation", said)
    return not named and getattr(error, "errno", None) not in _LASTING


PATIENCE = 1800.0
"""Seconds for which a store that is away is waited for."""

Result = TypeVar("Result")


def patiently(path: Path, call: Callable[[], Result]) -> Result:
    """Calls what reads or writes, and again while a store is away, with a note.

    Args:
      path: of a store; what is of this machine is called once.
      call: may be repeated, whatever came of it.

    Returns:
      What it returns.

    Raises:
      TryAgain: the store was away for `PATIENCE`.
    """
    end, pause = time.monotonic() + PATIENCE, 1.0
    while True:
        try:
            return call()
        except Exception as error:  # stores raise errors of every kind
            if is_local(path) or not may_pass(error):
                raise
            away = f"{path} cannot be reached ({error})"
            if time.monotonic() >= end:
                raise TryAgain(f"{away} for {PATIENCE / 60:.0f} minutes") from error
            if pause == 1:
                told = f"{away}; it is tried again for {PATIENCE / 60:.0f} minutes"
                warnings.warn(told, RuntimeWarning, stacklevel=2)
        time.sleep(pause)
        pause = min(2 * pause, 60.0)


def whole_number(name: str, value: Any, least: int, most: int | None = None) -> int:
    """Returns a number of any integer type as a Python int, which names of trials hold.

    Args:
      name: what it is called.
      value: what was passed.
      least: what it must be at least.
      most: what it must be at most, if anything.

    Raises:
      UsageError: it is not a whole number (3.0 is not), or not within these.

    >>> whole_number("epochs", 3, 1)
    3
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise UsageError(
            f"{name} must be a whole number of at least {least}, got {value!r}"
        )
    if number < least:
        raise UsageError(f"{name} must be at least {least}, got {number}")
    if most is not None and number > most:
        raise UsageError(f"{name} must be at most {most:,}, got {number}")
    return number


def fraction(name: str, value: Any) -> float:
    """Returns a number between 0 and 1.

    Args:
      name: what it is called.
      value: what was passed.

    Raises:
      UsageError: it is not above 0 and below 1.

    >>> fraction("recall", 0.9)
    0.9
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = np.nan
    if np.ndim(value) or isinstance(value, str) or not 0 < number < 1:
        raise UsageError(f"{name} must be above 0 and below 1, got {value}")
    return number


def group_keys(name: str, value: Any, number: int) -> np.ndarray:
    """Returns what tells groups apart, `[number]`, integers or strings.

    Args:
      name: what it is called.
      value: what was passed.
      number: how many examples there are.

    Raises:
      UsageError: it is not one integer or string for each example.

    >>> group_keys("groups", ["left", "right"], 2).tolist()
    ['left', 'right']
    """
    keys = np.asarray(value)
    if keys.dtype == object and all(isinstance(key, str) for key in keys.ravel()):
        keys = keys.astype(str)  # a column of a data frame
    if keys.shape != (number,) or keys.dtype.kind not in "iuUS":
        raise UsageError(
            f"{name} must be integers or strings [{number}], one for each example, got "
            f"{keys.dtype} {list(keys.shape)}"
        )
    return keys


def expanded(path: str | os.PathLike[str]) -> Path:
    """Returns a path on this machine, with `~` and `~user` expanded.

    Args:
      path: as `results` or `~/results`.

    Raises:
      UsageError: there is no such home directory, or it is the URL of a store.

    >>> expanded("results")
    PosixPath('results')
    """
    if "://" in str(path):
        raise UsageError(f"{path} must be a path of this machine, and is a URL")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UsageError(
            f"{os.fspath(path)}: there is no such home directory; write the path whole"
        ) from None


def address(path: str | os.PathLike[str]) -> Path:
    """Returns the path that a text names: on this machine, or in a store by URL.

    Args:
      path: as `results`, `~/results`, `s3://bucket/results` or `gs://bucket/results`.

    Raises:
      UsageError: such URLs are not supported, or there is no such home directory.

    >>> address("results"), address("memory://results").name
    (PosixPath('results'), 'results')
    """
    if "://" not in str(path):
        return expanded(path)
    if not isinstance(path, str):
        return cast(Path, path)
    from upath import UPath

    try:
        with warnings.catch_warnings():
            # About stores that its own tests do not cover.
            warnings.simplefilter("ignore", UserWarning)
            # What other processes write must be seen at once.
            found = UPath(path, use_listings_cache=False)
        found.fs  # noqa: B018 - which fails where the store's package is missing
    except ValueError as error:
        raise UsageError(f"{path} cannot be written to or read from: {error}") from None
    # A URL of a file on this machine.
    return Path(found.path) if path.startswith("file:") else cast(Path, found)


def is_local(path: Path) -> bool:
    """Returns whether a path is on this machine's file systems."""
    return isinstance(path, Path)


def ranged(path: Path) -> Any:
    """Opens a file to read parts of it; from a store no more than these is fetched.

    Args:
      path: the file.
    """
    # What fsspec reads ahead may be a whole object.
    more: dict[str, Any] = {} if is_local(path) else {"cache_type": "none"}
    return path.open("rb", **more)


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yields a path on this machine; what is written there becomes `path` at the end.

    Args:
      path: the file; its directory is made if need be. An error leaves it as it was.

    Yields:
      A path: for a file in the same directory, for a store in a temporary one.
    """
    if not is_local(path):
        with tempfile.TemporaryDirectory() as folder:
            unfinished = Path(folder, path.name)
            yield unfinished
            put(path, unfinished.read_bytes())
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # Short, so that the longest name that the file system takes can be written too.
    unfinished = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    try:
        with _named(path, unfinished):
            yield unfinished
            # On the disk before it has its name: else a power cut leaves an empty file.
            _sync(unfinished)
            os.replace(unfinished, path)
        _sync(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file that is there whole or as it was; a text as UTF-8.

    Args:
      path: the file; its directory is made if need be.
      content: all of it.
    """
    with written_whole(path) as unfinished:
        unfinished.write_bytes(
            content.encode() if isinstance(content, str) else content
        )


def sweep_up(directory: Path) -> None:
    """Removes what killed processes were writing below a directory on this machine.

    Args:
      directory: it need not exist; files of the last hour may still be written.
    """
    for path in directory.rglob(".*") if is_local(directory) else ():
        with contextlib.suppress(OSError):
            ours = re.fullmatch(r"\.[0-9a-f]{32}", path.stem)
            if ours and time.time() - path.stat().st_mtime > 3600:
                path.unlink()


def put(path: Path, content: bytes, *, exclusively: bool = False) -> bool:
    """Writes a small file or an object in one call.

    Args:
      path: the file; its directory is made if need be.
      content: all of it.
      exclusively: whether it must not exist; of several processes one succeeds.

    Returns:
      Whether it was written; False if it exists and must not.
    """
    try:
        if is_local(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with _named(path), path.open("xb" if exclusively else "wb") as file:
                try:
                    file.write(content)
                    file.flush()
                except OSError:
                    if exclusively:
                        path.unlink()
                    raise
        else:
            mode = "create" if exclusively else "overwrite"
            store: Any = path
            store.fs.pipe_file(store.path, content, mode=mode)
    except FileExistsError:
        if not exclusively:
            raise
        return False
    return True


def set_aside(path: Path, why: str, *others: Path) -> None:
    """Renames a damaged file, and warns.

    If several processes find it, only the first one warns.

    Args:
      path: the file.
      why: what it is not, and what follows.
      *others: files that are useless without it, renamed too.
    """
    moved = False
    for each in (*others, path):
        moved = _move_aside(each)
    if moved:
        warnings.warn(f"{path} is set aside: {why}", RuntimeWarning, stacklevel=2)


def _move_aside(path: Path) -> bool:
    """Renames a file, and returns whether it was there."""
    aside = path.with_name(f"{path.name}.damaged")
    try:
        if is_local(path):
            os.replace(path, aside)
        else:
            put(aside, path.read_bytes())
            path.unlink()
    except FileNotFoundError:
        return False
    return True


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Holds back Ctrl-C and SIGTERM until the block is done, so that it is done whole.

    Outside the main thread, which alone is interrupted, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []

    def hold(number: int, frame: object) -> None:
        held.append(number)

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, hold) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in held[:1]:
            signal.raise_signal(number)


@contextlib.contextmanager
def _named(path: Path, unfinished: Path | None = None) -> Iterator[None]:
    """Names the file that cannot be written: for a full disk the system does not."""
    try:
        yield
    except OSError as error:
        others = error.filename is not None and error.filename != str(unfinished)
        if error.errno is None or others:
            raise
        reason = os.strerror(error.errno)
        raise OSError(error.errno, reason, str(path)) from error


def _sync(path: Path) -> None:
    # Not every file system can do this for a directory, nor every system open one.
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Reads all arrays of an `.npz` file; nothing is unpickled.

    Args:
      path: the file.

    Returns:
      The arrays, by name.

    Raises:
      OSError: it cannot be read.
      UsageError: it is not such a file, or it is damaged.
    """
    # From a store, fetched whole first: an error of the store is no damage.
    with path.open("rb") if is_local(path) else io.BytesIO(path.read_bytes()) as opened:
        try:
            with np.load(opened, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
                if foreign := [n for n, x in arrays.items() if isinstance(x, bytes)]:
                    raise ValueError(f"{foreign[0]} is no array")
                return arrays
        except Exception as error:  # what was cut or changed fails in every way
            # EINVAL is damage too: a seek to before the file's beginning.
            why = error.errno if isinstance(error, OSError) else None
            if why not in (None, errno.EINVAL):
                raise
            raise UsageError(f"{path} is no whole .npz file ({error!r})") from error
