"""The metrics against loops, and the threshold curve against its definition."""

import functools

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import given, settings

from camri_jax import metrics

EXAMPLES, CLASSES, FEATURES = 40, 4, 3
CONSTANTS = np.linspace(-3, 3, 13).astype(np.float32)
examples = settings(max_examples=40, deadline=None)
classes_or_not = hnp.arrays(np.int32, EXAMPLES, elements=st.integers(-2, CLASSES + 1))

confusion_matrix = jax.jit(metrics.confusion_matrix, static_argnums=2)
threshold_curve = jax.jit(metrics.threshold_curve, static_argnums=4)


@examples
@given(labels=classes_or_not, predictions=classes_or_not)
def test_confusion_matrix_counts_pairs_of_classes(labels, predictions):
    np.testing.assert_array_equal(
        confusion_matrix(labels, predictions, CLASSES),
        reference.confusion_matrix(labels, predictions, CLASSES),
    )


def test_confusion_matrix_of_small_and_large_integers():
    labels = jnp.array([0, 100, -1, -128], jnp.int8)
    predictions = jnp.array([150, 150, 150, 150], jnp.uint8)
    got = metrics.confusion_matrix(labels, predictions, 200)
    assert got.dtype == jnp.int32
    assert got.sum() == 2
    assert got[0, 150] == got[100, 150] == 1


def test_recall_and_accuracy():
    confusion = jnp.array([[[3, 1, 0], [0, 0, 0], [1, 1, 2]], np.zeros((3, 3))])
    recall, accuracy = metrics.recall(confusion), metrics.accuracy(confusion)
    np.testing.assert_array_equal(recall[0], [0.75, np.nan, 0.5])
    assert np.all(np.isnan(recall[1]))
    np.testing.assert_array_equal(accuracy, [5 / 8, np.nan])


@examples
@given(labels=classes_or_not, seed=st.integers(0, 99))
def test_angle_statistics_are_the_formulas(labels, seed):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(EXAMPLES, FEATURES)).astype(np.float32)
    prototypes = rng.normal(size=(FEATURES, CLASSES)).astype(np.float32)
    got = jax.jit(metrics.angle_statistics)(features, prototypes, labels)
    mean, std = reference.angle_statistics(features, prototypes, labels)
    np.testing.assert_allclose(got.mean, mean, atol=1e-5)
    np.testing.assert_allclose(got.std, std, atol=1e-5)


@pytest.mark.parametrize("angle", [1e-6, 1e-3, 1.0, np.pi - 1e-3])
def test_angles_keep_their_digits_at_the_ends(angle):
    features = np.array([[np.cos(angle), np.sin(angle)]], np.float32)
    got = metrics.true_angles(1e4 * features, 1e-4 * np.eye(2, dtype=np.float32), [0])
    np.testing.assert_allclose(got, [angle], rtol=1e-5)


def test_angles_without_a_class_or_a_direction():
    features = jnp.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    got = metrics.true_angles(features, jnp.eye(2), jnp.array([0, -1, 2]))
    np.testing.assert_allclose(got, [np.pi / 2, np.nan, np.nan], rtol=1e-6)


@examples
@given(
    # Few values, so that ties are many.
    logits=hnp.arrays(np.int32, (EXAMPLES, CLASSES), elements=st.integers(-4, 4)),
    labels=classes_or_not,
    mask=hnp.arrays(bool, CLASSES),
)
def test_threshold_curve_is_the_confusion_of_shifted_logits(logits, labels, mask):
    logits = logits.astype(np.float32) / 2
    curve = threshold_curve(logits, labels, mask, CONSTANTS, CLASSES)
    assert curve.dtype == jnp.int32
    for constant, got in zip(CONSTANTS, curve, strict=True):
        predictions = np.argmax(logits + constant * mask, axis=1)
        expected = reference.confusion_matrix(labels, predictions, CLASSES)
        np.testing.assert_array_equal(got, expected)


def test_threshold_curves_of_trials():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, EXAMPLES, CLASSES)).astype(np.float32)
    labels = rng.integers(0, CLASSES, EXAMPLES)
    masks = np.eye(CLASSES, dtype=bool)[[1, 3]]
    curve = functools.partial(metrics.threshold_curve, num_classes=CLASSES)
    lifted = jax.jit(jax.vmap(curve, in_axes=(0, None, 0, None)))
    got = lifted(logits, labels, masks, CONSTANTS)
    for trial in range(2):
        expected = curve(logits[trial], labels, masks[trial], CONSTANTS)
        np.testing.assert_array_equal(got[trial], expected)


def test_threshold_curve_needs_no_array_of_examples_by_constants():
    num_examples, num_constants = 5000, 500
    compiled = threshold_curve.lower(
        jax.ShapeDtypeStruct((num_examples, CLASSES), jnp.float32),
        jax.ShapeDtypeStruct((num_examples,), jnp.int32),
        jax.ShapeDtypeStruct((CLASSES,), jnp.bool),
        jax.ShapeDtypeStruct((num_constants,), jnp.float32),
        CLASSES,
    ).compile()
    used = compiled.memory_analysis().temp_size_in_bytes
    assert used < num_examples * num_constants / 4


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: metrics.confusion_matrix(jnp.zeros(2), jnp.zeros(2, int), 2),
            TypeError,
            "labels must be integers",
        ),
        (
            lambda: metrics.confusion_matrix(jnp.zeros(2, int), jnp.zeros(3, int), 2),
            ValueError,
            r"predictions must have shape \(2,\), got \(3,\)",
        ),
        (
            lambda: metrics.recall(jnp.zeros((2, 3))),
            ValueError,
            r"confusion must be square, got shape \(2, 3\)",
        ),
        (
            lambda: metrics.angle_statistics(
                jnp.zeros((2, 3)), jnp.zeros((4, 2)), jnp.zeros(2, int)
            ),
            ValueError,
            r"features must have shape \(2, 4\), got \(2, 3\)",
        ),
        (
            lambda: metrics.threshold_curve(
                jnp.zeros((2, 3)), jnp.zeros(2, int), jnp.ones(3), CONSTANTS, 3
            ),
            TypeError,
            "important_mask must be bool, got float32",
        ),
        (
            lambda: metrics.threshold_curve(
                jnp.zeros((2, 3)), jnp.zeros(2, int), jnp.ones(3, bool), -CONSTANTS, 3
            ),
            ValueError,
            "constants must be in ascending order",
        ),
        (
            lambda: metrics.threshold_curve(
                jnp.zeros((2, 3)), jnp.zeros(2, int), jnp.ones(3, bool), CONSTANTS, 4
            ),
            ValueError,
            r"logits must have shape \(2, 4\), got \(2, 3\)",
        ),
    ],
)
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
