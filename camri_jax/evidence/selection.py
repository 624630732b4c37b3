"""From trials to the numbers of tables: thresholds, settings, and the one to use."""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from camri_jax import guarantee
from camri_jax._files import UsageError
from camri_jax.evidence.curves import curve
from camri_jax.evidence.measures import MEASURES, chance, measures, moved_confusion
from camri_jax.evidence.statistics import ALPHA, DIGITS, LEVEL, SAME
from camri_jax.evidence.study import POINT, REMEMBERED, Choice, Study, setting_text
from camri_jax.training.methods import BASELINE, METHODS

KEY = ["important", "method", "moved", *POINT]
"""What makes a setting: columns that frames are merged by."""


def trials(study: Study, important: Choice) -> pd.DataFrame:
    """Returns the measures of trials, as trained and with their thresholds moved.

    Moving the threshold adds an offset to the logits of the important classes. It is
    picked on the trial's own validation images, see `least_offset`.

    Args:
      study: from `camri_jax.evidence.study.load`.
      important: the choice of important classes.

    Returns:
      A line for each trial as trained, and one for each that kept its logits with its
      threshold moved: `trial_id`, `dataset`, `method`, `moved`, `important`, the
      hyperparameters, `seed`, `diverged`, `offset`; on test images `MEASURES`,
      `num_found` of `num_important` images of the important classes, `num_images`, and
      `chance`, see `camri_jax.evidence.measures.chance`; and all these on validation
      images as `validation_...`. NaN without images, and where a trial diverged.
    """
    return _trials(study, important).copy()


@functools.lru_cache(maxsize=REMEMBERED)
def _trials(study: Study, important: Choice) -> pd.DataFrame:
    rows = study.of(important)
    lines: list[dict[str, Any]] = [_line(row, important) for row in _each(rows)]
    lines += _moved(study, rows, important)
    return pd.DataFrame(sorted(lines, key=_place))


def _moved(study: Study, rows: pd.DataFrame, important: Choice) -> list[dict[str, Any]]:
    """Lines of thresholds moved; only one trial's logits are held at a time."""
    by_id = {row.trial_id: row for row in _each(rows)}
    ids = [name for name, row in by_id.items() if not row.diverged]
    labels = study.data.labels
    if not np.isin(labels["validation"], important).any():
        return []
    picked, confusions = {}, {}
    for trial_id, logits in study.logits("validation", ids):
        offset = offset_of(study, important, int(by_id[trial_id].seed), logits)
        picked[trial_id] = offset
        confusions[trial_id] = {
            "validation": moved_confusion(
                logits, labels["validation"], important, offset
            )
        }
    for trial_id, logits in study.logits("test", list(picked)):
        confusions[trial_id]["test"] = moved_confusion(
            logits, labels["test"], important, picked[trial_id]
        )
    # A diverged trial counts as one here too, if there is anything to count among.
    lost = [row for row in _each(rows) if row.diverged] if picked else []
    return [
        *(
            _line(by_id[name], important, offset, confusions[name])
            for name, offset in picked.items()
        ),
        *(_line(row, important, 0.0, {}) for row in lost),
    ]


def offset_of(study: Study, important: Choice, seed: int, logits: np.ndarray) -> float:
    """Returns the offset at which `trials` has a trial with its threshold moved.

    Args:
      study: from `camri_jax.evidence.study.load`.
      important: the choice of important classes.
      seed: of the trial.
      logits: of the trial on the validation images.
    """
    reached = curve(logits, study.data.labels["validation"], important)
    return least_offset(reached, _to_keep(study, important).get(seed))


@functools.lru_cache(maxsize=REMEMBERED)
def _to_keep(study: Study, important: Choice) -> dict[int, float]:
    """Accuracy of cross-entropy on validation images, by seed."""
    rows = study.of(important)
    return {
        int(row.seed): float(measures(row.validation_confusion, important)["accuracy"])
        for row in _each(rows[(rows["method"] == BASELINE) & ~rows["diverged"]])
        if row.validation_confusion is not None
    }


def least_offset(curve: pd.DataFrame, accuracy: float | None = None) -> float:
    """Returns the smallest offset of those that gain the most recall at an accuracy.

    Among the offsets that keep the accuracy, those of the highest recall count, and
    among these the one nearest to zero, halfway between the scores of two examples. The
    accuracy is that of cross-entropy of the same seed, as trained: so a method that is
    more accurate may spend that on recall, and one that is less accurate must first
    make up for it. Where no offset keeps it, the most accurate ones count.

    Args:
      curve: of the trial on its validation images.
      accuracy: to keep; None keeps the trial's own, as trained.

    Returns:
      The offset, a float32; negative only where recall must be given up for accuracy.
    """
    lows = curve["offset"].to_numpy()
    highs = np.append(lows[1:], np.float32(np.inf))
    reached = curve["accuracy"].to_numpy()
    if accuracy is None:
        accuracy = reached[(lows <= 0) & (highs > 0)].item()
    keeps = reached >= min(accuracy, reached.max()) - SAME
    recall = curve["recall"].to_numpy()
    best = np.flatnonzero(keeps & (recall >= recall[keeps].max() - SAME))
    # How far zero is from where the line holds.
    far = np.maximum(0, np.maximum(lows, -highs))[best]
    low, high = (ends[best[far.argmin()]] for ends in (lows, highs))
    if low <= 0 < high:
        return 0.0
    if not np.isfinite(high):
        return float(low)
    if not np.isfinite(low):
        return float(np.nextafter(high, low))
    middle = np.float32((float(low) + float(high)) / 2)
    return float(middle if middle < high else low)


def _each(rows: pd.DataFrame) -> Iterator[Any]:
    """Rows with their columns as attributes."""
    return rows.itertuples(index=False)


def _line(
    row: Any,
    important: Choice,
    offset: float | None = None,
    confusions: dict[str, np.ndarray] | None = None,
) -> dict[str, Any]:
    """A trial as trained, or with other confusions at an offset."""
    if confusions is None:
        confusions = {
            "test": row.test_confusion,
            "validation": row.validation_confusion,
        }
    line = {
        "trial_id": row.trial_id,
        "dataset": row.dataset,
        "method": row.method,
        "moved": offset is not None,
        "important": important,
        **{name: getattr(row, name) for name in POINT},
        "seed": row.seed,
        "diverged": row.diverged,
        "offset": offset or 0.0,
    }
    for prefix, part in (("", "test"), ("validation_", "validation")):
        confusion = None if row.diverged else confusions.get(part)
        numbers = _numbers(confusion, important)
        line |= {prefix + name: value for name, value in numbers.items()}
    return line


_COUNTS = ("num_found", "num_important", "num_images", "chance")

OF_CLASS = "recall_of_"
"""Begins the columns of each important class's recall, where there are several."""


def _numbers(confusion: np.ndarray | None, important: Choice) -> dict[str, float]:
    inside = list(important)
    each = [f"{OF_CLASS}{k}" for k in inside] if len(inside) > 1 else []
    if confusion is None or not confusion.sum():
        return dict.fromkeys([*MEASURES, *_COUNTS, *each], np.nan)
    numbers = measures(confusion, important)
    return {
        **{name: float(numbers[name]) for name in MEASURES},
        "num_found": float(confusion[inside, inside].sum()),
        "num_important": float(confusion[inside].sum()),
        "num_images": float(confusion.sum()),
        "chance": chance(confusion, important),
        **{
            name: float(measures(confusion, [k])["recall"])
            for name, k in zip(each, inside, strict=False)
        },
    }


def settings(trials: pd.DataFrame) -> pd.DataFrame:
    """Returns mean and standard deviation over seeds for each setting.

    Args:
      trials: from `trials`.

    Returns:
      One line a setting: `KEY`; `num_seeds` (without the diverged), `num_diverged`,
      `num_important` and `validation_num_important`; and for every measure, on test
      and as `validation_...` on validation images, its mean, its standard deviation
      with n - 1 as `..._std` (NaN for one seed) and as `..._n` over how many seeds
      both run, fewer than `num_seeds` where a measure has no value. With several
      important classes likewise `recall_of_K` of each on test images, and of each
      seed's lowest of them, `lowest_recall`.
    """
    each = [x for x in map(str, trials.columns) if x.startswith(OF_CLASS)]
    if each:
        trials = trials.assign(lowest_recall=trials[each].min(axis=1))
        each.append("lowest_recall")
    columns = [*MEASURES, *(f"validation_{name}" for name in MEASURES), *each]
    groups = trials.groupby(KEY, dropna=False, sort=False)
    counts = pd.DataFrame(
        {
            "num_seeds": groups["diverged"].agg(lambda lost: int((~lost).sum())),
            "num_diverged": groups["diverged"].sum(),
            "num_important": groups["num_important"].max(),
            "validation_num_important": groups["validation_num_important"].max(),
        }
    )
    frames = [
        groups[columns].mean(),
        groups[columns].std().add_suffix("_std"),
        groups[columns].count().add_suffix("_n"),
    ]
    return pd.concat([counts, *frames], axis=1).reset_index()


def held_out(settings: pd.DataFrame) -> str:
    """Returns on which images to pick: validation images where there are any.

    Args:
      settings: from `settings` or `trials`.

    Returns:
      "validation" or "test".
    """
    return "validation" if settings["validation_recall"].notna().any() else "test"


def select(settings: pd.DataFrame, *, on: str = "validation") -> pd.DataFrame:
    """Returns the setting of each method that the paper's rule picks.

    Of a method's settings whose mean accuracy is at least cross-entropy's, the one with
    the highest mean recall; if there is none, the one with the highest accuracy, with
    `keeps_accuracy` false (the paper leaves it blank). Ties go to accuracy, then to
    fewer false alarms, then to the smaller penalty. Section IV-A4.

    Args:
      settings: from `settings`, of one choice of important classes.
      on: `"validation"` picks on held-out images; `"test"` picks as the paper does, on
        the images it reports, and so reports too much.

    Returns:
      One line a method as trained or moved, cross-entropy first, with
      `keeps_accuracy`, judged on the images it was picked on.

    Raises:
      UsageError: without rows of cross-entropy to compare with.
    """
    ranked = _ranked(settings, on)
    keeps = ranked["keeps_accuracy"]
    # Where none keeps accuracy, accuracy comes first. Means that are equal differ in
    # their last digits.
    recall = ranked[_on("recall", on)].where(keeps, -1.0).round(DIGITS)
    ranked = ranked.assign(_recall=recall).sort_values(
        ["_recall", "_rank"], ascending=[False, True], kind="stable"
    )
    picked = ranked.groupby(["method", "moved"], sort=False).head(1)
    return (
        picked.sort_values("_order")
        .drop(columns=["_recall", "_rank", "_order"])
        .reset_index(drop=True)
    )


def _on(name: str, part: str) -> str:
    return f"validation_{name}" if part == "validation" else name


def _ranked(settings: pd.DataFrame, on: str) -> pd.DataFrame:
    """Adds `keeps_accuracy`; `_rank` among equal recalls; `_order` of methods."""
    is_baseline = (settings["method"] == BASELINE) & ~settings["moved"]
    if not is_baseline.any():
        raise UsageError(
            f"there must be rows of {BASELINE}: the others are measured against its "
            f"accuracy; there are only {', '.join(settings['method'].unique())}"
        )
    to_keep = settings.loc[is_baseline, _on("accuracy", on)].iloc[0]
    ranked = settings.assign(
        keeps_accuracy=settings[_on("accuracy", on)] >= to_keep - SAME,
        _order=[
            _ORDER[pair]
            for pair in zip(settings["method"], settings["moved"], strict=True)
        ],
    ).sort_values(["_order", *POINT], kind="stable")
    ranked = _sorted(
        ranked, [_on("accuracy", on), _on("false_alarms", on)], [False, True]
    )
    return ranked.assign(_rank=range(len(ranked))).reset_index(drop=True)


def _sorted(frame: pd.DataFrame, by: list[str], ascending: list[bool]) -> pd.DataFrame:
    """Sorts, with shares that differ by rounding alone as equal and NaN last."""
    keys = frame[by].round(DIGITS)
    return frame.loc[keys.sort_values(by, ascending=ascending, kind="stable").index]


_ORDER = {
    pair: i
    for i, pair in enumerate(
        (name, moved)
        for name in (BASELINE, *(name for name in METHODS if name != BASELINE))
        for moved in (False, True)
    )
}


def _place(line: dict[str, Any]) -> int:
    """Where tables put a method: cross-entropy first, moved thresholds behind."""
    return _ORDER[line["method"], line["moved"]]


class Recommendation(NamedTuple):
    """The one trial to use.

    Attributes:
      trial: its line of `trials`, with `trial_id` and `offset`; None if there is none.
      why: a sentence: what it was picked on and how, or why there is none.
      low: exact lower end of its recall on test images, at `LEVEL`.
      high: upper end.
    """

    trial: pd.Series | None
    why: str
    low: float = np.nan
    high: float = np.nan


def recommend(trials: pd.DataFrame) -> Recommendation:
    """Returns the one trial to use, for table, report and model alike.

    The setting is picked first, by its means over seeds on the images that pick. Of
    those that keep cross-entropy's mean accuracy, and whose recall is the highest or
    less than one image below it, it is the most accurate, then the one with fewer false
    alarms, then the simplest. Of its seeds within one image of its mean recall, or
    above, the most accurate is taken, then again the one with fewer false alarms.

    Never taken are a trial less accurate than cross-entropy's mean, one whose threshold
    is moved against the important classes, and one that is not shown to tell them from
    others better than chance (Fisher's exact test at `ALPHA`, corrected by Bonferroni
    for all trials).

    Args:
      trials: from `trials`.

    Returns:
      The recommendation; its interval is Clopper and Pearson's.

    Raises:
      UsageError: without rows of cross-entropy to compare with.

    Reference:
      Clopper and Pearson, The use of confidence or fiducial limits illustrated in the
      case of the binomial, Biometrika 26, 1934.
    """
    on = held_out(trials)
    accuracy, recall, alarms, by_chance, images = (
        _on(name, on)
        for name in ("accuracy", "recall", "false_alarms", "chance", "num_important")
    )
    ranked = _ranked(settings(trials), on)
    is_baseline = (ranked["method"] == BASELINE) & ~ranked["moved"]
    to_keep = ranked.loc[is_baseline, accuracy].iloc[0]
    kept = ranked[ranked["keeps_accuracy"]]
    pairs = trials.merge(
        kept[[*KEY, recall, "_rank", "num_seeds"]],
        on=KEY,
        suffixes=("", "_mean"),
        validate="many_to_one",
    )
    image = 1 / pairs[images].max()
    usable = pairs[
        (pairs[accuracy] >= to_keep - SAME)
        & (pairs["offset"] >= 0)
        & (pairs[by_chance] < ALPHA / len(trials))
        & (pairs[recall] > pairs[f"{recall}_mean"] - image)
    ]
    if usable.empty:
        return Recommendation(None, _why_none(trials, on))
    near = usable[f"{recall}_mean"] > usable[f"{recall}_mean"].max() - image + SAME
    setting = usable[near & (usable["_rank"] == usable.loc[near, "_rank"].min())]
    best = _sorted(setting.sort_values("seed"), [accuracy, alarms], [False, True])
    trial = best.iloc[0]
    low, high = _exact(trial["num_found"], trial["num_important"])
    return Recommendation(trial[trials.columns], _why(trial, recall, on), low, high)


def _exact(found: float, number: float) -> tuple[float, float]:
    if not number > 0:
        return np.nan, np.nan
    return guarantee.clopper_pearson(int(found), int(number), LEVEL)


def _why(trial: pd.Series, recall: str, on: str) -> str:
    seeds = int(trial["num_seeds"])
    where = (
        "validation images"
        if on == "validation"
        else "the test images that it is judged on, as there are no validation images "
        "of the class, so its numbers promise too much"
    )
    return (
        f"picked on {where}: of the settings that keep cross-entropy's mean accuracy "
        f"and find the most (mean recall {trial[f'{recall}_mean']:.3f} over "
        f"{'1 seed' if seeds == 1 else f'{seeds} seeds'}, or within one image of "
        "that), the most accurate, and its most accurate seed"
    )


def _why_none(trials: pd.DataFrame, on: str) -> str:
    if trials["diverged"].all():
        return "every trial diverged"
    if trials.loc[trials["method"] == BASELINE, "diverged"].all():
        return "every trial of cross-entropy diverged, whose accuracy is to be kept"
    if not (trials[_on("chance", on)] < ALPHA / len(trials)).any():
        return (
            f"on {on} images no trial is shown to tell the important class from "
            "others better than chance"
        )
    return (
        f"on {on} images no trial that keeps cross-entropy's mean accuracy is "
        "shown to tell the important class from others better than chance"
    )


def title(line: pd.Series) -> str:
    """Returns a setting in words.

    Args:
      line: with `method`, hyperparameters and, if known, `moved`.

    >>> title(pd.Series({"method": "camri", "moved": True, "scale": 16.0}))
    'CAMRI s=16, threshold moved'
    """
    name = setting_text(line)
    return f"{name}, threshold moved" if line.get("moved", False) else name


def title_of(lines: pd.DataFrame) -> str:
    """Returns the setting of lines of one method, or if they have several, the method.

    Args:
      lines: with `method` and its hyperparameters.
    """
    if len(lines[POINT].drop_duplicates()) > 1:
        return METHODS[str(lines["method"].iloc[0])].label
    return title(lines.iloc[0].drop("moved", errors="ignore"))


def baseline_recall(rows: pd.DataFrame, num_classes: int) -> np.ndarray | None:
    """Returns the recall of each class under cross-entropy, the mean over trials.

    Args:
      rows: from `camri_jax.sweeps.rows.read`, of one fingerprint.
      num_classes: number of classes.

    Returns:
      `[num_classes]`, on validation images or, without any, on test images, NaN for a
      class without them; None without rows of cross-entropy.
    """
    chosen = rows[(rows["method"] == BASELINE) & ~rows["diverged"].eq(True)]
    for part in ("validation_confusion", "test_confusion"):
        confusions = [c for c in chosen[part] if c is not None]
        if confusions:
            recalls = [
                [float(measures(c, [k])["recall"]) for k in range(num_classes)]
                for c in confusions
            ]
            return np.mean(recalls, 0)
    return None
