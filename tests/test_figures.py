"""Pictures hold what the rows hold, on light pages and dark, and say it in words."""

import io

import matplotlib as mpl
import matplotlib.style
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from PIL import Image
from synthetic import CLASSES, CONSTANTS, SPECS, Spec, rows
from test_analysis import rows_of
from test_results import frame

from camri_jax.evidence import figures, verdicts
from camri_jax.evidence import selection as analysis
from camri_jax.training.methods import METHODS

BASELINE = Spec("cross_entropy")


def numbers(given):
    """Rows, trials, settings and selected settings."""
    given = frame(given)
    trials = analysis.trials(given)
    settings = analysis.settings(trials)
    held_out = settings["validation_recall"].notna().any()
    on = "validation" if held_out else "test"
    return given, trials, settings, analysis.select(settings, on=on)


def drawings(given):
    """Every picture of some rows."""
    given, trials, settings, selected = numbers(given)
    return {
        "recall_accuracy": figures.recall_accuracy(settings, selected),
        "penalties": figures.penalties(settings, selected),
        "confusion_matrices": figures.confusion_matrices(given, trials, selected),
        "training": figures.training(given, selected),
        "tradeoff": figures.tradeoff(given, selected),
    }


@pytest.fixture(scope="module")
def light():
    return drawings(rows(important=((1,), (0, 2))))


@pytest.fixture
def drawn():
    _, _, settings, selected = numbers(
        rows_of(
            ("cross_entropy", None, (50, 90), (50, 90)),
            ("camri", 0.1, (55, 86), (52, 90)),
            ("camri", 0.2, (60, 80), (51, 80)),
        ).to_dict("records")
    )
    return figures.recall_accuracy(settings, selected), settings


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


def test_every_method_has_a_look_of_its_own():
    assert set(figures.STYLES) == set(METHODS)
    colours, markers = zip(*figures.STYLES.values(), strict=True)
    assert len(set(colours)) == len(set(markers)) == len(figures.STYLES)


def test_a_moved_threshold_has_its_methods_look_but_hollow():
    for name in METHODS:
        plain, hollow = figures.style(name), figures.style(analysis.moved(name))
        assert hollow.pop("markerfacecolor") != plain.pop("markerfacecolor")
        assert hollow == plain


def line_at(place, label):
    (line,) = [line for line in place.lines if line.get_label() == label]
    return np.asarray(line.get_xdata()), np.asarray(line.get_ydata())


def matrices(given, spec, constant=0.0):
    """Test confusion matrices `[trial, true, predicted]` of a setting, class 1."""
    k = len(CLASSES)
    found = [
        np.reshape(row["test_curve"], (-1, k, k))[CONSTANTS.tolist().index(constant)]
        for row in given
        if row["method"] == spec.method
        and row["important"] == (1,)
        and all(row[name] == value for name, value in spec.point.items())
    ]
    return np.stack(found)


def mean_recall(given, spec, constant=0.0):
    return np.mean([m[1, 1] / m[1].sum() for m in matrices(given, spec, constant)])


def mean_accuracy(given, spec, constant=0.0):
    return np.mean([np.trace(m) / m.sum() for m in matrices(given, spec, constant)])


def test_penalties_are_drawn_at_their_values_beside_cross_entropy():
    weights = [
        Spec("weighted_cross_entropy", {"weight": w}, push=w / 8) for w in (2.0, 8.0)
    ]
    given = rows((*SPECS, *weights))
    _, _, settings, selected = numbers(given)
    figure = figures.penalties(settings, selected)
    wce, arcface, camri = figure.axes
    titles = [place.get_title() for place in figure.axes]
    assert titles == ["WCE\nn=4", "ArcFace s=16\nn=4", "CAMRI s=16\nn=4"]
    x, y = line_at(wce, "recall")
    assert x.tolist() == [1, 2, 4, 8]
    expected = [SPECS[0], weights[0], SPECS[1], weights[1]]
    np.testing.assert_allclose(y, [mean_recall(given, spec) for spec in expected])
    x, y = line_at(camri, "accuracy")
    np.testing.assert_allclose(x, [0, 4, 8])
    # Without a margin CAMRI is L2-softmax.
    expected = [SPECS[2], SPECS[4], SPECS[5]]
    np.testing.assert_allclose(y, [mean_accuracy(given, spec) for spec in expected])
    for place in (wce, arcface, camri):
        _, level = line_at(place, "cross-entropy's recall")
        np.testing.assert_allclose(level, mean_recall(given, SPECS[0]))


def test_penalties_keep_the_selected_scale():
    other = [
        Spec("camri", {"margin": m, "scale": 4.0}, skill=-1.0) for m in (0.1, 0.2, 0.3)
    ]
    _, _, settings, selected = numbers(rows((*SPECS, *other)))
    camri = figures.penalties(settings, selected).axes[-1]
    assert camri.get_title() == "CAMRI s=16\nn=4"
    assert len(line_at(camri, "recall")[0]) == 3


@pytest.mark.parametrize("methods", [["camri"], ["camri", "arcface"]])
def test_the_legend_of_the_penalties_lies_within_the_picture(methods):
    some = [
        Spec(method, {"margin": m, "scale": 16.0}) for method in methods for m in (1, 2)
    ]
    _, _, settings, selected = numbers(rows((SPECS[0], *some)))
    figure = figures.penalties(settings, selected)
    assert len(figure.axes) == len(methods)
    FigureCanvasAgg(figure).draw()
    (legend,) = figure.legends
    left, _, right, _ = legend.get_window_extent().extents
    assert 0 <= left < right <= figure.bbox.width


def test_without_two_penalties_there_is_nothing_to_draw():
    _, _, settings, selected = numbers(rows([SPECS[0], SPECS[4]]))
    with pytest.raises(ValueError, match="two weights, costs or margins"):
        figures.penalties(settings, selected)


def shares(counts):
    return 100 * np.mean([m / m.sum(1, keepdims=True) for m in counts], axis=0)


def test_confusion_matrices_are_means_of_shares_and_their_differences():
    given = rows(num_seeds=3)
    table, trials, _, selected = numbers(given)
    figure = figures.confusion_matrices(table, trials, selected)
    whole, change = (place.images[0].get_array() for place in figure.axes[:2])
    picked = selected.set_index("method").loc["camri"]
    (spec,) = [
        s
        for s in SPECS
        if s.method == "camri" and s.point["margin"] == picked["margin"]
    ]
    expected = shares(matrices(given, SPECS[0]))
    np.testing.assert_allclose(whole, expected)
    difference = shares(matrices(given, spec)) - expected
    np.testing.assert_allclose(change, difference, atol=1e-9)
    texts = {t.get_position(): t.get_text() for t in figure.axes[1].texts}
    for (true, predicted), value in np.ndenumerate(difference):
        if abs(value) > 0.06:
            assert texts[predicted, true] == f"{value:+.1f}"
    assert f"{difference[1, 1]:+.1f} percentage points" in figure.get_label()
    assert "n=3" in figure.axes[0].get_title()


def test_confusion_matrices_of_a_moved_threshold_are_at_each_seeds_constant():
    given = rows(num_seeds=3)
    table, trials, _, selected = numbers(given)
    figure = figures.confusion_matrices(
        table, trials, selected, "cross_entropy+threshold"
    )
    moved = trials[trials["method"] == "cross_entropy+threshold"]
    assert moved["constant"].any()
    expected = shares(
        [
            matrices(given, SPECS[0], constant)[seed]
            for seed, constant in zip(moved["seed"], moved["constant"], strict=True)
        ]
    ) - shares(matrices(given, SPECS[0]))
    change = figure.axes[1].images[0].get_array()
    np.testing.assert_allclose(change, expected, atol=1e-9)


def test_of_many_classes_only_the_important_one_has_numbers():
    k = 20
    rng = np.random.default_rng(0)
    names = [f"sign {i}" for i in range(k)]
    given = []
    for spec in (SPECS[0], SPECS[4]):
        for row in rows([spec], num_seeds=2):
            counts = rng.integers(0, 9, (len(CONSTANTS), k, k)) + 50 * np.eye(
                k, dtype=int
            )
            # One class has no test images.
            counts[:, 3] = 0
            row |= {"class_names": names, "test_curve": counts.ravel()}
            given.append(row | {"validation_curve": counts.ravel()})
    table, trials, _, selected = numbers(given)
    figure = figures.confusion_matrices(table, trials, selected)
    whole, change = figure.axes[:2]
    assert not whole.texts
    cells = [text.get_position() for text in change.texts]
    assert 1 < len(cells) <= 8
    assert all(1 in cell for cell in cells)
    assert np.isnan(np.ma.filled(whole.images[0].get_array(), np.nan)[3]).all()


def test_a_method_without_trials_has_no_confusion_matrix():
    given, trials, _, selected = numbers(rows([SPECS[0], SPECS[1]]))
    with pytest.raises(ValueError, match="got camri; there are cross_entropy"):
        figures.confusion_matrices(given, trials, selected)
    given = [row | {"diverged": row["method"] == "camri"} for row in rows()]
    given, trials, _, selected = numbers(given)
    with pytest.raises(ValueError, match=r"every trial of CAMRI .* diverged"):
        figures.confusion_matrices(given, trials, selected)


def test_training_curves_are_means_of_histories():
    given = rows([SPECS[0], SPECS[4]], num_seeds=3, important=((0, 2),))
    rng = np.random.default_rng(0)
    for row in given:
        row["history_recall"] = rng.uniform(size=3 * len(CLASSES))
        row["history_epoch"] = [2, 4, 6]
    table, _, _, selected = numbers(given)
    figure = figures.training(table, selected)
    recall, accuracy = figure.axes
    own = [row["history_recall"] for row in given if row["method"] == "camri"]
    expected = np.reshape(own, (3, 3, -1))[:, :, [0, 2]].mean((0, 2))
    x, y = line_at(recall, "CAMRI m=4π/64 s=16, n=3")
    assert x.tolist() == [2, 4, 6]
    np.testing.assert_allclose(y, expected)
    _, y = line_at(accuracy, "cross-entropy, n=3")
    np.testing.assert_allclose(y, [0.5, 0.65, 0.8], rtol=1e-6)
    older = figures.training(table.drop(columns="history_epoch"), selected)
    assert older.axes[0].lines[0].get_xdata().tolist() == [1, 2, 3]
    assert "validation images" in figure.get_suptitle()
    table, _, _, selected = numbers(rows(validation=False))
    assert "test images" in figures.training(table, selected).get_suptitle()


def test_trade_offs_are_means_at_each_constant_and_methods_lie_on_their_curves():
    given = rows([SPECS[0], SPECS[4]], num_seeds=3)
    table, _, _, selected = numbers(given)
    figure = figures.tradeoff(table, selected)
    place = figure.axes[0]
    for curve, spec in zip(place.lines[:2], (SPECS[0], SPECS[4]), strict=True):
        expected = [
            (mean_recall(given, spec, c), mean_accuracy(given, spec, c))
            for c in CONSTANTS
        ]
        points = np.transpose(curve.get_data())
        np.testing.assert_allclose(points, expected, atol=1e-6)
        as_trained = [
            np.ravel(line.get_data())
            for line in place.lines[2:]
            if line.get_color() == curve.get_color()
            and line.get_markerfacecolor() == line.get_color()
        ]
        trained_at = points[CONSTANTS == 0]
        np.testing.assert_allclose(as_trained, trained_at, atol=1e-6)


def test_a_curve_that_falls_to_nothing_does_not_flatten_the_trade_off():
    skilled = Spec("l2_softmax", {"scale": 16.0}, skill=5.0)
    given = rows([SPECS[0], skilled], num_seeds=3)
    table, _, settings, selected = numbers(given)
    assert settings["recall"].max() == 1.0
    for place, measure in zip(
        figures.tradeoff(table, selected).axes[::2],
        ("accuracy", "false_alarms"),
        strict=True,
    ):
        points = selected.query("num_seeds > 0")[measure]
        reach = max(np.ptp(points), {"accuracy": 0.02, "false_alarms": 5.0}[measure])
        low, high = place.get_ylim()
        assert points.min() - 1.2 * reach - 1e-2 <= low < points.min()
        assert points.max() < high <= points.max() + 1.2 * reach + 1e-2
        curves = np.concatenate([line.get_ydata() for line in place.lines])
        assert curves.min() < low or curves.max() > high


def test_trade_offs_show_the_differences_that_verdicts_rest_on(monkeypatch):
    seen = []
    along = verdicts.along_curve

    def spy(compared):
        seen.append(along(compared))
        return seen[-1]

    monkeypatch.setattr("camri_jax.evidence.figures.tradeoff.along_curve", spy)
    table, _, _, selected = numbers(rows([SPECS[0], SPECS[4]], num_seeds=3))
    place = figures.tradeoff(table, selected).axes[1]
    (found,) = seen
    assert set(found["method"]) == {"camri"}
    difference = place.lines[1].get_ydata()
    np.testing.assert_array_equal(difference, found["accuracy_difference"])
    thick = np.isfinite(np.asarray(place.lines[2].get_ydata(), float))
    np.testing.assert_array_equal(thick, found["above"])


def test_cross_entropy_alone_has_a_trade_off():
    table, _, _, selected = numbers(rows([BASELINE]))
    figure = figures.tradeoff(table, selected)
    assert len(figure.axes) == 3
    assert not figure.axes[1].lines


def test_where_all_diverged_there_is_nothing_to_draw():
    given = [row | {"diverged": True} for row in rows()]
    table, _, settings, selected = numbers(given)
    with pytest.raises(ValueError, match="every trial diverged"):
        figures.penalties(settings, selected)
    for draw in (figures.training, figures.tradeoff):
        with pytest.raises(ValueError, match="every trial diverged"):
            draw(table, selected)


def test_one_seed_is_drawn_without_bands(light):
    for name, figure in drawings(rows(num_seeds=1)).items():
        assert figure.get_label(), name
        assert "nan" not in figure.get_label(), name
    assert "nan" not in "".join(figure.get_label() for figure in light.values())


def test_every_picture_says_in_words_what_it_shows(light):
    for name, figure in light.items():
        assert "bee" in figure.get_label(), name
        assert "ant+cat" in figure.get_label(), name
        assert "CAMRI" in figure.get_label(), name


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_words_are_written_into_the_file(light, kind, tmp_path):
    path = tmp_path / f"picture.{kind}"
    figures.save(light["recall_accuracy"], path)
    text = light["recall_accuracy"].get_label()
    if kind == "png":
        with Image.open(path) as picture:
            assert picture.info["Description"] == text
    else:
        assert text in path.read_text()
        assert "important: bee" in path.read_text()


def brightness(colour):
    return np.mean(mpl.colors.to_rgb(colour))


def test_in_a_dark_style_pictures_are_dark():
    with mpl.style.context("dark_background"):
        dark = drawings(rows(num_seeds=2))
    for name, figure in dark.items():
        written = io.BytesIO()
        figure.savefig(written, dpi=40)
        with Image.open(written) as picture:
            corner = picture.convert("L").getpixel((0, 0))
        assert corner < 40, name
        in_cells = {
            text for place in figure.axes for text in place.texts if place.images
        }
        for text in set(figure.findobj(Text)) - in_cells:
            assert brightness(text.get_color()) > 0.5, (name, text)
    _, accuracy = dark["training"].axes
    assert brightness(accuracy.lines[0].get_color()) > 0.5
