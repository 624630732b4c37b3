"""The user's own data set, as pictures in one folder per class."""

import concurrent.futures
import hashlib
import io
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image
from tqdm import tqdm

from camri_jax.datasets import copies, pictures, store
from camri_jax.datasets.dataset import Dataset, DatasetError, Part, digest, some
from camri_jax.datasets.layout import Listing, list_pictures
from camri_jax.datasets.splitting import connect
from camri_jax.datasets.trees import Tree, open_tree

_FORMAT = "4"  # to be raised when the same files would be prepared differently
_IMAGE_SIZE = 64
_MAX_BROKEN = 0.01
_BLOCK = 1024  # pictures that are decoded before the first of them is stored

Made = TypeVar("Made")


class _Picture(NamedTuple):
    """A decoded picture.

    Attributes:
      pixels: uint8 `[size, size, 1 or 3]`.
      remarks: as `pictures.Decoded` has them, and `bits` too.
      file_hash: of the whole file.
      own_size: shorter and longer side of the file's picture; empty if unknown.
      hurried: whether it may have been decoded at a fraction of its own size.
    """

    pixels: np.ndarray
    remarks: list[str]
    bits: int | None
    file_hash: int
    own_size: tuple[int, ...]
    hurried: bool


def load_folder(
    path: Path,
    *,
    name: str,
    cache: Path,
    image_size: int | None = None,
    fit: pictures.FolderFit = "pad",
    groups: str | None = None,
    bits: int | None = None,
    learn: bool = True,
    known: Collection[str] = (),
) -> Dataset:
    """Loads pictures from a directory or a .zip with one folder per class.

    Args:
      path: holds `train/CLASS/*` and any of `validation/CLASS/*`,
        `calibration/CLASS/*`, `test/CLASS/*`, or only `CLASS/*`. Any format Pillow
        reads, any size.
      name: of the data set.
      cache: where prepared data are kept.
      image_size: height and width in pixels; None: 64.
      fit: `pad` the shorter axis with black, `crop` the longer one, or `stretch` both.
      groups: a regular expression that is searched for in `CLASS/...` of each picture;
        equal matches are one group; if it has parentheses, what these hold is
        compared, else the whole match. Copies of a picture are in one group anyway:
        files of the same bytes, or whose pixels are the same at their own size,
        however they were saved.
      bits: of grey pictures of more than 8 bits; None: as many as any of them uses.
      learn: whether a classifier is to learn from them; else one picture of any part
        and class is enough.
      known: names of folders that are classes, even where there is only one of them.

    Returns:
      The data set; grey if all pictures are.

    Raises:
      DatasetError: a class has nothing to learn from, there are fewer than two, there
        is no picture, the folders can be read in two ways, or more than 1 % of the
        pictures are broken.
    """
    size = image_size or _IMAGE_SIZE
    with open_tree(path) as tree:
        asked = (str(size), fit, groups or "", *([] if bits is None else [str(bits)]))
        # What is enough to be labelled may be too little to learn from.
        asked += () if learn else ("labelled", *sorted(known))
        key = digest(_FORMAT, tree.fingerprint, *asked)

        def write_arrays(directory: Path) -> None:
            try:
                listing = list_pictures(tree.names, learn=learn, known=known)
                _write(directory, tree, listing, size, fit, groups, bits, learn)
            except DatasetError as error:
                raise DatasetError(f"{path}: {error}") from None

        store.build_once(cache / "folder" / key, write_arrays)
    return store.read(cache / "folder" / key, name, fit=fit, grouped_by=groups)


def _write(
    directory: Path,
    tree: Tree,
    listing: Listing,
    size: int,
    fit: pictures.FolderFit,
    groups: str | None,
    bits: int | None,
    learn: bool,
) -> None:
    names = [name for files in listing.files.values() for name in files]
    # What the names alone show is reported before pictures are decoded.
    if learn:
        _refuse_empty_classes(listing, set(names))
    if groups is not None and names:
        _stated(groups, [listing.inside[name] for name in names])
    store.refuse_what_does_not_fit((len(names), size, size, 3))
    decoded, broken, notes, bits = _decode(tree, names, size, fit, bits)
    if len(broken) > _MAX_BROKEN * len(names):
        raise DatasetError(
            f"{len(broken)} of {len(names)} pictures cannot be read, more than 1 %: "
            f"{some(broken)}; mend or remove them"
        )
    readable = [name for name in names if name in decoded]
    if learn:
        _refuse_empty_classes(listing, decoded.keys())
    if not decoded:
        raise DatasetError(f"there is no picture{'; '.join(['', *listing.notes])}")
    copy_of = _same_pixels(tree, decoded, bits)
    hashes = [decoded[name].file_hash for name in readable]
    keys = [np.array([copy_of.get(value, value) for value in hashes])]
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


def _refuse_empty_classes(listing: Listing, readable: Collection[str]) -> None:
    train = listing.files["train"]
    labels = [label for name, label in train.items() if name in readable]
    counts = np.bincount(labels, minlength=len(listing.class_names))
    if not counts.all():
        empty = [listing.class_names[i] for i in np.flatnonzero(counts == 0)]
        raise DatasetError(
            f"class(es) without a training picture: {some(empty)}; add pictures or "
            "remove the folders"
            + f". What else was seen: {'; '.join(listing.notes)}"
            * bool(listing.notes)
        )


def _decode(
    tree: Tree,
    names: Sequence[str],
    size: int,
    fit: pictures.FolderFit,
    given: int | None,
) -> tuple[dict[str, _Picture], list[str], list[str], int | None]:
    """Returns the pictures, those that cannot be read, remarks, and the bits."""
    results = dict(_decode_each(tree, names, size, fit, given))
    bits = {
        name: result.bits
        for name, result in results.items()
        if isinstance(result, _Picture) and result.bits is not None
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
            remarks.setdefault(f"a picture that {remark}", []).append(name)
    notes = [f"{remark}: {some(found)}" for remark, found in remarks.items()]
    return decoded, broken, notes, most


def _decode_each(
    tree: Tree,
    names: Sequence[str],
    size: int,
    fit: pictures.FolderFit,
    bits: int | None,
) -> Iterator[tuple[str, _Picture | Exception]]:
    def decode(content: bytes) -> _Picture:
        decoded = pictures.decode(io.BytesIO(content), size, fit, bits=bits)
        own_size = _own_size(content)
        large = not own_size or own_size[0] > size
        hurried = large and content.startswith(b"\xff\xd8")  # a JPEG
        return _Picture(*decoded, _hash(content), own_size, hurried)

    return _of_each(tree, names, decode, "decoding")


def _own_size(content: bytes) -> tuple[int, ...]:
    try:
        with Image.open(io.BytesIO(content)) as image:
            return tuple(sorted(image.size))
    except Exception:  # for metadata that `pictures.decode` does without
        return ()


def _hash(content: bytes) -> int:
    hashed = hashlib.blake2b(content, digest_size=8).digest()
    return int.from_bytes(hashed, "big", signed=True)


def _same_pixels(
    tree: Tree, decoded: Mapping[str, _Picture], bits: int | None
) -> dict[int, int]:
    """Hashes pictures at their own size, where another file may hold the same.

    Args:
      tree: of the files.
      decoded: the pictures, all at one size.
      bits: as in `pictures.decode`.

    Returns:
      The hash of the pixels, by the hash of the file.
    """

    def look(content: bytes) -> int:
        return _look(pictures.decode(io.BytesIO(content), None, bits=bits).pixels)

    names = _alike(decoded)
    return {
        decoded[name].file_hash: result
        for name, result in _of_each(tree, names, look, "comparing")
        if isinstance(result, int)
    }


def _alike(decoded: Mapping[str, _Picture]) -> list[str]:
    """Returns those whose pixels may be another file's, one name for each file.

    Equal pixels are equal at the common size too, unless only one of the two was
    decoded in a hurry; those must at least have had the same size of their own.
    """
    by_look, by_size = {}, {}
    for name in {picture.file_hash: name for name, picture in decoded.items()}.values():
        picture = decoded[name]
        by_look.setdefault(_look(picture.pixels), []).append(name)
        hurried, others = by_size.setdefault(picture.own_size, ([], []))
        (hurried if picture.hurried else others).append(name)
    found = [names for names in by_look.values() if len(names) > 1]
    found += [[*one, *two] for one, two in by_size.values() if one and two]
    return sorted({name for names in found for name in names})


def _look(pixels: np.ndarray) -> int:
    """Hashes the pixels and the shape of a picture, grey as if it were in colour."""
    height, width, _ = pixels.shape
    colour = np.broadcast_to(pixels, (height, width, 3))
    return _hash(f"{height} {width} ".encode() + colour.tobytes())


def _of_each(
    tree: Tree, names: Sequence[str], make: Callable[[bytes], Made], doing: str
) -> Iterator[tuple[str, Made | Exception]]:
    """Yields what a function makes of the content of each file, or its error."""

    def made(name: str) -> Made | Exception:
        try:
            with tree.open(name) as file:
                content = file.read()
            return make(content)
        except DatasetError:
            raise
        except Exception as error:  # Pillow raises errors of every kind
            return error

    # Pillow decodes and resizes outside of Python's lock: threads are enough.
    with (
        warnings.catch_warnings(),
        concurrent.futures.ThreadPoolExecutor() as pool,
        tqdm(total=len(names), desc=doing, disable=None if names else True) as bar,
    ):
        warnings.simplefilter("ignore")  # Pillow's, about damaged metadata
        for start in range(0, len(names), _BLOCK):
            block = names[start : start + _BLOCK]
            yield from zip(block, pool.map(made, block), strict=True)
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
