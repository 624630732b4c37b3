"""What the README says of results follows from the rows beside it."""

import re
from pathlib import Path

import pytest

from camri_jax.cli.main import COMMANDS
from camri_jax.evidence import study, tables
from camri_jax.evidence.statistics import p_text, shown

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "results"
MINUS = "\N{MINUS SIGN}"
README = (ROOT / "README.md").read_text(encoding="utf-8")
IN_README = [
    ("cross_entropy", False),
    ("cross_entropy", True),
    ("weighted_cross_entropy", False),
    ("wasserstein", True),
    ("arcface", False),
    ("camri", False),
    ("camri", True),
]


def held_out(name):
    """The picked settings of stored rows, by method and whether it is moved."""
    found = study.load(RESULTS / name)
    table = tables.chosen(tables.comparison(found, found.choices[0]))
    return table.set_index(["method", "moved"])


def pair(line, name):
    return f"{line[name]:.3f} ± {line[f'{name}_std']:.3f}"


def interval(line, name):
    ends = [line[f"{name}_{end}"] for end in ("difference", "low", "high")]
    mean, low, high = (f"{round(x, 3) + 0:+.3f}".replace("-", MINUS) for x in ends)
    text = f"{mean} ({low} to {high})".replace("(+", "(").replace("to +", "to ")
    return text.replace("+0.000", "0.000").replace(f"{MINUS}0.000", "0.000")


@pytest.fixture(scope="module")
def digits():
    return held_out("digits")


@pytest.mark.parametrize("key", IN_README)
def test_a_line_of_digits_says_what_its_rows_say(digits, key):
    line = digits.loc[key]
    numbers = [pair(line, "recall"), pair(line, "accuracy")]
    numbers.append(f"{line['false_alarms']:.1f}")
    if key != IN_README[0]:
        numbers += [interval(line, "recall"), interval(line, "accuracy")]
    assert " | ".join(numbers) in README


def test_what_is_shown_of_digits_is_what_is_claimed(digits):
    more = digits[digits["more_p_holm"].map(shown)]
    claimed = re.search(r"(\w+) settings of this table are shown", README)
    assert claimed
    assert claimed[1] == {2: "Two", 3: "Three", 4: "Four"}[len(more)]
    for key, line in more.iterrows():
        assert key in IN_README
        assert f"(p = {p_text(line['more_p_holm'])})" in README
    assert not digits["better_p_holm"].map(shown).any()


@pytest.mark.parametrize("name", ["cifar10_small", "gtsrb_small"])
def test_older_rows_say_what_the_readme_says(name):
    for _, line in held_out(name).iterrows():
        assert f"{pair(line, 'recall')} | {pair(line, 'accuracy')} |" in README


def test_every_command_in_it_exists():
    named = set(re.findall(r"camri (\w+)", README)) - {"is"}
    assert {"sweep", "tune", "report"} <= named <= set(COMMANDS)
