"""Pictures from anywhere as the arrays that a trained model takes."""

import contextlib
import io
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image
from PIL.JpegImagePlugin import JpegImageFile

from camri_jax.datasets.dataset import DatasetError
from camri_jax.datasets.pictures import Fit, decode

_NO_PNG = ("CMYK", "HSV", "RGBX", "YCbCr")  # modes of colour that PNG lacks


def read_images(
    images: Iterable[Any],
    shape: tuple[int, ...],
    fit: Fit = "stretch",
    bits: int | None = None,
) -> np.ndarray:
    """Reads pictures at the size and with the channels that training used.

    Args:
      images: paths, PIL images, or arrays uint8 `[height, width]` or
        `[height, width, 1 to 4 channels]`, where the second of two and the fourth of
        four is alpha. A PIL image's orientation counts, as a file's does; a large JPEG
        gives exactly its file's pixels until it is changed or shown, which decodes all
        of them.
      shape: `(height, width, channels)` of each in the result.
      fit: how a picture becomes square: `stretch`, `pad` or `crop`. Where `shape` is
        not square, only pictures of this height and width are read.
      bits: of grey pictures of more than 8 bits, as in `Dataset.bits`.

    Returns:
      uint8 `[image, height, width, channels]`.

    Raises:
      DatasetError: there are none, or one cannot be read; it is named.

    Example:
      >>> read_images([np.zeros((20, 10), np.uint8)], (8, 8, 3)).shape
      (1, 8, 8, 3)
    """
    with warnings.catch_warnings():
        # What is too large is refused, and the rest needs no warning.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        found = [_read(image, i, shape, fit, bits) for i, image in enumerate(images)]
    if not found:
        raise DatasetError("images must hold at least one")
    return np.stack(found)


def _read(
    image: Any, i: int, shape: tuple[int, ...], fit: Fit, bits: int | None
) -> np.ndarray:
    is_path = isinstance(image, str | os.PathLike)
    try:
        content = Path(image).expanduser().read_bytes() if is_path else _bytes(image)
        size = shape[0] if shape[0] == shape[1] else None
        pixels = decode(io.BytesIO(content), size, fit, bits=bits).pixels
        if pixels.shape[:2] != shape[:2]:
            raise ValueError(
                f"it is {pixels.shape[0]} pixels high and {pixels.shape[1]} wide; it "
                f"must be {shape[0]} high and {shape[1]} wide, for pictures are fitted "
                "to squares only"
            )
    except Exception as error:
        name = os.fspath(image) if is_path else f"images[{i}]"
        raise DatasetError(f"{name} cannot be read as a picture: {error}") from error
    if pixels.shape[-1] == shape[-1]:
        return pixels
    if shape[-1] == 3:
        return np.repeat(pixels, 3, axis=-1)
    return np.asarray(Image.fromarray(pixels).convert("L"))[..., None]


def _bytes(image: Any) -> bytes:
    """Returns an image as a file: its own, or a new one."""
    if not isinstance(image, Image.Image):
        pixels = np.asarray(image)
        form = pixels.ndim == 2 or (pixels.ndim == 3 and 1 <= pixels.shape[2] <= 4)
        if pixels.dtype != np.uint8 or not form:
            raise TypeError(
                "pixels must be uint8 [height, width] or [height, width, 1 to 4 "
                f"channels], got {pixels.dtype} {list(pixels.shape)}"
            )
        image = Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)
    # A large JPEG is decoded at a fraction of its size, unlike pixels that are there.
    # As long as it has a tile, none of them is decoded, so that none was changed.
    file = image.fp if isinstance(image, JpegImageFile) and image.tile else None
    if file is None or image.tell():
        return _png(image)
    place = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(place)
    return content


def _png(image: Image.Image) -> bytes:
    image.load()  # which turns a TIFF upright
    exif = Image.Exif()
    with contextlib.suppress(Exception):  # of damaged EXIF
        orientation = image.getexif().get(ExifTags.Base.Orientation)
        if isinstance(orientation, int) and 1 <= orientation <= 8:
            exif[ExifTags.Base.Orientation] = orientation
    if image.mode in _NO_PNG:
        image = image.convert("RGB")
    file = io.BytesIO()
    image.save(file, "png", exif=exif)
    return file.getvalue()
