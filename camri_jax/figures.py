"""The pictures, from the numbers of `camri_jax.analysis`."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from camri_jax.analysis import LABELS, describe, moved, trained

# Okabe and Ito's colours, told apart by colour-blind readers, each with a marker.
STYLES = {
    "cross_entropy": ("#000000", "o"),
    "weighted_cross_entropy": ("#e69f00", "^"),
    "real_world_weight_cross_entropy": ("#56b4e9", "v"),
    "wasserstein": ("#009e73", "D"),
    "l2_softmax": ("#0072b2", "P"),
    "arcface": ("#cc79a7", "s"),
    "camri": ("#d55e00", "*"),
}
"""Colour and marker of each method."""


def style(method: str) -> dict[str, str]:
    """Returns a method's look as matplotlib takes it; hollow if its threshold moved.

    >>> style("cross_entropy")["markerfacecolor"], style("camri+threshold")["marker"]
    ('#000000', '*')
    """
    colour, marker = STYLES[trained(method)]
    filled = method == trained(method)
    face = colour if filled else "white"
    return {"color": colour, "marker": marker, "markerfacecolor": face}


def recall_accuracy(settings: pd.DataFrame, selected: pd.DataFrame) -> Figure:
    """Draws recall of the important class against accuracy, a panel for each class.

    Every setting is a pale marker, the selected one of each method a full one with its
    standard deviations.

    Args:
      settings: from `camri_jax.analysis.settings`.
      selected: from `camri_jax.analysis.select`.

    Returns:
      The figure.
    """
    choices = list(dict.fromkeys(settings["important"]))
    figure = Figure(figsize=(3.2 + 4.6 * len(choices), 4.8), layout="constrained")
    panels = figure.subplots(1, len(choices), squeeze=False)[0]
    for panel, important in zip(panels, choices, strict=True):
        for name in [name for base in STYLES for name in (base, moved(base))]:
            look = style(name)
            size = 13 if look["marker"] == "*" else 8
            some = settings.query("important == @important and method == @name")
            panel.plot(
                some["accuracy"],
                some["recall"],
                linestyle="none",
                markersize=0.6 * size,
                alpha=0.3,
                **look,
            )
            best = selected.query("important == @important and method == @name")
            for _, line in best.iterrows():
                panel.errorbar(
                    line["accuracy"],
                    line["recall"],
                    xerr=np.nan_to_num(line["accuracy_std"]),
                    yerr=np.nan_to_num(line["recall_std"]),
                    markersize=size,
                    elinewidth=0.8,
                    linestyle="none",
                    label=f"{LABELS[name]}  {describe(line)}",
                    **look,
                )
            if name == "cross_entropy" and len(best):
                panel.axvline(
                    best["accuracy"].iloc[0], color="black", lw=0.8, ls=":", zorder=0
                )
        panel.set_title(f"important: {important}")
        panel.set_xlabel("accuracy, mean and std over seeds")
        panel.set_ylabel("recall of the important class")
        panel.spines[["top", "right"]].set_visible(False)
    handles, labels = panels[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Writes a figure to a file, with text that stays text in vector formats."""
    with mpl.rc_context({"svg.fonttype": "none"}):
        figure.savefig(path, dpi=150)
