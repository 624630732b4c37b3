"""Classify pictures with a kept model, as its threshold was picked.

    camri predict results/signs/model photo.jpg
    camri predict results/signs/model new_pictures/ 'more/*.png' --csv out.csv

MODEL is a directory that a sweep wrote, or the weights of one trial, which have no
threshold moved. Of each picture: its class; the model's probability, which orders and
is no calibrated chance; and how far the score of the important classes lies above the
threshold: near zero are those to look at first. Pictures that cannot be read are
listed, and the others go on; a word that names no picture is an error.
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
      images: Pictures, folders of them, or patterns as 'new/*.jpg'.
      csv: File to write one line a picture to.
    """

    model: tyro.conf.Positional[Path]
    images: tyro.conf.Positional[tuple[str, ...]] = ()
    csv: Path | None = None


class Prediction(NamedTuple):
    """What a model says of one picture.

    Attributes:
      path: of the picture.
      name: of its class.
      probability: of that class, by the model.
      distance: of the important classes' score from the threshold: they win where it
        is positive; NaN where the model has none.
    """

    path: str
    name: str
    probability: float
    distance: float


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
    bad: list[str] = []
    found = list(predictions(model, paths, bad))
    if given.csv is not None:
        with written_whole(given.csv) as unfinished:
            write(found, unfinished)
    for text in bad:
        note(text)
    tell(found, model, everything=given.csv is None)
    if given.csv is not None:
        wrote("csv", given.csv)
    return 0 if found else 1


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


def predictions(
    model: Model, paths: Sequence[Path], bad: list[str]
) -> Iterator[Prediction]:
    """Yields what a model says of pictures that can be read.

    Args:
      model: from `camri_jax.takehome.load_model`.
      paths: of the pictures.
      bad: takes a sentence for each that cannot.
    """
    for start in range(0, len(paths), _BATCH):
        names, pictures = [], []
        for path in paths[start : start + _BATCH]:
            try:
                pictures.append(model.prepared([path])[0])
                names.append(str(path))
            except UsageError as error:
                bad.append(str(error))
        if not pictures:
            continue
        logits = model.logits(np.stack(pictures)).astype(np.float64)
        shares = special.softmax(logits, axis=-1)
        winners = logits.argmax(-1)
        for i, (name, k) in enumerate(zip(names, winners, strict=True)):
            distance = _distance(logits[i], model.important)
            yield Prediction(name, model.class_names[k], shares[i, k], distance)


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
        lines.writerow(["image", "class", "probability", "distance_from_threshold"])
        for each in found:
            distance = "" if np.isnan(each.distance) else f"{each.distance:.6g}"
            lines.writerow([each.path, each.name, f"{each.probability:.6g}", distance])


def tell(found: Sequence[Prediction], model: Model, *, everything: bool) -> None:
    """Prints predictions, or how many there are of each class.

    Args:
      found: the predictions.
      model: that made them.
      everything: print each.
    """
    if everything:
        distance = ", distance from the threshold" if model.important else ""
        say(f"probability{distance}, class, picture:")
        for each in found:
            near = "" if np.isnan(each.distance) else f"{each.distance:+8.3f}"
            say(f"{each.probability:.3f} {near}  {each.name}  {each.path}")
        return
    counts = Counter(each.name for each in found)
    shown = [f"{number:,} {name}" for name, number in counts.most_common()]
    say(f"{len(found):,} pictures: {some(shown, 20)}")
    if found and model.important:
        nearest = sorted(found, key=lambda each: abs(each.distance))[:5]
        say("nearest to the threshold, to be looked at first:")
        for each in nearest:
            say(f"  {each.distance:+.3f}  {each.name}  {each.path}")
