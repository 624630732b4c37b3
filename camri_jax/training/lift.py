"""Lifts a function of one trial over many trials and over all devices.

Knows nothing of training. The compiled program holds no communication: trials are
independent, so each device works through its own share. What a kind of device wants is
said in one place, `placement`.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from camri_jax.training.network import Convolution

TRIAL = "trial"
Loop = Literal["scan", "steps"]
Tree = TypeVar("Tree")


class Placement(NamedTuple):
    """How trials are laid on devices.

    Attributes:
      mesh: the devices, along the axis of trials.
      convolution: the form of a convolution.
      vectorized: whether a device works on all its trials at the same time, by `vmap`,
        or on one after another.
      loop: whether an epoch is one compiled `scan`, or its steps are called from
        Python: XLA:CPU runs a convolution in a loop 30 times slower than outside.
      one_order: whether trials trained together are of one seed, and take their images
        in one order from one batch: a gain where the batch is most of the work.
    """

    mesh: Mesh
    convolution: Convolution
    vectorized: bool
    loop: Loop
    one_order: bool = False

    @property
    def platform(self) -> str:
        """What is compiled for, which need not be the default backend."""
        return self.mesh.devices.flat[0].platform

    @property
    def compiler_options(self) -> dict[str, Any] | None:
        """Compiler options; others change the last digits."""
        # On a CPU the time is in matrix products that are compiled already: optimizing
        # what is between them takes long and gains nothing that can be measured.
        on_cpu = self.platform == "cpu"
        return {"xla_backend_optimization_level": 1} if on_cpu else None


_WANTED: dict[str, tuple[Convolution, bool, Loop]] = {
    "cpu": ("mixed", False, "steps"),
    "tpu": ("lax", True, "scan"),
    # Faster on an H100 in float32; in bfloat16 `lax` is, with one trial at once. A
    # sweep tries both.
    "gpu": ("patches", True, "scan"),
}


def placement(mesh: Mesh) -> Placement:
    """Returns how a mesh's kind of device takes trials, by the table of measurements.

    Args:
      mesh: from `trial_mesh`.

    Returns:
      The placement; `_replace` overrides a choice.

    Example:
      >>> placement(trial_mesh(jax.devices("cpu"))).convolution
      'mixed'
    """
    platform = mesh.devices.flat[0].platform
    return Placement(mesh, *_WANTED.get(platform, _WANTED["gpu"]))


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
    placement: Placement,
    in_axes: Sequence[int | None],
    *,
    donate_argnums: Sequence[int] = (),
) -> jax.stages.Wrapped:
    """Turns a function of one trial into a compiled one of many trials.

    `jit(shard_map(vmap(function)))`: `shard_map` gives every device its own
    trials, which keeps communication out of the program (`jit(vmap)` on sharded
    arguments inserts all-gathers), and `vmap` batches the trials of a device. That
    fills a GPU or TPU. A CPU core is full with one trial, whose arrays its caches
    hold better than those of many: there `lax.map` takes the place of `vmap`, and a
    single trial needs neither.

    Args:
      function: takes and returns trees of arrays of one trial.
      placement: the devices, and how each takes its trials.
      in_axes: for each argument 0 if it has a leading trial axis, or `None` if
        all trials share it.
      donate_argnums: arguments whose memory the result may take.

    Returns:
      A compiled function; every output has a leading trial axis.

    Example:
      >>> one = placement(trial_mesh(jax.devices()[:1]))
      >>> add = lift(lambda x, y: x + y, one, (0, None))
      >>> add(np.arange(3), np.int64(10)).tolist()
      [10, 11, 12]
    """
    specs = tuple(
        PartitionSpec() if axis is None else PartitionSpec(TRIAL) for axis in in_axes
    )
    many = jax.vmap(function, in_axes=tuple(in_axes))
    mapped = jax.shard_map(
        many if placement.vectorized else _one_by_one(function, in_axes),
        mesh=placement.mesh,
        in_specs=specs,
        out_specs=PartitionSpec(TRIAL),
        # Which values differ between devices matters to collectives only, and the
        # check refuses loops whose first value is a constant.
        check_vma=False,
    )
    return jax.jit(
        mapped,
        donate_argnums=tuple(donate_argnums),
        compiler_options=placement.compiler_options,
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

        if {len(leaf) for leaf in jax.tree.leaves(own)} == {1}:
            # A single trial needs no loop, in which a CPU convolves slowly.
            alone = one(jax.tree.map(lambda leaf: leaf[0], own))
            return jax.tree.map(lambda leaf: leaf[None], alone)
        return jax.lax.map(one, own)

    return many


def shard(tree: Tree, mesh: Mesh) -> Tree:
    """Places a tree whose leaves lead with a trial axis, a share on each device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(TRIAL)))


def replicate(tree: Tree, mesh: Mesh) -> Tree:
    """Places a tree that all trials share, whole on every device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))
