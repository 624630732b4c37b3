"""The one shape in which every data set reaches the trainer."""

import dataclasses
import difflib
import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from camri_jax._files import TryAgain, UsageError
from camri_jax.datasets.pictures import Fit

# What learns, what picks, what certifies, what prices; and what people call them.
PARTS = ("train", "validation", "calibration", "test")
_ALIASES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "calibration": ("calibration", "calib", "cal"),
    "test": ("test", "testing"),
}
_PART_OF = {alias: part for part, aliases in _ALIASES.items() for alias in aliases}
_AFTER_A_PART = re.compile(r"[\s._-]*(set|data|images|imgs)$")


class DatasetError(UsageError):
    """A data set that cannot be loaded; the message says why and what to do."""


class Unreachable(DatasetError, TryAgain):
    """A data set whose publisher's server does not answer just now."""


class DatasetWarning(UserWarning):
    """Something about a data set that its user should know, but can live with."""


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """Some of the examples.

    Attributes:
      images: uint8 `[n, height, width, channels]`, possibly memory-mapped and
        read-only; or features, float32 `[n, d]`.
      labels: int32 `[n]`.
      groups: int32 `[n]` or None. Examples of one group (the frames of one traffic
        sign, the pictures of one patient) resemble each other too much to be split.
    """

    images: np.ndarray
    labels: np.ndarray
    groups: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images in four parts.

    `data.train_images`, `data.test_labels`, `data.validation_groups`, ... are short for
    `data.parts["train"].images` and so on.

    Attributes:
      name: as it was asked for.
      class_names: the name of each label, in order.
      parts: `train`, `validation`, `calibration` and `test`, in this order; a part may
        be empty.
      fingerprint: 16 hexadecimal digits that change with any pixel, label, group,
        class name or split, and with nothing else.
      mirror: whether a mirrored picture keeps its class.
      fit: how pictures became square: `stretch`, `pad` or `crop`.
      bits: of grey pictures of more than 8 bits, of which the upper 8 were kept.
      grouped_by: pattern by which files of `folder:PATH` were grouped, if any.
    """

    name: str
    class_names: tuple[str, ...]
    parts: dict[str, Part]
    fingerprint: str
    mirror: bool = False
    fit: Fit = "stretch"
    bits: int | None = None
    grouped_by: str | None = None

    def __getattr__(self, name: str) -> np.ndarray:
        part, _, field = name.partition("_")
        if part in PARTS and field in Part.__dataclass_fields__:
            return getattr(self.parts[part], field)
        raise AttributeError(f"a data set has no {name!r}")

    def counts(self, part: str) -> np.ndarray:
        """Counts the examples of each class.

        Args:
          part: `train`, `validation`, `calibration` or `test`.

        Returns:
          int64 `[classes]`.
        """
        labels = self.parts[part].labels
        return np.bincount(labels, minlength=len(self.class_names))


def make_dataset(
    name: str,
    parts: Mapping[str, Part],
    class_names: Sequence[str],
    *,
    fingerprint: str | None = None,
    **facts: Any,
) -> Dataset:
    """Makes a `Dataset`; absent parts become empty.

    Args:
      name: of the data set.
      parts: `train` and any others.
      class_names: the name of each label.
      fingerprint: what a previous call computed for the same content, to save time.
      **facts: `mirror`, `fit`, `bits` and `grouped_by`, see `Dataset`.

    Returns:
      The data set.
    """
    train = parts["train"]
    groups = None if train.groups is None else train.groups[:0]
    empty = Part(train.images[:0], train.labels[:0], groups)
    full = {part: parts.get(part, empty) for part in PARTS}
    if fingerprint is None:
        arrays = [
            array
            for part in full.values()
            for array in (part.images, part.labels, part.groups)
            if array is not None
        ]
        fingerprint = digest(*arrays, *class_names)
    return Dataset(name, tuple(class_names), full, fingerprint, **facts)


def digest(*parts: np.ndarray | str) -> str:
    """Returns 16 hexadecimal digits that identify arrays and strings, in order.

    Example:
      >>> digest("a", "b") == digest("ab")
      False
    """
    state = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            content = part.encode("utf-8", "surrogatepass")
            state.update(f"str {len(content)};".encode() + content)
        else:
            state.update(f"{part.dtype.str} {part.shape};".encode())
            state.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
    return state.hexdigest()[:16]


def part_of(name: str) -> str | None:
    """Returns the part that a folder or an array's prefix is named after, or None.

    Example:
      >>> part_of("Training"), part_of("val"), part_of("test_set"), part_of("cat")
      ('train', 'validation', 'test', None)
    """
    word = name.casefold().strip()
    return _PART_OF.get(word) or _PART_OF.get(_AFTER_A_PART.sub("", word))


def class_index(class_names: Sequence[str], name_or_index: str | int) -> int:
    """Finds a class by its name or its index.

    Args:
      class_names: the names of classes 0, 1, ...
      name_or_index: a name, compared exactly first and then without regard to case;
        or an index: an int always, its digits as text where no class has that name.

    Returns:
      The index of the class.

    Raises:
      DatasetError: there is no such class (the message offers the nearest spellings),
        or there are two that differ only in case.

    Example:
      >>> class_index(("cat", "dog"), "dog"), class_index(("cat", "dog"), "0")
      (1, 0)
    """
    wanted = unicodedata.normalize("NFC", str(name_or_index))
    if not isinstance(name_or_index, int | np.integer):
        if wanted in class_names:
            return list(class_names).index(wanted)
        folded = wanted.strip().casefold()
        alike = [i for i, name in enumerate(class_names) if name.casefold() == folded]
        if len(alike) == 1:
            return alike[0]
        if alike:
            names = " or ".join(repr(class_names[i]) for i in alike)
            raise DatasetError(f"the class {wanted!r} may be {names}: write it exactly")
    try:
        index = int(wanted)
    except ValueError:
        raise DatasetError(
            f"no class is called {wanted!r}; {nearest(wanted, class_names)}"
        ) from None
    if not 0 <= index < len(class_names):
        raise DatasetError(f"class index {index} is outside 0..{len(class_names) - 1}")
    return index


def class_indices(class_names: Sequence[str], given: Any) -> tuple[int, ...]:
    """Finds the classes of a choice, one or several.

    Args:
      class_names: the names of classes 0, 1, ...
      given: a class, as `class_index` takes it; several joined by `+`, unless a class
        is called that; or a sequence of them.

    Returns:
      Their indices, ascending, each once.

    Raises:
      DatasetError: as `class_index`, or there are none.

    >>> class_indices(("cat", "dog", "fox"), "fox+cat")
    (0, 2)
    """
    if isinstance(given, str):
        try:
            return (class_index(class_names, given),)
        except DatasetError:
            if "+" not in given:
                raise
        given = given.split("+")
    several = given if isinstance(given, Iterable) else (given,)
    found = tuple(sorted({class_index(class_names, each) for each in several}))
    if not found:
        raise DatasetError("a choice must name at least one class")
    return found


def nearest(wanted: str, known: Sequence[str]) -> str:
    """Says which of the known names a misspelt one may mean, or lists them.

    Example:
      >>> nearest("stopp", ["go", "stop"]), nearest("x", ["go", "stop"])
      ("did you mean 'stop'", "there are 'go', 'stop'")
    """
    folded = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(wanted.casefold(), folded, n=3, cutoff=0.5)
    if near:
        return "did you mean " + ", ".join(repr(folded[name]) for name in near)
    return "there are " + some([repr(name) for name in known])


def some(items: Sequence[str], limit: int = 10) -> str:
    """Lists a few items, and how many more there are.

    Example:
      >>> some(["a", "b", "c"], limit=2)
      'a, b, and 1 more'
    """
    more = f", and {len(items) - limit:,} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more
