"""Commands as users meet them: what they write, what they say, and how they end."""

import contextlib
import errno
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from camri_jax import datasets
from camri_jax._files import TryAgain, UsageError, address
from camri_jax.cli import arguments, backend, console, progress, sweep, tune
from camri_jax.cli.arguments import DataArguments, ResultsArguments
from camri_jax.cli.main import COMMANDS, main
from camri_jax.evidence import figures
from camri_jax.sweeps import rows
from camri_jax.sweeps.engine import Progress
from camri_jax.takehome import TuneConfig, load_model
from camri_jax.takehome.tuning import goal_of
from camri_jax.training.network import NETWORKS

ROOT = Path(__file__).parents[1]
NAMES = ("go", "[stop]", "c++", "$5")
SWEEP = (
    *("--dataset", "npz:signs.npz", "--important", "[stop]", "--output", "out"),
    *("--methods", "cross_entropy", "camri", "--margins", "4pi/64"),
    *("--num-seeds", "2", "--epochs", "4", "--batch-size", "32"),
)


def stripes(number):
    """Noise, and stripes at a place that tells the class of four."""
    rng, labels = np.random.default_rng(number), np.arange(number) % 4
    images = rng.integers(0, 60, (number, 8, 8), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[2 * label : 2 * label + 2] += 150
    return images, labels


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The one sweep that a process of its own runs; what it said, and where."""
    cwd = tmp_path_factory.mktemp("cli")
    made = {}
    for name, number in (("train", 128), ("validation", 48), ("test", 60)):
        made[f"{name}_images"], made[f"{name}_labels"] = stripes(number)
    np.savez(cwd / "signs.npz", **made, class_names=np.array(NAMES))
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "MPLBACKEND": "module://of_a_notebook",
        "PYTHONIOENCODING": "cp1252",
        "PATH": "",
    }
    done = subprocess.run(
        [sys.executable, ROOT / "experiments" / "sweep.py", *SWEEP],
        cwd=cwd,
        env=environment,
        capture_output=True,
        encoding="cp1252",
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (cwd / "a_file").write_text("")
    (cwd / "empty").mkdir()
    (cwd / "pictures" / ".trash").mkdir(parents=True)
    for i, image in enumerate(made["test_images"]):
        Image.fromarray(image).save(cwd / "pictures" / f"{i:03d}.png")
    Image.fromarray(image).save(cwd / "pictures" / ".trash" / "x.png")
    (cwd / "pictures" / "bad.png").write_bytes(b"<html>")
    return done.stdout, cwd


@pytest.fixture
def camri(finished, monkeypatch, capsys):
    """Runs a command in this process, where the sweep was; status, output, errors."""
    monkeypatch.chdir(finished[1])
    monkeypatch.setattr(backend, "set_up_jax", lambda: None)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*words):
        status = main([str(word) for word in words])
        return status, *capsys.readouterr()

    return run


def listing(folder):
    return {p: p.stat().st_mtime_ns for p in sorted(folder.rglob("*"))}


# --- What a sweep says and writes ----------------------------------------------------


def test_the_table_says_what_the_rows_say(finished):
    stdout, cwd = finished
    found = rows.read(cwd / "out")
    assert len(found) == 4
    for method, label in (("cross_entropy", "cross-entropy"), ("camri", "CAMRI")):
        confusions = found[found["method"] == method]["test_confusion"]
        recall = [c[1, 1] / c[1].sum() for c in confusions]
        accuracy = [np.trace(c) / c.sum() for c in confusions]
        (line,) = [x for x in stdout.splitlines() if x.startswith(label) and "±" in x]
        for values in (recall, accuracy):
            assert f"{np.mean(values):.3f}±{np.std(values, ddof=1):.3f}" in line


def test_files_are_where_it_says(finished):
    stdout, cwd = finished
    said = dict(re.findall(r"^(\w+) +(out/?\S*)$", stdout, re.MULTILINE))
    assert {"model", "rows", "picture", "table", "report"} <= said.keys()
    assert all((cwd / path).exists() for path in said.values())
    assert (cwd / said["picture"]).read_bytes().startswith(b"\x89PNG")
    assert {"cross_entropy", "camri"} == set(pd.read_csv(cwd / said["table"])["method"])
    assert "[stop]" in stdout
    assert f"next      camri predict {said['model']} PICTURES" in stdout


def test_the_command_that_is_kept_can_be_pasted_again(finished):
    kept = {
        json.loads(text)["command"]
        for text in rows.read(finished[1] / "out").provenance
    }
    assert {tuple(shlex.split(text)) for text in kept} == {("camri", "sweep", *SWEEP)}


def test_started_again_it_trains_nothing_and_says_the_same(camri, finished):
    stdout, _ = finished
    status, again, _ = camri("sweep", *SWEEP)
    assert status == 0
    assert "4, of which 4 are done" in again
    assert "4, of which 0 are done" in stdout
    # What that process could not print of its letters is no difference.
    first, second = (
        re.findall(r"[\w.]+", text[text.index("Table I.") :], re.ASCII)
        for text in (stdout, again)
    )
    assert first == second


@pytest.mark.usefixtures("promotion_as_optax_needs_it")
def test_a_dry_run_tells_the_plan_and_writes_nothing(camri, finished):
    before = listing(finished[1])
    status, out, _ = camri("sweep", *SWEEP, "--num-seeds", "9", "--dry-run")
    assert status == 0
    for part in (
        "18, of which 4 are done",
        "2 to compile",
        "MiB a device",
        "MB",
        "time",
    ):
        assert part in out
    assert listing(finished[1]) == before


@pytest.mark.filterwarnings("default:.*is no file of rows:RuntimeWarning")
@pytest.mark.usefixtures("promotion_as_optax_needs_it")
def test_a_dry_run_passes_over_damaged_rows_with_a_note(camri, monkeypatch, tmp_path):
    monkeypatch.setattr(sweep, "tell_needs", lambda *_: None)
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "cut.parquet").write_bytes(b"PAR1")
    words = ("--output", str(tmp_path), "--dry-run")
    status, *said = camri("sweep", *SWEEP, *words)
    assert status == 0
    assert "".join(said).count("is no file of rows") == 1


@pytest.mark.usefixtures("promotion_as_optax_needs_it")
def test_trials_that_settings_leave_uncounted_are_told(camri, monkeypatch):
    monkeypatch.setattr(sweep, "tell_needs", lambda *_: None)
    for words, told in (
        (("--epochs", "5"), "epochs (4, now 5)"),
        (("--resample", "64"), "resample (none, now 64)"),
    ):
        status, out, _ = camri("sweep", *SWEEP, *words, "--dry-run")
        assert status == 0
        note = f"4 finished trials in out are not counted, as they differ in {told}"
        assert " ".join(out.split()).endswith(note)
    assert "not counted" not in "".join(camri("sweep", *SWEEP, "--dry-run")[1:])


# --- Commands on what it wrote -------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "files"),
    [
        (("report", "--recall", "0.9"), {"report.html"}),
        (("table1", "--important", "1", "c++"), {"table1.csv", "table1.md"}),
        (("power",), {"power.csv", "power.md"}),
        (
            ("prices", "--recalls", "0.5", "0.9"),
            {"prices.csv", "prices.md", "prices.parquet"},
        ),
        (("table2",), {"table2.csv", "table2.md"}),
        (
            ("figures", "--pictures", "price", "confusions"),
            {"price.png", "confusions.png"},
        ),
    ],
)
def test_commands_on_results_write_where_they_say(
    camri, finished, tmp_path, words, files
):
    before = listing(finished[1])
    command, *options = words
    output = tmp_path / "new" / "er"
    status, out, _ = camri(command, "out", "--output", output, *options)
    assert status == 0
    assert {path.name for path in output.iterdir()} == files
    assert all(str(output / name) in out for name in files)
    assert listing(finished[1]) == before, "results are read, not written"


def test_what_cannot_be_drawn_is_told_and_nothing_drawn_is_1(camri, tmp_path):
    options = ("--pictures", "penalties", "--important", "go", "--output", tmp_path)
    status, out, _ = camri("figures", "out", *options)
    assert status == 1
    assert "note: penalties of go cannot be drawn" in out
    assert list(tmp_path.iterdir()) == []


def test_predictions_are_those_of_the_model_and_of_training(camri, finished, tmp_path):
    _, cwd = finished
    csv = tmp_path / "made" / "out.csv"
    status, out, _ = camri("predict", "out/model", "pictures", "--csv", csv)
    assert status == 0
    assert "note: pictures/bad.png cannot be read" in out
    assert "61 pictures, 1 not read: " in out
    table = pd.read_csv(csv)
    assert list(table["image"]) == sorted(table["image"])
    unread = table["error"].notna()
    (lost,) = table[unread].to_dict("records")
    assert lost.pop("image") == "pictures/bad.png"
    assert "cannot be read as a picture" in lost.pop("error")
    assert pd.isna([*lost.values()]).all()
    table = table[~unread]
    images, labels = stripes(60)
    model = load_model(cwd / "out" / "model")
    logits = model.logits(images[..., None])
    assert list(table["class"]) == [NAMES[k] for k in logits.argmax(-1)]
    others = np.delete(logits, 1, axis=1).max(1)
    distance = logits[:, 1].astype(float) - others
    np.testing.assert_allclose(table["distance_from_threshold"], distance, rtol=1e-4)
    assert (
        (table["distance_from_threshold"] > 0) == (table["class"] == "[stop]")
    ).all()
    np.testing.assert_allclose(
        table["probability"], model.predict_proba(images[..., None]).max(1), rtol=1e-4
    )
    found = int(((table["class"] == "[stop]") & (labels == 1)).sum())
    assert f"it finds {found} of 15 of [stop]" in finished[0]


def test_every_picture_is_printed_where_no_file_takes_it(camri):
    status, out, _ = camri("predict", "out/model", "pictures/00?.png")
    assert status == 0
    heading, *lines = out.splitlines()
    assert heading == "probability, distance from the threshold, class, picture:"
    assert [line.split()[-1] for line in lines] == [
        f"pictures/00{i}.png" for i in range(10)
    ]


def test_pictures_none_of_which_can_be_read_are_status_1(camri):
    assert camri("predict", "out/model", "pictures/bad.png")[0] == 1


def test_figure_1_needs_no_results(camri, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "contours", Figure)
    status, out, _ = camri("figure1", "--output", tmp_path / "docs", "--format", "svg")
    assert status == 0
    assert str(tmp_path / "docs" / "figure1.svg") in out
    assert "<svg" in (tmp_path / "docs" / "figure1.svg").read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("promotion_as_optax_needs_it")
def test_figure_2_trains_once_and_draws(camri, finished, tmp_path):
    words = ("figure2", "--dataset", "npz:signs.npz", "--important", "c++", "--epochs")
    words += ("1", "--num-seeds", "1", "--output", tmp_path)
    assert camri(*words)[0] == 0
    kept = listing(tmp_path / "rows")
    assert (tmp_path / "figure2.png").read_bytes().startswith(b"\x89PNG")
    assert camri(*words)[0] == 0
    assert listing(tmp_path / "rows") == kept


# --- What is read alike --------------------------------------------------------------


def parsed(*words):
    return arguments.parse(sweep.arguments_type(), words, None, "sweep")


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ((), None),
        (("--keep-logits",), True),
        (("--keep-logits", "no"), False),
        (("--keep-logits", "--epochs", "3"), True),
    ],
)
def test_logits_are_kept_as_asked(words, kept):
    assert parsed(*words).sweep.keep_logits is kept


def test_numbers_may_be_angles_and_grids_of_one_method():
    given = parsed("--margins", "4pi/64", "11.25deg", "--grid", "camri.margin@a=b=pi/8")
    np.testing.assert_allclose(given.margins, [np.pi / 16, np.pi / 16])
    assert given.sweep.grid == {"camri.margin@a=b": (np.pi / 8,)}


def planned(monkeypatch, *words):
    """The data, config and run that a command line asks for."""
    asked = []
    monkeypatch.setattr(sweep, "run", lambda *given: asked.append(given) or 0)
    monkeypatch.setattr(backend, "set_up_jax", lambda: None)
    assert main([*words]) == 0
    return asked[0]


def test_what_is_said_for_all_methods_replaces_what_a_preset_says(monkeypatch):
    preset = sweep.PRESETS["paper"][0]
    words = ("sweep", "--margins", "0.2", "--preset", "paper")
    data, config, *_ = planned(monkeypatch, *words)
    assert config.grid["margin"] == (0.2,)
    assert not [key for key in config.grid if key.endswith(".margin")]
    assert config.grid["camri.scale"] == preset.grid["camri.scale"]
    assert config.recipe == preset.recipe
    assert data.validation_fraction == 0


def test_a_store_that_cannot_be_written_to_is_told_at_once(monkeypatch):
    assert arguments.writable(address("memory://place")) == address("memory://place")
    assert not list(address("memory://place").glob("*"))

    def refused(*given):
        raise RuntimeError("no credentials")

    # Who may write need not be one who may remove.
    kept = type("Kept", (), {"unlink": refused, "__truediv__": lambda self, _: self})()
    with monkeypatch.context() as patch:
        patch.setattr(arguments, "put", lambda *given: True)
        assert arguments.writable(kept) is kept
    monkeypatch.setattr(arguments, "put", refused)
    assert arguments.writable(address("memory://place"), probe=False)
    with pytest.raises(UsageError, match=r"memory://place cannot .*: no credentials"):
        arguments.writable(address("memory://place"))


def test_a_grid_is_laid_over_that_of_a_preset(monkeypatch):
    preset = sweep.PRESETS["paper"][0].grid
    words = ("sweep", "--preset", "paper", "--grid", "camri.scale=16")
    grid = planned(monkeypatch, *words)[1].grid
    assert grid == {**preset, "camri.scale": (16.0,)}
    grid = planned(monkeypatch, *words, "--margins", "0.2")[1].grid
    assert not [key for key in grid if key.endswith(".margin")]
    assert (grid["margin"], grid["camri.scale"]) == ((0.2,), (16.0,))


@pytest.mark.parametrize("flip", [None, "random"])
@pytest.mark.parametrize(
    ("command", "planning"), [(sweep, "make_plan"), (tune, "goal_of")]
)
def test_mirroring_is_left_out_unless_it_is_asked_for(
    command, planning, flip, monkeypatch, tmp_path
):
    planned_with = []

    def plan(config, *given, **options):
        planned_with.append(config)
        raise UsageError("enough")

    monkeypatch.setattr(command, planning, plan)
    monkeypatch.setattr(backend, "set_up_jax", lambda: None)
    name = command.__name__.rpartition(".")[2]
    words = [name, "--preset", "fast", "--dataset", "digits"]
    words += [] if flip is None else ["--augment-flip", flip]
    assert main([*words, "--output", str(tmp_path)]) == 2
    assert planned_with[0].recipe.augment_flip == (flip or "none")


@pytest.mark.parametrize("finalists", [1, 2, 3])
def test_a_promise_out_of_reach_is_told_with_what_it_takes(finalists, capsys):
    held_out = {"validation_fraction": 0.2, "calibration_fraction": 0.3}
    dataset = datasets.load("digits", **held_out)
    config = TuneConfig(("8",), (0.99,), num_finalists=finalists)
    tune.tell(goal_of(config, dataset), config, dataset)
    own = {name: dataset.counts(name)[8] for name in dataset.parts}
    ours = sum(own.values()) - own["test"]

    def more(models):
        # None of so many is missed by any of the models with 5 % at this recall.
        need = int(np.ceil(np.log(0.05 / models) / np.log(0.99)))
        return int(np.ceil((need - own["calibration"]) * ours / own["calibration"]))

    told = " ".join(capsys.readouterr().out.split())
    asked = f"{more(1):,} for one model"
    asked += f", {more(finalists):,} for {finalists}" * (finalists > 1)
    assert "more labelled images of it are needed in all" in told
    assert f" about {asked}. Training goes on" in told
    # One model is one, whatever it is called.
    assert told.count("for one model") == 3
    assert told.count(f" for {finalists}") == 3 * (finalists > 1)


@pytest.mark.parametrize("kind", [DataArguments, ResultsArguments, sweep.RunArguments])
def test_home_is_expanded_in_every_path(kind, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    results = ["~/r"] if kind is ResultsArguments else []
    name = "data_dir" if kind is DataArguments else "output"
    words = [*results, f"--{name.replace('_', '-')}=~/x"]
    given = arguments.parse(kind, words, None, "test")
    assert getattr(given, name) == tmp_path / "x"
    if results:
        assert given.results == tmp_path / "r"


@pytest.mark.parametrize(
    "text", ["npz:" + "a/" * 300, "folder:木" * 90, "npz:" + "é" * 200, "a\nb\0c", ".."]
)
def test_names_of_files_are_bounded_and_told_apart(text, tmp_path):
    name = arguments.file_name(text)
    (tmp_path / f"x{name}").write_text("")
    assert "/" not in name
    if len(text) > 80:
        assert name != arguments.file_name(text + "b")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_a_sentence(command, monkeypatch, capsys):
    """And help starts no device, which takes a while and may fail."""
    monkeypatch.setattr(backend, "set_up_jax", lambda: pytest.fail("JAX is started"))
    monkeypatch.setenv("COLUMNS", "100")
    assert main([command, "--help"]) == 0
    out = re.sub(r"[│╭╮╰╯─]", " ", capsys.readouterr().out)
    assert f"usage: camri {command}" in out
    options = re.split(r"\n +(?=(?:--[a-z]|-h,|[A-Z]+ {2,}))", out)[1:]
    assert options
    for option in options:
        if option.startswith("--network"):
            assert set(NETWORKS) <= set(re.findall(r"\w+", option))
    for option in options:
        text = re.sub(r"\((default|required)[^)]*\)", "", " ".join(option.split()))
        words = [w for w in text.split() if w[0] not in "-{[" and not w.isupper()]
        assert len(words) >= 3, option


# --- How commands end ----------------------------------------------------------------


def raising(error):
    def command(argv):
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (UsageError("a [b] \x1b[31mc"), 2, "error: a [b] \\x1b[31mc\n"),
        (
            OSError(errno.ENOSPC, "No space left", "x/y"),
            2,
            "error: x/y: No space left\n",
        ),
        (PermissionError(errno.EACCES, "Denied", "x"), 2, "error: x: Denied\n"),
        (TryAgain("the store is away"), 75, "error: the store is away\n"),
        (OSError(errno.EIO, "Bad disk", "x"), 75, "error: x: Bad disk\n"),
        (ImportError("digits needs it"), 2, "error: digits needs it\n"),
        (ModuleNotFoundError("No module named 'a'", name="a"), 2, "[experiments]"),
        (KeyboardInterrupt(), 130, "stopped; the same command goes on"),
    ],
)
def test_what_a_user_can_mend_is_one_sentence(error, status, sentence, capsys):
    assert console.run(raising(error), []) == status
    out, err = capsys.readouterr()
    assert sentence in err
    assert out == ""
    assert len(err.splitlines()) == 1


class EndpointConnectionError(Exception):
    """As botocore's, which is no OSError."""


class NoCredentialsError(Exception):
    """As botocore's."""


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (EndpointConnectionError("Could not connect to the endpoint URL"), 75),
        (OSError(errno.EBUSY, "Please reduce your request rate."), 75),
        (TimeoutError(), 75),
        (NoCredentialsError("Unable to locate credentials"), 2),
        (PermissionError("Access Denied"), 2),
        (FileNotFoundError("The specified bucket does not exist"), 2),
        (OSError("Forbidden: bucket/folder"), 2),
    ],
)
def test_a_store_that_is_away_is_told_apart_from_one_that_is_not_ours(
    error, status, monkeypatch
):
    monkeypatch.setattr(arguments, "put", lambda path, content: raising(error)([]))
    probe = lambda argv: arguments.writable(address("memory://a"))  # noqa: E731
    assert console.run(probe, []) == status


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a bug"),
        KeyError("a"),
        FileNotFoundError(errno.ENOENT, "absent", "a"),
        ModuleNotFoundError("", name="camri_jax.x"),
    ],
)
def test_what_is_ours_to_mend_keeps_its_traceback(error):
    with pytest.raises(type(error)):
        console.run(raising(error), [])


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_printing_never_fails(encoding, monkeypatch):
    printed = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    monkeypatch.setattr(sys, "stdout", printed)
    text = "▼ [red]木[/b] :smile: \ud800"
    assert console.run(lambda argv: console.say(text), []) == 0
    wanted = "▼ [red]木[/b] :smile: \\ud800".encode(encoding, "replace")
    assert printed.buffer.getvalue().strip() == wanted


@contextlib.contextmanager
def read_by_nobody(monkeypatch):
    """Closes the pipe behind the standard output."""
    reading, writing = os.pipe()
    os.close(reading)
    closed = os.fdopen(writing, "w")
    monkeypatch.setattr(sys, "stdout", closed)
    monkeypatch.setattr(os, "dup2", lambda *numbers: None)
    yield
    with contextlib.suppress(BrokenPipeError):
        closed.close()


def test_a_closed_pipe_ends_no_command(monkeypatch):
    done = []

    def command(argv):
        console.say("a")
        console.say("b")
        done.append("c")

    with read_by_nobody(monkeypatch):
        assert console.run(command, []) == 0
    assert done == ["c"]


def test_help_that_nobody_reads_to_its_end_is_no_error(monkeypatch):
    with read_by_nobody(monkeypatch):
        assert console.run(sweep.main, ["--help"]) == 0


@pytest.mark.parametrize("words", [[], ["--help"], ["--version"]])
def test_commands_are_listed(words, capsys):
    assert main(words) == (0 if words else 2)
    out = capsys.readouterr().out
    assert all(name in out for name in COMMANDS) or "--version" in words


WITHOUT_TYRO = """
import sys
import time
sys.modules["tyro"] = None
from camri_jax.cli.main import main
assert main(["report", "--help"]) == 0
assert main(["report", "x"]) == 2
"""


def test_help_needs_no_optional_package():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TYRO],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert "camri report RESULTS" in done.stdout
    needed = "error: camri report needs tyro: pip install 'camri-jax[experiments]'\n"
    assert done.stderr == needed


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--output nowhere://a", "nowhere://a cannot be written to"),
        ("--shard 4/4", "--shard must be INDEX/COUNT"),
        ("--shard 0/2 --distributed", "two ways to say the same"),
        ("--distributed", "distributed found no cluster"),
        ("--checkpoint-minutes 0", "checkpoint_minutes must be above 0, got 0"),
    ],
)
def test_a_share_or_a_place_that_is_none_is_one_sentence(words, sentence, capsys):
    assert main(["sweep", *words.split()]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1


def test_without_a_terminal_lines_come_also_within_an_epoch(monkeypatch, capsys):
    monkeypatch.setattr(progress, "FIRST", 0.02)
    monkeypatch.setattr(progress, "MINUTE", 0.02)
    with progress.progress(4) as report:
        time.sleep(0.1)
        report(Progress(0.5, 4, "CAMRI"))
        time.sleep(0.1)
        report(Progress(1.5, 4, "CAMRI"))
        time.sleep(0.1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("0 of 4 trials, ")
    assert lines[0].endswith(", compiling")
    # One report measures nothing: before it, programs were compiled.
    halfway = [line for line in lines if line.startswith("0.50")]
    assert halfway
    assert all(re.fullmatch(r"0\.50 of 4 trials, .* s, CAMRI", x) for x in halfway)
    assert re.fullmatch(r"1\.50 of 4 trials, .*, about .* s left, CAMRI", lines[-1])


def test_what_is_left_is_reckoned_without_what_was_compiled(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "time", lambda: now[0])
    shown = progress.progress(10)
    with shown as report:
        now[0] = 100.0
        report(Progress(1.0, 10, "CAMRI"))
        now[0] = 110.0
        assert shown._left(Progress(3.0, 10, "CAMRI")) == ", about 35 s left"


def test_with_nothing_to_train_no_line_speaks_of_compiling(monkeypatch, capsys):
    monkeypatch.setattr(progress, "FIRST", 0.02)
    with progress.progress(None) as report:
        report(Progress(0, 0, "reading what was trained"))
        time.sleep(0.1)
    lines = capsys.readouterr().out.splitlines()
    assert lines
    for line in lines:
        assert re.fullmatch(r"nothing to train, .* s, reading what was trained", line)


def test_trials_are_not_counted_before_they_are_known(monkeypatch, capsys):
    monkeypatch.setattr(progress, "FIRST", 0.02)
    with progress.progress(None):
        time.sleep(0.1)
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r".* s, compiling", lines[0])


STOPPED = """
import signal, sys, time
from camri_jax.cli import main
with main._stopping() as loaded:
    if {loaded}:
        loaded()
    try:
        print("ready", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        print("in order", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("loaded", [False, True])
def test_stopping_leaves_no_traceback(loaded, number):
    script = STOPPED.format(loaded=loaded)
    child = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    with child:
        assert child.stdout.readline() == "ready\n"
        child.send_signal(number)
        if loaded:
            assert child.stdout.readline() == "in order\n"
            child.send_signal(number)
        assert child.wait(20) == 130
        assert "Traceback" not in child.stderr.read()
