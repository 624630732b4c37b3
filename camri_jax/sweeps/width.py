"""The compiled programs of a chunk of trials: what they take, need and cost."""

import functools
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import psutil
from jax.sharding import Mesh

from camri_jax.datasets import Dataset
from camri_jax.sweeps.plan import Chunk, Plan, Trial, train_config
from camri_jax.training import lift as parallel
from camri_jax.training import trial as train
from camri_jax.training.methods import METHODS
from camri_jax.training.recipe import TrainConfig


class Programs(NamedTuple):
    """The functions of one method, lifted over trials and devices.

    Attributes:
      init: `(seeds, )` to states.
      train_epoch: `(states, hyperparameters, images, labels)` to states, losses.
      evaluate: `(states, hyperparameters, important, constants, images, labels)`
        to an `Evaluation`.
    """

    init: jax.stages.Wrapped
    train_epoch: jax.stages.Wrapped
    evaluate: jax.stages.Wrapped


def lift_programs(
    config: TrainConfig, image_shape: tuple[int, ...], mesh: Mesh
) -> Programs:
    """Lifts initialization, training and evaluation of one method over trials.

    Args:
      config: what the method's trials share.
      image_shape: `(height, width, channels)`.
      mesh: from `camri_jax.training.lift.trial_mesh`.

    Returns:
      The `Programs`; images, labels and constants are shared by the trials,
      all other arguments lead with a trial axis.
    """
    init = functools.partial(train.init, config, image_shape)
    train_epoch = functools.partial(train.train_epoch, config)
    evaluate = functools.partial(train.evaluate, config)
    # On a CPU the time is in matrix products that are compiled already: optimizing
    # what is between them takes long and gains nothing that can be measured.
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    options = {"xla_backend_optimization_level": 1} if on_cpu else None
    lift = functools.partial(
        parallel.lift, mesh=mesh, together=not on_cpu, compiler_options=options
    )
    return Programs(
        lift(init, in_axes=(0,)),
        lift(train_epoch, in_axes=(0, 0, None, None), donate_argnums=(0,)),
        lift(evaluate, in_axes=(0, 0, 0, None, None, None)),
    )


def stack(chunk: Chunk, num_classes: int) -> tuple[Any, Any, Any]:
    """Stacks a chunk's trials, padded to its width with the last of them.

    Args:
      chunk: of a plan.
      num_classes: number of classes.

    Returns:
      Seeds `[trial]`, hyperparameters with a leading trial axis, and masks of the
      choices of important classes `[trial, choice, num_classes]`.
    """
    trials = chunk.trials + chunk.trials[-1:] * (chunk.width - len(chunk.trials))
    hyperparameters = [
        METHODS[trial.method].hyperparameters(
            num_classes, trial.choices[0], **trial.point
        )
        for trial in trials
    ]
    masks = np.zeros((chunk.width, chunk.num_choices, num_classes), bool)
    for trial, mask in zip(trials, masks, strict=True):
        for choice, row in zip(trial.choices, mask, strict=False):
            row[list(choice)] = True
    seeds = np.array([trial.seed for trial in trials], np.int32)
    return seeds, jax.tree.map(lambda *x: np.stack(x), *hyperparameters), masks


def memory_bytes(plan: Plan, dataset: Dataset, mesh: Mesh) -> int:
    """Returns the memory that a device needs to train the plan's widest chunk.

    Compiles that chunk's epoch and asks the compiler, so it holds for this backend;
    the program itself and what the allocator loses come on top.

    Args:
      plan: from `camri_jax.planning.plan`.
      dataset: the images it was made for.
      mesh: the devices.

    Returns:
      Bytes; 0 if there is nothing to train.
    """
    if not plan.chunks:
        return 0
    chunk = max(plan.chunks, key=lambda chunk: chunk.width)
    config = train_config(chunk.family, dataset, plan.config.recipe)
    data = dataset.train_images, dataset.train_labels
    return _bytes(_compile_epoch(chunk, config, data, mesh))


def best_width(plan: Plan, dataset: Dataset, mesh: Mesh) -> int:
    """Returns how many trials a device trains at once in the least time a trial.

    Compiles two steps of 1, 2, 4, ... trials of the family that has the most, and
    times them, until a trial gains less than 3 % or the device is full.

    Args:
      plan: from `camri_jax.planning.plan`, of any width.
      dataset: the images it was made for.
      mesh: the devices.

    Returns:
      Trials a device, 1 at least.
    """
    trials_of: dict[str, list[Trial]] = {}
    for chunk in plan.chunks:
        trials_of.setdefault(chunk.family, []).extend(chunk.trials)
    if not trials_of:
        return 1
    family, trials = max(trials_of.items(), key=lambda item: len(item[1]))
    recipe = plan.config.recipe
    size = min(2 * recipe.batch_size, len(dataset.train_labels))
    data = dataset.train_images[:size], dataset.train_labels[:size]
    config = TrainConfig(family, len(dataset.class_names), size, recipe)
    images = (dataset.train_images, dataset.validation_images, dataset.test_images)
    free = _free_bytes(mesh) - sum(part.nbytes for part in images)

    best, least = 1, float("inf")
    width = 1
    while width == 1 or width * mesh.size < 2 * len(trials):
        few = tuple(trials[: width * mesh.size])
        chunk = Chunk(family, few, width * mesh.size, plan.chunks[0].num_choices)
        try:
            program = _compile_epoch(chunk, config, data, mesh)
            if _bytes(program) > free:
                break
            seconds = _seconds(program, chunk, config, data, mesh) / width
        except jax.errors.JaxRuntimeError as error:
            if not out_of_memory(error):
                raise
            break
        if seconds > 0.97 * least:
            break
        best, least, width = width, seconds, 2 * width
    return best


def out_of_memory(error: Exception) -> bool:
    """Returns whether a device had too little memory."""
    return "RESOURCE_EXHAUSTED" in str(error)


def _compile_epoch(
    chunk: Chunk, config: TrainConfig, data: Sequence[Any], mesh: Mesh
) -> jax.stages.Compiled:
    programs = lift_programs(config, data[0].shape[1:], mesh)
    seeds, hyperparameters, _ = stack(chunk, config.num_classes)
    states = jax.eval_shape(programs.init, seeds)
    shapes = [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in data]
    return programs.train_epoch.lower(states, hyperparameters, *shapes).compile()


def _bytes(program: jax.stages.Compiled) -> int:
    need = program.memory_analysis()
    assert need is not None, "CPU, GPU and TPU all have this analysis"
    arguments = need.argument_size_in_bytes - need.alias_size_in_bytes
    return arguments + need.output_size_in_bytes + need.temp_size_in_bytes


def _free_bytes(mesh: Mesh) -> float:
    """What programs may take of a device, with a tenth left for what they lose."""
    statistics = mesh.devices.flat[0].memory_stats()
    if statistics is None:
        return 0.9 * psutil.virtual_memory().available / mesh.size
    return 0.9 * (statistics["bytes_limit"] - statistics["bytes_in_use"])


def _seconds(
    program: jax.stages.Compiled,
    chunk: Chunk,
    config: TrainConfig,
    data: Sequence[Any],
    mesh: Mesh,
) -> float:
    """The least of a few runs; the first, untimed, warms up."""
    init = lift_programs(config, data[0].shape[1:], mesh).init
    seeds, hyperparameters, _ = parallel.shard(stack(chunk, config.num_classes), mesh)
    data = parallel.replicate(tuple(data), mesh)
    states, times = init(seeds), []
    while len(times) < 2 or (len(times) < 4 and sum(times) < 1.0):
        start = time.perf_counter()
        states, loss = program(states, hyperparameters, *data)
        jax.block_until_ready(loss)
        times.append(time.perf_counter() - start)
    return min(times[1:])
