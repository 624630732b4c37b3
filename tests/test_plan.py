"""Laws of a plan: names of trials, the grid once, chunks of one width."""

import dataclasses
import functools
import math
import pickle
from collections.abc import Callable

import chex
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import CLASSES, DATASET, RECIPE, Tiny, part, placement, plan, without

from camri_jax._files import UsageError
from camri_jax.datasets.dataset import Part, make_dataset
from camri_jax.sweeps import choices
from camri_jax.sweeps import plan as planning
from camri_jax.sweeps.plan import SweepConfig, what_trials_share
from camri_jax.training import network, recipe, trial
from camri_jax.training.methods import (
    DEFAULT_METHODS,
    HYPERPARAMETERS,
    METHODS,
    number,
)
from camri_jax.training.recipe import Recipe

SENSITIVE = {name for name in METHODS if METHODS[name].class_sensitive}
EVERY = DEFAULT_METHODS


def planned(dataset=DATASET, where=None, done=(), **changes):
    """Plans all methods with one of our networks."""
    own = {"important": ("bee",), "recipe": Recipe(batch_size=8)}
    return planning.plan(
        SweepConfig(**(own | changes)),
        dataset,
        where or placement(),
        done=done,
    )


def ids(plan):
    return {trial.trial_id for trial in plan.trials}


def missing(plan):
    return [trial.trial_id for chunk in plan.chunks for trial in chunk.trials]


# The name of a trial.

RECIPES = {
    "network": "fast",
    "feature_dim": 9,
    "epochs": 11,
    "batch_size": 9,
    "resample": 9,
    "optimizer": "sgd",
    "momentum": 0.8,
    "learning_rate": 2e-3,
    "clip_norm": 0.5,
    "schedule": "cosine",
    "weight_decay": 0.1,
    "norm_bias_rate": 2.0,
    "lookahead": 3,
    "ema_decay": 0.9,
    "augment_shift": 1,
    "augment_fill": "reflect",
    "augment_flip": "random",
    "logit_scale": 0.5,
    "precision": "bfloat16",
}


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(Recipe)])
def test_each_field_of_the_recipe_names_other_trials(name):
    changed = Recipe(**{"batch_size": 8, name: RECIPES[name]})
    assert not ids(planned()) & ids(planned(recipe=changed))


FIELDS = {
    "blocks": (((4,),),),
    "widths": (4,),
    "feature_dim": 5,
    "dropout_rate": 0.1,
    "batch_norm_momentum": 0.1,
    "relu_features": True,
}


@pytest.mark.parametrize(
    ("preset", "name"),
    [
        (preset, field.name)
        for preset, make in network.NETWORKS.items()
        for field in dataclasses.fields(make())
        if field.name not in ("parent", "name", "dtype", "convolution")
    ],
)
def test_each_edit_of_a_network_names_other_trials(monkeypatch, preset, name):
    """The type of activations is the recipe's; the form of convolutions is free."""
    chosen = Recipe(batch_size=8, network=preset)
    before = ids(planned(recipe=chosen))
    edited = functools.partial(network.NETWORKS[preset], **{name: FIELDS[name]})
    monkeypatch.setitem(recipe.NETWORKS, preset, edited)
    assert not before & ids(planned(recipe=chosen))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"augment_shift": 1}, "augment_shift must be 0 for features, .* got 1"),
        ({"augment_flip": "random"}, "augment_flip must be none for features"),
    ],
)
def test_features_are_not_moved_whatever_network_takes_them(changes, said):
    parts = {
        name: Part(np.float32(each.images).reshape(-1, 64), each.labels)
        for name, each in DATASET.parts.items()
    }
    features = make_dataset("features", parts, CLASSES)
    with pytest.raises(UsageError, match=said):
        plan(dataset=features, recipe=dataclasses.replace(RECIPE, **changes))


def test_each_field_of_ones_own_network_names_other_trials():
    names = [
        planning.plan(
            SweepConfig(important=("bee",), recipe=RECIPE),
            DATASET,
            placement(),
            backbone=backbone,
        )
        for backbone in (None, Tiny(), Tiny(feature_dim=7))
    ]
    assert len(set.union(*map(ids, names))) == sum(len(ids(each)) for each in names)


def test_the_version_of_the_numerics_names_other_trials(monkeypatch):
    before = ids(planned())
    monkeypatch.setattr(trial, "NUMERICS", trial.NUMERICS + 1)
    assert not before & ids(planned())


def test_other_data_names_other_trials():
    other = dataclasses.replace(DATASET, fingerprint="0123456789abcdef")
    assert not ids(planned()) & ids(planned(other))


def test_methods_points_seeds_and_choices_have_names_of_their_own():
    whole = planned(important=("bee", "cat", "ant+cat"), num_seeds=3)
    numbers = {
        (t.method, *sorted(t.point.items()), t.important, t.seed) for t in whole.trials
    }
    assert len(numbers) == len(ids(whole)) == len(whole.trials)
    # ArcFace and CAMRI at one point are two methods.
    points = {m: t.point for t in whole.trials for m in [t.method]}
    assert set(points) == set(DEFAULT_METHODS)


def test_what_does_not_change_the_numbers_does_not_change_the_names():
    first = planned(num_seeds=1)
    same = [
        planned(dataclasses.replace(DATASET, name="npz:elsewhere.npz"), num_seeds=1),
        planned(where=placement(convolution="patches"), num_seeds=1),
        planned(where=placement(1, vectorized=True, loop="scan"), num_seeds=1),
        planned(trials_per_device=3, num_seeds=1),
        planned(keep_logits=False, save_models=False, num_seeds=1),
        planned(methods=EVERY[::-1], num_seeds=1),
        planned(grid={"l2_softmax.scale": (16,)}, num_seeds=1),
    ]
    for other in same:
        assert ids(other) == ids(first)
    assert ids(first) < ids(planned(num_seeds=5))


def test_typed_angles_are_those_of_the_paper():
    typed = planned(
        methods=("camri",),
        grid={"margin": tuple(number(f"{i}pi/64") for i in range(9))},
    )
    paper = planned(
        methods=("camri",), grid={"margin": METHODS["camri"].paper_grid["margin"]}
    )
    assert ids(typed) == ids(paper)


# The important classes.


def test_another_important_class_trains_anew_only_what_depends_on_it():
    one, two = (
        {t.trial_id: t.method for t in planned(important=important).trials}
        for important in (("bee",), ("cat", "bee"))
    )
    assert set(one) < set(two)
    assert {two[key] for key in set(two) - set(one)} == SENSITIVE & set(EVERY)


def test_trials_carry_the_classes_that_they_are_trained_for():
    for each in planned(important=("bee", "ant+cat")).trials:
        allowed = {(1,), (0, 2)} if each.method in SENSITIVE else {()}
        assert each.important in allowed


def test_several_important_classes_are_one_choice_in_any_order():
    names = [
        ids(plan(important=(text,), methods=("camri",)))
        for text in ("ant+cat", "cat+ant", "0+2", "2+ant", ("cat", "ant"), (0, 2))
    ]
    assert len(set(map(frozenset, names))) == 1
    assert planned(important=("ant+cat", "cat+ant")).choices == ((0, 2),)


PLUS = dataclasses.replace(DATASET, class_names=("a", "b", "a+b"))


def test_a_class_called_a_plus_b_is_not_the_choice_of_a_and_b():
    """Names are text for people: the class of that very name is what they mean."""
    chosen = planned(PLUS, important=("a+b", ("a", "b")), methods=("camri",))
    assert chosen.choices == ((2,), (0, 1))
    assert {t.important for t in chosen.trials} == {(2,), (0, 1)}
    grid = {"camri.margin@a+b": (0.5,), "camri.margin": (0.1,)}
    found = planned(
        PLUS, important=("a+b", ("a", "b")), methods=("camri",), grid=grid
    ).trials
    assert {(t.important, t.point["margin"]) for t in found} == {
        ((2,), 0.5),
        ((0, 1), 0.1),
    }


def test_an_index_is_no_name():
    swapped = dataclasses.replace(DATASET, class_names=("2", "1", "0"))
    assert choices.resolve([(0,), (2, 1), 2], swapped) == ((0,), (1, 2), (2,))
    assert choices.resolve(["0", "2+1"], swapped) == ((2,), (0, 1))


def test_ranks_name_classes_by_their_recall():
    for recall, expected in (
        ([0.9, 0.5, 0.7], [1, 2, 2]),
        ([0.1, 0.5, 0.1], [0, 2, 2]),
    ):
        assert [*choices.ranks(np.array(recall)).values()] == expected
    named = dataclasses.replace(DATASET, class_names=("worst1", "bee", "cat"))
    assert choices.resolve("worst1", named) == ((0,),)


@pytest.mark.parametrize("name", ["train", "validation", "calibration", "test"])
def test_an_important_class_without_images_is_refused_with_counts(name):
    dataset = dataclasses.replace(
        DATASET, parts=DATASET.parts | {"calibration": part(6, 3)}
    )
    count = len(dataset.parts[name].labels) * 2 // 3
    with pytest.raises(
        UsageError, match=rf"important class bee has 0 of {count} {name} images"
    ):
        planned(without(dataset, name, label=1), important=("ant+bee",))
    # Others may lack them; and validation and calibration may be left out.
    assert planned(without(dataset, name, label=1), important=("ant",)).chunks
    if name in ("validation", "calibration"):
        assert planned(without(dataset, name)).chunks
    else:
        with pytest.raises(UsageError, match=f"bee has 0 of 0 {name} images"):
            planned(without(dataset, name))


# The grid.


def test_the_paper_preset_is_the_papers_grid():
    large = make_dataset("tiny", DATASET.parts | {"train": part(64, 0)}, CLASSES)
    paper = planned(large, **vars(SweepConfig.paper()) | {"important": CLASSES})
    assert len(paper.trials) == 10 * (1 + 63 + 3 * (10 + 11 * 16 + 16 + 63))
    # Over three data sets, as the paper's 25,800 trainings.
    assert 3 * len(paper.trials) == pytest.approx(25_800, rel=0.002)

    def values(method, name):
        return sorted({t.point[name] for t in paper.trials if t.method == method})

    margins = [i * math.pi / 64 for i in range(9)]
    for method in ("arcface", "camri"):
        assert values(method, "margin") == margins
        assert values(method, "scale") == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]
    crwwce = "real_world_weight_cross_entropy"
    assert values("weighted_cross_entropy", "weight") == list(range(4, 41, 4))
    assert values(crwwce, "weight") == [1.0, *range(4, 41, 4)]
    for method in (crwwce, "wasserstein"):
        np.testing.assert_allclose(values(method, "cost"), np.arange(1.0, 4.01, 0.2))
    assert SweepConfig.paper().recipe == Recipe(network="paper", epochs=300)


def test_rivals_are_swept_where_they_are_named_and_then_as_widely():
    assert not any(METHODS[t.method].rival for t in planned(num_seeds=1).trials)
    large = make_dataset("tiny", DATASET.parts | {"train": part(64, 0)}, CLASSES)
    wide = SweepConfig.paper(methods=("focal", "ldam"), num_seeds=1, important=("ant",))
    grids = [METHODS[name].paper_grid.values() for name in wide.methods]
    assert len(planned(large, **vars(wide)).trials) == sum(
        math.prod(map(len, grid)) for grid in grids
    )


@settings(deadline=None)
@given(st.permutations(range(3)))
def test_the_most_specific_values_count(order):
    keys = [
        ("margin", (0.1,)),
        ("camri.margin", (0.2, 0.3)),
        ("camri.margin@cat+bee", (0.4,)),
    ]
    found = planned(
        important=("ant", "bee+cat"),
        methods=("l2_softmax", "arcface", "camri"),
        grid=dict(keys[i] for i in order),
        num_seeds=1,
    )
    margins = {(t.method, t.important, t.point.get("margin")) for t in found.trials}
    assert margins == {
        ("l2_softmax", (), None),
        ("arcface", (), 0.1),
        ("camri", (0,), 0.2),
        ("camri", (0,), 0.3),
        ("camri", (1, 2), 0.4),
    }


def of_camri(grid, important=("ant+cat",), dataset=DATASET):
    """Trials of CAMRI at a scale, by choice and margin."""
    trials = planned(
        dataset,
        important=important,
        methods=("camri",),
        grid={"camri.scale": (8.0,)} | grid,
        num_seeds=1,
    ).trials
    return {(t.important, t.point["margin"]): t for t in trials}


@settings(deadline=None)
@given(st.sampled_from(["ant+cat", "cat+ant", "2+0"]), st.booleans())
def test_classes_of_a_choice_have_every_combination_of_their_values(text, named):
    """One that is not named has the method's values; their order has no say."""
    at = f"camri.margin@{text}@" if named else "camri.margin@"
    own = {"camri.margin": (0.1, 0.2), f"{at}cat": (0.3, 0.2)}
    found = of_camri(own, (text,))
    pairs = [(0.1, 0.3), (0.1, 0.2), (0.2, 0.3)]
    assert set(found) == {((0, 2), each) for each in [*pairs, 0.2]}
    assert found == of_camri(own | {f"{at}ant": (0.1, 0.2)}, (text,))
    chunk = planned(methods=("camri",)).chunks[0]
    trials = tuple(found[(0, 2), each] for each in pairs)
    chunk = chunk._replace(trials=trials, width=len(trials))
    _, arrays = planning.stack(chunk, planning.problem_of(DATASET, Recipe()))
    np.testing.assert_allclose(arrays["margins"], [[a, 0.0, b] for a, b in pairs])


@pytest.mark.parametrize("method", sorted(SENSITIVE))
def test_one_value_for_all_classes_is_the_trial_of_the_plain_number(method):
    asked = {"important": ("ant+cat",), "methods": (method,), "num_seeds": 1}
    plain = planned(**asked).trials
    for name in METHODS[method].grid:
        if HYPERPARAMETERS[name].by_class:
            values = {t.point[name] for t in plain}
            for value in values:
                keys = [f"{method}.{name}@{k}" for k in ("ant", "cat")]
                found = planned(**asked, grid=dict.fromkeys(keys, (value,))).trials
                assert found == [t for t in plain if t.point[name] == value]
            pair = plain[0]._replace(point=plain[0].point | {name: (value, value)})
            number = plain[0]._replace(point=plain[0].point | {name: value})
            chunk = planned(**asked).chunks[0]._replace(trials=(pair, number), width=2)
            _, arrays = planning.stack(chunk, planning.problem_of(DATASET, Recipe()))
            for array in arrays.values():
                np.testing.assert_array_equal(array[0], array[1])


def test_a_whole_number_names_the_trial_that_it_names_as_a_fraction():
    names = ("weight_decay", "clip_norm", "learning_rate", "logit_scale")
    whole, same = (
        Recipe(batch_size=8, **{name: kind(1) for name in names})
        for kind in (int, float)
    )
    assert ids(planned(recipe=whole)) == ids(planned(recipe=same))


def test_a_loss_counts_the_images_that_a_seed_draws():
    """By their number in a class, class-balanced weights differ or hardly do."""
    counts = np.array(planning.problem_of(DATASET, Recipe()).class_counts)
    assert counts.tolist() == DATASET.counts("train").tolist()
    drawn = np.array(planning.problem_of(DATASET, Recipe(resample=9)).class_counts)
    np.testing.assert_allclose(drawn, counts * 9 / counts.sum())


@settings(deadline=None, max_examples=8)
@given(st.permutations(range(4)))
def test_a_name_that_is_a_choice_and_a_class_of_one_is_the_choice(order):
    keys = [
        ("camri.margin", (0.1,)),
        ("camri.margin@cat", (0.2,)),
        ("camri.margin@ant", (0.3,)),
        ("camri.margin@cat+bee@cat", (0.4,)),
    ]
    found = of_camri(dict(keys[i] for i in order), ("cat", "ant+cat", "bee+cat"))
    assert set(found) == {((2,), 0.2), ((0, 2), (0.3, 0.1)), ((1, 2), (0.1, 0.4))}


def test_a_class_whose_name_has_an_at_is_not_a_class_of_a_choice():
    named = dataclasses.replace(DATASET, class_names=("a", "b", "a@b"))
    grid = {"camri.margin": (0.1,), "camri.margin@a@b": (0.2,)}
    assert set(of_camri(grid, ("a@b",), named)) == {((2,), 0.2)}
    assert set(of_camri(grid, ("a+a@b",), named)) == {((0, 2), (0.1, 0.2))}


# Chunks.


@settings(deadline=None, max_examples=25)
@given(
    num_seeds=st.integers(1, 7),
    per_device=st.integers(1, 9),
    num_devices=st.integers(1, 2),
    vectorized=st.booleans(),
    data=st.data(),
)
def test_chunks_hold_what_is_missing_once(
    num_seeds, per_device, num_devices, vectorized, data
):
    where = placement(num_devices, vectorized=vectorized)
    asked = {
        "num_seeds": num_seeds,
        "trials_per_device": per_device,
        "important": ("bee", "ant+cat"),
        "where": where,
    }
    whole = planned(**asked)
    some = data.draw(st.sets(st.sampled_from(sorted(ids(whole)))))
    done = data.draw(st.sampled_from([some, ids(whole) - some]))
    rest = planned(**asked, done=done)
    assert ids(rest) == ids(whole)
    assert sorted(missing(rest)) == sorted(ids(whole) - done)
    assert rest.num_missing == len(missing(rest))
    for chunk in rest.chunks:
        assert 1 <= len(chunk.trials) <= chunk.width <= per_device * num_devices
        assert chunk.width % num_devices == 0
        assert {METHODS[t.method].family for t in chunk.trials} == {chunk.family}
        # Copies cost a device that trains at once what trials cost.
        few = 2 * num_devices if vectorized else num_devices - 1
        assert chunk.width - len(chunk.trials) <= few
    for config, width in rest.widths.items():
        alike = [chunk for chunk in rest.chunks if chunk.config == config]
        assert len(alike) == math.ceil(sum(len(c.trials) for c in alike) / width)
    seeds = [chunk.trials[0].seed for chunk in rest.chunks]
    assert seeds == sorted(seeds)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 7), st.integers(1, 9), st.integers(1, 2), st.data())
def test_what_is_left_is_grouped_as_it_was(num_seeds, per_device, num_devices, data):
    """In programs of the same width, so that a trial has the same last digits."""
    where = placement(num_devices, vectorized=True)
    asked = {"num_seeds": num_seeds, "trials_per_device": per_device, "where": where}
    whole = planned(**asked).chunks
    left = [chunk for chunk in whole if data.draw(st.booleans())]
    done = {t.trial_id for chunk in whole if chunk not in left for t in chunk.trials}
    assert planned(**asked, done=done).chunks == left


def test_methods_of_one_loss_that_learn_otherwise_are_trained_apart(monkeypatch):
    one = METHODS["recall_constraint"]
    other = dataclasses.replace(one, name="other", dual=lambda found, *_, **__: found)
    monkeypatch.setitem(METHODS, "other", other)
    for methods in (("recall_constraint", "other"), ("other", "recall_constraint")):
        chunks = planned(methods=methods).chunks
        own = {(t.method, chunk.config.dual) for chunk in chunks for t in chunk.trials}
        assert own == {("recall_constraint", one.dual), ("other", other.dual)}


def test_one_missing_trial_on_a_cpu_trains_one():
    asked = {"where": placement(1), "trials_per_device": 8, "methods": ("camri",)}
    done = ids(planned(**asked)) - {planned(**asked).trials[3].trial_id}
    (chunk,) = planned(**asked, done=done).chunks
    assert chunk.width == len(chunk.trials) == 1
    seeds, arrays = planning.stack(chunk, planning.problem_of(DATASET, Recipe()))
    chex.assert_axis_dimension(seeds, 0, 1)
    chex.assert_tree_shape_prefix(arrays, (1,))


@given(st.integers(2, 12), st.integers(1, 3), st.integers(1, 30))
def test_half_as_wide_chunks_hold_the_same_trials(per_device, num_devices, size):
    trials = planned(
        num_seeds=3, methods=("camri",), grid={"scale": tuple(range(1, 6))}
    )
    shared, width = trials.chunks[0].config, per_device * num_devices
    some = tuple(trials.trials[:size])
    wide = [
        planning.Chunk(shared, some[i : i + width], width)
        for i in range(0, len(some), width)
    ]
    narrow = planning.halve(wide, num_devices)
    assert [t for chunk in narrow for t in chunk.trials] == list(some)
    for chunk in narrow:
        assert chunk.width % num_devices == 0
        assert width / 2 <= chunk.width < width
        assert len(chunk.trials) <= chunk.width


def test_stacked_trials_are_each_its_own_and_filled_with_the_last():
    chunk = plan(num_seeds=3, trials_per_device=2).chunks[-1]
    chunk = chunk._replace(width=len(chunk.trials) + 2)
    seeds, arrays = planning.stack(chunk, planning.problem_of(DATASET, Recipe()))
    assert seeds.tolist() == [t.seed for t in chunk.trials] + [seeds[-1]] * 2
    for i, each in enumerate(chunk.trials):
        margins = [
            each.point.get("margin", 0.0) * (k in each.important) for k in (0, 1, 2)
        ]
        np.testing.assert_allclose(arrays["margins"][i], margins)
        assert arrays["scale"][i] == each.point["scale"]


def test_a_chunk_can_be_sent_to_another_process():
    chunk = planned().chunks[0]
    again = pickle.loads(pickle.dumps(chunk))
    assert again == chunk
    assert again.name == chunk.name


def test_chunks_are_named_by_their_trials():
    chunks = planned(num_seeds=4, trials_per_device=2).chunks
    assert len({chunk.name for chunk in chunks}) == len(chunks)


def test_the_size_of_logits_is_that_of_their_numbers():
    whole = planned()
    expected = 4 * len(whole.trials) * (9 + 12) * 3
    assert planning.logits_bytes(whole, DATASET) == expected
    assert planning.logits_bytes(planned(done=ids(whole)), DATASET) == expected


# What is refused.

SIDE = min(DATASET.parts["train"].images.shape[1:3])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ("camry",)}, "methods must be among .*camri.*, got 'camry'"),
        ({"num_seeds": 0}, "num_seeds must be at least 1, got 0"),
        ({"trials_per_device": 0}, "trials_per_device must be at least 1, got 0"),
        ({"important": ("be",)}, "no class is called 'be'; did you mean 'bee'"),
        ({"important": ("3",)}, r"class index 3 is outside 0\.\.2"),
        ({"important": (3,)}, r"class index 3 is outside 0\.\.2"),
        (
            {"important": ()},
            "important must name the class .*are ant, bee, cat",
        ),
        ({"important": ("ant+bee+cat",)}, "important must leave at least one class"),
        ({"important": ("worst1",)}, "'worst1' needs the recall of finished cross-ent"),
        ({"grid": {"margins": (0.1,)}}, "grid must name a hyperparameter.*'margins'"),
        ({"grid": {"camri.cost": (1.0,)}}, "grid must name .*'camri.cost'"),
        ({"grid": {"camry.margin": (1.0,)}}, "grid must name .*'camry.margin'"),
        ({"grid": {"margin": ()}}, "grid must give margin at least one value"),
        ({"grid": {"margin@bee": (0.1,)}}, "a method that is told .*'margin@bee'"),
        ({"grid": {"arcface.margin@bee": (0.1,)}}, "a method that is told .*@bee'"),
        (
            {"grid": {"camri.margin@cat": (0.1,)}},
            "a choice of important .*@cat",
        ),
        ({"grid": {"camri.margin@cats": (0.1,)}}, "no class is called 'cats'"),
        (
            {"grid": {"camri.margin@bee@cat": (0.1,)}},
            "class of one, .*; bee@cat is neither",
        ),
        (
            {"grid": {"camri.margin@cat@cat": (0.1,)}},
            "class of one, .*; cat@cat is neither",
        ),
        ({"grid": {"camri.margin@bee@cats": (0.1,)}}, "no class is called 'cats'"),
        (
            {"important": ("ant+cat",), "grid": {"camri.scale@cat": (8.0,)}},
            r"what each class may have its own of \(margin, .* got 'camri.scale@cat'",
        ),
        (
            {"important": ("ant+cat",), "grid": {"camri.margin@cat": (-0.1,)}},
            "margin must be .*-0.1",
        ),
        ({"grid": {"margin": (-0.1,)}}, "margin must be .*-0.1"),
        ({"grid": {"scale": (16.0, 0.0)}}, "scale must be above 0, got 0.0"),
        ({"grid": {"wasserstein.epsilon": (math.nan,)}}, "epsilon must be .*nan"),
        ({"recipe": Recipe(batch_size=28)}, "batch_size must be at most .* 27, got 28"),
        (
            {"recipe": Recipe(batch_size=8, augment_shift=SIDE)},
            f"augment_shift must be below {SIDE}, .* got {SIDE}",
        ),
        ({"recipe": {"epochs": 1}}, "recipe must be a Recipe, .*got {'epochs': 1}"),
        ({"num_seeds": 2.5}, "num_seeds must be a whole number of at least 1, got 2.5"),
        ({"trials_per_device": 2.5}, "trials_per_device must be a whole number .*2.5"),
        ({"important": 0.5}, "important must be one name or several, got 0.5"),
        ({"important": (0.5,)}, "no class is called '0.5'"),
        ({"methods": 1}, "methods must be one name or several, got 1"),
        ({"grid": {"margin": "0.2"}}, "grid must give margin a number .*, got '0.2'"),
        ({"grid": {"margin": [[0.2]]}}, "grid must give margin a number or several"),
        ({"grid": 0.2}, "grid must be values by name, .*got 0.2"),
    ],
)
def test_a_wrong_plan_is_named(changes, message):
    with pytest.raises(UsageError, match=message) as caught:
        planned(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": "huge"}, "network must be one of paper, small, fast, features"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 1}, "batch_size must be at least 2, got 1"),
        ({"feature_dim": 1}, "feature_dim must be at least 2, got 1"),
        ({"augment_shift": -1}, "augment_shift must be at least 0, got -1"),
        ({"augment_fill": "white"}, "augment_fill must be one of .*, got 'white'"),
        ({"augment_flip": "always"}, "augment_flip must be one of .*, got 'always'"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0, got 0.0"),
        ({"learning_rate": math.nan}, "learning_rate must be above 0, got nan"),
        ({"logit_scale": math.inf}, "logit_scale must be above 0, got inf"),
        ({"ema_decay": 1.0}, r"ema_decay must be in \[0, 1\), got 1.0"),
        (
            {"network": "features", "feature_dim": 4},
            "feature_dim must be None for features",
        ),
        (
            {"network": "features", "augment_shift": 1},
            "augment_shift must be 0 for features",
        ),
        (
            {"network": "features", "augment_flip": "random"},
            "augment_flip must be none for features",
        ),
        ({"optimizer": "lion"}, "optimizer must be one of adam, sgd, got 'lion'"),
        ({"precision": "half"}, "precision must be one of float32, bfloat16, got"),
    ],
)
def test_a_wrong_recipe_is_named(changes, message):
    with pytest.raises(UsageError, match=message):
        Recipe(**changes)


NUMBERS = [name for name, value in RECIPES.items() if not isinstance(value, str)]


@pytest.mark.parametrize("name", NUMBERS)
def test_a_recipe_holds_numbers_and_what_can_be_counted_is_whole(name):
    is_whole = isinstance(RECIPES[name], int)
    for wrong in ("3", True, None, [3], *([2.5, 32.0] if is_whole else [])):
        if wrong is None and name == "feature_dim":
            continue
        with pytest.raises(UsageError, match=f"^{name} must be .*, got "):
            Recipe(**{name: wrong})
    # Names of trials are of Python's own numbers.
    made = Recipe(**{name: np.array(RECIPES[name])[()]})
    assert made == Recipe(**{name: RECIPES[name]})
    assert type(getattr(made, name)) is type(RECIPES[name])


@pytest.mark.parametrize("one", ["bee", 1, np.int64(1)])
def test_one_alone_is_one_of_several(one):
    grid = {"camri.margin": 0.2}
    alone = planned(important=one, methods="camri", grid=grid)
    several = {"camri.margin": np.array([0.2])}
    listed = planned(important=[one], methods=["camri"], grid=several)
    assert alone.trials == listed.trials
    assert alone.choices == ((1,),)


def test_the_default_important_classes_are_those_of_the_data_set():
    digits = make_dataset("cifar10", DATASET.parts, ("cat", "dog", "airplane"))
    assert choices.resolve((), digits) == ((0,), (1,), (2,))


class Sloped(nn.Module):
    """A user's network, of which its fields do not tell all."""

    slope: Callable[..., jnp.ndarray]

    @nn.compact
    def __call__(self, images, *, train):
        """Embeds images."""
        x = images.reshape(len(images), -1).astype(jnp.float32)
        return self.slope(nn.Dense(4)(x))


def leaky(slope):
    return lambda x: nn.leaky_relu(x, slope)


@pytest.mark.usefixtures("promotion_as_optax_needs_it")
def test_a_users_network_is_named_by_what_it_computes():
    """Functions that are called the same are not the same, nor are two addresses."""
    networks = [
        *(Sloped(leaky(slope)) for slope in (0.1, 0.2)),
        Sloped(lambda x: x * jnp.arange(4.0)[None]),
        Sloped(lambda x: x * jnp.arange(4.0)[None, ::-1]),
    ]
    again = [
        Sloped(leaky(0.1)),
        Sloped(functools.partial(nn.leaky_relu, negative_slope=0.1)),
    ]
    names = [what_trials_share(RECIPE, DATASET, each)["network"] for each in networks]
    assert len({each["program"] for each in names}) == len(networks)
    for each in again:
        assert what_trials_share(RECIPE, DATASET, each)["network"] == names[0]
