"""Compute a certificate again from its calibration scores.

    camri verify tuned/folder_signs/model

The network is not run. Exit status 0: the promise follows from the scores; 1: it does
not, or there is none.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import tyro

from camri_jax.cli import arguments as words
from camri_jax.cli.console import say
from camri_jax.takehome import verify


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Check a certificate.

    Attributes:
      model: Directory of a model.
    """

    model: tyro.conf.Positional[Path]


def main(argv: Sequence[str]) -> int:
    """Runs the command."""
    found = verify(words.parse(Arguments, argv, __doc__, "verify").model)
    say("\n".join(found.sentences))
    return 0 if found.holds else 1
