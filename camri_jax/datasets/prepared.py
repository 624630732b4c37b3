"""Published data sets: prepared by TFDS once, decoded once, then only opened."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camri_jax.datasets import store
from camri_jax.datasets.dataset import Dataset, digest

if TYPE_CHECKING:
    from camri_jax.datasets.builder import PictureBuilder

_FORMAT = "1"  # to be raised when the same files would be prepared differently


def load_prepared(
    make_builder: Callable[..., "PictureBuilder"],
    *,
    cache: Path,
    key: str,
    image_size: int,
    **arguments: Any,
) -> Dataset:
    """Opens the arrays of a data set, having made them if they are not there.

    Args:
      make_builder: makes the TFDS builder, given `data_dir` and `arguments`.
      cache: the directory of this data set's prepared data.
      key: identifies the official files.
      image_size: height and width in pixels.
      **arguments: for `make_builder`.

    Returns:
      The data set, memory-mapped.
    """
    key = digest(_FORMAT, key)
    records = cache / f"{key}-records"
    arrays = cache / f"{key}-{image_size}px"

    def write_records(directory: Path) -> None:
        from camri_jax.datasets import builder

        made = make_builder(data_dir=directory, **arguments)
        builder.write_records(made, cache.parent / "downloads")

    def write_arrays(directory: Path) -> None:
        from camri_jax.datasets import builder

        store.build_once(records, write_records)
        made = make_builder(data_dir=records, **arguments)
        builder.write_arrays(made, image_size, directory)

    store.build_once(arrays, write_arrays)
    return store.read(arrays)
