"""The command line of the benchmarks, their table, files and picture."""

import argparse
import datetime
import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator
from timing import Line

from camri_jax._files import UsageError
from camri_jax.cli import backend

# Okabe and Ito's colours, hatching and words: not colour alone.
_LOOKS = {
    "yes": ("#009e73", "", "reached"),
    "no": ("#d55e00", "//", "missed"),
    "": ("#7f7f7f", "", ""),
}


def begin(description: str | None, argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads --quick and --output, and sets JAX up as the commands do."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small, in a minute")
    parser.add_argument(
        "--output", type=Path, help="directory for the table and the picture"
    )
    arguments = parser.parse_args(argv)
    # Some of a GPU's memory is for a peer.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    backend.set_up_jax()
    return arguments


def report(
    name: str,
    lines: Sequence[Line],
    output: Path | None,
    packages: Sequence[str] = (),
) -> None:
    """Writes NAME.parquet, NAME.csv and NAME.png, then prints the lines as tables.

    Args:
      name: of the benchmark.
      lines: what was measured.
      output: directory, or None to print only.
      packages: distributions beside JAX whose versions belong to the numbers.
    """
    versions = " ".join(
        f"{package} {importlib.metadata.version(package)}"
        for package in ("jax", "camri-jax", *packages)
    )
    device = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    flags = os.environ.get("XLA_FLAGS", "")
    table = pd.DataFrame(lines).assign(reached=[line.reached for line in lines])
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        about = {"device": device, "versions": versions, "xla_flags": flags}
        kept = table.assign(date=today, **about)
        kept.to_parquet(output / f"{name}.parquet", index=False)
        kept.to_csv(output / f"{name}.csv", index=False, float_format="%.4g")
        figure = draw(lines, f"{name}, {device}, {today}")
        figure.savefig(output / f"{name}.png", dpi=150)
    print(f"\n{device}, {platform.machine()}; {versions}; XLA_FLAGS={flags}")
    for what, some in table.groupby("what", sort=False):
        print(f"\n{what}")
        shown = some.drop(columns="what").to_string(
            index=False, float_format=lambda x: f"{x:.3g}"
        )
        print(shown, flush=True)


def draw(lines: Sequence[Line], title: str) -> Figure:
    """Draws a bar a case, a panel a heading, with quartiles and targets."""
    groups = [
        (what, [line for line in lines if line.what == what])
        for what in dict.fromkeys(line.what for line in lines)
    ]
    heights = [len(some) + 1.6 for _, some in groups]
    figure = Figure(figsize=(9, 0.8 + 0.32 * sum(heights)), layout="constrained")
    panels = figure.subplots(len(groups), 1, squeeze=False, height_ratios=heights)[:, 0]
    for panel, (what, some) in zip(panels, groups, strict=True):
        _draw_panel(panel, some)
        panel.set_title(what, loc="left", fontsize=10)
    figure.suptitle(title, fontsize=10)
    return figure


def _draw_panel(panel: Axes, lines: Sequence[Line]) -> None:
    for i, line in enumerate(lines):
        colour, hatch, word = _LOOKS[line.reached]
        panel.barh(
            i,
            line.ratio,
            xerr=[[line.ratio - line.low], [line.high - line.ratio]],
            color=colour,
            hatch=hatch,
            edgecolor="white",
            ecolor="black",
            height=0.7,
        )
        if line.target:
            panel.plot([line.goal] * 2, [i - 0.45, i + 0.45], color="black", lw=2)
        panel.annotate(
            f"{line.ratio:.3g}  {word}",
            (1.01, i),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=8,
        )
    goals = [line.goal for line in lines if line.target]
    low = min(1.0, *(line.low for line in lines), *goals) / 1.3
    high = max(1.0, *(line.high for line in lines), *goals) * 1.3
    ticks = [d * 10.0**e for e in range(-6, 7) for d in (1, 2, 5)]
    if high / low > 200:
        ticks = [10.0**e for e in range(-6, 7)]
    ticks = [tick for tick in ticks if low <= tick <= high]
    panel.set_xscale("log")
    panel.set_xlim(low, high)
    panel.xaxis.set_major_locator(FixedLocator(ticks))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=8)
    labels = [f"{line.case}  {line.target}".rstrip() for line in lines]
    panel.set_yticks(range(len(lines)), labels, fontsize=8)
    panel.set_ylim(len(lines) - 0.5, -0.5)
    panel.axvline(1, color="black", lw=0.8, ls=":")
    panel.spines[["top", "right"]].set_visible(False)


def run(main: Callable[[], None]) -> None:
    """Runs a script; what its user can mend is one sentence, and status 2."""
    try:
        main()
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
