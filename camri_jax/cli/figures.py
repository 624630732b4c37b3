"""Draw prices, penalties, confusions and training curves.

    camri figures RESULTS
    camri figures RESULTS --pictures penalties confusions --format svg

RESULTS is a directory that a sweep wrote. price: what each recall costs as thresholds
are moved. penalties: the paper's Fig. 3, recall and accuracy against the penalty.
confusions: Fig. 4, what is taken for what. training: recall and accuracy after each
epoch. Each method is in the setting that was picked on validation images.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from camri_jax._files import UsageError
from camri_jax.cli import arguments as words
from camri_jax.cli.arguments import ResultsArguments
from camri_jax.cli.console import note, wrote
from camri_jax.evidence import figures, selection

Format = Literal["png", "svg"]
Picture = Literal["price", "penalties", "confusions", "training"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(ResultsArguments):
    """Draw what a sweep shows.

    Attributes:
      pictures: Which pictures are drawn.
      format: How they are written.
    """

    pictures: tuple[Picture, ...] = get_args(Picture)
    format: Format = "png"


def main(argv: Sequence[str]) -> int:
    """Runs the command."""
    given = words.parse(Arguments, argv, __doc__, "figures")
    if not given.pictures:
        raise UsageError(f"pictures must be some of {', '.join(get_args(Picture))}")
    found, output = words.read(given)
    written = 0
    for choice in found.choices:
        trials = selection.trials(found, choice)
        drawings = figures.drawings(found, choice, trials)
        for name in given.pictures:
            try:
                figure = drawings[name].draw()
            except UsageError as error:
                note(f"{name} of {found.name(choice)} cannot be drawn: {error}")
                continue
            save(figure, output / f"{name}{found.suffix(choice)}.{given.format}")
            written += 1
    return 0 if written else 1


def save(figure: Any, path: Path) -> None:
    """Writes a picture whole, and says so.

    Args:
      figure: of matplotlib.
      path: the file.
    """
    figures.save(figure, path)
    wrote("picture", path)
