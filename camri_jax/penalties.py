"""The penalties of the paper's experiments, laid on one important class or several."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from camri_jax import _arrays

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
      ValueError: a class is out of range, missing or named twice, or a known margin is
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
      ValueError: a class is out of range, missing or named twice, or a known weight is
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
      cost: number, not below 0; may be traced.

    Returns:
      Costs `[num_classes, num_classes]`, float32, symmetric.

    Raises:
      TypeError: `important` is not of integers.
      ValueError: a class is out of range, missing or named twice, or a known cost is
        below 0.

    Reference:
      Section IV-A3 of Nishiyama et al., CAMRI Loss, 2022.

    >>> cost_matrix(3, 1, 2.0)
    Array([[0., 2., 1.],
           [2., 0., 2.],
           [1., 2., 0.]], dtype=float32)
    """
    _arrays.not_negative("cost", cost)
    cost = _arrays.real("cost", cost, jnp.dtype(jnp.float32))
    classes = _checked_important(num_classes, important)
    return _costs(num_classes, classes, cost)


def _spread(
    name: str, num_classes: int, important: Important, value: ArrayLike, rest: float
) -> jax.Array:
    classes = _checked_important(num_classes, important)
    value = jnp.asarray(value)
    shape = classes.shape if value.ndim else ()
    value = _arrays.real(name, value, jnp.dtype(jnp.float32), shape)
    return _filled(num_classes, rest, classes, value)


# Compiled whole: op by op, each operation is compiled at its first use, which takes
# longer than all the rest of planning a sweep.
@functools.partial(jax.jit, static_argnums=(0, 1))
def _filled(
    num_classes: int, rest: float, classes: jax.Array, value: jax.Array
) -> jax.Array:
    return jnp.full(num_classes, rest, jnp.float32).at[classes].set(value)


@functools.partial(jax.jit, static_argnums=0)
def _costs(num_classes: int, classes: jax.Array, cost: jax.Array) -> jax.Array:
    is_important = jnp.zeros(num_classes, bool).at[classes].set(True)
    either = is_important[:, None] | is_important[None, :]
    return jnp.where(either, cost, 1) * (1 - jnp.eye(num_classes))


def _checked_important(num_classes: int, important: Important) -> jax.Array:
    """Returns the important classes as indices `[count]`."""
    if np.ndim(important) > 1 or np.size(important) == 0:
        raise ValueError(f"important must be one class or several, got {important}")
    classes = jnp.atleast_1d(_arrays.integer("important", important, None))
    if _arrays.is_known(classes):
        known = np.asarray(classes)
        if known.min() < 0 or known.max() >= num_classes:
            raise ValueError(
                f"important must be in 0 .. {num_classes - 1}, got {important}"
            )
        if len(set(known.tolist())) < len(known):
            raise ValueError(f"important must not repeat a class, got {important}")
    return classes
