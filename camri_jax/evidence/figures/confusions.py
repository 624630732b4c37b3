"""Confusion matrices as pictures: one whole, and what others change of it."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap, Normalize, PowerNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from camri_jax._files import UsageError
from camri_jax.evidence.figures import looks
from camri_jax.evidence.sheets import visible

_FEW = 12
"""Classes up to which every cell has its number."""

_MORE, _LESS = "#2f7fc1", "#c2641c"
_LARGEST = 8.0  # points
_WIDE = 0.66  # of a character, in its size


def confusions(
    counts: Mapping[str, np.ndarray],
    class_names: Sequence[str],
    important: Sequence[int],
) -> Figure:
    """Draws a confusion matrix and what other methods change of it, as in Fig. 4.

    Rows are true classes, add to 100 %, and are means over trials. The first matrix is
    shown whole, the others as their difference to it, in percentage points. A class
    without images has an empty row.

    Args:
      counts: `[trial, true, predicted]` by title; the first is what others are compared
        with.
      class_names: `[class]`.
      important: indices of the important classes, which are framed.

    Returns:
      The figure; its label says in words what it shows.

    Raises:
      UsageError: a matrix has no trials, for example where all diverged.
    """
    shares = {title: _shares(title, each) for title, each in counts.items()}
    names, note = looks.names(class_names)
    few = len(names) <= _FEW
    columns = min(2, len(shares)) if few else 1
    height = -(-len(shares) // columns)
    side = 0.9 + 0.08 * max(map(len, names)) + (0.42 if few else 0.2) * len(names)
    size = (side + 1.0) * columns, side * height
    figure = Figure(figsize=size, layout="constrained")
    places = list(figure.subplots(height, columns, squeeze=False).flat)
    (first, whole), *others = shares.items()
    differences = {title: each - whole for title, each in others}
    most = max([1e-3, *(np.nanmax(np.abs(d)) for d in differences.values())])
    drawn = [_draw(places[0], whole, PowerNorm(0.5, 0, 100))]
    places[0].set_title(_heading(first), fontsize="medium")
    for place, (title, difference) in zip(
        places[1:], differences.items(), strict=False
    ):
        drawn.append(_draw(place, difference, Normalize(-most, most)))
        place.set_title(f"{_heading(title)},\nminus the first", fontsize="medium")
    for place in places[len(drawn) :]:
        place.set_axis_off()
    for place, image in zip(places, drawn, strict=False):
        label = "% of the true class" if place is places[0] else "percentage points"
        figure.colorbar(image, ax=place, label=label, shrink=0.7)
        _name(place, names, important)
    told = [
        _tell(t, d, class_names, k) for t, d in differences.items() for k in important
    ]
    looks.finish(
        figure,
        f"Confusion matrix of {first} on test images, and differences to it. "
        + " ".join(told),
        note,
    )
    # Cells take the room that everything around them leaves.
    figure.draw_without_rendering()
    for place, image in zip(places, drawn, strict=False):
        _number(place, image, important, few)
    return figure


def _shares(title: str, counts: np.ndarray) -> np.ndarray:
    """Mean shares `[true, predicted]` in percent."""
    if not len(counts):
        raise UsageError(f"every trial of {title} diverged: it has no confusion matrix")
    with np.errstate(invalid="ignore"):
        return np.mean(100 * counts / counts.sum(-1, keepdims=True), 0)


def _heading(title: str) -> str:
    """A title in as many lines as it has parts, if it is long."""
    text = visible(title).replace("$", r"\$")
    return text.replace(", ", ",\n") if len(text) > 36 else text


def _draw(place: Axes, values: np.ndarray, norm: Normalize) -> AxesImage:
    # Zero shows nothing but the page, be it light or dark.
    return place.imshow(values, cmap=_colours(norm), norm=norm, interpolation="none")


def _colours(norm: Normalize) -> Colormap:
    strength = np.linspace(0 if norm.vmin == 0 else -1, 1, 256)
    shades = [to_rgb(_MORE if s >= 0 else _LESS) for s in strength]
    colours = ListedColormap(np.column_stack([shades, np.abs(strength)]))
    return colours.with_extremes(bad=(0, 0, 0, 0))


def _number(place: Axes, image: AxesImage, important: Sequence[int], few: bool) -> None:
    """Writes numbers into cells; for many classes only where it matters most."""
    values = np.ma.filled(np.ma.asarray(image.get_array(), float), np.nan)
    whole = image.norm.vmin == 0
    digits = 1 if few else 0
    cells = {}
    for cell in _numbered(values, important, few):
        text = f"{values[cell]:.{digits}f}" if whole else f"{values[cell]:+.{digits}f}"
        if np.isfinite(values[cell]) and float(text):
            cells[cell] = text.removesuffix(".0") if text == "100.0" else text
    longest = max(map(len, cells.values()), default=1)
    width = place.bbox.width / len(values) * 72 / place.figure.dpi
    size = min(_LARGEST, width / (_WIDE * longest))
    for (true, predicted), text in cells.items():
        place.text(
            predicted,
            true,
            text,
            # On the strongest shade it has a contrast of 4 as well, light or dark.
            color=looks.foreground(),
            fontsize=size,
            ha="center",
            va="center",
        )


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
            yield int(name), k


def _name(place: Axes, names: Sequence[str], important: Sequence[int]) -> None:
    """Writes the classes on the axes, and frames the important ones."""
    size = "small" if len(names) <= _FEW else 7
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
            frame = {"fill": False, "lw": 1.2, "ec": looks.foreground()}
            place.add_patch(Rectangle((x, y), width, height, **frame))
        for label in (place.get_xticklabels()[k], place.get_yticklabels()[k]):
            label.set_fontweight("bold")
    place.set(xlabel="predicted class", ylabel="true class")


def _tell(
    title: str, difference: np.ndarray, names: Sequence[str], important: int
) -> str:
    others = np.nan_to_num(difference[important])
    others[important] = 0
    other = np.abs(others).argmax()
    return (
        f"{title}: the recall of {names[important]} changes by "
        f"{difference[important, important]:+.1f} percentage points; "
        f"{names[important]} taken for {names[other]} changes most, by "
        f"{others[other]:+.1f}."
    )
