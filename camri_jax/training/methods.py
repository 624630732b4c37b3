"""The one table of methods: what each minimises, sweeps, and is drawn as.

A method is a loss at some of its hyperparameters. Methods that share a loss and a head
share compiled programs: cross-entropy and WCE are points of CRWWCE's formula,
L2-softmax and ArcFace are points of CAMRI's. Tables, pictures, rows and command lines
take all they know of a method from here.

Rivals are methods of other papers. They are swept where they are named, so that a sweep
without arguments stays short.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from camri_jax import _arrays, losses, penalties
from camri_jax._files import UsageError

Hyperparameters = dict[str, jax.Array]
Value = float | Sequence[float]
Point = Mapping[str, Value]
HeadKind = Literal["linear", "cosine"]
Each = TypeVar("Each")


@dataclass(frozen=True)
class Hyperparameter:
    """A number that methods sweep.

    Attributes:
      name: in rows and on the command line.
      symbol: in tables.
      meaning: one line for people.
      check: `(name, value)`, raises where a value is out of range.
      by_class: whether each important class may have a value of its own.
      is_angle: whether it is in radians, and shown in 64ths of pi as in the paper.
    """

    name: str
    symbol: str
    meaning: str
    check: Callable[[str, ArrayLike], None]
    by_class: bool = False
    is_angle: bool = False

    def text(self, value: Value | np.ndarray) -> str:
        """Returns a value, or one for each important class, as tables show it.

        >>> HYPERPARAMETERS["margin"].text(math.pi / 16)
        '4π/64'
        >>> HYPERPARAMETERS["weight"].text([4.0, 16.0])
        '4,16'
        """
        factor, unit = (64 / math.pi, "π/64") if self.is_angle else (1.0, "")
        return ",".join(f"{each * factor:.4g}{unit}" for each in np.ravel(value))


HYPERPARAMETERS = {
    each.name: each
    for each in (
        Hyperparameter(
            "margin",
            "m",
            "angular margin, radians",
            _arrays.angle,
            by_class=True,
            is_angle=True,
        ),
        Hyperparameter(
            "scale", "s", "what cosines are multiplied by", _arrays.positive
        ),
        Hyperparameter(
            "weight",
            "w",
            "weight of the important classes",
            _arrays.not_negative,
            by_class=True,
        ),
        Hyperparameter(
            "cost",
            "c",
            "cost of confusing the important classes",
            _arrays.not_negative,
            by_class=True,
        ),
        Hyperparameter("epsilon", "ε", "entropic regularization", _arrays.positive),
        Hyperparameter(
            "multiplier", "m1", "what angles are multiplied by", _arrays.positive
        ),
        Hyperparameter(
            "cosine_margin",
            "m3",
            "margin on the cosine, below 0 a bonus",
            _arrays.finite,
            by_class=True,
        ),
        Hyperparameter(
            "warm_up",
            "T",
            "epochs over which the margin grows from 0",
            _arrays.not_negative,
        ),
        Hyperparameter(
            "strength",
            "τ",
            "power of the prior that is taken out",
            _arrays.not_negative,
        ),
        Hyperparameter(
            "shift",
            "b",
            "shift of the important classes' logits",
            _arrays.finite,
            by_class=True,
        ),
        Hyperparameter(
            "beta", "β", "share of an example that the next one adds", _arrays.share
        ),
        Hyperparameter(
            "gamma",
            "γ",  # noqa: RUF001
            "how much less easy examples count",
            _arrays.not_negative,
        ),
        Hyperparameter(
            "smoothing",
            "α",  # noqa: RUF001
            "part of a label on all classes",
            _arrays.share,
        ),
        Hyperparameter(
            "least_recall",
            "r",
            "recall that training holds the important classes to",
            _arrays.share,
            by_class=True,
        ),
        Hyperparameter(
            "dual_rate", "η", "step of the constraint's multiplier", _arrays.positive
        ),
    )
}


class Problem(NamedTuple):
    """What a method's arrays depend on besides its point.

    Attributes:
      num_classes: number of classes.
      important: indices of the classes that must not be missed.
      class_counts: training images of each class, `[num_classes]`; their expected
        number where each seed draws its own.
    """

    num_classes: int
    important: tuple[int, ...]
    class_counts: tuple[float, ...]


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
      rival: whether it is of another paper, and swept only where it is named.
      dual: `(multipliers, scores, labels, **hyperparameters)` to the next multipliers,
        for a loss that takes `multipliers [num_classes]`, which learn while it trains,
        from 0 on; None for one without.
    """

    name: str
    label: str
    head: HeadKind
    loss: Callable[..., jax.Array]
    arrays: Callable[..., Hyperparameters]
    class_sensitive: bool
    colour: str | None
    marker: str
    grid: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    paper_grid: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    penalty: str | None = None
    neutral: tuple[float, str] | None = None
    rival: bool = False
    dual: Callable[..., jax.Array] | None = None

    @property
    def family(self) -> str:
        """What methods of the same compiled programs have in common."""
        return f"{self.loss.__name__}, {self.head}"


def points(grid: Mapping[str, Sequence[Each]]) -> list[dict[str, Each]]:
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
        if name in point and not np.isnan(point[name]).any()
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
      point: the value of each of its hyperparameters; of one that is `by_class` a
        number, or one for each of `problem.important`, in their order.

    Returns:
      Keyword arguments of its loss.

    Raises:
      UsageError: a value is out of range, or one of several where one is meant.

    >>> problem = Problem(3, important=(1,), class_counts=(9, 9, 9))
    >>> hyperparameters("camri", problem, {"margin": 0.5, "scale": 8.0})["margins"]
    Array([0. , 0.5, 0. ], dtype=float32)
    """
    values = {name: np.asarray(value, np.float64) for name, value in point.items()}
    for name, value in values.items():
        known = HYPERPARAMETERS[name]
        known.check(name, value)
        if value.ndim and not (known.by_class and METHODS[method].class_sensitive):
            raise UsageError(f"{name} must be one number, got {known.text(value)}")
    return METHODS[method].arrays(problem, **values)


def _weighted(
    problem: Problem, weight: ArrayLike = 1.0, cost: ArrayLike | None = None
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


def _wasserstein(
    problem: Problem, cost: ArrayLike, epsilon: ArrayLike
) -> Hyperparameters:
    costs = penalties.cost_matrix(problem.num_classes, problem.important, cost)
    return {"cost_matrix": costs, "epsilon": jnp.float32(epsilon)}


def _everywhere(
    problem: Problem, scale: ArrayLike, margin: ArrayLike = 0.0
) -> Hyperparameters:
    every = tuple(range(problem.num_classes))
    return _camri(problem._replace(important=every), margin, scale)


def _camri(problem: Problem, margin: ArrayLike, scale: ArrayLike) -> Hyperparameters:
    margins = penalties.margin_vector(problem.num_classes, problem.important, margin)
    return {"margins": margins, "scale": jnp.float32(scale)}


def _angular(
    problem: Problem, scale: ArrayLike, **changes: jax.Array
) -> Hyperparameters:
    """No margin except those that are named."""
    zeros = jnp.zeros(problem.num_classes, jnp.float32)
    neutral = {"margins": zeros, "multipliers": zeros + 1, "cosine_margins": zeros}
    return neutral | {"scale": jnp.float32(scale)} | changes


def _sphereface(
    problem: Problem, multiplier: ArrayLike, scale: ArrayLike
) -> Hyperparameters:
    multipliers = jnp.full(problem.num_classes, multiplier, jnp.float32)
    return _angular(problem, scale, multipliers=multipliers)


def _sensitive_cosface(
    problem: Problem, cosine_margin: ArrayLike, scale: ArrayLike
) -> Hyperparameters:
    size, important = problem.num_classes, problem.important
    margins = penalties.offset_vector(size, important, cosine_margin)
    return _angular(problem, scale, cosine_margins=margins)


def _cosface(
    problem: Problem, cosine_margin: ArrayLike, scale: ArrayLike
) -> Hyperparameters:
    every = tuple(range(problem.num_classes))
    return _sensitive_cosface(problem._replace(important=every), cosine_margin, scale)


def _ldam(
    problem: Problem, cosine_margin: ArrayLike, scale: ArrayLike
) -> Hyperparameters:
    margins = penalties.ldam_margins(_counts(problem), cosine_margin)
    return _angular(problem, scale, cosine_margins=margins)


def _warmed_up(
    problem: Problem, margin: ArrayLike, scale: ArrayLike, warm_up: ArrayLike
) -> Hyperparameters:
    return _camri(problem, margin, scale) | {"warm_up": jnp.float32(warm_up)}


def _adjusted(
    problem: Problem, strength: ArrayLike = 1.0, shift: ArrayLike = 0.0
) -> Hyperparameters:
    size, important = problem.num_classes, problem.important or (0,)
    return {
        "class_priors": _priors(problem),
        "strength": jnp.float32(strength),
        "offsets": penalties.offset_vector(size, important, shift),
    }


def _class_balanced(problem: Problem, beta: float) -> Hyperparameters:
    weights = penalties.class_balanced_weights(_counts(problem), beta)
    return _plain(problem) | {"false_negative_weights": weights}


def _focal(
    problem: Problem, gamma: ArrayLike, weight: ArrayLike = 1.0
) -> Hyperparameters:
    size, important = problem.num_classes, problem.important or (0,)
    weights = penalties.class_weights(size, important, weight)
    return {"class_weights": weights, "gamma": jnp.float32(gamma)}


def _smoothed(problem: Problem, smoothing: ArrayLike) -> Hyperparameters:
    del problem
    return {"smoothing": jnp.float32(smoothing)}


def _constrained(
    problem: Problem, least_recall: ArrayLike, dual_rate: ArrayLike
) -> Hyperparameters:
    size, important = problem.num_classes, problem.important
    recalls = penalties.offset_vector(size, important, least_recall)
    rate = jnp.float32(dual_rate)
    return {"class_priors": _priors(problem), "least_recalls": recalls, "rate": rate}


def _counts(problem: Problem) -> jax.Array:
    return jnp.asarray(problem.class_counts, jnp.float32)


def _priors(problem: Problem) -> jax.Array:
    counts = np.asarray(problem.class_counts, np.float32)
    _arrays.positive("class_counts", counts)
    return jnp.asarray(counts / counts.sum())


def combined_margins(
    cosines: jax.Array, labels: jax.Array, **hyperparameters: jax.Array
) -> jax.Array:
    """Cross-entropy of angles that any margin widens: one program for all of them."""
    logits = losses.angular_margin_logits(
        cosines, labels, monotone=True, **hyperparameters
    )
    return losses.cross_entropy(logits, labels)


def growing_margins(
    cosines: jax.Array,
    labels: jax.Array,
    *,
    margins: jax.Array,
    scale: jax.Array,
    warm_up: jax.Array,
    epoch: ArrayLike = math.inf,
) -> jax.Array:
    """CAMRI, whose margins grow over the first epochs."""
    margins = penalties.warm_up(epoch, warm_up) * margins
    return losses.camri(cosines, labels, margins=margins, scale=scale)


def constrained_recall(
    logits: jax.Array,
    labels: jax.Array,
    *,
    multipliers: jax.Array | None = None,
    class_priors: jax.Array,
    least_recalls: jax.Array,
    rate: jax.Array,
) -> jax.Array:
    """The Lagrangian, without multipliers cross-entropy; the rest is for their step."""
    del least_recalls, rate
    if multipliers is None:
        multipliers = jnp.zeros_like(class_priors)
    return losses.recall_constrained_cross_entropy(
        logits, labels, multipliers=multipliers, class_priors=class_priors
    )


_PAPER_WEIGHTS = tuple(float(w) for w in range(4, 41, 4))
_PAPER_COSTS = tuple(round(1.0 + 0.2 * i, 1) for i in range(16))
_PAPER_SCALES = tuple(2.0**i for i in range(7))
_PAPER_MARGINS = tuple(i * math.pi / 64 for i in range(9))
# As wide as the paper's, where their own papers try fewer.
_COSINE_MARGINS = tuple(round(0.05 * i, 2) for i in range(9))
_SHIFTS = tuple(0.5 * i for i in range(9))

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
        Method(
            name="camri_warm_up",
            label="CAMRI, warmed up",
            head="cosine",
            loss=growing_margins,
            arrays=_warmed_up,
            class_sensitive=True,
            colour="#d55e00",
            marker="X",
            grid={"margin": (math.pi / 8,), "scale": (16.0,), "warm_up": (2.0,)},
            paper_grid={
                "margin": _PAPER_MARGINS,
                "scale": _PAPER_SCALES,
                "warm_up": (10.0,),
            },
            penalty="margin",
            neutral=(0.0, "l2_softmax"),
            rival=True,
        ),
        Method(
            name="sphereface",
            label="SphereFace",
            head="cosine",
            loss=combined_margins,
            arrays=_sphereface,
            class_sensitive=False,
            colour="#0072b2",
            marker="<",
            grid={"multiplier": (1.5,), "scale": (16.0,)},
            paper_grid={
                "multiplier": (1.0, 1.2, 1.5, 2.0, 3.0, 4.0),
                "scale": _PAPER_SCALES,
            },
            penalty="multiplier",
            neutral=(1.0, "l2_softmax"),
            rival=True,
        ),
        Method(
            name="cosface",
            label="CosFace",
            head="cosine",
            loss=combined_margins,
            arrays=_cosface,
            class_sensitive=False,
            colour="#cc79a7",
            marker="d",
            grid={"cosine_margin": (0.2,), "scale": (16.0,)},
            paper_grid={"cosine_margin": _COSINE_MARGINS, "scale": _PAPER_SCALES},
            penalty="cosine_margin",
            neutral=(0.0, "l2_softmax"),
            rival=True,
        ),
        Method(
            name="class_sensitive_cosface",
            label="class-sensitive CosFace",
            head="cosine",
            loss=combined_margins,
            arrays=_sensitive_cosface,
            class_sensitive=True,
            colour="#d55e00",
            marker="p",
            grid={"cosine_margin": (0.1, 0.2), "scale": (16.0,)},
            paper_grid={"cosine_margin": _COSINE_MARGINS, "scale": _PAPER_SCALES},
            penalty="cosine_margin",
            neutral=(0.0, "l2_softmax"),
            rival=True,
        ),
        Method(
            name="ldam",
            label="LDAM",
            head="cosine",
            loss=combined_margins,
            arrays=_ldam,
            class_sensitive=False,
            colour="#0072b2",
            marker="h",
            grid={"cosine_margin": (0.3,), "scale": (16.0,)},
            paper_grid={"cosine_margin": _COSINE_MARGINS, "scale": _PAPER_SCALES},
            penalty="cosine_margin",
            neutral=(0.0, "l2_softmax"),
            rival=True,
        ),
        Method(
            name="logit_adjustment",
            label="logit adjustment",
            head="linear",
            loss=losses.logit_adjusted_cross_entropy,
            arrays=_adjusted,
            class_sensitive=True,
            colour="#009e73",
            marker="^",
            grid={"strength": (1.0,), "shift": (1.0, 2.0)},
            paper_grid={"strength": (0.0, 0.5, 1.0, 1.5, 2.0), "shift": _SHIFTS},
            penalty="shift",
            rival=True,
        ),
        Method(
            name="balanced_softmax",
            label="balanced softmax",
            head="linear",
            loss=losses.logit_adjusted_cross_entropy,
            arrays=_adjusted,
            class_sensitive=False,
            colour="#009e73",
            marker=">",
            rival=True,
        ),
        Method(
            name="class_balanced",
            label="class-balanced",
            head="linear",
            loss=losses.real_world_weight_cross_entropy,
            arrays=_class_balanced,
            class_sensitive=False,
            colour="#e69f00",
            marker="v",
            grid={"beta": (0.999,)},
            paper_grid={"beta": (0.9, 0.99, 0.999, 0.9999)},
            penalty="beta",
            neutral=(0.0, BASELINE),
            rival=True,
        ),
        Method(
            name="focal",
            label="focal",
            head="linear",
            loss=losses.weighted_focal,
            arrays=_focal,
            class_sensitive=False,
            colour="#56b4e9",
            marker="h",
            grid={"gamma": (2.0,)},
            paper_grid={"gamma": (0.5, 1.0, 2.0, 5.0)},
            penalty="gamma",
            neutral=(0.0, BASELINE),
            rival=True,
        ),
        Method(
            name="weighted_focal",
            label="weighted focal",
            head="linear",
            loss=losses.weighted_focal,
            arrays=_focal,
            class_sensitive=True,
            colour="#56b4e9",
            marker="D",
            grid={"weight": (4.0,), "gamma": (2.0,)},
            paper_grid={"weight": _PAPER_WEIGHTS, "gamma": (0.5, 1.0, 2.0, 5.0)},
            penalty="weight",
            neutral=(1.0, "focal"),
            rival=True,
        ),
        Method(
            name="label_smoothing",
            label="label smoothing",
            head="linear",
            loss=losses.smoothed_cross_entropy,
            arrays=_smoothed,
            class_sensitive=False,
            colour="#999999",
            marker="s",
            grid={"smoothing": (0.1,)},
            paper_grid={"smoothing": (0.05, 0.1, 0.2, 0.3)},
            penalty="smoothing",
            neutral=(0.0, BASELINE),
            rival=True,
        ),
        Method(
            name="recall_constraint",
            label="recall constraint",
            head="linear",
            loss=constrained_recall,
            arrays=_constrained,
            class_sensitive=True,
            colour="#e69f00",
            marker="P",
            grid={"least_recall": (0.95, 0.99), "dual_rate": (0.05,)},
            paper_grid={
                "least_recall": (0.8, 0.9, 0.95, 0.98, 0.99, 0.995),
                "dual_rate": (0.01, 0.05),
            },
            penalty="least_recall",
            neutral=(0.0, BASELINE),
            rival=True,
            dual=losses.next_multipliers,
        ),
    )
}

DEFAULT_METHODS = tuple(name for name, method in METHODS.items() if not method.rival)
"""What is swept where no method is named: the paper's."""
