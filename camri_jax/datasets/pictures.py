"""From picture files to uint8 arrays of one size."""

import functools
import io
import re
import struct
from pathlib import PurePosixPath
from typing import IO, Literal, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

# How pictures of a folder become square, and how all others do.
FolderFit = Literal["pad", "crop"]
Fit = Literal[FolderFit, "stretch"]

# A header can promise any size in a few bytes: 50,000 x 50,000 pixels are 7.5 GB.
_MAX_PIXELS = 100_000_000
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Decoded(NamedTuple):
    """A picture and what a user should know of it.

    Attributes:
      pixels: uint8 `[height, width, channels]`: 1 channel for a grey picture, else 3.
      remarks: each goes on after "a picture that".
      bits: how many a grey picture of more than 8 uses; None: for all others.
    """

    pixels: np.ndarray
    remarks: list[str]
    bits: int | None


def decode(
    file: IO[bytes],
    image_size: int | None,
    fit: Fit = "stretch",
    *,
    bits: int | None = None,
) -> Decoded:
    """Decodes one picture and resizes it, anti-aliased.

    Its metadata (EXIF, colour profiles, texts) may be damaged: only its pixels count,
    and its orientation where that can be read.

    Args:
      file: any format that Pillow reads; for an animation, the first picture.
      image_size: height and width in pixels; None keeps the picture's own.
      fit: `stretch` both axes to fill the square, `pad` the shorter axis with black,
        or `crop` the longer one.
      bits: how many a grey picture of more than 8 bits has, of which the upper 8 are
        kept; None: as many as it uses, 8, 10, 12, 14 or 16.

    Returns:
      Its pixels, with remarks.

    Raises:
      Exception: whatever Pillow raises for a picture that it cannot read.

    Example:
      >>> file = io.BytesIO()
      >>> Image.new("L", (40, 20), 255).save(file, "png")
      >>> decode(io.BytesIO(file.getvalue()), 8, "pad").pixels[:, 0, 0]
      array([  0,   0, 255, 255, 255, 255,   0,   0], dtype=uint8)
    """
    content = file.read()
    try:
        image, remarks, used = _read(content, image_size, bits)
    except Exception:
        bare = _without_metadata(content)
        if bare == content:
            raise
        image, remarks, used = _read(bare, image_size, bits)
    if max(image.size) > 16 * min(image.size):
        remarks.append("is more than 16 times longer than wide")
    if image_size is not None:
        image = _resize(image, image_size, fit)
    pixels = np.atleast_3d(np.asarray(image))
    if pixels.size and (pixels == pixels[0, 0]).all():
        remarks.append("has one colour only")
    return Decoded(pixels, remarks, used)


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


def is_picture(name: str) -> bool:
    """Tells by its ending whether Pillow can read a file.

    Example:
      >>> is_picture("a/b.JPG"), is_picture("a/b.h5")
      (True, False)
    """
    format_name = Image.registered_extensions().get(PurePosixPath(name).suffix.lower())
    return format_name in _formats()


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


@functools.cache
def _formats() -> tuple[str, ...]:
    """The formats whose pixels Pillow reads by itself, without another program."""
    Image.init()
    stubs = {
        name
        for name, (opener, _) in Image.OPEN.items()
        if isinstance(opener, type) and issubclass(opener, ImageFile.StubImageFile)
    }
    return tuple(name for name in Image.OPEN if name not in stubs | {"MPEG", "EPS"})


def _read(
    content: bytes, image_size: int | None, bits: int | None
) -> tuple[Image.Image, list[str], int | None]:
    """Returns a picture upright as 8-bit grey or RGB, remarks, and the bits it uses."""
    remarks = []
    try:
        opened = Image.open(io.BytesIO(content), formats=_formats())
    except Image.DecompressionBombError as error:
        # Pillow has its own limit, and names the pixels only in its message.
        raise _too_large(int(re.findall(r"\d+", str(error))[0])) from None
    except UnidentifiedImageError:  # Pillow's message is the file object's address
        raise ValueError("it is no picture of a known format") from None
    with opened as image:
        if image.width * image.height > _MAX_PIXELS:
            raise _too_large(image.width * image.height)
        if getattr(image, "is_animated", False):
            remarks.append("has several pictures, of which the first is read")
        if image_size is not None:
            # JPEG can decode at a half, quarter or eighth; twice the size is plenty.
            image.draft(image.mode, (2 * image_size, 2 * image_size))
        raw = "".join(str(tile[3]) for tile in image.tile)
        deep_colour = ";16" in raw and not image.mode.startswith("I")
        flat, used, transparent = _flatten(image, bits)
        if transparent:
            remarks.append("is transparent, with black behind it")
        try:
            orientation = image.getexif().get(ExifTags.Base.Orientation)
        except Exception:
            orientation = None
    if deep_colour and np.asarray(flat).max() < 16:
        raise ValueError(
            "only the upper 8 of its 16 bits a colour can be read, and they are nearly "
            "empty: save it with 8"
        )
    method = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    upright = flat if method is None else flat.transpose(method)
    return upright, remarks, used


def _too_large(number: int) -> ValueError:
    return ValueError(
        f"its {number:,} pixels are more than the {_MAX_PIXELS:,} that are read: save "
        "it smaller"
    )


def _flatten(
    image: Image.Image, bits: int | None
) -> tuple[Image.Image, int | None, bool]:
    """Returns the picture on black, the bits it uses, and if it is transparent."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("its pixels have 32 bits and no known range: save 8 or 16")
        used = next(n for n in (8, 10, 12, 14, 16) if values.max() < 2**n)
        shift = max(used if bits is None else bits, used) - 8
        return Image.fromarray((values >> shift).astype(np.uint8)), used, False
    if image.mode == "F":
        raise ValueError("its pixels have 32 bits and no known range: save 8 or 16")
    grey = image.mode in ("1", "L", "LA", "La")
    transparent = False
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        transparent = np.asarray(rgba.getchannel("A")).min() < 255
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "black"), rgba)
    return image.convert("L" if grey else "RGB"), None, transparent


def _resize(image: Image.Image, size: int, fit: Fit) -> Image.Image:
    if image.size == (size, size):
        return image
    square, method = (size, size), Image.Resampling.BILINEAR
    if fit == "crop":
        return ImageOps.fit(image, square, method)
    if fit == "stretch":
        return image.resize(square, method)
    # However narrow, it keeps a pixel.
    width, height = (max(1, round(s * size / max(image.size))) for s in image.size)
    padded = Image.new(image.mode, square)
    corner = round((size - width) / 2), round((size - height) / 2)
    padded.paste(image.resize((width, height), method), corner)
    return padded


def _without_metadata(content: bytes) -> bytes:
    """Returns a PNG or JPEG file with nothing in it but what makes its pixels."""
    kept, at = [], 0
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        kept, at = [content[:8]], 8
        while at + 8 <= len(content):
            length, kind = struct.unpack(">I4s", content[at : at + 8])
            chunk = content[at : (at := at + 12 + length)]
            if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
                kept.append(chunk)
    elif content.startswith(b"\xff\xd8"):
        kept, at = [content[:2]], 2
        while content[at : at + 1] == b"\xff" and content[at + 1 : at + 2] != b"\xda":
            kind = content[at + 1 : at + 2]
            length = int.from_bytes(content[at + 2 : at + 4], "big")
            segment = content[at : (at := at + 2 + length)]
            # Of the application segments, one says how colours are coded.
            if not (b"\xe1" <= kind <= b"\xed" or kind in b"\xef\xfe"):
                kept.append(segment)
        kept.append(content[at:])
    return b"".join(kept) or content


def _from_array(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
