"""Time many heads on fixed features in one program against one head after another.

    python experiments/benchmarks/bench_heads.py [--quick] [--output DIR]

1,000 trials (settings of one seed, 64 at once as in sweeps, and all at once) of a
linear head, cross-entropy, and of a cosine head, CAMRI, on 20,000 x 128 features of 10
classes, Adam, batch 256: lifted by `vmap`, an epoch as one `scan`, in which all take
one batch. Against it: the same head, loss and optimizer in PyTorch, in a loop over
trials, from the same weights and in the same order; losses must agree. And
scikit-learn's `SGDClassifier` and `LogisticRegression`, other ways to a linear head:
accuracies after 20 epochs must agree to 0.02. Times are those of an epoch of one trial;
`LogisticRegression` is counted as 20 epochs. Five minutes on two CPU cores.
"""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import made_up
import numpy as np
import reporting
import timing
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, SGDClassifier

from camri_jax.sweeps.plan import HEADS
from camri_jax.training import lift, trial
from camri_jax.training.methods import METHODS, Problem, hyperparameters
from camri_jax.training.recipe import Recipe, TrainConfig

timing.require("torch")
import torch  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch_network import camri_loss  # noqa: E402

CLASSES, EPOCHS, RATE = 10, 20, 0.01
POINTS = {
    "cross_entropy": {},
    "camri": {"margin": made_up.MARGIN, "scale": made_up.SCALE},
}


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    examples: int = 20_000
    features: int = 128
    batch_size: int = 256
    trials: tuple[int, ...] = (HEADS, 1_000)
    repetitions: int = 3


FULL = Sizes()
QUICK = Sizes(examples=2_000, features=16, trials=(10, HEADS), repetitions=2)


def features_of(sizes: Sizes) -> made_up.Data:
    """Returns features about a centre for each class, which partly overlap."""
    rng = np.random.default_rng(0)
    labels = np.arange(sizes.examples, dtype=np.int32) % CLASSES
    centres = rng.normal(size=(CLASSES, sizes.features))
    centres *= 4 / np.linalg.norm(centres, axis=1, keepdims=True)
    noise = rng.normal(size=(sizes.examples, sizes.features))
    return (centres[labels] + noise).astype(np.float32), labels


def config_of(sizes: Sizes, method: str) -> TrainConfig:
    own = {
        "epochs": EPOCHS,
        "learning_rate": RATE,
        "schedule": "constant",
        "weight_decay": 0.0,
    }
    return TrainConfig.of(
        METHODS[method],
        num_classes=CLASSES,
        num_images=sizes.examples,
        recipe=Recipe.heads(batch_size=sizes.batch_size, **own),
    )


def lifted(sizes: Sizes, method: str, data, num_trials: int) -> made_up.Trials:
    """Returns all trials in one program on all devices."""
    placement = lift.placement(lift.trial_mesh())
    placement = placement._replace(vectorized=True, loop="scan", one_order=True)
    problem = Problem(CLASSES, (0,), (1,) * CLASSES)
    own = hyperparameters(method, problem, POINTS[method])
    config = config_of(sizes, method)
    return made_up.Trials(config, placement, data, num_trials, own)


def of_torch(config: TrainConfig, method: str, data: made_up.Data) -> Callable:
    """Returns one trial's epoch in PyTorch, which returns its loss."""
    state = jax.jit(functools.partial(trial.init, config))(data[0], jnp.int32(0))
    head = {
        name: torch.from_numpy(np.array(value)).requires_grad_()
        for name, value in state.params["classes"].items()
    }
    unit = np.sqrt(data[0].var(0).mean())
    features = torch.from_numpy((data[0] - data[0].mean(0)) / unit)
    labels = torch.from_numpy(data[1]).long()
    optimizer = torch.optim.Adam(head.values(), lr=RATE, eps=1e-7)
    margins = torch.zeros(CLASSES)
    margins[0] = made_up.MARGIN
    shuffle = jax.jit(functools.partial(trial.shuffle, config))
    steps = 0

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if method == "camri":
            return camri_loss(x, head["prototypes"], y, margins, made_up.SCALE)
        return F.cross_entropy(x @ head["prototypes"] + head["bias"], y)

    def epoch() -> np.ndarray:
        nonlocal steps
        order = np.array(shuffle(state._replace(step=jnp.int32(steps))))
        losses = []
        for index in torch.from_numpy(order).long():
            optimizer.zero_grad()
            loss = loss_of(features[index], labels[index])
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        steps += len(order)
        return torch.stack(losses).mean().numpy()

    return epoch


def of_sklearn(name: str):
    """Returns an estimator by name, which is to pass 20 times over the features."""
    if name == "LogisticRegression":
        return LogisticRegression(max_iter=EPOCHS)
    return SGDClassifier(loss="log_loss", max_iter=EPOCHS, tol=None, average=True)


def against_torch(sizes: Sizes, method: str, data) -> Iterator[timing.Line]:
    config = config_of(sizes, method)
    sides = {"theirs": of_torch(config, method, data)}
    for number in sizes.trials:
        sides[number] = lifted(sizes, method, data, number).epoch
    expected, *ours = (epoch() for epoch in sides.values())
    for number, losses in zip(sizes.trials, ours, strict=True):
        what = f"loss of an epoch, {method}, first of {number} trials"
        timing.agree(what, losses[0], expected, 1e-3)
    taken = timing.seconds(sides, sizes.repetitions)
    for number in sizes.trials:
        per_trial = taken[number] / number
        case = f"{method}, {number:,} trials"
        what = "time of a trial's epoch, PyTorch loop / ours"
        yield timing.compared(what, case, taken["theirs"], per_trial, ">= 20")
        a_minute = 60 / EPOCHS / np.median(per_trial)
        yield timing.counted("trials a minute", case, a_minute, 1, "trials")


def against_sklearn(sizes: Sizes, data) -> Iterator[timing.Line]:
    number = sizes.trials[-1]
    trials = lifted(sizes, "cross_entropy", data, number)
    for _ in range(EPOCHS):
        trials.epoch()
    batch = jax.tree.map(lambda x: x[None], trials.data)
    accuracy = (trials.logits(batch)[0].argmax(-1) == data[1]).mean()
    for name in ("SGDClassifier", "LogisticRegression"):
        fit = functools.partial(of_sklearn(name).fit, *data)
        with warnings.catch_warnings():
            # It need not have come to its optimum.
            warnings.simplefilter("ignore", ConvergenceWarning)
            timing.agree(f"accuracy, {name}", accuracy, fit().score(*data), 0.02)
            sides = {"ours": trials.epoch, "theirs": fit}
            taken = timing.seconds(sides, sizes.repetitions)
        what = f"time of a trial's epoch, {name} / ours"
        case = f"cross_entropy, {number:,} trials"
        theirs, ours = taken["theirs"] / EPOCHS, taken["ours"] / number
        yield timing.compared(what, case, theirs, ours)


def main(argv: Sequence[str] | None = None) -> None:
    arguments = reporting.begin(__doc__, argv)
    sizes = QUICK if arguments.quick else FULL
    data = features_of(sizes)
    lines = [line for each in POINTS for line in against_torch(sizes, each, data)]
    lines += against_sklearn(sizes, data)
    packages = ("flax", "optax", "scikit-learn", "torch")
    reporting.report("bench_heads", lines, arguments.output, packages)


if __name__ == "__main__":
    reporting.run(main)
