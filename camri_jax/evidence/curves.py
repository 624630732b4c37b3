"""One trial's whole curve: recall against all else as its threshold is moved.

Moving the threshold adds a constant to the logits of the important classes after
training. It buys recall for nothing but false alarms, so a method counts as better only
where its curve lies above that of cross-entropy.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from camri_jax import metrics

BASELINE = "cross_entropy"
"""The method that the others are compared with."""

POINT = ["margin", "scale", "weight", "cost", "epsilon"]
"""Columns of the hyperparameters."""

BETA = 2.0
"""How many times as much recall counts as precision in F-beta."""

MEASURES = ["recall", "accuracy", "precision", "f2", "other_recall", "false_alarms"]


ALONG = ["accuracy", "other_recall", "false_alarms"]
"""What a curve shows against recall."""

RECALLS = np.linspace(0.0, 1.0, 101)
"""A grid of recalls to compare curves on."""


def measures(confusion: np.ndarray, important: Sequence[int]) -> dict[str, np.ndarray]:
    """Returns what counts about confusion matrices when some classes are important.

    Args:
      confusion: counts `[..., true, predicted]`.
      important: indices of the important classes.

    Returns:
      Arrays `[...]`: `recall`, the mean recall of the important classes; `accuracy`;
      `precision`, the share of examples predicted as important that are so predicted
      rightly; `f2`, the F-beta of these counts at `BETA`, (1 + b^2) TP / ((1 + b^2) TP
      + b^2 FN + FP); `other_recall`, the mean recall of the other classes;
      `false_alarms`, examples of other classes predicted as important, per 1,000
      examples. NaN where there is nothing to count.

    Reference:
      F-beta: van Rijsbergen, Information Retrieval, 1979, chapter 7.

    >>> numbers = measures(np.array([[9, 1], [2, 8]]), [1])
    >>> {name: round(float(value), 3) for name, value in numbers.items()}
    {'recall': 0.8, 'accuracy': 0.85, 'precision': 0.889, 'f2': 0.816, \
'other_recall': 0.9, 'false_alarms': 50.0}
    """
    important = list(important)
    others = np.setdiff1d(np.arange(confusion.shape[-1]), important)
    recall = np.asarray(metrics.recall(confusion))
    right = np.diagonal(confusion, axis1=-2, axis2=-1)[..., important].sum(-1)
    alarms = confusion[..., important].sum((-2, -1))
    positives = confusion[..., important, :].sum((-2, -1))
    false_alarms = confusion[..., others, :][..., important].sum((-2, -1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "recall": np.nanmean(recall[..., important], -1),
            "accuracy": np.asarray(metrics.accuracy(confusion)),
            "precision": right / alarms,
            "f2": (1 + BETA**2) * right / (BETA**2 * positives + alarms),
            "other_recall": np.nanmean(recall[..., others], -1),
            "false_alarms": 1000 * false_alarms / confusion.sum((-2, -1)),
        }


def each(rows: pd.DataFrame) -> Iterator[Any]:
    """Yields the rows, with their columns as attributes."""
    yield from rows.itertuples()


def confusions(row: Any, part: str) -> Any:
    """Returns the confusion matrices of a trial at each of its constants.

    Args:
      row: from `each`.
      part: `"test"` or `"validation"`.

    Returns:
      Counts `[constant, true, predicted]`; None if it has no such images.
    """
    num_classes = len(row.class_names)
    flat = getattr(row, f"{part}_curve")
    if flat is None or len(flat) == 0:
        return None
    return np.reshape(flat, (-1, num_classes, num_classes))


def operating_points(row: Any) -> dict[str, np.ndarray]:
    """Returns what a trial reaches on the test images at each recall it can reach.

    Where several constants have the same recall, the smallest counts, which is the best
    in all else. No constant is picked here: this is the curve itself.

    Args:
      row: from `each`.

    Returns:
      Arrays `[num_points]` of `ALONG`, and of `recall`, which ascends.
    """
    numbers = measures(confusions(row, "test"), row.important)
    recall, first = np.unique(numbers["recall"], return_index=True)
    return {"recall": recall} | {name: numbers[name][first] for name in ALONG}


def compare(rows: pd.DataFrame, recalls: np.ndarray | None = None) -> pd.DataFrame:
    """Returns each trial's curve, and how far it lies above cross-entropy's.

    Both curves are of one seed, read at the same recall. Between two points of a curve
    lies the straight line, which is reached by using either constant at random.

    Args:
      rows: from `camri_jax.sweeps.rows.read`, of one data set.
      recalls: ascending recalls to read the curves at; None reads them where each
        trial is as trained.

    Returns:
      One line for each trial that did not diverge, choice of important classes and
      recall: `trial_id`, `method`, `important` (names joined by +), hyperparameters,
      `seed`, `recall`, `ALONG`, and for each of those `..._difference`, the trial's
      minus cross-entropy's. NaN at recalls that a curve does not reach, or where the
      seed has no cross-entropy.

    Reference:
      Fawcett, An introduction to ROC analysis, 2006, sections 4 and 10, for points
      between two thresholds.
    """
    rows = rows[~rows["diverged"].astype(bool)]
    baselines = {
        (tuple(row.important), row.seed): operating_points(row)
        for row in each(rows[rows["method"] == BASELINE])
    }
    frames = []
    for row in each(rows):
        at = recalls
        if at is None:
            trained = confusions(row, "test")[row.constants == 0]
            at = measures(trained, row.important)["recall"]
        own = _read(operating_points(row), at)
        baseline = baselines.get((tuple(row.important), row.seed))
        other = (
            dict.fromkeys(ALONG, np.nan) if baseline is None else _read(baseline, at)
        )
        names = ("trial_id", "method", *POINT, "seed")
        frames.append(
            pd.DataFrame(
                {
                    **{name: getattr(row, name) for name in names},
                    "important": "+".join(row.class_names[i] for i in row.important),
                    "recall": at,
                    **own,
                    **{f"{name}_difference": own[name] - other[name] for name in ALONG},
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def _read(points: dict[str, np.ndarray], recalls: np.ndarray) -> dict[str, np.ndarray]:
    """A curve at some recalls, NaN outside of it."""
    return {
        name: np.interp(recalls, points["recall"], points[name], np.nan, np.nan)
        for name in ALONG
    }
