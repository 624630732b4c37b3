"""From picture files to uint8 arrays of one size."""

import io
from typing import IO, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

Fit = Literal["stretch", "pad", "crop"]

# A header can promise any size in a few bytes: 50,000 x 50,000 pixels are 7.5 GB.
_MAX_PIXELS = 100_000_000


def decode(file: IO[bytes], image_size: int | None, fit: Fit = "stretch") -> np.ndarray:
    """Decodes one picture and resizes it, anti-aliased.

    Args:
      file: any format that Pillow reads; of an animation, the first picture.
      image_size: height and width in pixels; None keeps the picture's own.
      fit: `stretch` both axes to fill the square, `pad` the shorter axis with black,
        or `crop` the longer one.

    Returns:
      uint8 `[height, width, channels]`: 1 channel for a grey picture, else 3.

    Raises:
      Exception: whatever Pillow raises for a picture that it cannot read.

    Example:
      >>> file = io.BytesIO()
      >>> Image.new("L", (40, 20), 255).save(file, "png")
      >>> decode(file, 8, "pad")[:, 0, 0]
      array([  0,   0, 255, 255, 255, 255,   0,   0], dtype=uint8)
    """
    try:
        opened = Image.open(file)
    except UnidentifiedImageError:  # Pillow's message is the file object's address
        raise ValueError("it is no picture of a known format") from None
    with opened as image:
        if image.width * image.height > _MAX_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels are too many")
        if image_size is not None:
            # JPEG can decode at a half, quarter or eighth; twice the size is plenty.
            image.draft(image.mode, (2 * image_size, 2 * image_size))
        upright = _flatten(ImageOps.exif_transpose(image))
    if image_size is not None:
        upright = _resize(upright, image_size, fit)
    return np.atleast_3d(np.asarray(upright))


def encode(image: np.ndarray) -> bytes:
    """Encodes a picture as PNG.

    Args:
      image: uint8 `[height, width, 1 or 3]`.

    Returns:
      The bytes of a PNG file.
    """
    file = io.BytesIO()
    _from_array(image).save(file, "png", compress_level=1)
    return file.getvalue()


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
        resized = _resize(_from_array(image), image_size, "stretch")
        out[i] = np.atleast_3d(np.asarray(resized))
    return out


def _resize(image: Image.Image, size: int, fit: Fit) -> Image.Image:
    if image.size == (size, size):
        return image
    square, method = (size, size), Image.Resampling.BILINEAR
    if fit == "pad":
        return ImageOps.pad(image, square, method)
    if fit == "crop":
        return ImageOps.fit(image, square, method)
    return image.resize(square, method)


def _flatten(image: Image.Image) -> Image.Image:
    """Returns the picture as 8-bit grey or RGB, on black where it is transparent."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("its pixels have 32 bits and no known range: save 8 or 16")
    grey = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "black"), rgba)
    return image.convert("L" if grey else "RGB")


def _from_array(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
