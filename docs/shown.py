"""How pages show what the library draws and lays out."""

from IPython.display import HTML, Markdown

from camri_jax.evidence import sheets
from camri_jax.evidence.report import svg


def figure(draw, name):
    """Shows a figure in the page's own colours; its label is the text in its place."""
    return HTML(f'<div class="figure">{svg.inline(draw, name)}</div>')


def sheet(table):
    """Shows a table of the library's."""
    return Markdown(sheets.markdown(table))
