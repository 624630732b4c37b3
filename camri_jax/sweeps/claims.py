"""Who trains what, among all processes that write to one directory.

    DIR/claims/CHUNK.1      host, process and heartbeat of who trains a chunk

Whoever creates the file trains the chunk. A claim whose process is gone, or which has
not beaten for long, is taken over by creating `CHUNK.2`, and so on: exclusive
creation of a file is all that is asked of a disk or store. If all else fails, two train
the same chunk and write the same rows.
"""

import contextlib
import inspect
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from fsspec.spec import AbstractFileSystem

from camri_jax._files import is_local, put, write_whole

BEAT = 20.0
"""Seconds between two heartbeats of a claim."""

STALE = 120.0
"""Seconds without a heartbeat after which a claim is taken over."""

_BOOT = Path("/proc/sys/kernel/random/boot_id")

_seen: dict[str, tuple[bytes, float]] = {}


@contextlib.contextmanager
def claimed(directory: Path, chunk: str) -> Iterator[bool]:
    """Claims a chunk for the time of a block.

    Args:
      directory: of the sweep.
      chunk: its name.

    Yields:
      Whether it is ours; if not, another process trains it. On a store that cannot
      tell, always.
    """
    if not possible(directory):
        yield True
        return
    path = _created(directory / "claims", chunk)
    if path is None:
        yield False
        return
    done = threading.Event()
    beating = threading.Thread(target=_beat, args=(path, done), daemon=True)
    beating.start()
    try:
        yield True
    finally:
        done.set()
        beating.join()
        # One that stays is stale soon; stores raise errors of every kind.
        with contextlib.suppress(Exception):
            for each in _of(path.parent, chunk):
                # A later one is from whoever took over while we were suspended.
                if _turn(each) <= _turn(path):
                    with contextlib.suppress(OSError):
                        each.unlink()


def possible(directory: Path) -> bool:
    """Returns whether only one of several processes can create a file there.

    Args:
      directory: a path, or what `camri_jax._files.address` makes of a URL.
    """
    if is_local(directory):
        return True
    store: Any = directory
    kind = type(store.fs)
    write = getattr(kind, "_pipe_file", kind.pipe_file)
    # The general form looks, then writes: between the two another may write.
    own = write is not AbstractFileSystem.pipe_file
    return own and "mode" in inspect.signature(write).parameters


def _created(folder: Path, chunk: str) -> Path | None:
    """The claim that this process makes, unless another process holds the chunk."""
    claims = _of(folder, chunk)
    if claims and not _is_stale(claims[-1]):
        return None
    turn = _turn(claims[-1]) + 1 if claims else 1
    path = folder / f"{chunk}.{turn}"
    return path if put(path, _content(), exclusively=True) else None


def _of(folder: Path, chunk: str) -> list[Path]:
    """Claims of a chunk, the one that counts last."""
    found = folder.glob(f"{chunk}.*")
    return sorted((each for each in found if each.suffix[1:].isdecimal()), key=_turn)


def _turn(path: Path) -> int:
    return int(path.suffix[1:])


def _is_stale(path: Path) -> bool:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return False
    except OSError:  # a directory, or what only its owner may read
        content = b""
    if _is_gone(content):
        return True
    # By this process's clock alone: those of two hosts need not agree.
    last, since = _seen.get(str(path), (None, 0.0))
    if content != last:
        _seen[str(path)] = content, time.monotonic()
        return False
    return time.monotonic() - since > STALE


def _is_gone(content: bytes) -> bool:
    """Whether a claim is from a process on this machine that has ended."""
    try:
        owner = json.loads(content)
        if owner["machine"] != _machine():
            return False
        # What is NaN may beat yet, and text raises: neither is told by !=.
        return abs(owner["began"] - _began(owner["pid"])) > 0
    except psutil.NoSuchProcess:
        return True
    except (ValueError, KeyError, TypeError, RecursionError, psutil.Error):
        return False


def _beat(path: Path, done: threading.Event) -> None:
    while not done.wait(BEAT):
        # The next beat makes up for a missed one; stores raise errors of every kind.
        with contextlib.suppress(Exception):
            write_whole(path, _content())


def _content() -> bytes:
    owner = {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": os.getpid(),
        "began": _began(os.getpid()),
        "beat": time.time(),
    }
    return json.dumps(owner).encode()


def _began(pid: int) -> float:
    """When a process began, by a clock that nobody sets: in ticks since the boot."""
    process = psutil.Process(pid)
    with contextlib.suppress(OSError):
        # Behind its name, in brackets, which may hold any text.
        stat = Path(f"/proc/{process.pid}/stat").read_bytes()
        return float(stat.rpartition(b")")[2].split()[19])
    return process.create_time()


def _machine() -> str:
    """Where process numbers mean the same: containers of one name have their own.

    So have hosts of one name, whose first containers all have one number.
    """
    space = boot = ""
    with contextlib.suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")
    with contextlib.suppress(OSError):
        boot = _BOOT.read_text().strip()
    return f"{socket.gethostname()} {space} {boot}"
