"""What is saved is loaded, and nothing else is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from camri_jax import losses
from camri_jax.training import classifier
from camri_jax.training import trial as train
from camri_jax.training.recipe import Recipe, TrainConfig

CONFIG = TrainConfig("angular", 3, 40, Recipe(feature_dim=4, batch_size=8))
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1)).astype(np.uint8)
ABOUT = {"class_names": ["a", "b", "c"], "image_shape": [8, 8, 1], "scale": 16.0}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "new" / "model.npz"
    with jax.numpy_dtype_promotion("standard"):
        state = jax.jit(lambda: train.init(CONFIG, (8, 8, 1), jnp.int32(0)))()
    variables = train.evaluated_variables(state)
    classifier.save(path, CONFIG, variables, ABOUT)
    return path, variables


def test_a_loaded_classifier_is_the_saved_one(saved):
    path, variables = saved
    model = classifier.load(path)
    assert model.config == CONFIG
    assert model.about == ABOUT
    outputs = CONFIG.network.apply(variables, IMAGES, train=False)
    cosines = losses.cosine_similarity(outputs.features, outputs.prototypes)
    np.testing.assert_allclose(model.logits(IMAGES), 16.0 * cosines, rtol=1e-5)
    np.testing.assert_allclose(
        model.outputs(IMAGES).features, outputs.features, atol=1e-5
    )
    assert [p.name for p in path.parent.iterdir()] == ["model.npz"]


def test_other_images_are_refused(saved):
    model = classifier.load(saved[0])
    with pytest.raises(ValueError, match=r"must be \[image, 8, 8, 1\], got shape"):
        model.logits(IMAGES[:, :7])
    with pytest.raises(ValueError, match=r"got shape \(0, 8, 8, 1\); one at least"):
        model.logits(IMAGES[:0])
    with pytest.raises(TypeError, match="must be uint8"):
        model.logits(IMAGES.astype(np.float32))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no more", b"weights"])
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "other.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"other\.npz is not a saved classifier"):
        classifier.load(path)
    with pytest.raises(FileNotFoundError):
        classifier.load(tmp_path / "missing.npz")
