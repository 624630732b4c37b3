"""Trains the chunks of a plan as tasks of a Ray cluster; this process needs no device.

A task that loses its host or its process is started again elsewhere, and goes on at
the chunk's checkpoint where the output is shared.
"""

import dataclasses
import importlib
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from camri_jax import _arrays
from camri_jax._files import UsageError, address, is_local
from camri_jax.datasets import Dataset
from camri_jax.sweeps import engine, rows
from camri_jax.sweeps.chunk import Placed
from camri_jax.sweeps.plan import Chunk, Plan, halve, placement_of, regrouped
from camri_jax.training import lift

# By fingerprint.
_data: dict[str, Dataset] = {}
# One at most, by fingerprint and by what else it is made for.
_placed: dict[Any, Placed] = {}


def start() -> Any:
    """Joins the cluster of RAY_ADDRESS, else starts one here; returns the package.

    Best before JAX has a backend, whose threads a process that is forked lacks.

    Raises:
      ModuleNotFoundError: the extra `ray` is not installed.
    """
    ray = importlib.import_module("ray")
    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False)
    return ray


def run(
    plan: Plan,
    dataset: Dataset,
    output: str | Path,
    *,
    load: Callable[[], Dataset],
    resources: Mapping[str, float] | None = None,
    provenance: Mapping[str, Any],
    on_progress: engine.OnProgress = lambda progress: None,
    checkpoint_minutes: float = engine.CHECKPOINT_MINUTES,
) -> None:
    """Trains the plan's chunks on a cluster; the same files as `engine.run` writes.

    Args:
      plan: from `camri_jax.sweeps.plan.plan`.
      dataset: the images it was made for.
      output: directory that all hosts share, or a URL.
      load: loads the same data set again, on each worker, in its own directory.
      resources: of a chunk, as `{"GPU": 1}`, `{"TPU": 4}` or `{"CPU": 1}`; default one
        GPU, else the chips of a TPU host, else one CPU, as the cluster has them.
      provenance: JSON-able facts kept with each row.
      on_progress: called after each chunk.
      checkpoint_minutes: between two checkpoints of a chunk.

    Raises:
      ModuleNotFoundError: the extra `ray` is not installed.
      ray.exceptions.RayTaskError: what a task raised.
      UsageError: the images are too small for the network, or the logits would take
        more room than is allowed unasked.
    """
    ray = start()
    engine.check(plan, dataset)
    place = address(output)
    place = place.absolute() if is_local(place) else place
    rows.write_data(place, dataset)
    resources = _resources(ray) if resources is None else resources
    extra = {n: v for n, v in resources.items() if n not in ("CPU", "GPU")}
    task = ray.remote(
        num_cpus=resources.get("CPU", 1),
        num_gpus=resources.get("GPU", 0),
        resources=extra or None,
        max_retries=-1,
        max_calls=0,  # programs stay compiled between the tasks of a worker
        runtime_env={"env_vars": {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}},
    )(_train)
    bare = plan._replace(placement=None, trials=[], chunks=[])  # type: ignore
    # Of each worker's trials at once, one a device: nothing for later sweeps to take.
    facts = {**provenance, "measured": False}
    own = (bare, dataset.fingerprint, load, str(place), facts, checkpoint_minutes)
    job, num_done = ray.put(own), 0
    devices = max(1, int(resources.get("GPU") or resources.get("TPU") or 1))
    chunks = plan.chunks
    # A program takes all heads of a seed together.
    if not plan.placement.one_order:
        chunks = regrouped(chunks, devices)
    waiting: dict[Any, Chunk] = {task.remote(job, each): each for each in chunks}
    while waiting:
        (ready, *_), _ = ray.wait(list(waiting))
        chunk, again = waiting.pop(ready), []
        try:
            outcome = ray.get(ready)
        except UsageError as error:
            # What Ray raises is of this type too, and says it with a traceback.
            raise UsageError(str(getattr(error, "cause", error))) from None
        if outcome == "done":
            num_done += len(chunk.trials)
            on_progress(engine.Progress(num_done, plan.num_missing, chunk.methods))
        elif outcome == "held":
            time.sleep(engine.PAUSE)
            again = [chunk]
        elif chunk.width > 1:
            again = halve([chunk], 1)
        else:
            raise UsageError("a single trial needs more memory than a device has")
        waiting |= {task.remote(job, each): each for each in again}


def _resources(ray: Any) -> Mapping[str, float]:
    """What a chunk takes from the cluster; for a TPU one host's chips, never fewer."""
    hosts = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(host.get("GPU") for host in hosts):
        return {"GPU": 1}
    chips = [host["TPU"] for host in hosts if host.get("TPU")]
    return {"TPU": min(chips)} if chips else {"CPU": 1}


def _train(job: tuple[Any, ...], chunk: Chunk) -> engine.Outcome:
    plan, fingerprint, load, output, provenance, checkpoint_minutes = job
    _arrays.cure_wrong_sums()
    devices = jax.local_devices()
    shared = devices[: math.gcd(chunk.width, len(devices))]
    placed = lift.placement(lift.trial_mesh(shared))
    config = dataclasses.replace(chunk.config, convolution=placed.convolution)
    chunk = chunk._replace(config=config)
    placed = placement_of(config.recipe, placed, config.backbone)
    own = dataclasses.replace(plan.config, trials_per_device=chunk.width // len(shared))
    plan = plan._replace(config=own, placement=placed, chunks=[chunk])
    if fingerprint not in _data:
        dataset = load()
        if dataset.fingerprint != fingerprint:
            raise UsageError(f"{dataset.name} is another data set on this host")
        _data[fingerprint] = dataset
    dataset, key = _data[fingerprint], (fingerprint, placed, config.recipe)
    if key not in _placed:
        # Where a wider chunk ran out of memory, there is no room for two.
        _placed.clear()
        _placed[key] = engine.placed(plan, dataset)
    return engine.train_and_save(
        plan,
        dataset,
        _placed[key],
        chunk,
        address(output),
        provenance=provenance,
        checkpoint_minutes=checkpoint_minutes,
    )
