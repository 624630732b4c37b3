"""The smallest data set, network and sweep that training and sweeps can be tested on.

All tests train with the same shapes, so that they share compiled programs.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from camri_jax.datasets.dataset import Dataset, Part, make_dataset
from camri_jax.sweeps import plan as planning
from camri_jax.training import lift
from camri_jax.training.recipe import Recipe

CLASSES = ("ant", "bee", "cat")


class Tiny(nn.Module):
    """A user's own network: dropout and running statistics are all that it has."""

    feature_dim: int = 8

    @nn.compact
    def __call__(self, images, *, train):
        """Embeds `images` `[batch, height, width, channel]`."""
        x = images.reshape(len(images), -1).astype(jnp.float32) / 255.0
        x = nn.tanh(nn.Dense(self.feature_dim)(x))
        x = nn.Dropout(0.25, deterministic=not train)(x)
        return nn.BatchNorm(use_running_average=not train, momentum=0.5)(x)


# Adam would make steps of full length from the last digits of a zero gradient.
RECIPE = Recipe(batch_size=8, epochs=2, optimizer="sgd", learning_rate=0.05)


def part(size: int, seed: int) -> Part:
    """Noise, in which each class is bright in rows of its own."""
    labels = (np.arange(size) % len(CLASSES)).astype(np.int32)
    images = np.random.default_rng(seed).integers(0, 120, (size, 8, 8, 1))
    for image, label in zip(images, labels, strict=True):
        image[2 * label : 2 * label + 3] += 60
    return Part(images.astype(np.uint8), labels)


DATASET = make_dataset(
    "tiny",
    {"train": part(27, 0), "validation": part(9, 1), "test": part(12, 2)},
    CLASSES,
)
"""Three batches of 8 and three images left over; validation fills its last batch."""


def without(dataset: Dataset, name: str, label: int | None = None) -> Dataset:
    """The data set without a part, or without a part's images of one class."""
    old = dataset.parts[name]
    kept = np.zeros(len(old.labels), bool) if label is None else old.labels != label
    parts = dataset.parts | {name: Part(old.images[kept], old.labels[kept])}
    return dataclasses.replace(dataset, parts=parts)


def placement(num_devices: int = 2, **changes) -> lift.Placement:
    """What a CPU wants, with changes."""
    mesh = lift.trial_mesh(jax.devices()[:num_devices])
    return lift.placement(mesh)._replace(**changes)


def plan(*, dataset=DATASET, where=None, done=(), **changes):
    """Plans a sweep on two devices; as a rule two methods of one family."""
    own = {"important": ("bee",), "methods": ("l2_softmax", "camri"), "num_seeds": 2}
    own |= {"grid": {"camri.margin": (0.2,)}, "recipe": RECIPE}
    return planning.plan(
        planning.SweepConfig(**(own | changes)),
        dataset,
        placement() if where is None else where,
        done=done,
        backbone=Tiny(),
    )
