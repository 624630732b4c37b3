"""A head on features, with a recall that is promised: digits pixels, and your own file.

    pip install 'camri-jax[sklearn]'
    python examples/promised_head.py
    python examples/promised_head.py features.npz cat 0.9

Embeddings of any network will do: `features`, `labels` and `class_names`, or in parts
and with `groups`, as `examples/features_of_images.py` writes them. Ten seconds on a
CPU; prints the promise, its price, and what test examples say.
"""

import sys

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from camri_jax import datasets
from camri_jax.heads import ImportantClassifier


def main(path: str | None = None, important: str = "8", recall: str = "0.9") -> float:
    """Fits and returns the recall of the important class among test examples."""
    if path is None:
        x, y = load_digits(return_X_y=True)
        train, test, y, truth = train_test_split(
            x, y.astype(str), test_size=0.25, random_state=0, stratify=y
        )
        groups = None
    else:
        data = datasets.load(f"npz:{path}")
        names = np.array(data.class_names)
        train, groups, test = data.train_images, data.train_groups, data.test_images
        y, truth = names[data.train_labels], names[data.test_labels]
    head = ImportantClassifier(important, recall=float(recall), random_state=0)
    head.fit(train, y, groups=groups)
    print(head.certificate_)
    alarms = head.price_.false_alarms
    print(f"price: {alarms.value:.1f} false alarms per 1,000 ({alarms.change:+.1f})")
    predictions = head.predict(test)
    found = float((predictions == important)[truth == important].mean())
    right = (predictions == truth).mean()
    print(f"test: recall of {important} {found:.3f}, accuracy {right:.3f}")
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
