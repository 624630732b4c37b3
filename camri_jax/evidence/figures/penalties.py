"""Recall and accuracy against the penalty that each loss has, as in Fig. 3."""

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from camri_jax._files import UsageError
from camri_jax.evidence.figures import looks
from camri_jax.evidence.study import POINT, same_point
from camri_jax.training.methods import BASELINE, HYPERPARAMETERS, METHODS, describe

_MEASURES = {"recall": "recall of\n{}", "accuracy": "accuracy"}
_APART = 0.09  # of the axis: ticks that lie closer would touch


def penalties(settings: pd.DataFrame, selected: pd.DataFrame, name: str) -> Figure:
    """Draws recall and accuracy against the penalty, as in Fig. 3.

    A column for each method with two penalties or more; its other hyperparameters are
    those of its selected setting. Where the penalty vanishes, it shows what the method
    is there: cross-entropy or L2-softmax. The band is one standard deviation over
    seeds, the dotted line cross-entropy.

    Args:
      settings: from `camri_jax.evidence.selection.settings`, of one choice of important
        classes.
      selected: from `camri_jax.evidence.selection.select`.
      name: of the important class.

    Returns:
      The figure; its label says in words what it shows.

    Raises:
      UsageError: no method has two penalties, or every trial diverged.
    """
    settings = settings[~settings["moved"].astype(bool) & (settings["num_seeds"] > 0)]
    selected = selected[~selected["moved"].astype(bool)]
    if settings.empty:
        raise UsageError("every trial diverged: there are no penalties to draw")
    series = {
        method: lines
        for method in METHODS
        if len(lines := _along(settings, selected, method)) > 1
    }
    if not series:
        there = dict.fromkeys(METHODS[name].label for name in settings["method"])
        raise UsageError(
            "there must be two weights, costs or margins of a method, to draw what "
            f"they do; there are only {', '.join(there)}"
        )
    figure = Figure(figsize=(1.0 + 3.0 * len(series), 5.2), layout="constrained")
    places = figure.subplots(2, len(series), squeeze=False, sharey="row", sharex="col")
    baseline = settings[settings["method"] == BASELINE]
    for column, (method, lines) in zip(places.T, series.items(), strict=True):
        for place, measure in zip(column, _MEASURES, strict=True):
            _draw(place, lines, baseline, measure, method)
        column[0].set_title(_heading(lines, method), fontsize="medium")
        column[1].set_xlabel(_axis(method))
        _ticks(column[1], lines, method)
    for place, label in zip(places[:, 0], _MEASURES.values(), strict=True):
        place.set_ylabel(label.format(looks.plain(name)))
        low, high = place.get_ylim()
        place.set_ylim(max(low, -0.01), min(high, 1.01))
    looks.legend(figure, list(places.flat), columns=1)
    told = [_tell(lines, method) for method, lines in series.items()]
    return looks.finish(
        figure,
        f"Recall of {name} and accuracy on test images against the penalty. "
        + " ".join(told),
    )


def _along(settings: pd.DataFrame, selected: pd.DataFrame, method: str) -> pd.DataFrame:
    """A method's settings by penalty, all else as selected."""
    penalty, neutral = METHODS[method].penalty, METHODS[method].neutral
    lines = settings[settings["method"] == method]
    picked = selected[selected["method"] == method]
    if penalty is None or lines.empty or picked.empty:
        return lines.iloc[:0]
    others = [name for name in POINT if name != penalty]
    # There is no axis along what each class has a value of its own for.
    lines = lines[lines[penalty].notna() & same_point(lines, picked.iloc[0], others)]
    if neutral and len(lines) and neutral[0] not in set(lines[penalty]):
        value, there = neutral
        own = [name for name in others if name in METHODS[there].grid]
        none = settings[settings["method"] == there]
        none = none[same_point(none, picked.iloc[0], own)]
        lines = pd.concat([none.assign(**{penalty: value}), lines])
    return lines.sort_values(penalty, ignore_index=True)


def _draw(
    place: Axes, lines: pd.DataFrame, baseline: pd.DataFrame, measure: str, method: str
) -> None:
    look = looks.style(method)
    at, mean = lines[METHODS[method].penalty], lines[measure]
    std = lines[f"{measure}_std"].fillna(0.0)
    place.plot(at, mean, lw=1.6, **look)
    place.fill_between(
        at,
        np.clip(mean - std, 0, 1),
        np.clip(mean + std, 0, 1),
        color=look["color"],
        alpha=0.2,
        lw=0,
    )
    for level in baseline[measure]:
        label = METHODS[BASELINE].label
        place.axhline(level, color=looks.foreground(), ls=":", lw=1.2, label=label)
    place.grid(axis="y", color=looks.foreground(), alpha=0.15, lw=0.6)
    place.spines[["top", "right"]].set_visible(False)


def _axis(method: str) -> str:
    penalty = HYPERPARAMETERS[str(METHODS[method].penalty)]
    unit = ", in π/64 rad" if penalty.is_angle else ""
    return f"{penalty.name} {penalty.symbol}{unit}"


def _ticks(place: Axes, lines: pd.DataFrame, method: str) -> None:
    """Ticks where data are, as long as their labels do not touch."""
    penalty = HYPERPARAMETERS[str(METHODS[method].penalty)]
    values = lines[penalty.name].to_numpy()
    apart, kept = _APART * np.ptp(values), [values[-1]]
    for value in values[-2::-1]:
        if kept[-1] - value >= apart:
            kept.append(value)
    factor = 64 / math.pi if penalty.is_angle else 1.0
    place.set_xticks(kept, [f"{value * factor:.4g}" for value in kept])


def _heading(lines: pd.DataFrame, method: str) -> str:
    others = [name for name in HYPERPARAMETERS if name != METHODS[method].penalty]
    fixed = describe({name: lines.iloc[-1][name] for name in others})
    low, high = lines["num_seeds"].min(), lines["num_seeds"].max()
    seeds = f"n={low}" if low == high else f"n={low} to {high}"
    return f"{METHODS[method].label} {fixed}".rstrip() + f"\n{seeds}"


def _tell(lines: pd.DataFrame, method: str) -> str:
    first, last = lines.iloc[0], lines.iloc[-1]
    name = str(METHODS[method].penalty)
    return (
        f"{METHODS[method].label}: from {describe({name: first[name]})} to "
        f"{describe({name: last[name]})} the recall goes from {first['recall']:.3f} to "
        f"{last['recall']:.3f}, the accuracy from {first['accuracy']:.3f} to "
        f"{last['accuracy']:.3f}."
    )
