"""Trains the chunks of a plan on the devices of this process, and saves each.

A chunk ends in a file of rows: several sweeps may write to one directory, and none
loses more than its chunk.
"""

import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from camri_jax._files import UsageError
from camri_jax.datasets import Dataset
from camri_jax.sweeps import rows
from camri_jax.sweeps.chunk import Placed, Trained, place, train_chunk
from camri_jax.sweeps.plan import (
    LOGITS_LIMIT,
    Chunk,
    Plan,
    halve,
    logits_bytes,
)
from camri_jax.training import classifier


class Progress(NamedTuple):
    """How far a sweep has come: trials done, in fractions, of how many; and where."""

    num_done: float
    num_trials: int
    family: str


def run(
    plan: Plan,
    dataset: Dataset,
    output: Path,
    *,
    provenance: Mapping[str, Any],
    report: Callable[[Progress], None] = lambda progress: None,
) -> None:
    """Trains the plan's chunks and saves each as it ends.

    Where a device's memory does not do, it warns, and goes on with half as many trials
    at once.

    Args:
      plan: from `camri_jax.sweeps.plan.plan`.
      dataset: the images it was made for.
      output: directory of the sweep.
      provenance: JSON-able facts kept with each row: command, commit, versions.
      report: called after each epoch of a chunk.

    Raises:
      OSError: what a chunk came to cannot be written.
      UsageError: the logits would take more room than is taken unasked, or a device's
        memory holds not even one trial.
    """
    check_room(plan, dataset)
    waiting, num_done = list(plan.chunks), 0
    if not waiting:
        return
    rows.write_data(output, dataset)
    data = _placed(plan, dataset)
    while waiting:
        chunk = waiting[0]

        def on_epoch(epoch: int, chunk=chunk, num_done=num_done) -> None:
            share = epoch / chunk.config.recipe.epochs
            done = num_done + len(chunk.trials) * share
            report(Progress(done, plan.num_missing, chunk.family))

        start = time.perf_counter()
        try:
            trained = train_chunk(chunk, data, plan.placement, on_epoch)
        except jax.errors.JaxRuntimeError as error:
            if not out_of_memory(error):
                raise
            trained = None
        if trained is None:
            # Not within `except`, where the error keeps the failed arrays alive.
            waiting = _narrow(waiting, plan.placement.mesh.size)
            continue
        seconds = time.perf_counter() - start
        facts = {
            **provenance,
            "width": chunk.width,
            "device": plan.placement.mesh.devices.flat[0].device_kind,
            "num_devices": plan.placement.mesh.size,
            "convolution": plan.placement.convolution,
            "loop": plan.placement.loop,
            "seconds_per_trial": round(seconds / len(chunk.trials), 3),
        }
        save(plan, dataset, chunk, trained, output, facts)
        num_done += len(chunk.trials)
        waiting.pop(0)


def _placed(plan: Plan, dataset: Dataset) -> Placed:
    try:
        return place(dataset, plan.chunks[0].config, plan.placement)
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise UsageError(
            "the images are more than the memory of a device holds; choose a "
            "smaller image_size"
        ) from error


def check_room(plan: Plan, dataset: Dataset) -> None:
    """Refuses to keep more logits than anyone expects, unless it was asked for.

    Args:
      plan: of the sweep.
      dataset: the images it was made for.

    Raises:
      UsageError: they would take more than `LOGITS_LIMIT`.
    """
    need = logits_bytes(plan, dataset)
    if plan.config.keep_logits is None and need > LOGITS_LIMIT:
        raise UsageError(
            f"keep_logits must be chosen: the logits of {plan.num_missing:,} trials "
            f"take {need / 1e9:,.1f} GB; --keep-logits keeps them, --keep-logits no "
            "keeps only confusions, from which no threshold can be moved"
        )


def save(
    plan: Plan,
    dataset: Dataset,
    chunk: Chunk,
    trained: Trained,
    output: Path,
    facts: Mapping[str, Any],
) -> None:
    """Writes what a chunk came to; its rows last, as they say that it is done.

    Args:
      plan: of the sweep.
      dataset: what it was trained on.
      chunk: its trials.
      trained: what they came to.
      output: directory of the sweep.
      facts: JSON-able, kept with each row.
    """
    if plan.config.save_models:
        for each, row, variables in zip(
            chunk.trials, trained.rows, trained.variables, strict=True
        ):
            about = {
                "class_names": dataset.class_names,
                "image_shape": dataset.parts["train"].images.shape[1:],
                "scale": each.point.get("scale", 1.0),
                "dataset": dataset.name,
                "method": each.method,
                "point": each.point,
                "important": each.important,
                "seed": each.seed,
                "trial_id": row["trial_id"],
                "fit": dataset.fit,
                "bits": dataset.bits,
            }
            path = output / "models" / f"{each.trial_id}.npz"
            classifier.save(path, chunk.config, variables, about)
    if plan.config.keep_logits is not False:
        names = [each.trial_id for each in chunk.trials]
        logits = dict(zip(names, trained.logits, strict=True))
        rows.write_logits(output, chunk.name, logits)
    shared = {
        "dataset": dataset.name,
        "fingerprint": dataset.fingerprint,
        "settings": json.dumps(plan.settings),
        "provenance": json.dumps(dict(facts)),
    }
    rows.write(output, chunk.name, [row | shared for row in trained.rows])


def out_of_memory(error: Exception) -> bool:
    """Returns whether a device had too little memory, in any wording.

    >>> out_of_memory(RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 GB"))
    True
    """
    text = str(error).lower()
    words = ("resource_exhausted", "out of memory", "failed to allocate", "oom")
    return isinstance(error, MemoryError) or any(word in text for word in words)


def _narrow(waiting: Sequence[Chunk], num_devices: int) -> list[Chunk]:
    """Halves the width of the first chunk's program, for which memory did not do."""
    config, width = waiting[0].config, waiting[0].width
    if width <= num_devices:
        raise UsageError(
            "one trial at once is more than a device's memory holds; choose a smaller "
            "batch_size, network or image_size, or precision bfloat16"
        )
    narrow = halve([chunk for chunk in waiting if chunk.config == config], num_devices)
    warnings.warn(
        f"out of memory with {width // num_devices} trials a device: going on with "
        f"{narrow[0].width // num_devices}",
        RuntimeWarning,
        stacklevel=3,
    )
    return [*narrow, *(chunk for chunk in waiting if chunk.config != config)]
