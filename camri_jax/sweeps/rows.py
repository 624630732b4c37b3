"""What a sweep leaves on disk: rows, logits and labels, in Parquet.

    DIR/rows/CHUNK.parquet          a row a trial
    DIR/logits/CHUNK.parquet        its logits, a row a trial and part of the data
    DIR/data/FINGERPRINT.parquet    labels and groups of the parts, class names

DIR is a directory, or the URL of one in a store. A file appears whole or not at all,
and rows after their logits: a trial with a row is done. Reading rows never touches
logits. Each line of a file has a checksum, and what differs from it is refused.
"""

import contextlib
import functools
import hashlib
import io
import json
import warnings
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from camri_jax._files import (
    UsageError,
    address,
    is_local,
    ranged,
    set_aside,
    sweep_up,
    written_whole,
)
from camri_jax.datasets import Dataset
from camri_jax.training.methods import HYPERPARAMETERS

_NUMBERS = pa.list_(pa.float32())
_COUNTS = pa.list_(pa.int32())

SCHEMA = pa.schema(
    [
        ("trial_id", pa.string()),
        ("dataset", pa.string()),
        ("fingerprint", pa.string()),
        ("method", pa.string()),
        ("important", _COUNTS),
        *((name, pa.float64()) for name in HYPERPARAMETERS),
        ("by_class", pa.string()),
        ("seed", pa.int64()),
        ("diverged", pa.bool_()),
        ("loss", pa.float32()),
        ("test_confusion", _COUNTS),
        ("validation_confusion", _COUNTS),
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
"""One row a trial.

`important` holds the classes it was trained for, none where the method ignores them. A
hyperparameter that the method lacks is null, and so is one of which each important
class has its own: those are in `by_class`, JSON, in the order of `important`, which is
null where there are none. Confusions are of the trial as trained,
`[true, predicted]`, null without such images. `loss`, `angle_mean` and `angle_std`
(radians, a number a class) are of the test images. `history_loss` has one entry an
epoch; `history_accuracy` and `history_recall` `[epoch, class]` were measured after the
epochs `history_epoch`, on validation or else on test images. `settings` (what a trial's
numbers depend on besides its own) and `provenance` (when and where it ran) are JSON.
"""

_SQUARE = ("test_confusion", "validation_confusion")
_LOGITS = pa.schema(
    [("trial_id", pa.string()), ("part", pa.string()), ("logits", _NUMBERS)]
)
_DATA = pa.schema([("part", pa.string()), ("labels", _COUNTS), ("groups", _COUNTS)])


class Data(NamedTuple):
    """What rows were measured on, without the images.

    Attributes:
      dataset: its name.
      class_names: of its classes.
      labels: `[image]` int32, by part.
      groups: `[image]` int32 by part, None where every image stands alone.
    """

    dataset: str
    class_names: tuple[str, ...]
    labels: dict[str, np.ndarray]
    groups: dict[str, np.ndarray | None]


def write(directory: Path, chunk: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes the rows of a chunk as one file.

    Args:
      directory: of the sweep.
      chunk: its name.
      rows: mappings with the names of `SCHEMA`; a hyperparameter may be a sequence.

    Raises:
      ValueError: a row has a name that `SCHEMA` lacks, which would be lost.
      OSError: the directory cannot be written.
    """
    plain = [
        {name: _flat(value) for name, value in columns_of(row).items()} for row in rows
    ]
    if unknown := {name for row in plain for name in row} - set(SCHEMA.names):
        raise ValueError(
            f"rows have no column {', '.join(sorted(unknown))}; there are "
            + ", ".join(SCHEMA.names)
        )
    table = pa.Table.from_pylist(plain, schema=SCHEMA)
    _write(table, address(directory) / "rows" / f"{chunk}.parquet")


def columns_of(point: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a point, or a row that holds one, by the columns of rows.

    Args:
      point: a number, or one for each important class, by hyperparameter.

    >>> columns_of({"margin": (0.1, 0.2), "scale": 16.0})
    {'scale': 16.0, 'by_class': '{"margin": [0.1, 0.2]}'}
    """
    several = {
        name: list(map(float, value))
        for name, value in point.items()
        if name in HYPERPARAMETERS and np.ndim(value)
    }
    plain = {name: value for name, value in point.items() if name not in several}
    return plain | ({"by_class": json.dumps(several)} if several else {})


def exist(directory: Path, chunk: str) -> bool:
    """Returns whether a directory holds the rows of a chunk, by its name."""
    return (directory / "rows" / f"{chunk}.parquet").exists()


def trained(directory: Path) -> set[str]:
    """Returns the ids of all trials that have rows.

    Args:
      directory: of the sweep.

    Raises:
      OSError: a file cannot be read.
    """
    found: set[str] = set()
    for path in _files(directory / "rows"):
        with contextlib.suppress(pa.ArrowInvalid):
            found |= _ids(path)
    return found


@functools.cache
def _ids(path: Path) -> frozenset[str]:
    """The trials of a file, read once: its name is the hash of their ids."""
    table = _table(path, pa.schema([SCHEMA.field("trial_id")]))
    return frozenset(table["trial_id"].to_pylist())


def discard(directory: Path, chunk: str) -> None:
    """Sets the rows and logits of a chunk aside, so that it is trained anew.

    Args:
      directory: of the sweep.
      chunk: whose logits or weights are needed and were not kept.
    """
    why = "logits or weights of its trials are missing; they are trained anew"
    path = directory / "rows" / f"{chunk}.parquet"
    set_aside(path, why, directory / "logits" / path.name)


def write_logits(
    directory: Path, chunk: str, logits: Mapping[str, Mapping[str, np.ndarray]]
) -> None:
    """Writes the logits of a chunk's trials as one file.

    Args:
      directory: of the sweep.
      chunk: its name.
      logits: `[image, class]` by trial and by part.

    Raises:
      OSError: the directory cannot be written.
    """
    lines = [
        {"trial_id": trial, "part": part, "logits": np.ravel(values)}
        for trial, parts in logits.items()
        for part, values in parts.items()
    ]
    num_classes = next(v.shape[1] for parts in logits.values() for v in parts.values())
    schema = _LOGITS.with_metadata({"num_classes": str(num_classes)})
    table = pa.Table.from_pylist(lines, schema=schema)
    # Exponents of neighbouring logits are alike: apart from the rest they pack well.
    path = address(directory) / "logits" / f"{chunk}.parquet"
    _write(
        table,
        path,
        # So that one trial's are read without the others'.
        row_group_size=1,
        use_dictionary=False,
        column_encoding={
            "trial_id": "PLAIN",
            "part": "PLAIN",
            _CHECKSUM: "PLAIN",
            "logits.list.element": "BYTE_STREAM_SPLIT",
        },
    )


def write_data(directory: Path, dataset: Dataset) -> None:
    """Writes labels, groups and class names, once for a data set.

    Args:
      directory: of the sweep.
      dataset: what its trials are trained on.

    Raises:
      OSError: the directory cannot be written.
    """
    path = address(directory) / "data" / f"{dataset.fingerprint}.parquet"
    if path.exists():
        return
    lines = [
        {"part": name, "labels": _flat(part.labels), "groups": _flat(part.groups)}
        for name, part in dataset.parts.items()
    ]
    about = {"dataset": dataset.name, "class_names": list(dataset.class_names)}
    schema = _DATA.with_metadata({"camri_jax": json.dumps(about)})
    _write(pa.Table.from_pylist(lines, schema=schema), path)


def read(
    directory: Path, columns: list[str] | None = None, *, pass_over: bool = False
) -> pd.DataFrame:
    """Reads the rows of all trials below a directory.

    Args:
      directory: holds `rows/`, or Parquet files of rows at any depth.
      columns: names to read; default all.
      pass_over: whether a damaged file, which a start would set aside, is left out with
        a warning.

    Returns:
      One row a trial, ordered by method, hyperparameters, important classes and seed,
      none if there are no files; `important` is a tuple, confusions are square. Columns
      that an older file lacks are null.

    Raises:
      OSError: a file cannot be read.
      UsageError: a file is not Parquet, or has none of these columns; it is named.
    """
    names = SCHEMA.names if columns is None else columns
    schema = pa.schema([SCHEMA.field(name) for name in names])
    directory = address(directory)
    inner = directory / "rows"
    tables = [schema.empty_table()]
    for path in _files(inner if inner.is_dir() else directory):
        # A sweep that was stopped in its first chunk has these, and no rows.
        if path.relative_to(directory).parent.name in ("logits", "data"):
            continue
        try:
            tables.append(_table(path, schema))
        except pa.ArrowInvalid as error:
            if pass_over:
                why = "a start sets it aside and trains its trials anew"
                told = f"{path} is no file of rows: {why}"
                warnings.warn(told, RuntimeWarning, stacklevel=2)
                continue
            raise UsageError(
                f"{path} is not a file of rows ({error}); move it away, and run the "
                "sweep again to train its trials anew"
            ) from error
    frame = pa.concat_tables(tables).to_pandas()
    if "trial_id" in frame:
        # Two sweeps that ran at once may both have trained a trial.
        frame = frame[~frame["trial_id"].duplicated()]
    if "important" in frame:
        frame["important"] = [() if x is None else tuple(x) for x in frame["important"]]
    for name in _SQUARE:
        if name in frame:
            frame[name] = [None if x is None else _square(x) for x in frame[name]]
    order = ["method", *HYPERPARAMETERS, "by_class", "important", "seed"]
    order = [name for name in order if name in frame]
    return frame.sort_values(order, ignore_index=True) if order else frame


def read_logits(
    directory: Path, part: str, trial_ids: Collection[str] | None = None
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the logits of trials on a part of the data, a file at a time.

    Args:
      directory: of the sweep.
      part: "validation", "calibration" or "test".
      trial_ids: which trials; default all that kept their logits.

    Yields:
      A trial's id and its logits `[image, class]`, float32.

    Raises:
      OSError: a file cannot be read.
      UsageError: a file is not one of logits; it is named.
    """
    wanted = None if trial_ids is None else set(trial_ids)
    directory = address(directory)
    # Two sweeps that ran at once may both have trained a trial; and one that was
    # stopped before it wrote rows has left logits that are of no training that counts.
    seen, with_rows = set(), {path.name for path in _files(directory / "rows")}
    files = _files(directory / "logits")
    for path in sorted(files, key=lambda path: path.name not in with_rows):
        try:
            with _opened(path) as file:
                held = file.read(columns=["trial_id", "part"]).to_pylist()
                places = [
                    place
                    for place, line in enumerate(held)
                    if line["part"] == part
                    and (wanted is None or line["trial_id"] in wanted)
                ]
                if not places:
                    continue
                if file.num_row_groups == len(held):
                    table = _read(file, places)
                else:
                    table = _read(file).take(places)
            num_classes = int((table.schema.metadata or {}).get(b"num_classes", 0))
            names = table["trial_id"].to_pylist()
            lengths = [len(values) for values in table["logits"]]
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(
                f"{path} is not a file of logits ({error}); move it and the file of "
                "rows of the same name away, and run the sweep again"
            ) from error
        if not num_classes or any(length % num_classes for length in lengths):
            raise UsageError(
                f"{path} holds logits of no whole number of images; move it and the "
                "file of rows of the same name away, and run the sweep again"
            )
        for name, values in zip(names, table["logits"], strict=True):
            if name not in seen:
                seen.add(name)
                flat = values.values.to_numpy(zero_copy_only=False)
                yield name, flat.reshape(-1, num_classes)


def with_logits(directory: Path) -> set[str]:
    """Returns the trials that kept their logits, except in damaged files.

    Args:
      directory: of the sweep.

    Raises:
      OSError: a file cannot be read.
    """
    found: set[str] = set()
    for path in _files(address(directory) / "logits"):
        with contextlib.suppress(pa.ArrowInvalid), _opened(path) as file:
            found.update(file.read(columns=["trial_id"])["trial_id"].to_pylist())
    return found


def read_data(directory: Path, fingerprint: str) -> Data:
    """Reads what `write_data` wrote.

    Args:
      directory: of the sweep.
      fingerprint: of the data set.

    Returns:
      The data set without its images.

    Raises:
      OSError: the file cannot be read.
      UsageError: there is no such file, or it is damaged.
    """
    path = address(directory) / "data" / f"{fingerprint}.parquet"
    try:
        with _opened(path) as file:
            table = _read(file)
        about = _facts(table)
        lines = table.to_pylist()
        return Data(
            about["dataset"],
            tuple(about["class_names"]),
            {line["part"]: np.array(line["labels"], np.int32) for line in lines},
            {
                line["part"]: None
                if line["groups"] is None
                else np.array(line["groups"], np.int32)
                for line in lines
            },
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UsageError(
            f"{path} holds no labels ({error!r}); starting the sweep again writes it"
        ) from error


def mend(directory: Path) -> None:
    """Sets aside what is damaged, with a warning, so that it is made anew.

    Rows and labels are read whole, logits and models at their end, which differs if the
    file was cut or is of another kind. Rows go with the logits or models they promise,
    and logits with their rows: trained anew, they may differ in their last digits.
    What cannot be read just now may be whole, and stays.

    Args:
      directory: of a sweep; it need not exist.

    Raises:
      OSError: a file cannot be read, or a damaged one not renamed.
    """
    directory = address(directory)
    sweep_up(directory)
    chunks: dict[str, Path] = {}
    for path in _files(directory / "rows"):
        try:
            ids = _table(path, pa.schema([SCHEMA.field("trial_id")]))
            chunks |= dict.fromkeys(ids["trial_id"].to_pylist(), path)
        except pa.ArrowInvalid:
            _with_rows(directory, path, path, "rows")
    for path in _files(directory / "data"):
        try:
            read_data(directory, path.stem)
        except UsageError:
            set_aside(path, "it holds no labels; it is written anew")
    for path in _files(directory / "logits"):
        try:
            with _opened(path, whole=False) as file:
                if file.schema_arrow.names[:3] != _LOGITS.names:
                    raise pa.ArrowInvalid("it has other columns")
        except pa.ArrowInvalid:
            _with_rows(directory, path, directory / "rows" / path.name, "logits")
    # In a store each would be a request.
    models = directory / "models"
    for path in sorted(models.glob("*.npz")) if is_local(models) else ():
        # Another process may be writing what begins with a dot.
        if not path.name.startswith(".") and not _is_zip(path):
            _with_rows(directory, path, chunks.get(path.stem), "trained weights")


def _with_rows(directory: Path, path: Path, rows: Path | None, what: str) -> None:
    """Sets a file aside, the rows that promise it, and the logits of these."""
    others = [] if rows is None else [rows, directory / "logits" / rows.name]
    others = [each for each in others if each != path]
    set_aside(path, f"it is no file of {what}; its trials are trained anew", *others)


def _is_zip(path: Path) -> bool:
    try:
        # Given a name, `is_zipfile` also says no to what may not be read.
        with path.open("rb") as file:
            return zipfile.is_zipfile(file)
    except (FileNotFoundError, IsADirectoryError):
        return False


def _table(path: Path, schema: pa.Schema) -> pa.Table:
    """Rows with the columns of a schema, null where an older file lacks them."""
    with _opened(path) as file:
        table = _read(file)
        known = table.column_names
        if not {"trial_id", "method", "seed"} <= set(known):
            raise pa.ArrowInvalid("it has no trial_id, method and seed")
        for name in set(schema.names) - set(known):
            nulls = pa.nulls(len(table), schema.field(name).type)
            table = table.append_column(schema.field(name), nulls)
        return table.select(schema.names).cast(schema)


@contextlib.contextmanager
def _opened(path: Path, *, whole: bool = True) -> Iterator[pq.ParquetFile]:
    """Opens a file; what is wrong with its contents is `ArrowInvalid` in the block.

    What keeps it from being read is raised as it is, except that a missing file counts
    as wrong. From a store it is fetched whole, as each range would be a request, unless
    its end will do.
    """
    try:
        fetched = whole and not is_local(path)
        source = io.BytesIO(path.read_bytes()) if fetched else ranged(path)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise pa.ArrowInvalid(repr(error)) from error
    with source:
        try:
            yield pq.ParquetFile(source, page_checksum_verification=True)
        except pa.ArrowMemoryError:
            raise
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise pa.ArrowInvalid(str(error)) from error
        except OSError as error:
            # Arrow raises a bare one for contents, as of a page that was cut.
            if type(error) is not OSError or error.errno is not None:
                raise
            raise pa.ArrowInvalid(str(error)) from error


def _read(file: pq.ParquetFile, groups: Sequence[int] | None = None) -> pa.Table:
    """Row groups of a file, all by default, if they are what was written."""
    table = file.read() if groups is None else file.read_row_groups(groups)
    # An older version wrote none.
    if _CHECKSUM not in table.column_names:
        return table
    written = table[_CHECKSUM].to_pylist()
    table = table.drop_columns(_CHECKSUM)
    for found, expected in zip(_checksums(table), written, strict=True):
        if expected not in (None, found):
            raise pa.ArrowInvalid("its contents are not what was written")
    return table


_CHECKSUM = "checksum"
"""A column of every file: Parquet's own checksums cover pages alone, and a bit that
flips in a page's header or in the schema can give other numbers. One a row, without
its nulls, so that files can be merged, also with those of an older schema."""


def _checksums(table: pa.Table) -> Iterator[str]:
    facts = table.schema.metadata or {}
    # Other libraries add their own.
    ours = repr([facts.get(key) for key in (b"camri_jax", b"num_classes")])
    for row in zip(*table.columns, strict=True):
        digest = hashlib.sha256(ours.encode())
        for name, value in zip(table.column_names, row, strict=True):
            if not value.is_valid:
                continue
            digest.update(f"\n{name} ".encode())
            if isinstance(value, pa.ListScalar):
                numbers = value.values.to_numpy(zero_copy_only=False)
                digest.update(f"{numbers.shape} {numbers.dtype} ".encode())
                digest.update(numbers.tobytes())
            else:
                digest.update(repr(value.as_py()).encode())
        yield digest.hexdigest()[:16]


def _facts(table: pa.Table) -> dict[str, Any]:
    try:
        return dict(json.loads((table.schema.metadata or {})[b"camri_jax"]))
    except ValueError as error:
        raise pa.ArrowInvalid(str(error)) from error


def _files(directory: Path) -> list[Path]:
    """Files that a sweep finished; those that begin with a dot are not."""
    found = directory.rglob("*.parquet")
    return sorted(path for path in found if not path.name.startswith("."))


def _write(table: pa.Table, path: Path, **options: Any) -> None:
    table = table.append_column(_CHECKSUM, pa.array(_checksums(table), pa.string()))
    with written_whole(path) as unfinished:
        pq.write_table(
            table, unfinished, compression="zstd", write_page_checksum=True, **options
        )


def _flat(value: Any) -> Any:
    return value.ravel() if isinstance(value, np.ndarray) else value


def _square(values: np.ndarray) -> np.ndarray:
    size = round(len(values) ** 0.5)
    if size**2 != len(values):
        raise UsageError(
            f"rows hold a confusion of {len(values)} counts, which is not square; move "
            "their file away, and run the sweep again to train its trials anew"
        )
    return np.asarray(values).reshape(size, size)
