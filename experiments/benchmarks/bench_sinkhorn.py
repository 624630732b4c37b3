"""Time Sinkhorn's iteration for a batch against OTT-JAX and POT, to one error.

    python experiments/benchmarks/bench_sinkhorn.py [--quick] [--output DIR]

512 pairs of histograms on 100 points share a cost, epsilon is a tenth of the largest
cost. Every side's potentials are measured by one function, in float64: the largest L1
violation of both marginals in the batch, at most 1e-4. OTT-JAX and POT run as a user
runs them, until their own error is small enough, with the loosest threshold whose
result passes; and also for the fewest iterations that pass, which a user does not know
beforehand. Each is given its log and its kernel form. Then 64 pairs on 1,000 and
10,000 points against the matmuls that the iteration itself makes. Five minutes on two
CPU cores, and 3 GB.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import reporting
import sinkhorn_peers as peers
import timing


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    batch: int = 512
    classes: int = 100
    large: tuple[tuple[int, int], ...] = ((64, 1_000), (64, 10_000))
    repetitions: int = 9
    repetitions_slow: int = 3


FULL = Sizes()
QUICK = Sizes(batch=64, classes=50, large=((64, 1_000),), repetitions=3)
FASTER, MEMORY = "time, peer / ours", "temporary memory, peer / ours"
MATMULS = "time, ours / as many matmuls"


def against_peers(sizes: Sizes) -> Iterator[timing.Line]:
    """Compares the batch of the issue with every setting of the peers."""
    problem = peers.make_problem(sizes.batch, sizes.classes)
    ours = peers.loosest(problem, peers.Ours())
    solve = jax.jit(functools.partial(ours.solve, problem))
    f, g, cost, iterations = solve(problem.logits)
    error = peers.violation(problem, f, g)
    stop = f"threshold {ours.threshold:.2g}"
    print(f"ours: {stop}, {iterations} iterations, error {error:.3g}")
    own = compiled(problem, ours)
    for name, side in peers.peers(problem, int(iterations)).items():
        f, g, their_cost = peers.solution(problem, side)
        stop = side.iterations or f"threshold {side.threshold:.2g}"
        print(f"{name}: {stop}, error {peers.violation(problem, f, g):.3g}")
        # Where marginals are met to 1e-4, costs are to about as much.
        timing.agree(f"{name}, cost", their_cost, cost, 1e-3)
        if isinstance(side, peers.Pot):
            theirs, mine = side.ready(problem), ready(own["forward"], problem)
            yield timed(f"forward: {name}", mine, theirs, ">= 20", sizes.repetitions)
        else:
            yield from against_ott(problem, own, name, side, sizes)


def compiled(problem, side) -> dict[str, jax.stages.Compiled]:
    """Compiles forward, and forward with the gradient by the logits."""

    def forward(logits):
        return side.solve(problem, logits)[:3]

    def cost(logits):
        return side.solve(problem, logits)[2]

    return {
        "forward": jax.jit(forward).lower(problem.logits).compile(),
        "gradient": jax.jit(jax.value_and_grad(cost)).lower(problem.logits).compile(),
    }


def against_ott(problem, own, name: str, side, sizes: Sizes) -> Iterator[timing.Line]:
    theirs = compiled(problem, side)
    others = {"forward": theirs["forward"], "gradient, implicit": theirs["gradient"]}
    if side.every == 1:
        for kind in ("linear system", "unrolled"):
            other = compiled(problem, side._replace(gradient=kind))["gradient"]
            others[f"gradient, {kind}"] = other
    expected = own["gradient"](problem.logits)[1]
    for kind, other in others.items():
        case, mine = f"{kind}: {name}", own[kind.split(",")[0]]
        if kind != "forward":
            timing.agree(case, other(problem.logits)[1], expected, 2e-3)
        runs = ready(mine, problem), ready(other, problem)
        target = ">= 100" if kind == "gradient, unrolled" else ">= 20"
        slow = kind in ("gradient, linear system", "gradient, unrolled")
        repetitions = sizes.repetitions_slow if slow else sizes.repetitions
        yield timed(case, *runs, target, repetitions)
        used = timing.temporary_mebibytes(other), timing.temporary_mebibytes(mine)
        yield timing.counted(MEMORY, case, *used, "MiB", ">= 20")


def ready(program, problem):
    return lambda: jax.block_until_ready(program(problem.logits))


def timed(case: str, ours, theirs, target: str, repetitions: int) -> timing.Line:
    taken = timing.seconds({"theirs": theirs, "ours": ours}, repetitions)
    return timing.compared(FASTER, case, taken["theirs"], taken["ours"], target)


def against_matmuls(batch: int, classes: int, repetitions: int) -> timing.Line:
    """Compares the solver with a loop of its matmuls and nothing else."""
    problem = peers.make_problem(batch, classes)
    # The cost is an argument: as a constant the compiler would take minutes over it.
    ours = peers.Ours(0.9 * peers.ERROR)
    solve = jax.jit(
        lambda logits, cost: ours.solve(problem._replace(cost=cost), logits)
    )
    f, g, _, iterations = solve(problem.logits, problem.cost)
    few = problem._replace(logits=problem.logits[:2], log_b=problem.log_b[:2])
    error = peers.violation(few, f[:2], g[:2])
    print(f"ours at {classes:,}: {iterations} iterations, error of 2 pairs {error:.3g}")
    if error > peers.ERROR:
        raise timing.DisagreementError(
            f"ours: measured error {error:.3g}, above {peers.ERROR}"
        )
    kernel = jnp.exp(-problem.cost / problem.epsilon)
    # Of norm near 1, so that products neither overflow nor vanish.
    kernel = kernel / jnp.max(kernel.sum(0))

    @jax.jit
    def matmuls(vectors, kernel):
        def pair(_, vectors):
            return product(product(vectors, kernel), kernel.T)

        return jax.lax.fori_loop(0, iterations, pair, vectors)

    vectors = jnp.ones((batch, classes))
    sides = {
        "ours": lambda: jax.block_until_ready(solve(problem.logits, problem.cost)),
        "matmuls": lambda: jax.block_until_ready(matmuls(vectors, kernel)),
    }
    taken = timing.seconds(sides, repetitions)
    case = f"{batch} x {classes:,}, {2 * int(iterations)} half-steps"
    return timing.compared(MATMULS, case, taken["ours"], taken["matmuls"], "<= 2")


def product(left: jax.Array, right: jax.Array) -> jax.Array:
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)


def main(argv: Sequence[str] | None = None) -> None:
    arguments = reporting.begin(__doc__, argv)
    sizes = QUICK if arguments.quick else FULL
    lines = list(against_peers(sizes))
    for batch, classes in sizes.large:
        repetitions = sizes.repetitions_slow if classes > 1_000 else sizes.repetitions
        lines.append(against_matmuls(batch, classes, repetitions))
    packages = ("ott-jax", "POT", "torch")
    reporting.report("bench_sinkhorn", lines, arguments.output, packages)


if __name__ == "__main__":
    reporting.run(main)
