"""From rows of trials to the numbers of the tables: measures, selection, spread."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from camri_jax import metrics
from camri_jax.methods import METHODS

POINT = ["margin", "scale", "weight", "cost", "epsilon"]
"""Columns of the hyperparameters."""

BASELINE = "cross_entropy"
THRESHOLD = "threshold"
"""The method that moves the threshold of a trained cross-entropy."""

LABELS = {name: method.label for name, method in METHODS.items()} | {
    THRESHOLD: "threshold moving"
}
"""What tables and figures call each method."""

MEASURES = ["recall", "accuracy", "precision", "other_recall", "false_alarms"]


def measures(confusion: np.ndarray, important: Sequence[int]) -> dict[str, np.ndarray]:
    """Returns what counts about confusion matrices when some classes are important.

    Args:
      confusion: counts `[..., true, predicted]`.
      important: indices of the important classes.

    Returns:
      Arrays `[...]`: `recall`, the mean recall of the important classes; `accuracy`;
      `precision`, the share of examples predicted as important that are so predicted
      rightly; `other_recall`, the mean recall of the other classes; `false_alarms`,
      examples of other classes predicted as important, per 1,000 examples. NaN where
      there is nothing to count.

    >>> numbers = measures(np.array([[9, 1], [2, 8]]), [1])
    >>> {name: round(float(value), 3) for name, value in numbers.items()}
    {'recall': 0.8, 'accuracy': 0.85, 'precision': 0.889, 'other_recall': 0.9, \
'false_alarms': 50.0}
    """
    important = list(important)
    others = np.setdiff1d(np.arange(confusion.shape[-1]), important)
    recall = np.asarray(metrics.recall(confusion))
    right = np.diagonal(confusion, axis1=-2, axis2=-1)[..., important].sum(-1)
    alarms = confusion[..., important].sum((-2, -1))
    false_alarms = confusion[..., others, :][..., important].sum((-2, -1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "recall": np.nanmean(recall[..., important], -1),
            "accuracy": np.asarray(metrics.accuracy(confusion)),
            "precision": right / alarms,
            "other_recall": np.nanmean(recall[..., others], -1),
            "false_alarms": 1000 * false_alarms / confusion.sum((-2, -1)),
        }


def trials(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the measures of trials, and of cross-entropy with its threshold moved.

    The constant of threshold moving is picked on the trial's own validation images:
    the one of highest recall among those that keep the accuracy of constant 0.

    Args:
      rows: from `camri_jax.results.read`.

    Returns:
      One line a trial and choice of important classes: `trial_id`, `dataset`, `method`,
      `important` (names joined by +), hyperparameters, `seed`, `diverged`, `constant`,
      the `MEASURES` on the test images, and the same on the validation images as
      `validation_...`, NaN without any. Diverged trials have no measures.
    """
    lines = []
    for row in rows.itertuples():
        lines.append(_line(row, str(row.method), constant=0.0))
        held_out = _curve(row, "validation")
        if row.method == BASELINE and held_out is not None:
            lines.append(_line(row, THRESHOLD, constant=_moved(row, held_out)))
    return pd.DataFrame(lines)


def _line(row, method: str, constant: float) -> dict:
    line = {
        "trial_id": row.trial_id,
        "dataset": row.dataset,
        "method": method,
        "important": "+".join(row.class_names[i] for i in row.important),
        **{name: getattr(row, name) for name in POINT},
        "seed": row.seed,
        "diverged": row.diverged,
        "constant": constant,
    }
    for prefix, part in (("", "test"), ("validation_", "validation")):
        curve = _curve(row, part)
        if curve is None or row.diverged:
            numbers = dict.fromkeys(MEASURES, np.nan)
        else:
            at = int(np.searchsorted(row.constants, constant))
            numbers = measures(curve[at], row.important)
        line |= {prefix + name: float(value) for name, value in numbers.items()}
    return line


def _curve(row, part: str) -> np.ndarray | None:
    """Confusion matrices `[constant, true, predicted]` of one part, if it has any."""
    num_classes = len(row.class_names)
    flat = getattr(row, f"{part}_curve")
    if flat is None or len(flat) == 0:
        return None
    return np.reshape(flat, (-1, num_classes, num_classes))


def _moved(row, curve: np.ndarray) -> float:
    """The constant of highest validation recall that keeps validation accuracy."""
    numbers = measures(curve, row.important)
    keeps = numbers["accuracy"] >= numbers["accuracy"][row.constants == 0]
    recall = np.where(keeps, numbers["recall"], -1.0)
    # Of equals, the smallest move.
    best = np.flatnonzero(recall == recall.max())
    return float(row.constants[best[np.argmin(np.abs(row.constants[best]))]])


def settings(trials: pd.DataFrame) -> pd.DataFrame:
    """Returns mean and standard deviation over seeds for each method and setting.

    Args:
      trials: from `trials`.

    Returns:
      One line a method, choice of important classes and setting: `num_seeds` (without
      the diverged), `num_diverged`, and for every measure its mean and, as
      `..._std`, its standard deviation over seeds with n - 1 (NaN for one seed).
    """
    by = ["dataset", "important", "method", *POINT]
    columns = [*MEASURES, *(f"validation_{name}" for name in MEASURES)]
    groups = trials.groupby(by, dropna=False, sort=False)
    mean = groups[columns].mean()
    std = groups[columns].std().add_suffix("_std")
    counts = pd.DataFrame(
        {
            "num_seeds": groups["recall"].count(),
            "num_diverged": groups["diverged"].sum(),
        }
    )
    return pd.concat([counts, mean, std], axis=1).reset_index()


def select(settings: pd.DataFrame, *, on: str = "validation") -> pd.DataFrame:
    """Returns the setting of each method that the paper's rule picks.

    Of a method's settings whose mean accuracy is at least cross-entropy's, the one of
    highest mean recall; where there is none, the one of highest accuracy, with
    `keeps_accuracy` false (the paper leaves it blank). Section IV-A4.

    Args:
      settings: from `settings`.
      on: `"validation"` picks on held-out images; `"test"` picks as the paper does, on
        the images it reports, and so reports too much.

    Returns:
      One line a method and choice of important classes, cross-entropy first, with
      `keeps_accuracy`, judged on the images it was picked on.

    Raises:
      ValueError: without rows of cross-entropy to compare with.
    """
    prefix = {"validation": "validation_", "test": ""}[on]
    picked = []
    for important, group in settings.groupby("important", sort=False):
        baseline = group.loc[group["method"] == BASELINE, f"{prefix}accuracy"]
        if baseline.empty:
            raise ValueError(
                f"settings must hold {BASELINE} for important class {important!r}: the "
                "others are measured against its accuracy"
            )
        for _, candidates in group.groupby("method", sort=False):
            # Far below one image: means of the same numbers in another order.
            keeps = candidates[f"{prefix}accuracy"] >= baseline.iloc[0] - 1e-9
            if keeps.any():
                best = candidates.loc[keeps, f"{prefix}recall"].idxmax()
            else:
                best = candidates[f"{prefix}accuracy"].fillna(-1.0).idxmax()
            picked.append(candidates.loc[[best]].assign(keeps_accuracy=keeps[best]))
    table = pd.concat(picked, ignore_index=True)
    order = table["method"].map({name: i for i, name in enumerate(_ORDER)})
    return table.iloc[np.lexsort((order, table["important"]))].reset_index(drop=True)


def best_trial(trials: pd.DataFrame, selected: pd.DataFrame) -> pd.Series | None:
    """Returns the one trial to use, for one choice of important classes.

    Of the selected settings that keep accuracy, the one of highest mean recall; of its
    seeds, the one of highest recall and then accuracy; all on validation images, or on
    test images where there are none.

    Args:
      trials: from `trials`.
      selected: the lines of `select` for one choice of important classes.

    Returns:
      The trial's line, with its `trial_id` and the `constant` to add to the logits of
      the important classes; None if no setting keeps accuracy, as where all diverged.
    """
    held_out = selected["validation_recall"].notna().any()
    recall, accuracy = (
        f"validation_{name}" if held_out else name for name in ("recall", "accuracy")
    )
    keeping = selected[selected["keeps_accuracy"]]
    if keeping.empty:
        return None
    setting = keeping.nlargest(1, recall)
    by = ["dataset", "important", "method", *POINT]
    seeds = trials.merge(setting[by], on=by)
    return seeds.sort_values([recall, accuracy], ascending=False).iloc[0]


_ORDER = [BASELINE, THRESHOLD, *(name for name in METHODS if name != BASELINE)]


def describe(line: pd.Series) -> str:
    """Returns a setting in words, margins in 64ths of pi as in the paper.

    >>> describe(pd.Series({"margin": np.pi / 16, "scale": 16.0, "cost": np.nan}))
    'm=4π/64 s=16'
    """
    symbols = {"margin": "m", "scale": "s", "weight": "w", "cost": "c", "epsilon": "ε"}
    parts = []
    for name, symbol in symbols.items():
        value = line.get(name, np.nan)
        if not np.isnan(value):
            in_64ths = f"{value * 64 / np.pi:.3g}π/64"
            parts.append(f"{symbol}={in_64ths if name == 'margin' else f'{value:.4g}'}")
    return " ".join(parts)


def baseline_recall(rows: pd.DataFrame, dataset: str) -> np.ndarray | None:
    """Returns the recall of each class under cross-entropy, the mean over trials.

    Args:
      rows: from `camri_jax.results.read`.
      dataset: name of the data set; rows of others are left out.

    Returns:
      `[num_classes]`, on validation images or, without any, on test images; None
      without rows of cross-entropy.
    """
    chosen = rows[(rows["method"] == BASELINE) & (rows["dataset"] == dataset)]
    chosen = chosen[~chosen["diverged"].astype(bool)].drop_duplicates("trial_id")
    if chosen.empty:
        return None
    held_out = chosen["validation_confusion"].dropna()
    flat = held_out if len(held_out) else chosen["test_confusion"]
    num_classes = len(chosen["class_names"].iloc[0])
    confusion = np.stack(flat.tolist()).reshape(-1, num_classes, num_classes)
    return np.asarray(metrics.recall(confusion)).mean(0)
