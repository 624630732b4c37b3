"""Laws of measures: what plain loops count, and what chance does."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from camri_jax.evidence.measures import chance, measures, moved_confusion


@st.composite
def counted(draw, least=0):
    """A confusion matrix and some of its classes."""
    k = draw(st.integers(2, 6))
    confusion = draw(st_np.arrays(np.int64, (k, k), elements=st.integers(least, 9)))
    some = st.sets(st.integers(0, k - 1), min_size=1, max_size=k - 1)
    return confusion, sorted(draw(some))


def mean(values):
    return sum(values) / len(values) if values else math.nan


def share(part, whole):
    return part / whole if whole else math.nan


def looped(confusion, important):
    """The measures, counted one example at a time."""
    right = total = alarms = right_alarms = false = missed = 0
    recalls = {True: [], False: []}
    for true, line in enumerate(confusion.tolist()):
        inside = true in important
        if sum(line):
            recalls[inside].append(line[true] / sum(line))
        for predicted, count in enumerate(line):
            total += count
            right += count * (true == predicted)
            missed += count * (inside and true != predicted)
            if predicted in important:
                alarms += count
                right_alarms += count * (true == predicted)
                false += count * (not inside)
    return {
        "recall": mean(recalls[True]),
        "accuracy": share(right, total),
        "precision": share(right_alarms, alarms),
        "f2": share(
            5 * right_alarms, 5 * right_alarms + 4 * missed + alarms - right_alarms
        ),
        "other_recall": mean(recalls[False]),
        "false_alarms": share(1000 * false, total),
    }


@given(counted())
def test_measures_are_what_loops_count(case):
    numbers = measures(*case)
    expected = looped(*case)
    assert list(numbers) == list(expected)
    for name, value in expected.items():
        assert numbers[name] == pytest.approx(value, rel=1e-12, nan_ok=True), name


def test_measures_keep_leading_axes():
    confusion = np.arange(1, 25).reshape(2, 3, 2, 2)
    numbers = measures(confusion, [1])
    for index in np.ndindex(2, 3):
        for name, value in measures(confusion[index], [1]).items():
            assert numbers[name][index] == pytest.approx(float(value)), name


@given(st.integers(0, 2**32 - 1), st.sampled_from([[1], [3], [0, 2]]))
def test_a_moved_confusion_is_the_arg_max_of_float32_sums(seed, important):
    rng = np.random.default_rng(seed)
    # Quarters, so that ties are common and sums are exact.
    logits = rng.integers(-8, 8, (30, 4)).astype(np.float32) / 4
    labels = rng.integers(0, 4, 30)
    offset = float(rng.integers(-12, 12)) / 4
    expected = np.zeros((4, 4), int)
    for line, true in zip(logits, labels, strict=True):
        values = [z + offset * (k in important) for k, z in enumerate(line)]
        expected[true, values.index(max(values))] += 1
    # As small integers, whose products wrap around, also among many classes.
    wide = np.full((30, 43), -100, np.float32)
    wide[:, :4] = logits
    for few, many in ((labels, logits), (labels.astype(np.uint8), wide)):
        found = moved_confusion(many, few, important, offset)
        np.testing.assert_array_equal(found[:4, :4], expected)
        assert found.sum() == 30


@given(counted(least=1))
def test_chance_is_fishers(case):
    """The share of all ways to deal the same alarms that find as many, or more."""
    confusion, important = case
    others = [k for k in range(len(confusion)) if k not in important]
    found = int(confusion[important][:, important].sum())
    false = int(confusion[others][:, important].sum())
    positives, total = int(confusion[important].sum()), int(confusion.sum())
    ways = sum(
        math.comb(positives, hits) * math.comb(total - positives, found + false - hits)
        for hits in range(found, min(positives, found + false) + 1)
    )
    expected = ways / math.comb(total, found + false)
    assert chance(confusion, important) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("predicted", [0, 1])
def test_predicting_one_class_only_is_no_better_than_chance(predicted):
    confusion = np.zeros((3, 3), int)
    confusion[:, predicted] = 20
    assert chance(confusion, [1]) == 1
