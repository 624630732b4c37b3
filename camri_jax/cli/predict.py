"""Classify pictures with a kept model, as its threshold was picked.

    camri predict results/signs/model photo.jpg
    camri predict results/signs/model new_pictures/ 'more/*.png' --csv out.csv

MODEL is a directory that a sweep wrote, or the weights of one trial, which have no
threshold moved. For each picture: its class; the model's probability, which ranks but
is not calibrated; and how far the score of the important classes lies above the
threshold: those near zero are to be looked at first. Pictures that cannot be read are
listed, in the file with an empty class and the reason as `error`, and the others go on:
the exit status is 1 only where none can be read. A word that names no picture is an
error.
"""

import csv
import dataclasses
import glob
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro
from scipy import special

from camri_jax._files import UsageError, expanded, written_whole
from camri_jax.cli import arguments as words
from camri_jax.cli import backend
from camri_jax.cli.console import note, say, wrote
from camri_jax.datasets.dataset import some
from camri_jax.datasets.pictures import is_picture
from camri_jax.takehome import Model, load_model

_BATCH = 256  # pictures that are held at once


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Classify pictures.

    Attributes:
      model: Directory of a model, or weights of one trial.
      images: Pictures, folders of them, or patterns such as 'new/*.jpg'.
      csv: File to write one line a picture to.
    """

    model: tyro.conf.Positional[Path]
    images: tyro.conf.Positional[tuple[str, ...]] = ()
    csv: Path | None = None


class Prediction(NamedTuple):
    """What a model says about one picture.

    Attributes:
      path: of the picture.
      name: of its class; empty where it cannot be read.
      probability: of that class, by the model.
      distance: of the important classes' score from the threshold: they win where it
        is positive; NaN where the model has none.
      error: why it cannot be read, else empty.
    """

    path: str
    name: str
    probability: float
    distance: float
    error: str = ""


def main(argv: Sequence[str]) -> int:
    """Runs the command."""
    given = words.parse(Arguments, argv, __doc__, "predict")
    if not given.images:
        raise UsageError("images must name a picture, a folder or a pattern")
    if given.csv is not None:
        words.writable(given.csv.parent)
        if given.csv.is_dir():
            raise UsageError(f"{given.csv} is a directory: --csv must be a file")
    paths = [path for text in given.images for path in listed(text)]
    backend.set_up_jax()
    model = load_model(given.model)
    if len(shape := model.classifier.about["image_shape"]) == 1:
        raise UsageError(
            f"{given.model} takes features [n, {shape[0]}], and camri predict gives it "
            "pictures: in Python, camri_jax.load_model(DIRECTORY).predict(features)"
        )
    found = list(predictions(model, paths))
    if given.csv is not None:
        with written_whole(given.csv) as unfinished:
            write(found, unfinished)
    for each in found:
        if each.error:
            note(each.error)
    tell(found, model, everything=given.csv is None)
    if given.csv is not None:
        wrote("csv", given.csv)
    return 1 if all(each.error for each in found) else 0


def listed(text: str) -> list[Path]:
    """Returns the pictures that a word of the command line means.

    Args:
      text: a file, a folder, or a pattern.

    Raises:
      UsageError: there is none.
    """
    path = expanded(text)
    if path.is_dir():
        inside = (p for p in sorted(path.rglob("*")) if is_picture(p.name))
        found = [p for p in inside if not _hidden(p.relative_to(path)) and p.is_file()]
    elif path.exists():
        found = [path]
    else:
        found = [Path(p) for p in sorted(glob.glob(str(path), recursive=True))]
        found = [p for p in found if p.is_file()]
    if not found:
        raise UsageError(f"{text}: there is no picture")
    return found


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def predictions(model: Model, paths: Sequence[Path]) -> Iterator[Prediction]:
    """Yields what a model says about pictures, in their order.

    Args:
      model: from `camri_jax.takehome.load_model`.
      paths: of the pictures.
    """
    for start in range(0, len(paths), _BATCH):
        batch = paths[start : start + _BATCH]
        pictures, errors = [], []
        for path in batch:
            try:
                pictures.append(model.prepared([path])[0])
                errors.append("")
            except UsageError as error:
                errors.append(str(error))
        said = _said(model, pictures)
        for path, error in zip(batch, errors, strict=True):
            if error:
                yield Prediction(str(path), "", np.nan, np.nan, error)
            else:
                yield Prediction(str(path), *next(said))


def _said(
    model: Model, pictures: Sequence[np.ndarray]
) -> Iterator[tuple[str, float, float]]:
    """Yields class, probability and distance of each picture."""
    if not pictures:
        return
    logits = model.logits(np.stack(pictures)).astype(np.float64)
    shares = special.softmax(logits, axis=-1)
    for row, share, k in zip(logits, shares, logits.argmax(-1), strict=True):
        yield model.class_names[k], share[k], _distance(row, model.important)


def _distance(logits: np.ndarray, important: Sequence[int]) -> float:
    if not important:
        return float("nan")
    others = np.delete(logits, list(important))
    return float(logits[list(important)].max() - others.max())


def write(found: Sequence[Prediction], path: Path) -> None:
    """Writes predictions as CSV.

    Args:
      found: the predictions.
      path: the file.
    """
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        lines = csv.writer(file)
        names = ("class", "probability", "distance_from_threshold", "error")
        lines.writerow(["image", *names])
        for each in found:
            numbers = [
                "" if np.isnan(value) else f"{value:.6g}"
                for value in (each.probability, each.distance)
            ]
            lines.writerow([each.path, each.name, *numbers, each.error])


def tell(found: Sequence[Prediction], model: Model, *, everything: bool) -> None:
    """Prints predictions, or how many there are of each class.

    Args:
      found: the predictions.
      model: that made them.
      everything: print each.
    """
    read = [each for each in found if not each.error]
    if everything:
        distance = ", distance from the threshold" if model.important else ""
        say(f"probability{distance}, class, picture:")
        for each in read:
            near = "" if np.isnan(each.distance) else f"{each.distance:+8.3f}"
            say(f"{each.probability:.3f} {near}  {each.name}  {each.path}")
        return
    counts = Counter(each.name for each in read)
    shown = [f"{number:,} {name}" for name, number in counts.most_common()]
    lost = len(found) - len(read)
    total = f"{len(found):,} pictures" + f", {lost:,} not read" * bool(lost)
    say(f"{total}: {some(shown, 20)}" if shown else total)
    if read and model.important:
        nearest = sorted(read, key=lambda each: abs(each.distance))[:5]
        say("nearest to the threshold, to be looked at first:")
        for each in nearest:
            say(f"  {each.distance:+.3f}  {each.name}  {each.path}")
