"""Figures as SVG within a page, in the page's own colours and fonts."""

import io
import re
from collections.abc import Callable, Sequence

from markupsafe import Markup, escape
from matplotlib import style
from matplotlib.figure import Figure

# Colours that nothing else has, which the page then replaces by its own.
_INK, _PAGE = "#010203", "#fdfefc"
_RC = {
    **dict.fromkeys(
        (
            *("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor"),
            *("xtick.color", "ytick.color", "grid.color"),
        ),
        _INK,
    ),
    "axes.facecolor": _PAGE,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    # Text stays text, and the same numbers give the same file.
    "svg.fonttype": "none",
    "svg.hashsalt": "camri_jax",
}


def inline(draw: Callable[[], Figure], name: str) -> Markup:
    """Returns a figure as SVG that follows the page, light or dark.

    Args:
      draw: returns the figure, whose label is the text in its place.
      name: an identifier within the page that no other picture has.
    """
    with style.context(["default", _RC]):
        return _inline(draw(), name)


def with_cursor(
    draw: Callable[[], Figure], name: str, stops: Sequence[float], start: int
) -> tuple[Markup, list[float]]:
    """Returns a figure with a line at one of `stops`, and its shift to each of them.

    Args:
      draw: returns a figure of one panel.
      name: an identifier within the page that no other picture has.
      stops: values on the horizontal axis.
      start: which of them has the line.

    Returns:
      SVG with a group of class `cursor`, and by how much to translate it for each.
    """
    with style.context(["default", _RC]):
        figure = draw()
        (place,) = figure.axes
        line = place.axvline(stops[start], color=_INK, lw=2, alpha=0.6)
        line.set_gid("cursor")
        figure.draw_without_rendering()
        x = place.transData.transform([(stop, 1.0) for stop in stops])[:, 0]
        svg = _inline(figure, name)
    svg = svg.replace(Markup(f'id="{name}-cursor"'), Markup('class="cursor"'))
    points = (x - x[start]) * 72 / figure.dpi
    return svg, [round(float(point), 2) for point in points]


def _inline(figure: Figure, name: str) -> Markup:
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Only within tags: a class may be called anything.
    svg = re.sub(r"<[^>]*>", lambda tag: _of_page(tag[0], name), svg)
    width = round(96 * figure.get_size_inches()[0])
    label = escape(figure.get_label())
    head = f'<svg role="img" aria-label="{label}" style="--width: {width}px"'
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    return Markup(svg.replace("<svg", head, 1))


def _of_page(tag: str, name: str) -> str:
    """A tag with identifiers that are unique in the page, and the page's colours."""
    tag = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", tag)
    return tag.replace(_INK, "currentColor").replace(_PAGE, "var(--page)")
