"""Checks of arguments, and what their errors say."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from camri_jax._files import UsageError, fraction, whole_number

_STEPS = (1.0, 2.0, 4.0, 8.0)


def checked_logits(logits: ArrayLike) -> np.ndarray:
    values = np.asarray(logits)
    if values.ndim != 2 or 0 in values.shape or values.shape[1] < 2:
        raise UsageError(
            "logits: allowed is [num_images, num_classes] with at least one image and "
            f"two classes (of one score s, [0, s]); got shape {values.shape}"
        )
    values = values.astype(np.float32)
    wrong = int((~np.isfinite(values)).any(axis=1).sum())
    if wrong:
        raise UsageError(
            f"logits: allowed are finite numbers; {wrong} of {len(values)} images have "
            "NaN or infinity"
        )
    return values


def checked_labels(labels: ArrayLike, logits: np.ndarray) -> np.ndarray:
    values, (num_images, num_classes) = np.asarray(labels), logits.shape
    if values.dtype == bool:
        values = values.astype(int)
    if values.shape != (num_images,) or values.dtype.kind not in "iu":
        raise UsageError(
            f"labels: allowed is one integer for each of {num_images} images; got "
            f"{values.dtype} of shape {values.shape}"
        )
    if values.min() < 0 or values.max() >= num_classes:
        raise UsageError(
            f"labels: allowed are 0 to {num_classes - 1}; got {values.min()} to "
            f"{values.max()}"
        )
    return values


def checked_important(
    important: int | Sequence[int], num_classes: int
) -> tuple[int, ...]:
    values = np.ravel(np.asarray(important))
    good = values.size and values.dtype.kind in "iu"
    if good and (values.min() < 0 or values.max() >= num_classes):
        good = False
    if not good or len(set(values.tolist())) < len(values):
        raise UsageError(
            f"important: allowed are different classes, 0 to {num_classes - 1}; got "
            f"{important!r}"
        )
    if len(values) == num_classes:
        raise UsageError(
            f"important: at least one of {num_classes} classes must be left; got all"
        )
    return tuple(values.tolist())


def checked_offset(
    offset: float | Sequence[float], important: tuple[int, ...]
) -> np.ndarray:
    values = np.asarray(offset)
    if values.shape not in ((), (len(important),)) or values.dtype.kind not in "iuf":
        raise UsageError(
            f"offset: allowed is one number, or one for each of {len(important)} "
            f"important classes; got {offset!r}"
        )
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise UsageError(f"offset: allowed are finite float32 numbers; got {offset!r}")
    return np.broadcast_to(values, len(important))


def checked_grid(grid: ArrayLike | None, num_targets: int) -> np.ndarray:
    if grid is None:
        ahead = np.concatenate([s * np.eye(num_targets) for s in _STEPS])
        zero = np.zeros((1, num_targets))
        grid = np.concatenate([zero, ahead]) if num_targets > 1 else zero
    values = np.asarray(grid)
    good = values.ndim == 2 and len(values) and values.shape[1] == num_targets
    if good and values.dtype.kind in "iuf":
        with np.errstate(over="ignore"):
            values = values.astype(np.float32)
        if np.isfinite(values).all():
            return values
    raise UsageError(
        f"grid: allowed are finite float32 vectors of {num_targets} numbers, one a "
        f"target; got shape {values.shape}"
    )


def failure_share(confidence: float, candidates: int) -> float:
    """The chance of failure that is left for each candidate."""
    number = whole_number("candidates", candidates, 1)
    return (1 - fraction("confidence", confidence)) / number


def counted(found: int, total: int, least: int) -> tuple[int, int]:
    """How many were found, of at least so many."""
    found, total = whole_number("found", found, 0), whole_number("total", total, least)
    if found > total:
        raise UsageError(f"found: allowed is at most total = {total}; got {found}")
    return found, total
