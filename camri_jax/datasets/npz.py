"""The user's own data set, as arrays in one .npz file."""

import io
import math
import unicodedata
import warnings
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from camri_jax._machine import free_bytes
from camri_jax.datasets import copies, store
from camri_jax.datasets.dataset import (
    PARTS,
    Dataset,
    DatasetError,
    DatasetWarning,
    Part,
    make_dataset,
    nearest,
    part_of,
    some,
)
from camri_jax.datasets.pictures import resize_all
from camri_jax.datasets.splitting import connect
from camri_jax.datasets.trees import Tree, open_tree

_FIELDS = {
    "images": "images",
    "features": "images",
    "x": "images",
    "labels": "labels",
    "y": "labels",
    "groups": "groups",
    "track": "groups",
}
_KNOWN = [f"{part}_{field}" for part in PARTS for field in ("images", "labels")]
_KNOWN += [f"{part}_{field}" for part in PARTS for field in ("features", "groups")]
_KNOWN += ["class_names"]

_Arrays = dict[str, np.ndarray]


def load_npz(
    path: Path, *, name: str, image_size: int | None = None, learn: bool = True
) -> Dataset:
    """Loads arrays that `numpy.savez` wrote.

    Args:
      path: a file with `images` and `labels`; or `train_images` and `train_labels`, and
        any of `validation_`, `calibration_` and `test_images` and `_labels`; optionally
        `class_names`, and `groups`, or `train_groups` and so on, which say which
        examples belong together. Images are uint8 `[n, height, width]` or
        `[n, height, width, channels]` with 1 or 3 channels; or features, floats
        `[n, d]`. Labels are integers `[n]`.
      name: of the data set.
      image_size: height and width in pixels to resize to; None keeps the images' own.
      learn: whether a classifier is to learn from them, which takes examples of every
        class in train; else images of any part and class are enough.

    Returns:
      The data set; without `class_names` the classes are called '0', '1', ..., and if
      nothing is to be learned, only those that occur in the labels exist.

    Raises:
      DatasetError: the file is missing or damaged, or an array is not as described.

    Example:
      >>> import tempfile
      >>> images, labels = np.zeros([4, 8, 8], np.uint8), np.array([0, 1, 0, 1])
      >>> images += np.arange(4, dtype=np.uint8)[:, None, None]
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = Path(folder, "mine.npz")
      ...     np.savez(path, train_images=images, train_labels=labels)
      ...     load_npz(path, name="mine").train_images.shape
      (4, 8, 8, 1)
    """
    if not path.is_file():
        raise DatasetError(f"{path}: no such file; npz:FILE names one of numpy.savez")
    try:
        arrays = _read(path, learn=learn)
        parts = _parts(arrays)
        class_names = _class_names(arrays, parts, learn=learn)
        parts = _with_groups(arrays, parts)
    except DatasetError as error:
        text = str(error)
        raise DatasetError(text if str(path) in text else f"{path}: {text}") from None
    for note in copies.remarks(parts, lambda part, i: f"{part}_images[{i}]"):
        warnings.warn(note, DatasetWarning, stacklevel=2)
    first = next(iter(parts.values()))
    if image_size is not None and first.images.ndim == 2:
        raise DatasetError(
            f"{path} holds features, not images: image_size must not be given"
        )
    if image_size is not None:
        number = sum(len(p.labels) for p in parts.values())
        store.refuse_what_does_not_fit((number, image_size, image_size, 3))
    groups = None if first.groups is None else first.groups[:0]
    parts = {"train": Part(first.images[:0], first.labels[:0], groups)} | parts
    final = {
        part: Part(resize_all(p.images, image_size), p.labels, p.groups)
        for part, p in parts.items()
    }
    return make_dataset(name, final, class_names)


def _read(path: Path, *, learn: bool) -> _Arrays:
    try:
        with path.open("rb") as file:
            if (head := file.read(16))[:2] != b"PK":
                raise ValueError(f"it begins with {head!r}")
        with open_tree(path, max_bytes=math.inf) as tree:
            wanted, found, unknown = {}, {}, []
            stems = [
                name.rpartition("/")[2].removesuffix(".npy") for name in tree.names
            ]
            keys = _keys(stems)
            for name, stem in zip(tree.names, stems, strict=True):
                key = keys[stem]
                if not name.endswith(".npy") or key is None:
                    unknown.append(stem or name)
                elif key in wanted:
                    raise DatasetError(f"{found[key]} and {stem} are both {key}")
                else:
                    wanted[key], found[key] = name, stem
            _refuse_what_does_not_fit(path)
            arrays = {key: _array(tree, name, key) for key, name in wanted.items()}
    # RuntimeError: an archive that says it is encrypted, patched or of a newer kind.
    except (
        OSError,
        ValueError,
        EOFError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        if isinstance(error, DatasetError) and "neither" not in str(error):
            raise
        raise DatasetError(
            f"{path} is not a readable .npz file ({error}); write it again with "
            "numpy.savez or fetch it again from where it came"
        ) from error
    unread = [f"{name} ({nearest(name, _KNOWN)})" for name in unknown]
    needed = ("train_images", "train_labels")
    enough = not learn and any(name.endswith("_images") for name in arrays)
    if not enough and (missing := [name for name in needed if name not in arrays]):
        raise DatasetError(
            f"{path} lacks {', '.join(missing)}"
            + (f"; it holds {some(unread)}" if unread else "")
        )
    if unread:
        text = f"{path}: arrays that are not read: {some(unread)}"
        warnings.warn(text, DatasetWarning, stacklevel=3)
    return arrays


def _keys(names: Sequence[str]) -> dict[str, str | None]:
    """Returns what each array is for; where none names a part, all are for train.

    >>> _keys(["images", "y"])
    {'images': 'train_images', 'y': 'train_labels'}
    >>> _keys(["train_images", "y"])
    {'train_images': 'train_images', 'y': None}
    """
    found = {name: _key(name) for name in names}
    if {*found.values()} - {None, "class_names"}:
        return found
    plain = {name: _FIELDS.get(name.casefold()) for name in names}
    return found | {name: f"train_{field}" for name, field in plain.items() if field}


def _key(name: str) -> str | None:
    """Returns what an array is for, or None for an unknown one.

    Example:
      >>> _key("val_images"), _key("x_train"), _key("Test_Labels"), _key("ids")
      ('validation_images', 'train_images', 'test_labels', None)
    """
    name = name.casefold()
    if name == "class_names":
        return name
    first, _, last = name.partition("_")
    for part, field in (
        (name.rpartition("_")[0], name.rpartition("_")[2]),
        (last, first),
    ):
        if (of := part_of(part)) and field in _FIELDS:
            return f"{of}_{_FIELDS[field]}"
    return None


def _refuse_what_does_not_fit(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        wanted = 2 * sum(member.file_size for member in archive.infolist())
    if wanted > (free := free_bytes()):
        raise DatasetError(
            f"{path} unpacks to {wanted / 2e9:,.1f} GB, for which {free / 1e9:,.1f} GB "
            "of free memory are too little"
        )


def _array(tree: Tree, name: str, key: str) -> np.ndarray:
    with tree.open(name) as file:
        content = file.read()
    _check_header(content, key)
    return np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)


def _check_header(content: bytes, key: str) -> None:
    """Refuses Python objects, and a size beyond the bytes there, before allocating."""
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    read = "read_array_header_1_0" if version == (1, 0) else "read_array_header_2_0"
    shape, _, dtype = getattr(np.lib.format, read)(file)
    if dtype.hasobject:
        kind = "numbers"
        if key == "class_names":
            kind = "strings, np.array(names, str)"
        elif key.endswith("_groups"):
            kind = "numbers or strings, np.array(groups, str)"
        raise DatasetError(
            f"{key} is an array of Python objects, which are not read; save it as "
            + kind
        )
    promised, held = math.prod(shape) * dtype.itemsize, len(content) - file.tell()
    if promised > held:
        raise DatasetError(
            f"{key} promises {dtype} {list(shape)} of {promised:,} bytes and holds "
            f"{held:,}"
        )


def _parts(arrays: _Arrays) -> dict[str, Part]:
    """Returns images and labels of each part, compared with each other."""
    parts = {}
    for part in PARTS:
        images, labels = arrays.get(f"{part}_images"), arrays.get(f"{part}_labels")
        if images is None and labels is None:
            continue
        if images is None or labels is None:
            absent = f"{part}_{'images' if images is None else 'labels'}"
            raise DatasetError(f"there are no {absent}; images and labels go together")
        images = _images(images, f"{part}_images")
        parts[part] = Part(images, _labels(labels, f"{part}_labels", len(images)))
        name, first = next((n, p.images) for n, p in parts.items())
        if images.shape[1:] != first.shape[1:] or images.dtype != first.dtype:
            raise DatasetError(
                f"{part}_images are {images.dtype} {list(images.shape)} but "
                f"{name}_images {list(first.shape)}; all parts must have one size"
            )
    return parts


def _images(images: np.ndarray, name: str) -> np.ndarray:
    """Returns images with a channel axis, or features as float32."""
    if images.ndim == 2 and images.dtype.kind == "f":
        if 0 in images.shape:
            raise DatasetError(f"{name} {list(images.shape)} are empty")
        with np.errstate(over="ignore"):
            features = images.astype(np.float32)
        if strange := np.count_nonzero(~np.isfinite(features)):
            raise DatasetError(
                f"{name} hold {strange:,} values that are infinite or no numbers"
            )
        return features
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise DatasetError(
            f"{name} are {images.dtype} {list(images.shape)}; they must be uint8 "
            "[n, height, width] or [n, height, width, 1 or 3], or floats [n, features]"
        )
    if 0 in images.shape:
        raise DatasetError(f"{name} {list(images.shape)} are empty")
    return images


def _labels(labels: np.ndarray, name: str, number: int) -> np.ndarray:
    if labels.shape == (number, 1):
        labels = labels[:, 0]
    if labels.dtype == bool:
        labels = labels.astype(np.int32)
    if labels.shape != (number,) or labels.dtype.kind not in "iu":
        raise DatasetError(
            f"{name} are {labels.dtype} {list(labels.shape)}; they must be integers "
            f"[{number}], one for each image"
        )
    return labels


def _class_names(
    arrays: _Arrays, parts: dict[str, Part], *, learn: bool
) -> tuple[str, ...]:
    """Compares labels with class names, casts them, and returns the names."""
    if not learn and "class_names" not in arrays:
        return _present(parts)
    spans = {n: (int(p.labels.min()), int(p.labels.max())) for n, p in parts.items()}
    if "class_names" in arrays:
        names = _strings(arrays["class_names"])
        limit, why = len(names), f"there are {len(names)} classes"
    else:
        limit = len(parts["train"].labels)
        why = f"there are {limit} training images to learn them from"
        names = [
            str(i) for i in range(min(max(m for _, m in spans.values()) + 1, limit))
        ]
    for part, (least, most) in spans.items():
        if least < 0 or most >= limit:
            raise DatasetError(
                f"{part}_labels span {least}..{most}; they must lie in 0..{limit - 1}, "
                f"for {why}: number the classes 0, 1, 2, ..."
            )
    for name, part in parts.items():
        parts[name] = Part(part.images, part.labels.astype(np.int32))
    if not learn:
        return tuple(names)
    counts = np.bincount(parts["train"].labels, minlength=len(names))
    if len(names) < 2 or not counts.all():
        empty = some([names[i] for i in np.flatnonzero(counts == 0)]) or "all but one"
        raise DatasetError(
            f"train_labels have no example of class {empty}: there is nothing to learn"
        )
    return tuple(names)


def _present(parts: dict[str, Part]) -> tuple[str, ...]:
    """Numbers the labels that occur, and returns them as names."""
    # Together, signed and unsigned integers would become floats.
    labels = np.concatenate([p.labels.astype(np.int64) for p in parts.values()])
    values, numbers = np.unique(labels, return_inverse=True)
    ends = np.cumsum([len(part.labels) for part in parts.values()])
    pieces = np.split(numbers.astype(np.int32), ends[:-1])
    for (name, part), own in zip(parts.items(), pieces, strict=True):
        parts[name] = Part(part.images, own)
    return tuple(map(str, values))


def _strings(names: np.ndarray) -> list[str]:
    if names.dtype.kind == "S":
        names = np.char.decode(names, "utf-8", "replace")
    if names.ndim != 1 or names.dtype.kind != "U":
        raise DatasetError(
            f"class_names are {names.dtype} {list(names.shape)}; they must be "
            "different strings [classes]"
        )
    strings = [unicodedata.normalize("NFC", str(name)) for name in names]
    if twice := sorted({name for name in strings if strings.count(name) > 1}):
        raise DatasetError(
            f"class_names must be different; {some(twice)} is twice there"
        )
    return strings


def _with_groups(arrays: _Arrays, parts: Mapping[str, Part]) -> dict[str, Part]:
    """Numbers what belongs together: stated groups, and copies of one image."""
    keys = [np.concatenate([copies.fingerprints(p.images) for p in parts.values()])]
    for part, content in parts.items():
        groups, number = arrays.get(f"{part}_groups"), len(content.labels)
        if groups is not None and (
            groups.shape != (number,) or groups.dtype.kind not in "iuUS"
        ):
            raise DatasetError(
                f"{part}_groups are {groups.dtype} {list(groups.shape)}; they must be "
                f"integers or strings [{number}], one for each of {part}_images"
            )
    if any(f"{part}_groups" in arrays for part in PARTS):
        stated = []
        for part, content in parts.items():
            alone = np.char.add(f"{part} ", np.arange(len(content.labels)).astype(str))
            groups = arrays.get(f"{part}_groups")
            if groups is not None and groups.dtype.kind == "S":
                # In whatever encoding, different bytes stay different.
                groups = np.char.decode(groups, "utf-8", "surrogateescape")
            stated.append(
                alone if groups is None else np.char.add("group ", groups.astype(str))
            )
        keys.append(np.concatenate(stated))
    number = connect(*keys)
    ends = np.cumsum([len(p.labels) for p in parts.values()])
    pieces = [None] * len(parts) if number is None else np.split(number, ends[:-1])
    return {
        part: Part(content.images, content.labels, groups)
        for (part, content), groups in zip(parts.items(), pieces, strict=True)
    }
