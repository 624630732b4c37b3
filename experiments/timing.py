"""Time alternatives fairly: one after another, over and over, and compare medians."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import pandas as pd


def median_seconds(
    sides: Mapping[str, Callable[[], object]], repetitions: int
) -> dict[str, float]:
    """Returns the median seconds of each side, which take turns.

    Args:
      sides: functions that return when their work is done; called once before timing.
      repetitions: how often each is timed.
    """
    for run in sides.values():
        run()
    seconds = {name: [] for name in sides}
    for _ in range(repetitions):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def report(lines: Sequence[Mapping[str, object]], output: Path | None) -> None:
    """Prints measurements as a table under the device's name, and keeps them as CSV.

    Args:
      lines: one mapping a row, with the same names.
      output: the file, or None.
    """
    table = pd.DataFrame(lines)
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}")
    print(table.to_string(index=False, float_format=lambda x: f"{x:.3g}"))
    if output:
        table.to_csv(output, index=False)
