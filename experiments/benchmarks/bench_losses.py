"""Time CAMRI against optax's cross-entropy and pytorch-metric-learning's ArcFace.

    python experiments/benchmarks/bench_losses.py [--quick] [--output DIR]

Forward and gradient of the mean over a batch of 1,024, scale 16. From cosines, against
`optax.softmax_cross_entropy_with_integer_labels(scale * cosines)`: without margins both
must agree. From features of 512 dimensions and prototypes, with the gradient by both,
against `ArcFaceLoss` on a CPU: with one margin for all classes, and the continuation
past pi that ArcFaceLoss has, both must agree, gradients too. There the matmuls are half
of the work: the last panel holds our time to theirs alone. Memory is what the compiler
sets aside, in copies of the logits. Three minutes on two CPU cores.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
import reporting
import timing

from camri_jax import losses

timing.require("pytorch_metric_learning", "torch")
import torch  # noqa: E402
from pytorch_metric_learning.losses import ArcFaceLoss  # noqa: E402

MARGIN, SCALE = 0.2, 16


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    batch: int = 1024
    features: int = 512
    from_cosines: tuple[int, ...] = (10, 43, 100, 1_000, 10_000, 100_000)
    from_features: tuple[int, ...] = (10, 43, 100, 1_000, 10_000)
    repetitions: int = 200


FULL = Sizes()
QUICK = Sizes(
    batch=128, features=64, from_cosines=(10, 1_000), from_features=(10,), repetitions=5
)


def from_cosines(cosines, labels, margins):
    return losses.camri(cosines, labels, margins=margins, scale=SCALE).mean()


def by_optax(cosines, labels, margins):
    logits = SCALE * cosines
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def against_optax(
    sizes: Sizes, num_classes: int, repetitions: int
) -> Iterator[timing.Line]:
    """Compares the loss from cosines with optax's."""
    key = jax.random.key(0)
    cosines = jax.random.uniform(key, (sizes.batch, num_classes), minval=-1.0)
    labels = jax.random.randint(key, (sizes.batch,), 0, num_classes)
    margins = jnp.full(num_classes, MARGIN)
    programs = {
        name: jax.jit(jax.value_and_grad(function))
        .lower(cosines, labels, margins)
        .compile()
        for name, function in (("ours", from_cosines), ("optax", by_optax))
    }
    case = f"{num_classes:,} classes"
    no_margin = programs["ours"](cosines, labels, 0 * margins)
    expected = programs["optax"](cosines, labels, margins)
    for what, own, peer in zip(("loss", "gradient"), no_margin, expected, strict=True):
        timing.agree(
            f"CAMRI without margins and optax, {case}, {what}", own, peer, 1e-5
        )
    sides = {
        name: lambda program=program: jax.block_until_ready(
            program(cosines, labels, margins)
        )
        for name, program in programs.items()
    }
    taken = timing.seconds(sides, repetitions)
    what = "from cosines: time, ours / optax"
    yield timing.compared(what, case, taken["ours"], taken["optax"], "<= 1.15")
    yield timing.counted(
        "from cosines: temporary memory, ours / one copy of the logits",
        case,
        timing.temporary_mebibytes(programs["ours"]),
        cosines.nbytes / 2**20,
        "MiB",
    )


def from_features(features, prototypes, labels, margins):
    cosines = losses.cosine_similarity(features, prototypes)
    return losses.camri(
        cosines, labels, margins=margins, scale=SCALE, monotone=True
    ).mean()


def three_matmuls(features, prototypes, cosines):
    """Returns what no way of computing loss and gradients can do without."""
    product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    return (
        product(features, prototypes),
        product(cosines, prototypes.T),
        product(features.T, cosines),
    )


def arcface(sizes: Sizes, prototypes, features, labels):
    """Returns ArcFaceLoss as a function without arguments, to loss and gradients."""
    module = ArcFaceLoss(
        prototypes.shape[1],
        sizes.features,
        margin=float(np.degrees(MARGIN)),
        scale=SCALE,
    )
    module.W.data = torch.from_numpy(np.array(prototypes))
    inputs = torch.from_numpy(np.array(features)).requires_grad_()
    targets = torch.from_numpy(np.array(labels)).long()

    def run():
        inputs.grad = module.W.grad = None
        loss = module(inputs, targets)
        loss.backward()
        return loss.detach(), (inputs.grad, module.W.grad)

    return run


def against_arcface(
    sizes: Sizes, num_classes: int, repetitions: int
) -> Iterator[timing.Line]:
    """Compares the loss from features and prototypes with ArcFaceLoss."""
    keys = jax.random.split(jax.random.key(1), 3)
    features = jax.random.normal(keys[0], (sizes.batch, sizes.features))
    prototypes = jax.random.normal(keys[1], (sizes.features, num_classes))
    labels = jax.random.randint(keys[2], (sizes.batch,), 0, num_classes)
    arguments = features, prototypes, labels, jnp.full(num_classes, MARGIN)
    program = (
        jax.jit(jax.value_and_grad(from_features, (0, 1))).lower(*arguments).compile()
    )
    case = f"{num_classes:,} classes"
    theirs = arcface(sizes, prototypes, features, labels)
    (loss, gradients), (their_loss, their_gradients) = program(*arguments), theirs()
    timing.agree(f"CAMRI and ArcFaceLoss, {case}, loss", loss, their_loss, 1e-5)
    for name, ours, other in zip(
        ("features", "prototypes"), gradients, their_gradients, strict=True
    ):
        what = f"CAMRI and ArcFaceLoss, {case}, gradient by {name}"
        timing.agree(what, ours, other, 1e-4)
    cosines = jnp.ones((sizes.batch, num_classes))
    matmuls = jax.jit(three_matmuls).lower(features, prototypes, cosines).compile()
    taken = timing.seconds(
        {
            "theirs": theirs,
            "ours": lambda: jax.block_until_ready(program(*arguments)),
            "matmuls": lambda: jax.block_until_ready(
                matmuls(features, prototypes, cosines)
            ),
        },
        repetitions,
    )
    what = "from features: time, ArcFaceLoss / ours"
    yield timing.compared(what, case, taken["theirs"], taken["ours"], ">= 3")
    what = "from features: time, ours / its three matmuls"
    yield timing.compared(what, case, taken["ours"], taken["matmuls"])
    what = "from features: time, ArcFaceLoss / our three matmuls"
    yield timing.compared(what, case, taken["theirs"], taken["matmuls"])
    yield timing.counted(
        "from features: temporary memory, ours / one copy of the logits",
        case,
        timing.temporary_mebibytes(program),
        cosines.nbytes / 2**20,
        "MiB",
    )


def main(argv: Sequence[str] | None = None) -> None:
    arguments = reporting.begin(__doc__, argv)
    sizes = QUICK if arguments.quick else FULL
    lines = []
    for compare, classes, work in (
        (against_optax, sizes.from_cosines, 10_000_000),
        (against_arcface, sizes.from_features, 2_000_000),
    ):
        for num_classes in classes:
            most = work // (10 * num_classes)
            lines += compare(sizes, num_classes, max(3, min(sizes.repetitions, most)))
    packages = ("optax", "pytorch-metric-learning", "torch")
    reporting.report("bench_losses", lines, arguments.output, packages)


if __name__ == "__main__":
    reporting.run(main)
