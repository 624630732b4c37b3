"""What a process may use of its machine, by files as containers have them."""

import os

import psutil
import pytest

from camri_jax import _machine
from camri_jax.cli import backend


def grouped(group, files, root, monkeypatch):
    """A machine whose control groups have these files."""
    if group is not None:
        (root / "proc" / "self").mkdir(parents=True)
        (root / "proc" / "self" / "cgroup").write_text(group + "\n")
    for name, text in files.items():
        path = root / "sys" / "fs" / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    monkeypatch.setattr(_machine, "_ROOT", root)


@pytest.mark.parametrize(
    ("group", "files", "cores"),
    [
        ("0::/", {}, 64),
        ("0::/", {"cpu.max": "max 100000"}, 64),
        ("0::/", {"cpu.max": "100000 100000"}, 1),
        ("0::/", {"cpu.max": "50000 100000"}, 1),
        ("0::/", {"cpu.max": "250000 100000"}, 3),
        ("0::/a/b", {"a/cpu.max": "200000 100000", "a/b/cpu.max": "max 100000"}, 2),
        ("0::/a/b", {"a/cpu.max": "200000 100000", "a/b/cpu.max": "900000 100000"}, 2),
        ("0::/x", {"unified/x/cpu.max": "400000 100000"}, 4),
        ("0::/", {"cpu.max": "what is this"}, 64),
        (
            "4:cpu,cpuacct:/docker/1",
            {
                "cpu,cpuacct/cpu.cfs_quota_us": "-1",
                "cpu,cpuacct/cpu.cfs_period_us": "100000",
                "cpu,cpuacct/docker/1/cpu.cfs_quota_us": "200000",
                "cpu,cpuacct/docker/1/cpu.cfs_period_us": "100000",
            },
            2,
        ),
        # Inside a container its own group is mounted as the root.
        (
            "4:cpu:/docker/1",
            {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"},
            3,
        ),
        ("5:memory:/", {"cpu.max": "100000 100000"}, 64),
        (None, {"cpu.max": "100000 100000"}, 64),
    ],
)
def test_a_container_has_the_cores_of_its_quota(
    group, files, cores, tmp_path, monkeypatch
):
    grouped(group, files, tmp_path, monkeypatch)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)))
    assert _machine.num_cores() == cores


@pytest.mark.parametrize(
    ("group", "files", "free"),
    [
        ("0::/", {}, 1000),
        ("0::/", {"memory.max": "max", "memory.current": "5"}, 1000),
        (
            "0::/job",
            {
                "memory.max": "500",
                "memory.current": "100",
                "memory.stat": "inactive_file 0",
                "job/memory.max": "100",
                "job/memory.current": "70",
                "job/memory.stat": "anon 40\ninactive_file 30",
            },
            60,
        ),
        (
            "9:memory:/",
            {
                "memory/memory.limit_in_bytes": "100",
                "memory/memory.usage_in_bytes": "70",
                "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 20",
            },
            50,
        ),
        # Version 1 says so of no limit.
        (
            "9:memory:/",
            {
                "memory/memory.limit_in_bytes": str(2**63 - 4096),
                "memory/memory.usage_in_bytes": "70",
                "memory/memory.stat": "total_inactive_file 20",
            },
            1000,
        ),
    ],
)
def test_a_container_has_the_memory_of_its_limit(
    group, files, free, tmp_path, monkeypatch
):
    grouped(group, files, tmp_path, monkeypatch)
    there = type("Memory", (), {"available": 1000})
    monkeypatch.setattr(psutil, "virtual_memory", there)
    assert _machine.free_bytes() == free


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("JAX_NUM_CPU_DEVICES", "1", False),
        ("XLA_FLAGS", "--xla_force_host_platform_device_count=8", False),
        ("XLA_FLAGS", "--xla_cpu_enable_fast_math=false", True),
    ],
)
def test_who_says_how_many_devices_a_cpu_is_gets_them(name, value, told, monkeypatch):
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES", raising=False)
    monkeypatch.setenv(name, value)
    seen = {}
    monkeypatch.setattr(backend.jax.config, "update", seen.__setitem__)
    backend.set_up_jax()
    assert ("jax_num_cpu_devices" in seen) == told
