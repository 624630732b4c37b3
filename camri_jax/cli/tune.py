"""From images to a promised recall, at the lowest price.

    camri tune
    camri tune --dataset folder:signs --important stop --recall 0.99 --budget 20m
    camri tune --dataset folder:signs --important stop yield --recall 0.99 0.95

Methods and settings are tried by successive halving. Validation images pick,
calibration images certify, test images tell the price. Without arguments: the digits
inside scikit-learn, whose 42 calibration images of class 8 certify a recall of 0.9 (it
takes 29 for one model, and 39 for three, none of them missed), but none of 0.95.
Stopped, it goes on when it is started again.
"""

import dataclasses
import math
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from camri_jax import guarantee
from camri_jax._files import UsageError
from camri_jax.cli import arguments as words
from camri_jax.cli import backend, tables
from camri_jax.cli.arguments import DataArguments
from camri_jax.cli.console import note, say, wrote
from camri_jax.cli.progress import progress
from camri_jax.datasets import Dataset
from camri_jax.evidence.statistics import percent
from camri_jax.takehome import TuneConfig, TuneResult, telling, tune
from camri_jax.takehome.model import local
from camri_jax.takehome.picking import Goal
from camri_jax.takehome.tuning import goal_of
from camri_jax.training.recipe import Recipe

PRESETS = {
    "light": Recipe.light,
    "small": Recipe,
    "paper": Recipe.paper,
    "fast": Recipe.fast,
    "heads": Recipe.heads,
}
"""How trials are trained, to start from."""

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunArguments:
    """What the command has besides the data and the goal.

    Attributes:
      preset: How trials are trained, to start from: light, for a few thousand small
        images; fast, for tens of thousands; small, a plain network with Adam;
        paper, its network for 300 epochs; or heads, on features that npz:FILE holds.
      output: Directory for all that is written; else tuned/DATASET.
    """

    preset: Literal["light", "fast", "small", "paper", "heads"] = "light"
    output: Path | None = None


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The command line."""

    data: DataArguments
    goal: TuneConfig
    run: RunArguments


def main(argv: Sequence[str]) -> int:
    """Runs the command; 1 where no recall can be promised."""
    preset = PRESETS[words.preset(argv, PRESETS, "light")]()
    default = Arguments(
        DataArguments(validation_fraction=0.2, calibration_fraction=0.3),
        TuneConfig(recipe=preset),
        RunArguments(),
    )
    plain = _in_seconds(argv)
    given = words.parse(Arguments, plain, __doc__, "tune", default)
    config = given.goal
    if given.run.output is not None:
        local(given.run.output)
    output = words.directory(given.run.output, given.data.dataset, "tuned")
    backend.set_up_jax()
    dataset = words.load(given.data)
    recipe = words.without_mirroring(config.recipe, preset, dataset)
    config = dataclasses.replace(config, recipe=recipe)
    goal = goal_of(config, dataset)
    tell(goal, config, dataset)
    options = {
        name: value
        for name, value in vars(config).items()
        if name not in ("important", "recall")
    }
    with progress(None) as on_progress:
        result = tune(
            dataset,
            config.important,
            config.recall,
            output=output,
            command=shlex.join(["camri", "tune", *argv]),
            on_progress=on_progress,
            **options,
        )
    tell_result(result)
    words.tell_next(result.directory, dataset)
    return 0 if result.certified else 1


def tell(goal: Goal, config: TuneConfig, dataset: Dataset) -> None:
    """Prints what can be certified, before anything is trained."""
    counts = ", ".join(
        f"{len(part.labels):,} {name}" for name, part in dataset.parts.items()
    )
    say(f"data      {dataset.name}: {counts} images")
    part = dataset.parts["calibration"]
    for classes, recall in goal.parts:
        n = guarantee.sample_size(part.labels, classes, part.groups)
        unit = "images" if part.groups is None else "groups"
        names = "+".join(dataset.class_names[k] for k in classes)
        models = sorted({1, config.num_finalists})
        shared = [{"confidence": goal.confidence, "candidates": m} for m in models]
        limits = [guarantee.largest_certifiable(n, **each) for each in shared]
        needs = [guarantee.images_needed(recall, **each) for each in shared]
        most = [percent(guarantee.rounded_down(limit)) for limit in limits]
        say(
            f"certify   {n:,} calibration {unit} of {names} certify at most "
            f"{_each(most, models)}; {percent(recall)} takes "
            + _each([f"{need:,}" for need in needs], models)
        )
        if n < needs[0]:
            more = [_in_all(need - n, n, classes, dataset) for need in needs]
            note(
                f"{percent(recall)} cannot be certified for {names}"
                + f": more labelled {unit} of it are needed in all, parted as now, "
                f"besides those for test: about {_each(more, models)}"
                * bool(n)
                + ". Training goes on, without that promise"
            )


def _each(told: Sequence[str], models: Sequence[int]) -> str:
    """Joins what holds for each number of models.

    >>> _each(["59", "80"], [1, 3])
    '59 for one model, 80 for 3'
    """
    names = ["one model" if m == 1 else str(m) for m in models]
    return ", ".join(
        f"{text} for {name}" for text, name in zip(told, names, strict=True)
    )


def tell_result(result: TuneResult) -> None:
    """Prints what was found, and where it lies: it is on disk."""
    names = "+".join(result.class_names[k] for k in result.goal.important)
    tables.show([telling.sheet(result.table, names)])
    say(" ".join(result.sentences))
    wrote("model", result.directory)
    for what, path in result.files.items():
        wrote(what, path)


def _in_all(missing: int, number: int, classes: Sequence[int], dataset: Dataset) -> str:
    """How many more of all that are not for test it takes, parted as now."""
    several = (
        guarantee.sample_size(part.labels, classes, part.groups)
        for name, part in dataset.parts.items()
        if name != "test"
    )
    return f"{math.ceil(missing * sum(several) / max(number, 1)):,}"


def _in_seconds(argv: Sequence[str]) -> list[str]:
    """The command line with its budget, such as 90s, 20m or 2h, in seconds."""
    found = list(argv)
    for i, word in enumerate(found):
        flag, equals, value = word.partition("=")
        if flag != "--budget":
            continue
        at = i if equals else i + 1
        if at < len(found):
            text = value if equals else found[at]
            seconds = repr(_seconds(text))
            found[at] = f"--budget={seconds}" if equals else seconds
    return found


def _seconds(text: str) -> float:
    """Reads a time.

    >>> _seconds("20m"), _seconds("1.5h"), _seconds("90")
    (1200.0, 5400.0, 90.0)
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?)\s*([smh]?)", text.strip())
    if not match:
        raise UsageError(f"budget must be a time such as 90s, 20m or 2h, got {text!r}")
    return float(match[1]) * _UNITS[match[2]]
