"""Scripts that draw, as a user starts them: their files, notes and errors."""

import jax
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from synthetic import SPECS, rows, script, write

from camri_jax.sweeps import rows as results

# The files of each script that starts from rows.
SCRIPTS = {
    "figure3": ("figure3",),
    "figure4": ("figure4",),
    "curves": ("curves", "tradeoff"),
}


@pytest.fixture
def start(capsys, monkeypatch):
    """Runs a script as the command line does, and returns its status and output."""
    # As many recalls as the tests have patience for.
    monkeypatch.setattr(
        "camri_jax.evidence.figures.tradeoff.RECALLS", np.linspace(0, 1, 11)
    )

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


def is_picture(path):
    with Image.open(path) as picture:
        colours = picture.convert("L").getcolors(256)
    return colours is not None and len(colours) > 10


@pytest.mark.parametrize("name", SCRIPTS)
def test_pictures_are_written_beside_the_rows_or_elsewhere(name, start, tmp_path):
    directory = write(tmp_path, important=((1,), (0, 2)))
    status, output = start(name, directory)
    assert status == 0, output
    elsewhere = tmp_path / "else where"
    assert start(name, directory, "--output", elsewhere, "--format", "svg")[0] == 0
    for file in SCRIPTS[name]:
        assert is_picture(directory / f"{file}.png")
        assert f"wrote {directory / file}.png" in output
        text = (elsewhere / f"{file}.svg").read_text()
        assert "bee" in text
        assert "ant+cat" in text


def test_another_method_is_compared_on_request(start, tmp_path):
    directory = write(tmp_path)
    name = "cross_entropy+threshold"
    assert start("figure4", directory, "--method", name, "--format", "svg")[0] == 0
    text = (directory / "figure4.svg").read_text()
    assert "cross-entropy, threshold moved, important: bee" in text
    status, output = start("figure4", directory, "--method", "magic")
    assert status == 2
    assert "got magic; there are cross_entropy+threshold, weighted" in output


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_rows_are_one_sentence(name, start, tmp_path):
    for directory, message in (
        (tmp_path / "missing", "missing is not a directory"),
        (tmp_path, "holds no rows of trials"),
    ):
        status, output = start(name, directory)
        assert (status, output.count("\n")) == (2, 1)
        assert message in output


@pytest.mark.parametrize("name", SCRIPTS)
def test_data_sets_are_not_mixed(name, start, tmp_path):
    write(tmp_path)
    others = [row | {"trial_id": f"m {row['trial_id']}"} for row in rows()]
    others = [row | {"dataset": "mnist"} for row in others]
    results.write(others, tmp_path / "rows" / "b.parquet")
    status, output = start(name, tmp_path)
    assert (status, output.count("\n")) == (2, 1)
    assert "several data sets (digits, mnist)" in output
    assert start(name, tmp_path, "--dataset", "digits")[0] == 0


@pytest.mark.parametrize("name", SCRIPTS)
def test_one_seed_is_drawn(name, start, tmp_path):
    status, output = start(name, write(tmp_path, num_seeds=1))
    assert status == 0, output
    assert is_picture(tmp_path / f"{SCRIPTS[name][-1]}.png")


@pytest.mark.parametrize("name", SCRIPTS)
def test_one_method_alone_is_drawn_or_told(name, start, tmp_path):
    camri = write(tmp_path / "camri", SPECS[4:])
    status, output = start(name, camri)
    assert (status, output.count("\n")) == (2, 1)
    assert "must hold cross_entropy" in output
    baseline = write(tmp_path / "baseline", SPECS[:1], validation=False)
    status, output = start(name, baseline)
    assert "no validation images" in output
    if name == "curves":
        assert status == 0
        return
    assert status == 2
    message = {
        "figure3": "there are only cross-entropy",
        "figure4": "got camri; there are only trials of cross-entropy",
    }[name]
    assert message in output


@pytest.mark.parametrize("name", SCRIPTS)
def test_interrupted_sweeps_and_lost_trials_are_drawn_with_notes(name, start, tmp_path):
    given = rows()
    lost = next(row for row in given if row["method"] == "arcface")
    lost |= {"loss": np.nan, "history_recall": np.full(12, np.nan)}
    results.write(given[:-2], tmp_path / "a.parquet")
    status, output = start(name, tmp_path)
    assert status == 0, output
    assert "of 4 seeds there are, for CAMRI m=8π/64 s=16 2" in output
    assert "1 of 22 trials diverged and are left out (ArcFace" in output


@pytest.mark.parametrize("name", SCRIPTS)
def test_where_every_trial_is_lost_there_is_a_sentence(name, start, tmp_path):
    given = [row | {"loss": np.nan} for row in rows()]
    results.write(given, tmp_path / "a.parquet")
    status, output = start(name, tmp_path)
    assert status == 2, output
    assert "Traceback" not in output
    assert "error: " in output


def test_figure_1_needs_no_rows(start, tmp_path):
    status, output = start("figure1", "--output", tmp_path / "new")
    assert status == 0, output
    assert is_picture(tmp_path / "new" / "figure1.png")


@pytest.fixture
def figure2(start, monkeypatch):
    """Starts figure2 on the devices that the tests have."""
    monkeypatch.setattr(script("figure2"), "set_up_jax", lambda: None)

    def figure2(*arguments):
        with jax.numpy_dtype_promotion("standard"):
            return start("figure2", *arguments)

    return figure2


def test_figure_2_trains_once_and_draws_again(figure2, tmp_path):
    arguments = ("--dataset", "digits", "--epochs", "1", "--num-seeds", "1")
    status, output = figure2(*arguments, "--output", tmp_path)
    assert status == 0, output
    for name in ("L2-softmax s=8", "ArcFace m=8π/64 s=8", "CAMRI m=8π/64 s=8"):
        assert f"{name}: recall " in output
    assert "n=1" in output
    assert is_picture(tmp_path / "figure2.png")
    (models,) = [list((tmp_path / "models").iterdir())]
    assert len(models) == 3
    before = {path: path.stat().st_mtime_ns for path in models}
    status, again = figure2(*arguments, "--output", tmp_path, "--format", "svg")
    assert status == 0, again
    assert before == {path: path.stat().st_mtime_ns for path in models}
    assert "recall of 3" in (tmp_path / "figure2.svg").read_text()
    # Another class: methods that are not trained for one are measured anew.
    status, other = figure2(*arguments, "--output", tmp_path, "--important", "8")
    assert status == 0, other
    assert other.count(": recall ") == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--important", "cow"), "cow"),
        (("--scale", "0"), "scale must be"),
        (("--margin", "4"), "margin must"),
        (("--epochs", "0"), "epochs must be at least 1"),
        (("--dataset", "digit"), "no data set is called 'digit'"),
    ],
)
def test_figure_2_answers_bad_input_in_a_sentence(
    arguments, message, figure2, tmp_path
):
    status, output = figure2("--dataset", "digits", "--output", tmp_path, *arguments)
    assert (status, output.count("\n")) == (2, 1)
    assert message in output


def test_figure_2_draws_the_seed_that_is_best_for_all_three(tmp_path):
    best_seed = script("figure2").best_seed
    lines = [
        {"seed": seed, "method": method, "validation_accuracy": accuracy}
        for seed, accuracies in enumerate([(0.9, 0.2, 0.9), (0.8, 0.8, 0.8), (1, 1)])
        for method, accuracy in zip(
            ("l2_softmax", "arcface", "camri"), accuracies, strict=False
        )
    ]
    assert best_seed(pd.DataFrame(lines)) == 1
    with pytest.raises(ValueError, match="every seed diverged"):
        best_seed(pd.DataFrame(lines[-2:]))
