"""Pictures of means over seeds as lines, each in the band of its standard deviation."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from camri_jax.evidence.curves import BASELINE, POINT, each
from camri_jax.evidence.figures.looks import style
from camri_jax.evidence.selection import LABELS, describe, trained

_PENALTIES = {
    "weighted_cross_entropy": "weight",
    "real_world_weight_cross_entropy": "weight",
    "wasserstein": "cost",
    "arcface": "margin",
    "camri": "margin",
}
# What a method is where its penalty vanishes.
_NO_PENALTY = {
    "weighted_cross_entropy": (BASELINE, 1.0),
    "arcface": ("l2_softmax", 0.0),
    "camri": ("l2_softmax", 0.0),
}
_AXES = {"weight": "weight w", "cost": "cost c", "margin": "margin m, in π/64"}
_MEASURES = {"recall": ("#0072b2", "o", "-"), "accuracy": ("#d55e00", "s", "--")}


def penalties(settings: pd.DataFrame, selected: pd.DataFrame) -> Figure:
    """Draws recall and accuracy against the penalty, as in Fig. 3.

    A row for each choice of important classes, a column for each method with two
    penalties or more; what else the method has is as in its selected setting. Where
    the penalty vanishes stands what the method is there: cross-entropy or L2-softmax.

    Args:
      settings: from `camri_jax.evidence.selection.settings`.
      selected: from `camri_jax.evidence.selection.select`.

    Returns:
      The figure; its label says in words what it shows.

    Raises:
      ValueError: no method has two penalties, or every trial diverged.
    """
    if not settings["num_seeds"].any():
        raise ValueError("every trial diverged: there are no penalties to draw")
    choices = list(dict.fromkeys(settings["important"]))
    series = {
        (important, method): _along_penalty(settings, selected, important, method)
        for important in choices
        for method in _PENALTIES
    }
    methods = [m for m in _PENALTIES if any(len(series[c, m]) > 1 for c in choices)]
    if not methods:
        raise ValueError(
            "settings must hold two weights, costs or margins of a method, to draw "
            "what they do; there are only "
            + ", ".join(LABELS[name] for name in _trained(settings))
        )
    size = 1.4 + 3.1 * len(methods), 0.8 + 2.9 * len(choices)
    figure = Figure(figsize=size, layout="constrained")
    places = figure.subplots(len(choices), len(methods), squeeze=False, sharey="row")
    told = []
    for important, row in zip(choices, places, strict=True):
        of_choice = settings.query("important == @important")
        baseline = of_choice[of_choice["method"] == BASELINE].iloc[0]
        for method, place in zip(methods, row, strict=True):
            lines = series[important, method]
            _draw_penalty(place, lines, baseline, method)
            if len(lines):
                told.append(_tell_penalty(lines, important, method))
        row[0].set_ylabel(f"important: {important}")
        row[0].set_ylim(top=min(row[0].get_ylim()[1], 1.01))
    handles, labels = places[0, 0].get_legend_handles_labels()
    # A single panel is as wide as two of the four words, and two are as wide as all.
    columns = min(2 * len(methods), len(labels))
    figure.legend(
        handles, labels, loc="outside upper center", ncols=columns, frameon=False
    )
    figure.set_label(
        "Recall of the important class and accuracy on test images against the "
        "penalty. " + " ".join(told)
    )
    return figure


def _trained(settings: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(settings["method"].map(trained)))


def _along_penalty(
    settings: pd.DataFrame, selected: pd.DataFrame, important: str, method: str
) -> pd.DataFrame:
    """A method's settings by penalty, all else as selected."""
    of_choice = settings[
        (settings["important"] == important) & (settings["num_seeds"] > 0)
    ]
    lines = of_choice[of_choice["method"] == method]
    picked = selected.query("important == @important and method == @method")
    if lines.empty or picked.empty:
        return lines
    penalty = _PENALTIES[method]
    others = [name for name in POINT if name != penalty]
    lines = lines.merge(picked[others], on=others)
    if method in _NO_PENALTY and len(lines):
        name, value = _NO_PENALTY[method]
        none = of_choice[of_choice["method"] == name]
        if penalty == "margin":
            none = none[none["scale"] == lines["scale"].iloc[0]]
        if value not in set(lines[penalty]):
            lines = pd.concat([none.assign(**{penalty: value}), lines])
    return lines.sort_values(penalty, ignore_index=True)


def _draw_penalty(
    place: Axes, lines: pd.DataFrame, baseline: pd.Series, method: str
) -> None:
    penalty = _PENALTIES[method]
    at = lines[penalty] * (64 / np.pi if penalty == "margin" else 1)
    for name, (colour, marker, dashes) in _MEASURES.items():
        place.plot(at, lines[name], color=colour, marker=marker, ls=dashes, label=name)
        low, high = (lines[name] + s * lines[f"{name}_std"] for s in (-1, 1))
        place.fill_between(at, low, high, color=colour, alpha=0.2, lw=0)
        label = f"cross-entropy's {name}"
        place.axhline(baseline[name], color=colour, ls=":", lw=1.2, label=label)
    fixed = describe(lines.iloc[-1].drop(penalty)) if len(lines) else ""
    title = f"{LABELS[method]} {fixed}".rstrip()
    place.set_title(f"{title}\n{_seeds(lines['num_seeds'])}", fontsize="medium")
    place.set_xlabel(_AXES[penalty])
    place.xaxis.set_major_locator(MaxNLocator(6, integer=penalty != "cost"))
    place.spines[["top", "right"]].set_visible(False)


def _seeds(numbers: pd.Series) -> str:
    if numbers.empty:
        return "n=0"
    low, high = numbers.min(), numbers.max()
    return f"n={low}" if low == high else f"n={low} to {high}"


def _tell_penalty(lines: pd.DataFrame, important: str, method: str) -> str:
    first, last = lines.iloc[0], lines.iloc[-1]
    name = _PENALTIES[method]
    return (
        f"{LABELS[method]}, {important}: from {describe(first[[name]])} to "
        f"{describe(last[[name]])} the recall goes from {first['recall']:.3f} to "
        f"{last['recall']:.3f}, the accuracy from {first['accuracy']:.3f} to "
        f"{last['accuracy']:.3f}."
    )


def training(rows: pd.DataFrame, selected: pd.DataFrame) -> Figure:
    """Draws recall and accuracy after each epoch, of each method's selected setting.

    Args:
      rows: from `camri_jax.sweeps.rows.read`.
      selected: from `camri_jax.evidence.selection.select`.

    Returns:
      The figure; its label says in words what it shows.

    Raises:
      ValueError: every trial diverged.
    """
    choices = list(dict.fromkeys(selected["important"]))
    held_out = rows["validation_confusion"].notna().all()
    images = "validation images" if held_out else "test images"
    figure = Figure(figsize=(12, 0.6 + 3.4 * len(choices)), layout="constrained")
    places = figure.subplots(len(choices), 2, squeeze=False)
    told = []
    for important, row in zip(choices, places, strict=True):
        for method, name, epochs, recall, accuracy in _histories(
            rows, selected[selected["important"] == important]
        ):
            for place, values in zip(row, (recall, accuracy), strict=True):
                _draw_band(place, epochs, values, method, f"{name}, n={len(values)}")
            told.append(
                f"{name}, {important}: recall {recall[:, -1].mean():.3f}, accuracy "
                f"{accuracy[:, -1].mean():.3f} after the last epoch."
            )
        row[0].set_ylabel(f"recall of {important}")
        row[1].set_ylabel("accuracy")
        handles, labels = row[1].get_legend_handles_labels()
        row[1].legend(handles, labels, loc="upper left", bbox_to_anchor=(1, 1))
        for place in row:
            # A share is between 0 and 1, whatever its standard deviation.
            low, high = place.get_ylim()
            place.set_ylim(max(low, -0.01), min(high, 1.01))
            place.xaxis.set_major_locator(MaxNLocator(integer=True))
    if not told:
        raise ValueError("every trial diverged: there is no training to draw")
    for place in places[-1]:
        place.set_xlabel("epoch")
    figure.suptitle(f"{images}, mean and std over seeds", fontsize="medium")
    figure.set_label(f"Training curves on {images}. " + " ".join(told))
    return figure


def _histories(
    rows: pd.DataFrame, selected: pd.DataFrame
) -> Iterator[tuple[str, str, np.ndarray, np.ndarray, np.ndarray]]:
    """Method, name, epochs, recalls and accuracies `[seed, epoch]`, as trained."""
    rows = rows[~rows["diverged"].astype(bool)]
    for _, line in selected.iterrows():
        recalls, accuracies, epochs = [], [], np.array([])
        for row in each(of_setting(rows, line)):
            recall = np.reshape(row.history_recall, (-1, len(row.class_names)))
            recalls.append(recall[:, list(row.important)].mean(1))
            accuracies.append(row.history_accuracy)
            # Rows older than this column were measured after every epoch.
            every = np.arange(1, 1 + len(row.history_accuracy))
            epochs = getattr(row, "history_epoch", every)
        if recalls:
            name = f"{LABELS[line['method']]} {describe(line)}".rstrip()
            yield line["method"], name, epochs, np.stack(recalls), np.stack(accuracies)


def of_setting(rows: pd.DataFrame, line: pd.Series) -> pd.DataFrame:
    """Returns the rows of a line's method, hyperparameters and important classes."""
    same = rows["method"] == line["method"]
    for name in POINT:
        same &= (rows[name] == line[name]) | (rows[name].isna() & np.isnan(line[name]))
    found = rows[same]
    choices = [
        "+".join(row.class_names[i] for i in row.important) for row in each(found)
    ]
    return found[np.array(choices, object) == line["important"]]


def _draw_band(
    place: Axes, x: np.ndarray, values: np.ndarray, method: str, label: str | None
) -> None:
    """Draws the mean of `values` `[seed, x]`, and one standard deviation about it."""
    mean, look = values.mean(0), style(method)
    step = max(1, len(x) // 8)
    place.plot(x, mean, label=label, markevery=step, markersize=5, lw=1.5, **look)
    if len(values) > 1:
        std = values.std(0, ddof=1)
        place.fill_between(
            x, mean - std, mean + std, color=look["color"], alpha=0.12, lw=0
        )
    place.spines[["top", "right"]].set_visible(False)
