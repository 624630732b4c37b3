"""Time the two lowerings of the convolution against each other, in one run.

    python experiments/bench_convolution.py [--quick]

A step is forward and gradient of the `small` network on a batch of 64, several of them
in one `scan`, for one trial and for several under `vmap`. Sides alternate; the table
holds medians, and ratios to patches at the same number of trials. Two minutes on two
CPU cores.
"""

import argparse
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
from timing import median_seconds, report

from camri_jax import models

BATCH, STEPS = 64, 3
LOWERINGS: tuple[models.Convolution, ...] = ("patches", "lax")


def compiled(convolution: models.Convolution, num_trials: int, size: int):
    """Returns a function without arguments that takes STEPS steps of all trials."""
    network = models.small(num_classes=10, use_bias=True, convolution=convolution)
    key = jax.random.key(0)
    shape = (STEPS, BATCH, size, size, 3)
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


def main() -> None:
    parser = argparse.ArgumentParser(description="Time lowerings of the convolution.")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--output", type=Path, help="write the table as CSV")
    arguments = parser.parse_args()
    lines = []
    for size, num_trials in ((8, 1), (8, 8), (32, 1), (32, 4)):
        sides = {name: compiled(name, num_trials, size) for name in LOWERINGS}
        results = [run() for run in sides.values()]
        difference = max(
            float(jnp.abs(a - b).max())
            for a, b in zip(*map(jax.tree.leaves, results), strict=True)
        )
        medians = median_seconds(sides, 2 if arguments.quick else 7)
        for name in sides:
            lines.append(
                {
                    "size": size,
                    "trials": num_trials,
                    "convolution": name,
                    "ms per trial-step": 1e3 * medians[name] / STEPS / num_trials,
                    "to patches": medians[name] / medians["patches"],
                    "largest difference": difference,
                }
            )
    report(lines, arguments.output)


if __name__ == "__main__":
    main()
