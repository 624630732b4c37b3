"""Augmentation on the device: random crops of padded images, and mirror images."""

import jax
import jax.numpy as jnp


def augment(
    key: jax.Array, images: jax.Array, *, pad: int = 4, flip: bool = False
) -> jax.Array:
    """Shifts each image at random, and mirrors half of them.

    Each image is padded with zeros (black) on all sides and cut back to its size at a
    place of its own, uniform over the `(2 pad + 1)^2` that there are.

    Args:
      key: from `jax.random.key`.
      images: `[batch, height, width, channels]` of any dtype.
      pad: pixels on each side, static; 0 leaves images in place.
      flip: whether half of the images, at random, are mirrored left to right, static.
        Leave it off where left and right mean something, as on signs and digits.

    Returns:
      Images of the same shape and dtype.

    Raises:
      ValueError: `images` has not four axes, or `pad` is negative.

    Example:
      >>> images = jnp.ones([8, 32, 32, 3], jnp.uint8)
      >>> augmented = augment(jax.random.key(0), images, pad=4, flip=True)
      >>> augmented.shape, augmented.dtype
      ((8, 32, 32, 3), dtype('uint8'))
    """
    if images.ndim != 4:
        raise ValueError(
            f"images has shape {images.shape}; it must be [batch, height, width, "
            "channels]"
        )
    if pad < 0:
        raise ValueError(f"pad is {pad}; it must be 0 or more pixels")
    batch, height, width, _ = images.shape
    shift_key, flip_key = jax.random.split(key)
    shifts = jax.random.randint(shift_key, (batch, 2, 1), -pad, pad + 1)
    rows = jnp.arange(height)[None] + shifts[:, 0]
    columns = jnp.arange(width)[None] + shifts[:, 1]
    if flip:
        mirrored = jax.random.bernoulli(flip_key, shape=(batch, 1))
        columns = jnp.where(mirrored, columns[:, ::-1], columns)
    # Gathers, for a slice per example is 20 times slower inside a scan on a CPU. What
    # the clipped indices fetch from the edge is blackened below.
    cropped = jnp.take_along_axis(images, rows[:, :, None, None], 1, mode="clip")
    cropped = jnp.take_along_axis(cropped, columns[:, None, :, None], 2, mode="clip")
    row_inside = (rows >= 0) & (rows < height)
    column_inside = (columns >= 0) & (columns < width)
    inside = row_inside[:, :, None, None] & column_inside[:, None, :, None]
    return jnp.where(inside, cropped, jnp.zeros((), images.dtype))
