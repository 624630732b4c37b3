"""Time a sweep from its command to its first epoch, with and without compiled programs.

    python experiments/benchmarks/bench_start.py [--quick] [--output DIR]

Each start is a process of its own: `camri sweep` on the digits, with all methods or
with one, until the host knows that the first epoch of the first chunk is done (an epoch
is 17 steps). Cold starts have an empty compilation cache, cached ones that of the start
before them; both lists of programs are the compiler's. Also counts the training
programs of the paper's whole CIFAR-10 grid. Three minutes on two CPU cores.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import reporting
import timing

from camri_jax.datasets.dataset import Part, make_dataset
from camri_jax.sweeps.plan import SweepConfig, plan
from camri_jax.training import lift
from camri_jax.training.methods import METHODS

CHILD = """
import json, os, sys, time
import jax
counts = {"compiled": 0, "read": 0}
def count(event, **_):
    if event == "/jax/compilation_cache/cache_hits":
        counts["read"] += 1
    elif event == "/jax/compilation_cache/cache_misses":
        counts["compiled"] += 1
jax.monitoring.register_event_listener(count)
from camri_jax.cli import main
from camri_jax.sweeps import engine
def first(progress):
    seconds = time.time() - float(sys.argv[1])
    print(json.dumps({"seconds": seconds, **counts}), flush=True)
    os._exit(0)
run = engine.run
engine.run = lambda *a, **k: run(*a, **{**k, "report": first})
sys.exit(main.main(["sweep", *sys.argv[2:]]))
"""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is measured; no methods are all of them."""

    methods: tuple[tuple[str, ...], ...] = ((), ("cross_entropy",))
    repetitions: int = 3


FULL = Sizes()
QUICK = Sizes(methods=((),), repetitions=1)


def start(cache: Path, methods: Sequence[str]) -> dict[str, float]:
    """Returns seconds to the first epoch, programs compiled, and programs read."""
    with tempfile.TemporaryDirectory() as output:
        flags = ["--epochs", "2", "--output", output]
        flags += ["--methods", *methods] if methods else []
        # The child subtracts this from its own clock: Python's start counts too.
        code = "import time, sys, os; os.execv(sys.executable, [sys.executable, '-c', "
        code += "sys.argv[1], str(time.time()), *sys.argv[2:]])"
        done = subprocess.run(
            [sys.executable, "-S", "-c", code, CHILD, *flags],
            env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)},
            capture_output=True,
            text=True,
            check=False,
        )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise RuntimeError(f"the sweep did not start: {done.stdout}{done.stderr}")
    return json.loads(lines[0])


def measure(methods: Sequence[str], repetitions: int) -> Iterator[timing.Line]:
    """Starts a sweep without and with compiled programs, several times."""
    cold, cached = [], []
    for _ in range(repetitions):
        with tempfile.TemporaryDirectory() as cache:
            cold.append(start(Path(cache), methods))
            cached.append(start(Path(cache), methods))
    label = f"{len(methods) or len(METHODS)} methods"
    if any(run["compiled"] for run in cached):
        raise RuntimeError(
            f"{label}: a second start compiled what the cache should hold, "
            f"{cached[0]['compiled']:.0f} programs"
        )
    for name, runs, target in (("cold", cold, "<= 15"), ("cached", cached, "<= 6")):
        low, middle, high = np.quantile(
            [run["seconds"] for run in runs], (0.25, 0.5, 0.75)
        )
        case = f"{label}, {name}: {runs[0]['compiled']:.0f} programs compiled, "
        case += f"{runs[0]['read']:.0f} read"
        what = "seconds to the first epoch, / 1 s"
        yield timing.Line(
            what, case, middle, 1.0, "s", middle, low, high, repetitions, target
        )


def paper_grid() -> timing.Line:
    """Counts the training programs that the paper's grid on CIFAR-10 compiles."""
    labels = np.arange(50_000, dtype=np.int32) % 10
    train = Part(np.zeros((len(labels), 1, 1, 3), np.uint8), labels)
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", *"6789")
    # The paper's classes are known by the data set's name.
    dataset = make_dataset("cifar10", {"train": train, "test": train}, names)
    planned = plan(SweepConfig.paper(), dataset, lift.placement(lift.trial_mesh()))
    programs = {(chunk.config, chunk.width) for chunk in planned.chunks}
    methods = {trial.method for trial in planned.trials}
    return timing.counted(
        "training programs / methods",
        f"the paper's CIFAR-10 grid, {len(planned.trials):,} trials",
        len(programs),
        len(methods),
        "",
        "<= 1",
    )


def main(argv: Sequence[str] | None = None) -> None:
    arguments = reporting.begin(__doc__, argv)
    sizes = QUICK if arguments.quick else FULL
    lines = [paper_grid()]
    for methods in sizes.methods:
        lines += measure(methods, sizes.repetitions)
    reporting.report("bench_start", lines, arguments.output, ("flax", "optax"))


if __name__ == "__main__":
    reporting.run(main)
