"""Decoding: every kind of picture ends as uint8 of one size."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from camri_jax.datasets import pictures


def _file(image, suffix="png", **options):
    file = io.BytesIO()
    image.save(file, suffix, **options)
    file.seek(0)
    return file


def _colour(red, green, blue, size=(8, 8)):
    return Image.new("RGB", size, (red, green, blue))


def test_a_picture_survives_encoding():
    image = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    assert (pictures.decode(io.BytesIO(pictures.encode(image)), None) == image).all()
    grey = image[..., :1]
    assert (pictures.decode(io.BytesIO(pictures.encode(grey)), None) == grey).all()


def test_shrinking_is_anti_aliased():
    chessboard = np.indices((64, 64)).sum(axis=0) % 2 * 255
    file = _file(Image.fromarray(chessboard.astype(np.uint8)))
    shrunk = pictures.decode(file, 8)
    assert (abs(shrunk.astype(int) - 127) < 16).all()


@pytest.mark.parametrize(
    ("fit", "top", "middle"),
    [("stretch", 200, 200), ("pad", 0, 200), ("crop", 200, 200)],
)
def test_a_wide_picture_becomes_square(fit, top, middle):
    file = _file(Image.new("L", (40, 20), 200))
    image = pictures.decode(file, 10, fit)
    assert image.shape == (10, 10, 1)
    assert (image[0].max(), image[5].min()) == (top, middle)


def test_cropping_keeps_the_middle():
    image = Image.new("RGB", (30, 10), "red")
    image.paste((0, 255, 0), (10, 0, 20, 10))
    assert (pictures.decode(_file(image), 10, "crop") == [0, 255, 0]).all()


@pytest.mark.parametrize("suffix", ["png", "jpeg", "bmp", "gif", "tiff", "webp", "ppm"])
def test_formats(suffix):
    decoded = pictures.decode(_file(_colour(200, 40, 90), suffix), 4)
    assert decoded.shape == (4, 4, 3)
    assert (abs(decoded.astype(int) - [200, 40, 90]) < 8).all()


@pytest.mark.parametrize(
    ("mode", "channels"),
    [("1", 1), ("L", 1), ("LA", 1), ("P", 3), ("RGB", 3), ("RGBA", 3), ("CMYK", 3)],
)
def test_modes(mode, channels):
    suffix = "tiff" if mode == "CMYK" else "png"
    decoded = pictures.decode(_file(_colour(255, 255, 255).convert(mode), suffix), 4)
    assert decoded.shape == (4, 4, channels)
    assert (decoded > 250).all()


def test_what_is_transparent_is_black():
    image = Image.new("RGBA", (8, 8), (255, 255, 255, 0))
    image.paste((10, 20, 30, 255), (0, 0, 8, 4))
    decoded = pictures.decode(_file(image), None)
    assert (decoded[:4] == [10, 20, 30]).all()
    assert (decoded[4:] == 0).all()


def test_16_bits_keep_their_upper_half():
    deep = np.array([[0, 255, 256, 65535]], np.uint16)
    assert pictures.decode(_file(Image.fromarray(deep)), None).ravel().tolist() == [
        0,
        0,
        1,
        255,
    ]


def test_32_bits_are_refused():
    image = Image.fromarray(np.ones([4, 4], np.float32))
    with pytest.raises(ValueError, match="32 bits"):
        pictures.decode(_file(image, "tiff"), None)


def test_a_camera_held_upright_is_believed():
    image = _colour(0, 0, 0, (8, 4))
    image.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned a quarter clockwise
    decoded = pictures.decode(_file(image, exif=exif), None)
    assert decoded.shape == (8, 4, 3)
    assert decoded[0, 3].tolist() == [255, 255, 255]


def pixel_bomb(width=50_000, height=50_000):
    """A PNG of a few bytes whose header promises very many pixels."""

    def chunk(kind, content):
        body = kind + content
        return (
            struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_a_pixel_bomb_is_refused_before_it_is_decoded():
    with pytest.raises(Image.DecompressionBombError, match="2500000000 pixels"):
        pictures.decode(io.BytesIO(pixel_bomb()), 8)


def test_a_small_pixel_bomb_is_refused_too():
    Image.MAX_IMAGE_PIXELS, known = None, Image.MAX_IMAGE_PIXELS
    try:
        with pytest.raises(ValueError, match="12000 x 12000 pixels are too many"):
            pictures.decode(io.BytesIO(pixel_bomb(12_000, 12_000)), 8)
    finally:
        Image.MAX_IMAGE_PIXELS = known


def test_large_photographs_shrink_to_nearly_the_same_as_without_shortcuts():
    """JPEG is decoded at a fraction of its size; that must not be seen."""
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    photograph = smooth.resize((1600, 1200), Image.Resampling.BICUBIC)
    file = _file(photograph, "jpeg", quality=95)
    expected = np.asarray(photograph.resize((32, 32), Image.Resampling.BILINEAR))
    difference = pictures.decode(file, 32).astype(int) - expected
    assert abs(difference).mean() < 2
