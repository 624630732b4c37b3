"""What is taken home: a trained model with the rule that picks its answers."""

from camri_jax.takehome.model import Model, load_model, save_model
from camri_jax.takehome.sweeping import (
    Best,
    Result,
    make_plan,
    results_of,
    sweep,
    train,
)

__all__ = [
    "Best",
    "Model",
    "Result",
    "load_model",
    "make_plan",
    "results_of",
    "save_model",
    "sweep",
    "train",
]
