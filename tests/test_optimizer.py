"""Laws of the optimizer: the update rule as plain loops, and what each part does."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from camri_jax._files import UsageError
from camri_jax.training.methods import METHODS
from camri_jax.training.optimizer import learning_rate, optimizer
from camri_jax.training.recipe import Recipe, TrainConfig

pytestmark = pytest.mark.usefixtures("promotion_as_optax_needs_it")


PARAMS = {
    "backbone": {
        "BatchNorm_0": {"bias": jnp.array([0.3, -0.4])},
        "Conv_0": {"kernel": jnp.array([1.0, -2.0, 0.5])},
        "whitening": {"bias": jnp.array([0.2])},
    },
    "classes": {"bias": jnp.array([0.1]), "prototypes": jnp.array([-0.7, 0.9])},
}


def _train(recipe, gradient, num_batches):
    """Takes all steps of a recipe, and returns the weights after each."""
    config = TrainConfig.of(
        METHODS["camri"],
        num_classes=3,
        num_images=num_batches * recipe.batch_size,
        recipe=recipe,
    )
    rule, params, path = optimizer(config), PARAMS, []
    state = rule.init(params)

    @jax.jit
    def step(params, state):
        updates, state = rule.update(jax.tree.map(gradient, params), state, params)
        return jax.tree.map(jnp.add, params, updates), state

    for _ in range(recipe.epochs * num_batches):
        params, state = step(params, state)
        path.append(params)
    return path


def _by_hand(recipe, gradient, num_batches):
    """The same in float64, one number after another."""
    steps = recipe.epochs * num_batches
    rate = np.asarray(jax.vmap(learning_rate(recipe, steps))(jnp.arange(steps)))
    ends = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(PARAMS):
        names = [entry.key for entry in path]
        factor = recipe.norm_bias_rate if "BatchNorm_0" in names else 1.0
        for i, start in enumerate(np.asarray(leaf, np.float64)):
            p = slow = start
            momentum = first = second = 0.0
            for n in range(steps):
                g = gradient(p)
                if recipe.optimizer == "sgd":
                    momentum = recipe.momentum * momentum + g
                    direction = g + recipe.momentum * momentum
                else:
                    first, second = 0.9 * first + 0.1 * g, 0.999 * second + 1e-3 * g**2
                    unbiased = first / (1 - 0.9 ** (n + 1))
                    spread = np.sqrt(second / (1 - 0.999 ** (n + 1)))
                    direction = unbiased / (spread + 1e-7)
                if not ("whitening" in names and n >= 3 * num_batches):
                    p -= rate[n] * (factor * direction + recipe.weight_decay * p)
                if recipe.lookahead and (
                    (n + 1) % recipe.lookahead == 0 or n + 1 == steps
                ):
                    past = 0.95**5 * ((n + 1) / steps) ** 3 if n + 1 < steps else 1.0
                    p = slow = past * slow + (1 - past) * p
            ends[(*names, i)] = p
    return ends


@pytest.mark.parametrize(
    "fields",
    [
        {"optimizer": "adam"},
        {"optimizer": "adam", "weight_decay": 0.1, "schedule": "cosine"},
        {"optimizer": "adam", "norm_bias_rate": 5.0, "lookahead": 1},
        {"optimizer": "sgd", "weight_decay": 0.1, "lookahead": 3},
        {"optimizer": "sgd", "norm_bias_rate": 5.0, "schedule": "triangle"},
    ],
)
def test_the_rule_is_what_its_formula_says(fields):
    recipe = Recipe(batch_size=2, momentum=0.8, learning_rate=0.05, epochs=4, **fields)

    def gradient(p):
        return 2.0 * p + 0.3 * p * p

    end = _train(recipe, gradient, 2)[-1]
    for names, expected in _by_hand(recipe, gradient, 2).items():
        *path, i = names
        leaf = end
        for name in path:
            leaf = leaf[name]
        np.testing.assert_allclose(float(leaf[i]), expected, rtol=1e-4, atol=1e-5)


def test_heads_have_a_decay_of_their_data():
    """20 features and 40 images drawn: 20 * 20 / 40."""
    params = {"classes": {"bias": jnp.ones(3), "prototypes": jnp.ones((20, 3))}}
    moved = []
    for decay in (None, 10.0):
        recipe = Recipe.heads(batch_size=4, resample=40, weight_decay=decay)
        config = TrainConfig.of(
            METHODS["cross_entropy"], num_classes=3, num_images=90, recipe=recipe
        )
        rule = optimizer(config)
        zeros = jax.tree.map(jnp.zeros_like, params)
        moved.append(rule.update(zeros, rule.init(params), params)[0])
    chex.assert_trees_all_close(*moved, rtol=1e-6)
    np.testing.assert_allclose(moved[0]["classes"]["bias"], -0.01 * 10, rtol=1e-6)


def test_a_clipped_step_is_as_long_whatever_the_loss_is_multiplied_by():
    recipe = Recipe(optimizer="sgd", batch_size=2, epochs=3, clip_norm=0.01)
    far = Recipe(optimizer="sgd", batch_size=2, epochs=3, clip_norm=1e9)
    none = Recipe(optimizer="sgd", batch_size=2, epochs=3)

    def ends(recipe, factor):
        return _train(recipe, lambda p: factor * (p + 1.0), 2)[-1]

    chex.assert_trees_all_close(ends(recipe, 1.0), ends(recipe, 100.0), rtol=1e-5)
    chex.assert_trees_all_close(ends(far, 1.0), ends(none, 1.0), rtol=1e-6)
    start, first = PARAMS, _train(recipe, lambda p: p + 1.0, 2)[0]
    step = optax.tree.norm(jax.tree.map(jnp.subtract, start, first))
    # Nesterov's first direction is 1 + momentum times the gradient.
    np.testing.assert_allclose(step, 1e-3 * 0.01 * 1.9, rtol=1e-2)


def test_a_triangle_rises_straight_to_its_peak_and_falls_straight_from_it():
    recipe = Recipe(learning_rate=2.0, schedule="triangle")
    rate = np.asarray(learning_rate(recipe, 1000)(jnp.arange(1001)))
    assert rate.argmax() == 230
    np.testing.assert_allclose(rate[[0, 230, 1000]], [0.4, 2.0, 0.14], rtol=1e-5)
    np.testing.assert_allclose(np.diff(rate[:231], 2), 0.0, atol=1e-5)
    np.testing.assert_allclose(np.diff(rate[230:], 2), 0.0, atol=1e-5)


def test_the_bias_of_a_whitening_rests_after_three_epochs():
    recipe = Recipe.fast(epochs=5, batch_size=2, lookahead=0)
    path = [
        each["backbone"]["whitening"]["bias"]
        for each in _train(recipe, lambda p: p + 1.0, 2)
    ]
    assert len({float(bias[0]) for bias in path[:6]}) == 6
    assert len({float(bias[0]) for bias in path[5:]}) == 1


def test_the_fast_recipe_takes_changes():
    recipe = Recipe.fast(epochs=2)
    assert recipe.network == "fast"
    assert recipe == dataclasses.replace(Recipe.fast(), epochs=2)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("momentum", 1.0, r"momentum must be in \[0, 1\), got 1.0"),
        ("weight_decay", -0.1, "weight_decay must be at least 0, got -0.1"),
        ("weight_decay", float("nan"), "weight_decay must be at least 0, got nan"),
        ("weight_decay", None, "weight_decay must be at least 0, got None"),
        ("norm_bias_rate", 0.0, "norm_bias_rate must be above 0, got 0.0"),
        ("lookahead", -1, "lookahead must be at least 0, got -1"),
        ("schedule", "square", "schedule must be one of constant, cosine, triangle"),
    ],
)
def test_fields_out_of_range_are_named(field, value, message):
    with pytest.raises(UsageError, match=message):
        Recipe(**{field: value})
