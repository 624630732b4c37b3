"""The one log-sum-exp under every loss: that of the other classes, the true one out.

Every loss here is a function of the log-odds against the true class,

    u = log sum_{k != t} exp(z_k) - z_t,        -log h_t = log(1 + exp(u)).

Taking the true class out of the sum, instead of subtracting it from the whole, is what
keeps `1 - h_t` and a loss of 1e-30 right in float32. The mask fuses into the reduction,
so it costs no array of `[batch, classes]`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from camri_jax import _arrays


class Counted(NamedTuple):
    """Which examples have a loss `[...]`, and what the others have in its place."""

    valid: jax.Array
    otherwise: ArrayLike = jnp.nan

    def losses(self, losses: jax.Array) -> jax.Array:
        """Returns the losses: NaN where the label is no class, 0 where left out."""
        return jnp.where(self.valid, losses, self.otherwise)


def checked_scores(
    name: str, scores: ArrayLike, labels: ArrayLike, where: ArrayLike | None
) -> tuple[jax.Array, jax.Array, Counted]:
    """Returns scores to compute with, labels, and which examples count.

    A label of no class becomes num_classes, whose score and weight are 0: a class's own
    could be -inf, and 0 times its gradient NaN. A row all of -inf has no softmax, so no
    label of it is a class.
    """
    scores = _arrays.floating(name, scores)
    scores = scores.astype(_arrays.compute_dtype(scores))
    num_classes = scores.shape[-1]
    array = _arrays.integer("labels", labels, scores.shape[:-1])
    array = _arrays.class_or_none(array, num_classes)
    hollow = jnp.all(scores == -jnp.inf, axis=-1)
    array = jnp.where(hollow, num_classes, array)
    scores = left_out(~hollow, scores)
    if where is None:
        return scores, array, Counted(array < num_classes)
    kept = mask(where, array.shape)
    array = jnp.where(kept, array, num_classes)
    otherwise = jnp.where(kept, jnp.nan, jnp.zeros((), scores.dtype))
    return left_out(kept, scores), array, Counted(array < num_classes, otherwise)


def mask(where: ArrayLike, shape: tuple[int, ...]) -> jax.Array:
    """Returns which examples count, or raises unless it is said for each."""
    kept = _arrays.array("where", where)
    if kept.dtype != bool:
        raise TypeError(f"where must be booleans, got {kept.dtype}{kept.shape}")
    _arrays.same_shape("where", kept, shape)
    return kept


def left_out(kept: jax.Array, rows: jax.Array, filling: float = 0) -> jax.Array:
    """Returns rows without what does not count: its gradient may be NaN."""
    return jnp.where(kept[..., None], rows, filling)


def is_class(labels: jax.Array, num_classes: int) -> jax.Array:
    """Returns a mask `[..., classes]`, true at each label; meant to be fused away."""
    shape = (*labels.shape, num_classes)
    return jax.lax.broadcasted_iota(jnp.int32, shape, labels.ndim) == labels[..., None]


def pick(values: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns each row's value `[...]` at its label, 0 for no class."""
    if jax.typeof(values).sharding.spec[-1] is not None:
        # A device that holds some of the classes gathers nothing for the others.
        own = is_class(labels, values.shape[-1])
        return jnp.sum(jnp.where(own, values, 0), axis=-1)
    picked = jnp.take_along_axis(
        values, labels[..., None], axis=-1, mode="fill", fill_value=0
    )
    return picked[..., 0]


def log_odds_against(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns log sum_{k != t} exp(z_k) - z_t `[...]`; -inf if no other is possible."""
    top, excess = of_others(logits, labels)
    return (top - pick(logits, labels)) + excess


def of_others(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the largest z_k with k != t `[...]`, and by how much log-sum-exp is more.

    Two numbers, as digits last longest when what is small is added first.
    """
    others = jnp.where(is_class(labels, logits.shape[-1]), -jnp.inf, logits)
    top = jax.lax.stop_gradient(jnp.max(others, axis=-1))
    top = jnp.where(top == -jnp.inf, jnp.zeros_like(top), top)
    total = jnp.sum(jnp.exp(others - top[..., None]), axis=-1)
    present = total > 0
    excess = jnp.where(present, jnp.log(jnp.where(present, total, 1)), -jnp.inf)
    return top, excess


def softplus(x: jax.Array) -> jax.Array:
    """Returns log(1 + exp(x)), with all its digits where it is tiny."""
    return jnp.logaddexp(x, jnp.zeros_like(x))


def weighed(weights: jax.Array, surprise: jax.Array) -> jax.Array:
    """Returns weights times surprises; 0 takes an infinite one away, not to NaN."""
    nothing = (weights == 0) & jnp.isinf(surprise)
    return weights * jnp.where(nothing, 0, surprise)
