"""MNIST: 60,000 + 10,000 handwritten digits, 28x28 in grey."""

from pathlib import Path

from camri_jax.datasets.dataset import Dataset, digest
from camri_jax.datasets.official import OfficialFile, find
from camri_jax.datasets.prepared import load_prepared

_URL = "https://storage.googleapis.com/cvdf-datasets/mnist"
FILES = {
    "train": (
        OfficialFile("train-images-idx3-ubyte", "6bbc9ace898e44ae57da46a324031adb"),
        OfficialFile("train-labels-idx1-ubyte", "a25bea736e30d166cdddb491f175f624"),
    ),
    "test": (
        OfficialFile("t10k-images-idx3-ubyte", "2646ac647ad5339dbf082846283269ea"),
        OfficialFile("t10k-labels-idx1-ubyte", "27ae3e4e09519cfbb04c329615203637"),
    ),
}
ARCHIVES = {
    name: OfficialFile(f"{name}.gz", md5, f"{_URL}/{name}.gz")
    for name, md5 in {
        "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
    }.items()
}
CLASS_NAMES = tuple("0123456789")


def load(
    data_dir: Path | None, *, cache: Path, image_size: int | None = None
) -> Dataset:
    """Loads MNIST from the four official files, downloaded if need be.

    Args:
      data_dir: a directory with the files, as published (`.gz`) or unpacked, in itself
        or in a folder `mnist` or `MNIST/raw`; None: download.
      cache: where prepared data are kept.
      image_size: height and width in pixels; None keeps 28.

    Returns:
      The data set, in official order.

    Raises:
      DatasetError: a file is missing, damaged, or not the official one.
    """

    def make_builder(**arguments):
        from camri_jax.datasets.mnist import mnist_dataset_builder

        return mnist_dataset_builder.Builder(**arguments)

    unpacked = [file for part in FILES.values() for file in part]
    names = [file.name for file in (*unpacked, *ARCHIVES.values())]
    found = find(data_dir, ("mnist", "MNIST", "MNIST/raw"), names)
    return load_prepared(
        make_builder,
        cache=cache / "mnist",
        key=digest(*(file.md5 for file in unpacked)),
        image_size=image_size or 28,
        source=found and found.parent,
    )
