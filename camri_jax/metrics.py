"""Counts and angles from which a trained classifier is judged."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from camri_jax import _arrays
from camri_jax._angles import AngleStatistics, angle_statistics, true_angles

__all__ = [
    "AngleStatistics",
    "accuracy",
    "angle_statistics",
    "confusion_matrix",
    "recall",
    "threshold_curve",
    "true_angles",
]


def confusion_matrix(
    labels: ArrayLike, predictions: ArrayLike, num_classes: int
) -> jax.Array:
    r"""Counts how often each class was predicted as each class.

    .. math:: M_{t,p} = \#\{n : t_n = t, \; p_n = p\}

    Args:
      labels: true classes, integers of any shape. A pair with a number outside
        0 .. num_classes - 1 is not counted: so -1 marks padding.
      predictions: predicted classes, integers of the same shape.
      num_classes: how many classes there are; static.

    Returns:
      Counts `[num_classes, num_classes]`, true class first, int32.

    Raises:
      TypeError: labels or predictions are not integers.
      ValueError: the shapes differ.

    Reference:
      Fig. 4 of Nishiyama et al., CAMRI Loss, 2022.

    >>> confusion_matrix(jnp.array([0, 0, 1]), jnp.array([0, 1, 1]), 2)
    Array([[1, 1],
           [0, 1]], dtype=int32)
    """
    labels = _arrays.class_or_none(_arrays.integer("labels", labels, None), num_classes)
    predictions = _arrays.integer("predictions", predictions, labels.shape)
    predictions = _arrays.class_or_none(predictions, num_classes)
    empty = jnp.zeros((num_classes, num_classes), jnp.int32)
    return empty.at[labels, predictions].add(1, mode="drop")


def recall(confusion: ArrayLike) -> jax.Array:
    r"""Share of each class's examples that were recognised.

    .. math:: r_t = M_{t,t} / \sum_p M_{t,p}

    Args:
      confusion: counts `[..., num_classes, num_classes]`, true class first.

    Returns:
      Recalls `[..., num_classes]`, float32; NaN for a class without examples.

    Raises:
      ValueError: `confusion` is not square.

    Reference:
      Section IV-A4 of Nishiyama et al., CAMRI Loss, 2022.

    >>> recall(jnp.array([[3, 1], [0, 0]]))
    Array([0.75,  nan], dtype=float32)
    """
    confusion = _square(confusion)
    hits = jnp.diagonal(confusion, axis1=-2, axis2=-1)
    return _share(hits, jnp.sum(confusion, axis=-1))


def accuracy(confusion: ArrayLike) -> jax.Array:
    r"""Share of all examples that were recognised.

    .. math:: a = \sum_t M_{t,t} / \sum_{t,p} M_{t,p}

    Args:
      confusion: counts `[..., num_classes, num_classes]`, true class first.

    Returns:
      Accuracies `[...]`, float32; NaN where nothing was counted.

    Raises:
      ValueError: `confusion` is not square.

    Reference:
      Section IV-A4 of Nishiyama et al., CAMRI Loss, 2022.

    >>> accuracy(jnp.array([[3, 1], [0, 4]]))
    Array(0.875, dtype=float32)
    """
    confusion = _square(confusion)
    hits = jnp.trace(confusion, axis1=-2, axis2=-1)
    return _share(hits, jnp.sum(confusion, axis=(-2, -1)))


def threshold_curve(
    logits: ArrayLike,
    labels: ArrayLike,
    important_mask: ArrayLike,
    constants: ArrayLike,
    num_classes: int,
) -> jax.Array:
    r"""Confusion matrices as a constant is added to the important classes' logits.

    .. math:: p_n(c) = \arg\max_k \; z_{n,k} + c \, [k \text{ is important}]

    An example's prediction changes once along the way, so one histogram of where it
    does holds the whole curve.

    Args:
      logits: `[num_examples, num_classes]`, floating.
      labels: `[num_examples]`, integers; an example with a label outside
        0 .. num_classes - 1 is not counted.
      important_mask: `[num_classes]`, bool; may be traced.
      constants: `[num_constants]`, ascending; may be traced, and is then not checked.
      num_classes: how many classes there are; static.

    Returns:
      Counts `[num_constants, num_classes, num_classes]`, true class first, int32.

    Raises:
      TypeError: an argument is of the wrong kind of number.
      ValueError: the shapes do not fit, or the known constants do not ascend.

    Reference:
      Threshold tuning, section I-A of Nishiyama et al., CAMRI Loss, 2022.

    >>> threshold_curve(
    ...     jnp.array([[1.0, 0.0]]), jnp.array([1]), jnp.array([False, True]),
    ...     jnp.array([0.0, 2.0]), 2,
    ... )[:, 1]
    Array([[1, 0],
           [0, 1]], dtype=int32)
    """
    logits = _arrays.floating("logits", logits, ndim=2)
    logits = logits.astype(_arrays.compute_dtype(logits))
    _arrays.same_shape("logits", logits, (logits.shape[0], num_classes))
    labels = _arrays.integer("labels", labels, logits.shape[:1])
    labels = _arrays.class_or_none(labels, num_classes)
    mask = _arrays.boolean("important_mask", important_mask, (num_classes,))[None, :]
    size = jnp.size(constants)
    levels = _arrays.real("constants", constants, logits.dtype, (size,))
    _arrays.ascending("constants", constants)

    ours, theirs = jnp.where(mask, logits, -jnp.inf), jnp.where(mask, -jnp.inf, logits)
    important, other = jnp.argmax(ours, axis=-1), jnp.argmax(theirs, axis=-1)
    gap = jnp.max(theirs, axis=-1) - jnp.max(ours, axis=-1)
    # argmax gives a tie to the lower index.
    first = jnp.where(
        important < other,
        jnp.searchsorted(levels, gap, side="left"),
        jnp.searchsorted(levels, gap, side="right"),
    )
    changes = jnp.zeros((size, num_classes, num_classes), jnp.int32)
    changes = changes.at[0, labels, other].add(1, mode="drop")
    changes = changes.at[first, labels, other].add(-1, mode="drop")
    changes = changes.at[first, labels, important].add(1, mode="drop")
    return jnp.cumsum(changes, axis=0, dtype=jnp.int32)


def _square(confusion: ArrayLike) -> jax.Array:
    array = jnp.asarray(confusion)
    if array.ndim < 2 or array.shape[-1] != array.shape[-2]:
        raise ValueError(f"confusion must be square, got shape {array.shape}")
    return array


def _share(part: jax.Array, whole: jax.Array) -> jax.Array:
    part, whole = part.astype(jnp.float32), whole.astype(jnp.float32)
    return jnp.where(whole > 0, part / jnp.where(whole > 0, whole, 1), jnp.nan)
