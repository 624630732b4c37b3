"""What commands say, and how they end.

Printing never costs a result: it is the last that a command does with it, and what a
terminal cannot show, or a pipe no longer takes, is left out.
"""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from camri_jax._files import UsageError

console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
"""Where commands print; text is text, whatever is in it."""

errors = Console(
    stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False
)


def say(what: object, style: str | None = None) -> None:
    """Prints a text, or anything that rich can lay out.

    Args:
      what: a string is printed as it is.
      style: of a string.
    """
    shown = Text(visible(what), style=style or "") if isinstance(what, str) else what
    _print(console, shown)


def note(text: str) -> None:
    """Prints what a user should know but can live with."""
    say(f"note: {text}", "yellow")


def wrote(what: str, path: Path) -> None:
    """Prints where something was written."""
    say(f"{what:10}{path}")


def visible(text: str) -> str:
    """Returns a text whose control characters neither move the cursor nor colour.

    >>> visible("a" + chr(27) + "[31mb") == "a" + chr(0xFFFD) + "[31mb"
    True
    """
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def run(main: Callable[[Sequence[str]], int | None], argv: Sequence[str]) -> int:
    """Runs a command and returns its exit status.

    What a user can mend is one sentence and status 2; 130 after an interruption. All
    else keeps its traceback: it is ours to mend.

    Args:
      main: the command.
      argv: its arguments.
    """
    for stream in (sys.stdout, sys.stderr):
        # A terminal of few letters shows a question mark for the others.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        return main(argv) or 0
    except UsageError as error:
        _print(errors, Text(visible(f"error: {error}"), style="red"))
        return 2
    except KeyboardInterrupt:
        _print(errors, Text("stopped; the same command goes on where it was"))
        return 130
    finally:
        _flush()


def _print(where: Console, what: object) -> None:
    try:
        where.print(what)
        where.file.flush()
    except (BrokenPipeError, ValueError):
        # Nobody reads any more.
        where.file = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _flush() -> None:
    """Empties standard output, or turns it off: Python would fail at its exit."""
    try:
        sys.stdout.flush()
    except (BrokenPipeError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
