"""The penalties of the paper's experiments, laid on one important class or several."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from camri_jax import _arrays
from camri_jax._files import UsageError, whole_number

_FLOAT32 = jnp.dtype(jnp.float32)
Important = int | Sequence[int] | np.ndarray | jax.Array


def margin_vector(
    num_classes: int, important: Important, margin: ArrayLike
) -> jax.Array:
    r"""Angular margins for CAMRI: `margin` for the important classes, 0 for the others.

    .. math:: m_\kappa = \mu, \qquad m_k = 0

    Args:
      num_classes: how many classes there are; static.
      important: an index or several; may be traced, and is then not checked.
      margin: radians, from 0 to pi: a number, or one for each important class; may be
        traced.

    Returns:
      Margins `[num_classes]`, float32.

    Raises:
      TypeError: `important` is not of integers.
      UsageError: a class is out of range, missing or named twice, or a known margin is
        out of range.

    Reference:
      Section IV-A3 of Nishiyama et al., CAMRI Loss, 2022.

    >>> margin_vector(4, 2, 0.25)
    Array([0.  , 0.  , 0.25, 0.  ], dtype=float32)
    """
    _arrays.angle("margin", margin)
    return _spread("margin", num_classes, important, margin, 0.0)


def class_weights(
    num_classes: int, important: Important, weight: ArrayLike
) -> jax.Array:
    r"""Class weights for WCE: `weight` for the important classes, 1 for the others.

    .. math:: w_\kappa = w, \qquad w_k = 1

    Also the false-negative weights of CRWWCE.

    Args:
      num_classes: how many classes there are; static.
      important: an index or several; may be traced, and is then not checked.
      weight: not below 0: a number, or one for each important class; may be traced.

    Returns:
      Weights `[num_classes]`, float32.

    Raises:
      TypeError: `important` is not of integers.
      UsageError: a class is out of range, missing or named twice, or a known weight is
        below 0.

    Reference:
      Section IV-A3 of Nishiyama et al., CAMRI Loss, 2022.

    >>> class_weights(3, [0, 2], 4.0)
    Array([4., 1., 4.], dtype=float32)
    """
    _arrays.not_negative("weight", weight)
    return _spread("weight", num_classes, important, weight, 1.0)


def cost_matrix(num_classes: int, important: Important, cost: ArrayLike) -> jax.Array:
    r"""Costs of confusing classes: `cost` where one of them is important, else 1.

    .. math::
       C_{k,k} = 0, \qquad C_{\kappa,k} = C_{k,\kappa} = c, \qquad C_{k,l} = 1

    Also the false-positive weights of CRWWCE.

    Args:
      num_classes: how many classes there are; static.
      important: an index or several; may be traced, and is then not checked.
      cost: not below 0: a number, or one for each important class, of which the larger
        counts between two of them; may be traced.

    Returns:
      Costs `[num_classes, num_classes]`, float32, symmetric.

    Raises:
      TypeError: `important` is not of integers.
      UsageError: a class is out of range, missing or named twice, or a known cost is
        below 0.

    Reference:
      Section IV-A3 of Nishiyama et al., CAMRI Loss, 2022.

    >>> cost_matrix(3, 1, 2.0)
    Array([[0., 2., 1.],
           [2., 0., 2.],
           [1., 2., 0.]], dtype=float32)
    """
    _arrays.not_negative("cost", cost)
    num_classes, classes, cost = _checked("cost", num_classes, important, cost)
    return _costs(num_classes, classes, cost)


def offset_vector(
    num_classes: int, important: Important, offset: ArrayLike
) -> jax.Array:
    r"""Offsets of logits, or margins on cosines: 0 except for important classes.

    .. math:: b_\kappa = b, \qquad b_k = 0

    Args:
      num_classes: how many classes there are; static.
      important: an index or several; may be traced, and is then not checked.
      offset: of either sign: a number, or one for each important class; may be traced.

    Returns:
      Offsets `[num_classes]`, float32.

    Raises:
      TypeError: `important` is not of integers.
      UsageError: a class is out of range, missing or named twice, or a known offset is
        not finite.

    Reference:
      For `camri_jax.losses.logit_adjusted_cross_entropy` and `class_sensitive_cosface`.

    >>> offset_vector(3, 1, -0.5)
    Array([ 0. , -0.5,  0. ], dtype=float32)
    """
    _arrays.finite("offset", offset)
    return _spread("offset", num_classes, important, offset, 0.0)


def ldam_margins(class_counts: ArrayLike, margin: ArrayLike) -> jax.Array:
    r"""Margins on cosines for LDAM: the rarer a class, the larger.

    .. math:: m_k = \mu \left( \min_l n_l / n_k \right)^{1/4}

    Args:
      class_counts: `[num_classes]`, training examples of each class, above 0; may be
        traced.
      margin: the rarest class's, not below 0; may be traced.

    Returns:
      Margins `[num_classes]`, float32 or better.

    Raises:
      TypeError: an argument is not of real numbers.
      UsageError: a shape or a known value is out of what is allowed.

    Reference:
      Cao et al., Label-Distribution-Aware Margin Loss, 2019, section of that name.

    >>> ldam_margins(jnp.array([16, 1]), 0.5)
    Array([0.25, 0.5 ], dtype=float32)
    """
    dtype = _arrays.compute_dtype(_arrays.array("margin", margin))
    shape = _shape_of_counts(_arrays.array("class_counts", class_counts))
    counts = _arrays.real("class_counts", class_counts, dtype, _arrays.positive, shape)
    margin = _arrays.real("margin", margin, dtype, _arrays.not_negative)
    return margin * (jnp.min(counts) / counts) ** 0.25


def class_balanced_weights(class_counts: ArrayLike, beta: float) -> jax.Array:
    r"""Class weights by the effective number of examples, of mean 1.

    .. math:: w_k \propto \frac{1 - \beta}{1 - \beta^{n_k}}, \qquad \sum_k w_k = K

    Args:
      class_counts: `[num_classes]`, training examples of each class, above 0; known,
        not traced.
      beta: from 0, where all weights are 1, to below 1, where they become
        proportional to 1 / n_k; known, not traced.

    Returns:
      Weights `[num_classes]`, float32.

    Raises:
      UsageError: there are no counts, one is not above 0, or beta is out of range.

    Reference:
      The class-balanced loss of Cui et al., Class-Balanced Loss Based on Effective
      Number of Samples, 2019, with its weights' normalisation.

    >>> class_balanced_weights([1, 2], 0.5)
    Array([1.2, 0.8], dtype=float32)
    """
    _arrays.positive("class_counts", class_counts)
    _shape_of_counts(class_counts)
    if not 0 <= beta < 1:
        raise UsageError(f"beta must be from 0 to below 1, got {beta}")
    counts = np.asarray(class_counts, np.float64)
    # float32 keeps three digits of 1 - 0.9999.
    with np.errstate(divide="ignore"):
        weights = 1 / -np.expm1(counts * np.log(np.float64(beta)))
    return jnp.asarray(weights / weights.mean(), jnp.float32)


def warm_up(step: ArrayLike, length: ArrayLike) -> jax.Array:
    r"""Share of a margin, or of any penalty, that counts so far.

    .. math:: \min(1, t / T)

    A large margin from the first step on can keep a network from learning at all:
    `margins=warm_up(step, 500) * margins` brings it in over 500 steps.

    Args:
      step: t, how far training is, from 0; may be traced.
      length: T in the same unit, not below 0; at 0 all counts at once; may be traced.

    Returns:
      A share from 0 to 1, float32 or better.

    Raises:
      TypeError: an argument is not of real numbers.
      UsageError: a known value is below 0, or the length infinite.

    >>> warm_up(125, 500) * margin_vector(3, 1, 0.4)
    Array([0. , 0.1, 0. ], dtype=float32)
    """
    dtype = _arrays.compute_dtype(_arrays.array("length", length))
    step = _arrays.real("step", step, dtype, _arrays.from_zero)
    length = _arrays.real("length", length, dtype, _arrays.not_negative)
    grows = length > 0
    return jnp.where(grows, jnp.clip(step / jnp.where(grows, length, 1), 0, 1), 1)


def _shape_of_counts(class_counts: ArrayLike) -> tuple[int, ...]:
    shape = np.shape(class_counts)
    if len(shape) != 1 or shape == (0,):
        raise UsageError(f"class_counts must be [num_classes], got shape {shape}")
    return shape


def _spread(
    name: str, num_classes: int, important: Important, value: ArrayLike, rest: float
) -> jax.Array:
    num_classes, classes, value = _checked(name, num_classes, important, value)
    return _filled(num_classes, rest, classes, value)


def _checked(name: str, num_classes: int, important: Important, value: ArrayLike):
    """Returns how many classes, the important ones, and one value or one for each."""
    num_classes = whole_number("num_classes", num_classes, 1)
    classes = _checked_important(num_classes, important)
    # NumPy cannot look into a list that holds what is traced.
    value = _arrays.array(name, value)
    shape = classes.shape if value.ndim else ()
    return num_classes, classes, _arrays.real(name, value, _FLOAT32, None, shape)


# Compiled whole: op by op, each operation is compiled at its first use, which takes
# longer than all the rest of planning a sweep.
@functools.partial(jax.jit, static_argnums=(0, 1))
def _filled(
    num_classes: int, rest: float, classes: jax.Array, value: jax.Array
) -> jax.Array:
    return jnp.full(num_classes, rest, jnp.float32).at[classes].set(value)


@functools.partial(jax.jit, static_argnums=0)
def _costs(num_classes: int, classes: jax.Array, cost: jax.Array) -> jax.Array:
    own = jnp.full(num_classes, -jnp.inf, cost.dtype).at[classes].set(cost)
    larger = jnp.maximum(own[:, None], own[None, :])
    same = jnp.eye(num_classes, dtype=cost.dtype)
    return jnp.where(larger < 0, 1, larger) * (1 - same)


def _checked_important(num_classes: int, important: Important) -> jax.Array:
    """Returns the important classes as indices `[count]`."""
    shape = _arrays.array("important", important).shape
    if len(shape) > 1 or 0 in shape:
        raise UsageError(f"important must be one class or several, got {important}")
    classes = jnp.atleast_1d(_arrays.integer("important", important, None))
    if _arrays.is_known(classes):
        known = np.asarray(classes)
        if known.min() < 0 or known.max() >= num_classes:
            raise UsageError(
                f"important must be in 0 .. {num_classes - 1}, got {important}"
            )
        if len(set(known.tolist())) < len(known):
            raise UsageError(f"important must not repeat a class, got {important}")
    return classes
