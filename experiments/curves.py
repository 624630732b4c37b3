"""Draw training curves, and what recall costs as thresholds are moved.

    python experiments/curves.py RESULTS

RESULTS is a directory that experiments/sweep.py wrote. Each method is drawn in the
setting that is selected on validation images. Writes curves.png, recall and accuracy
after each epoch, and tradeoff.png, accuracy and false alarms against recall on test
images as a constant is added to the logit of the important class.
"""

from collections.abc import Sequence

import tyro
from pictures import Arguments, select, write
from rows import load, run

from camri_jax.evidence import figures


def main(argv: Sequence[str] | None = None) -> None:
    arguments = tyro.cli(Arguments, args=argv, description=__doc__)
    rows, output = load(arguments)
    _, _, selected = select(rows)
    figure = figures.training(rows, selected)
    write(figure, output, "curves", arguments.format)
    figure = figures.tradeoff(rows, selected)
    write(figure, output, "tradeoff", arguments.format)


if __name__ == "__main__":
    run(main)
