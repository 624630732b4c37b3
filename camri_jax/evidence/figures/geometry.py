"""Losses over a two-dimensional feature space, as in Fig. 1."""

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from camri_jax import losses
from camri_jax.evidence.figures import looks
from camri_jax.training.methods import METHODS, Problem, describe, hyperparameters

PROTOTYPES = np.array([[0.2, 1.5], [-1.0, -0.6], [1.1, -0.7]], np.float32).T
"""Prototypes `[feature, class]` of Fig. 1: of unequal length, at unequal angles."""

_EXTENT = 4.0
_MARGIN = np.pi / 8


class Panel(NamedTuple):
    """A loss of Fig. 1.

    Attributes:
      method: its name in `camri_jax.training.methods.METHODS`.
      point: its hyperparameters, by name.
      important: index of the important class.
    """

    method: str
    point: Mapping[str, float]
    important: int = 0


PANELS = (
    Panel("cross_entropy", {}),
    Panel("weighted_cross_entropy", {"weight": 4.0}),
    Panel("real_world_weight_cross_entropy", {"weight": 4.0, "cost": 2.0}),
    Panel("wasserstein", {"cost": 2.0, "epsilon": 0.1}),
    Panel("l2_softmax", {"scale": 4.0}),
    Panel("arcface", {"margin": _MARGIN, "scale": 4.0}),
    Panel("camri", {"margin": _MARGIN, "scale": 4.0}),
    Panel("camri", {"margin": _MARGIN, "scale": 4.0}, important=1),
)
"""The paper's four losses, the three that it omits, and CAMRI for another class."""


def loss_values(
    panel: Panel, features: np.ndarray, prototypes: np.ndarray, label: int
) -> np.ndarray:
    """Returns the loss of features of one class, without bias.

    Args:
      panel: the loss.
      features: `[example, feature]`.
      prototypes: `[feature, class]`.
      label: the true class.

    Returns:
      Losses `[example]`.
    """
    method = METHODS[panel.method]
    if method.head == "linear":
        scores = jnp.asarray(features) @ jnp.asarray(prototypes)
    else:
        scores = losses.cosine_similarity(features, prototypes)
    number = prototypes.shape[1]
    problem = Problem(number, (panel.important,), class_counts=(1,) * number)
    arrays = hyperparameters(panel.method, problem, panel.point)
    labels = jnp.full(len(features), label, jnp.int32)
    return np.asarray(method.loss(scores, labels, **arrays))


def boundaries(prototypes: np.ndarray) -> np.ndarray:
    r"""Returns the directions along which two classes tie, and all others lose.

    .. math:: u^T W_i = u^T W_j \ge u^T W_k

    Args:
      prototypes: `[2, class]`, without bias; at unit length for cosines.

    Returns:
      Unit vectors `[boundary, 2]`: rays from the origin.

    >>> boundaries(np.array([[1.0, -1.0], [0.0, 0.0]])).round(3) + 0.0
    array([[ 0.,  1.],
           [ 0., -1.]])
    """
    rays = []
    for i, j in itertools.combinations(range(prototypes.shape[1]), 2):
        x, y = prototypes[:, i] - prototypes[:, j]
        for ray in np.array([[-y, x], [y, -x]]) / max(np.hypot(x, y), 1e-12):
            scores = ray @ prototypes
            if scores[i] >= scores.max() - 1e-6:
                rays.append(ray)
    return np.array(rays).reshape(-1, 2)


def contours() -> Figure:
    """Draws losses of class 1 over a two-dimensional feature space, as in Fig. 1.

    Prototypes are arrows, decision boundaries grey lines. Along the dashed line the
    loss is log 2, in every panel alike: it shows how wide the valley of low loss is,
    and whether a penalty narrows it or shifts it.

    Returns:
      The figure; its label says in words what it shows.
    """
    figure = Figure(figsize=(13.2, 6.4), layout="constrained")
    places = figure.subplots(2, 4, sharex=True, sharey=True)
    for panel, place in zip(PANELS, places.flat, strict=True):
        filled, ticks = _draw_loss(place, panel)
        figure.colorbar(
            filled, ax=place, label="loss", ticks=ticks, format="%.2f", shrink=0.8
        )
        angular = METHODS[panel.method].head == "cosine"
        lengths = np.linalg.norm(PROTOTYPES, axis=0) if angular else 1.0
        _draw_prototypes(place, PROTOTYPES / lengths)
        place.set_title(_title(panel), fontsize="medium")
        place.set_aspect("equal")
    figure.supxlabel(
        "true class: 1; grey: decision boundaries after training, without margin; "
        "dashed: loss = log 2",
        fontsize="medium",
    )
    for place in places[-1]:
        place.set_xlabel("feature $z_1$")
    for place in places[:, 0]:
        place.set_ylabel("feature $z_2$")
    names = ", ".join(dict.fromkeys(METHODS[panel.method].label for panel in PANELS))
    return looks.finish(
        figure,
        f"Contours of the loss of class 1 over two features for {names}: the margin "
        "of ArcFace and CAMRI narrows the valley of low loss around the prototype of "
        "class 1, weights and costs shift or steepen it.",
    )


def _draw_loss(place: Axes, panel: Panel) -> tuple[ContourSet, np.ndarray]:
    """Draws the contours, and returns them with ticks for their colours."""
    # An even number: the origin, which has no direction, is not on the grid.
    axis = np.linspace(-_EXTENT, _EXTENT, 240, dtype=np.float32)
    grid = np.stack(np.meshgrid(axis, axis), -1)
    values = loss_values(panel, grid.reshape(-1, 2), PROTOTYPES, 0)
    values = values.reshape(grid.shape[:2])
    low, high = values.min(), values.max()
    # Finer where the loss is low.
    levels = low + (high - low) * np.linspace(0, 1, 17) ** 2
    norm = PowerNorm(0.5, low, high)
    filled = place.contourf(
        axis, axis, values, levels=levels, norm=norm, cmap="viridis"
    )
    place.contour(axis, axis, values, [np.log(2)], colors="w", linestyles="--")
    return filled, levels[::4]


def _title(panel: Panel) -> str:
    method = METHODS[panel.method]
    text = f"{method.label} {describe(panel.point)}".rstrip()
    if method.class_sensitive:
        text += f"\nclass {panel.important + 1} important"
    return text


def _draw_prototypes(place: Axes, prototypes: np.ndarray) -> None:
    reach = _EXTENT * np.sqrt(2)
    for x, y in boundaries(prototypes) * reach:
        place.plot([0, x], [0, y], color="0.75", lw=2, zorder=1.5)
    place.set(xlim=(-_EXTENT, _EXTENT), ylim=(-_EXTENT, _EXTENT))
    for k, (x, y) in enumerate(prototypes.T):
        colour = "#ff4d2e" if k == 0 else "black"
        arrow = {"arrowstyle": "-|>", "color": colour, "lw": 2.5 if k == 0 else 1.8}
        place.annotate("", (x, y), (0, 0), arrowprops={**arrow, "shrinkA": 0})
        place.annotate(
            f"$W_{k + 1}$",
            (x, y),
            (9 * x / np.hypot(x, y), 9 * y / np.hypot(x, y)),
            textcoords="offset points",
            color=colour,
            ha="center",
            va="center",
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )
