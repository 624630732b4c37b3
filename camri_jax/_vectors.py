"""Vectors at length 1, which angles are made of."""

import jax
import jax.numpy as jnp


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
