"""Laws of rows: what is written is read, whole or not at all."""

import dataclasses
import os

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny import CLASSES, DATASET, without

from camri_jax import _files
from camri_jax._files import UsageError
from camri_jax.sweeps import rows as stored
from camri_jax.training.methods import HYPERPARAMETERS

CONFUSION = np.array([[3, 1], [0, 4]], np.int32)


def row(**changes):
    plain = {
        "trial_id": "a",
        "dataset": "tiny",
        "fingerprint": "f",
        "method": "camri",
        "important": (1,),
        "margin": 0.1,
        "scale": 16.0,
        "seed": 0,
        "diverged": False,
        "loss": np.float32(0.5),
        "test_confusion": CONFUSION,
        "angle_mean": np.array([0.25, np.nan]),
        "history_epoch": np.array([1, 2]),
        "history_recall": np.array([[0.0, 0.5], [1.0, 0.75]]),
        "settings": "{}",
        "provenance": "{}",
    }
    return {**plain, **changes}


def test_what_is_written_is_read(tmp_path):
    stored.write(tmp_path, "chunk", [row(), row(trial_id="b", important=(), seed=1)])
    frame = stored.read(tmp_path)
    assert list(frame.columns) == stored.SCHEMA.names
    assert set(HYPERPARAMETERS) <= set(frame.columns)
    (second, first) = frame.itertuples()
    assert (first.trial_id, first.important, second.important) == ("a", (1,), ())
    np.testing.assert_array_equal(first.test_confusion, CONFUSION)
    np.testing.assert_array_equal(first.angle_mean, np.float32([0.25, np.nan]))
    np.testing.assert_array_equal(first.history_recall, [0.0, 0.5, 1.0, 0.75])
    assert (first.margin, first.loss) == (0.1, 0.5)
    assert first.validation_confusion is None
    assert np.isnan(first.weight)


def test_rows_come_in_order_of_method_numbers_classes_and_seed(tmp_path):
    keys = [
        ("arcface", 0.3, (), 5),
        ("camri", 0.1, (0,), 0),
        ("camri", 0.1, (0,), 1),
        ("camri", 0.1, (0, 1), 0),
        ("camri", 0.1, (1,), 0),
        ("camri", 0.2, (0,), 0),
    ]
    for i in np.random.default_rng(0).permutation(len(keys)):
        method, margin, important, seed = keys[i]
        own = {"method": method, "margin": margin, "important": important, "seed": seed}
        stored.write(tmp_path, f"chunk{i}", [row(trial_id=str(i), **own)])
    frame = stored.read(tmp_path)
    columns = ("method", "margin", "important", "seed")
    found = zip(*(frame[name] for name in columns), strict=True)
    assert list(found) == keys
    some = stored.read(tmp_path, ["trial_id", "seed"])
    assert sorted(some["trial_id"]) == sorted(map(str, range(len(keys))))


def test_a_column_that_rows_lack_is_an_error_and_not_lost(tmp_path):
    with pytest.raises(
        ValueError, match="rows have no column unheard_of; there are trial_"
    ):
        stored.write(tmp_path, "chunk", [row(), row(unheard_of=2.0)])
    assert not list(tmp_path.rglob("*.parquet"))


def test_rows_of_an_older_schema_are_read_beside_newer_ones(tmp_path):
    stored.write(tmp_path, "new", [row(trial_id="new", weight=3.0)])
    old = pq.read_table(tmp_path / "rows" / "new.parquet")
    old = old.drop_columns(["weight", "angle_mean", "validation_confusion", "checksum"])
    old = old.set_column(0, "trial_id", pa.array(["old"]))
    old = old.append_column("curve", pa.array([[1, 2]]))
    pq.write_table(old, tmp_path / "rows" / "old.parquet")
    frame = stored.read(tmp_path).set_index("trial_id")
    assert np.isnan(frame.weight["old"])
    assert frame.weight["new"] == 3.0
    assert frame.angle_mean["old"] is None
    assert frame.validation_confusion["old"] is None
    np.testing.assert_array_equal(frame.test_confusion["old"], CONFUSION)
    assert "curve" not in frame


def test_merged_rows_keep_their_checksums(tmp_path):
    stored.write(tmp_path, "one", [row(trial_id="a"), row(trial_id="b", weight=3.0)])
    stored.write(tmp_path, "two", [row(trial_id="c")])
    paths = [tmp_path / "rows" / f"{name}.parquet" for name in ("one", "two")]
    merged = pa.concat_tables([pq.read_table(path) for path in paths])
    path = tmp_path / "merged" / "rows.parquet"
    path.parent.mkdir()
    pq.write_table(merged, path)
    pd.testing.assert_frame_equal(
        stored.read(path.parent), stored.read(tmp_path / "rows")
    )
    changed = merged.set_column(
        merged.column_names.index("seed"), "seed", pa.array([7, 8, 9])
    )
    pq.write_table(changed, path)
    with pytest.raises(UsageError, match="not what was written"):
        stored.read(path.parent)


def test_a_trial_written_twice_counts_once(tmp_path):
    values = {"test": np.ones((2, 2), np.float32)}
    for chunk, names in (("one", ["a"]), ("two", ["a", "b"])):
        stored.write(tmp_path, chunk, [row(trial_id=name) for name in names])
        stored.write_logits(tmp_path, chunk, {name: values for name in names})
    assert sorted(stored.read(tmp_path)["trial_id"]) == ["a", "b"]
    assert [name for name, _ in stored.read_logits(tmp_path, "test")] == ["a", "b"]


def test_logits_of_a_chunk_that_was_stopped_before_its_rows_count_last(tmp_path):
    stored.write_logits(tmp_path, "a", {"x": {"test": np.zeros((2, 2), np.float32)}})
    assert dict(stored.read_logits(tmp_path, "test"))["x"].sum() == 0
    stored.write_logits(tmp_path, "b", {"x": {"test": np.ones((2, 2), np.float32)}})
    stored.write(tmp_path, "b", [row(trial_id="x")])
    assert dict(stored.read_logits(tmp_path, "test"))["x"].sum() == 4


def test_no_rows_read_as_no_rows(tmp_path):
    frame = stored.read(tmp_path / "nowhere")
    assert frame.empty
    assert list(frame.columns) == stored.SCHEMA.names
    assert not list(stored.read_logits(tmp_path, "test"))


def test_rows_are_found_at_any_depth_and_through_a_link(tmp_path):
    stored.write(tmp_path / "real" / "deep", "chunk", [row()])
    (tmp_path / "link").symlink_to(tmp_path / "real" / "deep")
    stored.write(tmp_path / "link", "more", [row(trial_id="b")])
    for directory in (tmp_path / "real", tmp_path / "link", tmp_path / "link/rows"):
        assert len(stored.read(directory)) == 2


@pytest.mark.parametrize("content", [b"", b"PAR1 no more", b"<html>not found</html>"])
def test_a_broken_file_is_named(tmp_path, content):
    for kind in ("rows", "logits", "data"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "broken.parquet").write_bytes(content)
    with pytest.raises(UsageError, match=r"broken\.parquet is not a file of rows"):
        stored.read(tmp_path)
    with pytest.raises(UsageError, match=r"broken\.parquet is not a file of logits"):
        list(stored.read_logits(tmp_path, "test"))
    with pytest.raises(UsageError, match=r"broken\.parquet holds no labels"):
        stored.read_data(tmp_path, "broken")
    with pytest.raises(UsageError, match=r"missing\.parquet holds no labels"):
        stored.read_data(tmp_path, "missing")


def test_another_parquet_file_is_named(tmp_path):
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    with pytest.raises(UsageError, match=r"other\.parquet is not a file of rows"):
        stored.read(tmp_path)


# Logits and labels.


def test_logits_come_back_by_trial_and_part(tmp_path):
    rng = np.random.default_rng(0)
    kept = {
        name: {
            part: rng.normal(size=(size, 3)).astype(np.float32)
            for part, size in (("validation", 5), ("test", 7))
        }
        for name in "abc"
    }
    kept["b"]["test"][2, 1] = np.nan
    stored.write_logits(tmp_path, "one", {name: kept[name] for name in "ab"})
    stored.write_logits(tmp_path, "two", {"c": kept["c"]})
    for part in ("validation", "test"):
        for wanted in (None, ["b"], ["a", "c"], [], ["nobody"]):
            found = dict(stored.read_logits(tmp_path, part, wanted))
            expected = set("abc") if wanted is None else set(wanted) & set("abc")
            assert set(found) == expected
            for name, values in found.items():
                assert values.dtype == np.float32
                np.testing.assert_array_equal(values, kept[name][part])
    assert not dict(stored.read_logits(tmp_path, "calibration"))


def test_logits_that_lie_in_one_row_group_are_read_too(tmp_path):
    trials = {
        name: {part: np.full((2, 3), i + j, np.float32) for j, part in enumerate("vt")}
        for i, name in enumerate("ab")
    }
    stored.write_logits(tmp_path, "one", trials)
    path = tmp_path / "logits" / "one.parquet"
    assert pq.ParquetFile(path).num_row_groups == 4
    pq.write_table(pq.read_table(path), path)
    assert pq.ParquetFile(path).num_row_groups == 1
    for wanted in ("a", "b"):
        found = dict(stored.read_logits(tmp_path, "t", [wanted]))
        np.testing.assert_equal(found, {wanted: trials[wanted]["t"]})


def test_logits_are_read_a_file_at_a_time(tmp_path):
    """The first trial is there before a later, broken file is opened."""
    stored.write_logits(tmp_path, "a", {"x": {"test": np.ones((2, 3), np.float32)}})
    (tmp_path / "logits" / "b.parquet").write_bytes(b"broken")
    assert next(stored.read_logits(tmp_path, "test"))[0] == "x"


def test_reading_rows_never_touches_logits(tmp_path):
    stored.write(tmp_path, "chunk", [row()])
    (tmp_path / "logits").mkdir()
    (tmp_path / "logits" / "chunk.parquet").write_bytes(b"broken")
    assert len(stored.read(tmp_path)) == 1


def test_a_sweep_that_was_stopped_before_its_first_rows_has_none(tmp_path):
    values = {"x": {"test": np.ones((2, 3), np.float32)}}
    for sweep in ("one", "two"):
        stored.write_data(tmp_path / sweep, DATASET)
        stored.write_logits(tmp_path / sweep, "chunk", values)
        assert stored.read(tmp_path / sweep).empty
    stored.write(tmp_path / "two", "chunk", [row()])
    assert len(stored.read(tmp_path)) == 1


def test_labels_groups_and_class_names_come_back_once_for_a_data_set(tmp_path):
    grouped = without(DATASET, "calibration")
    groups = np.arange(27, dtype=np.int32) // 2
    grouped.parts["train"] = dataclasses.replace(DATASET.parts["train"], groups=groups)
    stored.write_data(tmp_path, grouped)
    (path,) = tmp_path.rglob("*.parquet")
    before = path.stat().st_mtime_ns
    stored.write_data(tmp_path, grouped)
    assert path.stat().st_mtime_ns == before
    data = stored.read_data(tmp_path, grouped.fingerprint)
    assert (data.dataset, data.class_names) == ("tiny", CLASSES)
    for name, part in grouped.parts.items():
        np.testing.assert_array_equal(data.labels[name], part.labels)
        assert data.labels[name].dtype == np.int32
        if part.groups is None:
            assert data.groups[name] is None
        else:
            np.testing.assert_array_equal(data.groups[name], part.groups)


# Whole or not at all.


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    stored.write(tmp_path, "a", [row()])

    def fill_the_disk(table, target, **options):
        target.write_bytes(b"PAR1 and then")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", fill_the_disk)
    with pytest.raises(OSError, match=r"No space left .*a\.parquet"):
        stored.write(tmp_path, "a", [row(seed=9)])
    assert [p.name for p in (tmp_path / "rows").iterdir()] == ["a.parquet"]
    assert stored.read(tmp_path)["seed"].tolist() == [0]


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """Synced: the content, then the name, then the directory with the new name."""
    events, path = [], tmp_path / "new" / "file.txt"
    sync, replace = os.fsync, os.replace

    def fsync(descriptor):
        events.append(("sync", os.fstat(descriptor).st_ino, path.exists()))
        sync(descriptor)

    def rename(source, target):
        events.append(("rename", os.stat(source).st_ino, path.exists()))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", rename)
    with _files.written_whole(path) as unfinished:
        unfinished.write_text("whole")
        assert unfinished.name.startswith(".")
        assert unfinished.parent == path.parent
        assert not path.exists()
    assert events == [
        ("sync", path.stat().st_ino, False),
        ("rename", path.stat().st_ino, False),
        ("sync", path.parent.stat().st_ino, True),
    ]
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_a_file_that_cannot_have_its_name_is_told_by_it(tmp_path):
    (tmp_path / "table.csv").mkdir()
    with pytest.raises(IsADirectoryError) as error:
        _files.write_whole(tmp_path / "table.csv", "a,b")
    assert error.value.filename == str(tmp_path / "table.csv")
    assert [p.name for p in tmp_path.iterdir()] == ["table.csv"]


def test_what_a_killed_sweep_was_writing_is_no_file(tmp_path):
    """Killed, nothing cleans up: what lies there is not read as rows."""
    stored.write(tmp_path, "whole", [row()])
    whole = (tmp_path / "rows" / "whole.parquet").read_bytes()
    (tmp_path / "rows" / ".4f3a.parquet").write_bytes(whole[: len(whole) // 2])
    assert len(stored.read(tmp_path)) == 1
