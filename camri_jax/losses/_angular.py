"""Losses on the angle between a feature vector and its class's prototype (eq. 7-13).

One family, `cos(m1 theta + m2) - m3` on the true class, and its members by name.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from camri_jax import _arrays, penalties
from camri_jax._files import UsageError, whole_number
from camri_jax.losses._softmax import (
    Counted,
    checked_scores,
    is_class,
    of_others,
    pick,
    softplus,
)

# Half precision rounds a cosine of 1 up to 1.008; logits go far beyond.
_LARGEST_COSINE = 1.01


class _Margins(NamedTuple):
    """What widens the true class's angle: a number or one a class; None is neutral."""

    angle: jax.Array | None = None
    multiplier: jax.Array | None = None
    cosine: jax.Array | None = None


def angular_margin_logits(
    cosines: ArrayLike,
    labels: ArrayLike,
    *,
    margins: ArrayLike,
    scale: ArrayLike,
    monotone: bool = False,
    multipliers: ArrayLike | None = None,
    cosine_margins: ArrayLike | None = None,
) -> jax.Array:
    r"""Logits whose true class has its angle widened by that class's margins.

    .. math::
       z_t = s \left( \cos(m^\times_t \theta_t + m_t) - m^{\cos}_t \right), \qquad
       z_k = s \cos\theta_k

    Past an angle of pi the cosine rises again, and with it the logit of an example
    that could not be more wrong: that is CAMRI's definition. `monotone` keeps
    falling there, as in the papers that address it: `cos(theta) - m sin(m)` for a class
    whose multiplier is 1 (ArcFace; with 1 - cos(m) where that is more, from 2.33
    radians on, since the logit would rise there), `(-1)^n cos(angle) - 2 n` with n the
    whole part of angle / pi for any other (SphereFace).

    A margin below 0 is a bonus: a smaller loss for a class that matters less. Margins
    on the cosine may be negative and multipliers below 1; an angle may not, since
    `cos(theta + m)` would then fall as theta goes to 0.

    Args:
      cosines: `[..., num_classes]`, in [-1, 1]. Values beyond 1.01 (probably logits)
        raise outside `jit`; inside it, a row becomes NaN if its largest value or its
        true class's is beyond 1.01.
      labels: `[...]`, integers in 0 .. num_classes - 1; any other makes a row of NaN.
      margins: `[num_classes]`, radians from 0 to pi; may be traced.
      scale: number above 0, the inverse temperature; may be traced.
      monotone: whether to leave the paper's formula past pi.
      multipliers: `[num_classes]`, above 0; may be traced. None is 1 for every class.
      cosine_margins: `[num_classes]`, of either sign; may be traced. None is 0.

    Returns:
      Logits `[..., num_classes]`, float32 or better.

    Raises:
      TypeError: cosines are not floating or labels not integer.
      UsageError: a shape or a known value is out of what is allowed.

    Reference:
      The exponents of eq. 13 of Nishiyama et al., CAMRI Loss, 2022; eq. 4 of Deng et
      al., ArcFace, 2019, by class.

    >>> angular_margin_logits(
    ...     jnp.array([1.0, 0.5]), 0, margins=jnp.array([jnp.pi / 3, 0]), scale=8
    ... ).round(4)
    Array([4., 4.], dtype=float32)
    """
    cosines, labels, counted, scale = _checked(cosines, labels, scale)
    optional = {"multipliers": multipliers, "cosine_margins": cosine_margins}
    given = {name: value for name, value in optional.items() if value is not None}
    by_class = _by_class(cosines, margins=margins, **given)
    cosine = pick(cosines, labels)
    drop = _drop(cosine, labels, by_class, monotone)
    counted = _within(counted, jnp.max(cosines, axis=-1), cosine)
    true_class = is_class(labels, cosines.shape[-1])
    widened = cosines - jnp.where(true_class, drop[..., None], 0)
    return jnp.where(counted.valid[..., None], scale * widened, jnp.nan)


def l2_softmax(
    cosines: ArrayLike,
    labels: ArrayLike,
    *,
    scale: ArrayLike,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Cross-entropy of scaled cosines: the angular losses without a margin.

    .. math:: L = -\log \frac{e^{s \cos\theta_t}}{\sum_k e^{s \cos\theta_k}}

    Args:
      cosines: `[..., num_classes]`, in [-1, 1]; as in `angular_margin_logits`.
      labels: `[...]`, integers in 0 .. num_classes - 1; any other has loss NaN.
      scale: number above 0, the inverse temperature; may be traced.
      where: `[...]`, which examples count; the loss of others is 0. None is all.

    Returns:
      Losses `[...]`, float32 or better.

    Raises:
      TypeError: cosines are not floating or labels not integer.
      UsageError: a shape or a known value is out of what is allowed.

    Reference:
      Eq. 11 of Nishiyama et al., CAMRI Loss, 2022.

    >>> l2_softmax(jnp.array([0.5, 0.5]), 0, scale=16)
    Array(0.6931472, dtype=float32)
    """
    return _margin_loss(cosines, labels, scale, where, _Margins())


def arcface(
    cosines: ArrayLike,
    labels: ArrayLike,
    *,
    margin: ArrayLike,
    scale: ArrayLike,
    monotone: bool = False,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""ArcFace: the same angular margin for every class.

    .. math::
       L = -\log \frac{e^{s \cos(\theta_t + m)}}
                      {e^{s \cos(\theta_t + m)} + \sum_{k \ne t} e^{s \cos\theta_k}}

    Args:
      cosines: `[..., num_classes]`, in [-1, 1]; as in `angular_margin_logits`.
      labels: `[...]`, integers in 0 .. num_classes - 1; any other has loss NaN.
      margin: number of radians from 0 to pi; may be traced.
      scale: number above 0, the inverse temperature; may be traced.
      monotone: as in `angular_margin_logits`.
      where: `[...]`, which examples count; the loss of others is 0. None is all.

    Returns:
      Losses `[...]`, float32 or better.

    Raises:
      TypeError: cosines are not floating or labels not integer.
      UsageError: a shape or a known value is out of what is allowed.

    Reference:
      Eq. 7 and 12 of Nishiyama et al., CAMRI Loss, 2022; eq. 3 of Deng et al.,
      ArcFace, 2019.

    >>> arcface(jnp.array([1.0, 0.5]), 0, margin=jnp.pi / 3, scale=16).round(5)
    Array(0.69315, dtype=float32)
    """
    margins = _Margins(angle=_number("margin", margin, cosines, _arrays.angle))
    return _margin_loss(cosines, labels, scale, where, margins, monotone)


def camri(
    cosines: ArrayLike,
    labels: ArrayLike,
    *,
    margins: ArrayLike,
    scale: ArrayLike,
    monotone: bool = False,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""CAMRI: an angular margin for the important classes alone.

    .. math::
       L = -\log \frac{e^{s \cos(\theta_t + m_t)}}
                      {e^{s \cos(\theta_t + m_t)} + \sum_{k \ne t} e^{s \cos\theta_k}}

    Args:
      cosines: `[..., num_classes]`, in [-1, 1]; as in `angular_margin_logits`.
      labels: `[...]`, integers in 0 .. num_classes - 1; any other has loss NaN.
      margins: `[num_classes]`, radians from 0 to pi; may be traced. The paper's are 0
        except for the important class: see `camri_jax.penalties.margin_vector`, which
        also takes several classes, each with a margin of its own.
      scale: number above 0, the inverse temperature; may be traced.
      monotone: as in `angular_margin_logits`.
      where: `[...]`, which examples count; the loss of others is 0. None is all.

    Returns:
      Losses `[...]`, float32 or better.

    Raises:
      TypeError: cosines are not floating or labels not integer.
      UsageError: a shape or a known value is out of what is allowed.

    Reference:
      Eq. 13 of Nishiyama et al., CAMRI Loss, 2022.

    >>> cosines = jnp.array([[1.0, 0.5], [0.5, 0.5]])
    >>> camri(
    ...     cosines, jnp.array([0, 1]), margins=jnp.array([jnp.pi / 3, 0]), scale=16
    ... ).round(5)
    Array([0.69315, 0.69315], dtype=float32)
    """
    by_class = _by_class(cosines, margins=margins)
    return _margin_loss(cosines, labels, scale, where, by_class, monotone)


def cosface(
    cosines: ArrayLike,
    labels: ArrayLike,
    *,
    margin: ArrayLike,
    scale: ArrayLike,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""CosFace: the same margin on the cosine for every class.

    .. math::
       L = -\log \frac{e^{s (\cos\theta_t - m)}}
                      {e^{s (\cos\theta_t - m)} + \sum_{k \ne t} e^{s \cos\theta_k}}

    Args:
      cosines: `[..., num_classes]`, in [-1, 1]; as in `angular_margin_logits`.
      labels: `[...]`, integers in 0 .. num_classes - 1; any other has loss NaN.
      margin: number, of either sign; may be traced.
      scale: number above 0, the inverse temperature; may be traced.
      where: `[...]`, which examples count; the loss of others is 0. None is all.

    Returns:
      Losses `[...]`, float32 or better.

    Raises:
      TypeError: cosines are not floating or labels not integer.
      UsageError: a shape or a known value is out of what is allowed.

    Reference:
      The large margin cosine loss of Wang et al., CosFace, 2018.

    >>> cosface(jnp.array([1.0, 0.5]), 0, margin=0.5, scale=16).round(5)
    Array(0.69315, dtype=float32)
    """
    margins = _Margins(cosine=_number("margin", margin, cosines, _arrays.finite))
    return _margin_loss(cosines, labels, scale, where, margins)


def class_sensitive_cosface(
    cosines: ArrayLike,
    labels: ArrayLike,
    *,
    cosine_margins: ArrayLike,
    scale: ArrayLike,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""CAMRI's idea on the cosine: a margin for the important classes alone.

    .. math::
       L = -\log \frac{e^{s (\cos\theta_t - m_t)}}
                      {e^{s (\cos\theta_t - m_t)} + \sum_{k \ne t} e^{s \cos\theta_k}}

    With two classes, a margin m on one and a bonus of as much, -m, on the other is
    `logit_adjusted_cross_entropy` by `s m`, so at its optimum a threshold moved by
    `s m`. Without the bonus the threshold moves to the odds `(1 + exp(-s m)) / 2`, by
    log 2 at most however large the margin: examples of the other classes still push the
    important one's cosine down by all of it.

    Args:
      cosines: `[..., num_classes]`, in [-1, 1]; as in `angular_margin_logits`.
      labels: `[...]`, integers in 0 .. num_classes - 1; any other has loss NaN.
      cosine_margins: `[num_classes]`, of either sign; may be traced. See
        `camri_jax.penalties.offset_vector`.
      scale: number above 0, the inverse temperature; may be traced.
      where: `[...]`, which examples count; the loss of others is 0. None is all.

    Returns:
      Losses `[...]`, float32 or better.

    Raises:
      TypeError: cosines are not floating or labels not integer.
      UsageError: a shape or a known value is out of what is allowed.

    Reference:
      The loss of Wang et al., CosFace, 2018, with a margin by class as in eq. 13 of
      Nishiyama et al., CAMRI Loss, 2022.

    >>> cosines = jnp.array([[1.0, 0.5], [0.5, 0.5]])
    >>> class_sensitive_cosface(
    ...     cosines, jnp.array([0, 1]), cosine_margins=jnp.array([0.5, 0]), scale=16
    ... ).round(5)
    Array([0.69315, 0.69315], dtype=float32)
    """
    margins = _by_class(cosines, cosine_margins=cosine_margins)
    return _margin_loss(cosines, labels, scale, where, margins)


def ldam(
    cosines: ArrayLike,
    labels: ArrayLike,
    *,
    class_counts: ArrayLike,
    margin: ArrayLike,
    scale: ArrayLike,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""LDAM on normalised features: the rarer a class, the larger its cosine margin.

    .. math::
       L = -\log \frac{e^{s (\cos\theta_t - m_t)}}
                      {e^{s (\cos\theta_t - m_t)} + \sum_{k \ne t} e^{s \cos\theta_k}},
       \qquad m_k = \mu \left( \min_l n_l / n_k \right)^{1/4}

    Args:
      cosines: `[..., num_classes]`, in [-1, 1]; as in `angular_margin_logits`.
      labels: `[...]`, integers in 0 .. num_classes - 1; any other has loss NaN.
      class_counts: `[num_classes]`, training examples of each class, above 0.
      margin: the rarest class's margin, not below 0; may be traced.
      scale: number above 0, the inverse temperature; may be traced.
      where: `[...]`, which examples count; the loss of others is 0. None is all.

    Returns:
      Losses `[...]`, float32 or better.

    Raises:
      TypeError: cosines are not floating or labels not integer.
      UsageError: a shape or a known value is out of what is allowed.

    Reference:
      Cao et al., Label-Distribution-Aware Margin Loss, 2019, section of that name.

    >>> ldam(
    ...     jnp.array([1.0, 0.5]), 0, class_counts=jnp.array([10, 90]), margin=0.5,
    ...     scale=16,
    ... ).round(5)
    Array(0.69315, dtype=float32)
    """
    margins = penalties.ldam_margins(class_counts, margin)
    return class_sensitive_cosface(
        cosines, labels, cosine_margins=margins, scale=scale, where=where
    )


def sphereface(
    cosines: ArrayLike,
    labels: ArrayLike,
    *,
    margin: ArrayLike,
    scale: ArrayLike,
    monotone: bool = True,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""SphereFace with features at one length: every true angle is multiplied.

    .. math::
       L = -\log \frac{e^{s \psi(\theta_t)}}
                      {e^{s \psi(\theta_t)} + \sum_{k \ne t} e^{s \cos\theta_k}},
       \qquad \psi(\theta) = (-1)^n \cos(m \theta) - 2 n, \quad
       n = \lfloor m \theta / \pi \rfloor

    Args:
      cosines: `[..., num_classes]`, in [-1, 1]; as in `angular_margin_logits`.
      labels: `[...]`, integers in 0 .. num_classes - 1; any other has loss NaN.
      margin: the factor, a number above 0 and 1 without a margin; may be traced.
      scale: number above 0, the inverse temperature; may be traced.
      monotone: False for `cos(m theta)` also where it rises again.
      where: `[...]`, which examples count; the loss of others is 0. None is all.

    Returns:
      Losses `[...]`, float32 or better.

    Raises:
      TypeError: cosines are not floating or labels not integer.
      UsageError: a shape or a known value is out of what is allowed.

    Reference:
      The A-Softmax loss of Liu et al., SphereFace, 2017, whose lengths of features
      are s here.

    >>> sphereface(jnp.array([0.5, -0.5]), 0, margin=2, scale=16).round(5)
    Array(0.69315, dtype=float32)
    """
    margins = _Margins(multiplier=_number("margin", margin, cosines, _arrays.positive))
    return _margin_loss(cosines, labels, scale, where, margins, monotone)


def suggested_scale(num_classes: int) -> float:
    r"""The scale at which a cosine softmax of so many classes spans its whole range.

    .. math:: s = \sqrt{2} \, \ln(K - 1)

    Small for few classes (3.1 for ten), where larger ones train as well.

    Args:
      num_classes: K, at least 3.

    Returns:
      The scale.

    Raises:
      UsageError: `num_classes` is below 3.

    Reference:
      The fixed scale of Zhang et al., AdaCos, 2019.

    >>> round(suggested_scale(1000), 2)
    9.77
    """
    num_classes = whole_number("num_classes", num_classes, 3)
    return math.sqrt(2) * math.log(num_classes - 1)


def _checked(
    cosines: ArrayLike,
    labels: ArrayLike,
    scale: ArrayLike,
    where: ArrayLike | None = None,
) -> tuple[jax.Array, jax.Array, Counted, jax.Array]:
    """Returns cosines, labels, which examples count, and the scale."""
    cosines, labels, counted = checked_scores("cosines", cosines, labels, where)
    if _arrays.is_known(cosines):
        largest = jax.device_get(jnp.max(jnp.abs(cosines), initial=0))
        if largest > _LARGEST_COSINE:
            raise UsageError(
                "cosines must be in [-1, 1], not logits: take them from "
                f"losses.cosine_similarity; got a value of size {largest:g}"
            )
    scale = _arrays.real("scale", scale, cosines.dtype, _arrays.positive)
    return cosines, labels, counted, scale


def _within(counted: Counted, largest: jax.Array, cosine: jax.Array) -> Counted:
    """Counts no row whose largest value, or true class's, is no cosine `[...]`."""
    # The least is left out: it would cost a pass over all of them.
    beyond = jnp.maximum(largest, jnp.abs(cosine)) > _LARGEST_COSINE
    return counted._replace(valid=counted.valid & ~jax.lax.stop_gradient(beyond))


def _number(
    name: str, value: ArrayLike, cosines: ArrayLike, check: _arrays.Check
) -> jax.Array:
    dtype = _arrays.compute_dtype(_arrays.floating("cosines", cosines))
    return _arrays.real(name, value, dtype, check)


def _by_class(cosines: ArrayLike, **given: ArrayLike) -> _Margins:
    """Returns what was given, each checked and `[num_classes]`."""
    cosines = _arrays.floating("cosines", cosines)
    dtype, shape = _arrays.compute_dtype(cosines), cosines.shape[-1:]
    arrays = {}
    for name, value in given.items():
        field, check = _BY_CLASS[name]
        arrays[field] = _arrays.real(name, value, dtype, check, shape)
    return _Margins(**arrays)


_BY_CLASS = {
    "margins": ("angle", _arrays.angle),
    "multipliers": ("multiplier", _arrays.positive),
    "cosine_margins": ("cosine", _arrays.finite),
}


def _margin_loss(
    cosines: ArrayLike,
    labels: ArrayLike,
    scale: ArrayLike,
    where: ArrayLike | None,
    margins: _Margins,
    monotone: bool = False,
) -> jax.Array:
    cosines, labels, counted, scale = _checked(cosines, labels, scale, where)
    # A margin lowers one logit, so it raises the log-odds against it by as much: one
    # pass over the plain logits serves every angular loss.
    cosine = pick(cosines, labels)
    drop = scale * _drop(cosine, labels, margins, monotone)
    top, excess = of_others(scale * cosines, labels)
    odds = (top - scale * cosine) + (excess + drop)
    return _within(counted, top / scale, cosine).losses(softplus(odds))


def _drop(
    cosine: jax.Array, labels: jax.Array, margins: _Margins, monotone: bool
) -> jax.Array:
    """Returns by how much the margins lower the true class's cosine `[...]`."""
    drop = jnp.zeros_like(cosine)
    if margins.multiplier is not None:
        factor = _of_label(margins.multiplier, labels)
        drop = _multiplied_drop(cosine, labels, factor, margins.angle, monotone)
    elif margins.angle is not None:
        drop = _added_drop(cosine, labels, margins.angle, monotone)
    if margins.cosine is not None:
        drop = drop + _of_label(margins.cosine, labels)
    return drop


def _added_drop(
    cosine: jax.Array, labels: jax.Array, margin: jax.Array, monotone: bool
) -> jax.Array:
    """Returns cos(theta) - cos(theta + m), without arccos and exactly 0 where m is."""
    # Sines by class, not by example: the fewer, the faster.
    one_less_cosine = _of_label(2 * jnp.sin(margin / 2) ** 2, labels)
    margin_sine = _of_label(jnp.sin(margin), labels)
    drop = cosine * one_less_cosine + _sine(cosine) * margin_sine
    if monotone:
        past_pi = cosine < one_less_cosine - 1
        # From 2.33 radians on m sin(m) alone would lift the logit there.
        beyond = jnp.maximum(_of_label(margin, labels) * margin_sine, one_less_cosine)
        drop = jnp.where(past_pi, beyond, drop)
    return drop


def _multiplied_drop(
    cosine: jax.Array,
    labels: jax.Array,
    factor: jax.Array,
    margin: jax.Array | None,
    monotone: bool,
) -> jax.Array:
    """Returns cos(theta) - cos(m1 theta + m2), exactly 0 where m1 is 1 and m2 is 0."""
    theta = jnp.arctan2(_sine(cosine), cosine)
    added = (factor - 1) * theta
    if margin is not None:
        added = added + _of_label(margin, labels)
    drop = 2 * cosine * jnp.sin(added / 2) ** 2 + _sine(cosine) * jnp.sin(added)
    if monotone:
        turns = jnp.floor((theta + added) / jnp.pi)
        mirrored = (1 - 2 * (turns % 2)) * (cosine - drop) - 2 * turns
        least = 2 * jnp.sin(added / 2) ** 2
        plain = jnp.maximum(added * jnp.sin(added), least)
        beyond = jnp.where(factor == 1, plain, cosine - mirrored)
        drop = jnp.where(turns > 0, beyond, drop)
    return drop


def _of_label(value: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns each example's number `[...]`, of one for all or one a class."""
    if value.ndim:
        return _arrays.of_label(value, labels)
    sharding = jax.typeof(labels).sharding
    return jnp.broadcast_to(value, labels.shape, out_sharding=sharding)


def _sine(cosine: jax.Array) -> jax.Array:
    """Returns sin(theta), with gradient 0 at the ends."""
    # Its slope is infinite at cos = +-1, where rounding also leads past it.
    square = (1 - cosine) * (1 + cosine)
    inside = square > 0
    return jnp.where(inside, jnp.sqrt(jnp.where(inside, square, 1)), 0)
