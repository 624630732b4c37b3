"""The report's words: verdicts on methods, settings, and where rows come from."""

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from camri_jax.evidence.curves import BASELINE, POINT, confusions, each
from camri_jax.evidence.selection import LABELS, describe
from camri_jax.evidence.statistics import LEVEL

_LEVEL = f"{100 * LEVEL:g} %"


class Table(NamedTuple):
    """A table of text; what stands between two pairs of asterisks is marked.

    Attributes:
      title: its heading.
      caption: what it shows.
      columns: their names; the first is of text, the others of numbers.
      rows: their cells.
    """

    title: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


class Finding(NamedTuple):
    """What is known of a method: its name, the verdict, and sentences of numbers."""

    method: str
    verdict: str
    sentences: Sequence[str]


class Origin(NamedTuple):
    """A command that made rows, and facts on where and when."""

    command: str
    facts: dict[str, str]


def finding(line: pd.Series, margin: float) -> Finding:
    """Returns what a method's selected setting shows against cross-entropy.

    Args:
      line: of the selected setting: columns of `camri_jax.evidence.selection.select`,
        `camri_jax.evidence.verdicts.paired` and `camri_jax.evidence.verdicts.at_own_recall`; without
        the last for a method whose threshold is moved.
      margin: loss of accuracy that counts as none.
    """
    name = f"{LABELS[line['method']]} {describe(line)}".rstrip()
    if np.isnan(line["recall"]):
        return Finding(name, "every trial diverged", [])
    sentences = [
        f"Recall {_with_std(line, 'recall')} at accuracy {_with_std(line, 'accuracy')} "
        f"over {_seeds(line['num_seeds'])}."
    ]
    if line["method"] == BASELINE:
        return Finding(name, "what the others are compared with", sentences)
    if line["num_pairs"] == 0:
        why = "not compared: it shares no seed with cross-entropy"
        return Finding(name, why, sentences)
    sentences += [
        f"Recall {_change(line, 'recall')} than cross-entropy's: a gain "
        f"{_shown(line, 'recall')}.",
        f"Accuracy {_change(line, 'accuracy')}: a loss of less than {margin:g} "
        f"{_shown(line, 'accuracy')}.",
    ]
    if not np.isnan(line["above_difference"]):
        sentences.append(
            f"Accuracy {_change(line, 'above')} than that of cross-entropy whose "
            f"threshold is moved to the same recall: a curve above cross-entropy's own "
            f"{_shown(line, 'above')}{_below(line)}."
        )
    return Finding(name, _verdict(line), sentences)


def _verdict(line: pd.Series) -> str:
    if line["num_pairs"] < 2:
        return "not tested: one seed has no spread"
    gains, keeps, above = (
        line[f"{name}_p_holm"] < 1 - LEVEL for name in ("recall", "accuracy", "above")
    )
    if not gains:
        return f"no gain of recall is shown at {_LEVEL}"
    if not keeps:
        return (
            "finds more than cross-entropy as trained, but is not shown to keep "
            "accuracy"
        )
    if np.isnan(line["above_difference"]):
        return "finds more than cross-entropy as trained, and keeps accuracy"
    if not above:
        return (
            "finds more than cross-entropy as trained and keeps accuracy, but is not "
            "shown to do better than moving cross-entropy's threshold"
        )
    return (
        "finds more than cross-entropy as trained, keeps accuracy, and does better "
        "than moving cross-entropy's threshold"
    )


def _with_std(line: pd.Series, name: str) -> str:
    std = line[f"{name}_std"]
    return f"{line[name]:.3f}" + ("" if np.isnan(std) else f" ± {std:.3f}")


def _seeds(number: int) -> str:
    return "1 seed" if number == 1 else f"{number} seeds"


def _change(line: pd.Series, name: str) -> str:
    mean, low, high = (line[f"{name}_{end}"] for end in ("difference", "low", "high"))
    text = f"{abs(mean):.3f} {'lower' if mean < 0 else 'higher'}"
    if np.isnan(low):
        return text
    return f"{text} ({_LEVEL} interval {_signed(low)} to {_signed(high)})"


def _signed(value: float) -> str:
    text = f"{value:+.3f}"
    return "0.000" if float(text) == 0 else text


def _shown(line: pd.Series, name: str) -> str:
    p = line[f"{name}_p_holm"]
    if np.isnan(p):
        return "cannot be tested, for want of spread"
    text = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    return f"is {'' if p < 1 - LEVEL else 'not '}shown at {_LEVEL} ({text})"


def _below(line: pd.Series) -> str:
    return "; the interval lies below it" if line["above_high"] < 0 else ""


def settings(rows: pd.DataFrame) -> dict[str, str]:
    """Returns what all trials have in common, by name.

    Args:
      rows: from `camri_jax.sweeps.rows.read`, trained with the same settings.
    """
    row = next(each(rows))
    facts = {
        "data set": row.dataset,
        "classes": str(len(row.class_names)),
        "test images": _images(row, "test"),
        "validation images": _images(row, "validation"),
    }
    for name, value in json.loads(row.settings).items():
        if name != "dataset":
            facts[name.replace("_", " ")] = _text(value)
    return facts


def _images(row: Any, part: str) -> str:
    curve = confusions(row, part)
    return "none" if curve is None else f"{curve[0].sum():,}"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " x ".join(map(str, value))
    return "default" if value is None else str(value)


def grid(rows: pd.DataFrame) -> Table:
    """Returns the hyperparameters that were tried, of all methods.

    Args:
      rows: from `camri_jax.sweeps.rows.read`.
    """
    lines = []
    for method in (name for name in LABELS if name in set(rows["method"])):
        group = rows[rows["method"] == method]
        values = [
            _values(group[name], 64 / np.pi if name == "margin" else 1)
            for name in POINT
        ]
        seeds, trials = group["seed"].nunique(), group["trial_id"].nunique()
        lines.append([LABELS[method], *values, str(seeds), str(trials)])
    return Table(
        "Hyperparameters tried",
        "The values that were trained of each method, and how many seeds and trials.",
        ["method", "margin, in π/64", *POINT[1:], "seeds", "trials"],
        lines,
    )


def _values(column: pd.Series, factor: float) -> str:
    values = sorted(column.dropna().unique() * factor)
    return ", ".join(f"{value:.4g}" for value in values)


def origins(rows: pd.DataFrame) -> list[Origin]:
    """Returns the commands that made rows, each once, with where and when it ran.

    Args:
      rows: from `camri_jax.sweeps.rows.read`.
    """
    return list(_origins(rows.drop_duplicates("trial_id")))


def _origins(rows: pd.DataFrame) -> Iterator[Origin]:
    parsed = [json.loads(text) for text in rows["provenance"]]
    frame = pd.DataFrame(
        {
            "command": [fact.get("command", "unknown") for fact in parsed],
            "commit": [fact.get("commit") or "unknown" for fact in parsed],
            "device": [_device(fact) for fact in parsed],
            "versions": [
                ", ".join(f"{k} {v}" for k, v in fact.get("versions", {}).items())
                for fact in parsed
            ],
            "time": [fact.get("time", "unknown") for fact in parsed],
        }
    )
    for (command, commit, device, versions), group in frame.groupby(
        ["command", "commit", "device", "versions"], sort=False
    ):
        times = sorted(set(group["time"]))
        yield Origin(
            str(command),
            {
                "trials": f"{len(group):,}",
                "started": " to ".join(dict.fromkeys((times[0], times[-1]))),
                "commit": str(commit),
                "device": str(device),
                "versions": str(versions),
            },
        )


def _device(fact: dict[str, Any]) -> str:
    return f"{fact.get('num_devices', 1)} x {fact.get('device', 'unknown')}"
