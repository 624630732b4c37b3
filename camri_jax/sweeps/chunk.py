"""Trains the chunks of a plan on all devices, and write the rows of each as it ends.

A chunk is as many trials of one method as the devices train at once, and ends in one
file: several sweeps may write to one directory, and none loses more than its chunk.
"""

import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from camri_jax import metrics
from camri_jax.datasets import Dataset
from camri_jax.sweeps import rows as results
from camri_jax.sweeps.plan import Chunk, Plan, halve, train_config
from camri_jax.sweeps.width import Programs, lift_programs, out_of_memory, stack
from camri_jax.training import classifier
from camri_jax.training import lift as parallel
from camri_jax.training import trial as train
from camri_jax.training.trial import Evaluation

_STEPS = 2.0 ** np.arange(-5, 6.25, 0.25)
CONSTANTS = np.concatenate([-_STEPS[::-1], [0.0], _STEPS]).astype(np.float32)
"""Constants added to the logits of important classes: 0 and +-2^(i/4) in 1/32..64."""

HISTORY = 50
"""The most epochs after which trials are evaluated, so that it costs little time."""


class Progress(NamedTuple):
    """How far a sweep has come: trials done, in fractions, of how many; and where."""

    num_done: float
    num_trials: int
    family: str


def run(
    plan: Plan,
    dataset: Dataset,
    output: Path,
    mesh: Mesh,
    *,
    provenance: Mapping[str, Any],
    models: Path | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> None:
    """Trains the plan's chunks and writes the rows of each as it ends.

    Args:
      plan: from `camri_jax.planning.plan`, for as many devices as the mesh has.
      dataset: the images it was made for.
      output: directory of the rows.
      mesh: the devices.
      provenance: JSON-able facts kept with each row: command, commit, versions.
      models: directory for one file a trial, as
        `camri_jax.training.classifier.load` reads it; none by default.
      report: called after each epoch of a chunk.

    Raises:
      OSError: if the rows of a chunk cannot be written.
      MemoryError: if a device cannot train even one trial.

    Where a device's memory does not do, it warns, and goes on with half as many
    trials at once.
    """
    data = _place(dataset, mesh)
    config, num_done = plan.config, 0
    programs: dict[str, Programs] = {}
    waiting = list(plan.chunks)
    while waiting:
        chunk = waiting[0]
        if chunk.family not in programs:
            programs[chunk.family] = lift_programs(
                train_config(chunk.family, dataset, config.recipe),
                dataset.train_images.shape[1:],
                mesh,
            )

        def on_epoch(epoch: int, chunk=chunk, num_done=num_done) -> None:
            done = num_done + len(chunk.trials) * epoch / config.recipe.epochs
            report(Progress(done, plan.num_missing, chunk.family))

        start = time.perf_counter()
        try:
            trained = _train_chunk(
                programs[chunk.family],
                chunk,
                len(dataset.class_names),
                config.recipe.epochs,
                data,
                mesh,
                on_epoch,
            )
        except jax.errors.JaxRuntimeError as error:
            if not out_of_memory(error):
                raise
            trained = None
        if trained is None:
            # Not within `except`, where the error keeps the failed arrays alive.
            waiting = _narrow(waiting, mesh.size)
            continue
        seconds = time.perf_counter() - start
        facts = {
            **provenance,
            "width": chunk.width,
            "num_devices": mesh.size,
            "seconds_per_trial": round(seconds / len(chunk.trials), 3),
        }
        if models is not None:
            _save_models(plan, dataset, chunk, trained.variables, models)
        rows = _rows(plan, dataset.class_names, chunk, trained, json.dumps(facts))
        results.write(rows, output / f"{chunk.name}.parquet")
        num_done += len(chunk.trials)
        waiting.pop(0)


def _narrow(waiting: Sequence[Chunk], num_devices: int) -> list[Chunk]:
    """Halves the width of the first chunk's family, for which memory did not do."""
    family, width = waiting[0].family, waiting[0].width
    if width <= num_devices:
        raise MemoryError(
            "one trial at once is more than a device's memory holds; choose a smaller "
            "batch_size, model or image_size, or precision bfloat16"
        )
    of_family = [chunk for chunk in waiting if chunk.family == family]
    narrow = halve(of_family, num_devices)
    warnings.warn(
        f"out of memory with {width // num_devices} trials a device: going on with "
        f"{narrow[0].width // num_devices}",
        RuntimeWarning,
        stacklevel=3,
    )
    return [*narrow, *(chunk for chunk in waiting if chunk.family != family)]


class _Trained(NamedTuple):
    """Numbers of a chunk on the host; all lead with a trial axis."""

    loss: np.ndarray
    epoch: np.ndarray
    confusion: np.ndarray
    test: Evaluation
    validation: Evaluation | None
    variables: dict[str, Any]


def _train_chunk(
    programs: Programs,
    chunk: Chunk,
    num_classes: int,
    epochs: int,
    data: Mapping[str, tuple[jax.Array, jax.Array]],
    mesh: Mesh,
    on_epoch: Callable[[int], None],
) -> _Trained:
    seeds, hyperparameters, masks = parallel.shard(stack(chunk, num_classes), mesh)
    constants = parallel.replicate(CONSTANTS, mesh)
    watched = data.get("validation", data["test"])
    losses, confusions, evaluated = [], [], history_epochs(epochs)
    states = programs.init(seeds)
    with jax.transfer_guard("disallow"):
        for epoch in range(epochs):
            states, loss = programs.train_epoch(states, hyperparameters, *data["train"])
            losses.append(loss)
            if epoch + 1 in evaluated:
                confusions.append(
                    programs.evaluate(
                        states, hyperparameters, masks, constants, *watched
                    ).confusion
                )
            if epoch:
                # The device works on this epoch while the host waits for the last.
                jax.block_until_ready(losses[epoch - 1])
                on_epoch(epoch)
    evaluations = {
        part: programs.evaluate(states, hyperparameters, masks, constants, *data[part])
        for part in ("test", "validation")
        if part in data
    }
    variables = train.evaluated_variables(states)
    losses, confusions, evaluations, variables = jax.device_get(
        (losses, confusions, evaluations, variables)
    )
    on_epoch(epochs)
    return _Trained(
        np.stack(losses, 1),
        np.array(evaluated),
        np.stack(confusions, 1),
        evaluations["test"],
        evaluations.get("validation"),
        variables,
    )


def history_epochs(epochs: int) -> list[int]:
    """Returns after which epochs trials are evaluated: the last, and even steps to it.

    >>> history_epochs(5), history_epochs(300)[-2:]
    ([1, 2, 3, 4, 5], [294, 300])
    """
    step = -(-epochs // HISTORY)
    return list(range(epochs, 0, -step))[::-1]


def _rows(
    plan: Plan,
    class_names: Sequence[str],
    chunk: Chunk,
    trained: _Trained,
    provenance: str,
) -> Iterator[dict[str, Any]]:
    for t, trial in enumerate(chunk.trials):
        test = jax.tree.map(lambda x, t=t: x[t], trained.test)
        validation = jax.tree.map(lambda x, t=t: x[t], trained.validation)
        history = trained.confusion[t]
        for c, choice in enumerate(trial.choices):
            held_out = (
                {}
                if validation is None
                else {
                    "validation_confusion": validation.confusion.ravel(),
                    "validation_curve": validation.curves[c].ravel(),
                }
            )
            yield {
                "trial_id": trial.trial_id,
                "dataset": plan.config.dataset,
                "class_names": class_names,
                "method": trial.method,
                "important": choice,
                **trial.point,
                "seed": trial.seed,
                "diverged": bool(test.diverged),
                "loss": test.loss,
                "constants": CONSTANTS,
                "test_confusion": test.confusion.ravel(),
                "test_curve": test.curves[c].ravel(),
                **held_out,
                "angle_mean": test.angle_mean,
                "angle_std": test.angle_std,
                "history_loss": trained.loss[t],
                "history_epoch": trained.epoch,
                "history_accuracy": np.asarray(metrics.accuracy(history)),
                "history_recall": np.asarray(metrics.recall(history)).ravel(),
                "settings": json.dumps(plan.settings),
                "provenance": provenance,
            }


def _save_models(
    plan: Plan, dataset: Dataset, chunk: Chunk, variables: Any, models: Path
) -> None:
    config = train_config(chunk.family, dataset, plan.config.recipe)
    for t, trial in enumerate(chunk.trials):
        about = {
            "class_names": dataset.class_names,
            "image_shape": dataset.train_images.shape[1:],
            "scale": trial.point.get("scale", 1.0),
            "dataset": plan.config.dataset,
            "method": trial.method,
            "point": trial.point,
            "important": trial.choices,
            "seed": trial.seed,
        }
        own = jax.tree.map(lambda x, t=t: x[t], variables)
        classifier.save(models / f"{trial.trial_id}.npz", config, own, about)


def _place(dataset: Dataset, mesh: Mesh) -> dict[str, tuple[jax.Array, jax.Array]]:
    """Puts the parts that have images on every device, once."""
    parts = {
        "train": (dataset.train_images, dataset.train_labels),
        "validation": (dataset.validation_images, dataset.validation_labels),
        "test": (dataset.test_images, dataset.test_labels),
    }
    return {
        name: parallel.replicate((np.asarray(images), np.asarray(labels)), mesh)
        for name, (images, labels) in parts.items()
        if len(labels)
    }
