"""Whether a promise is kept on new labelled images."""

from typing import NamedTuple

from camri_jax._files import fraction
from camri_jax.guarantee._arguments import counted, failure_share
from camri_jax.guarantee._bounds import at_least, clopper_pearson, mixture


class Check(NamedTuple):
    """Whether a promised recall is still kept.

    Attributes:
      found: images predicted as their own class.
      total: images of the important classes.
      recall: what was promised.
      confidence: of `low`, of `high` and of the verdict.
      sequential: whether all of this may be looked at after every image.
      p_value: chance of so few found, or fewer, if the promise is kept; sequential:
        a bound on the chance that they are ever so few.
      low: the recall is at least this.
      high: the recall is at most this.
      verdict: "kept" (shown), "broken" (shown), or "open" (neither is shown).
    """

    found: int
    total: int
    recall: float
    confidence: float
    sequential: bool
    p_value: float
    low: float
    high: float
    verdict: str


def check_recall(
    found: int,
    total: int,
    *,
    recall: float,
    confidence: float = 0.95,
    sequential: bool = False,
) -> Check:
    r"""Whether labelled new images contradict, or show, a promised recall.

    Once: the exact binomial test, with one-sided Clopper-Pearson bounds.

    Sequentially (`sequential=True`), looked at as often as wanted, and stopped when
    wanted: a bet against each recall m, its stake mixed over all alternatives q,

    .. math:: K(m) = \int \frac{q^x (1 - q)^{n - x}}{m^x (1 - m)^{n - x}}
      \mathrm{Beta}(q; 1/2, 1/2) \, dq

    has mean 1 if m is the recall, so it *ever* reaches 1 / delta with probability at
    most delta (Ville). The recalls with K(m) < 1 / delta are the interval `low`,
    `high`; they hold at all times at once, so a promise that was broken once counts as
    broken whatever later checks say.

    Args:
      found: how many of the images were predicted as their own class.
      total: how many images there were, all independent: of each group count one.
      recall: what was promised.
      confidence: 1 - delta: chance that a kept promise is not called broken.
      sequential: whether this may be asked again as more images come.

    Returns:
      The check, with a verdict: "kept", "broken" or "open".

    Raises:
      UsageError: an argument is out of range.

    Reference:
      Clopper and Pearson, 1934. Waudby-Smith and Ramdas, Estimating means of bounded
      random variables by betting, JRSS B, 2024. Robbins, Statistical methods related to
      the law of the iterated logarithm, Annals of Mathematical Statistics, 1970.

    >>> check_recall(80, 100, recall=0.95).verdict
    'broken'
    >>> check_recall(92, 100, recall=0.95, sequential=True).verdict
    'open'
    """
    found, total = counted(found, total, 1)
    recall, delta = fraction("recall", recall), failure_share(confidence, 1)
    if sequential:
        low, high, p_value = mixture(found, total, recall, delta)
    else:
        low, high = clopper_pearson(found, total, 1 - 2 * delta)
        p_value = at_least(total - found, total, 1 - recall)
    verdict = "broken" if high < recall else "kept" if low >= recall else "open"
    return Check(
        found, total, recall, float(confidence), sequential, p_value, low, high, verdict
    )
