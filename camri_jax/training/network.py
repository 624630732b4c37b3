"""The convolutional network, its two heads, and how a convolution is computed.

The only module that knows flax. The network maps images to features; a head owns
the prototypes (and, for logit losses, the biases) that the loss compares them with.
"""

import functools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

Convolution = Literal["patches", "lax"]

_TILE = 2**20
"""Bytes of patches that a CPU gathers at a time."""


class Outputs(NamedTuple):
    """What the network says about a batch of images.

    Attributes:
      features: `[batch, feature]` float32, the paper's z.
      prototypes: `[feature, class]` float32, the paper's W.
      bias: `[class]` float32, the paper's b; `None` for the cosine head.
    """

    features: jax.Array
    prototypes: jax.Array
    bias: jax.Array | None


def patches_conv(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    *,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    precision: Any = None,
) -> jax.Array:
    r"""Convolves by one product of image patches with the kernel as a matrix.

    .. math::
        y_{n,i,j,o} = \sum_{u,v,c} x_{n,\,s_1 i + u,\,s_2 j + v,\,c}\; w_{u,v,c,o}

    The same numbers as `jax.lax.conv_general_dilated` on NHWC images and HWIO
    kernels, in a form that XLA:CPU keeps fast inside a loop and that `vmap` over
    kernels turns into a batched matrix product instead of a grouped convolution.
    A CPU takes float32 images a few at a time, so that its caches hold the patches.

    Args:
      lhs: images `[batch, height, width, channel]`.
      rhs: kernel `[height, width, channel, output channel]`.
      window_strides: steps of the window along height and width.
      padding: `"SAME"`, `"VALID"` or `((top, bottom), (left, right))`.
      lhs_dilation: not supported beyond 1, as the three below.
      rhs_dilation: see `lhs_dilation`.
      dimension_numbers: taken for granted to mean NHWC, HWIO, NHWC.
      feature_group_count: see `lhs_dilation`.
      precision: precision of the matrix product.

    Returns:
      `[batch, height', width', output channel]`.

    Raises:
      NotImplementedError: for a dilated or grouped convolution.

    Example:
      >>> images, kernel = jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 5))
      >>> patches_conv(images, kernel, (2, 2), "SAME").shape
      (1, 2, 2, 5)
    """
    del dimension_numbers
    dilation = (*(lhs_dilation or ()), *(rhs_dilation or ()))
    if feature_group_count != 1 or any(d != 1 for d in dilation):
        raise NotImplementedError(
            "patches_conv computes plain convolutions only, got dilation "
            f"{dilation} and feature_group_count {feature_group_count}; use "
            "convolution='lax' for others"
        )
    height, width, channels, outputs = rhs.shape
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(
            lhs.shape[1:3], (height, width), window_strides, padding
        )
    lhs = jnp.pad(lhs, ((0, 0), *padding, (0, 0)))
    down, right = window_strides
    rows = (lhs.shape[1] - height) // down + 1
    columns = (lhs.shape[2] - width) // right + 1
    matrix = rhs.reshape(height * width * channels, outputs)

    def convolve(images: jax.Array) -> jax.Array:
        windows = [
            images[
                :,
                u : u + down * (rows - 1) + 1 : down,
                v : v + right * (columns - 1) + 1 : right,
            ]
            for u in range(height)
            for v in range(width)
        ]
        patches = jnp.concatenate(windows, axis=-1)
        return jnp.matmul(patches, matrix, precision=precision)

    size = rows * columns * matrix.shape[0] * lhs.dtype.itemsize
    in_tiles = jax.default_backend() == "cpu" and lhs.dtype == jnp.float32
    if not in_tiles or len(lhs) * size <= _TILE:
        return convolve(lhs)

    # Gathering patches anew for the gradient is faster than keeping them in memory.
    @jax.checkpoint
    def tile(image: jax.Array) -> jax.Array:
        return convolve(image[None])[0]

    return jax.lax.map(tile, lhs, batch_size=max(1, _TILE // size))


_CONVOLUTIONS = {"patches": patches_conv, "lax": jax.lax.conv_general_dilated}


def max_pool(images: jax.Array) -> jax.Array:
    """Takes the maximum of each 2x2 window, dropping an odd last row or column.

    Written as a maximum over reshaped axes: the gradient is then an elementwise
    mask, where that of `nn.max_pool` is a slow select-and-scatter.

    Args:
      images: `[batch, height, width, channel]`, height and width at least 2.

    Returns:
      `[batch, height // 2, width // 2, channel]`.

    Example:
      >>> max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1))[0, ..., 0].tolist()
      [[5.0, 7.0], [13.0, 15.0]]
    """
    batch, height, width, channels = images.shape
    rows, columns = height // 2, width // 2
    windows = images[:, : 2 * rows, : 2 * columns]
    return windows.reshape(batch, rows, 2, columns, 2, channels).max((2, 4))


class Head(nn.Module):
    """Owns the prototypes of the classes and, with `use_bias`, their biases.

    With biases it is the linear head of the logit losses, without it is the cosine
    head of the angular ones; the score itself belongs to the loss.
    """

    num_classes: int
    use_bias: bool

    @nn.compact
    def __call__(self, features: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        """Returns prototypes `[feature, class]` and biases `[class]` or None."""
        shape = (features.shape[-1], self.num_classes)
        prototypes = self.param("prototypes", nn.initializers.glorot_uniform(), shape)
        if not self.use_bias:
            return prototypes, None
        return prototypes, self.param("bias", nn.initializers.zeros, shape[1:])


class CNN(nn.Module):
    """A plain convolutional network from uint8 images to features and prototypes.

    Every convolution is 3x3 with bias and ReLU. Blocks are separated by a 2x2
    max-pool and dropout, groups within a block by batch normalization; after the last
    block come global average pooling, a dense layer and batch normalization.

    Attributes:
      num_classes: number of classes.
      use_bias: linear head with bias (logit losses) or cosine head without.
      blocks: output channels of each convolution, in groups, in blocks.
      feature_dim: dimension of the features.
      dropout_rate: fraction of units dropped after each pooling.
      relu_features: ReLU between the dense layer and the last normalization, as in
        the paper's text; its authors' code, and the default, have none.
      batch_norm_momentum: weight of the past in the running statistics.
      dtype: type of the activations and of the operands of matrix products; the
        weights, the statistics of batch normalization, the global average and what
        comes out are float32.
      convolution: `"patches"` (`patches_conv`, made for `scan` and
        `vmap`) or `"lax"` (`jax.lax.conv_general_dilated`).

    Reference:
      Section IV-A2; widths and initializers from the authors' code.

    Example:
      >>> model = small(num_classes=10, use_bias=False)
      >>> images = jnp.zeros((2, 8, 8, 1), jnp.uint8)
      >>> variables = model.init(jax.random.key(0), images, train=False)
      >>> model.apply(variables, images, train=False).features.shape
      (2, 128)
    """

    num_classes: int
    use_bias: bool
    blocks: tuple[tuple[tuple[int, ...], ...], ...]
    feature_dim: int
    dropout_rate: float
    batch_norm_momentum: float
    relu_features: bool = False
    dtype: Any = jnp.float32
    convolution: Convolution = "patches"

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> Outputs:
        """Embeds `images` `[batch, height, width, channel]`, uint8 in 0..255."""
        self._check(images)
        norm = functools.partial(
            nn.BatchNorm,
            use_running_average=not train,
            momentum=self.batch_norm_momentum,
            epsilon=1e-3,
            dtype=self.dtype,
        )
        lowering = _CONVOLUTIONS[self.convolution]
        x = (images.astype(jnp.float32) / 255.0).astype(self.dtype)
        for i, block in enumerate(self.blocks):
            if i > 0:
                x = nn.Dropout(self.dropout_rate, deterministic=not train)(max_pool(x))
            for j, group in enumerate(block):
                if j > 0:
                    x = norm()(x)
                for channels in group:
                    x = nn.Conv(
                        channels,
                        (3, 3),
                        kernel_init=nn.initializers.glorot_uniform(),
                        dtype=self.dtype,
                        conv_general_dilated=lowering,
                    )(x)
                    x = nn.relu(x)
        x = x.mean((1, 2), dtype=jnp.float32)
        x = nn.Dense(
            self.feature_dim,
            kernel_init=nn.initializers.he_normal(),
            dtype=self.dtype,
        )(x)
        x = nn.relu(x) if self.relu_features else x
        features = norm(dtype=jnp.float32)(x)
        return Outputs(features, *Head(self.num_classes, self.use_bias)(features))

    def _check(self, images: jax.Array) -> None:
        smallest = 2 ** (len(self.blocks) - 1)
        if images.ndim != 4 or min(images.shape[1:3]) < smallest:
            raise ValueError(
                "images must be [batch, height, width, channel] and at least "
                f"{smallest} pixels high and wide, got shape {images.shape}"
            )
        if images.dtype != jnp.uint8:
            raise TypeError(f"images must be uint8 in 0..255, got {images.dtype}")


paper = functools.partial(
    CNN,
    blocks=(
        ((64, 64), (64,)),
        ((128, 128), (128,)),
        ((256, 256), (256, 256, 256), (512, 512)),
    ),
    feature_dim=512,
    dropout_rate=0.25,
    batch_norm_momentum=0.99,
)
"""The authors' network: 13 convolutions, 6.9 million parameters."""

small = functools.partial(
    CNN,
    blocks=(((32,),), ((64,), (64,)), ((128,), (128,))),
    feature_dim=128,
    dropout_rate=0.25,
    batch_norm_momentum=0.9,
)
"""Five convolutions, 0.3 million parameters, for CPUs and images from 8x8 up."""

PRESETS = {"paper": paper, "small": small}
