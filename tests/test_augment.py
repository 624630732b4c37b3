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


def _images(seed, shape=(6, 5, 7, 3), dtype=np.uint8):
    # No zeros: what is black in the output is padding.
    return np.random.default_rng(seed).integers(1, 256, shape).astype(dtype)


def _windows(image, pad, flip):
    """Every window that one image may become, written as loops."""
    height, width, _ = image.shape
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    for top in range(2 * pad + 1):
        for left in range(2 * pad + 1):
            window = padded[top : top + height, left : left + width]
            yield window
            if flip:
                yield window[:, ::-1]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(0, 3), st.booleans())
def test_each_output_is_a_window_of_the_padded_input(seed, pad, flip):
    images = _images(seed)
    augmented = augment(jax.random.key(seed), jnp.asarray(images), pad=pad, flip=flip)
    for image, output in zip(images, np.asarray(augmented), strict=True):
        assert any(np.array_equal(output, w) for w in _windows(image, pad, flip))


@pytest.mark.parametrize("flip", [False, True])
def test_every_window_occurs(flip):
    image = _images(0, (1, 4, 4, 1))
    images = jnp.asarray(np.repeat(image, 2000, axis=0))
    augmented = augment(jax.random.key(0), images, pad=1, flip=flip)
    seen = {output.tobytes() for output in np.asarray(augmented)}
    assert seen == {window.tobytes() for window in _windows(image[0], 1, flip)}


def test_no_padding_and_no_flip_is_the_identity():
    images = jnp.asarray(_images(1))
    chex.assert_trees_all_equal(augment(jax.random.key(3), images, pad=0), images)


def test_half_of_the_images_are_mirrored():
    images = jnp.asarray(np.repeat(_images(2, (1, 4, 4, 1)), 4000, axis=0))
    augmented = augment(jax.random.key(0), images, pad=0, flip=True)
    mirrored = (augmented != images).any(axis=(1, 2, 3)).mean()
    assert 0.45 < float(mirrored) < 0.55


def test_same_key_same_output_and_other_key_other_output():
    images = jnp.asarray(_images(3))
    function = functools.partial(augment, images=images, pad=2, flip=True)
    once, again = function(jax.random.key(0)), function(jax.random.key(0))
    chex.assert_trees_all_equal(once, again)
    assert not jnp.array_equal(once, function(jax.random.key(1)))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float16, jnp.bfloat16])
def test_dtype_and_shape_stay(dtype):
    images = jnp.asarray(_images(4, dtype=dtype))
    augmented = augment(jax.random.key(0), images, pad=2, flip=True)
    assert augmented.dtype == images.dtype
    assert augmented.shape == images.shape


def test_vmap_over_trials_equals_each_trial_alone():
    images = jnp.asarray(_images(5, (3, 4, 8, 8, 3)))
    keys = jax.random.split(jax.random.key(0), 3)
    function = functools.partial(augment, pad=2, flip=True)
    lifted = jax.jit(jax.vmap(function))(keys, images)
    for trial in range(3):
        chex.assert_trees_all_equal(lifted[trial], function(keys[trial], images[trial]))


@pytest.mark.parametrize(
    ("shape", "pad", "message"),
    [((2, 8, 8), 4, "four|must be"), ((2, 8, 8, 3), -1, "pad is -1")],
)
def test_bad_arguments_are_named(shape, pad, message):
    with pytest.raises(ValueError, match=message):
        augment(jax.random.key(0), jnp.ones(shape), pad=pad)
