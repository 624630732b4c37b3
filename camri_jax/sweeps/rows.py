"""Rows of trained trials: one Parquet file a chunk, written whole or not at all."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from camri_jax._files import written_whole

_NUMBERS = pa.list_(pa.float32())
_COUNTS = pa.list_(pa.int32())

SCHEMA = pa.schema(
    [
        ("trial_id", pa.string()),
        ("dataset", pa.string()),
        ("class_names", pa.list_(pa.string())),
        ("method", pa.string()),
        ("important", _COUNTS),
        ("margin", pa.float64()),
        ("scale", pa.float64()),
        ("weight", pa.float64()),
        ("cost", pa.float64()),
        ("epsilon", pa.float64()),
        ("seed", pa.int64()),
        ("diverged", pa.bool_()),
        ("loss", pa.float32()),
        ("constants", _NUMBERS),
        ("test_confusion", _COUNTS),
        ("test_curve", _COUNTS),
        ("validation_confusion", _COUNTS),
        ("validation_curve", _COUNTS),
        ("angle_mean", _NUMBERS),
        ("angle_std", _NUMBERS),
        ("history_loss", _NUMBERS),
        ("history_epoch", _COUNTS),
        ("history_accuracy", _NUMBERS),
        ("history_recall", _NUMBERS),
        ("settings", pa.string()),
        ("provenance", pa.string()),
    ]
)
"""One row: a trial as seen by one choice of important classes.

`important` holds class indices; a hyperparameter that the method lacks is null.
Matrices are flattened: confusions `[true, predicted]`, curves `[constant, true,
predicted]` as `constants` are added to the logits of the important classes, empty
without validation images. `angle_mean` and `angle_std` (radians, test images) have
one number a class. `history_loss` has one entry an epoch; `history_accuracy` and
`history_recall`, `[epoch, class]`, were measured after the epochs `history_epoch`, on
the validation images or, without any, on the test images. `settings` (what the trial's
numbers depend on) and `provenance` (when and where it ran) are JSON.
"""


def write(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Writes rows as one Parquet file that appears whole or not at all.

    Args:
      rows: mappings with the names of `SCHEMA`.
      path: the file; its directory is made if need be.

    Raises:
      OSError: if the directory cannot be written.
    """
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=SCHEMA)
    with written_whole(path) as unfinished:
        pq.write_table(table, unfinished, compression="zstd")


def read(directory: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """Reads all rows below a directory.

    Args:
      directory: where `write` put files, at any depth.
      columns: names to read; default all.

    Returns:
      One row for each trial and choice of important classes, ordered by method,
      hyperparameters and seed; no rows if there are no files.

    Raises:
      ValueError: for a file that is not Parquet of this schema, which it names.
    """
    tables = []
    for path in sorted(Path(directory).rglob("*.parquet")):
        try:
            tables.append(pq.read_table(path, columns=columns))
        except (pa.ArrowInvalid, pa.ArrowKeyError, OSError) as error:
            raise ValueError(
                f"{path} is not a file of results ({error}); move it away, and run "
                "the sweep again to train its trials anew"
            ) from error
    if not tables:
        names = SCHEMA.names if columns is None else columns
        return pa.schema([SCHEMA.field(n) for n in names]).empty_table().to_pandas()
    frame = pa.concat_tables(tables).to_pandas()
    if {"trial_id", "important"} <= set(frame):
        # Two sweeps that ran at once may both have trained a trial.
        pairs = frame["trial_id"] + frame["important"].map(str)
        frame = frame[~pairs.duplicated()]
    order = ["method", "margin", "scale", "weight", "cost", "epsilon", "seed"]
    order = [name for name in order if name in frame]
    return frame.sort_values(order, ignore_index=True) if order else frame


def pairs(rows: pd.DataFrame) -> set[tuple[str, tuple[int, ...]]]:
    """Returns each row's trial id with its choice of important classes."""
    return set(zip(rows["trial_id"], map(tuple, rows["important"]), strict=True))
