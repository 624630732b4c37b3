"""The files of published data sets: found where the user has them, or downloaded."""

import hashlib
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from camri_jax.datasets import store
from camri_jax.datasets.dataset import DatasetError

if TYPE_CHECKING:
    import tensorflow_datasets as tfds


class OfficialFile(NamedTuple):
    """A published file.

    Attributes:
      name: its name.
      md5: the checksum of its bytes.
      url: where it is published; empty for a part of another file.
    """

    name: str
    md5: str
    url: str = ""


def find(
    data_dir: Path | None, folders: Sequence[str], names: Sequence[str]
) -> Path | None:
    """Looks for files that the user already has.

    Args:
      data_dir: the directory that the user named, or None.
      folders: folders of it to look into, besides itself.
      names: files or directories that give the data set away, the best first.

    Returns:
      The first of `names` that exists, or None.

    Raises:
      DatasetError: `data_dir` is no directory.
    """
    if data_dir is None:
        return None
    if not data_dir.is_dir():
        raise DatasetError(f"{data_dir}: there is no such data directory")
    for name in names:
        for folder in (data_dir, *(data_dir / folder for folder in folders)):
            if (folder / name).exists():
                return folder / name
    return None


def verify(path: Path, file: OfficialFile) -> None:
    """Compares a file with its checksum.

    Args:
      path: the file on this machine.
      file: what it should be.

    Raises:
      DatasetError: it is missing, or another.
    """
    if not path.is_file():
        raise DatasetError(f"{path} is missing (md5 {file.md5}){_fetch_again(file)}")
    md5 = _md5(path)
    if md5 != file.md5:
        raise DatasetError(
            f"{path} is not the official {file.name}: {_what_it_is(path)}; its md5 is "
            f"{md5}, expected {file.md5}{_fetch_again(file)}"
        )


def download(
    manager: "tfds.download.DownloadManager", files: Sequence[OfficialFile], name: str
) -> list[Path]:
    """Downloads files and compares them with their checksums.

    Args:
      manager: of TFDS; it keeps what it has downloaded.
      files: what to download.
      name: of the data set; TFDS keeps its downloads in a folder of this name.

    Returns:
      Where each file lies.

    Raises:
      DatasetError: a server cannot be reached, or sends something else.
    """
    folder = Path(manager.download_dir) / name
    with store.locked(folder):
        paths = _download(manager, files, folder)
        for path, file in zip(paths, files, strict=True):
            try:
                verify(path, file)
            except DatasetError:
                path.unlink()  # TFDS would take it for good the next time
                path.with_name(f"{path.name}.INFO").unlink(missing_ok=True)
                raise
    return paths


def _download(
    manager: "tfds.download.DownloadManager",
    files: Sequence[OfficialFile],
    folder: Path,
) -> list[Path]:
    import requests
    from tensorflow_datasets.core.download import DownloadError
    from tensorflow_datasets.core.download.download_manager import (
        NonMatchingChecksumError,
    )

    try:
        # TFDS tries for minutes to reach a server that does not exist; ask once first.
        requests.head(files[0].url, timeout=20)
        downloaded = manager.download({file.name: file.url for file in files})
    except (OSError, DownloadError, NonMatchingChecksumError) as error:
        urls = " ".join(file.url for file in files)
        raise DatasetError(
            f"could not download {folder.name}: {error}; try again, or fetch by hand "
            f"and name the directory with --data-dir or CAMRI_DATA_DIR: {urls}"
        ) from error
    finally:
        for left_over in folder.glob("*.tmp.*"):
            shutil.rmtree(left_over, ignore_errors=True)
    return [Path(downloaded[file.name]) for file in files]


def _md5(path: Path) -> str:
    from tqdm import tqdm

    state, size = hashlib.md5(), path.stat().st_size
    bar = tqdm(
        total=size,
        desc=f"checking {path.name}",
        unit="B",
        unit_scale=True,
        delay=2,
        disable=None,
    )
    with path.open("rb") as stream, bar:
        while block := stream.read(2**20):
            state.update(block)
            bar.update(len(block))
    return state.hexdigest()


def _what_it_is(path: Path) -> str:
    with path.open("rb") as stream:
        head = stream.read(256).lstrip()
    size = f"{path.stat().st_size:,} bytes"
    if head[:1] == b"<":
        return f"{size} of a web page, saved under an archive's name"
    if head[:2] == b"PK" and not zipfile.is_zipfile(path):
        return f"{size} of a .zip file that was cut short"
    return size


def _fetch_again(file: OfficialFile) -> str:
    return f"; fetch it again from {file.url}" if file.url else "; fetch it again"
