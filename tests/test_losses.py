"""Laws of the losses, each against the loops of `reference` or against another loss."""

import functools

import chex
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from loss_cases import (
    BATCH,
    BY_CLASS,
    BY_TWO_CLASSES,
    CLASSES,
    COSINE_LOSSES,
    LOGIT_LOSSES,
    LOSSES,
    NEUTRAL,
    jitted,
    scores_for,
    values_of,
)

from camri_jax import losses, penalties

examples = settings(max_examples=20, deadline=None)
labels_of_batch = hnp.arrays(np.int32, BATCH, elements=st.integers(0, CLASSES - 1))
cosines_of_batch = hnp.arrays(
    np.float32, (BATCH, CLASSES), elements=st.floats(-1, 1, width=32)
)
margins_of_classes = hnp.arrays(
    np.float32, CLASSES, elements=st.floats(0, 0.5, width=32)
)
scales = st.sampled_from([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 10.1])


def logits_of_batch(size):
    elements = st.floats(-size, size, width=32)
    return hnp.arrays(np.float32, (BATCH, CLASSES), elements=elements)


def by_loops(name, logits, cosines, labels, hyperparameters):
    name, *monotone = name.split("/")
    options = hyperparameters | ({"monotone": True} if monotone else {})
    loss = reference.angular_loss if name == "family" else getattr(reference, name)
    return loss(cosines if name in COSINE else logits, labels, **options)


# Multiplied angles are rounded before the exponential.
ROUNDED = {"family", "sphereface"}
COSINE = {name.split("/")[0] for name in COSINE_LOSSES}


# Values: against the loops.


@examples
@given(
    logits=logits_of_batch(40),
    cosines=cosines_of_batch,
    labels=labels_of_batch,
    scale=scales,
)
def test_losses_are_the_formulas(logits, cosines, labels, scale):
    scaled = {"scale": np.float32(scale)}
    hyperparameters = {
        name: chosen | (scaled if name in COSINE_LOSSES else {})
        for name, chosen in LOSSES.items()
    }
    got = values_of(logits, cosines, labels, hyperparameters)
    for name, chosen in hyperparameters.items():
        expected = by_loops(name, logits, cosines, labels, chosen)
        # Only these are differences, and so not right to the last digits.
        absolute = {"wasserstein_with_integer_labels": 1e-5}.get(name, 1e-37)
        relative = 2e-4 if name.split("/")[0] in ROUNDED else 2e-5
        np.testing.assert_allclose(
            got[name], expected, rtol=relative, atol=absolute, err_msg=name
        )


@examples
@given(
    cosines=cosines_of_batch,
    labels=labels_of_batch,
    margins=margins_of_classes,
    scale=scales,
    monotone=st.booleans(),
)
def test_angular_margin_logits_are_the_formula(
    cosines, labels, margins, scale, monotone
):
    options = {"scale": np.float32(scale), "monotone": monotone, "margins": margins}
    by_class = {"multipliers": 1 + 3 * margins, "cosine_margins": margins - 0.2}
    for chosen in (options, options | by_class):
        np.testing.assert_allclose(
            jitted("angular_margin_logits")(cosines, labels, **chosen),
            reference.angular_margin_logits(cosines, labels, **chosen),
            rtol=1e-5,
            atol=1e-6 * scale,
        )


@pytest.mark.parametrize("margin", [0.0, 0.2, 0.4])
def test_angular_losses_keep_their_digits_at_the_ends(margin):
    margins = np.full(CLASSES, margin, np.float32)
    cosines = np.full((60, CLASSES), -0.6, np.float32)
    gaps = 2.0 ** -np.arange(3, 23, dtype=np.float32)
    cosines[:20, 2], cosines[20:40, 2] = 1 - gaps, gaps - 1
    cosines[40:, 2] = np.linspace(0.8, 1, 20)
    labels = np.full(60, 2)
    for scale in (16.0, 64.0):
        expected = reference.camri(cosines, labels, margins=margins, scale=scale)
        got = jitted("camri")(cosines, labels, margins=margins, scale=scale)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-37)
        assert expected.min() < np.exp(-0.9 * scale)


@examples
@given(logits=logits_of_batch(4), labels=labels_of_batch)
def test_a_number_added_to_all_logits_does_not_matter(logits, labels):
    logits = np.round(logits * 512) / 512  # steps that float32 also has at 8192
    cosines = np.zeros_like(logits)
    plain = values_of(logits, cosines, labels, LOSSES)
    shifted = values_of(logits + np.float32(8192), cosines, labels, LOSSES)
    for name in LOGIT_LOSSES:
        # The shift by the priors is rounded at 8192.
        loose = (
            2e-3
            if name in {"logit_adjusted_cross_entropy", "balanced_softmax"}
            else 1e-6
        )
        np.testing.assert_allclose(
            shifted[name], plain[name], rtol=loose, atol=loose / 10, err_msg=name
        )


@pytest.mark.parametrize("share", [1e-30, 1e-12, 0.5, 1 - 1e-6])
def test_real_world_weights_at_the_ends(share):
    # h_0 is the share and h_1 the rest, or the other way round: 1 - 1e-12 and 1e-30.
    logit = np.float32(np.log(share) - np.log1p(-share))
    logits = np.array([[logit, 0], [-logit, 0], [logit, 0], [-logit, 0]], np.float32)
    labels = np.array([0, 0, 1, 1])
    for misses, alarms in ((1.0, 0.0), (0.0, 1.0)):
        weights = {
            "false_negative_weights": np.full(2, misses, np.float32),
            "false_positive_weights": np.full((2, 2), alarms, np.float32),
        }
        np.testing.assert_allclose(
            jitted("real_world_weight_cross_entropy")(logits, labels, **weights),
            reference.real_world_weight_cross_entropy(logits, labels, **weights),
            rtol=1e-5,
        )


def test_false_positive_weights_are_predicted_then_true():
    weights = np.zeros((3, 3), np.float32)
    weights[2, 0] = 1.0
    np.fill_diagonal(weights, 7.0)  # never counted
    got = jitted("real_world_weight_cross_entropy")(
        np.zeros((3, 3), np.float32),
        np.arange(3),
        false_negative_weights=np.zeros(3),
        false_positive_weights=weights,
    )
    np.testing.assert_allclose(got, [-np.log(2 / 3), 0, 0], 1e-6)


@pytest.mark.parametrize("cost", [1e9, 1e30, np.inf])
def test_one_hot_transport_of_huge_costs_is_exact(cost):
    logits = np.array([[0.0, 1, -2], [0, -np.inf, 0]], np.float32)
    costs = np.zeros((3, 3), np.float32)
    costs[1, 2] = cost
    with np.errstate(invalid="ignore"):
        got = losses.wasserstein_with_integer_labels(
            logits, [2, 2], cost_matrix=costs, epsilon=0.1
        )
    # The second example has no share in the costly move, so it pays nothing.
    share = np.exp(1) / (1 + np.exp(1) + np.exp(-2))
    np.testing.assert_allclose(got, [share * cost, 0.1 * (np.log(0.5) - 1)], rtol=1e-6)
    slope = jax.grad(
        lambda z: losses.wasserstein_with_integer_labels(
            z, np.array([2, 2]), cost_matrix=costs, epsilon=0.1
        ).sum()
    )(jnp.asarray(logits))
    assert np.isfinite(slope).all()


# One loss against another.


@examples
@given(logits=logits_of_batch(40), cosines=cosines_of_batch, labels=labels_of_batch)
def test_at_its_neutral_point_every_loss_is_cross_entropy(logits, cosines, labels):
    neutral = {name: LOSSES[name] | NEUTRAL.get(name, {}) for name in LOSSES}
    got = values_of(logits, cosines, labels, neutral)
    plain = {
        True: jitted("cross_entropy")(16 * cosines, labels),
        False: jitted("cross_entropy")(logits, labels),
    }
    for name in NEUTRAL:
        np.testing.assert_allclose(
            got[name],
            plain[name in COSINE_LOSSES],
            # Counts shift every logit by the same, which float32 rounds.
            rtol=2e-4 if name == "balanced_softmax" else 1e-5,
            atol=1e-37,
            err_msg=name,
        )
    np.testing.assert_allclose(got["camri"], got["l2_softmax"], rtol=1e-6)


@examples
@given(cosines=cosines_of_batch, labels=labels_of_batch, margins=margins_of_classes)
def test_camri_is_arcface_where_all_margins_are_one(cosines, labels, margins):
    everywhere = np.full(CLASSES, margins[0])
    options = {"scale": np.float32(16)}
    camri, arcface = jitted("camri"), jitted("arcface")
    np.testing.assert_allclose(
        camri(cosines, labels, margins=everywhere, **options),
        arcface(cosines, labels, margin=margins[0], **options),
        rtol=1e-6,
    )
    # Each class has its own margin: of several, every one keeps its loss.
    together = camri(cosines, labels, margins=margins, **options)
    for n, label in enumerate(labels):
        alone = np.where(np.arange(CLASSES) == label, margins, 0)
        own = camri(cosines, labels, margins=alone, **options)[n]
        np.testing.assert_allclose(together[n], own, rtol=1e-6)


def test_ways_to_shift_one_class_are_the_same_loss():
    # A margin on the cosine of the only class ever true is an offset of its logit.
    _, cosines, _ = scores_for()
    labels, scale = np.full(BATCH, 2), 16.0
    offsets = penalties.offset_vector(CLASSES, 2, 0.25)
    by_margin = jitted("class_sensitive_cosface")(
        cosines, labels, cosine_margins=offsets, scale=scale
    )
    by_offset = jitted("logit_adjusted_cross_entropy")(
        scale * cosines, labels, class_priors=np.ones(CLASSES), offsets=scale * offsets
    )
    np.testing.assert_allclose(by_margin, by_offset, rtol=1e-5)


def test_a_margin_and_a_bonus_of_two_classes_adjust_the_logit():
    _, cosines, _ = scores_for()
    labels, scale, margins = np.arange(BATCH) % 2, 16.0, np.float32([-0.25, 0.25])
    by_margin = jitted("class_sensitive_cosface")(
        cosines[:, :2], labels, cosine_margins=margins, scale=scale
    )
    by_offset = jitted("logit_adjusted_cross_entropy")(
        scale * cosines[:, :2],
        labels,
        class_priors=np.ones(2),
        offsets=np.float32([0, 0.25 * scale]),
    )
    np.testing.assert_allclose(by_margin, by_offset, rtol=1e-5)


@pytest.mark.parametrize(
    ("loss", "odds"),
    [
        ({"weight": 4.0}, 1 / 4.0),
        ({"offset": 1.5}, np.exp(-1.5)),
        ({"margin": 0.1}, (1 + np.exp(-1.6)) / 2),
        ({"margin": 9.0}, 1 / 2),
    ],
    ids=str,
)
def test_where_two_classes_tie_at_the_optimum(loss, odds):
    """Odds of the important class at which equal scores cost least."""

    def total(scores, share):
        rows, labels = jnp.stack([scores, scores]), np.array([0, 1])
        (kind, value), ones = next(iter(loss.items())), np.ones(2, np.float32)
        own = np.float32([0, value])
        if kind == "weight":
            weights = np.float32([1, value])
            values = losses.weighted_cross_entropy(rows, labels, class_weights=weights)
        elif kind == "offset":
            values = losses.logit_adjusted_cross_entropy(
                rows, labels, class_priors=ones, offsets=own
            )
        else:
            values = losses.class_sensitive_cosface(
                rows, labels, cosine_margins=own, scale=16.0
            )
        return (1 - share) * values[0] + share * values[1]

    slope = jax.jit(jax.grad(total))
    share = odds / (1 + odds)
    flat, below, above = (slope(jnp.zeros(2), share * f)[1] for f in (1, 0.9, 1.1))
    np.testing.assert_allclose(flat, 0, atol=1e-5)
    # Of more that are important the score must rise, of fewer fall.
    assert above < -1e-3 < 1e-3 < below


def test_logit_adjustment_learns_a_moved_threshold():
    # One feature for all examples: the optimum is known, and so are its logits.
    labels, counts = np.array([0] * 90 + [1] * 10), np.array([90, 10])
    offsets = np.array([0, 1.5], np.float32)

    def total(logits):
        rows = jnp.broadcast_to(logits, (100, 2))
        return losses.logit_adjusted_cross_entropy(
            rows, labels, class_priors=counts, strength=1.0, offsets=offsets
        ).mean()

    step = jax.jit(lambda logits: logits - 4 * jax.grad(total)(logits))
    logits = jnp.zeros(2)
    for _ in range(200):
        logits = step(logits)
    # The prior is taken out and the offset put in: no threshold to move any more.
    np.testing.assert_allclose(logits[1] - logits[0], 1.5, atol=1e-4)


# Recall as a constraint.


@examples
@given(
    logits=logits_of_batch(4),
    labels=hnp.arrays(np.int32, BATCH, elements=st.integers(-1, CLASSES)),
    numbers=hnp.arrays(
        np.float32,
        (3, CLASSES),
        # XLA takes a subnormal for zero.
        elements=st.floats(0, 1, width=32, allow_subnormal=False),
    ),
)
def test_multipliers_step_as_the_formula(logits, labels, numbers):
    before, priors, wanted = numbers[0], numbers[1] + np.float32(0.1), numbers[2]
    options = {"class_priors": priors, "least_recalls": wanted, "rate": np.float32(0.7)}
    got = jitted("next_multipliers")(before, logits, labels, **options)
    expected = reference.next_multipliers(before, logits, labels, **options)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    assert np.all(got >= 0)
    absent = ~np.isin(np.arange(CLASSES), labels)
    np.testing.assert_array_equal(got[absent], before[absent])
    # Where nothing is asked for, nothing ever pushes.
    options["least_recalls"] = np.zeros_like(wanted)
    got = jitted("next_multipliers")(np.zeros_like(before), logits, labels, **options)
    np.testing.assert_array_equal(got, 0)


def test_multipliers_step_on_average_as_on_all_examples():
    logits, _, labels = scores_for()
    own = np.bincount(labels, minlength=CLASSES) / BATCH
    options = {
        "class_priors": np.maximum(own, 0.01).astype(np.float32),
        "least_recalls": np.full(CLASSES, 0.9, np.float32),
        "rate": 0.1,
    }
    start = np.full(CLASSES, 5, np.float32)
    step = functools.partial(jitted("next_multipliers"), start, **options)
    batches = [step(logits[half], labels[half]) for half in (slice(3), slice(3, 6))]
    np.testing.assert_allclose(np.mean(batches, 0), step(logits, labels), rtol=1e-5)
    padded = losses.next_multipliers(
        start, logits, labels, where=np.arange(BATCH) < 3, **options
    )
    np.testing.assert_allclose(padded, batches[0], rtol=1e-5)


@pytest.mark.parametrize("wanted", [0.0, 0.2, 0.8])
def test_a_recall_is_held_to_where_it_is_missing_and_costs_nothing_elsewhere(wanted):
    """Two overlapping classes, one rare: the optimum's conditions hold at the end."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [900, 100])
    x = (rng.normal(size=1000) + 2 * labels).astype(np.float32)
    options = {"class_priors": np.array([0.9, 0.1], np.float32)}
    target = {"least_recalls": np.array([0, wanted], np.float32), "rate": 0.02}

    def logits_of(line):
        return jnp.stack([jnp.zeros_like(x), line[0] + line[1] * x], axis=1)

    def total(line, multipliers):
        return losses.recall_constrained_cross_entropy(
            logits_of(line), labels, multipliers=multipliers, **options
        ).mean()

    def step(state, _):
        line, multipliers = state
        after = losses.next_multipliers(
            multipliers, logits_of(line), labels, **options, **target
        )
        slope = jax.grad(total)(line, multipliers)
        return (line - 0.5 * slope, after), after

    start = jnp.zeros(2), jnp.zeros(2)
    (line, multipliers), _ = jax.jit(lambda: jax.lax.scan(step, start, length=1500))()
    recall = np.mean(np.argmax(logits_of(line), axis=1)[900:])
    assert multipliers[0] == 0
    # Cross-entropy alone finds a third of the rare class.
    if wanted < 0.3:
        assert multipliers[1] == 0
        assert 0.25 < recall < 0.45
    else:
        assert multipliers[1] > 0.1
        np.testing.assert_allclose(recall, wanted, atol=0.02)


def test_suggested_scale_is_the_formula():
    assert losses.suggested_scale(np.int64(10)) == np.sqrt(2) * np.log(9)


def test_both_heads_multiply_with_every_digit():
    rng = np.random.default_rng(0)
    features, prototypes = rng.normal(size=(4, 300)), rng.normal(size=(300, 3))
    bias = rng.normal(size=3)
    got = losses.linear_logits(features, prototypes, bias)
    np.testing.assert_allclose(got, features @ prototypes + bias, rtol=1e-5, atol=1e-5)
    for head in (losses.linear_logits, losses.cosine_similarity):
        jaxpr = str(jax.make_jaxpr(head)(jnp.zeros((2, 3)), jnp.zeros((3, 4))))
        assert "Precision.HIGHEST" in jaxpr


# Laws.


@examples
@given(
    cosines=cosines_of_batch,
    labels=labels_of_batch,
    margins=hnp.arrays(np.float32, 2, elements=st.floats(0, 3.125, width=32)),
    scale=scales,
)
def test_loss_grows_with_the_margin_until_pi(cosines, labels, margins, scale):
    low, high = np.sort(margins)
    low_loss, high_loss = (
        jitted("arcface")(cosines, labels, margin=margin, scale=scale)
        for margin in (low, high)
    )
    true_cosines = np.take_along_axis(cosines, labels[:, None], axis=1)[:, 0]
    before_pi = np.arccos(true_cosines) + high <= np.pi
    grows = np.asarray(high_loss) >= np.asarray(low_loss) * (1 - 2e-5)
    assert np.all(grows[before_pi])


def test_past_pi_the_paper_falls_and_monotone_does_not():
    theta = np.linspace(0.05, np.pi, 40).astype(np.float32)
    cosines = np.stack([np.cos(theta), np.zeros_like(theta)], axis=1)
    labels = np.zeros(40, np.int32)
    arcface = functools.partial(
        jitted("arcface"), cosines, labels, margin=1.0, scale=4.0
    )
    past = theta + 1.0 > np.pi
    assert np.all(np.diff(arcface(monotone=True)) > 0)
    for margin in (0.1, 2.0, 2.4, 2.8, 3.1):
        values = jitted("arcface")(
            cosines, labels, margin=np.float32(margin), scale=4.0, monotone=True
        )
        assert np.all(np.diff(values) > 0)
    falls = np.diff(arcface()) < 0
    assert np.all(falls[past[:-1]])
    assert not np.any(falls[~past[1:]])
    for margin in (1.0, 2.0, 3.5):
        sphereface = jitted("sphereface")
        values = sphereface(cosines, labels, margin=margin, scale=4.0)
        assert np.all(np.diff(values) > 0)


@pytest.mark.parametrize("margin", [-0.3, 0.3])
def test_a_margin_below_0_is_a_bonus(margin):
    _, cosines, labels = scores_for()
    plain = losses.l2_softmax(cosines, labels, scale=16.0)
    moved = losses.cosface(cosines, labels, margin=margin, scale=16.0)
    assert np.all((moved > plain) == (margin > 0))


def permuted(hyperparameters, order):
    changed = dict(hyperparameters)
    for key in hyperparameters:
        if key in BY_CLASS:
            changed[key] = hyperparameters[key][order]
        if key in BY_TWO_CLASSES:
            changed[key] = hyperparameters[key][np.ix_(order, order)]
    return changed


@examples
@given(order=st.permutations(range(CLASSES)), seed=st.integers(0, 99))
def test_order_of_classes_does_not_matter(order, seed):
    logits, cosines, labels = scores_for(seed)
    order = np.array(order)
    turned = {name: permuted(chosen, order) for name, chosen in LOSSES.items()}
    new_labels = np.argsort(order)[labels].astype(np.int32)
    chex.assert_trees_all_close(
        values_of(logits[:, order], cosines[:, order], new_labels, turned),
        values_of(logits, cosines, labels, LOSSES),
        rtol=1e-5,
        atol=1e-6,
    )


# Cosines.


@examples
@given(
    seed=st.integers(0, 99),
    exponents=hnp.arrays(np.int32, 2, elements=st.integers(-30, 30)),
)
def test_lengths_do_not_matter(seed, exponents):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(BATCH, 7)).astype(np.float32)
    prototypes = rng.normal(size=(7, CLASSES)).astype(np.float32)
    expected = reference.cosine_similarity(features, prototypes)
    long, wide = np.float32(10.0) ** exponents.astype(np.float32)
    got = jitted("cosine_similarity")(features * long, prototypes * wide)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_cosines_of_vectors_of_different_lengths():
    features = np.array([[1e-30, 1e-30], [1e30, 0], [3e38, 3e38], [0, 0]], np.float32)
    prototypes = np.array([[3e-30, 4e30, 0], [1e-30, 2e30, 0]], np.float32)
    np.testing.assert_allclose(
        losses.cosine_similarity(features, prototypes),
        reference.cosine_similarity(features, prototypes),
        atol=1e-6,
    )


def test_gradient_of_cosines_is_across_the_vector():
    features, prototypes = jnp.array([[3.0, 4.0]]), jnp.array([[1.0], [0.0]])
    slope = jax.jacobian(jitted("cosine_similarity"))(features, prototypes)
    np.testing.assert_allclose(slope[0, 0, 0], [0.128, -0.096], rtol=1e-5)
