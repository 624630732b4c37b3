"""What JAX is told before it starts."""

import contextlib
import os
from pathlib import Path

import jax

from camri_jax import _arrays
from camri_jax._machine import num_cores


def set_up_jax() -> None:
    """Gives a CPU one device a core and right sums, and keeps compiled programs."""
    _arrays.cure_wrong_sums()
    # What JAX is told by who starts it counts, as where cores are shared with others.
    forced = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if not forced and "JAX_NUM_CPU_DEVICES" not in os.environ:
        # Where JAX runs already, it stays as it is.
        with contextlib.suppress(RuntimeError):
            # Trials on devices of one core each run faster than one trial on all cores.
            jax.config.update("jax_num_cpu_devices", num_cores())
    # JAX keeps what took a second to compile, which some programs only sometimes do.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ and (cache := _cache()):
        jax.config.update("jax_compilation_cache_dir", str(cache))


def _cache() -> Path | None:
    """A directory for compiled programs, if there is a place for one."""
    with contextlib.suppress(RuntimeError, OSError):
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        cache = Path(base) / "camri_jax" / "xla"
        cache.mkdir(parents=True, exist_ok=True)
        if os.access(cache, os.W_OK):
            return cache
    return None
