"""Laws of curves: exact at every score, and compared at the same recall."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import CROSS_ENTROPY, Spec, labels, load, logits

from camri_jax._files import UsageError
from camri_jax.evidence import selection
from camri_jax.evidence.curves import COSTS, at_recall, cheapest, curve, prices
from camri_jax.evidence.measures import MEASURES, measures, moved_confusion
from camri_jax.sweeps import rows

CAMRI = Spec("camri", {"margin": 0.2, "scale": 16.0}, push=0.3, skill=0.2)


@st.composite
def examples(draw):
    """Logits with many ties, labels, and a choice of classes."""
    k = draw(st.integers(2, 5))
    n = draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = rng.integers(-6, 6, (n, k)).astype(np.float32) / 4
    some = st.sets(st.integers(0, k - 1), min_size=1, max_size=k - 1)
    return values, rng.integers(0, k, n), tuple(sorted(draw(some)))


@settings(max_examples=40, deadline=None)
@given(examples())
def test_a_curve_is_exact_at_every_score_and_just_below(case):
    values, truth, important = case
    found = curve(*case)
    assert found["offset"].is_monotonic_increasing
    assert found["offset"].is_unique
    assert found["recall"].dropna().is_monotonic_increasing
    offsets = found["offset"].to_numpy()[1:]
    # Subnormal numbers are no thresholds, as devices may flush them.
    tiny = np.finfo(np.float32).tiny
    below = np.nextafter(offsets, np.float32(-np.inf))
    below = np.where(offsets == 0, -tiny, np.where(offsets == tiny, 0, below))
    for places, lines in ((offsets, found[1:]), (below, found[:-1])):
        for offset, (_, line) in zip(places, lines.iterrows(), strict=True):
            counts = moved_confusion(values, truth, important, float(offset))
            for name, value in measures(counts, important).items():
                np.testing.assert_allclose(line[name], value, atol=1e-12, err_msg=name)


def test_a_curve_of_large_logits_is_exact_too():
    """Where sums round, scores are not differences; one class's predictions hold."""
    rng = np.random.default_rng(0)
    values = (rng.normal(size=(60, 4)) * 10.0 ** rng.integers(-3, 5, (60, 1))).astype(
        np.float32
    )
    truth = rng.integers(0, 4, 60)
    for _, line in curve(values, truth, [2])[1:].iterrows():
        moved = values.copy()
        moved[:, 2] += np.float32(line["offset"])
        assert line["accuracy"] == pytest.approx((moved.argmax(1) == truth).mean())


@settings(max_examples=40, deadline=None)
@given(examples(), st.sampled_from([-8.0, 0.5, 16.0]))
def test_a_shift_of_all_logits_changes_nothing(case, shift):
    values, truth, important = case
    rise = np.where(np.isin(np.arange(values.shape[1]), important), shift, 0)
    between = np.arange(-4, 4, 0.25) + 0.125  # no score of quarters lies there

    def read(logits, offsets):
        found = curve(logits.astype(np.float32), truth, important)
        return found[MEASURES].iloc[np.searchsorted(found["offset"], offsets) - 1]

    here = read(values, between)
    # Sums of shares run in another order where scores tie.
    for moved, offsets in ((values + shift, between), (values + rise, between - shift)):
        np.testing.assert_allclose(read(moved, offsets), here, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(examples(), st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_the_price_of_a_recall_is_the_least_offset_that_reaches_it(case, recalls):
    found = curve(*case)
    for (_, line), asked in zip(
        at_recall(found, recalls).iterrows(), recalls, strict=True
    ):
        reaching = found[found["recall"] >= asked - 1e-9]
        assert line["asked"] == asked
        if reaching.empty:
            assert line[["recall", *COSTS]].isna().all()
        else:
            assert line["offset"] == reaching["offset"].min()


def test_prices_are_of_the_curves_and_paired_by_seed(tmp_path):
    study = load(tmp_path, [CROSS_ENTROPY, CAMRI], num_seeds=2)
    table = prices(study, (1,), [0.5, 0.95])
    truth = labels(80)
    assert len(table) == 8
    for line in table.to_dict("records"):
        spec = CAMRI if line["method"] == "camri" else CROSS_ENTROPY
        own, other = (
            at_recall(
                curve(logits(s, line["seed"], (1,), "test", truth), truth, (1,)),
                [line["asked"]],
            ).iloc[0]
            for s in (spec, CROSS_ENTROPY)
        )
        assert line["recall"] >= line["asked"]
        assert (line["num_important"], line["num_images"]) == (80, 320)
        for name in COSTS:
            assert line[name] == own[name]
            assert line[f"{name}_difference"] == own[name] - other[name]


def test_what_is_asked_twice_is_read_once_and_is_nobodys_to_change(
    tmp_path, monkeypatch
):
    study = load(tmp_path, [CROSS_ENTROPY, CAMRI], num_seeds=2)
    made = {
        "prices": lambda: prices(study, (1,), [0.5, 0.95]),
        "trials": lambda: selection.trials(study, (1,)),
    }
    first = {name: make() for name, make in made.items()}
    kept = {name: table.copy() for name, table in first.items()}
    for table in first.values():
        table["recall"] = 0.0
    monkeypatch.setattr(rows, "read_logits", lambda *args: pytest.fail("read again"))
    for name, make in made.items():
        pd.testing.assert_frame_equal(make(), kept[name])


def test_the_price_of_a_promise_is_paid_at_its_certificate(tmp_path):
    truth = {"calibration": labels(30), "test": labels(80)}
    study = load(tmp_path, [CROSS_ENTROPY, CAMRI], num_seeds=2, truths=truth)
    # 30 images certify 0.9 with no miss, and never 0.95.
    table = prices(study, (1,), [0.9, 0.95], confidence=0.95)
    assert (
        table.loc[table["asked"] == 0.95, ["offset", *MEASURES]].isna().to_numpy().all()
    )
    for line in table[table["asked"] == 0.9].to_dict("records"):
        paid = []
        for spec in (
            CAMRI if line["method"] == "camri" else CROSS_ENTROPY,
            CROSS_ENTROPY,
        ):
            z = {
                part: logits(spec, line["seed"], (1,), part, y)
                for part, y in truth.items()
            }
            # Raised until every calibration image of the class is found.
            mine = z["calibration"][truth["calibration"] == 1].astype(float)
            rise = (np.delete(mine, 1, axis=1).max(1) - mine[:, 1]).max()
            counts = moved_confusion(z["test"], truth["test"], (1,), rise + 1e-5)
            paid.append((rise, measures(counts, (1,))))
        assert line["offset"] == pytest.approx(paid[0][0], abs=1e-5)
        for name in COSTS:
            assert line[name] == pytest.approx(paid[0][1][name], abs=1e-9)
            assert line[f"{name}_difference"] == pytest.approx(
                paid[0][1][name] - paid[1][1][name], abs=1e-9
            )
    with pytest.raises(UsageError, match="recalls must be given"):
        prices(study, (1,), None, confidence=0.95)
    none = load(tmp_path / "none", [CROSS_ENTROPY, CAMRI])
    with pytest.raises(UsageError, match="no calibration images"):
        prices(none, (1,), [0.9], confidence=0.95)


NARROW, WIDE = (
    Spec("camri", {"margin": margin, "scale": 16.0}, skill=0.2) for margin in (0.1, 0.4)
)


@pytest.mark.parametrize("validation", [True, False])
def test_the_cheapest_setting_is_that_of_the_validation_images(validation, tmp_path):
    def make(spec, seed, important, part, truth):
        better = spec == (NARROW if part == "validation" else WIDE)
        return logits(spec._replace(skill=0.2 + better), seed, important, part, truth)

    specs = [CROSS_ENTROPY, WIDE, NARROW]
    study = load(tmp_path, specs, make=make, validation=validation)
    table = prices(study, (1,), [0.8, 0.95])
    margin = (NARROW if validation else WIDE).point["margin"]
    expected = table[table["margin"].isna() | (table["margin"] == margin)]
    pd.testing.assert_frame_equal(
        cheapest(study, (1,), [0.8, 0.95]), expected.reset_index(drop=True)
    )


def test_each_recall_has_its_cheapest_setting(tmp_path):
    def make(spec, seed, important, part, truth):
        found = logits(spec, seed, important, part, truth)
        if spec == NARROW:  # Better, but for a tenth of the class.
            found[truth == 1, 1] += 5
            found[np.flatnonzero(truth == 1)[::10], 1] -= 10
        return found

    study = load(tmp_path, [CROSS_ENTROPY, WIDE, NARROW], make=make)
    table = cheapest(study, (1,), [0.8, 0.95])
    margins = table[table["method"] == "camri"].groupby("asked")["margin"].unique()
    assert margins[0.8] == [0.1]
    assert margins[0.95] == [0.4]


def test_a_recall_that_a_seed_does_not_reach_is_not_cheap(tmp_path):
    """Offsets of two classes are one: where they take each other's images, no more."""

    def make(spec, seed, important, part, truth):
        found = logits(spec, seed, important, part, truth)
        if spec == NARROW:
            found += 6 * np.eye(4, dtype=np.float32)[truth]
            if seed:
                found[truth == 0] = found[truth == 0][:, [2, 1, 0, 3]]
        return found

    specs = [CROSS_ENTROPY, WIDE, NARROW]
    study = load(tmp_path, specs, make=make, important=((0, 2),), num_seeds=3)
    table = cheapest(study, (0, 2), [0.7])
    assert set(table.loc[table["method"] == "camri", "margin"]) == {0.4}


def test_a_recall_that_is_asked_twice_is_told_once(tmp_path):
    study = load(tmp_path, [CROSS_ENTROPY, WIDE, NARROW])
    pd.testing.assert_frame_equal(
        cheapest(study, (1,), [0.9, 0.9]), cheapest(study, (1,), [0.9])
    )


@pytest.mark.parametrize("push", [-1.0, 0.5, 1.0])
def test_recall_bought_by_a_moved_threshold_is_no_gain(push, tmp_path):
    """Cross-entropy with an offset built in has its recall, and costs the same."""

    def make(spec, seed, important, part, truth):
        plain = logits(CROSS_ENTROPY, seed, (1,), part, truth)
        plain[:, 1] += np.float32(spec.push)
        return plain

    pushed = Spec("weighted_cross_entropy", {"weight": 4.0}, push=push)
    study = load(tmp_path, [CROSS_ENTROPY, pushed], make=make)
    for recalls in (None, [0.8, 0.99]):
        table = prices(study, (1,), recalls)
        assert table["accuracy_difference"].notna().all()
        differences = table[[f"{name}_difference" for name in COSTS]]
        np.testing.assert_allclose(differences, 0, atol=1e-12)
    recall = table[table["asked"] == 0.8].groupby("method")["offset"].mean()
    moved = recall["cross_entropy"] - recall["weighted_cross_entropy"]
    assert moved == pytest.approx(push, abs=1e-5)


def test_what_has_no_curve_has_no_price(tmp_path):
    def change(row):
        if (row["method"], row["seed"]) == ("cross_entropy", 0):
            return None
        return row | {"diverged": (row["method"], row["seed"]) == ("camri", 1)}

    study = load(tmp_path / "a", [CROSS_ENTROPY, CAMRI], num_seeds=3, change=change)
    table = prices(study, (1,), [0.9]).set_index(["method", "seed"])
    assert set(table.index) == {
        *(("cross_entropy", seed) for seed in (1, 2)),
        *(("camri", seed) for seed in (0, 2)),
    }
    alone = table.loc[("camri", 0)]
    assert np.isfinite(alone["accuracy"])
    assert np.isnan(alone["accuracy_difference"])
    study = load(tmp_path / "b", [CROSS_ENTROPY, CAMRI], keep_logits=False)
    assert prices(study, (1,)).empty
    none = np.where(labels(80) == 1, 0, labels(80))
    study = load(tmp_path / "c", [CROSS_ENTROPY, CAMRI], truths={"test": none})
    assert prices(study, (1,)).empty
