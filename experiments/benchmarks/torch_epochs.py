"""The ways to train a network of `torch_network` in PyTorch."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch_network import Network, camri_loss, correspondence, twin

from camri_jax.training.methods import Hyperparameters
from camri_jax.training.optimizer import learning_rate
from camri_jax.training.recipe import Recipe, TrainConfig

Data = tuple[torch.Tensor, torch.Tensor]


class Variant(NamedTuple):
    """How PyTorch runs the network."""

    compiled: bool = False
    bfloat16: bool = False
    graphs: bool = False


def variants_of(device: torch.device, compiled: bool) -> dict[str, Variant]:
    """Returns the variants that a device has, by name; compiled ones if asked for."""
    variants = {"eager": Variant()}
    if compiled:
        variants["compiled"] = Variant(compiled=True)
    if device.type == "cuda":
        variants["eager, bf16"] = Variant(bfloat16=True)
        if compiled:
            variants["compiled, bf16, graphs"] = Variant(True, True, graphs=True)
    return variants


class Trained(NamedTuple):
    """A network in PyTorch and the function that trains it for one more epoch."""

    network: Network
    epoch: Callable[[], None]


def trained(
    config: TrainConfig,
    variables: Mapping[str, Any],
    hyperparameters: Hyperparameters,
    data: Data,
    variant: Variant,
) -> Trained:
    """Returns a new network and how it is trained by the recipe.

    Args:
      config: our own.
      variables: flax's, at the start.
      hyperparameters: of CAMRI.
      data: uint8 images `[image, channel, height, width]` and labels, on the device.
      variant: how.
    """
    images, labels = data
    recipe, (_, channels, height, width) = config.recipe, images.shape
    network = twin(config.network, variables, (height, width, channels))
    network.to(images.device)
    if images.is_cuda:
        network.to(memory_format=torch.channels_last)
    steps = recipe.epochs * config.num_batches
    optimizer = optimizer_of(network, recipe)
    rate = learning_rate(recipe, steps)
    rates = np.float64(jax.vmap(rate)(jnp.arange(steps + 1))) / recipe.learning_rate
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        # Who goes on past the end of the recipe does so at its last rate.
        lambda step: rates[min(step, steps)],
    )
    follow = lookahead(network, recipe, steps)
    margins = torch.from_numpy(np.array(hyperparameters["margins"])).to(images.device)
    scale = float(hyperparameters["scale"])

    def loss_of(batch: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        x = batch.float() / 255
        if images.is_cuda:
            x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=variant.bfloat16):
            features = network(x)
        return camri_loss(features, network.prototypes, labels, margins, scale)

    mode = "reduce-overhead" if variant.graphs else "default"
    objective = torch.compile(loss_of, mode=mode) if variant.compiled else loss_of
    batch_of = batches(images, recipe)
    count = 0

    def epoch() -> None:
        nonlocal count
        network.train()
        order = torch.randperm(len(labels), device=labels.device)
        used = config.num_batches * recipe.batch_size
        for index in order[:used].split(recipe.batch_size):
            optimizer.zero_grad()
            objective(batch_of(index, count), labels[index]).backward()
            if recipe.clip_norm:
                nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_norm)
            optimizer.step()
            schedule.step()
            follow(schedule.last_epoch)
        count += 1
        if images.is_cuda:
            torch.cuda.synchronize()

    return Trained(network, epoch)


def lookahead(network: Network, recipe: Recipe, steps: int) -> Callable[[int], None]:
    """Returns what pulls slow weights after a step, and puts them into the network."""
    fast = [p for p in network.parameters() if p.requires_grad]
    slow = [p.detach().clone() for p in fast]

    @torch.no_grad()
    def follow(step: int) -> None:
        if not recipe.lookahead or (step % recipe.lookahead and step != steps):
            return
        kept = 1.0 if step == steps else 0.95**5 * (step / steps) ** 3
        for own, new in zip(slow, fast, strict=True):
            own.lerp_(new, 1 - kept)
            new.copy_(own)

    return follow


def optimizer_of(network: Network, recipe: Recipe) -> torch.optim.Optimizer:
    """Returns the recipe's optimizer, with its own rate for biases of norms."""
    rate = recipe.learning_rate
    if recipe.optimizer == "adam":
        return torch.optim.Adam(network.parameters(), lr=rate, eps=1e-7)
    named = [(name[-2:], p) for name, p, _ in correspondence(network)]
    biases = [p for (layer, part), p in named if "Norm" in layer and part == "bias"]
    others = [p for _, p in named if all(p is not bias for bias in biases)]
    # Ours comes after the momentum, which would sum it up, and is of one rate.
    decay = recipe.weight_decay * (1 - recipe.momentum)
    fast = {
        "params": biases,
        "lr": rate * recipe.norm_bias_rate,
        "weight_decay": decay / recipe.norm_bias_rate,
    }
    return torch.optim.SGD(
        [{"params": others}, fast],
        lr=rate,
        momentum=recipe.momentum,
        nesterov=True,
        weight_decay=decay,
    )


def batches(
    images: torch.Tensor, recipe: Recipe
) -> Callable[[torch.Tensor, int], torch.Tensor]:
    """Returns a function from indices and the epoch to a batch, moved and mirrored."""
    shift, device = recipe.augment_shift, images.device
    if not shift and recipe.augment_flip == "none":
        return lambda index, epoch: images[index]
    _, _, height, width = images.shape
    mode = {"black": "constant", "reflect": "reflect"}[recipe.augment_fill]
    # Reflection is not written for uint8.
    padded = F.pad(images.float(), (shift,) * 4, mode=mode).to(torch.uint8)
    padded = padded.permute(0, 2, 3, 1).contiguous()
    mirrored = torch.rand(len(images), device=device) < 0.5

    def batch_of(index: torch.Tensor, epoch: int) -> torch.Tensor:
        moved = torch.randint(0, 2 * shift + 1, (2, len(index), 1), device=device)
        rows = torch.arange(height, device=device) + moved[0]
        columns = torch.arange(width, device=device) + moved[1]
        if recipe.augment_flip == "random":
            now = torch.rand(len(index), device=device) < 0.5
        else:
            now = mirrored[index] ^ (epoch % 2 == 1)
        if recipe.augment_flip != "none":
            columns = torch.where(now[:, None], columns.flip(1), columns)
        taken = padded[index[:, None, None], rows[:, :, None], columns[:, None, :]]
        return taken.permute(0, 3, 1, 2)

    return batch_of
