"""One trial's whole curve: what each recall costs as its threshold is moved.

An offset on the logits of the important classes buys recall for false alarms. So a
method counts as better only where its curve lies above that of cross-entropy, and the
fair comparison is what one and the same recall costs.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from camri_jax import guarantee
from camri_jax._files import UsageError
from camri_jax.evidence.measures import MEASURES, derived, mean_share, measures
from camri_jax.evidence.statistics import SAME
from camri_jax.evidence.study import POINT, REMEMBERED, Choice, Study
from camri_jax.training.methods import BASELINE

RECALLS = (0.80, 0.85, 0.90, 0.95, 0.98, 0.99, 0.995)
"""Recalls that users ask for."""

COSTS = [name for name in MEASURES if name != "recall"]
"""What a recall costs."""


def curve(
    logits: np.ndarray, labels: np.ndarray, important: Sequence[int]
) -> pd.DataFrame:
    """Returns what a trial reaches at every offset.

    An offset matters only where it passes an example's score, so the curve is exact: it
    has a line for no offset at all (minus infinity, where none is predicted as
    important) and one for each score, which holds from there to the next.

    Args:
      logits: `[n, num_classes]`, as trained.
      labels: `[n]`, true classes.
      important: indices of the important classes.

    Returns:
      Columns `offset` (float32, ascending) and `MEASURES`; recall never falls.

    >>> curve(np.float32([[0, 2], [1, 0], [2, 0]]), np.array([1, 1, 0]), [1])[
    ...     ["offset", "recall", "false_alarms"]].to_numpy().round(1).tolist()
    [[-inf, 0.0, 0.0], [-2.0, 0.5, 0.0], [1.0, 1.0, 0.0], [2.0, 1.0, 333.3]]
    """
    logits, classes = np.asarray(logits), np.arange(logits.shape[1])
    is_inside = np.isin(classes, list(important))
    inside, outside = classes[is_inside], classes[~is_inside]
    scores = guarantee.scores(logits, inside.tolist())
    # No offset changes which class of each side leads, except by float32's rounding.
    within = inside[logits[:, inside].argmax(1)]
    without = outside[logits[:, outside].argmax(1)]
    order = np.argsort(scores, kind="stable")
    scores, labels = scores[order], np.asarray(labels)[order]
    before, after = without[order] == labels, within[order] == labels
    last = np.flatnonzero(np.append(np.diff(scores) != 0, True)[: len(scores)])

    def passed(values: np.ndarray) -> np.ndarray:
        """Sums over the examples that are predicted as important, on the curve."""
        sums = np.cumsum(values, axis=0)[last]
        return np.concatenate([np.zeros_like(sums[:1]), sums])

    totals = np.bincount(labels, minlength=len(classes))
    found = passed(after[:, None] & (labels[:, None] == inside))
    with np.errstate(divide="ignore"):
        weights = np.where(totals > 0, 1 / totals, 0.0)[labels] * before
    others = (totals[outside] > 0).sum()
    with np.errstate(invalid="ignore"):
        other_recall = np.maximum(weights.sum() - passed(weights), 0) / others
    numbers = derived(
        recall=mean_share(found, totals[inside]),
        other_recall=other_recall,
        right=before.sum() + passed(after.astype(int) - before),
        found=found.sum(1),
        alarms=passed(np.ones(len(labels), int)),
        false=passed(~is_inside[labels]),
        positives=totals[inside].sum(),
        total=np.asarray(len(labels)),
    )
    low = np.full(1, -np.inf, np.float32)
    return pd.DataFrame({"offset": np.concatenate([low, scores[last]]), **numbers})


def at_recall(curve: pd.DataFrame, recalls: Sequence[float]) -> pd.DataFrame:
    """Returns the price of recalls: the least offset that reaches each.

    Args:
      curve: from `curve`.
      recalls: what is asked.

    Returns:
      A line of the curve for each, with `asked`; NaN where no offset reaches it. Its
      recall may be above what is asked: n images have only n + 1 recalls.

    >>> line = curve(np.float32([[0, 2], [1, 0], [2, 0]]), np.array([1, 1, 0]), [1])
    >>> at_recall(line, [0.3, 0.9])["recall"].tolist()
    [0.5, 1.0]
    """
    asked = np.asarray(recalls, float)
    reached = curve["recall"].fillna(-1.0).to_numpy()
    first = np.searchsorted(reached, asked - SAME)
    return curve.reindex(first).reset_index(drop=True).assign(asked=asked)


def at_offset(curve: pd.DataFrame, offsets: Sequence[float]) -> pd.DataFrame:
    """Returns what offsets reach: for each, the line of the curve that it lies on.

    Args:
      curve: from `curve`.
      offsets: what is added to the logits of the important classes; NaN for none.

    Returns:
      A line of `MEASURES` for each, with its own `offset`; NaN where there is none.

    >>> line = curve(np.float32([[0, 2], [1, 0], [2, 0]]), np.array([1, 1, 0]), [1])
    >>> at_offset(line, [0.0, 1.5, np.nan])["recall"].tolist()
    [0.5, 1.0, nan]
    """
    moved = np.asarray(offsets, float)
    place = np.searchsorted(curve["offset"].to_numpy(), moved, side="right") - 1
    place = np.where(np.isnan(moved), -1, place)
    return curve.reindex(place).reset_index(drop=True).assign(offset=moved)


def prices(
    study: Study,
    important: Choice,
    recalls: Sequence[float] | None = RECALLS,
    *,
    confidence: float | None = None,
    part: str = "test",
) -> pd.DataFrame:
    """Returns what recalls cost each trial on test images, and cross-entropy's trial.

    Both thresholds are moved, on these images themselves, to where the recall is just
    reached: this separates how good a model is from how well its threshold was picked.
    With a confidence, they are moved on the calibration images to where the recall is
    certified: this is what a promise costs. Costs are compared within a seed.

    Args:
      study: from `camri_jax.evidence.study.load`.
      important: the choice of important classes.
      recalls: what is asked; None asks of each trial the recall that it has as trained.
      confidence: of the certificate; None asks for none.
      part: "test", or "validation" for what they cost there.

    Returns:
      A line for each trial that kept its logits and did not diverge, and recall asked:
      `trial_id`, `method`, `important`, the hyperparameters, `seed`, `asked`, `offset`,
      `MEASURES` there, `..._difference` for each of `COSTS`, the trial's minus
      cross-entropy's of the same seed, `num_important` (test images of the important
      classes) and `num_images`. NaN where a recall is not reached or cannot be
      certified, or the seed has no cross-entropy.

    Raises:
      UsageError: a certificate is asked for and there are no calibration images of the
        important classes, or no recalls.
    """
    asked = None if recalls is None else tuple(dict.fromkeys(recalls))
    return _prices(study, important, asked, confidence, part).copy()


def cheapest(
    study: Study,
    important: Choice,
    recalls: Sequence[float] = RECALLS,
    *,
    confidence: float | None = None,
) -> pd.DataFrame:
    """Returns the prices of one setting a method: at each recall, the cheapest.

    That is the one with the fewest false alarms on validation images, mean over seeds,
    thresholds moved there to where the recall is just reached; where no images of the
    important classes were held out, on test images, which flatters methods with many
    settings.

    Args:
      study: from `camri_jax.evidence.study.load`.
      important: the choice of important classes.
      recalls: what is asked.
      confidence: of the certificates by which the thresholds of the prices are moved;
        None moves them as `prices` does.

    Returns:
      Some of the lines of `prices`.

    Raises:
      UsageError: as `prices`.
    """
    found = prices(study, important, recalls, confidence=confidence)
    judged = prices(study, important, recalls, part="validation")
    if judged.empty:
        judged = prices(study, important, recalls)
    keys = ["method", *POINT, "asked"]
    by_setting = of_all_seeds(judged).groupby(keys, dropna=False, sort=False)
    means = by_setting["false_alarms"].mean()
    picked = means.reset_index().sort_values("false_alarms", kind="stable")
    return found.merge(picked.drop_duplicates(["method", "asked"])[keys], on=keys)


def of_all_seeds(prices: pd.DataFrame) -> pd.DataFrame:
    """Returns prices without those that only some seeds of a setting pay.

    The seeds that reach a recall where others miss it are the lucky ones, whose mean
    would flatter.

    Args:
      prices: from `prices` or `cheapest`, cross-entropy's lines among them.

    Returns:
      The same lines and recalls. `COSTS` and `offset` are NaN where a seed of the
      setting misses the recall that is asked; differences also where cross-entropy
      of such a seed does.

    >>> lines = pd.DataFrame({"method": ["camri"] * 3, "seed": [0, 1, 0],
    ...     "asked": [0.9, 0.9, 0.8], "recall": [0.9, None, 0.8]}).assign(
    ...     **dict.fromkeys([*POINT, "offset"], 0.0),
    ...     **{name: 5.0 for cost in COSTS for name in (cost, f"{cost}_difference")})
    >>> of_all_seeds(lines)["false_alarms"].tolist()
    [nan, nan, 5.0]
    """
    reached = prices["recall"].notna()
    pairs = pd.MultiIndex.from_frame(prices[["seed", "asked"]])
    missed = pairs[(prices["method"] == BASELINE) & ~reached]
    of_setting = [prices[name] for name in ("method", *POINT, "asked")]
    paid, compared = (
        holds.groupby(of_setting, dropna=False).transform("all")
        for holds in (reached, reached & ~pairs.isin(missed))
    )
    own, differences = [*COSTS, "offset"], [f"{name}_difference" for name in COSTS]
    found = prices.astype(dict.fromkeys([*own, *differences], float))
    found[own] = found[own].where(paid)
    found[differences] = found[differences].where(compared)
    return found


@functools.lru_cache(maxsize=REMEMBERED)
def _prices(
    study: Study,
    important: Choice,
    recalls: tuple[float, ...] | None,
    confidence: float | None,
    part: str,
) -> pd.DataFrame:
    if part not in study.data.labels:
        return pd.DataFrame(columns=_COLUMNS)
    labels = study.data.labels[part]
    num_important = int(np.isin(labels, important).sum())
    rows = study.of(important)
    rows = rows[~rows["diverged"]]
    rows = rows.set_index("trial_id") if num_important else rows.iloc[:0]
    is_baseline = rows["method"] == BASELINE
    baseline_ids = list(rows.index[is_baseline])
    baselines = {
        int(rows["seed"][trial_id]): (trial_id, curve(logits, labels, important))
        for trial_id, logits in study.logits(part, baseline_ids)
    }
    certified = {}
    if confidence is not None:
        if recalls is None:
            raise UsageError("recalls must be given where they are to be certified")
        certified = _certified(study, important, recalls, confidence, list(rows.index))

    def priced(trial_id: str, curve: pd.DataFrame, asked: Sequence[float]) -> Any:
        if confidence is None:
            return at_recall(curve, asked)
        return at_offset(curve, certified[trial_id]).assign(asked=asked)

    frames = [pd.DataFrame(columns=_COLUMNS)]
    for trial_id, logits in study.logits(part, list(rows.index)):
        row: Any = rows.loc[trial_id]
        asked = recalls
        if asked is None:
            asked = [float(measures(row["test_confusion"], important)["recall"])]
        own = priced(trial_id, curve(logits, labels, important), asked)
        baseline = baselines.get(int(row["seed"]))
        other = own * np.nan if baseline is None else priced(*baseline, asked)
        about = {name: row[name] for name in ("method", *POINT, "seed")}
        frames.append(
            own.assign(
                trial_id=trial_id,
                important=pd.Series([important] * len(own)),
                num_important=num_important,
                num_images=len(labels),
                **about,
                **{f"{name}_difference": own[name] - other[name] for name in COSTS},
            )[_COLUMNS]
        )
    return pd.concat(frames[1:] or frames, ignore_index=True)


def _certified(
    study: Study,
    important: Choice,
    recalls: Sequence[float],
    confidence: float,
    trial_ids: Sequence[str],
) -> dict[str, list[float]]:
    """The offset that promises each recall, or NaN, for each trial."""
    labels = study.data.labels.get("calibration", np.zeros(0))
    groups = study.data.groups.get("calibration")
    if not np.isin(labels, important).any():
        raise UsageError(
            "there are no calibration images of the class to certify by: sweep with "
            "calibration_fraction above 0, which trains anew"
        )

    own = None if groups is None else groups[np.isin(labels, important)]

    def offset(scores: np.ndarray, recall: float) -> float:
        certificate = guarantee.certify_scores(
            scores, important, recall=recall, confidence=confidence, groups=own
        )
        return np.nan if certificate.offset is None else certificate.offset

    found = {}
    for trial_id, logits in study.logits("calibration", trial_ids):
        scores = guarantee.found_scores(logits, labels, important)
        found[trial_id] = [offset(scores, recall) for recall in recalls]
    return found


_COLUMNS = [
    *("trial_id", "method", "important", *POINT, "seed", "asked", "offset"),
    *MEASURES,
    *(f"{name}_difference" for name in COSTS),
    *("num_important", "num_images"),
]
