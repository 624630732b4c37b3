"""One page of HTML that answers first, and then holds everything.

`page` returns it; it needs no network and no other file. Pictures are SVG in the page's
own colours, light or dark; a few lines of JavaScript sort tables and move the recall
that is asked, and without them the page reads as well.
"""

import datetime
import importlib.metadata
import math
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

import jinja2
import pandas as pd
from markupsafe import Markup, escape

from camri_jax._files import UsageError, fraction
from camri_jax.evidence import curves, selection, tables, verdicts
from camri_jax.evidence.figures import drawings
from camri_jax.evidence.report import slider, svg, words
from camri_jax.evidence.sheets import SIGNS, Cell, Sheet, visible
from camri_jax.evidence.statistics import ACCURACY_MARGIN, percent
from camri_jax.evidence.study import POINT, Choice, Study, notes
from camri_jax.sweeps.rows import columns_of
from camri_jax.training.methods import HYPERPARAMETERS

__all__ = ["Promise", "page"]

_VERSIONS = ("camri-jax", "matplotlib", "scipy")


class Promise(NamedTuple):
    """What was chosen among finalists, where a page reports that.

    Attributes:
      sentences: for people, the most important first.
      finalists: the table of them.
      taken: the row of the one that was chosen.
      lines: for each finalist `method`, `point` (its hyperparameters), `trial_id`,
        `certified`, the `recall` that it was asked for (NaN: one for each class), and
        what its offset costs on test images, `false_alarms` and `accuracy`.
    """

    sentences: Sequence[str]
    finalists: Sheet
    taken: int
    lines: Sequence[Mapping[str, Any]]


class _Part(NamedTuple):
    """What is folded: sheets or a picture, or the reason why there are none."""

    key: str
    title: str
    caption: str = ""
    why: str = ""
    sheets: Sequence[Sheet] = ()
    picture: Markup | None = None


class _Section(NamedTuple):
    """One choice of important classes."""

    title: str
    name: str
    answer: words.Answer
    ranked: Sheet
    taken: int | None
    slider: slider.Slider | None
    parts: Sequence[_Part]


def page(
    study: Study,
    *,
    accuracy_margin: float = ACCURACY_MARGIN,
    recall: float = 0.95,
    command: str = "",
    promise: Promise | None = None,
) -> str:
    """Returns the page.

    Args:
      study: from `camri_jax.evidence.study.load`.
      accuracy_margin: loss of accuracy that counts as none.
      recall: where the slider starts.
      command: that made the page, to print it there.
      promise: what to open with in place of the recommended trial, for a study of one
        choice of important classes.

    Returns:
      HTML that asks nothing of the network.

    Raises:
      UsageError: without cross-entropy to compare with, or an argument is out of range.
    """
    fraction("recall", recall)
    sections = [
        _section(study, choice, f"s{i}", accuracy_margin, recall, promise)
        for i, choice in enumerate(study.choices, start=1)
    ]
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        # No name of a class or a path may hide or reverse what follows.
        finalize=lambda value: visible(value) if _is_text(value) else value,
    )
    template = environment.from_string(_read("page.html.jinja"))
    return template.render(
        title=f"What to take, and what it costs: {study.data.dataset}",
        sections=sections,
        glossary=words.GLOSSARY,
        facts=words.settings(study, study.choices),
        grid=words.grid(study.rows),
        origins=[*words.origins(study.rows), _this_page(command)],
        css=Markup(_read("page.css")),
        js=Markup(_read("page.js")),
        least=percent(slider.ASKED[0]),
        named=named,
        shown=_shown,
        value=_value,
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not isinstance(value, Markup)


def _read(name: str) -> str:
    return resources.files(__name__).joinpath(name).read_text(encoding="utf-8")


def _section(
    study: Study,
    choice: Choice,
    key: str,
    accuracy_margin: float,
    recall: float,
    promise: Promise | None,
) -> _Section:
    name = study.name(choice)
    table = tables.comparison(study, choice, accuracy_margin=accuracy_margin)
    trials = selection.trials(study, choice)
    picked = selection.recommend(trials)
    ranked, taken = words.ranked(table, picked)
    prices = curves.prices(study, choice, slider.ASKED)
    priced = curves.cheapest(study, choice, slider.ASKED)
    parts = _parts(study, choice, trials, priced, table, key, accuracy_margin)
    answer = words.answer(
        table,
        picked,
        name,
        accuracy_margin=accuracy_margin,
        # Successive halving gives no setting more seeds than it deserves.
        notes=notes(study) if promise is None else study.aside,
    )
    trial = picked.trial
    certified: Sequence[Mapping[str, Any]] = ()
    if promise is None:
        told = f"{ranked.caption} Shaded: the recommended model's."
        ranked = ranked._replace(caption=told)
    else:
        # What a sweep would recommend is picked otherwise, and is no finalist.
        lead, *sentences = promise.sentences
        answer = answer._replace(lead=lead, sentences=sentences, findings=())
        how = "All methods, at thresholds that keep cross-entropy's accuracy"
        parts.insert(0, _Part("ranked", how, sheets=[ranked]))
        ranked, taken = promise.finalists, promise.taken
        finalists = pd.DataFrame(
            [
                {"method": x["method"], "by_class": ""} | columns_of(x["point"])
                for x in promise.lines
            ]
        ).reindex(columns=["method", *POINT])
        finalists = finalists.drop_duplicates("method").astype(
            dict.fromkeys(HYPERPARAMETERS, float)
        )
        priced = prices.merge(finalists, on=["method", *POINT])
        trial = pd.Series(promise.lines[promise.taken])
        certified = [line for line in promise.lines if line["certified"]]
    return _Section(
        f"Important class: {name}",
        name,
        answer,
        ranked,
        taken,
        slider.slider(
            study,
            choice,
            prices,
            priced,
            trial,
            name=key,
            recall=recall,
            certified=certified,
        ),
        parts,
    )


def _parts(
    study: Study,
    choice: Choice,
    trials: pd.DataFrame,
    priced: pd.DataFrame,
    table: pd.DataFrame,
    key: str,
    accuracy_margin: float,
) -> list[_Part]:
    """What is folded; what cannot be made says why."""
    name, chosen = study.name(choice), tables.chosen(table)

    def costs() -> Sheet:
        found = priced[priced["asked"].isin(curves.RECALLS)]
        if found.empty:
            raise UsageError("no trial kept its logits")
        return tables.prices_sheet(verdicts.price_differences(found), name)

    def spreads() -> Sheet:
        found, missing = tables.angles(study, choice, chosen)
        if found.empty:
            raise UsageError("; ".join(missing))
        return tables.angles_sheet(found, name)

    def seeds() -> Sheet:
        options = {"accuracy_margin": accuracy_margin}
        return tables.power_sheet(tables.power(trials, **options), name, **options)

    sheets = tables.comparison_sheets(table, name, accuracy_margin=accuracy_margin)
    drawn = drawings(study, choice, trials)
    return [
        _Part("tables", "Table I, other measures, differences", sheets=sheets),
        _made("prices", "What recalls cost, tested", costs),
        _made("angles", "Table II: how far features spread", spreads),
        *(
            _pictured(part, drawn[part], f"{key}-{part}")
            for part in ("penalties", "confusions", "training")
        ),
        _made("seeds", "Seeds that a claim needs", seeds),
    ]


def _made(key: str, title: str, make: Callable[[], Sheet]) -> _Part:
    try:
        return _Part(key, title, sheets=[make()])
    except UsageError as error:
        return _Part(key, title, why=str(error))


def _pictured(key: str, drawing: Any, name: str) -> _Part:
    try:
        picture = svg.inline(drawing.draw, name)
    except UsageError as error:
        return _Part(key, drawing.title, why=str(error))
    return _Part(key, drawing.title, drawing.caption, picture=picture)


def _this_page(command: str) -> words.Origin:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    versions = [f"{name} {importlib.metadata.version(name)}" for name in _VERSIONS]
    return words.Origin(
        command or "camri_jax.evidence.report.page",
        {"this page was made": now, "versions": ", ".join(versions)},
    )


def _headings(columns: Sequence[str]) -> list[str]:
    """Columns' names in one line, each of which is clear by itself."""
    found, above = [], ""
    for column in columns:
        first, _, second = column.partition("\n")
        above = first or above
        found.append(" ".join((above, second)).replace("- ", "-").strip())
    return found


def named(sheet: Sheet) -> Sheet:
    """Returns a sheet whose rows may come in any order.

    Args:
      sheet: whose rows of moved thresholds rely on the row above to name the method.
    """
    rows = []
    for first, *others in sheet.rows:
        if first.alone:
            first = first._replace(text=first.alone, value=first.alone)
        rows.append([first._replace(value=first.value or first.text), *others])
    return sheet._replace(columns=_headings(sheet.columns), rows=rows)


def _shown(cell: Cell) -> Markup:
    """A cell's text and the sign of its mark."""
    first, *others = (escape(visible(line)) for line in cell.text.split("\n"))
    if cell.mark in ("best", "shown"):
        first = Markup("<strong>{}{}</strong>").format(first, SIGNS[cell.mark])
    elif cell.mark:
        first = Markup("{}{}").format(first, SIGNS[cell.mark])
    small = (Markup("<small>{}</small>").format(line) for line in others)
    return Markup("<br>").join([first, *small])


def _value(cell: Cell) -> str:
    """What a cell is sorted by; empty for a blank one."""
    if isinstance(cell.value, float) and math.isinf(cell.value):
        return "Infinity" if cell.value > 0 else "-Infinity"
    return "" if cell.value is None else str(cell.value)
