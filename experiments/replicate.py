"""Replicate the paper's comparison at full size: one command, for one GPU or more.

    python experiments/replicate.py cifar10 --epochs 60 --schedule cosine
    python experiments/replicate.py gtsrb --epochs 30 --schedule cosine
    python experiments/replicate.py cifar10 --epochs 300 --validation-fraction 0

The authors' network, batch 64, Adam 0.001, no augmentation, 10 seeds. For each of the
paper's three classes CAMRI and ArcFace at the authors' margin and scale, WCE at w = 4;
cross-entropy and L2-softmax at the same scales are trained once for all three: 120
trainings on CIFAR-10, 90 on GTSRB. Every other flag of sweep.py may follow,
`--num-seeds 2 --model small` to try it or `--dataset npz:FILE` to read arrays. Started
again it trains only what is missing, so more seeds can be added later. Ends with
OUTPUT/report.html.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import report
import rows
import sweep


class Setting(NamedTuple):
    """An important class with the margin, in 64ths of pi, and the scale for it."""

    important: int
    margin: int
    scale: int


SETTINGS = {
    # Cat, dog and airplane, at the authors' best settings.
    "cifar10": (Setting(3, 4, 16), Setting(5, 5, 16), Setting(0, 4, 8)),
    # Ends of limit 80 and of no passing, limit 80; their settings are not published.
    "gtsrb": (Setting(6, 4, 16), Setting(41, 4, 16), Setting(5, 4, 16)),
}


def sweeps(name: str, flags: Sequence[str]) -> list[list[str]]:
    """Returns the command lines of sweep.py, those that others build on first.

    Args:
      name: a key of `SETTINGS`.
      flags: what follows the defaults, and so overrides them.
    """
    common = ["--dataset", name, "--model", "paper", "--num-seeds", "10"]
    common += ["--validation-fraction", "0.1", "--no-save-models", *flags]
    classes = [str(setting.important) for setting in SETTINGS[name]]
    scales = map(str, sorted({setting.scale for setting in SETTINGS[name]}))
    # What does not depend on the important class is trained once, for all of them.
    shared = [*common, "--important", *classes, "--methods"]
    lines = [[*shared, "cross_entropy", "l2_softmax", "--scales", *scales]]
    for important, margin, scale in SETTINGS[name]:
        point = ["--margins", repr(margin * math.pi / 64), "--scales", str(scale)]
        own = [*common, "--important", str(important), "--weights", "4", "--methods"]
        lines.append([*own, "camri", "weighted_cross_entropy", *point])
        if (arcface := [*shared, "arcface", *point]) not in lines:
            lines.append(arcface)
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=SETTINGS)
    parser.add_argument("--output", type=Path, help="default results/NAME_paper")
    arguments, flags = parser.parse_known_args(argv)
    output = arguments.output or Path("results", f"{arguments.name}_paper")
    for line in sweeps(arguments.name, flags):
        sweep.main([*line, "--output", str(output)])
    if "--dry-run" not in flags:
        report.main([str(output)])


if __name__ == "__main__":
    rows.run(main)
