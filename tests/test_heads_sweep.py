"""Laws of heads on features in a sweep: one order a seed, the data's own network."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import DATASET

from camri_jax._files import UsageError
from camri_jax.cli.main import main
from camri_jax.datasets.dataset import Part, make_dataset
from camri_jax.sweeps import chunk as chunks
from camri_jax.sweeps import engine, ray_engine
from camri_jax.sweeps import plan as planning
from camri_jax.sweeps import width as widths
from camri_jax.takehome import sweeping
from camri_jax.training import lift, trial
from camri_jax.training.methods import METHODS, Problem, hyperparameters
from camri_jax.training.network import Standardization
from camri_jax.training.recipe import Recipe, TrainConfig

pytestmark = pytest.mark.usefixtures("promotion_as_optax_needs_it")

RECIPE = Recipe.heads(epochs=2, batch_size=8)


def part(size: int, seed: int) -> Part:
    labels = (np.arange(size) % 3).astype(np.int32)
    noise = np.random.default_rng(seed).normal(size=(size, 4))
    return Part((2 * np.eye(3, 4)[labels] + noise).astype(np.float32), labels)


FEATURES = make_dataset(
    "features",
    {"train": part(27, 0), "validation": part(9, 1), "test": part(12, 2)},
    ("ant", "bee", "cat"),
)


def plan(dataset=FEATURES, recipe=RECIPE, backbone=None, **changes):
    own = {"important": ("bee", "cat"), "methods": ("l2_softmax", "camri")}
    own |= {"grid": {"camri.margin": (0.1, 0.2)}, "num_seeds": 2}
    config = planning.SweepConfig(recipe=recipe, **(own | changes))
    where = lift.placement(lift.trial_mesh(jax.devices()[:2]))
    return planning.plan(config, dataset, where, backbone=backbone)


def config_of(**changes) -> TrainConfig:
    recipe = dataclasses.replace(RECIPE, **changes)
    method = METHODS["camri"]
    return TrainConfig.of(method, num_classes=3, num_images=27, recipe=recipe)


def test_a_chunk_holds_one_seed_and_one_program_serves_all():
    planned = plan()
    assert [len({t.seed for t in chunk.trials}) for chunk in planned.chunks] == [1, 1]
    assert len({(chunk.config, chunk.width) for chunk in planned.chunks}) == 1
    assert [t for c in planned.chunks for t in c.trials] == planned.trials
    narrow = planning.halve(planned.chunks, 2)
    assert [len({t.seed for t in chunk.trials}) for chunk in narrow] == [1] * 4
    mixed = planned.chunks[0]._replace(trials=tuple(planned.trials[-6:]))
    with pytest.raises(ValueError, match="must be of one seed"):
        chunks.train_chunk(mixed, None, planned.placement)


def test_a_worker_of_a_cluster_takes_heads_as_one_process_does(monkeypatch):
    planned, seen = plan(), []
    monkeypatch.setattr(ray_engine, "_data", {})
    monkeypatch.setattr(ray_engine, "_placed", {})
    monkeypatch.setattr(
        engine, "train_and_save", lambda own, *_, **__: seen.append(own.placement)
    )
    job = planned, FEATURES.fingerprint, lambda: FEATURES, "out", {}, 1.0
    ray_engine._train(job, planned.chunks[0])
    assert seen[0].one_order
    assert seen == [planned.placement]


def test_features_are_measured_where_they_are(monkeypatch):
    planned, seen = plan(), []
    chunk = planned.chunks[0]
    data = chunks.place(FEATURES, chunk.config, planned.placement)
    own = chunks.programs(chunk.config, planned.placement)

    def init(features, seeds):
        seen.append(features)
        return own.init(features, seeds)

    monkeypatch.setattr(chunks, "programs", lambda *_: own._replace(init=init))
    chunks.train_chunk(chunk, data, planned.placement)
    assert seen[0] is data.train[0]


def test_a_dry_run_times_the_program_that_trains_heads(monkeypatch):
    """Whose batches are made once for all trials."""
    texts, compiled = [], widths._compiled

    def recorded(*given):
        program = compiled(*given)
        texts.append(program.as_text())
        return program

    monkeypatch.setattr(widths, "_compiled", recorded)
    assert 0 < widths.seconds(plan(), FEATURES) < 60
    assert ["of_one" in text for text in texts] == [True]


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_as_many_heads_are_trained_at_once_on_every_kind_of_device(
    kind, monkeypatch, tmp_path
):
    """Nothing is measured, nor taken from what rows say."""
    where = lift.placement(lift.trial_mesh(jax.devices()[:1]))
    where = where._replace(vectorized=kind == "gpu")
    monkeypatch.setattr(sweeping, "placement", lambda mesh: where)
    monkeypatch.setattr(widths, "best", None)
    config = planning.SweepConfig(
        important=("bee",),
        methods=("cross_entropy", "camri"),
        grid={"camri.margin": tuple(0.01 * i for i in range(50))},
        recipe=RECIPE,
    )
    planned = sweeping.make_plan(config, FEATURES, tmp_path)
    assert max(planned.widths.values()) == 50 <= planning.HEADS


def test_trials_in_one_order_are_what_each_is_alone():
    planned = plan()
    chunk = planned.chunks[1]
    data = chunks.place(FEATURES, chunk.config, planned.placement)
    trained = chunks.train_chunk(chunk, data, planned.placement)
    train, test = (
        (jnp.asarray(FEATURES.parts[name].images), FEATURES.parts[name].labels)
        for name in ("train", "test")
    )
    init, epoch, score = (
        jax.jit(functools.partial(function, chunk.config))
        for function in (trial.init, trial.train_epoch, trial.score)
    )
    for each, logits in zip(chunk.trials, trained.logits, strict=True):
        problem = Problem(3, each.important, (9, 9, 9))
        own = hyperparameters(each.method, problem, each.point)
        state = init(train[0], each.seed)
        for _ in range(RECIPE.epochs):
            state, _ = epoch(state, own, *train)
        alone = score(state, own, *test).logits
        np.testing.assert_allclose(logits["test"], alone, rtol=1e-4, atol=1e-4)


def test_features_are_taken_about_their_mean_in_one_unit():
    x = np.random.default_rng(0).normal(3.0, [1.0, 5.0, 0.0], size=(500, 3))
    x = x.astype(np.float32)
    network = Standardization()
    variables = network.init(jax.random.key(0), jnp.asarray(x), train=False)
    found = np.asarray(network.apply(variables, jnp.asarray(x), train=True))
    centred = x - x.mean(0)
    expected = centred / np.sqrt((centred**2).mean(0).mean())
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    same = jnp.ones((4, 3))
    variables = network.init(jax.random.key(0), same, train=False)
    assert not np.asarray(network.apply(variables, same, train=False)).any()
    with pytest.raises(UsageError, match=r"features must be floats \[batch, feature\]"):
        network.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1), jnp.uint8), train=False)


def test_each_seed_draws_its_own_images_and_keeps_them():
    config = config_of(resample=16)
    assert config.num_batches == 2
    drawn = []
    for seed in range(30):
        state = trial.init(config, jnp.ones((1, 4)), jnp.int32(seed))
        first, second = (
            np.asarray(trial.shuffle(config, state._replace(step=jnp.int32(step))))
            for step in (0, 2)
        )
        assert len(np.unique(first)) == 16
        assert set(first.ravel()) == set(second.ravel())
        assert (first != second).any()
        drawn.append(set(first.ravel().tolist()))
    counts = np.bincount([i for each in drawn for i in each], minlength=27)
    # Binomial with p = 16 / 27: mean 17.8, five standard deviations 13.5.
    assert np.abs(counts - 17.8).max() < 13.5
    with pytest.raises(UsageError, match="resample must be at most"):
        config_of(resample=28)
    with pytest.raises(UsageError, match="batch_size must be at most"):
        config_of(resample=7)


def test_without_a_draw_trials_keep_their_names():
    settings = planning.what_trials_share(RECIPE, FEATURES)
    assert "resample" not in settings
    drawn = dataclasses.replace(RECIPE, resample=16)
    assert planning.what_trials_share(drawn, FEATURES) == settings | {"resample": 16}


@pytest.mark.parametrize(
    ("dataset", "recipe", "message"),
    [
        (FEATURES, Recipe.light(batch_size=8), "network must be features for features"),
        (
            DATASET,
            RECIPE,
            "network must be one for images, as tiny holds images of 8x8",
        ),
    ],
)
def test_a_network_for_other_data_is_refused_before_training(dataset, recipe, message):
    with pytest.raises(UsageError, match=message):
        plan(dataset, recipe)


@pytest.mark.slow
def test_the_commands_train_heads_on_a_file_of_features(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arrays = {}
    for i, (name, size) in enumerate({"train": 600, "test": 60}.items()):
        made = part(size, i)
        arrays |= {f"{name}_features": made.images, f"{name}_labels": made.labels}
    np.savez("own.npz", **arrays)
    data = ("--preset", "heads", "--dataset", "npz:own.npz", "--important", "1")
    methods = ("--methods", "cross_entropy", "camri", "--num-seeds", "1")
    few = ("--epochs", "2", "--batch-size", "32")
    asked = ("--recall", "0.8", "--output", "tuned")
    assert main(["tune", *data, *methods, *few, *asked]) == 0
    assert "certified" in capsys.readouterr().out
    # Of the same trials a sweep takes one home, which is beside what was promised.
    promised = {p: p.read_bytes() for p in (tmp_path / "tuned" / "model").iterdir()}
    held = ("--validation-fraction", "0.2", "--calibration-fraction", "0.3")
    assert main(["sweep", *data, *held, *methods, *few, "--output", "tuned"]) == 0
    assert promised == {p: p.read_bytes() for p in (tmp_path / "tuned/model").iterdir()}
    assert "3, of which 3 are done" in (told := capsys.readouterr().out)
    assert "tuned/model_1" in told
    assert main(["sweep", "--dataset", "npz:own.npz", "--important", "1"]) == 2
    assert "--preset heads" in capsys.readouterr().err
