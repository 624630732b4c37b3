"""Train and draw Fig. 2: `camri figure2`, from a checkout."""

import sys

from camri_jax.cli.main import start

if __name__ == "__main__":
    sys.exit(start("figure2"))
