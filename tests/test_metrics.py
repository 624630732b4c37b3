"""The metrics against loops."""

import chex
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from jax.sharding import PartitionSpec

from camri_jax import metrics
from camri_jax._files import UsageError

EXAMPLES, CLASSES, FEATURES = 40, 4, 3
examples = settings(max_examples=20, deadline=None)
classes_or_not = hnp.arrays(np.int32, EXAMPLES, elements=st.integers(-2, CLASSES + 1))

confusion_matrix = jax.jit(metrics.confusion_matrix, static_argnums=2)
angle_statistics = jax.jit(metrics.angle_statistics)
true_angles = jax.jit(metrics.true_angles)


@examples
@given(labels=classes_or_not, predictions=classes_or_not)
def test_confusion_matrix_counts_pairs_of_classes(labels, predictions):
    np.testing.assert_array_equal(
        confusion_matrix(labels, predictions, CLASSES),
        reference.confusion_matrix(labels, predictions, CLASSES),
    )


def test_a_number_of_64_bits_is_no_class_of_32():
    labels = np.array([2**32 + 1, 1, -(2**32) + 1])
    got = metrics.confusion_matrix(labels, labels.astype(np.uint64), np.int64(2))
    np.testing.assert_array_equal(got, [[0, 0], [0, 1]])


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
    got = angle_statistics(features, prototypes, labels)
    mean, std = reference.angle_statistics(features, prototypes, labels)
    np.testing.assert_allclose(got.mean, mean, atol=1e-5)
    np.testing.assert_allclose(got.std, std, atol=1e-5)


def test_a_batch_on_a_mesh_of_explicit_axes_is_the_batch_on_one_device():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(EXAMPLES, FEATURES)).astype(np.float32)
    prototypes = rng.normal(size=(FEATURES, CLASSES)).astype(np.float32)
    # One is of no class.
    labels, predictions = rng.integers(0, CLASSES, (2, EXAMPLES))
    labels[0] = -1

    @jax.jit
    def measured(features, labels, predictions):
        return (
            metrics.confusion_matrix(labels, predictions, CLASSES),
            jax.jacrev(metrics.angle_statistics)(features, prototypes, labels),
        )

    batch = features, labels, predictions
    expected = measured(*batch)
    # As `jax.make_mesh` makes them unless told otherwise.
    with jax.set_mesh(jax.make_mesh((2,), ("batch",))):
        got = measured(*jax.device_put(batch, PartitionSpec("batch")))
    chex.assert_trees_all_close(got, expected, rtol=1e-5, atol=1e-6)


def test_slopes_of_angles_are_finite_at_the_ends_and_0_for_no_class():
    # Aligned, opposite, across, of no class, alone in its class, and without direction.
    features = jnp.array(
        [[2.0, 0, 0], [-1, 0, 0], [0, 0, 3], [1, 2, 3], [0, 1, 0], [0, 0, 0], [0, 0, 0]]
    )
    labels = jnp.array([0, 0, 0, -1, 1, 2, -1])
    prototypes = jnp.eye(3).at[2, 2].set(0)

    def total(features, prototypes):
        angles = metrics.true_angles(features, prototypes, labels)
        statistics = metrics.angle_statistics(features, prototypes, labels)
        return sum(map(jnp.nansum, (angles, *statistics)))

    slopes = jax.jit(jax.grad(total, argnums=(0, 1)))(features, prototypes)
    chex.assert_tree_all_finite(slopes)
    moved = np.any(slopes[0] != 0, axis=1)
    np.testing.assert_array_equal(moved, np.arange(7) == 2)


@pytest.mark.parametrize("angle", [1e-6, 1e-3, 1.0, np.pi - 1e-3])
def test_angles_keep_their_digits_at_the_ends(angle):
    features = np.array([[np.cos(angle), np.sin(angle)]], np.float32)
    got = true_angles(1e4 * features, 1e-4 * np.eye(2, dtype=np.float32), np.array([0]))
    np.testing.assert_allclose(got, [angle], rtol=1e-5)


@pytest.mark.parametrize(
    "counts", [np.full((2, 2), 2**30, np.int32), np.full((2, 2), 60_000, np.float16)]
)
def test_counts_add_up_beyond_their_type(counts):
    np.testing.assert_array_equal(metrics.recall(counts), [0.5, 0.5])
    assert metrics.accuracy(counts) == 0.5


def test_angles_of_leading_axes_are_those_of_a_batch():
    random = np.random.default_rng(0)
    features = random.normal(size=(2, 3, 4)).astype(np.float32)
    prototypes = random.normal(size=(4, 5)).astype(np.float32)
    labels = random.integers(0, 5, (2, 3))
    flat = features.reshape(6, 4), prototypes, labels.ravel()
    angles = true_angles(features, prototypes, labels)
    np.testing.assert_array_equal(angles.ravel(), true_angles(*flat))
    chex.assert_trees_all_close(
        metrics.angle_statistics(features, prototypes, labels),
        metrics.angle_statistics(*flat),
    )
    assert true_angles(features[:, :0], prototypes, labels[:, :0]).shape == (2, 0)


def test_what_is_not_a_number_has_no_angle():
    features = jnp.array([[jnp.nan, 0.0], [1.0, 0.0]])
    got = true_angles(features, jnp.eye(2), jnp.array([0, 1]))
    np.testing.assert_allclose(got, [np.nan, np.pi / 2], rtol=1e-6)


def test_angles_without_a_class_or_a_direction():
    features = jnp.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    got = true_angles(features, jnp.eye(2), jnp.array([0, -1, 2]))
    np.testing.assert_allclose(got, [np.pi / 2, np.nan, np.nan], rtol=1e-6)
    got = true_angles(features, jnp.zeros((2, 2)), jnp.array([0, 0, 1]))
    np.testing.assert_allclose(got, np.pi / 2, rtol=1e-6)


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
            UsageError,
            r"predictions must have shape \(2,\), got \(3,\)",
        ),
        (
            lambda: metrics.recall(jnp.zeros((2, 3))),
            UsageError,
            r"confusion must be square, got shape \(2, 3\)",
        ),
        (
            lambda: metrics.angle_statistics(
                jnp.zeros((2, 3)), jnp.zeros((4, 2)), jnp.zeros(2, int)
            ),
            UsageError,
            r"prototypes must have shape \(3, 2\), got \(4, 2\)",
        ),
        (
            lambda: metrics.confusion_matrix([0], [0], 2.0),
            UsageError,
            "num_classes must be a whole number of at least 1, got 2.0",
        ),
        (
            lambda: metrics.recall({"cat": 1}),
            TypeError,
            "confusion must be a number or an array of numbers, got dict",
        ),
    ],
)
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
