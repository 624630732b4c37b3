"""The script that shows a data set."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

_SCRIPT = Path(__file__).parents[1] / "experiments" / "show_data.py"


@pytest.fixture
def show(tmp_path, monkeypatch):
    """Runs the script, with a cache and an output of its own."""
    monkeypatch.delenv("CAMRI_DATA_DIR", raising=False)
    monkeypatch.setenv("CAMRI_CACHE_DIR", str(tmp_path / "cache"))

    def show(*arguments):
        command = [sys.executable, _SCRIPT, "--output", tmp_path / "out", *arguments]
        return subprocess.run(command, capture_output=True, text=True)

    return show


def test_digits_are_shown(show, tmp_path):
    done = show("--validation-fraction", "0.1")
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    with (out / "counts.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == list("0123456789")
    parts = ("train", "validation", "test")
    assert sum(int(row[part]) for row in rows for part in parts) == 1797
    assert all(part in done.stdout for part in (*parts, "all_classes.png"))
    with Image.open(out / "all_classes.png") as sheet:
        assert sheet.height > 10 * 48
        assert len(sheet.convert("L").getcolors(256) or []) > 16
    assert len(list((out / "classes").glob("*.png"))) == 10


def test_own_pictures_are_shown_with_what_is_wrong_with_them(show, tmp_path):
    rng = np.random.default_rng(0)
    for part, number in (("train", 150), ("test", 3)):
        for class_name in ("кошка", "two words"):
            folder = tmp_path / "mine" / part / class_name
            folder.mkdir(parents=True)
            for i in range(number):
                pixels = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    (tmp_path / "mine/train/two words/broken.png").write_bytes(b"<html></html>")
    done = show("--dataset", f"folder:{tmp_path / 'mine'}", "--image-size", "16")
    assert done.returncode == 0, done.stderr
    assert "кошка" in done.stdout
    assert "note: 1 of 307 pictures cannot be read" in done.stdout
    assert (tmp_path / "out" / "classes" / "01 кошка.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "cifar"], "no data set is called 'cifar'; there is cifar10"),
        (["--dataset", "npz:absent.npz"], "absent.npz: no such file"),
        (["--dataset", "folder:absent"], "absent: no such directory"),
        (["--data-dir", "absent", "--dataset", "gtsrb"], "no such data directory"),
        (["--validation-fraction", "1.5"], "validation_fraction is 1.5"),
        (["--examples", "0"], "--examples is 0"),
        (["--output", str(_SCRIPT)], "cannot be shown"),
    ],
)
def test_bad_input_is_answered_in_a_sentence(show, arguments, message):
    done = show(*arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_help_reads_well(show):
    done = show("--help")
    assert done.returncode == 0
    assert "--dataset" in done.stdout
