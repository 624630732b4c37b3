"""How pictures look: the colour and marker of each method, and how they are written.

Colours that depend on the page are asked of matplotlib's settings when a figure is
drawn: within a dark style, figures are dark.
"""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from camri_jax.evidence.selection import trained

# Okabe and Ito's colours, told apart by colour-blind readers, each with a marker.
STYLES: dict[str, tuple[str | None, str]] = {
    "cross_entropy": (None, "o"),
    "weighted_cross_entropy": ("#e69f00", "^"),
    "real_world_weight_cross_entropy": ("#56b4e9", "v"),
    "wasserstein": ("#009e73", "D"),
    "l2_softmax": ("#0072b2", "P"),
    "arcface": ("#cc79a7", "s"),
    "camri": ("#d55e00", "*"),
}
"""Colour and marker of each method; without a colour, that of the text."""


def foreground() -> str:
    """Returns the colour of text."""
    return mpl.rcParams["text.color"]


def background() -> str:
    """Returns the colour behind what is drawn."""
    return mpl.rcParams["axes.facecolor"]


def style(method: str) -> dict[str, Any]:
    """Returns a method's look as matplotlib takes it; hollow if its threshold moved.

    >>> style("wasserstein")["markerfacecolor"], style("camri+threshold")["marker"]
    ('#009e73', '*')
    """
    colour, marker = STYLES[trained(method)]
    colour = colour or foreground()
    face = colour if method == trained(method) else background()
    return {"color": colour, "marker": marker, "markerfacecolor": face}


def save(figure: Figure, path: Path) -> None:
    """Writes a figure to a `.png` or `.svg` file, with its label as its description.

    Args:
      figure: the figure.
      path: the file; text stays text in `.svg`.
    """
    with mpl.rc_context({"svg.fonttype": "none"}):
        text = str(figure.get_label())
        figure.savefig(path, dpi=150, metadata={"Description": text} if text else None)
