"""Write one page that holds everything: report.html, which opens without a network.

    python experiments/report.py RESULTS

RESULTS is a directory that experiments/sweep.py wrote. The page has a verdict on each
method in words, Table I, Table II, what seeds a claim needs, the pictures, the
settings, and the commands that made the rows.
"""

import dataclasses
import datetime
import importlib.metadata
import shlex
import sys
from collections.abc import Callable, Sequence

import pandas as pd
import power
import table1
import table2
import tyro
from rows import Arguments, choices, load, notes, run, wrote
from sheets import Sheet

from camri_jax._files import written_whole
from camri_jax.evidence import figures, report, verdicts
from camri_jax.evidence import selection as analysis
from camri_jax.evidence.selection import BASELINE, trained

VERSIONS = ("camri-jax", "itables", "matplotlib", "scipy", "statsmodels")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportArguments(Arguments):
    """Write one page that holds everything.

    Attributes:
      margin: Loss of accuracy that counts as none.
    """

    margin: float = verdicts.MARGIN


def main(argv: Sequence[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    arguments = tyro.cli(ReportArguments, args=argv, description=__doc__)
    rows, output = load(arguments)
    by_choice = rows.groupby(choices(rows), sort=False)
    page = report.page(
        f"CAMRI and its rivals on {rows['dataset'].iloc[0]}",
        [section(group, str(choice), arguments) for choice, group in by_choice],
        notes=notes(rows),
        facts=report.settings(rows),
        grid=report.grid(rows),
        origins=[*report.origins(rows), this_page(argv)],
    )
    with written_whole(output / "report.html") as path:
        path.write_text(page, encoding="utf-8")
    wrote(output / "report.html")


def this_page(argv: Sequence[str]) -> report.Origin:
    """Returns what made the page itself."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    versions = [f"{name} {importlib.metadata.version(name)}" for name in VERSIONS]
    return report.Origin(
        shlex.join(["python", "experiments/report.py", *argv]),
        {"made": now, "versions": ", ".join(versions)},
    )


def section(
    rows: pd.DataFrame, important: str, arguments: ReportArguments
) -> report.Section:
    """Returns all there is on one choice of important classes.

    Args:
      rows: of that choice.
      important: its name.
      arguments: of this script.
    """
    table = table1.table1(rows, arguments.margin)
    chosen = table[table["selection"] == table["selection"].iloc[0]]
    return report.Section(
        f"Important class: {important}",
        findings(chosen, arguments.margin),
        grounds(table, arguments.margin),
        [*tables(rows, table, important, arguments), *pictures(rows, chosen)],
    )


def findings(chosen: pd.DataFrame, margin: float) -> list[report.Finding]:
    """Returns a verdict on each method, CAMRI first."""
    # What is above cross-entropy's own curve is known only of methods as trained.
    above = ["above_difference", "above_p_holm"]
    chosen = chosen.reindex(columns=chosen.columns.union(above, sort=False))
    after = chosen["method"].map(trained) != "camri"
    ordered = pd.concat([chosen[~after], chosen[after]])
    return [report.finding(line, margin) for _, line in ordered.iterrows()]


def grounds(table: pd.DataFrame, margin: float) -> list[str]:
    """Returns sentences on what the verdicts rest on."""
    found = [f"{text[0].upper()}{text[1:]}." for text in table1.remarks(table)]
    if "held_out" in set(table["selection"]):
        found.append(
            "Settings and thresholds were picked on validation images; the verdicts "
            "are of test images, which had no part in it."
        )
    if "recall_difference" in table:
        found.append(
            "Differences are to cross-entropy as trained, seed by seed, with bootstrap "
            "intervals, which are too narrow of few seeds. Tests are paired t-tests, "
            "one-sided, corrected by Holm for all settings tried. A loss of accuracy "
            f"of less than {margin:g} counts as none. Seeds vary the training, not the "
            "images: none of this speaks of other images."
        )
    return found


def tables(
    rows: pd.DataFrame,
    table: pd.DataFrame,
    important: str,
    arguments: ReportArguments,
) -> list[report.Part]:
    """Returns Table I and what belongs to it, Table II, and what seeds are needed."""
    needed = power.PowerArguments(results=arguments.results, margin=arguments.margin)

    def spreads() -> report.Part:
        return as_table(table2.lay_out(table2.table2(rows)[0], important))

    def seeds() -> report.Part:
        lines = power.needs(analysis.trials(rows), needed)
        return as_table(power.lay_out(lines, important, needed))

    def as_table(sheet: Sheet) -> report.Table:
        # The section's heading says so already.
        title = sheet.title.removesuffix(f"Important class: {important}").rstrip(" .")
        return report.Table(title, *sheet[1:])

    return [
        *map(as_table, table1.lay_out(table, important, arguments.margin)),
        attempt("Table II", spreads),
        attempt("Seeds that a claim needs", seeds),
    ]


def pictures(rows: pd.DataFrame, chosen: pd.DataFrame) -> list[report.Part]:
    """Returns the pictures."""
    trials = analysis.trials(rows)
    settings = analysis.settings(trials)
    others = [name for name in chosen["method"] if name not in (BASELINE, "camri")]
    method = (
        "camri" if "camri" in set(chosen["method"]) else next(iter(others), "camri")
    )
    drawings: list[tuple[str, str, Callable]] = [
        (
            "Recall and accuracy",
            "Each setting is a pale marker, the picked one of each method a full one "
            "with its standard deviations, hollow where the threshold is moved. "
            "Dotted: cross-entropy's accuracy.",
            lambda: figures.recall_accuracy(settings, chosen),
        ),
        (
            "What recall costs as the threshold moves",
            "Means over seeds at each constant; full markers are methods as trained, "
            "hollow ones have their threshold moved. In the middle, accuracy above "
            "cross-entropy's own curve at the same recall, with its 95 % interval: a "
            "method does better only where it lies above zero.",
            lambda: figures.tradeoff(rows, chosen),
        ),
        (
            "Fig. 3. The penalty",
            "Recall and accuracy against the penalty, mean line and band of the "
            "standard deviation over seeds. Dotted: cross-entropy.",
            lambda: figures.penalties(settings, chosen),
        ),
        (
            "Fig. 4. What is taken for what",
            "Confusion matrix of cross-entropy, and what changes, mean over seeds. "
            "The important class is framed.",
            lambda: figures.confusion_matrices(rows, trials, chosen, method),
        ),
        (
            "Training curves",
            "Recall and accuracy after each epoch, mean and standard deviation over "
            "seeds, of the picked settings.",
            lambda: figures.training(rows, chosen),
        ),
    ]
    return [
        attempt(title, lambda d=draw, t=title, c=caption: report.picture(d, t, c))
        for title, caption, draw in drawings
    ]


def attempt(title: str, make: Callable[[], report.Part]) -> report.Part:
    """Returns what is made, or why it cannot be."""
    try:
        return make()
    except ValueError as error:
        return report.Missing(title, str(error))


if __name__ == "__main__":
    run(main)
