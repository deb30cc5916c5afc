"""Devices: precision, compile cache, distribution of runs over devices and processes, free memory."""

import atexit
import contextlib
import ctypes
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from purecc4 import limits
from purecc4.errors import UserError

Precision = Literal["auto", "bfloat16", "float32"]
_MULTIPLIES_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}
"""Names in /proc/cpuinfo, of Intel, AMD and ARM."""


def precision(wanted: Precision) -> Precision:
    """Resolve `auto`: bfloat16 if the device multiplies it natively, else float32. Initialises JAX to find out."""
    if wanted != "auto":
        return wanted
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        about = Path("/proc/cpuinfo")
        native = about.exists() and bool(_MULTIPLIES_BFLOAT16 & set(about.read_text().split()))
    else:
        native = device.platform == "tpu" or float(getattr(device, "compute_capability", 0)) >= 8
    return "bfloat16" if native else "float32"


MOST_PER_CORE = 16
_FIXED = {
    "jax_threefry_partitionable": True,
    "jax_default_prng_impl": "threefry2x32",
    "jax_enable_x64": False,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
}
"""Options of JAX that change random numbers or the types of arrays, with the values of every result of this project."""


def fix_options() -> None:
    """Set the options of JAX on which results depend, whatever its environment variables are."""
    for name, value in _FIXED.items():
        if getattr(jax.config, name, value) == value:  # or this version has no such option
            continue
        jax.config.update(name, value)
        if name.upper() in os.environ:
            print(f"{name.upper()} has no effect here: results need its value {value}.", file=sys.stderr)


def use_compile_cache() -> None:
    """Keep compiled programs in the user's cache folder, unless JAX_COMPILATION_CACHE_DIR names another one."""
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        try:
            home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        except RuntimeError:  # no home folder
            print("No home folder, so no cache of compiled programs: set JAX_COMPILATION_CACHE_DIR.", file=sys.stderr)
        else:
            jax.config.update("jax_compilation_cache_dir", str(home / "purecc4"))
    jax.config.update("jax_persistent_cache_enable_xla_caches", "xla_gpu_per_fusion_autotune_cache_dir")


def use_cores(num_runs: int) -> None:
    """Split the CPU into devices, one for each run that trains at the same time.

    Runs on one core each are faster than runs in turn on all cores. Does nothing if JAX is initialised already or
    XLA_FLAGS sets the number of CPU devices.
    """
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", runs_at_a_time(num_runs))


def runs_at_a_time(num_runs: int) -> int:
    """Runs that a CPU trains at the same time: the smallest divisor of `num_runs` that uses all cores.

    If that is above MOST_PER_CORE runs per core, one per core: copies pad the last ones.
    """
    cores = limits.cores()
    most = min(num_runs, MOST_PER_CORE * cores)
    return next((n for n in range(cores, most + 1) if num_runs % n == 0), min(num_runs, cores))


_ENDED = (
    "a process of the job has failed or cannot be reached: its output may say why. Start all processes again, with "
    "--resume if the run folder has a state."
)


@contextlib.contextmanager
def job() -> Iterator[None]:
    """Join a job as `join_job` does. Context in which the failure of one process ends the others with a sentence.

    Raises UserError if another process cannot be reached. After an error, this process ends without waiting for others.
    """
    # JAX's own threads abort when another process is gone; a handler of Python's would wait for the main thread
    ctypes.CDLL(None).signal(signal.SIGABRT, _aborted)
    join_job()
    try:
        yield
    except Exception as error:
        # an ordinary exit waits for all processes, and they wait for this one
        atexit.register(_leave)
        if jax.process_count() > 1 and is_of_xla(error):
            raise UserError(f"{_ENDED} ({str(error).splitlines()[0]})") from error
        raise


def is_of_xla(error: Exception) -> bool:
    """True for an error of a running program, such as a lost connection.

    The first run of a compiled program raises ValueError with the name of an XLA status.
    """
    return isinstance(error, jax.errors.JaxRuntimeError) or bool(
        isinstance(error, ValueError)
        and re.match("(UNKNOWN|INTERNAL|ABORTED|UNAVAILABLE|DEADLINE_EXCEEDED):", str(error))
    )


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _aborted(_: int) -> None:
    os.write(2, f"--distributed: {_ENDED}\n".encode())
    os._exit(1)


def _leave() -> None:
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(1)


def join_job() -> None:
    """Join a job of several processes, which share all their devices.

    SLURM, Open MPI, Kubernetes and cloud TPUs number the processes; elsewhere, set JAX_COORDINATOR_ADDRESS (host:port
    of the first process), JAX_NUM_PROCESSES and JAX_PROCESS_ID. Raises UserError if there is no such job.
    """
    numbers = [os.environ.get(name) for name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")]
    try:
        jax.distributed.initialize(None, *(int(number) if number else None for number in numbers))
    except (ValueError, RuntimeError) as error:
        raise UserError(
            "--distributed needs a job of SLURM, Open MPI or similar, or the variables JAX_COORDINATOR_ADDRESS, "
            f"JAX_NUM_PROCESSES and JAX_PROCESS_ID ({error})."
        ) from error


def is_main_process() -> bool:
    """True in the one process of a job that prints and writes."""
    return jax.process_index() == 0


def gather(tree: PyTree) -> PyTree:
    """Collect arrays that are sharded over the devices of all processes. All processes must call it together."""
    return multihost_utils.process_allgather(tree, tiled=True)


def anywhere(condition: bool) -> bool:
    """True if the condition holds in any process. All processes must call it together."""
    return bool(np.any(multihost_utils.process_allgather(np.array(condition))))


def run_sharding(count: int | None = None) -> NamedSharding:
    """Sharding of the leading axis, the runs, over all devices or the first `count`."""
    mesh = Mesh(np.array(jax.devices()[:count]), ("run",), axis_types=(AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec("run"))


def shard_runs(tree: PyTree, sharding: NamedSharding | None = None) -> PyTree:
    """Shard arrays with a leading run axis. Copies of run 0 pad them to a multiple of the devices."""
    sharding = sharding or run_sharding()

    def pad(x):
        x = np.asarray(x)
        return np.concatenate([x, np.repeat(x[:1], -len(x) % sharding.num_devices, 0)])

    return jax.device_put(jax.tree.map(pad, tree), sharding)


def bytes_needed(compiled: jax.stages.Compiled) -> int:
    """Bytes that a compiled program needs on each device, including its arguments and results."""
    memory = compiled.memory_analysis()
    sizes = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
    return sizes - memory.alias_size_in_bytes


def bytes_available() -> int:
    """Free bytes on each device. CPU devices share what this process may use."""
    device = jax.local_devices()[0]
    stats = device.memory_stats()
    if stats and device.platform != "cpu":
        return stats["bytes_limit"] - stats["bytes_in_use"]
    return limits.free_memory() // jax.local_device_count()
