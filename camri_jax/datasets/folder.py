"""A data set of the user's own, as pictures in one folder a class."""

import concurrent.futures
import hashlib
import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from camri_jax.datasets import copies, pictures, store
from camri_jax.datasets.dataset import Dataset, DatasetError, Part, digest, some
from camri_jax.datasets.layout import Listing, list_pictures
from camri_jax.datasets.splitting import connect
from camri_jax.datasets.trees import Tree, open_tree

_FORMAT = "2"  # to be raised when the same files would be prepared differently
_IMAGE_SIZE = 64
_MAX_BROKEN = 0.01
_BLOCK = 1024  # pictures that are decoded before the first of them is stored
_BITS = re.compile(r"has (\d+) bits")


class _Picture(NamedTuple):
    """A decoded picture.

    Attributes:
      pixels: uint8 `[size, size, 1 or 3]`.
      print: hash of the file.
      remarks: what a user should know.
    """

    pixels: np.ndarray
    print: int
    remarks: list[str]


def load_folder(
    path: Path,
    *,
    name: str,
    cache: Path,
    image_size: int | None = None,
    fit: pictures.Fit = "pad",
    groups: str | None = None,
    bits: int | None = None,
) -> Dataset:
    """Loads pictures from a directory or a .zip of one folder a class.

    Args:
      path: holds `train/CLASS/*` and any of `validation/CLASS/*`,
        `calibration/CLASS/*`, `test/CLASS/*`, or only `CLASS/*`. Any format Pillow
        reads, any size.
      name: of the data set.
      cache: where prepared data are kept.
      image_size: height and width in pixels; None: 64.
      fit: `pad` the shorter axis with black, `crop` the longer one, or `stretch` both.
      groups: a regular expression that is searched in `CLASS/...` of each picture;
        where it finds the same text, there is one group. Copies of a picture are in
        one group anyway.
      bits: of grey pictures of more than 8 bits; None: as many as any of them uses.

    Returns:
      The data set; grey if all pictures are.

    Raises:
      DatasetError: a class has nothing to learn from, there are fewer than two, the
        folders can be read in two ways, or more than 1 % of the pictures are broken.
    """
    size = image_size or _IMAGE_SIZE
    with open_tree(path) as tree:
        asked = (str(size), fit, groups or "", *([] if bits is None else [str(bits)]))
        key = digest(_FORMAT, tree.fingerprint, *asked)

        def write_arrays(directory: Path) -> None:
            try:
                _write(directory, tree, size, fit, groups, bits)
            except DatasetError as error:
                raise DatasetError(f"{path}: {error}") from None

        store.build_once(cache / "folder" / key, write_arrays)
    return store.read(cache / "folder" / key, name, fit=fit)


def _write(
    directory: Path,
    tree: Tree,
    size: int,
    fit: pictures.Fit,
    groups: str | None,
    bits: int | None,
) -> None:
    listing = list_pictures(tree.names)
    names = [name for files in listing.files.values() for name in files]
    store.refuse_what_does_not_fit((len(names), size, size, 3))
    decoded, broken, notes, bits = _decode(tree, names, size, fit, bits)
    if len(broken) > _MAX_BROKEN * len(names):
        raise DatasetError(
            f"{len(broken)} of {len(names)} pictures cannot be read, more than 1 %: "
            f"{some(broken)}; mend or remove them"
        )
    readable = [name for name in names if name in decoded]
    _refuse_empty_classes(listing, decoded)
    keys = [np.array([decoded[name].print for name in readable])]
    if groups is not None:
        stated, missing = _stated(groups, [listing.inside[name] for name in readable])
        keys.append(stated)
        if missing:
            notes.append(f"the pattern of groups is not found in {some(missing)}")
    number = connect(*keys)
    channels = max(picture.pixels.shape[-1] for picture in decoded.values())
    parts, members = {}, {}
    place = {name: i for i, name in enumerate(readable)}
    for part, files in listing.files.items():
        members[part] = [name for name in files if name in decoded]
        images = np.empty((len(members[part]), size, size, channels), np.uint8)
        for i, name in enumerate(members[part]):
            images[i] = decoded[name].pixels
        labels = np.array([files[name] for name in members[part]], np.int32)
        at = [place[name] for name in members[part]]
        parts[part] = Part(images, labels, None if number is None else number[at])
    notes += listing.notes + copies.remarks(parts, lambda part, i: members[part][i])
    if broken:
        notes.append(
            f"{len(broken)} of {len(names)} pictures cannot be read and were skipped: "
            f"{some(broken)}"
        )
    store.write(directory, parts, listing.class_names, notes=notes, bits=bits)


def _refuse_empty_classes(listing: Listing, decoded: Mapping[str, _Picture]) -> None:
    train = listing.files["train"]
    labels = [label for name, label in train.items() if name in decoded]
    counts = np.bincount(labels, minlength=len(listing.class_names))
    if not counts.all():
        empty = [listing.class_names[i] for i in np.flatnonzero(counts == 0)]
        raise DatasetError(
            f"class(es) without a training picture: {some(empty)}; add pictures or "
            f"remove the folders{'; '.join(['', *listing.notes])}"
        )


def _decode(
    tree: Tree, names: Sequence[str], size: int, fit: pictures.Fit, given: int | None
) -> tuple[dict[str, _Picture], list[str], list[str], int | None]:
    """Returns the pictures, those that cannot be read, remarks, and the bits."""
    results = dict(_decode_each(tree, names, size, fit, given))
    bits = {
        name: int(found[1])
        for name, result in results.items()
        if isinstance(result, _Picture)
        for remark in result.remarks
        if (found := _BITS.fullmatch(remark))
    }
    most = max(bits.values(), default=None) if given is None else given
    if given is None and len(set(bits.values())) > 1:  # one brightness for all
        results |= _decode_each(tree, list(bits), size, fit, most)
    broken, remarks = [], {}
    if bits:
        number = f"{len(bits)} pictures of more than 8 bits"
        remarks[f"the upper 8 of {most} bits are kept"] = [number]
    decoded = {}
    for name, result in results.items():
        if isinstance(result, Exception):
            broken.append(f"{name} ({result})")
            continue
        decoded[name] = result
        for remark in result.remarks:
            if not _BITS.fullmatch(remark):
                remarks.setdefault(f"a picture that {remark}", []).append(name)
    notes = [f"{remark}: {some(found)}" for remark, found in remarks.items()]
    return decoded, broken, notes, most


def _decode_each(
    tree: Tree,
    names: Sequence[str],
    size: int,
    fit: pictures.Fit,
    bits: int | None,
) -> Iterator[tuple[str, _Picture | Exception]]:
    def decode(name: str) -> _Picture | Exception:
        remarks: list[str] = []
        try:
            with tree.open(name) as file:
                content = file.read()
            hashed = hashlib.blake2b(content, digest_size=8).digest()
            file = io.BytesIO(content)
            pixels = pictures.decode(file, size, fit, bits=bits, tell=remarks.append)
        except DatasetError:
            raise
        except Exception as error:  # Pillow raises of every kind
            return error
        return _Picture(pixels, int.from_bytes(hashed, "big", signed=True), remarks)

    # Pillow decodes and resizes outside of Python's lock: threads are enough.
    with (
        warnings.catch_warnings(),
        concurrent.futures.ThreadPoolExecutor() as pool,
        tqdm(total=len(names), desc="decoding", disable=None) as bar,
    ):
        warnings.simplefilter("ignore")  # Pillow's, of damaged metadata
        for start in range(0, len(names), _BLOCK):
            block = names[start : start + _BLOCK]
            yield from zip(block, pool.map(decode, block), strict=True)
            bar.update(len(block))


def _stated(pattern: str, inside: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Returns what the pattern finds in each path, and where it finds nothing."""
    try:
        found = [re.search(pattern, path) for path in inside]
    except re.error as error:
        raise DatasetError(
            f"groups is {pattern!r}, which is no regular expression: {error}"
        ) from error
    missing = [p for p, match in zip(inside, found, strict=True) if match is None]
    if len(missing) == len(inside):
        raise DatasetError(
            f"groups is {pattern!r}, which is found in no picture's path"
        )
    keys = [
        f"alone {i}" if match is None else f"found {match.groups() or match[0]}"
        for i, match in enumerate(found)
    ]
    return np.array(keys), missing
