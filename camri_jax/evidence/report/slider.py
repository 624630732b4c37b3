"""What moves with the recall that is asked: numbers, sentence, confusion matrix."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from markupsafe import Markup

from camri_jax.evidence import curves, figures
from camri_jax.evidence.figures import looks
from camri_jax.evidence.figures.drawings import ASKED, certifiable
from camri_jax.evidence.measures import measures, moved_confusion
from camri_jax.evidence.report import svg
from camri_jax.evidence.selection import title_of
from camri_jax.evidence.sheets import visible
from camri_jax.evidence.statistics import interval, percent
from camri_jax.evidence.study import Choice, Study
from camri_jax.guarantee import rounded_down
from camri_jax.training.methods import BASELINE, METHODS

_MARKERS = dict(zip("o^vDPs*X<>dph", "●▲▼◆✚■★✖◀▶♦⬟⬢", strict=True))
_CERTIFIED = (
    " A large mark stands for a model whose offset calibration images certify: what "
    "that promises to find, and what it costs on test images. It may lie off the "
    "curve, whose thresholds know these."
)

_FEW = 9  # classes up to which the confusion matrix of the page has all
_KEPT = 6  # classes that it shows of more


class Row(NamedTuple):
    """A method in the table of prices."""

    method: str
    title: str
    marker: str
    colour: str
    texts: Sequence[str]


class Confusion(NamedTuple):
    """A confusion matrix; `rows` hold for each cell its text and its share."""

    names: Sequence[str]
    important: Sequence[int]
    rows: Sequence[Sequence[tuple[str, float]]]
    caption: str


class Slider(NamedTuple):
    """Everything around the slider, as it is where the slider starts."""

    asked: Sequence[str]
    start: int
    said: str
    rows: Sequence[Row]
    caption: str
    pictures: Sequence[Markup]
    legend: str
    confusion: Confusion | None
    data: Markup


def slider(
    study: Study,
    important: Choice,
    prices: pd.DataFrame,
    priced: pd.DataFrame,
    taken: pd.Series | None,
    *,
    name: str,
    recall: float,
    certified: Sequence[Mapping[str, Any]] = (),
) -> Slider | None:
    """Returns what moves with the recall that is asked.

    Args:
      study: from `camri_jax.evidence.study.load`.
      important: the choice of important classes.
      prices: from `camri_jax.evidence.curves.prices` at `ASKED`.
      priced: those of them to show, of one setting a method at each recall.
      taken: the trial that is recommended, if any.
      name: an identifier within the page.
      recall: where the slider starts.
      certified: promised recalls and what they cost, to be marked in the pictures.

    Returns:
      The slider; None where no trial kept its logits, so that no threshold can move,
      or no setting reaches any of these recalls with every seed.
    """
    priced = curves.of_all_seeds(priced)
    if priced["false_alarms"].isna().all():
        return None
    start = int(np.abs(np.array(ASKED) - recall).argmin())
    names = {str(m): title_of(lines) for m, lines in priced.groupby("method")}
    tables = [_rows(priced[priced["asked"] == asked], names) for asked in ASKED]
    class_name = visible(study.name(important))
    emphasis = None if taken is None else str(taken["method"])
    # Where several classes have a recall each, none is promised for all together.
    apart = taken is not None and pd.isna(taken.get("recall", 0.0))
    most = None if apart else certifiable(study, important)
    pictures, places = [], []
    for measure in figures.AXES:
        picture, at = svg.with_cursor(
            lambda measure=measure: figures.price(
                priced,
                class_name,
                measures=[measure],
                certifiable=most,
                certified=certified,
                emphasis=emphasis,
            ),
            f"{name}-{measure}",
            ASKED,
            start,
        )
        pictures.append(picture)
        places.append(at)
    trial = None if taken is None else taken["trial_id"]
    line = prices[prices["trial_id"] == trial]
    said, confusions = _of_taken(study, important, line, class_name)
    if most is not None:
        limit = percent(rounded_down(most))
        told = f" No such recall can be certified here: at most {limit} can."
        said = [
            text + told * bool(text and asked > most)
            for asked, text in zip(ASKED, said, strict=True)
        ]
    data = {
        "asked": [percent(asked) for asked in ASKED],
        "said": said,
        "rows": [{row.method: row.texts for row in rows} for rows in tables],
        "confusion": [
            [cell for row in each.rows for cell in row] for each in confusions
        ],
        "places": places,
    }
    return Slider(
        data["asked"],
        start,
        said[start],
        tables[start],
        "Thresholds are moved on these very test images, to where just that many are "
        "found: this is what a recall costs each network, not a promise. Means over "
        "seeds, in brackets the lowest and the highest. More than cross-entropy: of "
        "the same seeds at the same recall, with its 95 % interval.",
        pictures,
        f"The line is the mean over seeds, the band reaches {looks.BAND}. The "
        "horizontal axis is logarithmic in the share that is missed."
        + _CERTIFIED
        * bool(certified),
        confusions[start] if confusions else None,
        # A class may be called </script>.
        Markup(json.dumps(data, allow_nan=False).replace("<", "\\u003c")),
    )


def _rows(priced: pd.DataFrame, names: Mapping[str, str]) -> list[Row]:
    """The methods at one recall, the cheapest first; those that miss it last."""
    rows = []
    for method, lines in priced.groupby("method", sort=False):
        entry = METHODS[str(method)]
        looked = (_MARKERS.get(entry.marker, "●"), entry.colour or "inherit")
        key = lines["false_alarms"].mean()
        row = Row(str(method), names[str(method)], *looked, _texts(lines))
        rows.append((key, row))
    rows.sort(key=lambda pair: (np.isnan(pair[0]), pair[0]))
    return [row for _, row in rows]


def _texts(lines: pd.DataFrame) -> list[str]:
    reached = int(lines["recall"].notna().sum())
    if reached < len(lines):
        some = f" by {len(lines) - reached}" * (reached > 0)
        return [f"not reached{some}", "", "", "", str(len(lines))]
    number, recall = lines["num_important"].iloc[0], lines["recall"].mean()
    single = len(lines["important"].iloc[0]) == 1
    return [
        # The recall of several classes is the mean of theirs, and counts no images.
        f"{recall * number:.0f} of {number}" if single else f"{recall:.3f}",
        _range(lines["false_alarms"], 1),
        "" if lines["method"].iloc[0] == BASELINE else _difference(lines),
        _range(lines["accuracy"], 3),
        str(reached),
    ]


def _range(values: pd.Series, digits: int) -> str:
    mean, low, high = (
        f"{value:.{digits}f}" for value in (values.mean(), values.min(), values.max())
    )
    return mean if low == high else f"{mean} ({low} to {high})"


def _difference(lines: pd.DataFrame) -> str:
    values = lines["false_alarms_difference"].to_numpy(float)
    if np.isnan(values).all():
        return ""
    low, high = interval(values)
    text = f"{np.nanmean(values):+.1f}"
    return text if np.isnan(low) else f"{text} ({low:+.1f} to {high:+.1f})"


def _of_taken(
    study: Study, important: Choice, line: pd.DataFrame, name: str
) -> tuple[list[str], list[Confusion]]:
    """Sentence and confusion matrix of the recommended trial at each recall asked."""
    trial = list(line["trial_id"].unique())
    logits = [values for _, values in study.logits("test", trial)] if trial else []
    if not logits:
        return ["" for _ in ASKED], []
    labels = study.data.labels["test"]
    offsets = line["offset"].astype(float)
    # A recall that no offset reaches is answered by the highest that there is.
    highest = curves.curve(logits[0], labels, important)["offset"].iloc[-1]
    as_trained, *counts = (
        moved_confusion(logits[0], labels, important, offset)
        for offset in (0.0, *offsets.fillna(highest))
    )
    said = [
        _say(asked, offset, moved, as_trained, important, name)
        for asked, offset, moved in zip(ASKED, offsets, counts, strict=True)
    ]
    return said, _lay_out(counts, important, study.data.class_names)


def _say(
    asked: float,
    offset: float,
    moved: np.ndarray,
    as_trained: np.ndarray,
    important: Choice,
    name: str,
) -> str:
    if np.isnan(offset):
        return f"No offset makes this model find {percent(asked)} of {name}."
    inside = list(important)
    number = moved[inside].sum()
    found, before = (np.trace(m[np.ix_(inside, inside)]) for m in (moved, as_trained))
    now, then = measures(moved, important), measures(as_trained, important)
    return (
        f"To find {percent(asked)} of {name}, the recommended model needs "
        f"{offset:+.2f} on its logit: then it finds {found} of {number} test images, "
        f"as trained {before}; with {now['false_alarms']:.1f} false alarms per 1,000 "
        f"images, as trained {then['false_alarms']:.1f}; at accuracy "
        f"{now['accuracy']:.3f}, as trained {then['accuracy']:.3f}."
    )


def _lay_out(
    counts: Sequence[np.ndarray], important: Choice, class_names: Sequence[str]
) -> list[Confusion]:
    """The matrices of few classes; of many, those mixed up with important ones."""
    total, inside = np.sum(counts, axis=0), list(important)
    mixed = total[inside].sum(0) + total[:, inside].sum(1)
    mixed[inside] = mixed.max() + 1
    kept = np.arange(len(class_names))
    if len(kept) > _FEW:
        most = np.argsort(-mixed, kind="stable")[: _KEPT + len(inside)]
        kept = np.sort(most[mixed[most] > 0])
    names = [class_names[int(k)] for k in kept]
    caption = "Numbers of test images; the shade is the share of the true class."
    group = np.full(len(class_names), len(kept))
    group[kept] = np.arange(len(kept))
    if len(kept) < len(class_names):
        others = len(class_names) - len(kept)
        names.append(f"{others} others")
        caption += (
            f" Of {len(class_names)} classes, those that are mixed up most with it are "
            "shown; the others are taken together."
        )
    marked = [int(group[k]) for k in inside]
    return [
        Confusion(names, marked, _cells(matrix, group), caption) for matrix in counts
    ]


def _cells(matrix: np.ndarray, group: np.ndarray) -> list[list[tuple[str, float]]]:
    """Texts and shares of a matrix whose classes are taken together by group."""
    small = np.zeros((group.max() + 1,) * 2, int)
    np.add.at(small, (group[:, None], group), matrix)
    shares = (small / np.maximum(small.sum(1, keepdims=True), 1)).round(3)
    texts = [[str(number or "") for number in row] for row in small.tolist()]
    return [
        list(zip(*row, strict=True)) for row in zip(texts, shares.tolist(), strict=True)
    ]
