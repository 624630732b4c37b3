"""The report's words: the answer, what is shown, settings, and where rows come from."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from camri_jax.evidence import sheets, tables
from camri_jax.evidence.selection import Recommendation, title
from camri_jax.evidence.sheets import Cell, Sheet
from camri_jax.evidence.statistics import DIGITS, LEVEL, p_text, shown
from camri_jax.evidence.study import POINT, Choice, Study, point_of, same_point
from camri_jax.evidence.verdicts import VERDICTS
from camri_jax.training.methods import BASELINE, HYPERPARAMETERS, METHODS, Point

GLOSSARY = {
    "recall": "Of the images of a class, the share that is found. For several "
    "important classes: the mean of theirs.",
    "false alarms": "Images of other classes that are taken for the important one, per "
    "1,000 images of all classes, as often as they come in these data.",
    "precision": "Of the images taken for the important class, the share that is.",
    "accuracy": "Of all images, the share whose class is predicted correctly.",
    "threshold moved": "After training, an offset is added to the logit of the "
    "important class: more is found, with more false alarms. Any network can have one, "
    "without being trained again.",
    "as trained": "Without such an offset.",
    "seed": "Where a training starts from. The same settings with another seed give "
    "another network; ± is the standard deviation over seeds.",
    "validation images": "They pick settings and offsets. Test images then price what "
    "was picked, and had no part in it.",
    "calibration images": "They certify a recall, and pick nothing.",
    "shown at 95 %": "The p-value, corrected for all that was tried, is below 0.05: "
    "if there were nothing to it, so much would be seen in fewer than one sweep of "
    "twenty. Not shown does not mean not so.",
    "interval": "With other seeds the mean would lie in it in 95 of 100 sweeps. It "
    "speaks of other trainings, not of other images; only the exact interval of the "
    "recommended model speaks of other images.",
}

# A verdict's sign and words, in the order in which a column of them is sorted.
_SIGNS = {
    "baseline": "• reference",
    "better": "✓ better than a moved threshold",
    "more": "✓ finds more, keeps accuracy",
    "more_only": "◐ finds more, not shown to beat a moved threshold",
    "not_shown": "○ nothing shown",
    "diverged": "✕ every trial diverged",
}


class Group(NamedTuple):
    """Sentences that have in common whether they are shown."""

    title: str
    mark: str
    kind: str
    sentences: Sequence[str]


class Answer(NamedTuple):
    """What stands first.

    Attributes:
      lead: what to take.
      sentences: what it finds and what it costs.
      findings: what is shown, and what is not.
      warnings: what to mind.
    """

    lead: str
    sentences: Sequence[str]
    findings: Sequence[Group]
    warnings: Sequence[str]


class Origin(NamedTuple):
    """A command that made rows, and facts on where and when."""

    command: str
    facts: dict[str, str]


def answer(
    table: pd.DataFrame,
    picked: Recommendation,
    name: str,
    *,
    accuracy_margin: float,
    notes: Sequence[str] = (),
) -> Answer:
    """Returns what to take, what it finds and costs, and what is not shown.

    Args:
      table: from `camri_jax.evidence.tables.comparison`.
      picked: from `camri_jax.evidence.selection.recommend`.
      name: of the important class.
      accuracy_margin: that the table was made with.
      notes: sentences on the rows, from `camri_jax.evidence.study.notes`.
    """
    advice = tables.recommendation(picked, name)
    chosen = tables.chosen(table)
    costs = "" if picked.trial is None else _costs(chosen)
    mind = [*notes, *tables.remarks(table, name)]
    warnings = [f"{text[0].upper()}{text[1:].removesuffix('.')}." for text in mind]
    return Answer(
        advice.take,
        [*filter(None, (advice.finds, costs, advice.caveat, advice.why))],
        findings(chosen, picked.trial, accuracy_margin),
        warnings,
    )


def _costs(chosen: pd.DataFrame) -> str:
    """Cross-entropy's numbers, which the recommended model's are read against."""
    line = chosen[(chosen["method"] == BASELINE) & ~chosen["moved"]].iloc[0]
    if np.isnan(line["recall"]):
        return ""
    return (
        f"Cross-entropy as trained, mean over {_seeds(line['num_seeds'])}: recall "
        f"{line['recall']:.3f}, {line['false_alarms']:.1f} false alarms per 1,000 "
        f"images, accuracy {line['accuracy']:.3f}."
    )


def findings(
    chosen: pd.DataFrame, trial: pd.Series | None, accuracy_margin: float
) -> list[Group]:
    """Returns what is claimed of settings, by whether it is shown.

    Args:
      chosen: from `camri_jax.evidence.verdicts.claims`, the lines to tell of.
      trial: the recommended one, whose setting is always named.
      accuracy_margin: that the claims were made with.
    """
    if "more_p_holm" not in chosen:
        return []
    claims = {
        f"finds more than cross-entropy as trained and loses less than "
        f"{accuracy_margin:g} of accuracy": "more_p_holm",
        "does so, and is more accurate than cross-entropy whose threshold is moved to "
        "the same recall": "better_p_holm",
    }
    is_shown, not_shown = [], []
    for claim, column in claims.items():
        tested = chosen[chosen[column].notna()].sort_values(column, kind="stable")
        holds = np.array([shown(p) for p in tested[column]], bool)
        if holds.any():
            named = _named(tested[holds], column)
            is_shown.append(f"That it {claim}: {'; '.join(named)}.")
        if len(rest := tested[~holds]):
            # All of them stand in a table below; here the likeliest and the one to use.
            few = rest[_is_taken(rest, trial) | (np.arange(len(rest)) < 2)]
            named = _named(few, column)
            if more := len(rest) - len(few):
                named.append(f"and {more} more, none of lower p")
            not_shown.append(f"That it {claim}: {'; '.join(named)}.")
    untested = chosen[chosen["verdict"].isin(["untested", "unpaired", "no_images"])]
    reasons = [
        f"{'; '.join(title(line) for line in _of(lines))}: {VERDICTS[str(verdict)]}."
        for verdict, lines in untested.groupby("verdict", sort=False)
    ]
    level = f"{100 * LEVEL:g} %"
    found = [
        Group(f"Shown at {level}", "✓", "shown", is_shown),
        Group(f"Not shown at {level}", "○", "", not_shown),
        Group("Not tested", "?", "", reasons),
    ]
    return [group for group in found if group.sentences]


def _of(lines: pd.DataFrame) -> list[pd.Series]:
    return [line for _, line in lines.iterrows()]


def _named(lines: pd.DataFrame, column: str) -> list[str]:
    return [f"{title(line)} (p {_p(line[column])})" for line in _of(lines)]


def _p(p_value: float) -> str:
    text = p_text(p_value)
    return text.replace("<", "< ") if text.startswith("<") else f"= {text}"


def _seeds(number: float) -> str:
    return "1 seed" if number == 1 else f"{number:.0f} seeds"


def ranked(table: pd.DataFrame, picked: Recommendation) -> tuple[Sheet, int | None]:
    """Returns one table of all methods, and the row of the recommended one.

    Those that keep cross-entropy's accuracy come first, of these those that find the
    most, then those of the fewest false alarms.

    Args:
      table: from `camri_jax.evidence.tables.comparison`.
      picked: from `camri_jax.evidence.selection.recommend`.
    """
    chosen = tables.chosen(table)
    keeps = chosen["keeps_accuracy"].astype(bool)
    to_keep = chosen.loc[chosen["method"] == BASELINE, "num_seeds"].any()
    chosen = chosen.assign(
        _keeps=~keeps,
        _recall=-chosen["recall"].round(DIGITS),
        _alarms=chosen["false_alarms"],
    ).sort_values(["_keeps", "_recall", "_alarms"], kind="stable", na_position="last")
    number = chosen["num_important"].max()
    rows = []
    for line in _of(chosen):
        loses = to_keep and line["num_seeds"] and not line["keeps_accuracy"]
        rows.append(
            [
                Cell(title(line).replace(", threshold", "\nthreshold"), title(line)),
                sheets.mean(line, "recall"),
                sheets.mean(line, "false_alarms", 1),
                sheets.mean(line, "precision"),
                sheets.mean(line, "accuracy")._replace(mark="loss" if loses else ""),
                sheets.number(line["num_seeds"], 0),
                _verdict(str(line["verdict"])),
            ]
        )
    picking = tables.IMAGES[table["selection"].iloc[0]]
    images = f"; recall of {number:.0f} images" if number > 0 else ""
    sheet = Sheet(
        "All methods, best first",
        f"Settings and thresholds picked on {picking} images; numbers of test images, "
        f"mean ± std over seeds{images}. First those that keep cross-entropy's "
        "accuracy on the images that pick (▼ those that do not), by recall, then false "
        "alarms.",
        [
            *("method and setting", "recall", "false alarms\nper 1,000", "precision"),
            *("accuracy", "seeds", "against cross-entropy"),
        ],
        rows,
    )
    taken = np.flatnonzero(_is_taken(chosen, picked.trial))
    return sheet, int(taken[0]) if len(taken) else None


def _is_taken(lines: pd.DataFrame, trial: pd.Series | None) -> np.ndarray:
    """Which lines are of a trial's method and hyperparameters."""
    if trial is None:
        return np.zeros(len(lines), bool)
    return same_point(lines, trial, ["method", "moved", *POINT]).to_numpy()


def _verdict(key: str) -> Cell:
    order = [*_SIGNS].index(key) if key in _SIGNS else len(_SIGNS)
    return Cell(_SIGNS.get(key, "? not tested"), order)


def settings(study: Study, choices: Sequence[Choice]) -> dict[str, str]:
    """Returns what all trials have in common, by name.

    Args:
      study: from `camri_jax.evidence.study.load`.
      choices: of important classes.
    """
    facts = {
        "data set": study.data.dataset,
        "classes": str(len(study.data.class_names)),
    }
    for part, labels in study.data.labels.items():
        own = (
            f"{np.isin(labels, choice).sum():,} of {study.name(choice)}"
            for choice in choices
        )
        text = f"{len(labels):,} ({', '.join(own)})"
        facts[f"{part} images"] = text if len(labels) else "none"
    for name, value in json.loads(study.rows["settings"].iloc[0] or "{}").items():
        if name != "dataset":
            facts[name.replace("_", " ")] = _text(value)
    return facts


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " x ".join(map(str, value))
    return "default" if value is None else str(value)


def grid(rows: pd.DataFrame) -> Sheet:
    """Returns the hyperparameters that were tried, of all methods.

    Args:
      rows: from `camri_jax.sweeps.rows.read`.
    """
    lines, points = [], rows.drop_duplicates(["method", *POINT])
    known = [(line["method"], point_of(line)) for _, line in points.iterrows()]
    tried = [name for name in HYPERPARAMETERS if any(name in own for _, own in known)]
    for method in (name for name in METHODS if name in set(rows["method"])):
        group = rows[rows["method"] == method]
        label = METHODS[method].label
        own = [point for its, point in known if its == method]
        values = [_values(own, name) for name in tried]
        counts = (group["seed"].nunique(), group["trial_id"].nunique())
        numbers = (sheets.number(count, 0) for count in counts)
        lines.append([Cell(label, label), *values, *numbers])
    return Sheet(
        "Hyperparameters tried",
        "The values that were trained of each method, and how many seeds and trials.",
        ["method", *tried, "seeds", "trials"],
        lines,
    )


def _values(points: Sequence[Point], name: str) -> Cell:
    values = sorted({tuple(np.ravel(own[name])) for own in points if name in own})
    if not values:
        return Cell()
    between = "; " if any(len(value) > 1 for value in values) else ", "
    texts = map(HYPERPARAMETERS[name].text, values)
    return Cell(between.join(texts), values[0][0])


def origins(rows: pd.DataFrame) -> list[Origin]:
    """Returns the commands that made rows, each once, with where and when it ran.

    Args:
      rows: from `camri_jax.sweeps.rows.read`.
    """
    parsed = [json.loads(text or "{}") for text in rows["provenance"]]
    frame = pd.DataFrame(
        {
            "command": [fact.get("command") or "unknown" for fact in parsed],
            "commit": [fact.get("commit") or "unknown" for fact in parsed],
            "device": [_device(fact) for fact in parsed],
            "versions": [
                ", ".join(f"{k} {v}" for k, v in fact.get("versions", {}).items())
                for fact in parsed
            ],
            "time": [fact.get("time") or "unknown" for fact in parsed],
        }
    ).astype(str)
    found = []
    by = ["command", "commit", "device", "versions"]
    for key, group in frame.groupby(by, sort=False):
        command, commit, device, versions = map(str, key)
        times = sorted(set(group["time"]))
        facts = {
            "trials": f"{len(group):,}",
            "started": " to ".join(dict.fromkeys((times[0], times[-1]))),
            "commit": commit,
            "device": device,
            "versions": versions,
        }
        found.append(Origin(command, {k: v for k, v in facts.items() if v}))
    return found


def _device(fact: dict[str, Any]) -> str:
    return f"{fact.get('num_devices', 1)} x {fact.get('device', 'unknown')}"
