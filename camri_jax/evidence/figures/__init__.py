"""The pictures, from the numbers of `camri_jax.evidence.selection` and `camri_jax.evidence.curves`.

Each function returns a matplotlib figure whose label is a text in its place, for those
who do not see it.
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from camri_jax.evidence.figures.confusions import confusion_matrices
from camri_jax.evidence.figures.lines import penalties, training
from camri_jax.evidence.figures.looks import STYLES, foreground, save, style
from camri_jax.evidence.figures.tradeoff import tradeoff
from camri_jax.evidence.selection import LABELS, describe, moved

__all__ = [
    "STYLES",
    "confusion_matrices",
    "penalties",
    "recall_accuracy",
    "save",
    "style",
    "tradeoff",
    "training",
]


def recall_accuracy(settings: pd.DataFrame, selected: pd.DataFrame) -> Figure:
    """Draws recall of the important class against accuracy, a panel for each class.

    Every setting is a pale marker, the selected one of each method a full one with its
    standard deviations.

    Args:
      settings: from `camri_jax.evidence.selection.settings`.
      selected: from `camri_jax.evidence.selection.select`.

    Returns:
      The figure; its label says in words what it shows.
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
                    best["accuracy"].iloc[0],
                    color=foreground(),
                    lw=0.8,
                    ls=":",
                    zorder=0,
                )
        panel.set_title(f"important: {important}")
        panel.locator_params(axis="x", nbins=5)
        panel.set_xlabel("accuracy, mean and std over seeds")
        panel.set_ylabel("recall of the important class")
        panel.spines[["top", "right"]].set_visible(False)
    handles, labels = panels[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False)
    figure.set_label(
        "Recall of the important class against accuracy on test images. "
        + " ".join(
            f"{LABELS[line['method']]}, {line['important']}: recall "
            f"{line['recall']:.3f}, accuracy {line['accuracy']:.3f}."
            for _, line in selected.iterrows()
        )
    )
    return figure
