"""Rows of trials that nobody trained, consistent as real ones are.

Each trial has logits: noise that the seed's methods share, noise of its own, and a
signal on the true class. Confusions, curves and histories are counted from them.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from camri_jax.sweeps import rows as results

CLASSES = ("ant", "bee", "cat", "dog")
CONSTANTS = np.float32([-64, -4, -2, -1, -0.5, 0, 0.5, 1, 2, 4, 64])
SETTINGS = {"dataset": "digits", "epochs": 3, "validation_fraction": 0.2}
EXPERIMENTS = Path(__file__).parents[1] / "experiments"


class Spec(NamedTuple):
    """A method's setting; `push` moves its threshold, `skill` makes it better."""

    method: str
    point: dict[str, float] = {}  # noqa: RUF012
    push: float = 0.0
    skill: float = 0.0


MARGIN = np.pi / 16
SPECS = (
    Spec("cross_entropy"),
    Spec("weighted_cross_entropy", {"weight": 4.0}, push=0.6),
    Spec("l2_softmax", {"scale": 16.0}, skill=0.1),
    Spec("arcface", {"margin": MARGIN, "scale": 16.0}, skill=0.2),
    Spec("camri", {"margin": MARGIN, "scale": 16.0}, push=0.3, skill=0.2),
    Spec("camri", {"margin": 2 * MARGIN, "scale": 16.0}, push=2.0),
)


def rows(
    specs=SPECS, *, num_seeds=4, important=((1,),), validation=True, size=80, **changes
):
    """Rows for `results.write`, one a setting, seed and choice of important classes."""
    return [
        row(spec, seed, chosen, validation=validation, size=size, **changes)
        for spec in specs
        for seed in range(num_seeds)
        for chosen in important
    ]


def row(spec, seed, important=(1,), *, validation=True, size=80, **changes):
    """One row; `size` examples a class in each part."""
    name = f"{spec.method}{sorted(spec.point.items())}{seed}"
    parts = {}
    for part in ("test", "validation"):
        curve = confusions(spec, seed, important, part, size)
        parts[f"{part}_curve"] = curve.ravel()
        parts[f"{part}_confusion"] = curve[CONSTANTS == 0].ravel()
    if not validation:
        parts |= {"validation_curve": None, "validation_confusion": None}
    own = np.random.default_rng([seed, *name.encode()])
    return {
        "trial_id": name,
        "dataset": "digits",
        "class_names": CLASSES,
        "method": spec.method,
        "important": important,
        **spec.point,
        "seed": seed,
        "diverged": False,
        "loss": 0.5,
        "constants": CONSTANTS,
        **parts,
        "angle_mean": own.uniform(0.4, 0.6, len(CLASSES)),
        "angle_std": own.uniform(0.1, 0.2, len(CLASSES)),
        "history_epoch": [1, 2, 3],
        "history_loss": np.linspace(1, 0.5, 3),
        "history_accuracy": np.linspace(0.5, 0.8, 3),
        "history_recall": np.linspace(0.4, 0.9, 3 * len(CLASSES)),
        "settings": json.dumps(SETTINGS),
        "provenance": json.dumps({"time": "2026-01-01", "command": "python sweep.py"}),
        **changes,
    }


def confusions(spec, seed, important, part, size):
    """Confusion matrices `[constant, true, predicted]`, counted by a plain loop."""
    k = len(CLASSES)
    labels = np.repeat(np.arange(k), size)
    shared = np.random.default_rng([seed, len(part)])
    own = np.random.default_rng([seed, len(part), *spec.method.encode()])
    noise = 0.95 * shared.normal(size=(k * size, k))
    noise += 0.3 * own.normal(size=noise.shape)
    logits = noise + (2.0 + spec.skill) * np.eye(k)[labels]
    logits[:, list(important)] += spec.push
    counts = np.zeros((len(CONSTANTS), k, k), np.int32)
    for i, constant in enumerate(CONSTANTS):
        moved = logits.copy()
        moved[:, list(important)] += constant
        np.add.at(counts[i], (labels, moved.argmax(1)), 1)
    return counts


def write(directory, specs=SPECS, **options):
    """Writes rows below a directory as a sweep does, and returns the directory."""
    results.write(rows(specs, **options), directory / "rows" / "a.parquet")
    return directory


def script(name):
    """Imports experiments/NAME.py."""
    if str(EXPERIMENTS) not in sys.path:
        sys.path.insert(0, str(EXPERIMENTS))
    return importlib.import_module(name)
