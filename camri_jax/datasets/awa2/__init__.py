"""Animals with Attributes 2: 37,322 photographs of fifty kinds of animals.

AwA2 is published without a split into train and test for ordinary classification, and
the paper gives only the sizes of its own. The split here, `SPLIT`, is this project's.
"""

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from camri_jax.datasets.dataset import Dataset, digest
from camri_jax.datasets.official import OfficialFile, find
from camri_jax.datasets.prepared import load_prepared
from camri_jax.datasets.trees import open_tree

ARCHIVE = OfficialFile(
    "AwA2-data.zip",
    "eaa27cf799d5cf55af372356d7281b5e",
    "https://cvml.ista.ac.at/AwA2/AwA2-data.zip",
)
SPLIT = "camri-jax split 1"
NUM_EXAMPLES = {"train": 26_157, "test": 11_165}
# In the order of the archive's classes.txt.
CLASS_NAMES = (
    "antelope",
    "grizzly bear",
    "killer whale",
    "beaver",
    "dalmatian",
    "persian cat",
    "horse",
    "german shepherd",
    "blue whale",
    "siamese cat",
    "skunk",
    "mole",
    "tiger",
    "hippopotamus",
    "leopard",
    "moose",
    "spider monkey",
    "humpback whale",
    "elephant",
    "gorilla",
    "ox",
    "fox",
    "sheep",
    "seal",
    "chimpanzee",
    "hamster",
    "squirrel",
    "rhinoceros",
    "rabbit",
    "bat",
    "giraffe",
    "wolf",
    "chihuahua",
    "rat",
    "weasel",
    "otter",
    "buffalo",
    "zebra",
    "giant panda",
    "deer",
    "bobcat",
    "pig",
    "lion",
    "mouse",
    "polar bear",
    "collie",
    "walrus",
    "raccoon",
    "cow",
    "dolphin",
)


def load(
    data_dir: Path | None, *, cache: Path, image_size: int | None = None
) -> Dataset:
    """Loads AwA2 from the official archive, downloaded if need be.

    Pictures are resized while the archive is read, by several processes. What they have
    done is kept, so that an interrupted preparation goes on where it was.

    Args:
      data_dir: a directory with `AwA2-data.zip` or `Animals_with_Attributes2`, in
        itself or in a folder `awa2`; None: download 13 GB.
      cache: where prepared data are kept.
      image_size: height and width in pixels; None: 64, as in the paper. Pictures are
        stretched to it.

    Returns:
      The data set, by class and file name.

    Raises:
      DatasetError: a file is missing, damaged, or not the official one.
    """
    names = ("Animals_with_Attributes2", ARCHIVE.name)
    source = find(data_dir, ("awa2", "AwA2"), names)
    content = ARCHIVE.md5
    if source is not None and source.is_dir():
        with open_tree(source) as tree:  # unpacked files have no checksums
            content = tree.fingerprint
    image_size = image_size or 64
    key = digest(content, SPLIT, str(image_size))
    scratch = cache / "awa2" / f"{key}-resized"

    def make_builder(**arguments):
        from camri_jax.datasets.awa2 import awa2_dataset_builder

        return awa2_dataset_builder.Builder(
            scratch=scratch, image_size=image_size, **arguments
        )

    dataset = load_prepared(
        make_builder,
        cache=cache / "awa2",
        key=key,
        image_size=image_size,
        source=source,
    )
    shutil.rmtree(scratch, ignore_errors=True)
    return dataset


def split(names: Sequence[str]) -> dict[str, list[str]]:
    """Divides the pictures as `SPLIT` does, for ever the same.

    Within each class the pictures are ordered by the SHA-256 of their names. Walking
    through class after class, the test part takes 11,165 of 37,322 at an even pace: all
    pictures give exactly the paper's sizes, and each class its share to within one.

    Args:
      names: paths that end in `CLASS/FILE`.

    Returns:
      The paths of `train` and `test`, in alphabetical order.

    Example:
      >>> split([f"ox/{i}.jpg" for i in range(7)])["test"]
      ['ox/3.jpg', 'ox/6.jpg']
    """
    share, total = NUM_EXAMPLES["test"], sum(NUM_EXAMPLES.values())

    def order(name: str) -> tuple[str, str]:
        class_name, file_name = name.split("/")[-2:]
        return class_name, hashlib.sha256(file_name.encode()).hexdigest()

    parts: dict[str, list[str]] = {"train": [], "test": []}
    for i, name in enumerate(sorted(names, key=order)):
        is_test = (i + 1) * share // total > i * share // total
        parts["test" if is_test else "train"].append(name)
    return {part: sorted(members) for part, members in parts.items()}
