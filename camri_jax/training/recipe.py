"""What is the same for many trials: how they are trained, and on what."""

from dataclasses import dataclass, field
from typing import Literal

import jax.numpy as jnp

from camri_jax.training.methods import FAMILIES
from camri_jax.training.network import CNN, PRESETS


@dataclass(frozen=True)
class Recipe:
    """How trials are trained, whatever their method.

    Batch size, optimizer, learning rate and schedule are the paper's (section IV-A2).

    Attributes:
      model: a name in `camri_jax.training.network.PRESETS`.
      feature_dim: dimension of the features; `None` keeps the model's own.
      epochs: passes over the training images.
      batch_size: images a step.
      optimizer: Adam and AdamW with epsilon 1e-7, or SGD with Nesterov momentum 0.9.
      learning_rate: its value at the first step.
      schedule: constant, or a cosine from the learning rate down to zero.
      ema_decay: weight of the past in the moving average of the weights, which is
        then what is evaluated; 0 for none.
      augment_pad: pixels of zero padding before a random crop; 0 for none.
      augment_flip: mirror half of the images left to right.
      precision: type of the network's activations and matrix products. Weights,
        optimizer, features and losses are float32 either way.
    """

    model: Literal["small", "paper"] = "small"
    feature_dim: int | None = None
    epochs: int = 10
    batch_size: int = 64
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: float = 1e-3
    schedule: Literal["constant", "cosine"] = "constant"
    ema_decay: float = 0.0
    augment_pad: int = 0
    augment_flip: bool = False
    precision: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        for name, allowed in (
            ("model", tuple(PRESETS)),
            ("optimizer", ("adam", "adamw", "sgd")),
            ("schedule", ("constant", "cosine")),
            ("precision", ("float32", "bfloat16")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} must be one of {', '.join(allowed)}, got "
                    f"{getattr(self, name)!r}"
                )
        for name, least in (("epochs", 1), ("batch_size", 2), ("augment_pad", 0)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"{name} must be at least {least}, got {getattr(self, name)}"
                )
        if self.feature_dim is not None and self.feature_dim < 2:
            raise ValueError(f"feature_dim must be at least 2, got {self.feature_dim}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be in [0, 1), got {self.ema_decay}")


@dataclass(frozen=True)
class TrainConfig:
    """What the trials of one compiled program share.

    Attributes:
      family: a name in `camri_jax.training.methods.FAMILIES`.
      num_classes: number of classes.
      num_images: number of training images.
      recipe: how they are trained.
    """

    family: str
    num_classes: int
    num_images: int
    recipe: Recipe = field(default_factory=Recipe)

    def __post_init__(self) -> None:
        if self.num_images < self.recipe.batch_size:
            raise ValueError(
                "batch_size must be at most the number of training images, "
                f"{self.num_images}, got {self.recipe.batch_size}"
            )

    @property
    def num_batches(self) -> int:
        """Full batches in an epoch."""
        return self.num_images // self.recipe.batch_size

    @property
    def network(self) -> CNN:
        """The network that the trials train."""
        network = PRESETS[self.recipe.model](
            num_classes=self.num_classes,
            use_bias=FAMILIES[self.family].use_bias,
            dtype=jnp.dtype(self.recipe.precision),
        )
        if self.recipe.feature_dim is None:
            return network
        return network.copy(feature_dim=self.recipe.feature_dim)
