"""A sweep on a local Ray cluster, one of whose workers is killed in the middle."""

import functools
import json
import os
import signal
import threading
import time

import numpy as np
import pytest

from camri_jax import datasets
from camri_jax.sweeps import engine, plan, rows
from camri_jax.training import lift
from camri_jax.training.recipe import Recipe

ray = pytest.importorskip("ray")
pytestmark = [
    pytest.mark.slow,
    # Ray's own, at the end of a process.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
LOAD = functools.partial(datasets.load, "digits", validation_fraction=0.2)


def kill_the_first(output, killed, ended):
    """Ends the process that makes the first claim, once it has it for a while."""
    while not (claims := [*output.glob("claims/*.1")]):
        if ended.wait(0.05):
            return
    owner = json.loads(claims[0].read_text())
    time.sleep(0.5)
    killed.append(owner["pid"])
    os.kill(owner["pid"], signal.SIGKILL)


@pytest.mark.usefixtures("promotion_as_optax_needs_it")
def test_a_sweep_ends_whole_though_a_worker_is_killed(tmp_path, monkeypatch):
    from camri_jax.sweeps import ray_engine

    # A machine with other work would starve them.
    monkeypatch.setenv("RAY_worker_niceness", "0")
    # Workers have neither this test's flags nor its strictness.
    # Before JAX has threads, which what is forked lacks.
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    dataset = LOAD()
    config = plan.SweepConfig(
        methods=("cross_entropy", "camri"),
        grid={"camri.margin": (0.2,)},
        important=("8",),
        num_seeds=2,
        recipe=Recipe(epochs=2, feature_dim=8),
    )
    planned = plan.plan(
        config, dataset, lift.placement(lift.trial_mesh(lift.jax.devices()[:1]))
    )
    assert len(planned.chunks) == 4
    killed, seen, output, ended = [], [], tmp_path / "ray", threading.Event()
    killer = threading.Thread(target=kill_the_first, args=(output, killed, ended))
    killer.start()
    try:
        ray_engine.run(
            planned,
            dataset,
            output,
            load=LOAD,
            resources={"CPU": 1},
            provenance={},
            on_progress=seen.append,
        )
    finally:
        ended.set()
        killer.join()
        ray.shutdown()
    assert len(killed) == 1
    assert killed[0] != os.getpid()
    assert [each.num_done for each in seen] == [1, 2, 3, 4]
    found = rows.read(output)
    assert {each.trial_id for each in planned.trials} == {*found["trial_id"]}
    assert not [*output.glob("claims/*")]
    engine.run(planned, dataset, tmp_path / "here", provenance={})
    here = rows.read(tmp_path / "here")
    for first, second in zip(found["loss"], here["loss"], strict=True):
        np.testing.assert_allclose(first, second, rtol=0.05)
