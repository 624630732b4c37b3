"""Train `fast` on CIFAR-10 to its end, against the same training in PyTorch.

    python experiments/benchmarks/bench_training.py [--quick] [--output DIR]

L2-softmax (CAMRI without a margin, scale 16) by `Recipe.fast` on all training images,
which lie where $CAMRI_DATA_DIR says or are downloaded: the same first weights, moved
and mirrored batches, momentum, triangular rate, clipped gradients, decay and slow
weights. The sides take turns, an epoch each, on the cores that the process may use
(`taskset -c 0` for one). Counted are the processor's seconds of the epochs, in our
first with what is compiled; not those of the tests after each. Half an hour on one CPU
core.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import made_up
import numpy as np
import reporting
import timing
import torch_epochs
from bench_step import on_device, start
from torch.nn import functional as F
from torch_network import torch

from camri_jax import datasets
from camri_jax.sweeps.chunk import place
from camri_jax.training import lift
from camri_jax.training.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    dataset: str = "cifar10"
    epochs: int = 8
    batch_size: int = 500


FULL = Sizes()
QUICK = Sizes(dataset="digits", epochs=2, batch_size=100)


class Side(NamedTuple):
    """One library's training."""

    epoch: Callable[[], object]
    accuracy: Callable[[], float]


def sides_of(sizes: Sizes) -> dict[str, Side]:
    """Returns both trainings of the same network, at their start."""
    dataset = datasets.load(sizes.dataset)
    changes = {} if dataset.mirror else {"augment_flip": "none"}
    recipe = Recipe.fast(epochs=sizes.epochs, batch_size=sizes.batch_size, **changes)
    placement = lift.placement(lift.trial_mesh())
    train = np.asarray(dataset.train_images), np.asarray(dataset.train_labels)
    config = made_up.config_of(
        train,
        len(dataset.class_names),
        recipe=recipe,
        convolution=placement.convolution,
    )
    placed = place(dataset, config, placement)
    own = made_up.camri(config.num_classes)
    own = own | {"margins": np.zeros_like(own["margins"])}
    trials = made_up.Trials(config, placement, train, placement.mesh.size, own)
    labels = placed.labels["test"]

    def ours() -> float:
        found = trials.logits(placed.scored["test"]).argmax(-1)[:, : len(labels)]
        return (found == labels).mean()

    device = torch.device("cpu")
    peer = torch_epochs.trained(
        config,
        start(config, train[0][:5000]),
        own,
        on_device(train, device),
        torch_epochs.Variant(),
    )
    images, _ = on_device((np.asarray(dataset.test_images), labels), device)

    @torch.no_grad()
    def theirs() -> float:
        peer.network.eval()
        prototypes = F.normalize(peer.network.prototypes, dim=0)
        found = [
            (peer.network(batch.float() / 255) @ prototypes).argmax(1)
            for batch in images.split(sizes.batch_size)
        ]
        return (torch.cat(found).numpy() == labels).mean()

    return {"PyTorch": Side(peer.epoch, theirs), "ours": Side(trials.epoch, ours)}


def measure(sizes: Sizes) -> list[timing.Line]:
    sides = sides_of(sizes)
    seconds = {name: np.empty(sizes.epochs) for name in sides}
    accuracies = {name: 0.0 for name in sides}
    for i in range(sizes.epochs):
        for name, side in sides.items():
            begun = time.process_time()
            side.epoch()
            seconds[name][i] = time.process_time() - begun
            accuracies[name] = side.accuracy()
            print(
                f"epoch {i + 1}, {name}: {seconds[name][i]:.1f} s, "
                f"test accuracy {accuracies[name]:.4f}",
                flush=True,
            )
    trained = f"{sizes.dataset}, {sizes.epochs} epochs"
    return [
        timing.compared(
            "processor time of an epoch, PyTorch / ours",
            trained,
            seconds["PyTorch"],
            seconds["ours"],
            ">= 1",
        ),
        timing.counted(
            "processor time of the training, PyTorch / ours",
            trained,
            seconds["PyTorch"].sum(),
            seconds["ours"].sum(),
            "s",
            ">= 1",
        ),
        timing.counted(
            "test accuracy, PyTorch / ours",
            trained,
            accuracies["PyTorch"],
            accuracies["ours"],
            "",
        ),
    ]


def main(argv: Sequence[str] | None = None) -> None:
    arguments = reporting.begin(__doc__, argv)
    lines = measure(QUICK if arguments.quick else FULL)
    reporting.report("bench_training", lines, arguments.output, ("flax", "torch"))


if __name__ == "__main__":
    reporting.run(main)
