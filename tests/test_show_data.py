"""The command that shows a data set."""

import csv
import math
import re

import numpy as np
import pytest
from PIL import Image

from camri_jax.cli import show_data
from camri_jax.cli.main import main
from camri_jax.takehome import TuneConfig

MODELS = TuneConfig.num_finalists


@pytest.fixture
def show(tmp_path, monkeypatch, capsys):
    """Runs the command, with a cache and an output of its own; what it printed."""
    monkeypatch.delenv("CAMRI_DATA_DIR", raising=False)
    monkeypatch.setenv("CAMRI_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "90")

    def show(*arguments):
        assert main(["show_data", "--output", str(tmp_path / "out"), *arguments]) == 0
        return capsys.readouterr().out

    return show


def counted(tmp_path):
    with (tmp_path / "out" / "counts.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_digits_are_shown_with_what_they_can_certify(show, tmp_path):
    parts = ("train", "validation", "calibration", "test")
    out = show(
        "--validation-fraction",
        "0.1",
        "--calibration-fraction",
        "0.2",
        "--recall",
        "0.99",
    )
    rows = counted(tmp_path)
    assert [row["name"] for row in rows] == list("0123456789")
    assert sum(int(row[part]) for row in rows for part in parts) == 1797
    assert all(part in out for part in (*parts, "all_classes.png"))
    for row in rows:
        for models, column in ((1, ""), (MODELS, f"_of_{MODELS}")):
            # So many images, none of them missed, happen with 5 % at this recall.
            recall = row[f"certifiable_recall{column}"]
            chance = float(recall) ** int(row["calibration"])
            assert math.isclose(chance, 0.05 / models, rel_tol=0.01)
            assert chance <= 0.05 / models
            assert recall[:-1] in out
    assert "finalists" in out
    assert "takes 299 calibration images" in out
    most = max(float(row["certifiable_recall"]) for row in rows)
    assert f"{math.floor(1000 * most) / 10} % is the most" in out
    with Image.open(tmp_path / "out" / "all_classes.png") as sheet:
        assert sheet.height > 10 * 48
        assert len(sheet.convert("L").getcolors(256) or []) > 16
    assert len(list((tmp_path / "out" / "classes").glob("*.png"))) == 10


@pytest.mark.parametrize("fraction", ["0", "0.1", "0.3"])
@pytest.mark.parametrize("asked", [None, "0.9", "0.99"])
def test_what_is_proposed_can_be_certified(fraction, asked, show, tmp_path):
    words = [] if asked is None else ["--recall", asked]
    out = show("--calibration-fraction", fraction, *words)
    told = re.search(r"tune --important CLASS (?:--recall (\S+) )?--dataset", out)
    assert told
    if fraction == "0":
        assert told[1] == asked
        return
    rows = counted(tmp_path)
    most = max(float(row["certifiable_recall"]) for row in rows)
    shared = max(float(row[f"certifiable_recall_of_{MODELS}"]) for row in rows)
    within = asked is None or float(asked) <= most
    assert ("the most that any of them can certify" in out) == (not within)
    if asked is not None and within:
        assert told[1] == asked
    else:
        assert float(told[1]) <= shared < float(told[1]) + 0.01


def test_own_pictures_are_shown_with_what_is_wrong_with_them(show, tmp_path):
    rng = np.random.default_rng(0)
    names = ("кошка", "[red]two words" + "x" * 100)
    for part, number in (("train", 150), ("test", 3)):
        for name in names:
            folder = tmp_path / "mine" / part / name
            folder.mkdir(parents=True)
            for i in range(number):
                pixels = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    (tmp_path / "mine" / "train" / names[1] / "broken.png").write_bytes(
        b"<html></html>"
    )
    out = show("--dataset", f"folder:{tmp_path / 'mine'}", "--image-size", "16")
    assert "кошка" in out
    assert "[red]two words" in out
    assert "note: 1 of 307 pictures cannot be read" in out
    assert (tmp_path / "out" / "classes" / "01 кошка.png").exists()


@pytest.mark.parametrize(
    ("name", "drawn"),
    [("Ω й é ß", True), ("停", False), ("stop 停", False), ("b", True)],
)
def test_a_name_is_drawn_only_in_letters_that_there_are(name, drawn):
    assert show_data._has_letters(name) == drawn


def test_features_are_counted_and_not_drawn(show, tmp_path):
    features = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    labels = np.arange(60) % 3
    path = tmp_path / "features.npz"
    np.savez(
        path,
        train_features=features,
        train_labels=labels,
        test_features=features + 1,
        test_labels=labels,
    )
    out = show("--dataset", f"npz:{path}")
    assert "none is drawn" in out
    assert [int(row["train"]) for row in counted(tmp_path)] == [20, 20, 20]
