"""CIFAR-10: 50,000 + 10,000 photographs, 32x32 in colour, of ten things."""

from pathlib import Path

from camri_jax.datasets.dataset import Dataset, digest
from camri_jax.datasets.official import OfficialFile, find
from camri_jax.datasets.prepared import load_prepared

ARCHIVE = OfficialFile(
    "cifar-10-python.tar.gz",
    "c58f30108f718f92721af3b95e74349a",
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
)
TRAIN_FILES = (
    OfficialFile("data_batch_1", "c99cafc152244af753f735de768cd75f"),
    OfficialFile("data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec"),
    OfficialFile("data_batch_3", "54ebc095f3ab1f0389bbae665268c751"),
    OfficialFile("data_batch_4", "634d18415352ddfa80567beed471001a"),
    OfficialFile("data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb"),
)
TEST_FILES = (OfficialFile("test_batch", "40351d587109b95175f43aff81a1287e"),)
CLASS_NAMES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


def load(
    data_dir: Path | None, *, cache: Path, image_size: int | None = None
) -> Dataset:
    """Loads CIFAR-10 from the official files, downloaded if need be.

    Args:
      data_dir: a directory with `cifar-10-python.tar.gz` or `cifar-10-batches-py`, in
        itself or in a folder `cifar10`; None: download.
      cache: where prepared data are kept.
      image_size: height and width in pixels; None keeps 32.

    Returns:
      The data set, in official order.

    Raises:
      DatasetError: a file is missing, damaged, or not the official one.
    """

    def make_builder(**arguments):
        from camri_jax.datasets.cifar10 import cifar10_dataset_builder

        return cifar10_dataset_builder.Builder(**arguments)

    names = ("cifar-10-batches-py", ARCHIVE.name)
    return load_prepared(
        make_builder,
        cache=cache / "cifar10",
        # Whatever the source, the checksums leave only one content.
        key=digest(*(file.md5 for file in TRAIN_FILES + TEST_FILES)),
        image_size=image_size or 32,
        source=find(data_dir, ("cifar10", "CIFAR10", "cifar-10"), names),
    )
