"""The benchmarks run, write what they say, and refuse sides that do not agree."""

import functools
import importlib
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from camri_jax.training import network as models

PEERS = ("ott", "ot", "torch", "pytorch_metric_learning")
for peer in PEERS:
    pytest.importorskip(
        peer, reason=f"{peer} is not installed; pip install -e '.[bench]' brings it"
    )

# Not ours to mend: what the peers warn of.
pytestmark = pytest.mark.filterwarnings("default")

TINY_NETWORK = functools.partial(
    models.CNN,
    blocks=(((2,), (3,)), ((4,),)),
    feature_dim=3,
    dropout_rate=0.25,
    batch_norm_momentum=0.9,
)
TINY = {
    "bench_convolution": {
        "cases": ((4, 2),),
        "batch": 2,
        "steps": 1,
        "repetitions": 2,
    },
    "bench_evaluation": {"repetitions": 2},
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
        "model": "small",
        "shape": (4, 4, 3),
        "batch_size": 4,
        "trials": (2,),
        "precisions": ("bfloat16",),
        "compiled": False,
        "matmul": 16,
        "repetitions": 2,
    },
    "bench_trials": {
        "shapes": (((4, 4, 1), 2),),
        "trials": (2,),
        "batch_size": 4,
        "repetitions": 2,
    },
}


@pytest.fixture(autouse=True)
def as_a_script(monkeypatch):
    """Lets scripts import each other, and peers promote as they are used to."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "experiments"))
    monkeypatch.setattr(
        importlib.import_module("reporting"), "one_device_a_core", lambda: None
    )
    # Compiling a network of the usual size takes longer than all the tests.
    for presets, name in ((models.PRESETS, "small"), (vars(models), "small")):
        monkeypatch.setitem(presets, name, TINY_NETWORK)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture
def tiny(monkeypatch):
    """Imports a script whose --quick is smaller still."""

    def tiny(name):
        script = importlib.import_module(name)
        settings = dict(TINY[name])
        if name == "bench_evaluation":
            settings["cases"] = (script.Case("tiny", (4, 4, 1), 3, 64, 9, 2),)
        if name == "bench_sinkhorn":
            peers = importlib.import_module("sinkhorn_peers")
            some = {"OTT": peers.Ott(True, every=1), "POT": peers.Pot(False)}
            monkeypatch.setattr(peers, "peers", lambda *_: some)
        monkeypatch.setattr(script, "QUICK", script.Sizes(**settings))
        return script

    return tiny


@pytest.mark.parametrize("name", TINY)
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
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / f"{name}.csv", keep_default_na=False),
        table,
        check_dtype=False,
        rtol=1e-3,
    )
    picture = (tmp_path / f"{name}.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    agreements = [x for x in printed.splitlines() if x.startswith("agree to")]
    assert len(agreements) > 0 or name == "bench_evaluation"


def other_scale(function):
    def changed(*arguments, **options):
        return 1.01 * function(*arguments, **options)

    return changed


@pytest.mark.parametrize(
    ("name", "module", "what", "sentence"),
    [
        ("bench_losses", "bench_losses", "from_cosines", "CAMRI without margins"),
        ("bench_losses", "bench_losses", "from_features", "ArcFaceLoss.*loss"),
        ("bench_step", "torch_network", "camri_loss", "loss"),
        (
            "bench_trials",
            "camri_jax.training.trial",
            "train_epoch",
            "losses of an epoch",
        ),
    ],
)
def test_sides_that_differ_are_not_timed(
    name, module, what, sentence, tiny, monkeypatch
):
    script, module = tiny(name), importlib.import_module(module)
    own = getattr(module, what)
    if what == "train_epoch":
        calls = []

        def changed(*arguments):
            # The first of the two sides alone.
            calls.append(arguments)
            state, loss = own(*arguments)
            return state, loss * (1.1 if len(calls) == 1 else 1.0)
    else:
        changed = other_scale(own)
    monkeypatch.setattr(module, what, changed)
    with pytest.raises(ValueError, match=f"{sentence}.*nothing was timed"):
        script.main(["--quick"])


def test_gradients_that_differ_are_not_timed(tiny, monkeypatch):
    script = tiny("bench_step")
    network = importlib.import_module("torch_network")
    own = network.gradients

    def changed(twin):
        for name, value in own(twin):
            yield name, value * (1.1 if name == ("Conv_1", "kernel") else 1.0)

    monkeypatch.setattr(network, "gradients", changed)
    with pytest.raises(ValueError, match=r"gradient of Conv_1 kernel.*nothing"):
        script.main(["--quick"])


def test_a_convolution_that_differs_is_not_timed(tiny, monkeypatch):
    script, own = tiny("bench_convolution"), models.patches_conv
    monkeypatch.setitem(
        models._CONVOLUTIONS, "patches", lambda *a, **k: own(*a, **k)[..., ::-1]
    )
    with pytest.raises(ValueError, match=r"weights after.*nothing was timed"):
        script.main(["--quick"])


def test_sinkhorn_is_timed_at_the_error_and_the_cost_that_are_asked(tiny, monkeypatch):
    script = tiny("bench_sinkhorn")
    peers = importlib.import_module("sinkhorn_peers")
    ours, solve = peers.Ours, peers.Ours.solve
    # An error that the solver underrates, as one that looks at columns alone would.
    monkeypatch.setattr(
        ours, "solve", lambda self, *a: solve(self._replace(threshold=0.1), *a)
    )
    with pytest.raises(ValueError, match=r"Ours.*: no threshold from 0.0001"):
        script.main(["--quick"])
    monkeypatch.setattr(ours, "solve", solve)
    own = peers.solution

    def other(problem, side):
        f, g, cost = own(problem, side)
        return f, g, 1.01 * cost

    monkeypatch.setattr(peers, "solution", other)
    with pytest.raises(ValueError, match=r"cost: the sides differ.*nothing was timed"):
        script.main(["--quick"])


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


def test_every_side_of_sinkhorn_passes_and_none_does_more_than_it_must():
    peers = importlib.import_module("sinkhorn_peers")
    problem = peers.make_problem(3, 6)
    for side in (peers.Ott(False, every=1), peers.Pot(True)):
        assert peers.passes(problem, peers.loosest(problem, side))
        known = peers.fewest(problem, side, 30)
        assert peers.passes(problem, known)
        fewer = known._replace(iterations=known.iterations - 1)
        assert not peers.passes(problem, fewer)


def test_the_compiler_counts_as_many_operations():
    step = importlib.import_module("bench_step")
    network = TINY_NETWORK(10, False, blocks=(((32,),), ((64,),)), feature_dim=32)
    images = jnp.zeros((2, 12, 12, 3), jnp.uint8)
    variables = network.init(jax.random.key(0), images, train=False)

    def loss(params):
        outputs = network.apply({**variables, "params": params}, images, train=False)
        return jnp.square(outputs.features @ outputs.prototypes).sum()

    program = jax.jit(jax.grad(loss)).lower(variables["params"]).compile()
    counted = program.cost_analysis()["flops"]
    ours = 2 * step.operations_per_image(network, (12, 12, 3))
    assert 1.0 < counted / ours < 1.15


def test_the_paper_network_takes_what_the_issue_says():
    step = importlib.import_module("bench_step")
    network = models.paper(num_classes=10, use_bias=False)
    assert step.operations_per_image(network, (32, 32, 3)) == pytest.approx(
        3.4e9, rel=0.05
    )


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [([1.0, 2.0], [1.0, 2.1]), ([np.nan], [np.nan]), ([1.0], [1.0, 1.0]), ([0], [1])],
)
def test_disagreement_is_one_sentence(ours, theirs):
    timing = importlib.import_module("timing")
    with pytest.raises(ValueError, match="numbers: the sides"):
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


def test_what_a_script_cannot_do_is_one_sentence(capsys):
    reporting = importlib.import_module("reporting")

    def fail():
        raise ValueError("the sides differ")

    with pytest.raises(SystemExit) as ended:
        reporting.run(fail)
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: the sides differ\n"


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


@pytest.mark.slow
def test_every_variant_of_pytorch_that_a_cpu_has_trains():
    torch_epochs = importlib.import_module("torch_epochs")
    made_up = importlib.import_module("made_up")
    torch = sys.modules["torch"]
    network = models.small(num_classes=10, use_bias=False)
    images = torch.zeros((4, 3, 4, 4), dtype=torch.uint8)
    data = images, torch.zeros(4, dtype=torch.int64)
    variants = torch_epochs.variants_of(torch.device("cpu"), True)
    assert len(variants) == 5
    for variant in variants.values():
        torch_epochs.trained(network, made_up.camri(10), data, 2, variant)()
