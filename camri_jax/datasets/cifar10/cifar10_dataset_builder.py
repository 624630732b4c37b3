"""TFDS builder of CIFAR-10."""

import pickle
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from camri_jax.datasets import cifar10, pictures
from camri_jax.datasets.builder import PictureBuilder
from camri_jax.datasets.official import OfficialFile, download, verify


class Builder(PictureBuilder, skip_registration=True):
    """CIFAR-10 from its Python archive, or from the directory it unpacks to."""

    def _info(self) -> tfds.core.DatasetInfo:
        return self.picture_info(cifar10.CLASS_NAMES, (32, 32, 3))

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> Any:
        source = self.source or download(dl_manager, [cifar10.ARCHIVE], self.name)[0]
        if source.is_dir():
            for file in cifar10.TRAIN_FILES + cifar10.TEST_FILES:
                verify(source / file.name, file)
        else:
            verify(source, cifar10.ARCHIVE)
        return {
            "train": self._generate_examples(source, cifar10.TRAIN_FILES),
            "test": self._generate_examples(source, cifar10.TEST_FILES),
        }

    def _generate_examples(
        self, source: Path, files: Sequence[OfficialFile]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        for file in files:
            # A pickle can run any code: it is opened only after its checksum held.
            batch = pickle.loads(_read(source, file.name), encoding="bytes")
            images = batch[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            for i, label in enumerate(batch[b"labels"]):
                image = pictures.encode(np.ascontiguousarray(images[i]))
                yield f"{file.name}-{i}", {"image": image, "label": label}


def _read(source: Path, name: str) -> bytes:
    if source.is_dir():
        return (source / name).read_bytes()
    with tarfile.open(source) as archive:
        member = archive.extractfile(f"cifar-10-batches-py/{name}")
        assert member is not None
        return member.read()
