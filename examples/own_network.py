"""A network of your own in a sweep: methods, seeds, a table, and the model to take.

    pip install 'camri-jax[experiments]'
    python examples/own_network.py [DIRECTORY]

Any Flax module from uint8 images and `train` to features, float32, will do. Digits of
scikit-learn, of which no 8 may be missed. Half a minute on a CPU; prints what each
method comes to, and what to take.
"""

import sys
import tempfile

import flax.linen as nn
import jax
import jax.numpy as jnp

import camri_jax as cj


class Network(nn.Module):
    """Two layers, with dropout between them."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Returns features `[batch, feature]`."""
        x = images.reshape(len(images), -1).astype(jnp.float32) / 255.0
        x = nn.relu(nn.Dense(64)(x))
        x = nn.Dropout(0.1, deterministic=not train)(x)
        return nn.Dense(32)(x)


def main(output: str) -> float:
    """Sweeps, and returns the accuracy of the model to take."""
    dataset = cj.datasets.load("digits", validation_fraction=0.2)
    config = cj.SweepConfig(
        important=("8",),
        methods=("cross_entropy", "camri"),
        grid={"camri.margin": (0.1, 0.2)},
        num_seeds=2,
        recipe=cj.Recipe(epochs=8, learning_rate=0.01, schedule="cosine"),
    )
    result = cj.sweep(config, dataset, output, backbone=Network())
    print(result.table[["method", "recall", "accuracy"]].round(3).to_string())
    print(*result.best.sentences, sep="\n")
    predictions = result.best.load().predict(dataset.test_images)
    print("the first test images are", *predictions[:9])
    pairs = zip(predictions, dataset.test_labels, strict=True)
    return sum(name == dataset.class_names[k] for name, k in pairs) / len(predictions)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
