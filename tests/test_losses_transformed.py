"""The losses differentiated, lifted, compiled, in half precision and called wrongly."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized
from loss_cases import (
    BATCH,
    CLASSES,
    LOGIT_LOSSES,
    LOSSES,
    gradient,
    jitted,
    scores_for,
)

from camri_jax import losses

# Derivatives.


def double(tree):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), tree)


def check_derivatives(function, arguments):
    """First and second derivative along a line, against central differences."""
    rng = np.random.default_rng(7)
    line = jax.tree.map(lambda x: rng.normal(size=x.shape), arguments)

    def on_line(t):
        point = jax.tree.map(lambda x, dx: x + t * dx, arguments, line)
        return jnp.sum(function(*point) * jnp.cos(jnp.arange(BATCH)))

    value = jax.jit(on_line)
    slope = jax.jit(jax.grad(on_line))
    bend = jax.jit(jax.jvp, static_argnums=0)(jax.grad(on_line), (0.0,), (1.0,))[1]
    h = 1e-5
    np.testing.assert_allclose(slope(0.0), (value(h) - value(-h)) / (2 * h), rtol=1e-6)
    np.testing.assert_allclose(bend, (slope(h) - slope(-h)) / (2 * h), rtol=1e-5)
    np.testing.assert_allclose(jax.jit(jax.grad(slope))(0.0), bend, rtol=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_derivatives_are_finite_differences(name):
    with jax.enable_x64(True):
        scores, labels = scores_for(name)

        def loss(scores, hyperparameters):
            values = getattr(losses, name)(scores, labels, **hyperparameters)
            assert values.dtype == jnp.float64
            return values

        check_derivatives(loss, double((scores, LOSSES[name])))


def test_derivatives_of_cosines_are_finite_differences():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        vectors = double((rng.normal(size=(BATCH, 4)), rng.normal(size=(4, 1))))
        check_derivatives(lambda z, w: losses.cosine_similarity(z, w)[:, 0], vectors)


@pytest.mark.parametrize("name", LOSSES)
def test_float32_gradients_are_those_of_float64(name):
    scores, labels = scores_for(name)
    single = gradient(name)(scores, labels, LOSSES[name])[0]
    with jax.enable_x64(True):
        exact = gradient(name)(double(scores), labels, double(LOSSES[name]))[0]
    np.testing.assert_allclose(single, exact, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("monotone", [False, True])
def test_angular_derivatives_are_finite_at_the_ends(dtype, monotone):
    ends = jnp.array([[1, 1], [1, -1], [-1, 1], [-1, -1], [0, 1], [1, 0.5]], dtype)

    def total(cosines, margins, scale):
        return losses.camri(
            cosines,
            jnp.zeros(6, jnp.int32),
            margins=margins,
            scale=scale,
            monotone=monotone,
        ).sum()

    arguments = ends, jnp.array([0.4, 0.0]), jnp.float32(64)
    slope = jax.jit(jax.grad(total, argnums=(0, 1, 2)))
    assert slope(*arguments)[0].dtype == dtype
    chex.assert_tree_all_finite(slope(*arguments))
    chex.assert_tree_all_finite(jax.jit(jax.hessian(total))(*arguments))
    # Rounding leads past the ends.
    chex.assert_tree_all_finite(slope(1.001 * ends, *arguments[1:]))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_zero_features_have_cosine_0_and_gradient_0(dtype):
    features = jnp.array([[0, 0, 0], [1, 2, 3]], dtype)

    def total(features, prototypes):
        cosines = losses.cosine_similarity(features, prototypes)
        return losses.l2_softmax(cosines, jnp.array([0, 1]), scale=16.0).sum()

    prototypes = jnp.eye(3, dtype=dtype).at[2].set(0)
    assert jnp.all(losses.cosine_similarity(features, prototypes)[0] == 0)
    slope = jax.jit(jax.grad(total, argnums=(0, 1)))
    by_features, by_prototypes = slope(features, prototypes)
    assert jnp.all(by_features[0] == 0)
    assert jnp.any(by_features[1] != 0)
    assert jnp.all(by_prototypes[:, 2] == 0)
    chex.assert_tree_all_finite((by_features, by_prototypes))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("name", LOSSES)
def test_finite_for_large_inputs_in_every_dtype(name, dtype):
    sizes = np.array([1e4, 1e3, 1e2, 1e-2, 1e-5, 0], np.float32)[:, None]
    signs = np.sign(scores_for(name, seed=1)[0])
    scores = jnp.asarray(signs * sizes, dtype)
    labels = np.array([0, 1, 2, 3, 4, 0])
    values = jitted(name)(scores, labels, **LOSSES[name])
    assert values.dtype == jnp.float32
    gradients = gradient(name)(scores, labels, jax.tree.map(np.float32, LOSSES[name]))
    assert gradients[0].dtype == dtype
    chex.assert_tree_all_finite((values, gradients))


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_only_stores(name):
    scores, labels = scores_for(name)
    halves = jnp.asarray(scores, jnp.bfloat16)
    np.testing.assert_allclose(
        jitted(name)(halves, labels, **LOSSES[name]),
        jitted(name)(halves.astype(jnp.float32), labels, **LOSSES[name]),
        rtol=1e-5,
    )


# Labels.


@pytest.mark.parametrize("name", LOSSES)
def test_label_of_no_class_is_nan_and_disturbs_no_other(name):
    scores, labels = scores_for(name)
    bad = labels.copy()
    bad[[1, 4, 5]] = [CLASSES, -1, 2**30]
    wrong = np.isin(np.arange(BATCH), [1, 4, 5])
    values = np.asarray(jitted(name)(scores, bad, **LOSSES[name]))
    clean = np.asarray(jitted(name)(scores, labels, **LOSSES[name]))
    np.testing.assert_array_equal(np.isnan(values), wrong)
    np.testing.assert_array_equal(values[~wrong], clean[~wrong])
    slopes = np.asarray(gradient(name)(scores, bad, LOSSES[name])[0])
    clean = np.asarray(gradient(name)(scores, labels, LOSSES[name])[0])
    np.testing.assert_array_equal(slopes[~wrong], clean[~wrong])
    np.testing.assert_array_equal(slopes[wrong], 0)


@pytest.mark.parametrize(
    "dtype", ["int8", "uint8", "int16", "int32", "uint32", "int64"]
)
def test_labels_of_every_integer_type(dtype):
    with jax.enable_x64(dtype == "int64"):
        # 200 classes are more than int8 can count; 2**32 would wrap around to 0.
        labels = np.array([0, 100, np.iinfo(dtype).max], dtype)
        if dtype == "int64":
            labels[2] = 2**32
        got = losses.cross_entropy(jnp.zeros((3, 200), jnp.float32), labels)
        expected = [
            np.log(200),
            np.log(200),
            np.log(200) if dtype == "int8" else np.nan,
        ]
        np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_angular_margin_logits_of_no_class_are_nan():
    got = losses.angular_margin_logits(
        jnp.zeros((3, 2)), jnp.array([-1, 0, 2]), margins=jnp.zeros(2), scale=1.0
    )
    np.testing.assert_array_equal(np.isnan(got), [[1, 1], [0, 0], [1, 1]])


@pytest.mark.parametrize("rivals", [0, 1, 3])
def test_without_rivals_there_is_nothing_to_lose(rivals):
    # A logit of -inf rules its class out.
    logits = jnp.full((2, 1 + rivals), -jnp.inf).at[:, 0].set(1.0)

    def total(logits):
        return jnp.sum(losses.cross_entropy(logits, jnp.zeros(2, jnp.int32)))

    value, slope = jax.jit(jax.value_and_grad(total))(logits)
    assert value == 0
    np.testing.assert_array_equal(slope, np.zeros_like(logits))


@pytest.mark.parametrize("name", LOGIT_LOSSES)
def test_a_logit_of_minus_infinity_rules_its_class_out(name):
    scores, labels = scores_for(name)
    labels = np.minimum(labels, CLASSES - 2)
    without = {
        key: value[tuple(slice(size - 1) for size in np.shape(value))]
        if np.ndim(value)
        else value
        for key, value in LOSSES[name].items()
    }
    scores[:, -1] = -np.inf
    got = jitted(name)(scores, labels, **LOSSES[name])
    expected = jitted(name)(scores[:, :-1], labels, **without)
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    slopes = gradient(name)(scores, labels, LOSSES[name])[0]
    expected = gradient(name)(scores[:, :-1], labels, without)[0]
    np.testing.assert_allclose(slopes[:, :-1], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(slopes[:, -1], 0)


# Transformations.


@pytest.mark.parametrize("name", LOSSES)
def test_leading_axes_are_batches(name):
    scores, labels = scores_for(name)
    loss = jitted(name)
    flat = loss(scores, labels, **LOSSES[name])
    folded = loss(scores.reshape(2, 3, CLASSES), labels.reshape(2, 3), **LOSSES[name])
    np.testing.assert_allclose(folded.reshape(BATCH), flat, rtol=1e-6)
    single = loss(scores[0], labels[0], **LOSSES[name])
    assert single.shape == ()
    np.testing.assert_allclose(single, flat[0], rtol=1e-6)


@pytest.mark.parametrize("name", [name for name in LOSSES if LOSSES[name]])
def test_a_grid_of_hyperparameters_is_one_program(name):
    scores, labels = scores_for(name)
    factors = np.array([0.5, 1.0, 1.5], np.float32)
    grid = jax.tree.map(
        lambda x: np.stack([np.float32(x) * f for f in factors]), LOSSES[name]
    )

    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def loss(hyperparameters):
        return getattr(losses, name)(scores, labels, **hyperparameters)

    points = [jax.tree.map(lambda x, i=i: x[i], grid) for i in range(3)]
    one_by_one = [loss(point) for point in points]
    together = jax.jit(jax.vmap(loss))(grid)
    np.testing.assert_allclose(together, jnp.stack(one_by_one), rtol=1e-5, atol=1e-6)


class Variants(chex.TestCase):
    """The same numbers with and without jit, on the device and on the host."""

    @chex.variants(
        with_jit=True, without_jit=True, with_device=True, without_device=True
    )
    @parameterized.parameters(*LOSSES)
    def test_variants_agree(self, name):
        scores, labels = scores_for(name)
        loss = functools.partial(getattr(losses, name), **LOSSES[name])
        np.testing.assert_allclose(
            self.variant(loss)(scores, labels),
            jitted(name)(scores, labels, **LOSSES[name]),
            rtol=1e-6,
            atol=1e-6,
        )


@pytest.mark.parametrize("name", ["cross_entropy", "l2_softmax", "arcface", "camri"])
def test_no_second_copy_of_the_logits(name):
    num_classes, batch = 2000, 64
    scores = jax.ShapeDtypeStruct((batch, num_classes), jnp.float32)
    labels = jax.ShapeDtypeStruct((batch,), jnp.int32)
    hyperparameters = dict(LOSSES[name])
    if "margins" in hyperparameters:
        hyperparameters["margins"] = np.zeros(num_classes, np.float32)
    loss = functools.partial(getattr(losses, name), **hyperparameters)
    total = jax.jit(jax.grad(lambda *arguments: jnp.sum(loss(*arguments))))
    compiled = total.lower(scores, labels).compile()
    # What is written besides the gradient itself.
    assert compiled.memory_analysis().temp_size_in_bytes < batch * num_classes * 4 / 4


# Messages.

SCORES, LABELS = np.zeros((2, 3), np.float32), np.zeros(2, np.int32)
ONES, SQUARE = np.ones(3, np.float32), np.ones((3, 3), np.float32)
RIGHT = {
    "cross_entropy": {"logits": SCORES, "labels": LABELS},
    "weighted_cross_entropy": {
        "logits": SCORES,
        "labels": LABELS,
        "class_weights": ONES,
    },
    "real_world_weight_cross_entropy": {
        "logits": SCORES,
        "labels": LABELS,
        "false_negative_weights": ONES,
        "false_positive_weights": SQUARE,
    },
    "wasserstein": {
        "logits": SCORES,
        "targets": np.full((2, 3), 1 / 3, np.float32),
        "cost_matrix": SQUARE,
        "epsilon": 1.0,
    },
    "wasserstein_with_integer_labels": {
        "logits": SCORES,
        "labels": LABELS,
        "cost_matrix": SQUARE,
        "epsilon": 1.0,
    },
    "l2_softmax": {"cosines": SCORES, "labels": LABELS, "scale": 1.0},
    "arcface": {"cosines": SCORES, "labels": LABELS, "scale": 1.0, "margin": 0.1},
    "camri": {"cosines": SCORES, "labels": LABELS, "scale": 1.0, "margins": ONES},
    "cosine_similarity": {
        "features": SCORES,
        "prototypes": np.zeros((3, 5), np.float32),
    },
}


@pytest.mark.parametrize(
    ("name", "argument", "value", "message"),
    [
        ("cross_entropy", "labels", np.zeros(2), "must be integers, got float"),
        ("cross_entropy", "labels", np.zeros(2, bool), "must be integers, got bool"),
        ("cross_entropy", "logits", np.zeros((2, 3), int), "must be floating, got int"),
        ("arcface", "margin", True, "must be real numbers, got bool"),
        ("wasserstein", "targets", np.ones((2, 3), int), "must be floating, got int"),
    ],
)
def test_wrong_kinds_of_number_are_named(name, argument, value, message):
    with pytest.raises(TypeError, match=f"^{argument} {message}"):
        getattr(losses, name)(**RIGHT[name] | {argument: value})


@pytest.mark.parametrize(
    ("name", "argument", "value", "message"),
    [
        ("cross_entropy", "labels", np.zeros(3, int), "must have shape (2,), got (3,)"),
        ("cross_entropy", "logits", np.float32(0), "needs at least 1 axes"),
        ("cross_entropy", "logits", np.zeros((2, 0)), "needs at least 1 axes"),
        ("weighted_cross_entropy", "class_weights", ONES[:2], "must have shape (3,)"),
        ("weighted_cross_entropy", "class_weights", -ONES, "must be not below 0"),
        (
            "real_world_weight_cross_entropy",
            "false_negative_weights",
            SQUARE,
            "must have shape (3,), got (3, 3)",
        ),
        (
            "real_world_weight_cross_entropy",
            "false_positive_weights",
            ONES,
            "must have shape (3, 3), got (3,)",
        ),
        ("l2_softmax", "scale", 0.0, "must be above 0, got 0.0"),
        ("l2_softmax", "scale", ONES, "must have shape (), got (3,)"),
        ("camri", "margins", 0.1, "must have shape (3,), got ()"),
        ("camri", "margins", 10 * ONES, "must be from 0 to pi, in radians"),
        ("arcface", "margin", -0.1, "must be from 0 to pi, in radians, got -0.1"),
        ("cosine_similarity", "prototypes", SCORES, "must have shape (3, 3)"),
        ("cosine_similarity", "prototypes", ONES, "needs at least 2 axes"),
        ("wasserstein_with_integer_labels", "epsilon", 0, "must be above 0, got 0"),
        ("wasserstein", "targets", SQUARE, "must have shape (2, 3), got (3, 3)"),
        ("wasserstein", "targets", -np.ones((2, 3)), "must be not below 0"),
        ("wasserstein", "cost_matrix", SCORES, "must have shape (3, 3), got (2, 3)"),
    ],
)
def test_wrong_values_are_named(name, argument, value, message):
    with pytest.raises(ValueError, match=re.escape(f"{argument} {message}")):
        getattr(losses, name)(**RIGHT[name] | {argument: value})


def test_traced_hyperparameters_are_not_looked_at():
    arguments = RIGHT["arcface"] | {"scale": jnp.float32(-1)}
    chex.assert_tree_all_finite(jax.jit(losses.arcface)(**arguments))
