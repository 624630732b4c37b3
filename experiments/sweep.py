"""Train every method on many seeds at once, and tell which one finds the class.

    python experiments/sweep.py
    python experiments/sweep.py --dataset cifar10 --data-dir DIR --important cat
    python experiments/sweep.py --preset paper --dataset gtsrb --dry-run

Without arguments: 45 trials on the digits inside scikit-learn, in one to two minutes
on two CPU cores. What is written lies in --output: rows/*.parquet, table.csv,
recall_accuracy.png. A sweep that was stopped goes on when it is started again.
"""

import argparse
import dataclasses
import datetime
import functools
import importlib.metadata
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import pandas as pd
import tyro
from jax.sharding import Mesh
from loading import folder_name, load
from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from camri_jax.datasets import Dataset
from camri_jax.evidence import figures
from camri_jax.evidence import selection as analysis
from camri_jax.sweeps import chunk as sweep
from camri_jax.sweeps import plan as planning
from camri_jax.sweeps import rows as results
from camri_jax.sweeps import width as programs
from camri_jax.sweeps.plan import Plan, SweepConfig
from camri_jax.training import lift as parallel

console = Console()


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Train every method on many seeds at once, and tell which finds the class.

    Attributes:
      config: The sweep.
      output: Directory for rows, table and picture; default results/DATASET.
      dry_run: Print the plan (trials, compilations, chunks, memory) and stop.
    """

    config: Annotated[SweepConfig, tyro.conf.arg(name="")]
    output: Path | None = None
    dry_run: bool = False


def parse(argv: Sequence[str]) -> Arguments:
    """Reads the command line, over the defaults of its --preset."""
    peek = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    peek.add_argument("--preset", choices=planning.PRESETS, default="default")
    preset = peek.parse_known_args(argv)[0].preset
    return tyro.cli(
        Arguments,
        args=list(argv),
        default=Arguments(planning.PRESETS[preset]),
        description=__doc__,
        config=(tyro.conf.OmitArgPrefixes,),
    )


def main(argv: Sequence[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    set_up_jax()
    arguments = parse(argv)
    config = arguments.config
    output = arguments.output or Path("results", folder_name(config.dataset))
    dataset = load(
        console,
        config.dataset,
        data_dir=config.data_dir,
        image_size=config.image_size,
        validation_fraction=config.validation_fraction,
        fit=config.fit,
    )
    mesh = parallel.trial_mesh()
    finished = results.read(output / "rows")
    make_plan = functools.partial(
        planning.plan,
        dataset=dataset,
        done=results.pairs(finished),
        baseline_recall=analysis.baseline_recall(finished, config.dataset),
        num_devices=mesh.size,
    )
    plan = make_plan(config)
    if not arguments.dry_run:
        check_baseline(plan, finished)
    if config.trials_per_device == "auto":
        width = choose_width(plan, dataset, finished, mesh)
        plan = make_plan(dataclasses.replace(config, trials_per_device=width))
    print_plan(plan, dataset, mesh.size)
    if arguments.dry_run:
        memory = programs.memory_bytes(plan, dataset, mesh)
        console.print(f"memory    {memory / 2**20:,.0f} MiB a device, by the compiler")
        return
    if plan.chunks:
        (output / "rows").mkdir(parents=True, exist_ok=True)
        train(plan, dataset, output, mesh, argv)
    report(plan, output)


def check_baseline(plan: Plan, finished: pd.DataFrame) -> None:
    """Refuses to train what could not be compared with anything."""
    rows = same_settings(finished, plan)
    rows = rows[rows["method"] == analysis.BASELINE]
    known = set(map(tuple, rows["important"]))
    wanted = {choice for trial in plan.trials for choice in trial.choices}
    if analysis.BASELINE not in plan.config.methods and not wanted <= known:
        raise ValueError(
            f"methods must hold {analysis.BASELINE}, which the others are compared "
            "with, unless its rows with the same settings and important classes lie in "
            "--output already"
        )


def choose_width(
    plan: Plan, dataset: Dataset, finished: pd.DataFrame, mesh: Mesh
) -> int:
    """Trials a device: as in finished rows of these devices, or else by measurement."""
    device = mesh.devices.flat[0].device_kind
    facts = map(json.loads, same_settings(finished, plan)["provenance"].unique())
    widths = [
        fact["width"] // mesh.size
        for fact in facts
        if (fact["device"], fact["num_devices"]) == (device, mesh.size)
    ]
    if widths:
        return max(widths)
    with console.status("measuring how many trials to train at once"):
        return programs.best_width(plan, dataset, mesh)


def same_settings(rows: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """Rows that may stand in one table with the plan's, of this sweep or earlier."""
    return rows[rows["settings"] == json.dumps(plan.settings)]


def set_up_jax() -> None:
    """Gives a CPU one device a core, and keeps compiled programs between runs."""
    # Trials on devices of one core each run faster than one trial on all cores.
    jax.config.update("jax_num_cpu_devices", num_cores())
    # JAX keeps what took a second to compile, which some programs only sometimes do.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        jax.config.update("jax_compilation_cache_dir", str(cache / "camri_jax" / "xla"))


def num_cores() -> int:
    """Cores that this process may use: all, unless it is bound to some."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def print_plan(plan: Plan, dataset: Dataset, num_devices: int) -> None:
    device = jax.devices()[0]
    shape = "x".join(map(str, dataset.train_images.shape[1:]))
    counts = [
        f"{len(labels):,} {part}"
        for part, labels in (
            ("training", dataset.train_labels),
            ("validation", dataset.validation_labels),
            ("test", dataset.test_labels),
        )
    ]
    missing, total = plan.num_missing, len(plan.trials)
    families = len({chunk.family for chunk in plan.chunks})
    widths = ", ".join(f"{len(c.trials)} of {c.width}" for c in plan.chunks[:6])
    more = ", ..." if len(plan.chunks) > 6 else ""
    console.print(
        f"data      {plan.config.dataset}: {' + '.join(counts)} images of {shape}\n"
        f"device    {num_devices} x {device.device_kind}\n"
        f"trials    {total:,}, of which {total - missing:,} are done\n"
        f"programs  {families} to compile\n"
        f"chunks    {len(plan.chunks):,}" + (f": {widths}{more}" if widths else ""),
        highlight=False,
    )


def train(
    plan: Plan, dataset: Dataset, output: Path, mesh: Mesh, argv: Sequence[str]
) -> None:
    """Runs the plan under a bar of trials done and time left."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[done]} of {task.total:.0f} trials"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("compiling", total=plan.num_missing, done=0)

        def show(progress: sweep.Progress) -> None:
            bar.update(
                task,
                completed=progress.num_done,
                done=int(progress.num_done),
                description=progress.family,
            )

        sweep.run(
            plan,
            dataset,
            output / "rows",
            mesh,
            provenance=provenance(argv),
            models=output / "models" if plan.config.save_models else None,
            report=show,
        )


def provenance(argv: Sequence[str]) -> dict[str, Any]:
    """Returns what a later reader needs to know of where rows come from."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    packages = ("camri-jax", "jax", "jaxlib", "flax", "optax", "numpy")
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", "experiments/sweep.py", *argv]),
        "commit": commit.stdout.strip() or None,
        "device": jax.devices()[0].device_kind,
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }


def report(plan: Plan, output: Path) -> None:
    """Prints the table, and writes it and the picture beside the rows."""
    trials = analysis.trials(same_settings(results.read(output / "rows"), plan))
    settings = analysis.settings(trials)
    on = "validation" if plan.config.validation_fraction else "test"
    table = analysis.select(settings, on=on)
    for important, lines in table.groupby("important", sort=False):
        console.print(show_table(lines, str(important), on))
        show_best(analysis.best_trial(trials, lines), output / "models")
    table.to_csv(output / "table.csv", index=False)
    figures.save(
        figures.recall_accuracy(settings, table), output / "recall_accuracy.png"
    )
    for what, path in (
        ("rows", output / "rows"),
        ("table", output / "table.csv"),
        ("picture", output / "recall_accuracy.png"),
    ):
        console.print(f"{what:10}{path}", highlight=False, soft_wrap=True)


def show_best(trial: pd.Series | None, models: Path) -> None:
    """Says which trained model to use, if there is one and it was kept."""
    if trial is None:
        return
    path = models / f"{trial['trial_id']}.npz"
    if not path.exists():
        return
    moved = (
        f", {trial['constant']:+.3g} on the logit of {trial['important']}"
        if trial["constant"]
        else ""
    )
    console.print(
        f"model     {path}\n"
        f"          {name_of(trial)}, seed {trial['seed']}{moved}: "
        "the best on validation images",
        highlight=False,
        soft_wrap=True,
    )


def show_table(lines: pd.DataFrame, important: str, on: str) -> Table:
    """Lays out the selected settings of one choice of important classes."""
    picked = {
        "validation": "Settings and threshold picked on validation images.",
        "test": "Settings picked on these very test images, as in the paper.",
    }[on]
    table = Table(
        title=Text(f"Important class: {important}"),
        caption=(
            "Test images, mean ± std over seeds; false alarms per 1,000 images.\n"
            f"{picked} ▼ accuracy below cross-entropy's."
        ),
        box=box.SIMPLE_HEAD,
        padding=0,
        show_edge=False,
    )
    table.add_column("method, setting", no_wrap=True)
    for name in (
        "recall",
        "accuracy ",
        "preci-\nsion",
        "others'\nrecall",
        "false\nalarms",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    baseline = lines.loc[lines["method"] == analysis.BASELINE, "accuracy"].iloc[0]
    for _, line in lines.iterrows():
        loses = line["accuracy"] < baseline - 1e-9
        table.add_row(
            title(line),
            spread(line, "recall"),
            spread(line, "accuracy") + ("▼" if loses else " "),
            f"{line['precision']:.3f}",
            f"{line['other_recall']:.3f}",
            f"{line['false_alarms']:.1f}",
            f"{line['num_seeds']}",
            style="dim" if loses else None,
        )
    return table


def title(line: pd.Series) -> str:
    """A method that is moved stands under itself, and need not be named again."""
    if line["method"] == analysis.trained(line["method"]):
        return name_of(line)
    return f"  + threshold {analysis.describe(line)}".rstrip()


def name_of(line: pd.Series) -> str:
    return f"{analysis.LABELS[line['method']]} {analysis.describe(line)}".rstrip()


def spread(line: pd.Series, name: str) -> str:
    return f"{line[name]:.3f}±{line[name + '_std']:.3f}"


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, ImportError, MemoryError) as error:
        console.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        console.print("stopped; start the same command again to go on")
        sys.exit(130)
