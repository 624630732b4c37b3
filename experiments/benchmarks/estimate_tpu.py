"""Print XLA's own estimates of a train step on one chip of TPU v5e, without a TPU.

    export JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 TPU_ACCELERATOR_TYPE=v5litepod-4
    export TPU_WORKER_HOSTNAMES=localhost TPU_WORKER_ID=0
    python experiments/benchmarks/estimate_tpu.py [CASE ...] >> table.md

A CASE is network:convolution:trials:way, as fast:lax:4:vmap or fast:lax:4:loop; without
any, all, which take hours on two cores: JAX_EXEC_TIME_OPTIMIZATION_EFFORT=-1 compiles
in a quarter of the time, to other estimates. Trials of CAMRI, bfloat16, 32x32x3, batch
64; `fast500` is at the batch of its recipe. A line has microseconds a trial-step, of
the train step as sweeps lift it, and temporary MiB. These are no timings, but
`optimal_seconds` of the compiled program, in which a loop over trials counts once.
"""

import functools
import itertools
import sys

import jax
import made_up
import numpy as np
from jax.experimental import topologies

from camri_jax.training import lift, trial
from camri_jax.training.methods import METHODS
from camri_jax.training.recipe import Recipe, TrainConfig

RECIPES = {
    "small": Recipe(precision="bfloat16"),
    "paper": Recipe.paper(precision="bfloat16"),
    "fast": Recipe.fast(precision="bfloat16", batch_size=64),
    "fast500": Recipe.fast(precision="bfloat16"),
}
WAYS = [*itertools.product((1, 4, 16), ("vmap",)), (4, "loop")]
CASES = [
    f"{network}:{convolution}:{trials}:{way}"
    for (trials, way), network, convolution in itertools.product(
        WAYS, RECIPES, ("lax", "patches")
    )
]


def seconds(program: jax.stages.Compiled) -> float:
    """XLA's estimate, which counts -1 s for each operation that it does not know."""
    return float(program.cost_analysis()["optimal_seconds"]) % 1.0


def compiled(case: str, chip: jax.Device) -> tuple[jax.stages.Compiled, int]:
    """Compiles the step of a case; returns also how many trials its estimate counts."""
    network, convolution, trials, way = case.split(":")
    recipe = RECIPES[network]
    sizes = {"num_classes": 10, "num_images": 45_000}
    config = TrainConfig.of(
        METHODS["camri"], recipe=recipe, convolution=convolution, **sizes
    )
    where = lift.placement(lift.trial_mesh([chip]))._replace(vectorized=way == "vmap")

    def lifted(function, *axes, **options):
        return lift.lift(functools.partial(function, config), where, axes, **options)

    images = jax.ShapeDtypeStruct((recipe.batch_size, 32, 32, 3), np.uint8)
    labels = jax.ShapeDtypeStruct(images.shape[:1], np.int32)
    seeds = jax.ShapeDtypeStruct((int(trials),), np.int32)
    states = jax.eval_shape(lifted(trial.init, None, 0), images, seeds)
    arrays = jax.tree.map(lambda x: np.stack([x] * len(seeds)), made_up.camri(10))
    batch = [
        jax.ShapeDtypeStruct((len(seeds), *x.shape), x.dtype) for x in (images, labels)
    ]
    step = lifted(trial.train_step, 0, 0, 0, 0, donate_argnums=(0,))
    program = step.lower(states, arrays, *batch).compile()
    return program, len(seeds) if way == "vmap" else 1


def main() -> None:
    topology = topologies.get_topology_desc(
        platform="tpu", topology_name="v5e:1x1", chips_per_host_bounds=(1, 1, 1)
    )
    for case in sys.argv[1:] or CASES:
        program, counted = compiled(case, topology.devices[0])
        microseconds = 1e6 * seconds(program) / counted
        temporary = program.memory_analysis().temp_size_in_bytes / 2**20
        cells = [*case.split(":"), f"{microseconds:,.0f}", f"{temporary:,.0f}"]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
