"""The command `camri`: one word says what to do, the rest is that command's own."""

import importlib
import sys
from collections.abc import Sequence

COMMANDS = {
    "sweep": "train methods on many seeds, and tell which finds the class",
}
"""What there is, with a line for people; each is a module of this package."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that the first word names.

    Args:
      argv: words; default those of the process.

    Returns:
      The exit status.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: camri COMMAND ...; camri COMMAND --help tells more\n")
        for name, meaning in COMMANDS.items():
            print(f"  {name:12} {meaning}")
        return 0 if argv else 2
    if argv[0] not in COMMANDS:
        known = ", ".join(COMMANDS)
        print(f"error: camri {argv[0]}: commands are {known}", file=sys.stderr)
        return 2
    return start(argv[0], argv[1:])


def start(command: str, argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
      command: a key of `COMMANDS`.
      argv: its words; default those of the process.

    Returns:
      The exit status: 0, 1 where nothing came of it, 2 for what the user can mend.
    """
    argv = sys.argv[1:] if argv is None else argv
    try:
        # Most of what commands need comes with an extra.
        module = importlib.import_module(f"camri_jax.cli.{command.replace('-', '_')}")
        console = importlib.import_module("camri_jax.cli.console")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("camri_jax"):
            raise
        print(
            f"error: commands need {error.name}: pip install 'camri-jax[experiments]'",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return console.run(module.main, argv)
