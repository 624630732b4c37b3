"""Train every method on many seeds at once, and tell which one finds the class.

    camri sweep
    camri sweep --dataset cifar10 --data-dir DIR --important cat
    camri sweep --dataset folder:signs --image-size 32 --important stop --epochs 30
    camri sweep --preset paper --dataset gtsrb --dry-run

Without arguments: 45 trials on the digits inside scikit-learn. What is written lies in
--output: rows, logits, models, table.csv, recall_accuracy.png, report.html, and the
model to take. A sweep that was stopped goes on when it is started again.
"""

import argparse
import dataclasses
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from camri_jax.cli import arguments as words
from camri_jax.cli import backend, tables
from camri_jax.cli.arguments import DataArguments, Number
from camri_jax.cli.console import console, note, say, wrote
from camri_jax.datasets import Dataset
from camri_jax.evidence import study
from camri_jax.evidence.tables import comparison_sheets, remarks
from camri_jax.sweeps import engine, width
from camri_jax.sweeps.plan import Plan, SweepConfig, logits_bytes
from camri_jax.takehome import Result, make_plan, results_of, train
from camri_jax.training.lift import placement, trial_mesh
from camri_jax.training.methods import HYPERPARAMETERS

PRESETS: dict[str, Any] = {
    "default": (SweepConfig(), DataArguments()),
    # The paper has no validation images, and picks on those it tests on.
    "paper": (SweepConfig.paper(), DataArguments(validation_fraction=0.0)),
}
"""Whole sweeps to start from; `"paper"` is that of the paper's section IV-A."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What the command has beside the data and the sweep.

    Attributes:
      preset: Whole sweep to start from: default or paper.
      output: Directory for all that is written; default results/DATASET.
      convolution: Form of the convolutions; None: what the device wants.
      dry_run: Print the plan (trials, programs, chunks, memory, time) and stop.
    """

    preset: str = "default"
    output: Path | None = None
    convolution: str | None = None
    dry_run: bool = False


def arguments_type() -> type:
    """Returns the dataclass of the command line, with a flag for each hyperparameter.

    `--margins 4pi/64` is short for `--grid margin=4pi/64`.
    """
    fields = [
        ("data", DataArguments, dataclasses.field(default_factory=DataArguments)),
        ("config", SweepConfig, dataclasses.field(default_factory=SweepConfig)),
        ("options", Options, dataclasses.field(default_factory=Options)),
    ]
    for name, each in HYPERPARAMETERS.items():
        flag = tyro.conf.arg(help=f"Values of {name}: {each.meaning}; of all methods.")
        kind = Annotated[tuple[Number, ...], flag]
        fields.append((f"{name}s", kind, dataclasses.field(default=())))
    return dataclasses.make_dataclass("Arguments", fields, frozen=True)


def main(argv: Sequence[str]) -> int:
    """Runs the command."""
    peek = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    peek.add_argument("--preset", choices=PRESETS, default="default")
    preset = peek.parse_known_args(argv)[0].preset
    kind = arguments_type()
    config, data = PRESETS[preset]
    given = words.parse(kind, argv, __doc__, kind(data, config, Options(preset=preset)))
    short = {n: getattr(given, f"{n}s") for n in HYPERPARAMETERS}
    grid = {name: values for name, values in short.items() if values}
    if grid and preset != "default":
        # What is said for all methods takes the place of what a preset says for one.
        kept = given.config.grid.items()
        grid |= {k: v for k, v in kept if k.rpartition(".")[2] not in grid}
    else:
        grid |= given.config.grid
    config = dataclasses.replace(given.config, grid=grid)
    backend.set_up()
    return sweep(given.data, config, given.options, argv)


def sweep(
    data: DataArguments, config: SweepConfig, options: Options, argv: Sequence[str]
) -> int:
    """Plans, trains and tells; returns the exit status."""
    output = words.directory(options.output, data.dataset)
    dataset = words.load(data)
    placed = placement(trial_mesh())
    if options.convolution is not None:
        placed = placed._replace(convolution=options.convolution)
    plan = make_plan(config, dataset, output, placed=placed)
    tell(plan, dataset)
    if options.dry_run:
        engine.check_room(plan, dataset)
        tell_needs(plan, dataset)
        return 0
    command = shlex.join(["camri", "sweep", *argv])
    with progress(plan) as on_progress:
        train(plan, dataset, output, command=command, on_progress=on_progress)
    diverged = study.load(output, dataset=dataset.name).rows["diverged"]
    if diverged.all():
        say(f"all {len(diverged)} trials diverged; a smaller --learning-rate may help")
        return 1
    tell_results(results_of(plan, dataset, output))
    return 0


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
    widths = ", ".join(f"{len(c.trials)} of {c.width}" for c in plan.chunks[:6])
    more = ", ..." if len(plan.chunks) > 6 else ""
    placed = plan.placement
    form = "by scan" if placed.loop == "scan" else "step by step"
    many = "at once" if placed.together else "one after another"
    say(
        f"data      {dataset.name}: {' + '.join(counts)} images of {shape}\n"
        f"device    {placed.mesh.size} x {device.device_kind}: {placed.convolution} "
        f"convolutions, {form}, trials {many}\n"
        f"trials    {total:,}, of which {total - missing:,} are done\n"
        f"programs  {programs} to compile\n"
        f"chunks    {len(plan.chunks):,}" + (f": {widths}{more}" if widths else "")
    )


def tell_needs(plan: Plan, dataset: Dataset) -> None:
    """Prints what a plan takes: memory, room for logits, and time."""
    memory = width.memory_bytes(plan, dataset)
    say(f"memory    {memory / 2**20:,.0f} MiB a device for a step, by the compiler")
    say(f"logits    {logits_bytes(plan, dataset) / 1e6:,.1f} MB before packing")
    seconds = plan.num_missing * width.seconds_per_trial(plan, dataset)
    say(f"time      about {duration(seconds)} of training, by a few steps here")


def duration(seconds: float) -> str:
    """Returns a time that a person can plan with.

    >>> duration(50), duration(5400), duration(300_000)
    ('50 s', '1.5 h', '3.5 days')
    """
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 1.2 * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds:.2g} s"


class progress:
    """Shows trials done and time left: a bar, or without a terminal a line a minute."""

    def __init__(self, plan: Plan):
        self._total, self._start, self._told = plan.num_missing, time.time(), 0.0
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[done]} of {task.total:.0f} trials"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self):
        self._bar.start()
        self._task = self._bar.add_task("compiling", total=self._total, done=0)
        return self._show

    def __exit__(self, *error):
        self._bar.stop()

    def _show(self, made: engine.Progress) -> None:
        self._bar.update(
            self._task,
            completed=made.num_done,
            done=int(made.num_done),
            description=made.family,
        )
        spent = time.time() - self._start
        if not console.is_terminal and spent - self._told > 60:
            self._told = spent
            left = spent * (self._total - made.num_done) / max(made.num_done, 1e-9)
            say(
                f"{int(made.num_done)} of {self._total} trials, {duration(spent)}, "
                f"about {duration(left)} left"
            )


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
