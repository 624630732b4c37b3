r"""Sinkhorn's iteration for a batch of marginals that share one cost matrix.

The plan is sought as `T = a u K v b` with `K = exp(-C / epsilon)`, rows scaled by
`a u`, columns by `v b`. Then a marginal of zero is no special case, and while the range
of `C / epsilon` is below 60 all of u, v and K stay within float32: a half-step is one
matmul for the whole batch, with memory of batch x classes. Past that the same
iteration runs on logarithms, each half-step an exact log-sum-exp.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.typing import ArrayLike

from camri_jax import _arrays
from camri_jax._files import whole_number

# Logarithm of no mass, and its potential: exp is 0, and sums and products are finite.
_NOTHING = -1e20
_NO_POTENTIAL = -1e37
# exp of it is 0 in every type, and times it 0 too.
_VANISHED = -1e4


class SinkhornResult(NamedTuple):
    """What Sinkhorn's iteration found.

    Attributes:
      f: potentials of the rows `[..., n]`, in units of cost.
      g: potentials of the columns `[..., m]`, in units of cost.
      cost: `<T, C> + epsilon * sum T (log T - 1)` `[...]`; only this has a gradient.
      error: largest L1 violation of a marginal in the batch.
      iterations: how many times rows and columns were adjusted, int32.
    """

    f: jax.Array
    g: jax.Array
    cost: jax.Array
    error: jax.Array
    iterations: jax.Array


def sinkhorn(
    log_a: ArrayLike,
    log_b: ArrayLike,
    cost_matrix: ArrayLike,
    *,
    epsilon: ArrayLike,
    max_iterations: int = 1000,
    tolerance: float = 1e-5,
) -> SinkhornResult:
    r"""Entropic optimal transport between two histograms, for a batch of pairs.

    .. math::
       \min_{T \ge 0} \langle T, C \rangle
       + \epsilon \sum_{i,j} T_{i,j} (\log T_{i,j} - 1)
       \quad \text{with} \quad T 1 = a, \; T^T 1 = b

    Zeros in a and b (-inf in `log_a`, `log_b`) are allowed. Rows are met exactly, the
    columns to `tolerance`; if `max_iterations` ends first, `error` tells, as it does
    where a and b differ in total. Iterations grow with (range of C) / epsilon, and
    float32 leaves an error of about 1e-7 times that ratio, where C is the cost of what
    moves: one of 1e30 may forbid a move. Values and slopes are finite at any ratio, but
    mean nothing where no digit is left: `error` tells.

    The gradient of `cost` is that of the optimum (envelope theorem): `a f`, `b g`, `T`
    and `sum T (log T - 1)` with respect to `log_a`, `log_b`, `cost_matrix` and
    `epsilon`. f is determined only up to a constant, so it is meaningful only along
    changes that keep the totals of a and b equal: a log-softmax makes no others. It is
    for reverse mode only: `jax.jvp` of what is returned raises TypeError. Second
    derivatives go forward through the iteration: `jax.hessian` is right where the error
    is small; reverse over reverse raises ValueError.

    Under `vmap` over costs or epsilons both loops run until the slowest member of the
    batch has converged: do not batch ratios above 60 with ratios below.

    Args:
      log_a: `[..., n]`, logarithms of the row totals.
      log_b: `[..., m]`, logarithms of the column totals.
      cost_matrix: `[n, m]`, finite; may be traced.
      epsilon: number above 0, in units of cost; may be traced.
      max_iterations: at least 1; static.
      tolerance: largest L1 violation of a marginal that is good enough; static.

    Returns:
      A `SinkhornResult`, float32 or better.

    Raises:
      TypeError: an argument is not of real numbers.
      UsageError: a shape or a known value is out of what is allowed.

    Reference:
      Eq. 4-6 of Nishiyama et al., CAMRI Loss, 2022; Cuturi, Sinkhorn Distances, 2013.

    >>> half = jnp.log(jnp.array([0.5, 0.5]))
    >>> result = sinkhorn(half, half, 1 - jnp.eye(2), epsilon=0.1)
    >>> transport_plan(result, 1 - jnp.eye(2), epsilon=0.1).round(4)
    Array([[0.5, 0. ],
           [0. , 0.5]], dtype=float32)
    """
    log_a, log_b = _arrays.floating("log_a", log_a), _arrays.floating("log_b", log_b)
    _arrays.same_shape("log_b", log_b, (*log_a.shape[:-1], log_b.shape[-1]))
    dtype = _arrays.compute_dtype(log_a, log_b)
    shape = (log_a.shape[-1], log_b.shape[-1])
    cost_matrix = _arrays.real("cost_matrix", cost_matrix, dtype, _arrays.finite, shape)
    epsilon = _arrays.real("epsilon", epsilon, dtype, _arrays.positive)
    max_iterations = whole_number("max_iterations", max_iterations, 1)
    _arrays.not_negative("tolerance", tolerance)
    result = _solve(
        log_a.astype(dtype).reshape(-1, shape[0]),
        log_b.astype(dtype).reshape(-1, shape[1]),
        cost_matrix,
        epsilon,
        max_iterations,
        float(tolerance),
    )
    return result._replace(
        f=result.f.reshape(log_a.shape),
        g=result.g.reshape(log_b.shape),
        cost=result.cost.reshape(log_a.shape[:-1]),
    )


def transport_plan(
    result: SinkhornResult, cost_matrix: ArrayLike, *, epsilon: ArrayLike
) -> jax.Array:
    r"""The plan that belongs to the potentials.

    .. math:: T_{i,j} = \exp((f_i + g_j - C_{i,j}) / \epsilon)

    Args:
      result: what `sinkhorn` returned.
      cost_matrix: `[n, m]`, the same.
      epsilon: the same.

    Returns:
      Plans `[..., n, m]`.

    Raises:
      UsageError: the shapes do not fit, or a known value is out of what is allowed.

    Reference:
      Eq. 6 of Nishiyama et al., CAMRI Loss, 2022.

    >>> log_a = jnp.log(jnp.array([0.25, 0.75]))
    >>> result = sinkhorn(log_a, jnp.array([0.0]), jnp.zeros((2, 1)), epsilon=1.0)
    >>> transport_plan(result, jnp.zeros((2, 1)), epsilon=1.0).round(4)
    Array([[0.25],
           [0.75]], dtype=float32)
    """
    f, g = jnp.asarray(result.f), jnp.asarray(result.g)
    shape = (f.shape[-1], g.shape[-1])
    cost_matrix = _arrays.real(
        "cost_matrix", cost_matrix, f.dtype, _arrays.finite, shape
    )
    epsilon = _arrays.real("epsilon", epsilon, f.dtype, _arrays.positive)
    total = f[..., :, None] + g[..., None, :]
    costs = jnp.broadcast_to(cost_matrix, total.shape)
    return jnp.exp((total - costs) / epsilon)


def _iterated(log_a, log_b, cost_matrix, epsilon, max_iterations, tolerance):
    """Returns the `SinkhornResult` for `[batch, n]` and `[batch, m]`."""
    # Totals that differ in the last digit would drive u and v apart for ever.
    log_total = jax.nn.logsumexp(log_a, axis=1, keepdims=True)
    log_other = jax.nn.logsumexp(log_b, axis=1, keepdims=True)
    log_rows, log_columns = log_a - log_total, log_b - log_other
    state = _iterate(
        log_rows, log_columns, cost_matrix, epsilon, max_iterations, tolerance
    )
    f = _potential(state.u, log_a, epsilon)
    g = _potential(state.v, log_columns, epsilon)
    a, total = jnp.exp(log_a), jnp.exp(log_total)
    moved = jnp.sum(a * f, axis=1) + jnp.sum(total * jnp.exp(log_columns) * g, axis=1)
    missing = jnp.abs(total - jnp.exp(log_other))[:, 0]
    # From 0, the error of an empty batch.
    error = jnp.max(jnp.maximum(total[:, 0] * state.error, missing), initial=0)
    cost = moved - epsilon * total[:, 0]
    return SinkhornResult(f, g, cost, error, state.iterations)


def _potential(scaling: jax.Array, log_mass: jax.Array, epsilon: jax.Array):
    potential = scaling + epsilon * jnp.maximum(log_mass, _NOTHING)
    return jnp.maximum(potential, _NO_POTENTIAL)


def _optimum_forward(log_a, log_b, cost_matrix, epsilon, max_iterations, tolerance):
    inputs = log_a, log_b, cost_matrix, epsilon
    # Not _optimum: a second derivative would then take f and g for constants.
    result = _iterated(*inputs, max_iterations, tolerance)
    return result, (inputs, result)


def _optimum_backward(max_iterations, tolerance, residuals, cotangent):
    """The dual's partial derivatives: at its maximum those by f and g are 0."""
    (log_a, log_b, cost_matrix, epsilon), result = residuals
    weights = cotangent.cost
    plan, entropy = _weighted_plan(result, log_a, cost_matrix, epsilon, weights)
    return (
        weights[:, None] * jnp.exp(log_a) * result.f,
        weights[:, None] * jnp.exp(log_b) * result.g,
        plan,
        entropy,
    )


_optimum = jax.custom_vjp(_iterated, nondiff_argnums=(4, 5))
_optimum.defvjp(_optimum_forward, _optimum_backward)
_solve = jax.jit(_optimum, static_argnums=(4, 5))


def _weighted_plan(result, log_a, cost_matrix, epsilon, weights):
    """Returns the weighted sums of the plans `[n, m]` and of `sum T (log T - 1)`."""
    f, g, kernel = result.f, result.g, _kernel_of(cost_matrix, epsilon)

    def by_matmul() -> tuple[jax.Array, jax.Array]:
        rows = jnp.exp((f - kernel.row_shift[None, :]) / epsilon)
        columns = jnp.exp((g - kernel.column_shift[None, :]) / epsilon)
        over_batch = _arrays.replicated_like(weights)
        plan = _matmul((weights[:, None] * rows).T, columns, over_batch) * kernel.values
        entropies = jnp.sum(weights * result.cost) - jnp.sum(plan * cost_matrix)
        return plan, entropies / epsilon

    def by_sum() -> tuple[jax.Array, jax.Array]:
        def of_row(row: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
            f_of_row, log_mass, costs = row
            log_plan = (f_of_row[:, None] + g - costs[None, :]) / epsilon
            # No move is more than its row has, whatever digits are left.
            log_plan = jnp.minimum(log_plan, log_mass[:, None])
            log_plan = jnp.maximum(log_plan, _VANISHED)
            plan = weights[:, None] * jnp.exp(log_plan)
            return jnp.sum(plan, axis=0), jnp.sum(plan * (log_plan - 1))

        plan, entropies = _map_rows(of_row, (f.T, log_a.T, cost_matrix), g.size)
        return plan, jnp.sum(entropies)

    return jax.lax.cond(kernel.exact, by_matmul, by_sum)


# The two loops: on scalings by matmul, and on their logarithms.


class _State(NamedTuple):
    """Scalings of the rows, of the columns, the columns' next, and what is missing."""

    u: jax.Array
    v: jax.Array
    next_v: jax.Array
    error: jax.Array  # [batch]
    iterations: jax.Array


class _Kernel(NamedTuple):
    """`exp(-C / epsilon)` with its rows and columns brought to a maximum of 1."""

    values: jax.Array
    row_shift: jax.Array
    column_shift: jax.Array
    epsilon: jax.Array
    exact: jax.Array  # whether epsilon is the one asked for


def _kernel_of(cost_matrix: jax.Array, epsilon: jax.Array) -> _Kernel:
    """Returns the kernel at epsilon, or at the smallest that the type has room for."""
    rows = jnp.min(cost_matrix, axis=1)
    rest = cost_matrix - rows[:, None]
    columns = jnp.min(rest, axis=0)
    rest = rest - columns[None, :]
    # u and v span this range twice, and small masses times K must not vanish from a
    # sum: two thirds of the exponents of the type, 59 in float32, leave room for both.
    widest = -0.68 * jnp.log(jnp.finfo(rest.dtype).tiny)
    smallest = jnp.max(rest) / widest
    safe = epsilon >= smallest
    used = jnp.where(safe, epsilon, smallest)
    return _Kernel(jnp.exp(-rest / used), rows, columns, used, safe)


def _alternate(
    to_u: Callable[[jax.Array], jax.Array],
    to_v: Callable[[jax.Array], jax.Array],
    violation: Callable[[jax.Array, jax.Array], jax.Array],
    state: _State,
    enough: jax.Array | float,
    limit: jax.Array | int,
) -> _State:
    """Adjusts rows and columns in turn until every error is small enough."""

    def unfinished(state: _State) -> jax.Array:
        # NaN is finished: it must not keep, nor stop, the others of the batch.
        return (state.iterations < limit) & jnp.any(state.error > enough)

    def adjust(state: _State) -> _State:
        v = state.next_v
        u = to_u(v)
        next_v = to_v(u)
        return _State(u, v, next_v, violation(v, next_v), state.iterations + 1)

    return jax.lax.while_loop(unfinished, adjust, state)


def _iterate(
    log_a: jax.Array,
    log_b: jax.Array,
    cost_matrix: jax.Array,
    epsilon: jax.Array,
    max_iterations: int,
    tolerance: float,
) -> _State:
    """Returns epsilon times log u and log v, for marginals that add to 1."""
    kernel = _kernel_of(cost_matrix, epsilon)
    state = _by_matmul(log_a, log_b, kernel, max_iterations, tolerance)
    # A start found at a far larger epsilon has lost the digits that count at this one:
    # costs of 1e9 that forbid a move.
    near = kernel.epsilon <= 1e4 * epsilon
    state = jax.tree.map(lambda x: jnp.where(near, x, jnp.zeros_like(x)), state)
    # Only a loop that starts unfinished runs, so the exact form costs nothing where the
    # matmul was enough; under vmap a cond would run both.
    state = state._replace(error=jnp.where(kernel.exact, state.error, jnp.inf))

    def to_u(v: jax.Array) -> jax.Array:
        return _soft_minimum(v + epsilon * log_b, cost_matrix, epsilon)

    def to_v(u: jax.Array) -> jax.Array:
        return _soft_minimum(u + epsilon * log_a, cost_matrix.T, epsilon)

    def violation(v: jax.Array, next_v: jax.Array) -> jax.Array:
        # Two histograms are at most 2 apart, whatever digits are left: 80 is as good
        # as infinity, which times a b of 0 is NaN.
        ratio = jnp.expm1(jnp.minimum((v - next_v) / epsilon, 80))
        off = jnp.exp(log_b) * jnp.abs(ratio)
        return jnp.minimum(2, jnp.sum(jnp.where(log_b > -jnp.inf, off, 0), axis=1))

    return _alternate(to_u, to_v, violation, state, tolerance, max_iterations)


def _soft_minimum(
    potentials: jax.Array, cost_matrix: jax.Array, epsilon: jax.Array
) -> jax.Array:
    """Returns -epsilon log sum_j exp((potentials_j - C_ij) / epsilon) `[batch, n]`."""

    def of_row(costs: jax.Array) -> jax.Array:
        left = costs[None, :] - potentials
        least = jax.lax.stop_gradient(jnp.min(left, axis=1, keepdims=True))
        # Before it is divided: epsilon may be too small for what is left.
        nothing = -_VANISHED * epsilon
        more = jnp.where(left - least < nothing, left - least, nothing)
        total = jnp.sum(jnp.exp(-more / epsilon), axis=1)
        return least[:, 0] - epsilon * jnp.log(total)

    return _map_rows(of_row, cost_matrix, potentials.size).T


def _map_rows(of_row: Callable[[Any], Any], rows: Any, num_terms: int) -> Any:
    """Maps over rows, as many at once as keep `num_terms` for each within a MiB."""
    # An empty batch has no terms.
    return jax.lax.map(of_row, rows, batch_size=max(1, 2**18 // max(1, num_terms)))


def _by_matmul(
    log_a: jax.Array,
    log_b: jax.Array,
    kernel: _Kernel,
    max_iterations: int,
    tolerance: float,
) -> _State:
    """Iterates at the kernel's epsilon, from the start; see `_iterate`."""
    a, b = jnp.exp(log_a), jnp.exp(log_b)

    def to_u(v: jax.Array) -> jax.Array:
        return 1 / _matmul(b * v, kernel.values.T)

    def to_v(u: jax.Array) -> jax.Array:
        return 1 / _matmul(a * u, kernel.values)

    def violation(v: jax.Array, next_v: jax.Array) -> jax.Array:
        return jnp.sum(b * jnp.abs(v / next_v - 1), axis=1)

    ones = jnp.ones_like(b)
    error = jnp.full_like(b[:, 0], jnp.inf)
    state = _State(jnp.ones_like(a), ones, ones, error, jnp.int32(0))
    # A larger epsilon than asked for only finds a start: half the way will do.
    enough = jnp.where(kernel.exact, tolerance, math.sqrt(tolerance))
    limit = jnp.where(kernel.exact, max_iterations, max_iterations // 2)
    state = _alternate(to_u, to_v, violation, state, enough, limit)

    def in_cost(scaling: jax.Array, shift: jax.Array) -> jax.Array:
        return kernel.epsilon * jnp.log(scaling) + shift[None, :]

    return state._replace(
        u=in_cost(state.u, kernel.row_shift),
        v=in_cost(state.v, kernel.column_shift),
        next_v=in_cost(state.next_v, kernel.column_shift),
    )


def _matmul(
    left: jax.Array, right: jax.Array, sharding: NamedSharding | None = None
) -> jax.Array:
    """Returns the product with every digit of the type."""
    # Faster, coarser products would be the error that the iteration cannot get below.
    highest = jax.lax.Precision.HIGHEST
    return jnp.matmul(left, right, precision=highest, out_sharding=sharding)
