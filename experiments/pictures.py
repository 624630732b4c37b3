"""What the scripts that draw rows do alike: select settings, and write a picture."""

import dataclasses
from pathlib import Path
from typing import Literal

import pandas as pd
import rows
from matplotlib.figure import Figure

from camri_jax.evidence import figures
from camri_jax.evidence import selection as analysis

Format = Literal["png", "svg"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(rows.Arguments):
    """Draw the rows of a sweep.

    Attributes:
      format: How the picture is written.
    """

    format: Format = "png"


def select(
    read: pd.DataFrame,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Returns trials, settings, and the settings that are picked on held-out images.

    Args:
      read: rows from `rows.read`.

    Returns:
      What `trials`, `settings` and `select` of `camri_jax.evidence.selection` return; without
      validation images, settings are picked on test images, which is noted.

    Raises:
      ValueError: without cross-entropy.
    """
    trials = analysis.trials(read)
    settings = analysis.settings(trials)
    held_out = settings["validation_recall"].notna().any()
    if not held_out:
        rows.note("no validation images: settings are picked on the test images")
    on = "validation" if held_out else "test"
    return trials, settings, analysis.select(settings, on=on)


def write(figure: Figure, output: Path, name: str, format: Format) -> None:
    """Writes a picture to `OUTPUT/NAME.FORMAT`, and says so."""
    path = output / f"{name}.{format}"
    figures.save(figure, path)
    rows.wrote(path)
