"""From images to a promise: most of it with training that is made up, and fast."""

import dataclasses
import functools
import html
import json
import math
import re
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy
import tiny
from tiny import CLASSES, Tiny

from camri_jax import guarantee
from camri_jax._files import UsageError
from camri_jax.datasets.dataset import make_dataset
from camri_jax.sweeps import engine, rows
from camri_jax.sweeps.chunk import Trained
from camri_jax.takehome import (
    check,
    load_model,
    recalibrate,
    telling,
    tune,
    tuning,
    verify,
)
from camri_jax.takehome.promise import certificate_of
from camri_jax.takehome.tuning import TuneConfig, num_certifiable
from camri_jax.training import classifier, trial
from camri_jax.training.classifier import Classifier
from camri_jax.training.methods import BASELINE

SIZES = {"train": 27, "validation": 60, "calibration": 300, "test": 90}
PARTS = {name: tiny.part(size, i) for i, (name, size) in enumerate(SIZES.items())}
DATA = make_dataset("tiny", PARTS, CLASSES)
AHEAD = {"cross_entropy": 2.0, "camri": 3.0, "l2_softmax": 1.0}
ASKED = {
    "methods": ("camri", "l2_softmax"),
    "grid": {"camri.margin": (0.1, 0.2)},
    "num_finalists": 2,
    "recipe": tiny.RECIPE,
}


@functools.cache
def untrained(config):
    """Weights of the right shapes."""
    images = jax.ShapeDtypeStruct((1, *DATA.train_images.shape[1:]), np.uint8)
    seed = jax.ShapeDtypeStruct((), np.int32)
    states = jax.eval_shape(functools.partial(trial.init, config), images, seed)
    shapes = trial.evaluated_variables(states)
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


class Laboratory:
    """Makes trials up in no time, on a clock of its own."""

    def __init__(self, folder):
        self.now, self.seconds, self.trained = 0.0, 10.0, []
        self.diverging, self.folder, self.said = (), folder, {}

    def train_all(self, plan, dataset, data, output, *, again, provenance, on_progress):
        (chunk,) = plan.chunks
        self.now += self.seconds
        made, logits = [], []
        for each in chunk.trials:
            self.trained.append(each)
            seed = [each.seed, len(each.method), round(100 * sum(each.point.values()))]
            logits.append(
                {
                    name: self.logits([*seed, i], part.labels, AHEAD[each.method])
                    for i, (name, part) in enumerate(dataset.parts.items())
                    if name != "train"
                }
            )
            for name, said in logits[-1].items():
                images = dataset.parts[name].images.tobytes()
                self.said[each.trial_id, hash(images)] = said
            made.append(
                {
                    "trial_id": each.trial_id,
                    "method": each.method,
                    "important": each.important,
                    **each.point,
                    "seed": each.seed,
                    "diverged": each.method in self.diverging,
                }
            )
        weights = [untrained(chunk.config)] * len(made)
        trained = Trained(made, logits, weights)
        engine.save(plan, dataset, chunk, trained, output, provenance)
        on_progress(engine.Progress(len(made), plan.num_missing, chunk.family))

    @staticmethod
    def logits(seed, labels, ahead):
        logits = np.random.default_rng(seed).normal(size=(len(labels), len(CLASSES)))
        logits[np.arange(len(labels)), labels] += ahead
        return logits.astype(np.float32)

    def tune(self, important="bee", recall=0.9, data=DATA, output=None, **changes):
        changes = {"clock": lambda: self.now, **ASKED, **changes}
        output = self.folder / "out" if output is None else output
        return tune(data, important, recall, output=output, **changes)


@pytest.fixture
def lab(tmp_path, monkeypatch):
    made = Laboratory(tmp_path)

    real = Classifier.logits

    def scored(model, images):
        said = made.said.get((model.about["trial_id"], hash(images.tobytes())))
        return real(model, images) if said is None else said

    monkeypatch.setattr(Classifier, "logits", scored)
    monkeypatch.setattr(engine, "train_all", made.train_all)
    monkeypatch.setattr(tuning, "_page", lambda *_: "a page")
    return made


def logits_of(result, finalist, part):
    output = result.files["rows"].parent
    return dict(rows.read_logits(output, part, [finalist.trial_id]))[finalist.trial_id]


def test_the_promise_and_the_price_follow_from_the_logits(lab):
    result = lab.tune()
    assert {each.method for each in result.finalists} == {"cross_entropy", "camri"}
    for each in result.finalists:
        again = guarantee.certify_recall(
            logits_of(result, each, "calibration"),
            PARTS["calibration"].labels,
            1,
            recall=0.9,
            candidates=2,
        )
        assert each.certificate == again
        # With room for how another program rounds, but no more.
        assert 0 <= each.offset - max(again.offset, 0) < 1e-2
        assert each.offset > again.offset
        logits = logits_of(result, each, "test").copy()
        logits[:, 1] += np.float32(each.offset)
        says, labels = logits.argmax(1) == 1, PARTS["test"].labels
        found, alarms = (says & (labels == 1)).sum(), (says & (labels != 1)).sum()
        assert each.price.recall.count == found
        assert each.price.false_alarms.value == pytest.approx(1000 * alarms / 90)
        if each is result.chosen:
            text = " ".join(result.sentences)
            assert f"found {found} of 30" in text
            assert f"{1000 * alarms / 90:.1f} false alarms" in text
    assert result.chosen.validation == min(
        (each.validation for each in result.finalists), key=lambda v: (v[0], -v[1])
    )
    assert "at least 90 % of the images of bee, 95 % confidence" in text
    assert "100 calibration images" in text
    assert guarantee.ASSUMPTION in text
    assert (
        "* is taken: of those certified" in telling.sheet(result.table, "bee").caption
    )
    # An interval that holds 0 shows nothing.
    against = result.chosen.against.false_alarms
    shows_nothing = against.change_low <= 0 <= against.change_high
    assert ("not shown at 95 %" in text) == shows_nothing
    about = json.loads((result.directory / "model.json").read_text())
    assert about["classes"] == list(CLASSES)
    assert about["preprocessing"] == {"image_size": 8, "channels": 1, "fit": "stretch"}
    assert about["fingerprint"] == DATA.fingerprint
    assert [len(each["seeds"]) for each in about["tried"]] == [3, 3]


def test_calibration_images_change_certificates_and_nothing_that_is_picked(lab):
    """Whatever they are: what is tried, kept and ranked stays, and so do offsets
    and costs on validation images."""
    first = lab.tune()
    before, lab.trained = lab.trained, []
    calibration = PARTS["calibration"]
    poison = dataclasses.replace(
        calibration,
        images=calibration.images[::-1],
        labels=np.random.default_rng(0).permutation(calibration.labels),
    )
    poisoned = dataclasses.replace(DATA, parts=PARTS | {"calibration": poison})
    second = lab.tune(data=poisoned, output=lab.folder / "poisoned")
    assert lab.trained == before
    for one, other in zip(first.finalists, second.finalists, strict=True):
        assert (one.trial_id, one.seeds) == (other.trial_id, other.seeds)
        assert one.picked == other.picked
        assert one.certificate != other.certificate


def test_a_bar_shows_how_far_it_is_unless_someone_listens(lab, capsys):
    lab.tune(on_progress=lambda progress: None)
    assert capsys.readouterr().err == ""
    lab.tune(output=lab.folder / "anew")
    assert f"{len(lab.trained) // 2}/{len(lab.trained) // 2}" in capsys.readouterr().err


def test_started_again_it_trains_only_what_is_missing(lab):
    told = []
    first = lab.tune(on_progress=told.append)
    total, lab.trained = len(lab.trained), []
    assert total == told[0].num_trials
    again = lab.tune()
    assert lab.trained == []
    assert again.sentences == first.sentences
    lost = first.chosen.trial_id
    (lab.folder / "out" / "models" / f"{lost}.npz").unlink()
    assert lab.tune().sentences == first.sentences
    assert lost in {each.trial_id for each in lab.trained}
    assert len(lab.trained) <= 2


@pytest.mark.parametrize("lost", ["logits", "models"])
def test_rows_without_what_tuning_needs_are_trained_anew(lab, lost):
    output = lab.tune().files["rows"].parent
    trained = len(lab.trained)
    shutil.rmtree(output / lost)
    with pytest.warns(RuntimeWarning, match="logits or weights of its trials are miss"):
        lab.tune()
    assert len(lab.trained) == 2 * trained
    assert len(rows.read(output)) == len({t.trial_id for t in lab.trained})


@pytest.mark.parametrize("what", ["rows", "logits"])
def test_what_is_damaged_is_set_aside_and_trained_anew(lab, what):
    output = lab.tune().files["rows"].parent
    trained = len(lab.trained)
    path = sorted((output / what).iterdir())[0]
    path.write_bytes(b"damaged")
    with pytest.warns(RuntimeWarning, match=f"{path.name} is set aside: it "):
        lab.tune()
    assert path.exists()
    assert len(lab.trained) > trained


def test_what_another_process_finished_meanwhile_stays(lab, monkeypatch):
    output = lab.tune().files["rows"].parent
    known, looks = tuning._Lab.kept, []

    def kept(self):
        """Nothing, before the other process was ready."""
        looks.append(self)
        return known(self) if len(looks) > 1 else set()

    monkeypatch.setattr(tuning._Lab, "kept", kept)
    before = {path: path.read_bytes() for path in (output / "rows").iterdir()}
    monkeypatch.setattr(engine, "train_all", lambda *given, **options: None)
    lab.tune()
    assert before == {path: path.read_bytes() for path in (output / "rows").iterdir()}


def test_the_images_are_placed_once_and_only_to_be_trained_on(lab, monkeypatch):
    placed, place = [], engine.place

    def counted(*given):
        placed.append(given)
        return place(*given)

    monkeypatch.setattr(engine, "place", counted)
    lab.tune()
    lab.tune()
    assert len(lab.trained) > 2
    assert len(placed) == 1


@pytest.mark.parametrize("lost", [None, "logits", "models"])
def test_trials_of_other_chunks_are_trained_again_if_they_lack_something(
    lab, lost, monkeypatch
):
    """As a sweep leaves them, which may keep neither logits nor weights."""
    output = lab.tune().files["rows"].parent
    every = {each.trial_id for each in lab.trained}
    if lost:
        shutil.rmtree(output / lost)
    for path in (output / "rows").iterdir():
        path.rename(path.with_stem(f"other{path.stem}"))
    known, looks, told = tuning._Lab.kept, [], set()

    def kept(self):
        """Nothing, before the sweep was ready."""
        looks.append(self)
        return known(self) if len(looks) > 1 else set()

    def train_all(plan, *given, again, **options):
        (chunk,) = plan.chunks
        told.update(again)
        assert set(again) in (set(), {each.trial_id for each in chunk.trials})
        if lost:
            lab.train_all(plan, *given, again=again, **options)

    monkeypatch.setattr(tuning._Lab, "kept", kept)
    monkeypatch.setattr(engine, "train_all", train_all)
    lab.tune()
    assert told == (every if lost else set())


def test_why_there_is_no_report_is_told_and_an_earlier_one_does_not_stay(
    lab, monkeypatch
):
    result = lab.tune()
    assert result.files["report"].read_text() == "a page"

    def page(*given):
        raise UsageError("there is nothing to draw")

    monkeypatch.setattr(tuning, "_page", page)
    with pytest.warns(RuntimeWarning, match="no report is written: there is nothing"):
        assert "report" not in lab.tune().files
    assert not result.files["report"].exists()


def test_a_budget_is_kept_and_more_of_it_never_trains_less(lab):
    counts = []
    for budget in (5, 25, 45, 200):
        lab.now, lab.trained = 0.0, []
        result = lab.tune(budget=budget, output=lab.folder / str(budget))
        assert lab.now <= max(budget, lab.seconds)
        assert "cross_entropy" in {each.method for each in lab.trained}
        counts.append(len(lab.trained))
        left_out = any("Within the budget" in text for text in result.sentences)
        assert left_out == (budget < 200)
    assert counts == sorted(counts)
    lab.trained = []
    lab.tune(output=lab.folder / "free")
    assert counts[-1] == len(lab.trained)


def test_what_diverges_is_no_finalist(lab):
    lab.diverging = ("camri",)
    assert {f.method for f in lab.tune().finalists} == {"cross_entropy", "l2_softmax"}
    lab.diverging = tuple(AHEAD)
    with pytest.raises(UsageError, match="every trial diverged"):
        lab.tune(output=lab.folder / "lost")


def test_without_a_certificate_the_best_comes_clearly_without_a_promise(lab):
    result = lab.tune(recall=0.99)
    text = " ".join(result.sentences)
    assert not result.certified
    assert "No recall of 99 % can be certified for bee: 100 calibration images" in text
    assert "at most 97 %" in text
    assert "199 more" in text
    assert "WITHOUT a promise" in text
    assert "* is taken: NOT certified" in telling.sheet(result.table, "bee").caption
    assert guarantee.ASSUMPTION not in text
    assert result.load().offset == result.chosen.picked.offset
    found = verify(result.directory)
    assert not found.holds
    assert "without a promise" in found.sentences[0]


def test_a_group_that_counts_together_has_one_recall():
    with pytest.raises(UsageError, match="recall must be one number for one class"):
        tuning.goal_of(TuneConfig(("cat+bee",), (0.9, 0.8)), DATA)
    apart = tuning.goal_of(TuneConfig(("cat", "bee"), (0.9, 0.8)), DATA)
    assert dict(zip(apart.important, apart.recalls, strict=True)) == {2: 0.9, 1: 0.8}


def test_as_many_are_certified_as_the_images_allow():
    for recall in (0.9, 0.96, 0.97, 0.99):
        goal = tuning.goal_of(TuneConfig(("bee",), (recall,)), DATA)
        number = num_certifiable(goal, DATA, 5)
        needed = [guarantee.images_needed(recall, candidates=m) for m in range(1, 6)]
        assert number == max([m for m in range(1, 6) if needed[m - 1] <= 100] or [1])


def test_another_question_leaves_the_first_models_answer(lab):
    first = lab.tune()
    kept = {p.name: p.read_bytes() for p in first.directory.iterdir()}
    others = [
        lab.tune(recall=0.8),
        lab.tune(recall=0.8, confidence=0.9),
        lab.tune("cat"),
        lab.tune(("bee", "cat"), 0.8),
    ]
    names = [each.directory.name for each in (first, *others)]
    own = ["1_0.8_0.95", "1_0.8_0.9", "2_0.9_0.95", "1_2_0.8_0.8_0.95"]
    assert names == ["model", *(f"model_{name}" for name in own)]
    assert {p.name: p.read_bytes() for p in first.directory.iterdir()} == kept
    assert lab.tune().directory == first.directory
    assert verify(others[0].directory).holds


def test_several_classes_keep_their_own_recalls_at_once(lab):
    result = lab.tune(("bee", "cat"), (0.8, 0.9))
    assert result.certified
    certificates = result.chosen.certificate.certificates
    assert [(c.important, c.recall) for c in certificates] == [((1,), 0.8), ((2,), 0.9)]
    assert {c.candidates for c in certificates} == {2}
    assert (
        "at least 80 % of the images of bee and at least 90 % of the images of"
        in (result.sentences[0])
    )
    assert result.load().offset == result.chosen.offset
    assert verify(result.directory).holds
    # What is found of each is told: of both together, one could hide.
    test = PARTS["test"].labels
    logits = logits_of(result, result.chosen, "test")
    answers = guarantee.predict(logits, (1, 2), result.chosen.offset)
    each = [f"{(answers[test == k] == k).sum()} of {(test == k).sum()}" for k in (1, 2)]
    assert f": {each[0]} of bee, {each[1]} of cat." in " ".join(result.sentences)
    assert result.table["found_each"][0] == ", ".join(each)
    swapped = lab.tune(("cat", "bee"), (0.9, 0.8))
    assert swapped.chosen == result.chosen


@pytest.mark.usefixtures("promotion_as_optax_needs_it")
def test_one_recall_stays_that_of_each_class(lab, tmp_path):
    first = lab.tune(("bee", "cat"), 0.6).directory
    new = make_dataset("new", {"train": tiny.part(900, 7)}, CLASSES)
    for recall, recalls in ((0.1, [0.1, 0.1]), ((0.1, 0.2), [0.1, 0.2])):
        output = tmp_path / str(recall)
        model, _ = recalibrate(first, new, recall, output=output)
        parts = certificate_of(model.about).parts
        assert [(p.important, p.recall) for p in parts] == [
            ((1,), recalls[0]),
            ((2,), recalls[1]),
        ]
    together = lab.tune("bee+cat", 0.6).directory
    output = tmp_path / "both"
    model, _ = recalibrate(together, new, 0.1, output=output)
    assert certificate_of(model.about).parts[0].important == (1, 2)


def test_a_cheaper_loss_without_a_promise_is_named(lab):
    chosen = dataclasses.replace(
        lab.tune(methods=()).chosen, validation=(9.0, 0.5), method=BASELINE
    )
    cheap = dataclasses.replace(
        chosen, method="camri", validation=(5.0, 0.5), certificate=None
    )
    (told,) = telling._compared([cheap, chosen], chosen)
    assert told.startswith("CAMRI was cheaper on validation images than this")
    dear = dataclasses.replace(cheap, validation=(9.0, 0.4))
    (told,) = telling._compared([chosen, dear], chosen)
    assert told.startswith("No other loss")


def test_of_several_classes_each_is_told_what_it_lacks_itself(lab):
    result = lab.tune(("bee", "cat"), (0.8, 0.99))
    assert not result.certified
    bee, cat, *_ = result.sentences
    assert "for bee: 100 calibration images are enough, but" in bee
    assert "at which the other classes are certified" in bee
    assert re.search("for cat: 100 calibration images certify at most .* more", cat)


@pytest.mark.parametrize("important", ["bee", ("bee", "cat"), "bee+cat"])
@pytest.mark.parametrize("what", ["scores", "offset", "certificate", "weights"])
def test_what_was_tampered_with_is_found(lab, what, important):
    directory = lab.tune(important, 0.6).directory
    assert verify(directory).holds
    about = json.loads((directory / "model.json").read_text())
    if what == "scores":
        path = directory / "calibration.safetensors"
        with safetensors.safe_open(path, "numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            header = file.metadata()
        name = "scores" if "scores" in arrays else "logits"
        arrays[name].ravel()[0] += 0.001
        path.write_bytes(safetensors.numpy.save(arrays, header))
    elif what == "weights":
        path = directory / "weights.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    elif what == "offset":
        lowered = np.asarray(about["offset"]) - 3
        about["offset"] = lowered.tolist()
    else:
        part = about["certificate"]
        part = part["certificates"][0] if "certificates" in part else part
        part["recall"] += 0.01
    (directory / "model.json").write_text(json.dumps(about))
    assert not verify(directory).holds


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": tiny.DATASET}, "no calibration images; calibration_fraction"),
        ({"important": "wasp"}, "no class is called 'wasp'"),
        ({"important": "worst1"}, "classes by name or index, got 'worst1'"),
        ({"important": ("bee", "cat"), "recall": (0.9,) * 3}, "one for each of 2"),
        ({"important": ("bee+cat", "ant")}, "leave at least one|single classes"),
        ({"recall": 99}, "recall must be above 0 and below 1"),
        ({"num_seeds": 0}, "num_seeds must be at least 1"),
        ({"num_seeds": "3"}, "num_seeds must be a whole number"),
        ({"num_finalists": 2.5}, "num_finalists must be a whole number"),
        ({"budget": 0}, "budget must be above 0"),
        ({"methods": ("camry",)}, "methods must be among"),
    ],
)
def test_bad_arguments_are_told_before_training(lab, arguments, message):
    with pytest.raises(UsageError, match=message):
        lab.tune(**arguments)
    assert lab.trained == []


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The one tuning whose training is real."""
    output = tmp_path_factory.mktemp("tuned")
    asked = {"methods": (), "num_seeds": 1, "num_finalists": 1, "recipe": tiny.RECIPE}
    return tune(DATA, "bee", 0.8, output=output, backbone=Tiny(), **asked)


def test_the_model_says_bit_for_bit_what_training_said(trained):
    model = load_model(trained.directory, Tiny())
    for part in ("validation", "calibration", "test"):
        kept = logits_of(trained, trained.chosen, part)
        np.testing.assert_array_equal(model.raw_logits(PARTS[part].images), kept)
    moved = guarantee.predict(kept, (1,), model.offset)
    assert model.predict(PARTS["test"].images) == [CLASSES[k] for k in moved]
    page = (trained.directory / "report.html").read_text()
    assert html.escape(trained.sentences[0]) in page
    assert "Finalists" in page
    assert "Take " not in page


def test_a_promise_is_of_the_weights_that_are_taken_home(
    trained, tmp_path, monkeypatch
):
    """As where two processes trained a trial, of which the other wrote them last."""
    monkeypatch.setattr(tuning, "_page", lambda *_: "a page")
    output = tmp_path / "out"
    shutil.copytree(trained.files["rows"].parent, output)
    path = output / "models" / f"{trained.chosen.trial_id}.npz"
    first = classifier.load(path, Tiny())
    images, labels = PARTS["calibration"].images, PARTS["calibration"].labels
    variables = jax.tree.map(lambda x: x + np.float32(0.03), first.variables)
    classifier.save(path, first.config, variables, first.about)
    asked = {"methods": (), "num_seeds": 1, "num_finalists": 1, "recipe": tiny.RECIPE}
    again = tune(DATA, "bee", 0.8, output=output, backbone=Tiny(), **asked)
    logits = again.load(Tiny()).raw_logits(images)
    assert not np.array_equal(logits, first.logits(images))
    own = guarantee.certify_recall(logits, labels, 1, recall=0.8, confidence=0.95)
    assert again.chosen.certificate == own
    assert own != trained.chosen.certificate


def test_new_images_certify_anew_and_the_old_model_stays(trained, tmp_path):
    before = {p.name: p.read_bytes() for p in trained.directory.iterdir()}
    new = make_dataset("new", {"train": tiny.part(240, 7)}, CLASSES)
    output = tmp_path / "again"
    model, told = recalibrate(
        trained.directory, new, 0.9, output=output, backbone=Tiny()
    )
    own = guarantee.certify_recall(
        model.raw_logits(new.parts["train"].images),
        new.parts["train"].labels,
        1,
        recall=0.9,
    )
    assert model.offset == max(own.offset, 0)
    assert "at least 90 % of the images of bee" in told[0]
    assert "80 calibration images" in told[0]
    assert verify(output).holds
    assert {p.name: p.read_bytes() for p in trained.directory.iterdir()} == before
    with pytest.raises(UsageError, match="is there already"):
        recalibrate(trained.directory, new, 0.9, output=output, backbone=Tiny())
    model, told = recalibrate(
        trained.directory,
        new,
        0.999,
        output=tmp_path / "none",
        backbone=Tiny(),
    )
    assert "WITHOUT a promise" in told[-1]
    assert model.offset == trained.chosen.offset
    assert not verify(tmp_path / "none").holds


def test_no_image_that_made_a_model_speaks_for_it(trained, tmp_path):
    """Whatever of its own data comes again: only test images are new to it."""
    test = PARTS["test"]
    model, told = recalibrate(
        trained.directory,
        tiny.without(DATA, "calibration"),
        0.8,
        output=tmp_path / "again",
        backbone=Tiny(),
    )
    assert "87 of 177 images are left out" in told[0]
    own = guarantee.certify_recall(
        model.raw_logits(test.images), test.labels, 1, recall=0.8
    )
    assert model.about["certificate"] == own.to_dict()
    for part, left in (("train", 0), ("calibration", 0), ("test", 30)):
        alone = make_dataset("part", {"train": PARTS[part]}, CLASSES)
        if not left:
            with pytest.raises(UsageError, match="certified on all"):
                check(trained.directory, alone, backbone=Tiny())
            continue
        found = check(trained.directory, alone, backbone=Tiny())
        assert found.checks[0][0].total == left
        assert "left out" not in " ".join(found.sentences)
        # What certified the new model speaks for that one no more.
        with pytest.raises(UsageError, match="certified on all"):
            check(tmp_path / "again", alone, 0.8, backbone=Tiny())


def test_a_check_counts_one_image_of_each_group(trained):
    labels = tiny.part(90, 8).labels
    groups = np.arange(90, dtype=np.int32) // 9
    alone = make_dataset("new", {"train": tiny.part(90, 8)}, CLASSES)
    grouped = dataclasses.replace(tiny.part(90, 8), groups=groups)
    together = make_dataset("new", {"train": grouped}, CLASSES)
    found = check(trained.directory, alone, backbone=Tiny())
    model = load_model(trained.directory, Tiny())
    right = np.array(model.predict(alone.parts["train"].images)) == "bee"
    ((once, ever),) = found.checks
    assert (once.found, once.total) == (right[labels == 1].sum(), 30)
    assert once == guarantee.check_recall(once.found, 30, recall=0.8)
    assert ever.sequential
    assert f"found {once.found} of 30; 80 % was promised" in found.sentences[0]
    ((once, _),) = check(trained.directory, together, backbone=Tiny()).checks
    assert once.total == 10
    found = check(trained.directory, alone, 0.5, backbone=Tiny())
    ((once, _),) = found.checks
    assert once.recall == 0.5
    assert "50 % was asked" in found.sentences[0]


def test_a_broken_promise_is_called_so(trained):
    """All images of ants are called bees."""
    part = tiny.part(90, 8)
    wrong = dataclasses.replace(part, labels=np.where(part.labels == 0, 1, 0))
    wrong = dataclasses.replace(wrong, labels=wrong.labels.astype(np.int32))
    data = make_dataset("new", {"train": wrong}, CLASSES)
    found = check(trained.directory, data, 0.99, backbone=Tiny())
    ((once, _),) = found.checks
    assert not math.isnan(once.p_value)
    assert found.holds == (once.verdict != "broken")
    assert ("BROKEN" in " ".join(found.sentences)) == (once.verdict == "broken")


def test_images_of_unknown_classes_are_refused(trained, tmp_path):
    data = make_dataset("new", {"train": tiny.part(9, 8)}, ("ant", "bee", "cut"))
    for ask in (check, lambda *a, **k: recalibrate(*a, 0.9, output="x", **k)):
        with pytest.raises(UsageError, match="no class 'cut'; did you mean 'cat'"):
            ask(trained.directory, data, backbone=Tiny())
    shutil.copytree(trained.directory, tmp_path / "half")
    (tmp_path / "half" / "model.json").unlink()
    with pytest.raises(UsageError, match="holds no model"):
        verify(tmp_path / "half")
