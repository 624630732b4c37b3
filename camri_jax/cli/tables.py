"""Sheets on the console and in files."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich import box
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from camri_jax._files import write_whole, written_whole
from camri_jax.cli.console import console, say, visible, wrote
from camri_jax.evidence.sheets import Sheet, markdown, plain


def show(sheets: Sequence[Sheet]) -> None:
    """Prints sheets; the first column is set left, the others right.

    Args:
      sheets: from `camri_jax.evidence.tables`.
    """
    for sheet in sheets:
        table = Table(
            title=Text(visible(sheet.title)),
            caption=Text(visible(sheet.caption)),
            title_justify="left",
            caption_justify="left",
            box=box.SIMPLE_HEAD,
            padding=0,
            show_edge=False,
        )
        for i, name in enumerate(sheet.columns):
            side = "right" if i else "left"
            table.add_column(Text(visible(name)), justify=side, no_wrap=True)
        for row in plain(sheet):
            table.add_row(*(Text(visible(cell)) for cell in row))
        # A narrow terminal breaks lines; no cell is cut.
        everything = console.options.update(width=10_000)
        table.width = Measurement.get(console, everything, table).maximum
        say(table, width=table.width)
        say("")


def write(
    output: Path, name: str, frame: pd.DataFrame, sheets: Sequence[Sheet]
) -> None:
    """Writes all numbers as CSV and sheets as Markdown, then prints the sheets.

    Args:
      output: directory.
      name: of the files, without their ending.
      frame: all numbers.
      sheets: what is shown of them.
    """
    with written_whole(output / f"{name}.csv") as unfinished:
        frame.to_csv(unfinished, index=False)
    text = "\n".join(map(markdown, sheets))
    write_whole(output / f"{name}.md", text.encode(errors="replace"))
    show(sheets)
    for ending in ("csv", "md"):
        wrote(ending, output / f"{name}.{ending}")
