"""What is asked, which settings come nearest, and what is known of a finalist.

Validation images alone pick: calibration images only say what is promised.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from camri_jax import guarantee
from camri_jax._files import UsageError, fraction
from camri_jax.guarantee import Certificate, Certificates, Price
from camri_jax.sweeps.plan import Trial
from camri_jax.training.methods import BASELINE, Point, Value

_AHEAD = (0.5, 1.0, 2.0, 4.0, 8.0)
"""By how much one target's logits may be ahead of the others'."""

Offset = float | tuple[float, ...]
"""One number for all important classes, or one for each."""


@dataclass(frozen=True)
class Goal:
    """The recall that is asked.

    Attributes:
      important: classes that must not be missed.
      recalls: one for all their images together, or one for each class.
      confidence: of the promise, for all classes together.
    """

    important: tuple[int, ...]
    recalls: tuple[float, ...]
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if len(self.recalls) not in (1, len(self.important)):
            raise UsageError(
                f"recall must be one number, or one for each of {len(self.important)} "
                f"important classes, got {len(self.recalls)}"
            )
        named = [("recall", value) for value in self.recalls]
        for name, value in (*named, ("confidence", self.confidence)):
            fraction(name, value)

    @property
    def together(self) -> bool:
        """Whether the images of all important classes are counted together."""
        return len(self.recalls) == 1

    @property
    def parts(self) -> list[tuple[tuple[int, ...], float]]:
        """The classes that are counted together, with their recall."""
        if self.together:
            return [(self.important, self.recalls[0])]
        each = zip(self.important, self.recalls, strict=True)
        return [((k,), recall) for k, recall in each]

    def certify(
        self,
        logits: np.ndarray,
        labels: np.ndarray,
        relative: Sequence[float],
        groups: np.ndarray | None,
        candidates: int,
    ) -> Certificate | Certificates:
        """Returns what calibration images promise.

        Args:
          logits: of calibration images `[image, class]`.
          labels: their classes.
          relative: one entry a part: how far its offset is ahead of the others', as
            validation images picked it.
          groups: of the images, or None.
          candidates: how many models are certified on these images.
        """
        if self.together:
            return guarantee.certify_recall(
                logits,
                labels,
                self.important,
                recall=self.recalls[0],
                confidence=self.confidence,
                groups=groups,
                candidates=candidates,
            )
        return guarantee.certify_recalls(
            logits,
            labels,
            dict(zip(self.important, self.recalls, strict=True)),
            confidence=self.confidence,
            groups=groups,
            candidates=candidates,
            grid=[list(relative)],
        )


class Picked(NamedTuple):
    """What the asked recall costs a trial on validation images.

    Attributes:
      relative: one entry a part of the goal: how far its offset is ahead.
      offset: at which the recall is reached, and not below 0.
      false_alarms: per 1,000 images; infinite where the recall is reached nowhere.
      accuracy: share of all images predicted rightly.
    """

    relative: tuple[float, ...]
    offset: Offset
    false_alarms: float
    accuracy: float


def pick(goal: Goal, logits: np.ndarray, labels: np.ndarray) -> Picked:
    """Returns the cheapest offset that reaches the goal on validation images.

    Along `relative + t` every part's recall grows with t: the least t that reaches all
    is taken, and of a few vectors `relative` the one of fewest false alarms.

    Args:
      goal: what is asked.
      logits: of validation images `[image, class]`.
      labels: their classes.

    >>> z = np.float32([[0, 2], [1, 0], [2, 0]])
    >>> pick(Goal((1,), (0.9,)), z, np.array([1, 1, 0])).false_alarms
    0.0
    """
    num = len(goal.parts)
    ahead = [s * np.eye(num)[k] for s in _AHEAD for k in range(num)] if num > 1 else []
    found = [_along(goal, logits, labels, d) for d in [np.zeros(num), *ahead]]
    return min(found, key=lambda each: (each.false_alarms, -each.accuracy))


def _along(
    goal: Goal, logits: np.ndarray, labels: np.ndarray, relative: np.ndarray
) -> Picked:
    relative = relative.astype(np.float32)
    ahead = guarantee.moved(logits, goal.important, relative)
    scores = guarantee.found_scores(ahead, labels, goal.important)
    own = labels[np.isin(labels, goal.important)]
    least = -np.inf
    for classes, recall in goal.parts:
        mine = np.sort(scores[np.isin(own, classes)])
        needed = max(1, math.ceil(recall * len(mine) - 1e-9))
        least = max(least, mine[needed - 1])
    if not np.isfinite(least):
        accuracy = float((logits.argmax(1) == labels).mean())
        unmoved = 0.0 if goal.together else (0.0,) * len(relative)
        return Picked(tuple(relative.tolist()), unmoved, math.inf, accuracy)
    if relative.any():
        # Sums round elsewhere than where the scores were taken.
        size = np.abs(logits).max() + np.abs(relative).max() + abs(least)
        least += 4 * np.finfo(np.float32).eps * float(size)
    moved = (relative + np.float32(least)).tolist()
    offset = not_below_zero(moved[0] if goal.together else tuple(moved))
    alarms, accuracy = costs(logits, labels, goal.important, offset)
    return Picked(tuple(relative.tolist()), offset, alarms, accuracy)


def costs(
    logits: np.ndarray, labels: np.ndarray, important: tuple[int, ...], offset: Offset
) -> tuple[float, float]:
    """Returns false alarms per 1,000 images, and accuracy, under an offset."""
    predictions = guarantee.predict(logits, important, offset)
    alarms = np.isin(predictions, important) & ~np.isin(labels, important)
    return 1000 * float(alarms.mean()), float((predictions == labels).mean())


def not_below_zero(offset: Offset) -> Offset:
    """Returns an offset that holds back no class that must not be missed.

    A larger one keeps every promise that a smaller one keeps. Of several, all are
    raised alike.

    >>> not_below_zero(-1.0), not_below_zero((-2.0, -1.0)), not_below_zero((-1.0, 2.0))
    (0.0, (-1.0, 0.0), (-1.0, 2.0))
    """
    if isinstance(offset, tuple):
        lift = max(0.0, -max(offset))
        return tuple(float(np.float32(each + lift)) for each in offset)
    return max(0.0, offset)


class Setting(NamedTuple):
    """A method at a point of its grid, with what its trials cost on validation images.

    Attributes:
      method: its name.
      point: its hyperparameters, as pairs.
      trials: those that are trained and did not diverge, by seed.
      costs: of each trial.
    """

    method: str
    point: tuple[tuple[str, Value], ...]
    trials: tuple[Trial, ...]
    costs: tuple[Picked, ...]

    @property
    def rank(self) -> tuple[float, ...]:
        """Orders settings: false alarms, then accuracy, then simplicity."""
        if not self.costs:
            return (math.inf, 0.0, math.inf)
        alarms = float(np.mean([each.false_alarms for each in self.costs]))
        accuracy = float(np.mean([each.accuracy for each in self.costs]))
        return (alarms, -accuracy, simplicity(self.method, dict(self.point)))

    def best(self) -> tuple[Trial, Picked]:
        """Returns the trial that costs least, with its costs."""
        pairs = zip(self.trials, self.costs, strict=True)
        return min(pairs, key=lambda p: (p[1].false_alarms, -p[1].accuracy, p[0].seed))


@dataclass(frozen=True)
class Finalist:
    """A model of the final.

    Attributes:
      method: its name.
      point: its hyperparameters.
      trial_id: of the seed that costs least on validation images.
      seeds: of its setting, that were trained.
      picked: what the goal costs it on validation images.
      certificate: what calibration images promise; None: it was not certified, as
        there are too few images for so many models.
      offset: the certified one, not below 0; without a promise that of `picked`.
      validation: false alarms per 1,000 validation images, and accuracy, at `offset`.
      found: of test images, `(found, all)` for each part of the goal.
      price: on test images, against its own offset 0.
      against: the same, against cross-entropy at its own offset; None for that itself.
    """

    method: str
    point: dict[str, Value]
    trial_id: str
    seeds: tuple[int, ...]
    picked: Picked
    certificate: Certificate | Certificates | None
    offset: Offset
    validation: tuple[float, float]
    found: tuple[tuple[int, int], ...]
    price: Price
    against: Price | None

    @property
    def certified(self) -> bool:
        """Whether there is a promise."""
        return self.certificate is not None and self.certificate.certified


def simplicity(method: str, point: Point) -> float:
    """Orders methods where all else is equal: cross-entropy, then few numbers."""
    return 0.0 if method == BASELINE else 1.0 + sum(map(np.size, point.values()))


def ranked(
    trials: Sequence[Trial], costs: Mapping[str, Picked | None]
) -> list[Setting]:
    """Returns the settings of trials, the cheapest first.

    Args:
      trials: of a plan.
      costs: by name of a trial that is trained; None: it diverged.

    Returns:
      Settings of which something is trained.
    """
    groups: dict[tuple, list[Trial]] = {}
    for trial in trials:
        if trial.trial_id in costs:
            key = trial.method, tuple(trial.point.items())
            groups.setdefault(key, []).append(trial)
    found = []
    for (method, point), members in groups.items():
        kept = [(t, c) for t in members if (c := costs[t.trial_id]) is not None]
        found.append(
            Setting(method, point, tuple(t for t, _ in kept), tuple(c for _, c in kept))
        )
    return sorted(found, key=lambda setting: setting.rank)


def shortened(settings: Sequence[Setting], number: int) -> list[Setting]:
    """Returns the first settings that can be used, cross-entropy always among them.

    Args:
      settings: from `ranked`.
      number: how many.
    """
    able = [setting for setting in settings if setting.trials]
    kept = able[:number]
    baseline = [setting for setting in able if setting.method == BASELINE]
    if baseline and baseline[0] not in kept:
        kept = [*kept[: max(number, 1) - 1], baseline[0]]
    return kept
