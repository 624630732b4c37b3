"""Which classes are important: choices of them, by name, index or rank."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from camri_jax._files import UsageError
from camri_jax.datasets import Dataset, class_indices
from camri_jax.datasets.dataset import some

IMPORTANT = {
    "digits": ("8",),
    "mnist": ("3",),
    "cifar10": ("cat", "dog", "airplane"),
    "gtsrb": ("6", "41", "5"),
    "awa2": ("mouse", "beaver", "moose"),
}
"""Important classes where the user names none: the paper's, and for digits ours."""

RANKS = ("worst1", "worst2", "median")
"""Important classes by their recall under cross-entropy, as the paper picks them."""


def ranks(recall: np.ndarray) -> dict[str, int]:
    """Returns the classes of `RANKS`.

    Args:
      recall: `[num_classes]`, under cross-entropy.

    >>> ranks(np.array([0.9, 0.5, 0.7]))
    {'worst1': 1, 'worst2': 2, 'median': 2}
    """
    order = np.argsort(recall, kind="stable").tolist()
    return dict(zip(RANKS, (*order[:2], order[len(order) // 2]), strict=True))


def resolve(important: Sequence[Any], dataset: Dataset) -> tuple[tuple[int, ...], ...]:
    """Returns choices of important classes as indices, each once.

    Args:
      important: as in `SweepConfig`; a choice may also be a sequence of names or
        indices. Empty: the data set's own.
      dataset: whose classes they are.

    Returns:
      Indices in ascending order, in the order of the choices.

    Raises:
      UsageError: there are none; a class is unknown, or one of `RANKS`; all classes are
        important; or one has no images of a part to judge it by.
    """
    if isinstance(important, str):
        important = (important,)
    important = important or IMPORTANT.get(dataset.name, ())
    names = dataset.class_names
    if not important:
        raise UsageError(
            "important must name the class that must not be missed; there are "
            + some(names)
        )
    choices = tuple(dict.fromkeys(chosen(each, names) for each in important))
    for choice in choices:
        if len(choice) == len(names):
            raise UsageError("important must leave at least one class that is not")
        for part in ("train", "validation", "calibration", "test"):
            labels = dataset.parts[part].labels
            if part in ("validation", "calibration") and not len(labels):
                continue
            counts = np.bincount(labels, minlength=len(names))
            if empty := [names[k] for k in choice if not counts[k]]:
                raise UsageError(
                    f"important class {some(empty)} has 0 of {len(labels):,} {part} "
                    "images: nothing could be said of its recall"
                )
    return choices


def chosen(given: Any, class_names: Sequence[str]) -> tuple[int, ...]:
    """Returns a choice as indices, ascending.

    Args:
      given: as `camri_jax.datasets.class_indices` takes it.
      class_names: of the data.

    Raises:
      UsageError: as there; or it is one of `RANKS`, known from finished trials alone.
    """
    if isinstance(given, str) and given in RANKS and given not in class_names:
        raise UsageError(
            f"important {given!r} needs the recall of finished cross-entropy trials on "
            "this data set; train those first, any class being important"
        )
    return class_indices(class_names, given)
