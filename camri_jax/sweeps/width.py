"""How devices take trials, by measurement: the form of convolutions, and how many."""

import collections
import dataclasses
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from camri_jax._files import write_whole
from camri_jax._machine import free_bytes
from camri_jax.datasets import Dataset
from camri_jax.sweeps.chunk import programs, states_of
from camri_jax.sweeps.engine import out_of_memory
from camri_jax.sweeps.plan import Chunk, Plan, Trial, problem_of, stack
from camri_jax.training import lift
from camri_jax.training.lift import Placement
from camri_jax.training.network import Convolution
from camri_jax.training.recipe import TrainConfig

FORMS: tuple[Convolution, ...] = ("lax", "patches")
"""What is tried on a device that was not there when `lift.placement` was written."""

_STEPS = 4
"""Steps that are timed as one program, where an epoch is one."""

_WORTH = 60.0
"""Seconds of a whole sweep from which a search can gain more than it takes."""


def memory_bytes(plan: Plan, dataset: Dataset) -> int:
    """Returns the memory that a device needs for a step of the plan's widest chunk.

    The training images are part of it. The compiler is asked, so it holds for these
    devices; the program itself and what the allocator loses come on top.

    Args:
      plan: from `camri_jax.sweeps.plan.plan`.
      dataset: the images it was made for.

    Returns:
      Bytes; 0 if there is nothing to train.
    """
    if not plan.chunks:
        return 0
    chunk = max(plan.chunks, key=lambda chunk: chunk.width)
    program = _compiled(chunk, dataset, plan.placement)
    return _needed(program, dataset, plan.placement)


def measures(placement: Placement) -> bool:
    """Returns whether it is measured how many trials a device takes at once.

    Of heads as many do for all devices, and a CPU takes networks one after another.

    Args:
      placement: of a plan.
    """
    return placement.vectorized and not placement.one_order


def best(
    plan: Plan, dataset: Dataset, forms: Sequence[Convolution] = FORMS
) -> tuple[Convolution, int]:
    """Returns in what form, and how many at once, trials take the least time each.

    For each form it compiles a few steps of 1, 2, 4, ... trials of the program that has
    the most, and times them, until a trial gains less than 3 % or the device is full.
    One trial at once is one after another. What it finds is kept beside the compiled
    programs. A CPU is not measured: its row of `lift.placement` was, and compiling a
    form to try it takes longer than a small sweep could gain. Nor is a sweep searched
    for that takes less than a minute anyway.

    Args:
      plan: from `camri_jax.sweeps.plan.plan`, of any width.
      dataset: the images it was made for.
      forms: of convolutions, that may be chosen; the plan's own is tried first.

    Returns:
      The form, and the trials a device, 1 at least.
    """
    own = plan.placement.convolution
    if not measures(plan.placement) or not plan.chunks:
        return own, 1
    config, most = _most(plan)
    if config.backbone is not None:
        forms = ()  # No convolution of ours.
    forms = (own, *(form for form in forms if form != own))
    path = _kept(plan, forms, len(most))
    if path is not None and path.exists():
        return tuple(json.loads(path.read_text(encoding="utf-8")))
    enough = _WORTH / _steps_of(plan)
    found: list[tuple[float, Convolution, int]] = []
    for form in forms:
        each = dataclasses.replace(config, convolution=form)
        seconds, width = _best_width(each, most, dataset, plan.placement, enough)
        found.append((seconds, form, width))
        if seconds < enough:
            break
    _, form, width = min(found, key=lambda each: each[0])
    if path is not None:
        write_whole(path, json.dumps([form, width]))
    return form, width


def seconds(plan: Plan, dataset: Dataset) -> float:
    """Returns an estimate of how long the plan's chunks take, from a few steps of each.

    Args:
      plan: from `camri_jax.sweeps.plan.plan`.
      dataset: the images it was made for.

    Returns:
      Seconds of training on these devices; compiling, scoring and saving come on top. 0
      if there is nothing to train.
    """
    total = 0.0
    kinds = collections.Counter((chunk.config, chunk.width) for chunk in plan.chunks)
    one = {(chunk.config, chunk.width): chunk for chunk in plan.chunks}
    for kind, number in kinds.items():
        program = _compiled(one[kind], dataset, plan.placement)
        step = _seconds(program, one[kind], dataset, plan.placement)
        config, _ = kind
        total += number * step * config.recipe.epochs * config.num_batches
    return total


def _most(plan: Plan) -> tuple[TrainConfig, list[Trial]]:
    """The program with the most trials, and these."""
    trials: dict[TrainConfig, list[Trial]] = {}
    for chunk in plan.chunks:
        trials.setdefault(chunk.config, []).extend(chunk.trials)
    return max(trials.items(), key=lambda item: len(item[1]))


def _steps_of(plan: Plan) -> float:
    """Steps of all trials, that a device takes its share of."""
    config = plan.chunks[0].config
    steps = config.recipe.epochs * config.num_batches
    return steps * plan.num_missing / plan.placement.mesh.size


def _kept(plan: Plan, forms: Sequence[Convolution], most: int) -> Path | None:
    """Where the choice is kept that was found for such a plan on such devices."""
    directory = jax.config.values["jax_compilation_cache_dir"]
    if not directory or "://" in directory:
        return None
    mesh = plan.placement.mesh
    kind = mesh.devices.flat[0].device_kind
    facts = [jax.__version__, kind, mesh.size, plan.settings, list(forms), most]
    name = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    return Path(directory) / f"placement-{name}.json"


def _best_width(
    config: TrainConfig,
    most: Sequence[Trial],
    dataset: Dataset,
    placement: Placement,
    enough: float,
) -> tuple[float, int]:
    """The least seconds of a trial's step, or `enough`, and at how many a device."""
    size = placement.mesh.size
    others = [part for name, part in dataset.parts.items() if name != "train"]
    free = _free_bytes(placement) - sum(part.images.nbytes for part in others)
    best, least, width = 1, float("inf"), 1
    while least > enough and (width == 1 or width * size < 2 * len(most)):
        chunk = Chunk(config, tuple(most[: width * size]), width * size)
        try:
            program = _compiled(chunk, dataset, placement)
            if _needed(program, dataset, placement) > free:
                break
            seconds = _seconds(program, chunk, dataset, placement) / width
        except jax.errors.JaxRuntimeError as error:
            if not out_of_memory(error):
                raise
            break
        if seconds > 0.97 * least:
            break
        best, least, width = width, seconds, 2 * width
    return least, best


def _few(
    config: TrainConfig, dataset: Dataset, placement: Placement
) -> tuple[TrainConfig, Any, int]:
    """What is timed: a configuration, training images and labels, and its steps.

    An epoch that is one program is shortened, and given as many images as it takes: a
    TPU lays out anew all that it is given, once a call.
    """
    train = dataset.parts["train"]
    if placement.loop == "steps":
        return config, (train.images, train.labels), 1
    steps = min(_STEPS, config.num_batches)
    size = steps * config.recipe.batch_size
    # Epochs enough that slow weights would move: what is compiled is one of them.
    epochs = config.recipe.epochs + config.recipe.lookahead
    recipe = dataclasses.replace(config.recipe, resample=0, epochs=epochs)
    short = dataclasses.replace(config, num_images=size, recipe=recipe)
    return short, (train.images[:size], train.labels[:size]), steps


def _compiled(
    chunk: Chunk, dataset: Dataset, placement: Placement
) -> jax.stages.Compiled:
    """A few steps as one program, where an epoch is one; else a step."""
    config, data, _ = _few(chunk.config, dataset, placement)
    run = programs(config, placement)
    _, hyperparameters = stack(chunk, problem_of(dataset, chunk.config.recipe))
    shapes = [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in data]
    states = states_of(chunk, dataset, placement)
    prepared = [each.trace(states).out_info for each in run.prepare]
    return run.step.lower(states, hyperparameters, *prepared, *shapes).compile()


def _seconds(
    program: jax.stages.Compiled, chunk: Chunk, dataset: Dataset, placement: Placement
) -> float:
    """A step's seconds, the median of three calls after one that warms up."""
    config, data, steps = _few(chunk.config, dataset, placement)
    run = programs(config, placement)
    given = lift.shard(
        stack(chunk, problem_of(dataset, chunk.config.recipe)), placement.mesh
    )
    seeds, hyperparameters = given
    data = lift.replicate(tuple(map(np.asarray, data)), placement.mesh)
    states = run.init(data[0][:1], seeds)
    prepared = [each(states) for each in run.prepare]
    times = []
    for _ in range(1 + 3):
        start = time.perf_counter()
        states, loss = program(states, hyperparameters, *prepared, *data)
        jax.block_until_ready(loss)
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:])) / steps


def _needed(
    program: jax.stages.Compiled, dataset: Dataset, placement: Placement
) -> int:
    """Bytes of a device, with the training images, of which a short epoch has few."""
    images = dataset.parts["train"].images.nbytes
    return _bytes(program) + (images if placement.loop == "scan" else 0)


def _bytes(program: jax.stages.Compiled) -> int:
    need = program.memory_analysis()
    assert need is not None, "CPU, GPU and TPU all have this analysis"
    arguments = need.argument_size_in_bytes - need.alias_size_in_bytes
    return arguments + need.output_size_in_bytes + need.temp_size_in_bytes


def _free_bytes(placement: Placement) -> float:
    """What programs may take of a device, with a tenth left for what they lose."""
    statistics = placement.mesh.devices.flat[0].memory_stats()
    if statistics is None:
        return 0.9 * free_bytes() / placement.mesh.size
    return 0.9 * (statistics["bytes_limit"] - statistics["bytes_in_use"])
