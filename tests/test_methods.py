"""Laws of the table of methods: formulas, neutral points, grids, what people type."""

import math

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

from camri_jax._files import UsageError
from camri_jax.training.methods import (
    HYPERPARAMETERS,
    METHODS,
    Problem,
    describe,
    hyperparameters,
    number,
    points,
)

PROBLEM = Problem(num_classes=4, important=(1, 3), class_counts=(5, 6, 7, 8))
POINT = {"margin": 0.3, "scale": 7.0, "weight": 4.0, "cost": 2.5, "epsilon": 0.3}
RNG = np.random.default_rng(0)
LABELS = np.array([0, 1, 2, 3, 1, 0], np.int32)
# Serve as logits and as cosines; angle plus margin stays below pi.
SCORES = RNG.uniform(-0.9, 0.9, (6, 4)).astype(np.float32)


def point_of(method, **changes):
    return {name: (POINT | changes)[name] for name in METHODS[method].grid}


def loss(method, problem=PROBLEM, **changes):
    arrays = hyperparameters(method, problem, point_of(method, **changes))
    return np.asarray(METHODS[method].loss(SCORES, LABELS, **arrays))


def by_hand(method):
    """The loss of the paper, from the point alone."""
    important = [k in PROBLEM.important for k in range(4)]
    weights = [POINT["weight"] if k else 1.0 for k in important]
    costs = [
        [0.0 if i == j else POINT["cost"] if a or b else 1.0 for j, b in pairs]
        for pairs in [list(enumerate(important))]
        for i, a in pairs
    ]
    margins = [POINT["margin"] if k else 0.0 for k in important]
    scale = POINT["scale"]
    scores = SCORES.astype(np.float64)
    if method == "cross_entropy":
        return reference.cross_entropy(scores, LABELS)
    if method == "weighted_cross_entropy":
        return reference.weighted_cross_entropy(scores, LABELS, class_weights=weights)
    if method == "real_world_weight_cross_entropy":
        return reference.real_world_weight_cross_entropy(
            scores,
            LABELS,
            false_negative_weights=weights,
            false_positive_weights=costs,
        )
    if method == "wasserstein":
        return reference.wasserstein_with_integer_labels(
            scores, LABELS, cost_matrix=np.array(costs), epsilon=POINT["epsilon"]
        )
    if method == "l2_softmax":
        return reference.l2_softmax(scores, LABELS, scale=scale)
    if method == "arcface":
        return reference.arcface(scores, LABELS, margin=POINT["margin"], scale=scale)
    if method == "camri":
        return reference.camri(scores, LABELS, margins=margins, scale=scale)
    raise AssertionError(f"a new method needs its formula here: {method}")


@pytest.mark.parametrize("method", METHODS)
def test_the_entry_is_the_formula_of_the_paper(method):
    np.testing.assert_allclose(loss(method), by_hand(method), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("method", [m for m in METHODS if METHODS[m].neutral])
def test_at_its_neutral_value_a_method_is_the_one_it_names(method):
    value, other = METHODS[method].neutral
    changes = {METHODS[method].penalty: value}
    np.testing.assert_array_equal(loss(method, **changes), loss(other))
    assert not np.allclose(loss(method), loss(other), rtol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_important_classes_change_a_sensitive_method_and_no_other(method):
    one, other = (
        loss(method, PROBLEM._replace(important=chosen)) for chosen in ((0,), (1, 3))
    )
    assert np.array_equal(one, other) != METHODS[method].class_sensitive
    if not METHODS[method].class_sensitive:
        np.testing.assert_array_equal(one, loss(method, PROBLEM._replace(important=())))


@pytest.mark.parametrize("method", [m for m in METHODS if METHODS[m].class_sensitive])
def test_more_penalty_costs_examples_of_the_important_classes_more(method):
    penalty = METHODS[method].penalty
    less, more = (loss(method, **{penalty: POINT[penalty] * f}) for f in (1.0, 1.2))
    assert (more > less)[np.isin(LABELS, PROBLEM.important)].all()


def test_the_table_agrees_with_itself():
    assert list(METHODS) == [method.name for method in METHODS.values()]
    assert list(HYPERPARAMETERS) == [each.name for each in HYPERPARAMETERS.values()]
    looks = {(method.colour, method.marker) for method in METHODS.values()}
    labels = {method.label for method in METHODS.values()}
    assert len(looks) == len(labels) == len(METHODS)
    assert len({method.family for method in METHODS.values()}) == 3
    for method in METHODS.values():
        assert set(method.grid) <= set(HYPERPARAMETERS)
        assert set(method.paper_grid) == set(method.grid)
        assert method.penalty is None or method.penalty in method.grid
        assert (method.head == "cosine") == ("scale" in method.grid)
        if method.neutral:
            other = METHODS[method.neutral[1]]
            assert set(other.grid) == set(method.grid) - {method.penalty}
            assert other.family == method.family
            assert not other.class_sensitive


@pytest.mark.parametrize("method", METHODS)
def test_every_point_of_every_grid_is_in_range(method):
    for grid in (METHODS[method].grid, METHODS[method].paper_grid):
        found = points(grid)
        assert len(found) == math.prod(map(len, grid.values()))
        assert len({tuple(each.values()) for each in found}) == len(found)
        for each in found[:1] + found[-1:]:
            for array in hyperparameters(method, PROBLEM, each).values():
                assert np.isfinite(array).all()
                assert array.dtype == np.float32


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("camri", {"margin": -0.1}, "margin must be .*-0.1"),
        ("camri", {"margin": math.nan}, "margin must be .*nan"),
        ("arcface", {"margin": 4.0}, "margin must be .*4.0"),
        ("camri", {"scale": 0.0}, "scale must be above 0, got 0.0"),
        ("l2_softmax", {"scale": math.nan}, "scale must be above 0, got nan"),
        ("l2_softmax", {"scale": math.inf}, "scale must be above 0, got inf"),
        ("wasserstein", {"epsilon": -1.0}, "epsilon must be above 0, got -1.0"),
        ("wasserstein", {"cost": -1.0}, "cost must .*-1.0"),
        ("weighted_cross_entropy", {"weight": -1.0}, "weight must .*-1.0"),
        ("weighted_cross_entropy", {"weight": math.inf}, "weight must .*inf"),
        ("weighted_cross_entropy", {"weight": math.nan}, "weight must .*nan"),
    ],
)
def test_a_value_out_of_range_is_named(method, changes, message):
    with pytest.raises(UsageError, match=message):
        hyperparameters(method, PROBLEM, point_of(method, **changes))


FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(FINITE)
def test_a_number_is_read_as_python_writes_it(value):
    assert number(repr(value)) == number(f" {value!r}rad ") == value


@given(
    st.integers(-200, 200), st.integers(1, 128), st.sampled_from(["pi", "π", " PI "])
)
def test_an_angle_is_read_as_people_write_it(count, share, pi):
    expected = count * math.pi / share
    for text in (f"{count}{pi}/{share}", f"{count} * {pi} / {share}"):
        assert number(text) == pytest.approx(expected, rel=1e-15)
    assert number(f"{count}{pi}") == count * math.pi
    assert number(f"-{pi}/{share}") == -math.pi / share
    degrees = 180 * count / share
    assert number(f"{degrees}deg") == pytest.approx(expected, rel=1e-12)


@given(st.sampled_from(list(HYPERPARAMETERS)), st.floats(1e-3, 1e3))
def test_what_tables_show_is_read_back_to_its_digits(name, value):
    assert number(HYPERPARAMETERS[name].text(value)) == pytest.approx(value, rel=1e-3)
    assert describe({name: value, "seed": 3.0}) == (
        f"{HYPERPARAMETERS[name].symbol}={HYPERPARAMETERS[name].text(value)}"
    )


@pytest.mark.parametrize(
    "text",
    ["", "x", "1 6", "pi64", "4pi64", "pi/", "pi/0", "4pi/x", "deg", "2pipi", "1,5"],
)
def test_what_is_no_number_is_refused(text):
    with pytest.raises(UsageError, match="must be a number, or an angle as 4pi/64"):
        number(text)
