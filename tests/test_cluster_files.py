"""The files to paste into a cluster: run against schedulers that only write down."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from camri_jax.cli import console
from camri_jax.sweeps import shards

CLUSTER = Path(__file__).parents[1] / "experiments" / "cluster"


@pytest.fixture
def run(tmp_path):
    """Runs a script with stand-ins on its path; returns what these were called with."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "activate").write_text("")
    for name, own in (
        ("srun", 'exec "$@"'),
        # Describes no TPU, for there is none.
        ("gcloud", '[ "$4" != describe ] || [ -n "${FOUND:-}" ]'),
        ("git", ""),
        (
            "camri",
            f'printf "%s" "${{CAMRI_CACHE_DIR:-}}" > "{tmp_path}/cache"; '
            f'printf "%s" "${{CAMRI_DATA_DIR:-}}" > "{tmp_path}/place"',
        ),
    ):
        said = f'printf "%s\\n" "{name} $(printf "%q " "$@")" >> "{tmp_path}/calls"'
        (tools / name).write_text(f"#!/bin/bash\n{said}\n{own}\n")
        (tools / name).chmod(0o755)
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "bin").symlink_to(tools)

    def run(script, *words, **variables):
        subprocess.run(
            ["bash", CLUSTER / script, *words],
            env={"PATH": f"{tools}:{os.environ['PATH']}", **variables},
            cwd=tmp_path,
            check=True,
        )
        calls = (tmp_path / "calls").read_text().splitlines()
        return [shlex.split(call) for call in calls]

    return run


@pytest.mark.parametrize("script", ["sweep.sbatch", "tpu_vm.sh"])
def test_scripts_are_bash(script):
    subprocess.run(["bash", "-n", CLUSTER / script], check=True)


def test_a_slurm_task_passes_its_words_on(run, tmp_path):
    words = ("--dataset", "folder:my signs", "--important", "a b")
    venv, output = str(tmp_path / "venv"), str(tmp_path / "out put")
    task = {"SLURM_ARRAY_TASK_ID": "3"}
    calls = run("sweep.sbatch", *words, CAMRI_VENV=venv, CAMRI_OUTPUT=output, **task)
    # What is said later counts, as an --output of one's own.
    command = ["sweep", "--shard", "3/8", "--output", output, *words]
    doctor, sweep = calls[:2], calls[2:]
    assert doctor == [["srun", "camri", "doctor"], ["camri", "doctor"]]
    assert sweep == [["srun", "camri", *command], ["camri", *command]]


def test_users_of_a_node_have_caches_of_their_own(run, tmp_path):
    own, seen = {"CAMRI_VENV": str(tmp_path / "venv"), "SLURM_ARRAY_TASK_ID": "0"}, []
    (tmp_path / "tools" / "id").write_text('#!/bin/bash\necho "$WHO"\n')
    (tmp_path / "tools" / "id").chmod(0o755)
    for changes in (
        {"WHO": "ann"},
        {"WHO": "bob"},
        {"SLURM_TMPDIR": "/job"},
        {"CAMRI_CACHE_DIR": "/mine"},
    ):
        run("sweep.sbatch", **own, **changes)
        seen.append((tmp_path / "cache").read_text())
    assert len(set(seen)) == 4
    assert seen[2:] == ["/job/camri", "/mine"]


@pytest.mark.parametrize("given", [None, "/official"])
@pytest.mark.parametrize("there", [False, True])
def test_data_are_taken_from_a_directory_that_is_there(run, tmp_path, there, given):
    own = {"CAMRI_VENV": str(tmp_path / "venv"), "SLURM_ARRAY_TASK_ID": "0"}
    own |= {"CAMRI_DATA_DIR": given} if given else {}
    if there:
        (tmp_path / "data").mkdir()
    run("sweep.sbatch", **own)
    found = str(tmp_path / "data") if there else ""
    assert (tmp_path / "place").read_text() == (given or found)


def test_the_tasks_of_slurm_are_the_shards_whichever_are_submitted(run, tmp_path):
    asked = dict(
        line.removeprefix("#SBATCH --").split("=", 1)
        for line in (CLUSTER / "sweep.sbatch").read_text().splitlines()
        if line.startswith("#SBATCH") and "=" in line
    )
    first, last = map(int, asked["array"].split("-"))
    venv = {"CAMRI_VENV": str(tmp_path / "venv")}
    for task in (first, last):
        # As when it alone is submitted again.
        one = {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_COUNT": "1"}
        words = run("sweep.sbatch", **venv, **one)[-1]
        shard = shards.parse(words[words.index("--shard") + 1])
        assert (shard.index, shard.count) == (task, last + 1)


def test_a_tpu_is_made_filled_used_and_deleted(run):
    where = {"PROJECT": "me", "ZONE": "z", "OUTPUT": "gs://b/c", "TYPE": "v5litepod-16"}
    calls = run("tpu_vm.sh", "--important", "a b", **where)
    used = [call for call in calls if call[0] == "gcloud"]
    verbs = [call[4] for call in used]
    assert verbs == ["describe", "create", "scp", "ssh", "ssh", "delete"]
    assert "uv venv --python 3.12" in used[3][-1]
    command = shlex.split(used[4][-1])
    assert command[0] == "JAX_PLATFORMS=tpu"
    assert command[2:] == [
        "sweep",
        "--distributed",
        *("--output", "gs://b/c", "--important", "a b"),
    ]
    assert all("me" in call and "z" in call for call in used)


def test_the_tpu_of_another_run_is_left_alone(run, tmp_path):
    with pytest.raises(subprocess.CalledProcessError):
        run("tpu_vm.sh", PROJECT="me", ZONE="z", OUTPUT="gs://b/c", FOUND="yes")
    (call,) = (tmp_path / "calls").read_text().splitlines()
    assert "describe" in call


def test_the_job_of_kubernetes_says_how_many_it_is(tmp_path):
    yaml = pytest.importorskip("yaml")
    job = yaml.safe_load((CLUSTER / "kubernetes.yaml").read_text())["spec"]
    (container,) = job["template"]["spec"]["containers"]
    variables = {each["name"]: each["value"] for each in container["env"]}
    assert int(variables["JOB_COMPLETIONS"]) == job["completions"]
    index = {"JOB_COMPLETION_INDEX": "3"}
    assert str(shards.from_environment(variables | index)) == f"3/{job['completions']}"
    assert variables["JAX_PLATFORMS"] == "cuda"
    camri = tmp_path / "camri"
    camri.write_text('#!/bin/sh\necho "$@"\n[ "$1" = sweep ] || exit "$DOCTOR"\n')
    camri.chmod(0o755)
    for status, said in (("0", ["doctor", "sweep --a b"]), ("2", ["doctor"])):
        done = subprocess.run(
            [*container["command"], "--a", "b"],
            env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "DOCTOR": status},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        assert done.stdout.splitlines() == said
        # 2 would end the index.
        assert done.returncode == int(len(said) < 2)
    # What may pass by itself is tried again.
    (rule,) = [r for r in job["podFailurePolicy"]["rules"] if "onExitCodes" in r]
    assert rule["action"] == "FailIndex"
    assert console.LATER not in rule["onExitCodes"]["values"]


def test_skypilot_runs_the_same_command_on_every_node():
    yaml = pytest.importorskip("yaml")
    task = yaml.safe_load((CLUSTER / "skypilot.yaml").read_text())
    assert "camri doctor && ~/camri/bin/camri sweep" in task["run"]
    assert task["envs"]["JAX_PLATFORMS"] == "cuda"
    nodes = {"SKYPILOT_NODE_RANK": "1", "SKYPILOT_NUM_NODES": str(task["num_nodes"])}
    assert shards.from_environment(nodes).count == task["num_nodes"]
