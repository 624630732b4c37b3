"""Text as TF-IDF, singular values and a head that promises a recall of one class.

    pip install 'camri-jax[sklearn]'
    python examples/text.py

Which package is a docstring from? No text of SciPy's may be missed. The texts are those
of what is installed. Ten seconds on a CPU; prints the promise and its price.
"""

import importlib
import inspect

from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from camri_jax.heads import ImportantClassifier

MODULES = {
    "numpy": ("numpy", "numpy.linalg", "numpy.fft", "numpy.random", "numpy.ma"),
    "scipy": ("scipy.linalg", "scipy.optimize", "scipy.signal", "scipy.special"),
    "python": ("os", "collections", "itertools", "statistics", "random", "asyncio"),
}


def texts() -> tuple[list[str], list[str]]:
    """Returns docstrings without the names of packages, and the package of each."""
    found = {}
    for package, modules in MODULES.items():
        for name in modules:
            for _, each in inspect.getmembers(importlib.import_module(name)):
                text = inspect.getdoc(each) or ""
                for word in MODULES:
                    text = text.replace(word, "")
                if len(text) > 100:
                    found[text] = package
    return list(found), list(found.values())


def main() -> float:
    """Fits and returns the recall of the important class among test examples."""
    x, y = texts()
    train, test, y, truth = train_test_split(x, y, random_state=0, stratify=y)
    words = TfidfVectorizer(sublinear_tf=True, min_df=3)
    head = ImportantClassifier("scipy", recall=0.9, random_state=0)
    pipeline = make_pipeline(words, TruncatedSVD(100, random_state=0), head)
    pipeline.fit(train, y)
    print(head.certificate_)
    print(f"price: {head.price_.false_alarms.value:.1f} false alarms per 1,000")
    mine = [text for text, label in zip(test, truth, strict=True) if label == "scipy"]
    found = float((pipeline.predict(mine) == "scipy").mean())
    print(
        f"test: recall of scipy {found:.3f}, accuracy {pipeline.score(test, truth):.3f}"
    )
    return found


if __name__ == "__main__":
    main()
