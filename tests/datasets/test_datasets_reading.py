"""A picture is one picture, by its path or opened."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps
from test_datasets_pictures import _DAMAGED_EXIF
from tiny_datasets import picture, pixels, write

from camri_jax.datasets import DatasetError
from camri_jax.datasets.reading import read_images


def _turned(path, turn, size=(10, 8)):
    image = Image.fromarray(pixels(turn, size[1], size[0], 3))
    exif = Image.Exif()
    exif[0x0112] = turn
    image.save(path, exif=exif)
    return path


def _open(path):
    return Image.open(io.BytesIO(path.read_bytes()))


def _opened(path):
    """The picture of a file before and after it is decoded, and as a program's own."""
    decoded = _open(path)
    decoded.load()
    return [_open(path), decoded, _open(path).convert("RGB")]


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_an_opened_picture_is_held_like_its_file(tmp_path, suffix, turn):
    path = _turned(tmp_path / f"phone.{suffix}", turn)
    (expected,) = read_images([path], (8, 8, 3))
    upright = ImageOps.exif_transpose(_open(path))
    for image in read_images([*_opened(path), upright], (8, 8, 3)):
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_large_photograph_is_decoded_as_its_file_is(tmp_path, turn):
    path = _turned(tmp_path / "phone.jpg", turn, (300, 200))
    image = _open(path)
    by_path, opened = read_images([path, image], (16, 16, 3), "pad")
    np.testing.assert_array_equal(opened, by_path)
    # Which leaves it as it was.
    np.testing.assert_array_equal(np.asarray(image), np.asarray(_open(path)))


def test_what_pillow_finds_large_is_read_or_refused_in_words(tmp_path, monkeypatch):
    """Pillow warns of more than its limit, and refuses twice as much."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    path = write(tmp_path / "a.png", picture(0, (8, 8)))
    assert read_images([path], (8, 8, 3)).shape == (1, 8, 8, 3)
    write(path, picture(0, (20, 10)))
    message = "its 200 pixels are more than .* that are read: save it smaller$"
    with pytest.raises(DatasetError, match=message):
        read_images([path], (8, 8, 3))


def test_what_is_changed_of_an_opened_picture_counts(tmp_path):
    path = write(tmp_path / "a.jpg", picture(0, (8, 8), suffix="jpg"))
    image = Image.open(path)
    image.paste("black", (0, 0, 8, 8))
    assert not read_images([image], (8, 8, 3)).any()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("suffix", ["jpeg", "png", "webp"])
@pytest.mark.parametrize("kind", _DAMAGED_EXIF)
def test_damaged_exif_refuses_no_opened_picture(kind, suffix, tmp_path):
    path = tmp_path / f"damaged.{suffix}"
    Image.fromarray(pixels(0, 6, 9, 3)).save(path, exif=_DAMAGED_EXIF[kind])
    expected, *found = read_images([path, *_opened(path)], (9, 9, 3))
    for image in found:
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("turn", [0, 9, 2**40, -1, "6", (6, 6)])
def test_an_orientation_that_is_none_turns_nothing(turn):
    image = Image.fromarray(pixels(0, 8, 8, 3))
    image.getexif()[0x0112] = turn
    np.testing.assert_array_equal(read_images([image], (8, 8, 3))[0], image)


@pytest.mark.parametrize("mode", ["CMYK", "HSV", "YCbCr", "RGBA", "LA", "P", "1"])
def test_a_picture_made_in_memory_may_have_any_mode(mode):
    image = Image.new("RGB", (8, 8), "white").convert(mode)
    assert (read_images([image], (8, 8, 3)) == 255).all()


def test_a_closed_picture_is_named(tmp_path):
    path = write(tmp_path / "a.jpg", picture(0, suffix="jpg"))
    with Image.open(path) as image:
        pass
    with pytest.raises(DatasetError, match=r"images\[0\] cannot be read as a picture"):
        read_images([image], (8, 8, 3))
