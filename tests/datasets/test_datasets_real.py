"""The published files themselves, if `CAMRI_TEST_DATA` names a directory of them.

CAMRI_TEST_DATA=... pytest -m slow tests/datasets/test_datasets_real.py
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from camri_jax.datasets import load

_DATA = os.environ.get("CAMRI_TEST_DATA")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        _DATA is None,
        reason="CAMRI_TEST_DATA names no directory of the official files of cifar10, "
        "mnist and gtsrb, packed or unpacked",
    ),
]

# fmt: off
_COUNTS = {
    "mnist": (
        [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
        [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
    ),
    "cifar10": ([5000] * 10, [1000] * 10),
    "gtsrb": (
        [210, 2220, 2250, 1410, 1980, 1860, 420, 1440, 1410, 1470, 2010, 1320, 2100,
         2160, 780, 630, 420, 1110, 1200, 210, 360, 330, 390, 510, 270, 1500, 600, 240,
         540, 270, 450, 780, 240, 689, 420, 1200, 390, 210, 2070, 300, 360, 240, 240],
        [60, 720, 750, 450, 660, 630, 150, 450, 450, 480, 660, 420, 690, 720, 270, 210,
         150, 360, 390, 60, 90, 90, 120, 150, 90, 480, 180, 60, 150, 90, 150, 270, 60,
         210, 120, 390, 120, 60, 690, 90, 90, 60, 90],
    ),
}
# fmt: on
_SHAPES = {"mnist": (28, 28, 1), "cifar10": (32, 32, 3), "gtsrb": (48, 48, 3)}

_START = """
import json, sys, time
def peak():  # not getrusage, which begins with the peak of the parent process
    status = open("/proc/self/status").read()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])
if sys.argv[3] == "first":
    import tensorflow_datasets
before, start = peak(), time.perf_counter()
from camri_jax.datasets import load
dataset = load(sys.argv[1], data_dir=sys.argv[2])
seconds = time.perf_counter() - start
size = dataset.train_images.nbytes + dataset.test_images.nbytes
print(json.dumps({"seconds": seconds, "peak": peak() - before, "size": size}))
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Where the data sets of this module are prepared, once."""
    return tmp_path_factory.mktemp("prepared")


@pytest.fixture
def start(prepared, monkeypatch):
    """Loads a data set in a fresh process; returns seconds, peak and size in bytes."""
    monkeypatch.setenv("CAMRI_CACHE_DIR", str(prepared))

    def start(name, number):
        done = subprocess.run(
            [sys.executable, "-c", _START, name, str(_DATA), number],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return start


@pytest.mark.parametrize("name", ["mnist", "cifar10", "gtsrb"])
def test_memory_of_first_and_second_start(name, start):
    first, second = start(name, "first"), start(name, "second")
    print(name, first, second)
    # What imports and the allocator take does not grow with the data.
    fixed = 20e6
    assert first["peak"] < 2 * first["size"] + fixed
    assert second["peak"] < first["size"] + fixed


@pytest.mark.parametrize("name", ["mnist", "cifar10", "gtsrb"])
def test_counts_are_the_published_ones(name, prepared, monkeypatch):
    monkeypatch.setenv("CAMRI_CACHE_DIR", str(prepared))
    dataset = load(name, data_dir=_DATA)
    train, test = _COUNTS[name]
    assert np.bincount(dataset.train_labels).tolist() == train
    assert np.bincount(dataset.test_labels).tolist() == test
    assert dataset.train_images.shape == (sum(train), *_SHAPES[name])
    assert dataset.test_images.shape == (sum(test), *_SHAPES[name])


def test_the_calibration_part_is_the_same_at_any_size(prepared, monkeypatch):
    monkeypatch.setenv("CAMRI_CACHE_DIR", str(prepared))
    settings = {"validation_fraction": 0.1, "calibration_fraction": 0.2}
    one, two = (
        load("gtsrb", data_dir=_DATA, image_size=size, **settings) for size in (48, 24)
    )
    for part in one.parts:
        for field in ("labels", "groups"):
            pair = [getattr(data.parts[part], field) for data in (one, two)]
            assert np.array_equal(*pair)


@pytest.mark.parametrize("seed", range(3))
def test_no_track_of_gtsrb_lies_on_both_sides(seed, prepared, monkeypatch):
    monkeypatch.setenv("CAMRI_CACHE_DIR", str(prepared))
    dataset = load("gtsrb", data_dir=_DATA, validation_fraction=0.1, seed=seed)
    assert dataset.train_groups is not None
    assert dataset.validation_groups is not None
    assert not set(dataset.train_groups) & set(dataset.validation_groups)
    assert set(dataset.validation_labels) == set(range(43))
    assert 0.08 < len(dataset.validation_labels) / 39_209 < 0.12
    # 1,307 physical signs of about 30 frames each.
    tracks = np.concatenate([dataset.train_groups, dataset.validation_groups])
    assert len(np.unique(tracks)) == 1307
    assert np.unique(tracks, return_counts=True)[1].max() == 30
