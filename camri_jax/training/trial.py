"""Training and scoring of ONE trial, as pure functions of arrays.

A trial's seed and hyperparameters are arrays, its configuration is static. What comes
out is logits: nothing here knows which class is important, nor of other trials or
devices. `camri_jax.training.lift` lifts these functions over both.
"""

from typing import Any, NamedTuple, cast

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from camri_jax import losses, metrics
from camri_jax.training.augment import augment
from camri_jax.training.methods import Hyperparameters
from camri_jax.training.network import Outputs
from camri_jax.training.optimizer import optimizer
from camri_jax.training.recipe import TrainConfig

_SHUFFLE, _DROPOUT, _AUGMENT, _RESAMPLE = 1, 2, 3, 4

NUMERICS = 5
"""Raised when the same trial gives other numbers than before; part of its name."""


class TrialState(NamedTuple):
    """Everything that changes while a trial trains.

    Attributes:
      params: weights of the network and its head.
      collections: what else the network keeps: running statistics of batch
        normalization as `batch_stats`, and what stays as it was at the start.
      opt_state: state of the optimizer.
      average: exponential moving average of `(params, batch_stats)`; `None`
        without one.
      key: the trial's key, constant; each use folds in its purpose and the step.
      step: number of steps taken, int32.
      multipliers: `[num_classes]`, of a loss under constraints; `None` without any.
    """

    params: optax.Params
    collections: dict[str, Any]
    opt_state: optax.OptState
    average: Any
    key: chex.PRNGKey
    step: jax.Array
    multipliers: jax.Array | None = None


class Scores(NamedTuple):
    """What a trial says about images, without margin and without dropout.

    Attributes:
      logits: `[image, class]` float32, in units of log odds.
      loss: `[image]` the method's loss, margin included.
      angle: `[image]` radians between an image's features and its class's prototype.
    """

    logits: jax.Array | np.ndarray
    loss: jax.Array | np.ndarray
    angle: jax.Array | np.ndarray


def init(config: TrainConfig, images: jax.Array, seed: chex.Numeric) -> TrialState:
    """Returns the state of a trial before its first step.

    A seed fixes the weights, the order of the images, the dropout and the
    augmentation, for every method alike: methods can be compared in pairs.

    Args:
      config: what the program's trials share.
      images: training images `[n, height, width, channel]`, uint8: some thousands for
        a network that measures them first, else one is enough.
      seed: integer scalar.

    Returns:
      The initial `TrialState`.

    Example:
      >>> from camri_jax.training.methods import METHODS
      >>> config = TrainConfig.of(METHODS["camri"], num_classes=10, num_images=640)
      >>> int(init(config, jnp.zeros((1, 8, 8, 1), jnp.uint8), jnp.int32(0)).step)
      0
    """
    key = jax.random.key(seed)
    variables = dict(config.network.init(key, images, train=False))
    params = variables.pop("params")
    return TrialState(
        params=params,
        collections=variables,
        opt_state=optimizer(config).init(params),
        average=_averaged(params, variables) if config.recipe.ema_decay else None,
        key=key,
        step=jnp.int32(0),
        multipliers=jnp.zeros(config.num_classes) if config.dual else None,
    )


def train_step(
    config: TrainConfig,
    state: TrialState,
    hyperparameters: Hyperparameters,
    images: jax.Array,
    labels: jax.Array,
) -> tuple[TrialState, jax.Array]:
    """Takes one optimizer step on one batch.

    Args:
      config: what the program's trials share.
      state: the trial's state.
      hyperparameters: arrays of the trial's method.
      images: `[batch, height, width, channel]` uint8.
      labels: `[batch]` integers.

    Returns:
      The next state and the mean loss of the batch before the step.
    """
    dropout_key = _key(state, _DROPOUT)

    def objective(params):
        outputs, updates = _apply(
            config,
            {"params": params, **state.collections},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": dropout_key},
        )
        found = class_scores(cast(Outputs, outputs))
        values = _losses(config, state, hyperparameters, found, labels)
        return values.mean(), (dict(updates), found)

    (loss, (updated, found)), gradients = jax.value_and_grad(objective, has_aux=True)(
        state.params
    )
    updates, opt_state = optimizer(config).update(
        gradients, state.opt_state, state.params
    )
    params = optax.apply_updates(state.params, updates)
    collections = state.collections | updated
    average = state.average
    if config.recipe.ema_decay:
        # As tf.train.ExponentialMovingAverage: the past of the first steps is random.
        step = state.step.astype(jnp.float32)
        past = (1.0 + step) / (10.0 + step)
        past = jnp.minimum(config.recipe.ema_decay, past)
        average = optax.incremental_update(
            _averaged(params, collections), average, 1.0 - past
        )
    multipliers = state.multipliers
    if config.dual:
        multipliers = config.dual(multipliers, found, labels, **hyperparameters)
    after = TrialState(
        params=params,
        collections=collections,
        opt_state=opt_state,
        average=average,
        key=state.key,
        step=state.step + 1,
        multipliers=multipliers,
    )
    return after, loss


def shuffle(config: TrainConfig, state: TrialState) -> jax.Array:
    """Returns the order in which an epoch takes the images, `[batch, image]`.

    The last, incomplete batch is left out, as all batches of a compiled loop have one
    shape; the next epoch shuffles anew. Where each seed draws images of its own, these
    are the same in every epoch.

    Args:
      config: what the program's trials share.
      state: the trial's state at the start of the epoch.
    """
    shape = config.num_batches, config.recipe.batch_size
    order = jax.random.permutation(_key(state, _SHUFFLE), config.num_drawn)
    if config.recipe.resample:
        key = jax.random.fold_in(state.key, _RESAMPLE)
        order = jax.random.permutation(key, config.num_images)[order]
    return order[: shape[0] * shape[1]].reshape(shape)


def train_batch(
    config: TrainConfig,
    state: TrialState,
    hyperparameters: Hyperparameters,
    order: jax.Array,
    images: jax.Array,
    labels: jax.Array,
) -> tuple[TrialState, jax.Array]:
    """Takes the step of an epoch that the state has come to.

    Args:
      config: what the program's trials share.
      state: the trial's state.
      hyperparameters: arrays of the trial's method.
      order: of this epoch, from `shuffle`.
      images: all `config.num_images` training images
        `[image, height, width, channel]`, uint8.
      labels: `[image]` integers.

    Returns:
      The next state and the mean loss of the batch before the step.
    """
    index = order[state.step % config.num_batches]
    return _train_on(config, state, hyperparameters, index, images, labels)


def _train_on(
    config: TrainConfig,
    state: TrialState,
    hyperparameters: Hyperparameters,
    index: jax.Array,
    images: jax.Array,
    labels: jax.Array,
) -> tuple[TrialState, jax.Array]:
    """Takes a step on the images of an index."""
    recipe, batch = config.recipe, images[index]
    if recipe.augment_shift or recipe.augment_flip != "none":
        batch = augment(
            jax.random.fold_in(state.key, _AUGMENT),
            state.step // config.num_batches,
            index,
            batch,
            shift=recipe.augment_shift,
            fill=recipe.augment_fill,
            flip=recipe.augment_flip,
        )
    return train_step(config, state, hyperparameters, batch, labels[index])


def train_epoch(
    config: TrainConfig,
    state: TrialState,
    hyperparameters: Hyperparameters,
    images: jax.Array,
    labels: jax.Array,
) -> tuple[TrialState, jax.Array]:
    """Takes one step on each batch of the shuffled images, in one `scan`.

    The same steps as `shuffle` and `train_batch` called one by one.

    Args:
      config: what the program's trials share.
      state: the trial's state.
      hyperparameters: arrays of the trial's method.
      images: all `config.num_images` training images
        `[image, height, width, channel]`, uint8.
      labels: `[image]` integers.

    Returns:
      The state after the epoch and the mean loss over its steps.
    """
    order = shuffle(config, state)
    return train_in_order(config, state, hyperparameters, order, images, labels)


def train_in_order(
    config: TrainConfig,
    state: TrialState,
    hyperparameters: Hyperparameters,
    order: jax.Array,
    images: jax.Array,
    labels: jax.Array,
) -> tuple[TrialState, jax.Array]:
    """Takes an epoch's steps in an order that is given, in one `scan`.

    Args:
      config: what the program's trials share.
      state: the trial's state, at the start of an epoch.
      hyperparameters: arrays of the trial's method.
      order: of this epoch, from `shuffle`.
      images: all `config.num_images` training images
        `[image, height, width, channel]`, uint8.
      labels: `[image]` integers.

    Returns:
      The state after the epoch and the mean loss over its steps.
    """

    def step(state, index):
        return _train_on(config, state, hyperparameters, index, images, labels)

    state, loss = jax.lax.scan(step, state, order)
    return state, loss.mean()


def score(
    config: TrainConfig,
    state: TrialState,
    hyperparameters: Hyperparameters,
    images: jax.Array,
    labels: jax.Array,
) -> Scores:
    """Scores a batch of images, without margin and without dropout.

    Args:
      config: what the program's trials share.
      state: the trial's state.
      hyperparameters: arrays of the trial's method.
      images: `[batch, height, width, channel]` uint8.
      labels: `[batch]` integers.

    Returns:
      Their `Scores`.
    """
    outputs = embed(config, evaluated_variables(state), images)
    values = class_scores(outputs)
    return Scores(
        logits=logits(values, hyperparameters),
        loss=_losses(config, state, hyperparameters, values, labels),
        angle=metrics.true_angles(outputs.features, outputs.prototypes, labels),
    )


def score_all(
    config: TrainConfig,
    state: TrialState,
    hyperparameters: Hyperparameters,
    images: jax.Array,
    labels: jax.Array,
) -> Scores:
    """Scores batches of images, one after another in one `scan`.

    Args:
      config: what the program's trials share.
      state: the trial's state.
      hyperparameters: arrays of the trial's method.
      images: `[num_batches, batch, height, width, channel]` uint8.
      labels: `[num_batches, batch]` integers.

    Returns:
      Their `Scores`, `[num_batches, batch, ...]`.
    """

    def step(_, batch):
        return None, score(config, state, hyperparameters, *batch)

    return jax.lax.scan(step, None, (images, labels))[1]


def embed(config: TrainConfig, variables: dict[str, Any], images: jax.Array) -> Outputs:
    """Returns the features of images, with the prototypes and the bias.

    Args:
      config: what the program's trials share.
      variables: from `evaluated_variables`.
      images: `[batch, height, width, channel]` uint8.
    """
    return cast(Outputs, _apply(config, variables, images, train=False))


def evaluated_variables(state: TrialState) -> dict[str, Any]:
    """Returns the weights and statistics that are evaluated: averaged, if any are."""
    params, averaged = state.average or (state.params, {})
    return {"params": params, **state.collections, **averaged}


def is_finite(state: TrialState) -> jax.Array:
    """Whether all weights and statistics are finite; else the trial has diverged."""
    leaves = jax.tree.leaves((state.params, state.collections))
    return jnp.array([jnp.isfinite(leaf).all() for leaf in leaves]).all()


def class_scores(outputs: Outputs) -> jax.Array:
    """Returns what a loss compares classes by: cosines without bias, else logits.

    Both in float32, so that no head is compared at fewer digits than another.

    Args:
      outputs: of the network.

    Returns:
      Scores `[batch, num_classes]`, float32.
    """
    if outputs.bias is None:
        return losses.cosine_similarity(outputs.features, outputs.prototypes)
    return losses.linear_logits(outputs.features, outputs.prototypes, outputs.bias)


def logits(scores: jax.Array, hyperparameters: Hyperparameters) -> jax.Array:
    """Returns scores in units of log odds, as they are used after training.

    The margin belongs to training only (section III-E); the scale stays.

    Args:
      scores: `[batch, num_classes]`.
      hyperparameters: of the trial's method.

    Returns:
      Logits `[batch, num_classes]`.
    """
    return scores * hyperparameters.get("scale", 1.0)


def _losses(
    config: TrainConfig,
    state: TrialState,
    hyperparameters: Hyperparameters,
    scores: jax.Array,
    labels: jax.Array,
) -> jax.Array:
    """Losses `[batch]` at this point of training."""
    changing = {}
    if "warm_up" in hyperparameters:
        changing["epoch"] = state.step.astype(jnp.float32) / config.num_batches
    if state.multipliers is not None:
        changing["multipliers"] = state.multipliers
    return config.loss(scores, labels, **hyperparameters, **changing)


def _apply(
    config: TrainConfig, variables: dict[str, Any], images: jax.Array, **options: Any
) -> Any:
    # Left to themselves, TPUs and recent GPUs multiply float32 at fewer digits.
    exact = "float32" if config.recipe.precision == "float32" else None
    with jax.default_matmul_precision(exact):
        return config.network.apply(variables, images, **options)


def _averaged(params: Any, collections: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    statistics = {n: c for n, c in collections.items() if n == "batch_stats"}
    return params, statistics


def _key(state: TrialState, purpose: int) -> chex.PRNGKey:
    return jax.random.fold_in(jax.random.fold_in(state.key, purpose), state.step)
