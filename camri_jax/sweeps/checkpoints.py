"""A chunk in the middle of its training, as one file that is written beside it.

    DIR/checkpoints/CHUNK.npz       states of all its trials, and what came before

A chunk has at most one: each replaces the last, and the chunk's rows replace it. A
process that groups trials otherwise, as on fewer devices, starts them afresh; the file
is removed once all its trials have rows. A file that is damaged, or of other programs,
is set aside and the chunk begins anew.
"""

import concurrent.futures
import contextlib
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from camri_jax._files import ranged, read_arrays, set_aside, written_whole
from camri_jax.sweeps.chunk import Checkpoint


def path_of(directory: Path, chunk: str) -> Path:
    """Returns where the checkpoint of a chunk lies, if there is one."""
    return directory / "checkpoints" / f"{chunk}.npz"


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint, whole or not at all.

    Args:
      path: from `path_of`.
      checkpoint: where the chunk is.

    Raises:
      OSError: it cannot be written.
    """
    arrays: dict[str, Any] = {
        "epoch": np.int64(checkpoint.epoch),
        "losses": np.stack(checkpoint.losses),
        "history": np.array(checkpoint.history, np.int32),
        "trials": np.array(checkpoint.trials, np.str_),
    }
    arrays |= {f"state{i}": leaf for i, leaf in enumerate(checkpoint.leaves)}
    with written_whole(path) as unfinished, unfinished.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def load(path: Path) -> Checkpoint | None:
    """Reads a checkpoint; what cannot be read is set aside, with a warning.

    Args:
      path: from `path_of`.

    Returns:
      Where the chunk was, or `None` if there is no checkpoint of it.
    """
    try:
        arrays = read_arrays(path)
        # Older ones do not say which trials they are of.
        trials = tuple(arrays.pop("trials", np.array([], np.str_)).tolist())
        leaves = [arrays[f"state{i}"] for i in range(len(arrays) - 3)]
        epoch, losses = int(arrays["epoch"]), list(arrays["losses"])
        return Checkpoint(epoch, leaves, losses, list(arrays["history"]), trials)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, IsADirectoryError):
        set_aside(path, "it is no checkpoint; its chunk begins anew")
        return None


def trials_of(path: Path) -> set[str]:
    """Returns the ids of a checkpoint's trials, none where it does not say.

    Args:
      path: of a file that another process may replace, remove or set aside.
    """
    # All else in it are states of networks, which may be large. What fails says nothing
    # of its trials, whatever it raises.
    with (
        contextlib.suppress(Exception),
        ranged(path) as opened,
        np.load(opened, allow_pickle=False) as arrays,
    ):
        return set(arrays["trials"].tolist())
    return set()


@contextlib.contextmanager
def keeping(
    path: Path, minutes: float
) -> Iterator[Callable[[Callable[[], Checkpoint]], None]]:
    """Keeps a chunk's checkpoint while it trains.

    Args:
      path: from `path_of`.
      minutes: between two checkpoints.

    Yields:
      A function to call after each epoch with one that returns where the chunk is. It
      is written by another thread while training goes on; the block ends when the last
      is written. One that cannot be written is reported, and costs nothing else.
    """
    due, writing = time.monotonic() + 60 * minutes, None
    with concurrent.futures.ThreadPoolExecutor(1) as writer:

        def keep(fetch: Callable[[], Checkpoint]) -> None:
            nonlocal due, writing
            if time.monotonic() < due or (writing and not writing.done()):
                return
            _told(writing)
            writing = writer.submit(save, path, fetch())
            due = time.monotonic() + 60 * minutes

        try:
            yield keep
        finally:
            _told(writing)


def _told(writing: "concurrent.futures.Future[None] | None") -> None:
    try:
        if writing is not None:
            writing.result()
    except Exception as error:  # stores raise errors of every kind
        warnings.warn(
            f"a checkpoint could not be written ({error!r}); training goes on",
            RuntimeWarning,
            stacklevel=2,
        )
