"""Time a training step of each network, in each form, against PyTorch.

    python experiments/benchmarks/bench_step.py [--quick] [--output DIR]

Steps of CAMRI on images of 32x32x3, by the recipes `small`, `paper` (batches of 64) and
`fast` (500, moved and mirrored images): as the sweep trains, an epoch as one compiled
`scan` of convolutions by patches, or as steps of mixed convolutions that
Python calls; on a CPU one trial on all cores, and one trial a core. Against it: the
same network, loss, optimizer and augmentation in PyTorch (`torch_network.py`,
`torch_epochs.py`), one trial on all cores, eager and by `torch.compile`, float32. On
a GPU both forms of a loop with each convolution, several trials at once, and bfloat16
on both sides; what its memory does not hold is left out and said so.

With the same weights, without dropout and in float64, features, loss and gradients must
agree with PyTorch's before anything is timed, and the losses of an epoch among our
forms. The tables grow with each network. Fifteen minutes on two CPU cores, most of them
for `paper`; on a GPU compiling takes longer than timing, half a minute a form.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

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
from camri_jax._files import UsageError
from camri_jax.sweeps.engine import out_of_memory
from camri_jax.training import lift
from camri_jax.training.network import Convolution
from camri_jax.training.recipe import Recipe, TrainConfig

Precision = Literal["float32", "bfloat16"]
Epochs = dict[str, Callable[[], object]]
RECIPES = {"small": Recipe, "fast": Recipe.fast, "paper": Recipe.paper}


class Form(NamedTuple):
    """How we train: the convolution, the loop of an epoch, and trials a device."""

    convolution: Convolution
    loop: Literal["scan", "steps"]
    trials: int = 1
    precision: Precision = "float32"

    @property
    def text(self) -> str:
        """For people."""
        several = f", {self.trials} trials" if self.trials > 1 else ""
        return f"{self.loop} of {self.convolution}, {self.precision}{several}"


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is measured; no batch size is the recipe's own."""

    networks: tuple[str, ...] = tuple(RECIPES)
    forms: tuple[Form, ...] = (
        Form("mixed", "steps"),
        Form("patches", "scan"),
    )
    shape: tuple[int, int, int] = (32, 32, 3)
    batch_size: int | None = None
    batches: int = 2
    compiled: bool = True
    repetitions: int = 5


FULL = Sizes()
QUICK = Sizes(
    networks=("small", "fast"),
    shape=(8, 8, 3),
    batch_size=16,
    compiled=False,
    repetitions=2,
)
ON_GPU = Sizes(
    forms=tuple(
        Form(convolution, "scan", trials, precision)
        for precision in ("float32", "bfloat16")
        for trials in (1, 4, 16)
        for convolution in ("lax", "patches")
    ),
    batches=10,
    repetitions=7,
)


def config_of(sizes: Sizes, network: str, form: Form | None = None) -> TrainConfig:
    form = form or sizes.forms[0]
    changes = {"batch_size": sizes.batch_size} if sizes.batch_size else {}
    recipe = RECIPES[network](precision=form.precision, **changes)
    data = made_up.images_of((1,), sizes.batches * recipe.batch_size)
    return made_up.config_of(data, recipe=recipe, convolution=form.convolution)


def start(config: TrainConfig, images: np.ndarray) -> Mapping[str, Any]:
    """Returns flax's variables before the first step."""
    init = jax.jit(functools.partial(config.network.init, train=False))
    return init(jax.random.key(0), images)


def check(sizes: Sizes, network: str, device: torch.device) -> None:
    """Refuses to time networks that do not compute the same."""
    # In float64, because rounding a ReLU's or a maximum's input to the other side
    # changes single gradients of a network this deep by a hundredth.
    config = config_of(sizes, network)
    classifier = config.network
    images, labels = made_up.images_of(sizes.shape, config.recipe.batch_size)
    variables = start(config, images)
    hyperparameters = made_up.camri(config.num_classes)
    changes = {"dtype": jnp.float64}
    if hasattr(classifier.backbone, "dropout_rate"):
        changes["dropout_rate"] = 0.0
    exact = classifier.copy(backbone=classifier.backbone.copy(**changes))

    def objective(params):
        outputs, _ = exact.apply(
            {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
        )
        cosines = losses.cosine_similarity(outputs.features, outputs.prototypes)
        return config.loss(cosines, labels, **hyperparameters).mean(), outputs.features

    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        (loss, features), gradients = jax.jit(
            jax.value_and_grad(objective, has_aux=True)
        )(variables["params"])
    twin = torch_network.twin(exact, variables, sizes.shape)
    twin.to(device, torch.float64)
    # What comes after `Float32` is float32 on both sides.
    twin.layers[-1].float()
    pixels, targets = on_device((images, labels), device)
    margins = torch.from_numpy(np.array(hyperparameters["margins"])).to(device)
    own = twin((pixels.float() / 255).double())
    prototypes = twin.prototypes.float()
    value = torch_network.camri_loss(own, prototypes, targets, margins, made_up.SCALE)
    value.backward()
    timing.agree(f"{network}: features", features, own.detach().cpu(), 1e-4)
    timing.agree(f"{network}: loss", loss, value.detach().cpu(), 1e-5)
    ours = torch_network.leaves(gradients)
    for name, theirs in torch_network.gradients(twin):
        # A bias before batch normalization has gradient 0: relative to what?
        layer = [g for other, g in ours.items() if other[:-1] == name[:-1]]
        largest = max(np.abs(g).max() for g in layer)
        sides = np.append(ours[name], largest), np.append(theirs, largest)
        timing.agree(f"{network}: gradient of {' '.join(name)}", *sides, 1e-4)


def on_device(data: made_up.Data, device: torch.device) -> torch_epochs.Data:
    images = torch.from_numpy(data[0].transpose(0, 3, 1, 2).copy())
    return images.to(device), torch.from_numpy(data[1]).long().to(device)


def ours(sizes: Sizes, network: str) -> Iterator[tuple[str, int, Callable]]:
    """Yields our forms: their name, how many trials they train, and the epoch."""
    devices = jax.devices()
    expected = {}
    for form in sizes.forms:
        config = config_of(sizes, network, form)
        data = made_up.images_of(sizes.shape, config.num_images)
        for some in dict.fromkeys((1, len(devices))):
            mesh = lift.trial_mesh(devices[:some])
            many = form.trials > 1
            placed = lift.Placement(mesh, form.convolution, many, form.loop)
            name = f"{network}, {form.text}, {some} device{'s' * (some > 1)}"
            try:
                number = some * form.trials
                epoch = made_up.Trials(config, placed, data, number).epoch
                loss = epoch()[:1]
            except jax.errors.JaxRuntimeError as error:
                if not out_of_memory(error):
                    raise
                print(f"{name}: more than the device's memory holds")
                continue
            like = expected.setdefault(form.precision, loss)
            allowed = 1e-3 if form.precision == "float32" else 3e-2
            timing.agree(f"loss of an epoch, {name}", loss, like, allowed)
            yield name, number, epoch


def theirs(sizes: Sizes, network: str, device: torch.device) -> Epochs:
    """Returns PyTorch's epochs by variant; of `torch.compile`, only if it works."""
    config = config_of(sizes, network)
    data = made_up.images_of(sizes.shape, config.num_images)
    variables = start(config, data[0])
    epochs: Epochs = {}
    for name, variant in torch_epochs.variants_of(device, sizes.compiled).items():
        epoch = torch_epochs.trained(
            config,
            variables,
            made_up.camri(config.num_classes),
            on_device(data, device),
            variant,
        ).epoch
        try:
            epoch()
        except RuntimeError as error:
            if not variant.compiled:
                raise
            print(f"torch.compile does not work here: {str(error).splitlines()[0]}")
            continue
        epochs[f"PyTorch {name}"] = epoch
    return epochs


def measure(sizes: Sizes, network: str, device: torch.device) -> Iterator[timing.Line]:
    """Compares all our forms with all of PyTorch's variants, taking turns."""
    peers = theirs(sizes, network, device)
    sides, trials = dict(peers), {}
    for name, number, epoch in ours(sizes, network):
        sides[name], trials[name] = epoch, number
    taken = timing.seconds(sides, sizes.repetitions)
    for peer in peers:
        for name, number in trials.items():
            per_step = taken[name] / sizes.batches / number
            what = f"time of a trial-step, {peer} / ours"
            target = ">= 1" if name == next(iter(trials)) else ""
            yield timing.compared(
                what, name, taken[peer] / sizes.batches, per_step, target
            )


def main(argv: Sequence[str] | None = None) -> None:
    arguments = reporting.begin(__doc__, argv)
    on_gpu = jax.default_backend() == "gpu"
    if on_gpu != torch.cuda.is_available():
        raise UsageError(
            f"JAX runs on {jax.default_backend()}, and PyTorch "
            f"{'not ' if on_gpu else ''}on a GPU: install both for the same device, or "
            "set JAX_PLATFORMS=cpu and CUDA_VISIBLE_DEVICES= for a CPU"
        )
    device = torch.device("cuda" if on_gpu else "cpu")
    sizes = QUICK if arguments.quick else ON_GPU if on_gpu else FULL
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    packages = ("flax", "optax", "torch")
    lines: list[timing.Line] = []
    for network in sizes.networks:
        check(sizes, network, device)
        lines += measure(sizes, network, device)
        reporting.report("bench_step", lines, arguments.output, packages)


if __name__ == "__main__":
    reporting.run(main)
