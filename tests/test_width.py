"""Laws of placement by measurement: memory, the best form and width, estimates."""

import dataclasses

import jax
import pytest
from tiny import DATASET, RECIPE, placement, plan

from camri_jax.sweeps import width as widths

pytestmark = pytest.mark.usefixtures("promotion_as_optax_needs_it", "nothing_known")


@pytest.fixture
def nothing_known(monkeypatch):
    """No choice of another test."""
    monkeypatch.setattr(widths, "_kept", lambda *_: None)


VECTORIZED = placement(2, vectorized=True, loop="scan")
kept = widths._kept


def planned(**changes):
    own = {"methods": ("camri",), "where": VECTORIZED, "num_seeds": 8}
    return plan(**(own | changes))


def test_a_few_steps_tell_of_a_training_with_slow_weights_too():
    """Which needs more steps than are timed."""
    recipe = dataclasses.replace(RECIPE, epochs=1, lookahead=2)
    assert widths.memory_bytes(planned(recipe=recipe), DATASET) > 0


def test_memory_grows_with_the_width_and_holds_the_images():
    needs = [
        widths.memory_bytes(planned(trials_per_device=width), DATASET)
        for width in (1, 2)
    ]
    images = DATASET.parts["train"].images.nbytes
    assert images < needs[0] < needs[1] < 3 * needs[0]


def chosen(monkeypatch, seconds, num_seeds=40, largest=None, free=1e12, forms=()):
    """What is best on a machine with these costs: seconds, trials it holds, bytes."""
    size = VECTORIZED.mesh.size

    def run(program, chunk, *_):
        if largest and chunk.width > largest * size:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return seconds(chunk.config.convolution, chunk.width // size)

    monkeypatch.setattr(widths, "_compiled", lambda chunk, *_: chunk)
    monkeypatch.setattr(widths, "_bytes", lambda chunk: 1000.0 * chunk.width)
    monkeypatch.setattr(widths, "_seconds", run)
    taken = sum(part.images.nbytes for part in DATASET.parts.values())
    monkeypatch.setattr(widths, "_free_bytes", lambda placement: free + taken)
    # Own networks have convolutions of their own: these are of ours.
    own = planned(num_seeds=num_seeds)
    chunks = [
        chunk._replace(config=dataclasses.replace(chunk.config, backbone=None))
        for chunk in own.chunks
    ]
    return widths.best(own._replace(chunks=chunks), DATASET, forms)


@pytest.mark.parametrize("full_at", [1, 2, 8, 16])
def test_the_best_width_is_where_the_device_is_full(monkeypatch, full_at):
    """A step takes no longer until then, and from there on in proportion."""
    found = chosen(monkeypatch, lambda _, width: 1e3 * max(width, full_at) / full_at)
    assert found == ("mixed", full_at)


FORMS = ("lax", "patches")


@pytest.mark.parametrize(("lax", "patches", "best"), [(1, 2, 0), (2, 1, 1)])
def test_the_best_form_is_the_one_that_takes_least_time(
    monkeypatch, lax, patches, best
):
    """Each at its own width: one is full with two trials, the other with eight."""
    costs = {"mixed": (3, 1), "lax": (lax, 2), "patches": (patches, 8)}

    def seconds(form, width):
        cost, full_at = costs[form]
        return 1e3 * cost * max(width, full_at)

    expected = (FORMS[best], (2, 8)[best])
    assert chosen(monkeypatch, seconds, forms=FORMS) == expected


def test_of_a_sweep_of_a_minute_nothing_is_searched(monkeypatch):
    tried = []

    def seconds(form, width):
        tried.append((form, width))
        return 1e-3

    assert chosen(monkeypatch, seconds, forms=FORMS) == ("mixed", 1) == tried[0]
    assert len(tried) == 1


def test_what_was_found_is_kept_beside_the_compiled_programs(monkeypatch, tmp_path):
    found = ("lax", 4)
    monkeypatch.setattr(widths, "_kept", lambda *_: tmp_path / "placement.json")

    def seconds(form, width):
        return 1e3 * max(width, 4) * (1 if form == "lax" else 2)

    assert chosen(monkeypatch, seconds, forms=FORMS) == found

    def fail(form, width):
        raise AssertionError("measured again")

    assert chosen(monkeypatch, fail, forms=FORMS) == found


def test_a_choice_is_kept_apart_for_other_plans_and_devices():
    one = planned(where=placement(1, vectorized=True, loop="scan"))
    bfloat16 = dataclasses.replace(RECIPE, precision="bfloat16")
    cases = [
        (planned(), FORMS, 8),
        (planned(), FORMS, 9),
        (planned(), FORMS[:1], 8),
        (one, FORMS, 8),
        (planned(recipe=bfloat16), FORMS, 8),
    ]
    names = [kept(*case) for case in cases]
    assert kept(*cases[0]) == names[0]
    assert len(set(names)) == len(cases)


def test_the_best_width_is_at_most_what_the_plan_needs(monkeypatch):
    """Five trials on two devices are three a device: four at most."""
    assert chosen(monkeypatch, lambda *_: 1e3, num_seeds=5)[1] == 4


def test_the_best_width_fits_into_memory(monkeypatch):
    assert chosen(monkeypatch, lambda *_: 1e3, largest=8)[1] == 8
    per_device = 1000.0 * VECTORIZED.mesh.size
    assert chosen(monkeypatch, lambda *_: 1e3, free=4.5 * per_device)[1] == 4


def test_another_error_than_memory_is_not_hidden(monkeypatch):
    def fail(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: broken")

    with pytest.raises(jax.errors.JaxRuntimeError, match="broken"):
        chosen(monkeypatch, fail)


def test_widths_and_times_are_measured(monkeypatch):
    """On this machine, whatever it is: of three trials on two devices."""
    few = planned(num_seeds=3)
    monkeypatch.setattr(widths, "_WORTH", 0.0)
    assert widths.best(few, DATASET)[1] in (1, 2)
    assert 0 < widths.seconds(few, DATASET) < 60


def test_trials_that_draw_their_images_are_timed_too():
    """On fewer images than a trial draws."""
    size = len(DATASET.parts["train"].labels)
    drawing = planned(num_seeds=1, recipe=dataclasses.replace(RECIPE, resample=size))
    assert widths.seconds(drawing, DATASET) > 0


def test_each_program_is_timed_for_as_many_chunks_as_it_trains(monkeypatch):
    """Also the copies of a chunk that is not full take their time."""
    costs = {"linear": 1.0, "cosine": 10.0}
    monkeypatch.setattr(widths, "_compiled", lambda chunk, *_: chunk)
    monkeypatch.setattr(
        widths, "_seconds", lambda program, *_: costs[program.config.head]
    )
    methods = ("cross_entropy", "camri")
    where = placement(1, vectorized=True, loop="scan")
    own = planned(methods=methods, where=where, num_seeds=3, trials_per_device=2)
    steps = RECIPE.epochs * own.chunks[0].config.num_batches
    assert widths.seconds(own, DATASET) == steps * (2 * 1.0 + 2 * 10.0)


def test_what_takes_trials_one_after_another_takes_one():
    where = placement(2)
    assert not where.vectorized
    assert widths.best(planned(where=where), DATASET) == ("mixed", 1)


def test_nothing_to_train_needs_nothing():
    done = {trial.trial_id for trial in planned().trials}
    nothing = planned(done=done)
    assert widths.best(nothing, DATASET)[1] == 1
    assert widths.memory_bytes(nothing, DATASET) == 0
    assert widths.seconds(nothing, DATASET) == 0.0
