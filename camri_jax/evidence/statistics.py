"""What differences between paired numbers show: interval, tests, seeds needed."""

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

LEVEL = 0.95
"""Confidence of intervals, and one minus the level of tests."""

_RESAMPLES = 5000
_SAME = 1e-6  # Far below one image: numbers that differ by less are the same.


def interval(differences: np.ndarray) -> tuple[float, float]:
    """Returns the bootstrap interval of a mean, bias-corrected and accelerated.

    Args:
      differences: `[n]`, one a seed; NaN are left out.

    Returns:
      Its ends, at `LEVEL`; NaN of fewer than three, which say too little of their
      spread, and the mean twice where they are all the same. The resampling is fixed.
      Of few seeds it is too narrow: of 3 normal differences it holds the true mean in
      72 % of cases, of 5 in 85 %, of 10 in 90 %, of 20 in 94 % (2,000 simulations).

    Reference:
      Efron, Better bootstrap confidence intervals, JASA 82, 1987.

    >>> low, high = interval(np.array([0.01, 0.03, 0.02, 0.05]))
    >>> 0.01 < low < 0.0275 < high < 0.05
    True
    """
    differences = _finite(differences)
    if len(differences) < 3:
        return np.nan, np.nan
    if np.ptp(differences) < _SAME:
        return float(differences.mean()), float(differences.mean())
    ends = stats.bootstrap(
        (differences,),
        np.mean,
        n_resamples=_RESAMPLES,
        confidence_level=LEVEL,
        method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(ends.low), float(ends.high)


def p_above(differences: np.ndarray, bound: float = 0.0) -> float:
    """Returns the p-value of a mean above a bound: the paired t-test, one-sided.

    With bound 0 it tests superiority. With bound -margin it tests non-inferiority: a
    small value says that what is lost, if anything, is less than the margin.

    Args:
      differences: `[n]`, one a seed; NaN are left out.
      bound: the mean under the null hypothesis.

    Returns:
      The p-value; NaN of fewer than two differences, or where all are the same and so
      have no spread to compare with.

    Reference:
      Student, The probable error of a mean, 1908; for non-inferiority Schuirmann, J.
      Pharmacokinetics and Biopharmaceutics 15, 1987, of whose two tests it is one.

    >>> round(p_above(np.array([1.0, 2.0, 3.0])), 4)
    0.0371
    """
    differences = _finite(differences)
    if len(differences) < 2 or np.ptp(differences) < _SAME:
        return np.nan
    test = stats.ttest_1samp(differences, bound, alternative="greater")
    return float(np.asarray(test)[1])


def holm(p_values: np.ndarray) -> np.ndarray:
    """Returns p-values corrected for how many hypotheses were tried.

    Args:
      p_values: `[n]`; NaN count as tried, and stay NaN.

    Returns:
      `[n]`; those below 0.05 hold together, but for a chance of 0.05 that any is wrong.

    Reference:
      Holm, A simple sequentially rejective multiple test procedure, 1979.

    >>> holm(np.array([0.01, 0.04, np.nan]))
    array([0.03, 0.08,  nan])
    """
    p_values = np.asarray(p_values, float)
    if not p_values.size:
        return p_values
    untested = np.isnan(p_values)
    corrected = multipletests(np.where(untested, 1.0, p_values), method="holm")[1]
    return np.where(untested, np.nan, np.asarray(corrected))


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
      number of seeds will do.

    Raises:
      ValueError: of fewer than two differences, or where they have no spread.

    Reference:
      Cohen, Statistical power analysis for the behavioral sciences, 1988, chapter 2.

    >>> seeds_needed(np.array([0.01, 0.03, 0.02, 0.05]), effect=0.01)
    20.0
    """
    differences = _finite(differences)
    if len(differences) < 2 or np.ptp(differences) < _SAME:
        raise ValueError(
            "differences must be of two seeds or more, and not all the same, to tell "
            f"how much they vary; got {len(differences)}"
        )
    if not effect > 0:
        return np.inf
    size = effect / differences.std(ddof=1)
    test = TTestPower()
    found = {"effect_size": size, "alpha": alpha, "alternative": "larger"}
    if test.power(nobs=2, **found) >= power:
        return 2.0
    # The normal approximation is a little below the answer of the t-test.
    normal = stats.norm.ppf(1 - alpha) + stats.norm.ppf(power)
    number = max(2.0, np.floor((normal / size) ** 2))
    while test.power(nobs=number, **found) < power:
        number += 1
    return float(number)


def _finite(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, float)
    return values[~np.isnan(values)]
