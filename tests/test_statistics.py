"""Laws of intervals, tests and power, against closed forms and simulations."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from camri_jax._files import UsageError
from camri_jax.evidence import statistics

numbers = st.floats(-1, 1).map(lambda x: round(x, 3))
differences = st.lists(numbers, min_size=3, max_size=12).filter(
    lambda values: max(values) - min(values) > 0.01
)


@settings(deadline=None, max_examples=20)
@given(differences, st.sampled_from([0.25, 2.0, 8.0]), st.sampled_from([0.0, 0.7]))
def test_an_interval_holds_the_mean_and_moves_with_the_differences(values, by, shift):
    values = np.array(values)
    low, high = statistics.interval(values)
    assert low < values.mean() < high
    moved = statistics.interval(by * values + shift)
    expected = [by * low + shift, by * high + shift]
    np.testing.assert_allclose(moved, expected, atol=1e-9)
    # Both ends are where the test of the same level turns.
    for end, p_value in ((low, 0.025), (high, 0.975)):
        assert statistics.p_above(values, end) == pytest.approx(p_value)


@pytest.mark.parametrize("n", [2, 3, 5, 12, 30])
def test_an_interval_of_few_holds_the_mean_as_often_as_it_says(n):
    rng = np.random.default_rng(n)
    number = 1000
    held = sum(
        low < 0 < high
        for low, high in (
            statistics.interval(rng.normal(size=n)) for _ in range(number)
        )
    )
    assert abs(held / number - 0.95) < 3 * math.sqrt(0.95 * 0.05 / number)


def test_an_interval_of_many_is_the_normal_one():
    values = np.random.default_rng(0).normal(2.0, 3.0, 400)
    half = 1.96 * values.std(ddof=1) / 20
    expected = values.mean() - half, values.mean() + half
    np.testing.assert_allclose(statistics.interval(values), expected, atol=0.02)


@pytest.mark.parametrize("n", [2, 3, 20])
def test_seeds_that_agree_are_told_honestly(n):
    # Their spread is not known to be nothing.
    assert np.isnan(statistics.interval(np.full(n, 0.25))).all()
    # Nothing was gained, and nothing lost.
    assert statistics.p_above(np.zeros(n)) == 1
    assert statistics.p_above(np.zeros(n), -0.005) == 0.5**n
    assert statistics.p_above(np.zeros(n), 0.005) == 1
    # Seeds that agree by chance show no more than their signs do.
    assert statistics.p_above(np.full(n, 0.25)) == 0.5**n
    assert statistics.p_above(np.full(n, -0.25)) == 1
    assert statistics.p_above(np.full(n, -0.25), -0.5) == 0.5**n


@pytest.mark.parametrize("values", [[], [0.3], [np.nan, 0.3]])
def test_one_seed_shows_nothing(values):
    assert np.isnan(statistics.interval(np.array(values))).all()
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


@given(differences.map(lambda values: values[:3]), numbers, st.sampled_from([2, 3]))
def test_p_is_the_t_tests(values, bound, n):
    values = values[:n]
    if max(values) - min(values) < 0.01:
        return
    p_value = statistics.p_above(np.array([*values, np.nan]), bound)
    assert p_value == pytest.approx(upper_tail(values, bound), abs=1e-9)


def test_a_loss_below_the_margin_is_told_from_a_gain():
    values = np.array([-0.002, -0.001, -0.0015, -0.001])
    assert statistics.p_above(values) > 0.9
    assert statistics.p_above(values, -0.005) < 0.01


@pytest.mark.parametrize("value", [-1, -0.001, 1, 5, math.nan, math.inf])
def test_a_margin_that_is_no_share_is_refused(value):
    with pytest.raises(UsageError, match=r"accuracy_margin must be in \[0, 1\)"):
        statistics.checked_accuracy_margin(value)
    assert statistics.checked_accuracy_margin(0) == 0


@settings(max_examples=20)
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


@given(
    st.one_of(
        st.floats(0, 1),
        st.floats(0.0494, 0.0506),
        st.integers(1, 12).map(lambda k: 0.05 - 10.0**-k),
        st.integers(1, 12).map(lambda k: 0.05 + 10.0**-k),
    )
)
def test_a_printed_p_never_contradicts_the_verdict(p_value):
    text = statistics.p_text(p_value)
    if text == "<0.001":
        assert p_value < 0.001
        assert statistics.shown(p_value)
        return
    assert abs(float(text) - p_value) <= 0.0005
    assert (float(text) < 0.05) == statistics.shown(p_value)


def power(size, n, alpha):
    """The one-sided t-test's chance of finding an effect of `size` stds."""
    critical = stats.t.ppf(1 - alpha, n - 1)
    return stats.nct.sf(critical, n - 1, size * math.sqrt(n))


@pytest.mark.parametrize("effect", [0.3, 0.05, 0.01, 0.001])
@pytest.mark.parametrize("wanted", [0.5, 0.95])
@pytest.mark.parametrize("alpha", [0.05, 0.005])
def test_the_seeds_needed_suffice_and_no_fewer_do(effect, wanted, alpha):
    pilot = np.array([0.01, 0.05, -0.02, 0.03, np.nan])
    size = effect / np.nanstd(pilot, ddof=1)
    n = statistics.seeds_needed(pilot, effect, power=wanted, alpha=alpha)
    assert power(size, n, alpha) >= wanted - 1e-9
    assert n == 2 or power(size, n - 1, alpha) < wanted


@pytest.mark.parametrize(
    "asked", [{"power": 80}, {"alpha": 5}, {"alpha": -1}, {"power": 0.01}]
)
def test_what_is_no_chance_needs_no_seeds(asked):
    with pytest.raises(UsageError, match=f"{next(iter(asked))} must be"):
        statistics.seeds_needed(np.array([0.0, 1.0, 0.5]), 0.1, **asked)


def test_no_number_of_seeds_finds_what_is_not_there():
    pilot = np.array([0.01, 0.05, -0.02])
    assert statistics.seeds_needed(pilot, 0.0) == math.inf
    assert statistics.seeds_needed(pilot, -0.01) == math.inf
    for unspread in ([], [0.1], [0.1, np.nan], [0.1, 0.1, 0.1]):
        assert math.isnan(statistics.seeds_needed(np.array(unspread), 0.01))


def test_the_tiniest_effect_is_answered_at_once():
    """One more than so many seeds is no other number: counting would never end."""
    pilot = np.array([0.0, 1.0, 0.5])
    counts = [statistics.seeds_needed(pilot, effect) for effect in (1e-4, 1e-5, 1e-12)]
    assert np.all(np.diff(counts) > 0)
    normal = 1.6448536 + 0.8416212
    np.testing.assert_allclose(counts[-1], (normal * 0.5 / 1e-12) ** 2, rtol=1e-5)
