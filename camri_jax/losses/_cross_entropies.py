"""Losses of logits and integer labels: the softmax's, weighted, focused and shifted."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from camri_jax import _arrays
from camri_jax.losses._softmax import (
    checked_scores,
    is_class,
    log_odds_against,
    pick,
    softplus,
    weighed,
)


def cross_entropy(
    logits: ArrayLike, labels: ArrayLike, *, where: ArrayLike | None = None
) -> jax.Array:
    r"""Cross-entropy of a softmax against integer labels.

    .. math:: L = -\log h_t, \qquad h = \mathrm{softmax}(z)

    Args:
      logits: `[..., num_classes]`, floating.
      labels: `[...]`, integers in 0 .. num_classes - 1; any other has loss NaN.
      where: `[...]`, which examples count; the loss of others is 0. None is all.

    Returns:
      Losses `[...]`, float32 or better, with all their digits even at 1e-30.

    Raises:
      TypeError: logits are not floating or labels not integer.
      UsageError: the shapes do not fit.

    Reference:
      Eq. 1 of Nishiyama et al., CAMRI Loss, 2022.

    >>> cross_entropy(jnp.array([[0.0, 0.0], [50.0, 0.0]]), jnp.array([0, 0]))
    Array([6.9314718e-01, 1.9287499e-22], dtype=float32)
    """
    logits, labels, counted = checked_scores("logits", logits, labels, where)
    return counted.losses(softplus(log_odds_against(logits, labels)))


def weighted_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    class_weights: ArrayLike,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Cross-entropy times the weight of the true class (WCE).

    .. math:: L = -w_t \log h_t

    Nothing divides by the sum of the weights.

    Args:
      logits: `[..., num_classes]`, floating.
      labels: `[...]`, integers in 0 .. num_classes - 1; any other has loss NaN.
      class_weights: `[num_classes]`, not below 0; may be traced.
      where: `[...]`, which examples count; the loss of others is 0. None is all.

    Returns:
      Losses `[...]`, float32 or better.

    Raises:
      TypeError: logits are not floating or labels not integer.
      UsageError: a shape or a known value is out of what is allowed.

    Reference:
      Eq. 2 of Nishiyama et al., CAMRI Loss, 2022.

    >>> weighted_cross_entropy(jnp.zeros(2), 1, class_weights=jnp.array([1.0, 4.0]))
    Array(2.7725887, dtype=float32)
    """
    logits, labels, counted = checked_scores("logits", logits, labels, where)
    weights = _weights("class_weights", class_weights, logits, logits.shape[-1:])
    surprise = softplus(log_odds_against(logits, labels))
    losses = weighed(_arrays.of_label(weights, labels), surprise)
    return counted.losses(losses)


def real_world_weight_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    false_negative_weights: ArrayLike,
    false_positive_weights: ArrayLike,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Cross-entropy that also pays for every other class's share (CRWWCE).

    .. math:: L = -c^{fn}_t \log h_t - \sum_{k \ne t} C^{fp}_{k,t} \log(1 - h_k)

    Args:
      logits: `[..., num_classes]`, floating.
      labels: `[...]`, integers in 0 .. num_classes - 1; any other has loss NaN.
      false_negative_weights: `[num_classes]`, not below 0; may be traced.
      false_positive_weights: `[num_classes, num_classes]`, predicted class first, true
        class second, not below 0; may be traced. The diagonal is never counted.
      where: `[...]`, which examples count; the loss of others is 0. None is all.

    Returns:
      Losses `[...]`, float32 or better, right for shares of 1e-30 and 1 - 1e-30.

    Raises:
      TypeError: logits are not floating or labels not integer.
      UsageError: a shape or a known value is out of what is allowed.

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
    logits, labels, counted = checked_scores("logits", logits, labels, where)
    classes = logits.shape[-1:]
    misses = _weights("false_negative_weights", false_negative_weights, logits, classes)
    alarms = _weights(
        "false_positive_weights", false_positive_weights, logits, classes * 2
    )
    alarms = jnp.where(
        is_class(labels, *classes), 0, _arrays.of_label(alarms.T, labels)
    )
    surprise = softplus(log_odds_against(logits, labels))
    losses = weighed(_arrays.of_label(misses, labels), surprise)
    losses += jnp.sum(weighed(alarms, _surprise_if_absent(logits)), axis=-1)
    return counted.losses(losses)


def focal(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    gamma: ArrayLike,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Focal loss: cross-entropy, less of it where the example is easy.

    .. math:: L = -(1 - h_t)^\gamma \log h_t

    Args:
      logits: `[..., num_classes]`, floating.
      labels: `[...]`, integers in 0 .. num_classes - 1; any other has loss NaN.
      gamma: number not below 0; at 0 this is cross-entropy; may be traced.
      where: `[...]`, which examples count; the loss of others is 0. None is all.

    Returns:
      Losses `[...]`, float32 or better.

    Raises:
      TypeError: logits are not floating or labels not integer.
      UsageError: a shape or a known value is out of what is allowed.

    Reference:
      Lin et al., Focal Loss for Dense Object Detection, 2017, with a softmax.

    >>> focal(jnp.zeros(2), 0, gamma=2.0).round(5)
    Array(0.17329, dtype=float32)
    """
    logits, labels, counted = checked_scores("logits", logits, labels, where)
    return counted.losses(_focal(logits, labels, gamma))


def weighted_focal(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    class_weights: ArrayLike,
    gamma: ArrayLike,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Focal loss times the weight of the true class.

    .. math:: L = -w_t (1 - h_t)^\gamma \log h_t

    Args:
      logits: `[..., num_classes]`, floating.
      labels: `[...]`, integers in 0 .. num_classes - 1; any other has loss NaN.
      class_weights: `[num_classes]`, not below 0; may be traced.
      gamma: number not below 0; may be traced.
      where: `[...]`, which examples count; the loss of others is 0. None is all.

    Returns:
      Losses `[...]`, float32 or better.

    Raises:
      TypeError: logits are not floating or labels not integer.
      UsageError: a shape or a known value is out of what is allowed.

    Reference:
      The alpha-balanced variant of Lin et al., Focal Loss for Dense Object Detection,
      2017, with a softmax.

    >>> weights = jnp.array([4.0, 1.0])
    >>> weighted_focal(jnp.zeros(2), 0, class_weights=weights, gamma=2.0).round(5)
    Array(0.69315, dtype=float32)
    """
    logits, labels, counted = checked_scores("logits", logits, labels, where)
    weights = _weights("class_weights", class_weights, logits, logits.shape[-1:])
    losses = weighed(_arrays.of_label(weights, labels), _focal(logits, labels, gamma))
    return counted.losses(losses)


def smoothed_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    smoothing: ArrayLike,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Cross-entropy against labels of which a part is spread over all classes.

    .. math:: L = -(1 - \alpha) \log h_t - \frac{\alpha}{K} \sum_k \log h_k

    A class that a logit of -inf rules out gets no part, and is not counted in K.

    Args:
      logits: `[..., num_classes]`, floating.
      labels: `[...]`, integers in 0 .. num_classes - 1; any other has loss NaN.
      smoothing: number from 0 to 1, alpha; at 0 this is cross-entropy; may be traced.
      where: `[...]`, which examples count; the loss of others is 0. None is all.

    Returns:
      Losses `[...]`, float32 or better.

    Raises:
      TypeError: logits are not floating or labels not integer.
      UsageError: a shape or a known value is out of what is allowed.

    Reference:
      Section 7 of Szegedy et al., Rethinking the Inception Architecture, 2016.

    >>> smoothed_cross_entropy(jnp.array([2.0, 0.0]), 0, smoothing=0.5).round(5)
    Array(0.62693, dtype=float32)
    """
    logits, labels, counted = checked_scores("logits", logits, labels, where)
    smoothing = _arrays.real("smoothing", smoothing, logits.dtype, _arrays.share)
    present, own = logits > -jnp.inf, pick(logits, labels)[..., None]
    # For a true class that is ruled out the loss is infinite already.
    ahead = jnp.where(present & (own > -jnp.inf), own - logits, 0)
    spread = jnp.sum(ahead, axis=-1) / jnp.sum(present, axis=-1, dtype=logits.dtype)
    losses = softplus(log_odds_against(logits, labels)) + smoothing * spread
    return counted.losses(losses)


def logit_adjusted_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    class_priors: ArrayLike,
    strength: ArrayLike = 1.0,
    offsets: ArrayLike | None = None,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Cross-entropy of logits that are shifted while training, not while predicting.

    .. math::
       L = -\log \mathrm{softmax}(z + a)_t, \qquad a_k = \tau \log \pi_k - b_k

    At the optimum z is the log-posterior minus a: a threshold moved by `offsets`, and
    by the prior to the power of `-strength`, that needs no moving after training.

    Args:
      logits: `[..., num_classes]`, floating: those that predict.
      labels: `[...]`, integers in 0 .. num_classes - 1; any other has loss NaN.
      class_priors: `[num_classes]`, above 0; counts will do; may be traced.
      strength: tau, not below 0: 1 aims at the mean of the classes' recalls, 0 leaves
        the priors alone; may be traced.
      offsets: `[num_classes]`, b, above 0 for the important classes; may be traced.
        None is 0; see `camri_jax.penalties.offset_vector`.
      where: `[...]`, which examples count; the loss of others is 0. None is all.

    Returns:
      Losses `[...]`, float32 or better.

    Raises:
      TypeError: logits are not floating or labels not integer.
      UsageError: a shape or a known value is out of what is allowed.

    Reference:
      The logit adjusted loss of Menon et al., Long-tail Learning via Logit Adjustment,
      2021; the offsets are ours.

    >>> priors = jnp.array([0.5, 0.5])
    >>> logit_adjusted_cross_entropy(
    ...     jnp.array([1.0, 0.0]), 0, class_priors=priors, offsets=jnp.array([1.0, 0.0])
    ... ).round(5)
    Array(0.69315, dtype=float32)
    """
    logits, labels, counted = checked_scores("logits", logits, labels, where)
    dtype, shape = logits.dtype, logits.shape[-1:]
    priors = _arrays.real("class_priors", class_priors, dtype, _arrays.positive, shape)
    strength = _arrays.real("strength", strength, dtype, _arrays.not_negative)
    shifts = strength * jnp.log(priors)
    if offsets is not None:
        shifts -= _arrays.real("offsets", offsets, dtype, _arrays.finite, shape)
    adjusted = logits + jnp.broadcast_to(shifts, logits.shape)
    return counted.losses(softplus(log_odds_against(adjusted, labels)))


def balanced_softmax(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    class_counts: ArrayLike,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Cross-entropy of a softmax that knows how many examples each class has.

    .. math:: L = -\log \frac{n_t e^{z_t}}{\sum_k n_k e^{z_k}}

    Args:
      logits: `[..., num_classes]`, floating: those that predict.
      labels: `[...]`, integers in 0 .. num_classes - 1; any other has loss NaN.
      class_counts: `[num_classes]`, training examples of each class, above 0; where
        all are equal this is cross-entropy.
      where: `[...]`, which examples count; the loss of others is 0. None is all.

    Returns:
      Losses `[...]`, float32 or better.

    Raises:
      TypeError: logits are not floating or labels not integer.
      UsageError: a shape or a known value is out of what is allowed.

    Reference:
      The balanced softmax of Ren et al., Balanced Meta-Softmax, 2020.

    >>> balanced_softmax(jnp.zeros(2), 1, class_counts=jnp.array([3, 1])).round(5)
    Array(1.38629, dtype=float32)
    """
    _arrays.positive("class_counts", class_counts)
    return logit_adjusted_cross_entropy(
        logits, labels, class_priors=class_counts, where=where
    )


def _focal(logits: jax.Array, labels: jax.Array, gamma: ArrayLike) -> jax.Array:
    gamma = _arrays.real("gamma", gamma, logits.dtype, _arrays.not_negative)
    # No loss where it is this certain: inf * 0 is NaN.
    odds = jnp.maximum(log_odds_against(logits, labels), -1e4)
    surprise = softplus(odds)
    # 1 - h is 1 here, in every digit, also where the surprise is infinite.
    hopeless = odds > 1e4
    focused = jnp.exp(-gamma * softplus(-jnp.where(hopeless, 0, odds)))
    return jnp.where(hopeless, surprise, focused * jnp.where(hopeless, 0, surprise))


def _surprise_if_absent(logits: jax.Array) -> jax.Array:
    """Returns -log(1 - h_k) `[..., classes]` without cancellation."""
    # Only the likeliest class can have more than half: 1 - h cancels nowhere else.
    likeliest = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    is_likeliest = is_class(likeliest, logits.shape[-1])
    shares = jnp.where(is_likeliest, 0, jax.nn.softmax(logits))
    at_likeliest = softplus(-log_odds_against(logits, likeliest))
    return jnp.where(is_likeliest, at_likeliest[..., None], -jnp.log1p(-shares))


def _weights(name: str, value: ArrayLike, logits: jax.Array, shape) -> jax.Array:
    return _arrays.real(name, value, logits.dtype, _arrays.not_negative, shape)
