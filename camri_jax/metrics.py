"""Counts and angles by which a trained classifier is judged."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from camri_jax import _arrays
from camri_jax._files import UsageError, whole_number


class AngleStatistics(NamedTuple):
    """Mean and standard deviation `[num_classes]` of an angle in radians, per class."""

    mean: jax.Array
    std: jax.Array


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
      UsageError: the shapes differ.

    Reference:
      Fig. 4 of Nishiyama et al., CAMRI Loss, 2022.

    >>> confusion_matrix(jnp.array([0, 0, 1]), jnp.array([0, 1, 1]), 2)
    Array([[1, 1],
           [0, 1]], dtype=int32)
    """
    num_classes = whole_number("num_classes", num_classes, 1)
    labels = _arrays.class_or_none(_arrays.integer("labels", labels, None), num_classes)
    predictions = _arrays.integer("predictions", predictions, labels.shape)
    predictions = _arrays.class_or_none(predictions, num_classes)
    empty = jnp.zeros((num_classes, num_classes), jnp.int32)
    pairs = empty.at[labels, predictions]
    return pairs.add(1, mode="drop", out_sharding=_arrays.replicated_like(labels))


def recall(confusion: ArrayLike) -> jax.Array:
    r"""Share of each class's examples that were recognised.

    .. math:: r_t = M_{t,t} / \sum_p M_{t,p}

    Args:
      confusion: counts `[..., num_classes, num_classes]`, true class first.

    Returns:
      Recalls `[..., num_classes]`, float32; NaN for a class without examples.

    Raises:
      UsageError: `confusion` is not square.

    Reference:
      Section IV-A4 of Nishiyama et al., CAMRI Loss, 2022.

    >>> recall(jnp.array([[3, 1], [0, 0]]))
    Array([0.75,  nan], dtype=float32)
    """
    confusion = _square(confusion)
    hits = jnp.diagonal(confusion, axis1=-2, axis2=-1)
    return _share(hits, jnp.sum(confusion, axis=-1, dtype=jnp.float32))


def accuracy(confusion: ArrayLike) -> jax.Array:
    r"""Share of all examples that were recognised.

    .. math:: a = \sum_t M_{t,t} / \sum_{t,p} M_{t,p}

    Args:
      confusion: counts `[..., num_classes, num_classes]`, true class first.

    Returns:
      Accuracies `[...]`, float32; NaN where nothing was counted.

    Raises:
      UsageError: `confusion` is not square.

    Reference:
      Section IV-A4 of Nishiyama et al., CAMRI Loss, 2022.

    >>> accuracy(jnp.array([[3, 1], [0, 4]]))
    Array(0.875, dtype=float32)
    """
    confusion = _square(confusion)
    hits = jnp.trace(confusion, axis1=-2, axis2=-1, dtype=jnp.float32)
    return _share(hits, jnp.sum(confusion, axis=(-2, -1), dtype=jnp.float32))


def true_angles(
    features: ArrayLike, prototypes: ArrayLike, labels: ArrayLike
) -> jax.Array:
    r"""Angle between each feature vector and the prototype of its true class.

    .. math:: \theta = 2 \, \mathrm{atan2}(\|u - v\|, \|u + v\|)

    for the vectors at unit length; unlike arccos it keeps small angles. Its gradient is
    finite, and 0 where they align or oppose each other, which has none.

    Args:
      features: `[..., num_features]`, floating.
      prototypes: `[num_features, num_classes]`, floating: one column a class.
      labels: `[...]`, integers in 0 .. num_classes - 1.

    Returns:
      Angles `[...]` in radians, float32 or better; NaN for any other label.

    Raises:
      TypeError: an argument is of the wrong kind of number.
      UsageError: the shapes do not fit.

    Reference:
      Eq. 8 of Nishiyama et al., CAMRI Loss, 2022.

    >>> true_angles(jnp.array([[2.0, 2.0]]), jnp.eye(2), jnp.array([1])).round(4)
    Array([0.7854], dtype=float32)
    """
    features = _arrays.floating("features", features)
    prototypes = _arrays.floating("prototypes", prototypes, ndim=2)
    num_classes = prototypes.shape[-1]
    shape = (features.shape[-1], num_classes)
    _arrays.same_shape("prototypes", prototypes, shape)
    labels = _arrays.integer("labels", labels, features.shape[:-1])
    labels = _arrays.class_or_none(labels, num_classes)
    dtype = _arrays.compute_dtype(features, prototypes)
    ours = _arrays.unit_vectors(features.astype(dtype), axis=-1)
    theirs = _arrays.unit_vectors(prototypes.astype(dtype), axis=0).T
    # 0 for no class, not NaN, which would be its gradient too.
    theirs = _arrays.of_label(theirs, labels)
    apart, together = _length(ours - theirs), _length(ours + theirs)
    # At right angles to all, as one of zeros is; arctan2 has no gradient there.
    zeros = (apart == 0) & (together == 0)
    angles = 2 * jnp.arctan2(jnp.where(zeros, 1, apart), jnp.where(zeros, 1, together))
    return jnp.where(labels < num_classes, angles, jnp.nan)


def angle_statistics(
    features: ArrayLike, prototypes: ArrayLike, labels: ArrayLike
) -> AngleStatistics:
    r"""Mean and spread, per class, of the angle to the true class's prototype.

    .. math::
       \mu_k = \frac{1}{N_k} \sum_{n: t_n = k} \theta_n, \qquad
       \sigma_k^2 = \frac{1}{N_k} \sum_{n: t_n = k} (\theta_n - \mu_k)^2

    Args:
      features: `[..., num_features]`, floating.
      prototypes: `[num_features, num_classes]`, floating: one column a class.
      labels: `[...]`, integers; an example with a label outside
        0 .. num_classes - 1 is not counted.

    Returns:
      `AngleStatistics(mean, std)`, each `[num_classes]` in radians, float32 or better;
      NaN for a class without examples.

    Raises:
      TypeError: an argument is of the wrong kind of number.
      UsageError: the shapes do not fit.

    Reference:
      Table II of Nishiyama et al., CAMRI Loss, 2022.

    >>> features = jnp.array([[1.0, 0.0], [1.0, 1.0]])
    >>> angle_statistics(features, jnp.eye(2), jnp.array([0, 0])).std.round(4)
    Array([0.3927,    nan], dtype=float32)
    """
    angles = true_angles(features, prototypes, labels)
    num_classes = jnp.shape(prototypes)[1]
    labels = _arrays.integer("labels", labels, angles.shape)
    labels = _arrays.class_or_none(labels, num_classes)

    def total(values: jax.Array) -> jax.Array:
        counted = jnp.where(labels < num_classes, values, 0)
        totals = jnp.zeros(num_classes, values.dtype).at[labels]
        return totals.add(
            counted, mode="drop", out_sharding=_arrays.replicated_like(labels)
        )

    counts = total(jnp.ones_like(angles))
    means = total(angles) / counts
    own = _arrays.of_label(means, labels)
    return AngleStatistics(means, _root(total((angles - own) ** 2) / counts))


def _length(vectors: jax.Array) -> jax.Array:
    return _root(jnp.sum(vectors * vectors, axis=-1))


def _root(squares: jax.Array) -> jax.Array:
    """Returns square roots, with gradient 0 at 0, where the slope is infinite."""
    nothing = squares == 0
    return jnp.where(nothing, 0, jnp.sqrt(jnp.where(nothing, 1, squares)))


def _square(confusion: ArrayLike) -> jax.Array:
    counts = _arrays.array("confusion", confusion)
    if counts.ndim < 2 or counts.shape[-1] != counts.shape[-2]:
        raise UsageError(f"confusion must be square, got shape {counts.shape}")
    return counts


def _share(part: jax.Array, whole: jax.Array) -> jax.Array:
    part, whole = part.astype(jnp.float32), whole.astype(jnp.float32)
    return jnp.where(whole > 0, part / jnp.where(whole > 0, whole, 1), jnp.nan)
