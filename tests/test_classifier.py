"""What is saved is loaded, nothing else is, and one program serves any images."""

import functools
import io
import json
import pickle

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import CLASSES, DATASET, RECIPE, Tiny

from camri_jax import losses
from camri_jax._files import UsageError
from camri_jax.takehome import load_model
from camri_jax.training import classifier, trial
from camri_jax.training.methods import METHODS
from camri_jax.training.recipe import Recipe, TrainConfig

pytestmark = pytest.mark.usefixtures("promotion_as_optax_needs_it")

IMAGES = DATASET.parts["train"].images
ABOUT = {
    "class_names": list(CLASSES),
    "image_shape": [8, 8, 1],
    "scale": 16.0,
    "method": "camri",
}


def config(recipe=RECIPE, backbone=None):
    return TrainConfig.of(
        METHODS["camri"],
        num_classes=3,
        num_images=27,
        recipe=recipe,
        backbone=backbone,
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory, promotion_as_optax_needs_it):
    """A trial of a user's own network."""
    path = tmp_path_factory.mktemp("models") / "new" / "model.npz"
    setup = config(backbone=Tiny())
    init = jax.jit(functools.partial(trial.init, setup))
    variables = trial.evaluated_variables(init(IMAGES, np.int32(0)))
    classifier.save(path, setup, variables, ABOUT)
    return path, setup, variables


def test_a_model_that_was_told_no_class_predicts_by_its_logits(saved, tmp_path):
    _, setup, variables = saved
    path = tmp_path / "plain.npz"
    classifier.save(path, setup, variables, ABOUT | {"important": ()})
    model = load_model(path, Tiny())
    np.testing.assert_array_equal(model.logits(IMAGES), model.raw_logits(IMAGES))
    assert len(model.predict(IMAGES)) == len(IMAGES)


def test_a_loaded_classifier_is_the_saved_one(saved):
    path, setup, variables = saved
    model = classifier.load(path, Tiny())
    assert model.config == setup
    assert model.about == ABOUT
    chex.assert_trees_all_equal(model.variables, jax.device_get(variables))
    outputs = setup.network.apply(variables, IMAGES, train=False)
    cosines = losses.cosine_similarity(outputs.features, outputs.prototypes)
    np.testing.assert_allclose(
        model.logits(IMAGES), 16.0 * cosines, rtol=1e-4, atol=1e-4
    )
    chex.assert_trees_all_close(model.outputs(IMAGES), outputs, rtol=1e-4, atol=1e-5)
    assert [p.name for p in path.parent.iterdir()] == ["model.npz"]


def test_margins_by_class_have_no_say_in_scores(saved, tmp_path):
    _, setup, variables = saved
    several = ABOUT | {"point": {"margin": (0.1, 0.2), "scale": 16.0}}
    classifier.save(tmp_path / "model.npz", setup, variables, several)
    plain, model = (
        classifier.load(path, Tiny()) for path in (saved[0], tmp_path / "model.npz")
    )
    assert model.about["point"] == {"margin": [0.1, 0.2], "scale": 16.0}
    np.testing.assert_array_equal(model.logits(IMAGES), plain.logits(IMAGES))


@pytest.mark.parametrize("network", ["small", "fast"])
def test_our_own_networks_need_no_module_to_be_loaded(tmp_path, network):
    """Also one that keeps constants, and whatever the recipe's numbers."""
    setup = config(Recipe(batch_size=8, network=network, feature_dim=5, epochs=3))
    shapes = jax.eval_shape(
        functools.partial(trial.init, setup),
        IMAGES,
        jax.ShapeDtypeStruct((), jnp.int32),
    )
    variables = jax.tree.map(
        lambda leaf: np.full(leaf.shape, leaf.size, leaf.dtype),
        trial.evaluated_variables(shapes),
    )
    classifier.save(tmp_path / "model", setup, variables, ABOUT)
    model = classifier.load(tmp_path / "model")
    assert model.config == setup
    chex.assert_trees_all_equal(model.variables, variables)


def test_one_program_serves_any_number_of_images(saved, monkeypatch):
    traced, embed = [], trial.embed

    def counted(*arguments):
        traced.append(embed)
        return embed(*arguments)

    monkeypatch.setattr(trial, "embed", counted)
    # Another dimension than any other test's: no program is there yet.
    setup = config(backbone=Tiny(feature_dim=6))
    init = jax.jit(functools.partial(trial.init, setup))
    variables = trial.evaluated_variables(init(IMAGES, np.int32(0)))
    model = classifier.Classifier(setup, variables, ABOUT)
    whole = model.logits(IMAGES)
    assert whole.shape == (27, 3)
    for count in (1, 2, 7, 8, 9, 16, 25):
        np.testing.assert_array_equal(model.logits(IMAGES[:count]), whole[:count])
    other = model._replace(about=ABOUT | {"scale": 4.0})
    np.testing.assert_allclose(other.logits(IMAGES), whole / 4.0, rtol=1e-6)
    assert len(traced) == 1


def test_other_images_are_refused(saved):
    model = classifier.load(saved[0], Tiny())
    with pytest.raises(UsageError, match=r"must be \[image, 8, 8, 1\], got shape"):
        model.logits(IMAGES[:, :7])
    with pytest.raises(UsageError, match=r"got shape \(0, 8, 8, 1\); one at least"):
        model.logits(IMAGES[:0])
    with pytest.raises(UsageError, match=r"must be \[image, 8, 8, 1\]"):
        model.outputs(IMAGES[0])


def test_ones_own_network_must_be_given(saved):
    with pytest.raises(UsageError, match=r"needs its own backbone: .*Tiny"):
        classifier.load(saved[0])


def rewritten(path, target, **changes):
    """The file with another header."""
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(str(arrays.pop("header"))) | changes
    text = json.dumps({name: x for name, x in header.items() if x is not None})
    with target.open("wb") as file:
        np.savez(file, header=np.array(text), **arrays)


@pytest.mark.parametrize("version", [classifier.FORMAT - 1, classifier.FORMAT + 1])
def test_a_file_of_another_version_is_named(saved, tmp_path, version):
    path = tmp_path / "other.npz"
    rewritten(saved[0], path, format=version)
    with pytest.raises(UsageError, match=rf"other\.npz is of format {version}, this "):
        classifier.load(path)


def contents(saved):
    array, other = io.BytesIO(), io.BytesIO()
    np.save(array, np.ones(3))
    np.savez(other, x=np.ones(3))
    whole = saved.read_bytes()
    middle = len(whole) // 2
    return {
        "empty": b"",
        "text": b"weights",
        "pickle": pickle.dumps({"x": 1}),
        "array": array.getvalue(),
        "other arrays": other.getvalue(),
        "cut short": whole[:-100],
        "damaged": whole[:middle] + bytes(200) + whole[middle + 200 :],
    }


@pytest.mark.parametrize(
    "kind",
    ["empty", "text", "pickle", "array", "other arrays", "cut short", "damaged"],
)
def test_another_file_is_refused(saved, tmp_path, kind):
    path = tmp_path / "other.npz"
    path.write_bytes(contents(saved[0])[kind])
    with pytest.raises(UsageError, match=r"other\.npz is not a saved classifier"):
        classifier.load(path)


def test_a_file_without_a_version_is_refused(saved, tmp_path):
    rewritten(saved[0], tmp_path / "other.npz", format=None)
    with pytest.raises(UsageError, match=r"other\.npz is not a saved classifier"):
        classifier.load(tmp_path / "other.npz")
    with pytest.raises(FileNotFoundError):
        classifier.load(tmp_path / "missing.npz")


def test_a_write_that_fails_leaves_the_old_file(saved, tmp_path, monkeypatch):
    _, setup, variables = saved
    target = tmp_path / "model.npz"
    classifier.save(target, setup, variables, ABOUT)
    before = target.read_bytes()

    def fail(file, **arrays):
        file.write(before[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="No space left"):
        classifier.save(target, setup, variables, ABOUT | {"scale": 1.0})
    assert target.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.npz"]
