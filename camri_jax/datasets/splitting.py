"""Which examples are held out: stratified, seeded, and never splitting a group."""

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

    Each group has the same chance to come into a part, whatever other classes it has
    examples of: a class's held-out groups are like its others, as promises about new
    groups assume.

    Args:
      labels: int `[n]`.
      fractions: the share of each class's groups for each part, more than 0; together
        less than 1. What stays gets at least one group of each class, and so does each
        part of a class that shares no group with another.
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
    place = np.zeros(len(values), np.int8)  # of each group
    members = [np.unique(groups[labels == k]) for k in range(len(class_names))]
    num_classes = np.bincount(np.concatenate(members), minlength=len(values))
    loose = num_classes > 1
    for label, own in enumerate(members):
        if len(own) <= len(fractions):
            raise DatasetError(
                f"class {class_names[label]!r} has {len(own)} example(s) or group(s): "
                f"too few to hold {len(fractions)} out and keep one; add examples, or "
                "hold none out"
            )
        alone = own[num_classes[own] == 1]
        if len(alone) <= len(fractions):
            loose[alone] = True
            continue
        # A stream per class: adding a class leaves the others' choice alone.
        order = np.random.default_rng((seed, label)).permutation(alone)
        for i, size in enumerate(_sizes(fractions, len(alone)), 1):
            place[order[:size]], order = i, order[size:]
    random = np.random.default_rng((seed, len(members)))
    place[loose] = _spread(members, loose, fractions, random)
    for own in members:
        if place[own].all():
            place[random.choice(own)] = 0
    return place[groups]


def _spread(
    members: Sequence[np.ndarray],
    loose: np.ndarray,
    fractions: Sequence[float],
    random: np.random.Generator,
) -> np.ndarray:
    """Returns the places of groups of several classes, in the order of the groups.

    Placed by their rarest class, a common class's groups beside rare ones would come
    into the small parts too often. Here steps of the golden ratio from a random start
    give each group the same chance, and groups of the same classes, which are adjacent,
    their shares.
    """
    has = np.zeros((len(members), len(loose)), bool)
    for label, own in enumerate(members):
        has[label, own] = True
    order = np.lexsort([random.random(np.count_nonzero(loose)), *has[:, loose]])
    golden = (np.sqrt(5) - 1) / 2
    points = np.empty(len(order))
    points[order] = (random.random() + golden * np.arange(len(order))) % 1
    # The first of the unit interval's parts are held out, the rest stays.
    ends = np.cumsum(fractions)
    return (np.searchsorted(ends, points, side="right") + 1) % (len(ends) + 1)


def _sizes(fractions: Sequence[float], num_groups: int) -> list[int]:
    """Returns how many of a class's groups each part gets."""
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
    """Copies some images; a memory map is read a block at a time.

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
        # A map of its own: pages stay in memory as long as their map is open.
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
