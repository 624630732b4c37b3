"""Time a training step of the authors' network against PyTorch.

    python experiments/bench_step.py [--quick] [--output DIR]

`camri_jax.training.trial.train_epoch` of the `paper` network, CAMRI, batch 64, 32x32x3, over a
few batches, against the same network, loss and optimizer in PyTorch
(`torch_network.py`), one trial at a time: plain float32, channels_last, bf16 autocast,
`torch.compile`, and on a GPU CUDA graphs. With the same weights, without dropout and in
float64, features, loss and gradients must agree before anything is timed. On a GPU also
1 to 64 trials at once, float32 (TF32) and bfloat16, both lowerings of the convolution,
memory, and the share of the matmul rate that is measured in the same run; a width that
memory does not hold is left out and said so. Five minutes on two CPU cores; a GPU was
not at hand for it yet.
"""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import made_up
import numpy as np
import reporting
import timing
import torch_epochs
import torch_network
from torch_network import torch

from camri_jax import losses
from camri_jax.sweeps.width import out_of_memory
from camri_jax.training import lift as parallel
from camri_jax.training.methods import FAMILIES
from camri_jax.training.network import CNN, Convolution
from camri_jax.training.recipe import Recipe, TrainConfig

Precision = Literal["float32", "bfloat16"]
CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    model: Literal["small", "paper"] = "paper"
    shape: tuple[int, int, int] = (32, 32, 3)
    batch_size: int = 64
    batches: int = 2
    trials: tuple[int, ...] = (1,)
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    lowerings: tuple[Convolution, ...] = ("patches",)
    compiled: bool = True
    matmul: int = 2048
    repetitions: int = 5


FULL = Sizes()
QUICK = Sizes(
    model="small",
    shape=(8, 8, 3),
    trials=(1, 2),
    compiled=False,
    matmul=512,
    repetitions=3,
)
ON_GPU = Sizes(
    batches=20,
    trials=(1, 2, 4, 8, 16, 32, 64),
    lowerings=("patches", "lax"),
    matmul=8192,
    repetitions=7,
)


@dataclasses.dataclass(frozen=True)
class Config(TrainConfig):
    """A configuration whose convolution is computed as asked."""

    convolution: Convolution = "patches"

    @property
    def network(self) -> CNN:
        """The network that the trials train."""
        return super().network.copy(convolution=self.convolution)


def config_of(
    sizes: Sizes, precision: Precision = "float32", lowering: Convolution = "patches"
) -> Config:
    recipe = Recipe(model=sizes.model, batch_size=sizes.batch_size, precision=precision)
    number = sizes.batches * sizes.batch_size
    return Config("angular", CLASSES, number, recipe, lowering)


def operations_per_image(network: CNN, shape: Sequence[int]) -> float:
    """Returns the floating-point operations of a training step for each image."""
    height, width, channels = shape
    total, first = 0, True
    for i, block in enumerate(network.blocks):
        if i > 0:
            height, width = height // 2, width // 2
        for outputs in (outputs for group in block for outputs in group):
            forward = 2 * 9 * channels * outputs * height * width
            # Images need no gradient.
            total += (2 if first else 3) * forward
            channels, first = outputs, False
    head = network.feature_dim * (channels + network.num_classes)
    return float(total + 3 * 2 * head)


def check(sizes: Sizes, device: torch.device) -> None:
    """Refuses to time networks that do not compute the same."""
    # In float64, because rounding a ReLU's or a maximum's input to the other side
    # changes single gradients of a network this deep by a hundredth.
    network = config_of(sizes).network.copy(dropout_rate=0.0)
    images, labels = made_up.images_of(sizes.shape, sizes.batch_size)
    variables = network.init(jax.random.key(0), images, train=False)
    hyperparameters = made_up.camri(CLASSES)

    def objective(params):
        outputs, _ = network.copy(dtype=jnp.float64).apply(
            {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
        )
        cosines = losses.cosine_similarity(outputs.features, outputs.prototypes)
        values = FAMILIES["angular"].loss(cosines, labels, **hyperparameters)
        return values.mean(), outputs.features

    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        (loss, features), gradients = jax.jit(
            jax.value_and_grad(objective, has_aux=True)
        )(variables["params"])
    twin = torch_network.Network(network, sizes.shape[2], 0.0)
    torch_network.load(twin, variables["params"])
    twin.to(device, torch.float64)
    twin.norm.float()  # Features are float32 on both sides.
    pixels, targets = on_device((images, labels), device)
    margins = torch.from_numpy(np.array(hyperparameters["margins"])).to(device)
    own = twin((pixels.float() / 255).double())
    prototypes = twin.prototypes.float()
    value = torch_network.camri_loss(own, prototypes, targets, margins, 16.0)
    value.backward()
    timing.agree("features", features, own.detach().cpu(), 1e-4)
    timing.agree("loss", loss, value.detach().cpu(), 1e-5)
    for (module, name), theirs in torch_network.gradients(twin):
        # A bias before batch normalization has gradient 0: relative to what?
        ours = gradients[module][name]
        largest = max(float(jnp.abs(g).max()) for g in gradients[module].values())
        ours, theirs = np.append(ours, largest), np.append(theirs, largest)
        timing.agree(f"gradient of {module} {name}", ours, theirs, 1e-4)


def on_device(data: made_up.Data, device: torch.device) -> torch_epochs.Data:
    images = torch.from_numpy(data[0].transpose(0, 3, 1, 2).copy())
    return images.to(device), torch.from_numpy(data[1]).long().to(device)


def matmul_rate(sizes: Sizes, precision: Precision) -> float:
    """Returns operations a second of large matmuls; on a GPU float32 means TF32."""
    number, size = 8, sizes.matmul
    left = jnp.ones((size, size), precision)

    @jax.jit
    def run(left: jax.Array, right: jax.Array) -> jax.Array:
        for _ in range(number):
            left = left @ right
        return left

    side = {"": lambda: jax.block_until_ready(run(left, left / size))}
    taken = timing.seconds(side, sizes.repetitions)[""]
    return float(number * 2 * size**3 / np.median(taken))


Epochs = dict[str, Callable[[], object]]


def epochs_of_torch(sizes: Sizes, device: torch.device) -> Epochs:
    config = config_of(sizes)
    data = on_device(made_up.images_of(sizes.shape, config.num_images), device)
    return {
        name: torch_epochs.trained(
            config.network, made_up.camri(CLASSES), data, sizes.batch_size, variant
        )
        for name, variant in torch_epochs.variants_of(device, sizes.compiled).items()
    }


def of_torch(sizes: Sizes, epochs: Epochs, on_gpu: bool) -> Iterator[timing.Line]:
    """Compares the variants of PyTorch with its plain form."""
    taken = timing.seconds(epochs, sizes.repetitions)
    for name, own in taken.items():
        what = "time of a step, PyTorch eager / its variant"
        steps = sizes.batches
        yield timing.compared(what, name, taken["eager"] / steps, own / steps)
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
            epochs[name]()
            used = torch.cuda.max_memory_allocated() / 2**20
            yield timing.counted("memory", f"PyTorch {name}", used, 1, "MiB")


def of_ours(
    sizes: Sizes, config: Config, num_trials: int, peers: Epochs, rate: float
) -> Iterator[timing.Line]:
    """Compares trials in one program with PyTorch eager and PyTorch at its best."""
    on_gpu = jax.default_backend() == "gpu"
    data = made_up.images_of(sizes.shape, config.num_images)
    mesh = parallel.trial_mesh(jax.devices()[:1])
    precision = config.recipe.precision
    case = f"{precision}, {config.convolution}, {num_trials} trials"
    try:
        epoch, program = made_up.at_once(config, data, num_trials, mesh)
        taken = timing.seconds({"ours": epoch, **peers}, sizes.repetitions)
    except jax.errors.JaxRuntimeError as error:
        if not out_of_memory(error):
            raise
        print(f"{case}: more than the device's memory holds")
        return
    per_step = taken["ours"] / sizes.batches / num_trials
    targets = (">= 5", ">= 2") if on_gpu else (">= 0.5", "")
    for name, target in zip(peers, targets, strict=False):
        what = f"time of a trial-step, PyTorch {name} / ours"
        theirs = taken[name] / sizes.batches
        yield timing.compared(what, case, theirs, per_step, target)
    images = sizes.batch_size / np.median(per_step)
    yield timing.counted("images a second, all trials", case, images, 1, "images/s")
    done = operations_per_image(config.network, sizes.shape) * images
    share = "share of the matmul rate measured in this run"
    target = ">= 0.4" if on_gpu and precision == "bfloat16" else ""
    yield timing.counted(share, case, done / 1e9, rate / 1e9, "GFLOP/s", target)
    used = timing.temporary_mebibytes(program)
    yield timing.counted("memory", f"ours, {case}", used, 1, "MiB")


def measure(sizes: Sizes, device: torch.device) -> Iterator[timing.Line]:
    epochs = epochs_of_torch(sizes, device)
    lines = list(of_torch(sizes, epochs, device.type == "cuda"))
    yield from lines
    best = min((line for line in lines if line.unit == "ms"), key=lambda x: x.second)
    peers = {"eager": epochs["eager"], "at its best": epochs[best.case]}
    for precision in sizes.precisions:
        rate = matmul_rate(sizes, precision)
        for lowering in sizes.lowerings:
            config = config_of(sizes, precision, lowering)
            for num_trials in sizes.trials:
                yield from of_ours(sizes, config, num_trials, peers, rate)


def main(argv: Sequence[str] | None = None) -> None:
    arguments = reporting.parse(__doc__, argv)
    # PyTorch needs some of a GPU's memory too.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    on_gpu = jax.default_backend() == "gpu"
    if on_gpu != torch.cuda.is_available():
        raise ValueError(
            f"JAX runs on {jax.default_backend()}, and PyTorch "
            f"{'not ' if on_gpu else ''}on a GPU: install both for the same device, or "
            "set JAX_PLATFORMS=cpu and CUDA_VISIBLE_DEVICES= for a CPU"
        )
    device = torch.device("cuda" if on_gpu else "cpu")
    sizes = QUICK if arguments.quick else ON_GPU if on_gpu else FULL
    check(sizes, device)
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    lines = list(measure(sizes, device))
    packages = ("flax", "optax", "torch")
    reporting.report("bench_step", lines, arguments.output, packages)


if __name__ == "__main__":
    reporting.run(main)
