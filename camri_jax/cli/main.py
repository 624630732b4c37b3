"""The command `camri`: one word says what to do, the rest is that command's own."""

import ast
import contextlib
import difflib
import importlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import camri_jax

COMMANDS = (
    *("sweep", "report", "table1", "table2", "prices", "power"),
    *("figures", "figure1", "figure2"),
    *("tune", "verify", "recalibrate", "check", "export", "predict"),
    *("show_data", "replicate", "doctor"),
)
"""What there is: modules of this package, whose first lines say what they do."""

STOPPED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that the first word names.

    Args:
      argv: words; default those of the process.

    Returns:
      The exit status.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    if not words or words[0] in ("-h", "--help"):
        print("usage: camri COMMAND ...; camri COMMAND --help tells more\n")
        for name in COMMANDS:
            print(f"  {name:12} {_docstring(name).splitlines()[0]}")
        return 0 if words else 2
    if words[0] == "--version":
        print(f"camri_jax {camri_jax.__version__}")
        return 0
    command = words[0].replace("-", "_")
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=2) or COMMANDS
        return _failed(f"there is no command {words[0]!r}; there is {', '.join(near)}")
    if argv is None:
        sys.argv = [f"{sys.argv[0]} {words[0]}", *words[1:]]
        return start(command)
    return start(command, words[1:])


def start(command: str, argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
      command: one of `COMMANDS`.
      argv: its words; default those of the process, which then ends with a second
        Ctrl-C at once.

    Returns:
      The exit status: 0; 1 where nothing came of it; 2 for what the user can mend; 75
      for what may pass by itself; 130 after an interruption.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    # Pictures are written, never shown, and what a notebook would draw on may not be
    # there.
    os.environ["MPLBACKEND"] = "agg"
    with _stopping() as loaded:
        try:
            # Most of what commands need comes with an extra.
            module = importlib.import_module(f"camri_jax.cli.{command}")
            console = importlib.import_module("camri_jax.cli.console")
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("camri_jax"):
                raise
            if "--help" in words or "-h" in words:
                print(_docstring(command))
                return 0
            return _failed(
                f"camri {command} needs {error.name}: "
                "pip install 'camri-jax[experiments]'"
            )
        except ValueError as error:
            # JAX reads the environment when it is imported.
            if "environment" not in str(error) and "JAX" not in str(error):
                raise
            return _failed(str(error))
        loaded()
        status = console.run(module.main, words)
    if status == STOPPED and argv is None:
        # Threads that still compute would be waited for.
        os._exit(STOPPED)
    return status


def _failed(sentence: str) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return 2


def _docstring(command: str) -> str:
    """What a command says about itself, without what it needs to run."""
    source = Path(__file__).with_name(f"{command}.py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)) or ""


@contextlib.contextmanager
def _stopping() -> Iterator:
    """Ctrl-C and SIGTERM stop a command: before it is loaded at once, then in order.

    Once loaded, the first raises `KeyboardInterrupt`, the second ends the process even
    while it computes; files are whole at any time.

    Yields:
      A function to call once everything is loaded.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return

    def end(number: int, frame: object) -> None:
        sys.stderr.write("stopped\n")
        os._exit(STOPPED)

    def interrupt(number: int, frame: object) -> None:
        for each in numbers:
            signal.signal(each, end)
        raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, end) for number in numbers}
    told: list[socket.socket] = []

    def loaded() -> None:
        receiving, sending = socket.socketpair()
        told.append(sending)
        sending.setblocking(False)
        for number in numbers:
            signal.signal(number, interrupt)
        signal.set_wakeup_fd(sending.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=_watch, args=(receiving,), daemon=True).start()

    try:
        yield loaded
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(-1)
        for sending in told:
            sending.close()


def _watch(receiving: socket.socket) -> None:
    """Ends the process at the second signal, which Python itself may see too late."""
    with receiving:
        if not receiving.recv(1):
            return
        receiving.settimeout(2)
        try:
            again = receiving.recv(1)
        except TimeoutError:
            sys.stderr.write("stopping after this step; Ctrl-C again ends at once\n")
            receiving.settimeout(None)
            again = receiving.recv(1)
        if again:
            os._exit(STOPPED)
