"""Table II: how far features spread around their prototype, in radians.

    python experiments/table2.py RESULTS

The standard deviation of the angle between features and the prototype of their true
class, on test images: of the important class, and the least and the median of the
others. CAMRI and ArcFace stand there with the settings of table1.py, WCE with w = 4,
and ArcFace with m = 0 (that is L2-softmax) at CAMRI's scale. Writes table2.csv and
table2.md.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import tyro
from rows import Arguments, choices, console, load, note, run, wrote
from sheets import Sheet, show, spread, write

from camri_jax.evidence import selection as analysis
from camri_jax.evidence.curves import POINT
from camri_jax.evidence.selection import BASELINE, describe

WEIGHT = 4.0  # of WCE, in the paper
STATISTICS = ["important", "least", "median"]


def main(argv: Sequence[str] | None = None) -> None:
    arguments = tyro.cli(Arguments, args=argv, description=__doc__)
    rows, output = load(arguments)
    table, missing = table2(rows)
    for text in missing:
        note(text)
    sheets = [
        lay_out(lines, str(important))
        for important, lines in table.groupby("important_class", sort=False)
    ]
    for sheet in sheets:
        show(console, sheet)
    table.to_csv(output / "table2.csv", index=False)
    write(sheets, output / "table2.md")
    wrote(output / "table2.csv")
    wrote(output / "table2.md")


def table2(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Returns the spread of angles under each method, and what is missing.

    Args:
      rows: from `rows.read`.

    Returns:
      One line a choice of important classes and method: `important_class`, `column`
      (the paper's name of the method), `method`, hyperparameters, `num_seeds`, and the
      mean and standard deviation over seeds of `important`, `least` and `median`, of
      which the last two are taken within a trial; and sentences on absent methods.
    """
    angles = spreads(rows)
    settings = analysis.settings(analysis.trials(rows))
    held_out = settings["validation_recall"].notna().any()
    selected = analysis.select(settings, on="validation" if held_out else "test")
    lines, missing = [], []
    for choice, group in angles.groupby("important_class", sort=False):
        chosen = selected[selected["important"] == choice].set_index("method")
        for column, wanted in columns(chosen):
            trials = group if wanted else group[:0]
            for name, value in wanted.items():
                trials = trials[trials[name] == value]
            if trials.empty:
                missing.append(f"important {choice}: no rows of {column}, left out")
                continue
            lines.append(_line(trials, column))
    return pd.DataFrame(lines), missing


def columns(chosen: pd.DataFrame) -> list[tuple[str, dict[str, Any]]]:
    """Returns the table's columns with what their trials must have, if that is known.

    Args:
      chosen: the lines of Table I for one choice of important classes, by method.
    """

    def setting(method: str) -> dict[str, Any]:
        if method not in chosen.index:
            return {}
        return {"method": method} | {
            name: chosen[name][method] for name in ("margin", "scale")
        }

    plain = {}
    if camri := setting("camri"):
        plain = {"method": "l2_softmax", "scale": camri["scale"]}
    return [
        ("CAMRI", camri),
        ("ArcFace", setting("arcface")),
        ("WCE", {"method": "weighted_cross_entropy", "weight": WEIGHT}),
        ("ArcFace (m=0)", plain),
        ("cross-entropy", {"method": BASELINE}),
    ]


def spreads(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the angles' spread in each trial; ArcFace of margin 0 as L2-softmax."""
    rows = rows[~rows["diverged"]].assign(important_class=choices(rows))
    lines = []
    for _, row in rows.iterrows():
        std = np.asarray(row["angle_std"], float)
        important = list(row["important"])
        others = np.delete(std, important)
        lines.append(
            {
                **row[["important_class", "method", *POINT, "seed"]],
                "important": np.nanmean(std[important]),
                "least": np.nanmin(others),
                "median": np.nanmedian(others),
            }
        )
    angles = pd.DataFrame(lines)
    plain = angles[(angles["method"] == "arcface") & (angles["margin"] == 0)]
    angles = pd.concat([angles, plain.assign(method="l2_softmax")], ignore_index=True)
    return angles.drop_duplicates(["important_class", "method", *POINT, "seed"])


def _line(trials: pd.DataFrame, column: str) -> dict[str, Any]:
    line = {
        "important_class": trials["important_class"].iloc[0],
        "column": column,
        **trials[["method", *POINT]].iloc[0],
        "num_seeds": len(trials),
    }
    for name in STATISTICS:
        line |= {name: trials[name].mean(), f"{name}_std": trials[name].std()}
    return line


def lay_out(lines: pd.DataFrame, important: str) -> Sheet:
    """Lays out one choice of important classes as the paper does."""
    least = lines[STATISTICS].idxmin(axis=1)
    names = {
        "important": "important",
        "least": "others' min",
        "median": "others' median",
    }
    cells = []
    for name, title in names.items():
        row = [title]
        for smallest, (_, line) in zip(least, lines.iterrows(), strict=True):
            cell = spread(line, name)
            row.append(f"**{cell}**" if smallest == name else cell)
        cells.append(row)
    headers = [
        (line["column"].replace("-", "-\n") + f"\n{describe(line)}").rstrip()
        for _, line in lines.iterrows()
    ]
    seeds = sorted(set(lines["num_seeds"]))
    return Sheet(
        f"Table II. Important class: {important}",
        "Standard deviation of the angle (radians) between features and the prototype "
        "of their class, test images; mean ± std over "
        f"{' or '.join(map(str, seeds))} seeds. * the smallest of a column.",
        ["class", *headers],
        cells,
    )


if __name__ == "__main__":
    run(main)
