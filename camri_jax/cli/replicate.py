"""Replicate the paper's comparison at full size.

    camri replicate cifar10 --epochs 60 --schedule cosine
    camri replicate gtsrb --epochs 30 --schedule cosine
    camri replicate cifar10 --epochs 300 --validation-fraction 0

The authors' network, batch 64, Adam 0.001, no augmentation, 10 seeds. For each of the
paper's three classes CAMRI at the authors' margin and scale, and WCE at w = 4;
cross-entropy, and L2-softmax and ArcFace at all of the margins and scales, are trained
once for all three: 130 trainings on CIFAR-10, 90 on GTSRB. Every option of camri sweep
but --preset may follow: --num-seeds 2 --network small to try it, --important 3 for one
of the classes, --dataset npz:FILE to read arrays.
Started again it trains only what is missing. What is written lies in
results/NAME_paper.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from camri_jax._files import UsageError
from camri_jax.cli.arguments import DataArguments
from camri_jax.cli.sweep import RunArguments, sweep_from
from camri_jax.sweeps.plan import SweepConfig
from camri_jax.training.recipe import Recipe


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


def config(name: str) -> SweepConfig:
    """Returns the paper's comparison on a data set as one sweep.

    Args:
      name: a key of `SETTINGS`.
    """
    settings = SETTINGS[name]
    margins = sorted({each.margin * math.pi / 64 for each in settings})
    scales = sorted({float(each.scale) for each in settings})
    grid: dict[str, tuple[float, ...]] = {
        "weighted_cross_entropy.weight": (4.0,),
        "arcface.margin": tuple(margins),
        "arcface.scale": tuple(scales),
        "l2_softmax.scale": tuple(scales),
    }
    for important, margin, scale in settings:
        grid[f"camri.margin@{important}"] = (margin * math.pi / 64,)
        grid[f"camri.scale@{important}"] = (float(scale),)
    methods = ("weighted_cross_entropy", "l2_softmax", "arcface", "camri")
    return SweepConfig(
        important=tuple(str(each.important) for each in settings),
        methods=("cross_entropy", *methods),
        grid=grid,
        num_seeds=10,
        save_models=False,
        recipe=Recipe(network="paper"),
    )


def main(argv: Sequence[str]) -> int:
    """Runs the command."""
    name, *rest = argv or [""]
    if name in ("-h", "--help"):
        name, rest = "cifar10", ["--help"]
    if name not in SETTINGS:
        raise UsageError(
            f"camri replicate must name {' or '.join(SETTINGS)} first, got {name!r}"
        )
    if any(word.partition("=")[0] == "--preset" for word in rest):
        raise UsageError(
            "camri replicate has the paper's recipe and takes no --preset; camri sweep "
            "does"
        )
    data = DataArguments(dataset=name, validation_fraction=0.1)
    run = RunArguments(output=Path("results", f"{name}_paper"))
    default = (data, config(name), run)
    return sweep_from(rest, f"replicate {name}", __doc__, default)
