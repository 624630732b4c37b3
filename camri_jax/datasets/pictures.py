"""From picture files to uint8 arrays of one size."""

import numpy as np
from PIL import Image


def resize_all(images: np.ndarray, image_size: int | None) -> np.ndarray:
    """Resizes every image to a square, anti-aliased.

    Args:
      images: uint8 `[n, height, width, channels]`, 1 or 3 channels.
      image_size: height and width in pixels; None leaves the images alone.

    Returns:
      uint8 `[n, image_size, image_size, channels]`.

    Example:
      >>> resize_all(np.zeros([2, 8, 6, 3], np.uint8), 16).shape
      (2, 16, 16, 3)
    """
    if image_size is None or images.shape[1:3] == (image_size, image_size):
        return images
    out = np.empty((len(images), image_size, image_size, images.shape[3]), np.uint8)
    for i, image in enumerate(images):
        picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
        resized = picture.resize((image_size, image_size), Image.Resampling.BILINEAR)
        out[i] = np.asarray(resized).reshape(out[i].shape)
    return out
