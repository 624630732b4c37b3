"""Animals with Attributes 2: 37,322 photographs of fifty kinds of animals.

AwA2 is published without a split into train and test for ordinary classification, and
the paper gives only the sizes of its own. The split here is this project's.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from camri_jax.datasets.dataset import DatasetError
from camri_jax.datasets.published.builder import PictureBuilder, fetch, official
from camri_jax.datasets.trees import open_tree

URL = "https://cvml.ista.ac.at/AwA2"
MD5S = {"AwA2-data.zip": "eaa27cf799d5cf55af372356d7281b5e"}
NUM_EXAMPLES = {"train": 26_157, "test": 11_165}
_PHOTOGRAPH = re.compile(r"(.*/)?JPEGImages/[^/]+/[^/]+\.jpg")


class Builder(PictureBuilder):
    """AwA2 from its archive, which is never unpacked, or from a directory.

    The records hold the photographs as published.
    """

    name = "camri_awa2"

    def _info(self) -> tfds.core.DatasetInfo:
        return self.picture_info((None, None, 3), "jpeg", file=tfds.features.Text())

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> Any:
        source = official(dl_manager) / "Animals_with_Attributes2"
        if not source.is_dir():
            (source,) = fetch(dl_manager, URL, MD5S)
        with open_tree(source) as tree:
            names = [name for name in tree.names if _PHOTOGRAPH.fullmatch(name)]
        features: Any = self.info.features
        _check(names, source, features["label"].names)
        return {
            part: self._generate_examples(source, members)
            for part, members in split(names).items()
        }

    def _generate_examples(
        self, source: Path, members: Sequence[str]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        with open_tree(source) as tree:
            for name in members:
                with tree.open(name) as file:
                    record = {"image": file.read(), "label": _class_name(name)}
                yield name, {**record, "file": name}


def split(names: Sequence[str]) -> dict[str, list[str]]:
    """Divides the pictures, always in the same way.

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


def _class_name(name: str) -> str:
    return name.split("/")[-2].replace("+", " ")


def _check(names: Sequence[str], source: Path, classes: Sequence[str]) -> None:
    """Refuses anything but the whole data set."""
    total = sum(NUM_EXAMPLES.values())
    if len(names) != total:
        raise DatasetError(
            f"{source} has {len(names):,} photographs, expected {total:,}; fetch "
            f"{URL} again"
        )
    if strange := {_class_name(name) for name in names} ^ set(classes):
        raise DatasetError(
            f"{source}: photographs and classes disagree about "
            f"{', '.join(sorted(strange))}; "
            f"fetch {URL} again"
        )
