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
    COSTS,
    LOGIT_LOSSES,
    LOSSES,
    WEIGHTS,
    jitted,
    scores_for,
)

from camri_jax import losses

examples = settings(max_examples=30, deadline=None)
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


# Values: against the loops.


@examples
@given(logits=logits_of_batch(40), labels=labels_of_batch)
@pytest.mark.parametrize("name", LOGIT_LOSSES)
def test_logit_losses_are_the_formulas(name, logits, labels):
    hyperparameters = LOGIT_LOSSES[name]
    expected = getattr(reference, name)(logits, labels, **hyperparameters)
    got = jitted(name)(logits, labels, **hyperparameters)
    # Only the Wasserstein loss is a difference, and so not right to the last digits.
    absolute = 1e-5 if name.startswith("wasserstein") else 1e-37
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=absolute)


@examples
@given(
    cosines=cosines_of_batch,
    labels=labels_of_batch,
    margins=margins_of_classes,
    scale=scales,
    monotone=st.booleans(),
)
def test_angular_losses_are_the_formulas(cosines, labels, margins, scale, monotone):
    options = {"scale": np.float32(scale), "monotone": monotone}
    np.testing.assert_allclose(
        jitted("camri")(cosines, labels, margins=margins, **options),
        reference.camri(cosines, labels, margins=margins, **options),
        rtol=2e-5,
    )
    np.testing.assert_allclose(
        jitted("arcface")(cosines, labels, margin=margins[0], **options),
        reference.arcface(cosines, labels, margin=margins[0], **options),
        rtol=2e-5,
    )
    np.testing.assert_allclose(
        jitted("angular_margin_logits")(cosines, labels, margins=margins, **options),
        reference.angular_margin_logits(cosines, labels, margins=margins, **options),
        rtol=1e-5,
        atol=2e-7 * scale,
    )


@pytest.mark.parametrize("scale", [16.0, 32.0, 64.0])
@pytest.mark.parametrize("margin", [0.0, 0.2, 0.4])
def test_tiny_angular_losses_keep_their_digits(scale, margin):
    cosines = np.full((3, CLASSES), -0.6, np.float32)
    cosines[:, 2] = [1.0, 0.97, 0.8]
    labels = np.full(3, 2)
    margins = np.full(CLASSES, margin, np.float32)
    expected = reference.camri(cosines, labels, margins=margins, scale=scale)
    got = losses.camri(cosines, labels, margins=margins, scale=scale)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-37)
    assert expected.min() < np.exp(-0.9 * scale)


@pytest.mark.parametrize("margin", [0.0, 0.2, 0.4])
def test_angular_losses_near_the_ends_keep_their_digits(margin):
    gaps = 2.0 ** -np.arange(3, 24, dtype=np.float32)
    for true_cosines in (1 - gaps, gaps - 1):
        cosines = np.stack([np.full_like(gaps, 0.5), true_cosines], axis=1)
        labels, margins = np.ones(gaps.shape, int), np.full(2, margin, np.float32)
        expected = reference.camri(cosines, labels, margins=margins, scale=64.0)
        got = losses.camri(cosines, labels, margins=margins, scale=64.0)
        np.testing.assert_allclose(got, expected, rtol=1e-5)


@examples
@given(logits=logits_of_batch(4), labels=labels_of_batch)
@pytest.mark.parametrize("name", LOGIT_LOSSES)
def test_a_number_added_to_all_logits_does_not_matter(name, logits, labels):
    logits = np.round(logits * 512) / 512  # steps that float32 also has at 8192
    loss = functools.partial(jitted(name), labels=labels, **LOGIT_LOSSES[name])
    expected = loss(logits=logits)
    np.testing.assert_allclose(
        loss(logits=logits + np.float32(8192)), expected, rtol=1e-6
    )


@pytest.mark.parametrize("share", [1e-30, 1e-12, 0.5, 1 - 1e-6])
def test_real_world_weights_at_the_ends(share):
    # h_0 is the share and h_1 the rest, or the other way round: 1 - 1e-12 and 1e-30.
    logit = np.float32(np.log(share) - np.log1p(-share))
    for logits in ([[logit, 0.0]], [[-logit, 0.0]]):
        for label in (0, 1):
            for misses, alarms in ((1.0, 0.0), (0.0, 1.0)):
                weights = {
                    "false_negative_weights": np.full(2, misses, np.float32),
                    "false_positive_weights": np.full((2, 2), alarms, np.float32),
                }
                np.testing.assert_allclose(
                    losses.real_world_weight_cross_entropy(
                        jnp.array(logits), jnp.array([label]), **weights
                    ),
                    reference.real_world_weight_cross_entropy(
                        logits, [label], **weights
                    ),
                    rtol=1e-5,
                )


def test_false_positive_weights_are_predicted_then_true():
    weights = np.zeros((3, 3), np.float32)
    weights[2, 0] = 1.0
    loss = functools.partial(
        losses.real_world_weight_cross_entropy,
        jnp.zeros((3, 3)),
        jnp.arange(3),
        false_negative_weights=jnp.zeros(3),
    )
    expected = [-np.log(2 / 3), 0, 0]
    np.testing.assert_allclose(loss(false_positive_weights=weights), expected, 1e-6)


def test_diagonal_of_false_positive_weights_is_not_counted():
    logits, labels = scores_for("real_world_weight_cross_entropy")
    without = COSTS * (1 - np.eye(CLASSES, dtype=np.float32))
    chex.assert_trees_all_equal(
        *[
            losses.real_world_weight_cross_entropy(
                logits,
                labels,
                false_negative_weights=WEIGHTS,
                false_positive_weights=weights,
            )
            for weights in (COSTS, without)
        ]
    )


# One loss against another.


@examples
@given(
    cosines=cosines_of_batch,
    labels=labels_of_batch,
    scale=scales,
    margin=st.floats(0, 0.5),
)
def test_camri_contains_l2_softmax_and_arcface(cosines, labels, scale, margin):
    camri = functools.partial(jitted("camri"), cosines, labels, scale=scale)
    zeros, ones = np.zeros(CLASSES, np.float32), np.ones(CLASSES, np.float32)
    plain = jitted("l2_softmax")(cosines, labels, scale=scale)
    margin = np.float32(margin)
    arcface = jitted("arcface")(cosines, labels, margin=margin, scale=scale)
    np.testing.assert_array_equal(camri(margins=zeros), plain)
    np.testing.assert_allclose(camri(margins=margin * ones), arcface, rtol=1e-6)
    logits = scale * cosines
    np.testing.assert_allclose(
        plain, jitted("cross_entropy")(logits, labels), rtol=1e-5, atol=1e-37
    )


@examples
@given(logits=logits_of_batch(40), labels=labels_of_batch)
def test_unit_weights_are_cross_entropy(logits, labels):
    ones = np.ones(CLASSES, np.float32)
    plain = jitted("cross_entropy")(logits, labels)
    weighted = jitted("weighted_cross_entropy")(logits, labels, class_weights=ones)
    np.testing.assert_array_equal(plain, weighted)
    real_world = jitted("real_world_weight_cross_entropy")(
        logits,
        labels,
        false_negative_weights=ones,
        false_positive_weights=np.zeros((CLASSES, CLASSES), np.float32),
    )
    np.testing.assert_array_equal(plain, real_world)


@examples
@given(cosines=cosines_of_batch, labels=labels_of_batch, margins=margins_of_classes)
def test_camri_is_cross_entropy_of_its_logits(cosines, labels, margins):
    logits = jitted("angular_margin_logits")(
        cosines, labels, margins=margins, scale=8.0
    )
    np.testing.assert_allclose(
        jitted("camri")(cosines, labels, margins=margins, scale=8.0),
        jitted("cross_entropy")(logits, labels),
        rtol=1e-5,
    )


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
    past = theta + 1.0 > np.pi
    cosines = np.stack([np.cos(theta), np.zeros_like(theta)], axis=1)
    loss = functools.partial(
        losses.arcface, cosines, np.zeros(40, np.int32), margin=1.0, scale=4.0
    )
    assert np.all(np.diff(loss(monotone=True)) > 0)
    falls = np.diff(loss()) < 0
    assert np.all(falls[past[:-1]])
    assert not np.any(falls[~past[1:]])


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
@pytest.mark.parametrize("name", LOSSES)
def test_order_of_classes_does_not_matter(name, order, seed):
    scores, labels = scores_for(name, seed)
    order = np.array(order)
    loss = jitted(name)
    np.testing.assert_allclose(
        loss(
            scores[:, order], np.argsort(order)[labels], **permuted(LOSSES[name], order)
        ),
        loss(scores, labels, **LOSSES[name]),
        rtol=1e-5,
        atol=1e-6,
    )


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
    slope = jax.jacobian(losses.cosine_similarity)(features, prototypes)
    np.testing.assert_allclose(slope[0, 0, 0], [0.128, -0.096], rtol=1e-5)
