"""Laws of a plan: the grid once, chunks of one width, nothing twice."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camri_jax import datasets
from camri_jax.sweeps import plan as planning
from camri_jax.sweeps.plan import SweepConfig
from camri_jax.training.methods import FAMILIES, METHODS
from camri_jax.training.recipe import Recipe

DATASET = datasets.load("digits", validation_fraction=0.2)


def plan(*, done=(), num_devices=1, baseline_recall=None, **changes):
    return planning.plan(
        SweepConfig(**changes),
        DATASET,
        done=done,
        num_devices=num_devices,
        baseline_recall=baseline_recall,
    )


def ids(plan):
    return [trial.trial_id for chunk in plan.chunks for trial in chunk.trials]


@settings(deadline=None, max_examples=30)
@given(
    num_seeds=st.integers(1, 7),
    per_device=st.integers(1, 9),
    num_devices=st.integers(1, 4),
    important=st.sampled_from([("8",), ("8", "3"), ("8+3", "1", "2")]),
)
def test_chunks_hold_each_trial_once_in_even_widths(
    num_seeds, per_device, num_devices, important
):
    whole = plan(
        num_seeds=num_seeds,
        trials_per_device=per_device,
        num_devices=num_devices,
        important=important,
    )
    assert sorted(ids(whole)) == sorted(t.trial_id for t in whole.trials)
    assert len(set(ids(whole))) == len(whole.trials)
    for family in FAMILIES:
        widths = {c.width for c in whole.chunks if c.family == family}
        assert len(widths) == 1
        (width,) = widths
        assert width % num_devices == 0
        assert width <= per_device * num_devices
    for chunk in whole.chunks:
        assert 1 <= len(chunk.trials) <= chunk.width
        assert {METHODS[t.method].family for t in chunk.trials} == {chunk.family}


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_what_is_done_is_left_out_and_widths_stay(data):
    whole = plan(num_seeds=3, important=("8", "3"))
    pairs = [(t.trial_id, choice) for t in whole.trials for choice in t.choices]
    done = set(data.draw(st.lists(st.sampled_from(pairs))))
    rest = plan(num_seeds=3, important=("8", "3"), done=done)
    left = {
        (t.trial_id, choice)
        for chunk in rest.chunks
        for t in chunk.trials
        for choice in t.choices
    }
    assert left == set(pairs) - done
    width = {c.family: c.width for c in whole.chunks}
    assert all(chunk.width == width[chunk.family] for chunk in rest.chunks)


def test_more_seeds_keep_the_trials_there_were():
    few, many = plan(num_seeds=2), plan(num_seeds=5)
    assert set(ids(few)) < set(ids(many))


def test_another_important_class_trains_anew_only_what_depends_on_it():
    one, two = (
        {t.trial_id: t.method for t in plan(important=important).trials}
        for important in (("8",), ("3", "8"))
    )
    assert set(one) < set(two)
    new = {METHODS[two[key]].class_sensitive for key in set(two) - set(one)}
    assert new == {True}


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(**change)
        for change in (
            {"epochs": 11},
            {"batch_size": 32},
            {"learning_rate": 2e-3},
            {"schedule": "cosine"},
            {"ema_decay": 0.9},
            {"augment_pad": 1},
            {"feature_dim": 2},
        )
    ],
)
def test_a_change_of_the_recipe_names_other_trials(recipe):
    assert not set(ids(plan())) & set(ids(plan(recipe=recipe)))


def test_the_number_of_devices_does_not_change_the_trials():
    assert set(ids(plan())) == set(ids(plan(num_devices=4, trials_per_device=1)))


def test_the_paper_preset_is_the_papers_grid():
    config = dataclasses.replace(
        planning.PRESETS["paper"], dataset="digits", important=("8", "3", "1")
    )
    paper = planning.plan(config, DATASET)
    assert len(paper.trials) == 10 * (1 + 63 + 3 * (10 + 11 * 16 + 16 + 63))
    # Over three data sets, facts known of the paper: about 25,800 trainings.
    assert 3 * len(paper.trials) == pytest.approx(25_800, rel=0.002)
    margins = {t.point["margin"] for t in paper.trials if t.method == "camri"}
    assert margins == {i * math.pi / 64 for i in range(9)}
    scales = {t.point["scale"] for t in paper.trials if t.method == "arcface"}
    assert scales == {1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0}
    weights = {
        t.point["weight"]
        for t in paper.trials
        if t.method == "real_world_weight_cross_entropy"
    }
    assert weights == {1.0, *range(4, 41, 4)}
    costs = {t.point["cost"] for t in paper.trials if t.method == "wasserstein"}
    np.testing.assert_allclose(sorted(costs), np.arange(1.0, 4.01, 0.2))
    assert config.recipe == Recipe(model="paper", epochs=300)


def test_values_on_the_command_line_replace_the_grid():
    chosen = plan(margins=(0.1, 0.2, 0.3), scales=(8.0,), methods=("camri", "arcface"))
    points = {(t.method, t.point["margin"], t.point["scale"]) for t in chosen.trials}
    assert points == {
        (m, v, 8.0) for m in ("camri", "arcface") for v in (0.1, 0.2, 0.3)
    }


def test_ranks_name_classes_by_their_recall():
    recall = np.array([0.9, 0.5, 0.7, 0.95, 0.2, 0.99, 0.6, 0.8, 0.85, 0.97])
    for text, expected in (("worst1", 4), ("worst2", 1), ("median", 8)):
        ranked = plan(important=(text,), methods=("camri",), baseline_recall=recall)
        assert ranked.trials[0].choices == ((expected,),)


def test_several_important_classes_are_one_choice():
    trials = plan(important=("3+8",), methods=("camri",)).trials
    assert {t.choices for t in trials} == {((3, 8),)}
    same = plan(important=("8+3",), methods=("camri",)).trials
    assert [t.trial_id for t in same] == [t.trial_id for t in trials]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ("camry",)}, "methods must be among .*camri.*, got camry"),
        ({"num_seeds": 0}, "num_seeds must be at least 1, got 0"),
        ({"trials_per_device": 0}, "trials_per_device must be at least 1, got 0"),
        ({"important": ("eight",)}, "no class is called 'eight'"),
        ({"important": ("10",)}, r"class index 10 is outside 0\.\.9"),
        ({"important": ("worst1",)}, "needs the recall of finished cross-entropy"),
        ({"margins": (-0.1,)}, "margin must be"),
        ({"weights": (-1.0,)}, "weight must"),
        ({"costs": (-1.0,)}, "cost must"),
        ({"scales": (0.0,)}, "scale must be above 0, got 0.0"),
        ({"epsilons": (-1.0,)}, "epsilon must be above 0, got -1.0"),
        ({"scales": (float("nan"),)}, "scale must be above 0, got nan"),
        ({"recipe": Recipe(batch_size=5000)}, "batch_size must be at most"),
    ],
)
def test_a_wrong_plan_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        plan(**changes)


def test_a_data_set_without_test_images_is_refused():
    bare = dataclasses.replace(
        DATASET,
        test_images=DATASET.test_images[:0],
        test_labels=DATASET.test_labels[:0],
    )
    with pytest.raises(ValueError, match="digits has no test images"):
        planning.plan(SweepConfig(), bare)


def test_a_data_set_without_default_needs_an_important_class():
    with pytest.raises(ValueError, match="important must name the class"):
        plan(dataset="npz:mine.npz")
