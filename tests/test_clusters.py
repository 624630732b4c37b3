"""Sweeps of several processes: a store's server, shards, kills, one cluster."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from camri_jax.sweeps import rows as stored

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parent
RESULTS = sorted(set(stored.SCHEMA.names) - {"provenance"})

# What `camri sweep` does, on the smallest data and network.
SWEEP = """
import os, sys, time
import jax
from camri_jax import _arrays
_arrays.cure_wrong_sums()
jax.config.update("jax_num_cpu_devices", int(os.environ.get("DEVICES", 2)))
jax.config.update("jax_compilation_cache_dir", sys.argv[2])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
from camri_jax._files import address
from camri_jax.cli.sweep import RunArguments, missing_of, shard_of
from camri_jax.sweeps import engine, rows, shards
from camri_jax.training import lift
engine.PAUSE = 0.2
share = shard_of(RunArguments(distributed="distributed" in sys.argv))
from tiny import DATASET, plan
output = address(sys.argv[1])
done = set(rows.read(output, ["trial_id"])["trial_id"])
where = lift.placement(lift.trial_mesh())
planned = plan(done=done, num_seeds=8, save_models=False, where=where)
if share is not None:
    planned = shards.share(planned, share)
print(share, planned.num_missing, flush=True)
def report(progress):
    print(progress.num_done, flush=True)
    time.sleep(float(sys.argv[3]))
engine.run(planned, DATASET, output, provenance={}, on_progress=report,
           checkpoint_minutes=1e-9)
while share is not None and share.source == "JAX":
    if not missing_of(planned, output):
        break
    time.sleep(0.2)
"""


def start(output, programs, *words, pause=0.0, **environ):
    return subprocess.Popen(
        [sys.executable, "-c", SWEEP, str(output), str(programs), str(pause), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(TESTS)} | environ,
    )


def ended(*children):
    """What they said; all of them must have ended well."""
    said = [child.communicate(timeout=500) for child in children]
    for child, (_, errors) in zip(children, said, strict=True):
        assert child.returncode == 0, errors
    return [out for out, _ in said]


def array(index, count):
    return {"SLURM_ARRAY_TASK_ID": str(index), "SLURM_ARRAY_TASK_COUNT": str(count)}


def cluster(index, count):
    """What SLURM tells the processes that it starts as one."""
    return {
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": str(count),
        "SLURM_LOCALID": "0",
        "SLURM_PROCID": str(index),
    }


def assert_whole(output, undisturbed):
    a, b = stored.read(output), undisturbed
    assert list(a["trial_id"]) == list(b["trial_id"])
    for name in RESULTS:
        for x, y in zip(a[name], b[name], strict=True):
            np.testing.assert_array_equal(x, y, err_msg=name)


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, programs):
    output = tmp_path_factory.mktemp("sweep")
    ended(start(output, programs))
    return stored.read(output)


@pytest.fixture
def bucket(monkeypatch):
    """A bucket of an S3 server on this machine, and what processes must know of it."""
    boto3 = pytest.importorskip("boto3")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    environ = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="results")
    yield "s3://results/sweep"
    server.stop()


def test_two_processes_share_a_sweep_in_a_store(bucket, programs, undisturbed):
    both = [start(bucket, programs, pause=0.05) for _ in range(2)]
    said = ended(*both)
    # Each had a part: who trains does not wait for what the other trains.
    alone = 8 * (2 * 3 + 2)
    assert all(out.count("\n") < alone for out in said)
    assert_whole(bucket, undisturbed)


@pytest.mark.parametrize("count", [2, 4])
def test_shards_of_which_one_is_killed_and_started_again(
    count, tmp_path, programs, undisturbed
):
    first = start(tmp_path, programs, pause=1.0, **array(0, count))
    # Killed in the middle of a chunk, while others train theirs.
    while not list((tmp_path / "checkpoints").glob("[!.]*")):
        assert first.poll() is None
        time.sleep(0.02)
    others = [start(tmp_path, programs, **array(i, count)) for i in range(1, count)]
    first.kill()
    first.communicate()
    ended(*others)
    before = len(stored.read(tmp_path))
    (said,) = ended(start(tmp_path, programs, **array(0, count)))
    assert said.startswith(f"0/{count} {16 - before}\n")
    assert_whole(tmp_path, undisturbed)
    facts = map(json.loads, stored.read(tmp_path)["provenance"])
    assert any("resumed_after_epoch" in fact for fact in facts)


def test_devices_that_share_the_trials_unevenly_write_the_same_rows(
    tmp_path, programs, undisturbed
):
    """16 trials on 3 and on 7 devices, as on 2.

    One device splits its sums among cores: there the last digits are others.
    """
    for devices in ("3", "7"):
        ended(start(tmp_path / devices, programs, DEVICES=devices))
        assert_whole(tmp_path / devices, undisturbed)


def test_processes_of_one_cluster_share_a_sweep(tmp_path, programs, undisturbed):
    """As SLURM starts them, on this machine."""
    both = [start(tmp_path, programs, "distributed", **cluster(i, 2)) for i in range(2)]
    said = ended(*both)
    assert [out.split("\n")[0] for out in said] == ["0/2 8", "1/2 8"]
    assert_whole(tmp_path, undisturbed)


@pytest.mark.parametrize("words", [(), ("--distributed",)], ids=["alone", "cluster"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_command_says_how_to_go_on(number, words, tmp_path):
    script = "import sys; from camri_jax.cli import main; sys.exit(main.start('sweep'))"
    command = [sys.executable, "-c", script, "--epochs", "200", "--output", tmp_path]
    child = subprocess.Popen(
        [*command, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | (cluster(0, 1) if words else {}),
    )
    while not list((tmp_path / "claims").glob("*")):
        assert child.poll() is None
        time.sleep(0.1)
    child.send_signal(number)
    _, errors = child.communicate(timeout=120)
    assert child.returncode == 130
    assert "stopped; the same command goes on where it was" in errors
    assert "Traceback" not in errors
    assert not list((tmp_path / "claims").iterdir())


def test_the_same_deterministic_command_writes_the_same_rows(tmp_path):
    script = "import sys; from camri_jax.cli import main; sys.exit(main.start('sweep'))"
    words = "--deterministic --epochs 1 --num-seeds 1 --methods cross_entropy camri"
    found = []
    for name in ("a", "b"):
        output = tmp_path / name
        command = [sys.executable, "-c", script, *words.split(), "--output", output]
        subprocess.run(command, check=True, capture_output=True)
        found.append(stored.read(output))
    assert_whole(tmp_path / "a", found[1])
    facts = json.loads(found[0]["provenance"][0])
    assert "--xla_gpu_deterministic_ops=true" in facts["xla_flags"]


def test_fifty_kills_cost_no_row(tmp_path):
    command = [sys.executable, "-W", "ignore", TESTS / "killing.py", tmp_path, "50"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert result["kills"] == 50
    assert result["columns that differ"] == []
    assert result["rows"] == result["rows expected"]
    assert result["checkpoints and claims left"] == 0
    assert set(result["while writing"]) > {"nothing"}
