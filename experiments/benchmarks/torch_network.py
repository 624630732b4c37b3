"""`camri_jax.training.network.CNN` in PyTorch, as its user would write and train it.

The same layers, loss and weights, so that features, loss and gradients agree; dropout
draws from PyTorch's own generator.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import timing

from camri_jax.training.network import CNN

timing.require("torch")
import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402


class Network(nn.Module):
    """Features and prototypes; takes images as `[batch, channel, height, width]`."""

    def __init__(self, cnn: CNN, channels: int, dropout_rate: float):
        super().__init__()
        # flax weighs the past, PyTorch the present.
        momentum = 1 - cnn.batch_norm_momentum
        layers: list[nn.Module] = []
        for i, block in enumerate(cnn.blocks):
            if i > 0:
                layers += [nn.MaxPool2d(2), nn.Dropout(dropout_rate)]
            for j, group in enumerate(block):
                if j > 0:
                    layers.append(nn.BatchNorm2d(channels, 1e-3, momentum))
                for width in group:
                    layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                    channels = width
        self.layers = nn.Sequential(*layers)
        self.dense = nn.Linear(channels, cnn.feature_dim)
        self.norm = nn.BatchNorm1d(cnn.feature_dim, 1e-3, momentum)
        shape = (cnn.feature_dim, cnn.num_classes)
        self.prototypes = nn.Parameter(torch.zeros(shape))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns features `[batch, feature]` of images from 0 to 1."""
        pooled = self.layers(images).mean((2, 3))
        return self.norm(self.dense(pooled).float())


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
) -> Iterator[tuple[tuple[str, str], torch.Tensor, tuple[int, ...]]]:
    """Yields flax's name of each parameter, the parameter, and its axes in flax."""
    counts = {"Conv": 0, "BatchNorm": 0}
    for layer in [*network.layers, network.norm]:
        if not isinstance(layer, nn.Conv2d | nn.BatchNorm2d | nn.BatchNorm1d):
            continue
        kind = "Conv" if isinstance(layer, nn.Conv2d) else "BatchNorm"
        name = f"{kind}_{counts[kind]}"
        counts[kind] += 1
        weight, axes = ("kernel", (2, 3, 1, 0)) if kind == "Conv" else ("scale", (0,))
        assert layer.bias is not None
        yield (name, weight), layer.weight, axes
        yield (name, "bias"), layer.bias, (0,)
    yield ("Dense_0", "kernel"), network.dense.weight, (1, 0)
    yield ("Dense_0", "bias"), network.dense.bias, (0,)
    yield ("Head_0", "prototypes"), network.prototypes, (0, 1)


def load(network: Network, params: Mapping[str, Any]) -> None:
    """Copies flax's parameters into the network."""
    for (module, name), parameter, axes in correspondence(network):
        value = np.array(params[module][name]).transpose(np.argsort(axes))
        parameter.data.copy_(torch.from_numpy(np.ascontiguousarray(value)))


def gradients(network: Network) -> Iterator[tuple[tuple[str, str], np.ndarray]]:
    """Yields the gradient of each parameter as flax lays it out."""
    for name, parameter, axes in correspondence(network):
        assert parameter.grad is not None
        yield name, parameter.grad.permute(axes).cpu().numpy()
