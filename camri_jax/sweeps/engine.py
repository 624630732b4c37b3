"""Trains the chunks of a plan on the devices of this process, and saves each.

Any number of processes may do so for one directory: each chunk is claimed by whoever
trains it, a checkpoint keeps its middle and a file of rows its end, so that whatever
ends a process costs no more than the minutes since the last checkpoint.
"""

import collections
import contextlib
import dataclasses
import functools
import json
import re
import time
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax

from camri_jax._files import UsageError, address, patiently, uninterrupted
from camri_jax.datasets import Dataset
from camri_jax.sweeps import checkpoints, claims, rows
from camri_jax.sweeps.chunk import Placed, Trained, place, states_of, train_chunk
from camri_jax.sweeps.plan import (
    LOGITS_LIMIT,
    Chunk,
    Plan,
    halve,
    logits_bytes,
)
from camri_jax.training import classifier

CHECKPOINT_MINUTES = 10.0
"""Minutes of training that an interruption costs at most, beside an epoch."""

PAUSE = 5.0
"""Seconds between two looks at chunks that other processes hold."""

Outcome = Literal["done", "held", "out of memory"]
"""What comes of a chunk: its rows are there, whoever trained it; another process trains
it; or the device ran out of memory."""


class Progress(NamedTuple):
    """How far a sweep has come: trials done, in fractions, of how many; at what."""

    num_done: float
    num_trials: int
    doing: str


OnProgress = Callable[[Progress], None]


def run(
    plan: Plan,
    dataset: Dataset,
    output: str | Path,
    *,
    provenance: Mapping[str, Any],
    on_progress: OnProgress = lambda progress: None,
    checkpoint_minutes: float = CHECKPOINT_MINUTES,
) -> None:
    """Trains the plan's chunks and saves each as it ends.

    Where a device runs out of memory, it warns, and goes on with half as many trials at
    once. It returns when all rows are there, also of trials that others trained.

    Args:
      plan: from `camri_jax.sweeps.plan.plan`.
      dataset: the images it was made for.
      output: directory of the sweep, or a URL of one.
      provenance: JSON-able facts kept with each row: command, commit, versions.
      on_progress: called after each epoch of a chunk, and within it where its steps are
        called one by one.
      checkpoint_minutes: between two checkpoints of a chunk.

    Raises:
      OSError: a chunk's results cannot be written.
      TryAgain: a store was away for longer than it is waited for.
      UsageError: the images are too small for the network, the logits would take more
        room than is allowed unasked, or a single trial needs more memory than a device
        has.
    """
    check(plan, dataset)
    if not plan.chunks:
        return
    output = address(output)
    if not claims.possible(output):
        warnings.warn(
            f"of several processes that write to {output} each must be given a shard: "
            "there, none can claim what it trains",
            RuntimeWarning,
            stacklevel=2,
        )
    patiently(output, lambda: rows.write_data(output, dataset))
    train_all(
        plan,
        dataset,
        placed(plan, dataset),
        output,
        provenance=provenance,
        on_progress=on_progress,
        checkpoint_minutes=checkpoint_minutes,
    )
    patiently(output, lambda: clear(output))


def train_all(
    plan: Plan,
    dataset: Dataset,
    data: Placed,
    output: Path,
    *,
    again: Collection[str] = (),
    provenance: Mapping[str, Any],
    on_progress: OnProgress = lambda progress: None,
    checkpoint_minutes: float = CHECKPOINT_MINUTES,
) -> None:
    """Trains the plan's chunks as `run` does, on data that are placed already.

    Args:
      plan: from `camri_jax.sweeps.plan.plan`, with any of its chunks.
      dataset: the images it was made for.
      data: the same on the devices, from `placed`.
      output: directory of the sweep, from `camri_jax._files.address`.
      again: ids of trials that are trained though they have rows, as these lack their
        logits or weights.
      provenance: JSON-able facts kept with each row.
      on_progress: as for `run`.
      checkpoint_minutes: between two checkpoints of a chunk.

    Raises:
      OSError: a chunk's results cannot be written.
      TryAgain: a store was away for longer than it is waited for.
      UsageError: a single trial needs more memory than a device has.
    """
    waiting, num_done, num_held = collections.deque(plan.chunks), 0.0, 0
    num_trials, again = plan.num_missing, set(again)
    while waiting:
        # Processes with other devices group trials otherwise, and claim other chunks.
        others = patiently(output, lambda: rows.trained(output)) - again
        trials = waiting[0].trials
        missing = tuple(each for each in trials if each.trial_id not in others)
        num_done += len(trials) - len(missing)
        if not missing:
            waiting.popleft()
            continue
        chunk = waiting[0] = waiting[0]._replace(trials=missing)

        def on_epoch(epoch: float, chunk=chunk, num_done=num_done) -> None:
            share = epoch / chunk.config.recipe.epochs
            done = num_done + len(chunk.trials) * share
            on_progress(Progress(done, num_trials, chunk.methods))

        outcome = train_and_save(
            plan,
            dataset,
            data,
            chunk,
            output,
            again=again,
            provenance=provenance,
            on_epoch=on_epoch,
            checkpoint_minutes=checkpoint_minutes,
        )
        if outcome == "done":
            num_done += len(waiting.popleft().trials)
            num_held = 0
        elif outcome == "held":
            waiting.rotate(-1)
            num_held += 1
            if num_held >= len(waiting):
                on_progress(Progress(num_done, num_trials, "waiting for others"))
                time.sleep(PAUSE)
                num_held = 0
        else:
            size = plan.placement.mesh.size
            waiting = collections.deque(_narrow(waiting, size))
            # For later starts, which take what rows say.
            wide, narrow = plan.config.trials_per_device, waiting[0].width // size
            narrow = narrow if wide == "auto" else min(wide, narrow)
            config = dataclasses.replace(plan.config, trials_per_device=narrow)
            plan = plan._replace(config=config)


def train_and_save(
    plan: Plan,
    dataset: Dataset,
    data: Placed,
    chunk: Chunk,
    output: Path,
    *,
    again: Collection[str] = (),
    provenance: Mapping[str, Any],
    on_epoch: Callable[[float], None] = lambda epoch: None,
    checkpoint_minutes: float = CHECKPOINT_MINUTES,
) -> Outcome:
    """Trains one chunk, unless it is done or another process trains it.

    Started again after any interruption it goes on at the last checkpoint, in this
    process or another. Of trials that have rows by the time it ends nothing is written.

    Args:
      plan: that the chunk is of; its placement is of this process's devices, its list
        of chunks is not looked at.
      dataset: the images it was made for.
      data: the same on the devices, from `placed`.
      chunk: of the plan.
      output: directory of the sweep, from `camri_jax._files.address`.
      again: as for `train_all`.
      provenance: JSON-able facts kept with each row.
      on_epoch: called with the number of epochs that are done, in fractions.
      checkpoint_minutes: between two checkpoints.

    Returns:
      The outcome; unless it is "done", no rows, logits or weights were written.

    Raises:
      OSError: its results cannot be written.
      TryAgain: a store was away for longer than it is waited for.
    """
    with contextlib.ExitStack() as held:
        claim = functools.partial(claims.claimed, output, chunk.name)
        ours = patiently(output, lambda: held.enter_context(claim()))
        if patiently(output, lambda: rows.exist(output, chunk.name)):
            return "done"
        if not ours:
            return "held"
        start, worked = time.perf_counter(), time.process_time()
        path = checkpoints.path_of(output, chunk.name)
        checkpoint = patiently(output, lambda: checkpoints.load(path))
        try:
            with checkpoints.keeping(path, checkpoint_minutes) as keep:
                trained = train_chunk(
                    chunk, data, plan.placement, on_epoch, checkpoint, keep
                )
        except jax.errors.JaxRuntimeError as error:
            if not out_of_memory(error):
                raise
            return "out of memory"
        seconds, worked = time.perf_counter() - start, time.process_time() - worked
        facts = {
            **provenance,
            "width": chunk.width,
            "trials_per_device": plan.config.trials_per_device,
            "device": plan.placement.mesh.devices.flat[0].device_kind,
            "num_devices": plan.placement.mesh.size,
            "convolution": plan.placement.convolution,
            "loop": plan.placement.loop,
            "seconds_per_trial": round(seconds / len(chunk.trials), 3),
            # Which depends less on how busy the machine is.
            "processor_seconds_per_trial": round(worked / len(chunk.trials), 3),
        }
        if trained.begin:
            facts["resumed_after_epoch"] = trained.begin

        def write() -> None:
            # Weights are the last writer's, rows and logits the first's by name: they
            # must not be of two trainings that differ in their last digits.
            known = rows.trained(output) - set(again)
            with uninterrupted():
                save(plan, dataset, *_without(known, chunk, trained), output, facts)
                path.unlink(missing_ok=True)

        patiently(output, write)
    return "done"


def clear(output: Path) -> None:
    """Removes claims and checkpoints that nobody needs, of trials that have rows.

    They are left by a chunk that was killed when it was done, or whose trials were
    trained in other chunks.

    Args:
      output: directory of the sweep.
    """
    for path in (output / "claims").glob("*.*"):
        if rows.exist(output, path.stem):
            path.unlink(missing_ok=True)
    done: set[str] = set()
    for path in (output / "checkpoints").glob("*.npz"):
        # Another process may be writing what begins with a dot.
        if path.name.startswith("."):
            continue
        done = done or rows.trained(output)
        trials = checkpoints.trials_of(path)
        if rows.exist(output, path.stem) or (trials and trials <= done):
            path.unlink(missing_ok=True)


def placed(plan: Plan, dataset: Dataset) -> Placed:
    """Puts a data set on the devices of a plan.

    Args:
      plan: with a chunk at least.
      dataset: the images it was made for.

    Raises:
      UsageError: they need more memory than a device has.
    """
    try:
        return place(dataset, plan.chunks[0].config, plan.placement)
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise UsageError(
            "the images need more memory than a device has; choose a smaller image_size"
        ) from error


def check(plan: Plan, dataset: Dataset) -> None:
    """Refuses, before anything is written, what cannot be trained or kept.

    Args:
      plan: of the sweep.
      dataset: the images it was made for.

    Raises:
      UsageError: the images are too small for the network; or the logits would take
        more than `LOGITS_LIMIT`, unless they are asked for.
    """
    need = logits_bytes(plan, dataset)
    unasked = plan.config.keep_logits is None and plan.num_missing > 0
    if unasked and need > LOGITS_LIMIT:
        raise UsageError(
            f"keep_logits must be chosen: the logits of {len(plan.trials):,} trials "
            f"take {need / 1e9:,.1f} GB; --keep-logits keeps them, --keep-logits no "
            "keeps only confusions, from which no threshold can be moved"
        )
    if plan.chunks:
        states_of(plan.chunks[0], dataset, plan.placement)


def save(
    plan: Plan,
    dataset: Dataset,
    chunk: Chunk,
    trained: Trained,
    output: Path,
    facts: Mapping[str, Any],
) -> None:
    """Writes a chunk's results; its rows last, since they say that it is done.

    Args:
      plan: of the sweep.
      dataset: what it was trained on.
      chunk: its trials; of none nothing is written.
      trained: what they came to.
      output: directory of the sweep.
      facts: JSON-able, kept with each row.
    """
    if not chunk.trials:
        return
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
    >>> out_of_memory(RuntimeError("no room in the table"))
    False
    """
    words = r"resource_exhausted|out of memory|failed to allocate|\boom\b"
    said = re.search(words, str(error), re.IGNORECASE)
    return isinstance(error, MemoryError) or said is not None


def _without(
    known: Collection[str], chunk: Chunk, trained: Trained
) -> tuple[Chunk, Trained]:
    """A chunk, and what it came to, without some of its trials."""
    kept = [i for i, each in enumerate(chunk.trials) if each.trial_id not in known]
    trials = tuple(chunk.trials[i] for i in kept)
    trained = trained._replace(
        rows=[trained.rows[i] for i in kept],
        logits=[trained.logits[i] for i in kept],
        variables=[trained.variables[i] for i in kept],
    )
    return chunk._replace(trials=trials), trained


def _narrow(waiting: Sequence[Chunk], num_devices: int) -> list[Chunk]:
    """Halves the width of the first chunk's program, which ran out of memory."""
    config, width = waiting[0].config, waiting[0].width
    if width <= num_devices:
        raise UsageError(
            "a single trial needs more memory than the device has; choose a smaller "
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
