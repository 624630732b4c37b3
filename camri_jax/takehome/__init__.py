"""What is taken home: a trained model with the rule that picks its answers."""

from camri_jax.takehome.model import Model, load_model, save_model
from camri_jax.takehome.promise import check, recalibrate, verify
from camri_jax.takehome.sweeping import (
    AllDiverged,
    Best,
    Result,
    make_plan,
    results_of,
    sweep,
)
from camri_jax.takehome.tuning import TuneConfig, TuneResult, tune

__all__ = [
    "AllDiverged",
    "Best",
    "Model",
    "Result",
    "TuneConfig",
    "TuneResult",
    "check",
    "load_model",
    "make_plan",
    "recalibrate",
    "results_of",
    "save_model",
    "sweep",
    "tune",
    "verify",
]
