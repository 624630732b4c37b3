"""The Wasserstein loss: by Sinkhorn's iteration, and in closed form for labels."""

import warnings

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from camri_jax import _arrays
from camri_jax.losses._softmax import checked_scores, left_out, mask
from camri_jax.sinkhorn import SinkhornResult, sinkhorn


def wasserstein(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    cost_matrix: ArrayLike,
    epsilon: ArrayLike,
    max_iterations: int = 1000,
    tolerance: float = 1e-5,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Entropic transport cost from the predicted shares to a target distribution.

    .. math::
       L = \min_{T \ge 0} \langle T, C \rangle
           + \epsilon \sum_{k,l} T_{k,l} (\log T_{k,l} - 1)
       \quad \text{with} \quad T 1 = \mathrm{softmax}(z), \; T^T 1 = y

    By Sinkhorn's iteration; where it ends far from `tolerance` this warns, but inside
    `jit` it cannot: `camri_jax.sinkhorn.sinkhorn` returns the error there too.
    For integer labels `wasserstein_with_integer_labels` needs no iteration, and is
    exact also for costs that are huge or infinite.

    First derivatives are by reverse mode only, as in `jax.grad`; `jax.jvp` raises
    TypeError. `jax.hessian` works.

    Args:
      logits: `[..., num_classes]`, floating.
      targets: `[..., num_classes]`, floating, not below 0, each row adding to 1; zeros
        are allowed.
      cost_matrix: `[num_classes, num_classes]`, predicted class first, target class
        second, finite; may be traced.
      epsilon: number above 0, in units of cost; may be traced.
      max_iterations: as in `camri_jax.sinkhorn.sinkhorn`.
      tolerance: as in `camri_jax.sinkhorn.sinkhorn`.
      where: `[...]`, which examples count; the loss of others is 0. None is all.

    Returns:
      Losses `[...]`, float32 or better.

    Raises:
      TypeError: logits or targets are not floating.
      UsageError: a shape or a known value is out of what is allowed.

    Reference:
      Eq. 4-6 of Nishiyama et al., CAMRI Loss, 2022.

    >>> wasserstein(
    ...     jnp.zeros(2),
    ...     jnp.array([0.0, 1.0]),
    ...     cost_matrix=1 - jnp.eye(2),
    ...     epsilon=0.1,
    ... ).round(5)
    Array(0.33069, dtype=float32)
    """
    logits = _arrays.floating("logits", logits)
    targets = _arrays.floating("targets", targets)
    _arrays.same_shape("targets", targets, logits.shape)
    kept = None if where is None else mask(where, logits.shape[:-1])
    if kept is not None:
        logits = left_out(kept, logits)
        targets = left_out(kept, targets, 1 / logits.shape[-1])
    _arrays.not_negative("targets", targets)
    dtype = _arrays.compute_dtype(logits, targets)
    result = sinkhorn(
        jax.nn.log_softmax(logits.astype(dtype)),
        _log(targets.astype(dtype)),
        cost_matrix,
        epsilon=epsilon,
        max_iterations=max_iterations,
        tolerance=tolerance,
    )
    _warn_unless_converged(result, tolerance)
    return result.cost if kept is None else jnp.where(kept, result.cost, 0)


def wasserstein_with_integer_labels(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    cost_matrix: ArrayLike,
    epsilon: ArrayLike,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""The Wasserstein loss of a one-hot target, in closed form.

    All mass must go to the true class, so there is exactly one plan:

    .. math:: L = \sum_k h_k C_{k,t} + \epsilon \sum_k h_k (\log h_k - 1)

    Args:
      logits: `[..., num_classes]`, floating.
      labels: `[...]`, integers in 0 .. num_classes - 1; any other has loss NaN.
      cost_matrix: `[num_classes, num_classes]`, predicted class first, true class
        second; may be infinite, where any share that is not 0 costs as much; may be
        traced.
      epsilon: number above 0, in units of cost; may be traced.
      where: `[...]`, which examples count; the loss of others is 0. None is all.

    Returns:
      Losses `[...]`, float32 or better.

    Raises:
      TypeError: logits are not floating or labels not integer.
      UsageError: a shape or a known value is out of what is allowed.

    Reference:
      Eq. 4-6 of Nishiyama et al., CAMRI Loss, 2022.

    >>> wasserstein_with_integer_labels(
    ...     jnp.zeros(2), 1, cost_matrix=1 - jnp.eye(2), epsilon=0.1
    ... ).round(5)
    Array(0.33069, dtype=float32)
    """
    logits, labels, counted = checked_scores("logits", logits, labels, where)
    costs = _arrays.real(
        "cost_matrix", cost_matrix, logits.dtype, None, logits.shape[-1:] * 2
    )
    epsilon = _arrays.real("epsilon", epsilon, logits.dtype, _arrays.positive)
    # 0 log 0 = 0, also where a logit of -inf rules a class out.
    log_shares = jnp.maximum(jax.nn.log_softmax(logits), -1e5)
    shares = jnp.exp(log_shares)
    costs = _arrays.of_label(costs.T, labels)
    # An infinite cost has no slope: what it weighs says that it is infinite, no more.
    endless = jnp.any(jnp.isinf(costs) & (shares > 0), axis=-1)
    terms = jnp.where(jnp.isinf(costs), 0, costs) + epsilon * (log_shares - 1)
    total = jnp.sum(shares * terms, axis=-1)
    return counted.losses(jnp.where(endless, jnp.inf, total))


def _warn_unless_converged(result: SinkhornResult, tolerance: float) -> None:
    if not _arrays.is_known(result.error):
        return
    # Rounding alone can leave a little more than was asked for.
    if jax.device_get(result.error) > 10 * tolerance:
        warnings.warn(
            f"Sinkhorn's iteration ended after {int(result.iterations)} rounds with an "
            f"error of {float(result.error):.2g}, above the tolerance of {tolerance}: "
            "raise max_iterations, epsilon or tolerance",
            RuntimeWarning,
            stacklevel=3,
        )


def _log(masses: jax.Array) -> jax.Array:
    """Returns log masses, -inf with gradient 0 at 0: no mass, no potential."""
    present = masses > 0
    return jnp.where(present, jnp.log(jnp.where(present, masses, 1)), -jnp.inf)
