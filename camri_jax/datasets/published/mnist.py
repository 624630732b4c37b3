"""MNIST: 60,000 + 10,000 handwritten digits, 28x28 in grey."""

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from camri_jax.datasets import pictures
from camri_jax.datasets.published.builder import PictureBuilder, official, verify

URL = "https://storage.googleapis.com/cvdf-datasets/mnist"  # see checksums.tsv
MD5S = {  # of the unpacked files
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


class Builder(PictureBuilder):
    """MNIST from the official idx files, packed or not."""

    name = "camri_mnist"

    def _info(self) -> tfds.core.DatasetInfo:
        return self.picture_info((28, 28, 1), "png")

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> Any:
        contents = [_read(dl_manager, name) for name in MD5S]
        return {
            "train": self._generate_examples(*contents[:2]),
            "test": self._generate_examples(*contents[2:]),
        }

    def _generate_examples(
        self, images: bytes, labels: bytes
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        # idx: a header of 4 bytes and 4 more for each axis, then the numbers.
        pixels = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28, 1)
        for i, label in enumerate(np.frombuffer(labels, np.uint8, offset=8)):
            yield i, {"image": pictures.encode(pixels[i]), "label": int(label)}


def _read(manager: tfds.download.DownloadManager, name: str) -> bytes:
    unpacked = official(manager) / name
    if unpacked.exists():
        verify(unpacked, MD5S[name], f"{URL}/{name}.gz")
        return unpacked.read_bytes()
    return gzip.decompress(Path(manager.download(f"{URL}/{name}.gz")).read_bytes())
