"""Trains one chunk of trials: arrays in, rows out."""

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from camri_jax import metrics
from camri_jax.datasets import Dataset, Part
from camri_jax.sweeps.plan import SCORED, Chunk, problem_of, stack
from camri_jax.training import lift, trial
from camri_jax.training.lift import Placement
from camri_jax.training.methods import Problem
from camri_jax.training.recipe import TrainConfig
from camri_jax.training.trial import Scores, TrialState

HISTORY = 50
"""The most epochs after which trials are scored on the way, so that it costs little."""

_LOOK = 5000
"""Training images that a network may measure before its first step; features are small,
so it may measure all."""


_ALIGNMENT = 64
"""Bytes at whose multiples XLA takes an array of the host as it is."""


class Programs(NamedTuple):
    """The functions of one configuration, lifted over trials and devices.

    Attributes:
      init: `(images, seeds)` to states.
      prepare: functions of states, of what an epoch's steps share, such as its orders.
      step: `(states, hyperparameters, *prepared, images, labels)` to states and losses,
        of a step, or of an epoch where that is one program.
      train_epoch: `(states, hyperparameters, images, labels, on_batch)` to states and
        a list of losses `[trial]`, whose mean is the epoch's; where its steps are
        called one by one, `on_batch` is called with the number of those begun.
      score: `(states, hyperparameters, batches)` to a list of `Scores`
        `[trial, image, ...]`, whose images follow one another.
      is_finite: states to `[trial]` bool.
    """

    init: jax.stages.Wrapped
    prepare: tuple[jax.stages.Wrapped, ...]
    step: jax.stages.Wrapped
    train_epoch: Callable[..., Any]
    score: Callable[..., Any]
    is_finite: jax.stages.Wrapped


class Placed(NamedTuple):
    """A data set on the devices.

    Attributes:
      train: images and labels.
      scored: by part, its images and labels in batches of equal size.
      labels: by part, on the host.
      problem: class counts, on the host.
    """

    train: tuple[Any, Any]
    scored: dict[str, Any]
    labels: dict[str, np.ndarray]
    problem: Problem


class Trained(NamedTuple):
    """What a chunk's trials came to, on the host; arrays lead with a trial axis.

    Attributes:
      rows: what is known of each, by name, for `camri_jax.sweeps.rows`.
      logits: `[image, class]` float32, by part, of each.
      variables: weights and statistics of each, as they are evaluated.
      begin: the epoch after which their training went on; 0 for all of it.
    """

    rows: list[dict[str, Any]]
    logits: list[dict[str, np.ndarray]]
    variables: list[chex.ArrayTree]
    begin: int = 0


class Checkpoint(NamedTuple):
    """A chunk between two epochs, on the host: all that the rest of it depends on.

    Attributes:
      epoch: how many are done.
      leaves: of the states of its trials, except their keys, which seeds give.
      losses: `[trial]`, of each epoch.
      history: counts `[trial, true, predicted]`, of each epoch that was scored.
      trials: their ids; none in older files.
    """

    epoch: int
    leaves: list[np.ndarray]
    losses: list[np.ndarray]
    history: list[np.ndarray]
    trials: tuple[str, ...] = ()


@functools.lru_cache(maxsize=64)
def programs(config: TrainConfig, placement: Placement) -> Programs:
    """Lifts a trial's functions over trials and devices.

    Args:
      config: what the trials share.
      placement: how they are laid on devices.

    Returns:
      The `Programs`, the same for the same arguments, so compiled once in a process.
    """

    def lifted(
        function: Callable[..., Any], *in_axes: int | None, donate: bool = False
    ):
        return lift.lift(
            functools.partial(function, config),
            placement,
            in_axes,
            donate_argnums=(0,) if donate else (),
        )

    shuffle = lifted(trial.shuffle, 0)
    step = lifted(trial.train_batch, 0, 0, 0, None, None, donate=True)
    score = lifted(trial.score, 0, 0, None, None)

    prepare = (shuffle,)

    def train_epoch(
        states, hyperparameters, images, labels, on_batch=lambda batch: None
    ):
        order, losses = shuffle(states), []
        for batch in range(config.num_batches):
            states, loss = step(states, hyperparameters, order, images, labels)
            losses.append(loss)
            on_batch(batch + 1)
        return states, losses

    def score_each(states, hyperparameters, batches):
        return [score(states, hyperparameters, *batch) for batch in batches]

    if placement.loop == "scan":
        step = lifted(trial.train_epoch, 0, 0, None, None, donate=True)
        score_all = lifted(trial.score_all, 0, 0, None, None)
        prepare = ()  # trials shuffle for themselves
        if placement.one_order:
            prepare, step, score_all = _in_one_order(config, placement)
        train_epoch, score_each = _listed(prepare, step), _flattened(score_all)
    return Programs(
        lifted(trial.init, None, 0),
        prepare,
        step,
        train_epoch,
        score_each,
        lift.lift(trial.is_finite, placement, (0,)),
    )


def _listed(
    prepare: Sequence[jax.stages.Wrapped], epoch: Callable[..., Any]
) -> Callable[..., Any]:
    def train_epoch(
        states, hyperparameters, images, labels, on_batch=lambda batch: None
    ):
        prepared = [each(states) for each in prepare]
        states, loss = epoch(states, hyperparameters, *prepared, images, labels)
        return states, [loss]

    return train_epoch


def _in_one_order(
    config: TrainConfig, placement: Placement
) -> tuple[tuple[jax.stages.Wrapped, ...], jax.stages.Wrapped, Callable[..., Any]]:
    """Epochs and scores of trials of one seed, whose batches are prepared once.

    Returns:
      `prepare` and `step` of `Programs`, and what scores batches.
    """
    everywhere = NamedSharding(placement.mesh, PartitionSpec())

    @functools.partial(jax.jit, out_shardings=everywhere)
    def order_of(states: TrialState) -> jax.Array:
        return trial.shuffle(config, jax.tree.map(lambda leaf: leaf[0], states))

    @functools.partial(jax.jit, out_shardings=everywhere)
    def constants_of(states: TrialState) -> Any:
        constants = states.collections.get("constants", {})
        return jax.tree.map(lambda leaf: leaf[0], constants)

    def sharing(function: Callable[..., Any]) -> Callable[..., Any]:
        def of_one(state, hyperparameters, constants, *arguments):
            # Passed once, so what they make of a batch is computed once for all trials.
            collections = state.collections | {"constants": constants}
            state = state._replace(collections=collections)
            return function(config, state, hyperparameters, *arguments)

        return of_one

    axes = (0, 0, None, None, None)
    train = lift.lift(
        sharing(trial.train_in_order), placement, (*axes, None), donate_argnums=(0,)
    )
    score = lift.lift(sharing(trial.score_all), placement, axes)

    def score_all(states, hyperparameters, images, labels):
        return score(states, hyperparameters, constants_of(states), images, labels)

    return (constants_of, order_of), train, score_all


def _flattened(score_all: Callable[..., Any]) -> Callable[..., Any]:
    def score(states, hyperparameters, batches):
        scored = score_all(states, hyperparameters, *batches)
        return [jax.tree.map(lambda x: x.reshape(len(x), -1, *x.shape[3:]), scored)]

    return score


def place(dataset: Dataset, config: TrainConfig, placement: Placement) -> Placed:
    """Puts the images on every device, once.

    Args:
      dataset: the images.
      config: of any chunk: the size of batches.
      placement: the devices.

    Returns:
      The data set on the devices; parts without images are left out.
    """
    parts = {name: part for name, part in dataset.parts.items() if len(part.labels)}

    def put(arrays: Any) -> Any:
        return lift.replicate(jax.tree.map(_aligned, arrays), placement.mesh)

    train = parts["train"]
    batched = {
        name: _batched(parts[name], config.recipe.batch_size, placement.loop == "steps")
        for name in SCORED
        if name in parts
    }
    return Placed(
        train=put((np.asarray(train.images), np.asarray(train.labels))),
        scored={name: put(batches) for name, batches in batched.items()},
        labels={name: np.asarray(parts[name].labels) for name in batched},
        problem=problem_of(dataset, config.recipe),
    )


def _aligned(array: np.ndarray) -> np.ndarray:
    """The array, aligned so that CPU devices share it: each would copy another."""
    if array.ctypes.data % _ALIGNMENT == 0:
        return array
    room = np.empty(array.nbytes + _ALIGNMENT, np.uint8)
    start = -room.ctypes.data % _ALIGNMENT
    copy = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _batched(part: Part, size: int, apart: bool) -> Any:
    """Batches of equal size, filled up with the last image: apart, or stacked."""
    count = -(-len(part.labels) // size)
    index = np.minimum(np.arange(count * size), len(part.labels) - 1)
    index = index.reshape(count, size)
    if apart:
        return [(np.asarray(part.images[i]), part.labels[i]) for i in index]
    return np.asarray(part.images[index]), np.asarray(part.labels[index])


def states_of(chunk: Chunk, dataset: Dataset, placement: Placement) -> TrialState:
    """Returns the shapes and types of a chunk's states; nothing is computed.

    Args:
      chunk: of a plan for this placement.
      dataset: the images.
      placement: the devices.

    Raises:
      UsageError: the images are too small for the network.
    """
    seeds, _ = stack(chunk, problem_of(dataset, chunk.config.recipe))
    look = _look(dataset.parts["train"].images)
    shape = jax.ShapeDtypeStruct(look.shape, look.dtype)
    return jax.eval_shape(programs(chunk.config, placement).init, shape, seeds)


def _look(images: Any) -> Any:
    """What a network may measure before its first step: some of all classes."""
    # Folders come class by class, so the first images are of one.
    return images if images.ndim == 2 else images[:: -(-len(images) // _LOOK)]


def train_chunk(
    chunk: Chunk,
    data: Placed,
    placement: Placement,
    on_epoch: Callable[[float], None] = lambda epoch: None,
    checkpoint: Checkpoint | None = None,
    keep: Callable[[Callable[[], Checkpoint]], None] = lambda fetch: None,
) -> Trained:
    """Trains a chunk of trials and scores the images that are not trained on.

    Args:
      chunk: of a plan for this placement.
      data: from `place`.
      placement: the devices.
      on_epoch: called with the number of epochs that are done, in fractions where an
        epoch's steps are called one by one.
      checkpoint: where to go on; default at the beginning.
      keep: called after each epoch but the last with a function that returns where
        the chunk is, if it is called at once.

    Returns:
      Rows, logits and weights of its trials.

    Raises:
      jax.errors.JaxRuntimeError: a device has too little memory.
      ValueError: trials that take their images in one order have several seeds.
    """
    if placement.one_order and len({each.seed for each in chunk.trials}) != 1:
        raise ValueError("trials in one order must be of one seed")
    run, epochs = programs(chunk.config, placement), chunk.config.recipe.epochs
    seeds, hyperparameters = lift.shard(stack(chunk, data.problem), placement.mesh)
    watched = "validation" if "validation" in data.scored else "test"
    evaluated = history_epochs(epochs, _affordable(chunk, len(data.labels[watched])))
    states = run.init(_look(data.train[0]), seeds)
    begin, losses, history = 0, [], []
    ids = tuple(each.trial_id for each in chunk.trials)
    shape = states, epochs, evaluated, len(ids)
    if checkpoint is not None and not _fits(checkpoint, *shape):
        checkpoint = None
        warnings.warn(
            "a checkpoint is of other programs: its chunk begins anew",
            RuntimeWarning,
            stacklevel=2,
        )
    if checkpoint is not None:
        checkpoint = _lengthened(checkpoint, chunk.width)
        begin, states = checkpoint.epoch, _restored(states, checkpoint)
        losses = [[each] for each in checkpoint.losses]
        history = list(checkpoint.history)

    def scored(part: str) -> Scores:
        return _joined(
            run.score(states, hyperparameters, data.scored[part]), data.labels[part]
        )

    with jax.transfer_guard("disallow"):
        for epoch in range(begin, epochs):

            def on_batch(batch: int, epoch=epoch) -> None:
                on_epoch(epoch + batch / chunk.config.num_batches)

            states, loss = run.train_epoch(
                states, hyperparameters, *data.train, on_batch
            )
            losses.append(loss)
            if epoch > begin:
                # The devices work on this epoch while the host waits for the last, of
                # whose steps they hold an array each: its mean takes their place.
                losses[epoch - 1] = [_mean(losses[epoch - 1])]
                if placement.loop == "scan":  # else its last step told it
                    on_epoch(epoch)
            if epoch + 1 in evaluated:
                history.append(_confusions(scored(watched), data.labels[watched]))
            if epoch + 1 < epochs:
                keep(
                    functools.partial(
                        _checkpoint, epoch + 1, states, losses, history, ids
                    )
                )
        everything = {part: scored(part) for part in data.scored}
        finite = jax.device_get(run.is_finite(states))
        variables = jax.device_get(trial.evaluated_variables(states))
        loss = np.stack([_mean(each) for each in losses], 1)
    on_epoch(epochs)
    rows = _rows(chunk, everything, data.labels, finite)
    history = np.stack(history, 1)
    for t, row in enumerate(rows):
        row |= {
            "history_loss": loss[t],
            "history_epoch": np.array(evaluated),
            "history_accuracy": np.asarray(metrics.accuracy(history[t])),
            "history_recall": np.asarray(metrics.recall(history[t])),
        }
    return Trained(
        rows,
        [
            {p: np.asarray(s.logits[t]) for p, s in everything.items()}
            for t in range(len(rows))
        ],
        [jax.tree.map(lambda x, t=t: x[t], variables) for t in range(len(rows))],
        begin,
    )


def _checkpoint(
    epoch: int,
    states: TrialState,
    losses: Sequence[Sequence[Any]],
    history: Sequence[np.ndarray],
    trials: tuple[str, ...],
) -> Checkpoint:
    number = len(trials)
    # Copied, as the next step takes the memory of these; without what only fills up
    # the devices of this host.
    leaves = [np.array(jax.device_get(leaf)[:number]) for leaf in _kept(states)]
    means = [_mean(each)[:number] for each in losses]
    counts = [each[:number] for each in history]
    return Checkpoint(epoch, leaves, means, counts, trials)


def _lengthened(checkpoint: Checkpoint, width: int) -> Checkpoint:
    """Padded with the last trial, as its chunk is stacked."""

    def lengthened(each: np.ndarray) -> np.ndarray:
        return np.concatenate([each, np.repeat(each[-1:], width - len(each), axis=0)])

    return checkpoint._replace(
        leaves=list(map(lengthened, checkpoint.leaves)),
        losses=list(map(lengthened, checkpoint.losses)),
        history=list(map(lengthened, checkpoint.history)),
    )


def _fits(
    checkpoint: Checkpoint,
    states: TrialState,
    epochs: int,
    evaluated: Sequence[int],
    number: int,
) -> bool:
    """Whether a checkpoint can be of so many trials, after one of these epochs."""
    scored = [epoch for epoch in evaluated if epoch <= checkpoint.epoch]
    forms = [
        [(number, *leaf.shape[1:], leaf.dtype.itemsize) for leaf in _kept(states)],
        [(*leaf.shape, leaf.dtype.itemsize) for leaf in checkpoint.leaves],
    ]
    return (
        0 < checkpoint.epoch < epochs
        and len(checkpoint.losses) == checkpoint.epoch
        and len(checkpoint.history) == len(scored)
        and forms[0] == forms[1]
    )


def _restored(states: TrialState, checkpoint: Checkpoint) -> TrialState:
    """States with the leaves of a checkpoint; the keys are as they were."""
    leaves, tree = jax.tree.flatten(states)
    kept = iter(checkpoint.leaves)
    restored = [leaf if _is_key(leaf) else _put(next(kept), leaf) for leaf in leaves]
    return jax.tree.unflatten(tree, restored)


def _put(kept: np.ndarray, leaf: jax.Array) -> jax.Array:
    # Files know no types that NumPy does not.
    return jax.device_put(kept.view(leaf.dtype), leaf.sharding)


def _kept(states: TrialState) -> list[jax.Array]:
    return [leaf for leaf in jax.tree.leaves(states) if not _is_key(leaf)]


def _is_key(leaf: jax.Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _mean(losses: Sequence[Any]) -> np.ndarray:
    """The mean loss of an epoch, `[trial]`."""
    return np.mean(jax.device_get(losses), 0)


def history_epochs(epochs: int, most: int | None = None) -> list[int]:
    """Returns after which epochs trials are scored: the last, and even steps to it.

    Args:
      epochs: of the training.
      most: how many at most; default `HISTORY`.

    >>> history_epochs(5), history_epochs(300)[-2:]
    ([1, 2, 3, 4, 5], [294, 300])
    """
    step = -(-epochs // (HISTORY if most is None else most))
    return list(range(epochs, 0, -step))[::-1]


def _affordable(chunk: Chunk, num_scored: int) -> int:
    """How often a part is scored on the way: no more images than are trained on."""
    config = chunk.config
    trained = config.recipe.epochs * config.num_drawn
    return max(1, min(HISTORY, trained // num_scored))


def _joined(scores: list[Scores], labels: np.ndarray) -> Scores:
    """Scores of a part's images on the host, without those that fill a batch up."""
    parts = jax.device_get(scores)
    return Scores(
        *(
            np.concatenate(each, 1)[:, : len(labels)]
            for each in zip(*parts, strict=True)
        )
    )


def _confusions(scores: Scores, labels: np.ndarray) -> np.ndarray:
    """Counts `[trial, true, predicted]`."""
    size = scores.logits.shape[-1]
    cells = labels * size + scores.logits.argmax(-1)
    counts = [np.bincount(each, minlength=size * size) for each in cells]
    return np.stack(counts).reshape(-1, size, size).astype(np.int32)


def _rows(
    chunk: Chunk,
    scores: Mapping[str, Scores],
    labels: Mapping[str, np.ndarray],
    finite: np.ndarray,
) -> list[dict[str, Any]]:
    confusions = {
        f"{part}_confusion": _confusions(scores[part], labels[part])
        for part in ("test", "validation")
        if part in scores
    }
    loss = scores["test"].loss.mean(1)
    rows = []
    for t, each in enumerate(chunk.trials):
        mean, std = _spread(np.asarray(scores["test"].angle[t]), labels["test"], chunk)
        rows.append(
            {
                "trial_id": each.trial_id,
                "method": each.method,
                "important": each.important,
                **each.point,
                "seed": each.seed,
                "diverged": bool(~finite[t] | ~np.isfinite(loss[t])),
                "loss": loss[t],
                **{name: counts[t] for name, counts in confusions.items()},
                "angle_mean": mean,
                "angle_std": std,
            }
        )
    return rows


def _spread(
    angles: np.ndarray, labels: np.ndarray, chunk: Chunk
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each class's angles, NaN without images."""
    size = chunk.config.num_classes
    of_class = [angles[labels == k].astype(np.float64) for k in range(size)]
    mean = [each.mean() if len(each) else np.nan for each in of_class]
    std = [each.std() if len(each) else np.nan for each in of_class]
    return np.array(mean), np.array(std)
