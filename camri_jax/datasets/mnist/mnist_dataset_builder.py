"""TFDS builder of MNIST."""

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from camri_jax.datasets import mnist, pictures
from camri_jax.datasets.builder import PictureBuilder
from camri_jax.datasets.official import OfficialFile, download, verify


class Builder(PictureBuilder, skip_registration=True):
    """MNIST from the official idx files, packed or not."""

    def _info(self) -> tfds.core.DatasetInfo:
        return self.picture_info(mnist.CLASS_NAMES, (28, 28, 1))

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> Any:
        if self.source is None:
            files = list(mnist.ARCHIVES.values())
            paths = download(dl_manager, files, self.name)
            packed = dict(zip(mnist.ARCHIVES, paths, strict=True))
        else:
            packed = {name: self.source / f"{name}.gz" for name in mnist.ARCHIVES}
        return {
            part: self._generate_examples(
                _read(self.source, images, packed), _read(self.source, labels, packed)
            )
            for part, (images, labels) in mnist.FILES.items()
        }

    def _generate_examples(
        self, images: bytes, labels: bytes
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        # idx: a header of 4 bytes and 4 more for each axis, then the numbers.
        pixels = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28, 1)
        for i, label in enumerate(np.frombuffer(labels, np.uint8, offset=8)):
            yield i, {"image": pictures.encode(pixels[i]), "label": int(label)}


def _read(source: Path | None, file: OfficialFile, packed: dict[str, Path]) -> bytes:
    if source is not None and (source / file.name).exists():
        verify(source / file.name, file)
        return (source / file.name).read_bytes()
    verify(packed[file.name], mnist.ARCHIVES[file.name])
    return gzip.decompress(packed[file.name].read_bytes())
