"""Pictures hold what the numbers hold, on light pages and dark, and say it in words."""

import io
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import hypothesis
import matplotlib as mpl
import matplotlib.style
import numpy as np
import pandas as pd
import pytest
import synthetic
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from camri_jax._files import UsageError
from camri_jax.evidence import figures, report, selection, sheets
from camri_jax.evidence.curves import COSTS
from camri_jax.evidence.figures import looks
from camri_jax.evidence.study import POINT
from camri_jax.training.methods import DEFAULT_METHODS, METHODS

POINTS = {
    "cross_entropy": {},
    "weighted_cross_entropy": {"weight": 4.0},
    "l2_softmax": {"scale": 16.0},
    "arcface": {"margin": math.pi / 16, "scale": 16.0},
    "camri": {"margin": math.pi / 16, "scale": 16.0},
}
NASTY = ("$a_1$", "x^2 [b]", "<i>&amp;", "{", "a\x07b\n", r"\$ \alpha$", "]]>", "$$")


def point(method):
    return dict.fromkeys(POINT, np.nan) | POINTS[method]


def svg_texts(figure):
    """All text of a figure as a viewer of its SVG reads it."""
    file = io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "none"}):
        figure.savefig(file, format="svg")
    return [
        "".join(element.itertext())
        for element in ElementTree.fromstring(file.getvalue()).iter()
        if element.tag.endswith("}text")
    ]


def luminance(colour):
    rgb = np.array(mpl.colors.to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


# --- Looks -------------------------------------------------------------------------


def test_every_method_has_a_look_of_its_own():
    seen = [(METHODS[name].colour, METHODS[name].marker) for name in DEFAULT_METHODS]
    assert len({c for c, _ in seen}) == len({m for _, m in seen}) == len(seen)
    # There are not colours enough for rivals too.
    assert len({(m.colour, m.marker) for m in METHODS.values()}) == len(METHODS)


@hypothesis.settings(deadline=None)
@given(st.text(st.characters(max_codepoint=0x3FF), min_size=1))
def test_any_text_is_drawn_as_it_is(name):
    figure = Figure()
    (shown,), note = looks.names([name])
    figure.text(0.1, 0.5, shown)
    (found,) = svg_texts(looks.finish(figure, "words", note))[:1]
    wanted = sheets.visible(name)
    if note:
        assert found == "class 0"
    elif len(wanted) <= 24:
        assert " ".join(found.split()) == " ".join(wanted.split())
    else:
        assert found.endswith("…")
        assert len(found) == 24
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", found)


def test_what_no_font_has_is_numbered_and_told_without_a_warning(monkeypatch):
    """Every warning is an error here, those of missing glyphs too."""
    nowhere = "\U000fabcd kitten"
    monkeypatch.setattr(looks, "_family", lambda c: None if c == nowhere[0] else "")
    shown, note = looks.names(["ant", nowhere, "зебра", "λ"])
    assert shown == ["ant", "class 1", "зебра", "λ"]
    assert "1 of 4 class names" in note
    matrices = {"a": np.ones((1, 2, 2)), "b": np.ones((1, 2, 2))}
    figure = figures.confusions(matrices, ["ant", nowhere], [1])
    texts = svg_texts(figure)
    assert "class 1" in texts
    assert any("1 of 2 class names" in text for text in texts)
    assert "1 of 2 class names" in figure.get_label()


def test_another_font_of_the_machine_draws_what_the_first_one_lacks(monkeypatch):
    monkeypatch.setattr(looks, "_family", lambda c: "STIXGeneral" if c == "狗" else "")
    (shown,), note = looks.names(["狗"])
    figure = Figure()
    text = figure.text(0, 0, shown)
    looks.finish(figure, "words", note)
    assert (shown, note) == ("狗", "")
    assert "STIXGeneral" in text.get_fontfamily()


def test_no_picture_needs_a_backend():
    for module in (figures, report):
        for path in Path(module.__file__).parent.glob("*.py"):
            assert "import pyplot" not in path.read_text()
            assert "plt." not in path.read_text()


# --- The price of a recall -----------------------------------------------------------


def prices(methods=("cross_entropy", "camri"), *, seeds=3, number=90, seed=0):
    rng = np.random.default_rng(seed)
    asked = [0.8, 0.9, 0.95, 0.98, 0.99, 0.999]
    return pd.DataFrame(
        [
            {
                "method": method,
                **point(method),
                "seed": s,
                "asked": recall,
                "recall": recall,
                **dict.fromkeys(["offset", *COSTS], 0.0),
                **{f"{cost}_difference": 0.0 for cost in COSTS},
                "false_alarms": rng.uniform(0, 300),
                "accuracy": rng.uniform(0.6, 1),
                "num_important": number,
            }
            for method in methods
            for s in range(seeds)
            for recall in asked
        ]
    )


def test_a_line_of_several_settings_is_called_by_its_method():
    lines = prices()
    some = (lines["method"] == "camri") & (lines["asked"] > 0.9)
    for changed, expected in (
        (lines, "CAMRI m="),
        (lines.assign(margin=lines["margin"] + some), "CAMRI"),
    ):
        names = labelled(figures.price(changed, "cat").axes[0])
        assert any(n.startswith(expected) for n in names)
        assert any("m=" in n for n in names) == (changed is lines)


def labelled(place):
    return {
        line.get_label(): (np.asarray(line.get_xdata()), np.asarray(line.get_ydata()))
        for line in place.lines
        if not line.get_label().startswith("_")
    }


def test_prices_are_means_over_seeds_in_bands_of_all_of_them():
    given_prices = prices()
    figure = figures.price(given_prices, "cat")
    for place, measure in zip(figure.axes, figures.AXES, strict=True):
        assert place.get_ylabel() == figures.AXES[measure]
        assert place.get_xlabel() == "% of cat found (mean over 3 seeds)"
        lines = labelled(place)
        for method, title in (
            ("cross_entropy", "cross-entropy"),
            ("camri", "CAMRI m=4π/64 s=16"),
        ):
            own = given_prices[given_prices["method"] == method].groupby("asked")
            asked, mean = lines[title]
            np.testing.assert_allclose(asked, own[measure].mean().index)
            np.testing.assert_allclose(mean, own[measure].mean())
            edges = [np.asarray(line.get_ydata()) for line in place.lines]
            for edge in (own[measure].min(), own[measure].max()):
                assert any(
                    e.shape == edge.shape and np.allclose(e, edge) for e in edges
                )
        shown = [t for t in place.get_xticks() if 0.8 <= t <= 0.999]
        assert {0.8, 0.9, 0.95, 0.99} <= set(shown)
        assert place.get_xlim()[1] <= 1


def test_a_line_ends_where_a_seed_misses_the_recall():
    some = prices()
    missed = (some["method"] == "camri") & (some["seed"] == 1) & (some["asked"] > 0.97)
    some.loc[missed, ["recall", "false_alarms", "accuracy"]] = np.nan
    for place in figures.price(some, "cat").axes:
        lines = labelled(place)
        assert lines["CAMRI m=4π/64 s=16"][0].tolist() == [0.8, 0.9, 0.95]
        assert len(lines["cross-entropy"][0]) == 6


def test_a_band_of_many_seeds_leaves_out_the_outermost():
    many = prices(seeds=20)
    (place,) = figures.price(many, "cat", measures=["accuracy"]).axes
    own = many[many["method"] == "camri"].groupby("asked")["accuracy"]
    for share in (0.1, 0.9):
        edge = own.quantile(share).to_numpy()
        drawn = [np.asarray(line.get_ydata()) for line in place.lines]
        assert any(y.shape == edge.shape and np.allclose(y, edge) for y in drawn)


def test_of_many_methods_two_have_bands():
    many = prices(tuple(POINTS))
    (place,) = figures.price(many, "cat", measures=["accuracy"], emphasis="camri").axes
    filled = {tuple(c.get_facecolor()[0][:3]) for c in place.collections}
    wanted = [figures.style(m)["color"] for m in ("cross_entropy", "camri")]
    assert filled == {mpl.colors.to_rgb(colour) for colour in wanted}


@pytest.mark.parametrize(("certifiable", "text"), [(0.9673, "96.7 %"), (None, None)])
def test_it_is_marked_what_calibration_and_test_images_can_tell(certifiable, text):
    figure = figures.price(prices(), "cat", certifiable=certifiable)
    told = [t.get_text() for t in figure.legends[0].get_texts()]
    assert "all 90 must be found" in told
    marks = [t for t in told if "certifiable" in t]
    assert marks == ([f"certifiable up to {text}"] if text else [])
    if certifiable:
        assert labelled(figure.axes[0])[marks[0]][0].tolist() == [0.8, certifiable]
    thousand = figures.price(prices(number=5000), "cat")
    assert "must be found" not in str(
        [t.get_text() for t in thousand.legends[0].get_texts()]
    )


def test_where_nothing_drawn_is_certifiable_it_is_said_and_not_drawn():
    figure = figures.price(prices(), "cat", certifiable=0.75)
    told = [t.get_text() for t in figure.legends[0].get_texts()]
    (label,) = [t for t in told if "certifiable" in t]
    assert label == "certifiable up to 75 %, none of this"
    assert labelled(figure.axes[0])[label][0].size == 0


def test_promises_are_marked_where_they_are_and_within_the_picture():
    promised = [
        {"method": "camri", "recall": 0.9, "false_alarms": 900.0, "accuracy": 0.2},
        {"method": "cross_entropy", "recall": 0.5, "false_alarms": 1, "accuracy": 1},
    ]
    figure = figures.price(prices(), "cat", certified=promised)
    for place, measure in zip(figure.axes, figures.AXES, strict=True):
        x, y = labelled(place)["promised"]
        assert (x.item(), y.item()) == (0.9, promised[0][measure])
        low, high = place.get_ylim()
        assert low <= y.item() <= high


def test_the_legend_leaves_the_room_to_the_picture():
    figure = figures.price(prices(tuple(POINTS)), "cat", certifiable=0.9)
    figure.draw_without_rendering()
    legend = figure.legends[0].get_window_extent()
    assert 0 <= legend.x0 < legend.x1 <= figure.bbox.width
    assert legend.height < 0.25 * figure.bbox.height
    assert sum(place.bbox.width for place in figure.axes) > 0.8 * figure.bbox.width
    assert all(place.bbox.y1 <= legend.y0 for place in figure.axes)


# --- Penalties, Fig. 3 ---------------------------------------------------------------


def settings(grid):
    """Lines of `selection.settings`: method, penalty and mean recall."""
    return pd.DataFrame(
        [
            {
                "method": method,
                "moved": moved,
                **point(method),
                **({METHODS[method].penalty: value} if value is not None else {}),
                "num_seeds": 3,
                "recall": recall + 0.05 * moved,
                "recall_std": 0.2,
                "accuracy": 0.9,
                "accuracy_std": 0.2,
            }
            for method, value, recall in grid
            for moved in (False, True)
        ]
    )


GRID = [
    ("cross_entropy", None, 0.7),
    ("weighted_cross_entropy", 4.0, 0.8),
    ("weighted_cross_entropy", 8.0, 0.85),
    ("l2_softmax", None, 0.75),
    ("camri", math.pi / 16, 0.86),
    ("camri", math.pi / 8, 0.9),
]


def test_penalties_stand_at_their_values_from_where_they_vanish():
    lines = settings(GRID)
    picked = lines.groupby(["method", "moved"], sort=False).head(1)
    figure = figures.penalties(lines, picked, "cat")
    wce, camri = figure.axes[:2]
    assert wce.get_title() == "WCE\nn=3"
    assert camri.get_title() == "CAMRI s=16\nn=3"
    assert wce.lines[0].get_xdata().tolist() == [1, 4, 8]
    assert wce.lines[0].get_ydata().tolist() == [0.7, 0.8, 0.85]
    np.testing.assert_allclose(
        camri.lines[0].get_xdata(), [0, math.pi / 16, math.pi / 8]
    )
    assert camri.lines[0].get_ydata().tolist() == [0.75, 0.86, 0.9]
    for place in figure.axes:
        assert place.get_ylim()[1] <= 1.01
    below = figure.axes[2:]
    assert below[0].get_xlabel() == "weight w"
    assert below[1].get_xlabel() == "margin m, in π/64 rad"
    # Ticks stand where data are.
    np.testing.assert_allclose(
        sorted(below[1].get_xticks()), [0, math.pi / 16, math.pi / 8]
    )
    ticks = {t.get_text() for t in below[1].get_xticklabels()}
    assert ticks == {"0", "4", "8"}


def test_without_two_penalties_there_is_nothing_to_draw():
    lines = settings([GRID[0], GRID[4]])
    with pytest.raises(UsageError, match="two weights, costs or margins"):
        figures.penalties(lines, lines, "cat")
    with pytest.raises(UsageError, match="every trial diverged"):
        figures.penalties(lines.assign(num_seeds=0), lines, "cat")


# --- Confusions, Fig. 4 --------------------------------------------------------------


def counts(size, trials=3, seed=0):
    rng = np.random.default_rng(seed)
    found = rng.poisson(2, (trials, size, size)).astype(float)
    found[:, range(size), range(size)] += rng.poisson(80, (trials, size))
    return found


def shares(matrices):
    return 100 * np.mean([m / m.sum(1, keepdims=True) for m in matrices], 0)


def test_confusions_are_means_of_shares_and_their_differences():
    one, two = counts(4), counts(4, seed=1)
    figure = figures.confusions({"one": one, "two": two}, list("abcd"), [1])
    whole, change = (place.images[0].get_array() for place in figure.axes[:2])
    np.testing.assert_allclose(whole, shares(one))
    np.testing.assert_allclose(change, shares(two) - shares(one))
    texts = {t.get_position(): t.get_text() for t in figure.axes[1].texts}
    for (true, predicted), value in np.ndenumerate(np.asarray(change)):
        if abs(value) > 0.06:
            assert texts[predicted, true] == f"{value:+.1f}"
    assert f"{change[1, 1]:+.1f} percentage points" in figure.get_label()
    with pytest.raises(UsageError, match="every trial of two diverged"):
        figures.confusions({"one": one, "two": two[:0]}, list("abcd"), [1])


@pytest.mark.parametrize(
    ("size", "look"), [(4, "default"), (12, "dark_background"), (43, "default")]
)
def test_numbers_lie_within_their_cells_and_are_read_on_them(size, look):
    one, two = counts(size), counts(size, seed=1)
    two[:, 3] = 0  # A class without images.
    names = [f"end of the restriction {k}" for k in range(size)]
    with mpl.style.context(look):
        figure = figures.confusions({"one": one, "two": two}, names, [1])
        page = mpl.rcParams["axes.facecolor"]
        figure.draw_without_rendering()
    for place in figure.axes[:2]:
        cell = place.bbox.width / size
        image = place.images[0]
        assert len(place.texts) >= (size if size <= 12 else 2)
        for text in place.texts:
            assert text.get_window_extent().width <= cell
            x, y = text.get_position()
            value = image.get_array()[int(y), int(x)]
            *shade, strength = image.cmap(image.norm(value))
            behind = strength * np.array(shade) + (1 - strength) * np.array(
                mpl.colors.to_rgb(page)
            )
            assert contrast(text.get_color(), behind) > 3.9
    assert np.isnan(np.ma.filled(figure.axes[1].images[0].get_array(), np.nan)[3]).all()


def test_class_names_are_text_on_the_axes():
    matrices = {"$x$": counts(8), "<b>": counts(8)}
    texts = svg_texts(figures.confusions(matrices, NASTY, [0]))
    for name in NASTY:
        assert texts.count(sheets.visible(name)) == 4
    assert "$x$" in texts


# --- All pictures of a study ---------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "CLASSES", ("ant", "b$e_e$", "cat", "dog"))
        return synthetic.load(tmp_path_factory.mktemp("study"))


def draw(study):
    trials = selection.trials(study, (1,))
    drawings = figures.drawings(study, (1,), trials)
    return {name: drawing.draw() for name, drawing in drawings.items()}


def test_every_picture_of_a_study_is_dark_where_the_style_is_and_says_what_it_shows(
    study,
):
    with mpl.style.context("dark_background"):
        drawn = draw(study)
        for name, figure in drawn.items():
            file = io.BytesIO()
            figure.savefig(file, dpi=40)
            with Image.open(file) as picture:
                assert picture.convert("L").getpixel((0, 0)) < 40, name
            assert "b$e_e$" in figure.get_label(), name
            assert "CAMRI" in figure.get_label(), name
            assert "nan" not in figure.get_label(), name
            for text in figure.findobj(Text):
                if text.get_text():
                    assert luminance(text.get_color()) > 0.3, (name, text)
    assert set(drawn) == {"price", "penalties", "confusions", "training"}


def test_fig_4_is_of_each_trials_own_offset(study):
    trials = selection.trials(study, (1,))
    own = trials[(trials["method"] == "cross_entropy") & trials["moved"]]
    assert own["offset"].any()
    expected = []
    logits = dict(study.logits("test", list(own["trial_id"])))
    for _, line in own.iterrows():
        moved = logits[line["trial_id"]].copy()
        moved[:, 1] += np.float32(line["offset"])
        expected.append(synthetic.confusion(moved, study.data.labels["test"]))
    figure = figures.drawings(study, (1,), trials)["confusions"].draw()
    whole, _, change = (place.images[0].get_array() for place in figure.axes[:3])
    np.testing.assert_allclose(change, shares(expected) - np.asarray(whole), atol=1e-9)


def test_training_curves_are_means_of_histories(tmp_path):
    rng = np.random.default_rng(0)
    seen = []

    def change(row):
        recall = rng.uniform(size=(3, 4))
        if row["method"] == "camri":
            seen.append(recall[:, [0, 2]].mean(1))
        return row | {"history_recall": recall.ravel(), "history_epoch": [2, 4, 6]}

    specs = [synthetic.SPECS[0], synthetic.SPECS[4]]
    study = synthetic.load(tmp_path, specs, important=((0, 2),), change=change)
    trials = selection.trials(study, (0, 2))
    figure = figures.drawings(study, (0, 2), trials)["training"].draw()
    recall, accuracy = figure.axes
    assert "ant+cat" in recall.get_ylabel()
    assert "validation images" in accuracy.get_ylabel()
    epochs, mean = labelled(recall)["CAMRI m=4π/64 s=16, n=4"]
    assert epochs.tolist() == [2, 4, 6]
    np.testing.assert_allclose(mean, np.mean(seen, 0), rtol=1e-6)


def test_where_all_diverged_there_is_a_sentence(tmp_path):
    lost = {"diverged": True, "loss": np.nan}
    study = synthetic.load(tmp_path, change=lambda row: row | lost)
    trials = selection.trials(study, (1,))
    for drawing in figures.drawings(study, (1,), trials).values():
        with pytest.raises(UsageError, match="diverged"):
            drawing.draw()


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_words_are_written_into_the_file(kind, tmp_path):
    figure = figures.confusions({"a": counts(2), "b": counts(2)}, ["<x>", "y\x00"], [0])
    path = tmp_path / f"picture.{kind}"
    figures.save(figure, path)
    words = figure.get_label()
    assert "<x>" in words
    if kind == "png":
        with Image.open(path) as picture:
            assert picture.info["Description"] == words
    else:
        tree = ElementTree.parse(path)
        assert words in "".join(tree.getroot().itertext())
