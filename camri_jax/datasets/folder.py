"""A data set of the user's own, as pictures in one folder a class."""

import concurrent.futures
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from camri_jax.datasets import pictures, store
from camri_jax.datasets.dataset import Dataset, DatasetError, digest
from camri_jax.datasets.layout import Listing, list_pictures
from camri_jax.datasets.splitting import hold_out
from camri_jax.datasets.trees import Tree, open_tree

_FORMAT = "1"  # to be raised when the same files would be prepared differently
_IMAGE_SIZE = 64
_TEST_FRACTION = 0.2
_MAX_BROKEN = 0.01
_BLOCK = 1024  # pictures that are decoded before the first of them is stored


class _Part(NamedTuple):
    """The readable pictures of one part."""

    images: np.ndarray
    labels: np.ndarray
    names: list[str]
    prints: np.ndarray  # int64 [n], equal for equal pixels


def load_folder(
    path: Path,
    *,
    cache: Path,
    image_size: int | None = None,
    fit: pictures.Fit = "pad",
    seed: int = 0,
) -> Dataset:
    """Loads pictures from a directory or a .zip of one folder a class.

    Args:
      path: holds `train/CLASS/*` and `test/CLASS/*`, or only `CLASS/*`: then a fifth of
        each class, chosen by `seed`, is for testing. Any format Pillow reads, any size.
      cache: where prepared data are kept.
      image_size: height and width in pixels; None: 64.
      fit: `pad` the shorter axis with black or `crop` the longer one.
      seed: chooses the test pictures where they have no folder.

    Returns:
      The data set; grey if all pictures are. Copies of one picture make a group.

    Raises:
      DatasetError: a class has nothing to learn from, there are fewer than two, or
        more than 1 % of the pictures are broken.
    """
    size = image_size or _IMAGE_SIZE
    with open_tree(path) as tree:
        key = digest(_FORMAT, tree.fingerprint, str(size), fit)

        def write_arrays(directory: Path) -> None:
            try:
                _write(directory, tree, size, fit)
            except DatasetError as error:
                raise DatasetError(f"{path}: {error}") from None

        store.build_once(cache / "folder" / key, write_arrays)
    dataset = store.read(cache / "folder" / key)
    if len(dataset.test_labels):
        return dataset
    return hold_out(dataset, _TEST_FRACTION, seed=seed, part="test")


def _write(directory: Path, tree: Tree, size: int, fit: pictures.Fit) -> None:
    listing = list_pictures(tree.names)
    parts, broken = _decode(tree, listing, size, fit)
    num_files = sum(map(len, listing.files.values()))
    if len(broken) > _MAX_BROKEN * num_files:
        raise DatasetError(
            f"{len(broken)} of {num_files} pictures cannot be read, more than 1 %: "
            f"{_some(broken)}; mend or remove them"
        )
    counts = np.bincount(parts["train"].labels, minlength=len(listing.class_names))
    if not counts.all():
        empty = [listing.class_names[i] for i in np.flatnonzero(counts == 0)]
        raise DatasetError(
            f"class(es) without a training picture: {_some(empty)}; add pictures or "
            f"remove the folders{'; '.join(['', *_ignored(listing)])}"
        )
    notes = _ignored(listing) + _notes(parts, listing.class_names)
    if broken:
        notes.append(
            f"{len(broken)} of {num_files} pictures cannot be read and were skipped: "
            f"{_some(broken)}"
        )
    for part, (images, labels, _, prints) in parts.items():
        # A copy of a picture may be labelled otherwise, but a group has one class.
        pairs = np.stack([prints, labels.astype(np.int64)])
        groups = np.unique(pairs, axis=1, return_inverse=True)[1].astype(np.int64)
        store.write_part(directory, part, images, labels, groups)
    store.write_about(directory, listing.class_names, notes=notes, skipped=broken)


def _decode(
    tree: Tree, listing: Listing, size: int, fit: pictures.Fit
) -> tuple[dict[str, _Part], list[str]]:
    """Decodes all parts; those that cannot be read come back as names with reasons."""
    images, names, broken = {}, {}, []
    channels = 1
    for part, files in listing.files.items():
        stored = np.empty((len(files), size, size, channels), np.uint8)
        names[part] = []
        for name, result in _decode_each(tree, list(files), size, fit):
            if isinstance(result, Exception):
                broken.append(f"{name} ({result})")
                continue
            if result.shape[-1] > channels:  # the first in colour
                channels = result.shape[-1]
                stored = np.repeat(stored, channels, axis=-1)
            stored[len(names[part])] = result
            names[part].append(name)
        images[part] = stored[: len(names[part])]
    parts = {}
    for part, files in listing.files.items():
        if images[part].shape[-1] < channels:  # grey to train, in colour to test
            images[part] = np.repeat(images[part], channels, axis=-1)
        labels = np.array([files[name] for name in names[part]], np.int32)
        prints = _fingerprints(images[part])
        parts[part] = _Part(images[part], labels, names[part], prints)
    return parts, broken


def _decode_each(
    tree: Tree, names: Sequence[str], size: int, fit: pictures.Fit
) -> Iterator[tuple[str, np.ndarray | Exception]]:
    def decode(name: str) -> np.ndarray | Exception:
        try:
            with tree.open(name) as file:
                return pictures.decode(file, size, fit)
        except Exception as error:  # Pillow raises of every kind
            return error

    # Pillow decodes and resizes outside of Python's lock: threads are enough.
    with (
        concurrent.futures.ThreadPoolExecutor() as pool,
        tqdm(total=len(names), desc="decoding", disable=None) as bar,
    ):
        for start in range(0, len(names), _BLOCK):
            block = names[start : start + _BLOCK]
            yield from zip(block, pool.map(decode, block), strict=True)
            bar.update(len(block))


def _fingerprints(images: np.ndarray) -> np.ndarray:
    hashes = [hashlib.blake2b(image, digest_size=8).digest() for image in images]
    return np.frombuffer(b"".join(hashes), np.int64)


def _ignored(listing: Listing) -> list[str]:
    if not listing.ignored:
        return []
    return [
        f"{len(listing.ignored)} files were ignored, for Pillow reads no such format "
        f"or they lie in no class folder: {_some(listing.ignored)}"
    ]


def _notes(parts: Mapping[str, _Part], class_names: tuple[str, ...]) -> list[str]:
    """Says what a user should know of the pictures that were read."""
    notes = []
    train, test = parts["train"], parts.get("test")
    if copies := [f"{a} = {b}" for a, b, same in _copies(train, train) if not same]:
        notes.append(
            f"{len(copies)} training pictures are copies of one in another class: "
            f"{_some(copies)}"
        )
    if test is None:
        return notes
    if copies := [f"{a} = {b}" for a, b, _ in _copies(test, train)]:
        notes.append(
            f"{len(copies)} test pictures are also training pictures, so that test "
            f"results flatter: {_some(copies)}"
        )
    counts = np.bincount(test.labels, minlength=len(class_names))
    if not counts.all():
        untested = [class_names[i] for i in np.flatnonzero(counts == 0)]
        notes.append(
            "class(es) without a test picture, whose recall will be unknown: "
            f"{_some(untested)}"
        )
    return notes


def _copies(part: _Part, train: _Part) -> Iterator[tuple[str, str, bool]]:
    """Yields a picture, the first training picture like it, and if the class is one."""
    first: dict[int, int] = {}
    for i, value in enumerate(train.prints.tolist()):
        first.setdefault(value, i)
    for i, value in enumerate(part.prints.tolist()):
        j = first.get(value)
        if j is not None and part.names[i] != train.names[j]:
            yield part.names[i], train.names[j], part.labels[i] == train.labels[j]


def _some(items: Sequence[str], limit: int = 10) -> str:
    more = f", and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more
