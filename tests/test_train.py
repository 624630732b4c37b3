"""Laws of one trial: what a seed fixes, what a step does, what an evaluation counts."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from camri_jax.training import trial as train
from camri_jax.training.methods import METHODS
from camri_jax.training.recipe import Recipe, TrainConfig

IMAGES = jax.random.randint(jax.random.key(0), (40, 8, 8, 1), 0, 256).astype(jnp.uint8)
LABELS = jax.random.randint(jax.random.key(1), (40,), 0, 3)
RECIPE = Recipe(feature_dim=8, batch_size=8)
POINTS = {
    "cross_entropy": {},
    "weighted_cross_entropy": {"weight": 4.0},
    "real_world_weight_cross_entropy": {"weight": 4.0, "cost": 2.0},
    "wasserstein": {"cost": 2.0, "epsilon": 0.1},
    "l2_softmax": {"scale": 16.0},
    "arcface": {"scale": 16.0, "margin": 0.2},
    "camri": {"scale": 16.0, "margin": 0.2},
}


@pytest.fixture(autouse=True)
def _promotion_as_optax_needs_it():
    """Adam divides a float by an integer count, which strict promotion refuses."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def config(family="angular", **changes):
    recipe = Recipe(**{"feature_dim": 8, "batch_size": 8, **changes})
    return TrainConfig(family, num_classes=3, num_images=40, recipe=recipe)


def hyperparameters(method="camri"):
    return METHODS[method].hyperparameters(3, (1,), **POINTS[method])


@functools.lru_cache
def compiled(name, config):
    return jax.jit(functools.partial(getattr(train, name), config))


@functools.lru_cache
def initial(config, seed=0):
    return jax.jit(lambda seed: train.init(config, (8, 8, 1), seed))(np.int32(seed))


def epoch(config, state, hyperparameters=None):
    values = hyperparameters or globals()["hyperparameters"]()
    return compiled("train_epoch", config)(state, values, IMAGES, LABELS)


def test_methods_share_initial_weights_of_a_seed():
    linear = initial(config("weighted")).params
    cosine = initial(config("angular")).params
    head = linear["Head_0"]
    np.testing.assert_array_equal(head["bias"], 0.0)
    chex.assert_trees_all_equal(
        {**linear, "Head_0": {"prototypes": head["prototypes"]}}, dict(cosine)
    )
    other = initial(config("angular"), seed=1).params
    assert not np.allclose(cosine["Dense_0"]["kernel"], other["Dense_0"]["kernel"])


def test_an_epoch_takes_every_image_once_in_an_order_of_its_own(monkeypatch):
    """With one bit an image as its label, batches sum to all bits, each time anew."""
    seen = []

    def record(config, state, hyperparameters, images, labels):
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), labels, ordered=True)
        return state._replace(step=state.step + 1), jnp.float32(0)

    monkeypatch.setattr(train, "train_step", record)
    state = initial(config())
    for _ in range(2):
        state, _ = train.train_epoch(config(), state, {}, IMAGES, jnp.arange(40))
        jax.effects_barrier()
    first, second = np.split(np.concatenate(seen), 2)
    assert sorted(first) == sorted(second) == list(range(40))
    assert list(first) != list(second)
    assert [len(batch) for batch in seen] == [8] * 10


def test_a_step_is_a_step_down_the_gradient_of_the_mean_loss():
    """Plain SGD by hand, from the loss as a function of the weights alone."""
    setup = config(optimizer="sgd", learning_rate=0.1)
    state = initial(setup)
    step = compiled("train_step", setup)
    after, loss = step(state, hyperparameters(), IMAGES[:8], LABELS[:8])

    @jax.jit
    def loss_at(params):
        return train.train_step(
            setup,
            state._replace(params=params),
            hyperparameters(),
            IMAGES[:8],
            LABELS[:8],
        )[1]

    gradients = jax.grad(loss_at)(state.params)
    # The first step of Nesterov momentum 0.9 is 1.9 gradients long.
    expected = jax.tree.map(lambda p, g: p - 0.1 * 1.9 * g, state.params, gradients)
    chex.assert_trees_all_close(after.params, expected, rtol=1e-4, atol=1e-6)
    assert float(loss) == pytest.approx(float(loss_at(state.params)), rel=1e-5)
    assert int(after.step) == 1


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_training_lowers_the_loss_it_trains(optimizer):
    rate = 0.01 if optimizer == "sgd" else 1e-3
    setup = config(optimizer=optimizer, learning_rate=rate)
    state, first = epoch(setup, initial(setup))
    for _ in range(7):
        state, last = epoch(setup, state)
    assert float(last) < 0.8 * float(first)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_with_finite_weights(method):
    setup = config(METHODS[method].family)
    state, loss = epoch(setup, initial(setup), hyperparameters(method))
    chex.assert_tree_all_finite((state.params, state.batch_stats, loss))
    moved = jax.tree.map(
        lambda a, b: not np.array_equal(a, b), initial(setup).params, state.params
    )
    assert all(jax.tree.leaves(moved))


def test_the_cosine_schedule_ends_at_rest():
    setup = config(schedule="cosine", epochs=2)
    state, _ = epoch(setup, initial(setup))
    moved = _distance(state.params, initial(setup).params)
    state, _ = epoch(setup, state)
    at_end, _ = epoch(setup, state)
    assert _distance(at_end.params, state.params) < 1e-6 * moved


def _distance(a, b):
    return float(optax.tree.norm(jax.tree.map(jnp.subtract, a, b)))


def test_the_average_forgets_exponentially_and_is_what_is_evaluated():
    setup = config(ema_decay=0.75)
    state = initial(setup)
    step = compiled("train_step", setup)
    expected = jax.tree.map(np.float64, state.params)
    for start in (0, 8, 16):
        batch = slice(start, start + 8)
        state, _ = step(state, hyperparameters(), IMAGES[batch], LABELS[batch])
        expected = jax.tree.map(
            lambda mean, new: 0.75 * mean + 0.25 * np.float64(new),
            expected,
            state.params,
        )
    chex.assert_trees_all_close(
        state.average[0], jax.tree.map(np.float32, expected), rtol=1e-5, atol=1e-6
    )
    predict = compiled("predict", setup)
    of_average = predict(train.evaluated_variables(state), IMAGES).features
    params, batch_stats = state.average
    averaged = {"params": params, "batch_stats": batch_stats}
    chex.assert_trees_all_close(of_average, predict(averaged, IMAGES).features)
    raw = {"params": state.params, "batch_stats": state.batch_stats}
    assert not np.allclose(of_average, predict(raw, IMAGES).features)


@pytest.mark.parametrize("num_images", [1, 40, 300])
def test_predictions_do_not_depend_on_the_batches(num_images):
    setup, state = config(), initial(config())
    images = jnp.tile(IMAGES, (8, 1, 1, 1))[:num_images]
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    whole = setup.network.apply(variables, images, train=False)
    chex.assert_trees_all_close(
        compiled("predict", setup)(variables, images), whole, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("method", ["cross_entropy", "camri"])
def test_an_evaluation_counts_what_loops_count(method):
    setup = config(METHODS[method].family)
    state = initial(setup)
    constants = jnp.array([-2.0, -0.5, 0.0, 0.5, 2.0])
    masks = jnp.array([[False, True, False], [True, False, True]])
    result = compiled("evaluate", setup)(
        state, hyperparameters(method), masks, constants, IMAGES, LABELS
    )
    outputs = jax.tree.map(
        np.float64, train.predict(setup, train.evaluated_variables(state), IMAGES)
    )
    features, prototypes = outputs.features, outputs.prototypes
    logits = features @ prototypes
    lengths = np.linalg.norm(features, axis=1)[:, None] * np.linalg.norm(
        prototypes, axis=0
    )
    logits = logits if method == "cross_entropy" else 16.0 * logits / lengths
    for mask, curve in zip(masks, result.curves, strict=True):
        for constant, confusion in zip(constants, curve, strict=True):
            expected = np.zeros((3, 3), int)
            for label, row in zip(LABELS, logits, strict=True):
                expected[label, np.argmax(row + float(constant) * np.array(mask))] += 1
            np.testing.assert_array_equal(confusion, expected)
    np.testing.assert_array_equal(result.confusion, result.curves[0, 2])
    angles = np.arccos((features @ prototypes) / lengths)
    for k in range(3):
        own = angles[np.array(LABELS) == k, k]
        np.testing.assert_allclose(result.angle_mean[k], own.mean(), rtol=1e-4)
        np.testing.assert_allclose(result.angle_std[k], own.std(), rtol=1e-3)
    assert not result.diverged


def test_common_random_numbers_do_not_depend_on_the_method():
    """CAMRI at margin 0 is L2-softmax: the same seed gives the same training."""
    setup = config()
    at_zero = METHODS["camri"].hyperparameters(3, (1,), margin=0.0, scale=16.0)
    states = [
        epoch(setup, initial(setup), values)[0].params
        for values in (at_zero, hyperparameters("l2_softmax"))
    ]
    chex.assert_trees_all_equal(*states)


def test_a_trial_in_many_is_the_trial_alone_and_a_diverged_one_disturbs_none():
    # SGD: Adam makes steps of full length from the last digits of a zero gradient.
    setup = config(optimizer="sgd", learning_rate=0.01)
    scales = np.array([16.0, np.nan, 4.0], np.float32)
    points = [
        METHODS["camri"].hyperparameters(3, (1,), margin=0.2, scale=scale)
        for scale in (16.0, 1.0, 4.0)
    ]
    values = jax.tree.map(lambda *x: jnp.stack(x), *points) | {"scale": scales}
    states = jax.tree.map(
        lambda *x: jnp.stack(x), *(initial(setup, s) for s in (0, 1, 2))
    )
    axes = (0, 0, None, None)
    together, _ = jax.jit(jax.vmap(functools.partial(train.train_epoch, setup), axes))(
        states, values, IMAGES, LABELS
    )
    for i, seed in ((0, 0), (2, 2)):
        alone, _ = epoch(setup, initial(setup, seed), points[i])
        one = jax.tree.map(lambda x, i=i: x[i], together)
        chex.assert_trees_all_close(one.params, alone.params, rtol=1e-3, atol=1e-4)
    masks, constants = jnp.ones((3, 1, 3), bool), jnp.zeros(1)
    evaluations = jax.jit(
        jax.vmap(functools.partial(train.evaluate, setup), (0, 0, 0, None, None, None))
    )(together, values, masks, constants, IMAGES, LABELS)
    assert evaluations.diverged.tolist() == [False, True, False]


def test_one_trace_serves_the_whole_grid_of_a_family():
    setup = config()
    traced = jax.jit(
        chex.assert_max_traces(n=1)(lambda *trial: train.train_epoch(setup, *trial))
    )
    for method in ("l2_softmax", "arcface", "camri"):
        for important in ((0,), (1,), (0, 2)):
            for margin in (0.0, 0.1):
                point = {**POINTS[method], "scale": 2.0 + margin}
                if method != "l2_softmax":
                    point["margin"] = margin
                values = METHODS[method].hyperparameters(3, important, **point)
                traced(initial(setup), values, IMAGES, LABELS)


def test_augmentation_changes_training_and_follows_the_seed():
    setups = [config(), config(augment_pad=2, augment_flip=True)]
    plain, augmented, again = (
        epoch(setup, initial(setups[0]))[0].params for setup in [*setups, setups[1]]
    )
    chex.assert_trees_all_equal(augmented, again)
    assert _distance(plain, augmented) > 1e-4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "huge"}, "model must be one of paper, small, got 'huge'"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 1}, "batch_size must be at least 2, got 1"),
        ({"feature_dim": 1}, "feature_dim must be at least 2, got 1"),
        ({"augment_pad": -1}, "augment_pad must be at least 0, got -1"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0, got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0, got nan"),
        ({"ema_decay": 1.0}, r"ema_decay must be in \[0, 1\), got 1.0"),
        (
            {"optimizer": "lion"},
            "optimizer must be one of adam, adamw, sgd, got 'lion'",
        ),
        ({"schedule": "step"}, "schedule must be one of constant, cosine, got 'step'"),
    ],
)
def test_a_wrong_recipe_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**changes)


def test_a_batch_larger_than_the_data_is_named():
    with pytest.raises(ValueError, match=r"batch_size must be at most .* 40, got 64"):
        TrainConfig("angular", num_classes=3, num_images=40)
