"""What the scripts do alike: load a data set, and say what is odd about it."""

import warnings
from typing import Any

from rich.console import Console

from camri_jax import datasets
from camri_jax.datasets import Dataset, DatasetWarning


def load(console: Console, name: str, **options: Any) -> Dataset:
    """Loads a data set and prints its loader's warnings as notes.

    Args:
      console: where to.
      name: as `camri_jax.datasets.load` takes it, as the options.
      **options: see `name`.

    Returns:
      The data set.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DatasetWarning)
        dataset = datasets.load(name, **options)
    for warning in caught:
        note = f"note: {warning.message}"
        console.print(note, style="yellow", markup=False, highlight=False)
    return dataset


def folder_name(dataset: str) -> str:
    """Returns a data set's name as a folder's: results of it go there."""
    return dataset.replace(":", "_").replace("/", "_").replace("\\", "_")
