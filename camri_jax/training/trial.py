"""Training and evaluation of ONE trial, as pure functions of arrays.

A trial's seed and hyperparameters are arrays, its configuration is static. Nothing
here knows of other trials or of devices: `camri_jax.training.lift` lifts these
functions over both.
"""

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from camri_jax import metrics
from camri_jax.training.augment import augment
from camri_jax.training.methods import FAMILIES, Hyperparameters, scores, test_logits
from camri_jax.training.network import CNN, Outputs
from camri_jax.training.recipe import TrainConfig

Tree = Any
_SHUFFLE, _DROPOUT, _AUGMENT = 1, 2, 3


class TrialState(NamedTuple):
    """Everything that changes while a trial trains.

    Attributes:
      params: weights of the network and its head.
      batch_stats: running statistics of batch normalization.
      opt_state: state of the optimizer.
      average: exponential moving average of `(params, batch_stats)`; `None`
        without one.
      key: the trial's key, constant; each use folds in its purpose and the step.
      step: number of steps taken, int32.
    """

    params: Tree
    batch_stats: Tree
    opt_state: Tree
    average: Tree
    key: jax.Array
    step: jax.Array


class Evaluation(NamedTuple):
    """What a trial does on a set of images; rows of a matrix are true classes.

    Attributes:
      loss: mean of the method's loss, margin included.
      confusion: `[class, class]` int32.
      curves: `[choice, constant, class, class]` int32, the confusion matrix as a
        constant is added to the logits of each choice of important classes.
      angle_mean: `[class]` mean radian angle to the true prototype.
      angle_std: `[class]` its standard deviation (Table II).
      diverged: whether any weight is NaN or infinite.
    """

    loss: jax.Array
    confusion: jax.Array
    curves: jax.Array
    angle_mean: jax.Array
    angle_std: jax.Array
    diverged: jax.Array


def _optimizer(config: TrainConfig) -> optax.GradientTransformation:
    recipe, rate = config.recipe, config.recipe.learning_rate
    if recipe.schedule == "cosine":
        rate = optax.cosine_decay_schedule(rate, recipe.epochs * config.num_batches)
    if recipe.optimizer == "sgd":
        return optax.sgd(rate, momentum=0.9, nesterov=True)
    # Epsilon as in Keras, with which the authors trained.
    return {"adam": optax.adam, "adamw": optax.adamw}[recipe.optimizer](rate, eps=1e-7)


def init(
    config: TrainConfig, image_shape: tuple[int, ...], seed: jax.Array
) -> TrialState:
    """Returns the state of a trial before its first step.

    A seed fixes the weights, the order of the images, the dropout and the
    augmentation, for every method alike: methods can be compared in pairs.

    Args:
      config: what the program's trials share.
      image_shape: `(height, width, channels)`.
      seed: integer scalar.

    Returns:
      The initial `TrialState`.

    Example:
      >>> config = TrainConfig("angular", num_classes=10, num_images=640)
      >>> int(init(config, (8, 8, 1), jnp.int32(0)).step)
      0
    """
    key = jax.random.key(seed)
    images = jnp.zeros((1, *image_shape), jnp.uint8)
    variables = config.network.init(key, images, train=False)
    params, batch_stats = variables["params"], variables["batch_stats"]
    return TrialState(
        params=params,
        batch_stats=batch_stats,
        opt_state=_optimizer(config).init(params),
        average=(params, batch_stats) if config.recipe.ema_decay else None,
        key=key,
        step=jnp.int32(0),
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
    loss_function = FAMILIES[config.family].loss
    dropout_key = _key(state, _DROPOUT)

    def objective(params):
        outputs, updates = config.network.apply(
            {"params": params, "batch_stats": state.batch_stats},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": dropout_key},
        )
        values = loss_function(scores(outputs), labels, **hyperparameters)
        return values.mean(), updates["batch_stats"]

    (loss, batch_stats), gradients = jax.value_and_grad(objective, has_aux=True)(
        state.params
    )
    updates, opt_state = _optimizer(config).update(
        gradients, state.opt_state, state.params
    )
    params = optax.apply_updates(state.params, updates)
    average = state.average
    if config.recipe.ema_decay:
        average = optax.incremental_update(
            (params, batch_stats), average, 1.0 - config.recipe.ema_decay
        )
    step = state.step + 1
    return TrialState(params, batch_stats, opt_state, average, state.key, step), loss


def train_epoch(
    config: TrainConfig,
    state: TrialState,
    hyperparameters: Hyperparameters,
    images: jax.Array,
    labels: jax.Array,
) -> tuple[TrialState, jax.Array]:
    """Takes one step on each batch of the shuffled images, in one `scan`.

    The last, incomplete batch of a shuffle is left out, as all batches of a compiled
    loop have one shape; the next epoch shuffles anew.

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
    recipe, shape = config.recipe, (config.num_batches, config.recipe.batch_size)
    order = jax.random.permutation(_key(state, _SHUFFLE), config.num_images)
    order = order[: config.num_batches * recipe.batch_size].reshape(shape)

    def step(state, index):
        batch = images[index]
        if recipe.augment_pad or recipe.augment_flip:
            key = _key(state, _AUGMENT)
            batch = augment(
                key, batch, pad=recipe.augment_pad, flip=recipe.augment_flip
            )
        return train_step(config, state, hyperparameters, batch, labels[index])

    state, loss = jax.lax.scan(step, state, order)
    return state, loss.mean()


def evaluated_variables(state: TrialState) -> dict[str, Tree]:
    """Returns the weights and statistics that are evaluated: averaged, if any are."""
    params, batch_stats = state.average or (state.params, state.batch_stats)
    return {"params": params, "batch_stats": batch_stats}


def predict(
    config: TrainConfig, variables: dict[str, Tree], images: jax.Array
) -> Outputs:
    """Embeds images, a batch at a time: memory that trains a trial evaluates it.

    Args:
      config: what the program's trials share.
      variables: from `evaluated_variables`.
      images: `[image, height, width, channel]` uint8.

    Returns:
      `Outputs` with features `[image, feature]`.
    """
    images, network = jnp.asarray(images), config.network
    num_images = images.shape[0]
    batch_size = min(config.recipe.batch_size, num_images)
    num_batches = -(-num_images // batch_size)
    # The last batch is filled up with its own last image, and cut off below.
    index = jnp.minimum(jnp.arange(num_batches * batch_size), num_images - 1)

    def embed(_, index):
        return None, _embed(network, variables, images[index]).features

    _, features = jax.lax.scan(embed, None, index.reshape(num_batches, batch_size))
    head = _embed(network, variables, images[:1])
    return head._replace(features=features.reshape(-1, features.shape[-1])[:num_images])


def _embed(network: CNN, variables: dict[str, Tree], images: jax.Array) -> Outputs:
    return cast(Outputs, network.apply(variables, images, train=False))


def evaluate(
    config: TrainConfig,
    state: TrialState,
    hyperparameters: Hyperparameters,
    important: jax.Array,
    constants: jax.Array,
    images: jax.Array,
    labels: jax.Array,
) -> Evaluation:
    """Measures a trial on a set of images, without margin and without dropout.

    Args:
      config: what the program's trials share.
      state: the trial's state.
      hyperparameters: arrays of the trial's method.
      important: `[choice, class]` bool, the choices of important classes for
        which the threshold is moved.
      constants: `[constant]` ascending, what is added to their logits.
      images: `[image, height, width, channel]` uint8.
      labels: `[image]` integers.

    Returns:
      An `Evaluation`.
    """
    num_classes = config.num_classes
    outputs = predict(config, evaluated_variables(state), images)
    values = scores(outputs)
    logits = test_logits(values, hyperparameters)
    loss = FAMILIES[config.family].loss(values, labels, **hyperparameters).mean()
    angle_mean, angle_std = metrics.angle_statistics(
        outputs.features, outputs.prototypes, labels
    )
    leaves = jax.tree.leaves((state.params, state.batch_stats))
    finite = jnp.array([jnp.isfinite(leaf).all() for leaf in leaves]).all()
    return Evaluation(
        loss=loss,
        confusion=metrics.confusion_matrix(labels, logits.argmax(-1), num_classes),
        curves=jax.vmap(
            lambda mask: metrics.threshold_curve(
                logits, labels, mask, constants, num_classes
            )
        )(important),
        angle_mean=angle_mean,
        angle_std=angle_std,
        diverged=~finite,
    )


def _key(state: TrialState, purpose: int) -> jax.Array:
    return jax.random.fold_in(jax.random.fold_in(state.key, purpose), state.step)
