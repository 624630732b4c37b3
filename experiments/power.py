"""How many seeds a claim needs, from the spread of a pilot.

    python experiments/power.py RESULTS
    python experiments/power.py RESULTS --effect 0.02 --power 0.9

For each setting in RESULTS: the seeds at which a paired one-sided t-test against
cross-entropy would find a gain of recall, and those at which it would find that the
accuracy lost, if any, is less than the margin. Writes power.csv and power.md.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd
import tyro
from rows import Arguments, console, load, name_of, run, wrote
from sheets import Sheet, show, signed, write

from camri_jax.evidence import selection as analysis
from camri_jax.evidence import verdicts
from camri_jax.evidence.curves import POINT
from camri_jax.evidence.selection import BASELINE, describe, moved, trained
from camri_jax.evidence.statistics import seeds_needed


@dataclasses.dataclass(frozen=True, kw_only=True)
class PowerArguments(Arguments):
    """How many seeds a claim needs, from the spread of a pilot.

    Attributes:
      effect: Gain of recall to find; default the one observed.
      margin: Loss of accuracy that counts as none.
      power: Chance of finding it.
      alpha: Level of the tests; for k settings at once, divide it by k.
    """

    effect: float | None = None
    margin: float = verdicts.MARGIN
    power: float = 0.8
    alpha: float = 0.05

    def __post_init__(self) -> None:
        for name in ("effect", "margin"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise ValueError(f"{name} must be between 0 and 1, got {value}")
        for name in ("power", "alpha"):
            value = getattr(self, name)
            if not 0 < value < 1:
                raise ValueError(f"{name} must be between 0 and 1, got {value}")
        if self.power <= self.alpha:
            raise ValueError(
                f"power must be above alpha, got {self.power} and {self.alpha}"
            )


def main(argv: Sequence[str] | None = None) -> None:
    arguments = tyro.cli(PowerArguments, args=argv, description=__doc__)
    rows, output = load(arguments)
    table = needs(analysis.trials(rows), arguments)
    sheets = [
        lay_out(lines, str(important), arguments)
        for important, lines in table.groupby("important", sort=False)
    ]
    for sheet in sheets:
        show(console, sheet)
    table.to_csv(output / "power.csv", index=False)
    write(sheets, output / "power.md")
    wrote(output / "power.csv")
    wrote(output / "power.md")


def needs(trials: pd.DataFrame, arguments: PowerArguments) -> pd.DataFrame:
    """Returns for each setting how many seeds its claims need.

    Args:
      trials: from `camri_jax.evidence.selection.trials`.
      arguments: of this script.

    Returns:
      One line a choice of important classes and setting: `num_pairs` of the pilot; mean
      and `..._std` of the differences of `recall` and `accuracy`; `seeds_recall`, for a
      gain of recall; `seeds_accuracy`, for non-inferiority if the true difference is
      the one observed, and `seeds_accuracy_equal`, if it is zero. Infinite where no
      number will do, NaN where the pilot has no spread.

    Raises:
      ValueError: if no setting shares two seeds with cross-entropy.
    """
    compared = verdicts.differences(trials)
    if compared.empty:
        raise ValueError(
            f"there are rows of {BASELINE} only, and none to compare it with"
        )
    lines = []
    by = ["important", "method", *POINT]
    for key, group in compared.groupby(by, dropna=False, sort=False):
        recall, accuracy = group["recall"].dropna(), group["accuracy"].dropna()
        gain = recall.mean() if arguments.effect is None else arguments.effect
        lines.append(
            {
                **dict(zip(by, key, strict=True)),
                "num_pairs": len(recall),
                "recall": recall.mean(),
                "recall_std": recall.std(),
                "accuracy": accuracy.mean(),
                "accuracy_std": accuracy.std(),
                "seeds_recall": seeds(recall, gain, arguments),
                "seeds_accuracy": seeds(
                    accuracy, accuracy.mean() + arguments.margin, arguments
                ),
                "seeds_accuracy_equal": seeds(accuracy, arguments.margin, arguments),
            }
        )
    table = pd.DataFrame(lines)
    if table["num_pairs"].max() < 2:
        raise ValueError(
            "no setting shares two seeds with cross-entropy, which it takes to tell "
            "how much differences vary; train more with --num-seeds"
        )
    return table


def seeds(differences: pd.Series, effect: float, arguments: PowerArguments) -> float:
    try:
        return seeds_needed(
            differences.to_numpy(),
            effect,
            power=arguments.power,
            alpha=arguments.alpha,
        )
    except ValueError:
        return np.nan


def lay_out(lines: pd.DataFrame, important: str, arguments: PowerArguments) -> Sheet:
    """Lays out one choice of important classes."""
    cells = [
        [
            title(line),
            plus_minus(line, "recall"),
            whole(line["seeds_recall"]),
            plus_minus(line, "accuracy"),
            whole(line["seeds_accuracy"]),
            whole(line["seeds_accuracy_equal"]),
            str(line["num_pairs"]),
        ]
        for _, line in lines.iterrows()
    ]
    gain = "the gain observed" if arguments.effect is None else f"{arguments.effect:g}"
    return Sheet(
        f"Seeds that a claim needs. Important class: {important}",
        f"Differences to cross-entropy of the same seeds, mean ± std over n. Seeds to "
        f"find, with power {arguments.power:g} at level {arguments.alpha:g}: a gain of "
        f"recall of {gain}; a loss of accuracy below {arguments.margin:g}, if the true "
        "difference is as observed, and if it is zero. The fewer n, the less certain.",
        ["setting", "recall", "seeds", "accuracy", "seeds", "seeds\nif equal", "n"],
        cells,
    )


def title(line: pd.Series) -> str:
    """A method that is moved stands under itself, and need not be named again."""
    if line["method"] == moved(BASELINE):
        return "cross-entropy + threshold"
    if line["method"] == trained(line["method"]):
        return name_of(line)
    return f"  + threshold {describe(line)}"


def plus_minus(line: pd.Series, name: str) -> str:
    if np.isnan(line[name]):
        return ""
    std = line[f"{name}_std"]
    return signed(line[name]) + ("" if np.isnan(std) else f"±{std:.3f}")


def whole(number: float) -> str:
    """A count; nothing where it is unknown, and never where none will do."""
    if np.isnan(number):
        return ""
    return "never" if np.isinf(number) else f"{number:,.0f}"


if __name__ == "__main__":
    run(main)
