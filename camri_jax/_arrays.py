"""Argument checks: what a public function says when it is called wrongly."""

import functools
import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from camri_jax._files import UsageError

Check = Callable[[str, ArrayLike], None]

# jax-ml/jax#39103: right in 0.10.1, 0.11.0, 0.11.1, 0.11.2 and 0.12.0.1.
WRONG_SUMS_VERSIONS = ("0.10.2",)
# Empty: XLA's CPU backend leaves nothing to YNNPACK, and runs convolutions faster.
WRONG_SUMS_CURE = "--xla_cpu_experimental_ynn_fusion_type="


def wrong_sums() -> bool:
    """Whether JAX on a CPU adds wrongly here: an affected jaxlib without its cure."""
    return _is_affected() and not _is_cured(os.environ.get("XLA_FLAGS", ""))


def cure_wrong_sums() -> None:
    """Adds the cure to XLA_FLAGS where it is needed; call it before JAX starts.

    What the user set stays as it is, also another value of the same flag.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if _is_affected() and WRONG_SUMS_CURE not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {WRONG_SUMS_CURE}".strip()


def _is_affected() -> bool:
    import jaxlib.version

    return jaxlib.version.__version__ in WRONG_SUMS_VERSIONS


def _is_cured(flags: str) -> bool:
    values = [
        flag.removeprefix(WRONG_SUMS_CURE)
        for flag in flags.split()
        if flag.startswith(WRONG_SUMS_CURE)
    ]
    return bool(values) and (values[-1] == "" or "-reduce" in values[-1].split(","))


@functools.cache
def warn_of_wrong_sums() -> None:
    """Warns, once in a process, if JAX computes on a CPU that adds wrongly."""
    if wrong_sums() and jax.default_backend() == "cpu":
        warnings.warn(
            "this jaxlib can add wrongly on a CPU (jax-ml/jax#39103): set the "
            f"environment variable XLA_FLAGS={WRONG_SUMS_CURE} before JAX starts",
            RuntimeWarning,
            stacklevel=2,
        )


def array(name: str, value: Any) -> jax.Array:
    """Returns `value` as an array, or raises unless it is of numbers."""
    warn_of_wrong_sums()
    if isinstance(value, jax.Array) or not is_known(value):
        return jnp.asarray(value)
    known = _numpy(name, value)
    if _is_cut(known):
        # JAX would keep the lower 32 bits of 10**10.
        limits = np.iinfo(np.int32)
        fits = np.all((known >= limits.min) & (known <= limits.max))
        known = known.astype(np.int32 if fits else np.float32)
    return jnp.asarray(known)


def _is_cut(known: np.ndarray) -> bool:
    """Whether JAX cuts these integers to 32 bits."""
    wide = known.dtype.kind in "iu" and known.dtype.itemsize == 8
    return wide and not jax.config.read("jax_enable_x64")


def _numpy(name: str, value: Any) -> np.ndarray:
    if isinstance(value, jax.Array):
        # An explicit transfer, which a transfer guard lets pass.
        return np.asarray(jax.device_get(value))
    try:
        known = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise TypeError(_no_numbers(name, value)) from error
    if known.dtype.kind in "OUSMm":
        raise TypeError(_no_numbers(name, value))
    return known


def _holds_tracers(value: Any) -> bool:
    return isinstance(value, list | tuple) and any(
        isinstance(entry, Tracer) or _holds_tracers(entry) for entry in value
    )


def _no_numbers(name: str, value: Any) -> str:
    kind = type(value).__name__
    return f"{name} must be a number or an array of numbers, got {kind}: {value!r:.80}"


def floating(name: str, value: ArrayLike, *, ndim: int = 1) -> jax.Array:
    """Returns `value` as an array, or raises unless it is floating with enough axes."""
    numbers = array(name, value)
    if not jnp.issubdtype(numbers.dtype, jnp.floating):
        raise TypeError(f"{name} must be floating, got {numbers.dtype}{numbers.shape}")
    if numbers.ndim < ndim or 0 in numbers.shape[numbers.ndim - ndim :]:
        raise UsageError(
            f"{name} needs at least {ndim} axes, the last {ndim} not empty, "
            f"got shape {numbers.shape}"
        )
    return numbers


def integer(name: str, value: Any, shape: Sequence[int] | None) -> jax.Array:
    """Returns classes as an array, or raises unless integer and of `shape`.

    64-bit integers that JAX would cut to 32 bits become -1 or the largest of 32 bits
    instead: 2**32 + 1 is no class.
    """
    if is_known(value) and not isinstance(value, jax.Array):
        value = _numpy(name, value)
        if _is_cut(value):
            value = value.clip(max(np.iinfo(value.dtype).min, -1), 2**31 - 1)
    numbers = array(name, value)
    if not jnp.issubdtype(numbers.dtype, jnp.integer):
        raise TypeError(f"{name} must be integers, got {numbers.dtype}{numbers.shape}")
    if shape is not None:
        same_shape(name, numbers, shape)
    return numbers


def real(
    name: str,
    value: ArrayLike,
    dtype: jnp.dtype,
    check: Check | None,
    shape: Sequence[int] = (),
) -> jax.Array:
    """Returns a hyperparameter in the dtype of the computation, or raises.

    `check` is one of those below, from `positive` to `share`; None: any will do.
    """
    if check is not None:
        check(name, value)
    numbers = array(name, value)
    if not (
        jnp.issubdtype(numbers.dtype, jnp.floating)
        or jnp.issubdtype(numbers.dtype, jnp.integer)
    ):
        found = f"{numbers.dtype}{numbers.shape}"
        raise TypeError(f"{name} must be real numbers, got {found}")
    same_shape(name, numbers, shape)
    return numbers.astype(dtype)


def class_or_none(labels: jax.Array, num_classes: int) -> jax.Array:
    """Returns labels as int32; no class becomes num_classes, which scatters drop."""
    if labels.dtype.itemsize < 4:  # num_classes may not fit into int8
        labels = labels.astype(jnp.int32)
    # Compared before the cast: int64 wraps around.
    valid = (labels >= 0) & (labels < num_classes)
    return jnp.where(valid, labels.astype(jnp.int32), num_classes)


def same_shape(name: str, numbers: jax.Array, shape: Sequence[int]) -> None:
    """Raises unless `numbers` has this shape."""
    if numbers.shape != tuple(shape):
        raise UsageError(f"{name} must have shape {tuple(shape)}, got {numbers.shape}")


def positive(name: str, value: ArrayLike) -> None:
    """Raises if a value that is known, not traced, is not above 0, or infinite."""
    _require(name, value, lambda known: known > 0, "above 0")
    finite(name, value)


def not_negative(name: str, value: ArrayLike) -> None:
    """Raises if a value that is known, not traced, is below 0, or infinite."""
    from_zero(name, value)
    finite(name, value)


def from_zero(name: str, value: ArrayLike) -> None:
    """Raises if a value that is known, not traced, is below 0 or NaN."""
    _require(name, value, lambda known: known >= 0, "not below 0")


def finite(name: str, value: ArrayLike) -> None:
    """Raises if a value that is known, not traced, is infinite or NaN."""
    _require(name, value, np.isfinite, "finite")


def angle(name: str, value: ArrayLike) -> None:
    """Raises if a known value is not from 0 to pi, as an angle in degrees is not."""
    in_range = "from 0 to pi, in radians"  # float32 rounds pi up
    _require(name, value, lambda known: (known >= 0) & (known < 3.15), in_range)


def share(name: str, value: ArrayLike) -> None:
    """Raises if a value that is known, not traced, is not from 0 to 1."""
    _require(name, value, lambda known: (known >= 0) & (known <= 1), "from 0 to 1")


def is_known(value: Any) -> bool:
    """Whether `value` can be looked at now: inside `jit` and `vmap` it cannot."""
    return not isinstance(value, Tracer) and not _holds_tracers(value)


def compute_dtype(*arrays: jax.Array) -> jnp.dtype:
    """float64 where an input has it, else float32: half precision only stores."""
    wide = any(array.dtype == jnp.float64 for array in arrays)
    return jnp.dtype(jnp.float64 if wide else jnp.float32)


def _require(
    name: str, value: Any, holds: Callable[[np.ndarray], Any], allowed: str
) -> None:
    if not is_known(value):
        return
    known = _numpy(name, value)
    if known.dtype == bool:
        raise TypeError(f"{name} must be real numbers, got bool{known.shape}")
    kept = np.asarray(holds(known))
    if not np.all(kept):
        first = value if known.ndim == 0 else known[~kept][0]
        raise UsageError(f"{name} must be {allowed}, got {first}")


def unit_vectors(vectors: jax.Array, *, axis: int) -> jax.Array:
    """Returns the vectors at length 1; one of zeros stays zero, with gradient 0."""
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(vectors), axis=axis, keepdims=True))
    tiny = jnp.finfo(vectors.dtype).tiny
    # Squares of 1e30 overflow and those of 1e-30 vanish: bring the largest near 1
    # first, by a number whose reciprocal does neither.
    scaled = vectors / jnp.clip(largest, tiny, 1 / tiny)
    square = jnp.sum(scaled * scaled, axis=axis, keepdims=True)
    # NaN is not absent: a network that diverged must not look as if it were sure.
    absent = largest < tiny
    return jnp.where(absent, 0, scaled / jnp.sqrt(jnp.where(absent, 1, square)))


def of_label(values: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns each label's entry of `[num_classes, ...]`, 0 for no class."""
    # Over devices as the labels are: JAX does not infer it on a mesh of Explicit axes.
    sharding = jax.typeof(labels).sharding
    return values.at[labels].get(mode="fill", fill_value=0, out_sharding=sharding)


def replicated_like(of_examples: jax.Array) -> jax.sharding.NamedSharding:
    """Returns the sharding of sums over examples: whole on each of their devices.

    JAX does not infer it on a mesh of Explicit axes.
    """
    sharding = jax.typeof(of_examples).sharding
    return sharding.update(spec=jax.sharding.PartitionSpec())
