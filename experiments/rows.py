"""What the scripts that start from RESULTS share: arguments, rows, notes and errors."""

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro
from rich.console import Console

from camri_jax.evidence import selection as analysis
from camri_jax.sweeps import rows as results

NEEDED = ("trial_id", "method", "important", "seed", "settings", "test_curve")

console = Console()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """What every script reads; its own arguments are added in a subclass.

    Attributes:
      results: Directory that a sweep wrote, or any with Parquet files of rows.
      dataset: The data set, if there are rows of several.
      important: One choice of important classes, as "cat" or "cat+dog"; default all.
      where: Settings to keep, as "epochs=60", if there are rows of several.
      output: Directory to write to; default RESULTS.
    """

    results: tyro.conf.Positional[Path]
    dataset: str | None = None
    important: str | None = None
    where: tuple[str, ...] = ()
    output: Path | None = None


def load(arguments: Arguments) -> tuple[pd.DataFrame, Path]:
    """Reads the rows, prints notes on them, and makes the directory to write to.

    Args:
      arguments: of the script.

    Returns:
      The rows, and the directory.

    Raises:
      ValueError: see `read`.
    """
    rows = read(
        arguments.results,
        dataset=arguments.dataset,
        important=arguments.important,
        where=arguments.where,
    )
    for text in notes(rows):
        note(text)
    output = arguments.output or arguments.results
    output.mkdir(parents=True, exist_ok=True)
    return rows, output


def read(
    directory: Path,
    *,
    dataset: str | None = None,
    important: str | None = None,
    where: Sequence[str] = (),
) -> pd.DataFrame:
    """Reads the rows of one data set, trained with the same settings.

    Args:
      directory: holds `rows/`, or Parquet files at any depth.
      dataset: name of the data set to keep.
      important: choice of important classes to keep, names or indices joined by +.
      where: settings to keep, each `NAME=VALUE`.

    Returns:
      Rows as `camri_jax.sweeps.rows.read` gives them; trials whose loss is not finite are
      marked as diverged.

    Raises:
      ValueError: without rows, or if what is left is of several data sets or settings.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise ValueError(f"{directory} is not a directory")
    rows = results.read(
        directory / "rows" if (directory / "rows").is_dir() else directory
    )
    if rows.empty:
        raise ValueError(
            f"{directory} holds no rows of trials; experiments/sweep.py --output "
            f"{directory} makes some"
        )
    if missing := [name for name in NEEDED if name not in rows]:
        raise ValueError(
            f"{directory} holds Parquet files that are not rows of trials: they have "
            f"no {', '.join(missing)}"
        )
    rows = _of_one_data_set(rows, dataset)
    rows = _of_same_settings(rows, where)
    rows = _of_important(rows, important)
    diverged = rows["diverged"].astype(bool) | ~np.isfinite(rows["loss"])
    return rows.assign(diverged=diverged).reset_index(drop=True)


def _of_one_data_set(rows: pd.DataFrame, dataset: str | None) -> pd.DataFrame:
    names = sorted(set(rows["dataset"]))
    if dataset is not None and dataset not in names:
        raise ValueError(
            f"--dataset must be among {', '.join(names)}, got {dataset}: there are no "
            "rows of others"
        )
    if dataset is None and len(names) > 1:
        raise ValueError(
            f"the rows are of several data sets ({', '.join(names)}); --dataset picks "
            "one"
        )
    return rows[rows["dataset"] == (dataset or names[0])]


def _of_same_settings(rows: pd.DataFrame, where: Sequence[str]) -> pd.DataFrame:
    # Rows without a precision are older than that choice: they are of float32.
    parsed = {
        text: {"precision": "float32", **json.loads(text)}
        for text in rows["settings"].unique()
    }
    known = list(dict.fromkeys(name for s in parsed.values() for name in s))
    for condition in where:
        name, _, value = condition.partition("=")
        if name not in known:
            raise ValueError(
                f"--where {condition} must be NAME=VALUE, with a name among "
                + ", ".join(known)
            )
        values = _values(parsed, name)
        if value not in values:
            raise ValueError(
                f"--where {condition}: there are only rows of {name} "
                + " or ".join(values)
            )
        parsed = {k: s for k, s in parsed.items() if _text(s.get(name)) == value}
    differing = {
        name: values for name in known if len(values := _values(parsed, name)) > 1
    }
    if differing:
        listed = "; ".join(f"{n} {' or '.join(v)}" for n, v in differing.items())
        first, values = next(iter(differing.items()))
        raise ValueError(
            "the rows were trained with different settings, which cannot stand in one "
            f"table: {listed}. Pick one as with --where {first}={values[0]}"
        )
    return rows[rows["settings"].isin(list(parsed))]


def _values(parsed: dict[str, dict[str, Any]], name: str) -> list[str]:
    return sorted({_text(settings.get(name)) for settings in parsed.values()})


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _of_important(rows: pd.DataFrame, important: str | None) -> pd.DataFrame:
    if important is None:
        return rows
    names = choices(rows)
    indices = pd.Series(
        ["+".join(map(str, chosen)) for chosen in rows["important"]], rows.index
    )
    kept = rows[(names == important) | (indices == important)]
    if kept.empty:
        raise ValueError(
            f"--important must be among {', '.join(names.unique())}, got {important}: "
            "there are no rows of others"
        )
    return kept


def choices(rows: pd.DataFrame) -> pd.Series:
    """Returns each row's choice of important classes, names joined by +."""
    return rows.apply(
        lambda row: "+".join(row["class_names"][i] for i in row["important"]), axis=1
    )


def notes(rows: pd.DataFrame) -> list[str]:
    """Returns sentences on diverged trials, and on seeds that some settings lack.

    Args:
      rows: from `read`.

    Returns:
      The sentences, none if all is well.
    """
    found = []
    by_choice = rows.assign(choice=choices(rows))
    diverged = by_choice[by_choice["diverged"]].drop_duplicates("trial_id")
    if len(diverged):
        names = ", ".join(
            dict.fromkeys(name_of(line) for _, line in diverged.iterrows())
        )
        total = rows["trial_id"].nunique()
        found.append(
            f"{len(diverged)} of {total} trials diverged and are left out ({names})"
        )
    for choice, group in by_choice.groupby("choice", sort=False):
        settings = group.groupby(["method", *analysis.POINT], dropna=False, sort=False)
        counts = settings["seed"].nunique().reset_index()
        most = counts["seed"].max()
        fewer = [
            f"{name_of(line)} {line['seed']}"
            for _, line in counts[counts["seed"] < most].iterrows()
        ]
        if fewer:
            found.append(
                f"important {choice}: the sweep is not whole; of {most} seeds there "
                f"are, for {', '.join(fewer)}"
            )
    return found


def name_of(line: pd.Series) -> str:
    """Returns a method with its setting, as tables call it."""
    return f"{analysis.LABELS[line['method']]} {analysis.describe(line)}".rstrip()


def note(text: str) -> None:
    console.print(
        f"note: {text}", style="yellow", markup=False, highlight=False, soft_wrap=True
    )


def wrote(path: Path) -> None:
    console.print(f"wrote {path}", markup=False, highlight=False, soft_wrap=True)


def run(main: Callable[[], None]) -> None:
    """Runs a script's `main`; an error is one sentence and exit status 2."""
    try:
        main()
    except (ValueError, OSError, ImportError) as error:
        console.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
