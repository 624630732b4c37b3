"""How far training has come, on a terminal or without one."""

import threading
import time

from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from camri_jax.cli.console import console, say
from camri_jax.sweeps import engine

FIRST, MINUTE = 15.0, 60.0
"""Seconds to the first line, and between two."""


def duration(seconds: float) -> str:
    """Returns a time that a person can plan with.

    >>> duration(50), duration(5400), duration(300_000)
    ('50 s', '1.5 h', '3.5 days')
    """
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 1.2 * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds:.2g} s"


class progress:
    """Shows trials done and time left: a bar, or without a terminal a line a minute.

    Args:
      total: trials to train; None: not known yet.
    """

    def __init__(self, total: int | None):
        self._total, self._start = total, time.time()
        self._made: engine.Progress | None = None
        # When training was first heard of, compiled, and how far it was by then.
        self._first: tuple[float, float] | None = None
        self._ended = threading.Event()
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[done]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal or total == 0,
        )

    def __enter__(self):
        self._bar.start()
        done = "" if self._total is None else f"0 of {self._total} trials"
        self._task = self._bar.add_task("compiling", total=self._total, done=done)
        if not console.is_terminal and self._total != 0:
            # In a thread of its own, for an epoch may take an hour.
            threading.Thread(target=self._tell, daemon=True).start()
        return self._show

    def __exit__(self, *error):
        self._ended.set()
        self._bar.stop()

    def _show(self, made: engine.Progress) -> None:
        # What was trained before is known only after it was looked for.
        self._made, self._total = made, made.num_trials
        if self._first is None and made.num_done:
            self._first = time.time(), made.num_done
        trials = f"{int(made.num_done)} of {self._total} trials"
        self._bar.update(
            self._task,
            # A bar without an end would pulse.
            total=self._total or 1,
            completed=made.num_done if self._total else 1,
            done=trials if self._total else "nothing to train",
            description=made.doing,
        )

    def _tell(self) -> None:
        wait = FIRST
        while not self._ended.wait(wait):
            wait, made, spent = MINUTE, self._made, duration(time.time() - self._start)
            doing = "compiling" if made is None else made.doing
            if self._total is None:
                say(f"{spent}, {doing}")
            elif not self._total:
                say(f"nothing to train, {spent}, {doing}")
            elif made is None or not made.num_done:
                say(f"0 of {self._total} trials, {spent}, {doing}")
            else:
                done = f"{made.num_done:.2f} of {self._total} trials, {spent}"
                say(f"{done}{self._left(made)}, {doing}")

    def _left(self, made: engine.Progress) -> str:
        """Judged by what was trained since the first step, without compiling."""
        begin, num_done = self._first or (0.0, made.num_done)
        if made.num_done <= num_done:
            return ""
        rate = (made.num_done - num_done) / (time.time() - begin)
        return f", about {duration((made.num_trials - made.num_done) / rate)} left"
