"""Argument checks: what a public function says when it is called wrongly."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike


def floating(name: str, value: ArrayLike, *, ndim: int = 1) -> jax.Array:
    """Returns `value` as an array, or raises unless it is floating with enough axes."""
    array = jnp.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name} must be floating, got {array.dtype}{array.shape}")
    if array.ndim < ndim or 0 in array.shape[array.ndim - ndim :]:
        raise ValueError(
            f"{name} needs at least {ndim} axes, the last {ndim} not empty, "
            f"got shape {array.shape}"
        )
    return array


def integer(name: str, value: Any, shape: Sequence[int] | None) -> jax.Array:
    """Returns `value` as an array, or raises unless integer and of `shape`."""
    array = jnp.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"{name} must be integers, got {array.dtype}{array.shape}")
    if shape is not None:
        same_shape(name, array, shape)
    return array


def boolean(name: str, value: ArrayLike, shape: Sequence[int]) -> jax.Array:
    """Returns `value` as an array, or raises unless boolean and of `shape`."""
    array = jnp.asarray(value)
    if array.dtype != jnp.bool:
        raise TypeError(f"{name} must be bool, got {array.dtype}{array.shape}")
    same_shape(name, array, shape)
    return array


def real(
    name: str, value: ArrayLike, dtype: jnp.dtype, shape: Sequence[int] = ()
) -> jax.Array:
    """Returns a hyperparameter in the dtype of the computation, or raises."""
    array = jnp.asarray(value)
    if not (
        jnp.issubdtype(array.dtype, jnp.floating)
        or jnp.issubdtype(array.dtype, jnp.integer)
    ):
        raise TypeError(f"{name} must be real numbers, got {array.dtype}{array.shape}")
    same_shape(name, array, shape)
    return array.astype(dtype)


def classes(labels: jax.Array, num_classes: int) -> tuple[jax.Array, jax.Array]:
    """Returns labels as int32, and which of them name a class."""
    if labels.dtype.itemsize < 4:  # num_classes may not fit into int8
        labels = labels.astype(jnp.int32)
    # Compared before the cast: int64 wraps around.
    valid = (labels >= 0) & (labels < num_classes)
    return labels.astype(jnp.int32), valid


def class_or_none(labels: jax.Array, num_classes: int) -> jax.Array:
    """Returns labels as int32; for no class num_classes, which scatters drop."""
    labels, valid = classes(labels, num_classes)
    return jnp.where(valid, labels, num_classes)


def same_shape(name: str, array: jax.Array, shape: Sequence[int]) -> None:
    """Raises unless `array` has this shape."""
    if array.shape != tuple(shape):
        raise ValueError(f"{name} must have shape {tuple(shape)}, got {array.shape}")


def positive(name: str, value: ArrayLike) -> None:
    """Raises if a value that is known, not traced, is not above 0."""
    _require(name, value, lambda known: known > 0, "above 0")


def not_negative(name: str, value: ArrayLike) -> None:
    """Raises if a value that is known, not traced, is below 0."""
    _require(name, value, lambda known: known >= 0, "not below 0")


def angle(name: str, value: ArrayLike) -> None:
    """Raises if a known value is no angle from 0 to pi: degrees, perhaps."""
    in_range = "from 0 to pi, in radians"  # float32 rounds pi up
    _require(name, value, lambda known: (known >= 0) & (known < 3.15), in_range)


def ascending(name: str, value: ArrayLike) -> None:
    """Raises if values that are known, not traced, fall somewhere."""
    _require(name, value, lambda known: known[1:] >= known[:-1], "in ascending order")


def is_known(value: Any) -> bool:
    """Whether `value` can be looked at now: inside `jit` and `vmap` it cannot."""
    return not isinstance(value, Tracer)


def compute_dtype(*arrays: jax.Array) -> jnp.dtype:
    """float64 where an input has it, else float32: half precision only stores."""
    wide = any(array.dtype == jnp.float64 for array in arrays)
    return jnp.dtype(jnp.float64 if wide else jnp.float32)


def _require(
    name: str, value: ArrayLike, holds: Callable[[np.ndarray], Any], allowed: str
) -> None:
    # device_get is an explicit transfer, which a transfer guard lets pass.
    if is_known(value) and not np.all(holds(np.asarray(jax.device_get(value)))):
        raise ValueError(f"{name} must be {allowed}, got {value}")


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
