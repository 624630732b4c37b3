"""Fig. 1 draws the losses that are trained, Fig. 2 the directions that it is given."""

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.collections import PathCollection

from camri_jax.evidence import figures
from camri_jax.evidence.figures import geometry
from camri_jax.evidence.figures.geometry import PANELS, PROTOTYPES
from camri_jax.training.methods import METHODS

WEIGHTS = np.array([4.0, 1.0, 1.0])
COSTS = np.array([[0.0, 2.0, 2.0], [2.0, 0.0, 1.0], [2.0, 1.0, 0.0]])
MARGIN = np.pi / 8
EXPECTED = {
    ("cross_entropy", 0): lambda z, t: reference.cross_entropy(z, t),
    ("weighted_cross_entropy", 0): lambda z, t: reference.weighted_cross_entropy(
        z, t, class_weights=WEIGHTS
    ),
    ("real_world_weight_cross_entropy", 0): lambda z, t: (
        reference.real_world_weight_cross_entropy(
            z, t, false_negative_weights=WEIGHTS, false_positive_weights=COSTS
        )
    ),
    ("wasserstein", 0): lambda z, t: reference.wasserstein_with_integer_labels(
        z, t, cost_matrix=COSTS, epsilon=0.1
    ),
    ("l2_softmax", 0): lambda c, t: reference.l2_softmax(c, t, scale=4),
    ("arcface", 0): lambda c, t: reference.arcface(c, t, margin=MARGIN, scale=4),
    ("camri", 0): lambda c, t: reference.camri(c, t, margins=[MARGIN, 0, 0], scale=4),
    ("camri", 1): lambda c, t: reference.camri(c, t, margins=[0, MARGIN, 0], scale=4),
}
FEATURES = np.random.default_rng(0).normal(0, 2, (25, 2)).astype(np.float32)


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("panel", PANELS, ids=lambda p: f"{p.method}{p.important}")
def test_a_panel_is_the_papers_formula(panel, label):
    if METHODS[panel.method].head == "cosine":
        scores = reference.cosine_similarity(FEATURES, PROTOTYPES)
    else:
        scores = FEATURES.astype(np.float64) @ PROTOTYPES.astype(np.float64)
    expected = EXPECTED[panel.method, panel.important](scores, [label] * len(FEATURES))
    found = geometry.loss_values(panel, FEATURES, PROTOTYPES, label)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


def test_a_margin_narrows_the_valley_and_a_weight_only_shifts_it():
    """What section III says of Fig. 1."""
    turns = np.linspace(-np.pi, np.pi, 721)
    far = 1000 * np.stack([np.cos(turns), np.sin(turns)], -1).astype(np.float32)

    def width(index, distance=1.0):
        values = geometry.loss_values(PANELS[index], distance * far, PROTOTYPES, 0)
        return np.mean(values < np.log(2))

    cross_entropy, wce, crwwce, _, l2_softmax, arcface, camri, other = map(
        width, range(8)
    )
    assert wce == pytest.approx(cross_entropy, abs=0.01)
    assert crwwce == pytest.approx(cross_entropy, abs=0.01)
    assert width(1, 0.001) < width(0, 0.001)
    assert arcface == camri < 0.9 * l2_softmax
    assert other == l2_softmax


@given(st.integers(2, 7), st.integers(0, 2**32 - 1))
def test_boundaries_are_where_the_likeliest_class_changes(number, seed):
    prototypes = np.random.default_rng(seed).normal(size=(2, number))
    rays = geometry.boundaries(prototypes)
    turns = np.linspace(-np.pi, np.pi, 20_001)
    circle = np.stack([np.cos(turns), np.sin(turns)], -1)
    likeliest = (circle @ prototypes).argmax(-1)
    changes = np.flatnonzero(likeliest[:-1] != likeliest[1:])
    found = np.sort(np.arctan2(rays[:, 1], rays[:, 0]))
    for angle in turns[changes]:
        assert np.abs(found - angle).min() < 1e-3
    for ray in rays:
        best = np.sort(ray @ prototypes)[::-1]
        assert best[0] == pytest.approx(best[1], abs=1e-5)
    np.testing.assert_allclose(np.linalg.norm(rays, axis=-1), 1)


def test_figure_1_has_a_panel_and_a_colour_bar_for_each_loss():
    figure = figures.contours()
    titles = [place.get_title() for place in figure.axes if place.get_title()]
    assert [title.split()[0] for title in titles] == [
        *("cross-entropy", "WCE", "CRWWCE", "Wasserstein"),
        *("L2-softmax", "ArcFace", "CAMRI", "CAMRI"),
    ]
    for part in ("w=4", "c=2 ε=0.1", "m=8π/64 s=4\nclass 2 important"):
        assert any(part in title for title in titles)
    assert sum(place.get_ylabel() == "loss" for place in figure.axes) == len(PANELS)
    assert "CAMRI" in figure.get_label()


def embedding(number=4, size=50, seed=0):
    rng = np.random.default_rng(seed)
    prototypes = rng.normal(size=(2, number)).astype(np.float32)
    labels = np.arange(size) % number
    noise = 0.3 * rng.normal(size=(size, 2))
    features = 5 * (prototypes.T[labels] + noise).astype(np.float32)
    return figures.Embedding("CAMRI s=8", features, prototypes, labels)


def test_figure_2_draws_every_image_in_its_direction():
    given = embedding()
    figure = figures.circles([given], list("abcd"), important=2)
    (place,) = figure.axes
    dots = [c for c in place.collections if isinstance(c, PathCollection)]
    for k, collection in enumerate(dots):
        points = np.asarray(collection.get_offsets())
        own = given.features[given.labels == k]
        found = np.arctan2(points[:, 1], points[:, 0])
        np.testing.assert_allclose(found, np.arctan2(own[:, 1], own[:, 0]), atol=1e-5)
        assert np.all(np.linalg.norm(points, axis=-1) <= 1)
    for k, spoke in enumerate(place.lines):
        end = np.array([spoke.get_xdata()[1], spoke.get_ydata()[1]])
        unit = given.prototypes[:, k] / np.linalg.norm(given.prototypes[:, k])
        np.testing.assert_allclose(end, unit, atol=1e-5)
    widths = [spoke.get_linewidth() for spoke in place.lines]
    assert np.argmax(widths) == 2
    assert [text.get_text() for text in place.texts] == list("abcd")


def test_figure_2_tells_recall_accuracy_and_spread():
    given = embedding()
    predicted = reference.cosine_similarity(given.features, given.prototypes).argmax(1)
    right = predicted == given.labels
    std = reference.angle_statistics(*given[1:])[1]
    figure = figures.circles([given, given], list("abcd"), important=2)
    title = figure.axes[1].get_title()
    assert f"recall of c {right[given.labels == 2].mean():.3f}" in title
    assert f"accuracy {right.mean():.3f}" in title
    others = np.median(np.delete(std, 2))
    assert f"angle std of c {std[2]:.3f} rad, median of others {others:.3f}" in title
    assert figure.get_label().count(f"accuracy {right.mean():.3f}") == 2


def test_figure_2_takes_many_classes_and_one_without_images():
    given = embedding(43, 200)
    without = given.labels != 6
    few = given._replace(features=given.features[without], labels=given.labels[without])
    names = [f"class ${k}$" for k in range(43)]
    figure = figures.circles([given, few], names, important=6)
    whole, lost = figure.axes
    # The important one has its name, as text, the others their numbers.
    texts = [text.get_text() for text in whole.texts]
    assert texts == [str(k) if k != 6 else r"class \$6\$" for k in range(43)]
    assert "nan" in lost.get_title()
    assert "recall of class $6$" in figure.get_label()
