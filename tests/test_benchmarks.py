"""The benchmarks run, write what they say, and refuse sides that do not agree."""

import functools
import importlib
import importlib.util
import os
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest

from camri_jax.training import network

BENCHMARKS = Path(__file__).parents[1] / "experiments" / "benchmarks"
MISSING = [
    peer
    for peer in ("ott", "ot", "torch", "pytorch_metric_learning")
    if importlib.util.find_spec(peer) is None
]
PEERS = pytest.mark.skipif(
    bool(MISSING),
    reason=f"not installed: {', '.join(MISSING)}; pip install -e '.[bench]' brings it",
)
# Not ours to mend: what the peers warn of.
pytestmark = pytest.mark.filterwarnings("default")

TINY_NETWORKS = {
    "small": functools.partial(
        network.CNN,
        blocks=(((2,), (3,)), ((4,),)),
        feature_dim=3,
        dropout_rate=0.25,
        batch_norm_momentum=0.9,
    ),
    "fast": functools.partial(network.WhitenedCNN, widths=(5, 4)),
}
TINY = {
    "bench_evaluation": {"repetitions": 2},
    "bench_trials": {
        "shapes": (((4, 4, 1), 2),),
        "trials_per_device": (2,),
        "batch_size": 4,
        "repetitions": 2,
    },
    "bench_heads": {
        "examples": 320,
        "features": 16,
        "batch_size": 16,
        "trials": (2,),
        "repetitions": 2,
    },
    "bench_losses": {
        "batch": 8,
        "features": 4,
        "from_cosines": (3,),
        "from_features": (5,),
        "repetitions": 2,
    },
    "bench_sinkhorn": {
        "batch": 3,
        "classes": 7,
        "large": ((2, 20),),
        "repetitions": 2,
        "repetitions_slow": 1,
    },
    "bench_step": {
        "networks": ("small",),
        "shape": (8, 8, 3),
        "batch_size": 4,
        "compiled": False,
        "repetitions": 2,
    },
    "bench_training": {"dataset": "digits", "epochs": 1, "batch_size": 200},
}
ALONE = {"bench_evaluation", "bench_trials"}
"""Those that measure us against ourselves."""


@pytest.fixture(autouse=True)
def as_a_script(monkeypatch):
    """Lets scripts import each other, and peers promote as they are used to."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    reporting = importlib.import_module("reporting")
    monkeypatch.setattr(reporting.backend, "set_up_jax", lambda: None)
    # Compiling a network of the usual size takes longer than all the tests.
    for name, tiny in TINY_NETWORKS.items():
        monkeypatch.setitem(network.NETWORKS, name, tiny)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture
def tiny(monkeypatch):
    """Imports a script whose --quick is smaller still."""

    def tiny(name):
        script = importlib.import_module(name)
        settings = dict(TINY[name])
        if name not in ALONE:
            # Threads that wait for each other would take longer than the work.
            importlib.import_module("torch").set_num_threads(1)
        if name == "bench_evaluation":
            settings["cases"] = (script.Case("tiny", (4, 4, 1), 3, 64, 9),)
        if name == "bench_step":
            settings["forms"] = script.FULL.forms[:2]
            monkeypatch.setattr(jax, "devices", lambda: jax.local_devices()[:1])
        if name == "bench_sinkhorn":
            peers = importlib.import_module("sinkhorn_peers")
            some = {"OTT": peers.Ott(True, every=1), "POT": peers.Pot(False)}
            monkeypatch.setattr(peers, "peers", lambda *_: some)
        monkeypatch.setattr(script, "QUICK", script.Sizes(**settings))
        return script

    return tiny


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n in ALONE else PEERS) for n in TINY],
)
def test_a_benchmark_writes_what_it_prints(name, tiny, tmp_path, capsys):
    tiny(name).main(["--quick", "--output", str(tmp_path)])
    printed = capsys.readouterr().out
    table = pd.read_parquet(tmp_path / f"{name}.parquet")
    assert len(table) > 0
    numbers = table[["first", "second", "ratio", "low", "high"]].to_numpy()
    assert np.isfinite(numbers).all()
    assert (table["low"] <= table["ratio"]).all()
    assert (table["ratio"] <= table["high"]).all()
    for line in table.itertuples():
        assert line.case in printed
        assert line.what in printed
    assert (table["xla_flags"] == os.environ["XLA_FLAGS"]).all()
    assert f"XLA_FLAGS={os.environ['XLA_FLAGS']}\n" in printed
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / f"{name}.csv", keep_default_na=False),
        table,
        check_dtype=False,
        rtol=1e-3,
    )
    picture = (tmp_path / f"{name}.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert "agree to" in printed or name == "bench_evaluation"


def test_a_benchmark_of_each_name_says_how_it_is_called():
    found = sorted(path.stem for path in BENCHMARKS.glob("bench_*.py"))
    assert found == sorted({*TINY, "bench_start"})
    for name in found:
        called = f"python experiments/benchmarks/{name}.py [--quick] [--output DIR]"
        assert called in (BENCHMARKS / f"{name}.py").read_text()


def scaled(function, factor):
    """The same results, a little larger."""
    return lambda *arguments, **options: factor * function(*arguments, **options)


@pytest.mark.slow
def test_trials_that_differ_are_not_timed(tiny, monkeypatch):
    script = tiny("bench_trials")
    trials = script.made_up.Trials
    monkeypatch.setattr(trials, "epoch", scaled(trials.epoch, 1.1))
    with pytest.raises(script.timing.DisagreementError, match=r"losses of an epoch"):
        script.main(["--quick"])


@PEERS
@pytest.mark.parametrize(
    ("name", "what", "sentence"),
    [
        ("bench_losses", "from_cosines", "CAMRI without margins"),
        ("bench_losses", "from_features", "ArcFaceLoss.*loss"),
        ("bench_heads", "camri_loss", "loss of an epoch, camri"),
    ],
)
def test_sides_that_differ_are_not_timed(name, what, sentence, tiny, monkeypatch):
    script = tiny(name)
    monkeypatch.setattr(script, what, scaled(getattr(script, what), 1.01))
    with pytest.raises(
        script.timing.DisagreementError, match=f"{sentence}.*nothing was timed"
    ):
        script.main(["--quick"])


@PEERS
@pytest.mark.parametrize(
    ("family", "part"),
    [
        ("small", "backbone Conv_1 kernel"),
        ("fast", "backbone whitening bias"),
        ("fast", "classes prototypes"),
    ],
)
def test_networks_that_differ_are_not_timed(family, part, tiny, monkeypatch):
    script = tiny("bench_step")
    twins = importlib.import_module("torch_network")
    own = twins.gradients

    def changed(twin):
        for name, value in own(twin):
            yield name, value * (1.1 if " ".join(name) == part else 1.0)

    monkeypatch.setattr(twins, "gradients", changed)
    with pytest.raises(script.timing.DisagreementError, match=f"gradient of {part}"):
        script.check(script.QUICK, family, script.torch.device("cpu"))


@PEERS
def test_pytorch_moves_and_mirrors_as_we_do():
    """Every batch is one of the images that our augmentation can make."""
    torch_epochs = importlib.import_module("torch_epochs")
    torch, recipe = torch_epochs.torch, torch_epochs.Recipe.fast(augment_shift=1)
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), np.uint8)
    batch_of = torch_epochs.batches(
        torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), recipe
    )
    index = torch.arange(2).repeat(40)
    for epoch in (0, 1):
        made = batch_of(index, epoch).permute(0, 2, 3, 1).numpy()
        for i, image in enumerate(images):
            padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), "reflect")
            possible = {
                padded[y : y + 4, x : x + 5][:, ::mirror].tobytes()
                for y in range(3)
                for x in range(3)
                for mirror in (1, -1)
            }
            assert {each.tobytes() for each in made[i::2]} <= possible


@PEERS
def test_sinkhorn_is_timed_at_the_error_and_the_cost_that_are_asked(tiny, monkeypatch):
    script = tiny("bench_sinkhorn")
    differ = script.timing.DisagreementError
    peers = importlib.import_module("sinkhorn_peers")
    ours, solve = peers.Ours, peers.Ours.solve
    # An error that the solver underrates, as one that looks at columns alone would.
    monkeypatch.setattr(
        ours, "solve", lambda self, *a: solve(self._replace(threshold=0.1), *a)
    )
    with pytest.raises(differ, match=r"Ours.*: no threshold from 0.0001"):
        script.main(["--quick"])
    monkeypatch.setattr(ours, "solve", solve)
    own = peers.solution

    def other(problem, side):
        f, g, cost = own(problem, side)
        return f, g, 1.01 * cost

    monkeypatch.setattr(peers, "solution", other)
    with pytest.raises(differ, match=r"cost: the sides differ.*nothing was timed"):
        script.main(["--quick"])


@PEERS
def test_the_violation_is_that_of_the_plan():
    peers = importlib.import_module("sinkhorn_peers")
    problem = peers.make_problem(2, 3)
    f, g = np.array([[0.1, 0.0, -0.2], [0.0, 0.3, 0.0]]), np.zeros((2, 3))
    worst = 0.0
    for row in range(2):
        a = np.exp(np.float64(problem.logits[row]))
        a, b = a / a.sum(), np.exp(np.float64(problem.log_b[row]))
        missing = 0.0
        for k in range(3):
            rows = sum(
                np.exp(
                    (f[row, k] + g[row, j] - float(problem.cost[k, j]))
                    / problem.epsilon
                )
                for j in range(3)
            )
            columns = sum(
                np.exp(
                    (f[row, i] + g[row, k] - float(problem.cost[i, k]))
                    / problem.epsilon
                )
                for i in range(3)
            )
            missing += abs(rows - a[k]) + abs(columns - b[k])
        worst = max(worst, missing)
    np.testing.assert_allclose(peers.violation(problem, f, g), worst, rtol=1e-5)


@PEERS
def test_every_side_of_sinkhorn_passes_and_none_does_more_than_it_must():
    peers = importlib.import_module("sinkhorn_peers")
    problem = peers.make_problem(3, 6)
    for side in (peers.Ott(False, every=1), peers.Pot(True)):
        assert peers.passes(problem, peers.loosest(problem, side))
        known = peers.fewest(problem, side, 30)
        assert peers.passes(problem, known)
        fewer = known._replace(iterations=known.iterations - 1)
        assert not peers.passes(problem, fewer)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [([1.0, 2.0], [1.0, 2.1]), ([np.nan], [np.nan]), ([1.0], [1.0, 1.0]), ([0], [1])],
)
def test_disagreement_is_one_sentence(ours, theirs):
    timing = importlib.import_module("timing")
    with pytest.raises(timing.DisagreementError, match="numbers: the sides"):
        timing.agree("numbers", ours, theirs, 1e-3)


def test_sides_take_turns():
    timing = importlib.import_module("timing")
    calls = []
    sides = {name: (lambda name=name: calls.append(name)) for name in "ab"}
    taken = timing.seconds(sides, 3)
    assert calls == [*"aabb", *("aabb" * 3)]
    assert {name: len(times) for name, times in taken.items()} == {"a": 3, "b": 3}


def test_ratios_are_of_pairs():
    timing = importlib.import_module("timing")
    slow = np.array([2.0, 20.0, 6.0])
    line = timing.compared("what", "case", slow, np.array([1.0, 10.0, 2.0]), ">= 2")
    assert (line.ratio, line.low, line.high) == (2.0, 2.0, 2.5)
    assert (line.first, line.second, line.reached) == (6000.0, 2000.0, "yes")
    assert line._replace(ratio=1.99).reached == "no"
    assert line._replace(target="<= 1.5").reached == "no"
    assert line._replace(target="").reached == ""


def test_a_missing_peer_is_one_sentence(capsys):
    timing = importlib.import_module("timing")
    with pytest.raises(SystemExit) as ended:
        timing.require("numpy", "no_such_peer")
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert "no_such_peer is not installed" in message
    assert "pip install -e '.[bench]'" in message


def test_only_what_a_user_can_mend_is_one_sentence(capsys):
    reporting = importlib.import_module("reporting")

    def fail(error):
        raise error

    with pytest.raises(SystemExit) as ended:
        reporting.run(functools.partial(fail, reporting.UsageError("no GPU")))
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: no GPU\n"
    with pytest.raises(ValueError, match="a bug"):
        reporting.run(functools.partial(fail, ValueError("a bug")))


def test_the_picture_names_every_case_and_marks_every_target():
    timing, reporting = map(importlib.import_module, ("timing", "reporting"))
    lines = [
        timing.counted("speed", "one", 30.0, 1.0, "ms", ">= 20"),
        timing.counted("memory", "two", 3.0, 1.0, "MiB"),
        timing.counted("speed", "three", 10.0, 1.0, "ms", ">= 20"),
    ]
    speed, memory = reporting.draw(lines, "title").axes
    assert [t.get_text() for t in speed.get_yticklabels()] == [
        "one  >= 20",
        "three  >= 20",
    ]
    assert [t.get_text() for t in memory.get_yticklabels()] == ["two"]
    assert [t.get_text().split() for t in speed.texts] == [
        ["30", "reached"],
        ["10", "missed"],
    ]
    assert [patch.get_width() for patch in speed.patches] == [30.0, 10.0]


def test_the_papers_grid_has_at_most_one_program_a_method():
    line = importlib.import_module("bench_start").paper_grid()
    assert line.reached == "yes"
    assert line.first >= 1


@pytest.mark.slow
def test_starts_are_timed(tmp_path, monkeypatch):
    script = importlib.import_module("bench_start")
    quick = script.Sizes(methods=(("cross_entropy",),), repetitions=1)
    monkeypatch.setattr(script, "QUICK", quick)
    script.main(["--quick", "--output", str(tmp_path)])
    table = pd.read_csv(tmp_path / "bench_start.csv")
    assert len(table) == 3
    assert (table["ratio"] > 0).all()


@PEERS
@pytest.mark.slow
def test_pytorch_compiles_a_step_where_it_can(monkeypatch):
    script = importlib.import_module("bench_step")
    sizes = script.Sizes(shape=(8, 8, 3), batch_size=4)
    epochs = script.theirs(sizes, "fast", script.torch.device("cpu"))
    assert set(epochs) == {"PyTorch eager", "PyTorch compiled"}
