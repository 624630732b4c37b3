"""The two loops of Sinkhorn's iteration: on scalings by matmul, on their logarithms."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class State(NamedTuple):
    """Scalings of the rows, of the columns, the columns' next, and what is missing."""

    u: jax.Array
    v: jax.Array
    next_v: jax.Array
    error: jax.Array  # [batch]
    iterations: jax.Array


class Kernel(NamedTuple):
    """`exp(-C / epsilon)` with its rows and columns brought to a maximum of 1."""

    values: jax.Array
    row_shift: jax.Array
    column_shift: jax.Array
    epsilon: jax.Array
    exact: jax.Array  # whether epsilon is the one asked for


def kernel_of(cost_matrix: jax.Array, epsilon: jax.Array) -> Kernel:
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
    return Kernel(jnp.exp(-rest / used), rows, columns, used, safe)


def _alternate(
    to_u: Callable[[jax.Array], jax.Array],
    to_v: Callable[[jax.Array], jax.Array],
    violation: Callable[[jax.Array, jax.Array], jax.Array],
    state: State,
    enough: jax.Array | float,
    limit: jax.Array | int,
) -> State:
    """Adjusts rows and columns in turn until every error is small enough."""

    def unfinished(state: State) -> jax.Array:
        # NaN is finished: it must not keep, nor stop, the others of the batch.
        return (state.iterations < limit) & jnp.any(state.error > enough)

    def adjust(state: State) -> State:
        v = state.next_v
        u = to_u(v)
        next_v = to_v(u)
        return State(u, v, next_v, violation(v, next_v), state.iterations + 1)

    return jax.lax.while_loop(unfinished, adjust, state)


def iterate(
    log_a: jax.Array,
    log_b: jax.Array,
    cost_matrix: jax.Array,
    epsilon: jax.Array,
    max_iterations: int,
    tolerance: float,
) -> State:
    """Returns epsilon times log u and log v, for marginals that add to 1."""
    kernel = kernel_of(cost_matrix, epsilon)
    state = _by_matmul(log_a, log_b, kernel, max_iterations, tolerance)
    # Only a loop that starts unfinished runs, so the exact form costs nothing where the
    # matmul was enough; under vmap a cond would run both.
    state = state._replace(error=jnp.where(kernel.exact, state.error, jnp.inf))

    def to_u(v: jax.Array) -> jax.Array:
        return _soft_minimum(v + epsilon * log_b, cost_matrix, epsilon)

    def to_v(u: jax.Array) -> jax.Array:
        return _soft_minimum(u + epsilon * log_a, cost_matrix.T, epsilon)

    def violation(v: jax.Array, next_v: jax.Array) -> jax.Array:
        return jnp.sum(
            jnp.exp(log_b) * jnp.abs(jnp.expm1((v - next_v) / epsilon)), axis=1
        )

    return _alternate(to_u, to_v, violation, state, tolerance, max_iterations)


def _soft_minimum(
    potentials: jax.Array, cost_matrix: jax.Array, epsilon: jax.Array
) -> jax.Array:
    """Returns -epsilon log sum_j exp((potentials_j - C_ij) / epsilon) `[batch, n]`."""

    def of_row(costs: jax.Array) -> jax.Array:
        return jax.nn.logsumexp((potentials - costs[None, :]) / epsilon, axis=1)

    return -epsilon * map_rows(of_row, cost_matrix, potentials.size).T


def map_rows(of_row: Callable[[Any], Any], rows: Any, num_terms: int) -> Any:
    """Maps over rows, as many at once as keep `num_terms` for each within a MiB."""
    return jax.lax.map(of_row, rows, batch_size=max(1, 2**18 // num_terms))


def _by_matmul(
    log_a: jax.Array,
    log_b: jax.Array,
    kernel: Kernel,
    max_iterations: int,
    tolerance: float,
) -> State:
    """Iterates at the kernel's epsilon, from the start; see `iterate`."""
    a, b = jnp.exp(log_a), jnp.exp(log_b)

    def to_u(v: jax.Array) -> jax.Array:
        return 1 / matmul(b * v, kernel.values.T)

    def to_v(u: jax.Array) -> jax.Array:
        return 1 / matmul(a * u, kernel.values)

    def violation(v: jax.Array, next_v: jax.Array) -> jax.Array:
        return jnp.sum(b * jnp.abs(v / next_v - 1), axis=1)

    ones = jnp.ones_like(b)
    error = jnp.full_like(b[:, 0], jnp.inf)
    state = State(jnp.ones_like(a), ones, ones, error, jnp.int32(0))
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


def matmul(left: jax.Array, right: jax.Array) -> jax.Array:
    """Returns the product with every digit of the type."""
    # Faster, coarser products would be the error that the iteration cannot get below.
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)
