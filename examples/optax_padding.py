"""Padded batches with optax: what is filled up has the label -1 and `where=False`.

    python examples/optax_padding.py

Sequences of unequal length, a label a step. Steps that are not there have neither loss
nor gradient. Three seconds on a CPU; prints the recall of the important class, about
0.98.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from camri_jax import losses, penalties

CLASSES, IMPORTANT, LENGTH, SIZE = 4, 2, 12, 8
MARGINS = penalties.margin_vector(CLASSES, IMPORTANT, 0.2)


def sequences(number: int, seed: int) -> tuple[jax.Array, jax.Array]:
    """Returns steps `[sequence, step, feature]` and labels, -1 where there is none."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, (number, LENGTH))
    steps = 3 * np.eye(CLASSES, SIZE)[labels] + rng.normal(size=(number, LENGTH, SIZE))
    absent = np.arange(LENGTH) >= rng.integers(3, LENGTH + 1, number)[:, None]
    steps[absent], labels[absent] = 0.0, -1
    return jnp.asarray(steps, jnp.float32), jnp.asarray(labels, jnp.int32)


def loss(prototypes: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the mean loss of the steps that are there."""
    cosines, there = losses.cosine_similarity(x, prototypes), y >= 0
    values = losses.camri(cosines, y, margins=MARGINS, scale=16.0, where=there)
    return values.sum() / there.sum()


@jax.jit
def step(prototypes: jax.Array, state: optax.OptState, x: jax.Array, y: jax.Array):
    """Takes one step of Adam."""
    gradient = jax.grad(loss)(prototypes, x, y)
    updates, state = optax.adam(0.02).update(gradient, state)
    return optax.apply_updates(prototypes, updates), state


def main() -> float:
    """Trains and returns the recall of the important class."""
    prototypes = jax.random.normal(jax.random.key(0), (SIZE, CLASSES))
    state, (x, y) = optax.adam(0.02).init(prototypes), sequences(64, seed=0)
    for _ in range(100):
        prototypes, state = step(prototypes, state, x, y)
    x, y = sequences(200, seed=1)
    predictions = losses.cosine_similarity(x, prototypes).argmax(-1)
    recall = float((predictions[y == IMPORTANT] == IMPORTANT).mean())
    print(f"recall of {IMPORTANT}: {recall:.3f}")
    return recall


if __name__ == "__main__":
    main()
