"""What commands read alike: types of options, data sets, directories, results."""

import contextlib
import dataclasses
import hashlib
import io
import itertools
import os
import re
import shlex
import tempfile
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec

from camri_jax import datasets
from camri_jax._files import (
    TryAgain,
    UsageError,
    address,
    is_local,
    may_pass,
    put,
)
from camri_jax.cli.console import note, say
from camri_jax.datasets import Dataset
from camri_jax.datasets.pictures import FolderFit
from camri_jax.evidence import study
from camri_jax.evidence.statistics import ACCURACY_MARGIN
from camri_jax.evidence.study import Study
from camri_jax.training.methods import number
from camri_jax.training.recipe import Recipe

Arguments = TypeVar("Arguments")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataArguments:
    """A data set and its parts.

    Attributes:
      dataset: digits, mnist, cifar10, gtsrb, awa2, folder:PATH (also of a .zip) or
        npz:FILE, of arrays images (or features), labels and class_names.
      data_dir: Directory of the data set's official files; else $CAMRI_DATA_DIR, else
        they are downloaded.
      image_size: Height and width that images are resized to, in pixels; else the data
        set's own, and 64 for folder:PATH.
      fit: How pictures of folder:PATH become square: padded with black, or cropped.
      groups: Pattern to search for in the file names of folder:PATH; pictures of equal
        matches (of parentheses, if it has any) belong together and are never parted.
      validation_fraction: Share of the training images held out to pick settings and
        offsets on.
      calibration_fraction: Share held out to certify a recall on.
      split_seed: Chooses the images that are held out.
    """

    dataset: str = "digits"
    data_dir: Path | None = None
    image_size: int | None = None
    fit: FolderFit = "pad"
    groups: str | None = None
    validation_fraction: float = 0.2
    calibration_fraction: float = 0.0
    split_seed: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResultsArguments:
    """What a sweep wrote, and what is asked of it.

    Attributes:
      results: Directory that a sweep wrote.
      dataset: The data set, if there are rows of several.
      important: Choices of important classes, by name or index: "cat dog" are two
        choices, "cat+dog" is one of two classes; else those that were trained for.
      where: Settings to keep, such as epochs=60, if there are rows of several.
      output: Directory to write to; else RESULTS.
    """

    results: tyro.conf.Positional[Path]
    dataset: str | None = None
    important: tuple[str, ...] = ()
    where: tuple[str, ...] = ()
    output: Path | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class JudgedArguments(ResultsArguments):
    """The same, and what counts as a loss.

    Attributes:
      accuracy_margin: Loss of accuracy that counts as none.
    """

    accuracy_margin: float = ACCURACY_MARGIN


def load(arguments: DataArguments) -> Dataset:
    """Loads a data set.

    Args:
      arguments: what and where.

    Raises:
      UsageError: it cannot be loaded.
    """
    return datasets.load(
        arguments.dataset,
        data_dir=arguments.data_dir,
        image_size=arguments.image_size,
        fit=arguments.fit,
        groups=arguments.groups,
        validation_fraction=arguments.validation_fraction,
        calibration_fraction=arguments.calibration_fraction,
        seed=arguments.split_seed,
    )


def read(arguments: ResultsArguments) -> tuple[Study, Path]:
    """Reads what a sweep wrote, and prints notes on it.

    Args:
      arguments: which and what of it.

    Returns:
      The study, and the directory to write to.

    Raises:
      UsageError: there are no such rows, or no such place to write to.
    """
    output = writable(arguments.output or arguments.results)
    found = study.load(
        arguments.results,
        dataset=arguments.dataset,
        important=arguments.important or None,
        where=arguments.where,
    )
    for text in study.notes(found):
        note(text)
    return found, output


def directory(
    given: Path | None, dataset: str, parent: str = "results", *, probe: bool = True
) -> Path:
    """Returns where results go: what was given, or a folder named for the data set.

    Args:
      given: by the user.
      dataset: name of the data set.
      parent: of the folder.
      probe: whether to write there and remove it, to see whether it can be written to.

    Raises:
      UsageError: nothing can be written there.

    >>> directory(None, "folder:my/signs")
    PosixPath('results/folder_my_signs')
    """
    return writable(given or Path(parent, file_name(dataset)), probe=probe)


def file_name(text: str) -> str:
    r"""Returns a name that every file system accepts.

    Args:
      text: any; long ones are cut, and told apart by a hash.

    >>> file_name(r"npz:C:\data/a b.npz"), len(file_name("a" * 300))
    ('npz_C_data_a_b.npz', 80)
    """
    name = re.sub(r"[^\w.-]+", "_", text)
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    if len(name.encode("utf-8", "replace")) > 80:
        name = f"{name[:40]}_{digest}_{name[-30:]}"
    # Letters of other alphabets take more than one byte.
    return name if len(name.encode("utf-8", "replace")) <= 240 else digest


def writable(path: Path, *, probe: bool = True) -> Path:
    """Returns a directory that exists or can be made.

    Args:
      path: to it, or a URL of a store.
      probe: whether to write to the store, or to where the directory will be made, and
        remove what was written.

    Raises:
      TryAgain: it is in a store that cannot be reached just now.
      UsageError: it is a file, or cannot be written to.
    """
    if not is_local(path):
        if probe:
            _probe(path)
        return path
    nearest = next(p for p in (path, *path.absolute().parents) if os.path.lexists(p))
    if not nearest.is_dir():
        raise UsageError(f"{nearest} is not a directory: nothing can be written there")
    if not os.access(nearest, os.W_OK):
        raise UsageError(f"{nearest} may not be written to")
    if probe and nearest != path:
        # Not every file system that lets one write has room for a directory.
        try:
            with tempfile.TemporaryDirectory(dir=nearest):
                pass
        except OSError as error:
            raise UsageError(
                f"{path} cannot be made in {nearest}: {error.strerror}"
            ) from error
    return path


def _probe(store: Path) -> None:
    """Writes to a store before long work does, and removes what was written."""
    place = store / ".camri_jax_probe"
    try:
        put(place, b"")
    except Exception as error:  # stores raise errors of every kind
        kind = TryAgain if may_pass(error) else UsageError
        raise kind(f"{store} cannot be written to: {error}") from error
    with contextlib.suppress(Exception):  # not all who may write may remove
        place.unlink()


def parse(
    kind: type[Arguments],
    argv: Sequence[str],
    description: str | None,
    command: str,
    default: Arguments | None = None,
) -> Arguments:
    """Reads a command line.

    Args:
      kind: dataclass of the arguments.
      argv: the words behind the command.
      description: of the command, for `--help`.
      command: its name.
      default: values of what is not given.

    Raises:
      UsageError: it cannot be read.
    """
    names = [w.partition("=")[0].replace("_", "-") for w in argv if w.startswith("--")]
    for name in _lists(kind):
        if names.count(name) > 1:
            raise UsageError(
                f"{name} is given twice, of which only the last would count; give all "
                f"values after one {name}"
            )
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            options: Any = {} if default is None else {"default": default}
            return tyro.cli(
                kind,
                args=list(argv),
                prog=f"camri {command}",
                description=description,
                config=(
                    tyro.conf.OmitArgPrefixes,
                    tyro.conf.PositionalMetavarFromFieldName,
                ),
                registry=_registry(),
                **options,
            )
    except BrokenPipeError:
        # The reader of the help has seen enough of it, as `head` has.
        raise SystemExit(0) from None
    except SystemExit as end:
        if not end.code:
            raise
        raise UsageError(
            f"{_sentence(said.getvalue())}; camri {command} --help tells more"
        ) from None


def _lists(kind: Any) -> Iterator[str]:
    """Options that take several values, of a dataclass and of those in it."""
    for name, field in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(field):
            yield from _lists(field)
        elif typing.get_origin(field) in (tuple, Mapping):
            yield "--" + name.replace("_", "-")


def _sentence(box: str) -> str:
    """What tyro says about a mistake, without its frame and its help."""
    lines = [line.strip("╭╮╰╯│| ─-+").strip() for line in box.splitlines()[1:]]
    # Without letters for a frame, a rule stands below the title.
    lines = list(itertools.dropwhile(lambda line: not line, lines))
    head = " ".join(itertools.takewhile(bool, lines))
    unknown = re.search(r"Unrecognized options: (\S+)", head)
    if unknown:
        option = unknown[1].strip(",")
        near = re.findall(r"(?<=\s)--[a-z][\w-]*", box.partition("Perhaps")[2])
        near = [name for name in dict.fromkeys(near) if name != "--help"]
        meant = f"; did you mean {' or '.join(near[:3])}?" if near else ""
        kind = "option" if option.startswith("-") else "place for"
        return f"there is no {kind} {option}{meant}"
    if missing := re.match(r"Missing from [^:]+: (\S+)", head):
        return f"{missing[1].strip('[]')} is missing"
    head = re.sub(r"(Missing value for argument \S+)\. Expected 1 values?", r"\1", head)
    # A group of options has no name that a user would know.
    return re.sub(r"^Error parsing ([a-z_.]+: )?", "", head).rstrip(".")


def preset(argv: Sequence[str], presets: Collection[str], default: str) -> str:
    """Returns the preset that a command line names, on whose values it is read.

    Args:
      argv: the words behind the command.
      presets: the names that exist.
      default: where none of them is named.

    Raises:
      UsageError: several are named.

    >>> preset(["--epochs", "3", "--preset=fast"], ("fast", "light"), "light")
    'fast'
    """
    joined = [word.partition("=")[2] for word in argv if word.startswith("--preset=")]
    after = [b for a, b in itertools.pairwise(argv) if a == "--preset"]
    if len(joined + after) > 1:
        raise UsageError(f"--preset is given twice, as {' and '.join(joined + after)}")
    return next((name for name in joined + after if name in presets), default)


def without_mirroring(recipe: Recipe, preset: Recipe, dataset: Dataset) -> Recipe:
    """Returns a recipe that mirrors no pictures whose class may change by it.

    Args:
      recipe: as the command line has it.
      preset: that it started from; any other mirroring was asked for.
      dataset: the pictures.
    """
    own = recipe.augment_flip == preset.augment_flip != "none"
    if dataset.mirror or not own:
        return recipe
    note("mirrored pictures may change their class here: none is mirrored")
    return dataclasses.replace(recipe, augment_flip="none")


def tell_next(model: Path, dataset: Dataset) -> None:
    """Prints what to do next with a model that was kept.

    Args:
      model: its directory.
      dataset: that it was trained on.
    """
    place = shlex.quote(str(model))
    pictures = dataset.train_images.ndim == 4
    say(
        f"next      camri predict {place} PICTURES"
        if pictures
        else f"next      camri check {place} npz:NEW"
    )


def grid(texts: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """Reads `NAME=VALUE,VALUE` texts.

    Args:
      texts: of the command line.

    Returns:
      Values by name.

    Raises:
      UsageError: a text is not of this form.

    >>> grid(["camri.scale=8,16"])
    {'camri.scale': (8.0, 16.0)}
    """
    found: dict[str, tuple[float, ...]] = {}
    for text in texts:
        name, equals, values = text.rpartition("=")
        if not equals or not name:
            raise UsageError(f"grid must be NAME=VALUE,VALUE,..., got {text!r}")
        found[name] = tuple(number(value) for value in values.split(","))
    return found


def _path(text: str) -> Path:
    if not text or "\0" in text:
        raise UsageError(f"must be a path, got {text!r}")
    return address(text)


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"must be a whole number, got {text!r}") from None


def _yes(text: str) -> bool:
    if text.lower() in ("yes", "no", "true", "false"):
        return text.lower() in ("yes", "true")
    raise UsageError(f"must be yes or no, got {text!r}")


_SINGLE: dict[Any, tuple[str, Callable[[str], Any]]] = {
    float: ("NUMBER", number),
    int: ("INT", _whole),
    Path: ("PATH", _path),
    str: ("TEXT", str),
    bool: ("[no]", _yes),
}
"""How one word is read: what help calls it, and what makes a value of it."""

_UNSET = ["unset"]  # what help calls the default of what is not given


def _spec(
    nargs: int | tuple[int, ...] | Literal["*"],
    metavar: str,
    make: Callable[[list[str]], Any],
    shown: Callable[[Any], list[str]],
) -> PrimitiveConstructorSpec:
    def made(texts: list[str]) -> Any:
        try:
            return make(texts)
        except UsageError as error:
            # What tyro knows as a mistake of the user's.
            raise ValueError(str(error)) from error

    return PrimitiveConstructorSpec(nargs, metavar, made, lambda value: True, shown)


def _registry() -> ConstructorRegistry:
    """Numbers as angles, paths with `~`, and what may be left out, in short words."""
    registry = ConstructorRegistry()

    @registry.primitive_rule
    def _(info: Any) -> PrimitiveConstructorSpec | None:
        kind = info.type
        parts = [part for part in typing.get_args(kind) if part is not type(None)]
        if kind == Mapping[str, tuple[float, ...]]:
            return _spec(
                "*", "NAME=VALUES ...", grid, lambda v: _grid_words(v) or _UNSET
            )
        if kind in _SINGLE and kind is not bool:
            metavar, make = _SINGLE[kind]
            return _spec(1, metavar, lambda t: make(t[0]), lambda v: [_word(v)])
        if typing.get_origin(kind) is tuple and parts[0] in _SINGLE:
            metavar, make = _SINGLE[parts[0]]
            return _spec(
                "*",
                f"{metavar} ...",
                lambda texts: tuple(map(make, texts)),
                lambda v: list(map(_word, v)) or _UNSET,
            )
        if typing.get_origin(kind) in (types.UnionType, typing.Union):
            if len(parts) == 1 and parts[0] in _SINGLE:
                metavar, make = _SINGLE[parts[0]]
                return _spec(
                    (0, 1) if parts[0] is bool else 1,
                    metavar,
                    lambda texts: make(texts[0]) if texts else True,
                    lambda v: _UNSET if v is None else [_word(v)],
                )
            if len(parts) == 1 and typing.get_origin(parts[0]) is Literal:
                choices = typing.get_args(parts[0])
                return dataclasses.replace(
                    _spec(1, "{" + ",".join(choices) + "}", "".join, lambda v: _UNSET),
                    choices=choices,
                )
            if parts == [int, Literal["auto"]]:
                return _spec(
                    1,
                    "INT|auto",
                    lambda t: t[0] if t[0] == "auto" else _whole(t[0]),
                    lambda v: [str(v)],
                )
        return None

    return registry


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _grid_words(values: Mapping[str, Sequence[float]]) -> list[str]:
    return [f"{name}={','.join(map(_word, own))}" for name, own in values.items()]
