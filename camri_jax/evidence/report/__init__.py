"""One page of HTML that holds everything: words, tables, pictures, settings, origins.

The page needs no network and no other file. Tables are sorted by DataTables, which
`itables` embeds; pictures are embedded twice, for light and for dark screens.
"""

import base64
import html
import io
import re
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any, NamedTuple

import itables
import jinja2
import pandas as pd
from itables.javascript import generate_init_offline_itables_html
from matplotlib import style as mpl_style
from matplotlib.figure import Figure

from camri_jax.evidence.report.words import (
    Finding,
    Origin,
    Table,
    finding,
    grid,
    origins,
    settings,
)
from camri_jax.evidence.selection import LABELS

__all__ = [
    "Finding",
    "Missing",
    "Origin",
    "Part",
    "Picture",
    "Section",
    "Table",
    "finding",
    "grid",
    "origins",
    "page",
    "picture",
    "settings",
    "sortable",
]

# Of the page and of its pictures.
LIGHT, DARK = "#ffffff", "#15181d"


class Picture(NamedTuple):
    """A figure.

    Attributes:
      title: its heading.
      caption: what it shows.
      text: what stands in its place for those who do not see it.
      light: SVG for light screens, as a data URI.
      dark: the same for dark screens.
      width: in pixels, at which its text is as large as the page's.
    """

    title: str
    caption: str
    text: str
    light: str
    dark: str
    width: int


class Missing(NamedTuple):
    """What stands in the place of a table or picture that cannot be made."""

    title: str
    why: str


Part = Table | Picture | Missing


class Section(NamedTuple):
    """One choice of important classes.

    Attributes:
      title: names the classes.
      findings: one a method.
      grounds: sentences on what they rest on.
      parts: tables and pictures.
    """

    title: str
    findings: Sequence[Finding]
    grounds: Sequence[str]
    parts: Sequence[Part]


def page(
    title: str,
    sections: Sequence[Section],
    *,
    notes: Sequence[str],
    facts: dict[str, str],
    grid: Table,
    origins: Sequence[Origin],
) -> str:
    """Returns the page.

    Args:
      title: its heading.
      sections: one a choice of important classes.
      notes: sentences on what is wrong with the rows.
      facts: the settings of the trials, by name.
      grid: the hyperparameters tried.
      origins: the commands that made the rows, and this page.

    Returns:
      HTML that asks nothing of the network.
    """
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    source = resources.files(__name__).joinpath("report.html.jinja")
    template = environment.from_string(source.read_text(encoding="utf-8"))
    bundle = generate_init_offline_itables_html(itables.options.dt_bundle)
    return template.render(
        title=title,
        sections=sections,
        notes=notes,
        facts=facts,
        grid=grid,
        origins=origins,
        light=LIGHT,
        dark=DARK,
        bundle=bundle,
        sortable=sortable,
        is_table=lambda part: isinstance(part, Table),
        is_picture=lambda part: isinstance(part, Picture),
    )


def picture(draw: Callable[[], Figure], title: str, caption: str) -> Picture:
    """Draws a figure for light and for dark screens.

    Args:
      draw: returns the figure; its label is the text in its place.
      title: its heading.
      caption: what it shows.
    """
    text, light, width = _drawn(draw, "default", LIGHT)
    _, dark, _ = _drawn(draw, "dark_background", DARK)
    return Picture(title, caption, text, light, dark, width)


def _drawn(
    draw: Callable[[], Figure], style: str, background: str
) -> tuple[str, str, int]:
    """A figure's text, its SVG as a data URI, and its width in pixels."""
    colours = dict.fromkeys(
        ("figure.facecolor", "axes.facecolor", "savefig.facecolor"), background
    )
    # A fixed salt: the same numbers give the same file.
    with mpl_style.context([style, colours | {"svg.hashsalt": "camri_jax"}]):
        figure = draw()
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    encoded = base64.b64encode(file.getvalue()).decode("ascii")
    width = round(96 * figure.get_size_inches()[0])
    return str(figure.get_label()), f"data:image/svg+xml;base64,{encoded}", width


def sortable(table: Table, name: str) -> str:
    """Returns a table that is sorted by a click or a key, numbers as numbers.

    Args:
      table: whose rows may come in any order: a row that continues the one before it
        ("+ threshold") is given that one's name.
      name: an identifier for the page.
    """
    rows = _with_names(table.rows)
    numbers = list(range(1, len(table.columns)))
    columns: dict[str, Any] = {}
    for i in range(len(table.columns)):
        cells = [_marked_up(row[i]) for row in rows]
        if i:
            # DataTables sorts categories by their rank.
            rank = {_marked_up(row[i]): _first_number(row[i]) for row in rows}
            cells = pd.Categorical(cells, sorted(rank, key=rank.__getitem__), True)
        columns[_heading(table.columns, i)] = cells
    return itables.to_html_datatable(
        pd.DataFrame(columns),
        caption=html.escape(table.title),
        table_id=name,
        connected=False,
        display_logo_when_loading=False,
        allow_html=True,
        paging=False,
        maxBytes=0,
        layout=dict.fromkeys(("topStart", "topEnd", "bottomStart", "bottomEnd")),
        classes="sortable",
        style="",
        # Ranks are numbers, though what they stand for is text.
        columnDefs=[
            {"targets": 0, "cellType": "th"},
            {"targets": numbers, "type": "num"},
        ],
        text_in_header_can_be_selected=False,
    )


def _with_names(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Gives rows that only say "+ threshold" the name of the method above."""
    named, above = [], ""
    for first, *others in rows:
        labels = [label for label in LABELS.values() if first.startswith(label)]
        above = max(labels, key=len, default=above)
        if first.startswith("  +"):
            first = f"{above} {first.strip()}"
        named.append([first, *others])
    return named


def _heading(columns: Sequence[str], i: int) -> str:
    """A column's name in one line, different from all others."""
    name = _one_line(columns[i])
    if columns[i].startswith("\n"):
        name = f"{columns[i - 1].split(chr(10))[0]} {name}"
    elif columns.count(columns[i]) > 1:
        name = f"{name} ({_one_line(columns[i - 1])})"
    return html.escape(name)


def _one_line(name: str) -> str:
    return name.replace("-\n", "-").replace("\n", " ").strip()


def _marked_up(cell: str) -> str:
    text = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1*</strong>", html.escape(cell.strip()))
    return text.replace("\n", "<br>")


def _first_number(cell: str) -> float:
    """What a cell is sorted by; without a number it comes last."""
    found = re.search(r"[-+]?\d+(\.\d+)?", cell.replace(",", ""))
    if found is None:
        return float("inf")
    return float(found[0]) - (1e-9 if cell.startswith("<") else 0.0)
