"""Table II: how far features spread about their prototype.

    camri table2 RESULTS

Each method in the setting that was picked on validation images; without any, on test
images. Writes table2.csv, with all numbers, and table2.md.
"""

from collections.abc import Sequence

import pandas as pd

from camri_jax._files import UsageError
from camri_jax.cli import arguments as words
from camri_jax.cli import tables
from camri_jax.cli.arguments import ResultsArguments
from camri_jax.cli.console import note
from camri_jax.evidence import selection
from camri_jax.evidence.tables import angles, angles_sheet


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    given = words.parse(ResultsArguments, argv, __doc__, "table2")
    found, output = words.read(given)
    frames, sheets = [], []
    for choice in found.choices:
        name = found.name(choice)
        settings = selection.settings(selection.trials(found, choice))
        selected = selection.select(settings, on=selection.held_out(settings))
        table, missing = angles(found, choice, selected)
        for text in missing:
            note(f"{name}: {text}")
        if len(table):
            frames.append(table.assign(important=name))
            sheets.append(angles_sheet(table, name))
    if not sheets:
        raise UsageError(
            f"{given.results} holds no rows of the columns of Table II: cross_entropy, "
            "weighted_cross_entropy of weight 4, l2_softmax, arcface, camri"
        )
    tables.write(output, "table2", pd.concat(frames, ignore_index=True), sheets)
