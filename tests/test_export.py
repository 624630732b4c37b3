"""An exported model says what the model says, its offset inside."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import CLASSES, Tiny

from camri_jax import guarantee
from camri_jax._files import UsageError
from camri_jax.takehome import Model
from camri_jax.training import trial
from camri_jax.training.classifier import Classifier
from camri_jax.training.methods import METHODS
from camri_jax.training.recipe import Recipe, TrainConfig

IMAGES = np.random.default_rng(0).integers(0, 256, (1000, 8, 8, 1)).astype(np.uint8)


def untrained(backbone=None, method="camri", important=(1,), offset=0.25, recipe=None):
    """A model with the weights that a trial starts from."""
    recipe = recipe or Recipe(feature_dim=8, batch_size=50)
    config = TrainConfig.of(
        METHODS[method],
        num_classes=3,
        num_images=50,
        recipe=recipe,
        backbone=backbone,
        convolution="patches",
    )
    with jax.numpy_dtype_promotion("standard"):
        state = jax.jit(lambda x: trial.init(config, x, jnp.int32(0)))(IMAGES[:8])
    variables = jax.tree.map(np.asarray, trial.evaluated_variables(state))
    about = {
        "class_names": list(CLASSES),
        "image_shape": [8, 8, 1],
        "method": method,
        "scale": 4.0 if method == "camri" else 1.0,
    }
    return Model(Classifier(config, variables, about), important, offset, {})


@pytest.mark.usefixtures("promotion_as_optax_needs_it")
@pytest.mark.parametrize("recipe", [None, Recipe.light(batch_size=50)])
def test_a_stablehlo_file_takes_any_number_of_images(tmp_path, recipe):
    pytest.importorskip("flatbuffers")
    important, offset = (0, 2), (0.125, 0.5)
    model = untrained(important=important, offset=offset, recipe=recipe)
    path = model.export(tmp_path / "new" / "model.stablehlo", "stablehlo")
    exported = jax.export.deserialize(bytearray(path.read_bytes()))
    assert set(exported.platforms) == {"cpu", "cuda", "tpu"}
    assert exported.in_avals[0].dtype == jnp.uint8
    for some in (IMAGES, IMAGES[:1]):
        theirs, ours = np.asarray(exported.call(some)), model.logits(some)
        np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-5)
        names = [CLASSES[k] for k in theirs.argmax(-1)]
        assert names == model.predict(some)
    moved = (ours - model.raw_logits(some))[:, list(important)]
    np.testing.assert_allclose(moved, [np.broadcast_to(offset, len(important))], 1e-5)


@pytest.mark.usefixtures("promotion_as_optax_needs_it")
def test_what_a_certificate_just_finds_is_found_by_a_program_that_rounds_otherwise(
    tmp_path,
):
    pytest.importorskip("flatbuffers")
    model = untrained(offset=0.0)
    path = model.export(tmp_path / "model.stablehlo", "stablehlo")
    exported = jax.export.deserialize(bytearray(path.read_bytes()))
    ours, theirs = model.raw_logits(IMAGES), np.asarray(exported.call(IMAGES))
    needed = guarantee.scores(theirs, 1)
    for least, there in zip(guarantee.scores(ours, 1), needed, strict=True):
        assert there <= guarantee.with_room(float(least), ours)


@pytest.mark.usefixtures("promotion_as_optax_needs_it")
def test_an_onnx_file_agrees_on_a_thousand_images(tmp_path):
    pytest.importorskip("jax2onnx")
    runtime = pytest.importorskip("onnxruntime")
    model = untrained(method="cross_entropy")
    # What jax2onnx traces broadcasts as it likes.
    with jax.numpy_rank_promotion("allow"):
        path = model.export(tmp_path / "model.onnx", "onnx")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for some in (IMAGES, IMAGES[:1]):
        (theirs,) = session.run(["logits"], {"images": some})
        ours = model.logits(some)
        np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(theirs.argmax(-1), ours.argmax(-1))


@pytest.mark.usefixtures("promotion_as_optax_needs_it")
def test_what_cannot_be_written_is_refused(tmp_path):
    path = tmp_path / "model.bin"
    # This network asks how many images there are.
    with pytest.raises(UsageError, match="cannot be written for any number of images"):
        untrained(Tiny()).export(path, "stablehlo")
    with pytest.raises(UsageError, match="must be among stablehlo, onnx, got 'tflite'"):
        untrained().export(path, "tflite")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("promotion_as_optax_needs_it")
def test_without_its_extra_onnx_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "jax2onnx", None)
    with pytest.raises(UsageError, match=r"pip install 'camri-jax\[onnx\]'"):
        untrained().export(tmp_path / "model.onnx", "onnx")
