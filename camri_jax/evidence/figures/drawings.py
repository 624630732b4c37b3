"""The pictures of a study, for whoever writes or embeds them."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from camri_jax import guarantee
from camri_jax._files import UsageError
from camri_jax.evidence import curves, selection
from camri_jax.evidence.figures import looks
from camri_jax.evidence.figures.confusions import confusions
from camri_jax.evidence.figures.penalties import penalties
from camri_jax.evidence.figures.price import price
from camri_jax.evidence.figures.training import training
from camri_jax.evidence.measures import moved_confusion
from camri_jax.evidence.selection import KEY, title
from camri_jax.evidence.study import Choice, Study
from camri_jax.training.methods import BASELINE

ASKED = (*(i / 100 for i in range(80, 100)), *(i / 1000 for i in range(991, 1000)))
"""Recalls at which prices are drawn."""


class Drawing(NamedTuple):
    """A picture that is yet to be drawn.

    Attributes:
      title: its heading.
      caption: what it shows.
      draw: draws it, or raises `UsageError` with the reason why it cannot be.
    """

    title: str
    caption: str
    draw: Callable[[], Figure]


def drawings(
    study: Study, important: Choice, trials: pd.DataFrame
) -> dict[str, Drawing]:
    """Returns the pictures of a study by name: price, penalties, confusions, training.

    Each method is in the setting that was picked on validation images or, without any,
    on test images: by the paper's rule or, for the price, at each recall the cheapest.

    Args:
      study: from `camri_jax.evidence.study.load`.
      important: the choice of important classes.
      trials: from `camri_jax.evidence.selection.trials`.

    Raises:
      UsageError: without cross-entropy to compare with.
    """
    settings = selection.settings(trials)
    selected = selection.select(settings, on=selection.held_out(settings))
    name = study.name(important)
    return {
        "price": Drawing(
            "What each recall costs",
            "The threshold is moved for all, on the test images themselves, to where "
            "just that many are found, and each method is in the setting that is the "
            "cheapest there on validation images. The line is the mean over seeds, the "
            f"band reaches {looks.BAND}; the horizontal axis is logarithmic in the "
            "share that is missed.",
            lambda: price(
                curves.cheapest(study, important, ASKED),
                name,
                certifiable=certifiable(study, important),
                emphasis="camri",
            ),
        ),
        "penalties": Drawing(
            "Fig. 3: the penalty",
            "Recall and accuracy against the penalty, mean over seeds in a band of one "
            "standard deviation. Dotted: cross-entropy.",
            lambda: penalties(settings, selected, name),
        ),
        "confusions": Drawing(
            "Fig. 4: what is taken for what",
            "Confusion matrix of cross-entropy, and what others change of it, mean "
            "over seeds. The important class is framed.",
            lambda: confusions(
                _matrices(study, important, trials, selected),
                study.data.class_names,
                important,
            ),
        ),
        "training": Drawing(
            "Training curves",
            "Recall and accuracy after each epoch, mean over seeds.",
            lambda: training(study.of(important), selected, important, name),
        ),
    }


def certifiable(study: Study, important: Choice) -> float | None:
    """Returns the largest recall that the calibration images can certify.

    Args:
      study: from `camri_jax.evidence.study.load`.
      important: the choice of important classes.

    Returns:
      At 95 % confidence, from the number of images, or of groups of images that are not
      independent; None without calibration images, and for several classes: no offset
      that they share finds what one of them loses to another, so that the number of
      images would promise too much.
    """
    if len(important) > 1:
        return None
    labels = study.data.labels.get("calibration", np.zeros(0))
    groups = study.data.groups.get("calibration")
    number = guarantee.sample_size(labels, important, groups)
    return guarantee.largest_certifiable(number) if number else None


def _matrices(
    study: Study, important: Choice, trials: pd.DataFrame, selected: pd.DataFrame
) -> dict[str, np.ndarray]:
    """Cross-entropy as trained, CAMRI or else another method, cross-entropy moved."""
    lines = {(line["method"], line["moved"]): line for _, line in selected.iterrows()}
    others = [method for method, moved in lines if not moved and method != BASELINE]
    other = "camri" if "camri" in others else next(iter(others), BASELINE)
    wanted = dict.fromkeys(((BASELINE, False), (other, False), (BASELINE, True)))
    found = {}
    for key in wanted:
        if key in lines:
            line = lines[key]
            counts = _counts(study, important, trials, line)
            found[f"{title(line)}, n={len(counts)}"] = counts
    if len(found) < 2:
        raise UsageError("there is only cross-entropy, and nothing to compare it with")
    return found


def _counts(
    study: Study, important: Choice, trials: pd.DataFrame, line: pd.Series
) -> np.ndarray:
    """Test confusion matrices `[trial, true, predicted]` of a setting."""
    own = trials[~trials["diverged"].astype(bool)]
    own = own.merge(line[KEY].to_frame().T.astype(own[KEY].dtypes), on=KEY)
    if line["moved"]:
        labels, offsets = study.data.labels["test"], own.set_index("trial_id")["offset"]
        found = [
            moved_confusion(logits, labels, important, offsets[trial_id])
            for trial_id, logits in study.logits("test", list(offsets.index))
        ]
    else:
        rows = study.rows[study.rows["trial_id"].isin(own["trial_id"])]
        found = list(rows["test_confusion"])
    size = len(study.data.class_names)
    return np.array(found, float).reshape(-1, size, size)
