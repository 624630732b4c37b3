"""A trained trial as a file, and as a function from images to logits."""

import functools
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from camri_jax._files import written_whole
from camri_jax.training import methods
from camri_jax.training import trial as train
from camri_jax.training.network import Outputs
from camri_jax.training.recipe import Recipe, TrainConfig


class Classifier(NamedTuple):
    """A trained trial, ready to classify images.

    Attributes:
      config: how it was trained.
      variables: `params` and `batch_stats` of its network.
      about: `class_names`, `image_shape`, `scale`, and what else is known of it.
    """

    config: TrainConfig
    variables: Any
    about: dict[str, Any]

    def logits(self, images: np.ndarray) -> jax.Array:
        """Returns logits `[image, num_classes]`; their argmax is the class.

        To move the threshold, add a constant to the logits of the important class.

        Args:
          images: `[image, height, width, channel]` uint8, as large as in training.

        Raises:
          ValueError: there are no images, or of another shape than in training.
        """
        values = methods.scores(self.outputs(images))
        return methods.test_logits(values, {"scale": self.about["scale"]})

    def outputs(self, images: np.ndarray) -> Outputs:
        """Returns the features of images, with the prototypes and the bias.

        Args:
          images: `[image, height, width, channel]` uint8, as large as in training.

        Raises:
          ValueError: there are no images, or of another shape than in training.
        """
        shape = tuple(self.about["image_shape"])
        if np.shape(images)[1:] != shape or not len(images):
            raise ValueError(
                f"images must be [image, {', '.join(map(str, shape))}], got shape "
                f"{np.shape(images)}; one at least is needed"
            )
        return _predict(self.config, self.variables, images)


_predict = jax.jit(train.predict, static_argnums=0)


def save(
    path: Path, config: TrainConfig, variables: Any, about: Mapping[str, Any]
) -> None:
    """Writes a trained trial to one `.npz` file, whole or not at all.

    Args:
      path: the file; its directory is made if need be.
      config: how the trial was trained.
      variables: `params` and `batch_stats` of its network.
      about: JSON-able facts: at least `class_names`, `image_shape` and `scale`.

    Raises:
      OSError: the file cannot be written.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(variables)
    arrays = {
        jax.tree_util.keystr(key, simple=True, separator="/"): np.asarray(leaf)
        for key, leaf in leaves
    }
    header = json.dumps({"config": asdict(config), "about": dict(about)})
    with written_whole(path) as unfinished, unfinished.open("wb") as file:
        np.savez(file, allow_pickle=False, header=np.array(header), **arrays)


def load(path: Path) -> Classifier:
    """Reads what `save` wrote.

    Args:
      path: the file.

    Returns:
      The classifier.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is not one that `save` wrote.
    """
    try:
        with open(path, "rb") as opened, np.load(opened) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(str(arrays.pop("header")))
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a saved classifier ({error})") from error
    config = header["config"]
    config = TrainConfig(**{**config, "recipe": Recipe(**config["recipe"])})
    variables: dict[str, Any] = {}
    for name, array in arrays.items():
        *parents, leaf = name.split("/")
        functools.reduce(lambda d, key: d.setdefault(key, {}), parents, variables)[
            leaf
        ] = array
    return Classifier(config, variables, header["about"])
