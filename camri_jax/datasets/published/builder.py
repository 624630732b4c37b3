"""What the TFDS builders have in common, and how their records become arrays."""

import concurrent.futures
import contextlib
import hashlib
import io
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import requests
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import DownloadError
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
from tqdm import tqdm

from camri_jax.datasets import pictures, store
from camri_jax.datasets.dataset import DatasetError, Part, Unreachable, some

_BLOCK = 1024  # records read at a time
_MAX_BROKEN = 0.01


class _Info(tfds.core.DatasetInfo):
    """What TFDS knows about a data set, without asking its bucket on the network."""

    def initialize_from_bucket(self) -> None:
        """Does nothing; TFDS would also leave an empty temporary directory behind."""


class PictureBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Labelled pictures in official order; needs no TensorFlow."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "If you have the official files, put them here."

    def __init__(self, *, file_format: Any = "array_record", **kwargs: Any):
        # TFDS's own default needs TensorFlow.
        super().__init__(file_format=file_format or "array_record", **kwargs)

    def picture_info(
        self, shape: tuple[int | None, int | None, int], encoding: str, **features: Any
    ) -> tfds.core.DatasetInfo:
        """Describes records of one encoded picture and one label each.

        Args:
          shape: height, width (None: they differ) and channels.
          encoding: `png` or `jpeg`.
          **features: what else a record holds.

        Returns:
          The description that TFDS wants; class names come from the .txt file that is
          called as the module is.
        """
        image = tfds.features.Image(shape=shape, encoding_format=encoding)
        names = Path(__file__).with_name(type(self).__module__.rpartition(".")[2])
        label = tfds.features.ClassLabel(names_file=names.with_suffix(".txt"))
        return _Info(
            builder=self,
            features=tfds.features.FeaturesDict(
                {"image": image, "label": label, **features}
            ),
            disable_shuffling=True,
        )


def official(manager: tfds.download.DownloadManager) -> Path:
    """Returns where the user has the official files, if anywhere."""
    with contextlib.suppress(AssertionError):
        return Path(manager.manual_dir)
    return Path("nowhere")


def fetch(
    manager: tfds.download.DownloadManager, url: str, md5s: Mapping[str, str]
) -> list[Path]:
    """Finds or downloads files for which TFDS would need more than an md5 to check.

    Args:
      manager: of TFDS.
      url: of the folder in which they are published.
      md5s: of each file, by its name.

    Returns:
      Where each file lies.

    Raises:
      DatasetError: a file is missing or not the official one.
    """
    paths = [official(manager) / name for name in md5s]
    if not any(path.exists() for path in paths):
        found: Any = manager.download({name: f"{url}/{name}" for name in md5s})
        paths = [Path(found[name]) for name in md5s]
    for path, (name, md5) in zip(paths, md5s.items(), strict=True):
        try:
            verify(path, md5, f"{url}/{name}")
        except DatasetError:
            if path.parent != official(manager):
                path.unlink()  # TFDS would trust it the next time
                path.with_name(f"{path.name}.INFO").unlink(missing_ok=True)
            raise
    return paths


def verify(path: Path, md5: str, url: str) -> None:
    """Compares a file with its checksum.

    Args:
      path: the file on this machine.
      md5: of the official file.
      url: where to fetch it.

    Raises:
      DatasetError: it is missing, or not the official one.
    """
    if not path.is_file():
        raise DatasetError(f"{path} is missing (md5 {md5}); fetch it from {url}")
    with path.open("rb") as file:
        found = hashlib.file_digest(
            file, lambda: hashlib.md5(usedforsecurity=False)
        ).hexdigest()
    if found != md5:
        raise DatasetError(
            f"{path} is not the official file: {path.stat().st_size:,} bytes with md5 "
            f"{found}, expected {md5}; fetch it again from {url}"
        )


def write_records(
    builder: PictureBuilder, *, downloads: Path, official: Path | None
) -> None:
    """Lets TFDS download and prepare.

    Args:
      builder: with the directory to write to.
      downloads: where TFDS keeps what it downloads of this data set.
      official: where the user has the official files, or None.

    Raises:
      DatasetError: a file cannot be had, or is not the official one.
      OSError: the disk is full.
    """
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    config = tfds.download.DownloadConfig(manual_dir=official, try_download_gcs=False)
    # TFDS announces on the standard output, which belongs to the program that calls us.
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            if official is None and not any(downloads.glob("*")):
                # TFDS tries for minutes to reach a server; ask once first.
                requests.head(sys.modules[type(builder).__module__].URL, timeout=20)
            builder.download_and_prepare(
                download_dir=downloads,
                download_config=config,
            )
        except NonMatchingChecksumError as error:
            raise DatasetError(f"{error}; fetch it again") from error
        except (DownloadError, requests.RequestException) as error:
            said = re.search(r"HTTP code: (4(?!29))", str(error))
            kind = DatasetError if said else Unreachable
            raise kind(
                f"could not download {builder.name}: {error}; try again, or fetch the "
                "official files by hand and name their directory as data_dir or "
                "CAMRI_DATA_DIR"
            ) from error
        except RuntimeError as error:  # how the record writer reports a full disk
            raise OSError(str(error)) from error
        finally:  # of downloads that were cut short
            for left_over in downloads.glob("**/*.tmp.*"):
                shutil.rmtree(left_over, ignore_errors=True)


def write_arrays(builder: PictureBuilder, image_size: int, directory: Path) -> None:
    """Decodes prepared records to .npy files.

    Args:
      builder: whose records are prepared.
      image_size: height and width in pixels.
      directory: where to write.

    Raises:
      DatasetError: more than 1 % of the pictures cannot be read.
    """
    features: Any = builder.info.features
    decoders = {"image": cast(Any, tfds.decode.SkipDecoding)()}
    broken: list[str] = []
    parts = {}
    for part in ("train", "test"):
        source = cast(Any, builder).as_data_source(part, decoders=decoders)
        channels = features["image"].shape[-1]
        shape = len(source), image_size, image_size, channels
        store.refuse_what_does_not_fit(shape)
        images = np.empty(shape, np.uint8)
        labels, groups = np.empty((2, len(source)), np.int32)
        filled = 0
        for record, image in _decode(source, image_size, part):
            if isinstance(image, Exception):
                broken.append(f"{record['file'].decode()} ({image})")
                continue
            images[filled], labels[filled] = image, record["label"]
            groups[filled] = record.get("group", 0)
            filled += 1
        grouped = groups[:filled] if groups[:filled].any() else None
        parts[part] = Part(images[:filled], labels[:filled], grouped)
    total = sum(len(part.labels) for part in parts.values()) + len(broken)
    note = f"{len(broken)} of {total} photographs cannot be read: {some(broken)}"
    if len(broken) > _MAX_BROKEN * total:
        raise DatasetError(f"{note}; fetch {builder.name} again")
    names = features["label"].names
    store.write(directory, parts, names, notes=[note] if broken else [])


def _decode(
    records: Any, image_size: int, part: str
) -> Iterator[tuple[dict[str, Any], np.ndarray | Exception]]:
    def decode(record: dict[str, Any]) -> np.ndarray | Exception:
        try:
            return pictures.decode(io.BytesIO(record["image"]), image_size).pixels
        except Exception as error:  # Pillow raises errors of every kind
            return error

    # Records are compressed together: read one by one, each would cost its neighbours.
    with (
        concurrent.futures.ThreadPoolExecutor() as pool,
        tqdm(total=len(records), desc=f"decoding {part}", disable=None) as bar,
    ):
        for start in range(0, len(records), _BLOCK):
            places = range(start, min(start + _BLOCK, len(records)))
            block = records.__getitems__(list(places))
            yield from zip(block, pool.map(decode, block), strict=True)
            bar.update(len(block))
