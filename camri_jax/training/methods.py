"""One table of the methods: name, loss family, what it sweeps, and the paper's grid.

Methods are data. Cross-entropy and WCE are points of CRWWCE's formula, L2-softmax and
ArcFace are points of CAMRI's, so three families of losses, each with one compiled
program, serve all methods, margins, weights, costs and important classes.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp

from camri_jax import _arrays, losses, penalties
from camri_jax.training.network import Outputs

Hyperparameters = dict[str, jax.Array]


class Family(NamedTuple):
    """A loss, and the head whose scores it takes.

    Attributes:
      use_bias: linear head with bias and logits, or cosine head without and cosines.
      loss: `(scores, labels, **hyperparameters)` to one value per example.
    """

    use_bias: bool
    loss: Callable[..., jax.Array]


FAMILIES: dict[str, Family] = {
    "weighted": Family(True, losses.real_world_weight_cross_entropy),
    "wasserstein": Family(True, losses.wasserstein_with_integer_labels),
    "angular": Family(False, losses.camri),
}


@dataclass(frozen=True)
class Method:
    """A family's loss at some of its hyperparameters.

    Attributes:
      name: the name on the command line and in the results.
      label: the name in tables and figures.
      family: a name in `FAMILIES`.
      class_sensitive: whether the important class changes what is trained.
      hyperparameters: `(num_classes, important, **point)` to the arrays that the
        family's loss takes.
      grid: values swept by default, by name.
      paper_grid: values of the paper's section IV-A3, by name.
    """

    name: str
    label: str
    family: str
    class_sensitive: bool
    hyperparameters: Callable[..., Hyperparameters]
    grid: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    paper_grid: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


def scores(outputs: Outputs) -> jax.Array:
    """Returns what a loss compares classes by: cosines without bias, else logits.

    Args:
      outputs: of the network.

    Returns:
      Scores `[batch, num_classes]`, float32.
    """
    if outputs.bias is None:
        return losses.cosine_similarity(outputs.features, outputs.prototypes)
    return outputs.features @ outputs.prototypes + outputs.bias[None]


def test_logits(scores: jax.Array, hyperparameters: Hyperparameters) -> jax.Array:
    """Returns scores in units of log odds, as they are used after training.

    The margin belongs to training only (section III-E); the scale stays.

    Args:
      scores: `[batch, num_classes]`.
      hyperparameters: of the trial's method.

    Returns:
      Logits `[batch, num_classes]`.
    """
    return scores * hyperparameters.get("scale", 1.0)


def points(grid: Mapping[str, Sequence[float]]) -> list[dict[str, float]]:
    """Returns every combination of a grid's values, each as `{name: value}`.

    >>> points({"margin": (0.1, 0.2), "scale": (16.0,)})
    [{'margin': 0.1, 'scale': 16.0}, {'margin': 0.2, 'scale': 16.0}]
    """
    return [
        dict(zip(grid, values, strict=True))
        for values in itertools.product(*grid.values())
    ]


def _weighted(
    num_classes: int,
    important: Sequence[int],
    weight: float = 1.0,
    cost: float | None = None,
) -> Hyperparameters:
    """False positives count for CRWWCE only, which has a `cost`."""
    weights = penalties.class_weights(num_classes, important, weight)
    costs = penalties.cost_matrix(num_classes, important, 1.0 if cost is None else cost)
    return {
        "false_negative_weights": weights,
        "false_positive_weights": jnp.zeros_like(costs) if cost is None else costs,
    }


def _wasserstein(
    num_classes: int, important: Sequence[int], cost: float, epsilon: float
) -> Hyperparameters:
    costs = penalties.cost_matrix(num_classes, important, cost)
    _arrays.positive("epsilon", epsilon)
    return {"cost_matrix": costs, "epsilon": jnp.float32(epsilon)}


def _everywhere(
    num_classes: int, important: Sequence[int], scale: float, margin: float = 0.0
) -> Hyperparameters:
    return _camri(num_classes, range(num_classes), margin, scale)


def _camri(
    num_classes: int, important: Sequence[int], margin: float, scale: float
) -> Hyperparameters:
    margins = penalties.margin_vector(num_classes, tuple(important), margin)
    _arrays.positive("scale", scale)
    return {"margins": margins, "scale": jnp.float32(scale)}


_PAPER_WEIGHTS = tuple(float(w) for w in range(4, 41, 4))
_PAPER_COSTS = tuple(round(1.0 + 0.2 * i, 1) for i in range(16))
_PAPER_SCALES = tuple(2.0**i for i in range(7))
_PAPER_MARGINS = tuple(i * math.pi / 64 for i in range(9))

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            name="cross_entropy",
            label="cross-entropy",
            family="weighted",
            class_sensitive=False,
            hyperparameters=_weighted,
        ),
        Method(
            name="weighted_cross_entropy",
            label="WCE",
            family="weighted",
            class_sensitive=True,
            hyperparameters=_weighted,
            grid={"weight": (4.0, 16.0)},
            paper_grid={"weight": _PAPER_WEIGHTS},
        ),
        Method(
            name="real_world_weight_cross_entropy",
            label="CRWWCE",
            family="weighted",
            class_sensitive=True,
            hyperparameters=_weighted,
            grid={"weight": (4.0,), "cost": (2.0,)},
            paper_grid={"weight": (1.0, *_PAPER_WEIGHTS), "cost": _PAPER_COSTS},
        ),
        Method(
            name="wasserstein",
            label="Wasserstein",
            family="wasserstein",
            class_sensitive=True,
            hyperparameters=_wasserstein,
            grid={"cost": (1.4,), "epsilon": (0.1,)},
            paper_grid={"cost": _PAPER_COSTS, "epsilon": (0.1,)},
        ),
        Method(
            name="l2_softmax",
            label="L2-softmax",
            family="angular",
            class_sensitive=False,
            hyperparameters=_everywhere,
            grid={"scale": (16.0,)},
            paper_grid={"scale": _PAPER_SCALES},
        ),
        Method(
            name="arcface",
            label="ArcFace",
            family="angular",
            class_sensitive=False,
            hyperparameters=_everywhere,
            grid={"margin": (math.pi / 16,), "scale": (16.0,)},
            paper_grid={"margin": _PAPER_MARGINS, "scale": _PAPER_SCALES},
        ),
        Method(
            name="camri",
            label="CAMRI",
            family="angular",
            class_sensitive=True,
            hyperparameters=_camri,
            grid={"margin": (math.pi / 16, math.pi / 8), "scale": (16.0,)},
            paper_grid={"margin": _PAPER_MARGINS, "scale": _PAPER_SCALES},
        ),
    )
}
