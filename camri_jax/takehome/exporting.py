"""A classifier as one file for programs that know nothing of this one."""

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from camri_jax._files import UsageError
from camri_jax.training import trial
from camri_jax.training.classifier import Classifier

Kind = Literal["stablehlo", "onnx"]
PLATFORMS = ("cpu", "cuda", "tpu")


def export(classifier: Classifier, offset: np.ndarray, kind: Kind) -> bytes:
    """Returns the content of a file that maps images to logits.

    Args:
      classifier: the trained trial.
      offset: `[class]`, added to the logits.
      kind: `stablehlo` or `onnx`.

    Raises:
      UsageError: see `camri_jax.takehome.Model.export`.
    """
    if kind not in get_args(Kind):
        raise UsageError(
            f"kind must be among {', '.join(get_args(Kind))}, got {kind!r}"
        )
    write = _stablehlo if kind == "stablehlo" else _onnx
    shape = tuple(classifier.about["image_shape"])
    return write(_function(classifier, offset), shape)


def _function(
    classifier: Classifier, offset: np.ndarray
) -> Callable[[jax.Array], jax.Array]:
    # Every program knows a plain convolution; what is fast in training does not matter.
    config = dataclasses.replace(classifier.config, convolution="lax")
    variables = jax.tree.map(jnp.asarray, classifier.variables)
    scale = {"scale": jnp.float32(classifier.about["scale"])}

    def logits(images: jax.Array) -> jax.Array:
        scores = trial.class_scores(trial.embed(config, variables, images))
        return trial.logits(scores, scale) + jnp.asarray(offset)[None]

    return logits


def _dtype(shape: tuple[int, ...]) -> Any:
    """Of images, or of the features that a head takes."""
    return jnp.float32 if len(shape) == 1 else jnp.uint8


def _stablehlo(function: Callable[..., Any], shape: tuple[int, ...]) -> bytes:
    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *shape), _dtype(shape))
    try:
        exported = jax.export.export(jax.jit(function), platforms=PLATFORMS)(images)
    except Exception as error:
        raise UsageError(
            f"the network cannot be written for any number of images: {error}"
        ) from error
    try:
        return bytes(exported.serialize())
    except ImportError as error:
        raise UsageError("stablehlo needs flatbuffers: pip install flatbuffers") from (
            error
        )


def _onnx(function: Callable[..., Any], shape: tuple[int, ...]) -> bytes:
    try:
        jax2onnx = importlib.import_module("jax2onnx")
    except ModuleNotFoundError as error:
        raise UsageError(
            f"onnx needs {error.name}: pip install 'camri-jax[onnx]'"
        ) from error
    images = jax.ShapeDtypeStruct(("batch", *shape), _dtype(shape))  # type: ignore
    try:
        model = jax2onnx.to_onnx(
            function,
            [images],
            model_name="camri",
            input_names=["images"],
            output_names=["logits"],
        )
    except NotImplementedError as error:
        raise UsageError(
            f"jax2onnx knows no counterpart of a part of the network: {error}"
        ) from error
    return model.SerializeToString()
