"""Train every method on many seeds at once: `camri sweep`, from a checkout."""

import sys

from camri_jax.cli.backend import num_cores
from camri_jax.cli.main import start

__all__ = ["num_cores"]

if __name__ == "__main__":
    sys.exit(start("sweep"))
