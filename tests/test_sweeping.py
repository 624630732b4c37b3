"""One call from a grid to a table and a model."""

import dataclasses
import functools
import json
import shutil

import jax
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from tiny import DATASET, RECIPE, Tiny

import camri_jax as cj
from camri_jax.evidence import selection, study
from camri_jax.takehome import AllDiverged
from camri_jax.takehome.model import Model
from camri_jax.takehome.sweeping import _keep, _known, make_plan, provenance
from camri_jax.training import classifier, lift


def sweep(output, methods, important=("bee",), dataset=DATASET, **recipe):
    config = cj.SweepConfig(
        important=important,
        methods=methods,
        num_seeds=2,
        grid={"camri.margin": (0.2,)},
        recipe=dataclasses.replace(RECIPE, **recipe),
    )
    return cj.sweep(config, dataset, output, backbone=Tiny())


@pytest.fixture(scope="module")
def result(tmp_path_factory, promotion_as_optax_needs_it):
    return sweep(tmp_path_factory.mktemp("sweep"), ("cross_entropy", "camri"))


def test_cross_entropy_alone_is_a_sweep(tmp_path, promotion_as_optax_needs_it):
    alone = sweep(tmp_path, ("cross_entropy",))
    assert set(alone.table["method"]) == {"cross_entropy"}
    assert alone.study.choices == ((1,),)


def test_what_is_damaged_is_set_aside_and_trained_anew(
    tmp_path, promotion_as_optax_needs_it
):
    first = sweep(tmp_path, ("cross_entropy",))
    path = next((tmp_path / "rows").iterdir())
    path.write_bytes(b"damaged")
    with pytest.warns(RuntimeWarning, match=f"{path.name} is set aside: it "):
        again = sweep(tmp_path, ("cross_entropy",))
    assert again.table.equals(first.table)


def test_a_sweep_of_which_nothing_came_says_so(tmp_path, promotion_as_optax_needs_it):
    with pytest.raises(AllDiverged, match="all 2 trials diverged"):
        sweep(tmp_path, ("cross_entropy",), learning_rate=1e30)


def test_all_of_it_is_on_disk(result):
    assert all(path.exists() for path in result.files.values())
    assert {"rows", "table", "report"} <= set(result.files)


def test_another_class_later_trains_only_what_is_sensitive_to_it(
    result, promotion_as_optax_needs_it
):
    before = result.study.rows
    both = sweep(result.study.directory, ("cross_entropy", "camri"), ("cat",))
    added = set(both.study.rows["trial_id"]) - set(before["trial_id"])
    lines = both.study.rows.set_index("trial_id").loc[sorted(added)]
    assert set(lines["method"]) == {"camri"}
    assert set(lines["important"]) == {(2,)}


def test_data_that_are_named_in_another_way_are_the_same_data(
    tmp_path, promotion_as_optax_needs_it
):
    """As a folder with and without a slash at its end."""
    sweep(tmp_path, ("cross_entropy",))
    again = dataclasses.replace(DATASET, name="./tiny")
    both = sweep(tmp_path, ("cross_entropy", "camri"), dataset=again)
    counts = both.study.rows["method"].value_counts()
    assert counts.to_dict() == {"cross_entropy": 2, "camri": 2}
    # Read together, too, and under either name.
    for name in (None, "tiny", "./tiny"):
        assert len(study.load(tmp_path, dataset=name).rows) == 4


def test_a_sweep_is_of_its_own_settings(tmp_path, promotion_as_optax_needs_it):
    """Also of those that are not named where they are not used."""
    for changes in ({"clip_norm": 1.0}, {}):
        found = sweep(tmp_path, ("cross_entropy",), **changes).study.rows
        assert len(found) == 2
        assert {"clip_norm"} & {*json.loads(found["settings"].iloc[0])} == {*changes}


def test_a_sweep_below_another_is_not_part_of_it(tmp_path, promotion_as_optax_needs_it):
    inner = sweep(tmp_path / "inner", ("cross_entropy",)).study.rows
    (tmp_path / "mine.parquet").write_bytes(b"not of a sweep")
    outer = sweep(tmp_path, ("cross_entropy",)).study.rows
    assert (outer["provenance"] != inner["provenance"]).all()
    assert set(outer["trial_id"]) == set(inner["trial_id"])


def test_a_rank_is_found_in_the_grid_too_and_kept_when_it_is_trained_on(result):
    output = result.study.directory
    config = cj.SweepConfig(
        important=("worst1",),
        methods=("camri",),
        grid={"camri.margin@worst1": (0.7,), "camri.margin": (0.2,)},
        recipe=RECIPE,
    )
    make = functools.partial(make_plan, config, DATASET, output, backbone=Tiny())
    tried = make(dry_run=True)
    assert {trial.point["margin"] for trial in tried.trials} == {0.7}
    assert not list((output / "data").glob("*.ranks.json"))
    assert make().trials == tried.trials
    assert list((output / "data").glob("*.ranks.json"))


def test_the_model_applies_the_offset_that_was_picked(
    result, promotion_as_optax_needs_it
):
    trial = result.study.rows.iloc[0]
    path = result.study.directory / "models" / f"{trial['trial_id']}.npz"
    plain = cj.load_model(path, backbone=Tiny())
    images = DATASET.parts["test"].images
    moved = Model(plain.classifier, (1,), 1e6, {})
    assert set(moved.predict(images)) == {"bee"}
    logits = plain.logits(images)
    names = [DATASET.class_names[k] for k in logits.argmax(-1)]
    assert plain.predict(images) == names
    np.testing.assert_allclose(plain.predict_proba(images).sum(-1), 1)


def test_the_offset_is_of_the_weights_that_are_taken_home(
    result, tmp_path, promotion_as_optax_needs_it
):
    """As where two processes trained a trial, of which the other wrote them last."""
    shutil.copytree(result.study.directory / "models", tmp_path / "models")
    found = dataclasses.replace(result.study, directory=tmp_path)
    lines = selection.trials(result.study, (1,))
    picked = selection.Recommendation(lines[lines["offset"] != 0].iloc[0], "")
    keep = functools.partial(_keep, tmp_path, found, (1,), picked, DATASET, Tiny())
    assert cj.load_model(keep(), Tiny()).offset == picked.trial["offset"]
    path = tmp_path / "models" / f"{picked.trial['trial_id']}.npz"
    first = classifier.load(path, Tiny())
    variables = jax.tree.map(lambda x: 2 * x, first.variables)
    classifier.save(path, first.config, variables, first.about)
    model = cj.load_model(keep(), Tiny())
    assert model.offset != picked.trial["offset"]
    assert model.about["trial"]["offset"] == model.offset


def test_a_dry_run_counts_as_missing_what_a_start_would_set_aside(result, tmp_path):
    shutil.copytree(result.study.directory / "rows", tmp_path / "rows")
    trained = {
        path: pq.read_table(path, columns=["trial_id"])
        for path in tmp_path.glob("rows/*")
    }
    ours = set(result.study.rows["trial_id"])
    path, lost = next(
        (path, len(ids))
        for path, table in trained.items()
        if ours.issuperset(ids := table["trial_id"].to_pylist())
    )
    path.write_bytes(path.read_bytes()[:-9])
    config = cj.SweepConfig(
        important=("bee",),
        methods=("cross_entropy", "camri"),
        num_seeds=2,
        grid={"camri.margin": (0.2,)},
        recipe=RECIPE,
    )
    with pytest.warns(RuntimeWarning, match=f"{path.name} is no file of rows: a start"):
        planned = make_plan(config, DATASET, tmp_path, backbone=Tiny(), dry_run=True)
    assert planned.num_missing == lost
    assert path.exists()


def test_rows_say_how_they_were_made(result):
    for text in result.study.rows["provenance"]:
        facts = json.loads(text)
        assert {"command", "device", "versions", "xla_flags", "time"} <= set(facts)


def test_later_sweeps_take_the_width_that_was_measured_not_one_that_was_given():
    where = lift.placement(lift.trial_mesh())
    own = {
        "device": where.mesh.devices.flat[0].device_kind,
        "num_devices": where.mesh.size,
        "convolution": where.convolution,
    }

    def known(*facts):
        rows = pd.DataFrame({"provenance": [json.dumps(own | each) for each in facts]})
        return _known(rows, where, ())

    measured = {"trials_per_device": 16, "measured": True}
    given = {"trials_per_device": 1, "measured": False}
    older = {"trials_per_device": 1}
    assert known(given, older) is None
    assert known(given, measured, older) == (where.convolution, 16)
    # Where memory once ended, it will again.
    ended = measured | {"trials_per_device": 8}
    assert known(measured, ended) == (where.convolution, 8)


@pytest.mark.parametrize(("asked", "measured"), [("auto", True), (1, False)])
def test_rows_say_whether_their_width_was_measured(asked, measured):
    config = cj.SweepConfig(trials_per_device=asked)
    assert provenance("camri sweep", config)["measured"] == measured
    assert "measured" not in provenance("camri tune")
