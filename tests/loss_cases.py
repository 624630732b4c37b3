"""Every loss with hyperparameters like the papers', in one program for many laws."""

import functools

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
COUNTS = np.array([100, 3, 40, 7, 1], np.int32)
MARGINS = np.array([0, 0.4, 0, 0.1, 0], np.float32)
COSINE_MARGINS = np.array([0.2, 0.1, 0, -0.1, 0], np.float32)
MULTIPLIERS = np.array([1, 2.5, 0.5, 1, 3], np.float32)
ZEROS, ONES = np.zeros(CLASSES, np.float32), np.ones(CLASSES, np.float32)
NO_COSTS = np.zeros((CLASSES, CLASSES), np.float32)
LOGIT_LOSSES = {
    "cross_entropy": {},
    "weighted_cross_entropy": {"class_weights": WEIGHTS},
    "real_world_weight_cross_entropy": {
        "false_negative_weights": WEIGHTS,
        "false_positive_weights": COSTS,
    },
    "wasserstein_with_integer_labels": {"cost_matrix": COSTS, "epsilon": 0.25},
    "focal": {"gamma": 2.0},
    "weighted_focal": {"class_weights": WEIGHTS, "gamma": 0.5},
    "smoothed_cross_entropy": {"smoothing": 0.2},
    "logit_adjusted_cross_entropy": {
        "class_priors": COUNTS / np.float32(151),
        "strength": 1.5,
        "offsets": MARGINS,
    },
    "balanced_softmax": {"class_counts": COUNTS},
    "recall_constrained_cross_entropy": {
        "multipliers": MARGINS,
        "class_priors": COUNTS / np.float32(151),
    },
}
COSINE_LOSSES = {
    "l2_softmax": {"scale": 16.0},
    "arcface": {"margin": 0.3, "scale": 16.0},
    "camri": {"margins": MARGINS, "scale": 16.0},
    "camri/monotone": {"margins": MARGINS, "scale": 16.0},
    "cosface": {"margin": 0.35, "scale": 16.0},
    "class_sensitive_cosface": {"cosine_margins": COSINE_MARGINS, "scale": 16.0},
    "ldam": {"class_counts": COUNTS, "margin": 0.5, "scale": 16.0},
    "sphereface": {"margin": 2.5, "scale": 16.0},
    "family": {
        "margins": MARGINS,
        "scale": 16.0,
        "multipliers": MULTIPLIERS,
        "cosine_margins": COSINE_MARGINS,
    },
    "family/monotone": {
        "margins": MARGINS,
        "scale": 16.0,
        "multipliers": MULTIPLIERS,
        "cosine_margins": COSINE_MARGINS,
    },
}
LOSSES = LOGIT_LOSSES | COSINE_LOSSES
# Those that no others are special cases of: what is slow to compile tests them alone.
GENERAL = [
    "real_world_weight_cross_entropy",
    "wasserstein_with_integer_labels",
    "weighted_focal",
    "smoothed_cross_entropy",
    "logit_adjusted_cross_entropy",
    "camri",
    "camri/monotone",
    "family",
    "family/monotone",
]
# Where each is the cross-entropy of its logits, or of its cosines times the scale.
NEUTRAL = {
    "weighted_cross_entropy": {"class_weights": ONES},
    "real_world_weight_cross_entropy": {
        "false_negative_weights": ONES,
        "false_positive_weights": NO_COSTS,
    },
    "focal": {"gamma": 0.0},
    "weighted_focal": {"class_weights": ONES, "gamma": 0.0},
    "smoothed_cross_entropy": {"smoothing": 0.0},
    "logit_adjusted_cross_entropy": {"strength": 0.0, "offsets": ZEROS},
    "balanced_softmax": {"class_counts": np.full(CLASSES, 9, np.int32)},
    "recall_constrained_cross_entropy": {"multipliers": ZEROS},
    "arcface": {"margin": 0.0},
    "camri": {"margins": ZEROS},
    "camri/monotone": {"margins": ZEROS},
    "cosface": {"margin": 0.0},
    "class_sensitive_cosface": {"cosine_margins": ZEROS},
    "ldam": {"margin": 0.0},
    "sphereface": {"margin": 1.0},
    "family": {"margins": ZEROS, "multipliers": ONES, "cosine_margins": ZEROS},
    "family/monotone": {"margins": ZEROS, "multipliers": ONES, "cosine_margins": ZEROS},
}
BY_CLASS = {
    "class_counts",
    "class_priors",
    "class_weights",
    "cosine_margins",
    "false_negative_weights",
    "margins",
    "multipliers",
    "offsets",
}
BY_TWO_CLASSES = {"false_positive_weights", "cost_matrix"}


def loss_of(name):
    """The loss of a case, with what cannot be traced filled in."""
    name, *monotone = name.split("/")
    loss = family if name == "family" else getattr(losses, name)
    return functools.partial(loss, monotone=True) if monotone else loss


def family(cosines, labels, *, monotone=False, where=None, **hyperparameters):
    logits = losses.angular_margin_logits(
        cosines, labels, monotone=monotone, **hyperparameters
    )
    return losses.cross_entropy(logits, labels, where=where)


def every_loss(logits, cosines, labels, hyperparameters=LOSSES):
    """Returns `{case: losses}`."""
    return {
        name: loss_of(name)(
            cosines if name in COSINE_LOSSES else logits, labels, **chosen
        )
        for name, chosen in hyperparameters.items()
    }


def every_slope(logits, cosines, labels, hyperparameters=LOSSES):
    """Returns `{case: losses}` and `{case: (slope by scores, by hyperparameters)}`."""

    def slopes(name):
        def total(scores, chosen):
            values = loss_of(name)(scores, labels, **chosen | whole)
            return jnp.sum(values), values

        chosen = hyperparameters[name]
        whole = {k: v for k, v in chosen.items() if k in ("class_counts", "where")}
        scores = cosines if name in COSINE_LOSSES else logits
        real = {k: v for k, v in chosen.items() if k not in whole}
        return jax.grad(total, argnums=(0, 1), has_aux=True)(scores, real)

    found = {name: slopes(name) for name in hyperparameters}
    return (
        {name: values for name, (_, values) in found.items()},
        {name: slope for name, (slope, _) in found.items()},
    )


def ended(function):
    """Waits: a call on a CPU reads arrays where they lie, and tests change them."""
    return lambda *given: jax.block_until_ready(function(*given))


values_of = ended(jax.jit(every_loss))
slopes_of = ended(jax.jit(every_slope))


@functools.cache
def jitted(name):
    """One public function on its own."""
    static = (
        ("monotone",) if name in {"arcface", "camri", "angular_margin_logits"} else ()
    )
    return jax.jit(getattr(losses, name), static_argnames=static)


def scores_for(seed=0, size=3.0):
    """Logits, cosines and labels of a batch."""
    rng = np.random.default_rng(seed)
    logits = size * rng.normal(size=(BATCH, CLASSES))
    cosines = rng.uniform(-0.95, 0.95, (BATCH, CLASSES))
    labels = rng.integers(0, CLASSES, BATCH).astype(np.int32)
    return logits.astype(np.float32), cosines.astype(np.float32), labels
