"""One call from a grid to a table and a model."""

import dataclasses
import json

import numpy as np
import pytest
from tiny import DATASET, RECIPE, Tiny

import camri_jax as cj
from camri_jax.takehome import AllDiverged
from camri_jax.takehome.model import Model


def sweep(output, methods, important=("bee",), **recipe):
    config = cj.SweepConfig(
        important=important,
        methods=methods,
        num_seeds=2,
        grid={"camri.margin": (0.2,)},
        recipe=dataclasses.replace(RECIPE, **recipe),
    )
    return cj.sweep(config, DATASET, output, backbone=Tiny())


@pytest.fixture(scope="module")
def result(tmp_path_factory, promotion_as_optax_needs_it):
    return sweep(tmp_path_factory.mktemp("sweep"), ("cross_entropy", "camri"))


def test_cross_entropy_alone_is_a_sweep(tmp_path, promotion_as_optax_needs_it):
    alone = sweep(tmp_path, ("cross_entropy",))
    assert set(alone.table["method"]) == {"cross_entropy"}
    assert alone.study.choices == ((1,),)


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


def test_rows_say_how_they_were_made(result):
    for text in result.study.rows["provenance"]:
        facts = json.loads(text)
        assert {"command", "device", "versions", "xla_flags", "time"} <= set(facts)
