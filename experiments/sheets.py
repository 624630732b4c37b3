"""Tables of text, for the console and as Markdown, and how numbers are written there.

A cell that starts between two pairs of asterisks is marked: bold in Markdown, and on
the console, where bold may not show, with one asterisk behind its first line.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


class Sheet(NamedTuple):
    """A table of text.

    Attributes:
      title: above it.
      caption: below it.
      columns: their names; the first is of text, the others of numbers.
      rows: their cells.
    """

    title: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def show(console: Console, sheet: Sheet) -> None:
    """Prints a sheet; the first column is set left, the others right."""
    table = Table(
        title=Text(sheet.title),
        caption=Text(sheet.caption),
        box=box.SIMPLE_HEAD,
        padding=0,
        show_edge=False,
    )
    for i, name in enumerate(sheet.columns):
        table.add_column(name, justify="right" if i else "left", no_wrap=True)
    columns = list(zip(*sheet.rows, strict=True))
    marked = [any(cell.startswith("**") for cell in column) for column in columns]
    for row in sheet.rows:
        cells = zip(row, marked, strict=True)
        table.add_row(*(_on_console(cell, room) for cell, room in cells))
    console.print(table)
    console.print()


def _on_console(cell: str, room: bool) -> Text:
    if cell.startswith("**"):
        first, *others = cell.removeprefix("**").split("\n")
        lines = [first.replace("**", "*"), *(f"{line} " for line in others)]
        return Text("\n".join(lines), style="bold")
    return Text("\n".join(line + " " * room for line in cell.split("\n")))


def markdown(sheet: Sheet) -> str:
    """Returns a sheet as Markdown."""
    lines = [sheet.columns, ["---", *["---:"] * (len(sheet.columns) - 1)], *sheet.rows]
    table = [
        "| " + " | ".join(cell.replace("\n", "<br>") for cell in line) + " |"
        for line in lines
    ]
    return "\n".join([f"### {sheet.title}", "", *table, "", sheet.caption, ""])


def write(sheets: Sequence[Sheet], path: Path) -> None:
    """Writes sheets to a Markdown file."""
    path.write_text("\n".join(map(markdown, sheets)), encoding="utf-8")


def spread(line: pd.Series, name: str) -> str:
    """Returns a mean with its standard deviation, if there is one."""
    if np.isnan(line[name]):
        return ""
    std = line[f"{name}_std"]
    return f"{line[name]:.3f}" + ("" if np.isnan(std) else f"±{std:.3f}")


def difference(line: pd.Series, name: str) -> str:
    """Returns a mean difference with the interval from `name_low` to `name_high`."""
    mean, low, high = (line[f"{name}_{x}"] for x in ("difference", "low", "high"))
    if np.isnan(mean):
        return ""
    return signed(mean) + ("" if np.isnan(low) else f" [{signed(low)}, {signed(high)}]")


def signed(value: float) -> str:
    """Returns a number with its sign, zero without."""
    text = f"{value:+.3f}"
    return " 0.000" if float(text) == 0 else text


def p_text(value: float) -> str:
    """Returns a p-value."""
    if np.isnan(value):
        return ""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def number(value: float, digits: int = 3) -> str:
    """Returns a number, and nothing for NaN."""
    return "" if np.isnan(value) else f"{value:.{digits}f}"
