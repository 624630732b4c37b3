"""Time trials trained by the sweep's programs against the same one after another.

    python experiments/benchmarks/bench_trials.py [--quick] [--output DIR]

Epochs of CAMRI on the `small` network, batch 64, on images of 8x8x1 and 32x32x3. By the
sweep's programs: lifted over all devices, of which a CPU has one a core, and where a
device has several trials, over these by `vmap`. Against it: the steps of one trial
compiled alone, each on all cores, one trial after another. Losses must agree. The
target is for what `camri_jax.training.lift.placement` wants. Five minutes on two CPU
cores.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import made_up
import reporting
import timing

from camri_jax.training import lift
from camri_jax.training.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is measured: image shapes with the batches of an epoch."""

    shapes: tuple[tuple[tuple[int, int, int], int], ...] = (
        ((8, 8, 1), 8),
        ((32, 32, 3), 2),
    )
    trials_per_device: tuple[int, ...] = (1, 2, 8)
    batch_size: int = 64
    repetitions: int = 5


FULL = Sizes()
QUICK = Sizes((((8, 8, 1), 2),), trials_per_device=(1, 2), batch_size=16, repetitions=2)


def measure(
    sizes: Sizes, shape: tuple[int, int, int], num_batches: int
) -> Iterator[timing.Line]:
    """Compares both ways for each number of trials a device."""
    wanted = lift.placement(lift.trial_mesh())
    data = made_up.images_of(shape, num_batches * sizes.batch_size)
    recipe = Recipe(batch_size=sizes.batch_size)
    config = made_up.config_of(data, recipe=recipe, convolution=wanted.convolution)
    for number in sizes.trials_per_device:
        # One after another in one program is a loop, in which a CPU convolves slowly.
        placed = wanted._replace(vectorized=number > 1)
        num_trials = number * placed.mesh.size
        sides = {
            "alone": made_up.one_by_one(config, data, num_trials),
            "sweep": made_up.Trials(config, placed, data, num_trials).epoch,
        }
        size = "x".join(map(str, shape))
        case = f"{size}, devices x trials: {placed.mesh.size} x {number}"
        alone, ours = (epoch() for epoch in sides.values())
        timing.agree(f"losses of an epoch, {case}", ours, alone, 3e-3)
        taken = timing.seconds(sides, sizes.repetitions)
        steps = num_trials * num_batches
        first, second = taken["alone"] / steps, taken["sweep"] / steps
        what = "time of a trial-step, one trial alone / by the sweep's programs"
        target = ">= 1" if placed.vectorized == wanted.vectorized else ""
        yield timing.compared(what, case, first, second, target)


def main(argv: Sequence[str] | None = None) -> None:
    arguments = reporting.begin(__doc__, argv)
    sizes = QUICK if arguments.quick else FULL
    lines = [line for shape in sizes.shapes for line in measure(sizes, *shape)]
    reporting.report("bench_trials", lines, arguments.output, ("flax", "optax"))


if __name__ == "__main__":
    reporting.run(main)
