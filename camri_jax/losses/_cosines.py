"""The two heads: scores of features against prototypes, with every digit."""

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
      UsageError: the shapes do not fit.

    Reference:
      Eq. 8 of Nishiyama et al., CAMRI Loss, 2022.

    >>> cosine_similarity(jnp.array([3.0, 4.0]), jnp.eye(2))
    Array([0.6, 0.8], dtype=float32)
    """
    features, prototypes = _checked(features, prototypes)
    return _product(
        _arrays.unit_vectors(features, axis=-1),
        _arrays.unit_vectors(prototypes, axis=0),
    )


def linear_logits(
    features: ArrayLike, prototypes: ArrayLike, bias: ArrayLike | None = None
) -> jax.Array:
    r"""Logits of a linear head, as exactly multiplied as `cosine_similarity`'s cosines.

    .. math:: z_k = W_k^T z + b_k

    Args:
      features: `[..., num_features]`, floating.
      prototypes: `[num_features, num_classes]`, floating: one column a class.
      bias: `[num_classes]`, or None for none.

    Returns:
      Logits `[..., num_classes]`, float32 or better.

    Raises:
      TypeError: an argument is not floating.
      UsageError: the shapes do not fit.

    Reference:
      The softmax's logits in eq. 1 of Nishiyama et al., CAMRI Loss, 2022.

    >>> linear_logits(jnp.array([3.0, 4.0]), jnp.eye(2), jnp.array([1.0, 0.0]))
    Array([4., 4.], dtype=float32)
    """
    features, prototypes = _checked(features, prototypes)
    logits = _product(features, prototypes)
    if bias is None:
        return logits
    bias = _arrays.real("bias", bias, logits.dtype, None, logits.shape[-1:])
    return logits + jnp.broadcast_to(bias, logits.shape)


def _checked(features: ArrayLike, prototypes: ArrayLike) -> tuple[jax.Array, jax.Array]:
    features = _arrays.floating("features", features)
    prototypes = _arrays.floating("prototypes", prototypes, ndim=2)
    shape = (features.shape[-1], *prototypes.shape[-1:])
    _arrays.same_shape("prototypes", prototypes, shape)
    dtype = _arrays.compute_dtype(features, prototypes)
    return features.astype(dtype), prototypes.astype(dtype)


def _product(features: jax.Array, prototypes: jax.Array) -> jax.Array:
    # TF32 and bf16 passes would cost three digits, and the comparison of the heads.
    return jnp.matmul(features, prototypes, precision=jax.lax.Precision.HIGHEST)
