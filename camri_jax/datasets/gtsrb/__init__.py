"""GTSRB: 39,209 + 12,630 photographs of German traffic signs of 43 kinds."""

from pathlib import Path

from camri_jax.datasets.dataset import Dataset, digest
from camri_jax.datasets.official import OfficialFile, find
from camri_jax.datasets.prepared import load_prepared
from camri_jax.datasets.trees import open_tree

_URL = "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370"
# Not GTSRB-Training_fixed.zip, which is a smaller set.
ARCHIVES = tuple(
    OfficialFile(name, md5, f"{_URL}/{name}")
    for name, md5 in (
        ("GTSRB_Final_Training_Images.zip", "f33fd80ac59bff73c82d25ab499e03a3"),
        ("GTSRB_Final_Test_Images.zip", "c7e4e6327067d32654124b0fe9e82185"),
        ("GTSRB_Final_Test_GT.zip", "fe31e9c9270bbcd7b84b7f21a9d9d9e5"),
    )
)
NUM_EXAMPLES = {"train": 39_209, "test": 12_630}
CLASS_NAMES = (
    "speed limit 20",
    "speed limit 30",
    "speed limit 50",
    "speed limit 60",
    "speed limit 70",
    "speed limit 80",
    "end of speed limit 80",
    "speed limit 100",
    "speed limit 120",
    "no passing",
    "no passing for trucks",
    "priority at next intersection",
    "priority road",
    "yield",
    "stop",
    "no vehicles",
    "no trucks",
    "no entry",
    "general danger",
    "curve to the left",
    "curve to the right",
    "double curve",
    "bumpy road",
    "slippery road",
    "road narrows on the right",
    "road work",
    "traffic lights",
    "pedestrians",
    "children",
    "bicycles",
    "ice or snow",
    "wild animals",
    "end of all limits",
    "turn right",
    "turn left",
    "straight ahead",
    "straight ahead or right",
    "straight ahead or left",
    "keep right",
    "keep left",
    "roundabout",
    "end of no passing",
    "end of no passing for trucks",
)


def load(
    data_dir: Path | None, *, cache: Path, image_size: int | None = None
) -> Dataset:
    """Loads GTSRB from the official files, downloaded if need be.

    Frames of one physical sign make a group, so a validation split never cuts a track.

    Args:
      data_dir: a directory with the three official archives, or `GTSRB/Final_Training`
        and `GTSRB/Final_Test` unpacked from them, or `Train`, `Test`, `Train.csv` and
        `Test.csv`; in itself or in a folder `gtsrb` or `GTSRB`. None: download.
      cache: where prepared data are kept.
      image_size: height and width in pixels; None: 48, as in the paper. Frames are
        stretched to it.

    Returns:
      The data set: by class, track and frame.

    Raises:
      DatasetError: a file is missing, damaged, or not the official one.
    """

    def make_builder(**arguments):
        from camri_jax.datasets.gtsrb import gtsrb_dataset_builder

        return gtsrb_dataset_builder.Builder(**arguments)

    names = ("Final_Training", "Train.csv", ARCHIVES[0].name)
    source = find(data_dir, ("GTSRB", "gtsrb", "gtsrb/GTSRB"), names)
    key = digest(*(file.md5 for file in ARCHIVES))
    if source is not None and source.suffix != ".zip":
        source = source.parent
        with open_tree(source) as tree:  # unpacked files have no checksums
            key = tree.fingerprint
    return load_prepared(
        make_builder,
        cache=cache / "gtsrb",
        key=key,
        image_size=image_size or 48,
        source=source,
    )
