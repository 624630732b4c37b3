"""Made-up images, and trials of CAMRI that train on them for the benchmarks."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from camri_jax.sweeps.width import lift_programs
from camri_jax.training import lift as parallel
from camri_jax.training import trial as train
from camri_jax.training.methods import METHODS, Hyperparameters
from camri_jax.training.recipe import TrainConfig

Data = tuple[np.ndarray, np.ndarray]
Epoch = Callable[[], np.ndarray]
"""Trains all trials for one more epoch and returns their losses `[trial]`."""


def images_of(shape: Sequence[int], number: int, num_classes: int = 10) -> Data:
    """Returns random images uint8 and labels int32."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (number, *shape), np.uint8)
    return images, rng.integers(0, num_classes, number, np.int32)


def camri(num_classes: int) -> Hyperparameters:
    """Returns CAMRI's hyperparameters with class 0 important."""
    return METHODS["camri"].hyperparameters(num_classes, (0,), margin=0.2, scale=16.0)


def stacked(num_classes: int, num_trials: int) -> Hyperparameters:
    """Returns the hyperparameters of several trials of CAMRI."""
    return jax.tree.map(lambda x: np.stack([x] * num_trials), camri(num_classes))


def at_once(
    config: TrainConfig, data: Data, num_trials: int, mesh: Mesh
) -> tuple[Epoch, jax.stages.Compiled]:
    """Returns the epoch of trials in one program as the sweep's, and the program."""
    programs = lift_programs(config, data[0].shape[1:], mesh)
    images, labels = parallel.replicate(data, mesh)
    hyperparameters = stacked(config.num_classes, num_trials)
    seeds = np.arange(num_trials, dtype=np.int32)
    seeds, hyperparameters = parallel.shard((seeds, hyperparameters), mesh)
    states = programs.init(seeds)
    program = programs.train_epoch.lower(
        states, hyperparameters, images, labels
    ).compile()

    def epoch() -> np.ndarray:
        nonlocal states
        states, losses = program(states, hyperparameters, images, labels)
        return np.asarray(losses)

    return epoch, program


def one_by_one(config: TrainConfig, data: Data, num_trials: int, mesh: Mesh) -> Epoch:
    """Returns the epoch of trials one after another, in turn on the mesh's devices."""
    init = jax.jit(functools.partial(train.init, config, data[0].shape[1:]))
    program = jax.jit(functools.partial(train.train_epoch, config), donate_argnums=0)
    devices = list(mesh.devices.flat)
    placed = [jax.device_put((camri(config.num_classes), *data), d) for d in devices]
    states = [
        init(jax.device_put(jnp.int32(seed), devices[seed % len(devices)]))
        for seed in range(num_trials)
    ]

    def epoch() -> np.ndarray:
        losses = []
        for i in range(num_trials):
            # Returns at once: the next device starts while this one works.
            states[i], loss = program(states[i], *placed[i % len(devices)])
            losses.append(loss)
        return np.asarray(jax.device_get(losses))

    return epoch
