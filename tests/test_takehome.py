"""What is asked, what is picked on validation images, and how it is told."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from camri_jax import guarantee
from camri_jax._files import UsageError
from camri_jax.sweeps.plan import Trial
from camri_jax.takehome import picking, telling
from camri_jax.takehome.picking import Goal, Picked, pick, ranked, shortened
from camri_jax.takehome.tuning import rungs

UNHURRIED = settings(deadline=None, max_examples=50)


def drawn(seed, num_images=40, num_classes=4, separation=1.5):
    """Logits of noise in which the true class is ahead, and labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num_images) % num_classes
    logits = rng.normal(size=(num_images, num_classes))
    logits[np.arange(num_images), labels] += separation
    return logits.astype(np.float32), labels


def found(logits, labels, important, offset, k):
    """Share of class k's images that are predicted as k, by a plain loop."""
    moved = logits.copy()
    moved[:, list(important)] += np.asarray(offset, np.float32)
    hits = [int(z.argmax()) == k for z, y in zip(moved, labels, strict=True) if y == k]
    return sum(hits) / len(hits)


@UNHURRIED
@given(st.integers(0, 10**6), st.sampled_from([0.3, 0.5, 0.9, 0.99]))
def test_no_offset_from_zero_on_reaches_the_recall_at_fewer_false_alarms(seed, recall):
    logits, labels = drawn(seed)
    picked = pick(Goal((2,), (recall,)), logits, labels)
    assert picked.offset >= 0
    assert found(logits, labels, (2,), picked.offset, 2) >= recall
    for offset in np.arange(0, 8, 0.25):
        if found(logits, labels, (2,), offset, 2) >= recall:
            alarms, _ = picking.costs(logits, labels, (2,), float(offset))
            assert alarms >= picked.false_alarms


@UNHURRIED
@given(st.integers(0, 10**6))
def test_every_class_of_several_reaches_its_own_recall(seed):
    logits, labels = drawn(seed, separation=2.5)
    goal = Goal((0, 3), (0.8, 0.6))
    picked = pick(goal, logits, labels)
    assert len(picked.offset) == 2
    assume(picked.false_alarms < math.inf)
    assert max(picked.offset) >= 0
    for k, recall in zip((0, 3), goal.recalls, strict=True):
        assert found(logits, labels, (0, 3), picked.offset, k) >= recall
    # The vector of no difference is among those that were tried.
    plain = picking._along(goal, logits, labels, np.zeros(2))
    assert picked.false_alarms <= plain.false_alarms


def test_what_no_offset_reaches_ranks_last():
    logits = np.float32([[3, 0, 1], [3, 1, 0], [0, 3, 1], [0, 0, 3]])
    labels = np.array([1, 0, 1, 2])
    # With 0 and 1 together, an offset never finds the first image.
    assert pick(Goal((0, 1), (0.9,)), logits, labels).false_alarms == math.inf
    assert pick(Goal((0, 1), (0.6,)), logits, labels).false_alarms < math.inf


@UNHURRIED
@given(st.floats(-5, 5, width=32), st.floats(-5, 5, width=32))
def test_an_offset_is_lifted_to_zero_and_never_lowered(a, b):
    assert picking.not_below_zero(a) == max(a, 0)
    lifted = np.array(picking.not_below_zero((a, b)))
    assert lifted.max() >= 0
    assert (lifted >= np.float32([a, b])).all()
    assert np.ptp(lifted - np.float32([a, b])) < 1e-5
    if max(a, b) >= 0:
        assert lifted.tolist() == [a, b]


def test_the_promise_holds_whatever_is_chosen_among_what_is_certified():
    """The cheapest of three at its certified offset; true recall by many images."""
    goal, broken, num = Goal((1,), (0.9,), confidence=0.8), 0, 400
    truth = [drawn(10**6 + s, 8000, 2, s / 2) for s in (2, 3, 4)]
    scores = [guarantee.found_scores(*each, 1) for each in truth]
    for seed in range(num):
        offers = []
        for s in (2, 3, 4):
            seeds = [seed * 100 + 10 * s + i for i in range(2)]
            certificate = goal.certify(*drawn(seeds[0], 120, 2, s / 2), (0.0,), None, 3)
            cost = picking.costs(
                *drawn(seeds[1], 40, 2, s / 2), (1,), certificate.offset
            )
            offers.append((cost, s, certificate.offset))
        _, s, offset = min(offers)
        broken += (scores[s - 2] <= offset).mean() < 0.9
    assert broken / num <= 0.2 + 3 * math.sqrt(0.2 * 0.8 / num)


@UNHURRIED
@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 6))
def test_rungs_narrow_to_the_final_that_was_asked(num_settings, seeds, finalists):
    found = rungs(num_settings, seeds, finalists)
    assert found[0].num_settings == num_settings
    assert found[-1] == (min(num_settings, finalists), seeds)
    for before, after in itertools.pairwise(found):
        assert before.num_settings > after.num_settings
        assert before.num_seeds <= after.num_seeds


COST = st.tuples(st.sampled_from([0.0, 1.0, math.inf]), st.sampled_from([0.5, 0.9]))


@UNHURRIED
@given(st.lists(st.one_of(st.none(), COST), min_size=6, max_size=6), st.integers(1, 3))
def test_cross_entropy_stays_unless_all_of_it_diverged(costs, number):
    names = ["cross_entropy", "camri", "arcface"]
    trials = [
        Trial(names[i // 2], {"scale": 1.0} if i > 1 else {}, (), i % 2, str(i))
        for i in range(6)
    ]
    known = {
        str(i): None if cost is None else Picked((0.0,), 0.0, *cost)
        for i, cost in enumerate(costs)
    }
    settings = ranked(trials, known)
    kept = shortened(settings, number)
    usable = {t.method for t in trials if known[t.trial_id] is not None}
    assert len(kept) == min(number, len(usable))
    assert {each.method for each in kept} <= usable
    assert ("cross_entropy" in {k.method for k in kept}) == ("cross_entropy" in usable)
    ranks = [setting.rank for setting in settings]
    assert ranks == sorted(ranks)
    for setting in kept:
        trial, cost = setting.best()
        assert known[trial.trial_id] == cost
        assert cost.false_alarms == min(c.false_alarms for c in setting.costs)


def test_of_equals_the_simplest_comes_first():
    same = Picked((0.0,), 0.0, 1.0, 0.9)
    trials = [
        Trial("camri", {"margin": 0.1, "scale": 16.0}, (1,), 0, "a"),
        Trial("l2_softmax", {"scale": 16.0}, (), 0, "b"),
        Trial("cross_entropy", {}, (), 0, "c"),
    ]
    order = [s.method for s in ranked(trials, dict.fromkeys("abc", same))]
    assert order == ["cross_entropy", "l2_softmax", "camri"]


@pytest.mark.parametrize(
    ("recalls", "confidence", "message"),
    [
        ((0.9, 0.8), 0.95, "one for each of 1"),
        ((1.0,), 0.95, "recall must be above"),
        ((90.0,), 0.95, "recall must be above"),
        ((0.9,), 1.0, "confidence must be above"),
    ],
)
def test_goals_that_no_images_reach_are_refused(recalls, confidence, message):
    with pytest.raises(UsageError, match=message):
        Goal((1,), recalls, confidence)


@UNHURRIED
@given(st.integers(1, 400), st.sampled_from([0.9, 0.99]), st.integers(1, 9))
def test_what_is_said_to_be_certifiable_is(num, recall, candidates):
    certificate = guarantee.certify_scores(
        np.zeros(num), 1, recall=recall, candidates=candidates
    )
    if certificate.certified:
        text = telling.promised(certificate, ["go", "stop"])
        assert f"at least {100 * recall:.0f} %" in text
        assert f"{num} calibration image" in text
        return
    (text,) = telling.limits(certificate, ["go", "stop"])
    more = int(text.split(", ")[-1].split()[0].replace(",", ""))
    again = guarantee.certify_scores(
        np.zeros(num + more), 1, recall=recall, candidates=candidates
    )
    assert again.certified
    limit = float(text.split("at most ")[1].split(" %")[0]) / 100
    if limit:
        offer = guarantee.certify_scores(
            np.zeros(num), 1, recall=limit, candidates=candidates
        )
        assert offer.certified
