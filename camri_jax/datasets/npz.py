"""A data set of the user's own, as arrays in one .npz file."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from camri_jax.datasets.dataset import Dataset, DatasetError, make_dataset
from camri_jax.datasets.pictures import resize_all

_REQUIRED = ("train_images", "train_labels", "test_images", "test_labels")
_OPTIONAL = ("validation_images", "validation_labels", "train_track", "class_names")

_Arrays = dict[str, np.ndarray]


def load_npz(path: Path, *, image_size: int | None = None) -> Dataset:
    """Loads arrays that `numpy.savez` wrote.

    Args:
      path: a file with `train_images`, `train_labels`, `test_images`, `test_labels`;
        optionally `validation_images`, `validation_labels`, `class_names` and
        `train_track`, integers which say which training examples belong together.
        Images are uint8 `[n, height, width]` or `[n, height, width, channels]` with 1
        or 3 channels; labels are integers `[n]`.
      image_size: height and width in pixels to resize to; None keeps the images' own.

    Returns:
      The data set; without `class_names` the classes are called '0', '1', ...

    Raises:
      DatasetError: the file is missing or damaged, or an array is not as described.

    Example:
      >>> import tempfile
      >>> images, labels = np.zeros([4, 8, 8], np.uint8), np.array([0, 1, 0, 1])
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = Path(folder, "mine.npz")
      ...     np.savez(path, train_images=images, train_labels=labels,
      ...              test_images=images, test_labels=labels)
      ...     load_npz(path).train_images.shape
      (4, 8, 8, 1)
    """
    arrays = _read(path)
    suffixes = ("_images", "_labels")
    parts = dict.fromkeys(n.split("_")[0] for n in arrays if n.endswith(suffixes))
    try:
        pairs = {part: _pair(arrays, part) for part in parts}
        class_names = _class_names(arrays, pairs)
        groups = _groups(arrays)
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from None
    final = {
        part: (resize_all(images, image_size), labels.astype(np.int32))
        for part, (images, labels) in pairs.items()
    }
    return make_dataset(
        final["train"],
        final["test"],
        class_names,
        validation=final.get("validation"),
        train_groups=groups,
    )


def _read(path: Path) -> _Arrays:
    if not path.is_file():
        raise DatasetError(f"{path}: no such file; npz:FILE names one of numpy.savez")
    try:
        if not zipfile.is_zipfile(path):
            with path.open("rb") as file:
                raise ValueError(f"it begins with {file.read(16)!r}")
        with np.load(path, allow_pickle=False) as file:
            known = [name for name in _REQUIRED + _OPTIONAL if name in file]
            arrays = {name: file[name] for name in known}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DatasetError(
            f"{path} is not a readable .npz file ({error}); write it again with "
            "numpy.savez or fetch it again from where it came"
        ) from error
    if missing := [name for name in _REQUIRED if name not in arrays]:
        raise DatasetError(
            f"{path} lacks {', '.join(missing)}; it must hold {', '.join(_REQUIRED)} "
            f"and may hold {', '.join(_OPTIONAL)}"
        )
    return arrays


def _pair(arrays: _Arrays, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns one part's images, with a channel axis, and its labels."""
    for name in (f"{part}_images", f"{part}_labels"):
        if name not in arrays:
            raise DatasetError(f"there are no {name}; images and labels go together")
    images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise DatasetError(
            f"{part}_images are {images.dtype} {list(images.shape)}; they must be "
            "uint8 [n, height, width] or [n, height, width, 1 or 3]"
        )
    if 0 in images.shape:
        raise DatasetError(f"{part}_images {list(images.shape)} are empty")
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise DatasetError(
            f"{part}_labels are {labels.dtype} {list(labels.shape)}; they must be "
            f"integers [{len(images)}], one for each of {part}_images"
        )
    height_width_channels = arrays["train_images"].shape[1:]
    if images.shape[1:] != (*height_width_channels, 1)[:3]:
        raise DatasetError(
            f"{part}_images are {list(images.shape)} but train_images "
            f"{list(arrays['train_images'].shape)}; all parts must have one size"
        )
    return images, labels


def _class_names(
    arrays: _Arrays, pairs: dict[str, tuple[np.ndarray, np.ndarray]]
) -> tuple[str, ...]:
    """Returns the class names, having compared them with the labels."""
    num_classes = 1 + max(int(labels.max()) for _, labels in pairs.values())
    names = arrays.get("class_names", np.arange(num_classes).astype(str))
    if names.ndim != 1 or names.dtype.kind != "U" or len(set(names)) != len(names):
        raise DatasetError("class_names must be different strings [classes]")
    for part, (_, labels) in pairs.items():
        if labels.min() < 0 or labels.max() >= len(names):
            raise DatasetError(
                f"{part}_labels span {labels.min()}..{labels.max()}; they must lie in "
                f"0..{len(names) - 1}, for there are {len(names)} classes"
            )
    counts = np.bincount(pairs["train"][1].astype(np.int64), minlength=len(names))
    if len(names) < 2 or not counts.all():
        empty = ", ".join(names[counts == 0]) or "all but one"
        raise DatasetError(
            f"train_labels have no example of class {empty}: there is nothing to learn"
        )
    return tuple(names.tolist())


def _groups(arrays: _Arrays) -> np.ndarray | None:
    if "train_track" not in arrays:
        return None
    groups, labels = arrays["train_track"], arrays["train_labels"]
    if groups.shape != labels.shape or groups.dtype.kind not in "iu":
        raise DatasetError(
            f"train_track is {groups.dtype} {list(groups.shape)}; it must be integers "
            f"[{len(labels)}], one for each of train_images"
        )
    return groups.astype(np.int64)
