"""The picture holds what the table holds, and is written as a picture."""

import numpy as np
import pytest
from test_analysis import rows_of

from camri_jax import analysis, figures
from camri_jax.methods import METHODS


@pytest.fixture
def drawn():
    numbers = analysis.settings(
        analysis.trials(
            rows_of(
                ("cross_entropy", None, (50, 90), (50, 90)),
                ("camri", 0.1, (55, 86), (52, 90)),
                ("camri", 0.2, (60, 80), (51, 80)),
            )
        )
    )
    return figures.recall_accuracy(numbers, analysis.select(numbers)), numbers


def test_every_setting_is_a_marker_and_every_method_in_the_legend(drawn):
    figure, numbers = drawn
    (panel,) = figure.axes
    points = {
        (float(x), float(y))
        for line in panel.lines
        for x, y in zip(
            np.ravel(line.get_xdata()), np.ravel(line.get_ydata()), strict=True
        )
    }
    for line in numbers.itertuples():
        assert (line.accuracy, line.recall) in points
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert [text.split("  ")[0] for text in texts] == [
        "cross-entropy",
        "cross-entropy, threshold moved",
        "CAMRI",
        "CAMRI, threshold moved",
    ]


def test_a_picture_is_written(drawn, tmp_path):
    figures.save(drawn[0], tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_every_method_has_a_look_of_its_own():
    assert set(figures.STYLES) == set(METHODS)
    colours, markers = zip(*figures.STYLES.values(), strict=True)
    assert len(set(colours)) == len(set(markers)) == len(figures.STYLES)


def test_a_moved_threshold_has_its_methods_look_but_hollow():
    for name in METHODS:
        plain, hollow = figures.style(name), figures.style(analysis.moved(name))
        assert hollow.pop("markerfacecolor") != plain.pop("markerfacecolor")
        assert hollow == plain
