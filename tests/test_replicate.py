"""The replication plans what the paper compares, each training once."""

import importlib
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from camri_jax import datasets
from camri_jax.sweeps import plan as planning

SCRIPTS = Path(__file__).parents[1] / "experiments"


@pytest.fixture
def replicate(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    yield importlib.import_module("replicate")
    for name in ("replicate", "report", "rows", "sweep", "loading"):
        sys.modules.pop(name, None)


@pytest.fixture
def images(tmp_path):
    """So many classes of grey images that all of the paper's are among them."""
    labels = np.repeat(np.arange(43), 10)
    pictures = np.tile(labels[:, None, None, None], (1, 8, 8, 3)).astype(np.uint8)
    path = tmp_path / "signs.npz"
    np.savez(
        path,
        train_images=pictures,
        train_labels=labels,
        test_images=pictures + 100,
        test_labels=labels,
    )
    return f"npz:{path}"


def test_each_training_is_planned_once_at_the_published_settings(replicate, images):
    dataset = datasets.load(images, validation_fraction=0.1)
    for name, settings in replicate.SETTINGS.items():
        done, trials = set(), []
        for line in replicate.sweeps(name, ["--dataset", images]):
            config = replicate.sweep.parse(line).config
            assert (config.recipe.model, config.recipe.batch_size) == ("paper", 64)
            assert (config.recipe.optimizer, config.recipe.learning_rate) == (
                "adam",
                1e-3,
            )
            assert not config.recipe.augment_pad
            plan = planning.plan(config, dataset, done=done)
            missing = [trial for chunk in plan.chunks for trial in chunk.trials]
            assert len(missing) == len(plan.trials)
            trials += missing
            done |= {(t.trial_id, c) for t in missing for c in t.choices}
        identities = [trial.trial_id for trial in trials]
        assert {trial.seed for trial in trials} == set(range(10))
        baseline = [trial for trial in trials if trial.method == "cross_entropy"]
        assert len(baseline) == 10
        assert set(baseline[0].choices) == {(s.important,) for s in settings}
        for important, margin, scale in settings:
            (point,) = {
                tuple(trial.point.values())
                for trial in trials
                if trial.method == "camri" and trial.choices == ((important,),)
            }
            assert point == (margin * math.pi / 64, scale)
            # The same scale without a margin tells the margin's part.
            assert (scale,) in {
                tuple(t.point.values()) for t in trials if t.method == "l2_softmax"
            }
        # ArcFace at one setting for three classes is one training.
        shared = len({(s.margin, s.scale) for s in settings})
        scales = len({s.scale for s in settings})
        assert len(set(identities)) == 10 * (1 + scales + shared + 3 + 3)
