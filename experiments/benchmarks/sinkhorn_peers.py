"""Ours, OTT-JAX and POT solving the same batch of transport problems, and how well."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import timing

from camri_jax.sinkhorn import sinkhorn

timing.require("ott", "ot", "torch")
import torch  # noqa: E402
from ot.batch import solve_batch  # noqa: E402
from ott.geometry.geometry import Geometry  # noqa: E402
from ott.problems.linear.linear_problem import LinearProblem  # noqa: E402
from ott.solvers.linear.implicit_differentiation import ImplicitDiff  # noqa: E402
from ott.solvers.linear.sinkhorn import Sinkhorn  # noqa: E402

ERROR = 1e-4
"""The marginal error that every side must reach."""


class Problem(NamedTuple):
    """Pairs of histograms, the first as logits, and the cost that they share."""

    logits: jax.Array
    log_b: jax.Array
    cost: jax.Array
    epsilon: float


def make_problem(batch: int, classes: int) -> Problem:
    """Returns random histograms on random points in the unit square."""
    keys = jax.random.split(jax.random.key(0), 3)
    logits = jax.random.normal(keys[0], (batch, classes))
    log_b = jax.nn.log_softmax(jax.random.normal(keys[1], (batch, classes)))
    x, y = jax.random.uniform(keys[2], (2, classes))
    cost = jnp.hypot(x[:, None] - x[None, :], y[:, None] - y[None, :])
    return Problem(logits, log_b, cost, 0.1 * float(cost.max()))


def violation(problem: Problem, f: Any, g: Any) -> float:
    """Returns the largest L1 violation of both marginals together, in float64."""
    a, b, cost, f, g = (
        np.asarray(x, np.float64)
        for x in (
            jax.nn.log_softmax(problem.logits),
            problem.log_b,
            problem.cost,
            f,
            g,
        )
    )
    worst = 0.0
    for rows, columns, u, v in zip(np.exp(a), np.exp(b), f, g, strict=True):
        plan = np.exp((u[:, None] + v[None, :] - cost) / problem.epsilon)
        missing = np.abs(plan.sum(1) - rows).sum() + np.abs(plan.sum(0) - columns).sum()
        worst = max(worst, missing)
    return float(worst)


class Ours(NamedTuple):
    """Our solver, until its error is below a threshold."""

    threshold: float = ERROR

    def solve(self, problem: Problem, logits: jax.Array):
        """Returns potentials, the sum of the costs, and the number of iterations."""
        result = sinkhorn(
            jax.nn.log_softmax(logits),
            problem.log_b,
            problem.cost,
            epsilon=problem.epsilon,
            tolerance=self.threshold,
        )
        return result.f, result.g, result.cost.sum(), result.iterations


class Ott(NamedTuple):
    """OTT-JAX's solver under vmap, with one geometry for the batch.

    With `iterations` it runs exactly so many, without it stops by `threshold`. The
    gradient is "implicit" (its default, the envelope theorem for the cost),
    "linear system" (implicit differentiation of the potentials) or "unrolled".
    """

    log: bool
    threshold: float = ERROR
    every: int = 10
    iterations: int = 0
    gradient: str = "implicit"

    def solve(self, problem: Problem, logits: jax.Array):
        """Returns potentials and the sum of the costs."""
        number = self.iterations
        solver = Sinkhorn(
            lse_mode=self.log,
            threshold=0.0 if number else self.threshold,
            inner_iterations=self.every,
            min_iterations=number,
            max_iterations=number or 1000,
            implicit_diff=None if self.gradient == "unrolled" else ImplicitDiff(),
            use_danskin=self.gradient == "implicit",
        )
        geometry = Geometry(cost_matrix=problem.cost, epsilon=problem.epsilon)
        log_a = jax.nn.log_softmax(logits)
        a, b = jnp.exp(log_a), jnp.exp(problem.log_b)

        def of_pair(a: jax.Array, b: jax.Array):
            output = solver(LinearProblem(geometry, a, b))
            return output.f, output.g, output.reg_ot_cost

        f, g, costs = jax.vmap(of_pair)(a, b)
        # Its entropy is relative to the product of the marginals, ours is not.
        own = jnp.sum(a * log_a, 1) + jnp.sum(b * problem.log_b, 1) - 1
        return f, g, jnp.sum(jnp.asarray(costs) + problem.epsilon * own)


class Pot(NamedTuple):
    """POT's batched solver on PyTorch tensors, which checks its error every tenth time.

    With `iterations` it runs exactly so many, without it stops by `threshold`.
    """

    log: bool
    threshold: float = ERROR
    iterations: int = 0

    def ready(self, problem: Problem):
        """Returns the solver as a function without arguments."""
        histograms = jax.nn.softmax(problem.logits), jnp.exp(problem.log_b)
        a, b, cost = (
            torch.from_numpy(np.array(x)) for x in (*histograms, problem.cost)
        )
        return functools.partial(
            solve_batch,
            # It takes no shared cost.
            cost.expand(len(a), *cost.shape).contiguous(),
            problem.epsilon,
            a,
            b,
            max_iter=self.iterations or 1000,
            tol=0.0 if self.iterations else self.threshold,
            method="log_sinkhorn" if self.log else "sinkhorn",
            grad="detach",
        )


def solution(problem: Problem, side: Ours | Ott | Pot) -> tuple[Any, Any, Any]:
    """Returns a side's potentials and the sum of its costs."""
    if isinstance(side, Pot):
        result: Any = side.ready(problem)()
        u, v = (x if side.log else torch.log(x) for x in result.potentials)
        # Its entropy counts T log T, ours T (log T - 1).
        cost = result.value.sum() - problem.epsilon * len(problem.logits)
        return problem.epsilon * u, problem.epsilon * v, cost
    return jax.jit(functools.partial(side.solve, problem))(problem.logits)[:3]


def passes(problem: Problem, side: Ours | Ott | Pot) -> bool:
    """Tells whether a side's measured error is small enough."""
    return violation(problem, *solution(problem, side)[:2]) <= ERROR


def loosest(problem: Problem, side: Any) -> Any:
    """Returns the side at the loosest of some thresholds whose result passes."""
    for factor in (1.0, 0.98, 0.9, 0.8, 0.6, 0.4, 0.2, 0.1, 0.05):
        tried = side._replace(threshold=factor * ERROR)
        if passes(problem, tried):
            return tried
    raise timing.DisagreementError(
        f"{side}: no threshold from {ERROR} to its twentieth passes"
    )


def fewest(problem: Problem, side: Any, guess: int) -> Any:
    """Returns the side at the smallest number of iterations that passes."""
    number = guess
    while number > 1 and passes(problem, side._replace(iterations=number - 1)):
        number -= 1
    while not passes(problem, side._replace(iterations=number)):
        number += 1
        if number > 2 * guess:
            raise timing.DisagreementError(
                f"{side}: {number} iterations do not give {ERROR}"
            )
    return side._replace(iterations=number)


def peers(problem: Problem, guess: int) -> dict[str, Ott | Pot]:
    """Returns the settings of the peers, all of which pass, by name."""
    sides: dict[str, Ott | Pot] = {}
    for log, form in ((True, "log"), (False, "kernel")):
        for every in (1, 10):
            name = f"OTT {form}, checks every {every}"
            sides[name] = loosest(problem, Ott(log, every=every))
        sides[f"POT {form}, checks every 10"] = loosest(problem, Pot(log))
        # Checking every 1 is then a plain scan, the leanest form to differentiate.
        for name, side in (("OTT", Ott(log, every=1)), ("POT", Pot(log))):
            known = fewest(problem, side, guess)
            sides[f"{name} {form}, {known.iterations} iterations known"] = known
    return sides
