"""How pictures look: methods, text that is drawn as it is, and how they are written.

Colours that depend on the page are taken from matplotlib's settings when a figure is
drawn: within a dark style, figures are dark. No picture touches `pyplot`, so any
backend will do.
"""

import functools
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from camri_jax._files import written_whole
from camri_jax.evidence.sheets import visible
from camri_jax.training.methods import METHODS

MANY = 10
"""The number of seeds from which a band leaves out the outermost."""

BAND = f"from the lowest to the highest, with {MANY} or more over the middle 80 %"
"""How far a band over seeds reaches."""

_LONGEST = 24  # characters of a name in a picture


def foreground() -> str:
    """Returns the colour of text."""
    return mpl.rcParams["text.color"]


def background() -> str:
    """Returns the colour behind what is drawn."""
    return mpl.rcParams["axes.facecolor"]


def style(method: str) -> dict[str, Any]:
    """Returns a method's look as matplotlib takes it.

    Args:
      method: a name in `camri_jax.training.methods.METHODS`.

    >>> style("camri")
    {'color': '#d55e00', 'marker': '*'}
    """
    entry = METHODS[method]
    return {"color": entry.colour or foreground(), "marker": entry.marker}


def plain(text: str) -> str:
    r"""Returns text that matplotlib draws as it is, and never reads as a formula.

    >>> plain("$x_1$")
    '\\$x_1\\$'
    """
    text = visible(text)
    text = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
    return text.replace("$", r"\$")


def names(class_names: Sequence[str]) -> tuple[list[str], str]:
    """Returns names that can be drawn, and a note if some cannot.

    A name is drawn with matplotlib's own font or, where that lacks a character, with
    any font of the machine that has it; without one, its number stands for it.

    Args:
      class_names: `[class]`.

    Returns:
      Names in the same order, and a sentence that says which numbers stand for names,
      empty if none does.
    """
    shown, numbered = [], 0
    for k, name in enumerate(class_names):
        text = plain(name)
        families = {_family(c) for c in text}
        marked = any(unicodedata.category(c).startswith("M") for c in text)
        # A mark and the letter that bears it are drawn from one font or not at all.
        drawn = None not in families and (families <= {""} or not marked)
        shown.append(text if drawn else f"class {k}")
        numbered += not drawn
    if not numbered:
        return shown, ""
    return shown, (
        f"{numbered} of {len(shown)} class names have characters that no font of this "
        "machine has: their numbers, from 0, stand for them"
    )


def finish(figure: Figure, words: str, note: str = "") -> Figure:
    """Sets a figure's words and fonts, and returns it.

    Args:
      figure: the figure.
      words: what it shows, for those who do not see it.
      note: a sentence to stand below it.
    """
    if note:
        figure.text(0.5, -0.02, note, ha="center", va="top", fontsize="small")
    for text in figure.findobj(Text):
        families = {_family(c) for c in text.get_text()} - {None, ""}
        if families:
            own = text.get_fontfamily()
            text.set_fontfamily([*own, *sorted(map(str, families))])
    figure.set_label(visible(f"{words} {note}.".strip() if note else words))
    return figure


@functools.cache
def _family(character: str) -> str | None:
    """The family that draws a character: empty for the first, None without any."""
    if ord(character) in characters(own_font()):
        return ""
    for font in font_manager.fontManager.ttflist:
        if "LastResort" not in font.fname and ord(character) in characters(font.fname):
            return font.name
    return None


def own_font() -> str:
    """Returns the file of matplotlib's own font."""
    return font_manager.findfont("DejaVu Sans")


@functools.cache
def characters(path: str) -> frozenset[int]:
    """Returns the code points that a font file has."""
    try:
        return frozenset(font_manager.get_font(path).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()


def legend(figure: Figure, places: Sequence[Axes], columns: int) -> None:
    """Puts one legend of all that is drawn in some axes above a figure."""
    entries = {}
    for place in places:
        handles, labels = place.get_legend_handles_labels()
        for label, handle in zip(labels, handles, strict=True):
            entries.setdefault(label, handle)
    figure.legend(
        list(entries.values()),
        list(entries),
        loc="outside upper left",
        ncols=min(columns, max(1, len(entries))),
        frameon=False,
        fontsize="small",
        handlelength=2.4,
        columnspacing=1.2,
    )


def band(
    place: Axes, x: np.ndarray, values: np.ndarray, look: Mapping[str, Any]
) -> None:
    """Fills between the lowest and the highest of `values` `[seed, x]`.

    With `MANY` seeds or more, the middle four fifths: the ends lie ever farther out the
    more seeds there are, and show only the strangest two.
    """
    if len(values) < 2:
        return
    outside = 0.1 if len(values) >= MANY else 0.0
    low, high = np.quantile(values, [outside, 1 - outside], axis=0)
    colour = look["color"]
    place.fill_between(x, low, high, color=colour, alpha=0.16, lw=0)
    for edge in (low, high):
        place.plot(x, edge, color=colour, lw=0.6, alpha=0.6)


def save(figure: Figure, path: Path) -> None:
    """Writes a figure whole to a `.png` or `.svg` file, its label as its description.

    Args:
      figure: the figure.
      path: the file; text stays text in `.svg`.
    """
    with mpl.rc_context({"svg.fonttype": "none"}), written_whole(path) as unfinished:
        words = str(figure.get_label())
        figure.savefig(
            unfinished,
            dpi=150,
            bbox_inches="tight",
            metadata={"Description": words} if words else None,
        )
