"""Resizing AwA2's photographs in several processes, to be taken up again if stopped."""

import concurrent.futures
import json
import multiprocessing
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from camri_jax.datasets import pictures
from camri_jax.datasets.trees import open_tree

_CHUNK = 1024
_BROKEN = "broken.json"


def resize_all(
    source: Path, names: Sequence[str], image_size: int, scratch: Path
) -> list[Path]:
    """Resizes photographs to PNG, a .zip for each chunk of them.

    Args:
      source: the archive or the directory that it unpacks to.
      names: of the photographs in it.
      image_size: height and width in pixels.
      scratch: where to write; chunks that are there already are not made again.

    Returns:
      The chunks.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(names), _CHUNK)
    targets = [scratch / f"{start:06d}.zip" for start in starts]
    # JAX has threads, which a forked process would lack: begin each one afresh.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(mp_context=context) as pool:
        jobs = [
            pool.submit(
                _resize, source, names[start : start + _CHUNK], image_size, target
            )
            for start, target in zip(starts, targets, strict=True)
            if not target.exists()
        ]
        done = concurrent.futures.as_completed(jobs)
        try:
            for job in tqdm(done, "resizing", len(jobs), unit="chunk", disable=None):
                job.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return targets


def read_chunk(chunk: Path) -> Iterator[tuple[str, bytes]]:
    """Yields the name and the PNG file of each photograph in a chunk."""
    with zipfile.ZipFile(chunk) as archive:
        for name in archive.namelist():
            if name != _BROKEN:
                yield name, archive.read(name)


def read_broken(chunk: Path) -> list[str]:
    """Returns the photographs of a chunk that cannot be read, with the reasons."""
    with zipfile.ZipFile(chunk) as archive:
        return json.loads(archive.read(_BROKEN))


def _resize(source: Path, names: Sequence[str], image_size: int, target: Path) -> None:
    partial, broken = target.with_suffix(".partial"), []
    with open_tree(source) as tree, zipfile.ZipFile(partial, "w") as archive:
        for name in names:
            try:
                with tree.open(name) as file:
                    image = pictures.decode(file, image_size)
            except Exception as error:  # Pillow raises of every kind
                broken.append(f"{name} ({error})")
                continue
            archive.writestr(name, pictures.encode(image))
        archive.writestr(_BROKEN, json.dumps(broken))
    partial.rename(target)
