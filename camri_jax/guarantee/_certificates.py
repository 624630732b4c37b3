"""What calibration images promise."""

import dataclasses
import decimal
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from camri_jax._files import UsageError, fraction, group_keys, whole_number
from camri_jax.guarantee._arguments import (
    checked_grid,
    checked_important,
    checked_labels,
    checked_logits,
    failure_share,
)
from camri_jax.guarantee._bounds import bet, largest, rank
from camri_jax.guarantee._rule import found_scores, found_scores_along, moved

ASSUMPTION = (
    "This holds if new images arise the way the calibration images did: "
    "same camera, same places, same mix."
)

_ALONE = 0.9
"""Share of one-image groups from which on groups are counted as images are."""


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What calibration images promise about the recall of new ones.

    Attributes:
      important: classes whose images are found or not; they share the offset.
      recall: share of their new images that is promised to be found.
      confidence: probability, over calibration images, that the promise is kept.
      candidates: how many certificates share the confidence (models, grid vectors).
      offset: what to add to the important classes' logits; None: not certified.
      num_images: calibration images of the important classes.
      num_groups: groups that those come from; None: independent images.
      misses_allowed: images (with groups: whole groups) that may be missed; -1: too few
        images.
      largest_certifiable: largest recall that so many images can certify, if none of
        them is missed.
      num_needed: images (groups) without a miss that the asked recall takes.
      why_not: None, or a sentence: why there is no offset, and what could be had.
    """

    important: tuple[int, ...]
    recall: float
    confidence: float
    candidates: int
    offset: float | None
    num_images: int
    num_groups: int | None
    misses_allowed: int
    largest_certifiable: float
    num_needed: int
    why_not: str | None

    @property
    def certified(self) -> bool:
        """Whether there is a promise."""
        return self.offset is not None

    @property
    def parts(self) -> tuple["Certificate", ...]:
        """Itself alone, as `Certificates` have several."""
        return (self,)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Certificate":
        """The certificate that `to_dict` wrote, perhaps by way of JSON."""
        return cls(**{**values, "important": tuple(values["important"])})

    def __str__(self) -> str:
        if self.why_not is not None:
            return self.why_not
        source = _count(self.num_images, self.num_groups)
        mean = "" if self.num_groups is None else ", the mean of new groups,"
        return (
            f"At an offset of {self.offset:+.4g}, a recall of at least "
            f"{_told(self.recall)}{mean} is certified at confidence "
            f"{_told(self.confidence)} by {source}. {ASSUMPTION}"
        )


@dataclasses.dataclass(frozen=True)
class Certificates:
    """Several classes, each with its own target and offset; all hold together.

    Attributes:
      certificates: one a class. Their `candidates` count the grid's vectors too.
      accuracy: share of the calibration images predicted rightly under the offsets;
        None: not certified.
    """

    certificates: tuple[Certificate, ...]
    accuracy: float | None

    @property
    def parts(self) -> tuple[Certificate, ...]:
        """The certificates, one a class."""
        return self.certificates

    @property
    def important(self) -> tuple[int, ...]:
        """The classes, in the order of the targets."""
        return tuple(c for part in self.certificates for c in part.important)

    @property
    def offset(self) -> tuple[float, ...] | None:
        """One offset a class; None: not certified."""
        offsets = [c.offset for c in self.certificates if c.offset is not None]
        every = 0 < len(offsets) == len(self.certificates)
        return tuple(offsets) if every else None

    @property
    def certified(self) -> bool:
        """Whether there is a promise."""
        return self.offset is not None

    @property
    def why_not(self) -> str | None:
        """None, or what stands against it, class by class."""
        if self.certified:
            return None
        return " ".join(c.why_not for c in self.certificates if c.why_not)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Certificates":
        """The certificates that `to_dict` wrote, perhaps by way of JSON."""
        parts = tuple(Certificate.from_dict(part) for part in values["certificates"])
        return cls(parts, values["accuracy"])


def sample_size(
    labels: np.ndarray, important: Sequence[int], groups: np.ndarray | None = None
) -> int:
    """Returns how many independent examples of the important classes there are.

    Args:
      labels: true classes `[n]`.
      important: the classes.
      groups: `[n]`; those of one group count as one. None: all are independent.

    >>> sample_size(np.array([0, 1, 1, 1]), (1,), np.array([0, 0, 0, 7]))
    2
    """
    mine = np.isin(labels, important)
    return int(mine.sum()) if groups is None else len(np.unique(groups[mine]))


def images_needed(
    recall: float, *, confidence: float = 0.95, candidates: int = 1
) -> int:
    r"""Least number of calibration images (or groups) that can certify a recall.

    .. math:: n = \lceil \ln(\delta / M) / \ln r \rceil

    Args:
      recall: recall r to be promised, between 0 and 1.
      confidence: 1 - delta.
      candidates: how many models (M) are certified on the same images.

    Returns:
      How many images of the important classes it takes, none of them missed.

    Raises:
      UsageError: an argument is out of range.

    Reference:
      Wilks, Determination of sample sizes for setting tolerance limits, Annals of
      Mathematical Statistics, 1941.

    >>> images_needed(0.99)
    299
    """
    recall, delta = fraction("recall", recall), failure_share(confidence, candidates)
    n = max(1, math.ceil(math.log(delta) / math.log(recall)) - 1)
    return n if recall**n <= delta else n + 1


def largest_certifiable(
    n: int, *, confidence: float = 0.95, candidates: int = 1
) -> float:
    r"""Largest recall that n calibration images (or groups) can certify.

    .. math:: r = (\delta / M)^{1/n}

    Args:
      n: images of the important classes; with groups, how many groups.
      confidence: 1 - delta.
      candidates: how many models (M) are certified on the same images.

    Returns:
      The recall; 0 for no images.

    Raises:
      UsageError: an argument is out of range.

    Reference:
      Wilks, Determination of sample sizes for setting tolerance limits, Annals of
      Mathematical Statistics, 1941.

    >>> round(largest_certifiable(90), 4)
    0.9673
    """
    n, delta = whole_number("n", n, 0), failure_share(confidence, candidates)
    return largest(n, delta) if n else 0.0


def rounded_down(recall: float, digits: int = 3) -> float:
    """Returns a recall as it may be stated: one that is rounded up is not certified.

    >>> rounded_down(largest_certifiable(60))
    0.951
    """
    # Decimal, since 0.29 * 100 is below 29.
    step = decimal.Decimal(1).scaleb(-digits)
    exact = decimal.Decimal(repr(float(recall)))
    return float(exact.quantize(step, decimal.ROUND_FLOOR))


def certify_recall(
    logits: ArrayLike,
    labels: ArrayLike,
    important: int | Sequence[int],
    *,
    recall: float,
    confidence: float = 0.95,
    groups: ArrayLike | None = None,
    candidates: int = 1,
) -> Certificate:
    r"""Smallest offset under which a recall is promised for new images.

    .. math:: c = b_{(j)}, \quad
      j = \min \{i : P(\mathrm{Bin}(n, r) \ge i) \le \delta / M\}

    with the sorted `found_scores` b of the n calibration images of the important
    classes. The recall of `predict(logits, important, c)` on new images is then at
    least r with probability at least 1 - delta over the calibration images, whatever
    the model and the distribution, and however many scores are tied. M models may be
    certified on the same images with `candidates=M`; any choice among them is then
    free. With `groups`, see `certify_scores`.

    Args:
      logits: calibration images' `[num_images, num_classes]`, taken as float32.
      labels: their true classes `[num_images]`, integers.
      important: class, or classes that share the offset and whose images are counted
        together; for a promise about each, see `certify_recalls`.
      recall: recall r to be promised, between 0 and 1.
      confidence: 1 - delta.
      groups: `[num_images]`, equal within one group (track, patient); None:
        the images are independent.
      candidates: how many models (M) are certified on the same images.

    Returns:
      The certificate, whose `why_not` says what stands against an offset.

    Raises:
      UsageError: an argument is not as described.

    Reference:
      Wilks, 1941. Tong, Feng and Li, Neyman-Pearson classification algorithms and NP
      receiver operating characteristics, Science Advances, 2018 (Proposition 1).
      Angelopoulos, Bates, Candes, Jordan and Lei, Learn then Test, 2021.

    >>> z = np.stack([np.zeros(60), np.arange(60.0)], axis=1)
    >>> certificate = certify_recall(z, np.ones(60, int), 1, recall=0.95)
    >>> certificate.misses_allowed, certificate.offset > 0
    (0, True)
    """
    logits = checked_logits(logits)
    important = checked_important(important, logits.shape[1])
    labels = checked_labels(labels, logits)
    mine = np.isin(labels, important)
    if not mine.any():
        raise UsageError(f"labels: no image of class {_list(important)} to certify by")
    if groups is not None:
        groups = group_keys("groups", groups, len(labels))[mine]
    return certify_scores(
        found_scores(logits, labels, important),
        important,
        recall=recall,
        confidence=confidence,
        groups=groups,
        candidates=candidates,
    )


def certify_scores(
    scores: ArrayLike,
    important: int | Sequence[int],
    *,
    recall: float,
    confidence: float = 0.95,
    groups: ArrayLike | None = None,
    candidates: int = 1,
) -> Certificate:
    r"""The certificate of `certify_recall` from calibration images' `found_scores`.

    So a stored certificate can be checked without the model.

    Images of one group (a track's frames, a patient's pictures) are not independent;
    groups are. The promise is then about a random image of the important classes from
    a random new group, and rests on a bet against the recall being below r, which each
    group's share :math:`X_g(c)` of found images settles:

    .. math:: c = \min \{b : \prod_g (1 + \lambda (X_g(b) - r)) \ge M / \delta\}

    With the recall below r the product's mean is at most 1, so it reaches
    :math:`M / \delta` with probability at most :math:`\delta / M` (Markov); it grows
    with c, so all offsets are tested in one fixed sequence. The stake
    :math:`\lambda = (q - r) / (r (1 - r))`, :math:`\mathrm{kl}(q, r) = \ln(M / \delta)
    / n`, is fixed before any score is seen and allows the most missed groups. It is
    also the mean, over all ways to draw one image from each group, of the draws'
    likelihood ratios: repeated subsampling without the factor 2 that averaging
    p-values costs. Where nine groups of ten or more have one image, a group counts as
    found if all of its images are, and the exact binomial rule is used, which allows
    more misses: a few copies among many images cost next to nothing.

    Args:
      scores: `[num_images]`, images of the important classes; infinite: never found.
      important: their class, or classes.
      recall: recall r to be promised, between 0 and 1.
      confidence: 1 - delta.
      groups: `[num_images]`; None: the images are independent.
      candidates: how many models (M) are certified on the same images.

    Returns:
      The certificate.

    Raises:
      UsageError: an argument is not as described.

    Reference:
      Dunn, Wasserman and Ramdas, Distribution-free prediction sets for two-layer
      hierarchical models, JASA, 2023. Waudby-Smith and Ramdas, Estimating means of
      bounded random variables by betting, JRSS B, 2024. Vovk and Wang, E-values:
      calibration, combination and applications, Annals of Statistics, 2021.

    >>> certify_scores([0.0] * 14, 6, recall=0.95).why_not
    'Class 6: 14 images certify a recall of at most 0.807 at confidence 0.95; 0.95
    takes 59 images, 45 more.'
    """
    recall, delta = fraction("recall", recall), failure_share(confidence, candidates)
    # As float32 a score that is rounded down would lie above its own offset.
    values = np.asarray(scores, np.float64)
    wrong = int((~(values > -np.inf)).sum())
    if values.ndim != 1 or not len(values) or wrong:
        raise UsageError(
            "scores: allowed is a number, or infinity, for each of at least one image; "
            f"got shape {values.shape} with {wrong} NaN or -infinity"
        )
    classes = tuple(np.ravel(important).tolist())
    num_groups = None
    if groups is None:
        offset, misses, limit = rank(values, recall, delta)
    else:
        keys = group_keys("groups", groups, len(values))
        index = np.unique(keys, return_inverse=True)[1]
        sizes = np.bincount(index)
        num_groups = len(sizes)
        # By the sizes alone: scores must not choose the rule that they are put to.
        if (sizes == 1).mean() >= _ALONE:
            whole_groups = np.full(num_groups, -np.inf)
            np.maximum.at(whole_groups, index, values)
            offset, misses, limit = rank(whole_groups, recall, delta)
        else:
            offset, misses, limit = bet(values, index, recall, delta)
    certificate = Certificate(
        important=classes,
        recall=recall,
        confidence=float(confidence),
        candidates=int(candidates),
        offset=offset if math.isfinite(offset) else None,
        num_images=len(values),
        num_groups=num_groups,
        misses_allowed=misses,
        largest_certifiable=limit,
        num_needed=images_needed(recall, confidence=confidence, candidates=candidates),
        why_not=None,
    )
    if certificate.certified:
        return certificate
    never = int(np.isposinf(values).sum())
    return dataclasses.replace(certificate, why_not=_why_not(certificate, never))


def certify_recalls(
    logits: ArrayLike,
    labels: ArrayLike,
    targets: Mapping[int, float],
    *,
    confidence: float = 0.95,
    groups: ArrayLike | None = None,
    candidates: int = 1,
    grid: ArrayLike | None = None,
) -> Certificates:
    r"""Offsets under which several classes keep their own recalls, all at once.

    With an offset for each class, raising one lowers the others' recalls. But along
    :math:`c_k = d_k + t` each target class's recall grows with t, whatever d. So for
    each vector d of a finite grid all t are tested in one fixed sequence, downward:

    .. math:: t(d) = \max_k t_k(d)

    where :math:`t_k(d)` is what `certify_scores` gives for class k alone. The largest
    of the classes' p-values tests that any target is missed, so classes cost nothing;
    the G vectors share the confidence (delta / (M G) each), so any choice among them is
    free: the most accurate on the calibration images is returned.

    Args:
      logits: calibration images' `[num_images, num_classes]`, taken as float32.
      labels: their true classes `[num_images]`, integers.
      targets: recall to be promised for each class.
      confidence: 1 - delta, of all targets together.
      groups: `[num_images]`, as for `certify_recall`.
      candidates: how many models (M) are certified on the same images.
      grid: vectors d, `[G, num_targets]`, in the order of the targets; fixed before
        the calibration images are seen. None: no difference, and each class ahead of
        the others by 1, 2, 4 and 8. One vector, picked on validation images, is enough,
        and takes the fewest calibration images.

    Returns:
      The certificates; without offset, `why_not` says what stands against it.

    Raises:
      UsageError: an argument is not as described.

    Reference:
      Angelopoulos, Bates, Candes, Jordan and Lei, Learn then Test, 2021 (fixed
      sequences with several starts). Berger, Multiparameter hypothesis testing and
      acceptance sampling, Technometrics, 1982 (the largest p-value).

    >>> z = np.tile(np.eye(3), (200, 1))
    >>> labels = np.tile(np.arange(3), 200)
    >>> certify_recalls(z, labels, {1: 0.95, 2: 0.9}).certified
    True
    """
    if not isinstance(targets, Mapping) or not targets:
        raise UsageError(
            f"targets: allowed is a recall for each of some classes; got {targets!r}"
        )
    logits = checked_logits(logits)
    labels = checked_labels(labels, logits)
    important = checked_important(tuple(targets), logits.shape[1])
    for c in important:
        if not np.any(labels == c):
            raise UsageError(f"labels: no image of class {c} to certify by")
    grid = checked_grid(grid, len(important))
    groups = None if groups is None else group_keys("groups", groups, len(labels))

    def along(relative: np.ndarray) -> list[Certificate]:
        return [
            certify_scores(
                found_scores_along(logits[mine], labels[mine], important, relative),
                c,
                recall=targets[c],
                confidence=confidence,
                groups=None if groups is None else groups[mine],
                candidates=whole_number("candidates", candidates, 1) * len(grid),
            )
            for c in important
            for mine in [labels == c]
        ]

    best, nearest = None, None
    for relative in grid:
        parts = along(relative)
        num_certified = sum(part.certified for part in parts)
        if nearest is None or num_certified > nearest[0]:
            nearest = num_certified, parts
        if num_certified < len(parts):
            continue
        shared = np.float32(max(part.offset or 0.0 for part in parts))
        offset = relative + shared
        right = np.argmax(moved(logits, important, offset), axis=1) == labels
        if best is None or right.mean() > best[0]:
            best = float(right.mean()), parts, offset
    if best is not None:
        accuracy, parts, offset = best
        parts = [
            dataclasses.replace(part, offset=float(c))
            for part, c in zip(parts, offset, strict=True)
        ]
        return Certificates(tuple(parts), accuracy)
    assert nearest is not None
    return Certificates(tuple(_not_alone(part) for part in nearest[1]), None)


def _count(num_images: int, num_groups: int | None) -> str:
    """How many images, or groups, in words."""
    images = f"{num_images} image{'s' * (num_images != 1)}"
    if num_groups is None:
        return images
    return f"{num_groups} group{'s' * (num_groups != 1)} ({images})"


def _told(share: float) -> str:
    """With all the digits that it was given with."""
    return f"{share:.12g}"


def _list(important: Sequence[int]) -> str:
    return ", ".join(map(str, important))


def _why_not(certificate: Certificate, never: int) -> str:
    """Why a recall is not certified, and what could be."""
    c = certificate
    who = f"Class{'es' if len(c.important) > 1 else ''} {_list(c.important)}"
    source = _count(c.num_images, c.num_groups)
    if c.misses_allowed >= 0:
        # No limit is told: it would be read off these scores, and asking them for it
        # again is a second look.
        return (
            f"{who}: {never} of {c.num_images} images are found at no offset, because "
            f"another important class leads; {source} do not certify a recall of "
            f"{_told(c.recall)} at confidence {_told(c.confidence)}. A lower one takes "
            "new images."
        )
    limit = rounded_down(c.largest_certifiable)
    n, unit = (
        (c.num_images, "images") if c.num_groups is None else (c.num_groups, "groups")
    )
    shared = f" shared by {c.candidates} candidates" if c.candidates > 1 else ""
    return (
        f"{who}: {source} certify a recall of at most {limit:.3f} at confidence "
        f"{_told(c.confidence)}{shared}; {_told(c.recall)} takes {c.num_needed} "
        f"{unit}, {c.num_needed - n} more."
    )


def _not_alone(part: Certificate) -> Certificate:
    """A class's certificate where others of its kind fail."""
    if not part.certified:
        return part
    why_not = f"Class {part.important[0]} can be certified, but not with the others."
    return dataclasses.replace(part, offset=None, why_not=why_not)
