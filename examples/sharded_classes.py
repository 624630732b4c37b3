"""A million classes on eight devices: cosines stay where their prototypes are.

    python examples/sharded_classes.py

Faces, products, words: so many prototypes that they, and the cosines to them, are
spread over devices. `jit` needs nothing but the shardings; between devices go sums over
classes, of a batch's length, never cosines. On a CPU eight devices are made up.
"""

import jax

jax.config.update("jax_num_cpu_devices", 8)

import jax.numpy as jnp  # noqa: E402
from jax.sharding import NamedSharding, PartitionSpec  # noqa: E402

from camri_jax import losses  # noqa: E402

BATCH, FEATURES, CLASSES, IMPORTANT = 8, 32, 1_000_000, 123_456


def loss(prototypes: jax.Array, features: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the mean loss of a batch; one class has a margin."""
    margins = jnp.zeros(CLASSES).at[IMPORTANT].set(0.2)
    cosines = losses.cosine_similarity(features, prototypes)
    return losses.camri(cosines, labels, margins=margins, scale=64.0).mean()


def program(mesh: jax.sharding.Mesh) -> jax.stages.Compiled:
    """Compiles the loss and its gradient for prototypes on a mesh."""
    spread = NamedSharding(mesh, PartitionSpec(None, "class"))
    everywhere = NamedSharding(mesh, PartitionSpec())
    step = jax.jit(
        jax.value_and_grad(loss),
        in_shardings=(spread, everywhere, everywhere),
        out_shardings=(everywhere, spread),
    )
    return step.lower(
        jax.ShapeDtypeStruct((FEATURES, CLASSES), jnp.float32),
        jax.ShapeDtypeStruct((BATCH, FEATURES), jnp.float32),
        jax.ShapeDtypeStruct((BATCH,), jnp.int32),
    ).compile()


def main() -> float:
    """Takes a step, and returns the loss before it."""
    mesh = jax.make_mesh((len(jax.devices()),), ("class",))
    step = program(mesh)
    prototypes = jax.random.normal(jax.random.key(0), (FEATURES, CLASSES))
    features = jax.random.normal(jax.random.key(1), (BATCH, FEATURES))
    labels = jnp.arange(BATCH, dtype=jnp.int32).at[0].set(IMPORTANT)
    value, gradient = step(prototypes, features, labels)
    print(f"loss {value:.3f}, gradient {gradient.shape} on {mesh.size} devices")
    return float(value)


if __name__ == "__main__":
    main()
