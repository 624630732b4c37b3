"""Draw Fig. 1: the losses of one class over a two-dimensional feature space.

    python experiments/figure1.py
    python experiments/figure1.py --output docs

Needs no results and takes seconds. Writes figure1.png.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import tyro
from pictures import Format, write
from rows import run

from camri_jax.evidence.figures import geometry


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Draw Fig. 1.

    Attributes:
      output: Directory to write to.
      format: How the picture is written.
    """

    output: Path = Path("results")
    format: Format = "png"


def main(argv: Sequence[str] | None = None) -> None:
    arguments = tyro.cli(Arguments, args=argv, description=__doc__)
    arguments.output.mkdir(parents=True, exist_ok=True)
    write(geometry.contours(), arguments.output, "figure1", arguments.format)


if __name__ == "__main__":
    run(main)
