"""Pictures that occur more than once."""

import hashlib
from collections.abc import Callable, Mapping

import numpy as np

from camri_jax.datasets.dataset import Part, some


def fingerprints(images: np.ndarray) -> np.ndarray:
    """Hashes each image.

    Args:
      images: any dtype, `[n, ...]`.

    Returns:
      int64 `[n]`, equal for equal images.
    """
    hashes = (
        hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in images
    )
    return np.frombuffer(b"".join(hashes), np.int64)


def remarks(parts: Mapping[str, Part], name: Callable[[str, int], str]) -> list[str]:
    """Says which images are copies, and which of them mislead.

    Args:
      parts: the parts that the user made.
      name: names an image, given its part and its place there.

    Returns:
      A sentence on copies within a part and class, one for each pair of parts that
      share images, and one for images that are in two classes; groups that lie in two
      parts likewise.
    """
    notes, before = [], {}
    first: dict[int, tuple[str, int]] = {}
    for part, content in parts.items():
        groups = content.groups
        found: dict[str, list[str]] = {}
        copied = np.zeros(len(content.labels), bool)
        alike = []
        for i, value in enumerate(fingerprints(content.images).tolist()):
            other, j = first.setdefault(value, (part, i))
            same = content.labels[i] == parts[other].labels[j]
            copied[i] = other != part
            # Pictures that are equal only at a small size count separately.
            one = groups is not None and other == part and groups[i] == groups[j]
            if one and same and i != j:
                alike.append(f"{name(part, i)} = {name(part, j)}")
            if other != part or not same:
                text = f"{name(part, i)} = {name(other, j)}"
                found.setdefault(other, []).append(text)
        if alike:
            notes.append(
                f"{len(alike)} {part} images are copies of others of their class, with "
                f"which they count as one: {some(alike)}"
            )
        for other, pairs in found.items():
            notes.append(
                f"{len(pairs)} {part} images are copies of {other} images"
                + (
                    f" in another class: {some(pairs)}"
                    if other == part
                    else f", so that results flatter: {some(pairs)}"
                )
            )
        for other, theirs in before.items():
            # A copy is in one group with its original, which was reported above.
            both = [] if groups is None else np.intersect1d(groups[~copied], theirs)
            if len(both):
                notes.append(f"{len(both)} groups lie both in {other} and in {part}")
        if groups is not None:
            before[part] = groups
    return notes
