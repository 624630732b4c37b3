"""The published data sets: TFDS prepares them once, `load_published` opens arrays.

Importing one of the modules in here registers its TFDS builder, for anyone to use:

    import camri_jax.datasets.published.gtsrb
    train = tfds.data_source("camri_gtsrb", split="train")
"""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from camri_jax.datasets import store
from camri_jax.datasets.dataset import Dataset, DatasetError, digest
from camri_jax.datasets.trees import open_tree

if TYPE_CHECKING:
    from camri_jax.datasets.published.builder import PictureBuilder

_FORMAT = "2"  # to be raised when the same files would be prepared differently


class _Published(NamedTuple):
    """What is known about a data set before its files are opened.

    Attributes:
      image_size: height and width in pixels, unless one asks for another.
      mirror: whether a mirrored picture keeps its class.
      folders: of the user's data directory, where its files may lie.
      files: any of which identifies the data set, with checksums of their own.
      unpacked: the same, but without checksums.
    """

    image_size: int
    mirror: bool
    folders: Sequence[str]
    files: Sequence[str]
    unpacked: Sequence[str] = ()


_MNIST = [
    f"{part}-{content}-ubyte{packed}"
    for packed in ("", ".gz")
    for part in ("train", "t10k")
    for content in ("images-idx3", "labels-idx1")
]
PUBLISHED = {
    "mnist": _Published(28, False, ("mnist", "MNIST", "MNIST/raw"), _MNIST),
    "cifar10": _Published(
        32,
        True,
        ("cifar10", "CIFAR10", "cifar-10"),
        ("cifar-10-batches-py", "cifar-10-python.tar.gz"),
    ),
    "gtsrb": _Published(
        48,
        False,
        ("GTSRB", "gtsrb", "gtsrb/GTSRB"),
        ("GTSRB_Final_Training_Images.zip",),
        ("Final_Training", "Train.csv"),
    ),
    "awa2": _Published(
        64,
        True,
        ("awa2", "AwA2"),
        ("AwA2-data.zip",),
        ("Animals_with_Attributes2",),
    ),
}
"""By their names."""


def load_published(
    name: str, data_dir: Path | None, *, cache: Path, image_size: int | None = None
) -> Dataset:
    """Loads a published data set from its official files.

    Args:
      name: in `PUBLISHED`.
      data_dir: a directory with the files, as published or unpacked, in itself or in a
        folder named after the data set; None: download them.
      cache: where prepared data are kept.
      image_size: height and width in pixels, to which pictures are stretched; None: as
        published, and as in the paper 48 for `gtsrb` and 64 for `awa2`.

    Returns:
      The data set, in official order.

    Raises:
      DatasetError: a file is missing, damaged, or not the official one.
    """
    facts = PUBLISHED[name]
    found = data_dir and _find(data_dir, facts)
    # Checksums allow only one content.
    content = "official"
    if found and found.name in facts.unpacked:
        source = found if found.is_dir() else found.parent
        with open_tree(source) as tree:
            content = tree.fingerprint
    key = digest(_FORMAT, content)
    size = image_size or facts.image_size
    arrays = cache / name / f"{key}-{size}px"
    if data_dir and not found and not arrays.is_dir():
        looked_for = ", ".join((*facts.unpacked, *facts.files))
        raise DatasetError(
            f"{data_dir} has no official files of {name}: neither it nor its folders "
            f"{', '.join(facts.folders)} hold any of {looked_for}; without a data "
            "directory they are downloaded"
        )

    records = cache / name / f"{key}-records"

    def make_builder(directory: Path) -> "PictureBuilder":
        module = importlib.import_module(f"camri_jax.datasets.published.{name}")
        return module.Builder(data_dir=directory)

    def write_records(directory: Path) -> None:
        from camri_jax.datasets.published import builder

        builder.write_records(
            make_builder(directory),
            downloads=cache / name / "downloads",
            official=found.parent if found else None,
        )

    def write_arrays(directory: Path) -> None:
        from camri_jax.datasets.published import builder

        store.build_once(records, write_records)
        builder.write_arrays(make_builder(records), size, directory)

    store.build_once(arrays, write_arrays)
    return store.read(arrays, name, mirror=facts.mirror)


def _find(data_dir: Path, facts: _Published) -> Path | None:
    for name in (*facts.unpacked, *facts.files):
        for folder in (data_dir, *(data_dir / folder for folder in facts.folders)):
            if (folder / name).exists():
                return folder / name
    return None
