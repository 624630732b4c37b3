"""Kills a sweep at random moments, and says what is left of it.

    python tests/killing.py DIRECTORY NUM_KILLS

A process forks children before JAX starts, each of which plans what has no rows and
trains it; it is killed at a random moment after it has begun, or as it writes. What is
unfinished on the disk shows what it was writing. Printed are the kills, by what they
left, and whether the rows equal those of a sweep that nobody disturbed.
"""

import collections
import dataclasses
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import jax
import numpy as np
from tiny import DATASET, RECIPE, plan

from camri_jax import _arrays
from camri_jax.sweeps import engine, rows

GRID = {
    "num_seeds": 60,
    "methods": ("cross_entropy", "l2_softmax", "camri"),
    "recipe": dataclasses.replace(RECIPE, epochs=6),
}


WRITTEN = ("rows", "logits", "models", "checkpoints")


def sweep(output: Path, begun: int) -> None:
    """Trains what has no rows, in a process of its own."""
    _arrays.cure_wrong_sums()
    jax.config.update("jax_num_cpu_devices", 2)
    jax.config.update("jax_compilation_cache_dir", str(output.parent / "programs"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    rows.mend(output)
    planned = plan(done=set(rows.read(output)["trial_id"]), **GRID)
    os.write(begun, b"planned")

    def report(progress: engine.Progress) -> None:
        if not told:
            told.append(os.write(begun, b"training"))

    told: list[int] = []
    engine.run(
        planned,
        DATASET,
        output,
        provenance={},
        on_progress=report,
        checkpoint_minutes=1e-9,
    )


def child(output: Path) -> tuple[int, int]:
    """Forks one that sweeps; returns its number, and what tells that it has begun."""
    reading, writing = os.pipe()
    number = os.fork()
    if number:
        os.close(writing)
        return number, reading
    status = 1
    try:
        os.close(reading)
        sweep(output, writing)
        status = 0
    finally:
        os._exit(status)


def unfinished(output: Path) -> collections.Counter:
    """What was being written, by its directory."""
    hidden = (p for p in output.rglob(".*") if len(p.stem) == 33)
    return collections.Counter(path.parent.name for path in hidden)


def wait_for(folder: Path, before: collections.Counter, seconds: float) -> None:
    """Returns when a file more is unfinished there, or after a while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if folder.is_dir() and unfinished(folder) - before:
            return


def kill(output: Path, num_kills: int, longest: float) -> collections.Counter:
    """Kills sweeps until there were so many; the last may end."""
    left, kills = collections.Counter(), 0
    while kills < num_kills:
        before = unfinished(output)
        number, begun = child(output)
        # Some while it reads and starts, some as it writes, most while it trains.
        os.read(begun, 7)
        if random.random() < 0.9:
            os.read(begun, 8)
        os.close(begun)
        time.sleep(random.uniform(0, longest))
        if random.random() < 0.6:
            wait_for(output / random.choice(WRITTEN), before, 4 * longest)
        os.kill(number, signal.SIGKILL)
        if os.waitpid(number, 0)[1] == 0:
            raise SystemExit(f"the sweep ended after {kills} kills: take a larger one")
        kills += 1
        new = unfinished(output) - before
        left.update(new or ["nothing"])
    number, _ = child(output)
    assert os.waitpid(number, 0)[1] == 0
    return left


def main(directory: Path, num_kills: int) -> None:
    start = time.monotonic()
    number, begun = child(directory / "undisturbed")
    os.read(begun, 7)
    os.read(begun, 8)
    started = time.monotonic()
    assert os.waitpid(number, 0)[1] == 0
    # So that the last child still finds something to do.
    longest = 0.6 * (time.monotonic() - started) / num_kills
    left = kill(directory / "killed", num_kills, longest)
    one, two = (rows.read(directory / name) for name in ("undisturbed", "killed"))
    differing = [
        name
        for name in one
        if name != "provenance"
        and not (
            len(one) == len(two)
            and all(
                np.array_equal(x, y) or (x != x and y != y)
                for x, y in zip(one[name], two[name], strict=True)
            )
        )
    ]
    facts = [json.loads(text) for text in two["provenance"]]
    result = {
        "kills": num_kills,
        "while writing": dict(left),
        "rows": len(two),
        "rows expected": len(one),
        "resumed at a checkpoint": sum("resumed_after_epoch" in f for f in facts),
        "columns that differ": differing,
        "checkpoints and claims left": sum(
            1
            for name in ("checkpoints", "claims")
            for _ in (directory / "killed" / name).glob("[!.]*")
        ),
        "longest": round(longest, 3),
        "seconds": round(time.monotonic() - start),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
