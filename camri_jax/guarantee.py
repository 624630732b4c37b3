r"""Recall that holds on new images: certificates, sample sizes, prices, checks.

A trained classifier says `predict(logits, important, offset)`: the arg max after
`offset` was added to the important classes' logits, all in float32. The larger the
offset, the more of the important classes' images are found and the more false alarms
others raise. Here the offset is chosen on calibration images such that, with the asked
confidence over the draw of those images, at least the asked share of *new* images of
the important classes is found.

*Found* means predicted as its own class. An image of one important class that is
predicted as another important class is not found. `ASSUMPTION` says what every promise
rests on; print it where you print a promise. Calibration images must not have been used
for anything else: neither to train, nor to pick epochs, settings or models (unless
`candidates` counts the models). What a promise costs is read off yet other images.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special

from camri_jax._files import UsageError

__all__ = [
    "ASSUMPTION",
    "Certificate",
    "Certificates",
    "Check",
    "Measure",
    "Price",
    "certify_recall",
    "certify_recalls",
    "certify_scores",
    "check_recall",
    "clopper_pearson",
    "compare",
    "found_scores",
    "images_needed",
    "largest_certifiable",
    "moved",
    "predict",
    "price",
    "rounded_down",
    "sample_size",
    "scores",
]

ASSUMPTION = (
    "This holds if new images come like the calibration images: "
    "same camera, same places, same mix."
)

_FLOAT32 = np.finfo(np.float32)
_LARGEST_KEY = int(np.array(_FLOAT32.max).view(np.int32))
# Classes that share a constant are promised for offsets within this only: far beyond,
# float32 rounds their logits together.
_LARGEST_SHARED = 1024.0
_STEPS = (1.0, 2.0, 4.0, 8.0)


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
      largest_certifiable: largest recall that these images can certify.
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
        """The certificate that `to_dict` wrote, also after a way through JSON."""
        return cls(**{**values, "important": tuple(values["important"])})

    def __str__(self) -> str:
        if self.why_not is not None:
            return self.why_not
        source = _count(self.num_images, self.num_groups)
        return (
            f"A recall of at least {self.recall:g} is certified at confidence "
            f"{self.confidence:g} by {source}. {ASSUMPTION}"
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
        return tuple(offsets) if len(offsets) == len(self.certificates) else None

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
        """The certificates that `to_dict` wrote, also after a way through JSON."""
        parts = tuple(Certificate.from_dict(part) for part in values["certificates"])
        return cls(parts, values["accuracy"])


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

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Price":
        """The price that `to_dict` wrote."""
        read: dict[str, Any] = {
            name: Measure(**value) if isinstance(value, Mapping) else value
            for name, value in values.items()
        }
        return cls(**read)


class Check(NamedTuple):
    """Whether a promised recall is still kept.

    Attributes:
      found: images predicted as their own class.
      total: images of the important classes.
      recall: what was promised.
      confidence: of `low`, of `high` and of the verdict.
      sequential: whether all of this may be looked at after every image.
      p_value: chance of so few found, or fewer, if the promise is kept; sequential:
        a bound on the chance that they are ever so few.
      low: the recall is at least this.
      high: the recall is at most this.
      verdict: "kept" (shown), "broken" (shown), or "open" (neither is shown).
    """

    found: int
    total: int
    recall: float
    confidence: float
    sequential: bool
    p_value: float
    low: float
    high: float
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return self._asdict()


def scores(logits: ArrayLike, important: int | Sequence[int]) -> np.ndarray:
    r"""Smallest offset at which each image is predicted as an important class.

    .. math:: b_n = \min \{c : \arg\max_k (z_{n,k} + c \, [k \in S]) \in S\}
      \approx \max_{k \notin S} z_{n,k} - \max_{k \in S} z_{n,k}

    The minimum runs over the normal float32 numbers, and the arg max is that of
    float32 sums whose ties go to the lowest class. Rounding a sum keeps the order, so
    the set is an upper one: `predict(logits, important, c)` is an important class if
    and only if `c >= scores(logits, important)`, exactly, for every such c.

    Args:
      logits: `[num_images, num_classes]`, taken as float32.
      important: class, or classes that share the offset.

    Returns:
      `[num_images]`, float32; infinite where no offset suffices.

    Raises:
      UsageError: an argument is not as described.

    >>> scores([[1.0, 3.0, 2.0], [5.0, 0.0, 1.0]], 2)
    array([1.0000002, 4.0000005], dtype=float32)
    """
    logits = _logits(logits)
    important = _important(important, logits.shape[1])
    return _scores(logits, important, np.zeros(len(important), np.float32))


def predict(
    logits: ArrayLike,
    important: int | Sequence[int],
    offset: float | Sequence[float],
) -> np.ndarray:
    r"""Classes predicted once the offset was added to the important classes' logits.

    .. math:: p_n = \arg\max_k (z_{n,k} + c_k \, [k \in S])

    Sums are float32's, and ties go to the lowest class, as in `jnp.argmax`.

    Args:
      logits: `[num_images, num_classes]`, taken as float32.
      important: class, or classes.
      offset: one number for all important classes, or one for each.

    Returns:
      `[num_images]`, integers.

    Raises:
      UsageError: an argument is not as described.

    >>> predict([[1.0, 3.0, 2.0], [5.0, 0.0, 1.0]], 2, 1.5)
    array([2, 0])
    """
    logits = _logits(logits)
    classes = _important(important, logits.shape[1])
    return np.argmax(moved(logits, classes, _offset(offset, classes)), axis=1)


def found_scores(
    logits: ArrayLike, labels: ArrayLike, important: int | Sequence[int]
) -> np.ndarray:
    """Smallest offset at which each image of the important classes is found.

    For one class these are its images' `scores`. With several classes, an image whose
    own class does not lead the other important ones is found at no offset, and its
    score is infinite. It must lead by more than float32 rounds away at offsets within
    +-1,024 (about 0.0005), and scores are kept within that range: then an image is
    found at every such offset from its score on.

    Args:
      logits: `[num_images, num_classes]`, taken as float32.
      labels: true classes `[num_images]`, integers.
      important: class, or classes that share the offset.

    Returns:
      `[images of the important classes]`, float32, in the images' order.

    Raises:
      UsageError: an argument is not as described.

    >>> found_scores([[1.0, 3.0, 2.0], [5.0, 0.0, 1.0]], [1, 2], 2)
    array([4.0000005], dtype=float32)
    """
    logits = _logits(logits)
    important = _important(important, logits.shape[1])
    labels = _labels(labels, logits)
    mine = np.isin(labels, important)
    zero = np.zeros(len(important), np.float32)
    return _found_scores(logits[mine], labels[mine], important, zero)


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
    recall, delta = _between("recall", recall), _delta(confidence, candidates)
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
    n, delta = _whole("n", n, 0), _delta(confidence, candidates)
    return delta ** (1 / n) if n else 0.0


def rounded_down(recall: float, digits: int = 3) -> float:
    """Returns a recall as it may be told: one that is rounded up is not certified.

    >>> rounded_down(largest_certifiable(60))
    0.951
    """
    return math.floor(recall * 10**digits) / 10**digits


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
      groups: `[num_images]`, what of one group (track, patient) has in common; None:
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
    logits = _logits(logits)
    important = _important(important, logits.shape[1])
    labels = _labels(labels, logits)
    mine = np.isin(labels, important)
    if not mine.any():
        raise UsageError(f"labels: no image of class {_list(important)} to certify by")
    return certify_scores(
        found_scores(logits, labels, important),
        important,
        recall=recall,
        confidence=confidence,
        groups=None if groups is None else _groups(groups, labels)[mine],
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
    p-values costs. Where each group has one image, the exact binomial rule is used.

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
    recall, delta = _between("recall", recall), _delta(confidence, candidates)
    values = np.asarray(scores, np.float32)
    wrong = int((~(values > -np.inf)).sum())
    if values.ndim != 1 or not len(values) or wrong:
        raise UsageError(
            "scores: allowed is a number, or infinity, for each of at least one image; "
            f"got shape {values.shape} with {wrong} NaN or -infinity"
        )
    classes = tuple(np.ravel(important).tolist())
    num_groups = None if groups is None else len(np.unique(_groups(groups, values)))
    if groups is None or num_groups == len(values):
        offset, misses, limit = _rank(values, recall, delta)
    else:
        offset, misses, limit = _bet(values, groups, recall, delta)
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
    logits = _logits(logits)
    labels = _labels(labels, logits)
    important = _important(tuple(targets), logits.shape[1])
    for c in important:
        if not np.any(labels == c):
            raise UsageError(f"labels: no image of class {c} to certify by")
    grid = _grid(grid, len(important))
    groups = None if groups is None else _groups(groups, labels)

    def along(relative: np.ndarray) -> list[Certificate]:
        return [
            certify_scores(
                _found_scores(logits[mine], labels[mine], important, relative),
                c,
                recall=targets[c],
                confidence=confidence,
                groups=None if groups is None else groups[mine],
                candidates=_whole("candidates", candidates, 1) * len(grid),
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


def price(
    logits: ArrayLike,
    labels: ArrayLike,
    important: int | Sequence[int],
    offset: float | Sequence[float],
    *,
    prior: float | None = None,
    confidence: float = 0.95,
) -> Price:
    r"""What an offset costs and brings, against offset 0, on images for that alone.

    Shares are counted with exact (Clopper-Pearson) intervals. At a prior, and for the
    other classes' mean recall, images carry weights: the interval inverts Hoeffding's
    bound :math:`\exp(-n \, \mathrm{kl})`, which holds for weighted means too. A change
    is the share of images gained minus the share lost, and its interval joins those of
    the two; where the rule allows only one of the two (false alarms under one positive
    offset), it is that one's. Precision's interval at a prior, and its change, join two
    intervals likewise. All hold at least as often as stated, if images are independent
    (frames of one track are not).

    Args:
      logits: `[num_images, num_classes]` of images that neither chose the model nor
        certified the offset.
      labels: true classes `[num_images]`, integers.
      important: class, or classes.
      offset: one number for all important classes, or one for each.
      prior: share of important images where the model is to work; None: as here.
      confidence: of each interval.

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
    logits = _logits(logits)
    labels = _labels(labels, logits)
    important = _important(important, logits.shape[1])
    raised = _offset(offset, important)
    return _price(
        np.argmax(moved(logits, important, raised), axis=1),
        np.argmax(logits, axis=1),
        labels,
        important,
        prior,
        confidence,
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
) -> Price:
    """The price of predictions, with its change against others on the same images.

    Args:
      predictions: classes `[num_images]`, as from `predict`.
      baseline: another model's or rule's, on the same images.
      labels: true classes `[num_images]`, integers.
      important: class, or classes.
      prior: as for `price`.
      confidence: of each interval.

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
    classes = _important(important, int(np.max(important, initial=0)) + 2)
    return _price(
        arrays["predictions"],
        arrays["baseline"],
        arrays["labels"],
        classes,
        prior,
        confidence,
        one_way=False,
    )


def check_recall(
    found: int,
    total: int,
    *,
    recall: float,
    confidence: float = 0.95,
    sequential: bool = False,
) -> Check:
    r"""Whether labelled new images contradict, or show, a promised recall.

    Once: the exact binomial test, with one-sided Clopper-Pearson bounds.

    Sequentially (`sequential=True`), looked at as often as wanted, and stopped when
    wanted: a bet against each recall m, its stake mixed over all alternatives q,

    .. math:: K(m) = \int \frac{q^x (1 - q)^{n - x}}{m^x (1 - m)^{n - x}}
      \mathrm{Beta}(q; 1/2, 1/2) \, dq

    has mean 1 if m is the recall, so it *ever* reaches 1 / delta with probability at
    most delta (Ville). The recalls with K(m) < 1 / delta are the interval `low`,
    `high`; they hold at all times at once. What was once broken stays broken.

    Args:
      found: how many of the images were predicted as their own class.
      total: how many images there were. They are independent; of a group count one.
      recall: what was promised.
      confidence: 1 - delta: chance that a kept promise is not called broken.
      sequential: whether this may be asked again as more images come.

    Returns:
      The check, with a verdict: "kept", "broken" or "open".

    Raises:
      UsageError: an argument is out of range.

    Reference:
      Clopper and Pearson, 1934. Waudby-Smith and Ramdas, Estimating means of bounded
      random variables by betting, JRSS B, 2024. Robbins, Statistical methods related to
      the law of the iterated logarithm, Annals of Mathematical Statistics, 1970.

    >>> check_recall(80, 100, recall=0.95).verdict
    'broken'
    >>> check_recall(92, 100, recall=0.95, sequential=True).verdict
    'open'
    """
    total = _whole("total", total, 1)
    found = _whole("found", found, 0)
    if found > total:
        raise UsageError(f"found: allowed is at most total = {total}; got {found}")
    recall, delta = _between("recall", recall), _delta(confidence, 1)
    if sequential:
        low, high, p_value = _mixture(found, total, recall, delta)
    else:
        low, high = clopper_pearson(found, total, 1 - 2 * delta)
        p_value = _at_least(total - found, total, 1 - recall)
    verdict = "broken" if high < recall else "kept" if low >= recall else "open"
    return Check(
        found, total, recall, float(confidence), sequential, p_value, low, high, verdict
    )


# The rule, in float32.


def moved(logits: np.ndarray, important: ArrayLike, offset: ArrayLike) -> np.ndarray:
    """Returns logits under offsets, in whose float32 every promise is made.

    Args:
      logits: float32 `[num_images, num_classes]`, as trained.
      important: classes to move.
      offset: added to their logits; one, or one a class in their order.

    >>> moved(np.float32([[1, 3, 2]]), (2,), 1.5)
    array([[1. , 3. , 3.5]], dtype=float32)
    """
    found = logits.copy()
    with np.errstate(over="ignore"):
        found[:, np.asarray(important)] += np.asarray(offset, np.float32)
    return found


def _scores(
    logits: np.ndarray, important: tuple[int, ...], relative: np.ndarray
) -> np.ndarray:
    """Smallest t at which an important class wins with the offsets relative + t."""
    order = np.argsort(important)
    classes, relative = np.asarray(important)[order], relative[order]
    others = np.setdiff1d(np.arange(logits.shape[1]), classes)
    mine, rest = logits[:, classes], logits[:, others]
    rest_first = others[np.argmax(rest, axis=1)]
    rest_top = rest.max(axis=1)

    def wins(key: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            moved = mine + (relative + _from_key(key)[:, None])
        top, first = moved.max(axis=1), classes[np.argmax(moved, axis=1)]
        return (top > rest_top) | ((top == rest_top) & (first < rest_first))

    # Bisects the float32 numbers, which their bits order, around the exact difference.
    size = np.abs(logits).max(axis=1).astype(np.float64) + np.abs(relative).max()
    guess = rest_top - (mine.astype(np.float64) + relative).max(axis=1)
    low, high = _to_key(guess - 2.0**-21 * size), _to_key(guess + 2.0**-21 * size)
    low = np.where(wins(low), -_LARGEST_KEY - 1, low)
    high = np.where(wins(high), high, _LARGEST_KEY + 1)
    while np.any(high - low > 1):
        middle = (low + high) // 2
        won = wins(middle)
        high, low = np.where(won, middle, high), np.where(won, low, middle)
    found = _from_key(np.minimum(high, _LARGEST_KEY))
    # Devices may flush subnormal numbers to zero: none of them is a threshold.
    tiny = np.abs(found) < _FLOAT32.tiny
    found = np.where(tiny & (found > 0), _FLOAT32.tiny, np.where(tiny, 0, found))
    return np.where(high > _LARGEST_KEY, np.inf, found).astype(np.float32)


def _to_key(value: np.ndarray) -> np.ndarray:
    """Place of a number, rounded, in the order of the float32 numbers; 0 is at 0."""
    value = np.clip(value, -_FLOAT32.max, _FLOAT32.max).astype(np.float32)
    size = np.abs(value).view(np.int32).astype(np.int64)
    return np.where(value < 0, -size, size)


def _from_key(key: np.ndarray) -> np.ndarray:
    """The float32 number at a place in their order."""
    size = np.abs(key).astype(np.int32).view(np.float32)
    return np.where(key < 0, -size, size)


def _found_scores(
    logits: np.ndarray,
    labels: np.ndarray,
    important: tuple[int, ...],
    relative: np.ndarray,
) -> np.ndarray:
    """Smallest t from which on an image, of an important class, is found."""
    values = _scores(logits, important, relative)
    if len(important) == 1:
        return values
    mine = logits[:, list(important)].astype(np.float64) + relative
    own = labels[:, None] == np.asarray(important)
    lead = mine[own] - np.where(own, -np.inf, mine).max(axis=1)
    size = np.abs(logits).max(axis=1).astype(np.float64)
    # Each of two sums rounds by at most 2^-24 of its parts' sizes; this is twice that.
    rounding = 2.0**-22 * (size + 2 * np.abs(relative).max() + 2 * _LARGEST_SHARED)
    values = np.where(lead > rounding, values, np.inf)
    values = np.where(values > _LARGEST_SHARED, np.inf, values)
    return np.maximum(values, -_LARGEST_SHARED).astype(np.float32)


# The tests.


def _rank(values: np.ndarray, recall: float, delta: float) -> tuple[float, int, float]:
    """The certified score, images that may be missed, and the largest recall."""
    n, finite = len(values), int(np.isfinite(values).sum())
    limit = special.betaincinv(finite, n - finite + 1, delta) if finite else 0.0
    misses = _misses_allowed(n, recall, delta)
    offset = np.sort(values)[n - 1 - misses] if misses >= 0 else math.inf
    return float(offset), misses, float(limit)


@functools.lru_cache(maxsize=4096)
def _misses_allowed(n: int, recall: float, delta: float) -> int:
    """How many of n images may be missed; -1: they are too few."""
    if recall**n > delta:
        return -1
    low, high = 0, n
    while high - low > 1:
        middle = (low + high) // 2
        enough = _at_least(middle, n, recall) <= delta
        low, high = (low, middle) if enough else (middle, high)
    return n - high


def _at_least(count: int, n: int, share: float) -> float:
    """P(Bin(n, share) >= count)."""
    return float(special.betainc(count, n - count + 1, share)) if count else 1.0


@functools.lru_cache(maxsize=4096)
def _alternative(n: int, recall: float, delta: float) -> float | None:
    """The recall to bet on: that of the most missed groups which still win the bet."""
    if recall**n > delta:
        return None
    target = -math.log(delta) / n

    def gap(q: float) -> float:
        return float(_kl(q, recall)) - target

    return _root(gap, recall, 1.0) if gap(1.0) > 0 else 1.0


def _log_capital(shares: np.ndarray, recall: float, delta: float) -> float:
    """Logarithm of what the bet against the recall has won; -inf: no bet can win."""
    q = _alternative(len(shares), recall, delta)
    if q is None:
        return -math.inf
    stake = (q - recall) / (recall * (1 - recall))
    with np.errstate(divide="ignore"):
        return float(np.log1p(np.maximum(stake * (shares - recall), -1)).sum())


def _bet(
    values: np.ndarray, groups: ArrayLike, recall: float, delta: float
) -> tuple[float, int, float]:
    """The certified score, whole groups that may be missed, and the largest recall."""
    index = np.unique(np.asarray(groups), return_inverse=True)[1]
    sizes = np.bincount(index)
    n = len(sizes)

    def wins(offset: float, recall: float = recall) -> bool:
        shares = np.bincount(index, weights=values <= offset) / sizes
        return _log_capital(shares, recall, delta) >= -math.log(delta)

    steps = np.unique(values[np.isfinite(values)])
    low, high = -1, len(steps)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if wins(float(steps[middle])) else (middle, high)
    offset = float(steps[high]) if high < len(steps) else math.inf
    q = _alternative(n, recall, delta)
    misses = -1 if q is None else math.floor(n * (1 - q) + 1e-9)
    below, above = 0.0, delta ** (1 / n)
    if np.isfinite(values).all():
        return offset, misses, above
    for _ in range(40):
        middle = (below + above) / 2
        good = wins(float(_FLOAT32.max), middle)
        below, above = (middle, above) if good else (below, middle)
    return offset, misses, below


def _mixture(
    found: int, total: int, recall: float, delta: float
) -> tuple[float, float, float]:
    """Bounds of the confidence sequence, and its p-value for the recall."""
    missed = total - found
    mixed = special.betaln(found + 0.5, missed + 0.5) - special.betaln(0.5, 0.5)

    def excess(m: float) -> float:
        likelihood = special.xlogy(found, m) + special.xlog1py(missed, -m)
        return float(mixed - likelihood + math.log(delta))

    share = found / total
    low = _root(excess, 1e-300, share) if found else 0.0
    most = 1 - 1e-16
    high = _root(excess, share, most) if missed and excess(most) > 0 else 1.0
    p_value = math.exp(min(0.0, math.log(delta) - excess(recall)))
    return low, high, p_value if share < recall else 1.0


# The prices.


def _price(
    predictions: np.ndarray,
    baseline: np.ndarray,
    labels: np.ndarray,
    important: tuple[int, ...],
    prior: float | None,
    confidence: float,
    one_way: bool,
) -> Price:
    """The price of predictions against a baseline's; one_way: by an offset's sign."""
    if prior is not None:
        prior = _between("prior", prior)
    _delta(confidence, 1)
    mine = np.isin(labels, important)
    num, num_mine = len(labels), int(mine.sum())
    if num_mine in (0, num):
        raise UsageError(
            "labels: allowed are images of important classes and of others; got "
            f"{num_mine} important of {num}"
        )
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
    asked = slice(None) if prior is None else ~mine
    return Price(
        num_images=num,
        num_important=num_mine,
        prior=prior,
        confidence=float(confidence),
        recall=_measure(
            [r[mine] for r in right],
            np.full(num_mine, 1 / num_mine),
            confidence,
            one_way and len(important) == 1,
        ),
        false_alarms=_measure(
            [a[asked] for a in alarm], 1000 * by_prior[asked], confidence, one_way
        ),
        precision=_precision(both, labels, important, by_prior, prior, confidence),
        accuracy=_measure(right, by_prior, confidence, False),
        other_recall=_measure([r[~mine] for r in right], alike, confidence, one_way),
    )


def _measure(
    hits: Sequence[np.ndarray], weights: np.ndarray, confidence: float, one_way: bool
) -> Measure:
    """The weighted sum of hits, and how it differs from the second hits' sum."""
    now, before = hits
    # Most hits, and few gains and losses, are expected: the bounds favour what is rare.
    whole = math.fsum(weights)
    miss_low, miss_high = _bounds(~now, weights, confidence)
    gained, lost = now & ~before, before & ~now
    each = confidence if one_way else (1 + confidence) / 2
    (gain_low, gain_high), (loss_low, loss_high) = (
        _bounds(part, weights, each) for part in (gained, lost)
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
        whole - miss_high,
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
) -> Measure:
    """Precision; its change joins two intervals, each of half the error."""

    def share(predictions: np.ndarray, confidence: float) -> tuple:
        said = np.isin(predictions, important)
        right = said & (predictions == labels)
        count, total = int(right.sum()), int(said.sum())
        if not total:
            return None, 0.0, 1.0, count, total
        if prior is None:
            return (
                count / total,
                *clopper_pearson(count, total, confidence),
                count,
                total,
            )
        mine = np.isin(labels, important)
        able = ~mine if len(important) == 1 else np.full(len(mine), True)
        half = (1 + confidence) / 2
        good, bad = by_prior[right].sum(), by_prior[said & ~right].sum()
        good_low, good_high = _bounds(right[mine], by_prior[mine], half)
        bad_low, bad_high = _bounds((said & ~right)[able], by_prior[able], half)
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


def _bounds(
    hits: np.ndarray, weights: np.ndarray, confidence: float
) -> tuple[float, float]:
    """Interval of the expected weighted sum of independent hits."""
    n, top, whole = len(hits), float(weights.max()), math.fsum(weights)
    if np.allclose(weights, top, rtol=1e-9, atol=0):
        low, high = clopper_pearson(int(hits.sum()), n, confidence)
        return low * whole, high * whole
    mean = float(weights[hits].sum()) / (top * n)
    most = whole / (top * n)
    target = math.log(2 / (1 - confidence)) / n

    def gap(mu: float) -> float:
        return float(_kl(mean, mu)) - target

    least = mean * 1e-12
    low = _root(gap, least, mean) if mean and gap(least) > 0 else 0.0
    high = _root(gap, mean, most) if gap(most) > 0 else most
    return low * top * n, high * top * n


def clopper_pearson(found: int, total: int, confidence: float) -> tuple[float, float]:
    """Returns the exact two-sided interval of a share.

    Args:
      found: how many of them.
      total: of how many independent ones.
      confidence: of the interval, for any share.

    Reference:
      Clopper and Pearson, Biometrika 26, 1934.

    >>> clopper_pearson(0, 1, 0.95)
    (0.0, 0.975)
    """
    tail = (1 - confidence) / 2
    low = special.betaincinv(found, total - found + 1, tail) if found else 0.0
    high = (
        special.betaincinv(found + 1, total - found, 1 - tail) if found < total else 1.0
    )
    return float(low), float(high)


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where the function, of different signs at the ends, is 0."""
    root: Any = optimize.brentq(function, low, high)
    return float(root)


def _kl(p: float, q: float) -> float:
    """Kullback-Leibler divergence between coins."""
    return float(special.rel_entr(p, q) + special.rel_entr(1 - p, 1 - q))


# The sentences.


def _count(num_images: int, num_groups: int | None) -> str:
    """How many images, or groups, in words."""
    images = f"{num_images} image{'s' * (num_images != 1)}"
    if num_groups is None:
        return images
    return f"{num_groups} group{'s' * (num_groups != 1)} ({images})"


def _list(important: Sequence[int]) -> str:
    return ", ".join(map(str, important))


def _why_not(certificate: Certificate, never: int) -> str:
    """Why a recall is not certified, and what could be."""
    c = certificate
    who = f"Class{'es' if len(c.important) > 1 else ''} {_list(c.important)}"
    source = _count(c.num_images, c.num_groups)
    limit = rounded_down(c.largest_certifiable)
    if c.misses_allowed >= 0:
        return (
            f"{who}: {never} of {c.num_images} images are found at no offset, because "
            f"another important class leads; {source} certify a recall of at most "
            f"{limit:.3f} at confidence {c.confidence:g}, not {c.recall:g}."
        )
    n, unit = (
        (c.num_images, "images") if c.num_groups is None else (c.num_groups, "groups")
    )
    shared = f" shared by {c.candidates} candidates" if c.candidates > 1 else ""
    return (
        f"{who}: {source} certify a recall of at most {limit:.3f} at confidence "
        f"{c.confidence:g}{shared}; {c.recall:g} takes {c.num_needed} {unit}, "
        f"{c.num_needed - n} more."
    )


def _not_alone(part: Certificate) -> Certificate:
    """A class's certificate where others of its kind fail."""
    if not part.certified:
        return part
    why_not = f"Class {part.important[0]} can be certified, but not with the others."
    return dataclasses.replace(part, offset=None, why_not=why_not)


def _logits(logits: ArrayLike) -> np.ndarray:
    values = np.asarray(logits)
    if values.ndim != 2 or 0 in values.shape or values.shape[1] < 2:
        raise UsageError(
            "logits: allowed is [num_images, num_classes] with at least one image and "
            f"two classes; got shape {values.shape}"
        )
    values = values.astype(np.float32)
    wrong = int((~np.isfinite(values)).any(axis=1).sum())
    if wrong:
        raise UsageError(
            f"logits: allowed are finite numbers; {wrong} of {len(values)} images have "
            "NaN or infinity"
        )
    return values


def _labels(labels: ArrayLike, logits: np.ndarray) -> np.ndarray:
    values, (num_images, num_classes) = np.asarray(labels), logits.shape
    if values.shape != (num_images,) or values.dtype.kind not in "iu":
        raise UsageError(
            f"labels: allowed is one integer for each of {num_images} images; got "
            f"{values.dtype} of shape {values.shape}"
        )
    if values.min() < 0 or values.max() >= num_classes:
        raise UsageError(
            f"labels: allowed are 0 to {num_classes - 1}; got {values.min()} to "
            f"{values.max()}"
        )
    return values


def _important(important: int | Sequence[int], num_classes: int) -> tuple[int, ...]:
    values = np.ravel(np.asarray(important))
    good = values.size and values.dtype.kind in "iu"
    if good and (values.min() < 0 or values.max() >= num_classes):
        good = False
    if not good or len(set(values.tolist())) < len(values):
        raise UsageError(
            f"important: allowed are different classes, 0 to {num_classes - 1}; got "
            f"{important!r}"
        )
    if len(values) == num_classes:
        raise UsageError(
            f"important: at least one of {num_classes} classes must be left; got all"
        )
    return tuple(values.tolist())


def _offset(offset: float | Sequence[float], important: tuple[int, ...]) -> np.ndarray:
    values = np.asarray(offset)
    if values.shape not in ((), (len(important),)) or values.dtype.kind not in "iuf":
        raise UsageError(
            f"offset: allowed is one number, or one for each of {len(important)} "
            f"important classes; got {offset!r}"
        )
    if not np.isfinite(values).all():
        raise UsageError(f"offset: allowed are finite numbers; got {offset!r}")
    return np.broadcast_to(values.astype(np.float32), len(important))


def _groups(groups: ArrayLike, of: np.ndarray) -> np.ndarray:
    values = np.asarray(groups)
    if values.shape != (len(of),) or values.dtype.kind not in "iuUS":
        raise UsageError(
            f"groups: allowed is one integer or text for each of {len(of)} images; got "
            f"{values.dtype} of shape {values.shape}"
        )
    return values


def _grid(grid: ArrayLike | None, num_targets: int) -> np.ndarray:
    if grid is None:
        ahead = np.concatenate([s * np.eye(num_targets) for s in _STEPS])
        zero = np.zeros((1, num_targets))
        grid = np.concatenate([zero, ahead]) if num_targets > 1 else zero
    values = np.asarray(grid)
    good = values.ndim == 2 and len(values) and values.shape[1] == num_targets
    if not good or values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        raise UsageError(
            f"grid: allowed are finite vectors of {num_targets} numbers, one a target; "
            f"got shape {values.shape}"
        )
    return values.astype(np.float32)


def _between(name: str, value: float) -> float:
    if not np.ndim(value) == 0 or not 0 < float(value) < 1:
        raise UsageError(
            f"{name}: allowed is a number above 0 and below 1; got {value!r}"
        )
    return float(value)


def _delta(confidence: float, candidates: int) -> float:
    """The chance of failure that is left for each candidate."""
    return (1 - _between("confidence", confidence)) / _whole(
        "candidates", candidates, 1
    )


def _whole(name: str, value: int, least: int) -> int:
    if not isinstance(value, int | np.integer) or value < least:
        raise UsageError(
            f"{name}: allowed is a whole number from {least} on; got {value!r}"
        )
    return int(value)
