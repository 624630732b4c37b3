"""Draw Fig. 2: two features, really trained, on the unit circle.

    camri figure2 --data-dir DIR
    camri figure2 --dataset digits --epochs 40

Trains L2-softmax, ArcFace and CAMRI with two features, keeps the models, and draws the
test images as seen by the seed with the highest mean validation accuracy of the three.
Started again, it trains nothing twice. Writes figure2.png.
"""

import dataclasses
import math
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from camri_jax._files import UsageError
from camri_jax.cli import arguments as words
from camri_jax.cli import backend
from camri_jax.cli.arguments import DataArguments
from camri_jax.cli.console import say
from camri_jax.cli.figures import Format, save
from camri_jax.cli.progress import progress
from camri_jax.datasets import Dataset, class_index
from camri_jax.evidence import figures, selection
from camri_jax.evidence.figures import Embedding
from camri_jax.sweeps import engine, rows
from camri_jax.sweeps.plan import Plan, SweepConfig, plan
from camri_jax.takehome.sweeping import provenance
from camri_jax.training import classifier
from camri_jax.training.lift import placement, trial_mesh
from camri_jax.training.recipe import Recipe

METHODS = ("l2_softmax", "arcface", "camri")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingArguments:
    """What is trained, and where it goes.

    Attributes:
      important: The important class.
      margin: Margin of ArcFace and CAMRI: radians, or written as pi/8 or 22.5deg.
      scale: Scale of all three methods.
      epochs: Passes over the training images.
      learning_rate: At the first step; it falls to zero along a cosine.
      num_seeds: Trials of each method.
      output: Directory to write to; else results/figure2/DATASET.
      format: How the picture is written.
    """

    important: str = "3"
    margin: float = math.pi / 8
    scale: float = 8.0
    epochs: int = 4
    learning_rate: float = 0.003
    num_seeds: int = 2
    output: Path | None = None
    format: Format = "png"


def _mnist() -> DataArguments:
    return DataArguments(dataset="mnist", validation_fraction=1 / 12)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Draw Fig. 2."""

    data: DataArguments = dataclasses.field(default_factory=_mnist)
    training: TrainingArguments = dataclasses.field(default_factory=TrainingArguments)


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    given = words.parse(Arguments, argv, __doc__, "figure2")
    wanted = given.training
    output = words.directory(wanted.output, given.data.dataset, "results/figure2")
    backend.set_up_jax()
    dataset = words.load(given.data)
    if not len(dataset.validation_labels):
        raise UsageError("validation_fraction must be above 0: a seed is picked there")
    important = class_index(dataset.class_names, wanted.important)
    planned = make_plan(wanted, dataset, output)
    facts = provenance(shlex.join(["camri", "figure2", *argv]))
    with progress(planned.num_missing) as on_progress:
        engine.run(planned, dataset, output, provenance=facts, on_progress=on_progress)
    found = rows.read(output / "rows")
    found = found[found["trial_id"].isin([trial.trial_id for trial in planned.trials])]
    seed = best_seed(found)
    drawn = {row["method"]: row for _, row in found[found["seed"] == seed].iterrows()}
    embeddings = [embed(drawn[name], dataset, output / "models") for name in METHODS]
    figure = figures.circles(embeddings, dataset.class_names, important)
    say(f"drawn is seed {seed}, the most accurate on validation images")
    save(figure, output / f"figure2.{wanted.format}")


def make_plan(wanted: TrainingArguments, dataset: Dataset, output: Path) -> Plan:
    """Plans what `output` does not hold yet."""
    config = SweepConfig(
        important=(wanted.important,),
        methods=METHODS,
        grid={"margin": (wanted.margin,), "scale": (wanted.scale,)},
        num_seeds=wanted.num_seeds,
        recipe=Recipe(
            feature_dim=2,
            epochs=wanted.epochs,
            learning_rate=wanted.learning_rate,
            schedule="cosine",
        ),
    )
    done = set(rows.read(output / "rows")["trial_id"])
    return plan(config, dataset, placement(trial_mesh()), done=done)


def best_seed(found: pd.DataFrame) -> int:
    """Returns the seed of the highest mean validation accuracy of the methods."""
    kept = found[~found["diverged"]]
    accuracy = [float(np.trace(c) / c.sum()) for c in kept["validation_confusion"]]
    means = kept.assign(accuracy=accuracy).groupby("seed")["accuracy"]
    whole = means.mean()[means.count() == len(METHODS)]
    if whole.empty:
        raise UsageError("trials of every seed diverged: choose a lower learning_rate")
    return whole.index.tolist()[int(whole.to_numpy().argmax())]


def embed(row: pd.Series, dataset: Dataset, models: Path) -> Embedding:
    """Returns the test images as a trial sees them."""
    outputs = classifier.load(models / f"{row['trial_id']}.npz").outputs(
        dataset.test_images
    )
    return Embedding(
        selection.title(row),
        np.asarray(outputs.features),
        np.asarray(outputs.prototypes),
        np.asarray(dataset.test_labels),
    )
