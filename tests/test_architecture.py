"""Imports go one way, the losses stay light, and the examples in docstrings run."""

import ast
import doctest
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest

import camri_jax

PACKAGE = Path(camri_jax.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
# A room imports only from rooms before it; `|` stands between rooms that do not know
# each other.
ORDER = (
    "_files | _machine < _arrays < sinkhorn | penalties | metrics | guarantee < "
    "losses < datasets | training < sweeps | doctor < evidence < takehome < heads < cli"
)
FLOORS = [floor.split(" | ") for floor in ORDER.split(" < ")]
FLOOR = {room: i for i, floor in enumerate(FLOORS) for room in floor}
# The only places that know these.
OWNERS = {
    "flax": "training/network",
    "optax": "training/trial training/optimizer",
    "pandas": "sweeps evidence takehome cli",
    "pyarrow": "sweeps evidence",
    "matplotlib": "evidence/figures evidence/report",
    "scipy": "guarantee evidence takehome heads cli",
    "sklearn": "datasets heads",
    "tensorflow_datasets": "datasets",
    "jinja2": "evidence/report",
    "tyro": "cli",
    "rich": "cli",
}
MODULES = [
    module.name
    for module in pkgutil.walk_packages([str(PACKAGE)], "camri_jax.")
    if not module.name.endswith("dataset_builder")
]


def imported(source):
    """Every module that a source names in an import, wherever it stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def forbidden(place, source):
    """The imports that a file, named by its place in the package, must not have."""
    for module in imported(source):
        top, *rest = module.split(".")
        if top == "camri_jax" and rest and rest[0] in FLOOR:
            if not may_import(place, rest):
                yield module
        elif not any(
            place == owner or place.startswith(owner + "/")
            for owner in OWNERS.get(top, place).split()
        ):
            yield module


def may_import(place, target):
    """Whether what lies at `target` is to the left, or in the same package."""
    room, package = place.split("/")[0], place.rpartition("/")[0]
    private = any(part.startswith("_") for part in target[1:])
    if private and not "/".join(target).startswith(package or place):
        return False
    return target[0] == room or FLOOR[target[0]] < FLOOR[room]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    place = str(path.relative_to(PACKAGE).with_suffix("")).removesuffix("/__init__")
    if place == "__init__":
        return
    assert place.split("/")[0] in FLOOR, f"{place} is in no room"
    assert list(forbidden(place, path.read_text())) == []


@pytest.mark.parametrize(
    ("place", "source"),
    [
        ("losses/_softmax", "from camri_jax import training"),
        ("training/trial", "from camri_jax.losses._softmax import excess"),
        ("metrics", "def f():\n    import camri_jax.losses"),
        ("datasets/folder", "from camri_jax.training import recipe"),
        ("training/trial", "from flax import linen"),
        ("sweeps/chunk", "import tyro"),
    ],
)
def test_a_wrong_import_is_found(place, source):
    assert list(forbidden(place, source)) != []


@pytest.mark.parametrize("module", ["losses", "sinkhorn", "penalties", "metrics"])
def test_import_is_light(module):
    heavy = {"tensorflow_datasets", "matplotlib", "pandas", "flax", "optax", "sklearn"}
    script = f"import camri_jax.{module}, sys; print(*sys.modules)"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    assert f"camri_jax.{module}" in modules
    assert modules.isdisjoint(heavy)


def test_a_promise_needs_no_jax():
    script = "import camri_jax.guarantee, sys; print(*sys.modules)"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert {"jax", "pandas"}.isdisjoint(done.stdout.split())


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name):
    results = doctest.testmod(
        importlib.import_module(name),
        extraglobs={"jnp": jnp},
        optionflags=doctest.NORMALIZE_WHITESPACE,
    )
    assert results.failed == 0
