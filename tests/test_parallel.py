"""Laws of lifting: many trials are each trial alone, and devices do not talk."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from camri_jax.training import lift as parallel

COLLECTIVES = re.compile(
    r"all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter"
)


def quadratic(x, scale, shared):
    return {"value": scale * jnp.sum(x * shared), "twice": 2.0 * x}


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("num_devices", [1, 2])
def test_lifted_equals_a_loop(num_devices, together):
    mesh = parallel.trial_mesh(jax.devices()[:num_devices])
    x, scale = np.arange(12.0, dtype=np.float32).reshape(4, 3), np.ones(4, np.float32)
    shared = np.array([1.0, 2.0, 3.0], np.float32)
    lifted = parallel.lift(quadratic, mesh, (0, 0, None), together=together)
    result = lifted(*parallel.shard((x, scale), mesh), parallel.replicate(shared, mesh))
    for i in range(4):
        expected = quadratic(x[i], scale[i], shared)
        np.testing.assert_allclose(result["value"][i], expected["value"])
        np.testing.assert_allclose(result["twice"][i], expected["twice"])
    assert len(result["value"].sharding.device_set) == num_devices


@pytest.mark.parametrize("together", [True, False])
def test_two_devices_share_trials_without_talking(together):
    mesh = parallel.trial_mesh()
    assert mesh.size == 2
    lifted = parallel.lift(quadratic, mesh, (0, 0, None), together=together)
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((4, 3), (4,), (3,))]
    text = lifted.lower(*shapes).compile().as_text()
    assert not COLLECTIVES.search(text)


def test_one_after_another_a_trial_does_not_depend_on_how_many_there_are():
    # The sum of a product rounds as it is cut into vector operations.
    def steep(x, matrix):
        return jnp.tanh(x @ matrix).sum() / 3

    rng = np.random.default_rng(0)
    x, matrix = rng.normal(size=(4, 5, 99)), rng.normal(size=(99, 33))
    x, matrix = x.astype(np.float32), matrix.astype(np.float32)
    mesh = parallel.trial_mesh(jax.devices()[:1])
    lifted = parallel.lift(steep, mesh, (0, None), together=False)
    np.testing.assert_array_equal(lifted(x, matrix)[1:3], lifted(x[1:3], matrix))


def test_the_search_for_collectives_finds_one():
    mesh = parallel.trial_mesh()

    def with_sum(x):
        return x - jax.lax.pmean(x, parallel.TRIAL)

    lifted = parallel.lift(with_sum, mesh, (0,))
    text = lifted.lower(jax.ShapeDtypeStruct((4,), jnp.float32)).compile().as_text()
    assert COLLECTIVES.search(text)


def test_donated_arguments_are_taken():
    mesh = parallel.trial_mesh()
    add = parallel.lift(lambda x, y: x + y, mesh, (0, None), donate_argnums=(0,))
    x = parallel.shard(np.zeros(4, np.float32), mesh)
    add(x, parallel.replicate(np.float32(1), mesh))
    assert x.is_deleted()
