"""The optimizer of a recipe, by optax."""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from camri_jax.training.network import param_labels
from camri_jax.training.recipe import Recipe, TrainConfig, weight_decay

_WHITENING_EPOCHS = 3
"""Epochs in which the bias of a whitening trains; the network settles on it then."""


def optimizer(config: TrainConfig) -> optax.GradientTransformation:
    r"""Returns the optimizer that a recipe asks for.

    .. math::
        p \leftarrow p - \eta_n\,(c\,u_n + \lambda p)

    with the direction u of Adam or of Nesterov's momentum, of gradients clipped by
    their common norm, the rate at step n, the decoupled decay, and c = 1 except for
    the biases of normalizations. The bias of a whitening takes no step after the third
    epoch. With `lookahead`, slow weights are pulled after the fast ones now and then,
    and the fast ones put back onto them.

    Args:
      config: what the program's trials share.

    Returns:
      A pair of pure functions; its state is part of a trial's.

    Reference:
      Jordan, arXiv 2404.00498, section 3.4.
    """
    recipe, steps = config.recipe, config.num_steps
    if recipe.optimizer == "sgd":
        direction = optax.trace(recipe.momentum, nesterov=True)
    else:
        # Epsilon as in Keras, with which the authors trained.
        direction = optax.scale_by_adam(eps=1e-7)
    last = _WHITENING_EPOCHS * config.num_batches

    def training(step: Any) -> Any:
        return jnp.where(step < last, 1.0, 0.0)

    parts = [
        *([optax.clip_by_global_norm(recipe.clip_norm)] if recipe.clip_norm else []),
        direction,
        _only("norm_bias", optax.scale(recipe.norm_bias_rate)),
        _decayed(config),
        optax.scale_by_learning_rate(learning_rate(recipe, steps)),
        _only("whitening_bias", optax.scale_by_schedule(training)),
    ]
    if recipe.lookahead:
        parts.append(_lookahead(recipe.lookahead, steps))
    return optax.chain(*parts)


def learning_rate(recipe: Recipe, steps: int) -> optax.Schedule:
    """Returns the rate at each step, counted from 0.

    The triangle starts at a fifth of its peak, which it reaches at 23 % of the steps,
    and ends at 7 % of it.

    Args:
      recipe: with the peak and the shape.
      steps: of the whole training.

    Example:
      >>> rate = learning_rate(Recipe(learning_rate=1.0, schedule="triangle"), 100)
      >>> [round(float(rate(step)), 2) for step in (0, 23, 100)]
      [0.2, 1.0, 0.07]
    """
    peak = recipe.learning_rate
    if recipe.schedule == "cosine":
        return optax.cosine_decay_schedule(peak, steps)
    if recipe.schedule == "triangle":
        corners = jnp.array([0.0, 0.23, 1.0]) * steps
        heights = jnp.array([0.2, 1.0, 0.07]) * peak
        return lambda n: jnp.interp(jnp.float32(n), corners, heights)
    return optax.constant_schedule(peak)


def _decayed(config: TrainConfig) -> optax.GradientTransformation:
    if config.recipe.weight_decay is not None:
        return optax.add_decayed_weights(config.recipe.weight_decay)

    def decayed(updates: Any, params: Any) -> Any:
        num_features = params["classes"]["prototypes"].shape[0]
        rate = weight_decay(num_features, config.num_drawn, config.recipe.learning_rate)
        return jax.tree.map(lambda u, p: u + rate * p, updates, params)

    return optax.stateless(decayed)


def _only(
    label: str, part: optax.GradientTransformation
) -> optax.GradientTransformation:
    """Applies `part` to the parameters of one label and leaves all others alone."""

    def mask(params: chex.ArrayTree) -> chex.ArrayTree:
        return jax.tree.map(lambda each: each == label, param_labels(params))

    return optax.masked(part, mask)


class _Lookahead(NamedTuple):
    step: chex.Array
    slow: chex.ArrayTree


def _lookahead(every: int, steps: int) -> optax.GradientTransformation:
    """Slow weights that hold on to their past more and more, and end training.

    `optax.lookahead` would have pairs of weights wherever a trial has its weights, and
    pulls with a constant strength.
    """

    def init(params: Any) -> _Lookahead:
        return _Lookahead(jnp.int32(0), params)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        step = state.step + 1
        last = step == steps
        due = (step % every == 0) | last
        # The last step puts the slow weights in the place of the fast ones.
        past = 0.95**5 * (step.astype(jnp.float32) / steps) ** 3
        kept = jnp.where(last, 1.0, past)
        pulled = jax.tree.map(
            lambda slow, p, u: kept * slow + (1 - kept) * (p + u),
            state.slow,
            params,
            updates,
        )

        def choose(new, old):
            return jax.tree.map(lambda n, o: jnp.where(due, n, o), new, old)

        moved = jax.tree.map(lambda new, p: new - p, pulled, params)
        return choose(moved, updates), _Lookahead(step, choose(pulled, state.slow))

    return optax.GradientTransformation(init, update)
