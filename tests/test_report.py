"""The page says what the numbers say, opens without a network, and reads well."""

import itertools
import json
import re

import numpy as np
import pandas as pd
import pytest
from synthetic import CLASSES, SPECS, rows, script, write

from camri_jax.evidence import curves, report
from camri_jax.evidence.selection import LABELS
from camri_jax.sweeps import rows as results

NAMES = ("ant", "</script><b>bee", 'c&a"t', "dog")


@pytest.fixture(scope="module", autouse=True)
def few_recalls():
    """As many recalls as the tests have patience for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "RECALLS", np.linspace(0, 1, 11))
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The page of two choices of important classes, one with an unfriendly name."""
    directory = tmp_path_factory.mktemp("results")
    important = ((3,), (1, 0))
    write(directory, SPECS[::4], num_seeds=3, important=important, class_names=NAMES)
    script("report").main([str(directory)])
    return directory / "report.html"


@pytest.fixture
def start(capsys):
    """Runs the script as the command line does: its status and what it printed."""

    def start(*arguments):
        module, status = script("report"), 0
        try:
            module.run(lambda: module.main([str(x) for x in arguments]))
        except SystemExit as stopped:
            status = stopped.code
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return start


def line(**changes):
    """A selected setting of CAMRI, compared on four seeds."""
    numbers = {"num_seeds": 4, "num_pairs": 4, "recall": 0.8, "recall_std": 0.01}
    numbers |= {"accuracy": 0.9, "accuracy_std": 0.02, "margin": np.pi / 16}
    for name in ("recall", "accuracy", "above"):
        numbers |= {f"{name}_difference": 0.01, f"{name}_p_holm": 0.01}
        numbers |= {f"{name}_low": -0.01, f"{name}_high": 0.03}
    return pd.Series({"method": "camri", **numbers, **changes})


@pytest.mark.parametrize("above", [0.01, 0.051, np.nan])
@pytest.mark.parametrize("accuracy", [0.01, 0.051, np.nan])
@pytest.mark.parametrize("recall", [0.01, 0.051, np.nan])
def test_a_verdict_claims_what_was_shown_and_nothing_else(recall, accuracy, above):
    values = {"recall": recall, "accuracy": accuracy, "above": above}
    found = report.finding(
        line(**{f"{name}_p_holm": p for name, p in values.items()}), 0.005
    )
    shown = {name: p < 0.05 for name, p in values.items()}
    assert found.verdict.startswith("finds more") == shown["recall"]
    claims = found.verdict.replace("is not shown to keep accuracy", "")
    assert ("keeps accuracy" in claims) == (shown["recall"] and shown["accuracy"])
    assert ("and does better than moving" in claims) == all(shown.values())
    for sentence, p in zip(found.sentences[1:], values.values(), strict=True):
        assert ("is shown" in sentence) == (p < 0.05)
        assert ("not shown" in sentence) == (p >= 0.05)
        assert ("cannot be tested" in sentence) == np.isnan(p)


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"method": "cross_entropy"}, "compared with"),
        ({"recall": np.nan, "num_pairs": 0}, "diverged"),
        ({"num_pairs": 0}, "shares no seed"),
        ({"num_pairs": 1}, "one seed"),
    ],
)
def test_where_nothing_can_be_compared_nothing_is_claimed(changes, verdict):
    found = report.finding(line(**changes), 0.005)
    assert verdict in found.verdict
    if changes.get("num_pairs") != 1:
        assert not any("interval" in sentence for sentence in found.sentences)


def test_a_threshold_moved_makes_no_claim_about_the_curve():
    moved = line(method="camri+threshold", above_difference=np.nan, above_p_holm=np.nan)
    found = report.finding(moved, 0.005)
    assert not any("curve" in sentence for sentence in found.sentences)
    assert "better" not in found.verdict


def test_settings_grid_and_origins_are_those_of_the_rows(tmp_path):
    first = {"time": "2026-01-02", "command": "first", "device": "abacus"}
    some = rows(SPECS[:1], provenance=json.dumps(first))
    some += rows(SPECS[4:], provenance=json.dumps({"command": "second"}))
    results.write(some, tmp_path / "a.parquet")
    read = results.read(tmp_path)
    facts = report.settings(read)
    assert facts["test images"] == facts["validation images"] == f"{80 * len(CLASSES)}"
    assert facts["epochs"] == "3"
    grid = {row[0]: row[1:] for row in report.grid(read).rows}
    assert grid == {
        "cross-entropy": ["", "", "", "", "", "4", "4"],
        "CAMRI": ["4, 8", "16", "", "", "", "4", "8"],
    }
    origins = {origin.command: origin.facts for origin in report.origins(read)}
    assert {name: facts["trials"] for name, facts in origins.items()} == {
        "first": "4",
        "second": "8",
    }
    assert origins["first"]["device"] == "1 x abacus"
    assert origins["first"]["started"] == "2026-01-02"


def test_a_picture_is_drawn_for_light_and_dark_and_always_the_same():
    def draw():
        figure = report.Figure(figsize=(3, 2), label="a line")
        figure.subplots().plot([1, 2], [3, 4])
        return figure

    first, again = (report.picture(draw, "title", "caption") for _ in range(2))
    assert first == again
    assert first.light != first.dark
    assert (first.text, first.width) == ("a line", 288)


def test_the_page_is_whole_html_and_names_what_the_rows_hold(made):
    page = made.read_text(encoding="utf-8")
    for spec in SPECS[::4]:
        assert LABELS[spec.method] in page
    assert "Important class: dog" in page
    assert "&lt;/script&gt;&lt;b&gt;bee+ant" in page
    assert "</script><b>bee" not in page
    assert "python experiments/report.py" in page
    assert "python sweep.py" in page
    levels = [int(level) for level in re.findall(r"<h(\d)", page)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    identities = re.findall(r' id="([^"]+)"', page)
    assert len(set(identities)) == len(identities)
    assert set(re.findall(r'(?:href="#|aria-labelledby=")([^"]+)"', page)) <= set(
        identities
    )


@pytest.mark.parametrize(
    ("specs", "options", "sentences"),
    [
        (SPECS[:1], {}, ["Left out: settings must hold two", "cross-entropy only"]),
        (SPECS[::4], {"num_seeds": 1}, ["Left out: no setting shares two seeds"]),
        (SPECS[::4], {"validation": False}, ["picked on the test images only"]),
    ],
)
def test_what_is_missing_is_a_sentence(specs, options, sentences, start, tmp_path):
    status, output = start(write(tmp_path, specs, **{"num_seeds": 2} | options))
    assert status == 0, output
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for sentence in sentences:
        assert sentence in page


def test_a_method_that_always_diverged_is_said_to(start, tmp_path):
    some = rows(SPECS[:1], num_seeds=2)
    some += rows(SPECS[4:5], num_seeds=2, diverged=True, loss=np.nan)
    results.write(some, tmp_path / "a.parquet")
    status, output = start(tmp_path)
    assert status == 0, output
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "every trial diverged" in page
    assert "2 of 4 trials diverged" in page


@pytest.mark.parametrize(
    ("some", "sentence"),
    [
        ([], "no rows"),
        (rows(SPECS[4:5], num_seeds=2), "must hold cross_entropy"),
        (
            rows(SPECS[:1], num_seeds=1) + rows(SPECS[:1], num_seeds=1, dataset="b"),
            "several data sets",
        ),
    ],
)
def test_an_error_is_a_sentence(some, sentence, start, tmp_path):
    if some:
        for row in some:
            row["trial_id"] += row["dataset"]
        results.write(some, tmp_path / "a.parquet")
    status, output = start(tmp_path)
    assert status == 2
    assert sentence in output
    assert "Traceback" not in output
    assert not (tmp_path / "report.html").exists()


def test_a_margin_that_is_none_is_refused(start, tmp_path):
    status, output = start(write(tmp_path, SPECS[:1], num_seeds=2), "--margin", "0")
    assert status == 2
    assert "margin must be between 0 and 1, got 0" in output
