"""The wrong sums of one jaxlib on CPUs, their cure, and the warning without it."""

import os
import subprocess
import sys

import jaxlib.version
import pytest

from camri_jax import _arrays

AFFECTED = jaxlib.version.__version__ in _arrays.WRONG_SUMS_VERSIONS
only_affected = pytest.mark.skipif(not AFFECTED, reason="this jaxlib adds rightly")
REPRODUCER = """
import jax, jax.numpy as jnp
i = jnp.arange(32_769, dtype=jnp.float32)
rows = jnp.stack([i, 0 * i, 0 * i], axis=1)
eye = jnp.eye(3)
print(float(jax.jit(jax.vmap(lambda r: jnp.sum((eye @ r) ** 2)))(rows)[-1]))
"""
SUM_AND_WARNINGS = f"""
import warnings
from camri_jax import losses
{REPRODUCER}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2):
        losses.cross_entropy([0.0, 0.0], 1)
    jax.jit(losses.cross_entropy)([0.0, 0.0], 1)
print(sum("39103" in str(w.message) for w in caught))
"""


def printed(script):
    """Numbers that a new process prints, without any flag of XLA."""
    environment = os.environ | {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment
    )
    return [float(number) for number in done.stdout.split()]


@only_affected
def test_an_affected_jaxlib_adds_wrongly_and_warns_once_without_the_cure():
    # Once this fails for a version it should not stand among the affected.
    assert printed(SUM_AND_WARNINGS) == [1_065_369_600, 1]


def test_with_the_cure_it_adds_rightly_silently_and_an_import_changes_no_flag():
    script = f"""
import os
from camri_jax import _arrays, losses
assert os.environ["XLA_FLAGS"] == ""
_arrays.cure_wrong_sums()
assert not _arrays.wrong_sums()
{SUM_AND_WARNINGS}"""
    assert printed(script) == [32_768**2, 0]


@pytest.mark.parametrize(
    ("flags", "after"),
    [
        ("", _arrays.WRONG_SUMS_CURE),
        ("--xla_a=1", f"--xla_a=1 {_arrays.WRONG_SUMS_CURE}"),
        (f"{_arrays.WRONG_SUMS_CURE}-reduce --xla_a=1", None),
        (f"{_arrays.WRONG_SUMS_CURE}dot", None),
    ],
)
def test_the_cure_is_added_to_what_the_user_set(monkeypatch, flags, after):
    monkeypatch.setenv("XLA_FLAGS", flags)
    monkeypatch.setattr(_arrays, "_is_affected", lambda: True)
    _arrays.cure_wrong_sums()
    assert os.environ["XLA_FLAGS"] == (flags if after is None else after)
    assert _arrays.wrong_sums() == flags.endswith("dot")


def test_other_versions_are_left_alone(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(jaxlib.version, "__version__", "0.11.0")
    assert not _arrays.wrong_sums()
    _arrays.cure_wrong_sums()
    assert os.environ["XLA_FLAGS"] == ""
