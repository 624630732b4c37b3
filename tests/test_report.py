"""The page answers first, says what the numbers say, and takes names as text."""

import dataclasses
import itertools
import json
import re
from html.parser import HTMLParser

import hypothesis
import numpy as np
import pandas as pd
import pytest
import synthetic
from hypothesis import given
from hypothesis import strategies as st

from camri_jax._files import UsageError
from camri_jax.evidence import curves, report, selection, tables
from camri_jax.evidence.figures.drawings import ASKED, certifiable
from camri_jax.evidence.report import slider, words
from camri_jax.evidence.selection import Recommendation
from camri_jax.evidence.sheets import Cell, Sheet
from camri_jax.evidence.verdicts import claims
from camri_jax.training.methods import HYPERPARAMETERS

NAMES = ("ant $x_1$", "</script><b>bee", 'c&a"t\x07', "{{dog}}")
CHOICES = ((1,), (0, 3))
VOID = {"meta", "input", "br", "img", "link", "path", "use", "rect", "image"}


class Tree(HTMLParser):
    """Elements in order as (tag, attributes, text within), and what is not closed."""

    def __init__(self, page):
        super().__init__()
        self.found, self.open = [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append([tag, dict(attrs), ""])
        if tag not in VOID:
            self.open.append(len(self.found) - 1)

    def handle_startendtag(self, tag, attrs):
        self.found.append([tag, dict(attrs), ""])

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.found[self.open.pop()][0] == tag

    def handle_data(self, data):
        for i in self.open:
            self.found[i][2] += data

    def texts(self, tag, **attributes):
        return [
            " ".join(text.split())
            for name, attrs, text in self.found
            if name == tag
            and all(attrs.get(k.rstrip("_")) == v for k, v in attributes.items())
        ]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "CLASSES", NAMES)
        specs = [synthetic.SPECS[i] for i in (0, 1, 4)]
        directory = tmp_path_factory.mktemp("study")
        return synthetic.load(
            directory, specs, num_seeds=3, important=CHOICES, asked=CHOICES
        )


@pytest.fixture(scope="module")
def page(study):
    return report.page(study, recall=0.9, command="camri report '<dir>'")


@pytest.fixture(scope="module")
def tree(page):
    return Tree(page)


def test_the_page_is_whole_and_every_reference_has_its_end(page, tree):
    assert not tree.open
    identities = [a["id"] for _, a, _ in tree.found if "id" in a]
    assert len(set(identities)) == len(identities)
    wanted = re.findall(r'(?:href="#|url\(#|aria-labelledby="|for=")([^")]+)', page)
    assert set(wanted) <= set(identities)
    levels = [int(tag[1]) for tag, _, _ in tree.found if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert not re.search(r'(src|href)="(?!#|data:)', page)
    assert "default-src 'none'" in page


def test_names_are_text_wherever_they_stand(page, tree):
    assert "</script><b>bee" not in page
    assert not re.search("[\x00-\x08\x0b-\x1f]", page)
    assert "Important class: </script><b>bee" in tree.texts("h2")
    assert "Important class: ant $x_1$+{{dog}}" in tree.texts("h2")
    assert "camri report '<dir>'" in tree.texts("code")
    heads = {text for text in tree.texts("th", scope="col")}
    assert {"ant $x_1$", "</script><b>bee", r'c&a"t\x07', "{{dog}}"} <= heads
    drawn = set(tree.texts("text"))
    assert {"ant $x_1$", "</script><b>bee", r'c&a"t\x07', "{{dog}}"} <= drawn


def test_first_comes_the_answer_then_the_ranking_then_the_price_then_the_rest(page):
    section = page[page.index('<h2 id="s1"') : page.index('<h2 id="s2"')]
    order = ["Take ", "All methods, best first", "What each recall costs", "<details>"]
    places = [section.index(text) for text in order]
    assert places == sorted(places)
    folded = section[section.index("<details>") :]
    for title in ("Table I", "Table II", "Fig. 3", "Fig. 4", "Training curves"):
        assert f"<summary>{title}" in folded
        assert f"<summary>{title}" not in section[: -len(folded)]
    assert " open" not in "".join(re.findall("<details[^>]*>", page))


def test_the_answer_is_the_recommended_trial_in_numbers(study, tree):
    picked = selection.recommend(selection.trials(study, (1,)))
    line = picked.trial
    told = " ".join(tree.texts("div", class_="answer")[:1])
    assert line["trial_id"] in told
    assert f"finds {line['num_found']:.0f} of {line['num_important']:.0f}" in told
    assert f"interval {picked.low:.3f} to {picked.high:.3f}" in told
    assert f"{line['false_alarms']:.1f} false alarms" in told
    table = tables.comparison(study, (1,))
    baseline = tables.chosen(table).iloc[0]
    assert f"recall {baseline['recall']:.3f}, {baseline['false_alarms']:.1f}" in told
    shaded = [attrs.get("class") == "taken" for _, attrs, _ in tree.found]
    first = tree.found[shaded.index(True) + 1]
    assert first[1]["data-value"] == selection.title(line)


def test_a_promise_comes_first_and_its_model_is_the_only_one_to_take(study):
    finalists = [row for _, row in study.of((1,)).drop_duplicates("method").iterrows()]
    lines = [
        {
            "method": row["method"],
            "point": {name: row[name] for name in HYPERPARAMETERS if name in row},
            "trial_id": row["trial_id"],
            "certified": row["method"] != "camri",
            "recall": 0.9,
            "false_alarms": 12.5,
            "accuracy": 0.9,
        }
        for row in finalists
    ]
    sheet = Sheet("Finalists", "", ["method"], [[Cell(x["trial_id"])] for x in lines])
    told = ["It finds <90 %.", "It costs much."]
    labels = study.data.labels | {"calibration": np.arange(400) % len(NAMES)}
    data = study.data._replace(labels=labels)
    alone = dataclasses.replace(study, choices=((1,),), data=data)
    page = report.page(alone, promise=report.Promise(told, sheet, 1, lines))
    tree = Tree(page)
    assert tree.texts("p", class_="lead") == told[:1]
    assert told[1] in tree.texts("p")
    assert "Take " not in tree.texts("div", class_="answer")[0]
    order = [told[1], "Finalists", "What each recall costs", "All methods, best first"]
    places = [page.index(text) for text in order]
    assert places == sorted(places)
    assert "All methods, at thresholds that keep" in page
    assert "Shaded" not in page
    (data,) = [json.loads(x) for x in tree.texts("script", type="application/json")]
    assert set(data["rows"][0]) == {x["method"] for x in lines}
    assert data["said"][0].startswith("To find 80 %")
    assert tree.texts("text").count("promised") == 2
    assert "certifiable up to" in page
    # Of several classes with a recall each, what all together certify is no answer.
    apart = [line | {"recall": np.nan} for line in lines]
    page = report.page(alone, promise=report.Promise(told, sheet, 1, apart))
    assert "certifiable up to" not in page
    shaded = [attrs.get("class") == "taken" for _, attrs, _ in tree.found]
    assert tree.found[shaded.index(True) + 1][2].strip() == lines[1]["trial_id"]


def test_methods_are_ranked_by_what_they_keep_and_find(study):
    table = tables.comparison(study, (1,))
    sheet, _ = words.ranked(table, Recommendation(None, ""))
    lines = {selection.title(line): line for _, line in tables.chosen(table).iterrows()}
    ranked = [lines[row[0].value] for row in sheet.rows]
    assert len(ranked) == len(lines) == 6
    keys = [(not x["keeps_accuracy"], -x["recall"], x["false_alarms"]) for x in ranked]
    assert keys == sorted(keys)
    # Verdicts are told apart by more than colour.
    signs = {row[-1].text.split()[0] for row in sheet.rows}
    assert "•" in signs
    assert signs <= set("•✓◐○✕?")
    assert "80 images" in sheet.caption


# --- The slider ----------------------------------------------------------------------


def at_least(logits, labels, recall):
    """Confusion matrix at the least offset that finds a share of class 1, by trying."""
    own = np.sort(np.delete(logits, 1, 1).max(1) - logits[:, 1])
    for offset in own:
        moved = logits.astype(np.float64)
        moved[:, 1] += offset + 1e-6
        matrix = synthetic.confusion(moved, labels)
        if matrix[1, 1] >= recall * matrix[1].sum() - 1e-9:
            return matrix
    raise AssertionError


def test_the_slider_moves_true_numbers(study, tree):
    labels = study.data.labels["test"]
    data = [
        json.loads(text)
        for _, attrs, text in tree.found
        if attrs.get("type") == "application/json"
    ]
    assert len(data) == 2
    prices = data[0]
    assert prices["asked"][0] == "80 %"
    assert prices["asked"][-1] == "99.9 %"
    numbers = {len(prices[name]) for name in ("asked", "said", "rows", "confusion")}
    assert numbers == {len(prices["asked"])} == {len(p) for p in prices["places"]}
    rows = study.rows[study.rows["method"] == "cross_entropy"]
    logits = dict(study.logits("test", list(rows["trial_id"])))
    taken = selection.recommend(selection.trials(study, (1,))).trial["trial_id"]
    own = next(z for _, z in study.logits("test", [taken]))
    for i in (0, 10, 15, 19, 28):
        recall = float(prices["asked"][i].rstrip("% ")) / 100
        found = [at_least(z, labels, recall) for z in logits.values()]
        alarms = [1000 * (m[:, 1].sum() - m[1, 1]) / m.sum() for m in found]
        accuracy = [np.trace(m) / m.sum() for m in found]
        texts = prices["rows"][i]["cross_entropy"]
        assert texts[0] == f"{np.ceil(recall * 80 - 1e-9):.0f} of 80"
        assert texts[1].split(" ")[0] == f"{np.mean(alarms):.1f}"
        assert texts[3].split(" ")[0] == f"{np.mean(accuracy):.3f}"
        assert texts[4] == "3"
        matrix = at_least(own, labels, recall)
        told = [int(text or 0) for text, _ in prices["confusion"][i]]
        assert told == matrix.ravel().tolist()
        assert f"finds {matrix[1, 1]} of 80 test images" in prices["said"][i]
        costs = [float(r[1].split(" ")[0]) for r in prices["rows"][i].values()]
        assert costs == sorted(costs)


def test_a_recall_out_of_reach_is_answered_by_the_highest(tmp_path):
    """What one of several classes takes from another, their offset never finds."""
    some, asked = synthetic.load(tmp_path, asked="ant+bee+cat"), (0, 1, 2)
    trials = selection.trials(some, asked)
    taken = trials[~trials["moved"]].iloc[0]
    prices = curves.prices(some, asked, ASKED)
    priced = curves.cheapest(some, asked, ASKED)
    shown = slider.slider(some, asked, prices, priced, taken, name="x", recall=0.9)
    told = json.loads(str(shown.data))
    assert told["said"][-1].startswith("No offset makes this model find")
    matrix = np.array([int(text or 0) for text, _ in told["confusion"][-1]])
    size = len(some.data.class_names)
    recalls = np.diagonal(matrix.reshape(size, size))[:3] / 80
    ((_, logits),) = some.logits("test", [taken["trial_id"]])
    whole = curves.curve(logits, some.data.labels["test"], asked)
    assert recalls.mean() == pytest.approx(whole["recall"].max())
    assert certifiable(some, asked) is None


def test_nothing_is_compared_with_a_recall_that_cross_entropy_misses(study):
    priced = curves.cheapest(study, (1,), ASKED)
    missed = (priced["asked"] == ASKED[0]) & (priced["seed"] == 1)
    priced.loc[missed, [f"{name}_difference" for name in curves.COSTS]] = np.nan
    missed &= priced["method"] == "cross_entropy"
    priced.loc[missed, ["recall", "offset", *curves.COSTS]] = np.nan
    shown = slider.slider(study, (1,), priced, priced, None, name="x", recall=0.9)
    rows = json.loads(str(shown.data))["rows"]
    assert rows[0]["cross_entropy"] == ["not reached by 1", "", "", "", "3"]
    assert rows[0]["camri"][2] == ""
    assert rows[0]["camri"][1]
    assert rows[1]["camri"][2]


def test_without_scripts_the_page_shows_where_the_slider_starts(page, tree):
    start = 10
    (data,) = [
        json.loads(t) for _, a, t in tree.found if a.get("type") == "application/json"
    ][:1]
    assert data["asked"][start] == "90 %"
    assert data["said"][start] in tree.texts("p", class_="said")
    section = page[page.index("data-prices") :]
    assert re.search(r'<div class="asked" hidden>', section)
    cells = re.findall(r"<td>([^<]*)</td>", section[section.index('class="prices"') :])
    wanted = [text for texts in data["rows"][start].values() for text in texts]
    assert cells[: len(wanted)] == wanted
    assert all(places[start] == 0 for places in data["places"])


# --- What is shown and what is not ---------------------------------------------------

probability = st.sampled_from([0.001, 0.02, 0.0499, 0.05, 0.3, 1.0, np.nan])


@hypothesis.settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(*[probability] * 3), min_size=1, max_size=4))
def test_no_finding_stands_under_a_heading_that_says_the_opposite(p_values):
    parts = np.array(p_values)
    lines = pd.DataFrame(
        {
            "method": "camri",
            "moved": False,
            "important": [(1,)] * len(parts),
            **dict.fromkeys(HYPERPARAMETERS, np.nan),
            "scale": np.arange(len(parts)) + 1.0,
            "num_pairs": 3,
            "all_diverged": False,
            "has_images": True,
            "above_difference": 0.1,
            "recall_p": parts[:, 0],
            "accuracy_p": parts[:, 1],
            "above_p": parts[:, 2],
        }
    )
    known = claims(lines)
    groups = words.findings(known, None, 0.005)
    told = {group.title: " ".join(group.sentences) for group in groups}
    shown, other = (told.get(f"{name} at 95 %", "") for name in ("Shown", "Not shown"))
    for column, phrase in (("more_p_holm", "finds more"), ("better_p_holm", "does so")):
        assert (phrase in shown) == (known[column] < 0.05).any()
        assert (phrase in other) == (known[column] >= 0.05).any()
        for scale in known.loc[known[column] < 0.05, "scale"]:
            assert f"CAMRI s={scale:g} (p " in shown
    assert all(float(p) < 0.05 for p in re.findall(r"p = ([\d.]+)", shown))
    assert all(float(p) >= 0.05 for p in re.findall(r"p = ([\d.]+)", other))
    assert len({group.mark for group in groups}) == len(groups)


# --- What is missing -----------------------------------------------------------------


def cats_as_bees(spec, seed, important, part, truth):
    """Logits by which no offset of both finds more than about half of the two."""
    made = synthetic.logits(spec, seed, important, part, truth)
    made[truth == 2, 1] += 9
    return made


def test_what_has_no_price_costs_no_other_choice_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(report.slider, "ASKED", (0.9, 0.95))
    asked = ["bee", "bee+cat"]
    options = {"specs": synthetic.SPECS[::4], "num_seeds": 2, "make": cats_as_bees}
    made = report.page(synthetic.load(tmp_path, asked=asked, **options))
    bee, both = made.split("<h2")[1:3]
    assert ("data-prices" in bee, "data-prices" in both) == (True, False)
    assert "no method finds 90 % of it with every seed" in " ".join(both.split())


@pytest.mark.parametrize(
    ("options", "sentences"),
    [
        (
            {"specs": synthetic.SPECS[:1], "asked": ["bee"], "num_seeds": 2},
            ["two weights, costs or margins", "none to compare it with"],
        ),
        (
            {"specs": synthetic.SPECS[::4], "num_seeds": 1, "keep_logits": False},
            ["no trial kept its logits", "no setting shares two seeds", "one seed"],
        ),
        (
            {"specs": synthetic.SPECS[::4], "num_seeds": 2, "validation": False},
            ["there are no validation images"],
        ),
        (
            {"change": lambda row: row | {"diverged": True, "loss": np.nan}},
            ["No model is recommended", "every trial diverged"],
        ),
        (
            {"specs": synthetic.SPECS[::4], "num_seeds": 2, "size": 12},
            ["rest on 12 test images"],
        ),
    ],
)
def test_what_is_missing_is_a_sentence(options, sentences, tmp_path, monkeypatch):
    monkeypatch.setattr(report.slider, "ASKED", (0.9, 0.95))
    made = report.page(synthetic.load(tmp_path, **options))
    told = " ".join(" ".join(Tree(made).texts("body")).split()).lower()
    for sentence in sentences:
        assert sentence.lower() in told
    visible = re.sub(r"<(style|script|svg).*?</\1>", "", made, flags=re.DOTALL)
    assert not re.search(r"\bnan\b", visible, flags=re.IGNORECASE)


def test_arguments_out_of_range_are_refused(study):
    with pytest.raises(UsageError, match="recall must be above 0 and below 1, got 95"):
        report.page(study, recall=95)
    with pytest.raises(UsageError, match="accuracy_margin must be"):
        report.page(study, accuracy_margin=5)


def test_settings_grid_and_origins_are_those_of_the_rows(study):
    facts = words.settings(study, study.choices)
    assert facts["test images"].startswith("320 (80 of ")
    assert facts["epochs"] == "3"
    grid = {
        row[0].text: [cell.text for cell in row[1:]]
        for row in words.grid(study.rows).rows
    }
    assert grid["cross-entropy"][-2:] == ["3", "3"]
    assert grid["CAMRI"] == ["4π/64", "16", "", "3", "6"]
    made = [json.dumps({"command": c, "device": "abacus"}) for c in "aab"]
    found = words.origins(pd.DataFrame({"provenance": made}))
    assert [(o.command, o.facts["trials"]) for o in found] == [("a", "2"), ("b", "1")]
    assert found[0].facts["device"] == "1 x abacus"


def test_tables_name_each_row_and_column(study):
    table = tables.comparison(study, (1,))
    first, *others = map(report.named, tables.comparison_sheets(table, "bee"))
    assert first.columns[1:3] == ["held-out recall", "held-out accuracy"]
    assert first.columns[3] == "paper's rule recall"
    for sheet in (first, *others):
        named = [row[0].text for row in sheet.rows]
        assert len(set(named)) == len(named)
        assert not any(name.startswith(("+", " ")) for name in named)
