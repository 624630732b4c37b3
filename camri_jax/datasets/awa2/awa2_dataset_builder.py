"""TFDS builder of Animals with Attributes 2."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from camri_jax.datasets import awa2
from camri_jax.datasets.awa2.resize import read_broken, read_chunk, resize_all
from camri_jax.datasets.builder import PictureBuilder
from camri_jax.datasets.dataset import DatasetError
from camri_jax.datasets.official import download, verify
from camri_jax.datasets.trees import open_tree

_PHOTOGRAPH = re.compile(r"(.*/)?JPEGImages/[^/]+/[^/]+\.jpg")
_MAX_BROKEN = 0.01


class Builder(PictureBuilder, skip_registration=True):
    """AwA2 from its archive, which is streamed and never unpacked, or from a directory.

    Args:
      scratch: where resized photographs are kept until all are done.
      image_size: height and width in pixels.
      kwargs: of `PictureBuilder`.
    """

    def __init__(self, *, scratch: Path, image_size: int, **kwargs: Any):
        self.scratch, self.image_size = scratch, image_size
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        shape = (self.image_size, self.image_size, 3)
        return self.picture_info(awa2.CLASS_NAMES, shape)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> Any:
        source = self.source or download(dl_manager, [awa2.ARCHIVE], self.name)[0]
        if not source.is_dir():
            verify(source, awa2.ARCHIVE)
        with open_tree(source) as tree:
            names = [name for name in tree.names if _PHOTOGRAPH.fullmatch(name)]
        _check(names, source)
        chunks = resize_all(source, names, self.image_size, self.scratch)
        self._note_broken(chunks, len(names))
        return {
            part: self._generate_examples(chunks, set(members))
            for part, members in awa2.split(names).items()
        }

    def _note_broken(self, chunks: Sequence[Path], num_names: int) -> None:
        broken = [name for chunk in chunks for name in read_broken(chunk)]
        if len(broken) > _MAX_BROKEN * num_names:
            raise DatasetError(
                f"AwA2: {len(broken)} of {num_names} photographs cannot be read, more "
                f"than 1 %: {broken[0]} first; fetch the archive again"
            )
        if broken:
            note = f"AwA2: {len(broken)} photographs cannot be read and were skipped: "
            assert self.info.metadata is not None
            self.info.metadata["notes"] = [note + ", ".join(broken)]
            self.info.metadata["skipped"] = broken

    def _generate_examples(
        self, chunks: Sequence[Path], members: set[str]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        for chunk in chunks:
            for name, image in read_chunk(chunk):
                if name in members:
                    yield name, {"image": image, "label": _class_name(name)}


def _class_name(name: str) -> str:
    return name.split("/")[-2].replace("+", " ")


def _check(names: Sequence[str], source: Path) -> None:
    """Refuses anything but the whole data set."""
    total = sum(awa2.NUM_EXAMPLES.values())
    if len(names) != total:
        raise DatasetError(
            f"{source} has {len(names):,} photographs, expected {total:,}; fetch "
            f"{awa2.ARCHIVE.url} again"
        )
    if strange := {_class_name(name) for name in names} ^ set(awa2.CLASS_NAMES):
        raise DatasetError(
            f"{source}: photographs and classes disagree about "
            f"{', '.join(sorted(strange))}; "
            f"fetch {awa2.ARCHIVE.url} again"
        )
