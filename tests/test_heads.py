"""Laws of the head that keeps a promise, and scikit-learn's own checks of it."""

import pickle

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from camri_jax import guarantee, heads
from camri_jax.heads import ImportantClassifier
from camri_jax.training.methods import METHODS

pytestmark = pytest.mark.usefixtures("promotion_as_optax_needs_it")

NAMES = np.array(["ant", "bee", "cat"])
PLAIN = ("camri", "l2_softmax", "cross_entropy", "weighted_cross_entropy")


def head(**changes):
    """Few heads and steps; the same numbers for all tests, which share programs."""
    own = {"num_seeds": 2, "num_steps": 200, "batch_size": 32, "random_state": 0}
    return ImportantClassifier(**(own | changes))


def blobs(number, seed=0, dimension=5, shares=(0.3, 0.5, 0.2)):
    """Features about a centre for each class, which overlap, and names of classes."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, size=number, p=shares)
    centres = 1.5 * np.eye(3, dimension)
    return centres[labels] + rng.normal(size=(number, dimension)), NAMES[labels]


@parametrize_with_checks(
    [head(weight_decay=1.0)],
    expected_failed_checks=lambda estimator: {
        "check_sample_weight_equivalence_on_dense_data": (
            "an example of weight 2 is in one batch, one that is there twice in two"
        ),
    },
)
@pytest.mark.slow
def test_it_is_an_estimator_as_scikit_learn_wants_it(estimator, check):
    check(estimator)


@pytest.mark.parametrize("method", PLAIN)
def test_it_predicts_by_its_attributes_and_the_formula(method):
    X, y = blobs(300)
    fitted = head(method=method, important=["bee", "cat"], recall=0.5).fit(X, y)
    x = X[7]
    z = (x - fitted.mean_) / fitted.scale_
    if METHODS[method].head == "cosine":
        z = z / np.sqrt((z**2).sum())
    expected = [
        sum(w * z[j] for j, w in enumerate(fitted.coef_[k]))
        + fitted.intercept_[k]
        + (fitted.offset_ if name in ("bee", "cat") else 0.0)
        for k, name in enumerate(NAMES)
    ]
    found = fitted.decision_function(X)[7]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    chances = fitted.predict_proba(X)[7]
    np.testing.assert_allclose(chances, np.exp(found) / np.exp(found).sum(), rtol=1e-5)
    assert fitted.predict(X)[7] == NAMES[np.argmax(found)]


def test_two_classes_have_one_number_and_the_rarest_is_important():
    X, y = blobs(200, shares=(0.2, 0.8, 0.0))
    fitted = head().fit(X, y)
    assert fitted.important_.tolist() == ["ant"]
    assert fitted.certificate_ is None
    assert fitted.price_ is None
    numbers = fitted.decision_function(X)
    assert numbers.shape == (200,)
    assert (fitted.predict(X) == np.where(numbers > 0, "bee", "ant")).all()


def test_what_weighs_nothing_is_not_there_and_only_shares_of_weight_count():
    X, y = blobs(120)
    kept = np.random.default_rng(1).random(120) < 0.7
    fitted = head().fit(X[kept], y[kept])
    weighted = head().fit(X, y, sample_weight=3.0 * kept)
    np.testing.assert_array_equal(fitted.coef_, weighted.coef_)
    plain = {"method": "cross_entropy"}
    even = head(**plain).fit(X, y)
    heavy = head(**plain).fit(X, y, sample_weight=np.where(y == "cat", 8.0, 1.0))
    found = [(each.predict(X[y == "cat"]) == "cat").mean() for each in (even, heavy)]
    assert found[1] > found[0]


def test_a_change_of_unit_or_of_origin_changes_nothing():
    X, y = blobs(150)
    shifts = np.linspace(-3.0, 3.0, X.shape[1])
    found = [
        head().fit(each, y).decision_function(each) for each in (X, 7 * X + shifts)
    ]
    np.testing.assert_allclose(*found, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", ["camri", "cross_entropy"])
def test_the_unit_may_be_as_large_or_small_as_floats_go(method):
    X, y = blobs(150)
    plain = head(method=method).fit(X, y)
    for unit in (2.0**-900, 2.0**1020):
        fitted = head(method=method).fit(unit * X, y)
        found = fitted.decision_function(unit * X)
        np.testing.assert_array_equal(found, plain.decision_function(X))
    far = X * np.where(np.arange(150) == 7, 2.0**600, 1.0)[:, None]
    if method == "camri":  # of which directions count
        assert np.isfinite(plain.decision_function(far)).all()
    else:
        with pytest.raises(ValueError, match=r"X\[7\] so far away"):
            plain.predict(far)


def test_the_promise_is_kept_as_often_as_it_says():
    # One of 20 certificates may fail, by as little as there is; 4 of 20 would be rare.
    test, truth = blobs(20_000, seed=99)
    mine = truth == "cat"
    broken = 0
    for seed in range(20):
        X, y = blobs(400, seed=seed)
        fitted = head(important="cat", recall=0.85, random_state=seed).fit(X, y)
        assert fitted.certificate_.certified
        assert fitted.offset_ >= 0
        broken += (fitted.predict(test[mine]) == "cat").mean() < 0.85
    assert broken < 4


def test_of_several_margins_each_is_a_candidate_and_one_is_taken():
    X, y = blobs(600)
    margins = (0.0, 0.2, 0.4)
    fitted = head(important="cat", recall=0.8, margin=margins).fit(X, y)
    assert fitted.certificate_.candidates == 3
    assert fitted.margin_ in margins
    # Without several to choose among it takes fewer examples.
    alone = head(important="cat", recall=0.8, margin=fitted.margin_).fit(X, y)
    assert alone.offset_ <= fitted.offset_
    np.testing.assert_allclose(alone.coef_, fitted.coef_, rtol=1e-3, atol=1e-3)


def test_groups_are_never_cut_and_count_once():
    X, y = blobs(400)
    order = np.argsort(y, kind="stable")
    X, y, groups = X[order], y[order], np.arange(400) // 4
    fitted = head(important="cat", recall=0.5).fit(X, y, groups=groups)
    assert fitted.certificate_.num_groups <= fitted.certificate_.num_images / 3
    named = np.array([f"patient {group}" for group in groups], object)
    again = head(important="cat", recall=0.5).fit(X, y, groups=named)
    assert again.certificate_.certified
    with pytest.raises(ValueError, match="calibration groups of cat"):
        head(important="cat", recall=0.9).fit(X, y, groups=groups)
    unknown = named.copy()
    unknown[3] = None
    for wrong in (groups[1:], unknown, np.where(groups == 3, np.nan, groups)):
        with pytest.raises(ValueError, match="groups must be integers or strings"):
            head().fit(X, y, groups=wrong)


def test_what_is_repeated_certifies_nothing_that_was_trained_on():
    X, y = blobs(200)
    again = np.concatenate([np.arange(200), np.repeat(np.flatnonzero(y == "cat"), 3)])
    with pytest.warns(UserWarning, match="repeat the features of another"):
        fitted = head(important="cat", recall=0.5).fit(X[again], y[again])
    certificate = fitted.certificate_
    assert certificate.num_images == 4 * certificate.num_groups
    assert certificate.num_groups < (y == "cat").sum() / 2


def test_several_classes_each_keep_their_recall():
    def apart(*given):
        X, y = blobs(*given, shares=(0.8, 0.1, 0.1))
        return X + 2 * np.eye(3, 5)[np.searchsorted(NAMES, y)], y

    test, truth = apart(20_000, 99)
    broken = 0
    for seed in range(8):
        X, y = apart(1200, seed)
        asked = {"important": ["cat", "bee"], "recall": [0.7, 0.5]}
        plain = head(**asked, method="cross_entropy", random_state=seed)
        fitted = plain.fit(X, y)
        promised = {p.important: p.recall for p in fitted.certificate_.parts}
        assert promised == {(2,): 0.7, (1,): 0.5}
        found = fitted.predict(test)
        broken += any(
            (found[truth == name] == name).mean() < recall
            for name, recall in (("cat", 0.7), ("bee", 0.5))
        )
    assert broken < 3
    with pytest.raises(ValueError, match="one for each of 2 important classes"):
        head(important=["cat", "bee"], recall=[0.6, 0.7, 0.8]).fit(X, y)


def test_it_stands_in_pipelines_searches_and_files():
    pandas = pytest.importorskip("pandas")
    X, y = load_digits(return_X_y=True)
    frame = pandas.DataFrame(X).add_prefix("pixel").iloc[:600]
    y = np.array([f"digit {k}" for k in y[:600]])
    own = head(important="digit 8")
    pipeline = make_pipeline(StandardScaler(), own)
    search = GridSearchCV(pipeline, {"importantclassifier__margin": [0.0, 0.2]}, cv=2)
    search.fit(frame, y)
    assert search.score(frame, y) > 0.9
    assert (cross_val_predict(own, frame, y, cv=2) == y).mean() > 0.8
    fitted = own.fit(frame, y)
    assert fitted.feature_names_in_[0] == "pixel0"
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(
        again.decision_function(frame), fitted.decision_function(frame)
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"important": "cow"}, "important must name classes of y, got 'cow'"),
        ({"important": list(NAMES)}, "leave one that is not"),
        ({"method": "magic"}, "method must be one of"),
        ({"method": "recall_constraint"}, "method must be one of"),
        ({"method": "camri_warm_up"}, "method must be one of"),
        ({"method": "cross_entropy", "margin": 0.1}, "has no hyperparameter margin"),
        ({"hyperparameters": {"weight": 2.0}}, "camri has no hyperparameter weight"),
        ({"margin": (0.1, 0.2)}, "margin must be one number where no recall"),
        ({"recall": 0.99}, r"recall 0\.99 takes 299 calibration examples of"),
        ({"recall": 1.5}, "recall"),
        ({"recall": 0.8, "calibration_fraction": 1.0}, "calibration_fraction must be"),
        ({"num_seeds": 0}, "num_seeds must be at least 1, got 0"),
        ({"num_steps": 2.5}, "num_steps must be a whole number"),
        ({"num_steps": "x"}, "num_steps must be a whole number of at least 1, got 'x'"),
        ({"num_steps": None}, "num_steps must be a whole number .* got None"),
        ({"batch_size": np.inf}, "batch_size must be a whole number .* got inf"),
        ({"margin": "a"}, "margin must be one number or several, got 'a'"),
        ({"margin": [[0.1]]}, "margin must be one number or several"),
        ({"hyperparameters": {"margin": "a"}}, "margin must be one number or several"),
        ({"scale": "a"}, "scale must be a number, got 'a'"),
        ({"recall": "a"}, "recall must be one number or several, got 'a'"),
        ({"confidence": None, "recall": 0.5}, "confidence must be a number, got None"),
        ({"calibration_fraction": "a"}, "calibration_fraction must be a number"),
        ({"learning_rate": None}, "learning_rate must be a number, got None"),
        ({"weight_decay": "a"}, "weight_decay must be a number, got 'a'"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0"),
        ({"scale": -1.0}, "scale must be"),
        ({"margin": 0.1, "hyperparameters": {"margin": 0.2}}, "margin is given, and"),
    ],
)
def test_what_is_wrong_is_said(changes, message):
    with pytest.raises(ValueError, match=message):
        head(**changes).fit(*blobs(60))


@pytest.mark.parametrize("names", [NAMES, np.array([4, 6, 8])])
def test_a_class_of_no_weight_is_named_as_it_is_written(names):
    X, y = blobs(60)
    y = names[np.searchsorted(NAMES, y)]
    with pytest.raises(ValueError, match=f"none of class {names.tolist()[2]!r}$"):
        head().fit(X, y, sample_weight=y != names[2])


@pytest.mark.parametrize("decay", [5.0, 50.0])
def test_weights_end_within_one_over_their_decay(decay):
    X, y = blobs(300)
    free, held = (
        head(important="cat", method="cross_entropy", weight_decay=each).fit(X, y)
        for each in (0.0, decay)
    )
    assert np.abs(held.coef_).max() < 1 / decay < np.abs(free.coef_).max()


def test_the_decay_of_its_own_is_a_prior_that_more_examples_outweigh():
    X, y = blobs(60)
    plain, named = (
        head(important="cat", method="cross_entropy", weight_decay=each).fit(X, y)
        for each in (None, 1.7)  # 20 times 5 features for each of 60 examples
    )
    np.testing.assert_array_equal(plain.coef_, named.coef_)


def test_more_features_than_examples_are_learned_by_its_own_decay():
    X, y = blobs(40, dimension=640)
    for method in ("cross_entropy", "camri"):
        assert head(method=method, important="bee").fit(X, y).score(X, y) > 0.9


def test_training_without_an_end_is_said():
    X, y = blobs(60)
    with pytest.raises(ValueError, match="no finite numbers: a smaller"):
        head(weight_decay=1e4, learning_rate=0.1).fit(X, y)


def test_values_of_classes_are_in_their_order():
    X, y = blobs(200)
    one, other, swapped = (
        head(method="weighted_cross_entropy", important=names, hyperparameters=values)
        .fit(X, y)
        .coef_
        for names, values in (
            (["cat", "ant"], {"weight": [1.0, 50.0]}),
            (["ant", "cat"], {"weight": [50.0, 1.0]}),
            (["ant", "cat"], {"weight": [1.0, 50.0]}),
        )
    )
    np.testing.assert_array_equal(one, other)
    assert np.abs(one - swapped).max() > 0.1


def test_a_fit_that_fails_leaves_no_head_and_one_that_is_done_stays():
    X, y = blobs(200)
    fitted = head(method="camri", important="bee").fit(X, y)
    known = fitted.predict(X)
    fitted.set_params(method="cross_entropy")
    np.testing.assert_array_equal(fitted.predict(X), known)
    with pytest.raises(ValueError, match="takes 299 calibration"):
        fitted.set_params(recall=0.99).fit(X, y)
    with pytest.raises(NotFittedError):
        fitted.predict(X)
    assert not hasattr(fitted, "certificate_")


def test_folds_share_one_program():
    X, y = blobs(403)
    before = heads._program.cache_info().misses
    cross_val_predict(head(num_steps=50), X, y, cv=4)
    assert heads._program.cache_info().misses == before + 1


def test_the_rule_is_the_one_that_was_certified():
    X, y = blobs(300)
    fitted = head(important="cat", recall=0.8).fit(X, y)
    moved = fitted.decision_function(X)
    fitted.offset_ = 0.0
    plain = fitted.decision_function(X)
    offset = float(fitted.certificate_.offset)
    expected = guarantee.predict(plain, 2, max(0.0, offset))
    np.testing.assert_array_equal(moved.argmax(1), expected)
