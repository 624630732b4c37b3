"""Tables hold what trials say; sheets show it, and leave blank what is not known."""

import re
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from synthetic import CROSS_ENTROPY, MARGIN, SPECS, Spec, labels, load, trial_id

from camri_jax._files import UsageError
from camri_jax.evidence import curves, selection, tables, verdicts
from camri_jax.evidence.report import words
from camri_jax.evidence.selection import Recommendation
from camri_jax.evidence.sheets import Cell, Sheet, markdown
from camri_jax.evidence.sheets import plain as lines_of
from camri_jax.evidence.study import point_of, point_text
from camri_jax.sweeps import rows as stored


def sheets_of(study, important=(1,)):
    """Every sheet that a study has, and all sentences."""
    name = study.name(important)
    table = tables.comparison(study, important)
    trials = selection.trials(study, important)
    found = tables.comparison_sheets(table, name)
    priced = verdicts.price_differences(curves.prices(study, important))
    if len(priced):
        found.append(tables.prices_sheet(priced, name))
    spreads, missing = tables.angles(study, important, tables.chosen(table))
    if len(spreads):
        found.append(tables.angles_sheet(spreads, name))
    told = tables.recommendation(selection.recommend(trials), name)
    return table, found, [*tables.remarks(table, name), *missing, *told]


def texts(sheets, told):
    return "\n".join(
        [
            *told,
            *(cell for sheet in sheets for row in lines_of(sheet) for cell in row),
            *map(markdown, sheets),
        ]
    )


def by_class(line):
    """Two settings of CAMRI, of which each class has its own margin."""
    margin = line.get("margin")
    if line["method"] != "camri" or margin == 2 * MARGIN:
        return line
    return line | {"margin": (2 * MARGIN, margin)}


def test_what_each_class_has_of_its_own_is_a_setting_and_is_told(tmp_path):
    """As rows, a study, tables, sheets and a report; and beside plain numbers."""
    more = Spec("camri", {"margin": 3 * MARGIN, "scale": 16.0}, push=2.5)
    specs = [spec for spec in SPECS if spec.method in ("cross_entropy", "camri")]
    asked: dict[str, Any] = {"important": ((0, 2),), "keep_logits": False}
    study = load(tmp_path, (*specs, more), **asked, change=by_class)
    line = study.rows[study.rows["by_class"] != ""].iloc[0]
    assert point_of(line) == {"margin": [2 * MARGIN, MARGIN], "scale": 16.0}
    settings = selection.settings(selection.trials(study, (0, 2)))
    camri = settings[(settings["method"] == "camri") & ~settings["moved"]]
    names = ["m=8π/64", "m=8π/64,4π/64", "m=8π/64,12π/64"]
    told = {point_text(line) for _, line in camri.iterrows()}
    assert told == {f"{name} s=16" for name in names}
    assert set(camri["num_seeds"]) == {4}
    table, sheets, sentences = sheets_of(study, (0, 2))
    page = texts(sheets, sentences)
    assert page.count("CAMRI m=8π/64,4π/64 s=16") > 1
    assert not any(each.startswith("no rows of CAMRI") for each in sentences)
    (cell,) = [r[1] for r in lines_of(words.grid(study.rows)) if r[0] == "CAMRI"]
    assert cell == "8π/64; 8π/64,4π/64; 8π/64,12π/64"
    # The same numbers under one margin for both classes make the same table.
    plain = load(tmp_path / "plain", (*specs, more), **asked)
    numbers = table.select_dtypes("number").drop(columns=["margin"])
    alike = tables.comparison(plain, (0, 2))[numbers.columns]
    pd.testing.assert_frame_equal(numbers, alike)


def test_rows_of_before_values_by_class_are_read(tmp_path):
    load(tmp_path, important=((0, 2),), change=by_class)
    (path,) = (tmp_path / "rows").iterdir()
    before = stored.read(tmp_path).set_index("trial_id")
    pq.write_table(pq.read_table(path).drop_columns(["by_class", "checksum"]), path)
    after = stored.read(tmp_path).set_index("trial_id").loc[before.index]
    assert before["by_class"].notna().any()
    assert after["by_class"].isna().all()
    pd.testing.assert_frame_equal(
        before.assign(by_class=np.nan), after, check_dtype=False
    )


def test_of_several_classes_each_recall_is_told(tmp_path):
    study = load(tmp_path, important=((1,), (0, 2)), num_seeds=3)
    table = tables.comparison(study, (0, 2))
    sheets = tables.comparison_sheets(table, "ant+cat")
    table = tables.chosen(table)
    (sheet,) = [x for x in sheets if x.title.startswith("Recall of each class")]
    assert sheet.columns[1:] == ["mean", "lowest", "ant", "cat"]
    trained = [i for i, moved in enumerate(table["moved"]) if not moved]
    for i in trained:
        rows = study.of((0, 2))
        line = table.iloc[i]
        for name in ("method", "margin", "weight"):
            rows = rows[(rows[name] == line[name]) | pd.isna(line[name])]
        counts = np.stack(list(rows["test_confusion"]))
        each = np.array([[c[k, k] / c[k].sum() for k in (0, 2)] for c in counts])
        told = [cell.value for cell in sheet.rows[i][1:]]
        wanted = [each.mean(), each.min(1).mean(), *each.mean(0)]
        np.testing.assert_allclose(told, wanted)
    alone = tables.comparison_sheets(tables.comparison(study, (1,)), "bee")
    assert not any("each class" in x.title for x in alone)


def test_the_comparison_picks_on_the_images_that_each_rule_allows(tmp_path):
    study = load(tmp_path)
    table = tables.comparison(study, (1,))
    plain = table[~table["moved"]]
    assert set(tables.chosen(table)["selection"]) == {"held_out"}
    counted = []
    for row in study.rows.to_dict("records"):
        for part in ("test", "validation"):
            c = np.asarray(row[f"{part}_confusion"])
            numbers = c[1, 1] / c[1].sum(), np.trace(c) / c.sum()
            counted.append((row["method"], row["margin"], part, *numbers))
    names = ["method", "margin", "part", "recall", "accuracy"]
    means = pd.DataFrame(counted, columns=names).fillna({"margin": 0})
    means = means.groupby(["method", "margin", "part"]).mean().reset_index("part")
    for picked, part in (("paper", "test"), ("held_out", "validation")):
        lines = plain[plain["selection"] == picked].set_index("method")
        on, test = (means[means["part"] == x] for x in (part, "test"))
        bar = on.loc[("cross_entropy", 0), "accuracy"] - 1e-9
        assert set(lines.index) == {spec.method for spec in SPECS}
        for method, line in lines.iterrows():
            own = on.loc[[method]]
            keeping = own[own["accuracy"] >= bar]
            assert line["keeps_accuracy"] == (len(keeping) > 0)
            if len(keeping):
                best = test.loc[keeping["recall"].idxmax()]
                assert line["recall"] == pytest.approx(best["recall"])
                assert line["accuracy"] == pytest.approx(best["accuracy"])
    # Corrections count every setting, also those that stand in no table.
    every = verdicts.paired(selection.trials(study, (1,)))
    own = verdicts.at_own_recall(curves.prices(study, (1,), None))
    known = verdicts.claims(every.merge(own, on=selection.KEY, how="left"))
    camri = known[(known["method"] == "camri") & ~known["moved"]]
    held = plain[(plain["selection"] == "held_out") & (plain["method"] == "camri")]
    same = camri[camri["margin"] == held["margin"].item()]
    assert held["more_p_holm"].item() == same["more_p_holm"].item()
    assert len(known) == 2 * len(SPECS) - 1


def test_cells_hold_the_numbers_that_they_show(tmp_path):
    table, sheets, _ = sheets_of(load(tmp_path, num_seeds=3))
    chosen = tables.chosen(table)
    by_title = {sheet.title.split(".")[0]: sheet for sheet in sheets}
    hidden = by_title["What accuracy hides"]
    for column, name in ((1, "precision"), (3, "other_recall"), (4, "false_alarms")):
        values = [row[column].value for row in hidden.rows]
        assert values == chosen[name].tolist()
    differences = by_title["Differences to cross-entropy"]
    for column, name in ((1, "recall_difference"), (3, "more_p_holm")):
        values = [row[column].value for row in differences.rows]
        expected = [None if np.isnan(x) else x for x in chosen[name]]
        assert values == expected
    for sheet in sheets:
        for row in sheet.rows:
            assert len(row) == len(sheet.columns)
            for cell in row[1:]:
                assert (cell.value is None) == (cell.text == "")
                if cell.value is not None:
                    shown = cell.text.split("±")[0].split("[")[0].split("\n")[0]
                    value = float(shown.replace(",", "").replace("<", ""))
                    assert value == pytest.approx(cell.value, abs=0.051)


def test_every_choice_has_its_tables(tmp_path):
    study = load(tmp_path, important=((1,), (0, 2)), num_seeds=3)
    for choice, name in (((1,), "bee"), ((0, 2), "ant+cat")):
        table, sheets, told = sheets_of(study, choice)
        assert set(table["important"]) == {choice}
        heading = rf"Important class(es)?: {re.escape(name)}"
        assert all(re.search(heading, sheet.title) for sheet in sheets)
        assert "nan" not in texts(sheets, told)


def test_accuracy_that_is_lost_leaves_the_papers_column_blank(tmp_path):
    worse = Spec("camri", {"margin": 0.2, "scale": 16.0}, push=3.0)
    _, (sheet, *_), _ = sheets_of(load(tmp_path, [CROSS_ENTROPY, worse]))
    (line,) = [row for row in sheet.rows if row[0].text == "CAMRI"]
    assert line[3:5] == [Cell(), Cell()]
    assert line[2].mark == "loss"


def all_lost(row):
    return row | {"diverged": True}


def baseline_lost(row):
    return row | {"diverged": row["method"] == "cross_entropy"}


def camri_lost(row):
    return row | {"diverged": row["method"] == "camri"}


NO_BEES = np.where(labels(80) == 1, 0, labels(80))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_seeds": 1}, "with one seed there is no interval"),
        ({"change": all_lost}, "every trial diverged"),
        ({"change": camri_lost}, "Take "),
        ({"change": baseline_lost}, "every trial of cross-entropy diverged"),
        ({"truths": {"test": NO_BEES}}, "no test images of bee"),
        ({"truths": {"validation": NO_BEES}}, "settings are picked on the test images"),
        ({"validation": False}, "picked on the test images"),
        ({"keep_logits": False}, "picked on validation images"),
        ({"size": 12, "num_seeds": 2}, "rest on 12 test images"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_what_is_not_known_is_blank_and_said(options, said, tmp_path):
    table, sheets, told = sheets_of(load(tmp_path, **options))
    text = texts(sheets, told)
    assert said in text
    assert "nan" not in text.lower()
    assert " 0 test images" not in text or "truths" in options
    assert "inf" not in text
    assert table["verdict"].isin(list(verdicts.VERDICTS)).all()
    if options.get("num_seeds") == 1:
        assert "±" not in "".join(c.text for s in sheets for row in s.rows for c in row)
        assert set(table["verdict"]) == {"baseline", "untested"}
    if options.get("change") is all_lost:
        assert set(table["verdict"]) == {"diverged"}
    if options.get("change") is camri_lost:
        lost = table["method"] == "camri"
        assert set(table[lost]["verdict"]) == {"diverged"}
        assert "diverged" not in set(table[~lost]["verdict"])
    if "truths" in options and "test" in options["truths"]:
        assert set(table["verdict"]) == {"baseline", "no_images"}


def test_cross_entropy_alone_has_tables_but_no_power(tmp_path):
    study = load(tmp_path, [CROSS_ENTROPY], validation=False, asked="bee")
    _, sheets, told = sheets_of(study)
    assert len(sheets) == 4
    assert any("none to compare it with" in text for text in told)
    with pytest.raises(UsageError, match="none to compare it with"):
        tables.power(selection.trials(study, (1,)))


@pytest.mark.parametrize("margin", [5, -1, 1])
def test_a_margin_that_is_no_share_is_refused_before_all_else(margin):
    with pytest.raises(UsageError, match="accuracy_margin must be in"):
        tables.comparison(None, (1,), accuracy_margin=margin)


def test_means_that_skip_seeds_say_so(tmp_path):
    def change(row):
        if row["seed"] == 0:  # nothing is predicted as a bee
            confusion = row["test_confusion"].copy()
            confusion[:, 0] += confusion[:, 1]
            confusion[:, 1] = 0
            row["test_confusion"] = confusion
        return row

    study = load(tmp_path, [CROSS_ENTROPY, SPECS[4]], change=change)
    _, sheets, _ = sheets_of(study)
    assert "precision of cross-entropy over 3 of 4 seeds" in sheets[1].caption


def test_the_recommendation_is_k_of_n_with_an_exact_interval(tmp_path):
    study = load(tmp_path)
    trials = selection.trials(study, (1,))
    picked = selection.recommend(trials)
    line = picked.trial
    text = " ".join(tables.recommendation(picked, "bee"))
    assert f"finds {line['num_found']:.0f} of 80 of bee" in text
    assert f"interval {picked.low:.3f} to {picked.high:.3f}" in text
    assert f"{line['false_alarms']:.1f} false alarms per 1,000" in text
    assert f"accuracy {line['accuracy']:.3f}" in text
    assert line["trial_id"] in text
    assert "say little" not in text
    stays = picked._replace(trial=line.copy())
    stays.trial["moved"], stays.trial["offset"] = True, 0.0
    (first, *_) = tables.recommendation(stays, "bee")
    assert "(its threshold stays)" in first
    assert "moved" not in first
    none = tables.recommendation(Recommendation(None, "so"), "bee")
    assert none == tables.Advice("No model is recommended: so.")


def test_table_2_has_the_papers_columns(tmp_path):
    zero = Spec("arcface", {"margin": 0.0, "scale": 16.0})
    specs = [spec for spec in SPECS if spec.method != "l2_softmax"]
    study = load(tmp_path, [*specs, zero])
    table = tables.comparison(study, (1,))
    found, missing = tables.angles(study, (1,), tables.chosen(table))
    assert missing == []
    found = found.set_index("column")
    assert list(found.index) == [
        *("CAMRI", "ArcFace", "WCE", "ArcFace (m=0)", "cross-entropy")
    ]
    rows = study.rows.set_index("trial_id")
    for column, spec in (("ArcFace (m=0)", zero), ("cross-entropy", CROSS_ENTROPY)):
        std = np.array([rows["angle_std"][trial_id(spec, s)] for s in range(4)])
        others = np.delete(std, 1, axis=1)
        for name, values in (
            ("important_angle", std[:, 1]),
            ("least", others.min(1)),
            ("median", np.median(others, axis=1)),
        ):
            assert found.loc[column, name] == pytest.approx(values.mean(), rel=1e-6)
            spread = values.std(ddof=1)
            assert found.loc[column, f"{name}_std"] == pytest.approx(spread, rel=1e-5)
    (best, *_), *_ = zip(
        *tables.angles_sheet(found.reset_index(), "x").rows, strict=True
    )
    assert isinstance(best, Cell)


def test_table_2_leaves_out_what_is_not_there(tmp_path):
    study = load(tmp_path, [CROSS_ENTROPY, SPECS[4]])
    chosen = tables.chosen(tables.comparison(study, (1,)))
    found, missing = tables.angles(study, (1,), chosen)
    assert found["column"].tolist() == ["CAMRI", "cross-entropy"]
    assert missing == [
        f"no rows of {x}, left out" for x in ("ArcFace", "WCE", "ArcFace (m=0)")
    ]


def test_power_counts_fewer_seeds_for_larger_effects_and_margins(tmp_path):
    trials = selection.trials(load(tmp_path, num_seeds=6), (1,))
    small, large = (tables.power(trials, effect=e) for e in (0.001, 0.05))
    assert (large["seeds_recall"] < small["seeds_recall"]).all()
    wide = tables.power(trials, effect=0.05, accuracy_margin=0.1)
    assert (wide["seeds_accuracy_equal"] <= large["seeds_accuracy_equal"]).all()
    assert (wide["seeds_accuracy"] <= large["seeds_accuracy"]).all()
    # A claim is both, and each can fail.
    parts = large[["seeds_recall", "seeds_accuracy"]].max(axis=1)
    assert (large["seeds_claim"] >= parts).all()
    assert (large["seeds_claim"] > parts)[np.isfinite(parts) & (parts > 3)].all()
    none = tables.power(trials, accuracy_margin=0)
    assert np.isinf(none["seeds_accuracy_equal"]).all()
    sheet = tables.power_sheet(none, "bee", accuracy_margin=0)
    assert {row[5].text for row in sheet.rows} == {"never"}
    assert "nan" not in markdown(sheet)


@pytest.mark.parametrize(
    "arguments", [{"power": 2}, {"accuracy_margin": 1}, {"power": 0.01}, {"effect": 0}]
)
def test_power_refuses_what_is_no_chance(arguments, tmp_path):
    trials = selection.trials(load(tmp_path, num_seeds=2), (1,))
    with pytest.raises(UsageError, match="must be"):
        tables.power(trials, **arguments)
    one = selection.trials(load(tmp_path / "one", num_seeds=1), (1,))
    with pytest.raises(UsageError, match="train more seeds"):
        tables.power(one)


def test_names_are_text_in_markdown():
    name = "a|b_*c* <i>[x](y)`$1$`\nd"
    sheet = Sheet(name, name, ["x", name], [[Cell(name), Cell("1", 1.0, "best")]])
    text = markdown(sheet)
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 3
    # Bars that part cells, and no others.
    assert [line.replace(r"\|", "").count("|") for line in table] == [3, 3, 3]
    left = re.sub(r"\\.|<br>|\*\*1\*\*", "", table[2])
    assert not set("_*<[]`$") & set(left)
    assert "**1**" in text


def test_signs_keep_numbers_below_each_other():
    rows = [[Cell("a"), Cell("1.0\nx", 1.0, "loss")], [Cell("b"), Cell("2.0", 2.0)]]
    assert lines_of(Sheet("", "", ["", ""], rows)) == [
        ["a", "1.0▼\nx "],
        ["b", "2.0 "],
    ]
