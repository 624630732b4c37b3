"""Data sets as arrays, each in the same four parts: `load` is the way in."""

import difflib
import math
import numbers
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from camri_jax._files import expanded, whole_number
from camri_jax.datasets.dataset import (
    PARTS,
    Dataset,
    DatasetError,
    DatasetWarning,
    Part,
    class_index,
    class_indices,
    some,
)
from camri_jax.datasets.pictures import FolderFit
from camri_jax.datasets.published import PUBLISHED, load_published
from camri_jax.datasets.splitting import hold_out
from camri_jax.datasets.store import cache_root

__all__ = [
    "PARTS",
    "Dataset",
    "DatasetError",
    "DatasetWarning",
    "Part",
    "class_index",
    "class_indices",
    "load",
    "load_labelled",
]

_NAMES = ("digits", *PUBLISHED, "folder:PATH", "npz:FILE")
_TEST_FRACTION = 0.2


def load(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    image_size: int | None = None,
    fit: FolderFit = "pad",
    groups: str | None = None,
    validation_fraction: float = 0.0,
    calibration_fraction: float = 0.0,
    seed: int = 0,
) -> Dataset:
    r"""Loads a data set by name.

    Validation images pick, calibration images certify, test images price. Own images
    without a test part give a fifth of each class to it, chosen by `seed`.

    Args:
      name: `digits`, `mnist`, `cifar10`, `gtsrb`, `awa2`, `folder:PATH` or `npz:FILE`.
      data_dir: where the official files lie, packed or unpacked; None: where the
        environment's `CAMRI_DATA_DIR` says, else they are downloaded. What is
        downloaded and prepared is kept in its folder `.camri_jax`, or without a
        `data_dir` in `~/.cache/camri_jax`, or where `CAMRI_CACHE_DIR` says.
      image_size: height and width in pixels; None: the data set's own, for `gtsrb` 48
        and for `awa2` and `folder:PATH` 64.
      fit: how pictures of `folder:PATH` become square: `pad` with black, or `crop`.
      groups: which pictures of `folder:PATH` belong together: a regular expression that
        is searched for in `CLASS/...` of each; equal matches are one group (what
        parentheses hold, if there are any). With `r"patient\d+"` a patient is one
        group, with `".*/"` each innermost folder.
      validation_fraction: the share of each class, in [0, 1), that is moved from train
        to validation, unless the data have a validation part of their own. Examples of
        one group, such as the frames of one traffic sign, stay together.
      calibration_fraction: the same for calibration.
      seed: chooses the held-out examples, whatever their pixels: all image sizes have
        the same test images.

    Returns:
      The data set; arrays of prepared data are memory-mapped and read-only.

    Raises:
      UsageError: an argument is of the wrong kind or out of range; its subclass
        DatasetError: there is no such data set, or a file is missing or damaged.
      ImportError: `digits` needs scikit-learn.

    Example:
      >>> data = load("digits", validation_fraction=0.1, calibration_fraction=0.2)
      >>> {part: len(data.parts[part].labels) for part in data.parts}
      {'train': 1008, 'validation': 143, 'calibration': 287, 'test': 359}
    """
    _check_name(name)
    fractions = {"validation": validation_fraction, "calibration": calibration_fraction}
    _check_fractions(fractions)
    size = image_size
    if size is not None:
        size = whole_number("image_size", size, 1, 4096)
    if fit not in get_args(FolderFit):
        raise DatasetError(f"fit is {fit!r}; it must be 'pad' or 'crop'")
    seed = whole_number("seed", seed, 0, 2**63 - 1)
    if fit != "pad" and not name.startswith("folder:"):
        raise DatasetError(
            f"fit is {fit!r}, which is for folder:PATH; for other data it must be 'pad'"
        )
    dataset = _load(name, _data_dir(data_dir, name), size, fit, groups)
    has_test = len(dataset.test_labels) > 0
    if not has_test:
        dataset = hold_out(dataset, {"test": _TEST_FRACTION}, seed=seed)
    wanted = {
        part: fraction
        for part, fraction in fractions.items()
        if fraction and not len(dataset.parts[part].labels)
    }
    if wanted:
        try:
            dataset = hold_out(dataset, wanted, seed=seed)
        except DatasetError as error:
            taken = f"; before, {_TEST_FRACTION:.0%} of each class became the test part"
            raise DatasetError(f"{error}{'' if has_test else taken}") from None
    _tell_of_empty_classes(dataset)
    return dataset


def load_labelled(
    name: str,
    *,
    image_size: int | None,
    fit: FolderFit,
    bits: int | None = None,
    groups: str | None = None,
    class_names: Sequence[str] = (),
) -> Dataset:
    """Loads labelled images for a trained model; nothing is held out of any part.

    Nothing is learned from them: there may be images of one class alone, in any part.

    Args:
      name: as in `load`. Images of `npz:FILE` keep their size.
      image_size: the model's; None for features.
      fit: how the model's own images were made square.
      bits: of grey pictures of more than 8 bits, as the model's own had; None: as many
        as each picture uses.
      groups: as in `load`.
      class_names: the model's, whose folders are classes even where there is only one.

    Returns:
      The data set; an `.npz` without `class_names` has the classes of its labels alone.

    Raises:
      DatasetError: there are no images, or as `load`.
    """
    _check_name(name)
    own = None if name.startswith("npz:") else image_size
    # Of the bits that a picture uses, 8 or more, the upper 8 are kept.
    return _load(
        name,
        _data_dir(None, name),
        own,
        fit,
        groups,
        bits or 8,
        learn=False,
        known=class_names,
    )


def _check_name(name: str) -> None:
    if not isinstance(name, str):
        raise DatasetError(
            f"name is {name!r}; it must be a text, as 'folder:PATH' or 'npz:FILE'"
        )


def _check_fractions(fractions: dict[str, float]) -> None:
    for part, fraction in fractions.items():
        if not isinstance(fraction, numbers.Real):
            raise DatasetError(f"{part}_fraction is {fraction!r}; it must be a number")
        if not 0.0 <= fraction < 1.0:
            raise DatasetError(
                f"{part}_fraction is {fraction}; it must be at least 0 and less than 1"
            )
    if math.fsum(fractions.values()) >= 1.0:
        given = " and ".join(f"{p}_fraction {f}" for p, f in fractions.items())
        raise DatasetError(f"{given} leave nothing to train on")


def _data_dir(data_dir: str | os.PathLike[str] | None, name: str) -> Path | None:
    path = data_dir or os.environ.get("CAMRI_DATA_DIR")
    if not path:
        return None
    path = expanded(path)
    if path.is_dir():
        return path
    if data_dir or name in PUBLISHED:
        raise DatasetError(f"{path}: there is no such data directory")
    return None


def _load(
    name: str,
    data_dir: Path | None,
    image_size: int | None,
    fit: FolderFit,
    groups: str | None,
    bits: int | None = None,
    *,
    learn: bool = True,
    known: Sequence[str] = (),
) -> Dataset:
    if groups is not None and not name.startswith("folder:"):
        hint = "; an .npz has arrays" if name.startswith("npz:") else ""
        raise DatasetError(f"groups is a pattern for folder:PATH, not {name}{hint}")
    if groups == "":
        raise DatasetError("groups is '', which is found everywhere; leave it out")
    # Each loader is imported when it is needed: most need much that others do not.
    kind, _, argument = name.partition(":")
    _refuse_another_kind(name, kind, argument)
    if kind == "folder" and argument:
        from camri_jax.datasets.folder import load_folder

        return load_folder(
            expanded(argument),
            name=name,
            cache=cache_root(data_dir),
            image_size=image_size,
            fit=fit,
            groups=groups,
            bits=bits,
            learn=learn,
            known=known,
        )
    if kind == "npz" and argument:
        from camri_jax.datasets.npz import load_npz

        return load_npz(
            expanded(argument), name=name, image_size=image_size, learn=learn
        )
    if name == "digits":
        from camri_jax.datasets.digits import load_digits

        return load_digits(image_size=image_size)
    if name in PUBLISHED:
        return load_published(
            name, data_dir, cache=cache_root(data_dir), image_size=image_size
        )
    near = difflib.get_close_matches(name, _NAMES, cutoff=0.4) or _NAMES
    raise DatasetError(f"no data set is called {name!r}; there is {', '.join(near)}")


def _refuse_another_kind(name: str, kind: str, argument: str) -> None:
    """Refuses `folder:` before a file of arrays, and `npz:` before pictures."""
    if name in ("digits", *PUBLISHED):
        return
    path = expanded(argument or name)
    right, suffix = kind, path.suffix.casefold()
    if suffix == ".npz":
        right = "npz"
    elif suffix == ".zip" or path.is_dir():
        right = "folder"
    if right != kind:
        raise DatasetError(f"{name!r} must be called '{right}:{path}'")


def _tell_of_empty_classes(dataset: Dataset) -> None:
    train = dataset.counts("train")
    for part in PARTS:
        counts = dataset.counts(part)
        if counts.any() and not counts.all():
            empty = [
                f"{dataset.class_names[i]} ({train[i]} in train)"
                for i in (counts == 0).nonzero()[0]
            ]
            warnings.warn(
                f"class(es) without a {part} image, whose recall there is unknown: "
                f"{some(empty)}",
                DatasetWarning,
                stacklevel=3,
            )
