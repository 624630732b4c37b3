"""The one table of methods: what each minimises, sweeps, and is drawn as.

A method is a loss at some of its hyperparameters. Methods that share a loss and a head
share compiled programs: cross-entropy and WCE are points of CRWWCE's formula,
L2-softmax and ArcFace are points of CAMRI's. Tables, pictures, rows and command lines
take all they know of a method from here.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from camri_jax import losses, penalties
from camri_jax._files import UsageError

Hyperparameters = dict[str, jax.Array]
Point = Mapping[str, float]
Head = Literal["linear", "cosine"]


@dataclass(frozen=True)
class Hyperparameter:
    """A number that methods sweep.

    Attributes:
      name: in rows and on the command line.
      symbol: in tables.
      meaning: one line for people.
      is_angle: whether it is in radians, and shown in 64ths of pi as in the paper.
    """

    name: str
    symbol: str
    meaning: str
    is_angle: bool = False

    def text(self, value: float) -> str:
        """Returns a value as tables show it.

        >>> HYPERPARAMETERS["margin"].text(math.pi / 16)
        '4π/64'
        """
        return f"{value * 64 / math.pi:.4g}π/64" if self.is_angle else f"{value:.4g}"


HYPERPARAMETERS = {
    each.name: each
    for each in (
        Hyperparameter("margin", "m", "angular margin, radians", is_angle=True),
        Hyperparameter("scale", "s", "what cosines are multiplied by"),
        Hyperparameter("weight", "w", "weight of the important classes"),
        Hyperparameter("cost", "c", "cost of confusing the important classes"),
        Hyperparameter("epsilon", "ε", "entropic regularization"),
    )
}


class Problem(NamedTuple):
    """What a method's arrays depend on besides its point.

    Attributes:
      num_classes: number of classes.
      important: indices of the classes that must not be missed.
      class_counts: training images of each class, `[num_classes]`.
    """

    num_classes: int
    important: tuple[int, ...]
    class_counts: tuple[int, ...]


@dataclass(frozen=True)
class Method:
    """A loss at some of its hyperparameters.

    Attributes:
      name: in rows and on the command line.
      label: in tables and pictures.
      head: linear with bias, whose logits the loss takes, or cosine without.
      loss: `(scores, labels, **hyperparameters)` to one value per example.
      arrays: `(problem, **point)` to the hyperparameters that the loss takes.
      class_sensitive: whether the important classes change what is trained.
      grid: values swept by default, by hyperparameter.
      paper_grid: values of the paper's section IV-A3.
      penalty: the hyperparameter that Fig. 3 varies.
      neutral: where the penalty vanishes: its value, and the method that this one is
        there.
      colour: of lines and markers, Okabe and Ito's; `None` for that of the text.
      marker: as matplotlib names them.
    """

    name: str
    label: str
    head: Head
    loss: Callable[..., jax.Array]
    arrays: Callable[..., Hyperparameters]
    class_sensitive: bool
    colour: str | None
    marker: str
    grid: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    paper_grid: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    penalty: str | None = None
    neutral: tuple[float, str] | None = None

    @property
    def family(self) -> str:
        """What methods of the same compiled programs have in common."""
        return f"{self.loss.__name__}, {self.head}"


def points(grid: Mapping[str, Sequence[float]]) -> list[dict[str, float]]:
    """Returns every combination of a grid's values, each as `{name: value}`.

    >>> points({"margin": (0.1, 0.2), "scale": (16.0,)})
    [{'margin': 0.1, 'scale': 16.0}, {'margin': 0.2, 'scale': 16.0}]
    """
    return [
        dict(zip(grid, values, strict=True))
        for values in itertools.product(*grid.values())
    ]


def describe(point: Point) -> str:
    """Returns a point in symbols; what is missing or NaN is left out.

    >>> describe({"margin": math.pi / 16, "scale": 16.0, "cost": math.nan})
    'm=4π/64 s=16'
    """
    return " ".join(
        f"{each.symbol}={each.text(point[name])}"
        for name, each in HYPERPARAMETERS.items()
        if name in point and not math.isnan(point[name])
    )


def number(text: str) -> float:
    """Reads a number, or an angle as `4pi/64`, `pi/16`, `4π/64`, `11.25deg`, `0.2rad`.

    Args:
      text: what a person typed.

    Returns:
      The number; an angle in radians.

    Raises:
      UsageError: it is none of these.

    >>> round(number("4pi/64"), 6), round(number("11.25deg"), 6), number("16")
    (0.19635, 0.19635, 16.0)
    """
    typed = text.strip().lower().replace("π", "pi")
    try:
        if typed.endswith("deg"):
            return math.radians(float(typed.removesuffix("deg")))
        times, pi, below = (part.strip() for part in typed.partition("pi"))
        if not pi:
            return float(typed.removesuffix("rad"))
        times = times.removesuffix("*").strip()
        factor = float(times + "1" if times in ("", "+", "-") else times)
        if below and below[0] != "/":
            raise ValueError
        return factor * math.pi / (float(below[1:]) if below else 1)
    except (ValueError, ZeroDivisionError):
        raise UsageError(
            f"{text!r} must be a number, or an angle as 4pi/64, 11.25deg or 0.2rad"
        ) from None


def hyperparameters(method: str, problem: Problem, point: Point) -> Hyperparameters:
    """Returns the arrays that a method's loss takes at a point.

    Args:
      method: a name in `METHODS`.
      problem: what is trained on.
      point: the value of each of its hyperparameters.

    Returns:
      Keyword arguments of its loss.

    Raises:
      UsageError: a value is out of range.

    >>> problem = Problem(3, important=(1,), class_counts=(9, 9, 9))
    >>> hyperparameters("camri", problem, {"margin": 0.5, "scale": 8.0})["margins"]
    Array([0. , 0.5, 0. ], dtype=float32)
    """
    for name in ("scale", "epsilon"):
        if name in point and not 0 < point[name] < math.inf:
            raise UsageError(f"{name} must be above 0, got {point[name]}")
    return METHODS[method].arrays(problem, **point)


def _weighted(
    problem: Problem, weight: float = 1.0, cost: float | None = None
) -> Hyperparameters:
    """False positives count for CRWWCE only, which has a `cost`."""
    size, important = problem.num_classes, problem.important
    weights = penalties.class_weights(size, important, weight)
    costs = penalties.cost_matrix(size, important, 1.0 if cost is None else cost)
    return {
        "false_negative_weights": weights,
        "false_positive_weights": jnp.zeros_like(costs) if cost is None else costs,
    }


def _plain(problem: Problem) -> Hyperparameters:
    """No class is important: its weights are those of all others."""
    return _weighted(problem._replace(important=(0,)))


def _wasserstein(problem: Problem, cost: float, epsilon: float) -> Hyperparameters:
    costs = penalties.cost_matrix(problem.num_classes, problem.important, cost)
    return {"cost_matrix": costs, "epsilon": jnp.float32(epsilon)}


def _everywhere(problem: Problem, scale: float, margin: float = 0.0) -> Hyperparameters:
    every = tuple(range(problem.num_classes))
    return _camri(problem._replace(important=every), margin, scale)


def _camri(problem: Problem, margin: float, scale: float) -> Hyperparameters:
    margins = penalties.margin_vector(problem.num_classes, problem.important, margin)
    return {"margins": margins, "scale": jnp.float32(scale)}


_PAPER_WEIGHTS = tuple(float(w) for w in range(4, 41, 4))
_PAPER_COSTS = tuple(round(1.0 + 0.2 * i, 1) for i in range(16))
_PAPER_SCALES = tuple(2.0**i for i in range(7))
_PAPER_MARGINS = tuple(i * math.pi / 64 for i in range(9))

BASELINE = "cross_entropy"
"""The method that all others are compared with."""

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            name=BASELINE,
            label="cross-entropy",
            head="linear",
            loss=losses.real_world_weight_cross_entropy,
            arrays=_plain,
            class_sensitive=False,
            colour=None,
            marker="o",
        ),
        Method(
            name="weighted_cross_entropy",
            label="WCE",
            head="linear",
            loss=losses.real_world_weight_cross_entropy,
            arrays=_weighted,
            class_sensitive=True,
            colour="#e69f00",
            marker="^",
            grid={"weight": (4.0, 16.0)},
            paper_grid={"weight": _PAPER_WEIGHTS},
            penalty="weight",
            neutral=(1.0, BASELINE),
        ),
        Method(
            name="real_world_weight_cross_entropy",
            label="CRWWCE",
            head="linear",
            loss=losses.real_world_weight_cross_entropy,
            arrays=_weighted,
            class_sensitive=True,
            colour="#56b4e9",
            marker="v",
            grid={"weight": (4.0,), "cost": (2.0,)},
            paper_grid={"weight": (1.0, *_PAPER_WEIGHTS), "cost": _PAPER_COSTS},
            penalty="weight",
        ),
        Method(
            name="wasserstein",
            label="Wasserstein",
            head="linear",
            loss=losses.wasserstein_with_integer_labels,
            arrays=_wasserstein,
            class_sensitive=True,
            colour="#009e73",
            marker="D",
            grid={"cost": (1.4,), "epsilon": (0.1,)},
            paper_grid={"cost": _PAPER_COSTS, "epsilon": (0.1,)},
            penalty="cost",
        ),
        Method(
            name="l2_softmax",
            label="L2-softmax",
            head="cosine",
            loss=losses.camri,
            arrays=_everywhere,
            class_sensitive=False,
            colour="#0072b2",
            marker="P",
            grid={"scale": (16.0,)},
            paper_grid={"scale": _PAPER_SCALES},
        ),
        Method(
            name="arcface",
            label="ArcFace",
            head="cosine",
            loss=losses.camri,
            arrays=_everywhere,
            class_sensitive=False,
            colour="#cc79a7",
            marker="s",
            grid={"margin": (math.pi / 16,), "scale": (16.0,)},
            paper_grid={"margin": _PAPER_MARGINS, "scale": _PAPER_SCALES},
            penalty="margin",
            neutral=(0.0, "l2_softmax"),
        ),
        Method(
            name="camri",
            label="CAMRI",
            head="cosine",
            loss=losses.camri,
            arrays=_camri,
            class_sensitive=True,
            colour="#d55e00",
            marker="*",
            grid={"margin": (math.pi / 16, math.pi / 8), "scale": (16.0,)},
            paper_grid={"margin": _PAPER_MARGINS, "scale": _PAPER_SCALES},
            penalty="margin",
            neutral=(0.0, "l2_softmax"),
        ),
    )
}
