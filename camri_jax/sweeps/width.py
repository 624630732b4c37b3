"""How many trials a device trains at once, and the memory they need."""

import time

import jax
import numpy as np
import psutil

from camri_jax.datasets import Dataset
from camri_jax.sweeps.chunk import programs
from camri_jax.sweeps.engine import out_of_memory
from camri_jax.sweeps.plan import Chunk, Plan, Trial, problem_of, stack
from camri_jax.training import lift
from camri_jax.training.lift import Placement
from camri_jax.training.recipe import TrainConfig


def memory_bytes(plan: Plan, dataset: Dataset) -> int:
    """Returns the memory that a device needs for a step of the plan's widest chunk.

    The training images are part of it. The compiler is asked, so it holds for this
    backend; the program itself and what the allocator loses come on top.

    Args:
      plan: from `camri_jax.sweeps.plan.plan`.
      dataset: the images it was made for.

    Returns:
      Bytes; 0 if there is nothing to train.
    """
    if not plan.chunks:
        return 0
    chunk = max(plan.chunks, key=lambda chunk: chunk.width)
    return _bytes(_compiled(chunk, dataset, plan.placement))


def best_width(plan: Plan, dataset: Dataset) -> int:
    """Returns how many trials a device trains at once in the least time a trial.

    Compiles a step of 1, 2, 4, ... trials of the program that has the most, and times
    it, until a trial gains less than 3 % or the device is full. A device that takes its
    trials one after another takes one.

    Args:
      plan: from `camri_jax.sweeps.plan.plan`, of any width.
      dataset: the images it was made for.

    Returns:
      Trials a device, 1 at least.
    """
    if not plan.placement.together or not plan.chunks:
        return 1
    trials: dict[TrainConfig, list[Trial]] = {}
    for chunk in plan.chunks:
        trials.setdefault(chunk.config, []).extend(chunk.trials)
    config, most = max(trials.items(), key=lambda item: len(item[1]))
    size = plan.placement.mesh.size
    others = [part for name, part in dataset.parts.items() if name != "train"]
    free = _free_bytes(plan.placement) - sum(part.images.nbytes for part in others)
    best, least, width = 1, float("inf"), 1
    while width == 1 or width * size < 2 * len(most):
        chunk = Chunk(config, tuple(most[: width * size]), width * size)
        try:
            program = _compiled(chunk, dataset, plan.placement)
            if _bytes(program) > free:
                break
            seconds = _seconds(program, chunk, dataset, plan.placement) / width
        except jax.errors.JaxRuntimeError as error:
            if not out_of_memory(error):
                raise
            break
        if seconds > 0.97 * least:
            break
        best, least, width = width, seconds, 2 * width
    return best


def seconds_per_trial(plan: Plan, dataset: Dataset, num_steps: int = 3) -> float:
    """Returns an estimate of how long a trial of the plan takes, from a few steps.

    Args:
      plan: from `camri_jax.sweeps.plan.plan`.
      dataset: the images it was made for.
      num_steps: how many steps are timed.

    Returns:
      Seconds of training, of all devices together divided by the trials they train at
      once; scoring and saving come on top. 0 if there is nothing to train.
    """
    if not plan.chunks:
        return 0.0
    chunk = plan.chunks[0]
    program = _compiled(chunk, dataset, plan.placement)
    step = _seconds(program, chunk, dataset, plan.placement, num_steps)
    steps = chunk.config.recipe.epochs * chunk.config.num_batches
    return step * steps / chunk.width


def _compiled(
    chunk: Chunk, dataset: Dataset, placement: Placement
) -> jax.stages.Compiled:
    run, train = programs(chunk.config, placement), dataset.parts["train"]
    seeds, hyperparameters = stack(chunk, problem_of(dataset))
    shapes = [
        jax.ShapeDtypeStruct(array.shape, array.dtype)
        for array in (train.images, train.labels)
    ]
    states = jax.eval_shape(run.init, shapes[0], seeds)
    orders = jax.eval_shape(run.shuffle, states)
    return run.step.lower(states, hyperparameters, orders, *shapes).compile()


def _seconds(
    program: jax.stages.Compiled,
    chunk: Chunk,
    dataset: Dataset,
    placement: Placement,
    num_steps: int = 3,
) -> float:
    """The median of a few steps; the first, untimed, warms up."""
    run, train = programs(chunk.config, placement), dataset.parts["train"]
    seeds, hyperparameters = lift.shard(
        stack(chunk, problem_of(dataset)), placement.mesh
    )
    data = np.asarray(train.images), np.asarray(train.labels)
    data = lift.replicate(data, placement.mesh)
    states = run.init(data[0][:1], seeds)
    orders, times = run.shuffle(states), []
    for _ in range(1 + num_steps):
        start = time.perf_counter()
        states, loss = program(states, hyperparameters, orders, *data)
        jax.block_until_ready(loss)
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:]))


def _bytes(program: jax.stages.Compiled) -> int:
    need = program.memory_analysis()
    assert need is not None, "CPU, GPU and TPU all have this analysis"
    arguments = need.argument_size_in_bytes - need.alias_size_in_bytes
    return arguments + need.output_size_in_bytes + need.temp_size_in_bytes


def _free_bytes(placement: Placement) -> float:
    """What programs may take of a device, with a tenth left for what they lose."""
    statistics = placement.mesh.devices.flat[0].memory_stats()
    if statistics is None:
        return 0.9 * psutil.virtual_memory().available / placement.mesh.size
    return 0.9 * (statistics["bytes_limit"] - statistics["bytes_in_use"])
