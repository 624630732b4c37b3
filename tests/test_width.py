"""Laws of the width: its memory, the best one, what is estimated."""

import jax
import pytest
from tiny import DATASET, placement, plan

from camri_jax.sweeps import width as widths

pytestmark = pytest.mark.usefixtures("promotion_as_optax_needs_it")

TOGETHER = placement(2, together=True, loop="scan")


def planned(**changes):
    own = {"methods": ("camri",), "where": TOGETHER, "num_seeds": 8}
    return plan(**(own | changes))


def test_memory_grows_with_the_width_and_holds_the_images():
    needs = [
        widths.memory_bytes(planned(trials_per_device=width), DATASET)
        for width in (1, 2)
    ]
    images = DATASET.parts["train"].images.nbytes
    assert images < needs[0] < needs[1] < 3 * needs[0]


def chosen(monkeypatch, seconds, num_seeds=40, largest=None, free=1e12):
    """`best_width` of a machine with these costs: seconds, trials it holds, bytes."""
    size = TOGETHER.mesh.size

    def run(program, chunk, *_):
        if largest and chunk.width > largest * size:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return seconds(chunk.width // size)

    monkeypatch.setattr(widths, "_compiled", lambda chunk, *_: chunk)
    monkeypatch.setattr(widths, "_bytes", lambda chunk: 1000.0 * chunk.width)
    monkeypatch.setattr(widths, "_seconds", run)
    others = [part for name, part in DATASET.parts.items() if name != "train"]
    taken = sum(part.images.nbytes for part in others)
    monkeypatch.setattr(widths, "_free_bytes", lambda placement: free + taken)
    return widths.best_width(planned(num_seeds=num_seeds), DATASET)


@pytest.mark.parametrize("full_at", [1, 2, 8, 16])
def test_the_best_width_is_where_the_device_is_full(monkeypatch, full_at):
    """A step takes no longer until then, and from there on in proportion."""
    found = chosen(monkeypatch, lambda width: max(width, full_at) / full_at)
    assert found == full_at


def test_the_best_width_is_at_most_what_the_plan_needs(monkeypatch):
    """Five trials on two devices are three a device: four at most."""
    assert chosen(monkeypatch, lambda width: 1.0, num_seeds=5) == 4


def test_the_best_width_fits_into_memory(monkeypatch):
    assert chosen(monkeypatch, lambda width: 1.0, largest=8) == 8
    per_device = 1000.0 * TOGETHER.mesh.size
    assert chosen(monkeypatch, lambda width: 1.0, free=4.5 * per_device) == 4


def test_another_error_than_memory_is_not_hidden(monkeypatch):
    def fail(width):
        raise jax.errors.JaxRuntimeError("INTERNAL: broken")

    with pytest.raises(jax.errors.JaxRuntimeError, match="broken"):
        chosen(monkeypatch, fail)


def test_widths_and_times_are_measured():
    """On this machine, whatever it is: of three trials on two devices."""
    few = planned(num_seeds=3)
    assert widths.best_width(few, DATASET) in (1, 2)
    assert 0 < widths.seconds_per_trial(few, DATASET, num_steps=1) < 60


def test_what_takes_trials_one_after_another_takes_one():
    where = placement(2)
    assert not where.together
    assert widths.best_width(planned(where=where), DATASET) == 1


def test_nothing_to_train_needs_nothing():
    done = {trial.trial_id for trial in planned().trials}
    nothing = planned(done=done)
    assert widths.best_width(nothing, DATASET) == 1
    assert widths.memory_bytes(nothing, DATASET) == 0
    assert widths.seconds_per_trial(nothing, DATASET) == 0.0
