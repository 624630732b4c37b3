"""Laws of a sweep: rows once and whole, nothing twice, one program a family."""

import dataclasses
import json
import shutil
import weakref

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from tiny import CLASSES, DATASET, Tiny, part, placement, plan, without

from camri_jax._files import UsageError
from camri_jax.cli.sweep import missing_of, tell_lost
from camri_jax.sweeps import chunk as chunks
from camri_jax.sweeps import engine, ray_engine
from camri_jax.sweeps import rows as stored
from camri_jax.sweeps.plan import regrouped
from camri_jax.training import classifier, trial
from camri_jax.training.methods import METHODS

pytestmark = pytest.mark.usefixtures("promotion_as_optax_needs_it")

GRID = {
    "methods": ("l2_softmax", "arcface", "camri"),
    "grid": {"margin": (0.1,), "camri.margin": (0.1, 0.3), "l2_softmax.scale": (4.0,)},
    "important": ("bee", "ant+cat"),
    "num_seeds": 2,
}


def start(output, *, dataset=DATASET, on_progress=lambda progress: None, **changes):
    """Plans what has no rows below `output`, and trains it."""
    done = set(stored.read(output)["trial_id"])
    planned = plan(dataset=dataset, done=done, **changes)
    engine.run(
        planned, dataset, output, provenance={"by": "test"}, on_progress=on_progress
    )
    return planned


@pytest.fixture(scope="module")
def finished(tmp_path_factory, promotion_as_optax_needs_it):
    """A sweep over a whole grid, and how often its step was traced."""
    output, traced, seen = tmp_path_factory.mktemp("sweep"), [], []
    step = trial.train_step

    def counted(*arguments):
        traced.append(step)
        return step(*arguments)

    chunks.programs.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial, "train_step", counted)
        planned = start(output, on_progress=seen.append, **GRID)
    return planned, output, len(traced), seen


def assert_same(a, b):
    assert list(a["trial_id"]) == list(b["trial_id"])
    for name in set(a) - {"provenance"}:
        for x, y in zip(a[name], b[name], strict=True):
            np.testing.assert_array_equal(x, y, err_msg=name)


def copied(finished, path):
    """A directory that knows of the finished trials."""
    shutil.copytree(finished[1], path, dirs_exist_ok=True)
    return path


# What a sweep leaves.


def test_one_program_serves_every_method_margin_scale_and_choice(finished):
    planned, _, traces, _ = finished
    assert len(planned.chunks) > 3
    assert len({METHODS[t.method].family for t in planned.trials}) == 1
    assert traces == 1


def test_each_trial_has_one_row_with_its_numbers(finished):
    planned, output, *_ = finished
    frame = stored.read(output)
    assert sorted(frame["trial_id"]) == sorted(t.trial_id for t in planned.trials)
    trials = {t.trial_id: t for t in planned.trials}
    logits = {
        name: dict(stored.read_logits(output, name)) for name in ("validation", "test")
    }
    data = stored.read_data(output, DATASET.fingerprint)
    assert (data.dataset, data.class_names) == ("tiny", CLASSES)
    for row in frame.itertuples():
        own = trials[row.trial_id]
        assert (row.method, row.important, row.seed) == (
            own.method,
            own.important,
            own.seed,
        )
        for name in ("margin", "scale", "weight", "cost", "epsilon"):
            value = own.point.get(name, np.nan)
            np.testing.assert_equal(getattr(row, name), value)
        for name, confusion in (
            ("validation", row.validation_confusion),
            ("test", row.test_confusion),
        ):
            values, truth = logits[name][row.trial_id], data.labels[name]
            assert values.shape == (len(truth), 3)
            expected = np.zeros((3, 3), int)
            for label, predicted in zip(truth, values.argmax(1), strict=True):
                expected[label, predicted] += 1
            np.testing.assert_array_equal(confusion, expected)
        validation = row.validation_confusion
        assert list(row.history_epoch) == [1, 2]
        assert len(row.history_loss) == 2
        accuracy = np.trace(validation) / 9
        assert row.history_accuracy[-1] == pytest.approx(accuracy)
        recall = np.diagonal(validation) / 3
        np.testing.assert_allclose(row.history_recall.reshape(2, 3)[-1], recall)
        assert not row.diverged
        assert 0 < row.loss < 100
        assert ((row.angle_mean > 0) & (row.angle_mean < np.pi)).all()
        assert (row.angle_std > 0).all()
        assert row.fingerprint == DATASET.fingerprint
        settings, provenance = json.loads(row.settings), json.loads(row.provenance)
        assert settings["epochs"] == 2
        assert settings["numerics"] == trial.NUMERICS
        assert provenance["by"] == "test"
        assert provenance["num_devices"] == 2
        assert provenance["seconds_per_trial"] > 0
        assert provenance["processor_seconds_per_trial"] > 0


def test_progress_rises_to_all_trials(finished):
    planned, _, _, seen = finished
    done = [each.num_done for each in seen]
    assert done == sorted(done)
    assert done[-1] == planned.num_missing == seen[0].num_trials
    # After each of three steps of two epochs, and when all is scored.
    assert len(done) == (2 * 3 + 1) * len(planned.chunks)


def test_a_saved_model_says_what_its_row_was_counted_from(finished):
    _, output, *_ = finished
    trial_id, logits = next(stored.read_logits(output, "test"))
    model = classifier.load(output / "models" / f"{trial_id}.npz", Tiny())
    found = model.logits(DATASET.parts["test"].images)
    np.testing.assert_allclose(found, logits, rtol=1e-4, atol=1e-4)
    assert model.about["trial_id"] == trial_id
    assert tuple(model.about["class_names"]) == CLASSES


# What is there is not trained again.


def refuse(*arguments):
    raise AssertionError("something is trained")


def files(output):
    return {p: p.stat().st_mtime_ns for p in output.rglob("*") if p.is_file()}


def test_a_finished_sweep_trains_and_writes_nothing(finished, monkeypatch):
    monkeypatch.setattr(engine, "train_chunk", refuse)
    monkeypatch.setattr(engine, "place", refuse)
    before = files(finished[1])
    assert start(finished[1], **GRID).chunks == []
    assert files(finished[1]) == before


def test_who_waits_for_others_reads_what_they_trained_once(
    finished, tmp_path, monkeypatch
):
    planned, output, *_ = finished
    paths = sorted((output / "rows").iterdir())
    (tmp_path / "rows").mkdir()
    looked, look = [], stored._opened

    def counted(path):
        looked.append(path.name)
        return look(path)

    monkeypatch.setattr(stored, "_opened", counted)
    for number in range(len(paths)):
        left = missing_of(planned, tmp_path)
        assert left == sum(len(c.trials) for c in planned.chunks[number:])
        name = f"{planned.chunks[number].name}.parquet"
        shutil.copyfile(output / "rows" / name, tmp_path / "rows" / name)
    assert missing_of(planned, tmp_path) == 0
    assert sorted(looked) == [path.name for path in paths]


def test_a_stopped_sweep_goes_on_and_ends_bit_for_bit_alike(finished, tmp_path):
    class Stop(Exception):
        pass

    def stop(progress):
        if progress.num_done > 4:
            raise Stop

    with pytest.raises(Stop):
        start(tmp_path, on_progress=stop, **GRID)
    assert len(stored.read(tmp_path)) == 4
    assert start(tmp_path, **GRID).num_missing == len(finished[0].trials) - 4
    assert_same(stored.read(tmp_path), stored.read(finished[1]))
    for name in ("validation", "test"):
        resumed, whole = (
            dict(stored.read_logits(output, name)) for output in (tmp_path, finished[1])
        )
        jax.tree.map(np.testing.assert_array_equal, resumed, whole)


def test_a_chunk_that_lost_its_rows_is_trained_anew_and_alone(finished, tmp_path):
    output = copied(finished, tmp_path)
    before = files(output)
    lost = finished[0].chunks[1]
    (output / "rows" / f"{lost.name}.parquet").unlink()
    again = start(output, **GRID)
    assert [chunk.trials for chunk in again.chunks] == [lost.trials]
    changed = {path.stem for path, _ in files(output).items() - before.items()}
    assert changed == {lost.name} | {t.trial_id for t in lost.trials}
    assert_same(stored.read(output), stored.read(finished[1]))


def test_another_important_class_trains_what_depends_on_it_alone(finished, tmp_path):
    more = GRID | {"important": ("bee", "ant")}
    planned = start(copied(finished, tmp_path), **more)
    trained = [t for chunk in planned.chunks for t in chunk.trials]
    assert {(t.method, t.important) for t in trained} == {("camri", (0,))}
    choices = stored.read(tmp_path).groupby("method")["important"].agg(set)
    assert choices["camri"] == {(0,), (1,), (0, 2)}
    assert choices["arcface"] == choices["l2_softmax"] == {()}


def test_rows_come_after_all_else_so_that_a_failed_write_is_made_good(
    finished, tmp_path, monkeypatch
):
    write = stored.write

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stored, "write", full)
    with pytest.raises(OSError, match="No space left"):
        start(tmp_path)
    assert stored.read(tmp_path).empty
    monkeypatch.setattr(stored, "write", write)
    planned = start(tmp_path)
    assert planned.num_missing == len(planned.trials) == len(stored.read(tmp_path))
    assert len(dict(stored.read_logits(tmp_path, "test"))) == len(planned.trials)


# Memory, of the device and of the disk.


def scarce(largest, text="RESOURCE_EXHAUSTED: Out of memory allocating 9 GB"):
    """`train_chunk` on devices with memory for so many trials in all."""
    real = chunks.train_chunk

    def limited(chunk, *rest):
        if chunk.width > largest:
            raise jax.errors.JaxRuntimeError(text)
        return real(chunk, *rest)

    return limited


def test_out_of_memory_halves_the_width_and_goes_on(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "train_chunk", scarce(2))
    with pytest.warns(RuntimeWarning) as warned:
        start(tmp_path, **GRID, trials_per_device=4, where=placement(vectorized=True))
    assert [str(each.message) for each in warned] == [
        "out of memory with 3 trials a device: going on with 2",
        "out of memory with 2 trials a device: going on with 1",
    ]
    ids = [set(stored.read(path)["trial_id"]) for path in (tmp_path, finished[1])]
    assert ids[0] == ids[1]
    facts = [json.loads(text) for text in stored.read(tmp_path)["provenance"]]
    # One a device, which a later start takes; two devices.
    assert {(each["trials_per_device"], each["width"]) for each in facts} == {(1, 2)}


def test_what_is_trained_between_planning_and_start_is_not_trained_twice(
    tmp_path, monkeypatch
):
    """By another process, which groups trials otherwise."""
    both, one = (plan(**GRID, where=placement(number)) for number in (2, 1))
    engine.run(both, DATASET, tmp_path, provenance={})
    monkeypatch.setattr(engine, "train_chunk", refuse)
    engine.run(one, DATASET, tmp_path, provenance={})


def test_processes_with_other_devices_train_no_trial_twice(tmp_path, monkeypatch):
    """They group trials otherwise, so that their chunks have other names."""
    both, one = (plan(**GRID, where=placement(number)) for number in (2, 1))
    some = both._replace(chunks=both.chunks[:1])
    trained, real = [], engine.train_chunk

    def counting(chunk, *rest):
        if not trained:
            # Another process, meanwhile.
            monkeypatch.setattr(engine, "train_chunk", real)
            engine.run(some, DATASET, tmp_path, provenance={})
            monkeypatch.setattr(engine, "train_chunk", counting)
        trained.extend(each.trial_id for each in chunk.trials)
        return real(chunk, *rest)

    monkeypatch.setattr(engine, "train_chunk", counting)
    reports = []
    engine.run(one, DATASET, tmp_path, provenance={}, on_progress=reports.append)
    first, *later = trained
    assert first == some.chunks[0].trials[0].trial_id
    done = {each.trial_id for each in some.chunks[0].trials}
    assert sorted(later) == sorted({t.trial_id for t in one.trials} - done)
    assert reports[-1].num_done == reports[-1].num_trials == len(one.trials)


def test_what_another_process_finishes_meanwhile_is_not_written_again(
    tmp_path, monkeypatch
):
    """Its rows and logits would count, by name, and the weights of the last writer."""
    both, one = (plan(**GRID, where=placement(number)) for number in (2, 1))
    first, last = both.chunks[0], both.chunks[-1]
    real, kept = engine.train_chunk, {}

    def slow(chunk, *rest):
        trained = real(chunk, *rest)
        if not kept:
            with monkeypatch.context() as other:
                other.setattr(engine, "train_chunk", real)
                some = both._replace(chunks=[first, last])
                engine.run(some, DATASET, tmp_path, provenance={})
            written = files(tmp_path).items()
            kept.update({p: t for p, t in written if p.parent.name != "claims"})
        return trained

    monkeypatch.setattr(engine, "train_chunk", slow)
    engine.run(one, DATASET, tmp_path, provenance={})
    now = files(tmp_path)
    assert {path: now[path] for path in kept} == kept
    every = sorted(each.trial_id for each in one.trials)
    for what in ("rows", "logits"):
        found = [
            name
            for path in (tmp_path / what).iterdir()
            for name in dict.fromkeys(pq.read_table(path)["trial_id"].to_pylist())
        ]
        assert sorted(found) == every


def test_trials_without_the_logits_that_are_needed_are_trained_again(tmp_path):
    """They have rows, of another chunk, which does not count."""
    both, one = (plan(**GRID, where=placement(number)) for number in (2, 1))
    bare = both._replace(config=dataclasses.replace(both.config, keep_logits=False))
    engine.run(bare, DATASET, tmp_path, provenance={})
    assert not stored.with_logits(tmp_path)
    again, data = [t.trial_id for t in one.trials[1:]], engine.placed(one, DATASET)
    engine.train_all(one, DATASET, data, tmp_path, again=again, provenance={})
    assert stored.with_logits(tmp_path) == set(again)


def test_a_worker_of_a_cluster_takes_chunks_of_any_width(tmp_path, monkeypatch):
    planned = plan(**GRID)
    ones = regrouped(planned.chunks, 1)
    assert {chunk.width for chunk in ones} == {1}
    trials = [trial for chunk in ones for trial in chunk.trials]
    assert sorted(t.trial_id for t in trials) == sorted(
        t.trial_id for t in planned.trials
    )
    bare = planned._replace(placement=None, trials=[], chunks=[])
    loaded, placed, place = [], [], engine.place

    def load():
        loaded.append(DATASET)
        return DATASET

    def placing(*given):
        # What a narrower chunk lacks memory for is not kept beside its own.
        assert not any(images() is not None for images in placed)
        data = place(*given)
        placed.append(weakref.ref(data.train[0]))
        return data

    monkeypatch.setattr(engine, "place", placing)
    monkeypatch.setattr(ray_engine, "_data", {})
    monkeypatch.setattr(ray_engine, "_placed", {})
    job = (bare, DATASET.fingerprint, load, str(tmp_path), {}, 10.0)
    for chunk in (planned.chunks[0], *planned.chunks[1:3], ones[-1], ones[-2]):
        assert ray_engine._train(job, chunk) == "done"
    assert (len(loaded), len(placed)) == (1, 2)
    trained = sum(len(chunk.trials) for chunk in planned.chunks[:3])
    assert len(stored.read(tmp_path)) == trained + 2


def test_memory_for_not_one_trial_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "train_chunk", scarce(0))
    with pytest.raises(UsageError, match="smaller batch_size"):
        start(tmp_path)
    assert stored.read(tmp_path).empty


def test_another_error_of_the_device_is_not_hidden(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "train_chunk", scarce(0, "INTERNAL: broken"))
    with pytest.raises(jax.errors.JaxRuntimeError, match="broken"):
        start(tmp_path)


def test_many_logits_are_kept_if_it_is_said(tmp_path, monkeypatch):
    """Of four trials: 4 x 21 images x 3 classes x 4 bytes."""
    monkeypatch.setattr(engine, "LOGITS_LIMIT", 1007)
    with pytest.raises(UsageError, match=r"keep_logits must be chosen: .* of 4 trials"):
        start(tmp_path / "unsaid")
    assert not (tmp_path / "unsaid").exists()
    for keep in (True, False):
        start(tmp_path / str(keep), keep_logits=keep, save_models=keep)
        kept = dict(stored.read_logits(tmp_path / str(keep), "test"))
        frame = stored.read(tmp_path / str(keep))
        assert set(kept) == (set(frame["trial_id"]) if keep else set())
        assert len(frame) == 4
        assert (tmp_path / str(keep) / "models").exists() == keep
        assert frame["test_confusion"].map(np.sum).tolist() == [12] * 4
    # In all, whatever is done of it; and nothing is asked where nothing is to do.
    every = {trial.trial_id for trial in plan().trials}
    with pytest.raises(UsageError, match=r"keep_logits must be chosen: .* of 4 trials"):
        engine.check(plan(done=sorted(every)[1:]), DATASET)
    engine.check(plan(done=every), DATASET)
    monkeypatch.setattr(engine, "LOGITS_LIMIT", 1008)
    engine.check(plan(), DATASET)


@pytest.mark.parametrize("kept", [True, False])
def test_what_finished_trials_did_not_keep_is_told(tmp_path, capsys, kept):
    start(tmp_path, keep_logits=kept, save_models=kept)
    every = {trial.trial_id for trial in plan().trials}
    tell_lost(plan(done=every, keep_logits=True), tmp_path)
    tell_lost(plan(done=every, keep_logits=False, save_models=False), tmp_path)
    said = capsys.readouterr().out
    # What is damaged stops nothing.
    for path in (tmp_path / "logits").glob("*") if kept else ():
        path.write_bytes(path.read_bytes()[:-9])
    assert not stored.with_logits(tmp_path)
    for what in ("weights", "logits"):
        assert said.count(f"4 finished trials kept no {what}") == (not kept)


# Data and history.


def test_each_part_that_is_there_has_its_logits_and_no_other(tmp_path):
    """No validation images: the history is of the test images."""
    bare = without(DATASET, "validation")
    parts = bare.parts | {"calibration": part(14, 3)}
    dataset = dataclasses.replace(bare, parts=parts)
    start(tmp_path, dataset=dataset, methods=("camri",))
    frame = stored.read(tmp_path)
    assert not list(stored.read_logits(tmp_path, "validation"))
    kept = dict(stored.read_logits(tmp_path, "calibration"))
    assert set(kept) == set(frame["trial_id"])
    for row in frame.itertuples():
        model = classifier.load(tmp_path / "models" / f"{row.trial_id}.npz", Tiny())
        expected = model.logits(parts["calibration"].images)
        np.testing.assert_allclose(kept[row.trial_id], expected, rtol=1e-4, atol=1e-4)
        assert row.validation_confusion is None
        accuracy = np.trace(row.test_confusion) / 12
        assert row.history_accuracy[-1] == pytest.approx(accuracy)


def test_other_data_in_the_same_directory_stay_apart(finished, tmp_path):
    """As when an own folder of images has changed since the last sweep."""
    other = dataclasses.replace(
        DATASET, fingerprint="0123456789abcdef", class_names=("ant", "bee", "dog")
    )
    planned = start(copied(finished, tmp_path), dataset=other, methods=("arcface",))
    assert planned.num_missing == len(planned.trials)
    frame = stored.read(tmp_path)
    counts = frame["fingerprint"].value_counts().to_dict()
    assert counts == {
        DATASET.fingerprint: len(finished[0].trials),
        other.fingerprint: len(planned.trials),
    }
    for dataset in (DATASET, other):
        data = stored.read_data(tmp_path, dataset.fingerprint)
        assert data.class_names == dataset.class_names


def test_a_class_without_test_images_has_no_angles(tmp_path):
    """Of a class that is not important, nothing needs to be known."""
    start(tmp_path, dataset=without(DATASET, "test", label=2), methods=("camri",))
    for row in stored.read(tmp_path).itertuples():
        assert np.isnan(row.angle_mean).tolist() == [False, False, True]
        assert row.test_confusion[2].sum() == 0


@pytest.mark.parametrize("finite", [True, False])
@pytest.mark.parametrize("loss", [1.0, np.nan, np.inf])
def test_diverged_is_what_has_weights_or_a_loss_that_are_not_finite(finite, loss):
    chunk = plan().chunks[0]
    scores = trial.Scores(
        logits=np.zeros((2, 12, 3), np.float32),
        loss=np.array([np.ones(12), [loss] + 11 * [1.0]], np.float32),
        angle=np.ones((2, 12), np.float32),
    )
    labels = {"test": DATASET.parts["test"].labels}
    rows = chunks._rows(chunk, {"test": scores}, labels, np.array([True, finite]))
    assert [row["diverged"] for row in rows] == [False, not finite or loss != 1.0]


@pytest.mark.parametrize("epochs", [1, 2, 49, 50, 51, 99, 100, 101, 300])
def test_the_history_has_few_epochs_in_even_steps_to_the_last(epochs):
    history = chunks.history_epochs(epochs)
    assert len(history) <= chunks.HISTORY
    assert history[-1] == epochs
    assert min(history) >= 1
    assert len(set(np.diff(history))) <= 1
    # No fewer than half of what is allowed.
    assert 2 * len(history) >= min(epochs, chunks.HISTORY)


def test_the_history_belongs_to_its_epochs(finished, tmp_path, monkeypatch):
    """Scored after the last epoch only, the same trials keep that entry alone."""
    monkeypatch.setattr(chunks, "HISTORY", 1)
    start(tmp_path, methods=("arcface",), grid={"margin": (0.1,)})
    whole = stored.read(finished[1]).set_index("trial_id")
    for row in stored.read(tmp_path).itertuples():
        same = whole.loc[row.trial_id]
        assert list(row.history_epoch) == [2]
        np.testing.assert_array_equal(row.history_loss, same["history_loss"])
        np.testing.assert_array_equal(
            row.history_accuracy, same["history_accuracy"][1:]
        )
        np.testing.assert_array_equal(row.history_recall, same["history_recall"][3:])
