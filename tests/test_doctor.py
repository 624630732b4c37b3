"""The doctor finds this machine healthy, and each kind of damage that is done to it."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import jaxlib.version
import numpy as np
import pytest

from camri_jax import _arrays, doctor, losses
from camri_jax.cli import backend
from camri_jax.cli.main import main
from camri_jax.training import lift, network


@pytest.fixture
def findings(monkeypatch):
    """What one check finds on one device, with two losses in place of all."""
    own = {name: doctor._LOSSES[name] for name in ("camri", "focal")}
    monkeypatch.setattr(doctor, "_LOSSES", own)

    def run(check):
        monkeypatch.setattr(doctor, "_CHECKS", (check,))
        found = doctor.examine(jax.devices()[:1])
        return {each.check: each for each in found}

    return run


def wrong(found):
    return {name for name, each in found.items() if not each.agrees}


def test_every_device_is_checked_and_agrees():
    found = doctor.examine()
    assert [each for each in found if not each.agrees] == []
    checks = {each.check for each in found}
    assert {"sums over rows", "camri", "gradient of camri"} <= checks
    assert {"weights after it", "logits of an evaluation"} <= checks
    pairs = [(each.check, each.device) for each in found]
    assert len({*pairs}) == len(pairs) == len(checks) * jax.device_count()
    # A check that is right to the last digit would compare a thing with itself.
    assert all(each.error > 0 for each in found)


def test_a_loss_or_a_slope_off_by_a_thousandth_is_found(findings, monkeypatch):
    camri, focal = losses.camri, losses.focal
    monkeypatch.setattr(losses, "camri", lambda *a, **o: 1.001 * camri(*a, **o))

    def steep(*arguments, **options):
        value = focal(*arguments, **options)
        return value + 0.001 * (value - jax.lax.stop_gradient(value))

    monkeypatch.setattr(losses, "focal", steep)
    found = findings(doctor._check_losses)
    assert wrong(found) == {"camri", "gradient of camri", "gradient of focal"}


def few_digits(array):
    """Operands as a GPU's TF32 takes them: 10 bits behind the first."""
    return jax.lax.reduce_precision(array, exponent_bits=8, mantissa_bits=10)


def test_products_of_few_digits_are_found(findings, monkeypatch):
    placed = lift.placement(lift.trial_mesh(jax.devices()[:1]))
    convolution = network._CONVOLUTIONS[placed.convolution]

    def rounded(images, kernel, *arguments, **options):
        return convolution(
            few_digits(images), few_digits(kernel), *arguments, **options
        )

    monkeypatch.setitem(network._CONVOLUTIONS, placed.convolution, rounded)
    found = findings(doctor._check_training)
    assert wrong(found) >= {"weights after it", "logits of an evaluation"}


def test_the_device_that_computes_wrongly_is_named():
    mesh = lift.trial_mesh(jax.devices()[:2])
    for bad in (1.1, np.nan, np.inf):
        found = doctor._findings("x", np.array([[1.0], [bad]]), np.ones(1), 1e-5, mesh)
        assert [(each.device, each.agrees) for each in found] == [
            ("cpu:0", True),
            ("cpu:1", False),
        ]


WITHOUT_CURE = """
from camri_jax import doctor
from camri_jax.training import lift
doctor._CHECKS = (doctor._check_sums,)
(found,) = doctor.examine()
print(found.agrees, len(doctor.known_faults()))
"""


@pytest.mark.skipif(
    jaxlib.version.__version__ not in _arrays.WRONG_SUMS_VERSIONS,
    reason="this jaxlib adds rightly",
)
def test_the_wrong_sums_of_a_jaxlib_are_found_and_named():
    environment = os.environ | {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-W", "ignore", "-c", WITHOUT_CURE]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.split() == ["False", "1"]


@pytest.mark.parametrize(("error", "status"), [(1e-7, 0), (1e-2, 1), (jnp.nan, 1)])
def test_the_command_tells_and_ends_by_what_was_found(
    error, status, monkeypatch, capsys
):
    found = [doctor.Finding("camri", "cpu:0", error, 1e-5)]
    monkeypatch.setattr(doctor, "examine", lambda: found)
    monkeypatch.setattr(backend, "set_up_jax", lambda: None)
    monkeypatch.setenv("XLA_FLAGS", f"--a {_arrays.WRONG_SUMS_CURE}")
    assert main(["doctor"]) == status
    out = capsys.readouterr().out
    assert ("WRONG" in out) == bool(status)
    assert f"--a {_arrays.WRONG_SUMS_CURE}" in out
    for fact in (jax.__version__, jaxlib.version.__version__, "2 x cpu"):
        assert fact in out
