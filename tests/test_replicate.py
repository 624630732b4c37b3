"""The replication plans what the paper compares, each training once, in one sweep."""

import math

import numpy as np
import pytest

from camri_jax.cli import backend, replicate, sweep
from camri_jax.cli.main import main
from camri_jax.datasets.dataset import Part, make_dataset
from camri_jax.sweeps.plan import plan
from camri_jax.training.lift import placement, trial_mesh


def signs():
    """So many classes of grey images that all of the paper's are among them."""
    labels = np.repeat(np.arange(43, dtype=np.int32), 10)
    images = np.zeros((len(labels), 8, 8, 3), np.uint8)
    part = Part(images, labels)
    return make_dataset(
        "signs",
        {"train": part, "validation": part, "test": part},
        [f"sign {k}" for k in range(43)],
    )


@pytest.mark.parametrize(("name", "number"), [("cifar10", 130), ("gtsrb", 90)])
def test_each_training_is_planned_once_at_the_published_settings(name, number):
    config = replicate.config(name)
    recipe = config.recipe
    assert (recipe.network, recipe.batch_size) == ("paper", 64)
    assert (recipe.optimizer, recipe.learning_rate) == ("adam", 1e-3)
    assert (recipe.augment_shift, recipe.augment_flip) == (0, "none")
    trials = plan(config, signs(), placement(trial_mesh())).trials
    assert len(trials) == len({trial.trial_id for trial in trials}) == number
    assert {trial.seed for trial in trials} == set(range(10))
    points = {}
    for trial in trials:
        key = trial.method, trial.important
        points.setdefault(key, set()).add(tuple(trial.point.values()))
    for important, margin, scale in replicate.SETTINGS[name]:
        wanted = margin * math.pi / 64, scale
        assert points["camri", (important,)] == {wanted}
        assert points["weighted_cross_entropy", (important,)] == {(4.0,)}
        # The same margin for all classes, and the same scale without one, tell what
        # the margin of one class does.
        assert wanted in points["arcface", ()]
        assert (scale,) in points["l2_softmax", ()]


def test_every_option_of_a_sweep_may_follow(monkeypatch):
    asked = []
    monkeypatch.setattr(sweep, "run", lambda *given: asked.append(given) or 0)
    monkeypatch.setattr(backend, "set_up_jax", lambda: None)
    words = ["--margins", "0.2", "--num-seeds", "2", "--dataset", "npz:a.npz"]
    assert main(["replicate", "cifar10", *words]) == 0
    ((data, config, run, command, _),) = asked
    assert (data.dataset, data.validation_fraction) == ("npz:a.npz", 0.1)
    assert config.num_seeds == 2
    assert config.grid["margin"] == (0.2,)
    assert not [key for key in config.grid if ".margin" in key]
    assert config.grid["camri.scale@3"] == (16.0,)
    assert str(run.output) == "results/cifar10_paper"
    assert command == " ".join(["camri replicate cifar10", *words])
    for words, classes in (
        (["--important", "5"], "5"),
        (["--important", "sign 5"], "5"),
        (["--important", "sign 3", "sign 0"], "30"),
        (["--important", "sign 3", "5", "sign 0"], "350"),
        (["--grid", "weight=2"], "350"),
    ):
        assert main(["replicate", "cifar10", *words]) == 0
        _, config, *_, preset = asked[-1]
        grid = sweep.without_others(config, preset, signs())
        own = {f"camri.{name}@{k}" for k in classes for name in ("margin", "scale")}
        assert {key for key in grid if "@" in key} == own
