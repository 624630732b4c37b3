"""Every example runs, in few lines, and finds the class that must not be missed."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = sorted(Path(__file__).parents[1].joinpath("examples").glob("*.py"))
# Of a network that is no dependency; and of eight devices, in a process of its own.
APART = ("features_of_images", "sharded_classes")

pytestmark = pytest.mark.usefixtures("promotion_as_optax_needs_it")


def loaded(path):
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_is_short(path):
    assert len(path.read_text().splitlines()) <= 60


@pytest.mark.parametrize(
    "path",
    [
        # Trains a sweep.
        pytest.param(p, marks=pytest.mark.slow if p.stem == "own_network" else ())
        for p in EXAMPLES
        if p.stem not in APART
    ],
    ids=lambda path: path.stem,
)
def test_it_finds_the_important_class(path, tmp_path):
    if path.stem.startswith("equinox"):
        pytest.importorskip("equinox")
    arguments = (str(tmp_path),) if path.stem == "own_network" else ()
    assert loaded(path).main(*arguments) > 0.85


def test_a_promised_head_takes_a_file_of_embeddings(tmp_path, capsys):
    rng = np.random.default_rng(0)
    arrays = {"class_names": np.array(["bird", "cat", "dog"])}
    for part, size in {"train": 600, "test": 300}.items():
        labels = rng.integers(0, 3, size)
        arrays[f"{part}_labels"] = labels
        noise = rng.normal(size=(size, 8))
        arrays[f"{part}_features"] = (3 * np.eye(3, 8)[labels] + noise).astype("f4")
    arrays["train_groups"] = np.arange(600) // 2
    np.savez(tmp_path / "features.npz", **arrays)
    (path,) = (p for p in EXAMPLES if p.stem == "promised_head")
    assert loaded(path).main(str(tmp_path / "features.npz"), "cat", "0.9") > 0.85
    said = capsys.readouterr().out
    assert "0.9, the mean of new groups, is certified" in said


SHARDED = r"""
import re, jax, numpy as np, sharded_classes as example

mesh = jax.make_mesh((8,), ("class",))
moved = [
    (kind, sum(int(np.prod([int(n) for n in size.split(",") if n])) for size in sizes))
    for line in example.program(mesh).as_text().splitlines()
    for shape, kind in re.findall(
        r"= (.*?) (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)"
        r"(?:-start)?\(", line
    )
    for sizes in [re.findall(r"\[([\d,]*)\]", shape)]
]
assert moved and max(size for _, size in moved) <= 4 * example.BATCH, moved
# Compiled for a million, run with fewer.
example.CLASSES, example.IMPORTANT = 40_000, 12_345
w = np.asarray(jax.random.normal(jax.random.key(0), (32, 40_000)), np.float64)
z = np.asarray(jax.random.normal(jax.random.key(1), (8, 32)), np.float64)
labels, losses = [12_345, *range(1, 8)], []
z /= np.linalg.norm(z, axis=1, keepdims=True)
for x, label in zip(z, labels):
    cosines = x @ w / np.linalg.norm(w, axis=0)
    margin = 0.2 if label == 12_345 else 0.0
    cosines[label] = np.cos(np.arccos(cosines[label]) + margin)
    logits = 64.0 * cosines
    top = logits.max()
    losses.append(top + np.log(np.exp(logits - top).sum()) - logits[label])
np.testing.assert_allclose(example.main(), np.mean(losses), rtol=1e-4)
"""


def test_a_million_cosines_are_never_gathered():
    done = subprocess.run(
        [sys.executable, "-c", SHARDED],
        cwd=EXAMPLES[0].parent,
        env={**os.environ, "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "on 8 devices" in done.stdout
