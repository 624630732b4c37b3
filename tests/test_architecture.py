"""Imports go one way, the losses stay light, and the examples in docstrings run."""

import ast
import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest

import camri_jax

PACKAGE = Path(camri_jax.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# What each room may import of the others, and what of it is private to one of them.
ROOMS = {
    "losses": {"sinkhorn"},
    "sinkhorn": set(),
    "penalties": set(),
    "metrics": set(),
    "methods": {"losses", "penalties", "models"},
    "models": set(),
    "augment": set(),
    "datasets": set(),
    "config": {"methods", "models"},
    "train": {"augment", "config", "methods", "metrics", "models"},
    "classifier": {"config", "methods", "models", "train"},
    "parallel": set(),
    "planning": {"config", "datasets", "methods"},
    "programs": {
        "config",
        "datasets",
        "methods",
        "parallel",
        "planning",
        "train",
    },
    "results": set(),
    "sweep": {
        "classifier",
        "datasets",
        "metrics",
        "parallel",
        "planning",
        "programs",
        "results",
        "train",
    },
    "curves": {"metrics"},
    "analysis": {"curves", "methods", "metrics", "results"},
    "statistics": set(),
    "verdicts": {"curves", "statistics"},
    "figures": {"analysis", "curves", "statistics", "verdicts"},
    "geometry": {"analysis", "figures", "losses", "methods", "metrics"},
    "report": {"analysis", "curves", "statistics"},
}
PRIVATE = {
    "_angles": "metrics",
    "_angular": "losses",
    "_circles": "geometry",
    "_confusions": "figures",
    "_lines": "figures",
    "_looks": "figures",
    "_sinkhorn": "sinkhorn",
    "_softmax": "losses",
    "_tradeoff": "figures",
    "_wasserstein": "losses",
    "_words": "report",
}
# Free for all: they know nothing of the rooms.
TOOLS = {"_check": set(), "_files": set(), "_vectors": {"_check"}}
# The only rooms that know these.
OWNERS = {
    "flax": {"models"},
    "itables": {"report"},
    "jinja2": {"report"},
    "matplotlib": {"figures", "geometry", "report"},
    "optax": {"train"},
    "pandas": {
        "analysis",
        "curves",
        "figures",
        "geometry",
        "report",
        "results",
        "verdicts",
    },
    "pyarrow": {"results"},
    "scipy": {"statistics"},
    "sklearn": {"datasets"},
    "statsmodels": {"statistics"},
    "tensorflow_datasets": {"datasets"},
    "tyro": set(),
}
DOCUMENTED = [
    "_angles",
    "_angular",
    "_looks",
    "_vectors",
    "_wasserstein",
    "analysis",
    "curves",
    "geometry",
    "losses",
    "methods",
    "metrics",
    "models",
    "parallel",
    "penalties",
    "planning",
    "sinkhorn",
    "statistics",
    "train",
    "verdicts",
]


def room_of(path):
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return PRIVATE.get(first, first)


def imported_modules(source):
    """Every module that a source names in an import, wherever it stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def forbidden_imports(room, source):
    """The imports of a room's source that the tables above do not allow."""
    for module in imported_modules(source):
        top, *rest = module.split(".")
        if top == "camri_jax":
            target = PRIVATE.get(rest[0], rest[0])
            if target not in {room, *TOOLS, *ROOMS[room]}:
                yield module
        elif room not in OWNERS.get(top, {room}):
            yield module


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_the_permitted_way(path):
    room, source = room_of(path), path.read_text()
    if room in {"__init__", *TOOLS}:
        ours = [module for module in imported_modules(source) if "camri_jax" in module]
        allowed = {f"camri_jax.{tool}" for tool in TOOLS.get(room, ())}
        assert set(ours) <= allowed
        return
    assert room in ROOMS, f"{path.name} is in no room: say what it may import"
    assert list(forbidden_imports(room, source)) == []


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("losses", "from camri_jax import metrics"),
        ("losses", "from camri_jax._angles import true_angles"),
        ("metrics", "def f():\n    import camri_jax.losses.camri"),
        ("train", "from flax import linen"),
        ("sweep", "import tyro"),
    ],
)
def test_a_wrong_import_is_found(room, source):
    assert list(forbidden_imports(room, source)) != []


def test_rooms_have_no_cycle():
    done = set()
    while len(done) < len(ROOMS):
        ready = {room for room in ROOMS.keys() - done if ROOMS[room] <= done}
        assert ready, f"cycle among {ROOMS.keys() - done}"
        done |= ready


@pytest.mark.parametrize("module", ["losses", "sinkhorn", "penalties", "metrics"])
def test_import_is_light(module):
    heavy = [
        "tensorflow_datasets",
        "matplotlib",
        "pandas",
        "flax",
        "optax",
        "sklearn",
        "chex",
    ]
    script = f"import camri_jax.{module}, sys; print(*sys.modules)"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    assert f"camri_jax.{module}" in modules
    assert modules.isdisjoint(heavy)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_examples_in_docstrings_run(name):
    module = importlib.import_module(f"camri_jax.{name}")
    results = doctest.testmod(
        module, extraglobs={"jnp": jnp}, optionflags=doctest.NORMALIZE_WHITESPACE
    )
    assert results.attempted > 0
    assert results.failed == 0
