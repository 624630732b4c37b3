"""GTSRB: 39,209 + 12,630 photographs of German traffic signs of 43 kinds."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from camri_jax.datasets import pictures
from camri_jax.datasets.dataset import DatasetError
from camri_jax.datasets.published.builder import PictureBuilder, fetch, official
from camri_jax.datasets.trees import Tree, open_tree

URL = "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370"
MD5S = {  # not GTSRB-Training_fixed.zip, which is a smaller set
    "GTSRB_Final_Training_Images.zip": "f33fd80ac59bff73c82d25ab499e03a3",
    "GTSRB_Final_Test_Images.zip": "c7e4e6327067d32654124b0fe9e82185",
    "GTSRB_Final_Test_GT.zip": "fe31e9c9270bbcd7b84b7f21a9d9d9e5",
}
NUM_EXAMPLES = {"train": 39_209, "test": 12_630}

# Both layouts: as the official archives unpack, and the one that is passed around.
_TABLES = {
    "train": re.compile(r"(.*/)?GT-\d{5}\.csv|Train\.csv"),
    "test": re.compile(r"(.*/)?GT-final_test\.csv|Test\.csv"),
}
_TABLE_NAMES = {
    "train": "GT-00000.csv to GT-00042.csv, or Train.csv,",
    "test": "GT-final_test.csv, or Test.csv,",
}
_PICTURES = {
    "train": re.compile(
        r"(.*/)?Final_Training/Images/\d+/\d+_\d+\.ppm|Train/\d+/\d+_\d+_\d+\.png"
    ),
    "test": re.compile(r"(.*/)?Final_Test/Images/\d+\.ppm|Test/\d+\.png"),
}


class Builder(PictureBuilder):
    """GTSRB from the official archives, or from either layout they are unpacked to.

    The frames of one physical sign make a group.
    """

    name = "camri_gtsrb"

    def _info(self) -> tfds.core.DatasetInfo:
        return self.picture_info((None, None, 3), "png", group=np.int64)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> Any:
        source = official(dl_manager)
        if (source / "Final_Training").exists() or (source / "Train.csv").exists():
            train = test = truth = source
        else:
            train, test, truth = fetch(dl_manager, URL, MD5S)
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
            for key, label in sorted(labels.items()):
                image = _read_picture(tree, pictures_by_key[key], source)
                group = _track(key) if part == "train" else 0
                yield key, {"image": image, "label": label, "group": group}


def _key(part: str, name: str) -> str:
    """Returns `CLASS/TRACK_FRAME` or `NUMBER`, the same in both layouts."""
    path = PurePosixPath(name)
    if part == "test":
        return path.stem
    track, frame = path.stem.split("_")[-2:]
    return f"{int(path.parent.name):05d}/{track}_{frame}"


def _track(key: str) -> int:
    """Numbers the track of a training frame, `CLASS/TRACK_FRAME`."""
    class_number, track = key.split("_")[0].split("/")
    return int(class_number) * 100_000 + int(track)


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
    expected = NUM_EXAMPLES[part]
    if len(labels) != expected:
        raise DatasetError(
            f"{truth} has labels of {len(labels):,} {part} images, expected "
            f"{expected:,}; put {_TABLE_NAMES[part]} of the official archives there"
        )
    return labels


def _compare(
    part: str, pictures_by_key: dict[str, str], labels: dict[str, int], source: Path
) -> None:
    """Refuses tables and pictures that do not belong together."""
    missing = sorted(labels.keys() - pictures_by_key.keys())
    unlabelled = sorted(pictures_by_key.keys() - labels.keys())
    misplaced = [
        key for key, label in labels.items() if "/" in key and int(key[:5]) != label
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
            return pictures.encode(pictures.decode(file, None).pixels)
    except Exception as error:  # Pillow raises errors of every kind
        raise DatasetError(
            f"{source}: {name} cannot be read ({error}); unpack the official archives "
            "again"
        ) from error
