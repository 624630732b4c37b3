"""What every benchmark does alike: agree first, take turns, compare.

A benchmark is a list of lines. Each compares two numbers of one run under one heading,
such as "time, OTT-JAX / ours", and may have a target for their ratio; `reporting` shows
them.
"""

import importlib.util
import sys
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np

Sides = Mapping[str, Callable[[], object]]


class DisagreementError(Exception):
    """The sides do not compute the same, so nothing is timed."""


class Line(NamedTuple):
    """One comparison, measured in one run.

    Attributes:
      what: heading of the ratio, as "time, peer / ours"; a panel of the picture.
      case: what was compared, within the heading.
      first: the number before the stroke.
      second: the number after it.
      unit: of both.
      ratio: first / second; of times, the median over pairs taken in turn.
      low: lower quartile of the pairs' ratios.
      high: upper quartile.
      repetitions: number of pairs.
      target: as ">= 20"; empty without one.
    """

    what: str
    case: str
    first: float
    second: float
    unit: str
    ratio: float
    low: float
    high: float
    repetitions: int
    target: str = ""

    @property
    def reached(self) -> str:
        """Says "yes" or "no" of the target, and nothing without one."""
        if not self.target:
            return ""
        least = self.target.startswith(">=")
        held = self.ratio >= self.goal if least else self.ratio <= self.goal
        return "yes" if held else "no"

    @property
    def goal(self) -> float:
        """The number in the target."""
        return float(self.target.split()[1])


def require(*modules: str) -> None:
    """Ends the script with a sentence that names the extra, if a peer is missing."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            peers = "pip install -e '.[bench]' brings what is compared with"
            print(f"error: {module} is not installed; {peers}", file=sys.stderr)
            sys.exit(2)


def agree(what: str, ours: object, theirs: object, tolerance: float) -> None:
    """Refuses to time sides that do not compute the same.

    Args:
      what: what is compared, for the sentence.
      ours: array of numbers.
      theirs: the same of the other side.
      tolerance: largest difference allowed, relative to the largest of `theirs`.

    Raises:
      DisagreementError: they differ by more, or are not finite.
    """
    a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if a.shape != b.shape:
        raise DisagreementError(
            f"{what}: the sides have shapes {a.shape} and {b.shape}, which must be one"
        )
    difference = np.abs(a - b).max() / max(np.abs(b).max(), np.finfo(b.dtype).tiny)
    if not difference <= tolerance:
        raise DisagreementError(
            f"{what}: the sides differ by {difference:.2g} of the largest number, "
            f"where at most {tolerance:.2g} is allowed; nothing was timed"
        )
    print(f"agree to {difference:.1g} (allowed {tolerance:.1g}): {what}", flush=True)


def seconds(sides: Sides, repetitions: int) -> dict[str, np.ndarray]:
    """Times the sides in turn, over and over, after each has been called once.

    Args:
      sides: functions that return when their work is done.
      repetitions: how often each is timed.

    Returns:
      Seconds `[repetitions]` of each side.
    """
    short = {}
    for name, run in sides.items():
        run()
        start = time.perf_counter()
        run()
        short[name] = time.perf_counter() - start < 0.1
    taken = {name: np.empty(repetitions) for name in sides}
    for i in range(repetitions):
        for name, run in sides.items():
            if short[name]:
                # The side before it left its data in the caches and, some of them,
                # threads that spin on the cores.
                run()
            start = time.perf_counter()
            run()
            taken[name][i] = time.perf_counter() - start
    return taken


def compared(
    what: str, case: str, first: np.ndarray, second: np.ndarray, target: str = ""
) -> Line:
    """Returns the line of two sides' seconds, taken in turn."""
    low, middle, high = np.quantile(first / second, (0.25, 0.5, 0.75))
    ms = 1e3 * np.median(first), 1e3 * np.median(second)
    return Line(what, case, *ms, "ms", middle, low, high, len(first), target)


def counted(
    what: str, case: str, first: float, second: float, unit: str, target: str = ""
) -> Line:
    """Returns the line of two numbers that do not vary."""
    ratio = first / second
    return Line(what, case, first, second, unit, ratio, ratio, ratio, 1, target)


def temporary_mebibytes(program: jax.stages.Compiled) -> float:
    """Returns what the compiler set aside beside arguments and results, in MiB."""
    memory = program.memory_analysis()
    assert memory is not None, "CPU, GPU and TPU all have this analysis"
    return memory.temp_size_in_bytes / 2**20
