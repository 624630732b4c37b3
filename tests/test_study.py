"""A study is of one data set, one fingerprint and one set of settings, or says why."""

import json

import numpy as np
import pytest
from synthetic import CROSS_ENTROPY, SETTINGS, SPECS, load, row, write

from camri_jax._files import UsageError
from camri_jax.evidence import study
from camri_jax.sweeps import rows as stored


def test_no_rows_are_one_sentence(tmp_path):
    with pytest.raises(UsageError, match="missing is not a directory"):
        study.load(tmp_path / "missing")
    with pytest.raises(UsageError, match="holds no rows of trials"):
        study.load(tmp_path)


def another(tmp_path, chunk="b", **changes):
    """Writes the rows again with changes, as other trials."""
    settings = json.dumps(SETTINGS | changes.pop("settings", {}))
    write(
        tmp_path,
        chunk=chunk,
        change=lambda line: (
            line
            | {"trial_id": f"{chunk} {line['trial_id']}", "settings": settings}
            | changes
        ),
    )


def test_data_sets_are_not_mixed(tmp_path):
    write(tmp_path)
    another(tmp_path, dataset="mnist", fingerprint="other")
    with pytest.raises(
        UsageError, match="several data sets: dataset must be one of digits, mnist"
    ):
        study.load(tmp_path)
    assert set(study.load(tmp_path, dataset="digits").rows["dataset"]) == {"digits"}
    assert study.load(tmp_path, dataset="mnist").data.dataset == "mnist"
    with pytest.raises(UsageError, match="dataset must be among digits, mnist"):
        study.load(tmp_path, dataset="gtsrb")


def test_a_name_picks_its_data_under_whatever_name(tmp_path):
    """Of which other data have borne one: they are not what was asked for."""
    write(tmp_path)
    another(tmp_path, "b", dataset="./digits", settings={"epochs": 60})
    another(tmp_path, "c", dataset="./digits", fingerprint="other", settings={"x": 1})
    asked = study.load(tmp_path, dataset="digits", where=["epochs=60"])
    assert set(asked.rows["dataset"]) == {"./digits"}
    assert not asked.aside
    assert set(asked.rows["fingerprint"]) != {"other"}


def test_settings_are_not_mixed(tmp_path):
    write(tmp_path)
    another(tmp_path, settings={"epochs": 60})
    with pytest.raises(
        UsageError, match=r"epochs 3 or 60\. Pick one, for example where"
    ):
        study.load(tmp_path)
    assert len(study.load(tmp_path, where=["epochs=60"]).rows) == 4 * len(SPECS)
    with pytest.raises(UsageError, match="only rows of epochs 3 or 60"):
        study.load(tmp_path, where=["epochs=7"])
    with pytest.raises(UsageError, match="must be NAME=VALUE"):
        study.load(tmp_path, where=["epoch"])


def test_rows_of_other_data_are_said_and_set_aside(tmp_path):
    write(tmp_path)
    assert study.notes(study.load(tmp_path)) == []
    newer = json.dumps({"time": "2026-02-01T00:00:00+00:00"})
    changed = {"fingerprint": "newer", "settings": {"fingerprint": "newer"}}
    another(tmp_path, provenance=newer, **changed)
    # Rows of an older schema lack columns; they are set aside, too.
    old = {"trial_id": "old", "dataset": "digits", "method": "camri", "seed": 0}
    stored.write(tmp_path, "c", [old])
    found = study.load(tmp_path)
    assert set(found.rows["fingerprint"]) == {"newer"}
    first, second = study.notes(found)
    assert "24 trials are of other data (made-up" in first
    assert "1 trials are of an older version" in second
    picked = study.load(tmp_path, where=["fingerprint=made-up"])
    assert set(picked.rows["fingerprint"]) == {"made-up"}
    stored.write(tmp_path / "d", "c", [old])
    with pytest.raises(UsageError, match="older version, which kept neither logits"):
        study.load(tmp_path / "d")


def test_two_rows_of_one_seed_are_an_error_that_names_them(tmp_path):
    write(tmp_path)
    values = {"test": np.eye(4, dtype=np.float32)}
    line = row(CROSS_ENTROPY, 2, (1,), values, {"test": np.arange(4)}, trial_id="again")
    stored.write(tmp_path, "b", [line])
    with pytest.raises(UsageError, match=r"rows of cross-entropy, seed 2.*again"):
        study.load(tmp_path)


def test_an_important_class_is_a_tuple_of_indices(tmp_path):
    write(tmp_path, important=((1,), (0, 2)))
    assert set(study.load(tmp_path).choices) == {(1,), (0, 2)}
    for asked, expected in (
        ("bee", ((1,),)),
        ("1", ((1,),)),
        ("cat+ant", ((0, 2),)),
        (["dog", "2+0"], ((3,), (0, 2))),
        ([("cat", 0), "cat+ant"], ((0, 2),)),
    ):
        assert study.load(tmp_path, important=asked).choices == expected, asked
    for wrong in ("cow", "ant+cow", "ant+bee+cat+dog", "4"):
        with pytest.raises(UsageError, match="important"):
            study.load(tmp_path, important=wrong)


def test_methods_that_ignore_classes_tell_of_every_choice(tmp_path):
    found = load(tmp_path, important=((1,), (0, 2)), num_seeds=1)
    methods = {choice: set(found.of(choice)["method"]) for choice in [(1,), (3,)]}
    assert methods[3,] == {"cross_entropy", "l2_softmax", "arcface"}
    assert methods[1,] == {spec.method for spec in SPECS}
    assert len(found.of((0, 2))) == len(SPECS)
    write(tmp_path / "plain", [CROSS_ENTROPY])
    with pytest.raises(UsageError, match="no trial was trained for an important class"):
        study.load(tmp_path / "plain")
    assert study.load(tmp_path / "plain", important="dog").choices == ((3,),)


def test_what_is_lost_or_lacking_is_noted(tmp_path):
    def change(line):
        if line["method"] == "camri" and line["seed"] > 1 and line["margin"] > 0.3:
            return None
        return line | {"diverged": line["method"] == "arcface" and line["seed"] == 0}

    first, second = study.notes(load(tmp_path / "a", change=change))
    assert "1 of 22 trials diverged and are left out (ArcFace m=4π/64 s=16)" in first
    assert "of 4 seeds there are, for CAMRI m=8π/64 s=16 2" in second
    lost = load(tmp_path / "b", change=lambda line: line | {"diverged": True})
    (note,) = study.notes(lost)
    assert note.startswith("every trial diverged:")


def test_seeds_that_cross_entropy_lacks_are_noted(tmp_path):
    def change(line):
        is_baseline = line["method"] == "cross_entropy"
        lacking = line["seed"] in ((3,) if is_baseline else (0,))
        return None if lacking else line

    (note,) = study.notes(load(tmp_path, change=change))
    assert note.startswith("cross-entropy lacks seeds")
    assert "CAMRI m=8π/64 s=16 2 of 3" in note


def test_seeds_are_those_of_each_choice(tmp_path):
    def change(line):
        many = line["method"] == "camri" and line["important"] == (1,)
        return line if many or line["seed"] < 2 else None

    found = load(tmp_path, important=((1,), (2,)), change=change)
    _, second = study.notes(found)
    assert second.startswith("cross-entropy lacks seeds")
    assert "CAMRI m=8π/64 s=16 2 of 4" in second


def test_logits_that_fit_no_labels_are_refused(tmp_path):
    found = load(tmp_path, num_seeds=1)
    (trial_id, logits), *_ = found.logits("test", list(found.rows["trial_id"]))
    stored.write_logits(tmp_path, "a", {trial_id: {"test": logits[1:]}})
    with pytest.raises(UsageError, match="but its labels make"):
        list(found.logits("test", [trial_id]))
