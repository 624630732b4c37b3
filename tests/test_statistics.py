"""Laws of intervals, tests and power, against closed forms and plain loops."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from camri_jax.evidence import statistics

numbers = st.floats(-1, 1).map(lambda x: round(x, 3))
differences = st.lists(numbers, min_size=3, max_size=8).filter(
    lambda values: max(values) - min(values) > 0.01
)


@settings(deadline=None)
@given(differences)
def test_an_interval_holds_the_mean_and_lies_among_the_differences(values):
    low, high = statistics.interval(np.array(values))
    assert min(values) - 1e-9 <= low <= np.mean(values) + 1e-9
    assert np.mean(values) - 1e-9 <= high <= max(values) + 1e-9
    assert low < high


@settings(deadline=None)
@given(differences, st.sampled_from([0.25, 2.0, 8.0]))
def test_an_interval_stretches_with_the_differences(values, scale):
    values = np.array(values)
    expected = scale * np.array(statistics.interval(values))
    np.testing.assert_allclose(statistics.interval(scale * values), expected)


def test_an_interval_moves_with_the_differences():
    values = np.random.default_rng(0).normal(size=12)
    expected = np.array(statistics.interval(values)) + 0.7
    np.testing.assert_allclose(statistics.interval(values + 0.7), expected)


def test_an_interval_of_many_is_the_normal_one():
    values = np.random.default_rng(0).normal(2.0, 3.0, 400)
    half = 1.96 * values.std(ddof=1) / 20
    expected = values.mean() - half, values.mean() + half
    np.testing.assert_allclose(statistics.interval(values), expected, atol=0.02)


def test_too_few_or_all_the_same_have_no_spread():
    assert np.isnan(statistics.interval(np.array([0.1, 0.2]))).all()
    assert np.isnan(statistics.interval(np.array([0.1, 0.2, np.nan]))).all()
    assert statistics.interval(np.full(5, 0.25)) == (0.25, 0.25)
    for values in ([0.3], [0.25] * 5, [0.1, 0.1 + 1e-8], [np.nan, 0.3]):
        assert math.isnan(statistics.p_above(np.array(values)))


def upper_tail(values, bound):
    """The t-test in closed form, which two and three differences have."""
    n = len(values)
    mean = sum(values) / n
    std = math.sqrt(sum((x - mean) ** 2 for x in values) / (n - 1))
    t = (mean - bound) / (std / math.sqrt(n))
    if n == 2:
        return 0.5 - math.atan(t) / math.pi
    return 0.5 - t / (2 * math.sqrt(2 + t * t))


@settings(deadline=None)
@given(differences.map(lambda values: values[:3]), numbers, st.sampled_from([2, 3]))
def test_p_is_the_t_tests(values, bound, n):
    values = values[:n]
    if max(values) - min(values) < 0.01:
        return
    p_value = statistics.p_above(np.array([*values, np.nan]), bound)
    assert p_value == pytest.approx(upper_tail(values, bound), abs=1e-9)


@settings(deadline=None)
@given(differences, numbers)
def test_above_and_below_share_all_chances(values, bound):
    values = np.array(values)
    above = statistics.p_above(values, bound)
    assert above + statistics.p_above(-values, -bound) == pytest.approx(1)


def test_a_loss_below_the_margin_is_told_from_a_gain():
    values = np.array([-0.002, -0.001, -0.0015, -0.001])
    assert statistics.p_above(values) > 0.9
    assert statistics.p_above(values, -0.005) < 0.01


@settings(deadline=None, max_examples=20)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_steps_down(p_values):
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    expected, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        expected[i] = largest
    np.testing.assert_allclose(statistics.holm(np.array(p_values)), expected)


def test_holm_counts_what_could_not_be_tested():
    np.testing.assert_allclose(
        statistics.holm(np.array([np.nan, 0.01, 0.04])), [np.nan, 0.03, 0.08]
    )
    assert statistics.holm(np.array([])).size == 0


def power(size, n, alpha):
    """The one-sided t-test's chance of finding an effect of `size` stds."""
    critical = stats.t.ppf(1 - alpha, n - 1)
    return stats.nct.sf(critical, n - 1, size * math.sqrt(n))


@pytest.mark.parametrize("effect", [0.3, 0.05, 0.01, 0.001])
@pytest.mark.parametrize("wanted", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("alpha", [0.05, 0.005])
def test_the_seeds_needed_suffice_and_no_fewer_do(effect, wanted, alpha):
    pilot = np.array([0.01, 0.05, -0.02, 0.03, np.nan])
    size = effect / np.nanstd(pilot, ddof=1)
    n = statistics.seeds_needed(pilot, effect, power=wanted, alpha=alpha)
    assert power(size, n, alpha) >= wanted - 1e-9
    assert n == 2 or power(size, n - 1, alpha) < wanted


def test_no_number_of_seeds_finds_what_is_not_there():
    pilot = np.array([0.01, 0.05, -0.02])
    assert statistics.seeds_needed(pilot, 0.0) == math.inf
    assert statistics.seeds_needed(pilot, -0.01) == math.inf


@pytest.mark.parametrize("pilot", [[], [0.1], [0.1, np.nan], [0.1, 0.1, 0.1]])
def test_a_pilot_without_spread_is_refused(pilot):
    with pytest.raises(ValueError, match="differences must be of two seeds or more"):
        statistics.seeds_needed(np.array(pilot), 0.01)
