"""Laws of lifting: many trials are each trial alone, and devices do not talk."""

import contextlib
import functools
import os
import re
import subprocess
import sys
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import CLASSES, DATASET, placement, plan

from camri_jax.datasets.dataset import Part, make_dataset
from camri_jax.sweeps import chunk as chunks
from camri_jax.sweeps import plan as planning
from camri_jax.sweeps.plan import Chunk, problem_of, stack
from camri_jax.training import lift, trial
from camri_jax.training.recipe import Recipe

pytestmark = pytest.mark.usefixtures("promotion_as_optax_needs_it")

COLLECTIVES = re.compile(
    r"all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter"
)
# What a CPU wants, and what a GPU wants.
CPU = {"vectorized": False, "loop": "steps"}
GPU = {"vectorized": True, "loop": "scan"}


def quadratic(x, scale, shared):
    return {"value": scale * jnp.sum(x * shared), "twice": 2.0 * x}


@pytest.mark.parametrize("vectorized", [True, False])
@pytest.mark.parametrize("num_devices", [1, 2])
def test_lifted_equals_a_loop(num_devices, vectorized):
    where = placement(num_devices, vectorized=vectorized)
    x, scale = np.arange(12.0, dtype=np.float32).reshape(4, 3), np.ones(4, np.float32)
    shared = np.array([1.0, 2.0, 3.0], np.float32)
    lifted = lift.lift(quadratic, where, (0, 0, None))
    own = lift.shard((x, scale), where.mesh)
    result = lifted(*own, lift.replicate(shared, where.mesh))
    for i in range(4):
        expected = quadratic(x[i], scale[i], shared)
        np.testing.assert_allclose(result["value"][i], expected["value"])
        np.testing.assert_allclose(result["twice"][i], expected["twice"])
    assert len(result["value"].sharding.device_set) == num_devices


def test_one_after_another_a_trial_does_not_depend_on_how_many_there_are():
    # The sum of a product rounds as it is cut into vector operations.
    def steep(x, matrix):
        return jnp.tanh(x @ matrix).sum() / 3

    rng = np.random.default_rng(0)
    x, matrix = rng.normal(size=(4, 5, 99)), rng.normal(size=(99, 33))
    x, matrix = x.astype(np.float32), matrix.astype(np.float32)
    lifted = lift.lift(steep, placement(1, vectorized=False), (0, None))
    np.testing.assert_array_equal(lifted(x, matrix)[1:3], lifted(x[1:3], matrix))


def test_the_search_for_collectives_finds_one():
    def with_sum(x):
        return x - jax.lax.pmean(x, lift.TRIAL)

    lifted = lift.lift(with_sum, placement(2), (0,))
    text = lifted.lower(jax.ShapeDtypeStruct((4,), jnp.float32)).compile().as_text()
    assert COLLECTIVES.search(text)


def test_donated_arguments_are_taken():
    where = placement(2)
    add = lift.lift(lambda x, y: x + y, where, (0, None), donate_argnums=(0,))
    x = lift.shard(np.zeros(4, np.float32), where.mesh)
    add(x, lift.replicate(np.float32(1), where.mesh))
    assert x.is_deleted()


# Trials.

PLAN = plan(num_seeds=3, grid={"camri.margin": (0.1,), "scale": (16.0, 4.0)})
TRIALS = tuple(t for t in PLAN.trials if t.method == "camri" or t.seed == 0)
CONFIG = PLAN.chunks[0].config


@functools.cache
def trained(num_devices, vectorized, loop, width, first=0, count=None):
    """What some of the trials come to, placed like this."""
    where = placement(num_devices, vectorized=vectorized, loop=loop)
    data = chunks.place(DATASET, CONFIG, where)
    some = TRIALS[first : first + (count or width)]
    return chunks.train_chunk(Chunk(CONFIG, some, width), data, where)


@pytest.mark.slow
def test_a_checkpoint_goes_on_on_another_number_of_devices():
    """Without the trial that filled up the last place."""
    one, kept = Chunk(CONFIG, TRIALS[:1], 1), []
    for width, where in ((2, placement(2)), (1, placement(1))):
        data = chunks.place(DATASET, CONFIG, where)
        found = chunks.train_chunk(
            one._replace(width=width),
            data,
            where,
            checkpoint=kept[0] if kept else None,
            keep=lambda fetch: kept.append(fetch()),
        )
    assert found.begin == kept[0].epoch
    for part, expected in trained(1, True, "scan", 1).logits[0].items():
        np.testing.assert_allclose(found.logits[0][part], expected, atol=1e-3)


@functools.cache
def alone(i):
    """The logits of a trial by plain calls of its functions, without any lift."""
    one = Chunk(CONFIG, TRIALS[i : i + 1], 1)
    (seed,), arrays = stack(one, problem_of(DATASET, CONFIG.recipe))
    arrays = jax.tree.map(lambda x: x[0], arrays)
    images, labels = DATASET.parts["train"].images, DATASET.parts["train"].labels

    def run(name, *arguments):
        return _compiled(name)(*arguments)

    state, losses = run("init", images, seed), []
    for _ in range(CONFIG.recipe.epochs):
        order = run("shuffle", state)
        for _ in range(CONFIG.num_batches):
            state, loss = run("train_batch", state, arrays, order, images, labels)
            losses.append(float(loss))
    logits = {}
    for name in ("validation", "test"):
        part = DATASET.parts[name]
        logits[name] = run("score", state, arrays, part.images, part.labels).logits
    return logits, np.reshape(losses, (CONFIG.recipe.epochs, -1)).mean(1)


@functools.cache
def _compiled(name):
    return jax.jit(functools.partial(getattr(trial, name), CONFIG))


PLACEMENTS = [
    # devices, vectorized, loop, width; of five trials the last has no neighbour.
    (1, *CPU.values(), 1, 0, 1),
    (2, *CPU.values(), 2, 3, 2),
    (1, *CPU.values(), 3, 0, 3),
    (2, *GPU.values(), 4, 0, 3),
]


def assert_alone(found, first=0):
    """Trials from this one on are what plain calls make of them."""
    for i, row in enumerate(found.rows):
        assert row["trial_id"] == TRIALS[first + i].trial_id
        logits, loss = alone(first + i)
        for name in ("validation", "test"):
            size = len(DATASET.parts[name].labels)
            assert found.logits[i][name].shape == (size, 3)
            np.testing.assert_allclose(
                found.logits[i][name], logits[name], rtol=1e-3, atol=1e-3
            )
        np.testing.assert_allclose(row["history_loss"], loss, rtol=1e-4)
    spread = np.std([trial["test"] for trial in found.logits], 0).max()
    assert len(found.logits) == 1 or spread > 0.1


@pytest.mark.parametrize("where", PLACEMENTS)
def test_however_it_is_placed_a_trial_is_that_of_plain_calls(where):
    found, first = trained(*where), where[4]
    assert len(found.rows) == len(found.logits) == len(found.variables) == where[5]
    assert_alone(found, first)


def test_a_rerun_is_bit_for_bit_the_same():
    first = trained(*PLACEMENTS[3])
    trained.cache_clear()
    again = trained(*PLACEMENTS[3])
    assert again is not first
    jax.tree.map(np.testing.assert_array_equal, again, first)


@pytest.mark.parametrize("where", [PLACEMENTS[2], PLACEMENTS[3]])
def test_a_trial_that_explodes_disturbs_no_other_of_its_chunk(where):
    """Bit for bit; and diverged is what has weights or a loss that are not finite."""
    healthy = trained(*where)
    num_devices, vectorized, loop, width, *_ = where
    middle = TRIALS[1]._replace(point=TRIALS[1].point | {"scale": 1e38})
    some = (TRIALS[0], middle, TRIALS[2])
    place = placement(num_devices, vectorized=vectorized, loop=loop)
    data = chunks.place(DATASET, CONFIG, place)
    sick = chunks.train_chunk(Chunk(CONFIG, some, width), data, place)
    assert [row["diverged"] for row in healthy.rows] == [False] * 3
    assert [row["diverged"] for row in sick.rows] == [False, True, False]
    for i in (0, 2):
        for part in ("validation", "test"):
            np.testing.assert_array_equal(sick.logits[i][part], healthy.logits[i][part])
        jax.tree.map(
            np.testing.assert_array_equal, sick.variables[i], healthy.variables[i]
        )


@contextlib.contextmanager
def recorded():
    """Names and texts of the programs that are called, with the sharding they get."""
    texts, plain = [], lift.lift

    def record(function, *arguments, **options):
        lifted, compiled = plain(function, *arguments, **options), []
        name = getattr(function, "func", function).__name__

        def call(*trees):
            if not compiled:
                compiled.append(lifted.lower(*trees).compile())
                texts.append((name, compiled[0].as_text()))
            return compiled[0](*trees)

        return call

    chunks.programs.cache_clear()
    try:
        with mock.patch.object(lift, "lift", record):
            yield texts
    finally:
        chunks.programs.cache_clear()


STEPS = ["init", "is_finite", "score", "shuffle", "train_batch"]
SCAN = ["init", "is_finite", "score_all", "train_epoch"]


def assert_silent(texts, num_devices, names):
    """These are all programs, and in none does a device wait for another."""
    assert sorted(name for name, _ in texts) == names
    for name, text in texts:
        assert f"num_partitions={num_devices}" in text, name
        assert not COLLECTIVES.search(text), name


@pytest.mark.parametrize("where", [PLACEMENTS[1], PLACEMENTS[3]])
def test_the_programs_of_two_devices_hold_no_collectives(where):
    with recorded() as texts:
        found = trained.__wrapped__(*where)
    assert_silent(texts, 2, SCAN if where[2] == "scan" else STEPS)
    again = trained(*where)
    jax.tree.map(np.testing.assert_array_equal, found.logits, again.logits)


def test_programs_of_trials_in_one_order_hold_no_collectives():
    def features(part):
        pixels = part.images.reshape(len(part.images), -1)[:, :6]
        return Part(pixels.astype(np.float32), part.labels)

    parts = {name: features(DATASET.parts[name]) for name in ("train", "test")}
    dataset = make_dataset("features", parts, CLASSES)
    planned = planning.plan(
        planning.SweepConfig(
            methods=("l2_softmax", "camri"),
            important=("bee",),
            num_seeds=1,
            recipe=Recipe.heads(epochs=2, batch_size=8),
        ),
        dataset,
        placement(2),
    )
    (chunk,) = planned.chunks
    data = chunks.place(dataset, chunk.config, planned.placement)
    with recorded() as texts:
        chunks.train_chunk(chunk, data, planned.placement)
    assert_silent(texts, 2, ["init", "is_finite", "of_one", "of_one"])


EIGHT = """
import jax, sys
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
import test_lift
for where, names in (
    (test_lift.CPU, test_lift.STEPS),
    (test_lift.GPU, test_lift.SCAN),
):
    with test_lift.recorded() as texts:
        found = test_lift.trained(8, *where.values(), 8, 0, 5)
    assert len(found.rows) == 5
    test_lift.assert_alone(found)
    test_lift.assert_silent(texts, 8, names)
"""


@pytest.mark.slow
def test_five_trials_on_eight_devices_are_those_of_one_which_do_not_talk():
    """Three of the devices repeat the last; a minute where cores are shared."""
    programs = jax.config.values["jax_compilation_cache_dir"]
    command = [sys.executable, "-c", EIGHT, programs]
    environ = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
