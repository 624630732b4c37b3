"""Laws of the table of methods: formulas, neutral points, grids, what people type."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

from camri_jax._files import UsageError
from camri_jax.training.methods import (
    BASELINE,
    DEFAULT_METHODS,
    HYPERPARAMETERS,
    METHODS,
    Problem,
    describe,
    hyperparameters,
    number,
    points,
)

PROBLEM = Problem(num_classes=4, important=(1, 3), class_counts=(5, 6, 7, 8))
POINT = {
    "margin": 0.3,
    "scale": 7.0,
    "weight": 4.0,
    "cost": 2.5,
    "epsilon": 0.3,
    "multiplier": 1.5,
    "cosine_margin": 0.2,
    "warm_up": 2.0,
    "strength": 1.5,
    "shift": 0.7,
    "beta": 0.9,
    "gamma": 2.0,
    "smoothing": 0.2,
    "least_recall": 0.6,
    "dual_rate": 0.3,
}
RNG = np.random.default_rng(0)
LABELS = np.array([0, 1, 2, 3, 1, 0], np.int32)
# Serve as logits and as cosines; angle plus margin stays below pi.
SCORES = RNG.uniform(-0.9, 0.9, (6, 4)).astype(np.float32)


def point_of(method, **changes):
    return {name: (POINT | changes)[name] for name in METHODS[method].grid}


def losses_of(method, arrays, scores=SCORES):
    """Losses, of a method with multipliers after three steps of theirs."""
    entry, learned = METHODS[method], {}
    if entry.dual:
        multipliers = np.zeros(PROBLEM.num_classes, np.float32)
        for _ in range(3):
            multipliers = entry.dual(multipliers, SCORES, LABELS, **arrays)
        learned = {"multipliers": multipliers}
    return entry.loss(scores, LABELS, **arrays, **learned)


def loss(method, problem=PROBLEM, **changes):
    arrays = hyperparameters(method, problem, point_of(method, **changes))
    return np.asarray(losses_of(method, arrays))


def by_hand(method):
    """The loss of its paper, from the point alone."""
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
    if method in ("camri", "camri_warm_up"):
        return reference.camri(scores, LABELS, margins=margins, scale=scale)
    if method in RIVALS:
        return RIVALS[method](scores, np.array(important, float))
    raise AssertionError(f"a new method needs its formula here: {method}")


def by_angle(name, **options):
    options |= {"scale": POINT["scale"]}
    return lambda scores, important: getattr(reference, name)(scores, LABELS, **options)


def by_logit(name, **options):
    """`options` may be functions of which classes are important."""

    def values(scores, important):
        own = {k: v(important) if callable(v) else v for k, v in options.items()}
        return getattr(reference, name)(scores, LABELS, **own)

    return values


def class_balanced(scores, important):
    beta = POINT["beta"]
    numbers = [1 / sum(beta**i for i in range(n)) for n in PROBLEM.class_counts]
    weights = np.array(numbers) / np.mean(numbers)
    return reference.weighted_cross_entropy(scores, LABELS, class_weights=weights)


def constrained(scores, important):
    multipliers, options = np.zeros(4), {"class_priors": PRIORS}
    for _ in range(3):
        multipliers = reference.next_multipliers(
            multipliers,
            scores,
            LABELS,
            least_recalls=POINT["least_recall"] * important,
            rate=POINT["dual_rate"],
            **options,
        )
    return reference.recall_constrained_cross_entropy(
        scores, LABELS, multipliers=multipliers, **options
    )


PRIORS = np.array(PROBLEM.class_counts) / sum(PROBLEM.class_counts)
RIVALS = {
    "sphereface": by_angle("sphereface", margin=POINT["multiplier"]),
    "cosface": by_angle("cosface", margin=POINT["cosine_margin"]),
    "class_sensitive_cosface": lambda scores, important: (
        reference.class_sensitive_cosface(
            scores,
            LABELS,
            cosine_margins=POINT["cosine_margin"] * important,
            scale=POINT["scale"],
        )
    ),
    "ldam": by_angle(
        "ldam", class_counts=PROBLEM.class_counts, margin=POINT["cosine_margin"]
    ),
    "logit_adjustment": by_logit(
        "logit_adjusted_cross_entropy",
        class_priors=PRIORS,
        strength=POINT["strength"],
        offsets=lambda important: POINT["shift"] * important,
    ),
    "balanced_softmax": by_logit("balanced_softmax", class_counts=PROBLEM.class_counts),
    "class_balanced": class_balanced,
    "focal": by_logit("focal", gamma=POINT["gamma"]),
    "weighted_focal": by_logit(
        "weighted_focal",
        gamma=POINT["gamma"],
        class_weights=lambda important: 1 + (POINT["weight"] - 1) * important,
    ),
    "label_smoothing": by_logit("smoothed_cross_entropy", smoothing=POINT["smoothing"]),
    "recall_constraint": constrained,
}


@pytest.mark.parametrize("method", METHODS)
def test_the_entry_is_the_formula_of_its_paper(method):
    np.testing.assert_allclose(loss(method), by_hand(method), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("method", [m for m in METHODS if METHODS[m].neutral])
def test_at_its_neutral_value_a_method_is_the_one_it_names(method):
    value, other = METHODS[method].neutral
    changes = {METHODS[method].penalty: value}
    found, expected = loss(method, **changes), loss(other)
    if METHODS[method].family == METHODS[other].family:
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert not np.allclose(loss(method), expected, rtol=1e-3)


# Where no hyperparameter alone makes a method neutral, and where classes are alike.
ALSO_NEUTRAL = {
    "logit_adjustment": {"strength": 0.0, "shift": 0.0},
    "balanced_softmax": {},
    "weighted_focal": {"weight": 1.0, "gamma": 0.0},
}


@pytest.mark.parametrize("method", [m for m in METHODS if METHODS[m].rival])
def test_at_its_neutral_point_a_rival_is_cross_entropy_values_and_gradients(method):
    """Of its logits, or of its cosines times the scale."""
    entry, changes = METHODS[method], ALSO_NEUTRAL.get(method)
    if changes is None:
        changes = {entry.penalty: entry.neutral[0]}
    problem = PROBLEM
    if method == "balanced_softmax":
        problem = PROBLEM._replace(class_counts=(7,) * 4)
    arrays = hyperparameters(method, problem, point_of(method, **changes))
    plain = hyperparameters(BASELINE, problem, {})
    scale = POINT["scale"] if entry.head == "cosine" else 1.0

    def rival(scores):
        values = losses_of(method, arrays, scores)
        return values.sum(), values

    def cross_entropy(scores):
        values = losses_of(BASELINE, plain, scale * scores)
        return values.sum(), values

    found, expected = (
        jax.value_and_grad(each, has_aux=True)(jnp.asarray(SCORES))
        for each in (rival, cross_entropy)
    )
    np.testing.assert_allclose(found[0][1], expected[0][1], rtol=1e-5)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", [m for m in METHODS if METHODS[m].class_sensitive])
def test_each_important_class_may_have_a_penalty_of_its_own(method):
    """Of several, each costs what it costs where it is the only one."""
    penalty = METHODS[method].penalty
    own = {1: POINT[penalty], 3: POINT[penalty] / 2}
    both = loss(method, **{penalty: list(own.values())})
    for k, value in own.items():
        alone = loss(method, PROBLEM._replace(important=(k,)), **{penalty: value})
        mine = np.isin(LABELS, k)
        # A cost and a shift also change what is true of other classes.
        if penalty not in ("cost", "shift"):
            np.testing.assert_allclose(both[mine], alone[mine], rtol=1e-6)
    assert describe({penalty: list(own.values())}).count(",") == 1
    with pytest.raises(UsageError, match=f"{penalty}|offset must have shape"):
        hyperparameters(method, PROBLEM, point_of(method, **{penalty: [0.1] * 3}))


def test_what_grows_is_camri_in_the_end_and_has_no_margin_at_first():
    arrays = hyperparameters("camri_warm_up", PROBLEM, point_of("camri_warm_up"))
    entry = METHODS["camri_warm_up"]
    for epoch, share in ((0.0, 0.0), (0.5, 0.25), (1.0, 0.5), (2.0, 1.0), (7.0, 1.0)):
        got = entry.loss(SCORES, LABELS, **arrays, epoch=epoch)
        expected = loss("camri", margin=share * POINT["margin"])
        np.testing.assert_allclose(got, expected, rtol=1e-5)


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
    assert len({METHODS[name].family for name in DEFAULT_METHODS}) == 3
    assert len({method.family for method in METHODS.values()}) == 9
    # As many as the paper compares: a sweep without arguments takes these.
    assert len(DEFAULT_METHODS) == 7
    for method in METHODS.values():
        assert set(method.grid) <= set(HYPERPARAMETERS)
        assert set(method.paper_grid) == set(method.grid)
        assert method.penalty is None or method.penalty in method.grid
        assert (method.head == "cosine") == ("scale" in method.grid)
        if method.neutral:
            other = METHODS[method.neutral[1]]
            assert set(other.grid) <= set(method.grid) - {method.penalty}
            assert other.head == method.head
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
        ("l2_softmax", {"scale": math.inf}, "scale must be finite, got inf"),
        ("l2_softmax", {"scale": [8.0, 16.0]}, "scale must be one number, got 8,16"),
        ("arcface", {"margin": [0.1, 0.2]}, "margin must be one number, got .*π/64"),
        ("recall_constraint", {"least_recall": 95.0}, "least_recall must be .*95.0"),
        ("recall_constraint", {"dual_rate": 0.0}, "dual_rate must be above 0"),
        ("class_balanced", {"beta": 1.0}, "beta must be from 0 to below 1, got 1.0"),
        ("label_smoothing", {"smoothing": -0.1}, "smoothing must be .*-0.1"),
        ("focal", {"gamma": -1.0}, "gamma must be not below 0, got -1.0"),
        ("sphereface", {"multiplier": 0.0}, "multiplier must be above 0, got 0.0"),
        ("cosface", {"cosine_margin": math.nan}, "cosine_margin must be finite"),
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
