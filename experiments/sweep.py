"""Train every method on many seeds at once: `camri sweep`, from a checkout."""

import sys
from typing import Any

from camri_jax.cli.main import start


def __getattr__(name: str) -> Any:
    # Nothing heavy is loaded before a Ctrl-C is answered.
    from camri_jax.cli import backend

    return getattr(backend, name)


if __name__ == "__main__":
    sys.exit(start("sweep"))
