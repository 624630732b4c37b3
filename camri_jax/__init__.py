"""Raise the recall of the class that must not be missed; know how sure, at what price.

Names are loaded when they are first used: `import camri_jax` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what `__getattr__` finds, for editors and type checkers
    from camri_jax import datasets, guarantee, losses, metrics, penalties, sinkhorn
    from camri_jax.sweeps.plan import SweepConfig
    from camri_jax.takehome import load_model, sweep, tune
    from camri_jax.training.recipe import Recipe

__version__ = "0.2.0"

_NAMES = {
    "Recipe": "training.recipe",
    "SweepConfig": "sweeps.plan",
    "load_model": "takehome",
    "sweep": "takehome",
    "tune": "takehome",
}

__all__ = [
    "Recipe",
    "SweepConfig",
    "__version__",
    "datasets",
    "guarantee",
    "load_model",
    "losses",
    "metrics",
    "penalties",
    "sinkhorn",
    "sweep",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        try:
            module = importlib.import_module(f"camri_jax.{_NAMES[name]}")
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("camri_jax"):
                raise
            raise ModuleNotFoundError(
                f"camri_jax.{name} needs {error.name}: "
                "pip install 'camri-jax[experiments]'",
                name=error.name,
            ) from error
        return getattr(module, name)
    if name in __all__:
        return importlib.import_module(f"camri_jax.{name}")
    raise AttributeError(f"module 'camri_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
