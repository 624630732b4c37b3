"""The paper's losses: one value per example, the caller reduces.

Hyperparameters are arrays like any other: `jit`, `vmap` and `grad` go through them.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from camri_jax import _arrays
from camri_jax.losses._angular import (
    angular_margin_logits,
    arcface,
    camri,
    l2_softmax,
)
from camri_jax.losses._cosines import cosine_similarity
from camri_jax.losses._softmax import (
    checked_scores,
    is_class,
    log_odds_against,
    nan_unless,
    softplus,
)
from camri_jax.losses._wasserstein import wasserstein, wasserstein_with_integer_labels

__all__ = [
    "angular_margin_logits",
    "arcface",
    "camri",
    "cosine_similarity",
    "cross_entropy",
    "l2_softmax",
    "real_world_weight_cross_entropy",
    "wasserstein",
    "wasserstein_with_integer_labels",
    "weighted_cross_entropy",
]


def cross_entropy(logits: ArrayLike, labels: ArrayLike) -> jax.Array:
    r"""Cross-entropy of a softmax against integer labels.

    .. math:: L = -\log h_t, \qquad h = \mathrm{softmax}(z)

    Args:
      logits: `[..., num_classes]`, floating.
      labels: `[...]`, integers in 0 .. num_classes - 1; any other has loss NaN.

    Returns:
      Losses `[...]`, float32 or better, with all their digits even at 1e-30.

    Raises:
      TypeError: logits are not floating or labels not integer.
      ValueError: the shapes do not fit.

    Reference:
      Eq. 1 of Nishiyama et al., CAMRI Loss, 2022.

    >>> cross_entropy(jnp.array([[0.0, 0.0], [50.0, 0.0]]), jnp.array([0, 0]))
    Array([6.9314718e-01, 1.9287499e-22], dtype=float32)
    """
    logits, labels, valid = checked_scores("logits", logits, labels)
    return nan_unless(valid, softplus(log_odds_against(logits, labels)))


def weighted_cross_entropy(
    logits: ArrayLike, labels: ArrayLike, *, class_weights: ArrayLike
) -> jax.Array:
    r"""Cross-entropy times the weight of the true class (WCE).

    .. math:: L = -w_t \log h_t

    Nothing divides by the sum of the weights.

    Args:
      logits: `[..., num_classes]`, floating.
      labels: `[...]`, integers in 0 .. num_classes - 1; any other has loss NaN.
      class_weights: `[num_classes]`, not below 0; may be traced.

    Returns:
      Losses `[...]`, float32 or better.

    Raises:
      TypeError: logits are not floating or labels not integer.
      ValueError: a shape or a known value is out of what is allowed.

    Reference:
      Eq. 2 of Nishiyama et al., CAMRI Loss, 2022.

    >>> weighted_cross_entropy(jnp.zeros(2), 1, class_weights=jnp.array([1.0, 4.0]))
    Array(2.7725887, dtype=float32)
    """
    logits, labels, valid = checked_scores("logits", logits, labels)
    weights = _weights("class_weights", class_weights, logits, logits.shape[-1:])
    losses = weights[labels] * softplus(log_odds_against(logits, labels))
    return nan_unless(valid, losses)


def real_world_weight_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    false_negative_weights: ArrayLike,
    false_positive_weights: ArrayLike,
) -> jax.Array:
    r"""Cross-entropy that also pays for every other class's share (CRWWCE).

    .. math:: L = -c^{fn}_t \log h_t - \sum_{k \ne t} C^{fp}_{k,t} \log(1 - h_k)

    Args:
      logits: `[..., num_classes]`, floating.
      labels: `[...]`, integers in 0 .. num_classes - 1; any other has loss NaN.
      false_negative_weights: `[num_classes]`, not below 0; may be traced.
      false_positive_weights: `[num_classes, num_classes]`, predicted class first, true
        class second, not below 0; may be traced. The diagonal is never counted.

    Returns:
      Losses `[...]`, float32 or better, right for shares of 1e-30 and 1 - 1e-30.

    Raises:
      TypeError: logits are not floating or labels not integer.
      ValueError: a shape or a known value is out of what is allowed.

    Reference:
      Eq. 3 of Nishiyama et al., CAMRI Loss, 2022.

    >>> real_world_weight_cross_entropy(
    ...     jnp.zeros(2),
    ...     0,
    ...     false_negative_weights=jnp.ones(2),
    ...     false_positive_weights=jnp.array([[0.0, 1.0], [3.0, 0.0]]),
    ... )
    Array(2.7725887, dtype=float32)
    """
    logits, labels, valid = checked_scores("logits", logits, labels)
    classes = logits.shape[-1:]
    misses = _weights("false_negative_weights", false_negative_weights, logits, classes)
    alarms = _weights(
        "false_positive_weights", false_positive_weights, logits, classes * 2
    )
    alarms = jnp.where(is_class(labels, *classes), 0, alarms.T[labels])
    losses = misses[labels] * softplus(log_odds_against(logits, labels))
    losses += jnp.sum(alarms * _surprise_if_absent(logits), axis=-1)
    return nan_unless(valid, losses)


def _surprise_if_absent(logits: jax.Array) -> jax.Array:
    """Returns -log(1 - h_k) `[..., classes]` without cancellation."""
    # Only the likeliest class can have more than half: 1 - h cancels nowhere else.
    likeliest = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    is_likeliest = is_class(likeliest, logits.shape[-1])
    shares = jnp.where(is_likeliest, 0, jax.nn.softmax(logits))
    at_likeliest = softplus(-log_odds_against(logits, likeliest))
    return jnp.where(is_likeliest, at_likeliest[..., None], -jnp.log1p(-shares))


def _weights(name: str, value: ArrayLike, logits: jax.Array, shape) -> jax.Array:
    _arrays.not_negative(name, value)
    return _arrays.real(name, value, logits.dtype, shape)
