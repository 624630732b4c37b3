"""Recall and accuracy after each epoch."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from camri_jax._files import UsageError
from camri_jax.evidence.figures import looks
from camri_jax.evidence.selection import title
from camri_jax.evidence.study import same_point

_FEW = 3  # methods whose bands can be told apart


def training(
    rows: pd.DataFrame, selected: pd.DataFrame, important: Sequence[int], name: str
) -> Figure:
    """Draws recall and accuracy after each epoch, of each method's selected setting.

    The line is the mean over seeds; for three methods or fewer a band reaches from the
    lowest seed to the highest, with ten or more over the middle 80 %.

    Args:
      rows: for that choice of important classes, from
        `camri_jax.evidence.study.Study.of`.
      selected: from `camri_jax.evidence.selection.select`.
      important: indices of the important classes.
      name: of the important class.

    Returns:
      The figure; its label says in words what it shows.

    Raises:
      UsageError: every trial diverged.
    """
    selected = selected[~selected["moved"].astype(bool)]
    found = [
        (line, *_histories(own, important))
        for _, line in selected.iterrows()
        if len(own := _of_setting(rows, line))
    ]
    if not found:
        raise UsageError("every trial diverged: there is no training to draw")
    held_out = rows["validation_confusion"].notna().all()
    images = "validation images" if held_out else "test images"
    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    places = figure.subplots(1, 2)
    told = []
    for line, epochs, recall, accuracy in found:
        look, step = looks.style(line["method"]), max(1, len(epochs) // 8)
        label = f"{title(line)}, n={len(recall)}"
        for place, values in zip(places, (recall, accuracy), strict=True):
            if len(found) <= _FEW:
                looks.band(place, epochs, values, look)
            mean = values.mean(0)
            place.plot(
                epochs, mean, label=label, markevery=step, markersize=5, lw=1.6, **look
            )
        told.append(
            f"{title(line)}: recall {recall[:, -1].mean():.3f}, accuracy "
            f"{accuracy[:, -1].mean():.3f} after the last epoch."
        )
    labels = (f"recall of {looks.plain(name)}", "accuracy")
    for place, label in zip(places, labels, strict=True):
        place.set(xlabel="epoch", ylabel=f"{label},\n{images}")
        place.xaxis.set_major_locator(MaxNLocator(integer=True))
        low, high = place.get_ylim()
        place.set_ylim(max(low, -0.01), min(high, 1.01))
        place.grid(axis="y", color=looks.foreground(), alpha=0.15, lw=0.6)
        place.spines[["top", "right"]].set_visible(False)
    looks.legend(figure, places, columns=3)
    return looks.finish(
        figure, f"Training curves of {name} on {images}. " + " ".join(told)
    )


def _of_setting(rows: pd.DataFrame, line: pd.Series) -> pd.DataFrame:
    """Rows of a line's method and hyperparameters that did not diverge."""
    own = rows[(rows["method"] == line["method"]) & ~rows["diverged"].astype(bool)]
    return own[same_point(own, line)]


def _histories(
    rows: pd.DataFrame, important: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Epochs, recalls and accuracies `[seed, epoch]`."""
    epochs = np.asarray(rows["history_epoch"].iloc[0])
    accuracy = np.stack([np.asarray(values) for values in rows["history_accuracy"]])
    recall = np.stack(
        [
            np.reshape(values, (len(epochs), -1))[:, list(important)].mean(1)
            for values in rows["history_recall"]
        ]
    )
    return epochs, recall, accuracy
