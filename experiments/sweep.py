"""Train every method on many seeds at once: `camri sweep`, from a checkout."""

import sys

from camri_jax.cli.main import start

if __name__ == "__main__":
    sys.exit(start("sweep"))
