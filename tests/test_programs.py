"""Laws of the compiled programs: no communication, their memory, the best width."""

import dataclasses

import jax
import pytest
from test_parallel import COLLECTIVES

from camri_jax import datasets
from camri_jax.sweeps import chunk as sweep
from camri_jax.sweeps import plan as planning
from camri_jax.sweeps import width as programs
from camri_jax.sweeps.plan import SweepConfig
from camri_jax.training import lift as parallel
from camri_jax.training.recipe import Recipe

RECIPE = Recipe(feature_dim=4, batch_size=8)


@pytest.fixture(autouse=True)
def _promotion_as_optax_needs_it():
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def dataset():
    return datasets.load("digits", validation_fraction=0.2)


def planned(dataset, **changes):
    config = SweepConfig(methods=("cross_entropy",), recipe=RECIPE, **changes)
    return planning.plan(config, dataset, num_devices=parallel.trial_mesh().size)


@pytest.mark.parametrize("family", ["weighted", "wasserstein", "angular"])
def test_compiled_programs_hold_no_collectives(dataset, family):
    method = {"weighted": "cross_entropy", "angular": "camri"}.get(family, family)
    mesh = parallel.trial_mesh()
    config = SweepConfig(methods=(method,), recipe=RECIPE)
    plan = planning.plan(config, dataset, num_devices=mesh.size)
    train_config = planning.train_config(family, dataset, RECIPE)
    lifted = programs.lift_programs(train_config, (8, 8, 1), mesh)
    seeds, values, masks = programs.stack(plan.chunks[0], 10)
    states = jax.eval_shape(lifted.init, seeds)
    data = dataset.test_images, dataset.test_labels
    lowered = [lifted.train_epoch.lower(states, values, *data)]
    if family == "angular":
        lowered += [
            lifted.init.lower(seeds),
            lifted.evaluate.lower(states, values, masks, sweep.CONSTANTS, *data),
        ]
    for program in lowered:
        assert not COLLECTIVES.search(program.compile().as_text())


def test_memory_grows_with_the_width(dataset):
    needs = [
        programs.memory_bytes(
            planned(dataset, trials_per_device=width), dataset, parallel.trial_mesh()
        )
        for width in (2, 4)
    ]
    assert 0 < needs[0] < needs[1] < 3 * needs[0]


def chosen(dataset, monkeypatch, seconds, num_seeds=40, largest=None, free=1e12):
    """`best_width` of a machine with these costs: seconds, trials it holds, bytes."""
    mesh = parallel.trial_mesh()

    def run(program, chunk, *_):
        if largest and chunk.width > largest * mesh.size:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return seconds(chunk.width // mesh.size)

    monkeypatch.setattr(programs, "_compile_epoch", lambda chunk, *_: chunk)
    monkeypatch.setattr(programs, "_bytes", lambda chunk: 1000.0 * chunk.width)
    monkeypatch.setattr(programs, "_seconds", run)
    images = dataset.train_images, dataset.validation_images, dataset.test_images
    taken = sum(part.nbytes for part in images)
    monkeypatch.setattr(programs, "_free_bytes", lambda mesh: free + taken)
    return programs.best_width(planned(dataset, num_seeds=num_seeds), dataset, mesh)


@pytest.mark.parametrize("full_at", [1, 2, 8, 16])
def test_the_best_width_is_where_the_device_is_full(dataset, monkeypatch, full_at):
    """A step takes no longer until then, and from there on in proportion."""
    assert (
        chosen(dataset, monkeypatch, lambda width: max(width, full_at) / full_at)
        == full_at
    )


def test_the_best_width_is_at_most_what_the_plan_needs(dataset, monkeypatch):
    """Five trials on two devices are three a device: four at most."""
    assert chosen(dataset, monkeypatch, lambda width: 1.0, num_seeds=5) == 4


def test_the_best_width_fits_into_memory(dataset, monkeypatch):
    def forever(width):
        return 1.0

    assert chosen(dataset, monkeypatch, forever, largest=8) == 8
    per_device = 1000.0 * parallel.trial_mesh().size
    assert chosen(dataset, monkeypatch, forever, free=4.5 * per_device) == 4


def test_another_error_than_memory_is_not_hidden(dataset, monkeypatch):
    def fail(width):
        raise jax.errors.JaxRuntimeError("INTERNAL: broken")

    with pytest.raises(jax.errors.JaxRuntimeError, match="broken"):
        chosen(dataset, monkeypatch, fail)


def test_the_best_width_is_measured(dataset):
    few = dataclasses.replace(
        dataset,
        train_images=dataset.train_images[:64],
        train_labels=dataset.train_labels[:64],
    )
    plan = planned(few, num_seeds=4)
    assert programs.best_width(plan, few, parallel.trial_mesh()) in (1, 2)


def test_nothing_to_train_has_width_one(dataset):
    plan = planned(dataset)._replace(chunks=[])
    assert programs.best_width(plan, dataset, parallel.trial_mesh()) == 1
