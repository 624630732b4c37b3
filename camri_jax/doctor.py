"""Whether this machine computes what NumPy computes in float64."""

import functools
import math
import os
import platform
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from camri_jax import _arrays, losses
from camri_jax.training import lift, trial
from camri_jax.training.methods import METHODS, Problem, hyperparameters
from camri_jax.training.network import CNN
from camri_jax.training.recipe import Recipe, TrainConfig

_PACKAGES = ("camri-jax", "jax", "jaxlib", "numpy", "flax", "optax")
_PREFIXES = ("JAX_", "XLA_", "LIBTPU_", "CUDA_VISIBLE", "NVIDIA_TF32")


class Finding(NamedTuple):
    """What one check found on one device.

    Attributes:
      check: what was computed.
      device: on which.
      error: largest distance from NumPy's float64, relative where numbers are large.
      allowed: what rounding to float32 explains.

    Example:
      >>> Finding("camri", "cpu:0", error=1e-7, allowed=1e-5).agrees
      True
    """

    check: str
    device: str
    error: float
    allowed: float

    @property
    def agrees(self) -> bool:
        """Whether rounding explains the error; it never explains NaN."""
        return self.error <= self.allowed


def examine(devices: Sequence[Any] | None = None) -> list[Finding]:
    """Computes losses, a training step and an evaluation on each device.

    All of it in one program for all devices, and again by NumPy in float64, whose
    gradients are differences.

    Args:
      devices: the `jax.Device`s; default all of this process.

    Returns:
      A finding for each check and device.
    """
    placed = lift.placement(lift.trial_mesh(devices))
    found = []
    for check in _CHECKS:
        for name, computed, wanted, allowed in check(placed):
            found += _findings(name, computed, wanted, allowed, placed.mesh)
    return found


def known_faults() -> list[str]:
    """Returns a sentence for each thing that is known to compute wrongly here.

    Example:
      >>> _arrays.cure_wrong_sums()
      >>> known_faults()
      []
    """
    if not _arrays.wrong_sums():
        return []
    return [
        f"jaxlib {metadata.version('jaxlib')} can add wrongly on a CPU "
        "(jax-ml/jax#39103): set the environment variable "
        f"XLA_FLAGS={_arrays.WRONG_SUMS_CURE} before JAX starts, as the commands of "
        "camri do"
    ]


def facts() -> dict[str, str]:
    """Returns versions, settings and devices by name.

    Example:
      >>> facts()["devices"].startswith(str(jax.device_count()))
      True
    """
    found = {name: _version(name) for name in _PACKAGES}
    found["python"] = f"{platform.python_version()} on {sys.platform}"
    found["machine"] = platform.machine()
    devices = jax.local_devices()
    found["devices"] = f"{len(devices)} x {devices[0].device_kind} ({_memory(devices)})"
    found |= {n: v for n, v in sorted(os.environ.items()) if n.startswith(_PREFIXES)}
    for name in ("jax_enable_x64", "jax_default_matmul_precision"):
        found[name] = str(getattr(jax.config, name))
    return found


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _memory(devices: Sequence[Any]) -> str:
    limit = (devices[0].memory_stats() or {}).get("bytes_limit")
    return f"{limit / 2**30:.1f} GiB each" if limit else "memory unknown"


def _findings(
    name: str, computed: Any, wanted: Any, allowed: float, mesh: Any
) -> list[Finding]:
    computed, wanted = np.asarray(computed, np.float64), np.asarray(wanted)
    errors = np.abs(computed - wanted[None]) / np.maximum(1, np.abs(wanted))
    worst = errors.reshape(len(errors), -1).max(1)
    devices = mesh.devices.flat
    return [
        Finding(name, f"{device.platform}:{device.id}", float(error), allowed)
        for device, error in zip(devices, worst, strict=True)
    ]


_Checked = Iterable[tuple[str, Any, np.ndarray, float]]


def _on_each(placed: lift.Placement, function: Callable[..., Any], *trees: Any) -> Any:
    """What a function returns on each device, with a leading axis of devices."""

    def repeated(leaf: Any) -> Any:
        stack = jnp.stack if isinstance(leaf, jax.Array) else np.stack
        return stack([leaf] * placed.mesh.size)

    many = lift.shard(jax.tree.map(repeated, trees), placed.mesh)
    return jax.device_get(lift.lift(function, placed, (0,) * len(trees))(*many))


def _check_sums(placed: lift.Placement) -> _Checked:
    # As many rows as jax-ml/jax#39103 needs.
    rows = np.zeros((32_769, 3), np.float32)
    rows[:, 0] = np.arange(len(rows))

    def squares(rows: jax.Array) -> jax.Array:
        return jax.vmap(
            lambda row: jnp.sum(jnp.matmul(jnp.eye(3), row, precision="highest") ** 2)
        )(rows)

    wanted = np.sum(rows.astype(np.float64) ** 2, axis=1)
    yield "sums over rows", _on_each(placed, squares, rows), wanted, 1e-5


# --- Losses --------------------------------------------------------------------------

_LABELS = np.array([0, 1, 2, 3, 4, 1, 1], np.int32)
_RANDOM = np.random.default_rng(0)
_LOGITS = _RANDOM.normal(0, 3, (7, 5)).astype(np.float32)
# Not at the ends, where the slope of an angle is infinite.
_COSINES = _RANDOM.uniform(-0.9, 0.9, (7, 5)).astype(np.float32)
_WEIGHTS = np.array([1, 4, 1, 0.5, 2], np.float32)
_COSTS = _RANDOM.uniform(0, 3, (5, 5)).astype(np.float32)
_COUNTS = np.array([100, 3, 40, 7, 1], np.int32)
_MARGINS = np.array([0, 0.4, 0, 0.1, 0], np.float32)
_SCALE = 16.0


def _own(values: np.ndarray) -> np.ndarray:
    return values[np.arange(len(values)), _LABELS]


def _log_shares(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def _surprise(logits: np.ndarray) -> np.ndarray:
    return -_own(_log_shares(logits))


def _pays_for_others(logits: np.ndarray) -> np.ndarray:
    others = _COSTS[:, _LABELS].T * (np.arange(5) != _LABELS[:, None])
    absent = np.log1p(-np.exp(_log_shares(logits)))
    return _WEIGHTS[_LABELS] * _surprise(logits) - (others * absent).sum(1)


def _transport(logits: np.ndarray) -> np.ndarray:
    logs = _log_shares(logits)
    return (np.exp(logs) * (_COSTS[:, _LABELS].T + 0.25 * (logs - 1))).sum(1)


def _focal(logits: np.ndarray) -> np.ndarray:
    return (1 - np.exp(-_surprise(logits))) ** 2 * _surprise(logits)


def _smoothed(logits: np.ndarray) -> np.ndarray:
    return 0.8 * _surprise(logits) - 0.2 * _log_shares(logits).mean(1)


def _widened(
    widen: Callable[[np.ndarray], np.ndarray],
) -> Callable[[np.ndarray], np.ndarray]:
    """Cross-entropy of cosines whose true class has another angle."""

    def loss(cosines: np.ndarray) -> np.ndarray:
        scores = cosines.copy()
        scores[np.arange(len(scores)), _LABELS] = widen(np.arccos(_own(cosines)))
        return _surprise(_SCALE * scores)

    return loss


def _sphere(angle: np.ndarray) -> np.ndarray:
    turns = np.floor(1.5 * angle / np.pi)
    return (-1) ** turns * np.cos(1.5 * angle) - 2 * turns


_LOSSES: dict[str, tuple[Mapping[str, Any], Callable[[np.ndarray], np.ndarray]]] = {
    "cross_entropy": ({}, _surprise),
    "real_world_weight_cross_entropy": (
        {"false_negative_weights": _WEIGHTS, "false_positive_weights": _COSTS},
        _pays_for_others,
    ),
    "wasserstein_with_integer_labels": (
        {"cost_matrix": _COSTS, "epsilon": 0.25},
        _transport,
    ),
    "focal": ({"gamma": 2.0}, _focal),
    "smoothed_cross_entropy": ({"smoothing": 0.2}, _smoothed),
    "balanced_softmax": (
        {"class_counts": _COUNTS},
        lambda z: _surprise(z + np.log(_COUNTS)),
    ),
    "camri": (
        {"margins": _MARGINS, "scale": _SCALE},
        _widened(lambda angle: np.cos(angle + _MARGINS[_LABELS])),
    ),
    "class_sensitive_cosface": (
        {"cosine_margins": _MARGINS, "scale": _SCALE},
        _widened(lambda angle: np.cos(angle) - _MARGINS[_LABELS]),
    ),
    "sphereface": ({"margin": 1.5, "scale": _SCALE}, _widened(_sphere)),
}
"""Options and a formula of each; other losses are these at some options."""


def _check_losses(placed: lift.Placement) -> _Checked:
    def slopes(logits: jax.Array, cosines: jax.Array) -> dict[str, Any]:
        found = {}
        for name, (options, _) in _LOSSES.items():
            loss = getattr(losses, name)

            def total(scores, loss=loss, options=options):
                values = loss(scores, _LABELS, **options)
                return values.sum(), values

            scores = cosines if "scale" in options else logits
            slope, values = jax.grad(total, has_aux=True)(scores)
            found[name] = values, slope
        return found

    found = _on_each(placed, slopes, _LOGITS, _COSINES)
    for name, (options, formula) in _LOSSES.items():
        scores = _COSINES if "scale" in options else _LOGITS
        scores = scores.astype(np.float64)
        values, slope = found[name]
        yield name, values, formula(scores), 1e-5
        wanted = _differences(lambda z, f=formula: f(z).sum(), scores)
        # Angles near the ends keep fewer digits of a slope.
        yield f"gradient of {name}", slope, wanted, 1e-4


def _differences(function: Callable[[Any], float], at: np.ndarray) -> np.ndarray:
    """The gradient by central differences in float64."""
    flat, slope, step = at.ravel().copy(), np.zeros(at.size), 1e-6
    for i, value in enumerate(flat):
        ends = []
        for flat[i] in (value + step, value - step):
            ends.append(function(flat.reshape(at.shape)))
        flat[i] = value
        slope[i] = (ends[0] - ends[1]) / (2 * step)
    return slope.reshape(at.shape)


# --- A training step and an evaluation -----------------------------------------------


def _check_training(placed: lift.Placement) -> _Checked:
    config = TrainConfig.of(
        METHODS["camri"],
        num_classes=5,
        num_images=len(_LABELS),
        # Plain steps, so that they tell the gradient.
        recipe=Recipe(
            batch_size=len(_LABELS),
            epochs=1,
            optimizer="sgd",
            momentum=0.0,
            learning_rate=0.5,
        ),
        backbone=CNN(
            blocks=(((4,),), ((4,), (6,))),
            feature_dim=8,
            dropout_rate=0.0,
            batch_norm_momentum=0.9,
            convolution=placed.convolution,
        ),
    )
    random = np.random.default_rng(1)
    # Some dark, some bright, some plain: normalization divides by how they vary.
    images = random.integers(0, 1 + random.integers(20, 255, (len(_LABELS), 1, 1, 2)))
    images = (images + random.integers(0, 2, (len(_LABELS), 8, 8, 2))).astype(np.uint8)
    problem = Problem(5, (1,), (1,) * 5)
    chosen = hyperparameters("camri", problem, {"margin": 0.4, "scale": 4.0})
    start = _start(config, images)

    def both(state, chosen, images):
        labels = jnp.asarray(_LABELS)
        after, loss = trial.train_step(config, state, chosen, images, labels)
        return loss, after.params, trial.score(config, after, chosen, images, labels)

    loss, params, scores = _on_each(placed, both, start, chosen, images)
    flat, unflat = _raveled(start.params)

    def objective(flat: np.ndarray) -> float:
        outputs, _ = _network(unflat(flat), None, images)
        cosines = _cosines(*outputs)
        angle = np.arccos(_own(cosines)) + 0.4 * (_LABELS == 1)
        cosines[np.arange(len(cosines)), _LABELS] = np.cos(angle)
        return float(_surprise(4 * cosines).mean())

    stepped = flat - 0.5 * _differences(objective, flat)
    _, batch = _network(unflat(flat), None, images)
    before = start.collections["batch_stats"]["backbone"]
    running = [
        (
            0.9 * before[f"BatchNorm_{i}"]["mean"] + 0.1 * mean,
            0.9 * before[f"BatchNorm_{i}"]["var"] + 0.1 * variance,
        )
        for i, (mean, variance) in enumerate(batch)
    ]
    outputs, _ = _network(unflat(stepped), running, images)
    cosines = _cosines(*outputs)
    weights = np.concatenate(
        [leaf.reshape(placed.mesh.size, -1) for leaf in jax.tree.leaves(params)], 1
    )
    yield "loss of a training step", loss, np.array(objective(flat)), 1e-5
    yield "weights after it", weights, stepped, 1e-4
    yield "logits of an evaluation", scores.logits, 4 * cosines, 1e-4
    yield "angles of an evaluation", scores.angle, np.arccos(_own(cosines)), 1e-4


def _start(config: TrainConfig, images: np.ndarray) -> trial.TrialState:
    """A state of random numbers: programs that draw them take long to compile."""
    random = np.random.default_rng(2)
    state = jax.eval_shape(functools.partial(trial.init, config), images, 0)

    def drawn(path: Any, leaf: Any) -> np.ndarray:
        wide = math.prod(leaf.shape[:-1]) ** -0.5 if leaf.ndim > 1 else 0.1
        centre = path[-1].key in ("scale", "var")
        return random.normal(centre, wide, leaf.shape).astype(np.float32)

    draw = functools.partial(jax.tree_util.tree_map_with_path, drawn)
    return trial.TrialState(
        params=draw(state.params),
        collections=draw(state.collections),
        opt_state=jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), state.opt_state),
        average=None,
        key=jax.random.key(0),
        step=jnp.int32(0),
    )


def _raveled(tree: Any) -> tuple[np.ndarray, Callable[[np.ndarray], Any]]:
    """A tree's leaves as one vector in float64, and how to undo it."""
    leaves, structure = jax.tree.flatten(tree)
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1]

    def unflat(flat: np.ndarray) -> Any:
        parts = zip(np.split(flat, ends), leaves, strict=True)
        return jax.tree.unflatten(structure, [p.reshape(x.shape) for p, x in parts])

    return np.concatenate([np.ravel(leaf) for leaf in leaves]).astype(float), unflat


_Statistics = list[tuple[np.ndarray, np.ndarray]]


def _network(
    params: Any, running: _Statistics | None, images: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray], _Statistics]:
    """Features and prototypes, and the statistics of the batch."""
    own, found = params["backbone"], []

    def normalized(x: np.ndarray, i: int) -> np.ndarray:
        axes = tuple(range(x.ndim - 1))
        found.append((x.mean(axes), x.var(axes)))
        mean, variance = found[i] if running is None else running[i]
        scaled = own[f"BatchNorm_{i}"]["scale"] / np.sqrt(variance + 1e-3)
        return (x - mean) * scaled + own[f"BatchNorm_{i}"]["bias"]

    x = _convolved(images / 255, **own["Conv_0"])
    x = x.reshape(len(x), 4, 2, 4, 2, -1).max((2, 4))
    x = normalized(_convolved(x, **own["Conv_1"]), 0)
    x = _convolved(x, **own["Conv_2"]).mean((1, 2))
    x = x @ own["Dense_0"]["kernel"] + own["Dense_0"]["bias"]
    return (normalized(x, 1), params["classes"]["prototypes"]), found


def _convolved(images: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """A 3x3 convolution of equal size, then a ReLU."""
    height, width = images.shape[1:3]
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    summed = bias + sum(
        padded[:, u : u + height, v : v + width] @ kernel[u, v]
        for u in range(3)
        for v in range(3)
    )
    return np.maximum(summed, 0)


def _cosines(features: np.ndarray, prototypes: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(features, axis=1)[:, None]
    return features @ prototypes / lengths / np.linalg.norm(prototypes, axis=0)


_CHECKS = (_check_sums, _check_losses, _check_training)
