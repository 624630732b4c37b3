"""How Sphinx builds these pages: `sphinx-build -W docs docs/_build/html`."""

import os
import re

import camri_jax

# Pages are computed as they are built: right sums on a CPU, and nothing but a CPU.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_experimental_ynn_fusion_type=")

project = "camri_jax"
author = "the authors of camri_jax"
project_copyright = author
version = release = camri_jax.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "jupyter_execute"]
# Single backticks name code; most of it is shapes, which link nowhere.
default_role = "py:obj"

# Docstrings.
autodoc_class_signature = "separated"
autodoc_mock_imports = ["ray"]  # gigabytes, for a page that only names it
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_preserve_defaults = True  # as written: one is all of os.environ
autodoc_typehints = "none"
napoleon_numpy_docstring = False
napoleon_use_ivar = True

# Pages.
myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_execution_timeout = 600
nb_merge_streams = True
nb_output_stderr = "remove"
nb_render_markdown_format = "myst"
copybutton_exclude = ".linenos, .gp, .go"
linkcheck_anchors = False

# Looks.
html_theme = "sphinx_book_theme"
html_title = "camri_jax"
html_static_path = ["_static"]
html_css_files = ["own.css"]
html_theme_options = {
    "home_page_in_toc": True,
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": False,
}


# A table of Markdown's: after a blank line, lines within bars, the second a rule.
_TABLE = re.compile(r"(?<=\n\n)\|.+\|\n\|(?: ?:?-+:? ?\|)+\n(?:\|.+\|\n)+")


def _docstring(app, what, name, obj, options, lines):
    """Docstrings hold tables of Markdown, which an editor shows; Sphinx reads lists."""
    text = _TABLE.sub(_listed, "\n".join([*lines, ""]))
    # The plural of code: what follows a closing backtick must be parted from it.
    lines[:] = re.sub(r"(?<=\w)`s\b", r"`\\s", text).split("\n")


def _listed(table):
    head, _, *rows = table[0].splitlines()
    made = [".. list-table::", "   :header-rows: 1", ""]
    for row in (head, *rows):
        first, *others = re.split(r"(?<!\\)\|", row)[1:-1]
        made += [f"   * - {first.strip()}", *(f"     - {c.strip()}" for c in others)]
    return "\n".join([*made, "", ""])


def _skip(app, what, name, obj, skip, options):
    """A named tuple's fields say nothing that its docstring does not."""
    return skip or type(obj).__name__ == "_tuplegetter"


def setup(app):
    """Registers what is done to docstrings."""
    app.connect("autodoc-process-docstring", _docstring)
    app.connect("autodoc-skip-member", _skip)
