"""Losses for classes that must not be missed: one value per example.

| loss | on the true class t | beside cross-entropy |
|---|---|---|
| `cross_entropy` | -log h_t | |
| `weighted_cross_entropy` | -w_t log h_t | at w = 1 |
| `real_world_weight_cross_entropy` | and for all other shares | at c = 1, C = 0 |
| `wasserstein` | entropic transport to a target distribution | |
| `wasserstein_with_integer_labels` | the same for labels, in closed form | |
| `focal`, `weighted_focal` | -w_t (1 - h_t)^gamma log h_t | at gamma = 0, w = 1 |
| `smoothed_cross_entropy` | a part alpha of the label on all classes | at alpha = 0 |
| `logit_adjusted_cross_entropy` | z + tau log pi - offset | at tau = 0, offset = 0 |
| `balanced_softmax` | z + log n | at equal n |
| `recall_constrained_cross_entropy` | -(1 + lambda_t / pi_t) log h_t | at lambda = 0 |
| `l2_softmax` | s cos(theta) | of cosines times s |
| `camri`, `arcface` | s cos(theta + m), by class or for all | `l2_softmax` at m = 0 |
| `class_sensitive_cosface`, `cosface` | s (cos(theta) - m), the same | at m = 0 |
| `ldam` | s (cos(theta) - m (min n / n_t)^(1/4)) | at m = 0 |
| `sphereface` | s cos(m theta) | at m = 1 |

h is the softmax of the logits z. Angular losses take cosines (`cosine_similarity`), the
others logits (`linear_logits`); `angular_margin_logits` is the family behind the
angular ones, and every margin in it may differ by class. `next_multipliers` learns the
lambda of `recall_constrained_cross_entropy` from batch to batch.

Scores are `[..., num_classes]`, labels `[...]`, losses `[...]`: the caller reduces.
Hyperparameters are arrays like any other: `jit`, `vmap` and `grad` go through them, and
they may change from step to step, as margins that `camri_jax.penalties.warm_up` grows.
A batch may lie over the devices of a mesh, whether its axes are Auto or Explicit.
Computed in float32 or better, with finite gradients; second derivatives, as by
`jax.hessian`, are right too, for `wasserstein` as far as
`camri_jax.sinkhorn.sinkhorn` says. A logit of -inf rules its class out: the loss of
that class's examples is infinite, or 0 where their weight is, and its gradient that of
any such small logit. A label outside the classes has loss NaN and gradient 0, as has a
row all of -inf. `where` leaves examples out, whatever their scores and labels hold, as
-1 for padding: their loss and gradient are 0.

>>> import jax.numpy as jnp
>>> from camri_jax import losses
>>> labels = jnp.array([1, -1])
>>> losses.cross_entropy(jnp.zeros((2, 2)), labels, where=labels >= 0)
Array([0.6931472, 0.       ], dtype=float32)

Labels of 64 bits are looked at before JAX cuts them to 32: a label of 2**32 + 1 is no
class. An argument of a jitted function is cut before this library sees it.
"""

from camri_jax.losses._angular import (
    angular_margin_logits,
    arcface,
    camri,
    class_sensitive_cosface,
    cosface,
    l2_softmax,
    ldam,
    sphereface,
    suggested_scale,
)
from camri_jax.losses._constraint import (
    next_multipliers,
    recall_constrained_cross_entropy,
)
from camri_jax.losses._cosines import cosine_similarity, linear_logits
from camri_jax.losses._cross_entropies import (
    balanced_softmax,
    cross_entropy,
    focal,
    logit_adjusted_cross_entropy,
    real_world_weight_cross_entropy,
    smoothed_cross_entropy,
    weighted_cross_entropy,
    weighted_focal,
)
from camri_jax.losses._wasserstein import wasserstein, wasserstein_with_integer_labels

__all__ = [
    "angular_margin_logits",
    "arcface",
    "balanced_softmax",
    "camri",
    "class_sensitive_cosface",
    "cosface",
    "cosine_similarity",
    "cross_entropy",
    "focal",
    "l2_softmax",
    "ldam",
    "linear_logits",
    "logit_adjusted_cross_entropy",
    "next_multipliers",
    "real_world_weight_cross_entropy",
    "recall_constrained_cross_entropy",
    "smoothed_cross_entropy",
    "sphereface",
    "suggested_scale",
    "wasserstein",
    "wasserstein_with_integer_labels",
    "weighted_cross_entropy",
    "weighted_focal",
]
