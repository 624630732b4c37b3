"""The pictures. Each function returns a matplotlib figure whose label says it in words.

| picture | what it shows |
|---|---|
| `price` | what each recall costs, threshold moved for all: the main picture |
| `penalties` | Fig. 3: recall and accuracy against the penalty |
| `confusions` | Fig. 4: what is taken for what, and what others change of it |
| `training` | recall and accuracy after each epoch |
| `contours` | Fig. 1: losses over a two-dimensional feature space |
| `circles` | Fig. 2: trained features of two dimensions on the unit circle |
"""

from camri_jax.evidence.figures.circles import Embedding, circles
from camri_jax.evidence.figures.confusions import confusions
from camri_jax.evidence.figures.drawings import Drawing, drawings
from camri_jax.evidence.figures.geometry import contours
from camri_jax.evidence.figures.looks import save, style
from camri_jax.evidence.figures.penalties import penalties
from camri_jax.evidence.figures.price import AXES, price
from camri_jax.evidence.figures.training import training

__all__ = [
    "AXES",
    "Drawing",
    "Embedding",
    "circles",
    "confusions",
    "contours",
    "drawings",
    "penalties",
    "price",
    "save",
    "style",
    "training",
]
