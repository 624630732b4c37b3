"""Recall as a constraint: a weighted loss, and how its multipliers learn."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from camri_jax import _arrays
from camri_jax.losses._softmax import (
    checked_scores,
    log_odds_against,
    softplus,
    weighed,
)


def recall_constrained_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    multipliers: ArrayLike,
    class_priors: ArrayLike,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""The Lagrangian of cross-entropy subject to a recall of each class.

    .. math:: L = -\left( 1 + \frac{\lambda_t}{\pi_t} \right) \log h_t

    Its mean is that of cross-entropy plus each class's own mean of `-log h` times its
    multiplier, which gradients can lower in place of the class's share of misses. What
    no logit changes is left out. Multipliers learn by `next_multipliers`; where all
    are 0 this is cross-entropy.

    Args:
      logits: `[..., num_classes]`, floating.
      labels: `[...]`, integers in 0 .. num_classes - 1; any other has loss NaN.
      multipliers: `[num_classes]`, not below 0; may be traced.
      class_priors: `[num_classes]`, each class's share of the training examples, above
        0; may be traced.
      where: `[...]`, which examples count; the loss of others is 0. None is all.

    Returns:
      Losses `[...]`, float32 or better.

    Raises:
      TypeError: logits are not floating or labels not integer.
      UsageError: a shape or a known value is out of what is allowed.

    Reference:
      Cotter et al., Two-Player Games for Efficient Non-Convex Constrained
      Optimization, 2019: their proxy of a constraint, here cross-entropy.

    >>> multipliers, priors = jnp.array([0, 0.5]), jnp.array([0.75, 0.25])
    >>> recall_constrained_cross_entropy(
    ...     jnp.zeros(2), 1, multipliers=multipliers, class_priors=priors
    ... ).round(3)
    Array(2.079, dtype=float32)
    """
    logits, labels, counted = checked_scores("logits", logits, labels, where)
    dtype, shape = logits.dtype, logits.shape[-1:]
    multipliers = _arrays.real(
        "multipliers", multipliers, dtype, _arrays.not_negative, shape
    )
    priors = _arrays.real("class_priors", class_priors, dtype, _arrays.positive, shape)
    surprise = softplus(log_odds_against(logits, labels))
    # Not by 1 + lambda / pi: its slope is 0 times infinity where one of lambda 0 is
    # ruled out by -inf.
    constrained = weighed(_arrays.of_label(multipliers, labels), surprise)
    return counted.losses(surprise + _arrays.of_label(1 / priors, labels) * constrained)


def next_multipliers(
    multipliers: ArrayLike,
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    class_priors: ArrayLike,
    least_recalls: ArrayLike,
    rate: ArrayLike,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Multipliers after a batch: up where a class's recall is too low, else down.

    .. math::
       \lambda_k \leftarrow \max \left( 0, \lambda_k + \eta \, \frac{n_k}{n \pi_k}
       (r_k - \mathrm{recall}_k) \right)

    for n examples in the batch, n_k of class k: on average over batches the step is
    that of the recall on all training examples, and a class that is absent stays. The
    recall is counted, not approximated, so nothing has to be differentiable.

    Args:
      multipliers: `[num_classes]`, not below 0; 0 at the start.
      logits: `[..., num_classes]`, floating: those of the batch as it was trained on.
      labels: `[...]`, integers; what is no class counts as no example.
      class_priors: `[num_classes]`, each class's share of the training examples, above
        0; may be traced.
      least_recalls: `[num_classes]`, from 0 to 1, and 0 for no constraint; may be
        traced.
      rate: number not below 0; may be traced.
      where: `[...]`, which examples count. None is all.

    Returns:
      Multipliers `[num_classes]`, float32 or better.

    Raises:
      TypeError: logits are not floating or labels not integer.
      UsageError: a shape or a known value is out of what is allowed.

    Reference:
      Cotter et al., Two-Player Games for Efficient Non-Convex Constrained
      Optimization, 2019: the player of the multipliers, by projected gradient ascent.

    >>> logits = jnp.array([[1.0, 0.0], [1.0, 0.0]])
    >>> next_multipliers(
    ...     jnp.zeros(2), logits, jnp.array([0, 1]), class_priors=jnp.array([0.5, 0.5]),
    ...     least_recalls=jnp.array([0.0, 0.9]), rate=0.1,
    ... ).round(5)
    Array([0.  , 0.09], dtype=float32)
    """
    logits, labels, counted = checked_scores("logits", logits, labels, where)
    dtype, shape = logits.dtype, logits.shape[-1:]
    multipliers = _arrays.real(
        "multipliers", multipliers, dtype, _arrays.not_negative, shape
    )
    priors = _arrays.real("class_priors", class_priors, dtype, _arrays.positive, shape)
    wanted = _arrays.real("least_recalls", least_recalls, dtype, _arrays.share, shape)
    rate = _arrays.real("rate", rate, dtype, _arrays.not_negative)
    found = (jnp.argmax(logits, axis=-1) == labels).astype(logits.dtype)
    lacking = _arrays.of_label(wanted, labels) - found
    total = jnp.zeros_like(priors).at[labels]
    total = total.add(
        lacking, mode="drop", out_sharding=_arrays.replicated_like(labels)
    )
    count = jnp.maximum(1, jnp.sum(counted.valid, dtype=logits.dtype))
    return jnp.maximum(0, multipliers + rate * total / (count * priors))
