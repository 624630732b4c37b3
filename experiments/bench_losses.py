"""Time the losses against optax's cross-entropy on the same logits, in one run.

    python experiments/bench_losses.py [--quick]

Forward and gradient of the mean over a batch of 1,024, scale 16. The peer is
`optax.softmax_cross_entropy_with_integer_labels(scale * cosines)`; before timing, CAMRI
without margins must agree with it. Sides alternate; the table holds ratios of medians.
Temporary memory is in copies of the logits. Two minutes on two CPU cores.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from timing import median_seconds, report

from camri_jax import losses

BATCH = 1024
PEER = "optax cross-entropy"
LOSSES = {
    PEER: lambda cosines, labels, margins, scale: (
        optax.softmax_cross_entropy_with_integer_labels(scale * cosines, labels)
    ),
    "cross_entropy": lambda cosines, labels, margins, scale: losses.cross_entropy(
        scale * cosines, labels
    ),
    "l2_softmax": lambda cosines, labels, margins, scale: losses.l2_softmax(
        cosines, labels, scale=scale
    ),
    "camri": lambda cosines, labels, margins, scale: losses.camri(
        cosines, labels, margins=margins, scale=scale
    ),
}


def measure(num_classes: int, repetitions: int) -> list[dict[str, object]]:
    key = jax.random.key(0)
    cosines = jax.random.uniform(key, (BATCH, num_classes), minval=-1.0)
    labels = jax.random.randint(key, (BATCH,), 0, num_classes)
    arguments = cosines, labels, jnp.full(num_classes, 0.2), jnp.float32(16.0)
    plain = cosines, labels, jnp.zeros(num_classes), jnp.float32(16.0)
    np.testing.assert_allclose(
        LOSSES["camri"](*plain), LOSSES[PEER](*plain), rtol=1e-5, atol=1e-5
    )
    programs = {
        name: jax.jit(jax.value_and_grad(lambda *a, f=function: f(*a).mean()))
        .lower(*arguments)
        .compile()
        for name, function in LOSSES.items()
    }
    sides = {
        name: (lambda program=program: jax.block_until_ready(program(*arguments)))
        for name, program in programs.items()
    }
    medians = median_seconds(sides, repetitions)
    lines = []
    for name, program in programs.items():
        memory = program.memory_analysis()
        assert memory is not None, "CPU, GPU and TPU all have this analysis"
        lines.append(
            {
                "classes": num_classes,
                "loss": name,
                "ms": 1e3 * medians[name],
                "to optax": medians[name] / medians[PEER],
                "temporary memory": memory.temp_size_in_bytes / cosines.nbytes,
            }
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the losses against optax.")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--output", type=Path, help="write the table as CSV")
    arguments = parser.parse_args()
    lines = []
    for num_classes in (10, 43, 100, 1_000, 10_000, 100_000):
        most = 20 if arguments.quick else 300
        repetitions = max(5, min(most, 30_000_000 // (BATCH * num_classes)))
        lines += measure(num_classes, repetitions)
    report(lines, arguments.output)


if __name__ == "__main__":
    main()
