"""Confusion matrices as pictures: one whole, and what others change of it."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from camri_jax.evidence.curves import BASELINE, POINT, confusions, each
from camri_jax.evidence.selection import LABELS, describe

_FEW = 12
"""Classes up to which every cell has its number."""


def confusion_matrices(
    rows: pd.DataFrame,
    trials: pd.DataFrame,
    selected: pd.DataFrame,
    method: str = "camri",
) -> Figure:
    """Draws cross-entropy's confusion matrix, and the differences to it, as in Fig. 4.

    Rows are true classes and add to 100 %; each is the mean over trials, on test
    images. A difference is the method's matrix, in its selected setting, minus
    cross-entropy's, in percentage points; its important class is framed.

    Args:
      rows: from `camri_jax.sweeps.rows.read`.
      trials: from `camri_jax.evidence.selection.trials`.
      selected: from `camri_jax.evidence.selection.select`.
      method: the method; one with its threshold moved will do.

    Returns:
      The figure; its label says in words what it shows.

    Raises:
      ValueError: there are no trials of the method or of cross-entropy that did not
        diverge.
    """
    names = list(rows["class_names"].iloc[0])
    choices = list(dict.fromkeys(selected["important"]))
    baseline = _mean(rows, trials, selected, BASELINE, choices[0])
    changes = [_mean(rows, trials, selected, method, choice) for choice in choices]
    few = len(names) <= _FEW
    columns = min(2, 1 + len(changes)) if few else 1
    height = -(-(1 + len(changes)) // columns)
    side = 1.8 + (0.42 if few else 0.19) * len(names)
    figure = Figure(
        figsize=((side + 1.0) * columns, side * height), layout="constrained"
    )
    places = figure.subplots(height, columns, squeeze=False).flatten()
    image = _draw(places[0], baseline.shares, names, "Blues", (0, 100))
    places[0].set_title(baseline.title)
    figure.colorbar(image, ax=places[0], label="% of the true class", shrink=0.7)
    told = []
    differences = [change.shares - baseline.shares for change in changes]
    most = max(np.nanmax(np.abs(difference)) for difference in differences)
    for place, change, difference in zip(
        places[1:], changes, differences, strict=False
    ):
        limits = (-max(most, 1e-3), max(most, 1e-3))
        image = _draw(place, difference, names, "PuOr", limits, change.important)
        place.set_title(f"{change.title}\nminus cross-entropy")
        figure.colorbar(image, ax=place, label="percentage points", shrink=0.7)
        told += [_tell(change, difference, names, k) for k in change.important]
    for place in places[1 + len(changes) :]:
        place.set_axis_off()
    figure.set_label(
        "Confusion matrix of cross-entropy on test images, and differences to it. "
        + " ".join(told)
    )
    return figure


class _Mean(NamedTuple):
    """A setting's title, important classes, and mean shares `[true, predicted]`, %."""

    title: str
    important: list[int]
    shares: np.ndarray


def _mean(
    rows: pd.DataFrame,
    trials: pd.DataFrame,
    selected: pd.DataFrame,
    method: str,
    choice: str,
) -> _Mean:
    of_choice = selected[selected["important"] == choice]
    setting = of_choice[of_choice["method"] == method]
    if setting.empty:
        there = ", ".join(name for name in of_choice["method"] if name != BASELINE)
        raise ValueError(
            f"method must be one with trials for important class {choice}, got "
            f"{method}; there are {there or 'only trials of cross-entropy'}"
        )
    by = ["important", "method", *POINT]
    wanted = trials.merge(setting[by], on=by).set_index("trial_id")["constant"]
    shares, important = [], []
    for row in each(rows[rows["trial_id"].isin(wanted.index)]):
        chosen = "+".join(row.class_names[i] for i in row.important)
        if chosen == choice and not row.diverged:
            at = np.searchsorted(row.constants, wanted[row.trial_id])
            counts = confusions(row, "test")[at]
            # A class without test images has a row of NaN, which is left white.
            with np.errstate(invalid="ignore"):
                shares.append(100 * counts / counts.sum(1, keepdims=True))
            important = list(row.important)
    name = f"{LABELS[method]} {describe(setting.iloc[0])}".rstrip()
    if not shares:
        raise ValueError(f"every trial of {name} diverged: it has no confusion matrix")
    if method != BASELINE:
        name += f", important: {choice}"
    return _Mean(f"{name}, n={len(shares)}", important, np.mean(shares, 0))


def _draw(
    place: Axes,
    values: np.ndarray,
    names: Sequence[str],
    colours: str,
    limits: tuple[float, float],
    important: Sequence[int] = (),
) -> AxesImage:
    """Draws a matrix; of many classes only what matters most has its number."""
    few = len(names) <= _FEW
    low, high = limits
    # Shares by their roots, or errors could not be told from none.
    norm = PowerNorm(0.5, low, high) if low == 0 else Normalize(low, high)
    image = place.imshow(values, cmap=colours, norm=norm)
    for true, predicted in _numbered(values, important, few):
        value = values[true, predicted]
        text = f"{value:.1f}" if low == 0 else f"{value:+.1f}"
        if text in ("0.0", "+0.0", "-0.0"):
            continue
        red, green, blue, _ = image.cmap(image.norm(value))
        dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
        place.text(
            predicted,
            true,
            text,
            color="white" if dark else "black",
            fontsize=7 if few else 6,
            ha="center",
            va="center",
        )
    _name(place, names, important)
    return image


def _name(place: Axes, names: Sequence[str], important: Sequence[int]) -> None:
    """Writes the classes on the axes, and frames the important ones."""
    size = "medium" if len(names) <= _FEW else 7
    upright = max(map(len, names)) > 3
    place.set_xticks(
        range(len(names)), names, fontsize=size, rotation=90 if upright else 0
    )
    place.set_yticks(range(len(names)), names, fontsize=size)
    for k in important:
        for x, y, width, height in (
            (-0.5, k - 0.5, len(names), 1),
            (k - 0.5, -0.5, 1, len(names)),
        ):
            place.add_patch(
                Rectangle((x, y), width, height, fill=False, lw=1.2, ec="black")
            )
        for label in (place.get_xticklabels()[k], place.get_yticklabels()[k]):
            label.set_fontweight("bold")
    place.set(xlabel="predicted class", ylabel="true class")


def _numbered(
    values: np.ndarray, important: Sequence[int], few: bool
) -> Iterator[tuple[int, int]]:
    """Cells that get their numbers: all, or the largest of the important classes."""
    if few:
        yield from np.ndindex(*values.shape)
        return
    for k in important:
        for name in np.argsort(-np.abs(np.nan_to_num(values[k])))[:4]:
            yield k, int(name)
        for name in np.argsort(-np.abs(np.nan_to_num(values[:, k])))[:4]:
            if name != k:
                yield int(name), k


def _tell(
    change: _Mean, difference: np.ndarray, names: Sequence[str], important: int
) -> str:
    others = np.nan_to_num(difference[important])
    others[important] = 0
    other = np.abs(others).argmax()
    return (
        f"{change.title}: the recall of {names[important]} changes by "
        f"{difference[important, important]:+.1f} percentage points; "
        f"{names[important]} taken for {names[other]} changes most, by "
        f"{others[other]:+.1f}."
    )
