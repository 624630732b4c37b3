"""What commands read alike: types of numbers, data sets, directories."""

import dataclasses
import hashlib
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec

from camri_jax import datasets
from camri_jax._files import UsageError
from camri_jax.cli.console import note
from camri_jax.datasets import Dataset, DatasetWarning
from camri_jax.training.methods import number

Number = Annotated[
    float,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="NUMBER",
        instance_from_str=lambda texts: number(texts[0]),
        is_instance=lambda value: isinstance(value, int | float),
        str_from_instance=lambda value: [repr(value)],
    ),
]
"""A number, or an angle as `4pi/64`, `11.25deg` or `0.2rad`."""

Arguments = TypeVar("Arguments")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataArguments:
    """A data set and its parts.

    Attributes:
      dataset: digits, mnist, cifar10, gtsrb, awa2, folder:PATH or npz:FILE.
      data_dir: Directory of the data set's official files.
      image_size: Height and width that images are resized to, in pixels; None keeps
        the data set's own.
      fit: How pictures of folder:PATH become square: padded with black, or cropped.
      groups: Pattern that is searched in the file names of folder:PATH; pictures of
        equal text belong together and are never parted.
      validation_fraction: Share of the training images held out to pick settings and
        offsets on.
      calibration_fraction: Share held out to certify a recall on.
      split_seed: Chooses the images that are held out.
    """

    dataset: str = "digits"
    data_dir: Path | None = None
    image_size: int | None = None
    fit: Literal["pad", "crop"] = "pad"
    groups: str | None = None
    validation_fraction: float = 0.2
    calibration_fraction: float = 0.0
    split_seed: int = 0


def load(arguments: DataArguments) -> Dataset:
    """Loads a data set and prints its loader's warnings as notes.

    Args:
      arguments: what and where.

    Raises:
      UsageError: it cannot be loaded.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DatasetWarning)
        dataset = datasets.load(
            arguments.dataset,
            data_dir=arguments.data_dir,
            image_size=arguments.image_size,
            fit=arguments.fit,
            groups=arguments.groups,
            validation_fraction=arguments.validation_fraction,
            calibration_fraction=arguments.calibration_fraction,
            seed=arguments.split_seed,
        )
    for warning in caught:
        note(str(warning.message))
    return dataset


def directory(given: Path | None, dataset: str) -> Path:
    """Returns where results go: what was given, or a folder named for the data set.

    Args:
      given: by the user; `~` is expanded.
      dataset: name of the data set.

    >>> directory(None, "folder:my/signs")
    PosixPath('results/folder_my_signs')
    """
    if given is not None:
        return expanded(given)
    name = re.sub(r"[^\w.-]+", "_", dataset)
    if len(name) > 80:
        digest = hashlib.sha256(dataset.encode()).hexdigest()[:8]
        name = f"{name[:40]}_{digest}_{name[-20:]}"
    return Path("results", name)


def expanded(path: Path) -> Path:
    """Returns a path with its `~` expanded.

    Args:
      path: as a user gave it.

    Raises:
      UsageError: there is no home to expand it to.
    """
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise UsageError(f"{path}: {error}") from error


def parse(
    kind: type[Arguments],
    argv: Sequence[str],
    description: str | None,
    default: Arguments | None = None,
) -> Arguments:
    """Reads a command line.

    Args:
      kind: dataclass of the arguments.
      argv: the words behind the command.
      description: of the command, for `--help`.
      default: values of what is not given.
    """
    return tyro.cli(
        kind,
        args=list(argv),
        default=default,
        description=description,
        config=(tyro.conf.OmitArgPrefixes,),
        registry=_registry(),
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


def _registry() -> ConstructorRegistry:
    registry = ConstructorRegistry()

    @registry.primitive_rule
    def _(info: Any) -> PrimitiveConstructorSpec | None:
        if info.type != Mapping[str, tuple[float, ...]]:
            return None
        return PrimitiveConstructorSpec(
            nargs="*",
            metavar="[NAME=VALUES [NAME=VALUES ...]]",
            instance_from_str=grid,
            is_instance=lambda value: isinstance(value, Mapping),
            str_from_instance=lambda value: [
                f"{name}={','.join(map(repr, values))}"
                for name, values in value.items()
            ],
        )

    return registry
