"""Write report.html: it answers first, and then holds everything.

    camri report RESULTS
    camri report RESULTS --important cat --recall 0.99

RESULTS is a directory that a sweep wrote. The page opens without a network: what to
take and what it costs, the tables, the pictures, the settings and the commands that
made the rows.
"""

import dataclasses
import shlex
from collections.abc import Sequence

from camri_jax._files import write_whole
from camri_jax.cli import arguments as words
from camri_jax.cli.arguments import JudgedArguments
from camri_jax.cli.console import wrote
from camri_jax.evidence import report


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(JudgedArguments):
    """Write one page that holds everything.

    Attributes:
      recall: Recall at which the page's slider starts.
    """

    recall: float = 0.95


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    given = words.parse(Arguments, argv, __doc__, "report")
    found, output = words.read(given)
    page = report.page(
        found,
        accuracy_margin=given.accuracy_margin,
        recall=given.recall,
        command=shlex.join(["camri", "report", *argv]),
    )
    write_whole(output / "report.html", page)
    wrote("report", output / "report.html")
