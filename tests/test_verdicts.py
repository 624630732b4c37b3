"""Laws of differences to cross-entropy: paired, claimed at once, and corrected."""

import itertools

import numpy as np
import pandas as pd
import pytest
from synthetic import CROSS_ENTROPY, SPECS, Spec, load

from camri_jax._files import UsageError
from camri_jax.evidence import curves, selection, statistics, verdicts
from camri_jax.evidence.measures import MEASURES
from camri_jax.evidence.selection import KEY
from camri_jax.evidence.study import POINT

CAMRI = Spec("camri", {"margin": 0.2, "scale": 16.0}, push=0.3, skill=0.2)


def test_differences_are_of_the_same_seed_whatever_the_order(tmp_path):
    trials = selection.trials(load(tmp_path, SPECS, num_seeds=3), (1,))
    table = verdicts.paired(trials.sample(frac=1, random_state=0))
    baseline = {
        x["seed"]: x
        for x in trials.to_dict("records")
        if x["method"] == "cross_entropy" and not x["moved"]
    }
    # As trained and moved: twice six, but for cross-entropy as trained.
    assert len(table) == 11
    for line in table.to_dict("records"):
        pairs = np.array(
            [
                [one[x] - baseline[one["seed"]][x] for x in MEASURES]
                for one in trials.to_dict("records")
                if all(one[x] == line[x] for x in ("method", "moved"))
                and np.isclose(one["margin"], line["margin"], equal_nan=True)
            ]
        )
        assert line["num_pairs"] == len(pairs) == 3
        means = [line[f"{x}_difference"] for x in MEASURES]
        np.testing.assert_allclose(means, pairs.mean(0), atol=1e-12)
        low, high = statistics.interval(pairs[:, 0])
        ends = line["recall_low"], line["recall_high"]
        np.testing.assert_allclose(ends, (low, high))
        assert line["recall_pairs"] == 3
        tests = statistics.p_above(pairs[:, 0]), statistics.p_above(pairs[:, 1], -0.005)
        np.testing.assert_allclose((line["recall_p"], line["accuracy_p"]), tests)


def test_a_recall_that_a_seed_misses_has_no_mean(tmp_path):
    prices = curves.prices(load(tmp_path, [CROSS_ENTROPY, CAMRI]), (1,), (0.8, 0.9))
    whole = verdicts.price_differences(prices).set_index(["method", "asked"])
    assert whole["false_alarms"].notna().all()
    assert (whole["num_reached"] == 4).all()
    for method in ("camri", "cross_entropy"):
        missed = (prices["method"] == method) & (prices["seed"] == 2)
        missed &= prices["asked"] == 0.9
        lines = prices.copy()
        lines.loc[missed, "recall":"false_alarms"] = np.nan
        # As `curves.prices` has it: of a seed, where either misses the recall.
        gone = (prices["seed"] == 2) & (prices["asked"] == 0.9)
        lines.loc[gone, lines.columns.str.endswith("_difference")] = np.nan
        table = verdicts.price_differences(lines).set_index(["method", "asked"])
        own = table.loc[(method, 0.9)]
        assert (own["num_seeds"], own["num_reached"]) == (4, 3)
        assert own[["false_alarms", "accuracy", "recall"]].isna().all()
        assert np.isnan(table.loc[("camri", 0.9), "false_alarms_difference"])
        assert np.isnan(table.loc[("camri", 0.9), "fewer_p"])
        for name in ("false_alarms", "false_alarms_difference"):
            kept = [table.loc[("camri", 0.8), name], whole.loc[("camri", 0.8), name]]
            assert kept[0] == kept[1]


def test_two_trials_of_one_seed_are_an_error_that_names_them(tmp_path):
    trials = selection.trials(load(tmp_path, SPECS, num_seeds=2), (1,))
    again = trials.iloc[:1].assign(trial_id="again")
    with pytest.raises(UsageError, match=r"several rows of cross_entropy.*again"):
        verdicts.paired(pd.concat([trials, again]))


def test_the_diverged_and_the_unpaired_are_left_out(tmp_path):
    def change(row):
        lost = ("cross_entropy", 1), ("camri", 3)
        if (row["method"], row["seed"]) == ("cross_entropy", 2):
            return None
        return row | {"diverged": (row["method"], row["seed"]) in lost}

    study = load(tmp_path, [CROSS_ENTROPY, CAMRI], change=change)
    table = verdicts.paired(selection.trials(study, (1,))).set_index(
        ["method", "moved"]
    )
    line = table.loc[("camri", False)]
    assert line["num_pairs"] == 1
    assert line[["recall_low", "recall_p"]].isna().all()
    own = verdicts.at_own_recall(curves.prices(study, (1,), None))
    assert own["above_pairs"].tolist() == [1]


def test_what_cannot_be_compared_is_told(tmp_path):
    trials = selection.trials(load(tmp_path / "a", [CAMRI]), (1,))
    with pytest.raises(UsageError, match="there must be rows of cross_entropy"):
        verdicts.paired(trials)
    alone = load(tmp_path / "b", [CROSS_ENTROPY], validation=False, asked="bee")
    with pytest.raises(UsageError, match="only, and none to compare it with"):
        verdicts.paired(selection.trials(alone, (1,)))
    trials = selection.trials(load(tmp_path / "c", SPECS, num_seeds=2), (1,))
    for margin in (5, -1, np.nan):
        with pytest.raises(UsageError, match="accuracy_margin must be in"):
            verdicts.paired(trials, accuracy_margin=margin)


def test_skill_lies_above_and_harm_below(tmp_path):
    specs = [
        CROSS_ENTROPY,
        Spec("camri", {"margin": 0.2, "scale": 16.0}, skill=0.6),
        Spec("arcface", {"margin": 0.2, "scale": 16.0}, push=1.0, skill=-0.4),
    ]
    study = load(tmp_path, specs, num_seeds=6)
    own = verdicts.at_own_recall(curves.prices(study, (1,), None)).set_index("method")
    assert own.loc["camri", "above_low"] > 0
    assert own.loc["camri", "above_p"] < 0.01
    assert own.loc["arcface", "above_high"] < 0
    assert not own["moved"].any()
    priced = verdicts.price_differences(curves.prices(study, (1,), [0.8, 0.9]))
    shown = priced["fewer_p_holm"].map(statistics.shown)
    assert set(priced[shown]["method"]) == {"camri"}
    assert priced.loc[priced["method"] == "cross_entropy", "fewer_p"].isna().all()
    counted = priced["method"] != "cross_entropy"
    np.testing.assert_allclose(
        priced.loc[counted, "fewer_p_holm"],
        statistics.holm(priced.loc[counted, "fewer_p"].to_numpy()),
    )


def compared(parts, *, above=True):
    """Lines of `paired` and `at_own_recall` with the p-values of their parts."""
    return pd.DataFrame(
        [
            {
                **dict.fromkeys(POINT, np.nan),
                "important": (1,),
                "method": "camri",
                "moved": False,
                "margin": i / 100,
                "num_pairs": 5,
                "all_diverged": False,
                "has_images": True,
                "recall_p": recall,
                "accuracy_p": accuracy,
                "above_p": over if above else np.nan,
                "above_difference": 0.01 if above else np.nan,
            }
            for i, (recall, accuracy, over) in enumerate(parts)
        ]
    )


def test_a_claim_has_the_largest_p_of_its_parts_and_holm_runs_over_all_claims():
    parts = list(itertools.permutations((0.001, 0.002, 0.2)))
    table = verdicts.claims(compared(parts))
    np.testing.assert_allclose(table["more_p"], [max(x[:2]) for x in parts])
    np.testing.assert_allclose(table["better_p"], [max(x) for x in parts])
    both = statistics.holm(table[["more_p", "better_p"]].to_numpy().T.ravel())
    np.testing.assert_allclose(table["more_p_holm"], both[: len(parts)])
    np.testing.assert_allclose(table["better_p_holm"], both[len(parts) :])
    # Moved thresholds make no claim about a moved threshold.
    table = verdicts.claims(compared(parts, above=False))
    np.testing.assert_allclose(table["more_p_holm"], statistics.holm(table["more_p"]))
    assert table["better_p_holm"].isna().all()


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"recall_p": 1e-4, "accuracy_p": 1e-4, "above_p": 1e-4}, "better"),
        ({"recall_p": 1e-4, "accuracy_p": 1e-4}, "more_only"),
        ({"recall_p": 1e-4, "accuracy_p": 0.5, "above_p": 1e-4}, "not_shown"),
        ({"recall_p": 0.0251, "accuracy_p": 0.0, "above_p": 0.0}, "not_shown"),
        ({"recall_p": 0.0249, "accuracy_p": 0.0, "above_p": 0.0}, "better"),
        ({"num_pairs": 1, "recall_p": np.nan}, "untested"),
        ({"num_pairs": 0, "recall_p": np.nan}, "unpaired"),
        ({"has_images": False, "num_pairs": 0}, "no_images"),
        ({"all_diverged": True, "num_pairs": 0}, "diverged"),
    ],
)
def test_every_verdict(changes, verdict):
    line = compared([(0.5, 0.5, 0.5)]).assign(**changes)
    assert verdicts.claims(line)["verdict"].item() == verdict
    assert verdict in verdicts.VERDICTS


def test_any_false_claim_is_made_in_at_most_one_study_of_twenty():
    """Settings of which one part is just not true, each of the three in turn.

    Corrected part by part, each part's tests would be wrong in one study of twenty.
    """
    rng = np.random.default_rng(0)
    number, seeds, margin = 600, 5, 0.005
    truths = np.array([*(~np.eye(3, dtype=bool)).repeat(3, 0), [True] * 3])
    # Effects of parts that are true are large, so that only the others hold it back.
    means = np.where(truths, 0.05, 0.0) - [0, margin, 0]
    wrong = 0
    for _ in range(number):
        values = means + 0.01 * rng.normal(size=(seeds, *means.shape))
        t = [
            [
                statistics.p_above(values[:, i, j], b)
                for j, b in enumerate((0, -margin, 0))
            ]
            for i in range(len(means))
        ]
        found = verdicts.claims(_lines(t))
        more = found["more_p_holm"].map(statistics.shown) & ~truths[:, :2].all(1)
        better = found["better_p_holm"].map(statistics.shown) & ~truths.all(1)
        wrong += bool((more | better).any())
    error = 3 * np.sqrt(0.05 * 0.95 / number)
    assert wrong / number <= 0.05 + error
    # And it is no procedure that claims nothing.
    assert found["verdict"].eq("better").any()


def _lines(parts, _cache={}):  # noqa: B006
    """`compared`, built once."""
    if not _cache:
        _cache["table"] = compared(parts)
    names = ["recall_p", "accuracy_p", "above_p"]
    return _cache["table"].assign(**dict(zip(names, np.transpose(parts), strict=True)))


def test_settings_are_told_apart_by_their_key(tmp_path):
    trials = selection.trials(load(tmp_path, SPECS, num_seeds=2), (1,))
    table = verdicts.paired(trials)
    assert not table.duplicated(KEY).any()
    assert set(table["important"]) == {(1,)}
