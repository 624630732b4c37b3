"""Laws of the augmentation."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camri_jax.training.augment import augment

FILLS = {"black": {}, "reflect": {"mode": "reflect"}}


def _images(seed, shape=(6, 5, 7, 3), dtype=np.uint8):
    # No zeros: what is black in the output is padding.
    return np.random.default_rng(seed).integers(1, 256, shape).astype(dtype)


def _windows(image, shift, fill, flip):
    """Every window that one image may become, written as loops."""
    height, width, _ = image.shape
    around = ((shift, shift), (shift, shift), (0, 0))
    padded = np.pad(image, around, **FILLS[fill])
    for top in range(2 * shift + 1):
        for left in range(2 * shift + 1):
            window = padded[top : top + height, left : left + width]
            yield window
            if flip:
                yield window[:, ::-1]


fills = pytest.mark.parametrize("fill", FILLS)
flips = pytest.mark.parametrize("flip", ["none", "random", "alternating"])


@fills
@flips
@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**31 - 1), st.sampled_from([0, 1, 4]), st.integers(0, 9))
def test_each_output_is_a_window_of_the_padded_input(fill, flip, seed, shift, epoch):
    images = _images(seed)
    augmented = augment(
        jax.random.key(seed),
        epoch,
        jnp.arange(6),
        jnp.asarray(images),
        shift=shift,
        fill=fill,
        flip=flip,
    )
    for image, output in zip(images, np.asarray(augmented), strict=True):
        windows = _windows(image, shift, fill, flip != "none")
        assert any(np.array_equal(output, window) for window in windows)


@fills
@flips
def test_every_window_occurs(fill, flip):
    image = _images(0, (1, 4, 4, 1))
    images = jnp.asarray(np.repeat(image, 2000, axis=0))
    index = jnp.arange(2000)
    augmented = augment(
        jax.random.key(0), 3, index, images, shift=1, fill=fill, flip=flip
    )
    seen = {output.tobytes() for output in np.asarray(augmented)}
    expected = _windows(image[0], 1, fill, flip != "none")
    assert seen == {window.tobytes() for window in expected}


def test_no_shift_and_no_flip_is_the_identity():
    images, index = jnp.asarray(_images(1)), jnp.arange(6)
    unchanged = augment(jax.random.key(3), 1, index, images, shift=0)
    chex.assert_trees_all_equal(unchanged, images)


def _mirrored(flip, epochs):
    """Which of 4,000 images are mirrored in each epoch."""
    images = jnp.asarray(np.repeat(_images(2, (1, 4, 4, 1)), 4000, axis=0))
    return [
        (
            augment(
                jax.random.key(0), epoch, jnp.arange(4000), images, shift=0, flip=flip
            )
            != images
        ).any(axis=(1, 2, 3))
        for epoch in epochs
    ]


def test_alternating_flips_show_half_of_the_images_mirrored_and_the_next_epoch_others():
    first, second, third = _mirrored("alternating", [0, 1, 2])
    assert 0.45 < float(first.mean()) < 0.55
    chex.assert_trees_all_equal(second, ~first)
    chex.assert_trees_all_equal(third, first)


def test_random_flips_are_drawn_anew_in_every_epoch():
    first, second = _mirrored("random", [0, 1])
    for among in (first, first & second, first & ~second):
        expected = 0.5 if among is first else 0.25
        assert abs(float(among.mean()) - expected) < 0.04


_all = functools.partial(augment, shift=2, fill="reflect", flip="alternating")


def test_an_image_is_augmented_alike_in_whatever_batch_it_comes():
    images, key = jnp.asarray(_images(6, (9, 5, 7, 3))), jax.random.key(0)
    whole = _all(key, 4, jnp.arange(9), images)
    order = jax.random.permutation(jax.random.key(1), 9)[:5]
    chex.assert_trees_all_equal(_all(key, 4, order, images[order]), whole[order])


def test_key_epoch_and_index_each_change_the_output():
    images, index = jnp.asarray(_images(3)), jnp.arange(6)
    once = _all(jax.random.key(0), 0, index, images)
    chex.assert_trees_all_equal(once, _all(jax.random.key(0), 0, index, images))
    for seed, epoch, start in ((1, 0, 0), (0, 2, 0), (0, 0, 6)):
        other = _all(jax.random.key(seed), epoch, index + start, images)
        assert not jnp.array_equal(once, other)


@fills
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float16, jnp.bfloat16])
def test_dtype_and_shape_stay(fill, dtype):
    images = jnp.asarray(_images(4, dtype=dtype))
    augmented = _all(jax.random.key(0), 1, jnp.arange(6), images, fill=fill)
    assert augmented.dtype == images.dtype
    assert augmented.shape == images.shape


def test_vmap_over_trials_equals_each_trial_alone():
    images = jnp.asarray(_images(5, (3, 4, 8, 8, 3)))
    index, keys = jnp.arange(12).reshape(3, 4), jax.random.split(jax.random.key(0), 3)
    lifted = jax.jit(jax.vmap(_all, (0, None, 0, 0)))(keys, jnp.int32(1), index, images)
    for i in range(3):
        alone = _all(keys[i], jnp.int32(1), index[i], images[i])
        chex.assert_trees_all_equal(lifted[i], alone)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((2, 8, 8), {"shift": 4}, "images has shape"),
        ((2, 8, 8, 3), {"shift": -1}, "shift is -1"),
        ((2, 8, 8, 3), {"shift": 8, "fill": "reflect"}, "at most 7"),
        (
            (2, 8, 8, 3),
            {"shift": 1, "fill": "white"},
            "black, reflect, got 'white'",
        ),
        (
            (2, 8, 8, 3),
            {"shift": 1, "flip": "often"},
            "alternating, got 'often'",
        ),
    ],
)
def test_bad_arguments_are_named(shape, options, message):
    with pytest.raises(ValueError, match=message):
        augment(jax.random.key(0), 0, jnp.arange(2), jnp.ones(shape), **options)
