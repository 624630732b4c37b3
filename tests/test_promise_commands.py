"""From a model to a promise on new images, and on, as a user types it."""

import re

import jax
import numpy as np
import pytest
from test_export import untrained
from tiny import CLASSES

from camri_jax import guarantee
from camri_jax.cli import main
from camri_jax.takehome import load_model, save_model


def write(path, seed, number=150, **more):
    """Noise in three classes: what the model says of it has no reason to be right."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (number, 8, 8, 1)).astype(np.uint8)
    labels = np.arange(number) % 3
    names = np.array(CLASSES)
    np.savez(path, train_images=images, train_labels=labels, class_names=names, **more)
    return images, labels


@pytest.fixture
def camri(tmp_path, monkeypatch, capsys, promotion_as_optax_needs_it):
    monkeypatch.chdir(tmp_path)
    model = untrained(method="cross_entropy", offset=0.0)
    about = {"important": [1], "fit": "stretch", "bits": None}
    model.classifier.about.update(about)
    save_model(tmp_path / "model", model)

    def run(line, status=0):
        assert main.main(line.split()) == status
        return capsys.readouterr().out

    return run


def test_a_promise_is_made_verified_checked_and_exported(camri, tmp_path):
    images, labels = write("new.npz", 1)
    told = camri("recalibrate model npz:new.npz --recall 0.9 --output promised")
    assert "at least 90 % of the images of bee" in told
    assert "50 calibration images" in told
    model = load_model("promised")
    own = guarantee.certify_recall(
        load_model("model").raw_logits(images), labels, 1, recall=0.9
    )
    assert model.offset == max(own.offset, 0)
    assert "follows from the calibration scores" in camri("verify promised")
    assert camri("verify model", status=1).startswith("The model comes without")

    images, labels = write("later.npz", 2)
    told = camri("check promised npz:later.npz")
    mine = labels == 1
    found = (model.logits(images)[mine].argmax(-1) == 1).sum()
    assert f"found {found} of 50; 90 % was promised" in told
    assert "BROKEN" in camri("check promised npz:later.npz --recall 0.999", status=1)
    # What certified it says nothing of how it keeps its word.
    camri("check promised npz:new.npz", status=2)

    assert "stablehlo" in camri("export promised model.stablehlo")
    content = bytearray((tmp_path / "model.stablehlo").read_bytes())
    theirs = np.asarray(jax.export.deserialize(content).call(images)).argmax(-1)
    assert [CLASSES[k] for k in theirs] == model.predict(images)


def test_what_cannot_be_promised_is_told_and_is_status_1(camri):
    write("new.npz", 1)
    told = camri("recalibrate model npz:new.npz --recall 0.99", status=1)
    assert "WITHOUT a promise" in told
    assert "249 more" in told
    assert load_model("model_recalibrated").offset == 0.0
    assert "without a promise" in camri("verify model_recalibrated", status=1)


def test_images_of_one_group_count_once(camri):
    write("new.npz", 1, train_groups=np.arange(150) // 6)
    told = camri("recalibrate model npz:new.npz --recall 0.9 --output promised", 1)
    assert re.search("50 calibration images in 25 groups certify at most 88.7 %", told)
    assert "found" in camri("check model npz:new.npz --recall 0.01")
