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


def _pixels(*given, **named):
    return pictures.decode(*given, **named).pixels


def _colour(red, green, blue, size=(8, 8)):
    return Image.new("RGB", size, (red, green, blue))


def test_a_picture_survives_encoding():
    image = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    assert (_pixels(io.BytesIO(pictures.encode(image)), None) == image).all()
    grey = image[..., :1]
    assert (_pixels(io.BytesIO(pictures.encode(grey)), None) == grey).all()


def test_shrinking_is_anti_aliased():
    chessboard = np.indices((64, 64)).sum(axis=0) % 2 * 255
    file = _file(Image.fromarray(chessboard.astype(np.uint8)))
    shrunk = _pixels(file, 8)
    assert (abs(shrunk.astype(int) - 127) < 16).all()


@pytest.mark.parametrize(
    ("fit", "top", "middle"),
    [("stretch", 200, 200), ("pad", 0, 200), ("crop", 200, 200)],
)
def test_a_wide_picture_becomes_square(fit, top, middle):
    file = _file(Image.new("L", (40, 20), 200))
    image = _pixels(file, 10, fit)
    assert image.shape == (10, 10, 1)
    assert (image[0].max(), image[5].min()) == (top, middle)


def test_cropping_keeps_the_middle():
    image = Image.new("RGB", (30, 10), "red")
    image.paste((0, 255, 0), (10, 0, 20, 10))
    assert (_pixels(_file(image), 10, "crop") == [0, 255, 0]).all()


@pytest.mark.parametrize("suffix", ["png", "jpeg", "bmp", "gif", "tiff", "webp", "ppm"])
def test_formats(suffix):
    decoded = _pixels(_file(_colour(200, 40, 90), suffix), 4)
    assert decoded.shape == (4, 4, 3)
    assert (abs(decoded.astype(int) - [200, 40, 90]) < 8).all()


@pytest.mark.parametrize(
    ("mode", "channels"),
    [("1", 1), ("L", 1), ("LA", 1), ("P", 3), ("RGB", 3), ("RGBA", 3), ("CMYK", 3)],
)
def test_modes(mode, channels):
    suffix = "tiff" if mode == "CMYK" else "png"
    decoded = _pixels(_file(_colour(255, 255, 255).convert(mode), suffix), 4)
    assert decoded.shape == (4, 4, channels)
    assert (decoded > 250).all()


def test_what_is_transparent_is_black():
    image = Image.new("RGBA", (8, 8), (255, 255, 255, 0))
    image.paste((10, 20, 30, 255), (0, 0, 8, 4))
    decoded = _pixels(_file(image), None)
    assert (decoded[:4] == [10, 20, 30]).all()
    assert (decoded[4:] == 0).all()


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_deep_grey_keeps_the_upper_half_of_the_bits_it_uses(bits):
    most = 2**bits - 1
    deep = np.array([[0, most // 255, most // 2, most]], np.uint16)
    decoded = pictures.decode(_file(Image.fromarray(deep)), None)
    assert decoded.pixels.ravel().tolist() == (deep.ravel() >> (bits - 8)).tolist()
    assert decoded.pixels.max() == 255
    assert decoded.bits == bits
    # Beside others that use more.
    dark = _pixels(_file(Image.fromarray(deep)), None, bits=16)
    assert dark.max() == most >> 8


@pytest.mark.parametrize("most", [255, 4095, 65535])
def test_a_portable_map_of_any_depth(most):
    values = np.linspace(0, most, 16).astype(">u2")
    file = io.BytesIO(b"P5 4 4 %d\n" % most + values.astype(">u2").tobytes())
    if most == 255:
        file = io.BytesIO(b"P5 4 4 255\n" + values.astype(np.uint8).tobytes())
    decoded = _pixels(file, None)
    assert (abs(decoded.ravel() - values / most * 255) < 1.01).all()


def _png(header, rows):
    def chunk(kind, content):
        body = kind + content
        return (
            struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))
        )

    return io.BytesIO(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("most", [4096, 65536])
def test_deep_colour_is_read_or_refused_but_never_black(most):
    values = np.random.default_rng(0).integers(0, most, (4, 12)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    file = _png(struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0), rows)
    if most == 65536:
        assert (_pixels(file, None).reshape(4, 12) == values >> 8).all()
    else:
        with pytest.raises(ValueError, match="save it with 8"):
            pictures.decode(file, None)


def test_a_colour_picture_of_16_pixels_is_not_deep():
    assert (_pixels(_file(_colour(9, 5, 3, (16, 16))), None) == [9, 5, 3]).all()


def test_32_bits_are_refused():
    image = Image.fromarray(np.ones([4, 4], np.float32))
    with pytest.raises(ValueError, match="32 bits"):
        pictures.decode(_file(image, "tiff"), None)


def test_a_camera_held_upright_is_believed():
    image = _colour(0, 0, 0, (8, 4))
    image.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned a quarter clockwise
    decoded = _pixels(_file(image, exif=exif), None)
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
    with pytest.raises(ValueError, match="its 2,500,000,000 pixels are more than"):
        pictures.decode(io.BytesIO(pixel_bomb()), 8)


def test_a_small_pixel_bomb_is_refused_too():
    Image.MAX_IMAGE_PIXELS, known = None, Image.MAX_IMAGE_PIXELS
    try:
        with pytest.raises(ValueError, match="its 144,000,000 pixels are more than"):
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
    difference = _pixels(file, 32).astype(int) - expected
    assert abs(difference).mean() < 2


def _exif(*entries, tail=b""):
    """EXIF of an orientation, turned by 90 degrees, and other tags."""
    entries = [(0x112, 3, 1, struct.pack("<HH", 6, 0)), *entries]
    body = b"II*\0" + struct.pack("<IH", 8, len(entries))
    for tag, kind, count, value in entries:
        body += struct.pack("<HHI", tag, kind, count) + value
    return b"Exif\0\0" + body + bytes(4) + tail


_DAMAGED_EXIF = {
    "a ratio of zero": _exif(
        (0x11A, 10, 1, struct.pack("<I", 38)), tail=struct.pack("<ii", -1, 0)
    ),
    "text for a number": _exif((0x11A, 2, 4, b"72d\0")),
    "a float for a width": _exif((0x100, 11, 1, struct.pack("<f", 1e30))),
    "a place beyond the end": _exif((0x8769, 4, 1, struct.pack("<I", 10**9))),
    "a kind that is none": _exif((0x110, 99, 1, bytes(4))),
    "more than there is": _exif((0x927C, 7, 10**6, struct.pack("<I", 8))),
    "cut short": _exif()[:20],
    "another order": b"Exif\0\0MM\0*" + bytes(9),
    "nothing": b"Exif\0\0",
    "noise": b"Exif\0\0" + bytes(range(256)),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("suffix", ["jpeg", "png", "webp"])
@pytest.mark.parametrize("kind", _DAMAGED_EXIF)
def test_damaged_exif_refuses_no_picture(kind, suffix):
    image = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    )
    plain = _pixels(_file(image, suffix), None)
    decoded = _pixels(_file(image, suffix, exif=_DAMAGED_EXIF[kind]), None)
    upright = plain, np.rot90(plain, -1)  # where the orientation can still be read
    assert any(np.array_equal(decoded, expected) for expected in upright)


@pytest.mark.parametrize("turn", range(1, 9))
def test_every_orientation_is_undone(turn):
    image = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    exif = Image.Exif()
    exif[0x0112] = turn
    decoded = _pixels(_file(image, exif=exif), None)[..., 0].tolist()
    a, b = [[0, 1, 2], [3, 4, 5]], [[0, 3], [1, 4], [2, 5]]
    flipped = [row[::-1] for row in a], a[::-1], [row[::-1] for row in a[::-1]]
    turned = b, [row[::-1] for row in b], [row[::-1] for row in b[::-1]], b[::-1]
    expected = (a, flipped[0], flipped[2], flipped[1], *turned)[turn - 1]
    assert decoded == expected


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"tIME", b"eXIf"])
def test_damage_of_what_png_says_besides_refuses_no_picture(kind):
    image = _colour(9, 50, 200)
    content = _file(image).getvalue()
    body = kind + b"\0\xff" * 9
    chunk = struct.pack(">I", len(body) - 4) + body + b"nono"  # no checksum of it
    file = io.BytesIO(content[:33] + chunk + content[33:])
    assert (_pixels(file, None) == [9, 50, 200]).all()


@pytest.mark.parametrize("marker", [0xE1, 0xE2, 0xED, 0xFE])
def test_damage_of_what_jpeg_says_besides_refuses_no_picture(marker):
    content = _file(_colour(90, 90, 90), "jpeg").getvalue()
    names = {0xE1: b"Exif\0\0", 0xE2: b"MPF\0", 0xED: b"Photoshop 3.0\0"}
    body = names.get(marker, b"") + b"\xff\x00" * 20
    segment = bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body
    file = io.BytesIO(content[:2] + segment + content[2:])
    assert (abs(_pixels(file, None).astype(int) - 90) < 3).all()


@pytest.mark.parametrize("size", [(3000, 8), (8, 3000), (5000, 1), (1, 1), (2, 9000)])
@pytest.mark.parametrize("fit", ["pad", "crop", "stretch"])
def test_no_shape_is_rounded_away(size, fit):
    file = _file(Image.new("L", size, 200))
    pixels, remarks, _ = pictures.decode(file, 64, fit)
    assert pixels.shape == (64, 64, 1)
    assert pixels.max() == 200
    long = max(size) > 16 * min(size)
    assert long == any("16 times" in remark for remark in remarks)


def _transparent():
    image = Image.new("RGBA", (8, 8), (255, 255, 255, 0))
    image.paste((10, 20, 30, 255), (0, 0, 8, 4))
    return image


def _frames():
    frames = [Image.new("L", (9, 9), i) for i in (40, 80)]
    file = io.BytesIO()
    frames[0].save(file, "tiff", save_all=True, append_images=frames[1:])
    file.seek(0)
    return file


@pytest.mark.parametrize(
    ("file", "remark"),
    [
        (lambda: _file(_transparent()), "transparent"),
        (lambda: _file(_transparent().convert("P")), "transparent"),
        (lambda: _file(_colour(1, 2, 3)), "one colour only"),
        (_frames, "several pictures"),
        (lambda: _file(Image.effect_noise((9, 9), 50)), None),
        (lambda: _file(Image.effect_noise((9, 9), 50).convert("RGBA")), None),
    ],
)
def test_what_is_lost_is_told(file, remark):
    said = pictures.decode(file(), 8).remarks
    assert any(remark in line for line in said) if remark else not said


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.png", True),
        ("a/b.JPEG", True),
        ("x.tif", True),
        ("x.webp", True),
        ("a.h5", False),
        ("a.mpg", False),
        ("a.eps", False),
        ("a.pdf", False),
        ("a.heic", False),
        ("png", False),
        ("a.png.txt", False),
    ],
)
def test_pictures_are_known_by_their_endings(name, expected):
    assert pictures.is_picture(name) == expected


def test_a_program_is_never_started_for_a_picture():
    file = io.BytesIO(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n")
    with pytest.raises(ValueError, match="no picture of a known format"):
        pictures.decode(file, None)
