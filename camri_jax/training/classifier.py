"""A trained trial as a file, and as a function from images to logits."""

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from camri_jax._files import UsageError, read_arrays, written_whole
from camri_jax.training import lift, trial
from camri_jax.training.methods import METHODS, Problem, points
from camri_jax.training.network import Outputs
from camri_jax.training.recipe import Recipe, TrainConfig

FORMAT = 2
"""Version of the files; others are refused by name."""


class Classifier(NamedTuple):
    """A trained trial, ready to classify images.

    Attributes:
      config: how it was trained.
      variables: weights and statistics of its network.
      about: `class_names`, `image_shape`, `method`, `scale`, and what else is known.
    """

    config: TrainConfig
    variables: chex.ArrayTree
    about: dict[str, Any]

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Returns logits `[image, num_classes]`; their argmax is the class.

        To move the threshold, add an offset to the logits of the important classes.

        Args:
          images: `[image, height, width, channel]` uint8, as large as in training; any
            number, in batches of training's size.

        Raises:
          UsageError: there are no images, or their shape is not that of training.
        """
        arguments = _state(self), _hyperparameters(self)
        program, labels = _scored(self.config), np.zeros(self.config.recipe.batch_size)
        labels = labels.astype(np.int32)
        found = [
            np.asarray(program(*arguments, batch, labels).logits)[0, :count]
            for batch, count in self._batches(images)
        ]
        return np.concatenate(found)

    def outputs(self, images: np.ndarray) -> Outputs:
        """Returns the features of images, with the prototypes and the bias.

        Args:
          images: `[image, height, width, channel]` uint8, as large as in training.

        Raises:
          UsageError: there are no images, or their shape is not that of training.
        """
        found = [
            (_embed(self.config, self.variables, batch), count)
            for batch, count in self._batches(images)
        ]
        features = jnp.concatenate([each.features[:count] for each, count in found])
        return found[0][0]._replace(features=features)

    def _batches(self, images: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
        """Batches of one size, so that one program serves any number of images."""
        shape = tuple(self.about["image_shape"])
        if np.shape(images)[1:] != shape or not len(images):
            raise UsageError(
                f"images must be [image, {', '.join(map(str, shape))}], got shape "
                f"{np.shape(images)}; one at least is needed"
            )
        size = self.config.recipe.batch_size
        for start in range(0, len(images), size):
            batch = np.asarray(images[start : start + size])
            filling = np.repeat(batch[-1:], size - len(batch), 0)
            yield np.concatenate([batch, filling]), len(batch)


@functools.lru_cache(maxsize=8)
def _scored(config: TrainConfig) -> jax.stages.Wrapped:
    """The program by which training scores images, so that the numbers are the same."""
    placed = lift.placement(lift.trial_mesh(jax.local_devices()[:1]))
    return lift.lift(functools.partial(trial.score, config), placed, (0, 0, None, None))


def _state(classifier: Classifier) -> trial.TrialState:
    """What was evaluated, as the state of one trial."""
    collections = dict(jax.tree.map(np.asarray, classifier.variables))
    params = collections.pop("params")
    # Neither optimizer nor key matters to scores.
    rest: Any = {"opt_state": (), "average": None, "key": None, "step": np.int32(0)}
    state = trial.TrialState(params, collections, **rest)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[None], state)


def _hyperparameters(classifier: Classifier) -> dict[str, np.ndarray]:
    """Arrays as in training; logits depend on the scale alone."""
    method = METHODS[classifier.about["method"]]
    size = classifier.config.num_classes
    point: dict[str, Any] = dict(points(method.grid)[0])
    point |= classifier.about.get("point", {})
    if "scale" in point:
        point["scale"] = classifier.about["scale"]
    values = {name: np.asarray(value, np.float64) for name, value in point.items()}
    # As many classes as have values of their own.
    important = tuple(range(max((v.size for v in values.values()), default=1)))
    arrays = method.arrays(Problem(size, important, (1,) * size), **values)
    return {name: np.asarray(array)[None] for name, array in arrays.items()}


_embed = jax.jit(trial.embed, static_argnums=0)


def save(
    path: Path, config: TrainConfig, variables: Any, about: Mapping[str, Any]
) -> None:
    """Writes a trained trial to one `.npz` file, whole or not at all.

    Args:
      path: the file; its directory is made if need be.
      config: how the trial was trained.
      variables: weights and statistics of its network.
      about: JSON-able facts: at least `class_names`, `image_shape`, `method`, `scale`.

    Raises:
      OSError: the file cannot be written.
    """
    arrays, header = flat(Classifier(config, variables, dict(about)))
    with written_whole(path) as unfinished, unfinished.open("wb") as file:
        np.savez(file, allow_pickle=False, header=np.array(header), **arrays)


def load(path: Path, backbone: Any = None) -> Classifier:
    """Reads what `save` wrote.

    Args:
      path: the file.
      backbone: the Flax module that was trained, where it is not one of ours.

    Returns:
      The classifier.

    Raises:
      FileNotFoundError: there is no such file.
      UsageError: the file is not one that `save` wrote, or of another version, or needs
        a backbone.
    """
    try:
        arrays = read_arrays(path)
        header = str(arrays.pop("header"))
    except (UsageError, KeyError) as error:
        raise UsageError(f"{path} is not a saved classifier, or damaged") from error
    return unflat(arrays, header, str(path), backbone)


def flat(classifier: Classifier) -> tuple[dict[str, np.ndarray], str]:
    """Returns a classifier as arrays by name, and all else as JSON.

    Args:
      classifier: any.
    """
    named = _named(classifier.variables)
    # `np.ascontiguousarray` would give a number an axis.
    arrays = {key: np.asarray(leaf, order="C") for key, leaf in named.items()}
    config = classifier.config
    header = {
        "format": FORMAT,
        "recipe": asdict(config.recipe),
        "num_images": config.num_images,
        "backbone": None if config.backbone is None else repr(config.backbone),
        "convolution": config.convolution,
        "about": classifier.about,
    }
    return arrays, json.dumps(header)


def unflat(
    arrays: Mapping[str, np.ndarray], header: str, name: str, backbone: Any = None
) -> Classifier:
    """Returns the classifier that `flat` took apart.

    Args:
      arrays: by name.
      header: the rest, as JSON.
      name: of where they come from, for messages.
      backbone: the Flax module that was trained, where it is not one of ours.

    Raises:
      UsageError: it is of another version, needs a backbone, or its weights are those
        of another network.
    """
    try:
        known = json.loads(header)
        version = known["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{name} is not a saved classifier ({error!r})") from error
    if version != FORMAT:
        raise UsageError(
            f"{name} is of format {version}, this version of camri_jax reads {FORMAT}; "
            "read it with the version that wrote it, or train it anew"
        )
    if known.get("backbone") is not None and backbone is None:
        raise UsageError(f"{name} needs its own backbone: {known['backbone']}")
    try:
        about = known["about"]
        config = TrainConfig.of(
            METHODS[about["method"]],
            num_classes=len(about["class_names"]),
            num_images=known["num_images"],
            recipe=Recipe(**known["recipe"]),
            backbone=backbone,
            convolution=known["convolution"],
        )
        expected = _shapes(config, tuple(about["image_shape"]))
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{name} is damaged, or of another version of camri_jax ({error!r}); read "
            "it with the version that wrote it, or train it anew"
        ) from error
    for key in sorted({*arrays, *expected}):
        found, needed = _shape(arrays.get(key)), _shape(expected.get(key))
        if found != needed:
            raise UsageError(
                f"{name} holds weights of another network than it names: {key} must be "
                f"{needed}, got {found}"
            )
    variables: dict[str, Any] = {}
    for key, array in arrays.items():
        *parents, leaf = key.split("/")
        inner = functools.reduce(lambda d, k: d.setdefault(k, {}), parents, variables)
        inner[leaf] = array
    return Classifier(config, variables, about)


def _named(variables: Any) -> dict[str, Any]:
    """Leaves by their place, as `params/classes/bias`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(variables)
    return {
        jax.tree_util.keystr(key, simple=True, separator="/"): leaf
        for key, leaf in leaves
    }


def _shapes(config: TrainConfig, image_shape: tuple[int, ...]) -> dict[str, Any]:
    """What `flat` makes of such a classifier; nothing is computed."""
    kind = np.float32 if len(image_shape) == 1 else np.uint8
    images = jax.ShapeDtypeStruct((1, *image_shape), kind)
    init = functools.partial(trial.init, config)
    states = jax.eval_shape(init, images, jax.ShapeDtypeStruct((), np.int32))
    return _named(trial.evaluated_variables(states))


def _shape(array: Any) -> str:
    """For a message; how many bits a float has does not matter."""
    if array is None:
        return "absent"
    kind = "floats" if jnp.issubdtype(array.dtype, jnp.floating) else str(array.dtype)
    return f"{kind} [{', '.join(map(str, array.shape))}]"
