"""How many seeds a claim needs, from the spread of a pilot.

    camri power RESULTS
    camri power RESULTS --effect 0.02 --power 0.9

For each setting in RESULTS: the seeds at which a paired one-sided t-test against
cross-entropy would find a gain of recall, and those at which it would find that the
accuracy lost, if any, is less than the margin. Writes power.csv and power.md.
"""

import dataclasses
from collections.abc import Sequence

import pandas as pd

from camri_jax.cli import arguments as words
from camri_jax.cli import tables
from camri_jax.cli.arguments import JudgedArguments
from camri_jax.evidence import selection
from camri_jax.evidence.tables import power, power_sheet


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(JudgedArguments):
    """How many seeds a claim needs.

    Attributes:
      effect: Gain of recall to find; else the one observed.
      power: Chance of finding it.
      alpha: Level of the tests; for k settings at once, divide it by k.
    """

    effect: float | None = None
    power: float = 0.8
    alpha: float = 0.05


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    given = words.parse(Arguments, argv, __doc__, "power")
    found, output = words.read(given)
    names = ("effect", "accuracy_margin", "power", "alpha")
    asked = {name: getattr(given, name) for name in names}
    frames, sheets = [], []
    for choice in found.choices:
        name = found.name(choice)
        table = power(selection.trials(found, choice), **asked)
        frames.append(table.assign(important=name))
        sheets.append(power_sheet(table, name, **asked))
    tables.write(output, "power", pd.concat(frames, ignore_index=True), sheets)
