"""Certify a model on new labelled images; nothing is trained.

    camri recalibrate tuned/folder_signs/model folder:new_images --recall 0.99

The images must be new: neither trained on nor used to pick. All of them certify, or
if the data have a part `calibration`, that one alone. The model given stays as it is;
a new one is written beside it.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import tyro

from camri_jax import datasets
from camri_jax._files import UsageError
from camri_jax.cli import arguments as words
from camri_jax.cli import backend
from camri_jax.cli.console import say, wrote
from camri_jax.datasets import Dataset
from camri_jax.takehome import Model, load_model, recalibrate
from camri_jax.takehome.promise import certificate_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Certify a model anew.

    Attributes:
      model: Directory of a model.
      images: Labelled images: folder:PATH or npz:FILE.
      recall: Recall to be promised: one number, or one for each important class.
      confidence: Of the promise.
      groups: Pattern to search for in the file names of folder:PATH; pictures of equal
        matches belong together. Else that by which the model's own were grouped.
      output: New directory of the model; else MODEL_recalibrated.
    """

    model: tyro.conf.Positional[Path]
    images: tyro.conf.Positional[str]
    recall: tuple[float, ...]
    confidence: float = 0.95
    groups: str | None = None
    output: Path | None = None


def main(argv: Sequence[str]) -> int:
    """Runs the command; 1 where no recall can be promised."""
    given = words.parse(Arguments, argv, __doc__, "recalibrate")
    # What is named so has no name to put another beside.
    unnamed = given.model.name in ("", "..")
    model = given.model.resolve() if unnamed else given.model
    output = given.output or model.with_name(f"{model.name}_recalibrated")
    if words.writable(output).exists():
        raise UsageError(f"{output} is there already: give a new one by --output DIR")
    backend.set_up_jax()
    dataset = load_for(load_model(given.model), given.images, given.groups)
    recall = given.recall[0] if len(given.recall) == 1 else given.recall
    new, sentences = recalibrate(
        given.model, dataset, recall, output=output, confidence=given.confidence
    )
    say("\n".join(sentences))
    wrote("model", output)
    certificate = certificate_of(new.about)
    return 0 if certificate is not None and certificate.certified else 1


def load_for(model: Model, name: str, groups: str | None) -> Dataset:
    """Loads labelled images as a model takes them.

    Args:
      model: whose size, fit and brightness they get, like pictures that it predicts.
      name: of the data set.
      groups: pattern of pictures that belong together; None: that by which the
        model's own were grouped, if any.

    Raises:
      UsageError: the model takes pictures that are not square, to which no others can
        be fitted, and the data are not arrays; or the data cannot be loaded.
    """
    about, own = model.classifier.about, model.about.get("grouped_by")
    shape = about["image_shape"]
    if len(shape) == 3 and shape[0] != shape[1] and not name.startswith("npz:"):
        raise UsageError(
            f"images must be npz:FILE, for the model takes them {shape[0]} pixels high "
            f"and {shape[1]} wide and pictures are fitted to squares only; got {name}"
        )
    return datasets.load_labelled(
        name,
        image_size=shape[0] if len(shape) == 3 else None,
        fit=about["fit"],
        bits=about["bits"],
        groups=groups or (own if name.startswith("folder:") else None),
        class_names=model.class_names,
    )
