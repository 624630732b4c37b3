"""The losses with hyperparameters like the paper's, for one law over many losses."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np

from camri_jax import losses

BATCH, CLASSES = 6, 5
# As the paper has them: one class matters more than the others, one cost is not
# symmetric, so that no test passes with an index turned round.
WEIGHTS = np.array([1, 4, 1, 1, 2], np.float32)
COSTS = np.array(
    [
        [9, 3, 1, 1, 2],
        [2, 9, 2, 3, 2],
        [1, 2, 9, 1, 1],
        [1, 2, 1, 9, 0],
        [1, 2, 1, 4, 9],
    ],
    np.float32,
)
MARGINS = np.array([0, 0.4, 0, 0.1, 0], np.float32)
LOGIT_LOSSES = {
    "cross_entropy": {},
    "weighted_cross_entropy": {"class_weights": WEIGHTS},
    "real_world_weight_cross_entropy": {
        "false_negative_weights": WEIGHTS,
        "false_positive_weights": COSTS,
    },
    "wasserstein_with_integer_labels": {"cost_matrix": COSTS, "epsilon": 0.25},
}
COSINE_LOSSES = {
    "l2_softmax": {"scale": 16.0},
    "arcface": {"margin": 0.3, "scale": 16.0},
    "camri": {"margins": MARGINS, "scale": 16.0},
}
LOSSES = LOGIT_LOSSES | COSINE_LOSSES
BY_CLASS = {"class_weights", "false_negative_weights", "margins"}
BY_TWO_CLASSES = {"false_positive_weights", "cost_matrix"}


@functools.cache
def jitted(name):
    loss = getattr(losses, name)
    takes_monotone = "monotone" in inspect.signature(loss).parameters
    return jax.jit(loss, static_argnames=("monotone",) if takes_monotone else ())


@functools.cache
def gradient(name):
    def total(scores, labels, hyperparameters):
        return jnp.sum(getattr(losses, name)(scores, labels, **hyperparameters))

    return jax.jit(jax.grad(total, argnums=(0, 2)))


def scores_for(name, seed=0, size=3.0):
    rng = np.random.default_rng(seed)
    if name in COSINE_LOSSES:
        scores = rng.uniform(-0.95, 0.95, (BATCH, CLASSES))
    else:
        scores = rng.normal(size=(BATCH, CLASSES)) * size
    return scores.astype(np.float32), rng.integers(0, CLASSES, BATCH)
