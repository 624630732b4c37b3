"""Check in a few seconds that this machine computes rightly.

    camri doctor

Losses with their gradients, a training step and an evaluation are computed on each
device, and again by NumPy in float64. Versions, settings and devices are named, as a
bug report needs them. Exit status 1: something differs by more than rounding.
"""

import dataclasses
import time
from collections.abc import Sequence

import jax

from camri_jax import doctor
from camri_jax.cli import arguments as words
from camri_jax.cli import backend
from camri_jax.cli.console import note, say


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Check that this machine computes rightly."""


def main(argv: Sequence[str]) -> int:
    """Runs the command."""
    words.parse(Arguments, argv, __doc__, "doctor")
    backend.set_up_jax()
    start = time.perf_counter()
    for name, value in doctor.facts().items():
        say(f"{name:29} {value}")
    for text in doctor.known_faults():
        note(text)
    findings = doctor.examine()
    wrong = [finding for finding in findings if not finding.agrees]
    for each in wrong:
        say(
            f"WRONG     {each.check} on {each.device}: off by {each.error:.2g}, "
            f"allowed is {each.allowed:.0e}",
            "red",
        )
    seconds = time.perf_counter() - start
    count = f"{len(findings):,} checks on {jax.local_device_count()} device(s)"
    if wrong:
        say(
            f"{len(wrong):,} of {count} disagree with NumPy's float64: trust no result "
            "of this machine before that is mended"
        )
        return 1
    largest = max(each.error / each.allowed for each in findings)
    say(
        f"all {count} agree with NumPy's float64, within {largest:.0%} of what "
        f"rounding allows; {seconds:.1f} s"
    )
    return 0
