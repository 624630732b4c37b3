"""Ask whether a promise is still kept on new labelled images.

    camri check tuned/folder_signs/model folder:labelled

Twice: by an exact test, for one look; and by a sequential one, for as many looks as
you like while images come. One image of each group counts. Exit status 1: the promise
is broken, looked at once; a job that looks each month reads the second verdict.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import tyro

from camri_jax.cli import arguments as words
from camri_jax.cli import backend
from camri_jax.cli.console import say
from camri_jax.cli.recalibrate import load_for
from camri_jax.takehome import check, load_model


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Put a promise to the test.

    Attributes:
      model: Directory of a model.
      images: Labelled images: folder:PATH or npz:FILE.
      recall: Recall to check; else the one that was promised.
      confidence: Chance that a kept promise is not called broken, for all its classes
        together.
      groups: Pattern to search for in the file names of folder:PATH; pictures of equal
        matches belong together. Else that by which the model's own were grouped.
    """

    model: tyro.conf.Positional[Path]
    images: tyro.conf.Positional[str]
    recall: float | None = None
    confidence: float = 0.95
    groups: str | None = None


def main(argv: Sequence[str]) -> int:
    """Runs the command."""
    given = words.parse(Arguments, argv, __doc__, "check")
    backend.set_up_jax()
    dataset = load_for(load_model(given.model), given.images, given.groups)
    found = check(
        given.model,
        dataset,
        given.recall,
        confidence=given.confidence,
    )
    say("\n".join(found.sentences))
    return 0 if found.holds else 1
