"""Laws of rows: what is written is read, whole or not at all."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from camri_jax.sweeps import rows as results


def row(**changes):
    plain = {
        "trial_id": "a",
        "dataset": "digits",
        "class_names": ("no", "yes"),
        "method": "camri",
        "important": (1,),
        "margin": 0.1,
        "scale": 16.0,
        "seed": 0,
        "diverged": False,
        "loss": 0.5,
        "constants": np.float32([0.0]),
        "test_confusion": np.int32([3, 1, 0, 4]),
        "test_curve": np.int32([3, 1, 0, 4]),
        "settings": "{}",
        "provenance": "{}",
    }
    return {**plain, **changes}


def frame(rows):
    """Rows as `results.read` returns them, absent columns null."""
    return pa.Table.from_pylist(rows, schema=results.SCHEMA).to_pandas()


def test_rows_come_back_in_order_of_method_and_seed(tmp_path):
    camri = [row(trial_id=f"camri{seed}", seed=seed) for seed in (1, 0)]
    results.write(camri, tmp_path / "deep" / "b.parquet")
    results.write([row(method="arcface", seed=5)], tmp_path / "a.parquet")
    rows = results.read(tmp_path)
    assert list(zip(rows["method"], rows["seed"], strict=True)) == [
        ("arcface", 5),
        ("camri", 0),
        ("camri", 1),
    ]
    assert rows["test_confusion"][0].tolist() == [3, 1, 0, 4]
    assert rows["validation_curve"].isna().all()


def test_a_trial_written_twice_counts_once(tmp_path):
    results.write([row()], tmp_path / "a.parquet")
    results.write(
        [row(), row(important=(0,)), row(trial_id="b")], tmp_path / "b.parquet"
    )
    rows = results.read(tmp_path)
    assert len(rows) == 3
    assert results.pairs(rows) == {("a", (1,)), ("a", (0,)), ("b", (1,))}


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    results.write([row()], path)

    def fill_the_disk(table, target, **options):
        with open(target, "wb") as file:
            file.write(b"PAR1 and then")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", fill_the_disk)
    with pytest.raises(OSError, match="No space left"):
        results.write([row(seed=9)], path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.parquet"]
    assert results.read(tmp_path)["seed"].tolist() == [0]


def test_no_rows_read_as_no_rows(tmp_path):
    assert results.read(tmp_path / "nowhere").empty
    assert results.pairs(results.read(tmp_path)) == set()


@pytest.mark.parametrize("content", [b"", b"PAR1 no more", b"<html>not found</html>"])
def test_a_broken_file_is_named(tmp_path, content):
    (tmp_path / "broken.parquet").write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.parquet is not a file of results"):
        results.read(tmp_path)
