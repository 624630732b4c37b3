"""What trials show: differences to cross-entropy of the same seed, in frames.

Methods share their seeds, so a difference is taken within a seed. What varies from seed
to seed is the training (initialization, shuffling, dropout); the training and test
images stay the same, so the intervals say nothing about other images.

A claim often says two or three things at once. It has one p-value, the largest of its
parts' (an intersection-union test), and Holm's correction runs over all claims that are
tried with one choice of important classes.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from camri_jax._files import UsageError
from camri_jax.evidence.curves import COSTS, of_all_seeds
from camri_jax.evidence.measures import MEASURES
from camri_jax.evidence.selection import KEY
from camri_jax.evidence.statistics import (
    ACCURACY_MARGIN,
    checked_accuracy_margin,
    holm,
    interval,
    p_above,
    shown,
)
from camri_jax.training.methods import BASELINE

VERDICTS = {
    "baseline": "what the others are compared with",
    "diverged": "every trial diverged",
    "no_images": "not measured: there are no test images of the important class",
    "unpaired": "not compared: it shares no seed with cross-entropy",
    "untested": "not tested: one seed has no spread",
    "better": "finds more than cross-entropy, keeps its accuracy, and does better than "
    "moving its threshold",
    "more": "finds more than cross-entropy and keeps its accuracy",
    "more_only": "finds more than cross-entropy and keeps its accuracy, but is not "
    "shown to do better than moving its threshold",
    "not_shown": "not shown to find more than cross-entropy and keep its accuracy",
}
"""Every verdict in words."""


def differences(trials: pd.DataFrame) -> pd.DataFrame:
    """Returns each trial's measures minus those of cross-entropy of the same seed.

    Args:
      trials: from `camri_jax.evidence.selection.trials`, of one choice of classes.

    Returns:
      The lines of `trials` except cross-entropy as trained, with differences in place
      of `MEASURES`; NaN where either trial diverged or the seed has no cross-entropy.

    Raises:
      UsageError: without cross-entropy, or with two trials of it for one seed.
    """
    is_baseline = (trials["method"] == BASELINE) & ~trials["moved"]
    baseline = trials.loc[is_baseline, ["trial_id", "seed", *MEASURES]]
    if baseline.empty:
        raise UsageError(
            f"there must be rows of {BASELINE}, from which differences are taken; "
            f"there are only {', '.join(trials['method'].unique())}"
        )
    twice = baseline[baseline["seed"].duplicated(keep=False)]
    if len(twice):
        raise UsageError(
            f"there are several rows of {BASELINE} of seed {twice['seed'].iloc[0]}: "
            f"trials {', '.join(twice['trial_id'].head(4))}; keep one of them"
        )
    others = trials[~is_baseline].reset_index(drop=True)
    reference = others[["seed"]].merge(
        baseline.drop(columns="trial_id"), on="seed", how="left", validate="many_to_one"
    )
    others[MEASURES] -= reference[MEASURES]
    return others


def paired(
    trials: pd.DataFrame, *, accuracy_margin: float = ACCURACY_MARGIN
) -> pd.DataFrame:
    """Returns every setting's differences to cross-entropy of the same seeds.

    Args:
      trials: from `camri_jax.evidence.selection.trials`, of one choice of classes.
      accuracy_margin: loss of accuracy that counts as none.

    Returns:
      One line a setting, except cross-entropy as trained: `KEY`; `num_pairs`, the
      seeds that it shares with it; `all_diverged`, and `has_images`, whether there are
      test images of the important classes; for each of `MEASURES`, on test images, the
      mean difference as `..._difference`, over how many pairs as `..._pairs`, its
      interval as `..._low` and `..._high`; `recall_p`, for a gain of recall, and
      `accuracy_p`, for a loss of accuracy below the margin, uncorrected and parts of
      claims only, see `claims`.

    Raises:
      UsageError: without cross-entropy or any other setting, or for a margin outside
        [0, 1).
    """
    margin = checked_accuracy_margin(accuracy_margin)
    lines = []
    for key, group in by_setting(differences(trials)):
        line = dict(
            key,
            num_pairs=int(group["recall"].notna().sum()),
            all_diverged=bool(group["diverged"].all()),
            has_images=bool((group["num_important"] > 0).any()),
        )
        for name in MEASURES:
            line |= spread(name, group[name])
        line["recall_p"] = p_above(group["recall"].to_numpy())
        line["accuracy_p"] = p_above(group["accuracy"].to_numpy(), -margin)
        lines.append(line)
    return pd.DataFrame(lines)


def spread(name: str, values: pd.Series) -> dict[str, Any]:
    """Returns mean difference, number of pairs and interval, as columns of a name."""
    low, high = interval(values.to_numpy(float))
    return {
        f"{name}_difference": float(values.mean()),
        f"{name}_pairs": int(values.notna().sum()),
        f"{name}_low": low,
        f"{name}_high": high,
    }


def at_own_recall(prices: pd.DataFrame) -> pd.DataFrame:
    """Returns how far each setting lies above cross-entropy's curve, as trained.

    Cross-entropy's threshold is moved until it has the recall that the method has as
    trained, seed by seed; then what remains of the method's accuracy is its own.

    Args:
      prices: from `camri_jax.evidence.curves.prices` without recalls.

    Returns:
      One line a setting as trained, except cross-entropy: `KEY`; `above_...` of
      accuracy, as in `paired`; `above_p`, for its being positive, uncorrected and part
      of a claim only; `alarms_difference`, of false alarms. No lines without logits.
    """
    lines = []
    for key, group in by_setting(prices.assign(moved=False), needed=False):
        values = group["accuracy_difference"]
        lines.append(
            {
                **key,
                **spread("above", values),
                "above_p": p_above(values.to_numpy(float)),
                "alarms_difference": float(group["false_alarms_difference"].mean()),
            }
        )
    names = ["above_difference", "above_pairs", "above_low", "above_high"]
    names += ["above_p", "alarms_difference"]
    return pd.DataFrame(lines, columns=[*KEY, *names])


def claims(compared: pd.DataFrame) -> pd.DataFrame:
    """Returns the p-values of what is claimed of each setting, and the verdict.

    Two things can be claimed. `more`: it finds more than cross-entropy as trained, and
    keeps its accuracy. `better`, for methods as trained: it does, and its accuracy is
    above that of cross-entropy whose threshold is moved to the same recall.

    Args:
      compared: `paired` merged with `at_own_recall`, of every setting that was tried.

    Returns:
      The same lines with `more_p` and `better_p`, the largest p of the claim's parts;
      `more_p_holm` and `better_p_holm`, corrected together for all claims of all
      lines, `better` counting where `above_difference` is known; and `verdict`, a key
      of `VERDICTS`.

    Reference:
      Berger, Multiparameter hypothesis testing and acceptance sampling, Technometrics
      24, 1982; Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    parts = compared[["recall_p", "accuracy_p", "above_p"]].to_numpy(float)
    more, better = parts[:, :2].max(axis=1), parts.max(axis=1)
    tried = compared["above_difference"].notna().to_numpy()
    corrected = holm(np.concatenate([more, better[tried]]))
    better_holm = np.full(len(better), np.nan)
    better_holm[tried] = corrected[len(more) :]
    found = compared.assign(
        more_p=more,
        better_p=better,
        more_p_holm=corrected[: len(more)],
        better_p_holm=better_holm,
    )
    return found.assign(verdict=[_verdict(line) for line in found.to_dict("records")])


def _verdict(line: dict[Any, Any]) -> str:
    if line["all_diverged"]:
        return "diverged"
    if not line["has_images"]:
        return "no_images"
    if line["num_pairs"] == 0:
        return "unpaired"
    if line["num_pairs"] == 1:
        return "untested"
    if shown(line["better_p_holm"]):
        return "better"
    if shown(line["more_p_holm"]):
        return "more" if np.isnan(line["above_difference"]) else "more_only"
    return "not_shown"


def price_differences(prices: pd.DataFrame) -> pd.DataFrame:
    """Returns what each setting's recalls cost, and how much less than cross-entropy's.

    Args:
      prices: from `camri_jax.evidence.curves.prices` at some recalls, of the settings
        to report.

    Returns:
      One line a setting and recall: `KEY` (`moved` is true), `asked`, `num_seeds`, and
      how many of these reach the recall, `num_reached`; means over seeds of `recall`,
      `COSTS` and `offset`, and standard deviations as `..._std`; for `false_alarms` and
      `accuracy` the differences to cross-entropy at the same recall, as in `paired`;
      `fewer_p`, for fewer false alarms, and `fewer_p_holm`, corrected for all lines;
      NaN for cross-entropy itself, and where `curves.of_all_seeds` has it.
    """
    found = of_all_seeds(prices).assign(moved=True)
    compared = ["false_alarms", "accuracy"]
    differences = [f"{name}_difference" for name in compared]
    found.loc[found["method"] == BASELINE, differences] = np.nan
    lines = []
    for key, group in found.groupby([*KEY, "asked"], dropna=False, sort=False):
        line: dict[str, Any] = dict(zip([*KEY, "asked"], key, strict=True))
        line["num_seeds"] = len(group)
        line["num_reached"] = int(group["recall"].notna().sum())
        for name in ("recall", *COSTS, "offset"):
            values = group[name].astype(float)
            line[name] = values.mean(skipna=False)
            line[f"{name}_std"] = values.std(skipna=False)
        for name in compared:
            line |= spread(name, group[f"{name}_difference"])
        line["fewer_p"] = p_above(-group["false_alarms_difference"].to_numpy())
        lines.append(line)
    table = pd.DataFrame(lines)
    if table.empty:
        return table
    table["fewer_p_holm"] = np.nan
    others = table["method"] != BASELINE
    table.loc[others, "fewer_p_holm"] = holm(table.loc[others, "fewer_p"].to_numpy())
    return table


def by_setting(
    lines: pd.DataFrame, *, needed: bool = True
) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Groups by setting, without cross-entropy as trained.

    Args:
      lines: with the columns `KEY`.
      needed: whether there must be any.

    Yields:
      Each setting's `KEY`, and its lines.

    Raises:
      UsageError: there are none.
    """
    others = lines[(lines["method"] != BASELINE) | lines["moved"]]
    if others.empty and needed:
        raise UsageError(
            f"there are rows of {BASELINE} only, and none to compare it with"
        )
    for key, group in others.groupby(KEY, dropna=False, sort=False):
        yield dict(zip(KEY, key, strict=True)), group
