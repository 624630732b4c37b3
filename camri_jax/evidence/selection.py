"""From rows of trials to the numbers of the tables: measures, selection, spread."""

from typing import Any

import numpy as np
import pandas as pd

from camri_jax import metrics
from camri_jax.evidence.curves import (
    BASELINE,
    MEASURES,
    POINT,
    confusions,
    each,
    measures,
)
from camri_jax.training.methods import METHODS

_MOVED = "+threshold"


def moved(method: str) -> str:
    """Returns the name of a method whose threshold is moved after training.

    >>> moved("camri")
    'camri+threshold'
    """
    return method + _MOVED


def trained(method: str) -> str:
    """Returns the method that was trained, without what was moved afterwards.

    >>> trained("camri+threshold"), trained("camri")
    ('camri', 'camri')
    """
    return method.removesuffix(_MOVED)


LABELS = {name: method.label for name, method in METHODS.items()} | {
    moved(name): f"{method.label}, threshold moved" for name, method in METHODS.items()
}
"""What tables and figures call each method."""


def trials(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the measures of trials, as trained and with their thresholds moved.

    Moving the threshold adds a constant to the logits of the important classes. It is
    picked on the trial's own validation images, and for every method by the same rule:
    the largest one that keeps the validation accuracy of cross-entropy of the same
    seed, as trained. None that keeps it has a higher recall; and where few validation
    images make many constants look alike, it is the largest that buys what it can. So a
    method that is more accurate than cross-entropy may spend that on recall, and one
    that is less accurate must first make it good. Where no constant keeps it, the most
    accurate ones count; where that seed has no cross-entropy, the trial's own accuracy
    is the one to keep.

    Args:
      rows: from `camri_jax.sweeps.rows.read`.

    Returns:
      A line for each trial and choice of important classes as trained, and, if it has
      validation images, one under the name `moved(method)`: `trial_id`, `dataset`,
      `method`, `important` (names joined by +), hyperparameters, `seed`, `diverged`,
      `constant`, the `MEASURES` on the test images, and the same on the validation
      images as `validation_...`, NaN without any. Diverged trials have no measures.
    """
    accuracies = {
        (row.dataset, row.seed): _accuracy_to_keep(row)
        for row in each(rows[rows["method"] == BASELINE])
        if not row.diverged and confusions(row, "validation") is not None
    }
    lines = []
    for row in each(rows):
        lines.append(_line(row, str(row.method), constant=0.0))
        if confusions(row, "validation") is not None:
            to_keep = accuracies.get((row.dataset, row.seed))
            constant = 0.0 if row.diverged else _picked(row, to_keep)
            lines.append(_line(row, moved(str(row.method)), constant=constant))
    return pd.DataFrame(lines)


def _accuracy_to_keep(row: Any) -> float:
    """Validation accuracy as trained."""
    confusion = confusions(row, "validation")[row.constants == 0]
    return float(metrics.accuracy(confusion)[0])


def _picked(row: Any, accuracy: float | None) -> float:
    """The largest constant that keeps a validation accuracy."""
    reached = np.asarray(metrics.accuracy(confusions(row, "validation")))
    if accuracy is None:
        accuracy = _accuracy_to_keep(row)
    return float(row.constants[reached >= min(accuracy, reached.max())].max())


def _line(row: Any, method: str, constant: float) -> dict:
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
        curve = confusions(row, part)
        if curve is None or row.diverged:
            numbers = dict.fromkeys(MEASURES, np.nan)
        else:
            at = int(np.searchsorted(row.constants, constant))
            numbers = measures(curve[at], row.important)
        line |= {prefix + name: float(value) for name, value in numbers.items()}
    return line


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


_ORDER = [
    variant
    for name in (BASELINE, *(name for name in METHODS if name != BASELINE))
    for variant in (name, moved(name))
]


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
      rows: from `camri_jax.sweeps.rows.read`.
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
