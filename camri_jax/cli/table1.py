"""Table I: which method finds the class, and at what accuracy.

    camri table1 RESULTS

The setting of each method is picked twice: by the paper's rule, on the test images that
are reported; and on held-out validation images. Every method stands there as trained
and with its threshold moved, with the differences to cross-entropy of the same seeds.
Writes table1.csv, with all numbers, and table1.md.
"""

from collections.abc import Sequence

import pandas as pd

from camri_jax.cli import arguments as words
from camri_jax.cli import tables
from camri_jax.cli.arguments import JudgedArguments
from camri_jax.cli.console import note
from camri_jax.evidence.tables import comparison, comparison_sheets, remarks


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    given = words.parse(JudgedArguments, argv, __doc__, "table1")
    found, output = words.read(given)
    margin = given.accuracy_margin
    frames, sheets = [], []
    for choice in found.choices:
        name = found.name(choice)
        table = comparison(found, choice, accuracy_margin=margin)
        for text in remarks(table, name):
            note(text)
        frames.append(table.assign(important_names=name))
        sheets += comparison_sheets(table, name, accuracy_margin=margin)
    tables.write(output, "table1", pd.concat(frames, ignore_index=True), sheets)
