"""The language of grids: `scale`, `camri.margin`, `camri.margin@cat+dog@dog`."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from camri_jax._files import UsageError
from camri_jax.datasets.dataset import some
from camri_jax.sweeps.choices import chosen
from camri_jax.training.methods import HYPERPARAMETERS, METHODS, Value

Grid = dict[tuple[str, tuple[int, ...], int | None], tuple[float, ...]]


def checked_values(key: str, given: Any) -> tuple[float, ...]:
    """Returns the values of one line of a grid.

    Args:
      key: what they are of.
      given: a number, or several.

    Raises:
      UsageError: there is no such key, or the values are no numbers.

    >>> checked_values("camri.scale", 16)
    (16.0,)
    """
    setting, at, _ = key.partition("@")
    method, dot, name = setting.rpartition(".")
    allowed = METHODS[method].grid if method in METHODS else HYPERPARAMETERS
    if name not in allowed or (dot and method not in METHODS):
        raise UsageError(
            f"grid must name a hyperparameter, or a method and one of its own, as "
            f"camri.margin; got {key!r}; there are {', '.join(HYPERPARAMETERS)}"
        )
    if at and not (dot and METHODS[method].class_sensitive):
        raise UsageError(
            "grid must name a method that is told the important classes before @, as "
            f"camri.margin@cat; got {key!r}"
        )
    values = np.atleast_1d(np.asarray(given, object)).tolist()
    if not values:
        raise UsageError(f"grid must give {key} at least one value")
    if not all(isinstance(x, int | float | np.number) for x in values):
        raise UsageError(f"grid must give {key} a number or several, got {given!r}")
    # Whole numbers too: 16 and 16.0 would name two trials.
    return tuple(map(float, values))


def resolved(
    grid: Mapping[str, Sequence[float]],
    choices: Sequence[tuple[int, ...]],
    class_names: Sequence[str],
) -> Grid:
    """Returns a grid by setting, choice, `()` where it holds for all, and class of it.

    Args:
      grid: values by key, from `checked_values`.
      choices: all choices of important classes, as indices.
      class_names: of the data.

    Raises:
      UsageError: what follows @ in a key is neither a choice nor a class of one.

    >>> resolved({"camri.margin@dog": (0.2,)}, [(0,), (1,)], ["cat", "dog"])
    {('camri.margin', (1,), None): (0.2,)}
    """
    found: Grid = {}
    for key, values in grid.items():
        setting, at, _ = key.partition("@")
        choice, member = (), None
        if at:
            choice, member = _whose(key, choices, class_names)
        own = [name for name, each in HYPERPARAMETERS.items() if each.by_class]
        if member is not None and setting.rpartition(".")[2] not in own:
            raise UsageError(
                f"grid must name what each class may have its own of ({some(own)}) "
                f"before a class of a choice, got {key!r}"
            )
        found[setting, choice, member] = tuple(values)
    return found


def values_of(
    grid: Grid, method: str, important: tuple[int, ...]
) -> dict[str, tuple[Value, ...]]:
    """Returns a method's values: the most specific that were given, or its own.

    Args:
      grid: from `resolved`.
      method: its name.
      important: the choice that it is trained for, as indices.

    >>> values_of({}, "l2_softmax", (1,))
    {'scale': (16.0,)}
    """

    def values(name: str, member: int | None) -> tuple[float, ...] | None:
        setting = f"{method}.{name}"
        here = grid.get((setting, important, member))
        return grid.get((setting, (), member)) if here is None else here

    found: dict[str, tuple[Value, ...]] = {}
    for name, own in METHODS[method].grid.items():
        plain = values(name, None) or grid.get((name, (), None), own)
        members = [values(name, k) for k in important]
        found[name] = plain
        if any(members):
            every = itertools.product(*(each or plain for each in members))
            # One value for all classes is the trial that is named by the number.
            found[name] = tuple(x[0] if len({*x}) == 1 else x for x in every)
    return found


def _whose(
    key: str, choices: Sequence[tuple[int, ...]], class_names: Sequence[str]
) -> tuple[tuple[int, ...], int | None]:
    """Resolves what is after @: CHOICE, else CLASS, else CHOICE@CLASS."""
    text = key.partition("@")[2]
    outer, at, inner = "", "", ""
    try:
        named = chosen(text, class_names)
    except UsageError:
        outer, at, inner = text.rpartition("@")
        if not at:
            raise
        named = chosen(inner, class_names)
    if not at and named in choices:
        return named, None
    within = chosen(outer, class_names) if at else ()
    allowed = [choice for choice in choices if not at or choice == within]
    if len(named) == 1 and any(named[0] in choice for choice in allowed):
        return within, named[0]
    raise UsageError(
        "grid must name a choice of important classes, or a class of one, after @, "
        f"got {key!r}; {text} is neither"
    )
