"""Data sets as uint8 arrays, each in the same three parts: `load` is the way in."""

import difflib
import importlib
import os
from pathlib import Path
from typing import Literal

from camri_jax.datasets.dataset import (
    Dataset,
    DatasetError,
    DatasetWarning,
    class_index,
)
from camri_jax.datasets.pictures import Fit
from camri_jax.datasets.splitting import hold_out
from camri_jax.datasets.store import cache_root

__all__ = ["Dataset", "DatasetError", "DatasetWarning", "class_index", "load"]

_PUBLISHED = ("mnist", "cifar10", "gtsrb", "awa2")
_NAMES = ("digits", *_PUBLISHED, "folder:PATH", "npz:FILE")


def load(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    image_size: int | None = None,
    validation_fraction: float = 0.0,
    seed: int = 0,
    fit: Literal["pad", "crop"] = "pad",
) -> Dataset:
    """Loads a data set by name.

    Args:
      name: `digits`, `mnist`, `cifar10`, `gtsrb`, `awa2`, `folder:PATH` or `npz:FILE`.
      data_dir: where the official files lie, packed or unpacked; None: where the
        environment's `CAMRI_DATA_DIR` says, else they are downloaded. What is
        downloaded and prepared is kept in its folder `.camri_jax`, or without a
        `data_dir` in `~/.cache/camri_jax`, or where `CAMRI_CACHE_DIR` says.
      image_size: height and width in pixels; None: the data set's own, for `gtsrb` 48
        and for `awa2` and `folder:PATH` 64.
      validation_fraction: the share of each class, in [0, 1), that is moved from train
        to validation, unless an .npz has a validation part of its own. Examples that
        belong together, as the frames of one traffic sign, stay together.
      seed: chooses the held out examples.
      fit: how pictures of `folder:PATH` become square: `pad` with black, or `crop`.

    Returns:
      The data set; arrays of prepared data are memory-mapped and read-only.

    Raises:
      DatasetError: there is no such data set, a file is missing or damaged, or an
        argument is out of range.
      ImportError: `digits` needs scikit-learn.

    Example:
      >>> dataset = load("digits", validation_fraction=0.1)
      >>> dataset.train_images.dtype, dataset.class_names[7]
      (dtype('uint8'), '7')
    """
    if not 0.0 <= validation_fraction < 1.0:
        raise DatasetError(
            f"validation_fraction is {validation_fraction}; it must be at least 0 and "
            "less than 1"
        )
    if image_size is not None and not 1 <= image_size <= 4096:
        raise DatasetError(f"image_size is {image_size}; it must lie in 1..4096 pixels")
    if fit not in ("pad", "crop"):
        raise DatasetError(f"fit is {fit!r}; it must be 'pad' or 'crop'")
    named = data_dir or os.environ.get("CAMRI_DATA_DIR")
    dataset = _load(
        name, Path(named).expanduser() if named else None, image_size, fit, seed
    )
    if validation_fraction and not len(dataset.validation_labels):
        return hold_out(dataset, validation_fraction, seed=seed, part="validation")
    return dataset


def _load(
    name: str, data_dir: Path | None, image_size: int | None, fit: Fit, seed: int
) -> Dataset:
    # Each loader is imported when it is needed: most need much that others do not.
    kind, _, argument = name.partition(":")
    path, cache = Path(argument).expanduser(), cache_root(data_dir)
    if kind == "folder" and argument:
        from camri_jax.datasets.folder import load_folder

        return load_folder(path, cache=cache, image_size=image_size, fit=fit, seed=seed)
    if kind == "npz" and argument:
        from camri_jax.datasets.npz import load_npz

        return load_npz(path, image_size=image_size)
    if name == "digits":
        from camri_jax.datasets.digits import load_digits

        return load_digits(image_size=image_size)
    if name in _PUBLISHED:
        published = importlib.import_module(f"camri_jax.datasets.{name}")
        return published.load(data_dir, cache=cache, image_size=image_size)
    near = difflib.get_close_matches(name, _NAMES, cutoff=0.4) or _NAMES
    raise DatasetError(f"no data set is called {name!r}; there is {', '.join(near)}")
