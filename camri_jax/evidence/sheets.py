"""Sheets of cells: tables for people.

A cell holds its value, its text and its mark. Console, Markdown and HTML are renderers
of the same sheet; nothing reads its text back.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from camri_jax.evidence.statistics import p_text, shown

# Controls that turn the text around them, besides those of categories Cc and Cs.
_TURNING = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}


class Cell(NamedTuple):
    """One cell of a sheet.

    Attributes:
      text: what is shown; lines are parted by newlines.
      value: what it is sorted by, None if blank.
      mark: "best", "loss" (accuracy is lost), "shown" or "".
      alone: what is shown where the row above may be any, if that is not `text`.
    """

    text: str = ""
    value: float | str | None = None
    mark: str = ""
    alone: str = ""


class Sheet(NamedTuple):
    """A table for people.

    Attributes:
      title: above it.
      caption: below it.
      columns: their names; the first is of text, the others of numbers.
      rows: their cells.
    """

    title: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


SIGNS = {"best": "*", "loss": "▼", "shown": "✓", "": ""}
"""How marks look in plain text."""


def plain(sheet: Sheet) -> list[list[str]]:
    """Returns the texts of a sheet's cells, each with the sign of its mark.

    Signs follow the first line, and a column that has any leaves room for them in every
    line, so that right-aligned numbers stay aligned.

    Args:
      sheet: any.

    >>> plain(Sheet("", "", ["a", "b"], [[Cell("x"), Cell("1.0", 1.0, "best")],
    ...                                  [Cell("y"), Cell("2.0", 2.0)]]))
    [['x', '1.0*'], ['y', '2.0 ']]
    """
    marked = [any(row[i].mark for row in sheet.rows) for i in range(len(sheet.columns))]
    return [
        [_plain(cell, room) for cell, room in zip(row, marked, strict=True)]
        for row in sheet.rows
    ]


def _plain(cell: Cell, room: bool) -> str:
    first, *others = cell.text.split("\n")
    sign = SIGNS[cell.mark] or " " * room
    return "\n".join([first + sign, *(line + " " * room for line in others)])


def markdown(sheet: Sheet) -> str:
    r"""Returns a sheet as Markdown; the best and what is shown are bold.

    >>> print(markdown(Sheet("T", "", ["a|b", "n"], [[Cell("x_y"), Cell("1", 1)]])))
    ### T
    <BLANKLINE>
    | a\|b | n |
    | --- | ---: |
    | x\_y | 1 |
    <BLANKLINE>
    """
    head = [_escaped(name) for name in sheet.columns]
    rule = ["---", *["---:"] * (len(head) - 1)]
    body = [[_markdown(cell) for cell in row] for row in sheet.rows]
    lines = ["| " + " | ".join(line) + " |" for line in (head, rule, *body)]
    caption = [_escaped(sheet.caption), ""] if sheet.caption else []
    return "\n".join([f"### {_escaped(sheet.title)}", "", *lines, "", *caption])


def _markdown(cell: Cell) -> str:
    first, *others = (_escaped(line) for line in cell.text.split("\n"))
    if first and cell.mark in ("best", "shown"):
        first = f"**{first}**"
    elif cell.mark:
        first += SIGNS[cell.mark]
    return "<br>".join([first, *others])


def _escaped(text: str) -> str:
    text = re.sub(r"([\\`*_\[\]<>|$~#])", r"\\\1", text)
    return text.replace("\n", "<br>").replace("\r", " ")


def visible(text: str, keep: str = "") -> str:
    r"""Returns text whose control characters are written out, except those to keep.

    >>> visible("a\x1b[31mb\n")
    'a\\x1b[31mb\\n'
    """
    return "".join(
        c.encode("unicode_escape").decode("ascii") if _hides(c) and c not in keep else c
        for c in text
    )


def _hides(character: str) -> bool:
    control = unicodedata.category(character) in ("Cc", "Cs")
    return control or ord(character) in _TURNING


def number(value: float, digits: int = 3) -> Cell:
    """Returns a number, blank for NaN."""
    if np.isnan(value):
        return Cell()
    return Cell(f"{value:,.{digits}f}", float(value))


def signed(value: float, digits: int = 3) -> str:
    """Returns a number with its sign, zero without.

    >>> signed(0.01), signed(-0.0001)
    ('+0.010', ' 0.000')
    """
    text = f"{value:+.{digits}f}"
    return f" {0:.{digits}f}" if float(text) == 0 else text


def _unsigned(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}"


def mean(
    line: pd.Series,
    name: str,
    digits: int = 3,
    *,
    form: Callable[[float, int], str] = _unsigned,
) -> Cell:
    """Returns a mean with its standard deviation, if there is one.

    Args:
      line: with `name` and `name_std`.
      name: of the measure.
      digits: after the point.
      form: of the mean.
    """
    value, std = line[name], line[f"{name}_std"]
    if np.isnan(value):
        return Cell()
    spread = "" if np.isnan(std) else f"±{std:.{digits}f}"
    return Cell(form(value, digits) + spread, float(value))


def difference(line: pd.Series, name: str, digits: int = 3) -> Cell:
    """Returns a mean difference with its interval, if there is one.

    Args:
      line: with `name_difference`, `name_low` and `name_high`.
      name: of the measure.
      digits: after the point.
    """
    value, low, high = (line[f"{name}_{x}"] for x in ("difference", "low", "high"))
    if np.isnan(value):
        return Cell()
    ends = f" [{signed(low, digits)}, {signed(high, digits)}]"
    text = signed(value, digits) + ("" if np.isnan(low) else ends)
    return Cell(text, float(value))


def p_cell(p_value: float) -> Cell:
    """Returns a corrected p-value, marked where the claim is shown."""
    if np.isnan(p_value):
        return Cell()
    return Cell(p_text(p_value), float(p_value), "shown" if shown(p_value) else "")
