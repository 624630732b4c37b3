"""Laws of the fast recipe as a whole: what trains, and how well."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from camri_jax import datasets
from camri_jax._files import UsageError
from camri_jax.training import trial
from camri_jax.training.methods import METHODS, Problem, hyperparameters
from camri_jax.training.network import fast
from camri_jax.training.recipe import Recipe, TrainConfig

IMAGES = jax.random.randint(jax.random.key(0), (24, 8, 8, 1), 0, 256).astype(jnp.uint8)
LABELS = jax.random.randint(jax.random.key(1), (24,), 0, 3)

pytestmark = pytest.mark.usefixtures("promotion_as_optax_needs_it")


def _config(recipe, *, widths=(6, 8), num_classes=3, num_images=24, **options):
    return TrainConfig.of(
        METHODS["camri"],
        num_classes=num_classes,
        num_images=num_images,
        recipe=recipe,
        backbone=fast(widths=widths, **options),
    )


def _arrays(num_classes=3):
    problem = Problem(num_classes, (1,), (1,) * num_classes)
    return hyperparameters("camri", problem, {"margin": 0.2, "scale": 16.0})


def _compiled(name, config):
    # The tests' own options make programs that compile fast and run slowly.
    return jax.jit(
        functools.partial(getattr(trial, name), config),
        compiler_options={"xla_backend_optimization_level": 1},
    )


def test_a_whitening_stays_while_all_else_trains():
    config = _config(Recipe.fast(epochs=2, batch_size=8))
    first = _compiled("init", config)(IMAGES, jnp.int32(0))
    step = _compiled("train_step", config)
    after, _ = step(first, _arrays(), IMAGES[:8], LABELS[:8])
    chex.assert_trees_all_equal(
        after.collections["constants"], first.collections["constants"]
    )
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), after.params, first.params)
    assert all(jax.tree.leaves(moved))


def test_slow_weights_that_never_move_are_refused():
    with pytest.raises(UsageError, match="below the number of steps, 3, got 5"):
        _config(Recipe.fast(epochs=1, batch_size=8))


@pytest.mark.slow
def test_a_few_epochs_learn_digits():
    parts = datasets.load("digits").parts
    train, test = parts["train"], parts["test"]
    changes = {"learning_rate": 0.1, "augment_shift": 1, "augment_flip": "none"}
    recipe = Recipe.fast(epochs=5, batch_size=32, **changes)
    config = _config(
        recipe,
        widths=(16, 64),
        num_classes=10,
        num_images=len(train.labels),
        convolution="lax",
    )
    images, labels = jnp.asarray(train.images), jnp.asarray(train.labels)
    state, arrays = _compiled("init", config)(images, jnp.int32(0)), _arrays(10)
    shuffle, step, score = (
        _compiled(name, config) for name in ("shuffle", "train_batch", "score")
    )
    for _ in range(recipe.epochs):
        order = shuffle(state)
        for _ in range(config.num_batches):
            state, _ = step(state, arrays, order, images, labels)
    scored = score(state, arrays, jnp.asarray(test.images), jnp.asarray(test.labels))
    assert (np.asarray(scored.logits).argmax(-1) == test.labels).mean() > 0.96
