"""A share of a plan, for processes that know nothing of each other."""

import collections
import os
from collections.abc import Mapping
from dataclasses import dataclass

from camri_jax._files import UsageError
from camri_jax.sweeps.plan import Chunk, Plan, spread
from camri_jax.training.methods import METHODS


@dataclass(frozen=True)
class Shard:
    """One of several equal shares of the trials.

    Attributes:
      index: 0, 1, ... below `count`.
      count: of the shares.
      source: what said so, for people.
    """

    index: int
    count: int
    source: str = "--shard"

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def parse(text: str) -> Shard:
    """Reads a shard.

    Args:
      text: as `0/4`, the first of four.

    Raises:
      UsageError: it is none.

    >>> parse("3/4").index
    3
    """
    index, _, count = text.partition("/")
    return _checked(index, count, "--shard")


def from_environment(environ: Mapping[str, str] = os.environ) -> Shard | None:
    """Returns the shard that a scheduler gave this process, if one did.

    Args:
      environ: variables of a SLURM array, a Kubernetes job with indexed completions
        (`JOB_COMPLETIONS` is to be set to their number), or SkyPilot's nodes.

    Raises:
      UsageError: they make no sense, or are of a part of an array, whose tasks had
        other shares in the whole.

    >>> str(from_environment({"JOB_COMPLETION_INDEX": "2", "JOB_COMPLETIONS": "8"}))
    '2/8'
    """
    for index, count in (
        ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"),
        ("JOB_COMPLETION_INDEX", "JOB_COMPLETIONS"),
        ("SKYPILOT_NODE_RANK", "SKYPILOT_NUM_NODES"),
    ):
        if not (environ.get(index) and environ.get(count)):
            continue
        value = environ[index]
        if index.startswith("SLURM"):
            value = _place_in_array(value, environ[count], environ)
        return _checked(value, environ[count], f"{index} and {count}")
    return None


def _place_in_array(value: str, count: str, environ: Mapping[str, str]) -> str:
    """The place of a task among all: arrays may begin at 1, and count by more."""
    first = environ.get("SLURM_ARRAY_TASK_MIN", "0")
    step = environ.get("SLURM_ARRAY_TASK_STEP", "1")
    if not all(each.isdecimal() for each in (value, count, first, step)):
        return value
    tasks = [int(first) + i * int(step) for i in range(int(count))]
    last = environ.get("SLURM_ARRAY_TASK_MAX")
    # As when those that failed are submitted again: what the others took is not known.
    if int(first) > 1 or (last is not None and tasks and last != str(tasks[-1])):
        raise UsageError(
            f"the array of {count} from {first} to {last} may be a part of another, "
            "with other shares: --shard must say which share of how many this is, as "
            f"--shard {value}/{max(int(value), int(last or 0)) + 1}, or 0/1 for all"
        )
    return str(tasks.index(int(value))) if int(value) in tasks else value


def share(plan: Plan, shard: Shard) -> Plan:
    """Returns a plan of the missing trials of one shard.

    Of the trials of each program in their order, shard i of n takes i, i + n, ...,
    whatever is done and whatever devices this process has: shards that are started
    again, or run on other machines, still share all trials exactly.
    Trials in one order, as those of heads, go by whole seeds.

    Args:
      plan: of all trials.
      shard: which share.
    """
    families = [METHODS[trial.method].family for trial in plan.trials]
    order = list(dict.fromkeys(families))
    # Each program starts with another shard, so that what is left over is spread.
    counts = collections.Counter({family: at for at, family in enumerate(order)})
    owners: dict[tuple[str, int | str], int] = {}
    own = set()
    for trial, family in zip(plan.trials, families, strict=True):
        unit = family, trial.seed if plan.placement.one_order else trial.trial_id
        if unit not in owners:
            owners[unit] = counts[family] % shard.count
            counts[family] += 1
        if owners[unit] == shard.index:
            own.add(trial.trial_id)
    if plan.placement.one_order:
        return plan._replace(
            chunks=[chunk for chunk in plan.chunks if chunk.trials[0].trial_id in own]
        )
    chunks: list[Chunk] = []
    for config, width in plan.widths.items():
        alike = [chunk.trials for chunk in plan.chunks if chunk.config == config]
        trials = [t for each in alike for t in each if t.trial_id in own]
        chunks += spread(config, trials, width, plan.placement.mesh.size)
    return plan._replace(chunks=sorted(chunks, key=lambda c: c.trials[0].seed))


def _checked(index: str, count: str, source: str) -> Shard:
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise UsageError(
            f"{source} must be INDEX/COUNT with an index from 0 to below the count, "
            f"got {index}/{count}"
        )
    return Shard(int(index), int(count), source)
