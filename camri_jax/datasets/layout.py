"""How a folder of pictures is read: which file belongs to which part and class."""

import dataclasses
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from camri_jax.datasets.dataset import PARTS, DatasetError, nearest, part_of, some
from camri_jax.datasets.pictures import is_picture


class Listing(NamedTuple):
    """The pictures of a data set before they are opened.

    Attributes:
      files: for each part that has a folder: the label of each file.
      class_names: the name of each label.
      inside: the path of each file from its class folder on, `CLASS/...`.
      notes: what was not read, and why.
    """

    files: dict[str, dict[str, int]]
    class_names: tuple[str, ...]
    inside: dict[str, str]
    notes: list[str]


@dataclasses.dataclass
class _Folder:
    folders: dict[str, "_Folder"] = dataclasses.field(default_factory=dict)
    pictures: int = 0  # directly in it

    def total(self) -> int:
        return self.pictures + sum(f.total() for f in self.folders.values())


def list_pictures(
    names: Sequence[str], *, learn: bool = True, known: Collection[str] = ()
) -> Listing:
    """Sorts files into parts and classes by the names of their folders.

    Args:
      names: paths of files, and of directories with a `/` at the end: `PART/CLASS/...`,
        or `CLASS/PART/...`, or only `CLASS/...`, perhaps all in one outer folder. A
        part is called train, validation, calibration or test, in any usual spelling.
      learn: whether a classifier is to learn from them, which takes two classes or more
        in train; else one class in any part is enough.
      known: names of folders that are classes; a single one would otherwise be taken
        for an outer folder.

    Returns:
      The pictures; there is always a part train.

    Raises:
      DatasetError: there are too few classes, one of them has nothing to learn from,
        or the folders can be read in two ways.

    Example:
      >>> list_pictures(["cat/1.png", "dog/1.png", "dog/2.jpg"]).class_names
      ('cat', 'dog')
    """
    # macOS writes accents as characters of their own; here a class has one spelling.
    paths = {n: unicodedata.normalize("NFC", n).split("/") for n in names}
    outer, top = _inside(_folders(paths), known)
    if top.pictures and len(top.folders) == 1:
        ((name, only),) = top.folders.items()
        if only.folders and not _part(name) and name not in known:
            raise DatasetError(
                f"{top.pictures} pictures lie beside {name!r}, the only folder: move "
                "them away, or into the folder of their class"
            )
    empty = [
        name
        for name, folder in top.folders.items()
        if _part(name) and not (folder.total() or folder.folders)
    ]
    for name in empty:
        del top.folders[name]
    doubled = _undouble(top)
    parts, by_class, notes = _reading(top, known)
    # Folders that are no part are reported as such.
    told = set(top.folders) - set(parts) if parts and not by_class else set()
    notes += [f"the folder {name!r} is empty" for name in empty]
    places: dict[str, tuple[str, str]] = {}
    inside, strange, stray = {}, [], []
    for name, path in paths.items():
        steps = path[len(outer) :] if path[: len(outer)] == outer else []
        if steps[0:1] and steps[0] in doubled:
            steps = steps[:1] + steps[2:]
        unread = bool(steps) and steps[0] in empty
        place = None if unread else _place(steps, parts, by_class)
        picture = is_picture(name)
        if place is not None and (picture or name.endswith("/")):
            places[name] = place
            inside[name] = "/".join([place[1], *steps[1 if not parts else 2 :]])
        elif place is not None:
            strange.append(name)
        elif picture and not (len(steps) > 1 and steps[0] in told):
            stray.append(name)
    if strange:
        notes.append(f"{len(strange)} files are no pictures to Pillow: {some(strange)}")
    if stray:
        notes.append(f"{len(stray)} pictures lie in no class folder: {some(stray)}")
    class_names = _class_names(places.values(), notes, learn=learn)
    folded = [name.casefold() for name in class_names]
    if alike := [n for n in class_names if folded.count(n.casefold()) > 1]:
        notes.append(f"classes that differ only in case: {some(alike)}")
    labels = {name: i for i, name in enumerate(class_names)}
    found = {"train"} | {part for part, _ in places.values()}
    files = {
        part: {
            name: labels[class_name]
            for name, (of, class_name) in places.items()
            if of == part and not name.endswith("/")
        }
        for part in PARTS
        if part in found
    }
    return Listing(files, class_names, inside, notes)


def _place(
    steps: Sequence[str], parts: Mapping[str, str], by_class: bool
) -> tuple[str, str] | None:
    """Returns the part and class of a path, if it is in one."""
    if not parts:
        return ("train", steps[0]) if len(steps) > 1 else None
    if len(steps) < 3:
        return None
    part, class_name = (steps[1], steps[0]) if by_class else (steps[0], steps[1])
    return (parts[part], class_name) if part in parts else None


def _folders(paths: Mapping[str, Sequence[str]]) -> _Folder:
    top = _Folder()
    for name, steps in paths.items():
        folder = top
        for step in steps[:-1]:
            folder = folder.folders.setdefault(step, _Folder())
        folder.pictures += not name.endswith("/") and is_picture(name)
    return top


def _inside(top: _Folder, known: Collection[str]) -> tuple[list[str], _Folder]:
    """Goes through outer folders; returns them, and the one that holds the rest."""
    outer: list[str] = []
    while len(top.folders) == 1 and not top.pictures:
        ((name, only),) = top.folders.items()
        of_known = bool(only.folders) and set(only.folders) <= set(known)
        if name in known and not of_known:
            break
        holds_parts = bool(only.folders) and all(map(_part, only.folders))
        if only.pictures or not only.folders or (_part(name) and not holds_parts):
            break
        outer.append(name)
        top = only
    return outer, top


def _part(name: str) -> str | None:
    """Returns the part that a folder's name, or one word of it, stands for."""
    words = {part_of(word) for word in re.split(r"[\W_\d]+", name)} - {None}
    return part_of(name) or (words.pop() if len(words) == 1 else None)


def _undouble(top: _Folder) -> set[str]:
    """Drops the inner of two folders of one part, `train/train/CLASS`."""
    doubled = set()
    for name, folder in top.folders.items():
        if _part(name) and len(folder.folders) == 1 and not folder.pictures:
            ((inner, only),) = folder.folders.items()
            if _part(inner) == _part(name) and only.folders:
                top.folders[name] = only
                doubled.add(name)
    return doubled


def _reading(
    top: _Folder, known: Collection[str]
) -> tuple[dict[str, str], bool, list[str]]:
    """Finds the folders of parts.

    Returns:
      The part that each folder's name stands for, if there are any; whether they lie
      within the classes; and what a user should know.
    """
    folders = {name: f for name, f in top.folders.items() if f.total() or f.folders}
    inner = {name for folder in folders.values() for name in folder.folders}
    bare = not any(folder.pictures for folder in folders.values())
    certain = set(folders) <= set(known)
    if (len(folders) > 1 or certain) and bare and inner and all(map(_part, inner)):
        return _distinct({name: _part(name) or "" for name in inner}), True, []
    named = {name: part for name in folders if (part := _part(name))}
    parts = {name: part for name, part in named.items() if folders[name].folders}
    others = {name: f for name, f in folders.items() if name not in parts}
    if not parts:
        return {}, False, _read_as_classes(folders, named, certain=certain)
    inside = {name for part in parts for name in folders[part].folders}
    leaves = [n for n, f in others.items() if f.pictures and n not in named]
    if len(parts) == 1 and leaves:
        (part,) = parts
        raise DatasetError(
            f"the folders can be read in two ways: as the part {part!r} of the classes "
            f"{some(sorted(inside))}, beside which {some(leaves)} would not be read; "
            f"or as the classes {some(sorted(folders))}. For the first, move the other "
            f"folders away; for the second, put all into a folder 'train'"
        )
    notes = []
    for name, folder in others.items():
        why = "which is no name of a part"
        if name in named:
            why = "which has no class folders"
        elif inside & set(folder.folders):
            why += ": if it is one, call it validation, calibration or test"
        notes.append(f"{folder.total()} pictures are not read from {name!r}, {why}")
    return _distinct(parts), False, notes


def _read_as_classes(
    folders: Mapping[str, _Folder], named: Mapping[str, str], *, certain: bool
) -> list[str]:
    """Makes sure that folders can only be classes; returns what a user should know."""
    told = [f"the folder {n!r} is read as a class" for n in sorted(named) if part_of(n)]
    if certain:
        return told
    if named and len(named) == len(folders):
        raise DatasetError(
            f"pictures lie directly in {some(sorted(folders))}: if these are parts, a "
            "folder for each class is missing in them; if they are classes, put them "
            "into a folder 'train'"
        )
    parts = {of for f in folders.values() for n in f.folders if (of := _part(n))}
    if len(folders) > 1 and len(parts) > 1:
        raise DatasetError(_half_parted(folders))
    shared = set.intersection(
        *(set(f.folders) for f in folders.values() or [_Folder()])
    )
    if len(shared) > 1 and not any(f.pictures for f in folders.values()):
        names, inner = some(sorted(folders)), some(sorted(shared))
        raise DatasetError(
            f"the folders can be read in two ways: as parts called {names} of the "
            f"classes {inner}, or as classes called {names} with folders inside. For "
            "the first, call the parts train, validation, calibration or test; for the "
            "second, put the classes into a folder 'train'"
        )
    return told


def _half_parted(folders: Mapping[str, _Folder]) -> str:
    inner = {name for folder in folders.values() for name in folder.folders}
    parts = sorted(filter(_part, inner))
    odd = []
    if bare := sorted(name for name, folder in folders.items() if folder.pictures):
        odd.append(f"pictures lie directly in {some(bare)}")
    if others := sorted(inner - set(parts)):
        odd.append(f"{some(others)} is no part")
    return (
        f"the folders can be read in two ways: as classes with the parts {some(parts)} "
        f"inside, though {' and '.join(odd)}; or as classes whose folders inside mean "
        "nothing. For the first, move away what is in no part; for the second, put "
        "the classes into a folder 'train'"
    )


def _distinct(parts: dict[str, str]) -> dict[str, str]:
    for part in PARTS:
        if len(names := [name for name in parts if parts[name] == part]) > 1:
            raise DatasetError(
                f"the folders {some(sorted(names))} all stand for the part {part!r}; "
                "keep one of them, or put them together"
            )
    return parts


def _class_names(
    places: Iterable[tuple[str, str]], notes: Sequence[str], *, learn: bool
) -> tuple[str, ...]:
    """Returns the sorted class names, numbers by their value."""
    found = set(places)
    train = sorted({name for part, name in found if part == "train" or not learn})
    why = "".join(f"; {note}" for note in notes)
    if absent := sorted(found - {(part, name) for part, _ in found for name in train}):
        part, name = absent[0]
        hint = f"; {nearest(name, train)}" if train else ""
        raise DatasetError(
            f"class(es) {some(sorted({n for _, n in absent}))} lie only in {part!r}: "
            "there is nothing to learn them from; add training pictures or remove the "
            f"folder{hint}{why}"
        )
    if not learn and not train:
        raise DatasetError(
            "a class folder is needed, in one of a part or at the top; there is none"
            + why
        )
    if learn and len(train) < 2:
        raise DatasetError(
            "two or more class folders are needed, in 'train' or at the top; there is "
            f"{', '.join(train) or 'none'}{why}"
        )
    return tuple(sorted(train, key=int) if all(map(str.isdecimal, train)) else train)
