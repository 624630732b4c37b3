"""Train methods on many seeds, and tell which one finds the class.

    camri sweep
    camri sweep --dataset cifar10 --data-dir DIR --important cat
    camri sweep --dataset folder:signs --image-size 32 --important stop --epochs 30
    camri sweep --preset paper --dataset gtsrb --dry-run

Without arguments: 45 trials on the digits inside scikit-learn. What is written lies in
--output: rows, logits, models, table.csv, recall_accuracy.png, report.html, and the
model to take. A sweep that was stopped goes on when it is started again. Several that
write to one directory, or to one s3://BUCKET/FOLDER, share the work.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import json
import os
import shlex
import time
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import tyro

from camri_jax._files import UsageError
from camri_jax.cli import arguments as words
from camri_jax.cli import backend, tables
from camri_jax.cli.arguments import DataArguments
from camri_jax.cli.console import note, say, wrote
from camri_jax.cli.progress import duration, progress
from camri_jax.datasets import Dataset
from camri_jax.evidence import study
from camri_jax.evidence.tables import comparison_sheets, remarks
from camri_jax.sweeps import engine, ray_engine, rows, shards, width
from camri_jax.sweeps.choices import chosen
from camri_jax.sweeps.plan import Plan, SweepConfig, logits_bytes, placement_of
from camri_jax.takehome import AllDiverged, Result, make_plan, results_of
from camri_jax.takehome.sweeping import provenance
from camri_jax.training.lift import placement, trial_mesh
from camri_jax.training.methods import HYPERPARAMETERS
from camri_jax.training.network import Convolution
from camri_jax.training.recipe import Recipe

PRESETS: dict[str, Any] = {
    "default": (SweepConfig(), DataArguments()),
    # The paper has no validation images, and picks on those it tests on.
    "paper": (SweepConfig.paper(), DataArguments(validation_fraction=0.0)),
    "fast": (SweepConfig(recipe=Recipe.fast()), DataArguments()),
    "heads": (SweepConfig(recipe=Recipe.heads()), DataArguments()),
}
"""Whole sweeps to start from; `"paper"` is that of the paper's section IV-A."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunArguments:
    """What the command has besides the data and the sweep.

    Attributes:
      preset: Whole sweep to start from: default; paper, that of section IV-A; fast, a
        network that reaches 90 % on CIFAR-10 in a few epochs; or heads, on features
        that npz:FILE holds.
      output: Directory for all that is written, or the URL of one in a store, such as
        s3://BUCKET/FOLDER; else results/DATASET.
      shard: INDEX/COUNT: train this share of the trials, 0/4 the first of four; else
        what SLURM_ARRAY_TASK_ID and SLURM_ARRAY_TASK_COUNT say, JOB_COMPLETION_INDEX
        and JOB_COMPLETIONS, or SKYPILOT_NODE_RANK and SKYPILOT_NUM_NODES.
      distributed: Be one of the processes of a TPU pod, or of a cluster that JAX knows
        (SLURM, Open MPI, Kubernetes); each trains a share on its own devices.
      deterministic: Make a GPU add in one order: the same command gives the same rows.
      checkpoint_minutes: Minutes between two checkpoints of what is being trained.
      engine: Where trials are trained: local, on the devices here; or ray, as tasks of
        a Ray cluster, that of RAY_ADDRESS or one started here; --output and --data-dir
        must then be the same place on all its hosts.
      convolution: Form of the convolutions; else what suits the device.
      dry_run: Print the plan (trials, programs, chunks, memory, time) and stop.
    """

    preset: Literal["default", "paper", "fast", "heads"] = "default"
    output: Path | None = None
    shard: str | None = None
    distributed: bool = False
    deterministic: bool = False
    checkpoint_minutes: float = engine.CHECKPOINT_MINUTES
    engine: Literal["local", "ray"] = "local"
    convolution: Convolution | None = None
    dry_run: bool = False


def arguments_type() -> type:
    """Returns the dataclass of the command line, with a flag for each hyperparameter.

    `--margins 4pi/64` is short for `--grid margin=4pi/64`.
    """
    fields = [
        ("data", DataArguments, dataclasses.field(default_factory=DataArguments)),
        ("sweep", SweepConfig, dataclasses.field(default_factory=SweepConfig)),
        ("run", RunArguments, dataclasses.field(default_factory=RunArguments)),
    ]
    for name, each in HYPERPARAMETERS.items():
        flag = tyro.conf.arg(help=f"Values of {name}: {each.meaning}; of all methods.")
        kind = Annotated[tuple[float, ...], flag]
        fields.append((f"{name}s", kind, dataclasses.field(default=())))
    return dataclasses.make_dataclass("Arguments", fields, frozen=True)


def main(argv: Sequence[str]) -> int:
    """Runs the command."""
    preset: Any = words.preset(argv, PRESETS, "default")
    sweep, data = PRESETS[preset]
    return sweep_from(
        argv, "sweep", __doc__, (data, sweep, RunArguments(preset=preset))
    )


def sweep_from(
    argv: Sequence[str],
    command: str,
    description: str | None,
    default: tuple[DataArguments, SweepConfig, RunArguments],
) -> int:
    """Reads a command line over defaults, plans, trains and tells.

    Args:
      argv: the words behind the command.
      command: its name.
      description: of the command, for `--help`.
      default: data, sweep and run where the user says nothing.

    Returns:
      The exit status.
    """
    kind = arguments_type()
    given = words.parse(kind, argv, description, command, kind(*default))
    short = {n: getattr(given, f"{n}s") for n in HYPERPARAMETERS}
    grid = {name: values for name, values in short.items() if values}
    preset = default[1].grid
    if given.sweep.grid != preset:
        grid |= given.sweep.grid
    # A value replaces what a preset says for the same trials, or for some of them.
    kept = {
        key: values
        for key, values in preset.items()
        if not {key, whole := key.partition("@")[0], whole.rpartition(".")[2]} & {*grid}
    }
    config = dataclasses.replace(given.sweep, grid=kept | grid)
    if given.run.deterministic:
        # All that XLA promises: also which kernels it chooses.
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()
    if given.run.engine == "ray":
        jax.config.update("jax_platforms", "cpu")
    backend.set_up_jax()
    line = shlex.join(["camri", *command.split(), *argv])
    return run(given.data, config, given.run, line, kept)


def run(
    data: DataArguments,
    config: SweepConfig,
    options: RunArguments,
    command: str,
    preset: Collection[str],
) -> int:
    """Plans, trains and tells; returns the exit status.

    Args:
      data: what is trained on.
      config: the sweep.
      options: how it is run.
      command: the command line.
      preset: keys of the grid that the user did not give.
    """
    if not options.checkpoint_minutes > 0:
        raise UsageError(
            f"checkpoint_minutes must be above 0, got {options.checkpoint_minutes:g}"
        )
    if options.engine == "ray":
        if options.distributed:
            raise UsageError("ray shares the work itself: leave distributed out")
        if options.convolution is not None or config.trials_per_device != "auto":
            raise UsageError(
                "with engine ray each worker takes the convolution and the trials at "
                "once that suit it: leave convolution and trials_per_device out"
            )
        if importlib.util.find_spec("ray") is None:
            raise UsageError("engine ray needs the package ray: install camri-jax[ray]")
        ray_engine.start()
    share = shard_of(options)
    probe = not options.dry_run
    output = words.directory(options.output, data.dataset, probe=probe)
    dataset = words.load(data)
    own = PRESETS[options.preset][0].recipe
    recipe = words.without_mirroring(config.recipe, own, dataset)
    grid = without_others(config, preset, dataset)
    config = dataclasses.replace(config, recipe=recipe, grid=grid)
    measured = width.measures(placement_of(recipe, placement(trial_mesh())))
    if options.deterministic and measured and config.trials_per_device == "auto":
        raise UsageError(
            "deterministic needs trials_per_device to be a number: auto measures it"
        )
    plan = make_plan(
        config,
        dataset,
        output,
        convolution=options.convolution,
        dry_run=options.dry_run,
    )
    tell(plan, dataset)
    tell_lost(plan, output)
    tell_others(plan, output)
    if share is not None:
        plan = shards.share(plan, share)
        trials = f"{plan.num_missing:,} of the missing trials"
        say(
            f"shard     {share}, by {share.source}: {trials}; "
            f"chunks {chunks_told(plan)}"
        )
    engine.check(plan, dataset)
    if options.dry_run:
        tell_needs(plan, dataset)
        return 0
    with progress(plan.num_missing) as on_progress:
        train = engine.run
        if options.engine == "ray":
            load = functools.partial(words.load, data)
            train = functools.partial(ray_engine.run, load=load)
        train(
            plan,
            dataset,
            output,
            provenance=provenance(command, config),
            on_progress=on_progress,
            checkpoint_minutes=options.checkpoint_minutes,
        )
    if share is not None and (missing := missing_of(plan, output)):
        say(
            f"this shard is done; {missing:,} trials of others are not, and the last "
            "shows the results"
        )
        if not options.distributed:
            return 0
        # Processes of one cluster end together.
        while missing_of(plan, output):
            time.sleep(engine.PAUSE)
    if options.distributed and share is not None and share.index:
        return 0
    try:
        result = results_of(plan, dataset, output)
    except AllDiverged as error:
        say(str(error))
        return 1
    tell_results(result)
    if taken := [best.directory for best in result.bests if best.directory]:
        words.tell_next(taken[0], dataset)
    return 0


def without_others(
    config: SweepConfig, preset: Collection[str], dataset: Dataset
) -> dict[str, Any]:
    """Returns a grid without what a preset says for classes that are not asked for.

    Args:
      config: the sweep.
      preset: keys of its grid that the user did not give.
      dataset: whose classes they are, by name or index.
    """
    of_classes = [key for key in preset if "@" in key]
    if not of_classes:
        return dict(config.grid)

    def choice(word: Any) -> tuple[int, ...] | None:
        # None for a rank, or for a class that these data lack.
        with contextlib.suppress(UsageError):
            return chosen(word, dataset.class_names)

    asked = set(map(choice, config.important))
    if None in asked:
        return dict(config.grid)
    others = {key for key in of_classes if choice(key.partition("@")[2]) not in asked}
    return {key: values for key, values in config.grid.items() if key not in others}


def shard_of(options: RunArguments) -> shards.Shard | None:
    """Returns the share of this process, if it is one of several.

    Args:
      options: of the command line, which come before the environment.

    Raises:
      UsageError: a share makes no sense, or there is no cluster to be part of.
    """
    if not options.distributed:
        if options.shard is not None:
            return shards.parse(options.shard)
        return shards.from_environment()
    if options.shard is not None:
        raise UsageError("shard and distributed are two ways to say the same: give one")
    # Trials are independent: nothing is ever sent from one process to another.
    jax.config.update("jax_cpu_collectives_implementation", None)
    # It would take SIGTERM for itself, which then stopped nothing.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize()
    except (ValueError, RuntimeError) as error:
        raise UsageError(
            f"distributed found no cluster to be part of: {error}"
        ) from None
    return shards.Shard(jax.process_index(), jax.process_count(), "JAX")


def missing_of(plan: Plan, output: Path) -> int:
    """Returns how many trials of a plan, of all its shards, have no rows.

    Args:
      plan: of the sweep.
      output: its directory.
    """
    done = rows.trained(output)
    return sum(trial.trial_id not in done for trial in plan.trials)


def tell(plan: Plan, dataset: Dataset) -> None:
    """Prints what is going to be done."""
    device = plan.placement.mesh.devices.flat[0]
    shape = "x".join(map(str, dataset.parts["train"].images.shape[1:]))
    counts = [
        f"{len(part.labels):,} {name}"
        for name, part in dataset.parts.items()
        if len(part.labels)
    ]
    missing, total = plan.num_missing, len(plan.trials)
    programs = len({chunk.config for chunk in plan.chunks})
    placed = plan.placement
    form = "by scan" if placed.loop == "scan" else "step by step"
    many = "at once" if placed.vectorized else "one after another"
    say(
        f"data      {dataset.name}: {' + '.join(counts)} images of {shape}\n"
        f"device    {placed.mesh.size} x {device.device_kind}: {placed.convolution} "
        f"convolutions, {form}, trials {many}\n"
        f"trials    {total:,}, of which {total - missing:,} are done\n"
        f"programs  {programs} to compile\n"
        f"chunks    {chunks_told(plan)}"
    )


def chunks_told(plan: Plan) -> str:
    """Returns how many chunks there are, and of the first how full each is."""
    widths = ", ".join(f"{len(c.trials)} of {c.width}" for c in plan.chunks[:6])
    more = ", ..." if len(plan.chunks) > 6 else ""
    return f"{len(plan.chunks):,}" + (f": {widths}{more}" if widths else "")


def tell_lost(plan: Plan, output: Path) -> None:
    """Prints how many finished trials lack what is to be kept."""
    missing = {trial.trial_id for chunk in plan.chunks for trial in chunk.trials}
    done = {trial.trial_id for trial in plan.trials} - missing
    found = {}
    if plan.config.save_models:
        models = (output / "models").glob("*.npz")
        found["weights"] = len(done - {path.stem for path in models})
    if plan.config.keep_logits:
        found["logits"] = len(done - rows.with_logits(output))
    for what, number in found.items():
        if number:
            note(
                f"{number:,} finished trials kept no {what} and are not trained again; "
                "with another --output they would be, and keep theirs"
            )


def tell_others(plan: Plan, output: Path) -> None:
    """Prints in what finished trials of other settings differ, where none has these."""
    with warnings.catch_warnings():
        # Of damaged files, which planning has told.
        warnings.simplefilter("ignore", RuntimeWarning)
        names = ["trial_id", "settings"]
        finished = rows.read(output / "rows", names, pass_over=True)["settings"]
    if json.dumps(plan.settings) in set(finished):
        return
    for text, number in finished.value_counts()[:1].items():
        theirs, ours = json.loads(str(text)), plan.settings
        differing = {n for n in theirs | ours if theirs.get(n) != ours.get(n)}
        told = ", ".join(
            f"{name} ({theirs.get(name, 'none')}, now {ours.get(name, 'none')})"
            for name in sorted(differing)
        )
        note(
            f"{number:,} finished trials in {output} are not counted, as they differ "
            f"in {told}"
        )


def tell_needs(plan: Plan, dataset: Dataset) -> None:
    """Prints what a plan takes: memory, room for logits, and time."""
    memory = width.memory_bytes(plan, dataset)
    say(f"memory    {memory / 2**20:,.0f} MiB a device for a step, by the compiler")
    say(f"logits    {logits_bytes(plan, dataset) / 1e6:,.1f} MB before packing")
    seconds = width.seconds(plan, dataset)
    say(f"time      about {duration(seconds)} of training, by a few steps here")


def tell_results(result: Result) -> None:
    """Prints the tables, what to take, and where all of it lies: it is on disk."""
    for text in study.notes(result.study):
        note(text)
    for best in result.bests:
        name = result.study.name(best.important)
        table = result.table[
            [each == best.important for each in result.table["important"]]
        ]
        for text in remarks(table, name):
            note(text)
        tables.show(comparison_sheets(table, name)[:1])
        say("\n".join(best.sentences))
        if best.directory is not None:
            wrote("model", best.directory)
    for what, path in result.files.items():
        wrote(what, path)
