"""CIFAR-10: 50,000 + 10,000 photographs, 32x32 in colour, of ten things."""

import pickle
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from camri_jax.datasets import pictures
from camri_jax.datasets.published.builder import PictureBuilder, official, verify

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"  # see checksums.tsv
MD5S = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}


class Builder(PictureBuilder):
    """CIFAR-10 from its Python archive, or from the directory it unpacks to."""

    name = "camri_cifar10"

    def _info(self) -> tfds.core.DatasetInfo:
        return self.picture_info((32, 32, 3), "png")

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> Any:
        source = official(dl_manager) / "cifar-10-batches-py"
        if source.is_dir():
            for name, md5 in MD5S.items():
                verify(source / name, md5, URL)
        else:
            source = Path(dl_manager.download(URL))
        *train, test = MD5S
        return {
            "train": self._generate_examples(source, train),
            "test": self._generate_examples(source, [test]),
        }

    def _generate_examples(
        self, source: Path, names: Sequence[str]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        for name in names:
            # A pickle can run any code: it is opened only once its checksum matches.
            batch = pickle.loads(_read(source, name), encoding="bytes")
            images = batch[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            for i, label in enumerate(batch[b"labels"]):
                image = pictures.encode(np.ascontiguousarray(images[i]))
                yield f"{name}-{i}", {"image": image, "label": label}


def _read(source: Path, name: str) -> bytes:
    if source.is_dir():
        return (source / name).read_bytes()
    with tarfile.open(source) as archive:
        member = archive.extractfile(f"cifar-10-batches-py/{name}")
        assert member is not None
        return member.read()
