"""List the trials of a grid, and group those without rows into chunks. Trains nothing.

A trial is named by a hash of all that its numbers depend on, so a sweep that was
stopped continues when it is planned again, and a larger one trains only what is new.
"""

import dataclasses
import hashlib
import itertools
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from camri_jax._files import UsageError, whole_number
from camri_jax.datasets import Dataset
from camri_jax.datasets.dataset import digest
from camri_jax.sweeps import grid as grids
from camri_jax.sweeps.choices import resolve
from camri_jax.training import trial as trial_numerics
from camri_jax.training.lift import Placement
from camri_jax.training.methods import (
    BASELINE,
    DEFAULT_METHODS,
    METHODS,
    Problem,
    Value,
    hyperparameters,
    points,
)
from camri_jax.training.recipe import Recipe, TrainConfig


@dataclass(frozen=True)
class SweepConfig:
    """A grid of trials.

    Attributes:
      important: Choices of important classes, by name or index: "cat dog" are two
        choices, "cat+dog" is one choice of two classes; worst1, worst2 and median are
        the classes of that recall in finished cross-entropy trials. Empty: the
        paper's classes, for its data sets.
      methods: Methods to train.
      grid: Values to sweep in place of each method's own: NAME=VALUES for all methods,
        METHOD.NAME=VALUES for one, METHOD.NAME@CHOICE=VALUES for one and a choice of
        important classes, METHOD.NAME@CLASS=VALUES for a class wherever it is one of
        several, METHOD.NAME@CHOICE@CLASS=VALUES for it in one choice; the most specific
        counts, as camri.margin=2pi/64,4pi/64. A name that is both is the choice.
      num_seeds: Trials of each setting, with seeds 0, 1, ...
      trials_per_device: Trials that a device trains at once; auto: the number that
        takes the least time a trial, which is measured first. A CPU takes networks on
        images one after another in any case.
      keep_logits: Keep each trial's logits, from which thresholds are moved; without
        the option they are kept up to 4 GB in all, and past that it must be said.
      save_models: Keep the weights of every trial.
      recipe: How trials are trained.
    """

    important: tuple[str, ...] = ()
    methods: tuple[str, ...] = DEFAULT_METHODS
    grid: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    num_seeds: int = 5
    trials_per_device: int | Literal["auto"] = "auto"
    keep_logits: bool | None = None
    save_models: bool = True
    recipe: Recipe = field(default_factory=Recipe.light)

    def __post_init__(self) -> None:
        # Python's callers write one alone, whose letters would be several.
        for name, one in (("important", str | int | np.integer), ("methods", str)):
            object.__setattr__(self, name, _several(name, getattr(self, name), one))
        if unknown := [name for name in self.methods if name not in METHODS]:
            raise UsageError(
                f"methods must be among {', '.join(METHODS)}, got "
                + ", ".join(map(repr, unknown))
            )
        number = whole_number("num_seeds", self.num_seeds, 1, 10**6)
        object.__setattr__(self, "num_seeds", number)
        if self.trials_per_device != "auto":
            number = whole_number("trials_per_device", self.trials_per_device, 1)
            object.__setattr__(self, "trials_per_device", number)
        if not isinstance(self.recipe, Recipe):
            raise UsageError(
                "recipe must be a Recipe, as Recipe.light(epochs=3), got "
                f"{self.recipe!r}"
            )
        if not isinstance(self.grid, Mapping):
            raise UsageError(
                "grid must be values by name, as {'margin': (0.2, 0.4)}, got "
                f"{self.grid!r}"
            )
        grid = {
            key: grids.checked_values(key, values) for key, values in self.grid.items()
        }
        object.__setattr__(self, "grid", grid)

    @classmethod
    def paper(cls, **changes: Any) -> "SweepConfig":
        """Returns the grid of the paper's section IV-A, with changes.

        >>> SweepConfig.paper(num_seeds=2).recipe.epochs
        300
        """
        # L2-softmax is ArcFace at margin 0, which its grid holds.
        own: dict[str, Any] = {
            "methods": tuple(name for name in DEFAULT_METHODS if name != "l2_softmax"),
            # Of all methods: rivals that are named are swept as widely.
            "grid": {
                f"{name}.{key}": values
                for name, method in METHODS.items()
                for key, values in method.paper_grid.items()
            },
            "num_seeds": 10,
            "save_models": False,
            "recipe": Recipe.paper(),
        }
        return cls(**(own | changes))


HEADS = 64
"""Heads on features that a device trains at once unless told otherwise: a trial takes
as long among 32 as among 512."""

LOGITS_LIMIT = 4 * 10**9
"""Bytes of logits that a sweep keeps without being told to."""


class Trial(NamedTuple):
    """One training: a method at one point of its grid, from one seed.

    Attributes:
      method: its name.
      point: value of each hyperparameter, by name; a tuple where important classes
        have values of their own, in their order.
      important: indices of the classes it is trained for; none where its method
        ignores them.
      seed: fixes initialization, shuffling, dropout and augmentation.
      trial_id: hash of all that its numbers depend on.
    """

    method: str
    point: dict[str, Value]
    important: tuple[int, ...]
    seed: int
    trial_id: str


class Chunk(NamedTuple):
    """Trials that one program trains at once.

    Attributes:
      config: what they share.
      trials: at most `width`.
      width: trials with the padding.
    """

    config: TrainConfig
    trials: tuple[Trial, ...]
    width: int

    @property
    def name(self) -> str:
        """Hash of its trials, the name of its files."""
        return _hash([trial.trial_id for trial in self.trials])

    @property
    def family(self) -> str:
        """What its methods have in common."""
        return METHODS[self.trials[0].method].family

    @property
    def methods(self) -> str:
        """What people call its methods."""
        return ", ".join(dict.fromkeys(METHODS[t.method].label for t in self.trials))


class Plan(NamedTuple):
    """What a sweep is going to do.

    Attributes:
      config: the sweep's.
      placement: how its trials are laid on devices.
      settings: what all its trials depend on, besides their own.
      choices: the choices of important classes, as indices.
      trials: all trials of the grid.
      chunks: those without rows, grouped.
      widths: of each program, the widest that a chunk may be.
    """

    config: SweepConfig
    placement: Placement
    settings: dict[str, Any]
    choices: tuple[tuple[int, ...], ...]
    trials: list[Trial]
    chunks: list[Chunk]
    widths: dict[TrainConfig, int]

    @property
    def num_missing(self) -> int:
        """Trials that are yet to be trained."""
        return sum(len(chunk.trials) for chunk in self.chunks)


def plan(
    config: SweepConfig,
    dataset: Dataset,
    placement: Placement,
    *,
    done: Collection[str] = (),
    backbone: Any = None,
) -> Plan:
    """Lists the grid's trials, and groups those that are not done into chunks.

    Args:
      config: the sweep.
      dataset: its images.
      placement: how trials are laid on devices.
      done: names of the trials with rows.
      backbone: a Flax module from images to features, in place of the recipe's.

    Returns:
      The `Plan`.

    Raises:
      UsageError: for an unknown class, one without images to judge it by, a batch
        larger than the training set, a shift as large as an image, a network for other
        data than these, or a hyperparameter outside its range.

    >>> from camri_jax import datasets
    >>> from camri_jax.training.lift import placement, trial_mesh
    >>> config = SweepConfig(methods=("camri",), num_seeds=2)
    >>> len(plan(config, datasets.load("digits"), placement(trial_mesh())).trials)
    4
    """
    if backbone is None:
        _check_network(config.recipe, dataset)
    _check_augmentation(config.recipe, dataset)
    placement = placement_of(config.recipe, placement, backbone)
    choices = resolve(config.important, dataset)
    settings = what_trials_share(config.recipe, dataset, backbone)
    grid = grids.resolved(config.grid, choices, dataset.class_names)
    trials = _trials(config, choices, grid, settings)
    problem = problem_of(dataset, config.recipe)
    alike = {(t.method, len(t.important), *t.point.values()): t for t in trials}
    for trial in alike.values():
        own = problem._replace(important=trial.important)
        hyperparameters(trial.method, own, trial.point)
    chunks, widths = _chunks(config, dataset, placement, backbone, trials, done)
    return Plan(config, placement, settings, choices, trials, chunks, widths)


def placement_of(
    recipe: Recipe, placement: Placement, backbone: Any = None
) -> Placement:
    """Returns how trials of a network are placed: heads together, in one order.

    Args:
      recipe: of the trials.
      placement: what the devices want of trials on images.
      backbone: a Flax module in place of the recipe's network.
    """
    if recipe.network != "features" or backbone is not None:
        return placement
    return placement._replace(vectorized=True, loop="scan", one_order=True)


def _check_network(recipe: Recipe, dataset: Dataset) -> None:
    """Refuses a network for images on features, and the other way round."""
    shape = dataset.parts["train"].images.shape[1:]
    if len(shape) == 1 and recipe.network != "features":
        raise UsageError(
            f"network must be features for {dataset.name}, which holds {shape[0]:,} "
            "features an example and no images: --preset heads, or Recipe.heads(); "
            f"got {recipe.network}"
        )
    if len(shape) != 1 and recipe.network == "features":
        raise UsageError(
            f"network must be one for images, as {dataset.name} holds images of "
            f"{'x'.join(map(str, shape))}, got features, which are floats [n, d]"
        )


def _check_augmentation(recipe: Recipe, dataset: Dataset) -> None:
    """Refuses what leaves nothing of an image, or cannot be done to features."""
    if dataset.parts["train"].images.ndim == 2:
        for name, plain in (("augment_shift", 0), ("augment_flip", "none")):
            if (value := getattr(recipe, name)) != plain:
                raise UsageError(
                    f"{name} must be {plain} for features, of which {dataset.name} "
                    f"consists, got {value}"
                )
        return
    sides = dataset.parts["train"].images.shape[1:3]
    if recipe.augment_shift >= min(sides):
        raise UsageError(
            f"augment_shift must be below {min(sides)}, the pixels of a side of "
            f"{dataset.name}, got {recipe.augment_shift}"
        )


def what_trials_share(
    recipe: Recipe, dataset: Dataset, backbone: Any = None
) -> dict[str, Any]:
    """Returns what all trials of a sweep depend on, as JSON-able facts.

    Args:
      recipe: how they are trained.
      dataset: what they are trained on.
      backbone: a Flax module in place of the recipe's network.
    """
    config = TrainConfig.of(
        METHODS[BASELINE],
        num_classes=len(dataset.class_names),
        num_images=len(dataset.parts["train"].labels),
        recipe=recipe,
        backbone=backbone,
    )
    # Trials from before there were these settings keep their names.
    later = ("resample", "clip_norm")
    own = dataclasses.asdict(recipe)
    own = {name: own[name] for name in own if own[name] or name not in later}
    return {
        "numerics": trial_numerics.NUMERICS,
        "fingerprint": dataset.fingerprint,
        "image_shape": list(dataset.parts["train"].images.shape[1:]),
        **own,
        "network": _fields(config.network.backbone, recipe.network)
        if backbone is None
        else _program(backbone, dataset),
    }


def halve(chunks: Sequence[Chunk], num_devices: int) -> list[Chunk]:
    """Groups the trials of chunks of one program anew, at half the width.

    Args:
      chunks: of one config, wider than `num_devices`.
      num_devices: devices that share a chunk.

    Returns:
      Chunks of the same trials in the same order.
    """
    half = num_devices * -(-chunks[0].width // (2 * num_devices))
    # Each for itself, as the trials of a chunk may have to be of one seed.
    halves = [
        grouped(chunk.config, chunk.trials, min(half, chunk.width)) for chunk in chunks
    ]
    return list(itertools.chain(*halves))


def regrouped(chunks: Sequence[Chunk], width: int) -> list[Chunk]:
    """Groups the trials of chunks anew, those of each program together.

    Args:
      chunks: of a plan.
      width: of the new chunks.
    """
    found = []
    for config in dict.fromkeys(chunk.config for chunk in chunks):
        alike = [chunk for chunk in chunks if chunk.config == config]
        trials = [trial for chunk in alike for trial in chunk.trials]
        found += grouped(config, trials, width)
    return sorted(found, key=lambda chunk: chunk.trials[0].seed)


def stack(chunk: Chunk, problem: Problem) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Stacks a chunk's trials, padded to its width with the last of them.

    Args:
      chunk: of a plan.
      problem: what is trained on, without important classes.

    Returns:
      Seeds `[trial]` and hyperparameters with a leading trial axis.
    """
    trials = chunk.trials + chunk.trials[-1:] * (chunk.width - len(chunk.trials))
    arrays = [
        hyperparameters(t.method, problem._replace(important=t.important), t.point)
        for t in trials
    ]
    seeds = np.array([trial.seed for trial in trials], np.int32)
    return seeds, {name: np.stack([a[name] for a in arrays]) for name in arrays[0]}


def problem_of(dataset: Dataset, recipe: Recipe) -> Problem:
    """Returns what trials on a data set depend on, without important classes."""
    counts = dataset.counts("train")
    if recipe.resample:
        counts = counts * (recipe.resample / counts.sum())
    return Problem(len(counts), (), tuple(counts.tolist()))


def _fields(backbone: Any, name: str) -> dict[str, str]:
    """What a module computes; not what it is called, nor the form it computes in."""
    skipped = ("parent", "name", "convolution", "dtype")
    own = [f.name for f in dataclasses.fields(backbone) if f.name not in skipped]
    texts = {field: repr(getattr(backbone, field)) for field in own}
    return {"name": name, "class": type(backbone).__name__} | texts


def _program(backbone: Any, dataset: Dataset) -> dict[str, str]:
    """What a user's module computes: neither its class nor its fields tell all of it.

    Another version of JAX may write the same program otherwise: then it trains anew.
    """

    def computed(images: jax.Array) -> Any:
        keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
        return backbone.init_with_output(keys, images, train=True)

    images = dataset.parts["train"].images
    some = jax.ShapeDtypeStruct((2, *images.shape[1:]), images.dtype)
    closed = jax.make_jaxpr(computed)(some)
    # The address of a function is another in every process.
    text = re.sub(r"0x[0-9a-f]+", "", str(closed))
    constants = [digest(np.asarray(each)) for each in closed.consts]
    return {"class": type(backbone).__name__, "program": digest(text, *constants)}


def _trials(
    config: SweepConfig,
    choices: Sequence[tuple[int, ...]],
    grid: grids.Grid,
    settings: Mapping[str, Any],
) -> list[Trial]:
    trials = []
    for seed, name in itertools.product(range(config.num_seeds), config.methods):
        for important in choices if METHODS[name].class_sensitive else [()]:
            for point in points(grids.values_of(grid, name, important)):
                trial_id = _hash([settings, name, point, important, seed])
                trials.append(Trial(name, point, important, seed, trial_id))
    return list({trial.trial_id: trial for trial in trials}.values())


def _several(name: str, given: Any, one: Any) -> tuple[Any, ...]:
    """Returns what was given, a single one as one of several."""
    if isinstance(given, one):
        return (given,)
    if not isinstance(given, Iterable):
        raise UsageError(f"{name} must be one name or several, got {given!r}")
    return tuple(given)


def _chunks(
    config: SweepConfig,
    dataset: Dataset,
    placement: Placement,
    backbone: Any,
    trials: Sequence[Trial],
    done: Collection[str],
) -> tuple[list[Chunk], dict[TrainConfig, int]]:
    num_devices = placement.mesh.size
    # "auto" is measured on a plan, of one trial a device. What takes trials one after
    # another would loop over them in its program, where a CPU convolves slowly.
    wanted = config.trials_per_device
    if not placement.vectorized:
        wanted = 1
    elif wanted == "auto":
        wanted = HEADS if placement.one_order else 1
    chunks: list[Chunk] = []
    widths: dict[TrainConfig, int] = {}
    configs = {
        name: TrainConfig.of(
            METHODS[name],
            num_classes=len(dataset.class_names),
            num_images=len(dataset.parts["train"].labels),
            recipe=config.recipe,
            backbone=backbone,
            convolution=placement.convolution,
        )
        for name in dict.fromkeys(t.method for t in trials)
    }
    for shared in dict.fromkeys(configs.values()):
        alike = {name for name, own in configs.items() if own == shared}
        planned = [t for t in trials if t.method in alike]
        # Of one seed, or of all, and as many of each.
        groups = [planned]
        if placement.one_order:
            seeds = range(config.num_seeds)
            groups = [[t for t in planned if t.seed == seed] for seed in seeds]
        width = num_devices * wanted
        if placement.vectorized:
            num_chunks = -(-len(groups[0]) // width)
            width = num_devices * -(-len(groups[0]) // (num_chunks * num_devices))
        widths[shared] = width
        for group in groups:
            missing = [trial for trial in group if trial.trial_id not in done]
            chunks += spread(shared, missing, width, num_devices)
    # By seed, so that what exists at any moment can be compared.
    return sorted(chunks, key=lambda chunk: chunk.trials[0].seed), widths


def spread(
    config: TrainConfig, trials: Sequence[Trial], widest: int, num_devices: int
) -> list[Chunk]:
    """Returns trials in as few chunks as a width allows, evenly, with few copies.

    When some of the chunks are done, what is left is grouped as it was, so that other
    processes and later starts know its claims and checkpoints.

    Args:
      config: what they share.
      trials: in their order.
      widest: the most that a chunk holds, a multiple of the devices.
      num_devices: devices that share a chunk.
    """
    if not trials:
        return []
    count = -(-len(trials) // widest)
    width = num_devices * -(-len(trials) // (count * num_devices))
    if width + num_devices >= widest:
        # A trial's last digits depend on the width, and another has to be compiled: a
        # place a device, as a chunk may have less than others, is not worth that.
        width = widest
    size, more = divmod(len(trials), count)
    left = iter(trials)
    sizes = [size + (i < more) for i in range(count)]
    return [Chunk(config, tuple(itertools.islice(left, n)), width) for n in sizes]


def grouped(config: TrainConfig, trials: Sequence[Trial], width: int) -> list[Chunk]:
    """Returns trials in chunks of a width; the last may hold fewer."""
    return [
        Chunk(config, tuple(trials[start : start + width]), width)
        for start in range(0, len(trials), width)
    ]


def logits_bytes(plan: Plan, dataset: Dataset) -> int:
    """Returns the size of the logits of all of a plan's trials, before packing."""
    images = sum(len(dataset.parts[p].labels) for p in SCORED)
    return 4 * len(plan.trials) * images * len(dataset.class_names)


SCORED = ("validation", "calibration", "test")
"""Parts of the data whose logits are a trial's result."""


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
