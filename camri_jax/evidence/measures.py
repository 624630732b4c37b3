"""Measures of a confusion matrix, as trained or with a threshold moved.

The threshold is moved by an offset that is added to the logits of the important classes
after training, the same one for all of them; `camri_jax.guarantee` says what is then
predicted.
"""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from camri_jax import guarantee

BETA = 2.0
"""How many times as much recall counts as precision in F-beta."""

MEASURES = ["recall", "accuracy", "precision", "f2", "other_recall", "false_alarms"]


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
      examples. NaN where there is nothing to count; a class without examples is left
      out of a mean.

    Reference:
      F-beta: van Rijsbergen, Information Retrieval, 1979, chapter 7.

    >>> numbers = measures(np.array([[9, 1], [2, 8]]), [1])
    >>> {name: round(float(value), 3) for name, value in numbers.items()}
    {'recall': 0.8, 'accuracy': 0.85, 'precision': 0.889, 'f2': 0.816, \
'other_recall': 0.9, 'false_alarms': 50.0}
    """
    confusion = np.asarray(confusion)
    inside = list(important)
    outside = np.setdiff1d(np.arange(confusion.shape[-1]), inside)
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    totals = confusion.sum(-1)
    return derived(
        recall=mean_share(hits[..., inside], totals[..., inside]),
        other_recall=mean_share(hits[..., outside], totals[..., outside]),
        right=hits.sum(-1),
        found=hits[..., inside].sum(-1),
        alarms=confusion[..., inside].sum((-2, -1)),
        false=confusion[..., outside, :][..., inside].sum((-2, -1)),
        positives=totals[..., inside].sum(-1),
        total=totals.sum(-1),
    )


def derived(
    *,
    recall: np.ndarray,
    other_recall: np.ndarray,
    right: np.ndarray,
    found: np.ndarray,
    alarms: np.ndarray,
    false: np.ndarray,
    positives: np.ndarray,
    total: np.ndarray,
) -> dict[str, np.ndarray]:
    """Returns the `MEASURES` from counts that broadcast against each other.

    Args:
      recall: mean recall of the important classes.
      other_recall: of the others.
      right: examples predicted rightly.
      found: important ones among them.
      alarms: examples predicted as important.
      false: those that are not.
      positives: important examples.
      total: all examples.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "recall": recall,
            "accuracy": right / total,
            "precision": found / alarms,
            "f2": (1 + BETA**2) * found / (BETA**2 * positives + alarms),
            "other_recall": other_recall,
            "false_alarms": 1000 * false / total,
        }


def mean_share(parts: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Returns the mean over the last axis of shares, except those of nothing.

    >>> mean_share(np.array([1, 0, 3]), np.array([2, 0, 4]))
    array(0.625)
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.where(totals > 0, parts / totals, 0.0)
        return np.asarray(shares.sum(-1) / (totals > 0).sum(-1))


def chance(confusion: np.ndarray, important: Sequence[int]) -> float:
    """Returns the probability that ignoring the image does at least as well.

    Fisher's exact test, one-sided, of whether important examples are predicted as
    important more often than others are.

    Args:
      confusion: counts `[true, predicted]`.
      important: indices of the important classes.

    Returns:
      The p-value; 1 where all examples or none are predicted as important.

    Reference:
      Fisher, Statistical methods for research workers, 1925, section 21.02.

    >>> round(chance(np.array([[3, 1], [1, 3]]), [1]), 4)
    0.2429
    """
    confusion, inside = np.asarray(confusion), list(important)
    alarms = confusion[:, inside].sum(1)
    positives, found = confusion[inside].sum(), alarms[inside].sum()
    return float(
        stats.hypergeom.sf(found - 1, confusion.sum(), positives, alarms.sum())
    )


def moved_confusion(
    logits: np.ndarray, labels: np.ndarray, important: Sequence[int], offset: float
) -> np.ndarray:
    """Returns the confusion matrix with an offset on the important classes' logits.

    Args:
      logits: `[n, num_classes]`.
      labels: `[n]`, true classes.
      important: indices of the important classes.
      offset: what is added to their logits.

    Returns:
      Counts `[true, predicted]`.

    >>> logits = np.float32([[0, 2], [1, 0], [2, 0]])
    >>> moved_confusion(logits, np.array([1, 1, 0]), [1], 1.5)
    array([[1, 0],
           [0, 2]])
    """
    predictions = guarantee.predict(logits, important, offset)
    shape = (logits.shape[1],) * 2
    pairs = np.ravel_multi_index((labels, predictions), shape)
    return np.bincount(pairs, minlength=shape[0] ** 2).reshape(shape)
