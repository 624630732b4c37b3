"""List the trials of a grid, and group those without rows into chunks. Trains nothing.

A trial is named by a hash of all that its numbers depend on, so a sweep that was
stopped continues when it is planned again, and a larger one trains only what is new.
"""

import hashlib
import itertools
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from camri_jax.datasets import Dataset, class_index
from camri_jax.training.methods import FAMILIES, METHODS, points
from camri_jax.training.recipe import Recipe, TrainConfig


@dataclass(frozen=True)
class SweepConfig:
    """A grid of trials on one data set.

    Attributes:
      dataset: digits, mnist, cifar10, gtsrb, awa2, folder:PATH or npz:FILE.
      important: Choices of important classes, by name or index: "cat dog" are two
      choices, "cat+dog" is one choice of two classes; worst1, worst2 and median are
      the classes of that recall in finished cross-entropy trials. Empty: the paper's
      classes, for its data sets.
      data_dir: Directory of the data set's official files.
      image_size: Height and width that images are resized to, in pixels; None keeps
      the data set's own.
      fit: How pictures of folder:PATH become square: padded with black, or cropped.
      validation_fraction: Share of the training images held out to pick settings and
      thresholds on.
      methods: Methods to train.
      margins: Margins of ArcFace and CAMRI, in radians; empty: those of the preset, as
      for the next four.
      scales: Scales of L2-softmax, ArcFace and CAMRI.
      weights: Weights of the important class, in WCE and CRWWCE.
      costs: Costs of confusing it, in CRWWCE and Wasserstein.
      epsilons: Entropic regularization of Wasserstein.
      preset: A small grid, or the paper's.
      num_seeds: Trials of each setting, with seeds 0, 1, ...
      trials_per_device: Trials that a device trains at once; auto: the number that
      takes the least time a trial, which is measured first.
      save_models: Keep the weights of every trial, for camri_jax.training.classifier.
      recipe: How trials are trained.
    """

    dataset: str = "digits"
    important: tuple[str, ...] = ()
    data_dir: str | None = None
    image_size: int | None = None
    fit: Literal["pad", "crop"] = "pad"
    validation_fraction: float = 0.2
    methods: tuple[str, ...] = tuple(METHODS)
    margins: tuple[float, ...] = ()
    scales: tuple[float, ...] = ()
    weights: tuple[float, ...] = ()
    costs: tuple[float, ...] = ()
    epsilons: tuple[float, ...] = ()
    preset: Literal["default", "paper"] = "default"
    num_seeds: int = 5
    trials_per_device: int | Literal["auto"] = 8
    save_models: bool = True
    recipe: Recipe = field(default_factory=Recipe)

    def __post_init__(self) -> None:
        if unknown := [name for name in self.methods if name not in METHODS]:
            raise ValueError(
                f"methods must be among {', '.join(METHODS)}, got {', '.join(unknown)}"
            )
        for name in ("num_seeds", "trials_per_device"):
            number = getattr(self, name)
            if number != "auto" and number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}")


PRESETS = {
    "default": SweepConfig(),
    "paper": SweepConfig(
        preset="paper",
        # L2-softmax is ArcFace at margin 0, which its grid holds.
        methods=tuple(name for name in METHODS if name != "l2_softmax"),
        validation_fraction=0.0,
        num_seeds=10,
        save_models=False,
        recipe=Recipe(model="paper", epochs=300),
    ),
}
"""Whole sweeps to start from; `"paper"` is that of the paper's section IV-A."""

IMPORTANT = {
    "digits": ("8",),
    "mnist": ("3",),
    "cifar10": ("cat", "dog", "airplane"),
    "gtsrb": ("6", "41", "5"),
    "awa2": ("mouse", "beaver", "moose"),
}
"""Important classes where the user names none: the paper's, and for digits ours."""

RANKS = ("worst1", "worst2", "median")
"""Important classes by their recall under cross-entropy, as the paper picks them."""


class Trial(NamedTuple):
    """One training: a method at one point of its grid, from one seed.

    Attributes:
      method: its name.
      point: value of each hyperparameter, by name.
      choices: choices of important class indices that it is evaluated for; a method
        that is sensitive to the class is trained for its only one.
      seed: fixes initialization, shuffling, dropout and augmentation.
      trial_id: hash of all that its numbers depend on.
    """

    method: str
    point: dict[str, float]
    choices: tuple[tuple[int, ...], ...]
    seed: int
    trial_id: str


class Chunk(NamedTuple):
    """Trials of one family that are trained at once.

    Attributes:
      family: its name.
      trials: at most `width`.
      width: trials with the padding; as `num_choices`, equal in a family's chunks, so
        that one program serves them.
      num_choices: the most choices of important classes that a trial has.
    """

    family: str
    trials: tuple[Trial, ...]
    width: int
    num_choices: int

    @property
    def name(self) -> str:
        """Hash of its trials, the name of its file of rows."""
        return _hash([(trial.trial_id, trial.choices) for trial in self.trials])


class Plan(NamedTuple):
    """What a sweep is going to do.

    Attributes:
      config: the sweep's.
      settings: what all its trials depend on, besides their own.
      trials: all trials of the grid.
      chunks: those without rows, grouped.
    """

    config: SweepConfig
    settings: dict[str, Any]
    trials: list[Trial]
    chunks: list[Chunk]

    @property
    def num_missing(self) -> int:
        """Trials that are yet to be trained."""
        return sum(len(chunk.trials) for chunk in self.chunks)


Done = Collection[tuple[str, tuple[int, ...]]]


def plan(
    config: SweepConfig,
    dataset: Dataset,
    *,
    done: Done = (),
    baseline_recall: np.ndarray | None = None,
    num_devices: int = 1,
) -> Plan:
    """Lists the grid's trials, and groups those that are not done into chunks.

    Args:
      config: the sweep.
      dataset: its images.
      done: pairs of a trial's id and a choice of important classes with rows.
      baseline_recall: `[num_classes]`, recall under cross-entropy, for `worst1`,
      `worst2` and `median`.
      num_devices: devices that share a chunk.

    Returns:
      The `Plan`.

    Raises:
      ValueError: for an unknown class, a batch larger than the training set, or a
      hyperparameter outside its range.

    >>> from camri_jax import datasets
    >>> config = SweepConfig(methods=("camri",), num_seeds=2)
    >>> [chunk.width for chunk in plan(config, datasets.load("digits")).chunks]
    [4]
    """
    settings = {
        "dataset": config.dataset,
        "fingerprint": dataset.fingerprint,
        "image_shape": list(dataset.train_images.shape[1:]),
        "validation_fraction": config.validation_fraction,
        **asdict(config.recipe),
    }
    if config.recipe.precision == "float32":
        # Rows are older than this choice; those without it were trained in float32.
        del settings["precision"]
    if not len(dataset.test_labels):
        raise ValueError(f"dataset {config.dataset} has no test images to report on")
    texts = config.important or IMPORTANT.get(config.dataset, ())
    if not texts:
        raise ValueError(
            "important must name the class that must not be missed; there are "
            + ", ".join(dataset.class_names)
        )
    choices = [_choice(text, dataset.class_names, baseline_recall) for text in texts]
    trials = _trials(config, tuple(dict.fromkeys(choices)), settings)
    # "auto" is measured on a plan, of one trial a device.
    width = 1 if config.trials_per_device == "auto" else config.trials_per_device
    chunks = _chunks(trials, done, width, num_devices)
    num_classes = len(dataset.class_names)
    for chunk in chunks:
        train_config(chunk.family, dataset, config.recipe)
    distinct = {(t.method, *t.point.values()): t for t in trials}
    for trial in distinct.values():
        method = METHODS[trial.method]
        method.hyperparameters(num_classes, trial.choices[0], **trial.point)
    return Plan(config, settings, trials, chunks)


def train_config(family: str, dataset: Dataset, recipe: Recipe) -> TrainConfig:
    """Returns what the trials of a family share on a data set."""
    return TrainConfig(
        family, len(dataset.class_names), len(dataset.train_labels), recipe
    )


def _trials(
    config: SweepConfig,
    choices: tuple[tuple[int, ...], ...],
    settings: Mapping[str, Any],
) -> list[Trial]:
    values = {
        "margin": config.margins,
        "scale": config.scales,
        "weight": config.weights,
        "cost": config.costs,
        "epsilon": config.epsilons,
    }
    trials = []
    for name in config.methods:
        method = METHODS[name]
        grid = method.paper_grid if config.preset == "paper" else method.grid
        grid = {key: values[key] or own for key, own in grid.items()}
        sets = [(c,) for c in choices] if method.class_sensitive else [choices]
        for seed, own, point in itertools.product(
            range(config.num_seeds), sets, points(grid)
        ):
            # Other choices add to what is measured of a trial, not to its training.
            trained_for = own if method.class_sensitive else None
            trial_id = _hash([settings, name, point, trained_for, seed])
            trials.append(Trial(name, point, own, seed, trial_id))
    return trials


def _choice(
    text: str, class_names: Sequence[str], recall: np.ndarray | None
) -> tuple[int, ...]:
    """Resolves `cat`, `cat+dog` or `worst1`; a class of that very name wins."""
    if text in RANKS and text not in class_names:
        if recall is None:
            raise ValueError(
                f"important {text!r} needs the recall of finished cross-entropy trials "
                "on this data set; train those first, with any class as important"
            )
        order = np.argsort(recall, kind="stable")
        return (int(order[{"worst1": 0, "worst2": 1}.get(text, len(order) // 2)]),)
    parts = [text] if text in class_names else text.split("+")
    return tuple(sorted({class_index(class_names, part) for part in parts}))


def _chunks(
    trials: Sequence[Trial], done: Done, trials_per_device: int, num_devices: int
) -> list[Chunk]:
    chunks = []
    for family in FAMILIES:
        planned = [t for t in trials if METHODS[t.method].family == family]
        if not planned:
            continue
        # The width follows from the plan alone, not from what is left of it: a
        # trial's last digits depend on the width that it is trained in.
        num_chunks = _ceil_div(len(planned), trials_per_device * num_devices)
        width = num_devices * _ceil_div(len(planned), num_chunks * num_devices)
        missing = []
        for trial in planned:
            left = tuple(c for c in trial.choices if (trial.trial_id, c) not in done)
            if left:
                missing.append(trial._replace(choices=left))
        num_choices = max(len(trial.choices) for trial in planned)
        for start in range(0, len(missing), width):
            some = tuple(missing[start : start + width])
            chunks.append(Chunk(family, some, width, num_choices))
    return chunks


def halve(chunks: Sequence[Chunk], num_devices: int) -> list[Chunk]:
    """Groups the trials of a family's chunks anew, at half the width.

    Args:
      chunks: of one family, wider than `num_devices`.
      num_devices: devices that share a chunk.

    Returns:
      Chunks of the same trials in the same order.
    """
    family, _, width, num_choices = chunks[0]
    width = num_devices * _ceil_div(width, 2 * num_devices)
    trials = [trial for chunk in chunks for trial in chunk.trials]
    return [
        Chunk(family, tuple(trials[start : start + width]), width, num_choices)
        for start in range(0, len(trials), width)
    ]


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
