"""What README and documentation say is so: numbers, commands, code, links."""

import ast
import importlib
import re
import shlex
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_architecture import FLOOR, PACKAGE

from camri_jax import guarantee
from camri_jax.cli import arguments
from camri_jax.cli.main import COMMANDS
from camri_jax.evidence import study, tables
from camri_jax.evidence.statistics import interval
from camri_jax.sweeps import rows as stored
from camri_jax.training.methods import HYPERPARAMETERS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (
        *ROOT.glob("*.md"),
        *sorted((ROOT / "docs").rglob("*.md")),
    )
    if path.name != "BUILD_NOTES.md"
}
FENCE = re.compile(r"^```\{?(\w[\w-]*)\}?.*?\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(kind):
    """The fenced blocks of a kind, with their pages."""
    return [
        (page, block)
        for page, text in PAGES.items()
        for language, block in FENCE.findall(text)
        if language == kind
    ]


COMMAND_LINES = sorted(
    {
        (page, line)
        for page, block in blocks("sh")
        for line in re.findall(r"^camri .*", block, re.MULTILINE)
    }
    | {
        (page, line)
        for page, text in PAGES.items()
        for line in re.findall(r"`(camri [a-z]\w+ [^`]*)`", text)
        if not re.search(r"\b(NAME|COMMAND)\b", line)
    }
)


# --- Numbers -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured():
    path = ROOT / "docs" / "measured.py"
    module = types.ModuleType("measured")
    module.__file__ = str(path)
    exec(path.read_text(encoding="utf-8"), module.__dict__)
    return module


def test_the_picture_of_the_readme_is_that_of_rows(measured):
    shown = measured.by_recall(measured.PANELS).get_label()
    with Image.open(ROOT / "docs" / "price.png") as picture:
        assert picture.info["Description"] == shown


def accuracies(folder):
    """Test accuracies of cross-entropy's kept trials, in percent."""
    rows = stored.read(ROOT / "experiments" / "results" / folder)
    rows = rows[rows["method"] == "cross_entropy"]
    return np.array([100 * np.trace(x) / x.sum() for x in rows["test_confusion"]])


def test_accuracies_of_the_fast_recipe_are_those_of_rows():
    cifar10, gtsrb = accuracies("cifar10_fast"), accuracies("gtsrb_fast")
    told = f"{cifar10.mean():.1f} ± {cifar10.std(ddof=1):.1f} % test accuracy"
    assert f"{told} on CIFAR-10 (cross-entropy, {len(cifar10)} seeds" in README
    assert f"{gtsrb.mean():.1f} % on GTSRB at 32x32 ({len(gtsrb)} seed)" in README


def alarms(folder, kind):
    """By method: mean false alarms of classes and seeds at 0.99, and how many seeds."""
    path = ROOT / "experiments" / "results" / folder / f"{kind}.parquet"
    prices = pd.read_parquet(path)
    found = prices[prices["asked"] == 0.99].groupby("method")
    return found["false_alarms"].mean(), found["seed"].nunique()


@pytest.mark.parametrize(
    "path",
    sorted((ROOT / "experiments" / "results").rglob("pr*.parquet")),
    ids=lambda path: f"{path.parent.name}-{path.stem}",
)
def test_stored_tables_are_those_of_stored_trials(path):
    trials = pd.read_parquet(path)
    table = pd.read_csv(path.with_suffix(".csv"), dtype={"important": str})
    values = [name for name in HYPERPARAMETERS if name in table]
    trials[values], table[values] = trials[values].astype(float), table[values] * 1.0
    keys, alarms = ["important", "method", *values, "asked"], "false_alarms"
    made = trials.groupby(keys, dropna=False)[alarms].agg(["mean", "size", "count"])
    made.loc[made["size"] != made["count"], "mean"] = np.nan
    both = made.merge(table, left_index=True, right_on=keys, validate="one_to_one")
    assert len(both) == len(made) == len(table)
    np.testing.assert_allclose(both[alarms], both["mean"], atol=1e-9)
    assert (both["num_seeds"] == both["size"]).all()


@pytest.mark.parametrize("images", [1000, 5000, 36000])
def test_prices_in_the_readme_are_those_of_rows(images):
    (line,) = re.findall(rf"\| {images:,} \| (.*) \|", README)
    *told, seeds = line.replace("*", "").split(" | ")
    means, counts = alarms(f"cifar10_features_{images}", "prices")
    weighted, more = alarms(f"cifar10_features_weights_{images}", "prices")
    assert weighted["cross_entropy"] == pytest.approx(means["cross_entropy"], abs=0.1)
    means["weighted_cross_entropy"] = weighted["weighted_cross_entropy"]
    order = ("cross_entropy", "weighted_cross_entropy", "l2_softmax", "arcface")
    assert told == [f"{means[method]:.1f}" for method in (*order, "camri")]
    assert {int(seeds)} == {*counts, *more}


def test_prices_of_networks_in_the_readme_are_those_of_rows(measured):
    found = measured.beyond(
        "cifar10_fast", methods=(*measured.WEIGHT, *measured.COSINE)
    )
    found = found.xs(0.99, level="asked")
    order = ["cross_entropy", *measured.WEIGHT, *measured.COSINE]
    told = [f"{found.loc[method, 'alarms']:.1f}" for method in order]
    (line,) = re.findall(r"\| networks, 42,000 \| (.*) \|", README)
    assert line.replace("*", "").split(" | ") == [*told, f"{found['seeds'].min():.0f}"]
    assert found["seeds"].nunique() == 1


def test_prices_of_mnist_in_the_readme_are_those_of_rows():
    means, counts = alarms("mnist_1000", "prices")
    (seeds,) = {*counts}
    assert f"MNIST ({seeds} seeds)" in README
    means = means.round(1)
    assert (
        f"cost {means['cross_entropy']} false alarms per 1,000 images with "
        f"cross-entropy, {means['weighted_cross_entropy']} with a weight and "
        f"{means['camri']} with CAMRI"
    ) in README


def test_prices_of_signs_in_the_readme_are_those_of_rows():
    directory = ROOT / "experiments" / "results" / "gtsrb_fast_4"
    trials = pd.read_parquet(directory / "prices.parquet")
    trials = trials[trials["method"].isin(["cross_entropy", "camri"])]
    highest = trials.query("asked == 0.995 and important == 'stop'")
    assert len(highest) > 0
    assert not highest["false_alarms"].any()
    own = trials.query("asked == 0.99").groupby("method")
    assert (own["important"].nunique() == 4).all()
    rows = stored.read(directory).query("method == 'cross_entropy'")
    right = np.mean([np.trace(c) / c.sum() for c in rows["test_confusion"]])
    said = f"(GTSRB, {100 * right:.1f} % accurate, {len(rows)} seeds, four signs in"
    assert said in README
    means = own["false_alarms"].mean().round(1)
    assert (
        f"99 % of a sign cost {means['cross_entropy']} false alarms with cross-entropy "
        f"and {means['camri']} with CAMRI"
    ) in README


def test_differences_of_networks_in_the_readme_are_those_of_rows():
    found = study.load(ROOT / "experiments" / "results" / "cifar10_fast")
    lines = {}
    for choice in found.choices:
        table = tables.chosen(tables.comparison(found, choice))
        camri = table[(table["method"] == "camri") & ~table["moved"]]
        lines[found.name(choice)] = camri.iloc[0]
    cat = lines["cat"]
    told = (
        f"(networks, {cat['num_pairs']:.0f} seeds) CAMRI as trained finds "
        f"{cat['recall_difference']:.3f} more of the cats and is "
        f"{-cat['accuracy_difference']:.3f} less accurate "
        f"(dogs {lines['dog']['recall_difference']:.3f}, airplanes "
        f"{lines['airplane']['recall_difference']:.3f}, "
        f"{lines['dog']['num_pairs']:.0f} seeds)"
    )
    assert told in README


def test_what_a_weight_finds_in_the_readme_is_that_of_rows():
    directory = ROOT / "experiments" / "results" / "cifar10_fast"
    found = study.load(directory, important="cat")
    table = tables.chosen(tables.comparison(found, found.choices[0]))
    of_weight = (table["method"] == "weighted_cross_entropy") & ~table["moved"]
    (line,) = table[of_weight].to_dict("records")
    assert (
        f"a plain weight of {line['weight']:.0f} finds "
        f"{line['recall_difference']:.3f} more and is "
        f"{-line['accuracy_difference']:.3f} less accurate"
    ) in README
    assert f"(networks, {line['num_pairs']:.0f} seeds)" in README


def test_what_networks_save_in_the_readme_is_that_of_rows():
    prices = pd.read_parquet(ROOT / "experiments/results/cifar10_fast/prices.parquet")
    prices = prices.query("asked == 0.95 and important == 'cat'").groupby("method")
    alarms = prices["false_alarms"].mean()["cross_entropy"]
    by = prices["false_alarms_difference"].mean()
    told = (
        f"95 % of the cats cost {-by['camri']:.1f} of {alarms:.1f} false alarms less "
        f"with CAMRI, {-by['weighted_cross_entropy']:.1f} less with the weight. "
        f"Normalization alone costs {by['l2_softmax']:.1f} more, and ArcFace "
        f"{by['arcface']:.1f}."
    )
    assert told in README
    for method, group in prices["false_alarms_difference"]:
        low, high = interval(group)
        assert method == "cross_entropy" or low > 0 or high < 0


def test_it_is_so_for_eight_of_ten_classes():
    prices = pd.read_csv(
        ROOT / "experiments/results/cifar10_features_ten_1000/prices.csv"
    )
    at = (prices["asked"] == 0.99) & (prices["method"] == "camri")
    dearer = prices[at & (prices["false_alarms_low"] > 0)]
    assert (prices[at]["false_alarms_high"] < 0).sum() == 8
    assert "of the ten classes CAMRI is cheaper for eight" in PAGES["docs/evidence.md"]
    assert dearer["important"].tolist() == ["horse"]
    assert "dearer for one (horse)" in PAGES["docs/evidence.md"]


def test_promises_in_the_readme_are_those_of_rows():
    order = ("cross_entropy", "weighted_cross_entropy", "camri")
    told = []
    for images in (1000, 5000):
        means, splits = alarms(f"cifar10_features_drawn_{images}", "promises")
        assert f"{splits['camri']} draws of training and calibration images" in README
        told += [f"{means[method]:.1f}" for method in order]
        assert (means[["l2_softmax", "arcface"]] > means["cross_entropy"]).all()
    assert re.search(
        r"costs {} with cross-entropy, {} with a weight and {} with CAMRI for heads on "
        r"1,000 images; on 5,000 {}, {} and {}\.".format(*map(re.escape, told)),
        README,
    )


@pytest.mark.parametrize("page", sorted(PAGES))
def test_images_that_certify_are_counted_right(page):
    said = re.findall(r"(\d+)\s+(?:images\s[^.]*?)?certify\s+(0\.\d+)", PAGES[page])
    for number, recall in said:
        assert int(number) == guarantee.images_needed(float(recall))


# --- Commands and code ---------------------------------------------------------------


class _ReadError(Exception):
    """A command line was read to its end."""


@pytest.mark.parametrize(("page", "line"), COMMAND_LINES)
def test_a_command_can_be_typed(page, line, monkeypatch):
    command, *argv = shlex.split(line, comments=True)[1:]
    parse = arguments.parse

    def read(*given, **options):
        parse(*given, **options)
        raise _ReadError

    monkeypatch.setattr(arguments, "parse", read)
    assert command in COMMANDS
    module = importlib.import_module(f"camri_jax.cli.{command}")
    with pytest.raises(_ReadError):
        module.main(argv)


def test_there_are_commands_to_type():
    assert {"sweep", "tune", "report"} <= {line.split()[1] for _, line in COMMAND_LINES}


def test_the_code_of_the_readme_runs():
    codes = [block for page, block in blocks("python") if page == "README.md"]
    assert codes
    for code in codes:
        found = types.ModuleType("readme")
        exec(code, found.__dict__)
        assert found.loss.shape == ()


@pytest.mark.parametrize("page", [p for p, _ in blocks("code-cell")])
def test_code_of_a_page_can_be_read(page):
    for _, block in [each for each in blocks("code-cell") if each[0] == page]:
        ast.parse(re.sub(r"^:tags:.*$", "", block, flags=re.MULTILINE))


# --- What is said of what ------------------------------------------------------------


def described(room):
    """The modules that a room's page must hold: itself, or what lies in it."""
    path = PACKAGE / room
    if not path.is_dir() or "__all__" in (path / "__init__.py").read_text():
        return [room] if any(PACKAGE.glob(f"{room}*")) else []
    names = {each.stem for each in path.iterdir() if each.stem[0] not in "_."}
    return [f"{room}.{name}" for name in sorted(names)]


@pytest.mark.parametrize("room", [r for r in FLOOR if r[0] != "_" and r != "cli"])
def test_every_room_has_its_page(room):
    for module in described(room):
        assert f"automodule:: camri_jax.{module}\n" in PAGES[f"docs/api/{room}.md"]


@pytest.mark.parametrize("page", sorted(PAGES))
def test_links_to_files_lead_somewhere(page):
    targets = re.findall(r"\]\((?!https?:|#)([^)\s]+)\)", PAGES[page])
    for target in targets:
        path = (ROOT / page).parent / target.partition("#")[0]
        assert path.exists(), target


def test_a_page_is_in_the_table_of_contents():
    listed = set()
    for page, text in PAGES.items():
        for block in re.findall(r"```\{toctree\}\n(.*?)```", text, re.DOTALL):
            folder = Path(page).parent
            listed |= {
                str(folder / f"{line}.md")
                for line in block.split("\n")
                if line and line[0] != ":"
            }
    pages = {page for page in PAGES if page.startswith("docs/")} - {"docs/index.md"}
    assert listed == pages
