"""Time many trials trained at once against the same trials one after another.

    python experiments/bench_trials.py [--quick] [--output DIR]

`camri_jax.training.trial.train_epoch` of the `small` network, CAMRI, batch 64, on images of
8x8x1 and 32x32x3. At once: lifted over T trials as the sweep does. One after another:
the same function, compiled for one trial, called T times; of two devices each has its
half of the trials, and both work at the same time. Losses must agree. A CPU is measured
as one device of all cores, and as one device a core, which is how the sweep uses it.
Twelve minutes on two CPU cores.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import jax
import made_up
import reporting
import timing

from camri_jax.training import lift as parallel
from camri_jax.training.recipe import Recipe, TrainConfig


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is measured: image shapes with the batches of an epoch."""

    shapes: tuple[tuple[tuple[int, int, int], int], ...] = (
        ((8, 8, 1), 8),
        ((32, 32, 3), 2),
    )
    trials: tuple[int, ...] = (1, 2, 4, 8, 16)
    batch_size: int = 64
    repetitions: int = 5


FULL = Sizes()
QUICK = Sizes(shapes=(((8, 8, 1), 8),), trials=(1, 2, 8))


def measure(
    sizes: Sizes, shape: tuple[int, int, int], num_batches: int, num_devices: int
) -> Iterator[timing.Line]:
    """Compares both ways for each number of trials that fills the devices."""
    recipe = Recipe(batch_size=sizes.batch_size)
    number = num_batches * recipe.batch_size
    data = made_up.images_of(shape, number)
    config = TrainConfig("angular", 10, number, recipe)
    mesh = parallel.trial_mesh(jax.devices()[:num_devices])
    what = f"per-trial time, one after another / at once; {num_devices} devices"
    for num_trials in sizes.trials:
        if num_trials % num_devices:
            continue
        sides = {
            "at once": made_up.at_once(config, data, num_trials, mesh)[0],
            "one by one": made_up.one_by_one(config, data, num_trials, mesh),
        }
        case = f"{'x'.join(map(str, shape))}, {num_trials} trials"
        ours, theirs = (epoch() for epoch in sides.values())
        timing.agree(f"losses of an epoch, {case}", ours, theirs, 1e-3)
        taken = timing.seconds(sides, sizes.repetitions)
        steps = num_trials * num_batches
        slow, fast = taken["one by one"] / steps, taken["at once"] / steps
        yield timing.compared(what, case, slow, fast, ">= 1")


def main(argv: Sequence[str] | None = None) -> None:
    arguments = reporting.parse(__doc__, argv)
    sizes = QUICK if arguments.quick else FULL
    reporting.one_device_a_core()
    lines = []
    for num_devices in dict.fromkeys((1, jax.device_count())):
        for shape, num_batches in sizes.shapes:
            lines += measure(sizes, shape, num_batches, num_devices)
    reporting.report("bench_trials", lines, arguments.output, ("flax", "optax"))


if __name__ == "__main__":
    reporting.run(main)
