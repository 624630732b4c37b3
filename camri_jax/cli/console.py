"""What commands say, and how they end.

Printing never costs a result: it is the last thing that a command does with it, and
what a terminal cannot show, or a pipe no longer takes, is left out.
"""

import errno
import io
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from camri_jax._files import TryAgain, UsageError
from camri_jax.datasets import DatasetWarning
from camri_jax.evidence import sheets

LATER = 75
"""Exit status of what may pass by itself, `EX_TEMPFAIL` of sysexits.h."""

_PLAIN: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}


class _Console(Console):
    """A console whose closed pipe does not end the process."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


console = _Console(**_PLAIN)
"""Where commands print; text is text, whatever is in it."""

errors = _Console(stderr=True, **_PLAIN)

# What is wrong with a disk or a path, and not with a program.
_OF_THE_DISK = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EEXIST,
    errno.EFBIG,
    errno.EIO,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}


def say(what: object, style: str | None = None, width: int | None = None) -> None:
    """Prints a text, or anything that rich can lay out.

    Args:
      what: a string is printed as it is.
      style: of a string.
      width: to lay out in, in place of the terminal's.
    """
    shown = Text(visible(what), style=style or "") if isinstance(what, str) else what
    _print(console, shown, width)


def note(text: str) -> None:
    """Prints what a user should know but can live with."""
    say(f"note: {text}", "yellow")


def wrote(what: str, path: Path) -> None:
    """Prints where something was written."""
    _print(console, Text(visible(f"{what:<9} {path}")), whole=True)


def visible(text: str) -> str:
    """Returns text whose control characters neither move the cursor nor colour."""
    return sheets.visible(text, keep="\n\t")


def run(main: Callable[[Sequence[str]], int | None], argv: Sequence[str]) -> int:
    """Runs a command and returns its exit status.

    What a user can mend is one sentence and status 2, and 75 where it may pass by
    itself; 130 after an interruption. All else keeps its traceback: it is ours to mend.

    Args:
      main: the command.
      argv: its arguments.
    """
    streams = sys.stdout, sys.stderr
    for stream in streams:
        # A terminal with few characters shows a question mark for the others.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", DatasetWarning)
            warnings.showwarning = _show_warning(warnings.showwarning)
            return main(argv) or 0
    except UsageError as error:
        return _failed(str(error), LATER if isinstance(error, TryAgain) else 2)
    except OSError as error:
        if error.errno not in _OF_THE_DISK:
            raise
        where = "" if error.filename is None else f"{error.filename}: "
        status = LATER if error.errno == errno.EIO else 2
        return _failed(f"{where}{error.strerror}", status)
    except ImportError as error:
        if (error.name or "").startswith("camri_jax"):
            raise
        extra = "; pip install 'camri-jax[experiments]'" if error.name else ""
        return _failed(f"{error}{extra}")
    except (AssertionError, RuntimeError) as error:
        if not _finds_no_device(error):
            raise
        # Of a kind that is known, one node of many may lack it.
        status = 2 if "known backends" in str(error) else LATER
        return _failed(
            f"JAX finds no device for JAX_PLATFORMS={os.environ['JAX_PLATFORMS']}"
            + (f": {error}" if str(error) else ""),
            status,
        )
    except KeyboardInterrupt:
        _print(errors, Text("stopped; the same command goes on where it was"))
        return 130
    except SystemExit as end:  # of --help
        return end.code if isinstance(end.code, int) else 0
    finally:
        for replaced in {sys.stdout, sys.stderr} - {*streams}:
            replaced.close()
        sys.stdout, sys.stderr = streams
        _flush()


def _finds_no_device(error: Exception) -> bool:
    """Whether JAX could not start on what the environment names."""
    frames = traceback.extract_tb(error.__traceback__)
    started = any(Path(frame.filename).stem == "xla_bridge" for frame in frames)
    return started and "JAX_PLATFORMS" in os.environ


def _failed(sentence: str, status: int = 2) -> int:
    _print(errors, Text(visible(f"error: {sentence}"), style="red"))
    return status


def _show_warning(otherwise: Callable[..., None]) -> Callable[..., None]:
    """Our warnings become notes; those of others are shown as they would be."""

    def show(message: Any, category: type, filename: str, *where: Any) -> None:
        if str(Path(__file__).parents[1]) in filename:
            note(str(message))
        else:
            otherwise(message, category, filename, *where)

    return show


def _print(
    where: Console, what: Any, width: int | None = None, *, whole: bool = False
) -> None:
    # A terminal breaks lines between words; a file keeps a sentence in one.
    whole = whole or (isinstance(what, Text) and not where.is_terminal)
    try:
        where.print(what, soft_wrap=whole, crop=False, width=width)
        where.file.flush()
    except (OSError, ValueError):
        # Nobody reads any more, or the disk that it is written to is full.
        nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        if where is console:
            sys.stdout = nowhere
        else:
            sys.stderr = nowhere


def _flush() -> None:
    """Flushes both streams, or turns them off: Python would fail at its exit."""
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            stream.flush()
        except (OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
