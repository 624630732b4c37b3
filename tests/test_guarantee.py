"""The promises hold in simulation, the rule is float32's arg max, prices are counts."""

import itertools
import json
import math
import re
from fractions import Fraction

import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from camri_jax import guarantee
from camri_jax._files import UsageError

SIMULATIONS = 2000
UNHURRIED = hypothesis.settings(deadline=None)
FEW = hypothesis.settings(deadline=None, max_examples=25)


def at_most(share, delta):
    return share <= delta + 3 * math.sqrt(delta * (1 - delta) / SIMULATIONS)


def tails(n, recall):
    """P(Bin(n, recall) >= i) for i = 0 .. n + 1, exactly."""
    r, sums = Fraction(recall), [Fraction(0)]
    for i in range(n, -1, -1):
        sums.append(sums[-1] + math.comb(n, i) * r**i * (1 - r) ** (n - i))
    return sums[::-1]


# Sample sizes and ranks.


@pytest.mark.parametrize(
    ("recall", "candidates", "needed"),
    [
        (0.90, 1, 29),
        (0.95, 1, 59),
        (0.98, 1, 149),
        (0.99, 1, 299),
        (0.999, 1, 2995),
        (0.95, 8, 99),
        (0.95, 20, 117),
        (0.95, 50, 135),
        (0.95, 300, 170),
    ],
)
def test_images_needed(recall, candidates, needed):
    assert guarantee.images_needed(recall, candidates=candidates) == needed


@pytest.mark.parametrize(
    ("n", "misses"),
    [(58, -1), (59, 0), (120, 1), (300, 8), (500, 16), (1000, 38), (2000, 83)],
)
def test_misses_allowed(n, misses):
    values = np.arange(n)[::-1]
    certificate = guarantee.certify_scores(values, 6, recall=0.95)
    assert certificate.misses_allowed == misses
    assert certificate.offset == (None if misses < 0 else n - 1 - misses)


@pytest.mark.parametrize(("n", "largest"), [(90, 0.9672), (14, 0.8073), (0, 0.0)])
def test_largest_certifiable(n, largest):
    assert guarantee.largest_certifiable(n) == pytest.approx(largest, abs=1e-4)


@hypothesis.given(st.integers(1, 3000), st.floats(0.5, 0.999), st.integers(1, 300))
@UNHURRIED
def test_largest_certifiable_is_the_inverse_of_images_needed(n, confidence, candidates):
    common = {"confidence": confidence, "candidates": candidates}
    largest = guarantee.largest_certifiable(n, **common)
    assert guarantee.images_needed(largest * (1 - 1e-9), **common) <= n
    assert guarantee.images_needed(largest + (1 - largest) * 1e-6, **common) > n
    assert largest < guarantee.largest_certifiable(n + 1, **common)
    certified = guarantee.certify_scores(np.zeros(n), 0, recall=largest, **common)
    assert certified.offset == 0
    assert certified.largest_certifiable == largest


@hypothesis.given(st.floats(0, 1), st.integers(0, 10**6), st.integers(1, 6))
def test_what_is_told_is_not_above_what_is(recall, count, digits):
    told = guarantee.rounded_down(recall, digits)
    assert told <= recall < told + 10.0**-digits + 1e-15
    written = float(f"{count % 10**digits / 10**digits:.{digits}f}")
    assert guarantee.rounded_down(written, digits) == written


@pytest.mark.parametrize("score", [0.7, -0.7, 16777217, 1e39, -1e39, 5e-324])
def test_tied_scores_of_any_size_are_found_at_their_offset(score):
    scores = [score] * 60
    for groups in (None, np.arange(60), np.arange(60) % 59):
        certificate = guarantee.certify_scores(scores, 0, recall=0.9, groups=groups)
        assert certificate.offset == score


@hypothesis.given(
    st.integers(1, 40), st.floats(0.05, 0.98), st.floats(0.5, 0.99), st.integers(1, 5)
)
@UNHURRIED
def test_the_rank_is_the_least_that_the_binomial_allows(n, recall, confidence, models):
    values = np.arange(1.0, n + 1)
    certificate = guarantee.certify_scores(
        values, 0, recall=recall, confidence=confidence, candidates=models
    )
    delta = Fraction((1 - confidence) / models)
    exact = tails(n, recall)[: n + 1]
    hypothesis.assume(all(abs(p / delta - 1) > 1e-9 for p in exact))
    allowed = [j for j, p in enumerate(exact) if p <= delta]
    assert certificate.offset == (allowed[0] if allowed else None)
    needed = guarantee.images_needed(recall, confidence=confidence, candidates=models)
    assert certificate.certified == (n >= needed)


# The rule, in float32.


def decide(logits, important, offset):
    """The arg max of float32 sums, as a plain loop; the first of ties."""
    predictions = []
    for row in np.asarray(logits, np.float32):
        best, best_value = None, None
        for k, value in enumerate(row):
            moved = np.float32(value + np.float32(offset)) if k in important else value
            if best is None or moved > best_value:
                best, best_value = k, moved
        predictions.append(best)
    return predictions


ROWS = hypothesis.extra.numpy.arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.just(5)),
    elements=st.one_of(
        st.sampled_from([0.0, 1.0, -1.0, 0.1, 1e-30, 1000.0, 1000.0001, 16777216.0]),
        st.floats(-100, 100, width=32),
    ),
)
CHOICES = st.lists(st.integers(0, 4), min_size=1, max_size=3, unique=True)


@hypothesis.given(ROWS, CHOICES)
@hypothesis.example(np.float32([[np.finfo(np.float32).tiny, 0.0]]), [0])
@UNHURRIED
def test_scores_are_where_the_decision_turns(logits, important):
    at = guarantee.scores(logits, important)
    tiny = np.finfo(np.float32).tiny
    for row, score in zip(logits, at, strict=True):
        below = np.nextafter(score, np.float32(-np.inf))
        assert score == 0 or abs(score) >= tiny
        # What lies between -tiny, 0 and tiny is no normal number.
        below = {0.0: -tiny, float(tiny): np.float32(0.0)}.get(float(score), below)
        for offset, found in [(score, True), (below, False), (score + 1, True)]:
            assert (decide([row], important, offset)[0] in important) == found
            (prediction,) = guarantee.predict([row], important, float(offset))
            assert prediction == decide([row], important, offset)[0]


@pytest.mark.parametrize("important", [(3,), (4, 0)])
def test_predictions_are_those_of_jax(important):
    values = [0.0, 1.0, -1.0, 0.1, 1e-30, 1000.0, 1000.0001, 16777216.0]
    logits = np.random.default_rng(0).choice(values, (3000, 5)).astype(np.float32)
    at = guarantee.scores(logits, important)
    for offset in np.unique(at)[::5]:
        moved = jnp.asarray(logits).at[:, jnp.asarray(important)].add(offset)
        expected = np.asarray(jnp.argmax(moved, axis=1))
        predictions = guarantee.predict(logits, important, float(offset))
        np.testing.assert_array_equal(predictions, expected)
        np.testing.assert_array_equal(np.isin(expected, important), at <= offset)


@hypothesis.given(ROWS, CHOICES, st.data())
@UNHURRIED
def test_from_its_score_on_an_image_is_found_as_its_own_class(logits, important, data):
    labels = np.array([data.draw(st.sampled_from(important)) for _ in logits])
    at = guarantee.found_scores(logits, labels, important)
    offset = data.draw(st.floats(-1024, 1024, width=32))
    for score in [*at[np.isfinite(at)], np.float32(offset)]:
        found = guarantee.predict(logits, important, float(score)) == labels
        assert found[at <= score].all()
        if len(important) == 1:
            np.testing.assert_array_equal(found, at <= score)


def test_what_large_offsets_round_away_is_not_promised():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (3000, 3))
    logits[:, 1] = logits[:, 0] + 10.0 ** rng.uniform(-7, -2, 3000)
    at = guarantee.found_scores(logits, np.ones(3000, int), (0, 1))
    assert 0.2 < np.isfinite(at).mean() < 0.4
    for offset in (-1024.0, -1.3, 9.7, 500.3, 1024.0):
        found = guarantee.predict(logits, (0, 1), offset) == 1
        assert found[at <= offset].all()
    assert not found[guarantee.scores(logits, (0, 1)) <= offset].all()


def test_hardly_an_image_is_lost_to_rounding():
    logits = np.random.default_rng(0).normal(0, 5, (20000, 4))
    labels = np.random.default_rng(1).integers(0, 2, 20000)
    at = guarantee.found_scores(logits, labels, (0, 1))
    found = guarantee.predict(logits, (0, 1), 100.0) == labels
    assert np.mean(found & np.isinf(at)) < 2e-4


# The promises. Each simulation's recall on new images is known exactly.


def simulated_scores(rng, shape, step=None):
    """Scores of images of class 1 whose logit is normal, and that logit's steps."""
    logit = rng.normal(size=shape)
    if step is not None:
        logit = step * np.floor(logit / step)
    pairs = np.stack([np.zeros(logit.size), logit.ravel()], axis=1)
    return guarantee.found_scores(pairs, np.ones(logit.size, int), 1).reshape(shape)


def true_recall(offset, step=None):
    """Share of the normal logits that win with the offset."""
    lowest = -np.asarray(offset, float)
    if step is not None:
        # A score lies just above minus its step.
        lowest = step * np.ceil(np.round(lowest / step, 4))
    return norm.sf(lowest)


@pytest.mark.parametrize("step", [None, 0.5])
@pytest.mark.parametrize(("n", "recall", "delta"), [(60, 0.9, 0.1), (300, 0.95, 0.05)])
def test_the_promise_is_kept(n, recall, delta, step):
    rng = np.random.default_rng(n)
    broken = []
    for values in simulated_scores(rng, (SIMULATIONS, n), step):
        certificate = guarantee.certify_scores(
            values, 1, recall=recall, confidence=1 - delta
        )
        broken.append(true_recall(certificate.offset, step) < recall)
    assert at_most(np.mean(broken), delta)
    if step is None:  # Then the level is known: the rank promises no more than it must.
        level = float(tails(n, recall)[n - certificate.misses_allowed])
        assert abs(np.mean(broken) - level) < 4 * math.sqrt(delta / SIMULATIONS)


def test_the_conformal_quantile_breaks_the_promise_half_the_time():
    n, recall = 999, 0.95
    values = np.sort(simulated_scores(np.random.default_rng(0), (SIMULATIONS, n)))
    offset = values[:, math.ceil((n + 1) * recall) - 1]
    assert 0.4 < np.mean(true_recall(offset) < recall) < 0.55


@pytest.mark.parametrize("counted", [True, False])
def test_the_cheapest_of_counted_candidates_keeps_the_promise(counted):
    models, n, recall, delta = 5, 60, 0.9, 0.1
    values = simulated_scores(np.random.default_rng(2), (SIMULATIONS, models, n))
    cheapest = [
        min(
            guarantee.certify_scores(
                scores,
                1,
                recall=recall,
                confidence=1 - delta,
                candidates=models if counted else 1,
            ).offset
            for scores in simulation
        )
        for simulation in values
    ]
    broken = np.mean(true_recall(cheapest) < recall)
    assert at_most(broken, delta) if counted else broken > 2 * delta


GROUPS = np.repeat(np.arange(40), np.arange(40) % 7 + 1)


@pytest.mark.parametrize("step", [None, 0.5])
@pytest.mark.parametrize("alike", [0.0, 0.8, 1.0])
def test_the_promise_is_kept_for_groups(alike, step):
    recall, delta = 0.9, 0.1
    rng = np.random.default_rng(int(10 * alike))
    shape = (SIMULATIONS, len(GROUPS))
    of_group = rng.normal(size=(SIMULATIONS, 40))[:, GROUPS]
    logit = math.sqrt(alike) * of_group + math.sqrt(1 - alike) * rng.normal(size=shape)
    values = -logit if step is None else -step * np.floor(logit / step)
    broken, ignored = [], []
    for scores in values:
        common = {"recall": recall, "confidence": 1 - delta}
        offset = guarantee.certify_scores(scores, 1, groups=GROUPS, **common).offset
        broken.append(true_recall(offset, step) < recall)
        if alike == 1 and step is None:
            offset = guarantee.certify_scores(scores, 1, **common).offset
            ignored.append(true_recall(offset, step) < recall)
    assert at_most(np.mean(broken), delta)
    if ignored:
        assert np.mean(ignored) > 2 * delta


def test_the_bet_on_groups_wastes_little():
    # Whole groups are missed together, with a chance just above what is allowed.
    recall, delta, num_groups = 0.9, 0.1, 100
    rng = np.random.default_rng(0)
    missed = rng.random((SIMULATIONS, num_groups)) > recall - 1e-6
    values = np.repeat(missed, 2, axis=1).astype(float)
    groups = np.repeat(np.arange(num_groups), 2)
    broken = np.mean(
        [
            guarantee.certify_scores(
                scores, 1, recall=recall, confidence=1 - delta, groups=groups
            ).offset
            == 0
            for scores in values
        ]
    )
    assert delta / 4 < broken
    assert at_most(broken, delta)


@pytest.mark.parametrize("seed", range(4))
def test_the_bet_is_the_mean_over_draws_of_one_image_a_group(seed):
    recall, delta = 0.5, 0.1
    values = np.random.default_rng(seed).normal(size=(7, 2))
    # The alternative whose whole groups may be missed most often: kl(q, r) n = -ln d.
    low, high = recall, 1.0
    for _ in range(60):
        q = (low + high) / 2
        kl = q * math.log(q / recall) + (1 - q) * math.log((1 - q) / (1 - recall))
        low, high = (q, high) if 7 * kl < -math.log(delta) else (low, q)
    wins = []
    for offset in sorted(values.ravel()):
        ratios = []
        for draw in itertools.product(range(2), repeat=7):
            found = [row[i] <= offset for row, i in zip(values, draw, strict=True)]
            ratios.append(
                math.prod(q / recall if f else (1 - q) / (1 - recall) for f in found)
            )
        if np.mean(ratios) >= 1 / delta:
            wins.append(offset)
    certificate = guarantee.certify_scores(
        values.ravel(),
        1,
        recall=recall,
        confidence=1 - delta,
        groups=np.repeat(np.arange(7), 2),
    )
    assert certificate.offset == np.float32(wins[0])
    assert certificate.misses_allowed == math.floor(7 * (1 - q))


def test_a_groups_images_beyond_the_first_are_worth_something():
    """On the same scores the bet is cheaper than the worst image of each group."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(200, 30)) * 0.5 + rng.normal(size=(200, 1))
    groups = np.repeat(np.arange(200), 30)
    bet = guarantee.certify_scores(values.ravel(), 1, recall=0.95, groups=groups)
    worst = guarantee.certify_scores(values.max(axis=1), 1, recall=0.95)
    assert bet.offset < worst.offset - 0.3


def test_many_frames_of_few_tracks_promise_little():
    tracks = np.arange(90) % 14
    certificate = guarantee.certify_scores(
        np.arange(90.0), 6, recall=0.95, groups=tracks
    )
    assert (certificate.num_images, certificate.num_groups) == (90, 14)
    assert certificate.largest_certifiable == guarantee.largest_certifiable(14)
    assert certificate.why_not == (
        "Class 6: 14 groups (90 images) certify a recall of at most 0.807 at "
        "confidence 0.95; 0.95 takes 59 groups, 45 more."
    )
    assert guarantee.certify_scores(
        np.arange(90.0), 6, recall=0.807, groups=tracks
    ).certified


EASY = {k: (10 * np.eye(4)[k], 1.0) for k in range(4)}
CASES = {
    # An image of class 1 that is near class 2 (3) is lost once class 2 (3) is ahead.
    # Where none was seen, that vector is the only one that seems to do.
    "which vector": (
        {
            1: [
                (np.array([0, 10, 9.5, 0]), 0.16),
                (np.array([0, 10, 0, 9.5]), 0.16),
                (10 * np.eye(4)[1], 0.68),
            ],
            2: [EASY[2]],
            3: [EASY[3]],
        },
        {1: 0.85, 2: 0.5, 3: 0.5},
        [[0, 2, 0], [0, 0, 2]],
    ),
    # The promise hangs on the class that needs more.
    "which class": (
        {
            1: [(np.array([5.0, 0, -5, -5]), 0.16), (EASY[1][0], 0.84)],
            2: [(np.array([2.0, -5, 0, -5]), 0.31), (EASY[2][0], 0.69)],
        },
        {2: 0.7, 1: 0.85},
        [[0, 0]],
    ),
}


@pytest.mark.parametrize(
    ("case", "counted"),
    [("which vector", True), ("which vector", False), ("which class", True)],
)
def test_the_promises_are_kept_for_several_classes_at_once(case, counted):
    """Kinds of images are drawn; equal draws are certified once."""
    kinds, targets, grid = CASES[case]
    delta, vectors = 0.1, len(grid) if counted else 1
    labels = np.concatenate([[k] * len(kinds[k]) for k in kinds])
    logits = np.array([z for k in kinds for z, _ in kinds[k]])
    shares = np.array([share for k in kinds for _, share in kinds[k]])
    rng = np.random.default_rng(0)
    draws = [
        rng.multinomial(
            guarantee.images_needed(
                targets[k], confidence=1 - delta, candidates=vectors
            ),
            shares[labels == k],
            size=SIMULATIONS,
        )
        for k in kinds
    ]
    broken = 0
    for draw, times in zip(
        *np.unique(np.concatenate(draws, axis=1), axis=0, return_counts=True),
        strict=True,
    ):
        certificates = guarantee.certify_recalls(
            np.repeat(logits, draw, axis=0),
            np.repeat(labels, draw),
            targets,
            confidence=1 - delta * len(grid) / vectors,
            grid=grid,
        )
        if certificates.certified:
            found = labels == guarantee.predict(
                logits, certificates.important, certificates.offset
            )
            recalls = {k: (shares * found)[labels == k].sum() for k in kinds}
            broken += times * any(recalls[k] < r for k, r in targets.items())
    broken /= SIMULATIONS
    assert delta / 2 < broken
    assert at_most(broken, delta) == counted


# What a certificate does not depend on, and what it does.


def images(seed, n=400, num_classes=4):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, n)
    logits = rng.normal(0, 1, (n, num_classes)) + 3 * np.eye(num_classes)[labels]
    return logits.astype(np.float32), labels


@pytest.mark.parametrize("groups", [None, np.arange(400) % 60])
@pytest.mark.parametrize("important", [2, (1, 3)])
def test_asking_more_costs_more(important, groups):
    logits, labels = images(0)

    def offset(recall=0.8, confidence=0.9, candidates=1):
        return guarantee.certify_recall(
            logits,
            labels,
            important,
            recall=recall,
            confidence=confidence,
            groups=groups,
            candidates=candidates,
        ).offset

    for asked in [
        [offset(recall=r) for r in np.linspace(0.5, 0.85, 30)],
        [offset(confidence=c) for c in np.linspace(0.3, 0.99, 30)],
        [offset(candidates=m) for m in range(1, 9)],
    ]:
        assert asked == sorted(asked)
        assert asked[0] < asked[-1]


@hypothesis.given(st.integers(0, 50), st.floats(-1000, 1000))
@FEW
def test_a_shift_of_all_logits_changes_nothing(seed, shift):
    logits, labels = images(seed)
    order = np.random.default_rng(seed).permutation(len(labels))
    certificates = [
        guarantee.certify_recall(z, y, 2, recall=0.9)
        for z, y in [
            (logits, labels),
            (logits[order] + np.float32(shift), labels[order]),
        ]
    ]
    rounding = 8 * np.spacing(np.float32(abs(shift) + 10))
    assert abs(certificates[0].offset - certificates[1].offset) <= rounding


def test_groups_of_one_image_are_images():
    logits, labels = images(0)
    one, other = (
        guarantee.certify_recall(logits, labels, 2, recall=0.9, groups=groups)
        for groups in (None, np.arange(400)[::-1])
    )
    assert other.num_groups == other.num_images == one.num_images
    assert (one.offset, one.misses_allowed) == (other.offset, other.misses_allowed)


def test_one_target_is_one_class():
    logits, labels = images(1)
    several = guarantee.certify_recalls(logits, labels, {2: 0.9}, candidates=3)
    one = guarantee.certify_recall(logits, labels, 2, recall=0.9, candidates=3)
    assert several.certificates == (one,)
    assert several.offset == (one.offset,)


def test_the_most_accurate_of_the_certified_vectors_is_taken():
    logits, labels = images(2, n=1200)
    targets = {1: 0.9, 3: 0.6}
    several = guarantee.certify_recalls(logits, labels, targets, grid=[[0, 0], [2, 0]])
    alone = [
        guarantee.certify_recalls(logits, labels, targets, grid=[d], candidates=2)
        for d in ([0, 0], [2, 0])
    ]
    assert several.accuracy == max(c.accuracy for c in alone)
    predictions = guarantee.predict(logits, several.important, several.offset)
    assert several.accuracy == np.mean(predictions == labels)
    for part in several.certificates:
        found = np.mean(predictions[labels == part.important[0]] == part.important[0])
        assert found >= part.recall
    default = guarantee.certify_recalls(logits, labels, targets)
    assert {c.candidates for c in default.certificates} == {9}


def test_classes_that_the_model_confuses_are_infeasible():
    logits, labels = images(3, n=2000)
    logits[:, 1] = logits[:, 3]
    several = guarantee.certify_recalls(logits, labels, {1: 0.9, 3: 0.9})
    assert not several.certified
    assert several.offset is None
    assert "can be certified, but not with the others" in several.why_not
    shared = guarantee.certify_recall(logits, labels, (1, 3), recall=0.6)
    assert "found at no offset" in shared.why_not
    # No other recall is offered: it would have been read off these very scores.
    assert re.findall(r"0\.\d+", shared.why_not) == ["0.6", "0.95"]


def test_what_so_many_images_are_said_to_certify_depends_on_no_score():
    logits, labels = images(4)
    for groups in (None, np.arange(400) // 2, np.maximum(np.arange(400), 10)):
        common = {"groups": groups, "confidence": 0.9}
        asked = guarantee.certify_recall(logits, labels, (0, 1), recall=0.999, **common)
        most = asked.largest_certifiable
        found = 9 * np.eye(4)[labels]
        for recall, certified in [(most, True), (most + 1e-4, False)]:
            again = guarantee.certify_recall(
                found, labels, (0, 1), recall=recall, **common
            )
            assert again.certified == certified
            assert again.largest_certifiable == most


def test_groups_that_are_nearly_all_images_allow_as_many_misses():
    random = np.random.default_rng(0)
    values = random.normal(size=500)
    copies = np.append(values, values[:40])
    groups = np.append(np.arange(500), np.arange(40))
    alone = guarantee.certify_scores(values, 1, recall=0.95)
    nearly = guarantee.certify_scores(copies, 1, recall=0.95, groups=groups)
    assert (nearly.offset, nearly.misses_allowed) == (alone.offset, 16)
    assert (nearly.num_images, nearly.num_groups) == (540, 500)
    # A group counts as found once its last image is.
    late = np.append(values, np.full(40, 9.0))
    certificate = guarantee.certify_scores(late, 1, recall=0.9, groups=groups)
    worst = np.append(np.full(40, 9.0), values[40:])
    assert certificate.offset == guarantee.certify_scores(worst, 1, recall=0.9).offset
    # From a tenth of larger groups on, they are bet on.
    many = guarantee.certify_scores(
        np.append(values, values[:60]),
        1,
        recall=0.95,
        groups=np.append(np.arange(500), np.arange(60)),
    )
    assert many.misses_allowed < 16


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99, 0.999])
def test_what_groups_are_said_to_certify_they_do(confidence):
    for n in range(1, 61):
        groups = np.arange(2 * n) // 2
        most = guarantee.certify_scores(
            np.zeros(2 * n), 0, recall=0.999, confidence=confidence, groups=groups
        ).largest_certifiable
        assert guarantee.certify_scores(
            np.zeros(2 * n), 0, recall=most, confidence=confidence, groups=groups
        ).certified


@pytest.mark.parametrize("sizes", [[1, 1, 4], [3, 7, 2, 6], [20, 1, 13]])
def test_no_share_is_below_0(sizes):
    # Groups that are too few bound nothing, and nothing is not a little less.
    groups = np.repeat(np.arange(len(sizes)), sizes)
    for labels in (groups % 2, (np.arange(len(groups)) % 3 > 0).astype(int)):
        for predictions in (labels, 1 - labels, 0 * labels):
            logits = 2.0 * np.eye(2)[predictions]
            found = guarantee.price(logits, labels, 1, 0.0, groups=groups)
            for name in ("recall", "false_alarms", "accuracy", "other_recall"):
                low = getattr(found, name).low
                assert low >= 0
                assert not np.signbit(low)


@pytest.mark.parametrize("size", [1, 3, 10])
@pytest.mark.parametrize("found", ["all", "none", "some"])
def test_groups_that_agree_have_prices_too(found, size):
    labels = np.repeat([1, 0, 1, 0], size)
    predictions = {"all": labels, "none": 1 - labels, "some": labels * 0}[found]
    for groups in (np.arange(4 * size) // size, np.zeros(4 * size, int)):
        cost = guarantee.compare(predictions, labels, labels, 1, groups=groups)
        for name in ("recall", "false_alarms", "accuracy", "other_recall"):
            measure = getattr(cost, name)
            assert measure.low - 1e-9 <= measure.value <= measure.high + 1e-9
        assert cost.recall.high - cost.recall.low > 0.5


def test_precisions_interval_covers_where_being_right_changes_how_many_are_said():
    rng, missed = np.random.default_rng(0), 0
    for _ in range(300):
        right = np.repeat(rng.random(10) < 0.9, 11)
        labels = np.tile([1] + [0] * 10, 10)
        predictions = np.where(right, labels, 1 - labels)
        precision = guarantee.compare(
            predictions, labels * 0, labels, 1, groups=np.arange(110) // 11
        ).precision
        missed += not precision.low <= 0.9 / (0.9 + 0.1 * 10) <= precision.high
    assert missed / 300 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)


def test_certificates_survive_json():
    logits, labels = images(5)
    one = guarantee.certify_recall(logits, labels, (0, 1), recall=0.7)
    several = guarantee.certify_recalls(logits, labels, {0: 0.7, 1: 0.6})
    for made in (one, several):
        read = type(made).from_dict(json.loads(json.dumps(made.to_dict())))
        assert read == made
    scores = guarantee.found_scores(logits, labels, one.important)
    assert guarantee.certify_scores(scores, one.important, recall=0.7) == one
    cost = guarantee.price(logits, labels, several.important, several.offset)
    json.dumps(cost.to_dict())


def test_a_certificate_says_what_it_rests_on():
    logits, labels = images(0)
    text = str(guarantee.certify_recall(logits, labels, 2, recall=0.9))
    assert "at least 0.9" in text
    assert guarantee.ASSUMPTION in text


# Prices.


def counted(logits, labels, important, offset, prior):
    """The values of a price, as plain loops over images."""
    predictions = decide(logits, important, offset)
    found = mine = alarms = said = 0
    right = {k: [] for k in range(len(logits[0])) if k not in important}
    for p, y in zip(predictions, labels, strict=True):
        said += p in important
        if y in important:
            mine += 1
            found += p == y
        else:
            alarms += p in important
            right[y].append(p == y)
    n = len(labels)
    others = n - mine
    prior = mine / n if prior is None else prior
    rate = (1 - prior) * alarms / others
    swapped = prior * (said - alarms - found) / mine
    all_right = sum(sum(r) for r in right.values())
    return {
        "recall": found / mine,
        "false_alarms": 1000 * rate,
        "precision": prior * found / mine / (prior * found / mine + rate + swapped),
        "accuracy": prior * found / mine + (1 - prior) * all_right / others,
        "other_recall": np.mean([np.mean(r) for r in right.values() if r]),
    }


@pytest.mark.parametrize("important", [(2,), (0, 3)])
@pytest.mark.parametrize("prior", [None, 0.01])
@pytest.mark.parametrize("offset", [-1.0, 1.5])
def test_prices_are_counts(important, prior, offset):
    logits, labels = images(6, n=150)
    cost = guarantee.price(logits, labels, important, offset, prior=prior)
    now = counted(logits, labels, important, offset, prior)
    before = counted(logits, labels, important, 0.0, prior)
    for name, value in now.items():
        measure = getattr(cost, name)
        assert measure.value == pytest.approx(value)
        assert measure.change == pytest.approx(value - before[name])
        assert measure.low <= measure.value <= measure.high
        assert measure.change_low <= measure.change <= measure.change_high
    assert (cost.num_images, cost.num_important) == (
        150,
        np.isin(labels, important).sum(),
    )
    assert cost.recall.count / cost.recall.total == pytest.approx(now["recall"])
    plain = guarantee.predict(logits, important, 0.0)
    moved = guarantee.predict(logits, important, offset)
    compared = guarantee.compare(moved, plain, labels, important, prior=prior)
    assert compared.accuracy == cost.accuracy
    assert compared.false_alarms.change == cost.false_alarms.change


def kinds_of_images(rng):
    """Kinds of images of three classes: logits, and each kind's share in its class."""
    labels = np.repeat(np.arange(3), 12)
    logits = rng.normal(0, 1.5, (36, 3)) + 4 * np.eye(3)[labels]
    return logits, labels, rng.dirichlet(np.ones(12), 3)


@pytest.mark.parametrize(
    ("prior", "copies"), [(None, 1), (0.05, 1), (None, 9), (0.05, 9)]
)
def test_prices_intervals_cover(prior, copies):
    """Also of frames, of which all of a group are alike."""
    rng = np.random.default_rng(0)
    logits, labels, shares = kinds_of_images(rng)
    share = (0.2, 0.3, 0.5) if prior is None else (0.5, 0.45, 0.05)
    important, offset, confidence = (2,), 1.5, 0.9
    weights = (np.array(share)[:, None] * shares).ravel()
    truth = []
    for c in (offset, 0.0):
        predictions = guarantee.predict(logits, important, c)
        said, right = predictions == 2, predictions == labels
        recall = np.array([shares[k] @ right[labels == k] for k in range(3)])
        truth.append(
            {
                "recall": recall[2],
                "false_alarms": 1000 * weights @ (said & (labels != 2)),
                "precision": weights @ (said & right) / (weights @ said),
                "accuracy": weights @ right,
                "other_recall": recall[:2].mean(),
            }
        )
    # At a prior, only the others come as where the model works.
    sizes = [(50, 45, 40)] * 400 if prior else rng.multinomial(150, share, size=400)
    missed = {name: np.zeros(2) for name in truth[0]}
    for size in sizes:
        kind = np.concatenate(
            [12 * k + rng.choice(12, size[k], p=shares[k]) for k in range(3)]
        )
        groups = None if copies == 1 else np.repeat(np.arange(len(kind)), copies)
        kind = np.repeat(kind, copies)
        cost = guarantee.price(
            logits[kind],
            labels[kind],
            2,
            offset,
            prior=prior,
            confidence=confidence,
            groups=groups,
        )
        for name in missed:
            measure = getattr(cost, name)
            change = truth[0][name] - truth[1][name]
            missed[name] += [
                not measure.low - 1e-9 <= truth[0][name] <= measure.high + 1e-9,
                not measure.change_low <= change <= measure.change_high,
            ]
    for name, counts in missed.items():
        assert (counts / 400 <= 0.1 + 3 * math.sqrt(0.09 / 400)).all(), name


def test_a_weighted_interval_holds_what_hoeffding_does_not_exclude():
    # 6 of 10 and 28 of 30 images of the others are right; each class counts half.
    labels = np.repeat([0, 1, 2], [10, 30, 5])
    predictions = labels.copy()
    predictions[[0, 1, 2, 3, 10, 11]] = 2
    measure = guarantee.compare(predictions, predictions, labels, 2).other_recall
    mean = (6 / 10 + 28 / 30) / 2
    assert measure.value == pytest.approx(mean)
    kept = []
    for p in np.linspace(0.001, 0.999, 999):
        # The images' weights are 1/20 and 1/60: as misses of size 1 and 1/3.
        x, mu = 20 * (1 - mean) / 40, 20 * (1 - p) / 40
        kl = x * math.log(x / mu) + (1 - x) * math.log((1 - x) / (1 - mu))
        if 40 * kl <= math.log(2 / 0.05):
            kept.append(p)
    assert measure.low == pytest.approx(min(kept), abs=0.001)
    assert measure.high == pytest.approx(max(kept), abs=0.001)


def test_nothing_predicted_has_no_precision():
    cost = guarantee.price([[1.0, 0.0], [1.0, 0.0]], [0, 1], 1, -1.0)
    assert cost.precision.value is None
    assert (cost.precision.low, cost.precision.high) == (0, 1)


# Checks.


@hypothesis.given(st.integers(1, 40), st.floats(0.1, 0.97), st.data())
@UNHURRIED
def test_a_check_is_the_binomial_test(total, recall, data):
    found = data.draw(st.integers(0, total))
    check = guarantee.check_recall(found, total, recall=recall, confidence=0.9)
    at_least = tails(total, recall)
    assert check.p_value == pytest.approx(float(1 - at_least[found + 1]), abs=1e-9)
    if abs(check.p_value - 0.1) > 1e-6:
        assert (check.verdict == "broken") == (check.p_value < 0.1)
    if check.verdict == "kept":
        assert at_least[found] <= Fraction(0.1 + 1e-6)


def broken_from(days, sequential, recall, confidence):
    """For each day, the most images found with which the check says "broken"."""
    most = []
    for day in days:
        low, high = -1, day
        while high - low > 1:
            middle = (low + high) // 2
            verdict = guarantee.check_recall(
                middle,
                day,
                recall=recall,
                confidence=confidence,
                sequential=sequential,
            ).verdict
            low, high = (middle, high) if verdict == "broken" else (low, middle)
        most.append(low)
    return np.array(most)


@pytest.mark.parametrize("sequential", [True, False])
def test_only_the_sequential_check_may_be_looked_at_every_day(sequential):
    recall, delta, days = 0.9, 0.1, np.arange(1, 401)
    most = broken_from(days, sequential, recall, 1 - delta)
    rng = np.random.default_rng(0)

    def ever(true):
        found = np.cumsum(rng.random((SIMULATIONS, len(days))) < true, axis=1)
        return np.mean((found <= most).any(axis=1))

    if sequential:
        assert at_most(ever(recall), delta)
        assert ever(recall - 0.1) > 0.9
    else:
        assert ever(recall) > 2 * delta


def test_the_confidence_sequence_is_the_mixed_bets():
    """Its bounds are where an average over many stakes, image by image, wins."""
    found = np.random.default_rng(0).random(120) < 0.8
    check = guarantee.check_recall(
        int(found.sum()), 120, recall=0.5, confidence=0.9, sequential=True
    )
    # Quantiles of the arcsine law, the Beta(1/2, 1/2).
    alternatives = np.sin(np.pi * (np.arange(4000) + 0.5) / 8000) ** 2
    for m in (check.low, check.high):
        capital = np.ones(4000)
        for hit in found:
            capital *= alternatives / m if hit else (1 - alternatives) / (1 - m)
        assert capital.mean() == pytest.approx(10, rel=1e-3)


# Bad input.

Z, Y = np.eye(3), np.arange(3)
NAN = np.array([[0.0, np.nan], [1.0, 0.0]])


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda g: g.scores(NAN, 0), "logits: .* 1 of 2 images have NaN"),
        (lambda g: g.scores(np.zeros((0, 3)), 0), "logits: .* at least one image"),
        (lambda g: g.scores(np.zeros((3, 1)), 0), "logits: .* two classes"),
        (lambda g: g.scores(np.zeros(3), 0), r"logits: .* shape \(3,\)"),
        (lambda g: g.scores(Z, 3), "important: .* 0 to 2; got 3"),
        (lambda g: g.scores(Z, (1, 1)), "important: .* different"),
        (lambda g: g.scores(Z, ()), "important: "),
        (lambda g: g.scores(Z, (0, 1, 2)), "important: at least one"),
        (lambda g: g.predict(Z, 1, np.nan), "offset: .* finite"),
        (lambda g: g.predict(Z, 1, 1e39), "offset: .* finite float32"),
        (lambda g: g.certify_recalls(Z, Y, {1: 0.9}, grid=[[1e39]]), "grid: .* finite"),
        (lambda g: g.price(Z, Y, 1, 0.0, groups=[1, 2]), r"groups must be .* \[3\]"),
        (lambda g: g.clopper_pearson(5, 3, 0.95), "found: .* total = 3; got 5"),
        (lambda g: g.clopper_pearson(8.5, 10, 0.95), "found must be a whole number"),
        (lambda g: g.clopper_pearson(8, 10, 95), "confidence must be .* got 95"),
        (lambda g: g.predict(Z, 1, [1.0, 2.0]), "offset: .* 1 important"),
        (lambda g: g.found_scores(Z, [0, 1, 3], 1), "labels: .* 0 to 2; got 0 to 3"),
        (lambda g: g.found_scores(Z, [0, 1], 1), "labels: .* each of 3 images"),
        (lambda g: g.found_scores(Z, [0.0, 1, 2], 1), "labels: .* integer"),
        (
            lambda g: g.certify_recall(Z, Y * 0, 1, recall=0.9),
            "labels: no image of .* 1",
        ),
        (lambda g: g.certify_recall(Z, Y, 1, recall=1.0), "recall must be .* got 1.0"),
        (lambda g: g.certify_recall(Z, Y, 1, recall=95), "recall must be .* got 95"),
        (lambda g: g.images_needed("0.9"), "recall must be .* got 0.9"),
        (lambda g: g.images_needed(None), "recall must be .* got None"),
        (
            lambda g: g.certify_recall(Z, Y, 1, recall=0.9, groups=[1, 2]),
            r"groups must be .* \[3\]",
        ),
        (lambda g: g.certify_scores([], 1, recall=0.9), "scores: .* at least one"),
        (lambda g: g.certify_scores([np.nan], 1, recall=0.9), "scores: .* 1 NaN or"),
        (lambda g: g.certify_recalls(Z, Y, {}), "targets: "),
        (lambda g: g.certify_recalls(Z, Y, {1: 0.0}), "recall must be .* got 0.0"),
        (lambda g: g.certify_recalls(Z, Y * 0, {0: 0.9, 1: 0.9}), "labels: .* class 1"),
        (lambda g: g.certify_recalls(Z, Y, {1: 0.9}, grid=[[0, 1]]), "grid: .* 1 num"),
        (lambda g: g.images_needed(0.9, confidence=95), "confidence must be .* got 95"),
        (
            lambda g: g.images_needed(0.9, candidates=0),
            "candidates must be at least 1, got 0",
        ),
        (lambda g: g.images_needed(0.9, candidates=1.5), "candidates must be a whole"),
        (lambda g: g.images_needed(0.9, candidates=True), "candidates must be a whole"),
        (lambda g: g.largest_certifiable(-1), "n must be at least 0, got -1"),
        (lambda g: g.price(Z, Y * 0, 1, 0.0), "labels: .* 0 important of 3"),
        (lambda g: g.price(Z, Y, 1, 0.0, prior=1.2), "prior must be .* got 1.2"),
        (lambda g: g.compare([1], [1, 1], [1, 0], 1), "predictions: "),
        (lambda g: g.check_recall(3, 2, recall=0.9), "found: .* total = 2; got 3"),
        (lambda g: g.check_recall(0, 0, recall=0.9), "total must be at least 1, got 0"),
    ],
)
def test_bad_input_is_one_sentence(call, said):
    with pytest.raises(UsageError, match=said) as error:
        call(guarantee)
    assert "\n" not in str(error.value)
