"""A head on embeddings that keeps a promised recall, by scikit-learn's conventions."""

import dataclasses
import functools
import numbers
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,
    check_is_fitted,
    validate_data,
)

from camri_jax import guarantee
from camri_jax._files import fraction, group_keys, whole_number
from camri_jax.datasets import copies, splitting
from camri_jax.training import lift, trial
from camri_jax.training.methods import METHODS, Problem, hyperparameters, points
from camri_jax.training.recipe import Recipe, TrainConfig, weight_decay

_ROWS = 1024
"""Examples are filled up to a power of two from here on, so that the folds of a
cross-validation share one program."""


class ImportantClassifier(ClassifierMixin, BaseEstimator):
    r"""A linear or cosine head on features, whose recall of a class can be promised.

    .. math::
        \hat y = \arg\max_k \; \frac{1}{S} \sum_{s=1}^S f_{s,k}(z) + c\,[k \in I],
        \qquad f_{s,k}(z) = w_{s,k}^\top z + b_{s,k} \;\text{ or }\; a \cos(z, w_{s,k})

    with features z about their mean and in one unit, heads of S seeds, and the offset c
    of the important classes I: 0, or with `recall` what
    `camri_jax.guarantee.certify_recalls` certifies on examples that are kept out of
    training for it. Seeds are averaged, not chosen among: that takes no examples, and
    what is certified is one model. All seeds and margins train in one compiled program.
    Features in different units need scikit-learn's `StandardScaler` first, and few
    features a method without cosines. With `recall`, a pipeline's step before the head
    that learns from y must be fitted on other examples: otherwise it has seen those
    that certify.

    Args:
      important: label, or sequence of labels, of the classes that must not be missed;
        None: the rarest class.
      method: any in `camri_jax.training.methods.METHODS` except those with constraints
        or a warm-up.
      margin: angular margin of the important classes, in radians; of several, which
        need `recall`, the one with the fewest false alarms under its certificate is
        taken. None: the method's own.
      scale: what cosines are multiplied by; None: the method's own.
      hyperparameters: what else the method has, as `{"weight": 4.0}`.
      recall: recall that is promised for new examples of the important classes,
        between 0 and 1; of several classes each keeps it, or its own of a sequence in
        their order. None: nothing is promised and nothing is kept out of training.
      confidence: of that promise.
      calibration_fraction: share of each class that is kept out of training to certify.
      num_seeds: heads that are averaged.
      num_steps: steps of the optimizer (Adam, its rate falling to 0 as a cosine).
      batch_size: examples a step.
      learning_rate: the highest in training.
      weight_decay: what weights shrink by in a step, times the learning rate; it hardly
        matters to a cosine head. None: 20 times the features for each example that is
        trained on, to two digits, and half of the weights in a step at most.
      random_state: fixes weights, order and calibration part, as in scikit-learn.

    Attributes:
      classes_: labels `[class]`, sorted.
      important_: labels of the important classes.
      coef_: `[class, feature]` float64, for `(X - mean_) / scale_`; with a cosine head
        for the directions of these.
      intercept_: `[class]` float64, without the offset.
      mean_: `[feature]`, of the training examples.
      scale_: root of the mean of their features' variances.
      cosine_: whether logits are of cosines.
      offset_: what is added to the important classes' logits.
      margin_: the margin that was taken; None for methods without.
      certificate_: a `camri_jax.guarantee.Certificate`, of several classes
        `Certificates`; None without `recall`.
      price_: a `camri_jax.guarantee.Price` on the calibration part; None without
        `recall`. Examples of other classes have no say in the offset, so its false
        alarms and the other classes' recall are fair (except for a choice among
        margins); its recall is that of the examples that certified, and is not.
      n_features_in_: number of features.
      feature_names_in_: their names, where X has any.

    Reference:
      Nishiyama et al., CAMRI Loss, 2022, section III.

    Example:
      >>> from sklearn.datasets import load_digits
      >>> X, y = load_digits(return_X_y=True)
      >>> head = ImportantClassifier(important=8, recall=0.9, random_state=0).fit(X, y)
      >>> head.certificate_.certified, head.certificate_.num_images
      (True, 52)
    """

    def __init__(
        self,
        important: Any = None,
        *,
        method: str = "camri",
        margin: float | Sequence[float] | None = None,
        scale: float | None = None,
        hyperparameters: Mapping[str, float] | None = None,
        recall: float | None = None,
        confidence: float = 0.95,
        calibration_fraction: float = 0.3,
        num_seeds: int = 5,
        num_steps: int = 1000,
        batch_size: int = 256,
        learning_rate: float = 0.01,
        weight_decay: float | None = None,
        random_state: Any = None,
    ):
        self.important = important
        self.method = method
        self.margin = margin
        self.scale = scale
        self.hyperparameters = hyperparameters
        self.recall = recall
        self.confidence = confidence
        self.calibration_fraction = calibration_fraction
        self.num_seeds = num_seeds
        self.num_steps = num_steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.random_state = random_state

    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None
    ) -> "ImportantClassifier":
        """Trains the heads and, with `recall`, certifies.

        Args:
          X: features `[n, feature]`, finite.
          y: labels `[n]`, numbers or strings, of two classes at least.
          sample_weight: `[n]`, not negative: what losses are multiplied by; the
            certificate counts every example of the calibration part alike.
          groups: `[n]`, integers or strings, the same within one group (patient,
            track): a group is trained on or calibrated on as a whole, and counts once
            for the promise. With `recall`, examples with equal features are one group.

        Returns:
          Itself.

        Raises:
          ValueError: an argument is out of range, or there are too few examples of the
            important classes to certify.
        """
        # A fit that fails leaves nothing of an earlier one.
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32))
        check_classification_targets(y)
        self._refuse_what_are_no_numbers()
        weight = _check_sample_weight(
            sample_weight, X, dtype=np.float64, ensure_non_negative=True
        )
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError("y must hold at least 2 classes, got 1 class")
        important = self._important(labels)
        self.important_ = self.classes_[list(important)]
        tried = self._points()
        random = check_random_state(self.random_state)
        num_seeds = whole_number("num_seeds", self.num_seeds, 1)
        seeds = random.randint(0, 2**31 - 1, size=num_seeds)
        recalls = self._recalls(important)
        groups = self._groups(X, labels, groups)
        kept = self._calibration_part(labels, groups, int(seeds[0]))
        held = None if groups is None else groups[kept]
        self._check_enough(labels[kept], recalls, held, len(tried))
        used = ~kept & (weight > 0)
        if missing := sorted(set(range(len(self.classes_))) - {*labels[used]}):
            raise ValueError(
                "every class must have an example of weight above 0 to train on, got "
                f"none of class {self.classes_.tolist()[missing[0]]!r}"
            )
        counts = tuple(np.bincount(labels[used], minlength=len(self.classes_)).tolist())
        problem = Problem(len(self.classes_), important, counts)
        heads = self._train(X[used], labels[used], weight[used], problem, tried, seeds)
        self._choose(heads, tried, X[kept], labels[kept], recalls, held)
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Returns logits with the offset added.

        Args:
          X: features `[n, feature]`.

        Returns:
          `[n, class]` float32; with two classes `[n]`, the second's less the first's.
        """
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def predict_proba(self, X: Any) -> np.ndarray:
        """Returns the softmax of the logits, offset included: not calibrated.

        Args:
          X: features `[n, feature]`.

        Returns:
          `[n, class]` float64.
        """
        return special.softmax(self._logits(X).astype(np.float64), axis=1)

    def predict(self, X: Any) -> np.ndarray:
        """Returns the label of the largest logit, by the rule that was certified.

        Args:
          X: features `[n, feature]`.

        Returns:
          `[n]`, of `classes_`.
        """
        best = self._logits(X).argmax(1)
        return self.classes_[best]

    def _logits(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        important = np.flatnonzero(np.isin(self.classes_, self.important_))
        return guarantee.moved(_logits(self._head, X), important, self.offset_)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "coef_")

    @property
    def _head(self) -> "_Head":
        own = self.mean_, self.scale_, self.coef_, self.intercept_, self.cosine_
        return _Head(*own)

    def _important(self, labels: np.ndarray) -> tuple[int, ...]:
        """Indices of the important classes."""
        if self.important is None:
            return (int(np.bincount(labels).argmin()),)
        given = self.important
        if isinstance(given, str) or np.ndim(given) == 0:
            given = [given]
        known = self.classes_.tolist()
        if unknown := [each for each in given if each not in known]:
            raise ValueError(
                f"important must name classes of y, got {unknown[0]!r}; there are "
                f"{', '.join(map(repr, known[:10]))}"
            )
        # In the order that lists of hyperparameters have.
        found = tuple(dict.fromkeys(known.index(each) for each in given))
        if not 0 < len(found) < len(known):
            raise ValueError(
                "important must name a class at least, and leave one that is not"
            )
        return found

    def _points(self) -> list[dict[str, float]]:
        """The points of the method that are trained."""
        # Neither constraints nor what grows by epochs, of which there are none here.
        names = [
            name
            for name, each in METHODS.items()
            if each.dual is None and "warm_up" not in each.grid
        ]
        if self.method not in names:
            raise ValueError(
                f"method must be one of {', '.join(names)}, got {self.method!r}"
            )
        own = points(METHODS[self.method].grid)[0]
        asked: dict[str, Any] = {"margin": self.margin, "scale": self.scale}
        asked = {n: value for n, value in asked.items() if value is not None}
        more = dict(self.hyperparameters or {})
        if twice := sorted(set(asked) & set(more)):
            raise ValueError(f"{twice[0]} is given, and among hyperparameters again")
        asked |= more
        if unknown := sorted(set(asked) - set(own)):
            raise ValueError(
                f"{self.method} has no hyperparameter {unknown[0]}; it has "
                + (", ".join(own) or "none")
            )
        margins = np.atleast_1d(asked.get("margin", own.get("margin", np.nan)))
        if len(margins) > 1 and self.recall is None:
            raise ValueError(
                "margin must be one number where no recall is asked for, by whose "
                f"false alarms several are compared; got {len(margins)}"
            )
        if not len(margins):
            raise ValueError("margin must hold one number at least")
        point = own | asked
        if "margin" not in point:
            return [point]
        return [point | {"margin": float(margin)} for margin in margins]

    def _refuse_what_are_no_numbers(self) -> None:
        given = {
            name: getattr(self, name)
            for name in ("confidence", "calibration_fraction", "learning_rate")
        }
        for name in ("weight_decay", "scale"):
            if (value := getattr(self, name)) is not None:
                given[name] = value
        for name, value in given.items():
            if not _is_number(value):
                raise ValueError(f"{name} must be a number, got {value!r}")
        several: dict[str, Any] = dict(self.hyperparameters or {})
        for name in ("margin", "recall"):
            if (value := getattr(self, name)) is not None:
                several[name] = value
        for name, value in several.items():
            each = np.asarray(value, object)
            if each.ndim > 1 or not all(map(_is_number, each.ravel())):
                raise ValueError(f"{name} must be one number or several, got {value!r}")

    def _recalls(self, important: tuple[int, ...]) -> dict[int, float]:
        """What is promised of each important class; empty without `recall`."""
        if self.recall is None:
            return {}
        given = np.ravel(self.recall)
        if len(given) not in (1, len(important)):
            raise ValueError(
                "recall must be one number, or one for each of "
                f"{len(important)} important classes, got {self.recall!r}"
            )
        each = np.broadcast_to(given, len(important)).tolist()
        return dict(zip(important, each, strict=True))

    def _groups(
        self, X: np.ndarray, labels: np.ndarray, groups: Any
    ) -> np.ndarray | None:
        """Numbers of the groups `[n]`; None: every example stands alone."""
        stated = []
        if groups is not None:
            stated = [group_keys("groups", groups, len(labels))]
        if self.recall is None:
            return None
        alike = copies.fingerprints(X)
        repeated = len(alike) - len(np.unique(alike))
        if repeated > len(alike) / 10:  # fewer cost the promise next to nothing
            warnings.warn(
                f"{repeated} of {len(alike)} examples repeat the features of another: "
                "such examples count once for the promise. To have some count more in "
                "training, give sample_weight",
                UserWarning,
                stacklevel=3,
            )
        return splitting.connect(alike, *stated)

    def _calibration_part(
        self, labels: np.ndarray, groups: np.ndarray | None, seed: int
    ) -> np.ndarray:
        """Which examples `[n]` are kept out of training."""
        if self.recall is None:
            return np.zeros(len(labels), bool)
        fraction("calibration_fraction", self.calibration_fraction)
        names = tuple(map(str, self.classes_))
        place = splitting.assign(
            labels,
            [self.calibration_fraction],
            seed=seed,
            class_names=names,
            groups=groups,
        )
        return place == 1

    def _check_enough(
        self,
        labels: np.ndarray,
        recalls: Mapping[int, float],
        groups: np.ndarray | None,
        candidates: int,
    ) -> None:
        """Refuses before training what cannot be certified after it."""
        what = "examples" if groups is None else "groups"
        for k, recall in recalls.items():
            number = guarantee.sample_size(labels, (k,), groups)
            needed = guarantee.images_needed(
                recall, confidence=self.confidence, candidates=candidates
            )
            if number < needed:
                raise ValueError(
                    f"recall {recall} takes {needed:,} calibration {what} of "
                    f"{self.classes_[k]}, and calibration_fraction "
                    f"{self.calibration_fraction} keeps {number:,}"
                )

    def _train(
        self,
        X: np.ndarray,
        labels: np.ndarray,
        weight: np.ndarray,
        problem: Problem,
        tried: Sequence[Mapping[str, float]],
        seeds: np.ndarray,
    ) -> list["_Head"]:
        """Returns the average head of each point."""
        method = METHODS[self.method]
        steps = whole_number("num_steps", self.num_steps, 1)
        size = whole_number("batch_size", self.batch_size, 1)
        mean, scale = _standard(X, weight)
        features = _standardized(X, mean, scale).astype(np.float32)
        recipe = Recipe.heads(
            epochs=1,
            batch_size=size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
        )
        if recipe.weight_decay is None:
            decay = weight_decay(X.shape[1], len(X), recipe.learning_rate)
            # Folds of nearly one size share a program.
            decay = min(float(f"{decay:.2g}"), 0.5 / recipe.learning_rate)
            recipe = dataclasses.replace(recipe, weight_decay=decay)
        config = TrainConfig.of(
            dataclasses.replace(method, loss=_Weighted(method.loss)),
            num_classes=problem.num_classes,
            # To the optimizer, all steps are one epoch: their order is given.
            num_images=steps * size,
            recipe=recipe,
        )
        arrays = [hyperparameters(self.method, problem, point) for point in tried]
        stacked = jax.tree.map(lambda *each: np.stack(each), *arrays)
        weighted = np.stack([labels, weight / weight.mean()], 1).astype(np.float32)
        mesh = lift.trial_mesh()
        # Each device takes as many seeds.
        padded = np.resize(seeds, -(-len(seeds) // mesh.size) * mesh.size)
        orders = np.stack([_order(len(X), steps, size, seed) for seed in padded])
        data = _filled(features, weighted)
        # Adam divides a float by an integer, which a strict caller may have refused.
        with jax.numpy_dtype_promotion("standard"):
            program = _program(config, lift.placement(mesh))
            found = program(padded.astype(np.int32), orders, stacked, *data)
        params = jax.device_get(found)
        params = jax.tree.map(lambda leaf: leaf[: len(seeds)], params)
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params)):
            raise ValueError(
                "training ended in weights that are no finite numbers: a smaller "
                "learning_rate, weight_decay or sample_weight may help"
            )
        coef = params["prototypes"].astype(np.float64)
        bias = params.get("bias", np.zeros(coef.shape[:2] + coef.shape[3:]))
        if method.head == "cosine":
            coef /= np.maximum(np.linalg.norm(coef, axis=2, keepdims=True), 1e-30)
            coef *= np.array([point["scale"] for point in tried])[:, None, None]
        heads = zip(coef.mean(0), bias.mean(0, dtype=np.float64), strict=True)
        cosine = method.head == "cosine"
        return [_Head(mean, scale, each.T, own, cosine) for each, own in heads]

    def _choose(
        self,
        heads: Sequence["_Head"],
        tried: Sequence[Mapping[str, float]],
        X: np.ndarray,
        labels: np.ndarray,
        recalls: Mapping[int, float],
        groups: np.ndarray | None,
    ) -> None:
        """Certifies every head, takes the one of fewest false alarms, and keeps it."""
        best, self.offset_, self.certificate_, self.price_ = 0, 0.0, None, None
        if recalls:
            found = []
            for head in heads:
                logits = _logits(head, X)
                certificates = guarantee.certify_recalls(
                    logits,
                    labels,
                    recalls,
                    confidence=self.confidence,
                    groups=groups,
                    candidates=len(heads),
                    grid=np.zeros((1, len(recalls))),
                )
                if certificates.offset is None:
                    raise ValueError(certificates.why_not)
                # What finds more than was asked for keeps the promise too.
                offset = max(0.0, guarantee.with_room(certificates.offset[0], logits))
                price = guarantee.price(
                    logits, labels, tuple(recalls), offset, groups=groups
                )
                one = len(recalls) == 1
                certificate = certificates.parts[0] if one else certificates
                found.append((price.false_alarms.value, certificate, offset, price))
            best = min(range(len(found)), key=lambda i: found[i][0])
            _, self.certificate_, self.offset_, self.price_ = found[best]
        head = heads[best]
        self.mean_, self.scale_, self.cosine_ = head.mean, head.scale, head.cosine
        self.coef_, self.intercept_ = head.coef, head.intercept
        self.margin_ = tried[best].get("margin")


@dataclasses.dataclass(frozen=True)
class _Head:
    """From features to logits, in NumPy."""

    mean: np.ndarray
    scale: float
    coef: np.ndarray
    intercept: np.ndarray
    cosine: bool


@dataclasses.dataclass(frozen=True)
class _Weighted:
    """A loss of labels with weights beside them, `[batch, 2]`."""

    loss: Callable[..., jax.Array]

    def __call__(
        self, scores: jax.Array, labels: jax.Array, **hyperparameters: jax.Array
    ) -> jax.Array:
        values = self.loss(scores, labels[:, 0].astype(jnp.int32), **hyperparameters)
        return labels[:, 1] * values


def _logits(head: _Head, X: np.ndarray) -> np.ndarray:
    """Returns `[n, class]` float32, computed in float64."""
    with np.errstate(over="ignore", invalid="ignore"):
        z = _standardized(X, head.mean, head.scale)
        if head.cosine:
            z /= _unit(np.abs(z).max(1, keepdims=True))  # of which squares are finite
            z /= np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-30)
        logits = (z @ head.coef.T + head.intercept).astype(np.float32)
    if len(far := np.flatnonzero(~np.isfinite(logits).all(1))):
        raise ValueError(
            f"X must lie near the features of training, got X[{far[0]}] so far away "
            "that its logits are no finite float32"
        )
    return logits


def _standard(X: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, float]:
    """Weighted mean of each feature, and the root of their mean variance, if not 0."""
    X = X.astype(np.float64)
    # Neither sums nor squares of the largest floats are floats.
    unit = _unit(np.abs(X).max())
    X = X / unit
    mean = np.average(X, axis=0, weights=weight)
    apart = X - mean
    own = _unit(np.abs(apart).max())
    variance = np.average((apart / own) ** 2, axis=0, weights=weight).mean()
    return mean * unit, float(np.sqrt(variance) * own * unit) or 1.0


def _standardized(X: np.ndarray, mean: np.ndarray, scale: float) -> np.ndarray:
    """Returns features about a mean, in a unit."""
    # By halves: the difference of two of the largest floats is none.
    return (X.astype(np.float64) / 2 - mean / 2) / (scale / 2)


def _unit(largest: np.ndarray) -> np.ndarray:
    """A power of two, which divides without rounding, about as large."""
    return np.ldexp(1.0, np.frexp(largest)[1] - 1)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _order(number: int, steps: int, size: int, seed: int) -> np.ndarray:
    """Examples of each step `[step, batch]`: one shuffle of all after another."""
    random, wanted = np.random.default_rng(seed), steps * size
    rounds = [random.permutation(number) for _ in range(-(-wanted // number))]
    return np.concatenate(rounds)[:wanted].reshape(steps, size).astype(np.int32)


def _filled(*arrays: np.ndarray) -> list[np.ndarray]:
    """Arrays with rows that no order names, up to a length that others share."""
    length = _ROWS
    while length < len(arrays[0]):
        length *= 2
    return [np.resize(each, (length, *each.shape[1:])) for each in arrays]


@functools.lru_cache(maxsize=64)
def _program(config: TrainConfig, placement: lift.Placement) -> jax.stages.Wrapped:
    function = functools.partial(_train, config)
    return lift.lift(function, placement, (0, 0, None, None, None))


def _train(
    config: TrainConfig,
    seed: jax.Array,
    order: jax.Array,
    hyperparameters: dict[str, jax.Array],
    features: jax.Array,
    labels: jax.Array,
) -> Any:
    """The parameters of a seed's heads, one a point: they share the order."""
    ones = jnp.ones_like(features[0])
    # They are standardized already: of these two, the mean is 0 and the variance 1.
    state = trial.init(config, jnp.stack([-ones, ones]), seed)

    def trained(own: dict[str, jax.Array]) -> Any:
        return trial.train_in_order(config, state, own, order, features, labels)[0]

    return jax.vmap(trained)(hyperparameters).params["classes"]
