"""What the page of evidence counts: differences to cross-entropy, from stored rows."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from camri_jax.evidence import selection, study, verdicts
from camri_jax.evidence.figures import looks
from camri_jax.evidence.statistics import interval, seeds_needed
from camri_jax.evidence.study import POINT
from camri_jax.training.methods import BASELINE, METHODS, describe

RESULTS = Path(__file__).parents[1] / "experiments" / "results"
RECALLS = (0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
WEIGHT = ("weighted_cross_entropy",)
COSINE = ("l2_softmax", "arcface", "camri")
HEADS = {
    "1,000 training images": "cifar10_features_1000",
    "5,000": "cifar10_features_5000",
    "36,000": "cifar10_features_36000",
}
WEIGHTED = {
    title: folder.replace("features_", "features_weights_")
    for title, folder in HEADS.items()
}
TEN = {
    title: folder.replace("features_", "features_ten_")
    for title, folder in HEADS.items()
}
PANELS = {
    f"heads, {title}": {HEADS[title]: COSINE, WEIGHTED[title]: WEIGHT}
    for title in HEADS
} | {"networks, 42,000": {"cifar10_fast": (*WEIGHT, *COSINE)}}
"""What the README's picture shows: by title, folders, and methods of each."""


def load(folder, important=None):
    """The study of a directory of results."""
    return study.load(RESULTS / folder, important=important)


def paid(folder, kind="prices", methods=COSINE):
    """By method, recall and seed: false alarms and those beyond cross-entropy's.

    Means over the important classes, each in turn, of the classes and seeds that these
    methods all have. A recall that a method misses in any of them has no price.
    """
    trials = pd.read_parquet(RESULTS / folder / f"{kind}.parquet")
    trials = trials[trials["method"].isin([BASELINE, *methods])]
    for column, by in (("important", "method"), ("seed", ["method", "important"])):
        own = trials.groupby(by)[column].agg(set)
        trials = trials[trials[column].isin(set.intersection(*own))]
    missed = trials["false_alarms"].isna()
    at = [trials["method"], trials["asked"]]
    without = trials.loc[missed & (trials["method"] == BASELINE), "asked"]
    reached = ~missed.groupby(at).transform("any") & ~trials["asked"].isin(without)
    numbers = ["false_alarms", "false_alarms_difference"]
    return trials[reached].groupby(["method", "asked", "seed"])[numbers].mean()


def beyond(folder, kind="prices", methods=COSINE):
    """By method and recall: seeds, false alarms, and those beyond cross-entropy's."""
    found = paid(folder, kind, methods).groupby(["method", "asked"])
    lines = {key: _difference(group) for key, group in found}
    return pd.DataFrame(lines).T.rename_axis(["method", "asked"])


def _difference(group):
    """What some trials cost, a line a seed, and beyond cross-entropy's."""
    differences = group["false_alarms_difference"].to_numpy(float)
    low, high = interval(differences)
    return pd.Series(
        {
            "seeds": len(group),
            "alarms": group["false_alarms"].mean(),
            "by": differences.mean(),
            "low": low,
            "high": high,
            # What is bold is shown by an interval of two sides.
            "needed": seeds_needed(differences, abs(differences.mean()), alpha=0.025),
        }
    )


def _said(line, method):
    digits = 1 if line.alarms >= 10 else 2
    if method == BASELINE:
        return f"{line.alarms:.{digits}f}"
    shown = line.low > 0 or line.high < 0
    # Adding 0 takes the sign of what rounds to it.
    by, low, high = (
        f"{round(value, digits) + 0.0:+.{digits}f}"
        for value in (line.by, line.low, line.high)
    )
    if np.isnan(line.low):
        return by  # of equal differences, or of one
    # A narrow column breaks before an interval, not within.
    text = f"{by} [{low},\N{NO-BREAK SPACE}{high}]"
    return f"**{text}**" if shown else text


def table(folders, recalls, kind="prices", methods=COSINE):
    """Cross-entropy's false alarms, and what the others have beyond, with intervals."""
    lines, named = [], set()
    for title, folder in folders.items():
        found = beyond(folder, kind, methods)
        for asked in recalls:
            if (BASELINE, asked) not in found.index:
                continue
            line = {"": "" if title in named else title, "recall": f"{asked:g}"}
            named.add(title)
            for method in (BASELINE, *methods):
                here = (method, asked) in found.index
                line[METHODS[method].label] = (
                    _said(found.loc[method, asked], method) if here else ""
                )
            line["seeds"] = f"{found.loc[methods[-1], asked].seeds:.0f}"
            lines.append(line)
    return pd.DataFrame(lines)


def markdown(frame):
    """A frame as a table whose text keeps its marks."""
    rows = [list(frame), ["---"] * len(frame.columns), *frame.astype(str).to_numpy()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def settings(folders, important, recalls, kind="prices"):
    """The same of one class, a line for each setting of each loss in some folders."""
    trials = pd.concat(
        [pd.read_parquet(RESULTS / folder / f"{kind}.parquet") for folder in folders]
    )
    trials = trials[trials["important"] == important]
    points = trials[POINT].to_dict("records")
    names = [METHODS[method].label for method in trials["method"]]
    setting = [
        f"{name} {describe(point)}".rstrip()
        for name, point in zip(names, points, strict=True)
    ]
    trials = trials.assign(setting=setting).drop_duplicates(["trial_id", "asked"])
    found = trials.groupby(["setting", "method", "asked"])
    lines = []
    for name, method in sorted({(s, m) for s, m, _ in found.groups}, key=_rank):
        own = [_difference(found.get_group((name, method, r))) for r in recalls]
        told = {f"{r:g}": _said(x, method) for r, x in zip(recalls, own, strict=True)}
        lines.append({"recall": name} | told | {"seeds": f"{own[0].seeds:.0f}"})
    return pd.DataFrame(lines)


def _rank(setting):
    """Methods in the order of their table, of one the smaller penalty first."""
    name, method = setting
    return list(METHODS).index(method), len(name), name


def by_recall(panels, kind="prices"):
    """False alarms beyond cross-entropy's, over the recall, with intervals.

    Args:
      panels: by title, the folders of a panel, and the methods to take from each.
      kind: "prices" or "promises".
    """
    drawn = Figure(figsize=(9.6, 3.5), layout="constrained")
    places = drawn.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    words = []
    for place, (title, folders) in zip(places, panels.items(), strict=True):
        found = pd.concat([beyond(f, kind, methods) for f, methods in folders.items()])
        found = found[~found.index.duplicated()]  # cross-entropy's, of each folder
        own = found.loc[BASELINE]["alarms"].sort_index()
        x = np.arange(len(own))
        for method in [m for m in METHODS if m != BASELINE and m in found.index]:
            lines = found.loc[method].reindex(own.index)
            look = looks.style(method)
            place.plot(
                x, lines["by"], label=METHODS[method].label, lw=1.5, ms=5, **look
            )
            place.fill_between(
                x, lines["low"], lines["high"], color=look["color"], alpha=0.18, lw=0
            )
            words += [
                f"{title}, {METHODS[method].label}, {asked:g}: {by:+.1f}."
                for asked, by in lines["by"].items()
            ]
        place.axhline(0, color=looks.foreground(), lw=0.8)
        ticks = [f"{100 * asked:g}\n{alarms:.0f}" for asked, alarms in own.items()]
        place.set_xticks(x, ticks, fontsize=8)
        place.set_title(title, fontsize=9)
        place.spines[["top", "right"]].set_visible(False)
    places[0].set_ylabel("false alarms per 1,000\nbeyond cross-entropy's")
    what = "% of the class found; below, cross-entropy's false alarms per 1,000 images"
    drawn.supxlabel(what, fontsize=9)
    looks.legend(drawn, places, len(METHODS))
    said = "False alarms beyond cross-entropy's, by recall. "
    return looks.finish(drawn, said + " ".join(words))


def needed(folder, recalls):
    """How many seeds would show as large a difference as CAMRI's that was seen."""
    found = beyond(folder).loc["camri"]
    lines = [
        {
            "recall": f"{asked:g}",
            "false alarms beyond cross-entropy's": _said(found.loc[asked], "camri"),
            "seeds": f"{found.loc[asked].seeds:.0f}",
            "seeds that would show as much": f"{found.loc[asked].needed:,.0f}",
        }
        for asked in recalls
    ]
    return pd.DataFrame(lines)


def by_images(groups, asked):
    """False alarms beyond cross-entropy's at one recall, over how much trains."""
    drawn = Figure(figsize=(7.6, 3.6), layout="constrained")
    widths = [len(folders) for folders in groups.values()]
    places = drawn.subplots(
        1, len(groups), sharey=True, squeeze=False, width_ratios=widths
    )[0]
    words = []
    for place, (name, folders) in zip(places, groups.items(), strict=True):
        found = [beyond(folder).xs(asked, level=1) for folder in folders.values()]
        for shift, method in zip((-0.12, 0.0, 0.12), COSINE, strict=True):
            by, low, high = np.array(
                [each.loc[method, ["by", "low", "high"]] for each in found], float
            ).T
            place.errorbar(
                np.arange(len(folders)) + shift,
                by,
                yerr=[by - low, high - by],
                label=METHODS[method].label,
                ls="none",
                capsize=3,
                markersize=7,
                **looks.style(method),
            )
            words += [
                f"{name}, {title}, {METHODS[method].label}: {each:+.1f}."
                for title, each in zip(folders, by, strict=True)
            ]
        place.axhline(0, color=looks.foreground(), lw=0.8)
        place.set_xticks(range(len(folders)), [t.split()[0] for t in folders])
        place.set(title=name, xlabel="training images", xlim=(-0.5, len(folders) - 0.5))
        place.spines[["top", "right"]].set_visible(False)
    what = f"false alarms per 1,000 beyond\ncross-entropy's, at recall {asked:g}"
    places[0].set_ylabel(what)
    places[0].legend(frameon=False)
    return looks.finish(drawn, " ".join([what.replace("\n", " ") + ".", *words]))


def as_trained(folder, classes):
    """What CAMRI finds more of each class than cross-entropy, no threshold moved."""
    lines = []
    for name in classes:
        found = load(folder, name)
        (choice,) = found.choices
        trials = selection.trials(found, choice)
        own = trials[(trials["method"] == BASELINE) & ~trials["moved"]]
        pairs = verdicts.paired(trials)
        line = pairs[(pairs["method"] == "camri") & ~pairs["moved"]].iloc[0]
        told = {"important": name, "cross-entropy finds": f"{own['recall'].mean():.3f}"}
        for measure in ("recall", "accuracy"):
            told[f"CAMRI's {measure} beyond"] = _beyond(line, measure)
        lines.append(told | {"seeds": str(line["recall_pairs"])})
    return pd.DataFrame(lines)


def each_setting(folders, important):
    """What each setting of each loss finds more than cross-entropy, as trained."""
    lines = {}
    for folder in folders:
        found = load(folder, important)
        (choice,) = found.choices
        pairs = verdicts.paired(selection.trials(found, choice))
        for _, line in pairs[~pairs["moved"]].iterrows():
            name = selection.title(line)
            lines[_rank((name, line["method"]))] = {
                "": name,
                "recall beyond cross-entropy's": _beyond(line, "recall"),
                "accuracy beyond": _beyond(line, "accuracy"),
                "seeds": str(line["recall_pairs"]),
            }
    return pd.DataFrame([lines[rank] for rank in sorted(lines)])


def _beyond(line, measure):
    by, low, high = (line[f"{measure}_{end}"] for end in ("difference", "low", "high"))
    # A narrow column breaks before an interval, not within.
    return f"{by:+.3f} [{low:+.3f},\N{NO-BREAK SPACE}{high:+.3f}]"


def gained(folder, important):
    """Images that a method finds as trained beyond cross-entropy, and from where."""
    found = load(folder, important)
    ((k,),) = found.choices
    names = found.data.class_names
    counts = {
        method: lines.set_index("seed")["test_confusion"]
        for method, lines in found.of((k,)).groupby("method")
    }
    lines = []
    for method in COSINE:
        more = np.mean(
            [
                np.asarray(counts[method][seed], int)
                - np.asarray(counts[BASELINE][seed], int)
                for seed in counts[method].index
            ],
            axis=0,
        )
        lines.append(
            {
                "": METHODS[method].label,
                "found more": f"{more[k, k]:+.1f}",
                "had been taken for": _most(-more[k], names, k),
                "taken for it instead": _most(more[:, k], names, k),
                "right over all classes": f"{np.trace(more):+.1f}",
                "seeds": str(len(counts[method])),
            }
        )
    return pd.DataFrame(lines)


def _most(counts, names, k):
    """The two classes of most images, and the rest."""
    others = [i for i in range(len(names)) if i != k]
    first = sorted(others, key=lambda i: -counts[i])[:2]
    rest = sum(counts[i] for i in others if i not in first)
    told = [f"{names[i]} {counts[i]:+.1f}" for i in first]
    return ", ".join([*told, f"others {rest:+.1f}"])


def splits():
    """How far prices of splits lie apart, beside what seeds alone would do.

    The interval of a split's mean is of its standard error over seeds.
    """
    lines = []
    for title, kind in (("5,000", "n5000"), ("40,000", "all")):
        folders = sorted(RESULTS.glob(f"cifar10_features_splits/{kind}_*"))
        trials = pd.concat(
            pd.read_parquet(path / "prices.parquet").assign(split=number)
            for number, path in enumerate(folders)
        )
        for asked in (0.9, 0.99):
            for what, method, column in (
                ("cross-entropy's false alarms", BASELINE, "false_alarms"),
                ("CAMRI's beyond them", "camri", "false_alarms_difference"),
            ):
                own = trials[(trials["method"] == method) & (trials["asked"] == asked)]
                groups = own.groupby("split")[column]
                within = groups.var().mean() / groups.size().iloc[0]
                between = groups.mean()
                free = len(between) - 1
                # Of so few splits the variance itself is known by chi-square only.
                ends = stats.chi2.ppf([0.975, 0.025], free) / free
                spread, low, high = (
                    np.sqrt(max(0.0, between.var() / end - within))
                    for end in (1.0, *ends)
                )
                lines.append(
                    {
                        "training images": title,
                        "recall": f"{asked:g}",
                        "": what,
                        "of each split": ", ".join(f"{x:.1f}" for x in between),
                        "std of splits": f"{spread:.1f} [{low:.1f},"
                        f"\N{NO-BREAK SPACE}{high:.1f}]",
                        "std of seeds": f"{np.sqrt(groups.var().mean()):.1f}",
                        "std error over seeds": f"{np.sqrt(within):.1f}",
                        "seeds": f"{groups.size().iloc[0]} a split",
                    }
                )
    return pd.DataFrame(lines)


def network_splits():
    """The price of a cat with networks: one seed of some splits, beside seeds of one.

    Split 0 is that of all other networks, whose seeds give the spread.
    """
    first = pd.read_parquet(RESULTS / "cifar10_fast_cpu" / "prices.parquet")
    first = first[first["important"] == "cat"]
    folders = sorted(RESULTS.glob("cifar10_fast_splits/*"))
    others = [pd.read_parquet(path / "prices.parquet") for path in folders]
    lines = []
    for asked in (0.9, 0.95, 0.98, 0.99):
        for what, method, column in (
            ("cross-entropy's false alarms", BASELINE, "false_alarms"),
            ("CAMRI's beyond them", "camri", "false_alarms_difference"),
        ):
            seeds, *rest = (
                each[(each["method"] == method) & (each["asked"] == asked)][column]
                for each in (first, *others)
            )
            said = (f"{each.iloc[0] + 0.0:.1f}" for each in rest)
            lines.append(
                {
                    "recall": f"{asked:g}",
                    "": what,
                    "split 0, mean and std of seeds": f"{seeds.mean():.1f} ± "
                    f"{seeds.std():.1f} (n = {len(seeds)})",
                    "of each other split, one seed": ", ".join(said),
                }
            )
    return pd.DataFrame(lines)


if __name__ == "__main__":
    looks.save(by_recall(PANELS), Path(__file__).with_name("price.png"))
