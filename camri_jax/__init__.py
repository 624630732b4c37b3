"""Raise the recall of the class that must not be missed; know how sure, at what price.

Names are loaded when they are first used: `import camri_jax` costs nothing.
"""

import importlib
from typing import Any

__version__ = "0.2.0"

_ROOMS = ("datasets", "guarantee", "losses", "metrics", "penalties", "sinkhorn")
_NAMES = {
    "Recipe": "training.recipe",
    "SweepConfig": "sweeps.plan",
    "load_model": "takehome",
    "sweep": "takehome",
}

__all__ = ["__version__", *_ROOMS, *_NAMES]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"camri_jax.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(f"camri_jax.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'camri_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
