"""Look at a data set, before anyone trains on it.

    camri show_data
    camri show_data --dataset gtsrb --data-dir DIR
    camri show_data --dataset folder:PATH --fit crop --image-size 64
    camri show_data --dataset folder:PATH --calibration-fraction 0.2 --recall 0.99

Writes to --output: all_classes.png, with a row of training images for each class; a
larger sheet for each class in classes/; and counts.csv. Tells for each class the
largest recall that its calibration images can certify, for one model and for as many
as `camri tune` certifies at once, before anyone trains.
"""

import csv
import dataclasses
import functools
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rich.table import Table
from rich.text import Text

from camri_jax import guarantee
from camri_jax._files import UsageError, written_whole
from camri_jax.cli import arguments as words
from camri_jax.cli.arguments import DataArguments
from camri_jax.cli.console import note, say, visible, wrote
from camri_jax.datasets import Dataset
from camri_jax.evidence.figures import looks
from camri_jax.evidence.statistics import percent
from camri_jax.takehome import TuneConfig

_GAP = 4  # pixels between pictures
_LEAST = 48  # pixels of a picture's side on a sheet, small ones being enlarged
_ROWS = 25  # classes in a column of all_classes.png
_SHEET = 10  # rows and columns of the sheet of one class
_LONGEST = 40  # letters of a name in all_classes.png

Certifiable = Mapping[int, Sequence[float]]
"""For each number of models, the largest recall that each class can certify."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShownArguments:
    """What is shown of it.

    Attributes:
      examples: Pictures in a row of all_classes.png.
      recall: Recall that is to be certified, to tell how many images it takes.
      confidence: Confidence of a certificate.
      output: Directory to write to; else results/data/DATASET.
    """

    examples: int = 12
    recall: float | None = None
    confidence: float = 0.95
    output: Path | None = None


def _whole_train() -> DataArguments:
    return DataArguments(validation_fraction=0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Look at a data set."""

    data: DataArguments = dataclasses.field(default_factory=_whole_train)
    shown: ShownArguments = dataclasses.field(default_factory=ShownArguments)


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    given = words.parse(Arguments, argv, __doc__, "show_data")
    wanted = given.shown
    if not 1 <= wanted.examples <= 1000:
        raise UsageError(f"examples must be from 1 to 1000, got {wanted.examples}")
    needed = None
    if wanted.recall is not None:
        needed = guarantee.images_needed(wanted.recall, confidence=wanted.confidence)
    output = words.directory(wanted.output, given.data.dataset, "results/data")
    dataset = words.load(given.data)
    counts = count(dataset)
    certifiable = certify(dataset, wanted.confidence)
    write_counts(output / "counts.csv", dataset.class_names, counts, certifiable)
    files = [output / "counts.csv"]
    if dataset.train_images.ndim == 4:
        files += draw(dataset, counts, wanted.examples, output)
    else:
        note("these are features, not pictures: none is drawn")
    say(table(dataset, counts, certifiable))
    if needed is not None:
        say(
            f"a recall of {wanted.recall:g} with confidence {wanted.confidence:g} "
            f"takes {needed:,} calibration images of the class, or groups of them, "
            "none of which is missed"
        )
    recall = proposed(certifiable, wanted.recall)
    if wanted.recall is not None and recall != wanted.recall:
        most = guarantee.rounded_down(max(certifiable[1]))
        note(
            f"no class has so many: {percent(most)} is the "
            "most that any of them can certify"
        )
    for path in files:
        wrote("data", path)
    told = ["camri", "tune", "--important", "CLASS"]
    if recall is not None:
        told += ["--recall", repr(recall)]
    if wanted.confidence != ShownArguments.confidence:
        told += ["--confidence", repr(wanted.confidence)]
    if dataset.train_images.ndim == 2:
        told += ["--preset", "heads"]
    for name in DataArguments.__dataclass_fields__:
        value = getattr(given.data, name)
        if value != getattr(_whole_train(), name) or name == "dataset":
            told += [f"--{name.replace('_', '-')}", str(value)]
    say(f"next      {shlex.join(told)}")


def draw(
    dataset: Dataset, counts: dict[str, np.ndarray], number: int, output: Path
) -> list[Path]:
    """Writes the sheets of pictures and returns where they are."""
    _save(draw_rows(dataset, counts, number), output / "all_classes.png")
    for label, name in enumerate(dataset.class_names):
        path = output / "classes" / f"{label:02d} {words.file_name(name)}.png"
        _save(draw_pictures(examples(dataset, label, _SHEET**2), _SHEET), path)
    return [output / "all_classes.png", output / "classes"]


def _save(picture: Image.Image, path: Path) -> None:
    with written_whole(path) as unfinished:
        picture.save(unfinished)


def count(dataset: Dataset) -> dict[str, np.ndarray]:
    """Returns the number of examples of each class, for each part that is not empty."""
    return {
        name: dataset.counts(name)
        for name, part in dataset.parts.items()
        if len(part.labels)
    }


def certify(dataset: Dataset, confidence: float) -> Certifiable:
    """Returns the largest recalls that each class's calibration images can certify.

    Args:
      dataset: the data set.
      confidence: of a certificate.

    Returns:
      For one model, and for as many as `camri tune` certifies at once; empty without
      calibration images.
    """
    part = dataset.parts["calibration"]
    if not len(part.labels):
        return {}
    numbers = [
        guarantee.sample_size(part.labels, (label,), part.groups)
        for label in range(len(dataset.class_names))
    ]
    return {
        models: [
            guarantee.largest_certifiable(n, confidence=confidence, candidates=models)
            for n in numbers
        ]
        for models in (1, TuneConfig.num_finalists)
    }


def proposed(certifiable: Certifiable, asked: float | None) -> float | None:
    """Returns the recall to tune for.

    Args:
      certifiable: from `certify`.
      asked: by the user.

    Returns:
      What was asked, unless no class can certify it even for one model; else the
      largest whole percentage that a class can certify for as many models as
      `camri tune` certifies; None: its own default.

    >>> few = {1: [0.9, 0.967], 3: [0.88, 0.955]}
    >>> proposed(few, 0.96), proposed(few, 0.99), proposed(few, None)
    (0.96, 0.95, 0.95)
    """
    if not certifiable or (asked is not None and asked <= max(certifiable[1])):
        return asked
    best = max(certifiable[max(certifiable)])
    return guarantee.rounded_down(best, 2) or None


def write_counts(
    path: Path,
    class_names: Sequence[str],
    counts: dict[str, np.ndarray],
    certifiable: Certifiable,
) -> None:
    """Writes one line a class."""
    with (
        written_whole(path) as unfinished,
        unfinished.open("w", newline="", encoding="utf-8", errors="replace") as file,
    ):
        writer = csv.writer(file)
        last = [
            "certifiable_recall" + f"_of_{models}" * (models > 1)
            for models in certifiable
        ]
        writer.writerow(["class", "name", *counts, *last])
        for i, name in enumerate(class_names):
            last = [_floored(recalls[i], 4) for recalls in certifiable.values()]
            writer.writerow([i, name, *(c[i] for c in counts.values()), *last])


def table(
    dataset: Dataset,
    counts: dict[str, np.ndarray],
    certifiable: Certifiable,
) -> Table:
    """Lays out how many there are of each class."""
    shape = "x".join(map(str, dataset.train_images.shape[1:]))
    title = f"{dataset.name}: images of {shape}"
    result = Table(title=Text(visible(title)), show_footer=True)
    result.add_column("class", justify="right")
    result.add_column("name", "all")
    for part, column in counts.items():
        result.add_column(part, f"{column.sum():,}", justify="right")
    for models in certifiable:
        whose = (
            "certifiable\nrecall" if models == 1 else f"of tune's\n{models} finalists"
        )
        result.add_column(whose, justify="right")
    for i, name in enumerate(dataset.class_names):
        last = [_floored(recalls[i], 3) for recalls in certifiable.values()]
        numbers = [f"{column[i]:,}" for column in counts.values()]
        result.add_row(str(i), Text(visible(name)), *numbers, *last)
    return result


def _floored(recall: float, digits: int) -> str:
    return f"{guarantee.rounded_down(recall, digits):.{digits}f}"


def examples(dataset: Dataset, label: int, number: int) -> np.ndarray:
    """Returns training images of a class, spread evenly over all that it has."""
    members = np.flatnonzero(dataset.train_labels == label)
    spread = np.linspace(0, len(members) - 1, min(number, len(members))).round()
    return dataset.train_images[members[spread.astype(int)]]


def draw_pictures(images: np.ndarray, columns: int) -> Image.Image:
    """Draws images in rows of `columns`."""
    factor = -(-_LEAST // images.shape[1])
    images = images.repeat(factor, axis=1).repeat(factor, axis=2)
    height, width = images.shape[1] + _GAP, images.shape[2] + _GAP
    rows = max(1, -(-len(images) // columns))
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    for i, image in enumerate(images):
        picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
        row, column = divmod(i, columns)
        sheet.paste(picture, (column * width + _GAP // 2, row * height + _GAP // 2))
    return sheet


def draw_rows(
    dataset: Dataset, counts: dict[str, np.ndarray], number: int
) -> Image.Image:
    """Draws name, counts and a row of images for each class, in one or more columns."""
    drawn = [name if _has_letters(name) else "" for name in dataset.class_names]
    if numbered := drawn.count(""):
        note(
            f"{numbered} of {len(drawn)} class names have letters that the picture's "
            "font lacks: there, their indices stand for them"
        )
    names = [
        _short(name if name == str(label) else f"{label}  {name}".rstrip())
        for label, name in enumerate(drawn)
    ]
    numbers = [
        "  ".join(f"{part} {column[label]:,}" for part, column in counts.items())
        for label in range(len(names))
    ]
    strips = [
        draw_pictures(examples(dataset, label, number), number)
        for label in range(len(names))
    ]
    margin = 3 * _GAP
    texts = [(name, _font(15)) for name in names] + [(n, _font(11)) for n in numbers]
    text_width = int(max(f.getlength(text) for text, f in texts)) + 2 * margin
    width, height = text_width + strips[0].width + margin, strips[0].height
    columns = -(-len(names) // _ROWS)
    rows = -(-len(names) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height + _GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for i, strip in enumerate(strips):
        left, top = i // rows * width, i % rows * height + _GAP // 2
        pen.text((left + margin, top + height // 2), names[i], "black", _font(15), "ls")
        pen.text((left + margin, top + height // 2 + 5), numbers[i], "gray", _font(11))
        sheet.paste(strip, (left + text_width, top))
    return sheet


def _short(name: str) -> str:
    name = visible(name.replace("\n", " "))
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"


def _has_letters(name: str) -> bool:
    """Whether the font has every character, so that none is drawn as a box."""
    return looks.characters(looks.own_font()).issuperset(map(ord, _short(name)))


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # Unlike Pillow's own font, this one knows Cyrillic, Greek and Arabic letters.
    return ImageFont.truetype(looks.own_font(), size)
