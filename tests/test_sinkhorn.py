"""Laws of optimal transport, from ratios of cost to epsilon of 0.01 to 10,000."""

import functools

import chex
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import given, settings

from camri_jax import losses
from camri_jax._files import UsageError
from camri_jax.sinkhorn import _kernel_of, sinkhorn, transport_plan

BATCH, ROWS, COLUMNS = 3, 4, 5
RATIOS = [0.01, 1.0, 10.0, 59.0, 61.0, 300.0]
examples = settings(max_examples=20, deadline=None)

solve = jax.jit(sinkhorn, static_argnames=("max_iterations", "tolerance"))
plan_of = jax.jit(transport_plan)


def problem(seed, *, spread=2.0, rows=ROWS, columns=COLUMNS, zeros=False):
    """Logarithms of two batches of histograms, and costs from 0 to 1."""
    rng = np.random.default_rng(seed)
    marginals = []
    for size in (rows, columns):
        logits = spread * rng.normal(size=(BATCH, size))
        if zeros:
            logits[rng.uniform(size=logits.shape) < 0.4] = -np.inf
            logits[:, 0] = 0.0
        masses = np.exp(logits - logits.max(axis=1, keepdims=True))
        with np.errstate(divide="ignore"):
            marginals.append(np.log(masses / masses.sum(axis=1, keepdims=True)))
    costs = rng.uniform(size=(rows, columns))
    costs = (costs - costs.min()) / (costs.max() - costs.min())
    return *(x.astype(np.float32) for x in marginals), costs.astype(np.float32)


def expect_cost(got, a, b, costs, epsilon):
    """Compares a cost with the loops', as far as those have come."""
    a, b = a / a.sum(), b / b.sum()
    plan = reference.sinkhorn_plan(a, b, costs, epsilon)
    missing = np.abs(plan.sum(axis=1) - a).sum() + np.abs(plan.sum(axis=0) - b).sum()
    assert missing < 1e-2
    expected = reference.transport_cost(plan, costs, epsilon)
    # What is missing could move at a cost of 1.
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-6 + missing)


def violation(plan, log_a, log_b):
    plan = np.asarray(plan, np.float64)
    by_row = np.abs(plan.sum(axis=2) - np.exp(log_a)).sum(axis=1)
    by_column = np.abs(plan.sum(axis=1) - np.exp(log_b)).sum(axis=1)
    return max(by_row.max(), by_column.max())


@examples
@given(seed=st.integers(0, 10**6), ratio=st.sampled_from(RATIOS), zeros=st.booleans())
def test_plan_has_its_marginals(seed, ratio, zeros):
    log_a, log_b, costs = problem(seed, zeros=zeros)
    epsilon = np.float32(1 / ratio)
    result = solve(log_a, log_b, costs, epsilon=epsilon, max_iterations=20_000)
    chex.assert_tree_all_finite(result)
    plan = plan_of(result, costs, epsilon=epsilon)
    assert np.all(np.asarray(plan)[np.isneginf(log_a)] == 0)
    # What is reported is what is there, but for the rounding of the exponents.
    rounding = 2e-6 + 1e-6 * ratio
    assert violation(plan, log_a, log_b) <= result.error + rounding
    assert result.error <= 1e-5 or result.iterations == 20_000


@examples
@given(seed=st.integers(0, 10**6), ratio=st.sampled_from(RATIOS), zeros=st.booleans())
def test_cost_is_the_formula(seed, ratio, zeros):
    log_a, log_b, costs = problem(seed, zeros=zeros)
    epsilon = np.float32(1 / ratio)
    result = solve(log_a, log_b, costs, epsilon=epsilon, max_iterations=20_000)
    for n in range(BATCH):
        a, b = np.exp(log_a[n].astype(float)), np.exp(log_b[n].astype(float))
        expect_cost(result.cost[n], a, b, costs, epsilon)


@pytest.mark.parametrize("ratio", [1000.0, 10_000.0])
@pytest.mark.parametrize("max_iterations", [10, 1000])
def test_error_tells_where_iterations_end_first(ratio, max_iterations):
    log_a, log_b, costs = problem(0, rows=20, columns=30, zeros=True)
    epsilon = np.float32(1 / ratio)
    result = solve(log_a, log_b, costs, epsilon=epsilon, max_iterations=max_iterations)
    chex.assert_tree_all_finite(result)
    assert result.iterations == max_iterations
    assert 1e-4 < result.error < 2
    actual = violation(plan_of(result, costs, epsilon=epsilon), log_a, log_b)
    np.testing.assert_allclose(result.error, actual, rtol=1e-2)


def test_more_iterations_make_the_error_smaller():
    log_a, log_b, costs = problem(0, rows=20, columns=30)
    few, many = (
        solve(log_a, log_b, costs, epsilon=np.float32(1e-3), max_iterations=limit)
        for limit in (10, 1000)
    )
    assert few.error > 2 * many.error


def test_a_start_at_a_larger_epsilon_saves_iterations():
    log_a, log_b, costs = problem(0, rows=20, columns=30)
    options = {"epsilon": np.float32(1e-4), "max_iterations": 1000}
    # From nothing the first thousand iterations leave an error of about 0.4.
    assert solve(log_a, log_b, costs, **options).error < 0.1


@examples
@given(seed=st.integers(0, 10**6), ratio=st.sampled_from(RATIOS))
def test_transposition_is_a_symmetry(seed, ratio):
    log_a, log_b, costs = problem(seed, rows=COLUMNS)
    options = {"epsilon": np.float32(1 / ratio), "max_iterations": 20_000}
    there = solve(log_a, log_b, costs, **options)
    back = solve(log_b, log_a, costs.T, **options)
    np.testing.assert_allclose(there.cost, back.cost, rtol=1e-5, atol=1e-5)
    if ratio > 30:
        # Where steps have become small long before the end, plans with right marginals
        # and equal costs can still differ in their entries.
        return
    plan = plan_of(there, costs, epsilon=options["epsilon"])
    turned = plan_of(back, costs.T, epsilon=options["epsilon"])
    np.testing.assert_allclose(plan, np.swapaxes(turned, 1, 2), atol=2e-4)


@examples
@given(seed=st.integers(0, 10**6), shift=st.floats(-5, 5, width=32))
def test_cost_added_to_every_move_is_paid_once(seed, shift):
    log_a, log_b, costs = problem(seed)
    options = {"epsilon": np.float32(0.1)}
    plain = solve(log_a, log_b, costs, **options).cost
    shifted = solve(log_a, log_b, costs + np.float32(shift), **options).cost
    np.testing.assert_allclose(shifted, plain + shift, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ratio", [10.0, 59.0, 1000.0])
def test_masses_of_many_sizes(ratio):
    # Down to e^-60, beside which the others must not be lost.
    log_a, log_b, costs = problem(3, spread=20.0)
    epsilon = np.float32(1 / ratio)
    result = solve(log_a, log_b, costs, epsilon=epsilon, max_iterations=50_000)
    for n in range(BATCH):
        a, b = np.exp(log_a[n].astype(float)), np.exp(log_b[n].astype(float))
        expect_cost(result.cost[n], a, b, costs, epsilon)


@pytest.mark.parametrize("forbidding", [1e3, 1e5, 1e9, 1e30])
def test_a_huge_cost_forbids_a_move_and_leaves_the_rest_alone(forbidding):
    log_a, log_b, costs = problem(5)
    wide, wider = costs.copy(), costs.copy()
    wide[0, 2], wider[0, 2] = 30.0, forbidding
    options = {"epsilon": np.float32(0.1), "max_iterations": 20_000}
    expected = solve(log_a, log_b, wide, **options)
    got = solve(log_a, log_b, wider, **options)
    assert got.error <= 1e-5
    np.testing.assert_allclose(got.cost, expected.cost, rtol=1e-3)
    assert np.all(plan_of(got, wider, epsilon=0.1)[:, 0, 2] == 0)


def test_both_forms_of_the_half_step_agree():
    # A cost that no plan can use widens the range and so forces the exact form.
    log_a, log_b, costs = problem(4)
    log_a[:, 0] = -np.inf
    log_a -= np.log(np.exp(log_a).sum(axis=1, keepdims=True))
    wide = costs.copy()
    wide[0, 0] = 100.0
    epsilon = np.float32(0.1)
    assert _kernel_of(costs, epsilon).exact
    assert not _kernel_of(wide, epsilon).exact
    narrow, wide = (
        solve(log_a, log_b, costs, epsilon=epsilon, tolerance=1e-6)
        for costs in (costs, wide)
    )
    np.testing.assert_allclose(wide.cost, narrow.cost, rtol=1e-5)
    # f is known but for a constant.
    f_wide, f_narrow = (
        f - f.mean(axis=1, keepdims=True) for f in (wide.f[:, 1:], narrow.f[:, 1:])
    )
    np.testing.assert_allclose(f_wide, f_narrow, atol=1e-4)


# Gradients.


def total_on_line(t, point, line):
    """Weighted costs of normalised histograms, t along a line from a point."""
    moved = jax.tree.map(lambda x, dx: x + t * dx, point, line)
    result = sinkhorn(
        jax.nn.log_softmax(moved["a"]),
        jax.nn.log_softmax(moved["b"]),
        moved["costs"],
        epsilon=moved["epsilon"],
        tolerance=1e-12,
        max_iterations=20_000,
    )
    return jnp.sum(result.cost * jnp.arange(1.0, BATCH + 1))


value_on_line = jax.jit(total_on_line)
slope_on_line = jax.jit(jax.grad(total_on_line))
bend_on_line = jax.jit(jax.hessian(total_on_line))


@pytest.mark.parametrize("ratio", [1.0, 20.0, 100.0])
@pytest.mark.parametrize("zeros", [False, True])
def test_gradients_are_finite_differences(ratio, zeros):
    log_a, log_b, costs = problem(0, zeros=zeros)
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        point = {"a": log_a, "b": log_b, "costs": costs, "epsilon": 1 / ratio}
        point = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), point)
        still = jax.tree.map(jnp.zeros_like, point)
        line = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), point)
        line["epsilon"] = line["epsilon"] / ratio
        h = 1e-5
        for moved in [line, *(still | {name: line[name]} for name in point)]:
            ahead, behind = (value_on_line(t, point, moved) for t in (h, -h))
            slope = slope_on_line(0.0, point, moved)
            np.testing.assert_allclose(slope, (ahead - behind) / (2 * h), rtol=1e-5)


@pytest.mark.parametrize("ratio", [1.0, 200.0])
def test_gradients_are_the_potentials_and_the_plan(ratio):
    log_a, log_b, costs = problem(0, zeros=True)
    epsilon = np.float32(1 / ratio)
    result = solve(log_a, log_b, costs, epsilon=epsilon)

    def total(log_a, log_b, costs, epsilon):
        return jnp.sum(sinkhorn(log_a, log_b, costs, epsilon=epsilon).cost)

    slope = jax.jit(jax.grad(total, argnums=(0, 1, 2, 3)))
    gradients = slope(log_a, log_b, costs, epsilon)
    chex.assert_tree_all_finite(gradients)
    np.testing.assert_allclose(gradients[0], np.exp(log_a) * result.f, rtol=1e-5)
    np.testing.assert_allclose(gradients[1], np.exp(log_b) * result.g, rtol=1e-5)
    plans = np.asarray(plan_of(result, costs, epsilon=epsilon), np.float64)
    np.testing.assert_allclose(gradients[2], plans.sum(axis=0), rtol=2e-3, atol=1e-6)
    entropy = np.sum(plans * (np.log(np.maximum(plans, 1e-300)) - 1))
    np.testing.assert_allclose(gradients[3], entropy, rtol=1e-3)


@pytest.mark.parametrize("ratio", [1.0, 20.0, 100.0])
def test_the_hessian_is_finite_differences_of_the_gradient(ratio):
    log_a, log_b, costs = problem(0)
    with jax.enable_x64(True):
        point = {"a": log_a, "b": log_b, "costs": costs, "epsilon": 1 / ratio}
        point = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), point)
        rng = np.random.default_rng(1)
        line = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), point)
        line["epsilon"] = line["epsilon"] / ratio
        bend = bend_on_line(0.0, point, line)
        ahead, behind = (slope_on_line(t, point, line) for t in (1e-5, -1e-5))
        np.testing.assert_allclose(bend, (ahead - behind) / 2e-5, rtol=1e-4)


def test_forward_mode_alone_raises_rather_than_being_wrong():
    logits = np.zeros((2, 3), np.float32)

    def loss(logits):
        targets = jax.nn.softmax(logits)
        return losses.wasserstein(logits, targets, cost_matrix=np.eye(3), epsilon=1.0)

    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(loss, (logits,), (logits,))


def test_reverse_over_reverse_raises_rather_than_being_wrong():
    log_a, log_b, costs = problem(0)

    def total(log_a):
        return jnp.sum(sinkhorn(log_a, log_b, costs, epsilon=1.0).cost)

    with pytest.raises(ValueError, match="while_loop"):
        jax.make_jaxpr(jax.grad(lambda x: jnp.sum(jax.grad(total)(x))))(log_a)


# The loss.


def jitted_with_slope(loss):
    """Returns `(losses, slope by logits)` of a loss, in one program."""

    def total(logits, *targets, **options):
        values = loss(logits, *targets, **options)
        return jnp.sum(values), values

    slope = jax.grad(total, has_aux=True)
    return jax.jit(lambda *scores, **options: slope(*scores, **options)[::-1])


by_targets = jitted_with_slope(losses.wasserstein)
by_labels = jitted_with_slope(losses.wasserstein_with_integer_labels)
wasserstein = jax.jit(functools.partial(losses.wasserstein, max_iterations=20_000))


@pytest.mark.parametrize("epsilon", [1e-4, 1e-2, 0.1, 1.0, 100.0])
def test_one_hot_targets_are_integer_labels(epsilon):
    rng = np.random.default_rng(0)
    logits = (4 * rng.normal(size=(6, 6))).astype(np.float32)
    costs = rng.uniform(size=(6, 6)).astype(np.float32)
    labels = np.arange(6)
    targets = np.eye(6, dtype=np.float32)
    options = {"cost_matrix": costs, "epsilon": np.float32(epsilon)}
    values, slopes = by_targets(logits, targets, **options)
    expected, expected_slopes = by_labels(logits, labels, **options)
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    atol = 1e-5 * max(1, epsilon)
    np.testing.assert_allclose(slopes, expected_slopes, rtol=1e-5, atol=atol)


@examples
@given(seed=st.integers(0, 10**6), ratio=st.sampled_from([0.01, 1.0, 10.0, 100.0]))
def test_wasserstein_is_the_formula(seed, ratio):
    rng = np.random.default_rng(seed)
    logits = (2 * rng.normal(size=(BATCH, ROWS))).astype(np.float32)
    targets = rng.dirichlet(np.ones(ROWS), BATCH).astype(np.float32)
    targets[0] = [0, 0.25, 0, 0.75]
    costs = rng.uniform(size=(ROWS, ROWS)).astype(np.float32)
    options = {"cost_matrix": costs, "epsilon": np.float32(1 / ratio)}
    got = wasserstein(logits, targets, **options)
    for n in range(BATCH):
        h = np.array([float(share) for share in reference.shares(logits[n])])
        expect_cost(got[n], h, targets[n].astype(float), costs, options["epsilon"])


@pytest.mark.parametrize("cost", [1e3, 1e9, 1e30])
def test_one_hot_targets_of_huge_costs_are_integer_labels(cost):
    logits, labels = np.array([[0.0, 1, -2]] * 3, np.float32), np.arange(3)
    costs = np.ones((3, 3), np.float32)
    costs[0, 2] = cost
    options = {"cost_matrix": costs, "epsilon": 0.1}
    values, _ = by_targets(logits, np.eye(3, dtype=np.float32), **options)
    expected, _ = by_labels(logits, labels, **options)
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_a_loss_that_did_not_converge_says_so():
    logits, targets = np.zeros((1, 3), np.float32), np.float32([[0.5, 0.3, 0.2]])
    costs = np.random.default_rng(0).uniform(size=(3, 3))
    options = {"cost_matrix": costs, "epsilon": 0.01, "max_iterations": 2}
    with pytest.warns(RuntimeWarning, match="ended after 2 rounds with an error of"):
        losses.wasserstein(logits, targets, **options)
    # Inside jit nobody can look; the solver's error can be asked for.
    assert solve(np.log(targets), np.log(targets), **options).error > 1e-5
    losses.wasserstein(logits, targets, **options | {"tolerance": 2.0})


@pytest.mark.parametrize(
    "dtype", [jnp.float16, pytest.param(jnp.float32, marks=pytest.mark.slow)]
)
def test_finite_for_large_inputs_in_every_dtype(dtype):
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.choice([-1e4, -1, 0, 1, 1e4], (6, 6)), dtype)
    targets = jnp.asarray(rng.dirichlet(np.ones(6), 6), dtype)
    costs = jnp.asarray(rng.choice([0, 1, 1e4], (6, 6)), dtype)

    def total(logits, targets, costs, epsilon):
        values = losses.wasserstein(
            logits, targets, cost_matrix=costs, epsilon=epsilon, max_iterations=20
        )
        assert values.dtype == jnp.float32
        return jnp.sum(values)

    slope = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2, 3)))
    for epsilon in (0.1, 1e3):
        got = slope(logits, targets, costs, epsilon)
        chex.assert_tree_all_finite(got)
        assert got[1][0].dtype == dtype


@pytest.mark.slow
@pytest.mark.parametrize("epsilon", [1e-3, 1.0, 1e3])
def test_a_hundred_thousand_pairs_are_finite_with_finite_gradients(epsilon):
    rng = np.random.default_rng(0)
    logits = rng.choice([-1, 1], (100_000, 5)) * 10.0 ** rng.uniform(
        -50, 30, (100_000, 5)
    )
    logits[rng.uniform(size=logits.shape) < 0.1] = -np.inf
    logits[:, 0] = np.where(np.isneginf(logits[:, 0]), 0, logits[:, 0])
    targets = rng.dirichlet(np.full(5, 0.1), 100_000)
    costs = rng.choice([0, 1e-30, 1, 1e4], (5, 5)).astype(np.float32)

    def total(logits, targets, costs, epsilon):
        return jnp.sum(
            losses.wasserstein(
                logits, targets, cost_matrix=costs, epsilon=epsilon, max_iterations=20
            )
        )

    slope = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2, 3)))
    got = slope(np.float32(logits), np.float32(targets), costs, np.float32(epsilon))
    chex.assert_tree_all_finite(got)


# Transformations.


def test_leading_axes_are_batches():
    log_a, log_b, costs = problem(0)
    whole = solve(log_a, log_b, costs, epsilon=np.float32(0.1))
    folded = solve(log_a[:, None], log_b[:, None], costs, epsilon=np.float32(0.1))
    single = solve(log_a[0], log_b[0], costs, epsilon=np.float32(0.1))
    np.testing.assert_allclose(folded.f[:, 0], whole.f, rtol=1e-5)
    np.testing.assert_allclose(folded.cost[:, 0], whole.cost, rtol=1e-5)
    assert single.cost.shape == ()
    np.testing.assert_allclose(single.cost, whole.cost[0], rtol=1e-5)
    plan = jax.eval_shape(transport_plan, single, costs, epsilon=0.1)
    assert plan.shape == (ROWS, COLUMNS)


def test_an_empty_batch_has_no_losses_and_no_slopes():
    logits = np.zeros((0, 3), np.float32)
    options = {"cost_matrix": np.ones((3, 3), np.float32), "epsilon": 0.5}
    values, slopes = by_targets(logits, logits, **options)
    assert values.shape == (0,)
    assert slopes.shape == (0, 3)


def test_a_grid_of_costs_and_epsilons_is_one_program():
    log_a, log_b, costs = problem(0)
    chex.clear_trace_counter()

    def total(costs, epsilon):
        return jnp.sum(sinkhorn(log_a, log_b, costs, epsilon=epsilon).cost)

    slope = jax.value_and_grad(total)
    one = jax.jit(chex.assert_max_traces(lambda *trial: slope(*trial), n=1))
    grid = jnp.stack([costs, 2 * costs, costs**2]), jnp.array([1.0, 0.02, 0.01])
    together = jax.jit(jax.vmap(slope))(*grid)
    for trial in range(3):
        alone = one(grid[0][trial], grid[1][trial])
        chex.assert_trees_all_close(
            jax.tree.map(lambda x, trial=trial: x[trial], together), alone, rtol=2e-4
        )


def test_an_example_of_nan_disturbs_no_other():
    log_a, log_b, costs = problem(0)
    clean = solve(log_a, log_b, costs, epsilon=0.02)
    log_a[1] = np.nan
    spoilt = solve(log_a, log_b, costs, epsilon=0.02)
    assert np.isnan(spoilt.cost[1])
    assert np.isnan(spoilt.error)
    assert spoilt.iterations <= clean.iterations
    np.testing.assert_allclose(spoilt.cost[::2], clean.cost[::2], rtol=1e-5)


def test_totals_that_differ_are_the_error():
    log_a, log_b, costs = problem(0)
    result = solve(log_a, log_b + np.float32(np.log(2.0)), costs, epsilon=0.1)
    chex.assert_tree_all_finite(result)
    np.testing.assert_allclose(result.error, 1.0, rtol=1e-4)
    plan = plan_of(result, costs, epsilon=0.1)
    np.testing.assert_allclose(plan.sum(axis=2), np.exp(log_a), rtol=1e-5)


def test_memory_is_of_batch_times_classes():
    batch, classes = 512, 100
    marginal = jax.ShapeDtypeStruct((batch, classes), jnp.float32)
    costs = jax.ShapeDtypeStruct((classes, classes), jnp.float32)

    def total(log_a, log_b, costs):
        return jnp.sum(sinkhorn(log_a, log_b, costs, epsilon=0.1).cost)

    slope = jax.jit(jax.grad(total, argnums=(0, 2)))
    compiled = slope.lower(marginal, marginal, costs).compile()
    whole = batch * classes * classes * 4
    assert compiled.memory_analysis().temp_size_in_bytes < whole


# Messages.

RIGHT = {
    "log_a": np.zeros((2, 3), np.float32),
    "log_b": np.zeros((2, 4), np.float32),
    "cost_matrix": np.zeros((3, 4), np.float32),
    "epsilon": 1.0,
}


@pytest.mark.parametrize(
    ("argument", "value", "error", "message"),
    [
        ("log_a", np.zeros((2, 3), int), TypeError, "must be floating, got int"),
        ("log_b", np.zeros((3, 4)), UsageError, r"must have shape \(2, 4\)"),
        ("cost_matrix", np.zeros((4, 3)), UsageError, r"must have shape \(3, 4\)"),
        ("cost_matrix", np.zeros((3, 4), bool), TypeError, "must be real numbers"),
        ("cost_matrix", np.full((3, 4), np.inf), UsageError, "must be finite, got inf"),
        ("cost_matrix", {0: 1.0}, TypeError, "must be a number or an array of numbers"),
        ("epsilon", 0.0, UsageError, "must be above 0, got 0.0"),
        ("epsilon", np.ones(2), UsageError, r"must have shape \(\), got \(2,\)"),
        ("max_iterations", 0, UsageError, "must be at least 1, got 0"),
        (
            "max_iterations",
            1.5,
            UsageError,
            "must be a whole number of .* 1, got 1.5",
        ),
        (
            "max_iterations",
            True,
            UsageError,
            "must be a whole number of .* got True",
        ),
        ("tolerance", -1.0, UsageError, "must be not below 0, got -1.0"),
    ],
)
def test_wrong_arguments_are_named(argument, value, error, message):
    with pytest.raises(error, match=f"^{argument} {message}"):
        sinkhorn(**RIGHT | {argument: value})
    if argument in ("cost_matrix", "epsilon"):
        options = {name: RIGHT[name] for name in ("cost_matrix", "epsilon")}
        with pytest.raises(error, match=f"^{argument} {message}"):
            transport_plan(sinkhorn(**RIGHT), **options | {argument: value})


@pytest.mark.parametrize("number", [3, np.int64(3), np.uint8(3), jnp.int32(3)])
def test_iterations_are_a_number_of_any_make(number):
    arguments = RIGHT | {"cost_matrix": np.eye(3, 4), "epsilon": 1e-3}
    options = {"max_iterations": number, "tolerance": np.float32(0)}
    assert sinkhorn(**arguments, **options).iterations == 3
