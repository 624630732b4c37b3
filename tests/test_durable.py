"""Nothing is lost and nothing is done twice: claims, shards, checkpoints, damage."""

import collections
import dataclasses
import errno
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import warnings

import fsspec
import jax
import numpy as np
import pandas as pd
import psutil
import pytest
from fsspec.spec import AbstractFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import DATASET, RECIPE, Tiny, placement, plan

from camri_jax import _files
from camri_jax._files import TryAgain, UsageError, address
from camri_jax.datasets import load
from camri_jax.evidence import study
from camri_jax.evidence.selection import Recommendation
from camri_jax.sweeps import checkpoints, claims, engine, shards
from camri_jax.sweeps import chunk as chunks
from camri_jax.sweeps import rows as stored
from camri_jax.takehome import load_model, verify
from camri_jax.takehome.sweeping import _keep, results_of

pytestmark = pytest.mark.usefixtures("promotion_as_optax_needs_it")

GRID = {"num_seeds": 3, "save_models": False}
RESULTS = sorted(set(stored.SCHEMA.names) - {"provenance"})


def start(
    output,
    *,
    index=None,
    count=1,
    minutes=10.0,
    on_progress=lambda progress: None,
    **changes,
):
    """Plans what has no rows, and trains it, or a shard of it."""
    done = set(stored.read(output)["trial_id"])
    planned = plan(done=done, **(GRID | changes))
    if index is not None:
        planned = shards.share(planned, shards.Shard(index, count))
    engine.run(
        planned,
        DATASET,
        output,
        provenance={"by": "test"},
        on_progress=on_progress,
        checkpoint_minutes=minutes,
    )
    return planned


def assert_same(a, b):
    assert list(a["trial_id"]) == list(b["trial_id"])
    for name in RESULTS:
        for x, y in zip(a[name], b[name], strict=True):
            np.testing.assert_array_equal(x, y, err_msg=name)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, promotion_as_optax_needs_it):
    output = tmp_path_factory.mktemp("sweep")
    start(output)
    return stored.read(output)


# --- Claims --------------------------------------------------------------------------

FREE = """
import sys, time
from pathlib import Path
from camri_jax.sweeps import claims
with claims.claimed(Path(sys.argv[1]), "chunk") as ours:
    print(ours, flush=True)
    time.sleep(60)
"""


def other(directory):
    """Another process that claims the chunk, and whether it got it."""
    child = subprocess.Popen(
        [sys.executable, "-c", FREE, directory], stdout=subprocess.PIPE, text=True
    )
    return child, child.stdout.readline().strip() == "True"


@pytest.mark.parametrize("place", ["local", "memory"])
def test_of_many_one_gets_a_claim_and_after_it_another(place, tmp_path):
    directory = tmp_path if place == "local" else address(f"memory://{tmp_path.name}")
    gate, got = threading.Barrier(8), []

    def claim():
        gate.wait()
        with claims.claimed(directory, "chunk") as ours:
            got.append(ours)
            gate.wait()

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [False] * 7 + [True]
    assert not list((directory / "claims").glob("*"))
    with claims.claimed(directory, "chunk") as ours:
        assert ours


def test_a_claim_of_a_killed_process_is_taken_over_at_once(tmp_path):
    child, theirs = other(tmp_path)
    with child:
        assert theirs
        with claims.claimed(tmp_path, "chunk") as ours:
            assert not ours
        child.kill()
    with claims.claimed(tmp_path, "chunk") as ours:
        assert ours
        assert [p.name for p in claims._of(tmp_path / "claims", "chunk")] == [
            "chunk.1",
            "chunk.2",
        ]
    assert not list((tmp_path / "claims").iterdir())


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_a_claim_that_does_not_beat_is_taken_over_in_time(
    content, tmp_path, monkeypatch
):
    """Of a lost host, or damaged; the clocks of hosts have no say."""
    owner = {"machine": "elsewhere", "pid": 1, "started": 1.0, "beat": 2e12}
    path = tmp_path / "claims" / "chunk.1"
    path.parent.mkdir()
    path.write_bytes(json.dumps(owner).encode() if content is None else content)
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    taken = []
    for clock[0] in (0.0, claims.STALE - 1, claims.STALE + 1):
        with claims.claimed(tmp_path, "chunk") as ours:
            taken.append(ours)
    assert taken == [False, False, True]


def test_a_claim_that_beats_is_never_taken_over(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "BEAT", 0.01)
    monkeypatch.setattr(claims, "STALE", 0.2)
    monkeypatch.setattr(claims, "_is_gone", lambda content: False)
    with claims.claimed(tmp_path, "chunk") as first:
        assert first
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            with claims.claimed(tmp_path, "chunk") as second:
                assert not second
            time.sleep(0.02)


def test_a_claim_beats_on_after_what_a_store_may_raise(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "BEAT", 0.001)
    write, failed = claims.write_whole, []

    def unreachable(path, content):
        if len(failed) < 3:
            failed.append(path)
            raise RuntimeError("no connection")
        write(path, content)

    monkeypatch.setattr(claims, "write_whole", unreachable)
    with claims.claimed(tmp_path, "chunk") as ours:
        assert ours
        (path,) = (tmp_path / "claims").iterdir()
        first, end = path.read_bytes(), time.monotonic() + 30
        while path.read_bytes() == first and time.monotonic() < end:
            time.sleep(0.01)
        assert path.read_bytes() != first
    assert len(failed) == 3


def test_a_clock_that_is_set_ends_no_claim(monkeypatch):
    """As NTP does, and a machine that was asleep; processes began by that clock."""
    content, began = claims._content(), psutil.Process.create_time
    assert not claims._is_gone(content)
    monkeypatch.setattr(psutil.Process, "create_time", lambda own: began(own) + 5)
    assert not claims._is_gone(content)
    another = {**json.loads(content), "began": 1.0}  # of the same number
    assert claims._is_gone(json.dumps(another).encode())


@pytest.mark.parametrize("boots", [("one", "two"), ("one", None), ("one", "one")])
def test_of_two_hosts_of_one_name_none_judges_the_processes_of_the_other(
    boots, tmp_path, monkeypatch
):
    """Cloned machines on one disk, each with a first container of the same number."""
    boot = tmp_path / "boot_id"
    monkeypatch.setattr(claims, "_BOOT", boot, raising=False)
    theirs, ours = boots
    boot.write_text(f"{theirs}\n")
    there = {**json.loads(claims._content()), "pid": 10**30}  # of no process here
    path = tmp_path / "claims" / "chunk.1"
    path.parent.mkdir()
    path.write_text(json.dumps(there))
    boot.unlink() if ours is None else boot.write_text(f"{ours}\n")
    with claims.claimed(tmp_path, "chunk") as taken:
        assert taken == (theirs == ours)


def test_who_was_suspended_does_not_end_the_claim_of_who_took_over(tmp_path):
    with claims.claimed(tmp_path, "chunk") as ours:
        assert ours
        later = tmp_path / "claims" / "chunk.2"
        later.write_bytes(b"of another")
    assert [p.name for p in (tmp_path / "claims").iterdir()] == ["chunk.2"]


def test_two_sweeps_in_one_directory_train_each_chunk_once(
    undisturbed, tmp_path, monkeypatch
):
    monkeypatch.setattr(engine, "PAUSE", 0.05)
    trained, train = [], engine.train_chunk

    def counted(chunk, *rest):
        trained.append(chunk.name)
        return train(chunk, *rest)

    monkeypatch.setattr(engine, "train_chunk", counted)
    threads = [threading.Thread(target=start, args=(tmp_path,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(trained) == len(set(trained)) == 3
    assert_same(stored.read(tmp_path), undisturbed)


def test_who_has_nothing_left_waits_for_others(undisturbed, tmp_path, monkeypatch):
    """And trains what they leave."""
    monkeypatch.setattr(engine, "PAUSE", 0.01)
    last = plan(**GRID).chunks[-1].name
    held = claims.claimed(tmp_path, last)
    assert held.__enter__()
    seen = []

    def report(progress):
        seen.append(progress.doing)
        if seen.count("waiting for others") == 3:
            held.__exit__(None, None, None)

    start(tmp_path, on_progress=report)
    assert seen.count("waiting for others") >= 3
    assert_same(stored.read(tmp_path), undisturbed)


# --- Shards --------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 7), st.sets(st.integers(0, 23)), st.booleans(), st.data())
def test_shards_part_what_is_missing_whatever_is_done(count, done, one_order, data):
    """By trials, or by seeds where those of a chunk must be of one."""
    where = placement(one_order=one_order, vectorized=one_order)
    grid = {
        "where": where,
        "methods": ("cross_entropy", "l2_softmax", "camri"),
        "num_seeds": 6,
    }
    grid |= {"important": ("bee", "ant")}
    trials = [trial.trial_id for trial in plan(**grid).trials]
    done = {trials[i] for i in done if i < len(trials)}
    own, sizes = [], []
    for index in range(count):
        # Each at another time, when more is done.
        found = shards.share(plan(done=done, **grid), shards.Shard(index, count))
        mine = [t.trial_id for chunk in found.chunks for t in chunk.trials]
        again = shards.share(plan(**grid), shards.Shard(index, count))
        units = [(c.family, t) for c in again.chunks for t in c.trials]
        all_of_it = {t.trial_id for _, t in units}
        assert set(mine) == all_of_it - done
        own += all_of_it
        if one_order:
            assert all(len({t.seed for t in c.trials}) == 1 for c in found.chunks)
            units = {(family, trial.seed) for family, trial in units}
        sizes.append(len(units))
        done |= data.draw(st.sets(st.sampled_from(sorted(all_of_it or {""}))))
    assert sorted(own) == sorted(trials)
    assert max(sizes) - min(sizes) <= 2  # programs


@settings(max_examples=8, deadline=None)
@given(st.integers(2, 5), st.integers(1, 7), st.integers(1, 2), st.data())
def test_a_shard_trains_few_copies_in_chunks_that_stay(
    count, per_device, num_devices, data
):
    """Whatever its own and other shards have done of them."""
    where = placement(num_devices, vectorized=True)
    grid = {"where": where, "num_seeds": 6, "trials_per_device": per_device}
    methods = ("cross_entropy", "l2_softmax", "camri")
    planned = plan(methods=methods, **grid)
    for index in range(count):
        own = shards.share(planned, shards.Shard(index, count)).chunks
        for chunk in own:
            assert chunk.width - len(chunk.trials) <= 2 * num_devices
        left = [chunk for chunk in own if data.draw(st.booleans())]
        ids = {t.trial_id for chunk in left for t in chunk.trials}
        mine = {t.trial_id for chunk in own for t in chunk.trials}
        others = {t.trial_id for t in planned.trials} - mine
        done = (mine - ids) | data.draw(
            st.sets(st.sampled_from(sorted(others or {""})))
        )
        later = shards.share(
            plan(methods=methods, done=done, **grid), shards.Shard(index, count)
        )
        assert [c.name for c in later.chunks] == [c.name for c in left]


def test_shards_and_one_process_write_the_same_rows(undisturbed, tmp_path):
    for index in (1, 0):
        start(tmp_path, index=index, count=2)
    assert_same(stored.read(tmp_path), undisturbed)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"SLURM_ARRAY_TASK_ID": "3"}, None),
        ({"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "4"}, "3/4"),
        (
            {
                "SLURM_ARRAY_TASK_ID": "3",
                "SLURM_ARRAY_TASK_COUNT": "4",
                "SLURM_ARRAY_TASK_MIN": "1",
                "SLURM_ARRAY_TASK_MAX": "7",
                "SLURM_ARRAY_TASK_STEP": "2",
            },
            "1/4",
        ),
        ({"JOB_COMPLETION_INDEX": "0", "JOB_COMPLETIONS": "2"}, "0/2"),
        ({"SKYPILOT_NODE_RANK": "1", "SKYPILOT_NUM_NODES": "2"}, "1/2"),
    ],
)
def test_a_scheduler_says_the_shard(environ, expected):
    found = shards.from_environment(environ)
    assert (found and str(found)) == expected


@pytest.mark.parametrize("text", ["4/4", "1", "a/2", "-1/2", "1/0", "1/2/3", "", "/"])
def test_a_shard_that_is_none_is_named(text):
    with pytest.raises(UsageError, match="must be INDEX/COUNT"):
        shards.parse(text)


def test_an_array_with_holes_is_no_shard():
    odd = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "3"}
    with pytest.raises(UsageError, match="SLURM_ARRAY_TASK_ID"):
        shards.from_environment(odd | {"SLURM_ARRAY_TASK_MIN": "1"})


@pytest.mark.parametrize("tasks", [(3,), (3, 5), (0, 2, 3), (1, 5, 7)])
def test_a_part_of_an_array_wants_its_share_said(tasks):
    """Its tasks would share otherwise than those of the whole, which may still run."""
    for task in tasks:
        environ = {
            "SLURM_ARRAY_TASK_ID": str(task),
            "SLURM_ARRAY_TASK_COUNT": str(len(tasks)),
            "SLURM_ARRAY_TASK_MIN": str(min(tasks)),
            "SLURM_ARRAY_TASK_MAX": str(max(tasks)),
            "SLURM_ARRAY_TASK_STEP": "1",
        }
        with pytest.raises(UsageError, match="--shard must say"):
            shards.from_environment(environ)


# --- Checkpoints ---------------------------------------------------------------------

LONG = {"recipe": dataclasses.replace(RECIPE, epochs=5)}


class Stop(Exception):
    pass


@pytest.mark.parametrize(
    "loop", ["steps", pytest.param("scan", marks=pytest.mark.slow)]
)
def test_a_chunk_goes_on_at_its_checkpoint_bit_for_bit(loop, tmp_path, monkeypatch):
    where = placement(loop=loop, vectorized=loop == "scan")
    grid = LONG | {"methods": ("camri",), "num_seeds": 2, "where": where}
    start(tmp_path / "whole", **grid)
    steps = []

    def stop(progress):
        steps.append(progress)
        if progress.num_done >= 2 * 0.65:  # of two trials at once
            raise Stop

    with pytest.raises(Stop):
        start(tmp_path / "parts", on_progress=stop, minutes=1e-9, **grid)
    (path,) = (tmp_path / "parts" / "checkpoints").iterdir()
    checkpoint = checkpoints.load(path)
    assert 1 <= checkpoint.epoch <= 4
    seen = []
    start(tmp_path / "parts", on_progress=seen.append, **grid)
    assert seen[0].num_done > 2 * checkpoint.epoch / 5
    assert not list((tmp_path / "parts" / "checkpoints").iterdir())
    assert_same(stored.read(tmp_path / "parts"), stored.read(tmp_path / "whole"))
    for part in ("validation", "test"):
        one, two = (
            dict(stored.read_logits(tmp_path / name, part))
            for name in ("parts", "whole")
        )
        jax.tree.map(np.testing.assert_array_equal, one, two)
    facts = json.loads(stored.read(tmp_path / "parts")["provenance"][0])
    assert facts["resumed_after_epoch"] == checkpoint.epoch


def stopped(output):
    """A directory with a chunk in its middle, its checkpoint."""

    def stop(progress):
        if progress.num_done > 2 * 0.65:
            raise Stop

    with pytest.raises(Stop):
        start(output, on_progress=stop, minutes=1e-9, **LONG)
    (path,) = (output / "checkpoints").iterdir()
    return path


def damaged(content, how):
    size = len(content)
    if how == "cut":
        return content[: size // 2]
    if how == "flipped":
        return (
            content[: size // 2]
            + bytes([content[size // 2] ^ 1])
            + content[size // 2 + 1 :]
        )
    return {"empty": b"", "foreign": b"PK and then"}[how]


@pytest.mark.parametrize("how", ["cut", "flipped", "empty", "foreign"])
def test_a_damaged_checkpoint_is_set_aside_and_the_chunk_begins_anew(how, tmp_path):
    path = stopped(tmp_path)
    path.write_bytes(damaged(path.read_bytes(), how))
    with pytest.warns(RuntimeWarning, match="is set aside: it is no checkpoint"):
        start(tmp_path, **LONG)
    assert [p.name for p in path.parent.iterdir()] == [f"{path.name}.damaged"]
    assert len(stored.read(tmp_path)) == 6


@pytest.mark.parametrize(
    "changed",
    [lambda leaves: leaves[1:], lambda leaves: [leaf[..., :1] for leaf in leaves]],
    ids=["fewer", "smaller"],
)
def test_a_checkpoint_of_other_programs_is_left_out(changed, tmp_path):
    path = stopped(tmp_path)
    checkpoint = checkpoints.load(path)
    checkpoints.save(path, checkpoint._replace(leaves=changed(checkpoint.leaves)))
    with pytest.warns(RuntimeWarning, match="a checkpoint is of other programs"):
        start(tmp_path, **LONG)
    assert len(stored.read(tmp_path)) == 6


@pytest.mark.parametrize("error", [OSError(28, "No space left"), RuntimeError("store")])
def test_a_checkpoint_that_cannot_be_written_costs_nothing_else(
    error, undisturbed, tmp_path, monkeypatch
):
    def full(*arguments):
        raise error

    monkeypatch.setattr(checkpoints, "save", full)
    with pytest.warns(RuntimeWarning, match="a checkpoint could not be written"):
        start(tmp_path, minutes=1e-9)
    assert_same(stored.read(tmp_path), undisturbed)


def test_of_logits_in_a_store_a_start_reads_the_end_alone(tmp_path, monkeypatch):
    output = address(f"memory://{tmp_path.name}")
    values = np.random.default_rng(0).normal(size=(30_000, 10)).astype(np.float32)
    stored.write_logits(output, "one", {"a": {"test": values}})
    (path,) = (output / "logits").iterdir()
    read, kind = [], type(path.open("rb"))
    reading = kind.read

    def counted(self, *size):
        found = reading(self, *size)
        read.append(len(found))
        return found

    monkeypatch.setattr(kind, "read", counted)
    stored.mend(output)
    assert 0 < sum(read) < path.stat().st_size / 8
    (found,) = stored.read_logits(output, "test")
    np.testing.assert_array_equal(found[1], values)


@pytest.mark.parametrize("place", ["local", "memory"])
def test_whose_a_checkpoint_is_is_told_without_its_states(place, tmp_path, monkeypatch):
    directory = tmp_path if place == "local" else address(f"memory://{tmp_path.name}")
    states = [np.zeros(1_000_000, np.float32)]
    checkpoint = chunks.Checkpoint(1, states, [np.zeros(2)], [], ("a", "b"))
    path = checkpoints.path_of(directory, "chunk")
    checkpoints.save(path, checkpoint)
    monkeypatch.setattr(checkpoints, "read_arrays", None)
    assert checkpoints.trials_of(path) == {"a", "b"}
    checkpoints.save(path, checkpoint._replace(trials=()))
    assert checkpoints.trials_of(path) == set()
    assert checkpoints.trials_of(path.with_name("none.npz")) == set()


def test_no_checkpoint_is_written_before_its_time(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "save", None)
    start(tmp_path)


# --- Stopping ------------------------------------------------------------------------


@pytest.fixture
def heard():
    """Ctrl-C as in a terminal: what is started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
def test_an_interruption_waits_for_what_is_being_written():
    done = []

    def write():
        with _files.uninterrupted():
            signal.raise_signal(signal.SIGINT)
            done.append("written")

    with pytest.raises(KeyboardInterrupt):
        write()
    assert done == ["written"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("heard")
def test_a_stop_while_rows_are_written_keeps_the_chunk(tmp_path, monkeypatch):
    write = stored.write

    def stopping(*arguments):
        signal.raise_signal(signal.SIGINT)
        write(*arguments)

    monkeypatch.setattr(stored, "write", stopping)
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path)
    assert len(stored.read(tmp_path)) == 2
    assert not list((tmp_path / "claims").iterdir())


# --- Damage --------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["rows", "data", "logits", "models"])
@pytest.mark.parametrize("how", ["cut", "empty", "foreign"])
def test_what_is_damaged_is_set_aside_told_and_made_anew(
    what, how, undisturbed, tmp_path
):
    start(tmp_path, save_models=True)
    path = sorted((tmp_path / what).iterdir())[0]
    path.write_bytes(damaged(path.read_bytes(), how))
    with pytest.warns(RuntimeWarning, match=f"{path.name} is set aside: it "):
        stored.mend(tmp_path)
    assert path.with_name(f"{path.name}.damaged").exists()
    # Trained anew, a trial may differ in its last digits from logits that stay.
    left = [len(list((tmp_path / n).glob("*.parquet"))) for n in ("rows", "logits")]
    assert left == ([3, 3] if what == "data" else [2, 2])
    planned = start(tmp_path, save_models=True)
    # A chunk of two trials, but for the labels, which any start writes.
    assert planned.num_missing == (0 if what == "data" else 2)
    if what == "data":
        stored.write_data(tmp_path, DATASET)
    assert path.exists()
    assert_same(stored.read(tmp_path), undisturbed)
    assert len(dict(stored.read_logits(tmp_path, "test"))) == 6
    stored.mend(tmp_path)


def contents(directory, what):
    if what == "rows":
        return stored.read(directory).to_dict("list")
    if what == "data":
        return stored.read_data(directory, DATASET.fingerprint)
    return dict(stored.read_logits(directory, "test"))


@pytest.mark.parametrize("what", ["rows", "data", "logits"])
def test_no_flipped_bit_changes_what_is_read(what, tmp_path):
    """A file is refused by its name, or reads as it was written."""
    start(tmp_path)
    expected = contents(tmp_path, what)
    path = sorted((tmp_path / what).iterdir())[0]
    whole = path.read_bytes()
    refused = []
    places = np.linspace(0, len(whole) - 1, 250).astype(int)
    for place in places:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            found = contents(tmp_path, what)
        except UsageError as error:
            refused.append((bytes(flipped), str(error)))
        else:
            np.testing.assert_equal(found, expected)
    # The rest is statistics and other things that reading does not need.
    assert len(refused) > len(places) / 3
    assert all(path.name in told for _, told in refused)
    if what != "logits":  # Of which a start looks at the end alone.
        path.write_bytes(refused[0][0])
        with pytest.warns(RuntimeWarning, match=f"{path.name} is set aside: it "):
            stored.mend(tmp_path)


class Unread(io.BytesIO):
    """An open file whose disk answers no more."""

    def read(self, *size):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    readinto = readinto1 = read1 = read


@pytest.mark.parametrize("what", ["rows", "data", "logits", "models"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE, errno.EIO])
def test_what_cannot_be_read_is_not_taken_for_damaged(
    what, number, tmp_path, monkeypatch
):
    """As another's file, one too many, or one of a server that is away."""
    path = tmp_path / what / ("a.npz" if what == "models" else "a.parquet")
    _files.put(path, b"whatever it holds")
    opened = pathlib.Path.open

    def refuse(self, mode="r", *given):
        if self != path:
            return opened(self, mode, *given)
        if number == errno.EIO and what != "models":
            return Unread(b"whatever it holds")
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(pathlib.Path, "open", refuse)
    with pytest.raises(OSError, match=os.strerror(number)) as error:
        stored.mend(tmp_path)
    assert error.value.errno == number
    assert list(path.parent.iterdir()) == [path]


def test_what_a_store_refuses_for_now_is_not_taken_for_damaged(tmp_path, monkeypatch):
    output = address(f"memory://{tmp_path.name}")
    start(output, num_seeds=1, **LONG)
    before = sorted(p.name for p in output.rglob("*.*"))

    def busy(*given, **options):
        raise OSError(errno.EBUSY, "Please reduce your request rate.")

    monkeypatch.setattr(type(output.fs), "_open", busy)
    monkeypatch.setattr(type(output.fs), "cat_file", busy)
    with pytest.raises(OSError, match="reduce your request rate"):
        stored.mend(output)
    with pytest.raises(OSError, match="reduce your request rate"):
        stored.read(output)
    assert sorted(p.name for p in output.rglob("*.*")) == before


def test_a_checkpoint_that_cannot_be_read_is_not_set_aside(tmp_path, monkeypatch):
    path = checkpoints.path_of(tmp_path, "chunk")
    _files.put(path, b"whatever it holds")
    monkeypatch.setattr(pathlib.Path, "open", lambda self, mode: Unread(b"PK"))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        checkpoints.load(path)
    assert path.exists()


@pytest.mark.parametrize("place", ["local", "memory"])
def test_of_many_that_find_damage_one_says_it_and_none_fails(place, tmp_path):
    directory = tmp_path if place == "local" else address(f"memory://{tmp_path.name}")
    path, other = directory / "one.parquet", directory / "two.parquet"
    _files.put(path, b"damaged")
    _files.put(other, b"of no use")
    with pytest.warns(RuntimeWarning, match="one.parquet is set aside: why"):
        _files.set_aside(path, "why", other)
    _files.set_aside(path, "why", other)
    names = sorted(p.name for p in directory.iterdir())
    assert names == ["one.parquet.damaged", "two.parquet.damaged"]


@pytest.mark.parametrize("missing", ["one", "two"])
def test_what_another_process_set_aside_first_stops_nothing(missing, tmp_path):
    """Between the renaming of a file and that of what goes with it."""
    paths = {name: tmp_path / name for name in ("one", "two")}
    for name, path in paths.items():
        if name != missing:
            path.write_bytes(b"damaged")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        _files.set_aside(paths["one"], "why", paths["two"])
    assert len(told) == (missing == "two")
    (left,) = tmp_path.iterdir()
    assert left.suffix == ".damaged"


@pytest.mark.parametrize("what", ["rows", "logits", "data", "models"])
def test_what_killed_processes_were_writing_goes_in_an_hour(what, tmp_path):
    name = "." + "a" * 32 + (".npz" if what == "models" else ".parquet")
    for age, kept in ((60, True), (4000, False)):
        path = tmp_path / what / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age, time.time() - age))
        stored.mend(tmp_path)
        assert path.exists() == kept


def test_each_file_goes_to_the_disk_once(tmp_path, monkeypatch):
    """As does its directory."""
    synced = []
    monkeypatch.setattr(_files, "_sync", synced.append)
    start(tmp_path, num_seeds=1, save_models=True)
    for what in ("rows", "logits", "models", "data"):
        written = list((tmp_path / what).iterdir())
        once = sum(what in path.relative_to(tmp_path).parts for path in synced)
        assert once == 2 * len(written) > 0


def test_what_was_killed_when_it_was_done_is_cleared(tmp_path):
    done = plan(**GRID).chunks[0]
    start(tmp_path)
    for path in (
        tmp_path / "claims" / f"{done.name}.1",
        checkpoints.path_of(tmp_path, done.name),
    ):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"left")
        start(tmp_path, num_seeds=4)
        (tmp_path / "rows" / f"{plan(**GRID).chunks[-1].name}.parquet").unlink()
        start(tmp_path)
        assert not path.exists()


def test_a_checkpoint_goes_when_its_trials_were_trained_in_other_chunks(tmp_path):
    """And not before."""
    path = stopped(tmp_path)
    of = set(checkpoints.load(path).trials)
    assert of == {trial.trial_id for trial in plan(**GRID | LONG).chunks[0].trials}
    done = {each.trial_id for each in plan(**GRID | LONG).trials} - of
    where, seen = placement(1), []
    first, second = plan(done=done, where=where, **GRID | LONG).chunks
    for chunk in (first, second):
        narrow = plan(where=where, **GRID | LONG)._replace(chunks=[chunk])
        engine.run(narrow, DATASET, tmp_path, provenance={})
        seen.append(path.exists())
    assert seen == [True, False]


# --- Devices -------------------------------------------------------------------------


@pytest.mark.parametrize("loop", ["steps", "scan"])
def test_the_devices_of_a_cpu_share_one_copy_of_the_data(loop):
    """Wherever the arrays of the host begin."""
    room = np.zeros(27 * 64 + 1, np.uint8)
    images = room[1:].reshape(27, 8, 8, 1)
    train = dataclasses.replace(DATASET.parts["train"], images=images)
    parts = DATASET.parts | {"train": train}
    dataset = dataclasses.replace(DATASET, parts=parts)
    where = placement(2, loop=loop)
    data = chunks.place(dataset, plan().chunks[0].config, where)
    for array in jax.tree.leaves((data.train, data.scored)):
        shards_of = [shard.data for shard in array.addressable_shards]
        assert len(shards_of) == 2
        assert len({each.unsafe_buffer_pointer() for each in shards_of}) == 1
    np.testing.assert_array_equal(data.train[0], images)


def test_no_chunk_places_the_images_again(monkeypatch):
    """They are what a network measures before its first step, too."""
    planned, where = plan(), placement()
    data = chunks.place(DATASET, planned.chunks[0].config, where)
    monkeypatch.setattr(chunks.lift, "replicate", None)
    chunks.train_chunk(planned.chunks[0], data, where)


def test_the_steps_of_past_epochs_take_no_memory_of_a_device(tmp_path):
    most = collections.Counter()

    def count(progress):
        epoch = int(6 * progress.num_done / progress.num_trials)
        most[epoch] = max(most[epoch], len(jax.live_arrays()))

    recipe = dataclasses.replace(RECIPE, epochs=6)
    start(tmp_path, on_progress=count, methods=("camri",), num_seeds=2, recipe=recipe)
    assert most[2] == most[3] == most[4]


# --- Stores --------------------------------------------------------------------------


def test_a_store_is_written_to_and_read_like_a_directory(
    undisturbed, tmp_path, monkeypatch
):
    output = f"memory://{tmp_path.name}/results"
    calls = []
    put = _files.put

    def counted(path, content, **options):
        calls.append(path.name)
        return put(path, content, **options)

    monkeypatch.setattr(_files, "put", counted)
    start(output, save_models=True)
    names = [p.name for p in address(output).rglob("*.*")]
    # Whole, in one call, under its own name.
    assert sorted(calls) == sorted(names)
    assert_same(stored.read(output), undisturbed)
    assert start(output).num_missing == 0
    found = study.load(output, important="bee")
    assert len(dict(found.logits("test", list(found.rows["trial_id"])))) == 6


def test_what_is_taken_home_is_read_from_a_store_again(tmp_path):
    output = f"memory://{tmp_path.name}/results"
    changes = {"methods": ("cross_entropy", "camri"), "save_models": True}
    result = results_of(start(output, **changes), DATASET, address(output), Tiny())
    for path in result.files.values():
        assert path.exists()
    name, logits = next(
        result.study.logits("test", list(result.study.rows["trial_id"]))
    )
    trial = pd.Series({"trial_id": name, "moved": False, "offset": 0.5})
    picked = Recommendation(trial, "")
    model = _keep(address(output), result.study, (1,), picked, DATASET, Tiny())
    taken = load_model(str(model), Tiny())
    images = DATASET.parts["test"].images
    np.testing.assert_array_equal(taken.raw_logits(images), logits)
    assert "without a promise" in verify(str(model)).sentences[0]
    with pytest.raises(UsageError, match="must be a path of this machine"):
        load(f"folder:{output}")


def test_a_store_without_exclusive_writing_wants_shards(
    undisturbed, tmp_path, monkeypatch
):
    monkeypatch.setattr(claims, "possible", lambda directory: False)
    for index in range(2):
        with pytest.warns(RuntimeWarning, match="must be given a shard"):
            start(tmp_path, index=index, count=2)
    assert not (tmp_path / "claims").exists()
    assert_same(stored.read(tmp_path), undisturbed)


@pytest.fixture
def slept(monkeypatch):
    """Pauses, on a clock that only they move."""
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    monkeypatch.setattr(time, "monotonic", lambda: float(sum(pauses)))
    return pauses


def test_a_store_that_is_away_is_waited_for_and_costs_no_training(
    undisturbed, tmp_path, monkeypatch, slept
):
    output = address(f"memory://{tmp_path.name}/results")
    trained, train = [], engine.train_chunk
    calls = collections.Counter()

    def away(module, name):
        """Each second time that it is called."""
        real = getattr(module, name)

        def call(*given, **options):
            calls[name] += 1
            if calls[name] % 2:
                raise OSError(errno.EBUSY, "Please reduce your request rate.")
            return real(*given, **options)

        monkeypatch.setattr(module, name, call)

    for name in ("exist", "trained", "write", "write_data"):
        away(stored, name)
    away(checkpoints, "load")
    away(claims, "_created")

    def counted(chunk, *rest):
        trained.append(chunk.name)
        return train(chunk, *rest)

    monkeypatch.setattr(engine, "train_chunk", counted)
    with pytest.warns(RuntimeWarning, match="request rate.*; it is tried again for 30"):
        start(output)
    assert len(calls) == 6
    assert set(slept) <= {1.0, 2.0, 4.0}
    assert len(trained) == len(set(trained)) == 3
    assert_same(stored.read(output), undisturbed)
    assert not list((output / "claims").glob("*"))


def test_patience_with_a_store_ends(slept):
    def away():
        raise ConnectionError("no route")

    with (
        pytest.warns(RuntimeWarning, match="cannot be reached") as told,
        pytest.raises(TryAgain, match=r"memory://a.* \(no route\) for 30 minutes"),
    ):
        _files.patiently(address("memory://a"), away)
    assert len(told) == 1
    assert slept[:8] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert 1800 <= sum(slept) < 1860


@pytest.mark.parametrize(
    ("place", "error"),
    [
        ("memory://a", PermissionError("Access Denied")),
        ("memory://a", KeyError("a bug")),
        ("a", ConnectionError("no route")),
    ],
)
def test_what_will_not_pass_is_not_waited_for(place, error, slept):
    def fail():
        raise error

    with pytest.raises(type(error)):
        _files.patiently(address(place), fail)
    assert not slept


class Plain(AbstractFileSystem):
    """A store that says of itself nothing about writing what must not exist."""

    protocol = "plain"


def test_who_cannot_write_exclusively_cannot_claim():
    fsspec.register_implementation("plain", Plain, clobber=True)
    assert claims.possible(address("memory://a"))
    assert claims.possible(address("a"))
    assert not claims.possible(address("plain://a"))


def test_an_unknown_store_is_named():
    with pytest.raises(UsageError, match="nowhere://a cannot be written"):
        address("nowhere://a")
    with pytest.raises(UsageError, match="~nobody_there/a: there is no such home"):
        address("~nobody_there/a")
