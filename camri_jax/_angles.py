"""Angles between feature vectors and prototypes, and how they spread (Table II)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from camri_jax import _arrays
from camri_jax._arrays import unit_vectors


class AngleStatistics(NamedTuple):
    """Mean and standard deviation `[num_classes]` of an angle in radians, per class."""

    mean: jax.Array
    std: jax.Array


def true_angles(
    features: ArrayLike, prototypes: ArrayLike, labels: ArrayLike
) -> jax.Array:
    r"""Angle between each feature vector and the prototype of its true class.

    .. math:: \theta = 2 \, \mathrm{atan2}(\|u - v\|, \|u + v\|)

    for the vectors at unit length; unlike arccos it keeps small angles.

    Args:
      features: `[num_examples, num_features]`, floating.
      prototypes: `[num_features, num_classes]`, floating: one column a class.
      labels: `[num_examples]`, integers in 0 .. num_classes - 1.

    Returns:
      Angles `[num_examples]` in radians, float32 or better; NaN for any other label.

    Raises:
      TypeError: an argument is of the wrong kind of number.
      ValueError: the shapes do not fit.

    Reference:
      Eq. 8 of Nishiyama et al., CAMRI Loss, 2022.

    >>> true_angles(jnp.array([[2.0, 2.0]]), jnp.eye(2), jnp.array([1])).round(4)
    Array([0.7854], dtype=float32)
    """
    features = _arrays.floating("features", features, ndim=2)
    prototypes = _arrays.floating("prototypes", prototypes, ndim=2)
    num_features, num_classes = prototypes.shape
    _arrays.same_shape("features", features, (features.shape[0], num_features))
    labels = _arrays.integer("labels", labels, features.shape[:1])
    labels = _arrays.class_or_none(labels, num_classes)
    dtype = _arrays.compute_dtype(features, prototypes)
    ours = unit_vectors(features.astype(dtype), axis=-1)
    theirs = unit_vectors(prototypes.astype(dtype), axis=0).T
    theirs = theirs.at[labels].get(mode="fill", fill_value=jnp.nan)
    apart = jnp.linalg.norm(ours - theirs, axis=-1)
    together = jnp.linalg.norm(ours + theirs, axis=-1)
    return 2 * jnp.arctan2(apart, together)


def angle_statistics(
    features: ArrayLike, prototypes: ArrayLike, labels: ArrayLike
) -> AngleStatistics:
    r"""Mean and spread, per class, of the angle to the true class's prototype.

    .. math::
       \mu_k = \frac{1}{N_k} \sum_{n: t_n = k} \theta_n, \qquad
       \sigma_k^2 = \frac{1}{N_k} \sum_{n: t_n = k} (\theta_n - \mu_k)^2

    Args:
      features: `[num_examples, num_features]`, floating.
      prototypes: `[num_features, num_classes]`, floating: one column a class.
      labels: `[num_examples]`, integers; an example with a label outside
        0 .. num_classes - 1 is not counted.

    Returns:
      `AngleStatistics(mean, std)`, each `[num_classes]` in radians, float32 or better;
      NaN for a class without examples.

    Raises:
      TypeError: an argument is of the wrong kind of number.
      ValueError: the shapes do not fit.

    Reference:
      Table II of Nishiyama et al., CAMRI Loss, 2022.

    >>> features = jnp.array([[1.0, 0.0], [1.0, 1.0]])
    >>> angle_statistics(features, jnp.eye(2), jnp.array([0, 0])).std.round(4)
    Array([0.3927,    nan], dtype=float32)
    """
    angles = true_angles(features, prototypes, labels)
    num_classes = jnp.shape(prototypes)[1]
    labels = _arrays.class_or_none(jnp.asarray(labels), num_classes)

    def mean(values: jax.Array) -> jax.Array:
        counted = jnp.where(labels < num_classes, values, 0)
        totals = jnp.zeros(num_classes, values.dtype)
        return totals.at[labels].add(counted, mode="drop") / counts

    counts = jnp.zeros(num_classes, angles.dtype).at[labels].add(1, mode="drop")
    means = mean(angles)
    return AngleStatistics(means, jnp.sqrt(mean((angles - means[labels]) ** 2)))
