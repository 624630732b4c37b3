"""Tests of a share, and intervals that hold it, for any number of examples."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import optimize, special

from camri_jax._files import fraction
from camri_jax.guarantee._arguments import counted


def rank(values: np.ndarray, recall: float, delta: float) -> tuple[float, int, float]:
    """The certified score, images that may be missed, and the largest recall."""
    n = len(values)
    misses = _misses_allowed(n, recall, delta)
    offset = np.sort(values)[n - 1 - misses] if misses >= 0 else math.inf
    return float(offset), misses, largest(n, delta)


def largest(n: int, delta: float) -> float:
    """The largest recall that n images certify if none of them is missed."""
    share = delta ** (1 / n)
    # Rounded up, it would not be.
    while _misses_allowed(n, share, delta) < 0:
        share = math.nextafter(share, 0.0)
    return share


@functools.lru_cache(maxsize=4096)
def _misses_allowed(n: int, recall: float, delta: float) -> int:
    """How many of n images may be missed; -1: they are too few."""
    if recall**n > delta:
        return -1
    low, high = 0, n
    while high - low > 1:
        middle = (low + high) // 2
        enough = at_least(middle, n, recall) <= delta
        low, high = (low, middle) if enough else (middle, high)
    return n - high


def at_least(count: int, n: int, share: float) -> float:
    """P(Bin(n, share) >= count)."""
    return float(special.betainc(count, n - count + 1, share)) if count else 1.0


@functools.lru_cache(maxsize=4096)
def _alternative(n: int, recall: float, delta: float) -> float | None:
    """The recall to bet on: that of the most missed groups which still win the bet."""
    if recall**n > delta:
        return None
    target = -math.log(delta) / n

    def gap(q: float) -> float:
        return float(_kl(q, recall)) - target

    return _root(gap, recall, 1.0) if gap(1.0) > 0 else 1.0


def _log_capital(shares: np.ndarray, recall: float, delta: float) -> float:
    """Logarithm of what the bet against the recall has won; -inf: no bet can win."""
    q = _alternative(len(shares), recall, delta)
    if q is None:
        return -math.inf
    stake = (q - recall) / (recall * (1 - recall))
    with np.errstate(divide="ignore"):
        return float(np.log1p(np.maximum(stake * (shares - recall), -1)).sum())


def bet(
    values: np.ndarray, index: np.ndarray, recall: float, delta: float
) -> tuple[float, int, float]:
    """The certified score, whole groups that may be missed, and the largest recall."""
    sizes = np.bincount(index)
    n = len(sizes)

    def wins(offset: float) -> bool:
        shares = np.bincount(index, weights=values <= offset) / sizes
        return _log_capital(shares, recall, delta) >= -math.log(delta)

    steps = np.unique(values[np.isfinite(values)])
    low, high = -1, len(steps)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if wins(float(steps[middle])) else (middle, high)
    offset = float(steps[high]) if high < len(steps) else math.inf
    q = _alternative(n, recall, delta)
    misses = -1 if q is None else math.floor(n * (1 - q) + 1e-9)
    most = largest(n, delta)
    # What is won is a sum of logarithms, which rounds otherwise.
    while _log_capital(np.ones(n), most, delta) < -math.log(delta):
        most = math.nextafter(most, 0.0)
    return offset, misses, most


def mixture(
    found: int, total: int, recall: float, delta: float
) -> tuple[float, float, float]:
    """Bounds of the confidence sequence, and its p-value for the recall."""
    missed = total - found
    mixed = special.betaln(found + 0.5, missed + 0.5) - special.betaln(0.5, 0.5)

    def excess(m: float) -> float:
        likelihood = special.xlogy(found, m) + special.xlog1py(missed, -m)
        return float(mixed - likelihood + math.log(delta))

    share = found / total
    low = _root(excess, 1e-300, share) if found else 0.0
    most = 1 - 1e-16
    high = _root(excess, share, most) if missed and excess(most) > 0 else 1.0
    p_value = math.exp(min(0.0, math.log(delta) - excess(recall)))
    return low, high, p_value if share < recall else 1.0


def bounds(
    hits: np.ndarray,
    weights: np.ndarray,
    confidence: float,
    groups: np.ndarray | None = None,
) -> tuple[float, float]:
    """Interval for the expected weighted sum of hits, dependent within groups."""
    alone = groups is None or len(np.unique(groups)) == len(groups)
    if alone and np.allclose(weights, weights.max(), rtol=1e-9, atol=0):
        low, high = clopper_pearson(int(hits.sum()), len(hits), confidence)
        return low * math.fsum(weights), high * math.fsum(weights)
    found = weights * hits
    if groups is not None:
        index = np.unique(groups, return_inverse=True)[1]
        found, weights = (np.bincount(index, each) for each in (found, weights))
    n, top, whole = len(weights), float(weights.max()), math.fsum(weights)
    mean = math.fsum(found) / (top * n)
    most = whole / (top * n)
    target = math.log(2 / (1 - confidence)) / n

    def gap(mu: float) -> float:
        return float(_kl(mean, mu)) - target

    least = mean * 1e-12
    low = _root(gap, least, mean) if mean and gap(least) > 0 else 0.0
    high = _root(gap, mean, most) if gap(most) > 0 else most
    return low * top * n, high * top * n


def clopper_pearson(found: int, total: int, confidence: float) -> tuple[float, float]:
    """Returns the exact two-sided interval for a share.

    Args:
      found: how many of them.
      total: of how many independent ones.
      confidence: of the interval, for any share.

    Raises:
      UsageError: an argument is out of range.

    Reference:
      Clopper and Pearson, Biometrika 26, 1934.

    >>> clopper_pearson(0, 1, 0.95)
    (0.0, 0.975)
    """
    found, total = counted(found, total, 0)
    tail = (1 - fraction("confidence", confidence)) / 2
    low = special.betaincinv(found, total - found + 1, tail) if found else 0.0
    high = (
        special.betaincinv(found + 1, total - found, 1 - tail) if found < total else 1.0
    )
    return float(low), float(high)


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where the function, of different signs at the ends, is 0."""
    root: Any = optimize.brentq(function, low, high)
    return float(root)


def _kl(p: float, q: float) -> float:
    """Kullback-Leibler divergence between coins."""
    return float(special.rel_entr(p, q) + special.rel_entr(1 - p, 1 - q))
