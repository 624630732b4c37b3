"""The main job as a user starts it: its table, its files, its going on, its errors."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest

from camri_jax import datasets
from camri_jax.sweeps import rows as results
from camri_jax.training import classifier

SCRIPT = Path(__file__).parents[1] / "experiments" / "sweep.py"
SMALL = (
    *("--methods", "cross_entropy", "camri", "--margins", "0.2"),
    *("--num-seeds", "2", "--epochs", "1", "--important", "8"),
)


def command(*arguments, cwd):
    environment = {
        **os.environ,
        # As the tests' own, so that they share compiled programs.
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "COLUMNS": "80",
    }
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("sweep")
    done = command(*SMALL, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout, cwd


def test_the_table_says_what_the_rows_say(finished):
    stdout, cwd = finished
    rows = results.read(cwd / "results" / "digits" / "rows")
    assert len(rows) == 4
    for method, label in (("cross_entropy", "cross-entropy"), ("camri", "CAMRI")):
        confusions = np.stack(rows[rows["method"] == method]["test_confusion"].tolist())
        confusions = confusions.reshape(-1, 10, 10)
        recall = [matrix[8, 8] / matrix[8].sum() for matrix in confusions]
        accuracy = [np.trace(matrix) / matrix.sum() for matrix in confusions]
        rows_of_table = [x.strip() for x in stdout.splitlines() if "±" in x]
        (line,) = [x for x in rows_of_table if x.startswith(label)]
        for values in (recall, accuracy):
            assert f"{np.mean(values):.3f}±{np.std(values, ddof=1):.3f}" in line
    assert stdout.count("  + threshold") == 2
    assert "…" not in stdout.split("Important class")[1], "a clipped cell"


def test_the_files_are_where_it_says(finished):
    stdout, cwd = finished
    output = cwd / "results" / "digits"
    for name in ("rows", "table.csv", "recall_accuracy.png"):
        assert str(Path("results") / "digits" / name) in stdout
    table = pd.read_csv(output / "table.csv")
    assert set(table["method"]) == {
        *("cross_entropy", "cross_entropy+threshold", "camri", "camri+threshold")
    }
    picture = (output / "recall_accuracy.png").read_bytes()
    assert picture.startswith(b"\x89PNG")


def test_the_model_it_names_classifies_as_its_row_says(finished):
    stdout, cwd = finished
    (line,) = [x for x in stdout.splitlines() if x.startswith("model")]
    path = cwd / line.split()[1]
    model = classifier.load(path)
    digits = datasets.load("digits")
    predictions = model.logits(digits.test_images).argmax(-1)
    rows = results.read(cwd / "results" / "digits" / "rows").set_index("trial_id")
    confusion = np.zeros((10, 10), int)
    np.add.at(confusion, (digits.test_labels, predictions), 1)
    np.testing.assert_array_equal(
        np.ravel(confusion), rows.loc[path.stem, "test_confusion"]
    )


def test_started_again_it_trains_nothing_and_says_the_same(finished):
    stdout, cwd = finished
    again = command(*SMALL, cwd=cwd)
    assert "of which 4 are done" in again.stdout
    assert "of 4 trials" not in again.stdout
    table = stdout[stdout.index("Important class") :]
    assert again.stdout.endswith(table)


def test_a_dry_run_tells_the_plan_and_trains_nothing(tmp_path):
    dry = command(*SMALL, "--dry-run", "--num-seeds", "7", cwd=tmp_path)
    assert dry.returncode == 0, dry.stderr
    for part in ("14, of which 0 are done", "2 to compile", "MiB a device"):
        assert part in dry.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_measured_width_is_kept_when_started_again(tmp_path):
    """More seeds train in the programs that the first ones were trained in."""
    arguments = ("--methods", "cross_entropy", "--epochs", "1")
    arguments += ("--trials-per-device", "auto", "--num-seeds")
    widths = []
    for num_seeds in ("2", "6"):
        done = command(*arguments, num_seeds, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        rows = results.read(tmp_path / "results" / "digits" / "rows")
        assert len(rows) == int(num_seeds)
        facts = rows["provenance"].map(json.loads)
        widths += [{(fact["width"], fact["num_devices"]) for fact in facts}]
    assert widths[0] == widths[1]
    assert len(widths[0]) == 1


def test_help_tells_every_flag(tmp_path):
    text = command("--help", cwd=tmp_path).stdout
    for flag in (
        *("--dataset", "--important", "--methods", "--margins", "--num-seeds"),
        *("--epochs", "--batch-size", "--model", "--optimizer", "--output"),
        *("--trials-per-device", "--preset", "--dry-run", "--schedule"),
    ):
        assert flag in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--important", "nine"), "no class is called 'nine'"),
        (("--dataset", "digit"), "no data set is called 'digit'"),
        (("--methods", "camry"), "got camry"),
        (("--margins", "4"), "margin must be from 0 to pi"),
        (("--epochs", "0"), "epochs must be at least 1"),
        (("--batch-size", "2000"), "batch_size must be at most"),
        (("--validation-fraction", "1"), "validation_fraction"),
        (("--dataset", "npz:missing.npz", "--important", "1"), "missing.npz"),
        (("--preset", "papers"), "papers"),
        (("--methods", "camri"), "must hold cross_entropy"),
    ],
)
def test_bad_input_is_one_sentence(arguments, message, tmp_path):
    failed = command(*arguments, cwd=tmp_path)
    output = failed.stdout + failed.stderr
    assert failed.returncode == 2
    assert message in output
    assert "Traceback" not in output
    assert list(tmp_path.iterdir()) == []


def test_a_baseline_of_another_class_is_told_before_training(finished):
    _, cwd = finished
    other = ("--methods", "camri", "--important", "3", "--num-seeds", "1")
    failed = command(*other, "--epochs", "1", cwd=cwd)
    assert failed.returncode == 2
    assert "methods must hold cross_entropy" in failed.stdout
    assert "of 2 trials" not in failed.stdout


def test_a_sweep_of_which_all_diverges_ends_with_its_table(tmp_path):
    arguments = ("--methods", "cross_entropy", "--num-seeds", "1", "--epochs", "1")
    done = command(*arguments, "--learning-rate", "1e38", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Important class" in done.stdout
    assert (tmp_path / "results" / "digits" / "recall_accuracy.png").exists()


def test_an_output_that_cannot_be_written_is_told_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    failed = command(*SMALL, "--output", "file", cwd=tmp_path)
    assert failed.returncode == 2
    assert "file" in failed.stdout
    assert "Traceback" not in failed.stdout + failed.stderr
