"""What the TFDS builders have in common, and how their records become arrays."""

import contextlib
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from camri_jax.datasets import pictures, store

_BLOCK = 1024  # records read at a time


class _Info(tfds.core.DatasetInfo):
    """What TFDS knows of a data set, without asking its bucket on the network."""

    def initialize_from_bucket(self) -> None:
        """Does nothing; TFDS would also leave an empty temporary directory behind."""


class PictureBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Labelled pictures in official order; needs no TensorFlow.

    Args:
      source: the official files on this machine; None: download them.
      kwargs: of `tfds.core.GeneratorBasedBuilder`.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, source: Path | None = None, **kwargs: Any):
        self.source = source
        super().__init__(**kwargs)

    def picture_info(
        self,
        class_names: Sequence[str],
        shape: tuple[int | None, int | None, int],
        **features: Any,
    ) -> tfds.core.DatasetInfo:
        """Describes records of one PNG and one label each.

        Args:
          class_names: the name of each label.
          shape: height, width (None: they differ) and channels.
          **features: what else a record holds.

        Returns:
          The description that TFDS wants.
        """
        image = tfds.features.Image(shape=shape, encoding_format="png")
        label = tfds.features.ClassLabel(names=list(class_names))
        return _Info(
            builder=self,
            features=tfds.features.FeaturesDict(
                {"image": image, "label": label, **features}
            ),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )


def write_records(builder: PictureBuilder, downloads: Path) -> None:
    """Lets TFDS download and prepare.

    Args:
      builder: with the directory to write to.
      downloads: where TFDS keeps what it downloads.

    Raises:
      OSError: the disk is full.
    """
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    # TFDS announces on the standard output, which belongs to the program that calls us.
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            builder.download_and_prepare(
                download_dir=downloads,
                download_config=config,
                file_format="array_record",
            )
        except RuntimeError as error:  # how the record writer reports a full disk
            raise OSError(str(error)) from error


def write_arrays(builder: PictureBuilder, image_size: int, directory: Path) -> None:
    """Decodes prepared records to .npy files.

    Args:
      builder: whose records are prepared.
      image_size: height and width in pixels.
      directory: where to write.
    """
    features: Any = builder.info.features
    for part in ("train", "test"):
        decoders = {"image": tfds.decode.SkipDecoding()}
        records: Any = builder.as_data_source(part, decoders=decoders)  # pyright: ignore
        shape = len(records), image_size, image_size, features["image"].shape[-1]
        images, labels = np.empty(shape, np.uint8), np.empty(shape[0], np.int32)
        groups = np.empty(shape[0], np.int64) if "group" in features else None
        bar = tqdm(_each(records), f"decoding {part}", len(records), disable=None)
        for i, record in enumerate(bar):
            images[i] = pictures.decode(io.BytesIO(record["image"]), image_size)
            labels[i] = record["label"]
            if groups is not None:
                groups[i] = record["group"]
        store.write_part(directory, part, images, labels, groups)
    metadata = builder.info.metadata or {}
    store.write_about(directory, features["label"].names, **metadata)


def _each(records: Any) -> Iterator[dict[str, Any]]:
    # Records are compressed together: read one by one, each would cost its neighbours.
    for start in range(0, len(records), _BLOCK):
        stop = min(start + _BLOCK, len(records))
        yield from records.__getitems__(list(range(start, stop)))
