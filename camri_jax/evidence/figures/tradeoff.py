"""The picture of what recall costs each method as its threshold is moved."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from camri_jax.evidence.curves import (
    BASELINE,
    RECALLS,
    compare,
    confusions,
    each,
    measures,
)
from camri_jax.evidence.figures.lines import of_setting
from camri_jax.evidence.figures.looks import foreground, style
from camri_jax.evidence.selection import LABELS, describe, trained
from camri_jax.evidence.verdicts import along_curve


def tradeoff(rows: pd.DataFrame, selected: pd.DataFrame) -> Figure:
    """Draws what recall costs as a constant is added to the important classes' logits.

    A curve for each method's selected setting: at each constant the mean over seeds of
    recall, and of accuracy or false alarms. Full markers are methods as trained, the
    constant being 0, hollow ones methods with a threshold picked for each seed. In the
    middle is what a verdict rests on: accuracy above that of cross-entropy of the same
    seed at the same recall, with its 95 % interval; thick where the one-sided t-test of
    that recall alone finds it positive.

    Args:
      rows: from `camri_jax.sweeps.rows.read`.
      selected: from `camri_jax.evidence.selection.select`.

    Returns:
      The figure; its label says in words what it shows.

    Raises:
      ValueError: every trial diverged.
    """
    rows = rows[~rows["diverged"].astype(bool)]
    choices = list(dict.fromkeys(selected["important"]))
    figure = Figure(figsize=(14, 1.2 + 4.2 * len(choices)), layout="constrained")
    places = figure.subplots(len(choices), 3, squeeze=False)
    told = []
    for important, row in zip(choices, places, strict=True):
        lines = selected.query("important == @important and num_seeds > 0")
        if lines.empty:
            raise ValueError(f"every trial diverged for important class {important}")
        told += _draw_choice(row, rows, lines)
        title = f"important: {important}; band: std of cross-entropy"
        row[0].set_title(title, fontsize="medium")
    handles, labels = places[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    figure.set_label(
        "Accuracy, accuracy above cross-entropy's curve, and false alarms against "
        "recall on test images as thresholds are moved. " + " ".join(told)
    )
    return figure


def _draw_choice(
    places: np.ndarray, rows: pd.DataFrame, lines: pd.DataFrame
) -> list[str]:
    """Draws the panels of one choice of important classes, and tells its points."""
    # As far as the points are apart, and a little more.
    start = max(0.0, lines["recall"].min() - 0.05)
    end = min(1.0, (1 + lines["recall"].max()) / 2)
    of_lines = [
        of_setting(rows, line)
        for _, line in lines.iterrows()
        if line["method"] == trained(line["method"])
    ]
    for place, measure, least in (
        (places[0], "accuracy", 0.02),
        (places[2], "false_alarms", 5.0),
    ):
        shown = list(lines[measure])
        # Where a threshold finds the whole class, its curve falls to no accuracy: not
        # further from the points than they are from each other.
        reach = max(max(shown) - min(shown), least)
        limits = min(shown) - reach, max(shown) + reach
        for own in of_lines:
            shown += _draw_curve(place, own, measure, (start, end))
        for _, line in lines.iterrows():
            _draw_point(place, line, measure)
        low, high = max(min(shown), limits[0]), min(max(shown), limits[1])
        room = 0.05 * (high - low) + 1e-3
        place.set_ylim(low - room, high + room)
    chosen = pd.concat(of_lines)
    grid = RECALLS[(start <= RECALLS) & (end >= RECALLS)]
    if set(chosen["method"]) > {BASELINE}:
        _draw_above(places[1], along_curve(compare(chosen, grid)))
    places[1].set_title("95 % interval; thick: above at 95 %", fontsize="medium")
    places[0].set_ylabel("accuracy")
    places[1].set_ylabel("accuracy above cross-entropy's curve")
    places[2].set_ylabel("false alarms per 1,000 images")
    for place in places:
        # A marker at a recall of 1 is whole.
        place.set(
            xlim=(start, end + 0.02 * (end - start)),
            xlabel="recall of the important class",
        )
        place.spines[["top", "right"]].set_visible(False)
    return [
        f"{LABELS[line['method']]}, {line['important']}: recall {line['recall']:.3f}, "
        f"accuracy {line['accuracy']:.3f}, {line['false_alarms']:.1f} false alarms."
        for _, line in lines.iterrows()
    ]


def _draw_curve(
    place: Axes, rows: pd.DataFrame, measure: str, limits: tuple[float, float]
) -> list[float]:
    """Draws the means over seeds at each constant, and returns those within limits."""
    each_seed = [measures(confusions(row, "test"), row.important) for row in each(rows)]
    recall = np.mean([numbers["recall"] for numbers in each_seed], 0)
    values = np.array([numbers[measure] for numbers in each_seed])
    method, mean = str(rows["method"].iloc[0]), values.mean(0)
    colour = style(method)["color"]
    place.plot(recall, mean, color=colour, lw=1.3)
    if method == BASELINE and len(values) > 1:
        # One band for scale: those of all methods would cover each other.
        std = values.std(0, ddof=1)
        place.fill_between(
            recall, mean - std, mean + std, color=colour, alpha=0.1, lw=0
        )
    return list(mean[(recall >= limits[0]) & (recall <= limits[1])])


def _draw_point(place: Axes, line: pd.Series, measure: str) -> None:
    look = style(line["method"])
    name = f"{LABELS[line['method']]} {describe(line)}".rstrip()
    place.plot(
        line["recall"],
        line[measure],
        ls="none",
        markersize=12 if look["marker"] == "*" else 8,
        label=f"{name}, n={line['num_seeds']}",
        **look,
    )


def _draw_above(place: Axes, along: pd.DataFrame) -> None:
    place.axhline(0, color=foreground(), lw=1)
    for method, line in along.groupby("method", sort=False):
        look = style(trained(str(method)))
        difference = line["accuracy_difference"]
        place.plot(
            line["recall"],
            difference,
            color=look["color"],
            lw=1.2,
            marker=look["marker"],
            markevery=4,
        )
        place.plot(
            line["recall"], difference.where(line["above"]), color=look["color"], lw=4
        )
        place.fill_between(
            line["recall"],
            line["accuracy_low"],
            line["accuracy_high"],
            color=look["color"],
            alpha=0.1,
            lw=0,
        )
