"""Results of trials that nobody trained, consistent as real ones are.

Each trial has logits: noise that the seed's methods share, noise of its own, and a
signal on the true class. Confusions and histories are counted from them.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from camri_jax.datasets.dataset import Dataset, Part
from camri_jax.evidence import study
from camri_jax.sweeps import rows as stored
from camri_jax.training.methods import METHODS

CLASSES = ("ant", "bee", "cat", "dog")
SETTINGS = {"fingerprint": "made-up", "epochs": 3, "validation_fraction": 0.2}


class Spec(NamedTuple):
    """A method's setting; `push` moves its threshold, `skill` makes it better."""

    method: str
    point: dict[str, float] = {}  # noqa: RUF012
    push: float = 0.0
    skill: float = 0.0


MARGIN = np.pi / 16
CROSS_ENTROPY = Spec("cross_entropy")
SPECS = (
    CROSS_ENTROPY,
    Spec("weighted_cross_entropy", {"weight": 4.0}, push=0.6),
    Spec("l2_softmax", {"scale": 16.0}, skill=0.1),
    Spec("arcface", {"margin": MARGIN, "scale": 16.0}, skill=0.2),
    Spec("camri", {"margin": MARGIN, "scale": 16.0}, push=0.3, skill=0.2),
    Spec("camri", {"margin": 2 * MARGIN, "scale": 16.0}, push=2.0),
)


def labels(size: int, num_classes: int = len(CLASSES)) -> np.ndarray:
    """`size` examples a class, in turn."""
    return np.tile(np.arange(num_classes, dtype=np.int32), size)


def logits(
    spec: Spec, seed: int, important, part: str, truth: np.ndarray
) -> np.ndarray:
    """What the trial says of a part, `[n, class]`."""
    shape = (len(truth), len(CLASSES))
    shared = np.random.default_rng([seed, len(part)])
    own = np.random.default_rng([seed, len(part), *spec.method.encode()])
    noise = 0.95 * shared.normal(size=shape) + 0.3 * own.normal(size=shape)
    found = noise + (2.0 + spec.skill) * np.eye(len(CLASSES))[truth]
    found[:, list(important)] += spec.push
    return found.astype(np.float32)


def confusion(values: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Counts `[true, predicted]`, by a plain loop."""
    counts = np.zeros((values.shape[1],) * 2, np.int32)
    for true, predicted in zip(truth, values.argmax(1), strict=True):
        counts[true, predicted] += 1
    return counts


def row(
    spec: Spec,
    seed: int,
    important=(1,),
    values=None,
    truths=None,
    **changes: Any,
) -> dict[str, Any]:
    """One row; confusions are of `values`, the logits by part."""
    important = important if METHODS[spec.method].class_sensitive else ()
    name = trial_id(spec, seed, important)
    confusions = {
        f"{part}_confusion": confusion(value, truths[part]) if len(value) else None
        for part, value in (values or {}).items()
        if part != "calibration"
    }
    own = np.random.default_rng([seed, *spec.method.encode()])
    return {
        "trial_id": name,
        "dataset": "digits",
        "fingerprint": "made-up",
        "method": spec.method,
        "important": important,
        **spec.point,
        "seed": seed,
        "diverged": False,
        "loss": 0.5,
        **confusions,
        "angle_mean": own.uniform(0.4, 0.6, len(CLASSES)),
        "angle_std": own.uniform(0.1, 0.2, len(CLASSES)),
        "history_epoch": [1, 2, 3],
        "history_loss": np.linspace(1, 0.5, 3),
        "history_accuracy": np.linspace(0.5, 0.8, 3),
        "history_recall": np.linspace(0.4, 0.9, 3 * len(CLASSES)),
        "settings": json.dumps(SETTINGS),
        "provenance": json.dumps(
            {"time": "2026-01-01T00:00:00+00:00", "command": "python sweep.py"}
        ),
        **changes,
    }


def trial_id(spec: Spec, seed: int, important=()) -> str:
    point = "".join(f" {k}={v:.3f}" for k, v in sorted(spec.point.items()))
    return f"{spec.method}{point} {list(important)} {seed}"


def write(
    directory: Path,
    specs=SPECS,
    *,
    num_seeds: int = 4,
    important=((1,),),
    validation: bool = True,
    size: int = 80,
    keep_logits: bool = True,
    truths: dict[str, np.ndarray] | None = None,
    make=logits,
    change=lambda row: row,
    chunk: str = "a",
) -> Path:
    """Writes a directory as a sweep does, and returns it.

    Args:
      directory: to write to.
      specs: settings.
      num_seeds: of each.
      important: choices that class-sensitive methods are trained for.
      validation: whether there are validation images.
      size: examples a class in each part.
      keep_logits: whether trials keep theirs.
      truths: labels by part, in place of `size` a class.
      make: `(spec, seed, important, part, labels)` to logits.
      change: a row to the row that is written, or to None.
      chunk: name of the files.
    """
    truths = {part: labels(size) for part in ("validation", "test")} | (truths or {})
    if not validation:
        truths["validation"] = labels(0)
    every = {"train": labels(0), "validation": labels(0), "calibration": labels(0)}
    parts = {
        part: Part(np.zeros((len(y), 1, 1, 1), np.uint8), y, None)
        for part, y in (every | truths).items()
    }
    lines, kept = [], {}
    for spec in specs:
        sensitive = METHODS[spec.method].class_sensitive
        for chosen in important if sensitive else ((),):
            for seed in range(num_seeds):
                values = {
                    part: make(spec, seed, chosen, part, y)
                    for part, y in truths.items()
                }
                line = change(row(spec, seed, chosen, values, truths))
                if line is None:
                    continue
                lines.append(line)
                if not line["diverged"]:
                    kept[line["trial_id"]] = {p: v for p, v in values.items() if len(v)}
    fingerprint = lines[0]["fingerprint"]
    dataset = lines[0]["dataset"]
    stored.write_data(directory, Dataset(dataset, CLASSES, parts, fingerprint, False))
    if keep_logits and kept:
        stored.write_logits(directory, chunk, kept)
    stored.write(directory, chunk, lines)
    return directory


def load(directory: Path, specs=SPECS, *, asked=None, **options: Any) -> study.Study:
    """Writes a directory and loads its study."""
    return study.load(write(directory, specs, **options), important=asked)
