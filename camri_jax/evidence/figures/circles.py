"""Features of two dimensions on the unit circle, as in Fig. 2."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from camri_jax import losses, metrics
from camri_jax.evidence.figures import looks

# Colours of classes, told apart by colour-blind readers, and that of the important one.
_COLOURS = [
    "#3f90da",
    "#ffa90e",
    "#94a4a2",
    "#832db6",
    "#a96b59",
    "#b9ac70",
    "#717581",
    "#92dadd",
    "#009e73",
]
_EMPHASIS = "#d55e00"
_FEW = 12  # classes up to which every spoke has its name
_HEIGHT = 0.5  # of the highest bin, on a circle of radius 1
_EDGES = np.linspace(-np.pi, np.pi, 181)


class Embedding(NamedTuple):
    """What a network with two features makes of images, as a panel of Fig. 2.

    Attributes:
      title: the method and its parameters.
      features: `[image, 2]`.
      prototypes: `[2, class]`.
      labels: `[image]`, the true classes.
    """

    title: str
    features: np.ndarray
    prototypes: np.ndarray
    labels: np.ndarray


def circles(
    embeddings: Sequence[Embedding], class_names: Sequence[str], important: int
) -> Figure:
    """Draws directions of features and prototypes on the unit circle, as in Fig. 2.

    Each image is a dot at its feature's direction, its radius random so that dots can
    be told apart; a histogram outside says how many there are. Each class has a spoke,
    its prototype, with its name or, of many classes, its index.

    Args:
      embeddings: of cosine heads, one a panel.
      class_names: `[class]`.
      important: index of the class that is emphasised.

    Returns:
      The figure; its label says in words what it shows.
    """
    number = len(embeddings)
    figure = Figure(figsize=(4.4 * number, 5.2), layout="constrained")
    places = figure.subplots(1, number, squeeze=False, sharex=True, sharey=True)[0]
    shares = [_histograms(embedding) for embedding in embeddings]
    unit = _HEIGHT / max(np.nanmax(share) for share in shares)
    names, note = looks.names(class_names)
    if len(names) > _FEW:
        names = [n if k == important else str(k) for k, n in enumerate(names)]
    told = []
    for embedding, share, place in zip(embeddings, shares, places, strict=True):
        _draw_circle(place, embedding, unit * share, names, important)
        numbers = _describe(embedding, names[important], important)
        place.set_title(f"{looks.plain(embedding.title)}\n{numbers}", fontsize="medium")
        place.set_xlabel("$z'_1$")
        place.set_aspect("equal")
        numbers = _describe(embedding, class_names[important], important)
        told.append(f"{embedding.title}: {numbers}".replace("\n", ", "))
    places[0].set_ylabel("$z'_2$")
    return looks.finish(
        figure,
        "Test images as dots on the unit circle of a two-dimensional feature space, "
        "with the prototypes of the classes. " + "; ".join(told) + ".",
        note,
    )


def _describe(embedding: Embedding, name: str, important: int) -> str:
    cosines = losses.cosine_similarity(embedding.features, embedding.prototypes)
    confusion = metrics.confusion_matrix(
        embedding.labels, cosines.argmax(-1), cosines.shape[-1]
    )
    std = np.asarray(metrics.angle_statistics(*embedding[1:]).std)
    others = np.nanmedian(np.delete(std, important))
    return (
        f"recall of {name} {metrics.recall(confusion)[important]:.3f}, "
        f"accuracy {metrics.accuracy(confusion):.3f}\n"
        f"angle std of {name} {std[important]:.3f} rad, median of others {others:.3f}"
    )


def _histograms(embedding: Embedding) -> np.ndarray:
    """Shares `[class, bin]` of each class's images in bins of their direction."""
    angles, labels = _angles(embedding.features), embedding.labels
    number = embedding.prototypes.shape[1]
    counts = np.stack(
        [np.histogram(angles[labels == k], _EDGES)[0] for k in range(number)]
    )
    return counts / np.maximum(counts.sum(1, keepdims=True), 1)


def _angles(vectors: np.ndarray) -> np.ndarray:
    return np.arctan2(vectors[:, 1], vectors[:, 0])


def _draw_circle(
    place: Axes,
    embedding: Embedding,
    heights: np.ndarray,
    names: Sequence[str],
    important: int,
) -> None:
    angles, spokes = _angles(embedding.features), _angles(embedding.prototypes.T)
    radii = np.random.default_rng(0).uniform(0.88, 1.0, len(angles))
    # Names of neighbours stand at two distances, or they would cover each other.
    turn = np.argsort(np.argsort(spokes)) % 2
    for k, name in enumerate(names):
        emphasised = k == important
        among_others = k - (k > important)
        colour = _EMPHASIS if emphasised else _COLOURS[among_others % len(_COLOURS)]
        order = 4 if emphasised else 2
        own = embedding.labels == k
        place.scatter(
            radii[own] * np.cos(angles[own]),
            radii[own] * np.sin(angles[own]),
            s=2,
            color=colour,
            alpha=0.5,
            linewidths=0,
            rasterized=True,
        )
        outline, turns = 1.03 + np.repeat(heights[k], 2), np.repeat(_EDGES, 2)[1:-1]
        place.fill(
            np.r_[outline * np.cos(turns), 1.03 * np.cos(turns[::-1])],
            np.r_[outline * np.sin(turns), 1.03 * np.sin(turns[::-1])],
            color=colour,
            alpha=0.6,
            lw=0,
        )
        x, y = np.cos(spokes[k]), np.sin(spokes[k])
        place.plot(
            [0, x], [0, y], color=colour, lw=4 if emphasised else 1.5, zorder=order
        )
        place.text(
            (0.76 - 0.16 * turn[k]) * x,
            (0.76 - 0.16 * turn[k]) * y,
            name,
            color=colour,
            fontweight="bold",
            fontsize="x-large" if emphasised else _size(names),
            ha="center",
            va="center",
            zorder=order + 2,
            path_effects=[withStroke(linewidth=3, foreground=looks.background())],
        )
    place.set(xlim=(-1.6, 1.6), ylim=(-1.6, 1.6), xticks=[-1, 0, 1], yticks=[-1, 0, 1])


def _size(names: Sequence[str]) -> str:
    return "medium" if len(names) <= _FEW else "small"
