"""Draw Fig. 1: `camri figure1`, from a checkout."""

import sys

from camri_jax.cli.main import start

if __name__ == "__main__":
    sys.exit(start("figure1"))
