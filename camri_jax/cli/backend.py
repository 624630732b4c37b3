"""What JAX is told before it starts."""

import contextlib
import math
import os
from pathlib import Path

import jax

from camri_jax import _arrays


def set_up_jax() -> None:
    """Gives a CPU one device a core, right sums, and keeps compiled programs."""
    _arrays.cure_wrong_sums()
    # Where JAX runs already, it stays as it is.
    with contextlib.suppress(RuntimeError):
        # Trials on devices of one core each run faster than one trial on all cores.
        jax.config.update("jax_num_cpu_devices", num_cores())
    # JAX keeps what took a second to compile, which some programs only sometimes do.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ and (cache := _cache()):
        jax.config.update("jax_compilation_cache_dir", str(cache))


def num_cores() -> int:
    """Cores that this process may use: as many as it is bound to, or a quota allows."""
    number = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        number = len(os.sched_getaffinity(0))
    return max(1, min(number, _quota()))


_ROOT = Path("/")


def _quota() -> int:
    """Whole cores of the least quota of the control groups around this process."""
    least = 2**31
    for unified, path in _groups():
        with contextlib.suppress(OSError, ValueError):
            if unified:
                quota, period = (path / "cpu.max").read_text().split()
            else:
                quota = (path / "cpu.cfs_quota_us").read_text()
                period = (path / "cpu.cfs_period_us").read_text()
            if quota != "max" and int(quota) > 0:
                least = min(least, math.ceil(int(quota) / int(period)))
    return least


def _groups() -> list[tuple[bool, Path]]:
    """Directories of this process's control groups and those around them."""
    found, mounts = [], _ROOT / "sys/fs/cgroup"
    with contextlib.suppress(OSError):
        for line in (_ROOT / "proc/self/cgroup").read_text().splitlines():
            _, controllers, inner = line.split(":", 2)
            unified = controllers == ""
            if not unified and "cpu" not in controllers.split(","):
                continue
            roots = [mounts, mounts / "unified"]
            if not unified:
                roots = [mounts / controllers, mounts / "cpu"]
            for root in roots:
                path = root / inner.lstrip("/")
                for each in (path, *path.parents):
                    if each.is_relative_to(root):
                        found.append((unified, each))
    return found


def _cache() -> Path | None:
    """A directory for compiled programs, if there is a place for one."""
    with contextlib.suppress(RuntimeError, OSError):
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        cache = Path(base) / "camri_jax" / "xla"
        cache.mkdir(parents=True, exist_ok=True)
        if os.access(cache, os.W_OK):
            return cache
    return None
