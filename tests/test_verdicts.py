"""Laws of curves and of differences to cross-entropy: paired, and along the curve."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import CONSTANTS, SPECS, Spec, row, rows
from test_results import frame

from camri_jax.evidence import curves, statistics, verdicts
from camri_jax.evidence import selection as analysis

CAMRI = Spec("camri", {"margin": 0.2, "scale": 16.0}, push=0.3, skill=0.2)
CROSS_ENTROPY = Spec("cross_entropy")


def looped_points(line):
    """The best accuracy and its false alarms at each recall, by plain loops."""
    k = len(line["class_names"])
    found = {}
    for confusion in np.reshape(line["test_curve"], (-1, k, k)):
        (c,) = line["important"]
        recall = confusion[c, c] / confusion[c].sum()
        accuracy = np.trace(confusion) / confusion.sum()
        alarms = 1000 * (confusion[:, c].sum() - confusion[c, c]) / confusion.sum()
        key = round(float(recall), 6)
        if key not in found or accuracy > found[key][0]:
            found[key] = (accuracy, alarms)
    return dict(sorted(found.items()))


def test_a_curve_passes_through_its_points_and_pairs_by_seed():
    given_rows = rows([CROSS_ENTROPY, CAMRI], num_seeds=2)
    recalls = np.linspace(0, 1, 23)
    compared = curves.compare(frame(given_rows[::-1]), recalls)
    read = {}
    for line in given_rows:
        points = looped_points(line)
        read[line["method"], line["seed"]] = [
            np.interp(recalls, list(points), [values[i] for values in points.values()])
            for i in range(2)
        ]
    for (method, seed), (accuracy, alarms) in read.items():
        lines = compared[(compared["method"] == method) & (compared["seed"] == seed)]
        np.testing.assert_allclose(lines["accuracy"], accuracy, atol=1e-5)
        np.testing.assert_allclose(lines["false_alarms"], alarms, atol=1e-2)
        np.testing.assert_allclose(
            lines["accuracy_difference"],
            accuracy - read["cross_entropy", seed][0],
            atol=1e-5,
        )


@pytest.mark.parametrize("constant", [-2.0, -0.5, 0.5, 1.0])
def test_recall_bought_by_a_moved_threshold_is_no_gain(constant):
    """Cross-entropy with a constant built in has its recall, but not more."""
    start = int(np.flatnonzero(constant == CONSTANTS)[0])
    others = []
    for seed in range(3):
        line = row(CROSS_ENTROPY, seed)
        curve = np.reshape(line["test_curve"], (len(CONSTANTS), -1))
        shifted = np.clip(np.arange(len(CONSTANTS)) + start - 5, 0, len(CONSTANTS) - 1)
        others.append(
            line
            | {"trial_id": f"moved{seed}", "method": "weighted_cross_entropy"}
            | {"test_curve": curve[shifted].ravel()}
        )
    both = frame([*rows([CROSS_ENTROPY], num_seeds=3), *others])
    (line,) = verdicts.at_own_recall(curves.compare(both)).to_dict("records")
    assert line["above_difference"] == pytest.approx(0, abs=1e-6)
    trained = analysis.trials(both)
    gain = verdicts.paired(trained).set_index("method")["recall_difference"]
    assert np.sign(gain["weighted_cross_entropy"]) == np.sign(constant)


def test_skill_lies_above_and_harm_below():
    specs = [
        CROSS_ENTROPY,
        Spec("camri", {"margin": 0.2, "scale": 16.0}, skill=0.6),
        Spec("arcface", {"margin": 0.2, "scale": 16.0}, push=1.0, skill=-0.4),
    ]
    both = frame(rows(specs, num_seeds=6))
    own = verdicts.at_own_recall(curves.compare(both)).set_index("method")
    assert own.loc["camri", "above_low"] > 0
    assert own.loc["camri", "above_p_holm"] < 0.05
    assert own.loc["arcface", "above_high"] < 0
    along = verdicts.along_curve(curves.compare(both, np.array([0.8, 0.9])))
    assert along.groupby("method")["above"].agg(list).to_dict() == {
        "camri": [True, True],
        "arcface": [False, False],
    }
    assert (along["num_pairs"] == 6).all()


def test_outside_of_its_curve_a_trial_has_no_accuracy():
    short = row(CROSS_ENTROPY, 0)
    k = len(short["class_names"])
    curve = np.reshape(short["test_curve"], (-1, k, k))[4:7]
    short |= {"test_curve": curve.ravel(), "constants": CONSTANTS[4:7]}
    whole = [row(CROSS_ENTROPY, 1), *(row(CAMRI, seed) for seed in (0, 1, 2))]
    compared = curves.compare(frame([short, *whole]), np.array([0.0, 1.0]))
    along = verdicts.along_curve(compared)
    # Seed 0 is out of reach, and seed 2 has no cross-entropy.
    assert along["num_pairs"].tolist() == [1, 1]
    lines = compared.set_index(["method", "seed"])
    assert lines.loc[("cross_entropy", 0), "accuracy"].isna().all()
    assert lines.loc[("camri", 2), "accuracy"].notna().all()
    assert lines.loc[("camri", 2), "accuracy_difference"].isna().all()


def test_differences_are_of_the_same_seed_whatever_the_order():
    trials = analysis.trials(frame(rows(SPECS, num_seeds=3, important=((1,), (0, 2)))))
    mixed = trials.sample(frac=1, random_state=0)
    table = verdicts.paired(mixed)
    for line in table.to_dict("records"):
        pairs = []
        for one in trials.to_dict("records"):
            if any(one[x] != line[x] for x in ("method", "important")):
                continue
            if not np.isclose(one["margin"], line["margin"], equal_nan=True):
                continue
            (other,) = (
                x
                for x in trials.to_dict("records")
                if x["method"] == "cross_entropy"
                and (x["important"], x["seed"]) == (one["important"], one["seed"])
            )
            pairs.append([one[x] - other[x] for x in curves.MEASURES])
        assert line["num_pairs"] == len(pairs) == 3
        means = [line[f"{x}_difference"] for x in curves.MEASURES]
        np.testing.assert_allclose(means, np.mean(pairs, 0), atol=1e-12)
        recall = np.array(pairs)[:, 0]
        expected = statistics.p_above(recall)
        np.testing.assert_allclose(line["recall_p"], expected)
        accuracy = statistics.p_above(np.array(pairs)[:, 1], -verdicts.MARGIN)
        np.testing.assert_allclose(line["accuracy_p"], accuracy)
    # As trained and moved: twice six, but for cross-entropy as trained.
    assert table.groupby("important").size().to_dict() == {"bee": 11, "ant+cat": 11}


def test_correction_is_for_the_settings_of_one_choice_of_classes():
    one = verdicts.paired(analysis.trials(frame(rows(num_seeds=4))))
    two = verdicts.paired(
        analysis.trials(frame(rows(num_seeds=4, important=((1,), (3,)))))
    )
    same = two[two["important"] == "bee"]
    np.testing.assert_array_equal(one["recall_p_holm"], same["recall_p_holm"])
    tested = one["recall_p"].notna()
    np.testing.assert_allclose(
        one["recall_p_holm"][tested].min(), min(1, len(one) * one["recall_p"].min())
    )


def test_the_diverged_and_the_unpaired_are_left_out():
    lines = [
        row(CROSS_ENTROPY, 0),
        row(CROSS_ENTROPY, 1) | {"diverged": True},
        *(row(CAMRI, seed) for seed in (0, 1, 2)),
        row(CAMRI, 3) | {"diverged": True},
    ]
    table = verdicts.paired(analysis.trials(frame(lines))).set_index("method")
    assert table.loc["camri", "num_pairs"] == 1
    assert np.isnan(table.loc["camri", "recall_low"])
    assert np.isnan(table.loc["camri", "recall_p"])
    own = verdicts.at_own_recall(curves.compare(frame(lines)))
    assert own["num_pairs"].tolist() == [1]


def test_what_cannot_be_compared_is_told():
    trials = analysis.trials(frame(rows([CAMRI], num_seeds=2)))
    with pytest.raises(ValueError, match="must hold cross_entropy"):
        verdicts.paired(trials)
    alone = frame(rows([CROSS_ENTROPY], num_seeds=2, validation=False))
    for run in (
        lambda: verdicts.paired(analysis.trials(alone)),
        lambda: verdicts.at_own_recall(curves.compare(alone)),
    ):
        with pytest.raises(ValueError, match="another method than cross_entropy"):
            run()


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_ranges_say_where_it_is_above(flags):
    recalls = np.arange(len(flags)) / 100
    text = verdicts.ranges_above(pd.DataFrame({"recall": recalls, "above": flags}))
    inside = [False] * len(flags)
    for span in filter(None, text.split(", ")):
        first, last = (span.split("-") * 2)[:2]
        for i, recall in enumerate(recalls):
            inside[i] |= float(first) - 1e-9 <= recall <= float(last) + 1e-9
    assert inside == flags
