"""Lifts a function of one trial over many trials and over all devices.

Knows nothing of training. The compiled program holds no communication: trials are
independent, so each device works through its own share.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

TRIAL = "trial"


def trial_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """Returns a one-dimensional mesh of devices along the `trial` axis.

    Args:
      devices: the `jax.Device`s to use; default all of this process.

    Returns:
      The mesh.

    Example:
      >>> trial_mesh(jax.devices()[:1]).size
      1
    """
    devices = jax.local_devices() if devices is None else devices
    return Mesh(np.asarray(devices), (TRIAL,))


def lift(
    function: Callable[..., Any],
    mesh: Mesh,
    in_axes: Sequence[int | None],
    *,
    together: bool = True,
    donate_argnums: Sequence[int] = (),
    compiler_options: dict[str, Any] | None = None,
) -> jax.stages.Wrapped:
    """Turns a function of one trial into a compiled one of many trials.

    `jit(shard_map(vmap(function)))`: `shard_map` gives every device its own
    trials, which keeps communication out of the program (`jit(vmap)` on sharded
    arguments inserts all-gathers), and `vmap` batches the trials of a device. That
    fills a GPU or TPU. A CPU core is full with one trial, whose arrays its caches
    hold better than those of many: there `lax.map` takes the place of `vmap`.

    Args:
      function: takes and returns trees of arrays of one trial.
      mesh: from `trial_mesh`.
      in_axes: for each argument 0 if it has a leading trial axis, or `None` if
        all trials share it.
      together: whether a device works on all its trials at the same time, by `vmap`,
        or on one after another, by `lax.map`.
      donate_argnums: arguments whose memory the result may take.
      compiler_options: passed to `jax.jit`.

    Returns:
      A compiled function; every output has a leading trial axis.

    Example:
      >>> mesh = trial_mesh(jax.devices()[:1])
      >>> add = lift(lambda x, y: x + y, mesh, (0, None))
      >>> add(np.arange(3), np.int64(10)).tolist()
      [10, 11, 12]
    """
    specs = tuple(
        PartitionSpec() if axis is None else PartitionSpec(TRIAL) for axis in in_axes
    )
    many = jax.vmap(function, in_axes=tuple(in_axes))
    mapped = jax.shard_map(
        many if together else _one_by_one(function, in_axes),
        mesh=mesh,
        in_specs=specs,
        out_specs=PartitionSpec(TRIAL),
        # Which values differ between devices matters to collectives only, and the
        # check refuses loops whose first value is a constant.
        check_vma=False,
    )
    return jax.jit(
        mapped,
        donate_argnums=tuple(donate_argnums),
        compiler_options=compiler_options,
    )


def _one_by_one(
    function: Callable[..., Any], in_axes: Sequence[int | None]
) -> Callable[..., Any]:
    def many(*arguments: Any) -> Any:
        leads = [axis is not None for axis in in_axes]
        own = tuple(x for x, lead in zip(arguments, leads, strict=True) if lead)

        def one(own: tuple[Any, ...]) -> Any:
            left = iter(own)
            pairs = zip(arguments, leads, strict=True)
            return function(*(next(left) if lead else x for x, lead in pairs))

        return jax.lax.map(one, own)

    return many


def shard(tree: Any, mesh: Mesh) -> Any:
    """Places a tree whose leaves lead with a trial axis, a share on each device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(TRIAL)))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Places a tree that all trials share, whole on every device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))
