"""Time alternatives fairly: one after another, over and over, and compare medians."""

import statistics
import time
from collections.abc import Callable, Mapping


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
