"""What this process may use of its machine; in a container, less than there is."""

import contextlib
import math
import os
from pathlib import Path

import psutil

_ROOT = Path("/")


def num_cores() -> int:
    """Cores that this process may use: as many as it is bound to, or a quota allows."""
    number = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        number = len(os.sched_getaffinity(0))
    return max(1, min(number, _quota()))


def free_bytes() -> int:
    """Bytes of memory that are free, or that a limit leaves, if these are fewer."""
    free = psutil.virtual_memory().available
    for unified, path in _groups("memory"):
        limit, used, cached = "memory.max", "memory.current", "inactive_file"
        if not unified:
            limit, used = "memory.limit_in_bytes", "memory.usage_in_bytes"
            cached = "total_inactive_file"
        # There may be no limit, or the word max.
        with contextlib.suppress(OSError, ValueError):
            most, now = (int((path / name).read_text()) for name in (limit, used))
            lines = (path / "memory.stat").read_text().splitlines()
            # Cached files make room for what needs it.
            counts = dict(line.split() for line in lines)
            free = max(0, min(free, most - now + int(counts.get(cached, 0))))
    return free


def _quota() -> int:
    """Whole cores of the least quota of the control groups around this process."""
    least = 2**31
    for unified, path in _groups("cpu"):
        with contextlib.suppress(OSError, ValueError):
            if unified:
                quota, period = (path / "cpu.max").read_text().split()
            else:
                quota = (path / "cpu.cfs_quota_us").read_text()
                period = (path / "cpu.cfs_period_us").read_text()
            if quota != "max" and int(quota) > 0:
                least = min(least, math.ceil(int(quota) / int(period)))
    return least


def _groups(controller: str) -> list[tuple[bool, Path]]:
    """Directories of this process's control groups and those around them."""
    found, mounts = [], _ROOT / "sys/fs/cgroup"
    with contextlib.suppress(OSError):
        for line in (_ROOT / "proc/self/cgroup").read_text().splitlines():
            _, controllers, inner = line.split(":", 2)
            unified = controllers == ""
            if not unified and controller not in controllers.split(","):
                continue
            roots = [mounts, mounts / "unified"]
            if not unified:
                roots = [mounts / controllers, mounts / controller]
            for root in roots:
                path = root / inner.lstrip("/")
                for each in (path, *path.parents):
                    if each.is_relative_to(root):
                        found.append((unified, each))
    return found
