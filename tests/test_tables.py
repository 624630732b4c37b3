"""The tables and power say what the rows say, and say in a sentence what is amiss."""

import json

import numpy as np
import pandas as pd
import pytest
from synthetic import CLASSES, SETTINGS, SPECS, Spec, rows, script, write

from camri_jax.evidence import curves
from camri_jax.sweeps import rows as results

SCRIPTS = ("table1", "table2", "power")
CROSS_ENTROPY = Spec("cross_entropy")


@pytest.fixture
def start(capsys, monkeypatch):
    """Runs a script as the command line does, and returns its status and output."""
    # As many recalls as the tests have patience for.
    monkeypatch.setattr(curves, "RECALLS", np.linspace(0, 1, 11))

    def start(name, *arguments):
        module = script(name)
        status = 0
        try:
            module.run(lambda: module.main([str(x) for x in arguments]))
        except SystemExit as stopped:
            status = stopped.code
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return start


@pytest.mark.parametrize("name", SCRIPTS)
def test_tables_fit_a_narrow_console_and_their_files_hold_them(name, start, tmp_path):
    directory = write(tmp_path, important=((1,), (0, 2)))
    status, output = start(name, directory)
    assert status == 0, output
    assert "…" not in output
    assert max(map(len, output.split("wrote")[0].splitlines())) <= 80
    table = pd.read_csv(directory / f"{name}.csv")
    column = "important_class" if name == "table2" else "important"
    assert set(table[column]) == {"bee", "ant+cat"}
    text = (directory / f"{name}.md").read_text()
    for important in ("bee", "ant+cat"):
        assert f"Important class: {important}" in output
        assert f"Important class: {important}" in text
    widths = [line.count("|") for line in text.splitlines() if line.startswith("|")]
    assert len(set(widths)) <= 4
    elsewhere = tmp_path / "elsewhere"
    assert start(name, directory, "--output", elsewhere, "--important", "bee")[0] == 0
    assert set(pd.read_csv(elsewhere / f"{name}.csv")[column]) == {"bee"}


def recall_and_accuracy(row, part):
    confusion = np.reshape(row[f"{part}_confusion"], (len(CLASSES), -1))
    return confusion[1, 1] / confusion[1].sum(), np.trace(confusion) / confusion.sum()


def test_table_1_picks_on_the_images_that_each_rule_allows(start, tmp_path):
    assert start("table1", write(tmp_path))[0] == 0
    table = pd.read_csv(tmp_path / "table1.csv")
    numbers = pd.DataFrame(
        {
            "method": row["method"],
            "margin": row.get("margin", 0),
            **{
                f"{part} {name}": value
                for part in ("test", "validation")
                for name, value in zip(
                    ("recall", "accuracy"), recall_and_accuracy(row, part), strict=True
                )
            },
        }
        for row in rows()
    )
    means = numbers.groupby(["method", "margin"]).mean().reset_index()
    for selection, part in (("paper", "test"), ("held_out", "validation")):
        lines = table[table["selection"] == selection].set_index("method")
        baseline = means.loc[means["method"] == "cross_entropy", f"{part} accuracy"]
        for method, group in means.groupby("method"):
            keeping = group[group[f"{part} accuracy"] >= baseline.item() - 1e-6]
            assert lines.loc[method, "keeps_accuracy"] == (len(keeping) > 0)
            if len(keeping):
                best = keeping.loc[keeping[f"{part} recall"].idxmax()]
                found = lines.loc[method, ["recall", "accuracy"]].astype(float)
                expected = best[["test recall", "test accuracy"]].astype(float)
                np.testing.assert_allclose(found, expected, atol=1e-6)
    assert {"camri+threshold", "cross_entropy+threshold"} <= set(table["method"])


def test_table_1_leaves_the_papers_column_blank_where_accuracy_is_lost(start, tmp_path):
    worse = Spec("camri", {"margin": 0.2, "scale": 16.0}, push=3.0)
    status, output = start("table1", write(tmp_path, [CROSS_ENTROPY, worse]))
    assert status == 0
    (line,) = [x for x in output.splitlines() if x.startswith("CAMRI  ")][:1]
    assert line.count("±") == 2
    assert "▼" in line


def test_without_validation_images_the_papers_rule_is_left(start, tmp_path):
    status, output = start("table1", write(tmp_path, validation=False))
    assert status == 0
    assert "no validation images" in output
    assert "held-out" not in output.split("important class")[-1]
    table = pd.read_csv(tmp_path / "table1.csv")
    assert set(table["selection"]) == {"paper"}
    assert not table["method"].str.contains("threshold").any()
    assert table["above_difference"].notna().sum() == 4
    for name in ("table2", "power"):
        assert start(name, tmp_path)[0] == 0


def test_table_2_has_the_papers_columns(start, tmp_path):
    zero = Spec("arcface", {"margin": 0.0, "scale": 16.0})
    specs = [spec for spec in SPECS if spec.method != "l2_softmax"]
    given = rows([*specs, zero])
    results.write(given, tmp_path / "a.parquet")
    assert start("table2", tmp_path)[0] == 0
    table = pd.read_csv(tmp_path / "table2.csv").set_index("column")
    assert list(table.index) == [
        *("CAMRI", "ArcFace", "WCE", "ArcFace (m=0)", "cross-entropy")
    ]
    for column, spec in (("ArcFace (m=0)", zero), ("cross-entropy", CROSS_ENTROPY)):
        std = np.array(
            [
                row["angle_std"]
                for row in given
                if row["method"] == spec.method
                and row.get("margin") == spec.point.get("margin")
            ]
        )
        others = np.delete(std, 1, axis=1)
        for name, values in (
            ("important", std[:, 1]),
            ("least", others.min(1)),
            ("median", np.median(others, axis=1)),
        ):
            assert table.loc[column, name] == pytest.approx(values.mean(), rel=1e-6)
            spread = values.std(ddof=1)
            assert table.loc[column, f"{name}_std"] == pytest.approx(spread, rel=1e-5)


def test_table_2_leaves_out_what_is_not_there(start, tmp_path):
    status, output = start("table2", write(tmp_path, [CROSS_ENTROPY, SPECS[4]]))
    assert status == 0
    for missing in ("ArcFace", "WCE", "ArcFace (m=0)"):
        assert f"no rows of {missing}, left out" in output
    table = pd.read_csv(tmp_path / "table2.csv")
    assert table["column"].tolist() == ["CAMRI", "cross-entropy"]


def test_power_counts_as_the_tests_of_the_same_differences_do(start, tmp_path):
    directory = write(tmp_path, num_seeds=6)
    assert start("power", directory)[0] == 0
    table = pd.read_csv(directory / "power.csv")
    observed = table.set_index(["method", "margin"])["seeds_recall"]
    assert start("power", directory, "--effect", "0.001")[0] == 0
    small = pd.read_csv(directory / "power.csv").set_index(["method", "margin"])
    assert (small["seeds_recall"].dropna() >= observed.dropna()).mean() > 0.8
    wider = start("power", directory, "--margin", "0.1")
    assert wider[0] == 0
    easy = pd.read_csv(directory / "power.csv")["seeds_accuracy_equal"]
    assert (easy <= small["seeds_accuracy_equal"].to_numpy()).all()


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_rows_are_one_sentence(name, start, tmp_path):
    status, output = start(name, tmp_path / "missing")
    assert (status, output.count("\n")) == (2, 1)
    assert "missing is not a directory" in output
    status, output = start(name, tmp_path)
    assert (status, output.count("\n")) == (2, 1)
    assert "holds no rows of trials" in output
    pd.DataFrame({"seconds": [1.0]}).to_parquet(tmp_path / "other.parquet")
    status, output = start(name, tmp_path)
    assert status == 2
    assert "not rows of trials: they have no trial_id" in output


@pytest.mark.parametrize("name", SCRIPTS)
def test_data_sets_and_settings_are_not_mixed(name, start, tmp_path):
    write(tmp_path)
    others = [row | {"trial_id": f"mnist {row['trial_id']}"} for row in rows()]
    others = [row | {"dataset": "mnist"} for row in others]
    results.write(others, tmp_path / "rows" / "b.parquet")
    status, output = start(name, tmp_path)
    assert status == 2
    assert "several data sets (digits, mnist)" in output
    assert start(name, tmp_path, "--dataset", "digits")[0] == 0
    status, output = start(name, tmp_path, "--dataset", "gtsrb")
    assert status == 2
    assert "--dataset must be among digits, mnist" in output
    longer = [
        row | {"trial_id": f"long {row['trial_id']}"}
        for row in rows(settings=json.dumps(SETTINGS | {"epochs": 60}))
    ]
    results.write(longer, tmp_path / "rows" / "b.parquet")
    status, output = start(name, tmp_path)
    assert status == 2
    assert "different settings" in output
    assert "epochs 3 or 60. Pick one as with --where epochs=3" in output
    assert start(name, tmp_path, "--where", "epochs=60")[0] == 0
    status, output = start(name, tmp_path, "--where", "epochs=7")
    assert status == 2
    assert "only rows of epochs 3 or 60" in output
    assert "must be NAME=VALUE" in start(name, tmp_path, "--where", "epoch")[1]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_class_without_rows_is_told(name, start, tmp_path):
    status, output = start(name, write(tmp_path), "--important", "cow")
    assert status == 2
    assert "--important must be among bee, got cow" in output


@pytest.mark.parametrize("name", SCRIPTS)
def test_without_cross_entropy_nothing_is_compared(name, start, tmp_path):
    status, output = start(name, write(tmp_path, SPECS[1:2]))
    assert status == 2
    assert "must hold cross_entropy" in output


def test_cross_entropy_alone_has_tables_but_no_power(start, tmp_path):
    directory = write(tmp_path, [CROSS_ENTROPY], validation=False)
    for name in ("table1", "table2"):
        assert start(name, directory)[0] == 0
    assert "none to compare it with" in start("table1", directory)[1]
    status, output = start("power", directory)
    assert status == 2
    assert "cross_entropy only, and none to compare it with" in output
    # Its moved threshold is something to compare.
    directory = write(tmp_path / "more", [CROSS_ENTROPY])
    for name in SCRIPTS:
        assert start(name, directory)[0] == 0


def test_one_seed_has_tables_without_spread_and_no_power(start, tmp_path):
    directory = write(tmp_path, num_seeds=1)
    status, output = start("table1", directory)
    assert status == 0
    assert "fewer than three seeds" in output
    assert "nan" not in output
    assert "±0" not in output
    assert start("table2", directory)[0] == 0
    status, output = start("power", directory)
    assert status == 2
    assert "train more with --num-seeds" in output


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_interrupted_sweep_and_diverged_trials_are_noted(name, start, tmp_path):
    given = rows()
    broken = next(row for row in given if row["method"] == "arcface")
    broken |= {"loss": np.nan}
    results.write(given[:-2], tmp_path / "a.parquet")
    status, output = start(name, tmp_path)
    assert status == 0, output
    assert "of 4 seeds there are, for CAMRI m=8π/64 s=16 2" in output
    assert "1 of 22 trials diverged and are left out (ArcFace" in output
    assert " nan" not in output


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_method_of_which_all_diverged_is_empty(name, start, tmp_path):
    given = [
        row | {"diverged": row["method"] == "camri", "loss": 0.5} for row in rows()
    ]
    results.write(given, tmp_path / "a.parquet")
    status, output = start(name, tmp_path)
    assert status == 0, output
    assert "nan" not in output


@pytest.mark.parametrize(
    "arguments", [("--power", "2"), ("--margin", "0"), ("--power", "0.01")]
)
def test_power_refuses_what_is_no_chance(arguments, start, tmp_path):
    status, output = start("power", write(tmp_path), *arguments)
    assert status == 2
    assert "must be" in output
