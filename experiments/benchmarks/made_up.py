"""Made-up examples, and trials of CAMRI that train on them."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from camri_jax.sweeps.chunk import programs
from camri_jax.training import lift, trial
from camri_jax.training.lift import Placement
from camri_jax.training.methods import (
    METHODS,
    Hyperparameters,
    Problem,
    hyperparameters,
)
from camri_jax.training.recipe import TrainConfig

Data = tuple[np.ndarray, np.ndarray]
Epoch = Callable[[], np.ndarray]
"""Trains all trials for one more epoch and returns their losses `[trial]`."""

MARGIN, SCALE = 0.2, 16.0


def images_of(shape: Sequence[int], number: int, num_classes: int = 10) -> Data:
    """Returns random images uint8 and labels int32."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (number, *shape), np.uint8)
    return images, rng.integers(0, num_classes, number, np.int32)


def camri(num_classes: int) -> Hyperparameters:
    """Returns CAMRI's hyperparameters with class 0 important."""
    problem = Problem(num_classes, (0,), (1,) * num_classes)
    return hyperparameters("camri", problem, {"margin": MARGIN, "scale": SCALE})


def config_of(data: Data, num_classes: int = 10, **shared: Any) -> TrainConfig:
    """Returns what trials of CAMRI on these data share."""
    sizes = {"num_classes": num_classes, "num_images": len(data[1])}
    return TrainConfig.of(METHODS["camri"], **sizes, **shared)


class Trials:
    """Trials of seeds 0, 1, ..., or in one order all of seed 0, in a sweep's programs.

    Attributes:
      run: the programs.
      states: of the trials, on devices.
      hyperparameters: of the trials, on devices; CAMRI's unless told otherwise.
    """

    def __init__(
        self,
        config: TrainConfig,
        placement: Placement,
        data: Data,
        num_trials: int,
        hyperparameters: Hyperparameters | None = None,
    ):
        one = hyperparameters or camri(config.num_classes)
        stacked = jax.tree.map(lambda x: np.stack([x] * num_trials), one)
        seeds = np.arange(num_trials, dtype=np.int32) * (not placement.one_order)
        seeds, self.hyperparameters = lift.shard((seeds, stacked), placement.mesh)
        self.run = programs(config, placement)
        self.data = lift.replicate(data, placement.mesh)
        self.states = self.run.init(self.data[0], seeds)

    def epoch(self) -> np.ndarray:
        """Trains for one more epoch and returns the losses `[trial]`."""
        self.states, losses = self.run.train_epoch(
            self.states, self.hyperparameters, *self.data
        )
        return np.mean(jax.device_get(losses), 0)

    def logits(self, batches: Any) -> np.ndarray:
        """Returns `[trial, image, class]` of what `sweeps.chunk.place` batched."""
        scores = self.run.score(self.states, self.hyperparameters, batches)
        return np.concatenate([each.logits for each in jax.device_get(scores)], 1)


def one_by_one(config: TrainConfig, data: Data, num_trials: int) -> Epoch:
    """Returns the epoch of trials one after another, each on the whole first device."""
    init = jax.jit(functools.partial(trial.init, config))
    shuffle = jax.jit(functools.partial(trial.shuffle, config))
    step = jax.jit(functools.partial(trial.train_batch, config), donate_argnums=0)
    own, (images, labels) = camri(config.num_classes), jax.device_put(data)
    states = [init(images, jnp.int32(seed)) for seed in range(num_trials)]

    def of_trial(i: int) -> np.ndarray:
        order, losses = shuffle(states[i]), []
        for _ in range(config.num_batches):
            states[i], loss = step(states[i], own, order, images, labels)
            losses.append(loss)
        return np.mean(jax.device_get(losses), 0)

    return lambda: np.array([of_trial(i) for i in range(num_trials)])
