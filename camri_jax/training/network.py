"""Convolutional networks, the two heads, and how a convolution is computed.

The only module that knows flax. A network maps images to features, or hands features on
that another network has made; the head owns the prototypes (and, for logit losses, the
biases) that the loss compares them with.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from camri_jax import _arrays
from camri_jax._files import UsageError
from camri_jax.training.methods import HeadKind

Convolution = Literal["patches", "lax", "mixed"]

_PIXELS = 5 * 2**20
"""Pixels that a whitening measures: 5,120 images of 32x32."""


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

    Args:
      lhs: images `[batch, height, width, channel]`.
      rhs: kernel `[height, width, channel, output channel]`.
      window_strides: steps of the window along height and width.
      padding: `"SAME"`, `"VALID"` or `((top, bottom), (left, right))`.
      lhs_dilation: not supported beyond 1, as the three below.
      rhs_dilation: see `lhs_dilation`.
      dimension_numbers: assumed to mean NHWC, HWIO, NHWC.
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

    windows = [
        lhs[
            :,
            u : u + down * (rows - 1) + 1 : down,
            v : v + right * (columns - 1) + 1 : right,
        ]
        for u in range(height)
        for v in range(width)
    ]
    return jnp.matmul(jnp.concatenate(windows, -1), matrix, precision=precision)


def _mixed_conv(
    lhs: jax.Array, rhs: jax.Array, *arguments: Any, **options: Any
) -> jax.Array:
    """Takes patches where an image is no larger than the kernel, else `lax`."""
    # There XLA swaps image and kernel, for which XLA:CPU has slow loops only; a pooling
    # that leaves out a row makes the gradient of an image as large as the kernel so.
    is_small = math.prod(lhs.shape[1:3]) <= math.prod(rhs.shape[:2])
    convolve = patches_conv if is_small else jax.lax.conv_general_dilated
    return convolve(lhs, rhs, *arguments, **options)


_CONVOLUTIONS: dict[Convolution, Callable[..., jax.Array]] = {
    "patches": patches_conv,
    "lax": jax.lax.conv_general_dilated,
    "mixed": _mixed_conv,
}


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
    """Owns the prototypes of the classes and, where linear, their biases.

    The linear head serves the logit losses, the cosine head the angular ones; the
    score itself belongs to the loss.
    """

    num_classes: int
    kind: HeadKind

    @nn.compact
    def __call__(self, features: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        """Returns prototypes `[feature, class]` and biases `[class]` or None."""
        shape = (features.shape[-1], self.num_classes)
        prototypes = self.param("prototypes", nn.initializers.glorot_uniform(), shape)
        if self.kind == "cosine":
            return prototypes, None
        return prototypes, self.param("bias", nn.initializers.zeros, shape[1:])


class Network(nn.Module):
    r"""A network with a head: all that a trial trains.

    .. math::
        z = \mathrm{backbone}(x), \qquad \text{scores} = a\,(z W + b)
        \quad\text{or}\quad \cos(z, W)

    Attributes:
      backbone: module from images `[batch, height, width, channel]`, uint8, and
        `train` to features `[batch, feature]`, float32: one of `NETWORKS`, or your own.
      num_classes: number of classes.
      head: `"linear"` (with biases, for logit losses) or `"cosine"`.
      logit_scale: the a above: what the prototypes and biases of a linear head are
        multiplied by on their way out. A small one slows their training down.

    Example:
      >>> classifier = Network(small(), num_classes=10, head="cosine")
      >>> images = jnp.zeros((2, 8, 8, 1), jnp.uint8)
      >>> variables = classifier.init(jax.random.key(0), images, train=False)
      >>> classifier.apply(variables, images, train=False).prototypes.shape
      (128, 10)
    """

    backbone: nn.Module
    num_classes: int
    head: HeadKind
    logit_scale: float = 1.0

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> Outputs:
        """Embeds `images` `[batch, height, width, channel]`, uint8 in 0..255."""
        features = self.backbone(images, train=train)
        prototypes, bias = Head(self.num_classes, self.head, name="classes")(features)
        if bias is None:
            return Outputs(features, prototypes, None)
        scale = self.logit_scale
        return Outputs(features, scale * prototypes, scale * bias)


class CNN(nn.Module):
    """A plain convolutional network from uint8 images to features.

    Every convolution is 3x3 with bias and ReLU. Blocks are separated by a 2x2
    max-pool and dropout, groups within a block by batch normalization; after the last
    block come global average pooling, a dense layer and batch normalization.

    Attributes:
      blocks: output channels of each convolution, in groups, in blocks.
      feature_dim: dimension of the features.
      dropout_rate: fraction of units dropped after each pooling.
      relu_features: ReLU between the dense layer and the last normalization, as in
        the paper's text; its authors' code, and the default, have none.
      batch_norm_momentum: weight of the past in the running statistics.
      dtype: type of the activations and of the operands of matrix products; the
        weights, the statistics of batch normalization, the global average and what
        comes out are float32.
      convolution: `"patches"` (`patches_conv`, made for `scan` and `vmap`), `"lax"`
        (`jax.lax.conv_general_dilated`) or `"mixed"` (`"lax"`, except for images
        no larger than the kernel).

    Reference:
      Section IV-A2; widths and initializers from the authors' code.

    Example:
      >>> network, images = small(), jnp.zeros((2, 8, 8, 1), jnp.uint8)
      >>> variables = network.init(jax.random.key(0), images, train=False)
      >>> network.apply(variables, images, train=False).shape
      (2, 128)
    """

    blocks: tuple[tuple[tuple[int, ...], ...], ...]
    feature_dim: int
    dropout_rate: float
    batch_norm_momentum: float
    relu_features: bool = False
    dtype: Any = jnp.float32
    convolution: Convolution = "patches"

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Embeds `images` `[batch, height, width, channel]`, uint8 in 0..255."""
        _check_images(images, 2 ** (len(self.blocks) - 1))
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
        return norm(dtype=jnp.float32)(x)


class Whitening(nn.Module):
    """A 2x2 convolution, computed from images instead of trained, that whitens.

    The kernel holds the eigenvectors of the second moments of all 2x2 patches of the
    images, each divided by the root of its eigenvalue, and their negatives: what comes
    out is uncorrelated and of variance 1. It, with the mean and the standard deviation
    of each channel, is computed by `init` from the images that it is given (at most
    about five million pixels of them, evenly spaced), and kept in the collection
    `constants`; only the bias is a parameter.

    Attributes:
      dtype: of the operands of the convolution.
      convolution: as in `CNN`.

    Reference:
      Jordan, arXiv 2404.00498, section 3.2; the 5e-4 from the same.
    """

    dtype: Any = jnp.float32
    convolution: Convolution = "patches"

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps `[batch, h, w, c]` in 0..1 to `[batch, h - 1, w - 1, 8 c]`."""
        some = slice(None)
        if self.is_initializing():  # elsewhere the number of images may be a symbol
            count = max(1, _PIXELS // (images.shape[1] * images.shape[2]))
            some = slice(None, None, -(-len(images) // count))
        measured = images[some]

        def spread() -> jax.Array:
            # A channel that is the same everywhere would be divided by nothing.
            return jnp.maximum(measured.std((0, 1, 2)), 1e-3)

        mean = self.variable("constants", "mean", measured.mean, (0, 1, 2))
        std = self.variable("constants", "std", spread)
        standard = (images - mean.value[None, None, None]) / std.value[None, None, None]
        kernel = self.variable(
            "constants", "kernel", lambda: _whitening_kernel(standard[some])
        )
        bias = self.param("bias", nn.initializers.zeros, kernel.value.shape[-1:])
        x = _CONVOLUTIONS[self.convolution](
            standard.astype(self.dtype),
            kernel.value.astype(self.dtype),
            (1, 1),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return x + bias.astype(self.dtype)[None, None, None]


def _whitening_kernel(images: jax.Array) -> jax.Array:
    """Returns `[2, 2, channel, 8 channel]`, from images of mean 0, variance 1."""
    height, width, channels = images.shape[1:]
    patches = jnp.concatenate(
        [
            images[:, u : height - 1 + u, v : width - 1 + v]
            for u in (0, 1)
            for v in (0, 1)
        ],
        axis=-1,
    ).reshape(-1, 4 * channels)
    moments = jnp.matmul(patches.T, patches, precision="highest") / len(patches)
    values, vectors = jnp.linalg.eigh(moments)
    kernel = (vectors / jnp.sqrt(values + 5e-4)[None]).reshape(2, 2, channels, -1)
    return jnp.concatenate([kernel, -kernel], axis=-1)


def _dirac(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """Starts a convolution as the identity, as far as it has inputs and outputs.

    What outputs it has beyond its inputs start at random, uniform within
    1/sqrt(fan in).
    """
    height, width, inputs, outputs = shape
    same = min(inputs, outputs)
    uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    diagonal = jnp.arange(same)
    # Not `:same`: where that is all, JAX indexes with an empty constant, on which
    # jaxlib 0.11.2 (not 0.11.1, not 0.12.0.1) crashes in a shard_map over two devices.
    kernel = uniform(key, tuple(shape), dtype).at[..., diagonal].set(0.0)
    return kernel.at[height // 2, width // 2, diagonal, diagonal].set(1.0)


class WhitenedCNN(nn.Module):
    """A convolutional network that trains to 90 % on CIFAR-10 in a few epochs.

    `Whitening`, GELU, then blocks of [3x3 convolution, 2x2 max-pool, batch
    normalization, GELU, 3x3 convolution, batch normalization, GELU], then the maximum
    over all places. Convolutions have no bias and start as the identity, the
    normalizations have no scale. There are as many blocks as leave 2 to 5 pixels of
    images of 24 and more, and at least two.

    Give `init` some 5,000 training images, since it whitens by them (`Whitening`).

    Attributes:
      widths: output channels of each block; the last serves all blocks beyond.
      feature_dim: dimension of the features, made by a dense layer and a normalization
        after the maximum; `None` for the last width, without these.
      batch_norm_momentum: weight of the past in the running statistics.
      dtype: as in `CNN`.
      convolution: as in `CNN`.

    Reference:
      Jordan, arXiv 2404.00498.

    Example:
      >>> network, images = fast(), jnp.zeros((2, 32, 32, 3), jnp.uint8)
      >>> variables = network.init(jax.random.key(0), images, train=False)
      >>> network.apply(variables, images, train=False).shape
      (2, 128)
    """

    widths: tuple[int, ...]
    feature_dim: int | None = None
    batch_norm_momentum: float = 0.6
    dtype: Any = jnp.float32
    convolution: Convolution = "patches"

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Embeds `images` `[batch, height, width, channel]`, uint8 in 0..255."""
        _check_images(images, 5)
        norm = functools.partial(
            nn.BatchNorm,
            use_running_average=not train,
            momentum=self.batch_norm_momentum,
            epsilon=1e-5,
            use_scale=False,
            dtype=self.dtype,
        )
        conv = functools.partial(
            nn.Conv,
            kernel_size=(3, 3),
            use_bias=False,
            kernel_init=_dirac,
            dtype=self.dtype,
            conv_general_dilated=_CONVOLUTIONS[self.convolution],
        )
        whitening = Whitening(self.dtype, self.convolution, name="whitening")
        x = nn.gelu(whitening(images.astype(jnp.float32) / 255.0))
        blocks = max(2, round(math.log2(min(images.shape[1:3]))) - 2)
        for i in range(blocks):
            width = self.widths[min(i, len(self.widths) - 1)]
            x = nn.gelu(norm()(max_pool(conv(width)(x))))
            x = nn.gelu(norm()(conv(width)(x)))
        x = x.max((1, 2))
        if self.feature_dim is not None:
            x = nn.Dense(self.feature_dim, use_bias=False, dtype=self.dtype)(x)
            x = norm(dtype=jnp.float32)(x)
        return x.astype(jnp.float32)


class Standardization(nn.Module):
    r"""The network of a head: features as they come, about their mean, in one unit.

    .. math::
        z = (x - \mu) / \sigma, \qquad \sigma^2 = \frac{1}{D} \sum_j \mathrm{var}(x_j)

    with the mean of each feature and the mean of their variances over those that `init`
    is given, kept in the collection `constants`; nothing is trained. Features keep
    their relations: those of a network that vary little have little to say. Features in
    different units should be standardized one by one first.

    Example:
      >>> features = jnp.array([[3.0, 7.0, 7.0, 7.0], [11.0, 7.0, 7.0, 7.0]])
      >>> variables = Standardization().init(jax.random.key(0), features, train=False)
      >>> Standardization().apply(variables, features, train=False).tolist()
      [[-2.0, 0.0, 0.0, 0.0], [2.0, 0.0, 0.0, 0.0]]
    """

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool) -> jax.Array:
        """Maps `[batch, feature]` to the same shape, float32 or better."""
        if features.ndim != 2 or not jnp.issubdtype(features.dtype, jnp.floating):
            raise UsageError(
                "features must be floats [batch, feature], got "
                f"{features.dtype} {list(features.shape)}"
            )

        features = features.astype(_arrays.compute_dtype(features))

        def unit() -> jax.Array:
            apart = jnp.abs(features - features.mean(0)[None])
            # A power of two, which divides without rounding: squares of it are floats.
            near = jnp.ldexp(
                jnp.ones((), apart.dtype), jnp.frexp(apart.max(initial=0))[1]
            )
            root = near * jnp.sqrt(jnp.mean((apart / near) ** 2))
            return jnp.where(root > 0, root, 1.0)

        mean = self.variable("constants", "mean", features.mean, 0)
        std = self.variable("constants", "std", unit)
        return (features - mean.value[None]) / std.value


def _features(*, dtype: Any = None, convolution: Any = None) -> nn.Module:
    """The network of a head, which has no activations and no convolutions."""
    del dtype, convolution
    return Standardization()


def _check_images(images: jax.Array, smallest: int) -> None:
    if images.ndim != 4 or min(images.shape[1:3]) < smallest:
        raise UsageError(
            "images must be [batch, height, width, channel] and at least "
            f"{smallest} pixels high and wide, got shape {images.shape}"
        )
    if images.dtype != jnp.uint8:
        raise TypeError(f"images must be uint8 in 0..255, got {images.dtype}")


def param_labels(params: Any) -> Any:
    """Names the part that each parameter plays, for an optimizer to treat it by.

    Args:
      params: of a `Network`.

    Returns:
      The same tree with `"whitening_bias"`, `"norm_bias"` or `"weights"` in place of
      each array.

    Example:
      >>> param_labels({"backbone": {"BatchNorm_0": {"bias": 0.0}}})
      {'backbone': {'BatchNorm_0': {'bias': 'norm_bias'}}}
    """

    def label(path: tuple[Any, ...], _: Any) -> str:
        names = [entry.key for entry in path]
        if names[-1] == "bias" and names[-2] == "whitening":
            return "whitening_bias"
        if names[-1] == "bias" and "Norm" in names[-2]:
            return "norm_bias"
        return "weights"

    return jax.tree_util.tree_map_with_path(label, params)


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

fast = functools.partial(WhitenedCNN, widths=(32, 128, 128))
"""Seven convolutions, 0.5 million parameters; 90 % on CIFAR-10 in about six epochs."""

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "paper": paper,
    "small": small,
    "fast": fast,
    "features": _features,
}
