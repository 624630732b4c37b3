"""What differences between paired numbers show: interval, tests, seeds needed."""

import numpy as np
from scipy import special, stats

from camri_jax._files import UsageError, fraction

ALPHA = 0.05
"""Level of tests."""

LEVEL = 1 - ALPHA
"""Confidence of intervals."""

ACCURACY_MARGIN = 0.005
"""Loss of accuracy that still counts as none, unless told otherwise."""

DIGITS = 9
SAME = 10.0**-DIGITS
"""Far below one image: numbers that differ by less are equal but for rounding."""


def checked_accuracy_margin(value: float) -> float:
    """Returns a loss of accuracy that counts as none, unless it is out of range.

    Args:
      value: a share of the images.

    Raises:
      UsageError: it is not in [0, 1).

    >>> checked_accuracy_margin(5)
    Traceback (most recent call last):
      ...
    camri_jax._files.UsageError: accuracy_margin must be in [0, 1), a share of the \
images as 0.005, got 5
    """
    if not 0 <= value < 1:
        raise UsageError(
            "accuracy_margin must be in [0, 1), a share of the images as "
            f"{ACCURACY_MARGIN}, got {value}"
        )
    return float(value)


def interval(differences: np.ndarray) -> tuple[float, float]:
    r"""Returns Student's interval of a mean at `LEVEL`.

    .. math:: \bar{x} \pm t_{n - 1} \, s / \sqrt{n}

    It agrees with `p_above`. A bootstrap's (BCa) is too narrow where seeds are few:
    with 10 normal differences it holds the true mean in 90 % of cases, with 20 in 93 %.

    Args:
      differences: `[n]`, one a seed; NaN are left out.

    Returns:
      Its ends. They are NaN for fewer than two differences, and where all are the same:
      recalls of few images often are, and their spread is then unknown, not zero.

    Reference:
      Student, The probable error of a mean, Biometrika 6, 1908.

    >>> [round(end, 4) for end in interval(np.array([0.01, 0.03, 0.02, 0.05]))]
    [0.0003, 0.0547]
    """
    values = _finite(differences)
    if len(values) < 2 or np.ptp(values) < SAME:
        return np.nan, np.nan
    half = stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * stats.sem(values)
    return float(values.mean() - half), float(values.mean() + half)


def p_above(differences: np.ndarray, bound: float = 0.0) -> float:
    """Returns the p-value of a mean above a bound: the paired t-test, one-sided.

    With bound 0 it tests superiority. With bound -margin it tests non-inferiority: a
    small value says that what is lost, if anything, is less than the margin.

    Differences that are all the same have no spread, which leaves the sign test of the
    median: n differences above the bound have p = 1 / 2^n.

    Args:
      differences: `[n]`, one a seed; NaN are left out.
      bound: the mean under the null hypothesis.

    Returns:
      The p-value; NaN for fewer than two differences.

    Reference:
      Student, The probable error of a mean, Biometrika 6, 1908; for non-inferiority
      Schuirmann, J. Pharmacokinetics and Biopharmaceutics 15, 1987, of whose two tests
      it is one; for the sign test Arbuthnot, Phil. Trans. 27, 1710.

    >>> round(p_above(np.array([1.0, 2.0, 3.0])), 4)
    0.0371
    >>> p_above(np.zeros(3)), p_above(np.zeros(3), -0.005), p_above(np.ones(3))
    (1.0, 0.125, 0.125)
    """
    values = _finite(differences)
    number = len(values)
    if number < 2:
        return np.nan
    if np.ptp(values) < SAME:
        return 1.0 if values.mean() <= bound + SAME else 0.5**number
    t = (values.mean() - bound) / (values.std(ddof=1) / np.sqrt(number))
    return float(special.stdtr(number - 1, -t))


def percent(share: float) -> str:
    """Returns a share in percent, with all the digits that it was given with.

    >>> percent(0.99), percent(0.9999999)
    ('99 %', '99.99999 %')
    """
    return f"{100 * share:.12g} %"


def holm(p_values: np.ndarray) -> np.ndarray:
    """Returns p-values corrected for how many claims were tried.

    Args:
      p_values: `[n]`; NaN count as tried, and stay NaN.

    Returns:
      `[n]`; those below 0.05 all hold, except for a chance of 0.05 that any is wrong.

    Reference:
      Holm, A simple sequentially rejective multiple test procedure, 1979.

    >>> holm(np.array([0.01, 0.04, np.nan]))
    array([0.03, 0.08,  nan])
    """
    p_values = np.asarray(p_values, float)
    order = np.argsort(p_values)  # NaN last, as the largest
    left = np.arange(len(p_values), 0, -1)
    corrected = np.empty_like(p_values)
    corrected[order] = np.maximum.accumulate(left * p_values[order])
    return np.minimum(corrected, 1.0)


def shown(p_value: float) -> bool:
    """Returns whether a claim of this p-value, corrected, is shown at `ALPHA`.

    >>> shown(0.0499), shown(0.05), shown(np.nan)
    (True, False, False)
    """
    return bool(p_value < ALPHA)


def p_text(p_value: float) -> str:
    """Returns a p-value with enough digits to tell whether it is `shown`.

    >>> p_text(0.0496), p_text(0.05), p_text(0.04999), p_text(0.2), p_text(1e-5)
    ('0.0496', '0.050', '0.04999', '0.200', '<0.001')
    """
    if np.isnan(p_value):
        return ""
    if p_value < 0.001:
        return "<0.001"
    for digits in range(3, 17):
        text = f"{p_value:.{digits}f}"
        if shown(float(text)) == shown(p_value) and (
            float(text) != ALPHA or p_value == ALPHA
        ):
            return text
    return repr(p_value)


_MANY = 10_000  # seeds, above which Student's t is the normal distribution


def seeds_needed(
    differences: np.ndarray, effect: float, *, power: float = 0.8, alpha: float = 0.05
) -> float:
    r"""Returns how many seeds a claim needs, from the spread of a pilot's differences.

    The least n at which the one-sided paired t-test at level alpha finds an effect of
    :math:`\delta = \text{effect} / \text{std}` with the power wanted.

    Args:
      differences: `[n]`, of the pilot, one a seed; NaN are left out.
      effect: how far the true mean is taken to lie above the bound of the test: the
        gain of recall for superiority; for non-inferiority the true difference of
        accuracy plus the margin.
      power: chance of finding it.
      alpha: level of the test.

    Returns:
      A whole number, 2 or more; infinite if the effect is not positive, for then no
      number of seeds will do; NaN for fewer than two differences, or without spread.

    Raises:
      UsageError: not 0 < alpha < power < 1.

    Reference:
      Cohen, Statistical power analysis for the behavioral sciences, 1988, chapter 2.

    >>> seeds_needed(np.array([0.01, 0.03, 0.02, 0.05]), effect=0.01)
    20.0
    """
    for name, value in (("power", power), ("alpha", alpha)):
        fraction(name, value)
    if power <= alpha:
        raise UsageError(f"power must be above alpha, got {power} and {alpha}")
    values = _finite(differences)
    if len(values) < 2 or np.ptp(values) < SAME:
        return np.nan
    if not effect > 0:
        return np.inf
    size = effect / values.std(ddof=1)
    # The normal approximation is a little below the answer of the t-test.
    normal = stats.norm.ppf(1 - alpha) + stats.norm.ppf(power)
    number = max(2.0, np.floor((normal / size) ** 2))
    if number > _MANY:
        # There the tail is slow to compute, and the next whole number is the same.
        return float(np.ceil((normal / size) ** 2 + stats.norm.ppf(1 - alpha) ** 2 / 2))
    while _power(size, number, alpha) < power:
        number += 1
    return float(number)


def _power(size: float, number: float, alpha: float) -> float:
    """The chance of finding an effect of `size` standard deviations."""
    critical = stats.t.ppf(1 - alpha, number - 1)
    return float(stats.nct.sf(critical, number - 1, size * np.sqrt(number)))


def _finite(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, float)
    return values[~np.isnan(values)]
