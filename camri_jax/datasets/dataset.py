"""The one shape in which every data set reaches the trainer."""

import dataclasses
import difflib
import hashlib
from collections.abc import Sequence

import numpy as np


class DatasetError(ValueError):
    """A data set that cannot be loaded; the message says why and what to do."""


class DatasetWarning(UserWarning):
    """Something about a data set that its user should know, but can live with."""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images and labels in three parts.

    Attributes:
      train_images: uint8 `[n, height, width, channels]`, possibly memory-mapped.
      train_labels: int32 `[n]`.
      validation_images: as `train_images`; empty unless a fraction was held out.
      validation_labels: as `train_labels`.
      test_images: as `train_images`.
      test_labels: as `train_labels`.
      class_names: the name of each label, in order.
      train_groups: int64 `[n]` or None. Examples of one group (the frames of one
        traffic sign, say) resemble each other too much to be split apart.
      validation_groups: as `train_groups`.
      fingerprint: 16 hexadecimal digits that change with any pixel, label, group,
        class name or split.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    validation_images: np.ndarray
    validation_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...]
    fingerprint: str
    train_groups: np.ndarray | None = None
    validation_groups: np.ndarray | None = None


def make_dataset(
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray] | None,
    class_names: Sequence[str],
    *,
    validation: tuple[np.ndarray, np.ndarray] | None = None,
    train_groups: np.ndarray | None = None,
    fingerprint: str | None = None,
) -> Dataset:
    """Makes a `Dataset` of pairs of images and labels; absent parts become empty.

    Args:
      train: images uint8 `[n, height, width, channels]` and labels int32 `[n]`.
      test: the same, or None.
      class_names: the name of each label.
      validation: the same, or None.
      train_groups: int64 `[n]` or None.
      fingerprint: what a previous call computed for the same content, to save time.

    Returns:
      The data set, with its fingerprint.
    """
    empty = train[0][:0], train[1][:0]
    parts = train + (validation or empty) + (test or empty)
    if fingerprint is None:
        groups = () if train_groups is None else (train_groups,)
        fingerprint = digest(*parts, *groups, *class_names)
    return Dataset(*parts, tuple(class_names), fingerprint, train_groups)


def digest(*parts: np.ndarray | str) -> str:
    """Returns 16 hexadecimal digits that identify arrays and strings, in order.

    Example:
      >>> digest("a", "b") == digest("ab")
      False
    """
    state = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            state.update(f"str {len(part.encode())};".encode() + part.encode())
        else:
            state.update(f"{part.dtype.str} {part.shape};".encode())
            state.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
    return state.hexdigest()[:16]


def class_index(class_names: Sequence[str], name_or_index: str | int) -> int:
    """Finds a class by its name or its index.

    Args:
      class_names: the names of classes 0, 1, ...
      name_or_index: a name, compared exactly first and then without regard to case;
        or an index, as an int or written out. A name wins over an index.

    Returns:
      The index of the class.

    Raises:
      DatasetError: no such class; the message offers the nearest spellings.

    Example:
      >>> class_index(("cat", "dog"), "dog"), class_index(("cat", "dog"), "0")
      (1, 0)
    """
    wanted = str(name_or_index)
    if wanted in class_names:
        return list(class_names).index(wanted)
    folded = {name.casefold(): i for i, name in enumerate(class_names)}
    if wanted.strip().casefold() in folded:
        return folded[wanted.strip().casefold()]
    try:
        index = int(wanted)
    except ValueError:
        near = difflib.get_close_matches(wanted.casefold(), folded, n=3, cutoff=0.5)
        known = [class_names[folded[name]] for name in near] or list(class_names[:10])
        hint = "did you mean" if near else "there are"
        raise DatasetError(
            f"no class is called {wanted!r}; {hint} {', '.join(map(repr, known))}"
            f"{'' if near or len(class_names) <= 10 else ', ...'}"
        ) from None
    if not 0 <= index < len(class_names):
        raise DatasetError(f"class index {index} is outside 0..{len(class_names) - 1}")
    return index
