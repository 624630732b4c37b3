"""The optimizer of a recipe, by optax."""

import optax

from camri_jax.training.recipe import TrainConfig


def optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """Returns the optimizer that a recipe asks for.

    Args:
      config: what the program's trials share.

    Returns:
      A pair of pure functions; its state is part of a trial's.
    """
    recipe = config.recipe
    rate = recipe.learning_rate
    if recipe.schedule == "cosine":
        rate = optax.cosine_decay_schedule(rate, recipe.epochs * config.num_batches)
    if recipe.optimizer == "sgd":
        return optax.sgd(rate, momentum=0.9, nesterov=True)
    # Epsilon as in Keras, with which the authors trained.
    return {"adam": optax.adam, "adamw": optax.adamw}[recipe.optimizer](rate, eps=1e-7)
