"""Losses on the angle between a feature vector and its class's prototype (eq. 7-13)."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from camri_jax import _arrays
from camri_jax.losses._softmax import (
    checked_scores,
    is_class,
    log_odds_against,
    nan_unless,
    pick,
    softplus,
)


def angular_margin_logits(
    cosines: ArrayLike,
    labels: ArrayLike,
    *,
    margins: ArrayLike,
    scale: ArrayLike,
    monotone: bool = False,
) -> jax.Array:
    r"""Logits whose true class has its angle widened by that class's margin.

    .. math:: z_t = s \cos(\theta_t + m_t), \qquad z_k = s \cos\theta_k

    Past `theta + m = pi` the cosine rises again, and with it the logit of an example
    that could not be more wrong: that is the paper's definition. `monotone` puts
    `cos(theta) - m sin(m)` there, which goes on falling.

    Args:
      cosines: `[..., num_classes]`, in [-1, 1].
      labels: `[...]`, integers in 0 .. num_classes - 1; any other makes a row of NaN.
      margins: `[num_classes]`, radians from 0 to pi; may be traced.
      scale: number above 0, the inverse temperature; may be traced.
      monotone: whether to leave the paper's formula past pi.

    Returns:
      Logits `[..., num_classes]`, float32 or better.

    Raises:
      TypeError: cosines are not floating or labels not integer.
      ValueError: a shape or a known value is out of what is allowed.

    Reference:
      The exponents of eq. 13 of Nishiyama et al., CAMRI Loss, 2022.

    >>> angular_margin_logits(
    ...     jnp.array([1.0, 0.5]), 0, margins=jnp.array([jnp.pi / 3, 0]), scale=8
    ... ).round(4)
    Array([4., 4.], dtype=float32)
    """
    cosines, labels, valid, scale = _checked(cosines, labels, scale)
    margins = _class_margins(margins, cosines)
    drop = _cosine_drop(pick(cosines, labels), labels, margins, monotone)
    true_class = is_class(labels, cosines.shape[-1])
    widened = cosines - jnp.where(true_class, drop[..., None], 0)
    return nan_unless(valid[..., None], scale * widened)


def l2_softmax(cosines: ArrayLike, labels: ArrayLike, *, scale: ArrayLike) -> jax.Array:
    r"""Cross-entropy of scaled cosines: the angular losses without a margin.

    .. math:: L = -\log \frac{e^{s \cos\theta_t}}{\sum_k e^{s \cos\theta_k}}

    Args:
      cosines: `[..., num_classes]`, in [-1, 1].
      labels: `[...]`, integers in 0 .. num_classes - 1; any other has loss NaN.
      scale: number above 0, the inverse temperature; may be traced.

    Returns:
      Losses `[...]`, float32 or better.

    Raises:
      TypeError: cosines are not floating or labels not integer.
      ValueError: a shape or a known value is out of what is allowed.

    Reference:
      Eq. 11 of Nishiyama et al., CAMRI Loss, 2022.

    >>> l2_softmax(jnp.array([0.5, 0.5]), 0, scale=16)
    Array(0.6931472, dtype=float32)
    """
    cosines, labels, valid, scale = _checked(cosines, labels, scale)
    return nan_unless(valid, softplus(log_odds_against(scale * cosines, labels)))


def arcface(
    cosines: ArrayLike,
    labels: ArrayLike,
    *,
    margin: ArrayLike,
    scale: ArrayLike,
    monotone: bool = False,
) -> jax.Array:
    r"""ArcFace: the same angular margin for every class.

    .. math::
       L = -\log \frac{e^{s \cos(\theta_t + m)}}
                      {e^{s \cos(\theta_t + m)} + \sum_{k \ne t} e^{s \cos\theta_k}}

    Args:
      cosines: `[..., num_classes]`, in [-1, 1].
      labels: `[...]`, integers in 0 .. num_classes - 1; any other has loss NaN.
      margin: number of radians from 0 to pi; may be traced.
      scale: number above 0, the inverse temperature; may be traced.
      monotone: as in `angular_margin_logits`.

    Returns:
      Losses `[...]`, float32 or better.

    Raises:
      TypeError: cosines are not floating or labels not integer.
      ValueError: a shape or a known value is out of what is allowed.

    Reference:
      Eq. 7 and 12 of Nishiyama et al., CAMRI Loss, 2022.

    >>> arcface(jnp.array([1.0, 0.5]), 0, margin=jnp.pi / 3, scale=16).round(5)
    Array(0.69315, dtype=float32)
    """
    cosines, labels, valid, scale = _checked(cosines, labels, scale)
    _arrays.angle("margin", margin)
    margin = _arrays.real("margin", margin, cosines.dtype)
    return nan_unless(valid, _margin_loss(cosines, labels, margin, scale, monotone))


def camri(
    cosines: ArrayLike,
    labels: ArrayLike,
    *,
    margins: ArrayLike,
    scale: ArrayLike,
    monotone: bool = False,
) -> jax.Array:
    r"""CAMRI: an angular margin for the important classes alone.

    .. math::
       L = -\log \frac{e^{s \cos(\theta_t + m_t)}}
                      {e^{s \cos(\theta_t + m_t)} + \sum_{k \ne t} e^{s \cos\theta_k}}

    Args:
      cosines: `[..., num_classes]`, in [-1, 1].
      labels: `[...]`, integers in 0 .. num_classes - 1; any other has loss NaN.
      margins: `[num_classes]`, radians from 0 to pi; may be traced. The paper's are 0
        but for the important class: see `camri_jax.penalties.margin_vector`.
      scale: number above 0, the inverse temperature; may be traced.
      monotone: as in `angular_margin_logits`.

    Returns:
      Losses `[...]`, float32 or better.

    Raises:
      TypeError: cosines are not floating or labels not integer.
      ValueError: a shape or a known value is out of what is allowed.

    Reference:
      Eq. 13 of Nishiyama et al., CAMRI Loss, 2022.

    >>> cosines = jnp.array([[1.0, 0.5], [0.5, 0.5]])
    >>> camri(
    ...     cosines, jnp.array([0, 1]), margins=jnp.array([jnp.pi / 3, 0]), scale=16
    ... ).round(5)
    Array([0.69315, 0.69315], dtype=float32)
    """
    cosines, labels, valid, scale = _checked(cosines, labels, scale)
    margins = _class_margins(margins, cosines)
    return nan_unless(valid, _margin_loss(cosines, labels, margins, scale, monotone))


def _checked(cosines: ArrayLike, labels: ArrayLike, scale: ArrayLike):
    cosines, labels, valid = checked_scores("cosines", cosines, labels)
    _arrays.positive("scale", scale)
    return cosines, labels, valid, _arrays.real("scale", scale, cosines.dtype)


def _class_margins(margins: ArrayLike, cosines: jax.Array) -> jax.Array:
    _arrays.angle("margins", margins)
    return _arrays.real("margins", margins, cosines.dtype, cosines.shape[-1:])


def _margin_loss(cosines, labels, margin, scale, monotone) -> jax.Array:
    # The margin lowers one logit, so it raises the log-odds against it by as much:
    # one pass over the plain logits serves every angular loss.
    cosine = pick(cosines, labels)
    drop = _cosine_drop(cosine, labels, margin, monotone)
    return softplus(
        log_odds_against(scale * cosines, labels, scale * cosine, scale * drop)
    )


def _cosine_drop(
    cosine: jax.Array, labels: jax.Array, margin: jax.Array, monotone: bool
) -> jax.Array:
    """Returns cos(theta) - cos(theta + m), without arccos and exactly 0 where m is."""

    def of_label(value: jax.Array) -> jax.Array:
        return value[labels] if value.ndim else jnp.broadcast_to(value, labels.shape)

    # sin(theta) has an infinite slope at cos = +-1, where rounding also leads past it.
    square = (1 - cosine) * (1 + cosine)
    inside = square > 0
    sine = jnp.where(inside, jnp.sqrt(jnp.where(inside, square, 1)), 0)
    # Sines by class, not by example: the fewer, the faster.
    one_less_cosine = of_label(2 * jnp.sin(margin / 2) ** 2)
    margin_sine = of_label(jnp.sin(margin))
    drop = cosine * one_less_cosine + sine * margin_sine
    if monotone:
        past_pi = cosine < one_less_cosine - 1
        drop = jnp.where(past_pi, of_label(margin) * margin_sine, drop)
    return drop
