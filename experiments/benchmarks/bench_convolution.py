"""Time the two lowerings of the convolution against each other.

    python experiments/bench_convolution.py [--quick] [--output DIR]

A step is forward and gradient of the `small` network on a batch of 64, several of them
in one `scan`, for one trial and for several under `vmap`. Both must end at the same
weights. `bench_step.py` does the same for `paper`, in whole training steps. More than
five minutes on two CPU cores, where the `lax` form is that slow.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import reporting
import timing

from camri_jax.training import network as models


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is measured: pairs of image size and trials."""

    cases: tuple[tuple[int, int], ...] = ((8, 1), (8, 8), (32, 1), (32, 4))
    batch: int = 64
    steps: int = 3
    repetitions: int = 3


FULL = Sizes()
QUICK = Sizes(cases=((8, 1), (8, 8)), repetitions=2)


def compiled(sizes: Sizes, lowering, num_trials: int, size: int):
    """Returns a function without arguments that takes the steps of all trials."""
    network = models.small(num_classes=10, use_bias=True, convolution=lowering)
    key = jax.random.key(0)
    shape = (sizes.steps, sizes.batch, size, size, 3)
    images = jax.random.randint(key, shape, 0, 256).astype(jnp.uint8)

    def step(params, images, batch_stats):
        def objective(params):
            outputs, _ = network.apply(
                {"params": params, "batch_stats": batch_stats},
                images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": key},
            )
            return jnp.square(outputs.features @ outputs.prototypes).mean()

        gradients = jax.grad(objective)(params)
        return jax.tree.map(lambda p, g: p - 1e-3 * g, params, gradients), None

    def train(key):
        variables = network.init(key, images[0], train=False)
        body = functools.partial(step, batch_stats=variables["batch_stats"])
        return jax.lax.scan(body, variables["params"], images)[0]

    program = jax.jit(jax.vmap(train))
    keys = jax.random.split(key, num_trials)
    return lambda: jax.block_until_ready(program(keys))


def compare(sizes: Sizes, size: int, num_trials: int) -> timing.Line:
    sides = {
        lowering: compiled(sizes, lowering, num_trials, size)
        for lowering in ("patches", "lax")
    }
    case = f"{size}x{size}, {num_trials} trials"
    ours, theirs = (
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(run())])
        for run in sides.values()
    )
    timing.agree(f"weights after {sizes.steps} steps, {case}", ours, theirs, 1e-4)
    taken = timing.seconds(sides, sizes.repetitions)
    per_step = {name: t / sizes.steps / num_trials for name, t in taken.items()}
    what = "time of a trial-step, lax / patches"
    return timing.compared(what, case, per_step["lax"], per_step["patches"])


def main(argv: Sequence[str] | None = None) -> None:
    arguments = reporting.parse(__doc__, argv)
    sizes = QUICK if arguments.quick else FULL
    lines = [compare(sizes, *case) for case in sizes.cases]
    reporting.report("bench_convolution", lines, arguments.output, ("flax",))


if __name__ == "__main__":
    reporting.run(main)
