"""Look at a data set: sheets of examples, and how many there are of each class.

    python experiments/show_data.py
    python experiments/show_data.py --dataset gtsrb --data-dir DIR
    python experiments/show_data.py --dataset folder:PATH --fit crop --image-size 64

Writes to --output: all_classes.png, with a row of training images for each class; a
larger sheet for each class in classes/; and counts.csv.
"""

import csv
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from loading import folder_name, load
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.table import Table

from camri_jax import datasets
from camri_jax.datasets import Dataset

_GAP = 4  # pixels between pictures
_LEAST = 48  # pixels of a picture's side on a sheet, small ones being enlarged
_ROWS = 25  # classes in a column of all_classes.png
_SHEET = 10  # rows and columns of the sheet of one class

console = Console()


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Look at a data set: sheets of examples, and how many there are of each class.

    Attributes:
      dataset: digits, mnist, cifar10, gtsrb, awa2, folder:PATH or npz:FILE.
      data_dir: Where the official files lie; default $CAMRI_DATA_DIR.
      image_size: Height and width in pixels; default the data set's own.
      fit: How pictures of folder:PATH become square.
      validation_fraction: Share of each class moved from train to validation.
      seed: Chooses what is held out.
      examples: Pictures in a row of all_classes.png.
      output: Where to write; default results/data/DATASET.
    """

    dataset: str = "digits"
    data_dir: Path | None = None
    image_size: int | None = None
    fit: Literal["pad", "crop"] = "pad"
    validation_fraction: float = 0.0
    seed: int = 0
    examples: int = 12
    output: Path | None = None


def main(argv: Sequence[str] | None = None) -> None:
    arguments = tyro.cli(Arguments, args=argv, description=__doc__)
    if arguments.examples < 1:
        sys.exit(f"--examples is {arguments.examples}; it must be 1 or more")
    output = arguments.output or Path("results", "data", folder_name(arguments.dataset))
    try:
        dataset = load(
            console,
            arguments.dataset,
            data_dir=arguments.data_dir,
            image_size=arguments.image_size,
            validation_fraction=arguments.validation_fraction,
            seed=arguments.seed,
            fit=arguments.fit,
        )
        counts = count(dataset)
        (output / "classes").mkdir(parents=True, exist_ok=True)
        write_counts(output / "counts.csv", dataset.class_names, counts)
        rows = draw_rows(dataset, counts, arguments.examples)
        rows.save(output / "all_classes.png")
        for label, name in enumerate(dataset.class_names):
            path = output / "classes" / f"{label:02d} {name.replace('/', '_')}.png"
            draw_pictures(examples(dataset, label, _SHEET**2), _SHEET).save(path)
    except (datasets.DatasetError, ImportError, OSError) as error:
        sys.exit(f"{arguments.dataset} cannot be shown: {error}")
    console.print(table(arguments.dataset, dataset, counts))
    for name in ("all_classes.png", "classes", "counts.csv"):
        console.print(str(output / name), highlight=False, soft_wrap=True)


def count(dataset: Dataset) -> dict[str, np.ndarray]:
    """Returns the number of examples of each class, for each part that is not empty."""
    parts = {
        "train": dataset.train_labels,
        "validation": dataset.validation_labels,
        "test": dataset.test_labels,
    }
    return {
        part: np.bincount(labels, minlength=len(dataset.class_names))
        for part, labels in parts.items()
        if len(labels)
    }


def write_counts(
    path: Path, class_names: Sequence[str], counts: dict[str, np.ndarray]
) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["class", "name", *counts])
        for i, name in enumerate(class_names):
            writer.writerow([i, name, *(column[i] for column in counts.values())])


def table(title: str, dataset: Dataset, counts: dict[str, np.ndarray]) -> Table:
    shape = "x".join(map(str, dataset.train_images.shape[1:]))
    result = Table(title=f"{title}: images of {shape}", show_footer=True)
    result.add_column("class", justify="right")
    result.add_column("name", "all")
    for part, column in counts.items():
        result.add_column(part, f"{column.sum():,}", justify="right")
    for i, name in enumerate(dataset.class_names):
        result.add_row(str(i), name, *(f"{column[i]:,}" for column in counts.values()))
    return result


def examples(dataset: Dataset, label: int, number: int) -> np.ndarray:
    """Returns training images of a class, spread evenly over all that it has."""
    members = np.flatnonzero(dataset.train_labels == label)
    spread = np.linspace(0, len(members) - 1, min(number, len(members))).round()
    return dataset.train_images[members[spread.astype(int)]]


def draw_pictures(images: np.ndarray, columns: int) -> Image.Image:
    """Draws images in rows of so many."""
    factor = -(-_LEAST // images.shape[1])
    images = images.repeat(factor, axis=1).repeat(factor, axis=2)
    height, width = images.shape[1] + _GAP, images.shape[2] + _GAP
    rows = -(-len(images) // columns)
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
    names = [
        name if name == str(label) else f"{label}  {name}"
        for label, name in enumerate(dataset.class_names)
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
    texts = [(name, font(15)) for name in names] + [(n, font(11)) for n in numbers]
    text_width = int(max(f.getlength(text) for text, f in texts)) + 2 * margin
    width, height = text_width + strips[0].width + margin, strips[0].height
    columns = -(-len(names) // _ROWS)
    rows = -(-len(names) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for i, strip in enumerate(strips):
        left, top = i // rows * width, i % rows * height + _GAP // 2
        draw.text((left + margin, top + height // 2), names[i], "black", font(15), "ls")
        draw.text((left + margin, top + height // 2 + 5), numbers[i], "gray", font(11))
        sheet.paste(strip, (left + text_width, top))
    return sheet


def font(size: int) -> ImageFont.FreeTypeFont:
    # Unlike Pillow's own font, this one knows Cyrillic, Greek and Arabic letters.
    return ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)


if __name__ == "__main__":
    main()
