"""The tables: frames that hold every number, and sheets of cells that show them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from camri_jax._files import UsageError, fraction
from camri_jax.evidence import curves, selection, verdicts
from camri_jax.evidence.selection import KEY, OF_CLASS, Recommendation, title
from camri_jax.evidence.sheets import (
    Cell,
    Sheet,
    difference,
    mean,
    number,
    p_cell,
    signed,
)
from camri_jax.evidence.statistics import (
    ACCURACY_MARGIN,
    DIGITS,
    LEVEL,
    SAME,
    checked_accuracy_margin,
    seeds_needed,
)
from camri_jax.evidence.study import POINT, Choice, Study, point_text, setting_text
from camri_jax.training.methods import BASELINE, METHODS

FEW_IMAGES = 50
"""Test images of a class below which its recall is hardly known."""

IMAGES = {"held_out": "validation", "paper": "test"}
"""On which images each selection picks."""


# --- What a verdict rests on ---------------------------------------------------------


def comparison(
    study: Study, important: Choice, *, accuracy_margin: float = ACCURACY_MARGIN
) -> pd.DataFrame:
    """Returns the selected setting of each method with all that is known of it.

    Args:
      study: from `camri_jax.evidence.study.load`.
      important: the choice of important classes.
      accuracy_margin: loss of accuracy that counts as none.

    Returns:
      One line a selection (`selection`: "held_out", where there are validation images,
      and "paper") and method as trained or moved, with the columns of
      `camri_jax.evidence.selection.select`, `camri_jax.evidence.verdicts.paired`,
      `camri_jax.evidence.verdicts.at_own_recall` and `camri_jax.evidence.verdicts.
      claims`, whose corrections count every setting that was tried, selected or not.

    Raises:
      UsageError: without cross-entropy, or for a margin outside [0, 1).
    """
    checked_accuracy_margin(accuracy_margin)
    trials = selection.trials(study, important)
    settings = selection.settings(trials)
    picks = ["held_out", "paper"]
    if selection.held_out(settings) == "test":
        picks = ["paper"]
    table = pd.concat(
        [
            selection.select(settings, on=IMAGES[name]).assign(selection=name)
            for name in picks
        ],
        ignore_index=True,
    )
    if len(settings) > 1:
        compared = verdicts.paired(trials, accuracy_margin=accuracy_margin)
        above = verdicts.at_own_recall(curves.prices(study, important, None))
        compared = compared.merge(above, on=KEY, how="left", validate="one_to_one")
        known = verdicts.claims(compared)
        table = table.merge(known, on=KEY, how="left", validate="many_to_one")
    else:
        table = table.assign(verdict=None)
    lost = table["num_seeds"] == 0
    fallback = np.where(lost, "diverged", "baseline")
    verdict = table["verdict"].where(table["verdict"].notna(), fallback)
    return table.assign(verdict=verdict)


def chosen(table: pd.DataFrame) -> pd.DataFrame:
    """Returns the lines of `comparison` that were picked on held-out images, if any."""
    return table[table["selection"] == table["selection"].iloc[0]]


def remarks(table: pd.DataFrame, name: str) -> list[str]:
    """Returns sentences on what a comparison cannot show.

    Args:
      table: from `comparison`.
      name: of the important class.
    """
    # If all trials diverged, there is no more to say than that.
    if not table["num_seeds"].any():
        return []
    found = []
    if "held_out" not in set(table["selection"]):
        found.append(
            f"there are no validation images of {name}: settings are picked on the "
            "test images only, as in the paper, and no threshold is moved"
        )
    if not table.loc[table["method"] == BASELINE, "num_seeds"].any():
        found.append(
            "every trial of cross-entropy diverged: nothing is compared with it, and "
            "settings are picked by accuracy alone"
        )
    if set(table["method"]) == {BASELINE}:
        found.append(
            "there are rows of cross-entropy only, and none to compare it with"
        )
    if table["num_seeds"].max() < 2:
        found.append(
            "with one seed there is no interval, no standard deviation and no test"
        )
    number = table["num_important"].max()
    if not number > 0:
        found.append(f"there are no test images of {name}: nothing is known of it")
    elif number < FEW_IMAGES:
        found.append(
            f"all numbers of {name} rest on {number:.0f} test images of it: fewer than "
            f"{FEW_IMAGES} say little"
        )
    return found


def comparison_sheets(
    table: pd.DataFrame, name: str, *, accuracy_margin: float = ACCURACY_MARGIN
) -> list[Sheet]:
    """Lays out a comparison: selections, other measures, and differences.

    Args:
      table: from `comparison`.
      name: of the important class.
      accuracy_margin: that it was made with.
    """
    picked = IMAGES[table["selection"].iloc[0]]
    found = [_selections(table, name), _more_measures(chosen(table), name, picked)]
    if "lowest_recall" in table:
        found.append(_each_class(chosen(table), name, picked))
    if "recall_difference" in table:
        found.append(_differences(chosen(table), name, picked, accuracy_margin))
    return found


def _method(line: pd.Series, *, setting: bool = False) -> Cell:
    """A threshold moved stands under its method, and need not name it again."""
    name = METHODS[line["method"]].label
    own = point_text(line) if setting else ""
    if not line["moved"]:
        return Cell(f"{name} {own}".rstrip(), title(line))
    text = f"+ threshold {own}".rstrip()
    return Cell(f"  {text}", title(line), alone=f"{name} {text}")


def _selections(table: pd.DataFrame, name: str) -> Sheet:
    """Held-out selection beside the paper's rule."""
    by_selection = {
        key: group.set_index(["method", "moved"])
        for key, group in table.groupby("selection")
    }
    paper = by_selection["paper"]
    baseline = paper["accuracy"][BASELINE, False] - SAME
    trained = paper[
        paper["keeps_accuracy"] & ~paper.index.get_level_values("moved").to_numpy(bool)
    ]
    best = (
        trained["recall"].round(DIGITS).idxmax()
        if trained["recall"].notna().any()
        else None
    )
    rows = []
    for key in dict.fromkeys(zip(table["method"], table["moved"], strict=True)):
        line = paper.loc[key]
        row = [
            _method(
                table[(table["method"] == key[0]) & (table["moved"] == key[1])].iloc[0]
            )
        ]
        if "held_out" in by_selection:
            own = by_selection["held_out"].loc[key]
            loses = "loss" if own["accuracy"] < baseline else ""
            row += [_with_setting(own), mean(own, "accuracy")._replace(mark=loses)]
        if line["keeps_accuracy"]:
            recall = _with_setting(line)
            mark = "best" if key == best else ""
            row += [recall._replace(mark=mark), mean(line, "accuracy")]
        else:
            row += [Cell(), Cell()]
        rows.append(row)
    held_out = ["held-out\nrecall", "\naccuracy"] * ("held_out" in by_selection)
    return Sheet(
        f"Table I. Important class: {name}",
        "Test images, mean ± std over seeds. Paper's rule: of the settings that keep "
        "cross-entropy's accuracy on these very test images, the highest recall (of "
        "all as trained marked); blank where none does. Held-out: the same rule on "
        "validation images; ▼ accuracy below cross-entropy's.",
        ["method", *held_out, "paper's rule\nrecall", "\naccuracy"],
        rows,
    )


def _with_setting(line: pd.Series) -> Cell:
    cell = mean(line, "recall")
    return cell._replace(text=f"{cell.text}\n{point_text(line)}".rstrip())


def _more_measures(lines: pd.DataFrame, name: str, picked: str) -> Sheet:
    """What accuracy hides."""
    rows = [
        [
            _method(line, setting=True),
            *(number(line[x]) for x in ("precision", "f2", "other_recall")),
            number(line["false_alarms"], 1),
            number(line["num_seeds"], 0),
        ]
        for _, line in lines.iterrows()
    ]
    images = lines["num_important"].max()
    return Sheet(
        f"What accuracy hides. Important class: {name}",
        f"Settings picked on {picked} images. F2 counts recall twice as much as "
        "precision; false alarms are per 1,000 images; n seeds."
        + f" There are {images:,.0f} test images of the important class."
        * bool(images >= 0)
        + _partial(lines, ("precision", "f2", "other_recall", "false_alarms")),
        ["method, setting", "precision", "F2", "others'\nrecall", "false\nalarms", "n"],
        rows,
    )


def _each_class(lines: pd.DataFrame, name: str, picked: str) -> Sheet:
    """What the mean recall of several important classes hides."""
    important = lines["important"].iloc[0]
    each = [f"{OF_CLASS}{k}" for k in important]
    names = name.split("+")
    if len(names) != len(each):
        names = [f"class {k}" for k in important]
    rows = [
        [
            _method(line, setting=True),
            *(mean(line, x) for x in ("recall", "lowest_recall", *each)),
        ]
        for _, line in lines.iterrows()
    ]
    return Sheet(
        f"Recall of each class. Important classes: {name}",
        f"Settings picked on {picked} images by the mean of the classes' recalls; "
        "numbers of test images, mean ± std over seeds. Lowest: in each seed.",
        ["method, setting", "mean", "lowest", *names],
        rows,
    )


def _partial(lines: pd.DataFrame, names: Sequence[str]) -> str:
    """Says which means skip seeds that have no value."""
    found = [
        f"{name.replace('_', ' ')} of {title(line)} over {line[f'{name}_n']:.0f} of "
        f"{line['num_seeds']:.0f} seeds"
        for _, line in lines.iterrows()
        for name in names
        if 0 < line[f"{name}_n"] < line["num_seeds"]
    ]
    return f" Where a seed has no value it is left out: {'; '.join(found)}." * bool(
        found
    )


def _differences(
    lines: pd.DataFrame, name: str, picked: str, accuracy_margin: float
) -> Sheet:
    """Recall gained, accuracy lost, and accuracy above cross-entropy's own curve."""
    rows = [
        [
            _method(line, setting=True),
            difference(line, "recall"),
            difference(line, "accuracy"),
            p_cell(line["more_p_holm"]),
            difference(line, "above"),
            p_cell(line["better_p_holm"]),
        ]
        for _, line in lines.iterrows()
    ]
    return Sheet(
        f"Differences to cross-entropy. Important class: {name}",
        f"Settings picked on {picked} images. Mean over seeds, and Student's "
        f"{LEVEL:.0%} interval. First p: that recall is gained and less than "
        f"{accuracy_margin:g} of accuracy lost, at once. Above: accuracy above that "
        "of cross-entropy whose threshold is moved to the same recall; second p: that "
        "this is so too. Paired t-tests, the largest p of a claim's parts, corrected "
        "by Holm for all claims on all settings tried; ✓ shown at "
        f"{LEVEL:.0%}." + _shared(lines, "recall_pairs"),
        ["method, setting", "recall", "accuracy", "p", "above", "p"],
        rows,
    )


# --- What recalls cost ---------------------------------------------------------------


def prices_sheet(
    table: pd.DataFrame, name: str, *, confidence: float | None = None
) -> Sheet:
    """Lays out what recalls cost.

    Args:
      table: from `camri_jax.evidence.verdicts.price_differences`.
      name: of the important class.
      confidence: of the certificates by which thresholds were moved, if they were.
    """
    moved = (
        "Every threshold is moved, on the test images themselves, to where just the "
        "recall asked is reached."
        if confidence is None
        else "Every threshold is moved to where the calibration images certify the "
        f"recall asked, at {confidence:.0%} confidence."
    )
    rows = [
        [
            Cell(setting_text(line)),
            number(line["asked"]),
            _reached(line),
            mean(line, "false_alarms", 1),
            difference(line, "false_alarms", 1),
            p_cell(line["fewer_p_holm"]),
            mean(line, "accuracy"),
            difference(line, "accuracy"),
        ]
        for _, line in table.iterrows()
    ]
    return Sheet(
        f"The price of a recall. Important class: {name}",
        f"{moved} False alarms per 1,000 images and accuracy, mean ± "
        "std over seeds, and differences to cross-entropy at the same recall with "
        f"{LEVEL:.0%} interval; p: of fewer false alarms, corrected by Holm for this "
        "table; ✓ shown. Blank where a seed does not get there, or cross-entropy's "
        "does not." + _shared(table, "false_alarms_pairs"),
        [
            *("method", "recall", "seeds", "alarms", "difference", "p"),
            *("accuracy", "difference"),
        ],
        rows,
    )


def _reached(line: pd.Series) -> Cell:
    """How many seeds there are, and where not all get there, how many do."""
    of = f"{line['num_reached']} of " * bool(line["num_reached"] < line["num_seeds"])
    return Cell(f"{of}{line['num_seeds']}", float(line["num_reached"]))


def _shared(lines: pd.DataFrame, pairs: str) -> str:
    """Says which differences rest on fewer seeds than their line."""
    found = [
        f"of {title(line)} on {line[pairs]:.0f}"
        for _, line in lines.iterrows()
        if 0 < line[pairs] < line["num_seeds"]
    ]
    found = list(dict.fromkeys(found))
    told = "; ".join(found)
    return f" Differences rest on the seeds that both have: {told}." * bool(found)


# --- The one to use ------------------------------------------------------------------


class Advice(NamedTuple):
    """Sentences on the model to take, empty where there is nothing to say.

    Attributes:
      take: which, or that there is none.
      why: it was picked.
      finds: what it finds on test images, and what that costs.
      caveat: what to mind.
    """

    take: str
    why: str = ""
    finds: str = ""
    caveat: str = ""


def recommendation(picked: Recommendation, name: str) -> Advice:
    """Returns what is recommended, in sentences; all numbers are of test images.

    Args:
      picked: from `camri_jax.evidence.selection.recommend`.
      name: of the important class.
    """
    line = picked.trial
    if line is None:
        return Advice(f"No model is recommended: {picked.why}.")
    offset = f" (offset {line['offset']:+.3g})" if line["moved"] else ""
    named = title(line)
    if line["moved"] and line["offset"] == 0:
        named, offset = title(line.drop("moved")), " (its threshold stays)"
    take = f"Take {named}, seed {line['seed']}{offset}: trial {line['trial_id']}."
    why = f"It was {picked.why}."
    if not line["num_important"] > 0:
        return Advice(take, why, f"There are no test images of {name}.")
    finds = (
        f"On test images it finds {line['num_found']:.0f} of "
        f"{line['num_important']:.0f} of {name} ({line['recall']:.3f}; exact "
        f"{LEVEL:.0%} interval {picked.low:.3f} to {picked.high:.3f}) with "
        f"{line['false_alarms']:.1f} false alarms per 1,000 images"
        + ("" if pd.isna(line["precision"]) else f", precision {line['precision']:.3f}")
        + f" and accuracy {line['accuracy']:.3f}."
    )
    few = f"Fewer than {FEW_IMAGES} images of a class say little."
    return Advice(take, why, finds, few * bool(line["num_important"] < FEW_IMAGES))


# --- Table II ------------------------------------------------------------------------

WEIGHT = 4.0  # of WCE, in the paper
ANGLES = ["important_angle", "least", "median"]
"""Columns of Table II: of the important class, and of the others."""


def angles(
    study: Study, important: Choice, selected: pd.DataFrame
) -> tuple[pd.DataFrame, list[str]]:
    """Returns how far features spread about their prototype, in radians (Table II).

    Args:
      study: from `camri_jax.evidence.study.load`.
      important: the choice of important classes.
      selected: the setting of each method, from `camri_jax.evidence.selection.select`
        or `chosen`.

    Returns:
      One line a column of the paper's table: `column` (its name there), `method`,
      hyperparameters, `num_seeds`, and for each of `ANGLES` the mean over seeds and
      `..._std`: the standard deviation of the angle on test images, of the important
      class, and the least and the median of the others', taken within a trial. And
      sentences on columns that are absent.
    """
    spreads = _spreads(study.of(important), important)
    lines, missing = [], []
    for column, wanted in _columns(selected[~selected["moved"]].set_index("method")):
        trials = spreads if wanted else spreads[:0]
        for name, value in wanted.items():
            trials = trials[trials[name] == value]
        if trials.empty:
            missing.append(f"no rows of {column}, left out")
            continue
        line = {"column": column, **trials[["method", *POINT]].iloc[0]}
        line["num_seeds"] = len(trials)
        for name in ANGLES:
            line |= {name: trials[name].mean(), f"{name}_std": trials[name].std()}
        lines.append(line)
    return pd.DataFrame(lines), missing


def _columns(selected: pd.DataFrame) -> list[tuple[str, dict[str, Any]]]:
    """The paper's columns with what their trials must have, if that is known."""

    def setting(method: str) -> dict[str, Any]:
        if method not in selected.index:
            return {}
        own = selected.loc[[method], ["margin", "scale", "by_class"]].iloc[0].dropna()
        return {"method": method, **{str(name): own[name] for name in own.index}}

    camri = setting("camri")
    plain = {"method": "l2_softmax", "scale": camri["scale"]} if camri else {}
    return [
        ("CAMRI", camri),
        ("ArcFace", setting("arcface")),
        ("WCE", {"method": "weighted_cross_entropy", "weight": WEIGHT}),
        ("ArcFace (m=0)", plain),
        ("cross-entropy", {"method": BASELINE}),
    ]


def _spreads(rows: pd.DataFrame, important: Choice) -> pd.DataFrame:
    """Spreads of each trial; ArcFace of margin 0 counts as L2-softmax, too."""
    lines = []
    for _, row in rows[~rows["diverged"] & rows["angle_std"].notna()].iterrows():
        std = np.asarray(row["angle_std"], float)
        inside = std[list(important)]
        others = np.delete(std, list(important))
        inside, others = inside[~np.isnan(inside)], others[~np.isnan(others)]
        if len(inside) and len(others):
            numbers = (inside.mean(), others.min(), np.median(others))
            about = row[["method", *POINT, "seed"]]
            lines.append({**about, **dict(zip(ANGLES, numbers, strict=True))})
    spreads = pd.DataFrame(lines, columns=["method", *POINT, "seed", *ANGLES])
    zero = spreads[(spreads["method"] == "arcface") & (spreads["margin"] == 0)]
    spreads = pd.concat([spreads, zero.assign(method="l2_softmax", margin=np.nan)])
    return spreads.drop_duplicates(["method", *POINT, "seed"], ignore_index=True)


def angles_sheet(table: pd.DataFrame, name: str) -> Sheet:
    """Lays out Table II as the paper does.

    Args:
      table: from `angles`.
      name: of the important class.
    """
    titles = ("important", "others' min", "others' median")
    least = table[ANGLES].idxmin(axis=1)
    rows = [
        [
            Cell(text),
            *(
                mean(line, column)._replace(mark="best" if best == column else "")
                for best, (_, line) in zip(least, table.iterrows(), strict=True)
            ),
        ]
        for column, text in zip(ANGLES, titles, strict=True)
    ]
    headers = [
        f"{line['column']}\n{point_text(line)}".replace("-", "-\n", 1).rstrip()
        for _, line in table.iterrows()
    ]
    counts = sorted(set(table["num_seeds"]))
    seeds = f"{' or '.join(map(str, counts))} seed{'s' * (counts != [1])}"
    return Sheet(
        f"Table II. Important class: {name}",
        "Standard deviation of the angle (radians) between features and the prototype "
        f"of their class, test images; mean ± std over {seeds}. Of a "
        "column the smallest is marked.",
        ["class", *headers],
        rows,
    )


# --- How many seeds a claim needs ----------------------------------------------------


def power(
    trials: pd.DataFrame,
    *,
    effect: float | None = None,
    accuracy_margin: float = ACCURACY_MARGIN,
    power: float = 0.8,
    alpha: float = 0.05,
) -> pd.DataFrame:
    """Returns for each setting how many seeds its claims need.

    Args:
      trials: from `camri_jax.evidence.selection.trials`.
      effect: gain of recall to find; None takes the one observed.
      accuracy_margin: loss of accuracy that counts as none.
      power: chance of finding it.
      alpha: level of the tests; for k claims at once, divide it by k.

    Returns:
      One line a setting: `KEY`; `num_pairs` of the pilot; mean and `..._std` of the
      differences of `recall` and `accuracy`; `seeds_recall`, for a gain of recall;
      `seeds_accuracy`, for non-inferiority if the true difference is the one observed,
      and `seeds_accuracy_equal`, if it is zero; `seeds_claim`, for the gain and no loss
      at once, each of which may fail half as often. Infinite where no number will do,
      NaN where the pilot has no spread.

    Raises:
      UsageError: an argument is out of range, there is nothing to compare, or no
        setting shares two seeds with cross-entropy.
    """
    margin = checked_accuracy_margin(accuracy_margin)
    if effect is not None:
        fraction("effect", effect)

    def seeds(differences: pd.Series, effect: float, power: float = power) -> float:
        return seeds_needed(differences.to_numpy(), effect, power=power, alpha=alpha)

    lines = []
    for key, group in verdicts.by_setting(verdicts.differences(trials)):
        recall, accuracy = group["recall"].dropna(), group["accuracy"].dropna()
        gain = recall.mean() if effect is None else effect
        kept = accuracy.mean() + margin
        each = (1 + power) / 2
        lines.append(
            {
                **key,
                "num_pairs": len(recall),
                "recall": recall.mean(),
                "recall_std": recall.std(),
                "accuracy": accuracy.mean(),
                "accuracy_std": accuracy.std(),
                "seeds_recall": seeds(recall, gain),
                "seeds_accuracy": seeds(accuracy, kept),
                "seeds_accuracy_equal": seeds(accuracy, margin),
                "seeds_claim": np.max(
                    [seeds(recall, gain, each), seeds(accuracy, kept, each)]
                ),
            }
        )
    table = pd.DataFrame(lines)
    if table["num_pairs"].max() < 2:
        raise UsageError(
            "no setting shares two seeds with cross-entropy, which it takes to tell "
            "how much differences vary; train more seeds"
        )
    return table


def power_sheet(
    table: pd.DataFrame,
    name: str,
    *,
    effect: float | None = None,
    accuracy_margin: float = ACCURACY_MARGIN,
    power: float = 0.8,
    alpha: float = 0.05,
) -> Sheet:
    """Lays out how many seeds claims need.

    Args:
      table: from `power`, with the same arguments.
      name: of the important class.
      effect: see `power`.
      accuracy_margin: see `power`.
      power: see `power`.
      alpha: see `power`.
    """
    rows = [
        [
            _method(line, setting=True)
            if line["method"] != BASELINE
            else Cell("cross-entropy + threshold", title(line)),
            mean(line, "recall", form=signed),
            _seeds(line["seeds_recall"]),
            mean(line, "accuracy", form=signed),
            _seeds(line["seeds_accuracy"]),
            _seeds(line["seeds_accuracy_equal"]),
            _seeds(line["seeds_claim"]),
            number(line["num_pairs"], 0),
        ]
        for _, line in table.iterrows()
    ]
    gain = "the gain observed" if effect is None else f"{effect:g}"
    return Sheet(
        f"Seeds that a claim needs. Important class: {name}",
        "Differences to cross-entropy of the same seeds, mean ± std over n. Seeds to "
        f"find, with power {power:g} at level {alpha:g}: a gain of recall of {gain}; a "
        f"loss of accuracy below {accuracy_margin:g}, if the true difference is as "
        "observed, and if it is zero; and both at once. Of one setting alone: level "
        "and power of several tried are others. The fewer n, the less certain.",
        [
            *("setting", "recall", "seeds", "accuracy", "seeds"),
            *("seeds\nif equal", "seeds\nfor both", "n"),
        ],
        rows,
    )


def _seeds(number: float) -> Cell:
    """A count; blank where it is unknown, "never" where none will do."""
    if np.isnan(number):
        return Cell()
    return Cell("never" if np.isinf(number) else f"{number:,.0f}", number)
