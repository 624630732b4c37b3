"""Draw Fig. 1: the losses over a two-dimensional feature space.

    camri figure1
    camri figure1 --output docs

Needs no results and takes seconds. Writes figure1.png.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from camri_jax.cli import arguments as words
from camri_jax.cli import backend
from camri_jax.cli.figures import Format, save
from camri_jax.evidence import figures


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Draw Fig. 1.

    Attributes:
      output: Directory to write to.
      format: How the picture is written.
    """

    output: Path = Path("results")
    format: Format = "png"


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    given = words.parse(Arguments, argv, __doc__, "figure1")
    output = words.writable(given.output)
    backend.set_up_jax()
    save(figures.contours(), output / f"figure1.{given.format}")
