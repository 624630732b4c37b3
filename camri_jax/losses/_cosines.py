"""Vectors at length 1, and the cosines between them."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from camri_jax import _arrays


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
    features = _arrays.floating("features", features)
    prototypes = _arrays.floating("prototypes", prototypes, ndim=2)
    _arrays.same_shape(
        "prototypes", prototypes, (features.shape[-1], *prototypes.shape[-1:])
    )
    dtype = _arrays.compute_dtype(features, prototypes)
    return jnp.matmul(
        _arrays.unit_vectors(features.astype(dtype), axis=-1),
        _arrays.unit_vectors(prototypes.astype(dtype), axis=0),
        # TF32 and bf16 passes would cost three digits of the angle.
        precision=jax.lax.Precision.HIGHEST,
    )
