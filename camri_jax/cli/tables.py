"""Sheets on the console."""

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from camri_jax.cli.console import say, visible
from camri_jax.evidence.tables import Sheet, plain


def show(sheets: Sequence[Sheet]) -> None:
    """Prints sheets; the first column is set left, the others right.

    Args:
      sheets: from `camri_jax.evidence.tables`.
    """
    for sheet in sheets:
        table = Table(
            title=Text(visible(sheet.title)),
            caption=Text(visible(sheet.caption)),
            box=box.SIMPLE_HEAD,
            padding=0,
            show_edge=False,
        )
        for i, name in enumerate(sheet.columns):
            side = "right" if i else "left"
            table.add_column(Text(name), justify=side, no_wrap=True)
        for row in plain(sheet):
            table.add_row(*(Text(visible(cell)) for cell in row))
        say(table)
        say("")
