"""Vectors at length 1, and the cosines between them."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from camri_jax import _check


def cosine_similarity(features: ArrayLike, prototypes: ArrayLike) -> jax.Array:
    r"""Cosines of the angles between feature vectors and class prototypes.

    .. math:: \cos\theta_k = W_k^T z / (\|W_k\| \|z\|)

    Lengths do not matter, from 1e-30 to 1e30; a zero vector has cosine 0, gradient 0.

    Args:
      features: `[..., num_features]`, floating.
      prototypes: `[num_features, num_classes]`, floating: one column a class.

    Returns:
      Cosines `[..., num_classes]`, float32 or better.

    Raises:
      TypeError: an argument is not floating.
      ValueError: the shapes do not fit.

    Reference:
      Eq. 8 of Nishiyama et al., CAMRI Loss, 2022.

    >>> cosine_similarity(jnp.array([3.0, 4.0]), jnp.eye(2))
    Array([0.6, 0.8], dtype=float32)
    """
    features = _check.floating("features", features)
    prototypes = _check.floating("prototypes", prototypes, ndim=2)
    _check.same_shape(
        "prototypes", prototypes, (features.shape[-1], *prototypes.shape[-1:])
    )
    dtype = _check.compute_dtype(features, prototypes)
    return jnp.matmul(
        unit_vectors(features.astype(dtype), axis=-1),
        unit_vectors(prototypes.astype(dtype), axis=0),
        # TF32 and bf16 passes would cost three digits of the angle.
        precision=jax.lax.Precision.HIGHEST,
    )


def unit_vectors(vectors: jax.Array, *, axis: int) -> jax.Array:
    """Returns the vectors at length 1; one of zeros stays zero, with gradient 0."""
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(vectors), axis=axis, keepdims=True))
    tiny = jnp.finfo(vectors.dtype).tiny
    # Squares of 1e30 overflow and those of 1e-30 vanish: bring the largest near 1
    # first, by a number whose reciprocal does neither.
    scaled = vectors / jnp.clip(largest, tiny, 1 / tiny)
    square = jnp.sum(scaled * scaled, axis=axis, keepdims=True)
    present = largest >= tiny
    return jnp.where(present, scaled / jnp.sqrt(jnp.where(present, square, 1)), 0)
