"""Which examples are held out: stratified, seeded, and never cutting a group."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from camri_jax.datasets.dataset import Dataset, DatasetError, Part, digest

_BLOCK = 4096  # images


def hold_out(dataset: Dataset, fractions: Mapping[str, float], *, seed: int) -> Dataset:
    """Moves a share of every class out of train.

    Labels, groups and the order of the examples decide, never pixels: another image
    size has the same test pictures.

    Args:
      dataset: a data set whose parts of these names are empty.
      fractions: the share of each class to move to each part, more than 0; together
        less than 1.
      seed: the same seed always makes the same choice.

    Returns:
      A data set with a fingerprint of its own.

    Raises:
      DatasetError: a class is too small to be divided.
    """
    train = dataset.parts["train"]
    place = assign(
        train.labels,
        list(fractions.values()),
        seed=seed,
        class_names=dataset.class_names,
        groups=train.groups,
    )
    parts = dict(dataset.parts)
    for i, part in enumerate(("train", *fractions)):
        chosen = place == i
        groups = None if train.groups is None else train.groups[chosen]
        parts[part] = Part(take(train.images, chosen), train.labels[chosen], groups)
    fingerprint = digest(dataset.fingerprint, *fractions, place)
    return dataclasses.replace(dataset, parts=parts, fingerprint=fingerprint)


def assign(
    labels: np.ndarray,
    fractions: Sequence[float],
    *,
    seed: int,
    class_names: Sequence[str],
    groups: np.ndarray | None = None,
) -> np.ndarray:
    """Divides every class among what stays and some parts.

    Args:
      labels: int `[n]`.
      fractions: the share of each class's groups for each part, more than 0; together
        less than 1. What stays and each part get at least one group.
      seed: the same seed always makes the same choice.
      class_names: for the error messages.
      groups: int `[n]`; a group goes to one place as a whole, even if it has examples
        of several classes. None: every example stands alone.

    Returns:
      int8 `[n]`: 0 where an example stays, 1 for the first fraction, and so on.

    Raises:
      DatasetError: a class has too few groups.

    Example:
      >>> labels = np.repeat([0, 1], 10)
      >>> np.bincount(assign(labels, [0.2, 0.1], seed=0, class_names=("a", "b")))
      array([14,  4,  2])
    """
    if groups is None:
        groups = np.arange(len(labels))
    values, groups = np.unique(groups, return_inverse=True)
    place = np.full(len(values), -1, np.int8)  # of each group; -1: still free
    members = [np.unique(groups[labels == k]) for k in range(len(class_names))]
    # Groups of several classes are placed by the class that has the fewest.
    for label in sorted(range(len(members)), key=lambda k: len(members[k])):
        own = members[label]
        free = own[place[own] < 0]
        # A stream per class: adding a class leaves the others' choice alone.
        order = np.random.default_rng((seed, label)).permutation(free)
        for i, size in enumerate(_sizes(fractions, len(own), class_names[label]), 1):
            lacking = max(size - np.count_nonzero(place[own] == i), 0)
            place[order[:lacking]], order = i, order[lacking:]
        place[order] = 0
    for label, own in enumerate(members):
        if len(np.unique(place[own])) <= len(fractions):
            raise DatasetError(
                f"class {class_names[label]!r} shares its {len(own)} groups with other "
                "classes, so that none is left for one of the parts; try another seed, "
                "or hold none out"
            )
    return place[groups]


def _sizes(fractions: Sequence[float], num_groups: int, name: str) -> list[int]:
    """Returns how many of a class's groups each part gets."""
    if num_groups <= len(fractions):
        raise DatasetError(
            f"class {name!r} has {num_groups} example(s) or group(s): too few to hold "
            f"{len(fractions)} out and keep one; add examples, or hold none out"
        )
    most = num_groups - len(fractions)
    sizes = [min(max(round(f * num_groups), 1), most) for f in fractions]
    while sum(sizes) >= num_groups:
        sizes[int(np.argmax(sizes))] -= 1
    return sizes


def connect(*keys: np.ndarray) -> np.ndarray | None:
    """Numbers the groups of examples that agree in any of their keys.

    Args:
      *keys: arrays `[n]`.

    Returns:
      int32 `[n]`, by first appearance; None if every example stands alone.

    Example:
      >>> connect(np.array([5, 6, 7, 8]), np.array(["a", "b", "b", "c"]))
      array([0, 1, 1, 2], dtype=int32)
    """
    inverses = [np.unique(key, return_inverse=True)[1] for key in keys]
    groups, before = np.arange(len(keys[0])), None
    while before is None or (groups != before).any():
        before = groups
        for inverse in inverses:
            least = np.full(len(inverse), len(inverse))
            np.minimum.at(least, inverse, groups)
            groups = least[inverse]
    values, groups = np.unique(groups, return_inverse=True)
    return None if len(values) == len(groups) else groups.astype(np.int32)


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
