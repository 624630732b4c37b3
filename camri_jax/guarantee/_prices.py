"""What an offset costs and brings."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from camri_jax._files import UsageError, fraction, group_keys
from camri_jax.guarantee._arguments import (
    checked_important,
    checked_labels,
    checked_logits,
    checked_offset,
    failure_share,
)
from camri_jax.guarantee._bounds import bounds, clopper_pearson
from camri_jax.guarantee._rule import moved


@dataclasses.dataclass(frozen=True)
class Measure:
    """A quantity, its interval, and its change against the baseline.

    `count` of `total` images stand behind the value (its plain share, whatever the
    prior). `value` is None where nothing can be divided: nothing predicted important.
    """

    value: float | None
    low: float
    high: float
    change: float | None
    change_low: float
    change_high: float
    count: int
    total: int


@dataclasses.dataclass(frozen=True)
class Price:
    """What an offset costs and brings, on images that neither chose nor certified it.

    Attributes:
      num_images: how many images.
      num_important: how many of them are of important classes.
      prior: share of important images that the values are for; None: the data's own.
      confidence: of each interval by itself.
      recall: share of important images predicted as their own class.
      false_alarms: images of other classes predicted as important, per 1,000 images.
      precision: share of the images predicted important that are of that very class.
      accuracy: share of all images predicted rightly.
      other_recall: mean of the other classes' recalls, each class counted alike.
    """

    num_images: int
    num_important: int
    prior: float | None
    confidence: float
    recall: Measure
    false_alarms: Measure
    precision: Measure
    accuracy: Measure
    other_recall: Measure

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return dataclasses.asdict(self)


def price(
    logits: ArrayLike,
    labels: ArrayLike,
    important: int | Sequence[int],
    offset: float | Sequence[float],
    *,
    prior: float | None = None,
    confidence: float = 0.95,
    groups: ArrayLike | None = None,
) -> Price:
    r"""What an offset costs and brings, against offset 0, on images for this alone.

    Shares are counted with exact (Clopper-Pearson) intervals. At a prior, for the other
    classes' mean recall, and where images come in groups, whose shares are independent
    when their images are not, the interval inverts Hoeffding's bound
    :math:`\exp(-n \, \mathrm{kl})`, which holds for weighted means too. A change
    is the share of images gained minus the share lost, and its interval joins those of
    the two; where the rule allows only one of the two (false alarms under one positive
    offset), it is that one's. Precision's interval at a prior or for groups, and its
    change, join two intervals likewise. All hold at least as often as stated, given how
    many images of each class each group has.

    Args:
      logits: `[num_images, num_classes]` of images that neither chose the model nor
        certified the offset.
      labels: true classes `[num_images]`, integers.
      important: class, or classes.
      offset: one number for all important classes, or one for each.
      prior: share of important images where the model is to work; None: as here.
      confidence: of each interval.
      groups: `[num_images]`, of images that are not independent (a track's frames);
        None: all are.

    Returns:
      The price.

    Raises:
      UsageError: an argument is not as described.

    Reference:
      Clopper and Pearson, The use of confidence or fiducial limits, Biometrika, 1934.
      Hoeffding, Probability inequalities for sums of bounded random variables, JASA,
      1963 (Theorem 1).

    >>> z = [[2.0, 1.0], [2.0, 0.0], [1.0, 2.0], [2.0, 1.5]]
    >>> cost = price(z, [0, 0, 1, 1], 1, 0.75)
    >>> cost.recall.value, cost.recall.change, cost.false_alarms.value
    (1.0, 0.5, 0.0)
    """
    logits = checked_logits(logits)
    labels = checked_labels(labels, logits)
    important = checked_important(important, logits.shape[1])
    raised = checked_offset(offset, important)
    return _price(
        np.argmax(moved(logits, important, raised), axis=1),
        np.argmax(logits, axis=1),
        labels,
        important,
        prior,
        confidence,
        groups,
        one_way=bool((raised >= 0).all() or (raised <= 0).all()),
    )


def compare(
    predictions: ArrayLike,
    baseline: ArrayLike,
    labels: ArrayLike,
    important: int | Sequence[int],
    *,
    prior: float | None = None,
    confidence: float = 0.95,
    groups: ArrayLike | None = None,
) -> Price:
    """The price of predictions, with its change against others on the same images.

    Args:
      predictions: classes `[num_images]`, as from `predict`.
      baseline: another model's or rule's, on the same images.
      labels: true classes `[num_images]`, integers.
      important: class, or classes.
      prior: as for `price`.
      confidence: of each interval.
      groups: as for `price`.

    Returns:
      The price, as from `price`.

    Raises:
      UsageError: an argument is not as described.

    >>> compare([0, 1, 1], [1, 1, 1], [0, 0, 1], 1).false_alarms.count
    1
    """
    named = {"predictions": predictions, "baseline": baseline, "labels": labels}
    arrays = {name: np.asarray(values) for name, values in named.items()}
    shape = arrays["labels"].shape
    for name, array in arrays.items():
        if array.shape != shape or array.ndim != 1 or array.dtype.kind not in "iu":
            raise UsageError(
                f"{name}: allowed is one integer an image, as many as labels; got "
                f"{array.dtype} of shape {array.shape}"
            )
    # The number of classes is not known, and nothing depends on it.
    classes = checked_important(important, int(np.max(important, initial=0)) + 2)
    return _price(
        arrays["predictions"],
        arrays["baseline"],
        arrays["labels"],
        classes,
        prior,
        confidence,
        groups,
        one_way=False,
    )


def _price(
    predictions: np.ndarray,
    baseline: np.ndarray,
    labels: np.ndarray,
    important: tuple[int, ...],
    prior: float | None,
    confidence: float,
    groups: ArrayLike | None,
    one_way: bool,
) -> Price:
    """The price of predictions against a baseline's; one_way: by an offset's sign."""
    if prior is not None:
        prior = fraction("prior", prior)
    failure_share(confidence, 1)
    mine = np.isin(labels, important)
    num, num_mine = len(labels), int(mine.sum())
    if num_mine in (0, num):
        raise UsageError(
            "labels: allowed are images of important classes and of others; got "
            f"{num_mine} important of {num}"
        )
    group = None if groups is None else group_keys("groups", groups, len(labels))

    def measure(
        hits: Sequence[np.ndarray], of: Any, weights: np.ndarray, one_way: bool
    ) -> Measure:
        own = None if group is None else group[of]
        return _measure([h[of] for h in hits], weights, confidence, own, one_way)

    both = (predictions, baseline)
    right = [p == labels for p in both]
    alarm = [np.isin(p, important) & ~mine for p in both]
    by_prior = np.full(num, 1 / num)
    if prior is not None:
        by_prior = np.where(mine, prior / num_mine, (1 - prior) / (num - num_mine))
    others, inverse, sizes = np.unique(
        labels[~mine], return_inverse=True, return_counts=True
    )
    alike = 1 / (len(others) * sizes[inverse])
    everything = slice(None)
    asked = everything if prior is None else ~mine
    return Price(
        num_images=num,
        num_important=num_mine,
        prior=prior,
        confidence=float(confidence),
        recall=measure(
            right,
            mine,
            np.full(num_mine, 1 / num_mine),
            one_way and len(important) == 1,
        ),
        false_alarms=measure(alarm, asked, 1000 * by_prior[asked], one_way),
        precision=_precision(
            both, labels, important, by_prior, prior, confidence, group
        ),
        accuracy=measure(right, everything, by_prior, False),
        other_recall=measure(right, ~mine, alike, one_way),
    )


def _measure(
    hits: Sequence[np.ndarray],
    weights: np.ndarray,
    confidence: float,
    groups: np.ndarray | None,
    one_way: bool,
) -> Measure:
    """The weighted sum of hits, and how it differs from the second hits' sum."""
    now, before = hits
    # Most hits, and few gains and losses, are expected: the bounds favour what is rare.
    whole = math.fsum(weights)
    miss_low, miss_high = bounds(~now, weights, confidence, groups)
    gained, lost = now & ~before, before & ~now
    each = confidence if one_way else (1 + confidence) / 2
    (gain_low, gain_high), (loss_low, loss_high) = (
        bounds(part, weights, each, groups) for part in (gained, lost)
    )
    if one_way:
        # Only one of the two can happen; without either, it is not known which.
        gain_high, loss_high = (
            gain_high if gained.any() or not lost.any() else 0.0,
            loss_high if lost.any() or not gained.any() else 0.0,
        )
    change = math.fsum(weights[gained]) - math.fsum(weights[lost])
    return Measure(
        math.fsum(weights[now]),
        # The bound of what is missed is a sum that may round above the whole.
        max(0.0, whole - miss_high),
        whole - miss_low,
        change,
        gain_low - loss_high,
        gain_high - loss_low,
        int(now.sum()),
        len(now),
    )


def _precision(
    both: Sequence[np.ndarray],
    labels: np.ndarray,
    important: tuple[int, ...],
    by_prior: np.ndarray,
    prior: float | None,
    confidence: float,
    groups: np.ndarray | None,
) -> Measure:
    """Precision; its change joins two intervals, each of half the error."""

    def of(some: np.ndarray) -> np.ndarray | None:
        return None if groups is None else groups[some]

    def share(predictions: np.ndarray, confidence: float) -> tuple:
        said = np.isin(predictions, important)
        right = said & (predictions == labels)
        count, total = int(right.sum()), int(said.sum())
        if not total:
            return None, 0.0, 1.0, count, total
        if prior is None and groups is None:
            low, high = clopper_pearson(count, total, confidence)
            return count / total, low, high, count, total
        # In a group `said` depends on `right`: both are bounded.
        mine = np.isin(labels, important)
        able = ~mine if len(important) == 1 else np.full(len(mine), True)
        half = (1 + confidence) / 2
        good, bad = by_prior[right].sum(), by_prior[said & ~right].sum()
        good_low, good_high = bounds(right[mine], by_prior[mine], half, of(mine))
        wrong = (said & ~right)[able]
        bad_low, bad_high = bounds(wrong, by_prior[able], half, of(able))
        return (
            float(good / (good + bad)),
            good_low / (good_low + bad_high),
            good_high / (good_high + bad_low),
            count,
            total,
        )

    value, low, high, count, total = share(both[0], confidence)
    old = share(both[1], confidence)[0]
    _, now_low, now_high, *_ = share(both[0], (1 + confidence) / 2)
    _, old_low, old_high, *_ = share(both[1], (1 + confidence) / 2)
    return Measure(
        value,
        low,
        high,
        None if value is None or old is None else value - old,
        now_low - old_high,
        now_high - old_low,
        count,
        total,
    )
