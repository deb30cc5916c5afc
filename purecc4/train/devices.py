"""Where programs run: all devices as one row, the run axis spread over them, the compile cache, the memory there is."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from purecc4.errors import UserError

Precision = Literal["auto", "bfloat16", "float32"]
_MULTIPLIES_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}
"""Names in /proc/cpuinfo, of Intel, AMD and ARM."""


def precision(wanted: Precision) -> Precision:
    """bfloat16 or float32; `auto` is bfloat16 where the device multiplies it natively. Starts JAX to find out."""
    if wanted != "auto":
        return wanted
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        about = Path("/proc/cpuinfo")
        native = about.exists() and bool(_MULTIPLIES_BFLOAT16 & set(about.read_text().split()))
    else:
        native = device.platform == "tpu" or float(getattr(device, "compute_capability", 0)) >= 8
    return "bfloat16" if native else "float32"


def use_compile_cache() -> None:
    """Keep compiled programs in the user's cache folder, unless JAX_COMPILATION_CACHE_DIR names another one."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(home / "purecc4"))
    jax.config.update("jax_persistent_cache_enable_xla_caches", "xla_gpu_per_fusion_autotune_cache_dir")


def use_cores(num_runs: int) -> None:
    """Let so many independent runs fill the cores of a CPU: each goes faster alone on a core than all in turn on all.

    Does nothing where JAX has started already, or where XLA_FLAGS sets the number of CPU devices.
    """
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", side_by_side(num_runs))


def side_by_side(num_runs: int) -> int:
    """How many runs a CPU takes at a time: no fewer than it has cores, in equal rounds."""
    cores = os.cpu_count() or 1
    return min((n for n in range(cores, num_runs + 1) if num_runs % n == 0), default=num_runs)


def join_job() -> None:
    """Become one of the processes of a job, whose devices then count as one row.

    SLURM, Open MPI, Kubernetes and cloud TPUs say who is who; elsewhere JAX_COORDINATOR_ADDRESS (host:port of the first
    process), JAX_NUM_PROCESSES and JAX_PROCESS_ID do. Raises UserError if nothing does.
    """
    numbers = [os.environ.get(name) for name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")]
    try:
        jax.distributed.initialize(None, *(int(number) if number else None for number in numbers))
    except (ValueError, RuntimeError) as error:
        raise UserError(
            "--distributed needs a job of SLURM, Open MPI or the like, or the variables JAX_COORDINATOR_ADDRESS, "
            f"JAX_NUM_PROCESSES and JAX_PROCESS_ID ({error})."
        ) from error


def leads() -> bool:
    """Whether this is the process of the job that prints and writes."""
    return jax.process_index() == 0


def gather(tree: PyTree) -> PyTree:
    """Arrays spread over the devices of all processes, whole on the host of each. All processes must ask together."""
    return multihost_utils.process_allgather(tree, tiled=True)


def anywhere(condition: bool) -> bool:
    """Whether it is true in any process. All processes must ask together."""
    return bool(np.any(multihost_utils.process_allgather(np.array(condition))))


def run_sharding(count: int | None = None) -> NamedSharding:
    """The leading axis of every array, the runs, spread evenly over all devices or the first few."""
    mesh = Mesh(np.array(jax.devices()[:count]), ("run",), axis_types=(AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec("run"))


def spread(tree: PyTree, sharding: NamedSharding) -> PyTree:
    """Place arrays with a leading run axis on the devices; where that does not come out even, run 0 fills the gap."""

    def pad(x):
        x = np.asarray(x)
        return np.concatenate([x, np.repeat(x[:1], -len(x) % sharding.num_devices, 0)])

    return jax.device_put(jax.tree.map(pad, tree), sharding)


def over_runs(function: Callable, sharding: NamedSharding) -> Callable:
    """`function` of one run for arrays with a leading run axis, each device for itself.

    An accelerator takes its runs side by side. A CPU takes them in turn: that is no slower there, needs the memory of
    one run, and makes each equal to the same run alone to the last bit, which a batched matrix product does not.
    """

    def in_turn(*args):
        return jax.lax.map(lambda one: function(*one), args)

    many = in_turn if jax.default_backend() == "cpu" else jax.vmap(function)
    return jax.shard_map(many, mesh=sharding.mesh, in_specs=sharding.spec, out_specs=sharding.spec, check_vma=False)


def bytes_needed(compiled: jax.stages.Compiled) -> int:
    """Memory that a compiled program takes on each device, its arguments and results included."""
    memory = compiled.memory_analysis()
    sizes = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
    return sizes - memory.alias_size_in_bytes


def bytes_available() -> int:
    """Memory free on each device; CPU devices share that of the machine."""
    device = jax.local_devices()[0]
    stats = device.memory_stats()
    if stats and device.platform != "cpu":
        return stats["bytes_limit"] - stats["bytes_in_use"]
    return _machine_bytes() // jax.local_device_count()


def _machine_bytes() -> int:
    """What the machine can still give, or where the system does not say, all that it has."""
    table = Path("/proc/meminfo")
    if table.exists():
        fields = dict(line.split(":") for line in table.read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
