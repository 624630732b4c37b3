"""Strict JAX for every test: no silent promotion, two devices, no silent warnings."""

import os
import tempfile

# The tests compile far longer than they run: optimizing costs them twice the time.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)

import hypothesis
import jax
import pytest

from camri_jax import _arrays

# The backend reads the flags when it starts, which is later.
_arrays.cure_wrong_sums()

# A failure must come from the commit, not from the day's examples. New ones are looked
# for with --hypothesis-profile=explore.
hypothesis.settings.register_profile("explore", deadline=None)
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")

# Programs that several tests compile are compiled once, and anew in every session.
_CACHE = tempfile.TemporaryDirectory(prefix="camri_jax_tests_")
jax.config.update("jax_compilation_cache_dir", _CACHE.name)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="module")
def promotion_as_optax_needs_it():
    """Adam divides a float by an integer count, which strict promotion refuses."""
    with jax.numpy_dtype_promotion("standard"):
        yield
