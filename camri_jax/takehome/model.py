"""A model directory: weights, and how to use them."""

import contextlib
import io
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from scipy import special

from camri_jax._files import (
    UsageError,
    address,
    is_local,
    write_whole,
    written_whole,
)
from camri_jax.datasets import copies
from camri_jax.datasets.dataset import Dataset, digest
from camri_jax.datasets.reading import read_images
from camri_jax.guarantee import moved
from camri_jax.takehome import exporting
from camri_jax.training import classifier
from camri_jax.training.classifier import Classifier

FORMAT = 1
"""Version of `model.json`; others are refused by name."""

_SEEN = "seen.npy"


@dataclass(frozen=True)
class Model:
    """A classifier with the offset that was picked for it.

    Attributes:
      classifier: the trained trial.
      important: indices of the classes that must not be missed.
      offset: what is added to their logits before the largest wins: one number for
        all, or one for each.
      about: what else `model.json` says.
    """

    classifier: Classifier
    important: tuple[int, ...]
    offset: float | tuple[float, ...]
    about: dict[str, Any]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return tuple(self.classifier.about["class_names"])

    def logits(self, images: Any) -> np.ndarray:
        """Returns logits `[image, class]` with the offset added: the largest wins.

        Args:
          images: pictures, one or several: paths, PIL images, or arrays uint8 `[height,
            width]` or `[height, width, 1 to 4 channels]`, which are read as their files
            would be; or one array of several, uint8 `[image, height, width, channels]`
            or, if grey, `[image, height, width]`. A model of features takes numbers,
            `[feature]` or `[n, feature]`.

        Raises:
          UsageError: a picture cannot be read, or a feature is not finite: the first
            such is named; or an array can be read as one picture and as several.
        """
        return moved(self.raw_logits(images), self.important, self.offset)

    def raw_logits(self, images: Any) -> np.ndarray:
        """Returns logits `[image, class]` as trained, without the offset.

        On the CPU that trained it they are, bit for bit, what training kept for a part
        of the data: images are taken in the same batches by the same program.

        Args:
          images: as for `logits`.
        """
        return self.classifier.logits(self.prepared(images))

    def predict(self, images: Any) -> list[str]:
        """Returns the class of each image, by name, with the offset that was picked.

        Args:
          images: as for `logits`.
        """
        return [self.class_names[k] for k in self.logits(images).argmax(-1)]

    def predict_proba(self, images: Any) -> np.ndarray:
        """Returns the softmax of the logits `[image, class]`, offset included.

        They rank classes as the predictions do, but are not calibrated probabilities.

        Args:
          images: as for `logits`.
        """
        return special.softmax(self.logits(images).astype(np.float64), axis=-1)

    def export(self, path: str | os.PathLike[str], kind: exporting.Kind) -> Path:
        """Writes the model as one file for other programs, its offset inside.

        The function in the file takes images uint8 `[any number, height, width,
        channel]`, sized as in training, and returns logits float32 to which the offset
        was added: their arg max is the class that `predict` names.

        A `stablehlo` file is what `jax.export.deserialize` reads, for CPU, CUDA and
        TPU. JAX promises to read it for six months only: it expires, where
        `weights.safetensors` does not. An `onnx` file needs neither JAX nor Python;
        writing it takes jax2onnx, of the extra `onnx`.

        Args:
          path: the file.
          kind: `stablehlo` or `onnx`.

        Returns:
          The path.

        Raises:
          UsageError: the network cannot be written for any number of images, or the
            kind is unknown.
        """
        offsets = np.zeros(len(self.class_names), np.float32)
        offsets[list(self.important)] = np.asarray(self.offset, np.float32)
        content = exporting.export(self.classifier, offsets, kind)
        path = address(path)
        write_whole(path, content)
        return path

    def prepared(self, images: Any) -> np.ndarray:
        """Returns images of any kind as training saw its own.

        Args:
          images: as for `logits`.
        """
        about = self.classifier.about
        shape = tuple(about["image_shape"])
        if len(shape) == 1:
            return _features(images, shape[0])
        array = np.asarray(images) if hasattr(images, "__array__") else None
        # Arrays of paths and of other objects are lists of them.
        if array is not None and array.dtype.kind not in "OSU":
            images = _several(array, shape)
            if images.shape[1:] == shape:
                return images
        elif isinstance(images, str | os.PathLike) or not isinstance(images, Iterable):
            images = [images]
        return read_images(images, shape, about["fit"], about["bits"])


def _several(pixels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Returns an array of one picture or of several with an axis of pictures first."""
    given = f"{pixels.dtype} {list(pixels.shape)}"
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3, 4):
        raise UsageError(
            "images must be uint8 [height, width], [height, width, 1 to 4 channels] or "
            f"[image, height, width, channels], got {given}"
        )
    if pixels.ndim != 3:
        return pixels if pixels.ndim == 4 else pixels[None]
    one = 1 <= pixels.shape[2] <= 4
    # Elsewhere the channels come first.
    turned = not one and pixels.shape[0] == shape[2] == 3
    if turned or (one and pixels.shape[1:] == shape[:2]):
        raise UsageError(
            f"images {given} may be one picture or {len(pixels)} grey ones: give a "
            "list of pictures, each [height, width] or [height, width, channels]"
        )
    return pixels[None] if one else pixels


def _features(given: Any, number: int) -> np.ndarray:
    try:
        with np.errstate(over="ignore"):
            features = np.asarray(given, np.float32)
    except (TypeError, ValueError) as error:
        raise UsageError(f"the model takes features, not images ({error})") from error
    if features.shape[-1:] != (number,) or features.ndim > 2 or not features.size:
        raise UsageError(f"features must be [n, {number}], got {list(features.shape)}")
    features = features.reshape(-1, number)
    if len(strange := np.argwhere(~np.isfinite(features))):
        row, column = strange[0]
        raise UsageError(
            f"features must be finite as float32, got {features[row, column]} in "
            f"features[{row}, {column}]"
        )
    return features


def local(output: str | os.PathLike[str]) -> Path:
    """Returns where a model is written, which cannot be a store."""
    path = address(output)
    if not is_local(path):
        raise UsageError(f"output must be a directory of this machine, got {output}")
    return path


def save_model(directory: Path, model: Model) -> None:
    """Writes a model directory: `weights.safetensors` and `model.json`.

    Args:
      directory: made if need be; what is there of an earlier model is replaced.
      model: the model; its `about` is JSON-able.

    Raises:
      OSError: a file cannot be written.
    """
    arrays, header = classifier.flat(model.classifier)
    shape = model.classifier.about["image_shape"]
    content = safetensors.numpy.save(arrays, {"camri_jax": header})
    facts = {
        "format": FORMAT,
        **model.about,
        "classes": model.class_names,
        "important": [model.class_names[k] for k in model.important],
        "offset": model.offset,
        "preprocessing": {
            "image_size": shape[0] if len(set(shape[:-1])) < 2 else shape[:-1],
            "channels": shape[-1],
            "fit": model.classifier.about.get("fit", "stretch"),
        },
        "weights": digest(np.frombuffer(content, np.uint8)),
    }
    text = json.dumps(facts, indent=2, ensure_ascii=False, default=_plain)
    write_whole(directory / "weights.safetensors", content)
    write_whole(directory / "model.json", text + "\n")


def directory_of(
    output: Path, question: Mapping[str, Any], suffix: Iterable[Any]
) -> Path:
    """Returns where the model that answers a question belongs.

    Args:
      output: directory of all that was trained.
      question: what `model.json` says of it.
      suffix: tells the model from that of another question, which came first.

    Returns:
      `model`; where another question's lies there, `model_` with the suffix.
    """
    first = output / "model"
    if not (first / "model.json").exists():
        return first
    asked = json.loads(json.dumps(question))
    with contextlib.suppress(UsageError):
        known = read_about(first)
        if all(known.get(name) == value for name, value in asked.items()):
            return first
    return output / "_".join(("model", *map(str, suffix)))


def save_seen(
    directory: Path, images: Iterable[np.ndarray], before: Path | None = None
) -> None:
    """Writes hashes of all images that a model was trained, picked or certified on.

    Args:
      directory: of the model.
      images: arrays `[image, ...]` as the model takes them.
      before: directory of the model that this one comes from, whose images count too.
    """
    hashes = [copies.fingerprints(each) for each in images]
    if before is not None and (before / _SEEN).exists():
        hashes.append(np.load(io.BytesIO((before / _SEEN).read_bytes())))
    found = np.unique(np.concatenate(hashes))
    with written_whole(directory / _SEEN) as unfinished, unfinished.open("wb") as file:
        np.save(file, found)


def seen(directory: Path, images: np.ndarray) -> np.ndarray:
    """Returns which images a model was trained, picked or certified on.

    Args:
      directory: of the model; where it says nothing, no image is known.
      images: `[image, ...]` as the model takes them.
    """
    path = directory / _SEEN
    if not path.exists():
        return np.zeros(len(images), bool)
    try:
        known = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"{path} is damaged ({error})") from error
    return np.isin(copies.fingerprints(images), known)


def used(dataset: Dataset) -> list[np.ndarray]:
    """Returns the images of all parts but test, of those that have any."""
    return [
        np.asarray(part.images)
        for name, part in dataset.parts.items()
        if name != "test" and len(part.labels)
    ]


def load_model(path: str | os.PathLike[str], backbone: Any = None) -> Model:
    """Reads a model directory, or the weights of one trial, which have no offset.

    Args:
      path: the directory, or a file of weights; a path, or a URL of a store.
      backbone: the Flax module that was trained, where it is not one of ours.

    Returns:
      The model.

    Raises:
      UsageError: there is no model, or it is of another version.
    """
    path = address(path)
    if path.is_file() and path.suffix not in (".safetensors", ".json"):
        trial = classifier.load(path, backbone)
        return Model(trial, tuple(trial.about["important"]), 0.0, {})
    about = read_about(path)
    trial = _read_weights(path / "weights.safetensors", backbone)
    important, offset = _rule(about)
    return Model(trial, important, offset, about)


def read_tensors(path: Path) -> tuple[dict[str, np.ndarray], str]:
    """Reads arrays by name, and the JSON that lies beside them.

    Args:
      path: of a safetensors file that was written with `camri_jax` in its metadata.

    Raises:
      OSError: it cannot be read.
      SafetensorError, ValueError, KeyError: it is no such file.
    """
    content = path.read_bytes()
    arrays = safetensors.numpy.load(content)
    # The library reads metadata of files only, and these may be in a store.
    end = 8 + int.from_bytes(content[:8], "little")
    return arrays, json.loads(content[8:end])["__metadata__"]["camri_jax"]


def read_about(directory: Path) -> dict[str, Any]:
    """Reads `model.json`.

    Args:
      directory: of the model.

    Raises:
      UsageError: there is no model, or it is of another version.
    """
    try:
        text = (directory / "model.json").read_text(encoding="utf-8")
        about = json.loads(text)
        version = about["format"]
        if version == FORMAT:
            _rule(about)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(_no_model(directory)) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{directory} is no model directory ({error!r})") from error
    if version != FORMAT:
        raise UsageError(
            f"{directory} is of format {version}, this version of camri_jax reads "
            f"{FORMAT}"
        )
    return about


def _no_model(path: Path) -> str:
    """Says what there is in place of a model directory."""
    if path.is_file():
        whole = (path.parent / "model.json").exists()
        other = f"a file of a model: give its directory, {path.parent}"
        return f"{path} is {other if whole else 'a file, and no model directory'}"
    if not path.exists():
        return f"there is no directory {path}"
    if (path / "model" / "model.json").exists():
        return f"{path} holds no model; did you mean {path / 'model'}?"
    return f"{path} holds no model: there is no model.json in it"


def _rule(about: dict[str, Any]) -> tuple[tuple[int, ...], float | tuple[float, ...]]:
    """The important classes, and what is added to their logits."""
    important = tuple(about["classes"].index(name) for name in about["important"])
    offset = np.asarray(about["offset"], np.float64)
    if offset.shape not in ((), (len(important),)) or not np.isfinite(offset).all():
        raise ValueError(f"the offset {about['offset']} is not one for each class")
    return important, tuple(offset.tolist()) if offset.ndim else float(offset)


def _read_weights(path: Path, backbone: Any) -> Classifier:
    try:
        arrays, header = read_tensors(path)
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        raise UsageError(f"{path} holds no weights ({error!r})") from error
    return classifier.unflat(arrays, header, str(path), backbone)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")
