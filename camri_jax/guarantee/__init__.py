r"""Recall that holds on new images: certificates, sample sizes, prices, checks.

A trained classifier says `predict(logits, important, offset)`: the arg max after
`offset` was added to the important classes' logits, all in float32. The larger the
offset, the more of the important classes' images are found and the more false alarms
others raise. Here the offset is chosen on calibration images such that, with the asked
confidence over the draw of those images, at least the asked share of *new* images of
the important classes is found.

*Found* means predicted as its own class. An image of one important class that is
predicted as another important class is not found. `ASSUMPTION` says what every promise
rests on; print it where you print a promise. Calibration images must not have been used
for anything else: neither to train, nor to pick epochs, settings or models (unless
`candidates` counts the models). What a promise costs is read off yet other images.
"""

from camri_jax.guarantee._bounds import clopper_pearson
from camri_jax.guarantee._certificates import (
    ASSUMPTION,
    Certificate,
    Certificates,
    certify_recall,
    certify_recalls,
    certify_scores,
    images_needed,
    largest_certifiable,
    rounded_down,
    sample_size,
)
from camri_jax.guarantee._checks import Check, check_recall
from camri_jax.guarantee._prices import Measure, Price, compare, price
from camri_jax.guarantee._rule import found_scores, moved, predict, scores, with_room

__all__ = [
    "ASSUMPTION",
    "Certificate",
    "Certificates",
    "Check",
    "Measure",
    "Price",
    "certify_recall",
    "certify_recalls",
    "certify_scores",
    "check_recall",
    "clopper_pearson",
    "compare",
    "found_scores",
    "images_needed",
    "largest_certifiable",
    "moved",
    "predict",
    "price",
    "rounded_down",
    "sample_size",
    "scores",
    "with_room",
]
