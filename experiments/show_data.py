"""Look at a data set: `camri show_data`, from a checkout."""

import sys

from camri_jax.cli.main import start

if __name__ == "__main__":
    sys.exit(start("show_data"))
