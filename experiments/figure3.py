"""Draw Fig. 3: recall and accuracy against the penalty, mean and std over seeds.

    python experiments/figure3.py RESULTS

RESULTS is a directory that experiments/sweep.py wrote, with two weights, costs or
margins of a method at least. Where a method has another parameter, as a scale, the one
that is selected on validation images counts. Writes figure3.png.
"""

from collections.abc import Sequence

import tyro
from pictures import Arguments, select, write
from rows import load, run

from camri_jax.evidence import figures


def main(argv: Sequence[str] | None = None) -> None:
    arguments = tyro.cli(Arguments, args=argv, description=__doc__)
    rows, output = load(arguments)
    _, settings, selected = select(rows)
    figure = figures.penalties(settings, selected)
    write(figure, output, "figure3", arguments.format)


if __name__ == "__main__":
    run(main)
