"""Draw Fig. 4: cross-entropy's confusion matrix, and what a method changes of it.

    python experiments/figure4.py RESULTS
    python experiments/figure4.py RESULTS --method cross_entropy+threshold

RESULTS is a directory that experiments/sweep.py wrote. Matrices are means over seeds,
on test images, of the setting that is selected on validation images. Writes
figure4.png.
"""

import dataclasses
from collections.abc import Sequence

import pictures
import tyro
from pictures import select, write
from rows import load, run

from camri_jax.evidence import figures


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(pictures.Arguments):
    """Draw Fig. 4.

    Attributes:
      method: Compared with cross-entropy; "camri+threshold" has its threshold moved.
    """

    method: str = "camri"


def main(argv: Sequence[str] | None = None) -> None:
    arguments = tyro.cli(Arguments, args=argv, description=__doc__)
    rows, output = load(arguments)
    trials, _, selected = select(rows)
    figure = figures.confusion_matrices(rows, trials, selected, arguments.method)
    write(figure, output, "figure4", arguments.format)


if __name__ == "__main__":
    run(main)
