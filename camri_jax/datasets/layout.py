"""How a folder of pictures is read: which file belongs to which part and class."""

import posixpath
import unicodedata
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from PIL import Image

from camri_jax.datasets.dataset import DatasetError


class Listing(NamedTuple):
    """The pictures of a data set before they are opened.

    Attributes:
      files: for `train`, and for `test` if there is one: the label of each file.
      class_names: the name of each label.
      ignored: files that are no pictures, and pictures that lie in no class.
    """

    files: dict[str, dict[str, int]]
    class_names: tuple[str, ...]
    ignored: list[str]


def list_pictures(names: Sequence[str]) -> Listing:
    """Sorts files into parts and classes by the names of their folders.

    Args:
      names: paths of files, and of directories with a `/` at the end:
        `train/CLASS/...` and `test/CLASS/...`, or only `CLASS/...`, perhaps all in one
        outer folder.

    Returns:
      The pictures.

    Raises:
      DatasetError: there are fewer than two classes, or one only in the test part.

    Example:
      >>> list_pictures(["cat/1.png", "dog/1.png", "dog/2.jpg"]).class_names
      ('cat', 'dog')
    """
    places = _places(names)
    found = {place for place in places.values() if place}
    class_names = _class_names(found)
    files = {part: {} for part in ("train", "test") if part in dict(found)}
    ignored = []
    for name, place in places.items():
        if name.endswith("/"):
            continue
        if place and _is_picture(name):
            part, class_name = place
            files[part][name] = class_names.index(class_name)
        elif place or _is_picture(name):
            ignored.append(name)
    return Listing(files, class_names, ignored)


def _places(names: Sequence[str]) -> dict[str, tuple[str, str] | None]:
    """Returns the part and class that each file or directory is in, if it is in one."""
    outer = _outer_folder(names)
    paths = {name: name.removeprefix(outer).split("/") for name in names}
    parts = {path[0].lower() for path in paths.values()} & {"train", "test"}
    if not parts:
        paths = {name: ["train", *path] for name, path in paths.items()}
    # macOS spells accents as letters of their own; here a class has one spelling.
    return {
        name: (path[0].lower(), unicodedata.normalize("NFC", path[1]))
        if path[0].lower() in (parts or {"train"}) and len(path) > 2
        else None
        for name, path in paths.items()
    }


def _outer_folder(names: Sequence[str]) -> str:
    """Returns the folder around the classes or around `train` and `test`, or ''."""
    holders = {posixpath.dirname(name) for name in names if _is_picture(name)}
    empty = {name[:-1] for name in names if name.endswith("/")}
    empty -= {posixpath.dirname(name.rstrip("/")) for name in names}
    outer = posixpath.commonpath(holders | empty) if holders | empty else ""
    while outer and (
        outer in holders | empty or {"train", "test"} & set(outer.lower().split("/"))
    ):
        outer = posixpath.dirname(outer)
    return f"{outer}/" if outer else ""


def _is_picture(name: str) -> bool:
    format_name = Image.registered_extensions().get(PurePosixPath(name).suffix.lower())
    return format_name in Image.OPEN


def _class_names(found: set[tuple[str, str]]) -> tuple[str, ...]:
    """Returns the sorted class names, numbers by their value."""
    train = {class_name for part, class_name in found if part == "train"}
    if only_test := {class_name for _, class_name in found} - train:
        raise DatasetError(
            f"class(es) {', '.join(sorted(only_test))} lie only in 'test': there is "
            "nothing to learn them from; add training pictures or remove the folder"
        )
    if len(train) < 2:
        raise DatasetError(
            "two or more class folders are needed, in 'train' or at the top; there is "
            f"{', '.join(train) or 'none'}"
        )
    numbers = all(name.isdecimal() for name in train)
    return tuple(sorted(train, key=int) if numbers else sorted(train))
