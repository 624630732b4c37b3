"""The rows that a question is asked of: those of one data set, trained alike."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from camri_jax._files import UsageError, address
from camri_jax.datasets import class_indices
from camri_jax.sweeps import rows as stored
from camri_jax.training.methods import (
    BASELINE,
    HYPERPARAMETERS,
    METHODS,
    Value,
    describe,
)

POINT = [*HYPERPARAMETERS, "by_class"]
"""Columns of the hyperparameters: numbers, and the text of those by class."""

REMEMBERED = 32
"""How many tables made from logits, which are slow to read, are kept in memory."""

Choice = tuple[int, ...]
"""The important classes: their indices, ascending. A key; names are for people."""


@dataclass(frozen=True, eq=False)
class Study:
    """Trials of one data set that were trained with the same settings.

    Equal only to itself, so that what is made from its logits can be kept in memory.

    Attributes:
      rows: as `camri_jax.sweeps.rows.read` gives them, one a trial; `by_class` is ""
        where there is none.
      data: labels and class names.
      directory: where they lie, with their logits.
      choices: the important classes that are asked about.
      aside: sentences on rows that are left out because they are of other data.
    """

    rows: pd.DataFrame
    data: stored.Data
    directory: Path
    choices: tuple[Choice, ...]
    aside: tuple[str, ...] = ()

    def name(self, choice: Choice) -> str:
        """Returns a choice of important classes in words: their names joined by +."""
        return "+".join(self.data.class_names[i] for i in choice)

    def suffix(self, choice: Choice) -> str:
        """Returns what tells files of a choice from those of the others, if any."""
        return "" if len(self.choices) == 1 else "_" + "_".join(map(str, choice))

    def of(self, important: Choice) -> pd.DataFrame:
        """Returns the rows that count for a choice of important classes.

        Those of methods to which no class is important, and those of other methods that
        were trained for it.
        """
        indifferent = [
            not METHODS[name].class_sensitive for name in self.rows["method"]
        ]
        trained_for = [chosen == important for chosen in self.rows["important"]]
        return self.rows[np.logical_or(indifferent, trained_for)]

    def logits(
        self, part: str, trial_ids: Sequence[str]
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Yields the logits `[image, class]` of trials that kept theirs.

        Args:
          part: "validation", "calibration" or "test".
          trial_ids: which trials.

        Raises:
          UsageError: there are not as many as there are labels.
        """
        expected = (len(self.data.labels[part]), len(self.data.class_names))
        for trial_id, logits in stored.read_logits(self.directory, part, trial_ids):
            if logits.shape != expected:
                raise UsageError(
                    f"{self.directory} holds {part} logits of trial {trial_id} of "
                    f"shape {logits.shape}, but its labels make {expected}; move the "
                    "file away and run the sweep again"
                )
            yield trial_id, logits


def load(
    directory: Path,
    *,
    dataset: str | None = None,
    important: str | Sequence[str | int | Sequence[str | int]] | None = None,
    where: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
) -> Study:
    """Reads the rows of one data set that were trained with the same settings.

    Args:
      directory: that a sweep wrote, or its URL.
      dataset: name of the data set, if there are several.
      important: choices of important classes: each a name, an index, names or indices
        joined by +, or a tuple of them; default those that rows were trained for.
      where: settings to keep, each `NAME=VALUE`.
      settings: all settings of a plan; default any.

    Returns:
      The study. If rows have several fingerprints of the data, that of the newest row
      counts; the other rows are set aside, with a note.

    Raises:
      UsageError: there are no rows; they are of several data sets or settings; two
        differ in nothing but their trial; or `important` is not among the classes.

    >>> load(Path("nowhere"))
    Traceback (most recent call last):
      ...
    camri_jax._files.UsageError: nowhere is not a directory
    """
    directory = address(directory)
    if not directory.is_dir():
        raise UsageError(f"{directory} is not a directory")
    rows = stored.read(directory)
    if rows.empty:
        raise UsageError(
            f"{directory} holds no rows of trials; camri sweep --output "
            f"{directory} makes some"
        )
    if unknown := sorted(set(rows["method"]) - set(METHODS)):
        raise UsageError(
            f"{directory} holds rows of the method {unknown[0]!r}, which this version "
            f"of camri_jax does not know; it knows {', '.join(METHODS)}"
        )
    if settings is not None:
        # They name the data by their contents, whatever the user called them.
        rows = rows[rows["settings"] == json.dumps(settings)]
        if rows.empty:
            raise UsageError(f"{directory} holds no rows of these settings")
    rows = _of_one_data_set(rows, dataset)
    rows = _where(rows, where)
    rows, aside = _of_one_fingerprint(rows)
    _trained_alike(rows)
    rows = rows.assign(
        diverged=rows["diverged"].eq(True),
        important=rows["important"].map(_ascending),
        # Frames are merged by it, and those without any text would hold numbers.
        by_class=rows["by_class"].fillna(""),
    )
    _one_row_a_seed(rows)
    rows = rows.reset_index(drop=True)
    data = stored.read_data(directory, rows["fingerprint"].iloc[0])
    largest = max((k for chosen in rows["important"] for k in chosen), default=0)
    if largest >= len(data.class_names):
        raise UsageError(
            f"{directory} holds rows of an important class {largest}, of "
            f"{len(data.class_names)} classes; its rows and labels do not belong "
            "together"
        )
    return Study(rows, data, directory, _choices(rows, data, important), aside)


def notes(study: Study) -> list[str]:
    """Returns sentences on rows set aside, diverged trials, and seeds that are lacking.

    Args:
      study: from `load`.

    Returns:
      The sentences, none if all is well.
    """
    found = list(study.aside)
    lost = study.rows[study.rows["diverged"]]
    if len(lost):
        names = dict.fromkeys(setting_text(line) for _, line in lost.iterrows())
        total = len(study.rows)
        found.append(
            "every trial diverged: a lower learning rate may help"
            if len(lost) == total
            else f"{len(lost)} of {total} trials diverged and are left out "
            f"({', '.join(names)})"
        )
    by = ["method", "important", *POINT]
    settings = [
        (group["method"].iloc[0], setting_text(group.iloc[0]), set(group["seed"]))
        for _, group in study.rows.groupby(by, dropna=False, sort=False)
    ]
    most = max(len(seeds) for *_, seeds in settings)
    fewer = [f"{text} {len(seeds)}" for _, text, seeds in settings if len(seeds) < most]
    if fewer:
        found.append(
            f"the sweep is not whole; of {most} seeds there are, for "
            + ", ".join(fewer)
        )
    own = set[int]().union(*(seeds for m, _, seeds in settings if m == BASELINE))
    apart = [
        f"{text} {len(seeds & own)} of {len(seeds)}"
        for _, text, seeds in settings
        if own and seeds - own
    ]
    if apart:
        found.append(
            "cross-entropy lacks seeds that others have; differences to it rest on "
            "those that both have: " + ", ".join(apart)
        )
    return found


def point_of(line: pd.Series) -> dict[str, Value]:
    """Returns the hyperparameters of a line: a number, or one for each class."""
    own = {name: float(line[name]) for name in HYPERPARAMETERS if name in line}
    found: dict[str, Value] = {n: x for n, x in own.items() if not np.isnan(x)}
    text = line.get("by_class")
    return found | (_read_json(text) if isinstance(text, str) and text else {})


def same_point(
    lines: pd.DataFrame, line: pd.Series, names: Sequence[str] = POINT
) -> pd.Series:
    """Returns which lines have a line's hyperparameters; NaN equals NaN."""
    same = pd.Series(True, lines.index)
    for name in names:
        same &= (lines[name] == line[name]) | (lines[name].isna() & pd.isna(line[name]))
    return same


def point_text(line: pd.Series) -> str:
    """Returns the hyperparameters of a line in symbols."""
    return describe(point_of(line))


def setting_text(line: pd.Series) -> str:
    """Returns the method of a line and its hyperparameters, as people call them."""
    return f"{METHODS[line['method']].label} {point_text(line)}".rstrip()


def _of_one_data_set(rows: pd.DataFrame, dataset: str | None) -> pd.DataFrame:
    names = sorted(set(rows["dataset"]))
    if dataset is not None and dataset not in names:
        raise UsageError(
            f"dataset must be among {', '.join(names)}, got {dataset}: there are no "
            "rows of others"
        )
    # The same data may have been named in several ways, a folder by its full path too.
    same = rows["dataset"].eq(dataset or names[0])
    same |= rows["fingerprint"].isin(rows.loc[same, "fingerprint"].dropna())
    if dataset is None:
        # Under one of its names there may be older rows, of other contents.
        same |= rows["dataset"].isin(rows.loc[same, "dataset"])
    if dataset is None and not same.all():
        raise UsageError(
            "the rows are of several data sets: dataset must be one of "
            + ", ".join(names)
        )
    return rows[same]


def _parsed(rows: pd.DataFrame) -> dict[str, dict[str, Any]]:
    return {text: _read_json(text) for text in rows["settings"].dropna().unique()}


def _read_json(text: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"rows hold {text!r:.80} where settings and provenance stand, or values by "
            f"class ({error}); move their file away, and run the sweep again to train "
            "its trials anew"
        ) from error


def _where(rows: pd.DataFrame, where: Sequence[str]) -> pd.DataFrame:
    parsed = _parsed(rows)
    known = list(dict.fromkeys(name for s in parsed.values() for name in s))
    for condition in where:
        name, _, value = condition.partition("=")
        if name not in known:
            raise UsageError(
                f"where must be NAME=VALUE, with a name among {', '.join(known)}; got "
                + condition
            )
        values = _values(parsed, name)
        if value not in values:
            raise UsageError(
                f"where is {condition}, but there are only rows of {name} "
                + " or ".join(values)
            )
        parsed = {k: s for k, s in parsed.items() if _text(s.get(name)) == value}
    return rows[rows["settings"].isin(list(parsed))] if where else rows


def _of_one_fingerprint(rows: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Rows of the data of the newest row, and sentences on the others."""
    told = rows[rows["fingerprint"].notna()]
    if told.empty:
        raise UsageError(
            "the rows are of an older version, which kept neither logits nor labels; "
            "run the sweep again to train its trials anew"
        )
    times = [str(_read_json(text or "{}").get("time")) for text in told["provenance"]]
    newest = told["fingerprint"].iloc[int(np.argmax(np.array(times)))]
    aside = []
    others = rows[rows["fingerprint"] != newest]
    for fingerprint, group in others.groupby("fingerprint", dropna=False):
        whose = (
            "an older version, which kept no labels"
            if pd.isna(fingerprint)
            else f"other data ({fingerprint}; where fingerprint={fingerprint} picks "
            "them)"
        )
        aside.append(f"{len(group)} trials are of {whose} and are set aside")
    return rows[rows["fingerprint"] == newest], tuple(aside)


def _trained_alike(rows: pd.DataFrame) -> None:
    parsed = _parsed(rows)
    known = list(dict.fromkeys(name for s in parsed.values() for name in s))
    differing = {
        name: values for name in known if len(values := _values(parsed, name)) > 1
    }
    if differing:
        listed = "; ".join(f"{n} {' or '.join(v)}" for n, v in differing.items())
        first, values = next(iter(differing.items()))
        raise UsageError(
            "the rows were trained with different settings, which cannot stand in one "
            f"table: {listed}. Pick one, for example where {first}={values[0]}"
        )


def _values(parsed: dict[str, dict[str, Any]], name: str) -> list[str]:
    return sorted({_text(settings.get(name)) for settings in parsed.values()})


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _one_row_a_seed(rows: pd.DataFrame) -> None:
    """Two rows of one seed would pair with others by chance."""
    twice = rows[rows.duplicated(["method", "important", *POINT, "seed"], keep=False)]
    if len(twice):
        line = twice.iloc[0]
        same = twice[twice["method"] == line["method"]]
        same = same[same["seed"] == line["seed"]]
        raise UsageError(
            f"there are several rows of {setting_text(line)}, seed {line['seed']}: "
            f"trials {', '.join(same['trial_id'].head(4))}; keep the files of one"
        )


def _ascending(chosen: Any) -> Choice:
    return tuple(sorted(map(int, chosen)))


def _choices(
    rows: pd.DataFrame, data: stored.Data, important: Any
) -> tuple[Choice, ...]:
    if important is None:
        found = dict.fromkeys(chosen for chosen in rows["important"] if chosen)
        if not found:
            raise UsageError(
                "no trial was trained for an important class: important must name "
                f"one: {', '.join(data.class_names[:10])}"
            )
        return tuple(found)
    asked = [important] if isinstance(important, str) else important
    return tuple(dict.fromkeys(_choice(one, data) for one in asked))


def _choice(asked: Any, data: stored.Data) -> Choice:
    names = data.class_names
    try:
        chosen = class_indices(names, asked)
    except UsageError as error:
        raise UsageError(f"important: {error}") from error
    if len(chosen) == len(names):
        raise UsageError(
            "important must leave a class that is not important, got all of "
            f"{', '.join(names)}"
        )
    return chosen
