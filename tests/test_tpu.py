"""The sweep's programs compile for TPUs, which need not be there; run with -m tpu_aot.

The compiler is libtpu's: `pip install -e '.[tpu-check]'`, and JAX_PLATFORMS=cpu.
"""

import importlib.util

import jax
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec
from test_lift import COLLECTIVES

from camri_jax.sweeps import chunk as chunks
from camri_jax.sweeps import width as widths
from camri_jax.training import lift
from camri_jax.training.methods import METHODS, Problem, hyperparameters
from camri_jax.training.recipe import Recipe, TrainConfig

pytestmark = [
    pytest.mark.tpu_aot,
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None,
        reason="not installed: libtpu; pip install -e '.[tpu-check]' brings it",
    ),
    pytest.mark.usefixtures("promotion_as_optax_needs_it", "without_a_tpu"),
]

GB = 10**9
TRIALS = 16
"""A chip: as many as the width's search may come to; by XLA's estimates 4 do."""


@pytest.fixture
def without_a_tpu(monkeypatch):
    """Lets libtpu start where it would look for its machine, and compile sooner."""
    for name, value in {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_WORKER_ID": "0",
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",
    }.items():
        monkeypatch.setenv(name, value)
    # A quarter of the time, and more memory rather than less.
    before = jax.config.jax_exec_time_optimization_effort
    jax.config.update("jax_exec_time_optimization_effort", -1.0)
    yield
    jax.config.update("jax_exec_time_optimization_effort", before)


def chips(name):
    """The devices of a TPU slice that is not there."""
    one = {"chips_per_host_bounds": (1, 1, 1)} if name.endswith("1x1") else {}
    return topologies.get_topology_desc(
        platform="tpu", topology_name=name, **one
    ).devices


def placed(tree, where, axis=None):
    """The shapes of arrays as sweeps place them: by trial, or whole on every device."""
    sharding = NamedSharding(where.mesh, PartitionSpec(axis))
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
    )


def programs(config, where, monkeypatch):
    """Those that train a chunk: name, shapes of the arguments, lifted function."""
    found, plain = {}, lift.lift

    def recorded(function, *arguments, **options):
        lifted = plain(function, *arguments, **options)
        found[getattr(function, "func", function).__name__] = lifted
        return lifted

    monkeypatch.setattr(lift, "lift", recorded)
    chunks.programs.__wrapped__(config, where)

    def images(*sizes):
        return placed(jax.ShapeDtypeStruct((*sizes, 32, 32, 3), np.uint8), where)

    def labels(*sizes):
        return placed(jax.ShapeDtypeStruct(sizes, np.int32), where)

    width, batch = TRIALS * where.mesh.size, config.recipe.batch_size
    problem = Problem(10, (3,), (5_000,) * 10)
    one = hyperparameters("camri", problem, {"margin": 0.2, "scale": 16.0})
    arrays = jax.tree.map(lambda x: np.stack([x] * width), one)
    seeds = np.zeros(width, np.int32)
    seeds, arrays = placed((seeds, arrays), where, lift.TRIAL)
    states = jax.eval_shape(found["init"], images(chunks._LOOK), seeds)
    states = placed(states, where, lift.TRIAL)
    size = config.num_images
    score = -(-10_000 // batch), batch
    given = {
        "init": (images(chunks._LOOK), seeds),
        "train_epoch": (states, arrays, images(size), labels(size)),
        "score_all": (states, arrays, images(*score), labels(*score)),
        "is_finite": (states,),
    }
    return [(name, shapes, found[name]) for name, shapes in given.items()]


def test_the_search_for_collectives_finds_one_on_a_tpu():
    def with_sum(x):
        return x - jax.lax.pmean(x, lift.TRIAL)

    where = lift.placement(lift.trial_mesh(chips("v5e:2x2")))
    x = placed(jax.ShapeDtypeStruct((4,), np.float32), where, lift.TRIAL)
    text = lift.lift(with_sum, where, (0,)).lower(x).compile().as_text()
    assert COLLECTIVES.search(text)


@pytest.mark.parametrize(
    ("name", "memory", "recipe"),
    [
        ("v5e:1x1", 16 * GB, Recipe.fast(precision="bfloat16")),
        ("v5e:2x2", 16 * GB, Recipe(precision="bfloat16")),
        ("v6e:1x1", 32 * GB, Recipe(precision="bfloat16")),
    ],
    ids=["v5e:1x1", "v5e:2x2", "v6e:1x1"],
)
def test_a_sweep_of_cifar10_compiles_for_a_tpu(name, memory, recipe, monkeypatch):
    """Without collectives, and in less than the memory of a chip."""
    where = lift.placement(lift.trial_mesh(chips(name)))
    config = TrainConfig.of(
        METHODS["camri"],
        num_classes=10,
        num_images=50_000,
        recipe=recipe,
        convolution=where.convolution,
    )
    for function, given, lifted in programs(config, where, monkeypatch):
        program = lifted.lower(*given).compile()
        text = program.as_text()
        assert where.mesh.size == 1 or "num_partitions=4" in text
        assert not COLLECTIVES.search(text), function
        # The test images, where they are not an argument, are small beside a tenth.
        assert widths._bytes(program) < 0.9 * memory, function
