"""The 8x8 digits that are shipped inside scikit-learn: nothing to download."""

import numpy as np

from camri_jax.datasets.dataset import Dataset, Part, make_dataset
from camri_jax.datasets.pictures import resize_all
from camri_jax.datasets.splitting import hold_out

_TEST_FRACTION = 0.2
_TEST_SEED = 0  # a constant: every run is tested on the same images


def load_digits(*, image_size: int | None = None) -> Dataset:
    """Loads 1,797 grey 8x8 digits, a fifth of each class for testing.

    Args:
      image_size: height and width in pixels; None keeps 8.

    Returns:
      Train and test images.

    Raises:
      ImportError: scikit-learn is not installed.

    Example:
      >>> load_digits().train_images.shape
      (1438, 8, 8, 1)
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError(
            "the data set 'digits' is shipped inside scikit-learn, which is not "
            "installed: pip install 'camri-jax[experiments]'"
        ) from error
    images, labels = datasets.load_digits(return_X_y=True)
    pixels = np.round(images * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    everything = Part(resize_all(pixels, image_size), np.asarray(labels, np.int32))
    dataset = make_dataset("digits", {"train": everything}, tuple("0123456789"))
    return hold_out(dataset, {"test": _TEST_FRACTION}, seed=_TEST_SEED)
