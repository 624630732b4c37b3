"""What trials show: differences to cross-entropy of the same seed, in frames.

Methods share their seeds, so a difference is taken within a seed. What varies from seed
to seed is the training (initialization, shuffling, dropout); the training and test
images stay the same, so the intervals say nothing about other images.
"""

import numpy as np
import pandas as pd

from camri_jax.evidence.curves import ALONG, BASELINE, MEASURES, POINT
from camri_jax.evidence.statistics import LEVEL, holm, interval, p_above

MARGIN = 0.005
"""Loss of accuracy that still counts as none, for tests of non-inferiority."""


def paired(trials: pd.DataFrame, *, margin: float = MARGIN) -> pd.DataFrame:
    """Returns every setting's differences to cross-entropy of the same seeds.

    Args:
      trials: from `camri_jax.evidence.selection.trials`, of one data set.
      margin: loss of accuracy that counts as none.

    Returns:
      One line a choice of important classes, method (cross-entropy with its threshold
      moved among them) and setting: `num_pairs`, the seeds that it shares with
      cross-entropy as trained; of each of `camri_jax.evidence.curves.MEASURES`, on test images,
      the mean difference as `..._difference`, and the ends of its interval as
      `..._low` and `..._high`; `recall_p`, of a gain of recall; `accuracy_p`, of a loss
      of accuracy below the margin; and both corrected by Holm for the settings tried
      with that choice, as `recall_p_holm` and `accuracy_p_holm`. A claim of both needs
      no further correction: it is an intersection-union test.

    Raises:
      ValueError: without cross-entropy, or without any other line to compare with it.

    Reference:
      Berger, Multiparameter hypothesis testing and acceptance sampling, 1982.
    """
    lines = []
    for (important, method, *point), group in _settings(differences(trials)):
        line = {"important": important, "method": method}
        line |= dict(zip(POINT, point, strict=True))
        line["num_pairs"] = int(group["recall"].notna().sum())
        for name in MEASURES:
            values = group[name].to_numpy()
            low, high = interval(values)
            line |= {
                f"{name}_difference": _mean(values),
                f"{name}_low": low,
                f"{name}_high": high,
            }
        line["recall_p"] = p_above(group["recall"].to_numpy())
        line["accuracy_p"] = p_above(group["accuracy"].to_numpy(), -margin)
        lines.append(line)
    return _corrected(pd.DataFrame(lines), ["recall_p", "accuracy_p"])


def differences(trials: pd.DataFrame) -> pd.DataFrame:
    """Returns each trial's measures minus those of cross-entropy of the same seed.

    Args:
      trials: from `camri_jax.evidence.selection.trials`, of one data set.

    Returns:
      The lines of `trials` but for cross-entropy as trained, with differences in place
      of `camri_jax.evidence.curves.MEASURES`; NaN where either trial diverged or the seed has no
      cross-entropy.

    Raises:
      ValueError: without cross-entropy.
    """
    is_baseline = trials["method"] == BASELINE
    if not is_baseline.any():
        raise ValueError(
            f"trials must hold {BASELINE}, from which differences are taken; there are "
            f"only {', '.join(trials['method'].unique())}"
        )
    by = ["important", "seed"]
    baseline = trials.loc[is_baseline, [*by, *MEASURES]]
    others = trials[~is_baseline].reset_index(drop=True)
    reference = others[by].merge(baseline, on=by, how="left")[MEASURES]
    others[MEASURES] -= reference
    return others


def at_own_recall(compared: pd.DataFrame) -> pd.DataFrame:
    """Returns how far each setting lies above cross-entropy's curve, as trained.

    Cross-entropy's threshold is moved until it has the recall that the method has as
    trained, seed by seed; then what remains of the method's accuracy is its own.

    Args:
      compared: from `camri_jax.evidence.curves.compare` without recalls.

    Returns:
      One line a choice of important classes, method but cross-entropy, and setting:
      `num_pairs`, the mean `recall`, the mean difference of accuracy as
      `above_difference` with the ends of its interval `above_low` and `above_high`;
      `above_p`, of its being positive, and `above_p_holm`, corrected for the settings
      tried with that choice; `alarms_difference`, of false alarms.

    Raises:
      ValueError: without any method but cross-entropy.
    """
    lines = []
    for (important, method, *point), group in _settings(compared):
        values = group["accuracy_difference"].to_numpy()
        low, high = interval(values)
        lines.append(
            {
                "important": important,
                "method": method,
                **dict(zip(POINT, point, strict=True)),
                "num_pairs": int(group["accuracy_difference"].notna().sum()),
                "recall": group["recall"].mean(),
                "above_difference": _mean(values),
                "above_low": low,
                "above_high": high,
                "above_p": p_above(values),
                "alarms_difference": _mean(group["false_alarms_difference"].to_numpy()),
            }
        )
    return _corrected(pd.DataFrame(lines), ["above_p"])


def along_curve(compared: pd.DataFrame) -> pd.DataFrame:
    """Returns how far each setting's curve lies above cross-entropy's at each recall.

    Args:
      compared: from `camri_jax.evidence.curves.compare` at a grid of recalls.

    Returns:
      One line a choice of important classes, method but cross-entropy, setting and
      recall: `num_pairs`, the seeds in which both curves reach that recall; of each of
      `camri_jax.evidence.curves.ALONG` the mean difference as `..._difference`; the ends of the
      interval of that of accuracy, `accuracy_low` and `accuracy_high`; and `above`,
      whether it is positive at 1 - `LEVEL`, by the one-sided t-test of that recall
      alone.

    Raises:
      ValueError: without any method but cross-entropy.
    """
    lines = []
    for (important, method, *point), group in _settings(compared):
        for recall, seeds in group.groupby("recall"):
            line = {
                "important": important,
                "method": method,
                **dict(zip(POINT, point, strict=True)),
                "recall": recall,
                "num_pairs": int(seeds["accuracy_difference"].notna().sum()),
            }
            for name in ALONG:
                line[f"{name}_difference"] = seeds[f"{name}_difference"].mean()
            values = seeds["accuracy_difference"].to_numpy()
            line["accuracy_low"], line["accuracy_high"] = interval(values)
            lines.append(line | {"above": p_above(values) < 1 - LEVEL})
    return pd.DataFrame(lines)


def ranges_above(along: pd.DataFrame) -> str:
    """Returns in words at which recalls one setting's curve lies above.

    Args:
      along: the lines of `along_curve` for one choice and setting, by recall.

    >>> ranges_above(pd.DataFrame({
    ...     "recall": [0.1, 0.2, 0.3, 0.4], "above": [True, True, False, True]}))
    '0.10-0.20, 0.40'
    """
    runs = (along["above"] != along["above"].shift()).cumsum()
    spans = []
    for _, run in along.groupby(runs):
        if run["above"].iloc[0]:
            first, last = run["recall"].iloc[0], run["recall"].iloc[-1]
            spans.append(f"{first:.2f}" + (f"-{last:.2f}" if last > first else ""))
    return ", ".join(spans)


def _settings(lines: pd.DataFrame):
    """Groups by choice of important classes, method and setting, but the baseline."""
    others = lines[lines["method"] != BASELINE]
    if others.empty:
        raise ValueError(
            f"there must be another method than {BASELINE} to compare with it"
        )
    return others.groupby(["important", "method", *POINT], dropna=False, sort=False)


def _corrected(lines: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Adds `..._holm`, within each choice of important classes."""
    for name in names:
        corrected = [
            pd.Series(holm(group.to_numpy()), group.index)
            for _, group in lines.groupby("important")[name]
        ]
        lines[f"{name}_holm"] = pd.concat(corrected)
    return lines


def _mean(values: np.ndarray) -> float:
    return float(pd.Series(values).mean())
