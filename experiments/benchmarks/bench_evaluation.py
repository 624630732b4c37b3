"""Time the scoring after an epoch against the epoch.

    python experiments/benchmarks/bench_evaluation.py [--quick] [--output DIR]

One trial of `small` a device, CAMRI, as the sweep runs it, on made-up data in the
shapes of the data sets: the validation images, a fifth of the training images, are
scored and their logits fetched. A sweep of 50 epochs or fewer does so after each of
them. Of all but digits only some thousand images are used, with training and validation
images in the true proportion; what scoring takes whatever their number then counts for
more than its share. Three minutes on two CPU cores.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import made_up
import reporting
import timing

from camri_jax.datasets.dataset import Part, make_dataset
from camri_jax.sweeps.chunk import place
from camri_jax.training import lift
from camri_jax.training.recipe import Recipe


class Case(NamedTuple):
    """A data set's shape, and as many of its images as are used."""

    name: str
    shape: tuple[int, int, int]
    num_classes: int
    num_train: int
    num_validation: int


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    cases: tuple[Case, ...] = (
        Case("digits", (8, 8, 1), 10, 1_150, 287),
        Case("mnist", (28, 28, 1), 10, 2_048, 512),
        Case("cifar10", (32, 32, 3), 10, 2_048, 512),
        Case("gtsrb", (48, 48, 3), 43, 1_024, 256),
    )
    repetitions: int = 5


FULL = Sizes()
QUICK = Sizes(cases=(Case("digits", (8, 8, 1), 10, 128, 32),), repetitions=2)


def measure(case: Case, repetitions: int) -> timing.Line:
    placement = lift.placement(lift.trial_mesh())
    parts = {
        name: Part(*made_up.images_of(case.shape, number, case.num_classes))
        for name, number in (
            ("train", case.num_train),
            ("validation", case.num_validation),
        )
    }
    names = tuple(map(str, range(case.num_classes)))
    train = parts["train"].images, parts["train"].labels
    config = made_up.config_of(
        train,
        case.num_classes,
        recipe=Recipe(),
        convolution=placement.convolution,
    )
    placed = place(make_dataset(case.name, parts, names), config, placement)
    trials = made_up.Trials(config, placement, train, placement.mesh.size)
    sides = {
        "epoch": trials.epoch,
        "score": lambda: trials.logits(placed.scored["validation"]),
    }
    taken = timing.seconds(sides, repetitions)
    what = "time, scoring / training epoch"
    name = f"{case.name}, {case.num_validation} / {case.num_train} images"
    return timing.compared(what, name, taken["score"], taken["epoch"], "<= 0.1")


def main(argv: Sequence[str] | None = None) -> None:
    arguments = reporting.begin(__doc__, argv)
    sizes = QUICK if arguments.quick else FULL
    lines = [measure(case, sizes.repetitions) for case in sizes.cases]
    reporting.report("bench_evaluation", lines, arguments.output, ("flax",))


if __name__ == "__main__":
    reporting.run(main)
