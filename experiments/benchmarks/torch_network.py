"""Our networks in PyTorch, as its user would write them.

The same layers, loss and weights, so that features, loss and gradients agree; dropout
draws from PyTorch's own generator.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import timing

from camri_jax.training.network import CNN, WhitenedCNN
from camri_jax.training.network import Network as FlaxNetwork

timing.require("torch")
import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

NAMES = {
    nn.Conv2d: "Conv",
    nn.BatchNorm2d: "BatchNorm",
    nn.BatchNorm1d: "BatchNorm",
    nn.Linear: "Dense",
}
"""What flax calls a layer, before its number."""


class Float32(nn.Module):
    """Features are float32 whatever the type of the layers before them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Casts."""
        return x.float()


class Whitening(nn.Module):
    """The convolution that is computed from images; its bias alone is trained."""

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("std", torch.ones(channels, 1, 1))
        self.register_buffer("kernel", torch.zeros(8 * channels, channels, 2, 2))
        self.bias = nn.Parameter(torch.zeros(8 * channels))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Convolves images from 0 to 1."""
        standard = (images - self.mean) / self.std
        return F.conv2d(standard, self.kernel, self.bias)


class Network(nn.Module):
    """Features, and prototypes of the classes; takes `[batch, channel, h, w]`."""

    def __init__(self, classifier: FlaxNetwork, channels: int, size: int):
        super().__init__()
        backbone = classifier.backbone
        if isinstance(backbone, WhitenedCNN):
            layers, width = of_whitened(backbone, channels, size)
        else:
            layers, width = of_cnn(backbone, channels)
        self.layers = nn.Sequential(*layers)
        self.prototypes = nn.Parameter(torch.zeros(width, classifier.num_classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns features `[batch, feature]` of images from 0 to 1."""
        return self.layers(images)


def of_cnn(cnn: CNN, channels: int) -> tuple[list[nn.Module], int]:
    """Returns the layers of `CNN` and the dimension of its features."""
    # flax weighs the past, PyTorch the present.
    momentum = 1 - cnn.batch_norm_momentum
    layers: list[nn.Module] = []
    for i, block in enumerate(cnn.blocks):
        if i > 0:
            layers += [nn.MaxPool2d(2), nn.Dropout(cnn.dropout_rate)]
        for j, group in enumerate(block):
            if j > 0:
                layers.append(nn.BatchNorm2d(channels, 1e-3, momentum))
            for width in group:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    layers += [nn.Linear(channels, cnn.feature_dim), Float32()]
    layers.append(nn.BatchNorm1d(cnn.feature_dim, 1e-3, momentum))
    return layers, cnn.feature_dim


def of_whitened(
    cnn: WhitenedCNN, channels: int, size: int
) -> tuple[list[nn.Module], int]:
    """Returns the layers of `WhitenedCNN` and the dimension of its features."""

    def norm(width: int) -> nn.Module:
        layer = nn.BatchNorm2d(width, 1e-5, 1 - cnn.batch_norm_momentum)
        layer.weight.requires_grad_(False)
        return layer

    def convolution(width: int) -> nn.Module:
        return nn.Conv2d(channels, width, 3, padding=1, bias=False)

    def gelu() -> nn.Module:
        return nn.GELU(approximate="tanh")

    layers: list[nn.Module] = [Whitening(channels), gelu()]
    channels *= 8
    for i in range(max(2, round(math.log2(size)) - 2)):
        width = cnn.widths[min(i, len(cnn.widths) - 1)]
        layers += [convolution(width), nn.MaxPool2d(2), norm(width), gelu()]
        channels = width
        layers += [convolution(width), norm(width), gelu()]
    return [*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), Float32()], channels


def camri_loss(
    features: torch.Tensor,
    prototypes: torch.Tensor,
    labels: torch.Tensor,
    margins: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    """Returns the mean CAMRI loss, in the words of ArcFace implementations."""
    cosines = F.normalize(features) @ F.normalize(prototypes, dim=0)
    true = cosines.gather(1, labels[:, None])
    angle = torch.acos(true.clamp(-1 + 1e-7, 1 - 1e-7))
    widened = torch.cos(angle + margins[labels][:, None])
    return F.cross_entropy(scale * cosines.scatter(1, labels[:, None], widened), labels)


def correspondence(
    network: Network,
) -> Iterator[tuple[tuple[str, ...], torch.Tensor, tuple[int, ...]]]:
    """Yields flax's name of each parameter, the parameter, and its axes in flax."""
    counts = dict.fromkeys(NAMES.values(), 0)
    for layer in network.layers:
        if isinstance(layer, Whitening):
            yield ("backbone", "whitening", "bias"), layer.bias, (0,)
        if type(layer) not in NAMES:
            continue
        kind = NAMES[type(layer)]
        name = f"{kind}_{counts[kind]}"
        counts[kind] += 1
        weight = {"Conv": "kernel", "Dense": "kernel", "BatchNorm": "scale"}[kind]
        axes = {"Conv": (2, 3, 1, 0), "Dense": (1, 0), "BatchNorm": (0,)}[kind]
        if layer.weight.requires_grad:
            yield ("backbone", name, weight), layer.weight, axes
        if layer.bias is not None:
            yield ("backbone", name, "bias"), layer.bias, (0,)
    yield ("classes", "prototypes"), network.prototypes, (0, 1)


def twin(
    classifier: FlaxNetwork, variables: Mapping[str, Any], shape: tuple[int, int, int]
) -> Network:
    """Returns the network with flax's weights, for images `[h, w, channel]`."""
    network = Network(classifier, shape[2], min(shape[:2]))
    values = leaves(variables["params"])
    for name, parameter, axes in correspondence(network):
        value = values.pop(name).transpose(np.argsort(axes))
        parameter.data.copy_(torch.from_numpy(np.ascontiguousarray(value)))
    if values:
        raise ValueError(f"PyTorch's network has no {', '.join(map(str, values))}")
    for (*_, name), value in leaves(variables.get("constants", {})).items():
        whitening = network.layers[0]
        moved = value.transpose(3, 2, 0, 1) if name == "kernel" else value
        buffer = whitening.get_buffer(name)
        buffer.copy_(torch.from_numpy(moved.reshape(buffer.shape).copy()))
    return network


def leaves(tree: Any) -> dict[tuple[str, ...], np.ndarray]:
    """Returns the arrays of a tree of flax's by the names that lead to each."""
    found, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {tuple(k.key for k in path): np.array(value) for path, value in found}


def gradients(network: Network) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
    """Yields the gradient of each parameter as flax lays it out."""
    for name, parameter, axes in correspondence(network):
        assert parameter.grad is not None
        yield name, parameter.grad.permute(axes).cpu().numpy()
