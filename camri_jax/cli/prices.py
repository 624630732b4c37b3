"""What recalls cost in false alarms and accuracy, and promises.

    camri prices RESULTS
    camri prices RESULTS --confidence 0.95

At each recall every threshold is moved alike, and a method is in the setting that was
cheapest there on validation images; without any, on test images. With a confidence,
thresholds are moved to where the calibration images certify the recall: the price of a
promise. Writes prices.csv, or promises.csv, with all numbers, the same as .md, and what
each trial pays as .parquet.
"""

import dataclasses
from collections.abc import Sequence

import pandas as pd

from camri_jax._files import UsageError, fraction, written_whole
from camri_jax.cli import arguments as words
from camri_jax.cli import tables
from camri_jax.cli.arguments import ResultsArguments
from camri_jax.cli.console import wrote
from camri_jax.evidence import curves, verdicts
from camri_jax.evidence.tables import prices_sheet


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(ResultsArguments):
    """What a sweep wrote, and which recalls.

    Attributes:
      recalls: Recalls to ask for.
      confidence: Of certificates by the calibration images; else thresholds are moved
        on the test images to where a recall is just reached.
    """

    recalls: tuple[float, ...] = curves.RECALLS
    confidence: float | None = None


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    given = words.parse(Arguments, argv, __doc__, "prices")
    if not given.recalls:
        raise UsageError("recalls must be one or more numbers, got none")
    for recall in given.recalls:
        fraction("recalls", recall)
    if given.confidence is not None:
        fraction("confidence", given.confidence)
    found, output = words.read(given)
    frames, trials, sheets = [], [], []
    for choice in found.choices:
        name = found.name(choice)
        prices = curves.cheapest(
            found, choice, given.recalls, confidence=given.confidence
        )
        if prices.empty:
            raise UsageError(
                f"{given.results} holds no logits, of which prices are made"
            )
        table = verdicts.price_differences(prices)
        trials.append(prices.assign(important=name))
        frames.append(table.assign(important=name))
        sheets.append(prices_sheet(table, name, confidence=given.confidence))
    kind = "prices" if given.confidence is None else "promises"
    path = output / f"{kind}.parquet"
    with written_whole(path) as unfinished:
        pd.concat(trials, ignore_index=True).to_parquet(unfinished, index=False)
    tables.write(output, kind, pd.concat(frames, ignore_index=True), sheets)
    wrote("trials", path)
