"""The main picture: what each recall costs, whichever loss a network had."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from camri_jax._files import UsageError
from camri_jax.evidence.curves import of_all_seeds
from camri_jax.evidence.figures import looks
from camri_jax.evidence.selection import title, title_of
from camri_jax.guarantee import rounded_down
from camri_jax.training.methods import BASELINE

AXES = {
    "false_alarms": "false alarms per 1,000 images",
    "accuracy": "accuracy",
}
"""What a recall costs, by column."""

_TICKS = (0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
_ALARMS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_FEW = 3  # methods whose bands can be told apart


def price(
    prices: pd.DataFrame,
    name: str,
    *,
    measures: Sequence[str] = ("false_alarms", "accuracy"),
    certifiable: float | None = None,
    certified: Sequence[Mapping[str, Any]] = (),
    emphasis: str | None = None,
) -> Figure:
    r"""Draws what a recall costs, a line a method, thresholds moved alike for all.

    At each recall r the logit of the important class is raised by the least offset at
    which at least r of its n images are found: k = ceil(r n). The horizontal axis is
    logarithmic in the share missed, 1 - r, as the last percents cost most.

    Args:
      prices: from `camri_jax.evidence.curves.prices`: a line a method, seed and recall
        asked, with `num_important` and the columns of `AXES`.
      name: of the important class.
      measures: which of `AXES` to draw, a panel each.
      certifiable: the largest recall that the calibration images can certify.
      certified: for each model that keeps a promise its `method`, the `recall`
        promised, and what it costs, by the columns of `AXES`.
      emphasis: the method whose band is drawn, besides cross-entropy's, where there are
        too many for all.

    Returns:
      The figure; its label says in words what it shows. The line is the mean over
      seeds, the band reaches from the lowest seed to the highest, with ten or more over
      the middle 80 %.

    Raises:
      UsageError: there is nothing to draw, for example where every trial diverged.
    """
    prices = of_all_seeds(prices).dropna(subset=list(measures))
    if prices.empty:
        raise UsageError(
            "every trial diverged, kept no logits or reaches no recall: there is no "
            "price to draw"
        )
    figure = Figure(figsize=(0.3 + 4.1 * len(measures), 4.1), layout="constrained")
    places = figure.subplots(1, len(measures), squeeze=False)[0]
    methods = list(dict.fromkeys(prices["method"]))
    seeds = prices.groupby("method")["seed"].nunique()
    told = f"mean over {seeds.min()} to {seeds.max()} seeds"
    if seeds.min() == seeds.max():
        told = f"mean over {seeds.max()} seeds" if seeds.max() > 1 else "one seed"
    banded = methods if len(methods) <= _FEW else [BASELINE, emphasis]
    for place, measure in zip(places, measures, strict=True):
        for method, lines in prices.groupby("method", sort=False):
            _draw(place, lines, measure, method in banded)
        _limit(place, prices, certifiable)
        _mark(place, prices, measure, certified)
        _scale(place, prices, measure, [float(x[measure]) for x in certified])
        place.set(
            xlabel=f"% of {looks.plain(name)} found ({told})", ylabel=AXES[measure]
        )
    looks.legend(figure, places, columns=2 * len(measures))
    return looks.finish(figure, _tell(prices, name, measures))


def _draw(place: Axes, lines: pd.DataFrame, measure: str, banded: bool) -> None:
    values = lines.pivot(index="seed", columns="asked", values=measure)
    asked = np.asarray(values.columns, float)
    look = looks.style(str(lines["method"].iloc[0]))
    if banded:
        looks.band(place, asked, values.to_numpy(), look)
    place.plot(
        asked,
        values.mean(axis=0),
        label=title_of(lines),
        markevery=[i for i, r in enumerate(asked) if np.isclose(r, _TICKS).any()],
        markersize=8 if look["marker"] == "*" else 5,
        lw=1.6,
        **look,
    )


def _limit(place: Axes, prices: pd.DataFrame, certifiable: float | None) -> None:
    """Marks what is certifiable, and where every test image must be found."""
    first, last = float(prices["asked"].min()), float(prices["asked"].max())
    number, ink = int(prices["num_important"].iloc[0]), looks.foreground()
    if 1 - 1 / number < last:
        label = f"all {number} must be found"
        place.axvspan(1 - 1 / number, last, label=label, color=ink, alpha=0.1, lw=0)
    if certifiable is None:
        return
    label = f"certifiable up to {100 * rounded_down(certifiable):.4g} %"
    if certifiable < first:
        place.plot([], [], ls="none", label=f"{label}, none of this")
        return
    end = min(certifiable, last)
    across = place.get_xaxis_transform()
    look = {"color": ink, "transform": across, "clip_on": False}
    place.plot([first, end], [0, 0], lw=4, solid_capstyle="butt", label=label, **look)
    place.plot([end, end], [0, 1], lw=1.2, ls="--", **look)


def _mark(
    place: Axes,
    prices: pd.DataFrame,
    measure: str,
    certified: Sequence[Mapping[str, Any]],
) -> None:
    """Marks what promises cost."""
    shown = [x for x in certified if x["recall"] >= prices["asked"].min()]
    for line in shown:
        look = looks.style(line["method"])
        place.plot(
            [line["recall"]],
            [line[measure]],
            ls="none",
            marker=look["marker"],
            markersize=15 if look["marker"] == "*" else 11,
            markerfacecolor=look["color"],
            markeredgecolor=looks.foreground(),
            markeredgewidth=1.4,
            zorder=5,
            clip_on=False,
            label="promised" if line is shown[0] else None,
        )


def _scale(
    place: Axes, prices: pd.DataFrame, measure: str, marks: Sequence[float]
) -> None:
    first, last = float(prices["asked"].min()), float(prices["asked"].max())
    place.set_xscale("function", functions=(_forward, _backward))
    left, right = _forward(np.array([first, last]))
    room = 0.02 * (right - left)
    place.set_xlim(*_backward(np.array([left - room, right + room])))
    ticks = [tick for tick in _TICKS if first <= tick <= last]
    place.xaxis.set_major_locator(FixedLocator(ticks))
    place.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}"))
    place.xaxis.set_minor_locator(NullLocator())
    values = [*prices.groupby(["method", "asked"])[measure].mean(), *marks]
    if measure == "false_alarms":
        place.set_yscale("symlog", linthresh=1, linscale=0.5)
        place.yaxis.set_major_locator(FixedLocator(_ALARMS))
        place.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        place.yaxis.set_minor_locator(NullLocator())
        bottom = max(tick for tick in _ALARMS if tick <= max(0.0, min(values)))
        place.set_ylim(bottom, 1.25 * max(1.0, max(values)))
    else:
        room = 0.05 * max(np.ptp(values), 0.01)
        place.set_ylim(max(0.0, min(values) - room), min(1.0, max(values) + room))
    place.grid(color=looks.foreground(), alpha=0.15, lw=0.6)
    place.spines[["top", "right"]].set_visible(False)


def _forward(recall: np.ndarray) -> np.ndarray:
    return -np.log10(np.clip(1 - np.asarray(recall), 1e-6, None))


def _backward(place: np.ndarray) -> np.ndarray:
    return 1 - 10.0 ** -np.asarray(place)


def _tell(prices: pd.DataFrame, name: str, measures: Sequence[str]) -> str:
    asked = prices["asked"].unique()
    at = asked[np.abs(asked - 0.95).argmin()]
    here = prices[prices["asked"] == at]
    told = [f"What it costs on test images to find more of {name}, thresholds moved."]
    for _, lines in here.groupby("method", sort=False):
        costs = " and ".join(
            f"{lines['false_alarms'].mean():.1f} false alarms per 1,000 images"
            if measure == "false_alarms"
            else f"accuracy {lines['accuracy'].mean():.3f}"
            for measure in measures
        )
        told.append(f"{title(lines.iloc[0])} finds {100 * at:g} % of them at {costs}.")
    return " ".join(told)
