"""What the page of evidence counts: differences to cross-entropy, from stored rows."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from camri_jax.evidence import study
from camri_jax.evidence.figures import looks
from camri_jax.evidence.statistics import interval, seeds_needed
from camri_jax.training.methods import BASELINE, METHODS

RESULTS = Path("../experiments/results")
COSINE = ("l2_softmax", "arcface", "camri")


def load(folder, important=None):
    return study.load(RESULTS / folder, important=important)


def settings(folder):
    return json.loads(load(folder).rows["settings"].iloc[0])


def paid(folder, kind="prices"):
    """By method, recall and seed: false alarms and those beyond cross-entropy's.

    Means over the important classes, each in turn. A recall that some class cannot be
    promised by some method is left out of that seed: means of other classes would
    stand beside each other.
    """
    trials = pd.read_parquet(RESULTS / folder / f"{kind}.parquet")
    keys = ["method", "asked", "seed"]
    numbers = ["false_alarms", "false_alarms_difference", "accuracy_difference"]
    found = trials.groupby(keys)[numbers].mean()
    counted = trials.dropna(subset="false_alarms").groupby(keys).size()
    return found[counted.reindex(found.index) == trials["important"].nunique()]


def beyond(folder, kind="prices"):
    """By method and recall: seeds, false alarms, and those beyond cross-entropy's."""
    lines = {}
    for key, group in paid(folder, kind).groupby(["method", "asked"]):
        differences = group["false_alarms_difference"].to_numpy()
        low, high, _ = interval(differences)
        lines[key] = {
            "seeds": len(group),
            "alarms": group["false_alarms"].mean(),
            "by": differences.mean(),
            "low": low,
            "high": high,
            "needed": seeds_needed(differences, abs(differences.mean())),
        }
    return pd.DataFrame(lines).T.rename_axis(["method", "asked"])


def _said(line, method):
    if method == BASELINE:
        return f"{line.alarms:.1f}"
    shown = line.low > 0 or line.high < 0
    text = f"{line.by:+.1f} [{line.low:+.1f}, {line.high:+.1f}]"
    return f"**{text}**" if shown else text


def table(folders, recalls, kind="prices", methods=COSINE):
    """Cross-entropy's false alarms, and what the others have beyond, with intervals."""
    lines = []
    for title, folder in folders.items():
        found = beyond(folder, kind)
        for asked in recalls:
            if (BASELINE, asked) not in found.index:
                continue
            line = {"": title, "recall": f"{asked:g}"}
            for method in (BASELINE, *methods):
                here = (method, asked) in found.index
                line[METHODS[method].label] = (
                    _said(found.loc[method, asked], method) if here else "–"
                )
            line["seeds"] = f"{found.loc[methods[-1], asked].seeds:.0f}"
            lines.append(line)
    return pd.DataFrame(lines)


def markdown(frame):
    """A frame as a table whose text keeps its marks."""
    rows = [list(frame), ["---"] * len(frame.columns), *frame.astype(str).to_numpy()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def by_recall(folders, kind="prices", methods=COSINE):
    """False alarms beyond cross-entropy's, over the recall, with intervals."""
    drawn = Figure(figsize=(9.0, 2.4 + 0.6), layout="constrained")
    places = drawn.subplots(1, len(folders), sharey=True, squeeze=False)[0]
    words = []
    for place, (title, folder) in zip(places, folders.items(), strict=True):
        found = beyond(folder, kind)
        recalls = sorted({asked for _, asked in found.index})
        x = np.arange(len(recalls))
        for method in methods:
            lines = found.loc[method].reindex(recalls)
            look = looks.style(method)
            place.plot(
                x, lines["by"], label=METHODS[method].label, lw=1.5, ms=5, **look
            )
            place.fill_between(
                x, lines["low"], lines["high"], color=look["color"], alpha=0.18, lw=0
            )
            words += [
                f"{title}, {METHODS[method].label}, {asked:g}: {by:+.1f}."
                for asked, by in lines["by"].items()
            ]
        place.axhline(0, color=looks.foreground(), lw=0.8)
        place.set_xticks(x, [f"{100 * asked:g}" for asked in recalls], fontsize=8)
        place.set_title(title, fontsize=9)
        place.spines[["top", "right"]].set_visible(False)
    places[0].set_ylabel("false alarms per 1,000\nbeyond cross-entropy's")
    drawn.supxlabel("share of the class that is found, %", fontsize=9)
    looks.legend(drawn, places, len(methods))
    said = "False alarms beyond cross-entropy's, by recall. "
    return looks.finish(drawn, said + " ".join(words))
