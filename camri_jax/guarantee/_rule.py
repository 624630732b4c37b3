"""The rule: the arg max after an offset was added, in float32."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from camri_jax.guarantee._arguments import (
    checked_important,
    checked_labels,
    checked_logits,
    checked_offset,
)

_FLOAT32 = np.finfo(np.float32)
_LARGEST_KEY = int(np.array(_FLOAT32.max).view(np.int32))
# Classes that share a constant are promised for offsets within this only: far beyond,
# float32 rounds their logits together.
_LARGEST_SHARED = 1024.0


def scores(logits: ArrayLike, important: int | Sequence[int]) -> np.ndarray:
    r"""Smallest offset at which each image is predicted as an important class.

    .. math:: b_n = \min \{c : \arg\max_k (z_{n,k} + c \, [k \in S]) \in S\}
      \approx \max_{k \notin S} z_{n,k} - \max_{k \in S} z_{n,k}

    The minimum runs over the normal float32 numbers, and the arg max is that of
    float32 sums whose ties go to the lowest class. Rounding a sum keeps the order, so
    the set is an upper one: `predict(logits, important, c)` is an important class if
    and only if `c >= scores(logits, important)`, exactly, for every such c.

    Args:
      logits: `[num_images, num_classes]`, taken as float32.
      important: class, or classes that share the offset.

    Returns:
      `[num_images]`, float32; infinite where no offset suffices.

    Raises:
      UsageError: an argument is not as described.

    >>> scores([[1.0, 3.0, 2.0], [5.0, 0.0, 1.0]], 2)
    array([1.0000002, 4.0000005], dtype=float32)
    """
    logits = checked_logits(logits)
    important = checked_important(important, logits.shape[1])
    return _scores(logits, important, np.zeros(len(important), np.float32))


def predict(
    logits: ArrayLike,
    important: int | Sequence[int],
    offset: float | Sequence[float],
) -> np.ndarray:
    r"""Classes predicted once the offset was added to the important classes' logits.

    .. math:: p_n = \arg\max_k (z_{n,k} + c_k \, [k \in S])

    Sums are float32's, and ties go to the lowest class, as in `jnp.argmax`.

    Args:
      logits: `[num_images, num_classes]`, taken as float32.
      important: class, or classes.
      offset: one number for all important classes, or one for each.

    Returns:
      `[num_images]`, integers.

    Raises:
      UsageError: an argument is not as described.

    >>> predict([[1.0, 3.0, 2.0], [5.0, 0.0, 1.0]], 2, 1.5)
    array([2, 0])
    """
    logits = checked_logits(logits)
    classes = checked_important(important, logits.shape[1])
    return np.argmax(moved(logits, classes, checked_offset(offset, classes)), axis=1)


def found_scores(
    logits: ArrayLike, labels: ArrayLike, important: int | Sequence[int]
) -> np.ndarray:
    """Smallest offset at which each image of the important classes is found.

    For one class these are its images' `scores`. With several classes, an image whose
    own class does not lead the other important ones is found at no offset, and its
    score is infinite. It must lead by more than float32 rounds away at offsets within
    +-1,024 (about 0.0005), and scores are kept within that range: then an image is
    found at every such offset from its score on.

    Args:
      logits: `[num_images, num_classes]`, taken as float32.
      labels: true classes `[num_images]`, integers.
      important: class, or classes that share the offset.

    Returns:
      `[images of the important classes]`, float32, in the images' order.

    Raises:
      UsageError: an argument is not as described.

    >>> found_scores([[1.0, 3.0, 2.0], [5.0, 0.0, 1.0]], [1, 2], 2)
    array([4.0000005], dtype=float32)
    """
    logits = checked_logits(logits)
    important = checked_important(important, logits.shape[1])
    labels = checked_labels(labels, logits)
    mine = np.isin(labels, important)
    zero = np.zeros(len(important), np.float32)
    return found_scores_along(logits[mine], labels[mine], important, zero)


def moved(logits: np.ndarray, important: ArrayLike, offset: ArrayLike) -> np.ndarray:
    """Returns logits under offsets, in whose float32 every promise is made.

    Args:
      logits: float32 `[num_images, num_classes]`, as trained.
      important: classes to move.
      offset: added to their logits; one, or one a class in their order.

    >>> moved(np.float32([[1, 3, 2]]), (2,), 1.5)
    array([[1. , 3. , 3.5]], dtype=float32)
    """
    found = logits.copy()
    with np.errstate(over="ignore"):
        found[:, np.asarray(important, np.intp)] += np.asarray(offset, np.float32)
    return found


def with_room(offset: float | Sequence[float], logits: ArrayLike) -> Any:
    r"""Returns an offset to deploy for a certified one: a little above it.

    .. math:: c + 2^{-13} \max_{n, k} |z_{n, k}|

    A certified offset is the least at which one of the calibration images is found, by
    the logits of the machine and program that computed them. Others round otherwise,
    and a larger offset keeps the promise.

    Args:
      offset: one number, or one for each important class.
      logits: calibration images' `[num_images, num_classes]`.

    Returns:
      A float, or a tuple of them, as the offset is.

    >>> with_room(1.0, [[8192.0, 0.0]]), with_room((1.0, 2.0), [[8192.0, 0.0, 0.0]])
    (2.0, (2.0, 3.0))
    """
    room = 2.0**-13 * float(np.abs(checked_logits(logits)).max())
    if np.ndim(offset):
        return tuple(float(each) + room for each in np.asarray(offset))
    return float(np.asarray(offset)) + room


def _scores(
    logits: np.ndarray, important: tuple[int, ...], relative: np.ndarray
) -> np.ndarray:
    """Smallest t at which an important class wins with the offsets relative + t."""
    order = np.argsort(important)
    classes, relative = np.asarray(important)[order], relative[order]
    others = np.setdiff1d(np.arange(logits.shape[1]), classes)
    mine, rest = logits[:, classes], logits[:, others]
    rest_first = others[np.argmax(rest, axis=1)]
    rest_top = rest.max(axis=1)

    def wins(key: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            moved = mine + (relative + _from_key(key)[:, None])
        top, first = moved.max(axis=1), classes[np.argmax(moved, axis=1)]
        return (top > rest_top) | ((top == rest_top) & (first < rest_first))

    # Bisects the float32 numbers, which their bits order, around the exact difference.
    size = np.abs(logits).max(axis=1).astype(np.float64) + np.abs(relative).max()
    guess = rest_top - (mine.astype(np.float64) + relative).max(axis=1)
    low, high = _to_key(guess - 2.0**-21 * size), _to_key(guess + 2.0**-21 * size)
    low = np.where(wins(low), -_LARGEST_KEY - 1, low)
    high = np.where(wins(high), high, _LARGEST_KEY + 1)
    while np.any(high - low > 1):
        middle = (low + high) // 2
        won = wins(middle)
        high, low = np.where(won, middle, high), np.where(won, low, middle)
    found = _from_key(np.minimum(high, _LARGEST_KEY))
    # Devices may flush subnormal numbers to zero: none of them is a threshold.
    tiny = np.abs(found) < _FLOAT32.tiny
    found = np.where(tiny & (found > 0), _FLOAT32.tiny, np.where(tiny, 0, found))
    return np.where(high > _LARGEST_KEY, np.inf, found).astype(np.float32)


def _to_key(value: np.ndarray) -> np.ndarray:
    """Place of a number, rounded, in the order of the float32 numbers; 0 is at 0."""
    value = np.clip(value, -_FLOAT32.max, _FLOAT32.max).astype(np.float32)
    size = np.abs(value).view(np.int32).astype(np.int64)
    return np.where(value < 0, -size, size)


def _from_key(key: np.ndarray) -> np.ndarray:
    """The float32 number at a place in their order."""
    size = np.abs(key).astype(np.int32).view(np.float32)
    return np.where(key < 0, -size, size)


def found_scores_along(
    logits: np.ndarray,
    labels: np.ndarray,
    important: tuple[int, ...],
    relative: np.ndarray,
) -> np.ndarray:
    """Smallest t from which on an image, of an important class, is found."""
    values = _scores(logits, important, relative)
    if len(important) == 1:
        return values
    mine = logits[:, list(important)].astype(np.float64) + relative
    own = labels[:, None] == np.asarray(important)
    lead = mine[own] - np.where(own, -np.inf, mine).max(axis=1)
    size = np.abs(logits).max(axis=1).astype(np.float64)
    # Each of two sums rounds by at most 2^-24 of its parts' sizes; this is twice that.
    rounding = 2.0**-22 * (size + 2 * np.abs(relative).max() + 2 * _LARGEST_SHARED)
    values = np.where(lead > rounding, values, np.inf)
    values = np.where(values > _LARGEST_SHARED, np.inf, values)
    return np.maximum(values, -_LARGEST_SHARED).astype(np.float32)
