"""TFDS builder of GTSRB."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from camri_jax.datasets import gtsrb, pictures
from camri_jax.datasets.builder import PictureBuilder
from camri_jax.datasets.dataset import DatasetError
from camri_jax.datasets.official import download, verify
from camri_jax.datasets.trees import Tree, open_tree

# Both layouts: as the official archives unpack, and the one that is passed around.
_TABLES = {
    "train": re.compile(r"(.*/)?GT-\d{5}\.csv|Train\.csv"),
    "test": re.compile(r"(.*/)?GT-final_test\.csv|Test\.csv"),
}
_PICTURES = {
    "train": re.compile(r"(.*/)?Final_Training/Images/.*\.ppm|Train/.*\.png"),
    "test": re.compile(r"(.*/)?Final_Test/Images/.*\.ppm|Test/.*\.png"),
}
_KEY_PARTS = {"train": 2, "test": 1}  # class folder and file name; file name


class Builder(PictureBuilder, skip_registration=True):
    """GTSRB from the official archives, or from either layout they are unpacked to."""

    def _info(self) -> tfds.core.DatasetInfo:
        return self.picture_info(gtsrb.CLASS_NAMES, (None, None, 3), group=np.int64)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> Any:
        if self.source is None:
            train, test, truth = download(dl_manager, gtsrb.ARCHIVES, self.name)
        elif self.source.suffix == ".zip":
            paths = [self.source.parent / file.name for file in gtsrb.ARCHIVES]
            for path, file in zip(paths, gtsrb.ARCHIVES, strict=True):
                verify(path, file)
            train, test, truth = paths
        else:
            train = test = truth = self.source
        return {
            "train": self._generate_examples("train", train, train),
            "test": self._generate_examples("test", test, truth),
        }

    def _generate_examples(
        self, part: str, source: Path, truth: Path
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        with open_tree(truth) as tables:
            labels = _read_labels(part, tables, truth)
        with open_tree(source) as tree:
            names = filter(_PICTURES[part].fullmatch, tree.names)
            pictures_by_key = {_key(part, name): name for name in names}
            _compare(part, pictures_by_key, labels, source)
            for label, key in sorted((label, key) for key, label in labels.items()):
                yield (
                    key,
                    {
                        "image": _read_picture(tree, pictures_by_key[key], source),
                        "label": label,
                        "group": _track(key, label) if part == "train" else 0,
                    },
                )


def _key(part: str, name: str) -> str:
    return "/".join(name.split("/")[-_KEY_PARTS[part] :])


def _track(key: str, label: int) -> int:
    """Numbers the track of a training frame, `.../[class_]track_frame.suffix`."""
    return label * 100_000 + int(key.split("_")[-2].split("/")[-1])


def _read_labels(part: str, tables: Tree, truth: Path) -> dict[str, int]:
    """Returns the class of each picture in the tables, by its key."""
    labels = {}
    for table in filter(_TABLES[part].fullmatch, tables.names):
        try:
            with tables.open(table) as file:
                lines = file.read().decode().splitlines()
            delimiter = ";" if ";" in lines[0] else ","
            for row in csv.DictReader(lines, delimiter=delimiter):
                beside = PurePosixPath(table).parent
                name = row.get("Path") or str(beside / row["Filename"])
                labels[_key(part, name)] = int(row["ClassId"])
        except (IndexError, KeyError, ValueError) as error:
            raise DatasetError(
                f"{truth}: {table} is not a table of GTSRB ({error!r}); unpack the "
                "official archives again"
            ) from error
    expected = gtsrb.NUM_EXAMPLES[part]
    if len(labels) != expected:
        raise DatasetError(
            f"{truth} has labels of {len(labels):,} {part} images, expected "
            f"{expected:,}; put all official {_TABLES[part].pattern} there"
        )
    return labels


def _compare(
    part: str, pictures_by_key: dict[str, str], labels: dict[str, int], source: Path
) -> None:
    """Refuses tables and pictures that do not belong together."""
    missing = sorted(labels.keys() - pictures_by_key.keys())
    unlabelled = sorted(pictures_by_key.keys() - labels.keys())
    misplaced = [
        key
        for key, label in labels.items()
        if "/" in key and int(key.split("/")[0]) != label
    ]
    for keys, problem in (
        (missing, "are in the tables but not there"),
        (unlabelled, "are there but not in the tables"),
        (misplaced, "lie in the folder of another class than the tables say"),
    ):
        if keys:
            raise DatasetError(
                f"{source}: labels and {part} images disagree: {len(keys):,} images "
                f"{problem}, {keys[0]} first; unpack the official archives again"
            )


def _read_picture(tree: Tree, name: str, source: Path) -> bytes:
    try:
        with tree.open(name) as file:
            return pictures.encode(pictures.decode(file, None))
    except Exception as error:  # Pillow raises of every kind
        raise DatasetError(
            f"{source}: {name} cannot be read ({error}); unpack the official archives "
            "again"
        ) from error
