"""Argument checks: what a public function says when it is called wrongly."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
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


def integer(name: str, value: ArrayLike, shape: Sequence[int] | None) -> jax.Array:
    """Returns `value` as an array, or raises unless integer and of `shape`."""
    array = jnp.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"{name} must be integers, got {array.dtype}{array.shape}")
    if shape is not None:
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


def same_shape(name: str, array: jax.Array, shape: Sequence[int]) -> None:
    """Raises unless `array` has this shape."""
    if array.shape != tuple(shape):
        raise ValueError(f"{name} must have shape {tuple(shape)}, got {array.shape}")


def positive(name: str, value: ArrayLike) -> None:
    """Raises if a value that is known, not traced, is not above zero."""
    if is_known(value) and not np.all(np.asarray(value) > 0):
        raise ValueError(f"{name} must be above 0, got {value}")


def not_negative(name: str, value: ArrayLike) -> None:
    """Raises if a value that is known, not traced, is below zero."""
    if is_known(value) and not np.all(np.asarray(value) >= 0):
        raise ValueError(f"{name} must not be below 0, got {value}")


def angle(name: str, value: ArrayLike) -> None:
    """Raises if a value that is known is no angle from 0 to pi: degrees, perhaps."""
    # float32 rounds pi up.
    if is_known(value) and not np.all(
        (np.asarray(value) >= 0) & (np.asarray(value) < 3.15)
    ):
        raise ValueError(f"{name} must be from 0 to pi, in radians, got {value}")


def ascending(name: str, value: ArrayLike) -> None:
    """Raises if values that are known, not traced, fall somewhere."""
    if is_known(value) and np.any(np.diff(np.asarray(value)) < 0):
        raise ValueError(f"{name} must ascend, got {value}")


def is_known(value: Any) -> bool:
    """Whether `value` can be looked at now: inside `jit` and `vmap` it cannot."""
    return not isinstance(value, jax.core.Tracer)


def compute_dtype(*arrays: jax.Array) -> jnp.dtype:
    """float64 where an input has it, else float32: half precision only stores."""
    wide = any(array.dtype == jnp.float64 for array in arrays)
    return jnp.dtype(jnp.float64 if wide else jnp.float32)
