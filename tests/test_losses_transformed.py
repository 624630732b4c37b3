"""The losses differentiated, lifted, compiled, in half precision and called wrongly."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec
from loss_cases import (
    BATCH,
    BY_CLASS,
    BY_TWO_CLASSES,
    CLASSES,
    COSINE_LOSSES,
    COSTS,
    GENERAL,
    LOSSES,
    MARGINS,
    WEIGHTS,
    every_loss,
    every_slope,
    jitted,
    scores_for,
    slopes_of,
    values_of,
)

from camri_jax import losses
from camri_jax._files import UsageError

# Derivatives.


def double(tree):
    def to_double(x):
        whole = np.issubdtype(np.asarray(x).dtype, np.integer)
        return x if whole else jnp.asarray(x, jnp.float64)

    return jax.tree.map(to_double, tree)


def real_part(hyperparameters):
    return {
        name: {k: v for k, v in chosen.items() if k != "class_counts"}
        for name, chosen in hyperparameters.items()
    }


@pytest.mark.parametrize(
    "names", [GENERAL, pytest.param([*LOSSES], marks=pytest.mark.slow)]
)
def test_derivatives_are_finite_differences(names):
    """First and second, by scores and hyperparameters, along a line."""
    logits, cosines, labels = scores_for()
    chosen = {name: LOSSES[name] for name in names}
    _, single = slopes_of(logits, cosines, labels, LOSSES)
    with jax.enable_x64(True):
        point = double((logits, cosines, real_part(chosen)))
        rng = np.random.default_rng(7)
        line = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), point)

        def at(t):
            logits, cosines, real = jax.tree.map(lambda x, dx: x + t * dx, point, line)
            whole = {name: chosen[name] | real[name] for name in names}
            return logits, cosines, labels, whole

        @jax.jit
        def along_line(t):
            values, slopes = every_slope(*at(t))
            assert all(x.dtype == jnp.float64 for x in values.values())
            along = {
                name: (line[1] if name in COSINE_LOSSES else line[0], line[2][name])
                for name in names
            }
            products = jax.tree.map(lambda x, dx: jnp.sum(x * dx), slopes, along)
            value = jnp.stack([jnp.sum(values[name]) for name in names])
            slope = [sum(jax.tree.leaves(products[name])) for name in names]
            return (value, jnp.stack(slope)), slopes

        @jax.jit
        def with_bend(t):
            ones = jnp.ones_like(t)
            return jax.jvp(along_line, (t,), (ones,), has_aux=True)

        # The derivative of the reverse pass, as `jax.hessian` has it.
        h = 1e-5
        (_, slope), (_, bend), exact = with_bend(0.0)
        (ahead, slope_ahead), _, _ = with_bend(h)
        (behind, slope_behind), _, _ = with_bend(-h)
        np.testing.assert_allclose(slope, (ahead - behind) / (2 * h), rtol=1e-5)
        difference = (slope_ahead - slope_behind) / (2 * h)
        np.testing.assert_allclose(bend, difference, rtol=1e-4)
    for name in names:
        np.testing.assert_allclose(
            single[name][0], exact[name][0], rtol=1e-4, atol=1e-5, err_msg=name
        )


def test_derivatives_of_the_heads_are_finite_differences():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        point = double((rng.normal(size=(BATCH, 4)), rng.normal(size=(4, 1))))
        line = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), point)

        def value(t):
            vectors = jax.tree.map(lambda x, dx: x + t * dx, point, line)
            heads = losses.cosine_similarity, losses.linear_logits
            return jnp.concatenate([head(*vectors)[:, 0] for head in heads])

        slope, bend = jax.jit(jax.jacrev(value)), jax.jit(jax.hessian(value))
        value, h = jax.jit(value), 1e-5
        difference = (value(h) - value(-h)) / (2 * h)
        np.testing.assert_allclose(slope(0.0), difference, rtol=1e-6, atol=1e-9)
        difference = (slope(h) - slope(-h)) / (2 * h)
        np.testing.assert_allclose(bend(0.0), difference, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    "dtype", [jnp.float32, pytest.param(jnp.float16, marks=pytest.mark.slow)]
)
def test_angular_derivatives_are_finite_at_the_ends(dtype):
    ends = jnp.array([[1, 1], [1, -1], [-1, 1], [-1, -1], [0, 1], [1, 0.5]], dtype)
    labels = np.zeros(6, np.int32)

    def total(cosines, margins, multipliers, scale):
        return sum(
            jnp.sum(
                losses.cross_entropy(
                    losses.angular_margin_logits(
                        cosines,
                        labels,
                        margins=margins,
                        multipliers=chosen,
                        scale=scale,
                        monotone=monotone,
                    ),
                    labels,
                )
            )
            for monotone in (False, True)
            for chosen in (None, multipliers)
        )

    slope = jax.jit(jax.grad(total, argnums=(0, 1, 2, 3)))
    arguments = jnp.array([0.4, 0]), jnp.array([2.0, 1.0]), jnp.float32(64)
    got = slope(ends, *arguments)
    assert got[0].dtype == dtype
    chex.assert_tree_all_finite(got)
    # Rounding leads past the ends.
    chex.assert_tree_all_finite(slope(1.001 * ends, *arguments))
    if dtype == jnp.float32:
        # An entry of NaN makes the sum of its row NaN.
        ones = jnp.ones_like(ends)
        bend = jax.jit(lambda x: jax.jvp(lambda x: slope(x, *arguments), (x,), (ones,)))
        chex.assert_tree_all_finite(bend(ends))


def test_zero_features_have_cosine_0_and_gradient_0():
    dtype = jnp.bfloat16
    features = jnp.array([[0, 0, 0], [1, 2, 3]], dtype)

    def total(features, prototypes):
        cosines = losses.cosine_similarity(features, prototypes)
        loss = losses.l2_softmax(cosines, np.array([0, 1]), scale=16.0).sum()
        return loss, cosines

    prototypes = jnp.eye(3, dtype=dtype).at[2].set(0)
    slope = jax.jit(jax.grad(total, argnums=(0, 1), has_aux=True))
    (by_features, by_prototypes), cosines = slope(features, prototypes)
    assert jnp.all(cosines[0] == 0)
    assert jnp.all(by_features[0] == 0)
    assert jnp.any(by_features[1] != 0)
    assert jnp.all(by_prototypes[:, 2] == 0)
    chex.assert_tree_all_finite((by_features, by_prototypes))


def test_half_precision_only_stores_and_large_inputs_stay_finite():
    dtype = jnp.float16
    sizes = np.array([1e4, 1e3, 1e2, 1e-2, 1e-5, 0], np.float32)[:, None]
    signs = np.sign(scores_for(1)[0])
    logits = jnp.asarray(signs * sizes, dtype)
    cosines = jnp.asarray(signs * np.minimum(sizes, 1), dtype)
    labels = np.array([0, 1, 2, 3, 4, 0], np.int32)
    chosen = {name: LOSSES[name] for name in GENERAL}
    values, slopes = slopes_of(logits, cosines, labels, chosen)
    chex.assert_tree_all_finite((values, slopes))
    wide = [jnp.asarray(x, jnp.float32) for x in (logits, cosines)]
    expected = slopes_of(*wide, labels, LOSSES)
    chex.assert_tree_all_finite(expected)
    for name in GENERAL:
        np.testing.assert_allclose(values[name], expected[0][name], rtol=1e-5)
        assert values[name].dtype == jnp.float32
        assert slopes[name][0].dtype == dtype


def fuzzed(rng, num_rows, dtype):
    """Rows of every size a type has, of zeros, of its smallest, and with -inf."""
    info = jnp.finfo(dtype)
    top = min(30, np.log10(float(info.max)) - 0.5)
    sizes = 10.0 ** rng.uniform(-50, top, (num_rows, CLASSES))
    sizes[rng.uniform(size=sizes.shape) < 0.1] = 0
    sizes[rng.uniform(size=sizes.shape) < 0.1] = float(info.smallest_subnormal)
    logits = rng.choice([-1, 1], sizes.shape) * sizes
    labels = rng.integers(-1, CLASSES + 1, num_rows).astype(np.int32)
    ruled_out = rng.uniform(size=logits.shape) < 0.1
    ruled_out[np.arange(num_rows), np.clip(labels, 0, CLASSES - 1)] = False
    logits[ruled_out] = -np.inf
    cosines = rng.choice([-1, 1], sizes.shape) * np.minimum(sizes, 1)
    return jnp.asarray(logits, dtype), jnp.asarray(cosines, dtype), labels


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_a_hundred_thousand_rows_are_finite_with_finite_gradients(dtype):
    rng = np.random.default_rng(0)
    logits, cosines, labels = fuzzed(rng, 100_000, dtype)
    values, slopes = slopes_of(logits, cosines, labels, LOSSES)
    chex.assert_tree_all_finite([by_chosen for _, by_chosen in slopes.values()])
    known = (labels >= 0) & (labels < CLASSES)
    for name in LOSSES:
        assert np.all(np.isnan(np.asarray(values[name])) == ~known), name
        assert np.all(np.isfinite(np.asarray(values[name])[known])), name
        by_scores = np.asarray(slopes[name][0], np.float64)
        assert np.all(np.isfinite(by_scores)), name
        assert np.all(by_scores[~known] == 0), name
        if name != "wasserstein_with_integer_labels":  # its entropy is below 0
            assert np.all(np.asarray(values[name])[known] >= 0), name


# Labels.


def test_label_of_no_class_is_nan_and_disturbs_no_other():
    logits, cosines, labels = scores_for()
    bad = labels.copy()
    bad[[1, 4, 5]] = [CLASSES, -1, 2**30]
    wrong = np.isin(np.arange(BATCH), [1, 4, 5])
    clean, clean_slopes = slopes_of(logits, cosines, labels, LOSSES)
    # Whatever an example without a class has for scores, it changes no gradient.
    logits[1, 0] = logits[4, -1] = -np.inf
    values, slopes = slopes_of(logits, cosines, bad, LOSSES)
    chex.assert_tree_all_finite(slopes)
    for name in LOSSES:
        np.testing.assert_array_equal(np.isnan(values[name]), wrong)
        np.testing.assert_array_equal(values[name][~wrong], clean[name][~wrong])
        by_scores = slopes[name][0]
        np.testing.assert_array_equal(by_scores[~wrong], clean_slopes[name][0][~wrong])
        np.testing.assert_array_equal(by_scores[wrong], 0)


@pytest.mark.parametrize(
    "dtype", ["int8", "uint8", "int16", "int32", "uint32", "int64", "uint64"]
)
@pytest.mark.parametrize("wide", [False, True])
def test_labels_of_every_integer_type(dtype, wide):
    # 200 classes are more than int8 can count. Cut to 32 bits, 2**32 + 1 would be 1
    # and the largest number of 64 bits -1.
    limits = np.iinfo(dtype)
    wraps = 2**32 + 1 if dtype.endswith("64") else limits.max
    labels = [0, 100, limits.max, wraps, limits.min or limits.max]
    with jax.enable_x64(wide):
        got = losses.cross_entropy(
            np.zeros((5, 200), np.float32), np.array(labels, dtype)
        )
    known = [0 <= label < 200 for label in labels]
    np.testing.assert_allclose(got, np.where(known, np.log(200), np.nan), rtol=1e-6)


def test_angular_margin_logits_of_no_class_are_nan():
    options = {"margins": np.zeros(3, np.float32), "scale": 16}
    logits = jitted("angular_margin_logits")(SCORES, np.array([-1, 3]), **options)
    assert np.all(np.isnan(logits))


@pytest.mark.parametrize("rivals", [0, 3])
def test_without_rivals_there_is_nothing_to_lose(rivals):
    # A logit of -inf rules its class out.
    logits = np.full((2, 1 + rivals), -np.inf, np.float32)
    logits[:, 0] = 1.0

    def total(logits):
        labels = np.zeros(2, np.int32)
        # None is below 0, so that none of the sum is anything but 0 if that is 0.
        return (
            jnp.sum(losses.cross_entropy(logits, labels))
            + jnp.sum(losses.focal(logits, labels, gamma=0.0))
            + jnp.sum(losses.focal(logits, labels, gamma=2.0))
            + jnp.sum(losses.smoothed_cross_entropy(logits, labels, smoothing=0.5))
        )

    value, slope = jax.jit(jax.value_and_grad(total))(logits)
    assert value == 0
    np.testing.assert_array_equal(slope, np.zeros_like(logits))


def test_a_logit_of_minus_infinity_rules_its_class_out():
    def shorter(key, value):
        if key in BY_CLASS:
            return value[:-1]
        return value[:-1, :-1] if key in BY_TWO_CLASSES else value

    logits, cosines, labels = scores_for()
    labels = np.minimum(labels, CLASSES - 2)
    chosen = {name: LOSSES[name] for name in LOSSES if name not in COSINE_LOSSES}
    without = {
        name: {key: shorter(key, value) for key, value in own.items()}
        for name, own in chosen.items()
    }
    logits[:, -1] = -np.inf
    got, slopes = slopes_of(logits, cosines, labels, LOSSES)
    expected = values_of(logits[:, :-1], cosines, labels, without)
    for name in chosen:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-5)
        assert np.all(np.isfinite(slopes[name][0])), name
        np.testing.assert_array_equal(slopes[name][0][:, -1], 0)


def test_a_class_ruled_out_that_was_the_true_one_costs_infinitely_or_nothing():
    logits, cosines, _ = scores_for()
    labels = np.arange(BATCH, dtype=np.int32) % CLASSES
    logits[range(BATCH), labels] = -np.inf
    finite = {"wasserstein_with_integer_labels"}
    for size, expected in ((1, np.inf), (1e4, np.inf), (0, 0)):
        chosen = dict(LOSSES)
        for name in ("weighted_cross_entropy", "weighted_focal"):
            weights = np.float32(size) * LOSSES[name]["class_weights"]
            chosen[name] = LOSSES[name] | {"class_weights": weights}
        values, slopes = slopes_of(logits, cosines, labels, chosen)
        for name in set(LOSSES) - set(COSINE_LOSSES) - finite:
            weighted = name in ("weighted_cross_entropy", "weighted_focal")
            value = expected if weighted else np.inf
            np.testing.assert_array_equal(values[name], value)
            for slope in jax.tree.leaves(slopes[name]):
                assert not np.any(np.isnan(slope)), name
            # As for any logit so small: all that the others win is lost here.
            by_logits = np.asarray(slopes[name][0])
            own = by_logits[np.arange(BATCH), labels]
            assert np.all(own < 0 if value else own == 0), name
            assert np.all(np.isfinite(by_logits)), name


def test_a_row_all_of_minus_infinity_is_of_no_class():
    logits, cosines, labels = scores_for()
    expected, by_rest = slopes_of(logits, cosines, np.where(KEPT, labels, -1), LOSSES)
    logits[~KEPT] = -np.inf
    values, slopes = slopes_of(logits, cosines, labels, LOSSES)
    for name in set(LOSSES) - set(COSINE_LOSSES):
        np.testing.assert_array_equal(values[name], expected[name])
        chex.assert_trees_all_close(slopes[name], by_rest[name], rtol=1e-6)


# What is left out.

KEPT = np.array([True, False, True, True, False, False])


def test_what_is_left_out_costs_nothing_whatever_it_is():
    # The family is made of two functions, of which only the loss can leave out.
    names = [name for name in GENERAL if not name.startswith("family")]
    logits, cosines, labels = scores_for()
    padded = np.where(KEPT, labels, -1)
    expected, slopes = slopes_of(logits, cosines, padded, LOSSES)
    logits[~KEPT], cosines[~KEPT] = [[np.nan], [np.inf], [-1e38]], [[np.nan], [5], [-9]]
    labels[[1, 5]] = -1, 2**30
    chosen = {name: LOSSES[name] | {"where": KEPT} for name in names}
    values, by_kept = slopes_of(logits, cosines, labels, chosen)
    chex.assert_tree_all_finite((values, by_kept))
    for name in names:
        np.testing.assert_array_equal(values[name][~KEPT], 0, err_msg=name)
        np.testing.assert_array_equal(by_kept[name][0][~KEPT], 0, err_msg=name)
        # Scores and hyperparameters learn from what is kept alone.
        got, wanted = (
            (values[name][KEPT], by_kept[name]),
            (expected[name][KEPT], slopes[name]),
        )
        chex.assert_trees_all_close(got, wanted, rtol=1e-5, atol=1e-6)


def test_padding_is_left_out_as_optax_leaves_it_out():
    logits, cosines, labels = scores_for()
    padded = np.where(KEPT, labels, -1)
    np.testing.assert_allclose(
        losses.cross_entropy(logits, padded, where=KEPT),
        optax.softmax_cross_entropy_with_integer_labels(logits, padded, where=KEPT),
        rtol=1e-5,
        atol=1e-6,
    )
    # A class that is none among what counts is still told.
    padded[0] = -1
    got = losses.camri(cosines, padded, margins=ONES[[0] * 5], scale=9.0, where=KEPT)
    np.testing.assert_array_equal(np.isnan(got), np.arange(BATCH) == 0)


def test_transport_leaves_out_what_has_no_target():
    logits, _, labels = scores_for()
    targets = np.where(KEPT[:, None], np.eye(CLASSES)[labels], 0).astype(np.float32)
    options = {"cost_matrix": LOSSES["wasserstein_with_integer_labels"]["cost_matrix"]}
    logits[~KEPT] = np.nan
    targets[1] = np.nan

    def total(logits):
        values = losses.wasserstein(logits, targets, epsilon=0.5, where=KEPT, **options)
        return values.sum(), values

    slope, got = jax.grad(total, has_aux=True)(logits)
    alone = losses.wasserstein(logits[KEPT], targets[KEPT], epsilon=0.5, **options)
    np.testing.assert_allclose(got[KEPT], alone, rtol=1e-5)
    np.testing.assert_array_equal(got[~KEPT], 0)
    np.testing.assert_array_equal(slope[~KEPT], 0)
    assert np.any(slope[KEPT] != 0)


# Transformations.


def test_leading_axes_are_batches():
    logits, cosines, labels = scores_for()
    flat = values_of(logits, cosines, labels, LOSSES)
    folded = values_of(
        logits.reshape(2, 3, CLASSES),
        cosines.reshape(2, 3, CLASSES),
        labels.reshape(2, 3),
        {name: LOSSES[name] for name in GENERAL},
    )
    single = jax.eval_shape(every_loss, logits[0], cosines[0], labels[0])
    for name in GENERAL:
        np.testing.assert_allclose(
            folded[name].reshape(BATCH), flat[name], rtol=1e-6, err_msg=name
        )
        assert single[name].shape == ()


def test_a_grid_of_hyperparameters_is_one_program():
    scores = scores_for()
    grid = jax.tree.map(
        lambda x: np.stack([np.asarray(x, np.float32) * f for f in (0.5, 1, 1.25)]),
        {name: LOSSES[name] for name in GENERAL},
    )
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def loss(hyperparameters):
        return every_loss(*scores, hyperparameters)

    points = [jax.tree.map(lambda x, i=i: x[i], grid) for i in range(3)]
    one_by_one = [loss(point) for point in points]
    together = jax.jit(jax.vmap(loss))(grid)
    stacked = jax.tree.map(lambda *x: np.stack(x), *one_by_one)
    chex.assert_trees_all_close(together, stacked, rtol=1e-5, atol=1e-6)


def test_a_batch_on_a_mesh_of_explicit_axes_is_the_batch_on_one_device():
    uniform = np.full((BATCH, CLASSES), 1 / CLASSES, np.float32)
    ones = np.ones(CLASSES, np.float32)
    name = "real_world_weight_cross_entropy"

    def transport(logits, costs, targets):
        options = {"cost_matrix": costs, "epsilon": 0.5}
        return jnp.sum(losses.wasserstein(logits, targets, **options))

    @jax.jit
    def computed(logits, cosines, labels, targets):
        options = {"class_priors": ones, "least_recalls": ones, "rate": 0.1}
        return (
            every_slope(logits, cosines, labels, {name: LOSSES[name]}),
            losses.next_multipliers(ones, logits, labels, **options),
            jax.grad(transport, argnums=(0, 1))(logits, COSTS, targets),
        )

    batch = *scores_for(), uniform
    expected = computed(*batch)
    # As `jax.make_mesh` makes them unless told otherwise.
    with jax.set_mesh(jax.make_mesh((2,), ("batch",))):
        spread = jax.device_put(batch, PartitionSpec("batch"))
        got = computed(*spread)
        # What JAX cannot lay out it refuses before it compiles, which takes longest.
        values, _ = jax.eval_shape(every_slope, *spread[:3])
    assert {x.sharding.spec[0] for x in values.values()} == {"batch"}
    chex.assert_trees_all_close(got, expected, rtol=1e-5, atol=1e-6)


def test_classes_on_a_mesh_of_explicit_axes_are_the_classes_on_one_device():
    labels = np.arange(BATCH) % 4
    random = np.random.default_rng(0)
    features = random.normal(size=(BATCH, 3)).astype(np.float32)
    prototypes = random.normal(size=(3, 4)).astype(np.float32)
    options = {
        "camri": {"margins": MARGINS[:4], "scale": 16.0},
        "weighted_cross_entropy": {"class_weights": WEIGHTS[:4]},
        "smoothed_cross_entropy": {"smoothing": 0.2},
    }

    @jax.jit
    @jax.value_and_grad
    def total(prototypes):
        scores = losses.cosine_similarity(features, prototypes)
        return sum(
            jnp.sum(getattr(losses, name)(scores, labels, **own))
            for name, own in options.items()
        )

    expected = total(prototypes)
    with jax.set_mesh(jax.make_mesh((2,), ("class",))):
        spread = jax.device_put(prototypes, PartitionSpec(None, "class"))
        got = total(spread)
    assert got[1].sharding.spec[1] == "class"
    chex.assert_trees_all_close(got, expected, rtol=1e-5, atol=1e-6)


# Numbers that are whole are numbers.


@pytest.mark.parametrize("kind", [list, np.int64, np.uint64])
@pytest.mark.parametrize("name", ["cosface", "logit_adjusted_cross_entropy"])
def test_hyperparameters_may_be_whole_numbers_of_any_size(name, kind):
    loss, scores = getattr(losses, name), np.float32([[0.5, 0.2], [0.1, -0.3]])
    labels = np.array([0, 1])
    sign = 1 if kind is np.uint64 else -1

    def values(number):
        if name == "cosface":
            return loss(scores, labels, margin=number(sign * 2), scale=number(3))
        several = [number(sign * 3), number(0)]
        if kind is not list:
            several = np.array(several)
        return loss(scores, labels, class_priors=np.ones(2), offsets=several)

    whole = (lambda value: value) if kind is list else kind
    np.testing.assert_array_equal(values(whole), values(float))
    with jax.enable_x64(True):
        np.testing.assert_allclose(values(whole), values(float), rtol=1e-7)


def test_counts_of_more_than_32_bits_count():
    counts = [10**10, 1]
    got = losses.balanced_softmax(np.zeros(2, np.float32), 1, class_counts=counts)
    np.testing.assert_allclose(got, np.log(1e10), rtol=1e-6)


def test_what_is_not_a_number_is_no_cosine():
    # A head that diverged would else find every image orthogonal, and look sound.
    features, prototypes = np.float32([[np.nan, 1], [1, 0]]), np.eye(2, dtype="f")
    cosines = losses.cosine_similarity(features, prototypes)
    np.testing.assert_array_equal(cosines, [[np.nan, np.nan], [1, 0]])
    cosines = losses.cosine_similarity(features[1:], prototypes * [np.nan, 1])
    np.testing.assert_array_equal(cosines, [[np.nan, 0]])


def test_an_empty_batch_has_no_losses():
    for name, arguments in RIGHT.items():
        empty = {
            key: value[:0]
            for key, value in arguments.items()
            if key in ("logits", "cosines", "features", "labels", "targets")
        }
        whole = functools.partial(getattr(losses, name), **arguments | empty)
        size = 3 if name == "next_multipliers" else 0
        assert jax.eval_shape(whole).shape[0] == size, name


def test_without_jit_the_numbers_are_the_same():
    scores = scores_for()
    eager = every_loss(*scores, {"camri": LOSSES["camri"]})
    compiled = values_of(*scores, LOSSES)
    np.testing.assert_allclose(eager["camri"], compiled["camri"], rtol=1e-6)


@pytest.mark.parametrize("name", ["cross_entropy", "camri", "focal"])
def test_no_second_copy_of_the_logits(name):
    num_classes, batch = 2000, 64
    scores = jax.ShapeDtypeStruct((batch, num_classes), jnp.float32)
    labels = jax.ShapeDtypeStruct((batch,), jnp.int32)
    hyperparameters = dict(LOSSES[name])
    if "margins" in hyperparameters:
        hyperparameters["margins"] = np.zeros(num_classes, np.float32)
    loss = getattr(losses, name)
    total = jax.jit(jax.grad(lambda *scores: jnp.sum(loss(*scores, **hyperparameters))))
    compiled = total.lower(scores, labels).compile()
    # What is written besides the gradient itself.
    assert compiled.memory_analysis().temp_size_in_bytes < batch * num_classes * 4 / 4


# Cosines or logits.


def test_logits_where_cosines_belong_are_refused():
    logits = np.array([[0.5, 0.2, 0.1], [3.0, 0.0, 0.1], [-0.1, -2, -3]], np.float32)
    labels = np.array([0, 1, 2])
    takers = [name for name, arguments in RIGHT.items() if "cosines" in arguments]
    assert len(takers) == 8
    for name in takers:
        options = RIGHT[name] | {"cosines": logits, "labels": labels}
        with pytest.raises(UsageError, match=r"cosines must be in \[-1, 1\].*size 3"):
            getattr(losses, name)(**options)
        got = np.asarray(jitted(name)(**options))
        missing = np.isnan(got.reshape(3, -1)).all(axis=1)
        np.testing.assert_array_equal(missing, [False, True, True], err_msg=name)
    # What is left out may be anything.
    kept = np.array([True, False, False])
    got = losses.l2_softmax(logits, labels, scale=16.0, where=kept)
    np.testing.assert_array_equal(got > 0, kept)


@pytest.mark.parametrize("beyond", [1.0000002, 1.004])
def test_cosines_beyond_1_by_rounding_are_cosines(beyond):
    rounded = losses.l2_softmax(jnp.float32([beyond, 0.5]), 0, scale=16.0)
    np.testing.assert_allclose(
        rounded, losses.l2_softmax([1.0, 0.5], 0, scale=16.0), rtol=0.1
    )


# Kinds of number.


@pytest.mark.parametrize(
    "scalar",
    [
        16,
        16.0,
        np.int64(16),
        np.float64(16),
        np.float16(16),
        jnp.float32(16),
        np.array(16),
    ],
    ids=lambda x: type(x).__name__,
)
def test_a_number_of_any_make_is_a_hyperparameter(scalar):
    got = losses.l2_softmax([0.5, 0.5], np.int16(1), scale=scalar)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, np.log(2), rtol=1e-6)


SCORES, LABELS = np.zeros((2, 3), np.float32), np.zeros(2, np.int32)
ONES, SQUARE = np.ones(3, np.float32), np.ones((3, 3), np.float32)
BY_LOGITS = {"logits": SCORES, "labels": LABELS}
BY_COSINES = {"cosines": SCORES, "labels": LABELS, "scale": 1.0}
RIGHT = {
    "angular_margin_logits": BY_COSINES | {"margins": ONES},
    "arcface": BY_COSINES | {"margin": 0.1},
    "balanced_softmax": BY_LOGITS | {"class_counts": ONES},
    "camri": BY_COSINES | {"margins": ONES},
    "class_sensitive_cosface": BY_COSINES | {"cosine_margins": ONES},
    "cosface": BY_COSINES | {"margin": 0.1},
    "cosine_similarity": {"features": SCORES, "prototypes": SQUARE},
    "cross_entropy": BY_LOGITS,
    "focal": BY_LOGITS | {"gamma": 2.0},
    "l2_softmax": BY_COSINES,
    "ldam": BY_COSINES | {"class_counts": ONES, "margin": 0.5},
    "linear_logits": {"features": SCORES, "prototypes": SQUARE, "bias": ONES},
    "logit_adjusted_cross_entropy": BY_LOGITS | {"class_priors": ONES},
    "next_multipliers": BY_LOGITS
    | {
        "multipliers": ONES,
        "class_priors": ONES,
        "least_recalls": ONES,
        "rate": 0.1,
    },
    "recall_constrained_cross_entropy": BY_LOGITS
    | {"multipliers": ONES, "class_priors": ONES},
    "real_world_weight_cross_entropy": BY_LOGITS
    | {"false_negative_weights": ONES, "false_positive_weights": SQUARE},
    "smoothed_cross_entropy": BY_LOGITS | {"smoothing": 0.1},
    "sphereface": BY_COSINES | {"margin": 2.0},
    "wasserstein": {
        "logits": SCORES,
        "targets": np.full((2, 3), 1 / 3, np.float32),
        "cost_matrix": SQUARE,
        "epsilon": 1.0,
    },
    "wasserstein_with_integer_labels": BY_LOGITS
    | {"cost_matrix": SQUARE, "epsilon": 1.0},
    "weighted_cross_entropy": BY_LOGITS | {"class_weights": ONES},
    "weighted_focal": BY_LOGITS | {"class_weights": ONES, "gamma": 2.0},
}
ARGUMENTS = [
    (name, argument) for name, arguments in RIGHT.items() for argument in arguments
]


def test_every_loss_is_called_wrongly_here():
    assert set(RIGHT) == set(losses.__all__) - {"suggested_scale"}


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
@pytest.mark.parametrize("value", [{0: 1.0, 1: 4.0}, None, "4", [[1.0], [2.0, 3.0]]])
def test_what_is_no_array_of_numbers_is_refused_by_name(name, argument, value):
    if argument == "bias" and value is None:
        return
    with pytest.raises(TypeError, match=f"^{argument} must be "):
        getattr(losses, name)(**RIGHT[name] | {argument: value})


@pytest.mark.parametrize(
    ("name", "argument", "value", "message"),
    [
        ("cross_entropy", "labels", np.zeros(2), "must be integers, got float"),
        ("cross_entropy", "labels", np.zeros(2, bool), "must be integers, got bool"),
        ("cross_entropy", "logits", np.zeros((2, 3), int), "must be floating, got int"),
        ("arcface", "margin", True, "must be real numbers, got bool"),
        ("cosface", "margin", 1j, "must be real numbers, got complex"),
        ("camri", "where", np.ones(2), "must be booleans, got float"),
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
        ("weighted_focal", "class_weights", np.inf * ONES, "must be finite, got inf"),
        ("focal", "gamma", -1.0, "must be not below 0, got -1.0"),
        ("smoothed_cross_entropy", "smoothing", 1.5, "must be from 0 to 1, got 1.5"),
        ("balanced_softmax", "class_counts", [3, 0, 2], "must be above 0, got 0"),
        ("ldam", "class_counts", [3, 0, 2], "must be above 0, got 0"),
        ("next_multipliers", "least_recalls", 90 * ONES, "must be from 0 to 1, got 90"),
        ("next_multipliers", "rate", -1.0, "must be not below 0, got -1.0"),
        (
            "recall_constrained_cross_entropy",
            "multipliers",
            -ONES,
            "must be not below 0, got -1.0",
        ),
        ("logit_adjusted_cross_entropy", "class_priors", 0 * ONES, "must be above 0"),
        ("logit_adjusted_cross_entropy", "offsets", ONES[:2], "must have shape (3,)"),
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
        ("l2_softmax", "scale", np.nan, "must be above 0, got nan"),
        ("l2_softmax", "scale", np.inf, "must be finite, got inf"),
        ("l2_softmax", "scale", ONES, "must have shape (), got (3,)"),
        ("camri", "margins", 0.1, "must have shape (3,), got ()"),
        ("camri", "margins", 10 * ONES, "must be from 0 to pi, in radians, got 10.0"),
        ("angular_margin_logits", "multipliers", -ONES, "must be above 0, got -1.0"),
        ("arcface", "margin", -0.1, "must be from 0 to pi, in radians, got -0.1"),
        ("sphereface", "margin", 0, "must be above 0, got 0"),
        ("cosface", "margin", np.nan, "must be finite, got nan"),
        ("cosine_similarity", "prototypes", SCORES, "must have shape (3, 3)"),
        ("cross_entropy", "where", [True], "must have shape (2,), got (1,)"),
        ("wasserstein", "where", [True], "must have shape (2,), got (1,)"),
        ("linear_logits", "prototypes", ONES, "needs at least 2 axes"),
        ("linear_logits", "bias", SCORES, "must have shape (3,), got (2, 3)"),
        ("wasserstein_with_integer_labels", "epsilon", 0, "must be above 0, got 0"),
        ("wasserstein", "targets", SQUARE, "must have shape (2, 3), got (3, 3)"),
        ("wasserstein", "targets", -np.ones((2, 3)), "must be not below 0"),
        ("wasserstein", "cost_matrix", SCORES, "must have shape (3, 3), got (2, 3)"),
        ("wasserstein", "cost_matrix", np.inf * SQUARE, "must be finite, got inf"),
    ],
)
def test_wrong_values_are_named(name, argument, value, message):
    with pytest.raises(UsageError, match=re.escape(f"{argument} {message}")):
        getattr(losses, name)(**RIGHT[name] | {argument: value})


@pytest.mark.parametrize("num_classes", [2, -1, 10.0, True, None])
def test_a_scale_is_suggested_for_three_classes_or_more(num_classes):
    with pytest.raises(UsageError, match="num_classes must be "):
        losses.suggested_scale(num_classes)


def test_traced_hyperparameters_are_not_looked_at():
    arguments = RIGHT["arcface"] | {"scale": jnp.float32(-1)}
    chex.assert_tree_all_finite(jitted("arcface")(**arguments))
