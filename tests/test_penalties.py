"""The penalties of the paper's section IV-A3."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from camri_jax._files import UsageError
from camri_jax.penalties import (
    class_balanced_weights,
    class_weights,
    cost_matrix,
    ldam_margins,
    margin_vector,
    offset_vector,
    warm_up,
)

PENALTIES = [margin_vector, class_weights, cost_matrix, offset_vector]


@pytest.mark.parametrize("important", [2, np.int64(2), [2], (2,), np.array([2])])
def test_one_important_class(important):
    np.testing.assert_array_equal(margin_vector(4, important, 0.5), [0, 0, 0.5, 0])
    np.testing.assert_array_equal(class_weights(4, important, 8), [1, 1, 8, 1])
    expected = [[0, 1, 3, 1], [1, 0, 3, 1], [3, 3, 0, 3], [1, 1, 3, 0]]
    np.testing.assert_array_equal(cost_matrix(4, important, 3), expected)


def test_several_important_classes():
    np.testing.assert_array_equal(class_weights(3, [2, 0], 4.0), [4, 1, 4])
    # Each may have a penalty of its own, in the order in which they are named.
    np.testing.assert_array_equal(margin_vector(3, [2, 0], [0.5, 0.25]), [0.25, 0, 0.5])
    np.testing.assert_array_equal(offset_vector(3, [2, 0], [-1, 2]), [2, 0, -1])
    # Between two that matter the larger cost holds.
    expected = [[0, 5, 0.5], [5, 0, 5], [0.5, 5, 0]]
    np.testing.assert_array_equal(cost_matrix(3, [1, 0], [5.0, 0.5]), expected)
    expected = [[0, 3, 3, 3], [3, 0, 3, 3], [3, 3, 0, 1], [3, 3, 1, 0]]
    np.testing.assert_array_equal(cost_matrix(4, [0, 1], 3.0), expected)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_a_grid_is_one_program(penalty):
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def traced(important, value):
        return penalty(4, important, value)

    for important in range(4):
        for value in (0.5, 2.0):
            got = traced(important, value)
            np.testing.assert_array_equal(got, penalty(4, important, value))
    values = jnp.array([0.5, 2.0])
    lifted = jax.vmap(lambda important, value: penalty(4, important, value))
    got = lifted(jnp.array([[3], [1]]), values)
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got[0], penalty(4, 3, 0.5))
    np.testing.assert_array_equal(got[1], penalty(4, 1, 2.0))


@pytest.mark.parametrize("penalty", PENALTIES)
def test_classes_and_penalties_may_be_traced_one_by_one(penalty):
    traced = jax.jit(lambda k, first, second: penalty(3, [k, 0], [first, second]))
    np.testing.assert_array_equal(
        traced(2, 0.5, 2.0), penalty(3, [2, 0], np.array([0.5, 2.0], np.float32))
    )


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize(
    ("important", "error", "message"),
    [
        (4, UsageError, r"important must be in 0 \.\. 3, got 4"),
        (-1, UsageError, r"important must be in 0 \.\. 3, got -1"),
        ([0, 4], UsageError, r"important must be in 0 \.\. 3"),
        ([], UsageError, "important must be one class or several"),
        ([[0, 1]], UsageError, "important must be one class or several"),
        ([1, 1], UsageError, "important must not repeat a class"),
        (2**32 + 1, UsageError, r"important must be in 0 \.\. 3, got 4294967297"),
        ({1}, TypeError, "important must be a number or an array of numbers, got set"),
        ({1: 2.0}, TypeError, "important must be a number or an array of numbers"),
        (1.0, TypeError, "important must be integers, got float"),
        (True, TypeError, "important must be integers, got bool"),
    ],
)
def test_wrong_classes_are_named(penalty, important, error, message):
    with pytest.raises(error, match=message):
        penalty(4, important, 1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: margin_vector(4, 0, -0.1), "margin must be from 0 to pi, in radians"),
        (lambda: margin_vector(4, 0, 10.0), "margin must be from 0 to pi, in radians"),
        (lambda: class_weights(4, 0, -1.0), "weight must be not below 0"),
        (lambda: cost_matrix(4, 0, -1.0), "cost must be not below 0"),
        (lambda: class_weights(4, [0, 1], [1.0, 2.0, 3.0]), "weight must have shape"),
        (lambda: cost_matrix(4, [0, 1], [1.0] * 3), "cost must have shape"),
        (lambda: offset_vector(4, 0, np.inf), "offset must be finite, got inf"),
        (lambda: ldam_margins([3, 0], 0.5), "class_counts must be above 0, got 0"),
        (lambda: class_balanced_weights([3, 1], 1.0), "beta must be from 0 to below 1"),
        (lambda: class_balanced_weights([3, 0], 0.9), "class_counts must be above 0"),
        (lambda: class_weights(2.5, 0, 1.0), "num_classes must be a whole number of"),
        (lambda: warm_up(3, -1), "length must be not below 0, got -1"),
    ],
)
def test_wrong_penalties_are_named(call, message):
    with pytest.raises(UsageError, match=message):
        call()


def test_penalties_of_whole_numbers_are_those_of_others():
    for penalty, value in ((offset_vector, -2), (cost_matrix, 3)):
        whole, other = penalty(4, [1, 2], value), penalty(4, [1, 2], float(value))
        np.testing.assert_array_equal(whole, other)
        assert np.sum(np.asarray(whole) == value) >= 2


def test_penalties_are_float32_in_any_precision():
    with jax.enable_x64(True):
        for penalty in PENALTIES:
            assert penalty(4, 1, 0.5).dtype == jnp.float32


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.999, 0.9999])
def test_class_balanced_weights_are_the_formula(beta):
    counts = [1, 5, 1000, 40_000]
    # The effective number is the sum of a geometric series.
    numbers = [sum(beta**i for i in range(count)) for count in counts]
    mean = np.mean([1 / number for number in numbers])
    expected = [1 / number / mean for number in numbers]
    np.testing.assert_allclose(
        class_balanced_weights(counts, beta), expected, rtol=1e-5
    )
    rare = np.asarray(class_balanced_weights(counts, 1 - 1e-12))
    np.testing.assert_allclose(rare * counts, rare[0], rtol=1e-3)


def test_ldam_margins_are_the_formula():
    margins = ldam_margins([1, 16, 81], np.float64(0.6))
    np.testing.assert_allclose(margins, [0.6, 0.3, 0.2], rtol=1e-6)


@pytest.mark.parametrize("counts", [[], [[1, 2]], 3])
def test_counts_are_one_a_class(counts):
    for call in (
        lambda: ldam_margins(counts, 0.5),
        lambda: class_balanced_weights(counts, 0.5),
    ):
        with pytest.raises(UsageError, match=r"class_counts must be \[num_classes\]"):
            call()


@pytest.mark.parametrize("step", [-5, np.nan])
def test_no_training_is_before_its_start(step):
    with pytest.raises(UsageError, match="step must be not below 0"):
        warm_up(step, 10)


def test_a_warm_up_is_a_straight_line_that_ends():
    shares = warm_up(jnp.array(0), 4), warm_up(1, 4.0), warm_up(jnp.array(9), 4)
    np.testing.assert_array_equal(shares, [0, 0.25, 1])
    # Without a length nothing has to grow.
    slope = jax.grad(warm_up)(3.0, 0.0)
    np.testing.assert_array_equal((warm_up(0, 0), warm_up(np.inf, 0), slope), (1, 1, 0))
    np.testing.assert_array_equal(warm_up(np.inf, 4), 1)
