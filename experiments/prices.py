"""Print what recalls cost: `camri prices`, from a checkout."""

import sys

from camri_jax.cli.main import start

if __name__ == "__main__":
    sys.exit(start("prices"))
