"""100,000 examples that no one would think of: losses, certificates and readers.

Values are finite, or as documented: NaN for a label that is no class and for a row all
of -inf, infinite where a logit of -inf rules the true class out. Gradients are never
NaN. A file that was cut or changed is read, or refused in a sentence.
"""

import contextlib
import functools
import math
import shutil
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_bad_inputs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from loss_cases import (
    BATCH,
    BY_TWO_CLASSES,
    CLASSES,
    COSINE_LOSSES,
    LOSSES,
    every_slope,
)

from camri_jax import datasets, guarantee
from camri_jax._files import UsageError
from camri_jax.datasets.reading import read_images
from camri_jax.sinkhorn import sinkhorn
from camri_jax.sweeps import checkpoints, chunk, rows
from camri_jax.takehome import load_model, verify
from camri_jax.training import classifier

pytestmark = pytest.mark.slow

EXAMPLES = 100_000
DTYPES = ("float32", "bfloat16", "float16", "float64")


def unhurried(share):
    """So many of all examples, however long each takes."""
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
    slow.append(HealthCheck.function_scoped_fixture)
    number = round(share * EXAMPLES)
    return settings(max_examples=number, deadline=None, suppress_health_check=slow)


# --- Numbers of every size -----------------------------------------------------------

SPECIAL = (0.0, -0.0, 1.0, -1.0, 1e-45, -1e-40, 1.2e-38, 6e-8, 88.7, -104.0, 65504.0)
SPECIAL += (1e30, -1e30, 1e-30, 16.0, 0.5)
WIDE = st.floats(-1e30, 1e30).map(np.float32).map(float)
FINITE = st.one_of(st.sampled_from(SPECIAL), WIDE, st.floats(-9, 9))


def matrices(elements):
    """`[example, class]`; most of their numbers may be equal."""
    return hnp.arrays(np.float64, (BATCH, CLASSES), elements=elements)


def with_a_hollow_row(logits):
    logits[0] = -math.inf
    return logits


LOGITS = matrices(st.one_of(FINITE, st.just(-math.inf)))
LOGITS |= LOGITS.map(with_a_hollow_row)
ENDS = st.sampled_from((-1.0, 1.0, 0.0, 1e-40, 1 - 6e-8, -1 + 6e-8, 0.99999, 1.004))
COSINES = matrices(st.one_of(ENDS, st.floats(-1, 1)))
LABELS = hnp.arrays(np.int32, BATCH, elements=st.integers(-1, CLASSES))
# What multiplies a loss: its own size, nothing, or far from it.
SIZES = st.sampled_from((1.0, 1.0, 0.0, 1e-30, 1e4))


@functools.cache
def program():
    return jax.jit(every_slope)


def stored(numbers, dtype):
    """In a type, within its range; -inf stays."""
    top = float(jnp.finfo(dtype).max)
    return np.where(np.isinf(numbers), numbers, numbers.clip(-top, top)).astype(
        jnp.dtype(dtype)
    )


def sized(size):
    """The losses' numbers, weights and costs as large as asked."""
    scaled = BY_TWO_CLASSES | {"class_weights", "false_negative_weights"}
    return {
        name: {k: v * np.float32(size) if k in scaled else v for k, v in own.items()}
        for name, own in LOSSES.items()
    }


@pytest.mark.parametrize("dtype", DTYPES)
@unhurried(0.1)
@given(LOGITS, COSINES, LABELS, SIZES)
def test_losses_are_finite_and_slopes_are_numbers(dtype, logits, cosines, labels, size):
    with jax.enable_x64(dtype == "float64"):
        given = stored(logits, dtype), stored(cosines, dtype), labels
        values, slopes = jax.device_get(program()(*given, sized(size)))
    known = (labels >= 0) & (labels < CLASSES)
    valid = known & ~np.isneginf(logits).all(1)
    own = logits[np.arange(BATCH), labels.clip(0, CLASSES - 1)]
    for name, value in values.items():
        counted = known if name in COSINE_LOSSES else valid
        assert np.isnan(value[~counted]).all(), name
        assert not np.isnan(value[counted]).any(), name
        assert np.isfinite(value[counted & np.isfinite(own)]).all(), name
        for slope in jax.tree.leaves(slopes[name]):
            assert not np.isnan(slope).any(), name


COSTS = hnp.arrays(np.float32, (CLASSES, CLASSES), elements=WIDE)
RATIOS = st.sampled_from((1e-30, 1e-9, 1e-6, 1e-3, 0.1, 1.0, 1e6))


@functools.cache
def transport():
    def cost(log_a, log_b, costs, epsilon):
        result = sinkhorn(log_a, log_b, costs, epsilon=epsilon, max_iterations=20)
        return result.cost.sum(), result

    return jax.jit(jax.value_and_grad(cost, argnums=(0, 1, 2, 3), has_aux=True))


@unhurried(0.1)
@given(LOGITS, LOGITS, st.one_of(COSTS, COSTS.map(lambda c: c / 1e30)), RATIOS)
def test_sinkhorn_is_finite_and_its_slopes_are_numbers(first, second, costs, ratio):
    histograms = [shares(stored(each, "float32")) for each in (first, second)]
    epsilon = np.float32(np.clip(ratio * np.abs(costs).max(), 1e-30, 1e30))
    (_, result), slopes = jax.device_get(transport()(*histograms, costs, epsilon))
    for name, value in (*result._asdict().items(), *enumerate(slopes)):
        assert np.isfinite(value).all(), name


def shares(logits):
    """Log-softmax; a row that is ruled out whole has all in its first class."""
    none = np.isneginf(logits).all(1)
    logits[none, 0] = 0
    return np.asarray(jax.nn.log_softmax(logits.astype(np.float32)))


# --- Certificates --------------------------------------------------------------------

SHARES = st.one_of(st.floats(0.001, 0.999), st.sampled_from((0.9, 0.99, 0.5, 1e-9)))
TIES = st.sampled_from((0.0, 1.0, 1e30, -1e30, 1e-45))
SCORES = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 60), st.just(3)),
    elements=st.one_of(TIES, WIDE, st.just(-math.inf)),
)


@unhurried(0.2)
@given(SCORES, SHARES, SHARES, st.integers(1, 300), st.booleans(), st.randoms())
def test_a_certificate_keeps_its_word_on_any_scores(
    logits, recall, confidence, candidates, grouped, random
):
    size = len(logits)
    labels = np.array([random.randrange(3) for _ in range(size)])
    groups = np.array([random.randrange(9) for _ in range(size)]) if grouped else None
    try:
        found = guarantee.certify_recall(
            logits,
            labels,
            1,
            recall=recall,
            confidence=confidence,
            groups=groups,
            candidates=candidates,
        )
        price = guarantee.price(logits, labels, 1, found.offset or 0.0)
    except UsageError:
        return
    assert found.certified == (found.why_not is None) == (found.offset is not None)
    if found.certified:
        limit = guarantee.largest_certifiable(
            found.num_images if groups is None else found.num_groups,
            confidence=confidence,
            candidates=candidates,
        )
        assert recall <= limit
        assert not math.isnan(found.offset)
    for measure in (price.false_alarms, price.accuracy, price.recall):
        assert measure.low <= measure.value <= measure.high


# --- Files ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A file of each kind, and how it is read."""
    cwd = tmp_path_factory.mktemp("whole")
    test_bad_inputs.npz_files(cwd)
    test_bad_inputs.folders(cwd)
    test_bad_inputs.results(cwd)
    test_bad_inputs.models(cwd)
    shutil.make_archive(str(cwd / "own"), "zip", cwd / "folder")
    checkpoint = chunk.Checkpoint(
        1, [np.zeros(9)], [np.zeros(2)], [np.zeros((2, 2, 2))]
    )
    checkpoints.save(cwd / "checkpoint.npz", checkpoint)
    return cwd


def read_npz(folder, path):
    datasets.load(f"npz:{path}")


def read_zip(folder, path):
    datasets.load(f"folder:{path}", image_size=8)


def in_place(place, reader):
    """Reads a file from where it belongs in a copy of a directory."""

    def read(folder, path):
        shutil.copyfile(path, folder / place)
        reader(folder)

    return read


def read_model(folder):
    verify(folder)
    load_model(folder)


KINDS = {
    "npz": ("signs.npz", read_npz),
    "zip": ("own.zip", read_zip),
    "picture": ("folder/a/0.png", lambda _, path: read_images([path], (8, 8, 3))),
    "trial": ("trial.npz", lambda _, path: classifier.load(path)),
    "checkpoint": ("checkpoint.npz", lambda _, path: checkpoints.load(path)),
    "rows": ("out/rows/a.parquet", in_place("rows/a.parquet", rows.read)),
    "logits": (
        "out/logits/a.parquet",
        in_place("logits/a.parquet", lambda f: list(rows.read_logits(f, "test"))),
    ),
    "labels": (
        "out/data/made-up.parquet",
        in_place("data/made-up.parquet", lambda f: rows.read_data(f, "made-up")),
    ),
    "weights": (
        "model/weights.safetensors",
        in_place("weights.safetensors", read_model),
    ),
    "scores": (
        "model/calibration.safetensors",
        in_place("calibration.safetensors", read_model),
    ),
    "about": ("model/model.json", in_place("model.json", read_model)),
}
EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 255), st.sampled_from("=+-")),
    min_size=1,
    max_size=4,
)


def edited(content, edits, cut):
    """A file with some bytes changed, put in or left out, and perhaps cut."""
    found = bytearray(content)
    for place, byte, kind in edits:
        at = round(place * (len(found) - 1)) if found else 0
        found[at : at + (kind != "+")] = b"" if kind == "-" else bytes([byte])
    return bytes(found[: round(cut * len(found))])


@pytest.mark.parametrize("kind", KINDS)
@unhurried(0.3 / len(KINDS))
@given(EDITS, st.one_of(st.just(1.0), st.just(1.0), st.floats(0, 1)))
def test_a_file_is_read_or_refused_in_a_sentence(kind, whole, monkeypatch, edits, cut):
    name, read = KINDS[kind]
    content = (whole / name).read_bytes()
    folder = whole / f"own_{kind}"
    if not folder.exists():
        base = whole / ("model" if name.startswith("model") else "out")
        shutil.copytree(base, folder)
    path = folder / f"edited{(whole / name).suffix}"
    path.write_bytes(edited(content, edits, cut))
    monkeypatch.setenv("CAMRI_CACHE_DIR", str(folder / "cache"))
    shutil.rmtree(folder / "cache", ignore_errors=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(UsageError):
            read(folder, path)
