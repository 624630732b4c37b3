"""Table I: which method finds the important class, and at what accuracy.

    python experiments/table1.py RESULTS

The setting of each method is picked twice: by the paper's rule, on the test images that
are reported; and on held-out validation images. Every method stands there as trained
and with its threshold moved. Below stand the differences to cross-entropy of the same
seeds, and how far each method lies above cross-entropy's own curve of recall against
accuracy. Writes table1.csv, with all numbers, and table1.md.
"""

import dataclasses
from collections.abc import Sequence

import pandas as pd
import tyro
from rows import Arguments, console, load, note, run, wrote
from sheets import Sheet, difference, number, p_text, show, spread, write

from camri_jax.evidence import curves, verdicts
from camri_jax.evidence import selection as analysis
from camri_jax.evidence.selection import BASELINE, LABELS, describe, trained

BY = ["important", "method", *curves.POINT]
IMAGES = {"held_out": "validation", "paper": "test"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments1(Arguments):
    """Table I: which method finds the important class, and at what accuracy.

    Attributes:
      margin: Loss of accuracy that counts as none.
    """

    margin: float = verdicts.MARGIN


def main(argv: Sequence[str] | None = None) -> None:
    arguments = tyro.cli(Arguments1, args=argv, description=__doc__)
    rows, output = load(arguments)
    table = table1(rows, arguments.margin)
    for text in remarks(table):
        note(text)
    sheets = []
    for important, lines in table.groupby("important", sort=False):
        sheets += lay_out(lines, str(important), arguments.margin)
    for sheet in sheets:
        show(console, sheet)
    table.to_csv(output / "table1.csv", index=False)
    write(sheets, output / "table1.md")
    wrote(output / "table1.csv")
    wrote(output / "table1.md")


def table1(rows: pd.DataFrame, margin: float) -> pd.DataFrame:
    """Returns the selected settings with all that is known of them.

    Args:
      rows: from `rows.read`.
      margin: loss of accuracy that counts as none.

    Returns:
      One line a selection (`held_out`, where there are validation images, and `paper`),
      choice of important classes and method, with the columns of
      `camri_jax.evidence.selection.select`, of `camri_jax.evidence.verdicts.paired`, of
      `camri_jax.evidence.verdicts.at_own_recall` but `recall`, and `above_at`, the recalls at
      which the curve lies above.
    """
    trials = analysis.trials(rows)
    settings = analysis.settings(trials)
    held_out = settings["validation_recall"].notna().any()
    selections = ["held_out", "paper"] if held_out else ["paper"]
    table = pd.concat(
        [
            analysis.select(settings, on=IMAGES[name]).assign(selection=name)
            for name in selections
        ],
        ignore_index=True,
    )
    if set(trials["method"]) == {BASELINE}:
        return table
    table = table.merge(verdicts.paired(trials, margin=margin), on=BY, how="left")
    if set(rows.loc[~rows["diverged"], "method"]) <= {BASELINE}:
        return table
    own = verdicts.at_own_recall(curves.compare(rows)).drop(columns="recall")
    return table.merge(own.drop(columns="num_pairs"), on=BY, how="left").merge(
        above_at(rows, table), on=BY, how="left"
    )


def above_at(rows: pd.DataFrame, selected: pd.DataFrame) -> pd.DataFrame:
    """Returns the recalls at which selected settings lie above cross-entropy."""
    compared = curves.compare(rows, curves.RECALLS)
    compared = compared.merge(selected[BY].drop_duplicates(), on=BY)
    along = verdicts.along_curve(compared)
    lines = [
        {**dict(zip(BY, key, strict=True)), "above_at": verdicts.ranges_above(lines)}
        for key, lines in along.groupby(BY, dropna=False, sort=False)
    ]
    return pd.DataFrame(lines)


def remarks(table: pd.DataFrame) -> list[str]:
    """Returns sentences on what the table cannot show."""
    found = []
    if "held_out" not in set(table["selection"]):
        found.append(
            "the rows have no validation images: settings are picked on the test "
            "images only, as in the paper, and no threshold is moved"
        )
    if set(table["method"].map(trained)) == {BASELINE}:
        found.append(
            "there are rows of cross-entropy only, and none to compare it with"
        )
    if table["num_seeds"].max() < 3:
        found.append(
            "with fewer than three seeds there is no interval, and with one seed no "
            "standard deviation"
        )
    return found


def lay_out(lines: pd.DataFrame, important: str, margin: float) -> list[Sheet]:
    """Lays out the lines of one choice of important classes."""
    chosen = lines[lines["selection"] == lines["selection"].iloc[0]]
    picked = IMAGES[lines["selection"].iloc[0]]
    found = [selections(lines, important), more_measures(chosen, important, picked)]
    if "recall_difference" in lines:
        found.append(differences(chosen, important, picked, margin))
    if "above_difference" in lines:
        found.append(above(chosen, important, picked))
    return found


def title(method: str) -> str:
    """A method that is moved stands under itself, and need not be named again."""
    return LABELS[method] if method == trained(method) else "  + threshold"


def selections(lines: pd.DataFrame, important: str) -> Sheet:
    """The paper's rule beside held-out selection."""
    by_selection = {
        name: group.set_index("method") for name, group in lines.groupby("selection")
    }
    paper = by_selection["paper"]
    baseline = paper["accuracy"][BASELINE] - 1e-9
    shown = paper[paper["keeps_accuracy"] & (paper.index.map(trained) == paper.index)]
    best = shown["recall"].idxmax() if len(shown) else None
    cells = []
    for method in dict.fromkeys(lines["method"]):
        line = paper.loc[method]
        pair = [with_setting(line), spread(line, "accuracy")]
        if method == best:
            pair[0] = pair[0].replace(recall := spread(line, "recall"), f"**{recall}**")
        row = [title(method), *(pair if line["keeps_accuracy"] else ["", ""])]
        if "held_out" in by_selection:
            line = by_selection["held_out"].loc[method]
            loses = "▼" if line["accuracy"] < baseline else " "
            row += [with_setting(line), spread(line, "accuracy") + loses]
        cells.append(row)
    columns = ["method", "paper's rule\nrecall", "\naccuracy"]
    if "held_out" in by_selection:
        columns += ["held-out\nrecall", "\naccuracy "]
    return Sheet(
        f"Table I. Important class: {important}",
        "Test images, mean ± std over seeds. Paper's rule: of the settings that keep "
        "cross-entropy's accuracy on these very test images, the highest recall (* of "
        "all as trained); blank where none does. Held-out: the same rule on validation "
        "images; ▼ accuracy below cross-entropy's.",
        columns,
        cells,
    )


def with_setting(line: pd.Series) -> str:
    return f"{spread(line, 'recall')}\n{describe(line)}".rstrip()


def more_measures(lines: pd.DataFrame, important: str, picked: str) -> Sheet:
    """What accuracy hides."""
    cells = [
        [
            f"{title(line['method'])} {describe(line)}".rstrip(),
            *(number(line[name]) for name in ("precision", "f2", "other_recall")),
            number(line["false_alarms"], 1),
            str(line["num_seeds"]),
        ]
        for _, line in lines.iterrows()
    ]
    return Sheet(
        f"What accuracy hides. Important class: {important}",
        f"Settings picked on {picked} images. F2 counts recall twice as much as "
        "precision; false alarms are per 1,000 images.",
        ["method, setting", "precision", "F2", "others'\nrecall", "false\nalarms", "n"],
        cells,
    )


def differences(
    lines: pd.DataFrame, important: str, picked: str, margin: float
) -> Sheet:
    """Recall gained and accuracy lost, paired by seed."""
    cells = [
        [
            title(line["method"]),
            difference(line, "recall"),
            p_text(line["recall_p_holm"]),
            difference(line, "accuracy"),
            p_text(line["accuracy_p_holm"]),
        ]
        for _, line in lines.iterrows()
    ]
    return Sheet(
        f"Differences to cross-entropy. Important class: {important}",
        f"Settings picked on {picked} images. Mean over seeds, and 95 % bootstrap "
        "interval. p: of a gain of recall, and of a loss of accuracy of less than "
        f"{margin:g}; paired t-tests, corrected by Holm for all settings tried.",
        ["method", "recall", "p", "accuracy", "p"],
        cells,
    )


def above(lines: pd.DataFrame, important: str, picked: str) -> Sheet:
    """How far methods as trained lie above cross-entropy's own curve."""
    cells = [
        [
            f"{title(line['method'])} {describe(line)}".rstrip(),
            f"{line['recall']:.3f}",
            difference(line, "above"),
            p_text(line["above_p_holm"]),
            (line["above_at"] or "nowhere").replace(", ", "\n"),
            str(int(line["num_pairs"])),
        ]
        for _, line in lines[lines["above_difference"].notna()].iterrows()
    ]
    return Sheet(
        f"Above cross-entropy's own curve? Important class: {important}",
        f"Settings picked on {picked} images. Accuracy above that of cross-entropy "
        "whose threshold is moved until it has the same recall; p corrected by Holm; "
        "and the recalls at which it is above, each tested alone at 95 %.",
        ["method, setting", "recall", "accuracy above", "p", "above at", "n"],
        cells,
    )


if __name__ == "__main__":
    run(main)
