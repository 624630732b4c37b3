"""Which examples are held out: stratified, seeded, and never cutting a group."""

import dataclasses
from typing import Literal

import numpy as np

from camri_jax.datasets.dataset import Dataset, DatasetError, digest

_BLOCK = 4096  # images


def hold_out(
    dataset: Dataset, fraction: float, *, seed: int, part: Literal["validation", "test"]
) -> Dataset:
    """Moves a share of every class out of train.

    Args:
      dataset: a data set whose `part` is empty.
      fraction: the share of each class to hold out, in (0, 1).
      seed: the same seed always makes the same choice.
      part: where the examples go.

    Returns:
      A data set with a fingerprint of its own.

    Raises:
      DatasetError: a class is too small to be divided.
    """
    groups = dataset.train_groups
    held = held_out(
        dataset.train_labels,
        fraction,
        seed=seed,
        class_names=dataset.class_names,
        groups=groups,
    )
    moved: dict[str, np.ndarray | None] = {
        f"{part}_images": take(dataset.train_images, held),
        f"{part}_labels": dataset.train_labels[held],
    }
    if part == "validation":
        moved["validation_groups"] = None if groups is None else groups[held]
    return dataclasses.replace(
        dataset,
        train_images=take(dataset.train_images, ~held),
        train_labels=dataset.train_labels[~held],
        train_groups=None if groups is None else groups[~held],
        fingerprint=digest(dataset.fingerprint, part, np.packbits(held)),
        **moved,
    )


def held_out(
    labels: np.ndarray,
    fraction: float,
    *,
    seed: int,
    class_names: tuple[str, ...],
    groups: np.ndarray | None = None,
) -> np.ndarray:
    """Chooses a share of every class.

    Args:
      labels: int `[n]`.
      fraction: the share of each class to hold out, in (0, 1). Each class keeps at
        least one group and gives at least one.
      seed: the same seed always makes the same choice.
      class_names: for the error messages.
      groups: int `[n]`; a group is held out whole or not at all. None: every example
        stands alone.

    Returns:
      bool `[n]`, true where held out.

    Raises:
      DatasetError: a class has fewer than two groups, or a group several classes.

    Example:
      >>> labels = np.repeat([0, 1], 10)
      >>> int(held_out(labels, 0.2, seed=0, class_names=("a", "b")).sum())
      4
    """
    if groups is None:
        groups = np.arange(len(labels))
    else:
        _refuse_groups_across_classes(groups, labels)
    chosen = np.zeros(len(labels), bool)
    for label, name in enumerate(class_names):
        members = np.unique(groups[labels == label])
        if len(members) < 2:
            raise DatasetError(
                f"class {name!r} has {len(members)} example(s) or group(s): too few to "
                "hold one out and keep one; add examples, or hold none out"
            )
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        # A stream per class: adding a class leaves the others' choice alone.
        order = np.random.default_rng((seed, label)).permutation(members)
        chosen |= np.isin(groups, order[:count])
    return chosen


def take(images: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Copies some images; of a memory map, only a block at a time comes into memory.

    Args:
      images: uint8 `[n, height, width, channels]`.
      chosen: bool `[n]`.

    Returns:
      `images[chosen]`.
    """
    if not isinstance(images, np.memmap):
        return images[chosen]
    taken = np.empty((np.count_nonzero(chosen), *images.shape[1:]), images.dtype)
    filled = 0
    for start in range(0, len(images), _BLOCK):
        mask = chosen[start : start + _BLOCK]
        # A map of its own, for pages stay in memory as long as their map is open.
        block = np.memmap(
            images.filename or "",
            images.dtype,
            "r",
            images.offset + start * images.strides[0],
            (len(mask), *images.shape[1:]),
        )[mask]
        taken[filled : filled + len(block)] = block
        filled += len(block)
    return taken


def _refuse_groups_across_classes(groups: np.ndarray, labels: np.ndarray) -> None:
    order = np.lexsort((labels, groups))
    same_group = groups[order][1:] == groups[order][:-1]
    across = order[1:][same_group & (labels[order][1:] != labels[order][:-1])]
    if len(across):
        raise DatasetError(
            f"group {groups[across[0]]} has examples of several classes: it cannot be "
            "held out by class; number the groups so that each lies in one class"
        )
