"""Laws of a sweep: rows once and whole, a rerun bit for bit, one program a family."""

import dataclasses
import json

import chex
import jax
import numpy as np
import pytest

from camri_jax import datasets
from camri_jax.sweeps import chunk as sweep
from camri_jax.sweeps import plan as planning
from camri_jax.sweeps import rows as results
from camri_jax.sweeps.plan import SweepConfig
from camri_jax.training import lift as parallel
from camri_jax.training import trial as train
from camri_jax.training.recipe import Recipe

RECIPE = Recipe(feature_dim=4, epochs=2, batch_size=8)


@pytest.fixture(autouse=True)
def _promotion_as_optax_needs_it():
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def data_file(tmp_path_factory):
    """Three classes of 8x8 noise, each bright in rows of its own."""
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(3), 20)
    images = rng.integers(0, 120, (60, 8, 8, 1))
    for image, label in zip(images, labels, strict=True):
        image[2 * label : 2 * label + 3] += 100
    path = tmp_path_factory.mktemp("data") / "bars.npz"
    np.savez(
        path,
        train_images=images[:42].astype(np.uint8),
        train_labels=labels[:42],
        test_images=images[42:].astype(np.uint8),
        test_labels=labels[42:],
    )
    return path


def start(data_file, output, *, run=True, **changes):
    """Plans and runs a small sweep, and returns its plan."""
    defaults = {
        "dataset": f"npz:{data_file}",
        "important": ("1",),
        "methods": ("l2_softmax", "camri"),
        "margins": (0.2,),
        "num_seeds": 2,
        "trials_per_device": 2,
        "validation_fraction": 0.3,
        "recipe": RECIPE,
    }
    config = SweepConfig(**{**defaults, **changes})
    dataset = datasets.load(
        config.dataset, validation_fraction=config.validation_fraction
    )
    mesh = parallel.trial_mesh()
    plan = planning.plan(
        config, dataset, done=results.pairs(results.read(output)), num_devices=mesh.size
    )
    if run:
        seen = []
        sweep.run(
            plan, dataset, output, mesh, provenance={"by": "test"}, report=seen.append
        )
        assert not plan.chunks or seen[-1].num_done == plan.num_missing
        assert [p.num_done for p in seen] == sorted(p.num_done for p in seen)
    return plan


@pytest.fixture(scope="module")
def finished(data_file, tmp_path_factory):
    output = tmp_path_factory.mktemp("rows")
    with jax.numpy_dtype_promotion("standard"):
        plan = start(data_file, output)
    return plan, output


def frames_equal(a, b):
    assert list(a["trial_id"]) == list(b["trial_id"])
    for name in set(a) - {"provenance"}:
        for x, y in zip(a[name], b[name], strict=True):
            np.testing.assert_array_equal(x, y, err_msg=name)


def test_each_trial_has_one_row_with_its_numbers(finished):
    plan, output = finished
    rows = results.read(output)
    assert sorted(rows["trial_id"]) == sorted(t.trial_id for t in plan.trials)
    for row in rows.itertuples():
        test = np.reshape(row.test_confusion, (3, 3))
        np.testing.assert_array_equal(test.sum(1), [6, 6, 6])
        validation = np.reshape(row.validation_confusion, (3, 3))
        np.testing.assert_array_equal(validation.sum(1), [4, 4, 4])
        curve = np.reshape(row.test_curve, (-1, 3, 3))
        np.testing.assert_array_equal(curve[row.constants == 0][0], test)
        # The more is added to its logit, the oftener the class is predicted.
        assert (np.diff(curve[:, :, 1].sum(1)) >= 0).all()
        accuracy = np.trace(validation) / 12
        assert row.history_accuracy[-1] == pytest.approx(accuracy)
        recall = np.reshape(row.history_recall, (2, 3))[-1]
        np.testing.assert_allclose(recall, np.diagonal(validation) / 4)
        assert len(row.history_loss) == 2
        assert list(row.history_epoch) == [1, 2]
        assert not row.diverged
        assert json.loads(row.settings)["epochs"] == 2
        assert json.loads(row.provenance)["by"] == "test"
        assert np.isnan(row.margin) == (row.method == "l2_softmax")


def test_a_finished_sweep_trains_nothing(data_file, finished, monkeypatch):
    _, output = finished
    monkeypatch.setattr(sweep, "lift_programs", None)
    before = sorted(output.iterdir())
    plan = start(data_file, output)
    assert plan.chunks == []
    assert sorted(output.iterdir()) == before


def test_a_stopped_sweep_goes_on_and_ends_bit_for_bit_alike(
    data_file, finished, tmp_path
):
    """Stopped after its first chunk, it ends with the very numbers of one go."""
    _, whole = finished
    width = {"trials_per_device": 1}
    start(data_file, tmp_path / "whole", **width)

    class Stop(Exception):
        pass

    def stop(progress):
        if progress.num_done > 2:
            raise Stop

    plan = start(data_file, tmp_path / "parts", run=False, **width)
    dataset = datasets.load(f"npz:{data_file}", validation_fraction=0.3)
    mesh = parallel.trial_mesh()
    with pytest.raises(Stop):
        sweep.run(plan, dataset, tmp_path / "parts", mesh, provenance={}, report=stop)
    assert len(results.read(tmp_path / "parts")) == 2
    assert not list((tmp_path / "parts").glob("*.unfinished"))
    rest = start(data_file, tmp_path / "parts", **width)
    assert rest.num_missing == 2
    frames_equal(results.read(tmp_path / "whole"), results.read(tmp_path / "parts"))
    # In another width, the same trials agree in what they learn to float tolerance.
    other = results.read(whole)
    for a, b in zip(
        other["loss"], results.read(tmp_path / "parts")["loss"], strict=True
    ):
        assert a == pytest.approx(b, rel=0.1)


def test_another_important_class_reuses_the_trials_that_do_not_depend_on_it(
    data_file, finished, tmp_path
):
    _, output = finished
    for path in output.glob("*.parquet"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    plan = start(data_file, tmp_path, important=("1", "0", "0+2"))
    assert {t.method for chunk in plan.chunks for t in chunk.trials} == {
        "camri",
        "l2_softmax",
    }
    rows = results.read(tmp_path)
    assert not rows.duplicated(["trial_id"]).all()
    pairs = list(zip(rows["trial_id"], map(tuple, rows["important"]), strict=True))
    assert len(set(pairs)) == len(pairs) == 2 * (3 + 3)
    plain = rows[rows["method"] == "l2_softmax"]
    assert set(map(tuple, plain["important"])) == {(1,), (0,), (0, 2)}
    for _, group in plain.groupby("trial_id"):
        curves = [tuple(curve) for curve in group["test_curve"]]
        assert len(set(curves)) == 3


def test_without_validation_images_the_history_is_of_the_test_images(
    data_file, tmp_path
):
    start(data_file, tmp_path, validation_fraction=0.0, methods=("camri",))
    for row in results.read(tmp_path).itertuples():
        assert row.validation_curve is None
        accuracy = np.trace(np.reshape(row.test_confusion, (3, 3))) / 18
        assert row.history_accuracy[-1] == pytest.approx(accuracy)


@pytest.mark.parametrize("epochs", [1, 2, 49, 50, 51, 99, 100, 101, 300])
def test_the_history_has_few_epochs_in_even_steps_to_the_last(epochs):
    history = sweep.history_epochs(epochs)
    assert len(history) <= sweep.HISTORY
    assert history[-1] == epochs
    assert min(history) >= 1
    steps = set(np.diff(history))
    assert len(steps) <= 1
    # No fewer than half of what is allowed.
    assert 2 * len(history) >= min(epochs, sweep.HISTORY)


def test_the_history_of_a_long_training_belongs_to_its_epochs(
    data_file, finished, tmp_path, monkeypatch
):
    """Evaluated after every second epoch, the same trials have every second entry."""
    longer = {"recipe": dataclasses.replace(RECIPE, epochs=4)}
    start(data_file, tmp_path / "all", **longer)
    monkeypatch.setattr(sweep, "HISTORY", 2)
    start(data_file, tmp_path / "half", **longer)
    whole, half = results.read(tmp_path / "all"), results.read(tmp_path / "half")
    for a, b in zip(whole.itertuples(), half.itertuples(), strict=True):
        assert list(b.history_epoch) == [2, 4]
        np.testing.assert_array_equal(a.history_loss, b.history_loss)
        np.testing.assert_array_equal(a.history_accuracy[1::2], b.history_accuracy)
        np.testing.assert_array_equal(
            np.reshape(a.history_recall, (4, 3))[1::2].ravel(), b.history_recall
        )


def test_a_diverged_trial_is_marked_and_alone(data_file, tmp_path):
    """A scale beyond float32 blows up one trial of a chunk, and no other."""
    start(data_file, tmp_path, methods=("l2_softmax",), scales=(16.0, 1e38))
    rows = results.read(tmp_path)
    assert rows.groupby("scale")["diverged"].all().to_dict() == {
        16.0: False,
        1e38: True,
    }


def test_one_program_serves_a_family_and_does_not_communicate(
    data_file, tmp_path, monkeypatch
):
    counted = chex.assert_max_traces(n=1)(train.train_step)
    monkeypatch.setattr(train, "train_step", counted)
    plan = start(
        data_file,
        tmp_path,
        methods=("l2_softmax", "arcface", "camri"),
        margins=(0.0, 0.1, 0.3),
        scales=(4.0, 16.0),
        important=("0", "1+2"),
        num_seeds=1,
        trials_per_device=3,
    )
    assert len(plan.chunks) > 2


def scarce(lift, largest):
    """`lift_programs` for a device with memory for so many trials in all."""

    def limited(*arguments):
        lifted = lift(*arguments)

        def train_epoch(states, *rest):
            if states.step.size > largest:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
            return lifted.train_epoch(states, *rest)

        return lifted._replace(train_epoch=train_epoch)

    return limited


def test_out_of_memory_halves_the_width_and_goes_on(
    data_file, finished, tmp_path, monkeypatch
):
    _, whole = finished
    monkeypatch.setattr(sweep, "lift_programs", scarce(sweep.lift_programs, 4))
    with pytest.warns(RuntimeWarning, match="with 4 trials a device: going on with 2"):
        start(data_file, tmp_path, num_seeds=4, trials_per_device=4)
    rows = results.read(tmp_path)
    assert len(rows) == len(set(rows["trial_id"])) == 8
    widths = {json.loads(provenance)["width"] for provenance in rows["provenance"]}
    assert widths == {4}
    shared = rows.merge(results.read(whole), on="trial_id")
    assert len(shared) == 4
    # Trained in the very width of the sweep that had memory enough.
    for a, b in zip(shared["test_curve_x"], shared["test_curve_y"], strict=True):
        np.testing.assert_array_equal(a, b)


def test_memory_for_not_one_trial_is_told(data_file, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "lift_programs", scarce(sweep.lift_programs, 0))
    with (
        pytest.warns(RuntimeWarning, match="going on with 1"),
        pytest.raises(MemoryError, match="smaller batch_size"),
    ):
        start(data_file, tmp_path)
    assert len(results.read(tmp_path)) == 0
