"""From a grid of trials to a table and a model, in one call."""

import contextlib
import datetime
import functools
import html
import importlib.metadata
import json
import math
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from camri_jax._files import UsageError, address, write_whole, written_whole
from camri_jax.datasets import Dataset
from camri_jax.evidence import figures, report, selection, study, tables
from camri_jax.evidence.selection import Recommendation
from camri_jax.evidence.study import Choice, Study
from camri_jax.sweeps import engine, rows, width
from camri_jax.sweeps.choices import RANKS, ranks
from camri_jax.sweeps.plan import Plan, SweepConfig, plan, what_trials_share
from camri_jax.takehome.model import (
    Model,
    directory_of,
    load_model,
    save_model,
    save_seen,
    used,
)
from camri_jax.training import classifier
from camri_jax.training.lift import Placement, placement, trial_mesh
from camri_jax.training.methods import BASELINE
from camri_jax.training.network import Convolution


class AllDiverged(UsageError):
    """Every trial of a sweep diverged."""


@dataclass(frozen=True)
class Best:
    """The model that is recommended for a choice of important classes.

    Attributes:
      important: the choice.
      recommendation: its trial, or why there is none.
      directory: of the model; `None` if no model is recommended or none was kept.
      sentences: what is known of it, for people.
      backbone: the Flax module that was trained, where it is not one of ours.
    """

    important: Choice
    recommendation: Recommendation
    directory: Path | None
    sentences: tuple[str, ...]
    backbone: Any = None

    def load(self) -> Model:
        """Reads the model.

        Raises:
          UsageError: there is none.
        """
        if self.directory is None:
            raise UsageError(" ".join(self.sentences) + " No model was kept.")
        return load_model(self.directory, self.backbone)

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(' '.join(self.sentences), quote=False)}</p>"


@dataclass(frozen=True)
class Result:
    """What a sweep shows.

    Attributes:
      study: its trials.
      table: of each choice of important classes, what each method comes to.
      bests: of each choice, the model to take.
      files: what was written, by what it is.
    """

    study: Study
    table: pd.DataFrame
    bests: tuple[Best, ...]
    files: dict[str, Path]

    @property
    def best(self) -> Best:
        """The model to take, for the first choice of important classes."""
        return self.bests[0]

    def _repr_html_(self) -> str:
        # What a notebook shows of a result.
        return "".join(best._repr_html_() for best in self.bests) + self.table.to_html()


def sweep(
    config: SweepConfig,
    dataset: Dataset,
    output: str | os.PathLike[str],
    *,
    backbone: Any = None,
    command: str = "camri_jax.sweep",
    on_progress: engine.OnProgress | None = None,
) -> Result:
    """Trains what is missing of a grid, and tells what all of it shows.

    Args:
      config: the grid.
      dataset: from `camri_jax.datasets.load`, with a validation part, on which
        settings and offsets are picked.
      output: directory of rows, logits, models, table, picture and report. Started
        again it trains only what is missing.
      backbone: a Flax module from uint8 images and `train` to features, in place of
        the recipe's network.
      command: kept with the rows.
      on_progress: called after each epoch; default a bar, in notebooks too.

    Returns:
      The result.

    Raises:
      UsageError: an argument is out of range.

    Reference:
      Section IV of Nishiyama et al., CAMRI Loss, 2022.
    """
    output = address(output)
    planned = make_plan(config, dataset, output, backbone=backbone)
    facts = provenance(command, config)
    with shown(on_progress) as told:
        engine.run(planned, dataset, output, provenance=facts, on_progress=told)
    return results_of(planned, dataset, output, backbone)


@contextlib.contextmanager
def shown(
    on_progress: engine.OnProgress | None,
) -> Iterator[engine.OnProgress]:
    """Yields what is called with progress; for None it moves a bar, in notebooks too.

    Args:
      on_progress: what was given.
    """
    if on_progress is not None:
        yield on_progress
        return
    with tqdm(unit="trial") as bar:

        def advance(progress: engine.Progress) -> None:
            if bar.total is None:
                bar.reset(progress.num_trials)
            bar.update(round(progress.num_done, 2) - bar.n)

        yield advance


def make_plan(
    config: SweepConfig,
    dataset: Dataset,
    output: Path,
    *,
    backbone: Any = None,
    convolution: Convolution | None = None,
    dry_run: bool = False,
) -> Plan:
    """Mends a directory, and plans what is missing of a grid in it.

    Args:
      config: the grid.
      dataset: the images.
      output: the directory, which need not exist.
      backbone: as for `sweep`.
      convolution: form of the convolutions; default what is fast on the devices, which
        is measured where it is not known.
      dry_run: whether nothing is to be written.

    Returns:
      The plan.

    Raises:
      UsageError: an argument is out of range, or nothing would be there to compare
        with.
    """
    placed, forms = placement(trial_mesh()), width.FORMS
    if convolution is not None:
        placed, forms = placed._replace(convolution=convolution), ()
    if not dry_run:
        rows.mend(output)
    shared = json.dumps(what_trials_share(config.recipe, dataset, backbone))
    finished = rows.read(output / "rows", pass_over=dry_run)
    ours = finished[finished["settings"] == shared]
    trained = set(ours["trial_id"])
    if BASELINE not in config.methods and not (ours["method"] == BASELINE).any():
        raise UsageError(
            f"methods must hold {BASELINE}, which the others are compared with, unless "
            f"{output} holds rows of it with the same settings"
        )
    config = _with_ranks(config, dataset, output, ours, dry_run)
    make = functools.partial(plan, dataset=dataset, backbone=backbone, done=trained)
    planned = make(config, placement=placed)
    if config.trials_per_device == "auto" and width.measures(planned.placement):
        known = _known(ours, placed, forms)
        form, chosen = known or width.best(planned, dataset, forms)
        placed = placed._replace(convolution=form)
        planned = make(replace(config, trials_per_device=chosen), placement=placed)
    return planned


def results_of(
    planned: Plan, dataset: Dataset, output: Path, backbone: Any = None
) -> Result:
    """Writes and returns what the rows of a plan's settings show.

    Args:
      planned: from `make_plan`.
      dataset: the images.
      output: directory of the sweep, with rows.
      backbone: the Flax module that was trained, where it is not one of ours.

    Returns:
      The result; all its files are on disk.

    Raises:
      AllDiverged: every trial diverged.
    """
    found = study.load(output, important=planned.choices, settings=planned.settings)
    if found.rows["diverged"].all():
        raise AllDiverged(
            f"all {len(found.rows)} trials diverged; a smaller learning_rate may help"
        )
    frames, bests, files = [], [], {"rows": output / "rows"}
    for choice in found.choices:
        name = found.name(choice)
        table = tables.comparison(found, choice)
        frames.append(table.assign(important_names=name))
        trials = selection.trials(found, choice)
        picked = selection.recommend(trials)
        model = None
        if picked.trial is not None:
            model = _keep(output, found, choice, picked, dataset, backbone)
        sentences = tuple(filter(None, tables.recommendation(picked, name)))
        bests.append(Best(choice, picked, model, sentences, backbone))
        pictures = figures.drawings(found, choice, trials)
        suffix = found.suffix(choice)
        path = output / f"recall_accuracy{suffix}.png"
        with contextlib.suppress(UsageError):
            figures.save(pictures["price"].draw(), path)
            files[f"picture{suffix}"] = path
    table = pd.concat(frames, ignore_index=True)
    with written_whole(output / "table.csv") as unfinished:
        table.to_csv(unfinished, index=False)
    write_whole(output / "report.html", report.page(found))
    files |= {"table": output / "table.csv", "report": output / "report.html"}
    return Result(found, table, tuple(bests), files)


def provenance(command: str, config: SweepConfig | None = None) -> dict[str, Any]:
    """Returns what a later reader needs to know about where rows come from.

    Args:
      command: that trains them.
      config: as it was given, if a sweep was: whether devices took as many trials at
        once as is best for them, which later sweeps can take from its rows.
    """
    packages = ("camri-jax", "jax", "jaxlib", "flax", "optax", "numpy")
    facts = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
        "commit": _commit(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }
    if config is not None:
        facts["measured"] = config.trials_per_device == "auto"
    return facts


def _commit() -> str | None:
    """The commit of this code; none where no git has it, as where it is installed."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        ).stdout.strip()

    with contextlib.suppress(OSError):
        # Installed into another repository, that one's commit would say nothing.
        if git("ls-files", Path(__file__).name):
            return git("describe", "--always", "--dirty") or None
    return None


def _with_ranks(
    config: SweepConfig,
    dataset: Dataset,
    output: Path,
    ours: pd.DataFrame,
    dry_run: bool,
) -> SweepConfig:
    """Says worst1 and the like by name, the same in every later command."""
    unknown = [word for word in RANKS if word not in dataset.class_names]
    at = [word for key in config.grid for word in key.split("@")[1:]]
    if not any(word in unknown for word in (*config.important, *at)):
        return config
    path = output / "data" / f"{dataset.fingerprint}.ranks.json"
    if path.exists():
        known = json.loads(path.read_text(encoding="utf-8"))
    else:
        recall = selection.baseline_recall(ours, len(dataset.class_names))
        if recall is None:
            return config
        known = ranks(recall)
        if not dry_run:
            write_whole(path, json.dumps(known))

    def named(word: str) -> str:
        return dataset.class_names[known[word]] if word in unknown else word

    grid = {}
    for key, values in config.grid.items():
        setting, *at = key.split("@")
        grid["@".join([setting, *map(named, at)])] = values
    important = tuple(map(named, config.important))
    return replace(config, important=important, grid=grid)


def _known(
    ours: pd.DataFrame, placed: Placement, forms: Sequence[Convolution]
) -> tuple[Convolution, int] | None:
    """Form and trials a device, as in finished rows of as many such devices."""
    kind = placed.mesh.devices.flat[0].device_kind
    facts = map(json.loads, ours["provenance"].unique())
    found = [
        (fact["convolution"], fact["trials_per_device"])
        for fact in facts
        if (fact["device"], fact["num_devices"]) == (kind, placed.mesh.size)
        and fact["convolution"] in (placed.convolution, *forms)
        # Not what a person gave, Ray or a search of other trials.
        and fact.get("measured")
    ]
    # The narrowest: where memory once ended, it will again.
    return min(found, key=lambda each: each[1], default=None)


def _keep(
    output: Path,
    found: Study,
    choice: Choice,
    picked: Recommendation,
    dataset: Dataset,
    backbone: Any,
) -> Path | None:
    """Writes the directory of the recommended model, if its weights were kept."""
    trial = picked.trial
    assert trial is not None
    weights = output / "models" / f"{trial['trial_id']}.npz"
    if not weights.exists():
        return None
    trained = classifier.load(weights, backbone)
    offset = float(trial["offset"])
    if trial["moved"]:
        # Logits on disk may be of another training than the weights.
        logits = trained.logits(dataset.parts["validation"].images)
        offset = selection.offset_of(found, choice, int(trial["seed"]), logits)
    names = [found.data.class_names[k] for k in choice]
    # A tuned model of the same classes says what was asked, and is not this one.
    question = {"important": names, "asked": None}
    directory = directory_of(output, question, choice)
    if len(found.choices) > 1:
        directory = output / f"model{found.suffix(choice)}"
    about = {
        "classes": found.data.class_names,
        "trial": {
            name: value
            for name, value in trial.items()
            if not (isinstance(value, float) and math.isnan(value)) and value != ""
        }
        | {"offset": offset},
        "why": picked.why,
        "fingerprint": dataset.fingerprint,
        "certificate": None,
    }
    model = Model(trained, choice, offset, about)
    save_model(directory, model)
    save_seen(directory, used(dataset))
    return directory
