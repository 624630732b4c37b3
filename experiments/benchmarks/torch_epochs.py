"""The ways to train the network of `torch_network` in PyTorch."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch_network import Network, camri_loss

from camri_jax.training.methods import Hyperparameters
from camri_jax.training.network import CNN

Step = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Data = tuple[torch.Tensor, torch.Tensor]


class Variant(NamedTuple):
    """How PyTorch runs the network."""

    channels_last: bool = False
    bfloat16: bool = False
    compiled: bool = False
    graphs: bool = False


def variants_of(device: torch.device, compiled: bool) -> dict[str, Variant]:
    """Returns the variants that a device has, by name; compiled ones if asked for."""
    variants = {
        "eager": Variant(),
        "channels_last": Variant(channels_last=True),
        "bf16": Variant(channels_last=True, bfloat16=True),
    }
    if device.type == "cuda":
        variants["graphs"] = Variant(graphs=True)
        variants["graphs, bf16"] = Variant(True, True, graphs=True)
    if compiled:
        variants["compiled"] = Variant(compiled=True)
        variants["compiled, bf16"] = Variant(True, True, compiled=True)
    if compiled and device.type == "cuda":
        variants["compiled, bf16, graphs"] = Variant(True, True, True, True)
    return variants


def trained(
    cnn: CNN,
    hyperparameters: Hyperparameters,
    data: Data,
    batch_size: int,
    variant: Variant,
) -> Callable[[], None]:
    """Returns a function that trains a new network for one more epoch.

    Args:
      cnn: the network's twin.
      hyperparameters: of CAMRI.
      data: uint8 images `[image, channel, height, width]` and labels, on the device.
      batch_size: images a step.
      variant: how.
    """
    images, labels = data
    network = Network(cnn, images.shape[1], cnn.dropout_rate)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            torch.nn.init.xavier_uniform_(parameter)
    margins = torch.from_numpy(np.array(hyperparameters["margins"])).to(images.device)
    scale = float(hyperparameters["scale"])
    step = step_of(network, margins, scale, variant)
    if variant.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    if variant.graphs:
        step = _captured(step, images[:batch_size], labels[:batch_size])
    number = len(labels) // batch_size

    def epoch() -> None:
        order = torch.randperm(len(labels), device=labels.device)
        for index in order[: number * batch_size].split(batch_size):
            step(images[index], labels[index])
        if images.is_cuda:
            torch.cuda.synchronize()

    return epoch


def step_of(
    network: Network, margins: torch.Tensor, scale: float, variant: Variant
) -> Step:
    """Returns a function that takes one step of Adam on a batch of uint8 images."""
    device = margins.device
    network.to(device)
    if variant.channels_last:
        for parameter in network.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(
        network.parameters(), lr=1e-3, eps=1e-7, capturable=variant.graphs
    )

    def loss_of(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        x = images.float() / 255
        with torch.autocast(device.type, torch.bfloat16, enabled=variant.bfloat16):
            features = network(x)
        return camri_loss(features, network.prototypes, labels, margins, scale)

    objective = torch.compile(loss_of) if variant.compiled else loss_of

    def step(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad(set_to_none=not variant.graphs)
        loss = objective(images, labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def _captured(step: Step, images: torch.Tensor, labels: torch.Tensor) -> Step:
    """Records a step as a CUDA graph, which is then replayed."""
    images, labels = images.clone(memory_format=torch.preserve_format), labels.clone()
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            step(images, labels)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step(images, labels)

    def replay(new_images: torch.Tensor, new_labels: torch.Tensor) -> torch.Tensor:
        images.copy_(new_images)
        labels.copy_(new_labels)
        graph.replay()
        return loss

    return replay
