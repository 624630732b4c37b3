"""Laws of selection: what is picked without peeking, and the one trial to use."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from synthetic import (
    CLASSES,
    CROSS_ENTROPY,
    SPECS,
    Spec,
    confusion,
    labels,
    load,
    logits,
)

from camri_jax._files import UsageError
from camri_jax.evidence import selection
from camri_jax.evidence.curves import curve
from camri_jax.evidence.measures import MEASURES, measures
from camri_jax.evidence.study import POINT, Study
from camri_jax.sweeps import rows as stored

CAMRI = Spec("camri", {"margin": 0.2, "scale": 16.0}, push=0.3, skill=0.2)


def looped(values, truth, important, offset):
    """Recall of one class, and accuracy, with an offset on its logits."""
    moved = values.copy()
    moved[:, important] += np.float32(offset)
    right = moved.argmax(1) == truth
    return right[truth == important].mean(), right.mean()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1) | st.none())
def test_no_threshold_that_keeps_the_accuracy_buys_more_or_moves_less(seed, asked):
    rng = np.random.default_rng(seed)
    truth = np.append(rng.integers(0, 3, 24), 1)
    values = (rng.normal(size=(25, 3)) + np.eye(3)[truth]).astype(np.float32)
    offset = selection.least_offset(curve(values, truth, [1]), asked)
    recall, accuracy = looped(values, truth, 1, offset)
    gaps = np.delete(values, 1, 1).max(1) - values[:, 1]
    ends = np.sort(gaps)
    tried = np.concatenate([[-99, 0, 99], (ends[1:] + ends[:-1]) / 2])
    reached = {float(o): looped(values, truth, 1, o) for o in tried}
    bar = min(
        looped(values, truth, 1, 0)[1] if asked is None else asked,
        max(other for _, other in reached.values()),
    )
    assert accuracy >= bar
    keeping = {o: r for o, (r, other) in reached.items() if other >= bar}
    assert recall == max(keeping.values())
    # Halfway between two scores: none that is as good lies nearer to zero by a score.
    nearer = [o for o, r in keeping.items() if r == recall and abs(o) < abs(offset)]
    assert all(
        not ((ends > min(o, offset)) & (ends < max(o, offset))).any() for o in nearer
    )
    assert 0.0 not in keeping or keeping[0.0] < recall or offset == 0


def test_thresholds_are_picked_on_validation_and_reported_on_test(tmp_path):
    study = load(tmp_path, [CROSS_ENTROPY, CAMRI], num_seeds=3)
    lines = selection.trials(study, (1,))
    assert (
        lines["moved"].tolist() == [False] * 3 + [True] * 3 + [False] * 3 + [True] * 3
    )
    truth = labels(80)
    for line in lines.to_dict("records"):
        spec = CAMRI if line["method"] == "camri" else CROSS_ENTROPY
        values = {
            part: logits(spec, line["seed"], (1,), part, truth)
            for part in ("test", "validation")
        }
        plain = logits(CROSS_ENTROPY, line["seed"], (1,), "validation", truth)
        if line["moved"]:
            to_keep = looped(plain, truth, 1, 0)[1]
            picked = curve(values["validation"], truth, (1,))
            assert line["offset"] == selection.least_offset(picked, to_keep)
        else:
            assert line["offset"] == 0
        for prefix, part in (("", "test"), ("validation_", "validation")):
            moved = values[part].copy()
            moved[:, 1] += np.float32(line["offset"])
            counts = confusion(moved, truth)
            for name, value in measures(counts, (1,)).items():
                assert line[prefix + name] == pytest.approx(value, nan_ok=True)
            assert line[f"{prefix}num_found"] == counts[1, 1]
            assert line[f"{prefix}num_important"] == 80


def test_the_accuracy_to_keep_is_the_trials_own_without_cross_entropys(tmp_path):
    def change(row):
        alone = row["method"] == "cross_entropy" and row["seed"] == 0
        return row | {"diverged": alone}

    study = load(tmp_path, [CROSS_ENTROPY, CAMRI], num_seeds=1, change=change)
    lines = selection.trials(study, (1,)).set_index(["method", "moved"])
    line = lines.loc[("camri", True)]
    truth = labels(80)
    own = curve(logits(CAMRI, 0, (1,), "validation", truth), truth, (1,))
    assert line["offset"] == selection.least_offset(own)
    # What diverged counts as diverged in both variants, and has no measures.
    lost = lines.loc["cross_entropy"]
    assert lost["diverged"].all()
    assert lost[MEASURES].isna().all(axis=None)


@pytest.mark.parametrize("options", [{"validation": False}, {"keep_logits": False}])
def test_without_logits_or_validation_images_no_threshold_is_moved(options, tmp_path):
    study = load(tmp_path, SPECS, num_seeds=2, **options)
    lines = selection.trials(study, (1,))
    assert not lines["moved"].any()
    assert lines[MEASURES].notna().all(axis=None)
    without = "validation" in options
    assert lines["validation_recall"].isna().all() == without
    assert selection.held_out(lines) == ("test" if without else "validation")


def test_means_say_over_how_many_seeds_they_run(tmp_path):
    def make(spec, seed, important, part, truth):
        values = logits(spec, seed, important, part, truth)
        values[:, 1] -= 1e4 * (seed == 2)  # never predicted: it has no precision
        return values

    def change(row):
        return row | {"diverged": row["seed"] == 3}

    study = load(tmp_path, [CROSS_ENTROPY], make=make, change=change, asked="bee")
    lines = selection.trials(study, (1,))
    line = selection.settings(lines).set_index("moved").loc[False]
    assert (line["num_seeds"], line["num_diverged"]) == (3, 1)
    assert (line["recall_n"], line["precision_n"]) == (3, 2)
    recalls = lines.loc[~lines["moved"] & ~lines["diverged"], "recall"]
    assert line["recall"] == pytest.approx(recalls.mean())
    assert line["recall_std"] == pytest.approx(recalls.std())


def trial(method, point, recall, accuracy, *, seed=0, test=None, **changes):
    """A line of `trials`; `test` has other recall and accuracy than validation."""
    line = {
        "trial_id": f"{method}{point}{seed}{changes.get('moved', False)}",
        "dataset": "digits",
        "method": method,
        "moved": False,
        "important": (1,),
        **dict.fromkeys(POINT, np.nan),
        **dict(zip(("margin", "scale"), point, strict=False)),
        "seed": seed,
        "diverged": False,
        "offset": 0.0,
    }
    pairs = {"validation_": (recall, accuracy), "": test or (recall, accuracy)}
    for prefix, (r, a) in pairs.items():
        line |= {
            f"{prefix}recall": r,
            f"{prefix}accuracy": a,
            f"{prefix}precision": 0.5,
            f"{prefix}f2": 0.5,
            f"{prefix}other_recall": a,
            f"{prefix}false_alarms": 50.0,
            f"{prefix}num_found": round(100 * r),
            f"{prefix}num_important": 100.0,
            f"{prefix}num_images": 200.0,
            f"{prefix}chance": 1e-6,
        }
    return line | changes


def frame(*lines):
    return pd.DataFrame(lines)


def test_selection_keeps_accuracy_then_takes_recall():
    numbers = selection.settings(
        frame(
            trial("cross_entropy", (), 0.5, 0.7),
            trial("camri", (0.1,), 0.55, 0.72, test=(0.52, 0.71)),
            trial("camri", (0.2,), 0.6, 0.7, test=(0.51, 0.65)),
            trial("camri", (0.3,), 0.9, 0.65, test=(0.99, 0.99)),
            trial("arcface", (0.1,), 0.4, 0.6),
            trial("arcface", (0.2,), 0.6, 0.65),
        )
    )
    picked = selection.select(numbers).set_index("method")
    # 0.3 has the highest recall, and on test images it would win: but not here.
    assert picked.loc["camri", "margin"] == 0.2
    assert picked.loc["camri", "recall"] == pytest.approx(0.51)
    assert picked.loc["camri", "keeps_accuracy"]
    assert not picked.loc["arcface", "keeps_accuracy"]
    assert picked.loc["arcface", "margin"] == 0.2
    on_test = selection.select(numbers, on="test").set_index("method")
    assert on_test.loc["camri", "margin"] == 0.3
    assert picked.index[0] == "cross_entropy"


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"accuracy": 0.9}, {"accuracy": 0.8}),
        ({"validation_false_alarms": 3.0}, {"validation_false_alarms": 4.0}),
        ({}, {}),
    ],
)
def test_equal_recalls_are_told_apart_by_what_matters_next(better, worse):
    first = {"recall": 1.0, "accuracy": 0.8} | better
    second = {"recall": 1.0, "accuracy": 0.8} | worse
    baseline = trial("cross_entropy", (), 0.5, 0.7)
    # The simpler one has the smaller penalty; it wins only if nothing else tells.
    points = ((0.1,), (0.2,)) if first == second else ((0.2,), (0.1,))
    lines = frame(
        baseline,
        *(trial("camri", p, **x) for p, x in zip(points, (first, second), strict=True)),
    )
    picked = selection.select(selection.settings(lines)).set_index("method")
    assert picked.loc["camri", "margin"] == points[0][0]
    best = selection.recommend(lines).trial
    assert (best["method"], best["margin"]) == ("camri", points[0][0])


def test_equal_means_are_equal_whatever_the_order_they_were_summed_in():
    found = np.array([[37, 19, 17], [19, 37, 17]]) / 42
    lines = [trial("cross_entropy", (), 0.1, 0.7)]
    for point, recalls, accuracy in zip((0.1, 0.2), found, (0.8, 0.9), strict=True):
        for seed, recall in enumerate(recalls):
            lines.append(trial("camri", (point,), recall, accuracy, seed=seed))
    settings = selection.settings(frame(*lines))
    assert 0 < np.ptp(settings.loc[settings["method"] == "camri", "recall"]) < 1e-15
    picked = selection.select(settings).set_index("method")
    assert picked.loc["camri", "margin"] == 0.2


def test_select_and_recommend_need_cross_entropy():
    lines = frame(trial("camri", (0.1,), 0.5, 0.9))
    with pytest.raises(UsageError, match="there must be rows of cross_entropy"):
        selection.select(selection.settings(lines))
    with pytest.raises(UsageError, match="there must be rows of cross_entropy"):
        selection.recommend(lines)


def test_the_setting_is_picked_by_means_and_the_seed_by_accuracy():
    lines = frame(
        *(trial("cross_entropy", (), 0.5, 0.7, seed=s) for s in range(3)),
        # The luckiest seed is of the worse setting.
        *(
            trial("arcface", (0.1,), r, 0.8, seed=s)
            for s, r in enumerate((1, 0.6, 0.6))
        ),
        *(
            trial("camri", (0.1,), r, a, seed=s)
            for s, (r, a) in enumerate(((0.92, 0.7), (0.90, 0.75), (0.82, 0.9)))
        ),
    )
    picked = selection.recommend(lines)
    # Seed 2 is the most accurate, but misses what the setting finds in the mean.
    assert (picked.trial["method"], picked.trial["seed"]) == ("camri", 1)
    assert "picked on validation images" in picked.why
    assert "mean recall 0.880 over 3 seeds" in picked.why
    expected = stats.binomtest(90, 100).proportion_ci(method="exact")
    assert (picked.low, picked.high) == pytest.approx((expected.low, expected.high))


def test_recalls_within_an_image_of_each_other_are_equal():
    lines = frame(
        trial("cross_entropy", (), 0.5, 0.7),
        trial("camri", (0.1,), 0.905, 0.72),
        trial("camri", (0.2,), 0.9, 0.8),
        trial("camri", (0.3,), 0.89, 0.9),
    )
    assert selection.recommend(lines).trial["margin"] == 0.2


@pytest.mark.parametrize(
    "changes",
    [
        {"accuracy": 0.69},
        {"offset": -0.5, "moved": True},
        {"validation_chance": 0.2},
        {"diverged": True, "validation_recall": np.nan, "validation_accuracy": np.nan},
    ],
)
def test_what_is_never_recommended(changes):
    line = {"recall": 1.0, "accuracy": 0.9} | changes
    lines = frame(trial("cross_entropy", (), 0.5, 0.7), trial("camri", (0.1,), **line))
    assert selection.recommend(lines).trial["method"] == "cross_entropy"


def test_a_seed_below_cross_entropys_mean_accuracy_is_never_recommended():
    lines = frame(
        trial("cross_entropy", (), 0.5, 0.7),
        # Only the inaccurate seed finds what the setting finds in the mean.
        trial("camri", (0.1,), 0.9, 0.69),
        trial("camri", (0.1,), 0.5, 0.95, seed=1),
    )
    assert selection.recommend(lines).trial["method"] == "cross_entropy"


def test_nothing_is_recommended_with_the_reason():
    chance = frame(trial("cross_entropy", (), 1.0, 0.25, validation_chance=1.0))
    picked = selection.recommend(chance)
    assert picked.trial is None
    assert "better than chance" in picked.why
    lost = trial("cross_entropy", (), 0.5, 0.5, diverged=True)
    names = [*MEASURES, "chance"]
    lost |= dict.fromkeys([*names, *(f"validation_{x}" for x in names)], np.nan)
    picked = selection.recommend(frame(lost))
    assert picked.trial is None
    assert "every trial diverged" in picked.why


def test_without_validation_images_nothing_is_said_to_be_picked_on_them(tmp_path):
    study = load(tmp_path, SPECS, validation=False)
    picked = selection.recommend(selection.trials(study, (1,)))
    assert picked.trial is not None
    assert "picked on the test images" in picked.why
    assert "picked on validation" not in picked.why


def test_labels_at_random_recommend_no_model(tmp_path):
    def make(spec, seed, important, part, truth):
        return logits(spec, seed, important, part, np.roll(truth, 1 + seed % 3))

    study = load(tmp_path, SPECS, make=make, size=30)
    assert selection.recommend(selection.trials(study, (1,))).trial is None


class Made(Study):
    """A study whose logits were never written."""

    def logits(self, part, trial_ids):
        return ((name, self.directory[part][name]) for name in trial_ids)


def world(rng, specs, num_seeds, sizes):
    """Trials with luck of their own, on images that all share."""
    truths = {p: rng.integers(0, 4, n).astype(np.int32) for p, n in sizes.items()}
    hardness = {p: rng.normal(size=(len(y), 4)) for p, y in truths.items()}
    kept, rows = {part: {} for part in sizes}, []
    for spec in specs:
        for seed in range(num_seeds):
            skill, push = spec.skill + rng.normal() / 10, spec.push + rng.normal() / 5
            name, counts = f"{spec} {seed}", {}
            for part, truth in truths.items():
                noise = 0.9 * hardness[part] + 0.45 * rng.normal(size=(len(truth), 4))
                values = noise + (3 + skill) * np.eye(4)[truth]
                values[:, 1] += push
                kept[part][name] = values = values.astype(np.float32)
                counts[f"{part}_confusion"] = confusion(values, truth)
            rows.append(
                {"trial_id": name, "dataset": "made up", "method": spec.method}
                | {"important": (1,), "seed": seed, "diverged": False}
                | dict.fromkeys(POINT, np.nan)
                | spec.point
                | counts
            )
    data = stored.Data("made up", CLASSES, truths, {})
    return Made(pd.DataFrame(rows), data, kept, ((1,),))


def test_the_recommended_model_is_no_worse_than_cross_entropy_moved():
    """Whatever luck picks: expected recall and accuracy on test images."""
    rng = np.random.default_rng(0)
    specs = [
        CROSS_ENTROPY,
        Spec("weighted_cross_entropy", {"weight": 4.0}, push=0.6),
        Spec("weighted_cross_entropy", {"weight": 16.0}, push=1.2),
        Spec("camri", {"margin": 0.2, "scale": 16.0}, push=0.3),
        Spec("camri", {"margin": 0.4, "scale": 16.0}, push=1.0),
    ]
    gains = []
    for _ in range(30):
        study = world(rng, specs, 3, {"validation": 200, "test": 600})
        lines = selection.trials(study, (1,))
        plain = lines[(lines["method"] == "cross_entropy") & lines["moved"]]
        best = selection.recommend(lines).trial
        gains.append(
            [best[name] - plain[name].mean() for name in ("recall", "accuracy")]
        )
    error = np.std(gains, 0) / np.sqrt(len(gains))
    assert (np.mean(gains, 0) > -2 * error).all(), (np.mean(gains, 0), error)


def test_baseline_recall_is_cross_entropys_mean(tmp_path):
    study = load(tmp_path, [CROSS_ENTROPY, CAMRI], num_seeds=2)
    found = selection.baseline_recall(study.rows, 4)
    truth = labels(80)
    recalls = [
        [
            looped(logits(CROSS_ENTROPY, s, (), "validation", truth), truth, k, 0)[0]
            for k in range(4)
        ]
        for s in range(2)
    ]
    np.testing.assert_allclose(found, np.mean(recalls, 0))
    rows = study.rows[study.rows["method"] == "camri"]
    assert selection.baseline_recall(rows, 4) is None
