"""What is the same for many trials: how they are trained, and on what."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from camri_jax._files import UsageError, whole_number
from camri_jax.training.augment import Fill, Flip
from camri_jax.training.methods import HeadKind, Method
from camri_jax.training.network import NETWORKS, Convolution, Network

Optimizer = Literal["adam", "sgd"]
Schedule = Literal["constant", "cosine", "triangle"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Recipe:
    """How trials are trained, whatever their method.

    Batch size, optimizer, learning rate and schedule are the paper's (section IV-A2)
    unless told otherwise.

    Attributes:
      network: paper, that of the paper; small, five convolutions; fast, seven, which
        reach 90 % on CIFAR-10 in a few epochs; or features, none, where npz:FILE holds
        features.
      feature_dim: Dimension of the features, else the network's own.
      epochs: Passes over the training images.
      batch_size: Images a step.
      resample: Training images that each seed draws for itself, of all there are, so
        that what is found holds for other images too; 0: all of them.
      optimizer: Adam with epsilon 1e-7, or SGD with Nesterov momentum.
      momentum: Weight of the past in that momentum.
      learning_rate: The highest in the whole training.
      clip_norm: Largest norm of all gradients of a step together, before momentum: a
        loss of large gradients, or of large weights, then takes no longer steps than
        cross-entropy; 0 for no bound.
      schedule: Constant, a cosine from the learning rate down to zero, or a triangle
        with its peak at 23 % of the steps.
      weight_decay: What all weights shrink by in a step, times the learning rate. None,
        for heads on features: 20 times the features for each training image, or half
        of the weights in a step.
      norm_bias_rate: What the steps of the biases of normalizations are multiplied by.
      lookahead: Steps between two pulls of slow weights, which end the training; 0 for
        none.
      ema_decay: Weight of the past in the moving average of the weights, which is then
        what is evaluated; less in the first steps, whose past is the random start; 0
        for none.
      augment_shift: Largest random translation along each axis, in pixels; 0 for none.
      augment_fill: What then moves in: zeros, or the image reflected at its edge.
      augment_flip: Mirror half of the images left to right: drawn anew each epoch, or
        once and then in every other epoch.
      logit_scale: What the prototypes and biases of a linear head are multiplied by.
      precision: Type of the network's activations and matrix products. Weights,
        optimizer, features, scores and losses are float32 either way.
    """

    network: str = "small"
    feature_dim: int | None = None
    epochs: int = 10
    batch_size: int = 64
    resample: int = 0
    optimizer: Optimizer = "adam"
    momentum: float = 0.9
    learning_rate: float = 1e-3
    clip_norm: float = 0.0
    schedule: Schedule = "constant"
    weight_decay: float | None = 0.0
    norm_bias_rate: float = 1.0
    lookahead: int = 0
    ema_decay: float = 0.0
    augment_shift: int = 0
    augment_fill: Fill = "black"
    augment_flip: Flip = "none"
    logit_scale: float = 1.0
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        for name, allowed in (
            ("network", tuple(NETWORKS)),
            ("optimizer", get_args(Optimizer)),
            ("schedule", get_args(Schedule)),
            ("augment_fill", get_args(Fill)),
            ("augment_flip", get_args(Flip)),
            ("precision", get_args(Precision)),
        ):
            if getattr(self, name) not in allowed:
                raise UsageError(
                    f"{name} must be one of {', '.join(allowed)}, got "
                    f"{getattr(self, name)!r}"
                )
        if self.network == "features":
            for name, plain in (
                ("augment_shift", 0),
                ("augment_flip", "none"),
                ("feature_dim", None),
            ):
                if (value := getattr(self, name)) != plain:
                    raise UsageError(
                        f"{name} must be {plain} for features, which are taken as they "
                        f"are, got {value}"
                    )
        left = {
            "feature_dim": self.feature_dim is None,
            "weight_decay": self.weight_decay is None and self.network == "features",
        }
        for name, least, *most in (
            ("epochs", 1, 10**6),
            ("batch_size", 2),
            ("resample", 0),
            ("augment_shift", 0),
            ("lookahead", 0),
            ("feature_dim", 2),
        ):
            if not left.get(name):
                number = whole_number(name, getattr(self, name), least, *most)
                object.__setattr__(self, name, number)
        for name, is_allowed, allowed in (
            ("weight_decay", lambda x: 0 <= x < math.inf, "at least 0"),
            ("clip_norm", lambda x: 0 <= x < math.inf, "at least 0"),
            ("learning_rate", lambda x: 0 < x < math.inf, "above 0"),
            ("logit_scale", lambda x: 0 < x < math.inf, "above 0"),
            ("norm_bias_rate", lambda x: 0 < x < math.inf, "above 0"),
            ("ema_decay", lambda x: 0 <= x < 1, "in [0, 1)"),
            ("momentum", lambda x: 0 <= x < 1, "in [0, 1)"),
        ):
            value = getattr(self, name)
            if left.get(name):
                continue
            if isinstance(value, np.generic):
                value = value.item()
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not is_allowed(value):
                raise UsageError(f"{name} must be {allowed}, got {value!r}")
            # 1 and 1.0 would name two trials.
            object.__setattr__(self, name, float(value))

    @classmethod
    def paper(cls, **changes: Any) -> "Recipe":
        """Returns the paper's recipe, with changes.

        >>> Recipe.paper(batch_size=128).epochs
        300
        """
        return cls(**({"network": "paper", "epochs": 300} | changes))

    @classmethod
    def fast(cls, **changes: Any) -> "Recipe":
        """Returns a recipe for 90 % on CIFAR-10 in a few epochs, with changes.

        >>> Recipe.fast(epochs=12).network
        'fast'
        """
        own: dict[str, Any] = {
            "network": "fast",
            "epochs": 8,
            "batch_size": 500,
            "optimizer": "sgd",
            "momentum": 0.85,
            "learning_rate": 0.57,
            "clip_norm": 0.5,
            "schedule": "triangle",
            "weight_decay": 0.011,
            "norm_bias_rate": 64.0,
            "lookahead": 5,
            "augment_shift": 2,
            "augment_fill": "reflect",
            "augment_flip": "alternating",
            "logit_scale": 0.16,
        }
        return cls(**(own | changes))

    @classmethod
    def light(cls, **changes: Any) -> "Recipe":
        """Returns the fast recipe for some thousand small images, with changes.

        Nothing is mirrored: on signs and digits left and right mean something.

        >>> Recipe.light().batch_size
        64
        """
        own: dict[str, Any] = {
            "epochs": 8,
            "batch_size": 64,
            # Whatever a loss is multiplied by, Adam's steps are the same.
            "optimizer": "adam",
            "learning_rate": 0.005,
            "clip_norm": 0.0,
            "weight_decay": 0.0,
            "norm_bias_rate": 1.0,
            "lookahead": 0,
            "augment_shift": 1,
            "augment_flip": "none",
        }
        return cls.fast(**(own | changes))

    @classmethod
    def heads(cls, **changes: Any) -> "Recipe":
        """Returns a recipe for heads on features, with changes.

        >>> Recipe.heads().network
        'features'
        """
        own: dict[str, Any] = {
            "network": "features",
            "epochs": 20,
            "batch_size": 256,
            "learning_rate": 0.01,
            "schedule": "cosine",
            "weight_decay": None,
        }
        return cls(**(own | changes))


def weight_decay(num_features: int, num_images: int, learning_rate: float) -> float:
    r"""Returns the weight decay of a linear head that suits its data.

    .. math::
        \lambda = \min\left(20\, \frac{d}{n}, \frac{1}{2 \eta}\right)

    A prior that does not change weighs less the more images there are, by 1 / n; and
    Adam's steps are of one size, so that weights end within 1 / λ of 0, and logits grow
    with the number of features. A step takes at most half of the weights: taking twice
    of them would make them grow.

    Args:
      num_features: d, each in about the same unit.
      num_images: n, that it is trained on.
      learning_rate: η, what decays is multiplied by in a step.

    >>> weight_decay(1280, 1000, 0.01), weight_decay(1280, 10, 0.01)
    (25.6, 50.0)
    """
    return min(20 * num_features / num_images, 0.5 / learning_rate)


@dataclass(frozen=True)
class TrainConfig:
    """What the trials of one compiled program share.

    Attributes:
      loss: `(scores, labels, **hyperparameters)` to one value per example.
      head: linear with bias, or cosine without.
      num_classes: number of classes.
      num_images: number of training images.
      recipe: how they are trained.
      backbone: a Flax module from images to features; `None` for the recipe's network.
      convolution: the form of the recipe's network's convolutions: which is fast
        depends on the device, the numbers hardly do.
      dual: how the multipliers of a loss under constraints move, as in `Method`.
    """

    loss: Callable[..., jax.Array]
    head: HeadKind
    num_classes: int
    num_images: int
    recipe: Recipe = field(default_factory=Recipe)
    backbone: Any = None
    convolution: Convolution = "patches"
    dual: Callable[..., jax.Array] | None = None

    def __post_init__(self) -> None:
        for name, most in (
            ("resample", self.num_images),
            ("batch_size", self.num_drawn),
        ):
            if most < (value := getattr(self.recipe, name)):
                raise UsageError(
                    f"{name} must be at most the number of training images, {most}, "
                    f"got {value}"
                )

        if self.recipe.lookahead >= self.num_steps:
            raise UsageError(
                f"lookahead must be below the number of steps, {self.num_steps}, got "
                f"{self.recipe.lookahead}: its slow weights would never move"
            )

    @classmethod
    def of(cls, method: Method, **shared: Any) -> "TrainConfig":
        """Returns what the trials of a method share."""
        return cls(method.loss, method.head, dual=method.dual, **shared)

    @property
    def num_drawn(self) -> int:
        """Training images that a trial takes, of `num_images`."""
        return self.recipe.resample or self.num_images

    @property
    def num_batches(self) -> int:
        """Full batches in an epoch."""
        return self.num_drawn // self.recipe.batch_size

    @property
    def num_steps(self) -> int:
        """Steps of the whole training."""
        return self.recipe.epochs * self.num_batches

    @property
    def network(self) -> Network:
        """The network that the trials train."""
        backbone = self.backbone
        if backbone is None:
            own = {"feature_dim": self.recipe.feature_dim}
            backbone = NETWORKS[self.recipe.network](
                dtype=jnp.dtype(self.recipe.precision),
                convolution=self.convolution,
                **{name: value for name, value in own.items() if value is not None},
            )
        scale = self.recipe.logit_scale
        return Network(backbone, self.num_classes, self.head, scale)
