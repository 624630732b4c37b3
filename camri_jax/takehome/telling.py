"""What tuning found, in sentences and as a table for people."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from camri_jax.evidence.sheets import Cell, Sheet, number
from camri_jax.evidence.statistics import percent
from camri_jax.evidence.tables import FEW_IMAGES
from camri_jax.guarantee import (
    ASSUMPTION,
    Certificate,
    Certificates,
    Measure,
    rounded_down,
)
from camri_jax.takehome.picking import Finalist, Goal, Offset
from camri_jax.training.methods import BASELINE, METHODS, describe


def paragraph(
    goal: Goal,
    class_names: Sequence[str],
    finalists: Sequence[Finalist],
    chosen: Finalist,
) -> list[str]:
    """Returns what is known of the chosen model, for a reader in a hurry.

    Args:
      goal: what was asked.
      class_names: of the data.
      finalists: all of them.
      chosen: one of them.
    """
    name = title(chosen)
    if chosen.certified:
        assert chosen.certificate is not None
        found = [f"{name} {promised(chosen.certificate, class_names)}"]
    else:
        certificates = [f.certificate for f in finalists if f.certificate is not None]
        found = [
            *(limits(certificates[0], class_names) if certificates else []),
            f"The best model all the same, WITHOUT a promise: {name}. "
            + _reached(goal, chosen),
        ]
    return [
        *found,
        *_priced(goal, class_names, chosen),
        *_compared(finalists, chosen),
        *([f"Assumption: {ASSUMPTION}"] if chosen.certified else []),
    ]


def promised(
    certificate: Certificate | Certificates, class_names: Sequence[str]
) -> str:
    """Returns the promise as the end of a sentence that begins with a model.

    Args:
      certificate: a certified one.
      class_names: of the data.
    """
    parts = certificate.parts
    recalls = " and ".join(
        f"at least {percent(part.recall)} of the images of {_names(part, class_names)}"
        + " in a new group, on average over groups" * in_groups(part)
        for part in parts
    )
    sources = " and ".join(_source(part) for part in parts)
    confidence = parts[0].confidence
    many = ", all at once," if len(parts) > 1 else ","
    return f"finds {recalls}{many} {percent(confidence)} confidence, from {sources}."


def limits(
    certificate: Certificate | Certificates, class_names: Sequence[str]
) -> list[str]:
    """Returns why there is no promise, and what there could be.

    Args:
      certificate: one that is not certified.
      class_names: of the data.
    """
    found = []
    for part in certificate.parts:
        name, unit = _names(part, class_names), "images"
        n = part.num_images
        if part.num_groups is not None and in_groups(part):
            n, unit = part.num_groups, "groups"
        shared = f" for {part.candidates} models" if part.candidates > 1 else ""
        needed = part.num_needed
        if n >= needed and part.certified:
            continue
        limit = rounded_down(part.largest_certifiable)
        text = f"No recall of {percent(part.recall)} can be certified for {name}: "
        if n < needed:
            text += (
                f"{_source(part)} certify at most {percent(limit)}{shared} at "
                f"{percent(part.confidence)} confidence; it takes {needed:,} {unit} "
                f"of which none is missed, {needed - n:,} more"
            )
        else:
            text += (
                f"{_source(part)} are enough, but too many of them are found at no "
                "offset, for other important classes lead there"
            )
            if isinstance(certificate, Certificates):
                text += ", or at none at which the other classes are certified too"
        found.append(text + ".")
    return found


def title(finalist: Finalist) -> str:
    """Returns a finalist's method, setting and offset in words."""
    label, setting = METHODS[finalist.method].label, describe(finalist.point)
    label = label[0].upper() + label[1:]
    own = [*([setting] if setting else []), f"offset {offset_text(finalist.offset)}"]
    return f"{label} ({', '.join(own)})"


def offset_text(offset: Offset) -> str:
    """Returns an offset as it is shown.

    >>> offset_text(1.5), offset_text((0.0, 2.0))
    ('+1.5', '+0, +2')
    """
    values = offset if isinstance(offset, tuple) else (offset,)
    return ", ".join(f"{value:+.4g}" for value in values)


def counted(measure: Measure, digits: int = 3, unit: str = "") -> str:
    """Returns a value with its k of n and its interval."""
    if measure.value is None:
        return "none"
    return (
        f"{measure.value:.{digits}f}{unit} ({measure.count:,} of {measure.total:,}; "
        f"95 % interval {measure.low:.{digits}f} to {measure.high:.{digits}f})"
    )


ALARMS = " false alarms per 1,000 images"


def table(finalists: Sequence[Finalist], chosen: Finalist) -> pd.DataFrame:
    """Returns a line a finalist: on validation images, then on test images."""
    return pd.DataFrame([_line(each, chosen) for each in finalists])


def sheet(frame: pd.DataFrame, name: str) -> Sheet:
    """Returns the table of finalists for a terminal or a page.

    Args:
      frame: from `table`.
      name: of the important classes.
    """
    lines: list[Any] = list(frame.itertuples())
    promised = any(line.chosen and line.certified for line in lines)
    how = "of those certified" if promised else "NOT certified, as none is, but"
    rows = [
        [
            Cell(
                f"{line.method} {line.setting}".rstrip(),
                line.method,
                "best" if line.chosen else "",
            ),
            Cell(line.offset),
            Cell("yes" if line.certified else "no"),
            number(line.validation_false_alarms, 1),
            Cell(line.found_each, float(line.found)),
            number(line.false_alarms, 1),
            number(line.accuracy, 3),
            Cell(
                ""
                if pd.isna(line.dearer)
                else f"{line.dearer:+.1f} [{line.dearer_low:+.1f}, "
                f"{line.dearer_high:+.1f}]"
            ),
        ]
        for line in lines
    ]
    return Sheet(
        f"Finalists. Important class: {name}",
        f"* is taken: {how} the one of fewest false alarms on validation images. "
        "False alarms are per 1,000 images. The columns from found on are of test "
        "images. "
        "The last column is the difference to cross-entropy at its own offset, with "
        "its 95 % interval.",
        [
            *("method, setting", "offset", "certified", "validation\nfalse alarms"),
            *("found", "false\nalarms", "accuracy", "against\ncross-entropy"),
        ],
        rows,
    )


def _line(each: Finalist, chosen: Finalist) -> dict[str, Any]:
    price, against = each.price, each.against
    alarms = None if against is None else against.false_alarms
    nan = float("nan")
    return {
        "method": METHODS[each.method].label,
        "setting": describe(each.point),
        "trial_id": each.trial_id,
        "seeds": len(each.seeds),
        "chosen": each is chosen,
        "certified": each.certified,
        "offset": offset_text(each.offset),
        "validation_false_alarms": each.validation[0],
        "validation_accuracy": each.validation[1],
        "found": price.recall.count,
        "important": price.recall.total,
        "found_each": ", ".join(f"{found} of {total}" for found, total in each.found),
        "recall_low": price.recall.low,
        "recall_high": price.recall.high,
        "false_alarms": price.false_alarms.value,
        "false_alarms_low": price.false_alarms.low,
        "false_alarms_high": price.false_alarms.high,
        "precision": price.precision.value,
        "accuracy": price.accuracy.value,
        "dearer": nan if alarms is None else alarms.change,
        "dearer_low": nan if alarms is None else alarms.change_low,
        "dearer_high": nan if alarms is None else alarms.change_high,
    }


def _priced(goal: Goal, class_names: Sequence[str], chosen: Finalist) -> list[str]:
    """What it found and what it costs, on test images."""
    price = chosen.price
    alarms, accuracy = price.false_alarms, price.accuracy
    each = [
        f"{found:,} of {total:,} of {'+'.join(class_names[k] for k in classes)}"
        for (found, total), (classes, _) in zip(chosen.found, goal.parts, strict=True)
    ]
    apart = f": {', '.join(each)}" * (len(each) > 1)
    few = price.recall.total < FEW_IMAGES
    where = (
        ""
        if price.prior is None
        else f" where {percent(price.prior)} of the images are important"
    )
    return [
        f"On test images it found {price.recall.count:,} of {price.recall.total:,} "
        f"(95 % interval {price.recall.low:.3f} to {price.recall.high:.3f}){apart}."
        + (" So few images say little." if few else ""),
        f"Price{where}: {counted(alarms, 1, ALARMS)} instead of {_before(alarms):.1f} "
        f"without an offset, accuracy {counted(accuracy)} instead of "
        f"{_before(accuracy):.3f}.",
    ]


def _before(measure: Measure) -> float:
    assert measure.value is not None
    assert measure.change is not None
    return measure.value - measure.change


def _compared(finalists: Sequence[Finalist], chosen: Finalist) -> list[str]:
    """Whether it is cheaper than cross-entropy, and whether that is shown."""
    if chosen.method == BASELINE:
        if len(finalists) == 1:
            return []
        own = chosen.validation[0]
        cheaper = [each for each in finalists if each.validation[0] < own]
        if not cheaper:
            return [
                "No other loss of the finalists was cheaper on validation images than "
                "this, cross-entropy."
            ]
        # The calibration images were enough for some of the finalists only.
        return [
            f"{METHODS[cheaper[0].method].label} was cheaper on validation images than "
            "this, cross-entropy, but comes without a promise."
        ]
    if chosen.against is None:
        return ["There is no trial of cross-entropy to compare it with."]
    change = chosen.against.false_alarms
    assert change.change is not None
    low, high = change.change_low, change.change_high
    label = METHODS[chosen.method].label
    if change.change > 0:
        text = f"{label} is dearer than cross-entropy here by {change.change:.1f}"
    elif change.change < 0:
        low, high = -high, -low
        text = f"{label} is cheaper than cross-entropy here by {-change.change:.1f}"
    else:
        text = f"{label} costs as much as cross-entropy here: a difference of 0.0"
    shown = "shown" if low > 0 or high < 0 else "not shown"
    baseline = next(each for each in finalists if each.method == BASELINE)
    own = (
        ""
        if baseline.certified or not chosen.certified
        else " (cross-entropy at the offset that validation images picked, without a "
        "promise)"
    )
    return [
        f"{text}{ALARMS} (95 % interval {low:.1f} to {high:.1f}): {shown} at 95 %{own}."
    ]


def _reached(goal: Goal, chosen: Finalist) -> str:
    asked = " and ".join(percent(recall) for _, recall in goal.parts)
    if math.isinf(chosen.picked.false_alarms):
        return (
            f"No offset reaches {asked} on validation images, and none is applied: it "
            "is the model that does not tell these classes apart."
        )
    return f"Its offset is the least that reaches {asked} on validation images."


def in_groups(part: Certificate) -> bool:
    """Whether some of its images come together: pictures without copies do not.

    Args:
      part: of a certificate.
    """
    return part.num_groups is not None and part.num_groups < part.num_images


def _names(part: Certificate, class_names: Sequence[str]) -> str:
    return "+".join(class_names[k] for k in part.important)


def _source(part: Certificate) -> str:
    images = f"{part.num_images:,} calibration image" + "s" * (part.num_images != 1)
    if not in_groups(part):
        return images
    return f"{images} in {part.num_groups:,} groups"
