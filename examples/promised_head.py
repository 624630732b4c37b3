"""A head on features, with a recall that is promised: digits pixels, and your own file.

    pip install 'camri-jax[sklearn]'
    python examples/promised_head.py
    python examples/promised_head.py features.npz cat 0.9

Embeddings of any network will do, as `examples/features_of_images.py` writes them; it
takes `train_features`, `train_labels`, `test_...` and `class_names`. Ten seconds on a
CPU; prints the promise, its price, and what test examples say.
"""

import sys

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from camri_jax.heads import ImportantClassifier


def main(path: str | None = None, important: str = "8", recall: str = "0.9") -> float:
    """Fits and returns the recall of the important class among test examples."""
    if path is None:
        x, y = load_digits(return_X_y=True)
        train, test, y, truth = train_test_split(
            x, y.astype(str), test_size=0.25, random_state=0, stratify=y
        )
    else:
        with np.load(path) as file:
            names = file["class_names"]
            train, test = file["train_features"], file["test_features"]
            y, truth = names[file["train_labels"]], names[file["test_labels"]]
    head = ImportantClassifier(important, recall=float(recall), random_state=0)
    head.fit(train, y)
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
