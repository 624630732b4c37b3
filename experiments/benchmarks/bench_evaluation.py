"""Time the evaluation after every epoch against the epoch.

    python experiments/bench_evaluation.py [--quick] [--output DIR]

One trial of `small` a device, CAMRI, as the sweep runs it, on made-up data in the
shapes of the data sets: the validation images, a fifth of the training images, are
evaluated for all choices of the important class, with their threshold curves. A sweep
of 50 epochs or fewer does so after each of them. Of all but digits only some thousand
images are used, with training and validation images in the true proportion; what
evaluation takes whatever their number then counts for more than its share. Three
minutes on two CPU cores.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import made_up
import numpy as np
import reporting
import timing

from camri_jax.sweeps.chunk import CONSTANTS
from camri_jax.sweeps.width import lift_programs
from camri_jax.training import lift as parallel
from camri_jax.training.recipe import Recipe, TrainConfig


class Case(NamedTuple):
    """A data set's shape, and as many of its images as are used."""

    name: str
    shape: tuple[int, int, int]
    num_classes: int
    num_train: int
    num_validation: int
    num_choices: int = 3


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    cases: tuple[Case, ...] = (
        Case("digits", (8, 8, 1), 10, 1_150, 287, 1),
        Case("mnist", (28, 28, 1), 10, 2_048, 512, 1),
        Case("cifar10", (32, 32, 3), 10, 2_048, 512),
        Case("gtsrb", (48, 48, 3), 43, 1_024, 256),
    )
    repetitions: int = 5


FULL = Sizes()
QUICK = Sizes(cases=FULL.cases[:1], repetitions=3)


def measure(case: Case, repetitions: int) -> timing.Line:
    mesh = parallel.trial_mesh()
    train_data, validation = (
        made_up.images_of(case.shape, number, case.num_classes)
        for number in (case.num_train, case.num_validation)
    )
    config = TrainConfig("angular", case.num_classes, len(train_data[0]), Recipe())
    programs = lift_programs(config, case.shape, mesh)
    choices = np.eye(case.num_classes, dtype=bool)[: case.num_choices]
    seeds, hyperparameters, masks = parallel.shard(
        (
            np.arange(mesh.size, dtype=np.int32),
            made_up.stacked(case.num_classes, mesh.size),
            np.stack([choices] * mesh.size),
        ),
        mesh,
    )
    train_data, validation, constants = parallel.replicate(
        (train_data, validation, CONSTANTS), mesh
    )
    state = programs.init(seeds)

    def epoch() -> None:
        nonlocal state
        state, _ = jax.block_until_ready(
            programs.train_epoch(state, hyperparameters, *train_data)
        )

    def evaluate() -> None:
        jax.block_until_ready(
            programs.evaluate(state, hyperparameters, masks, constants, *validation)
        )

    taken = timing.seconds({"epoch": epoch, "evaluate": evaluate}, repetitions)
    what = "time, evaluation / training epoch"
    name = f"{case.name}, {case.num_validation} / {case.num_train} images"
    return timing.compared(what, name, taken["evaluate"], taken["epoch"], "<= 0.1")


def main(argv: Sequence[str] | None = None) -> None:
    arguments = reporting.parse(__doc__, argv)
    sizes = QUICK if arguments.quick else FULL
    reporting.one_device_a_core()
    lines = [measure(case, sizes.repetitions) for case in sizes.cases]
    reporting.report("bench_evaluation", lines, arguments.output, ("flax",))


if __name__ == "__main__":
    reporting.run(main)
