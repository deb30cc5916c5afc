"""Specifications of a GPU, and compiling for it without having it."""

import importlib.metadata
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding
from jaxtyping import PyTree

from purecc4.errors import UserError, user_file

GPUS = Path(__file__).parent / "gpus"
_FLOPS_PER_CLOCK = {"8.0": 2048, "8.6": 1024, "8.9": 1024, "9.0": 4096, "10.0": 8192}
"""Peak of one multiprocessor for bfloat16 products with float32 accumulation, by compute capability (NVIDIA data
sheets: A100, A6000, L40S, H100, B200). A multiply-add counts as two."""


@dataclass(frozen=True)
class GPU:
    """Specifications of a GPU from an XLA GpuTargetConfig text proto."""

    name: str
    text: str
    """The text proto."""
    bytes_per_s: float
    """Memory bandwidth."""
    flops_per_s: float
    """Peak of bfloat16 matrix products."""
    memory: int
    """Memory size in bytes."""


def read(target: str) -> GPU:
    """Read a GPU of this package or of a file. Raises UserError for an unknown name or an invalid file."""
    known = {path.stem: path for path in GPUS.glob("*.txtpb")}
    path = known.get(target, Path(target))
    if not path.is_file():
        raise UserError(f"unknown GPU {target}: give one of {', '.join(known)}, or a file with a GpuTargetConfig.")
    with user_file(path):
        text = path.read_text("utf-8", errors="replace")

    def field(name: str, form: str = r"[\d.]+") -> str:
        found = re.search(rf'\b{name}:\s*"?({form})', text)
        if not found:
            raise UserError(f"{path} is not a GpuTargetConfig text proto: it lacks {name}.")
        return found.group(1)

    minor = re.search(r"\bminor:\s*(\d+)", text[: text.find("}")])
    capability = f"{field('major')}.{minor.group(1) if minor else 0}"
    if capability not in _FLOPS_PER_CLOCK:
        raise UserError(f"{path} has compute capability {capability}; known are {', '.join(_FLOPS_PER_CLOCK)}.")
    clock = float(field("clock_rate_ghz")) * 1e9
    flops = _FLOPS_PER_CLOCK[capability] * int(field("core_count")) * clock
    name = field("device_description_str", '[^"]+')
    return GPU(name, text, float(field("memory_bandwidth")), flops, int(field("device_memory_size")))


def compiler(gpu: GPU) -> Callable[..., jax.stages.Compiled]:
    """Build a function (jitted function, arguments or their shapes) -> program compiled for the GPU.

    Call it before JAX starts. Raises UserError if the CUDA plugin is missing or XLA rejects the GPU.
    """
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    if not any("cuda" in plugin.name for plugin in plugins):
        raise UserError("--target needs the CUDA plugin of JAX: pip install 'purecc4[cuda]'.")
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_autotune_level=0"
    jax.config.update("jax_platforms", "cpu")
    try:
        topology = topologies.get_topology_desc("gpu", "cuda", target_config=gpu.text, topology="1x1x1")
    except (jax.errors.JaxRuntimeError, NotImplementedError) as error:
        raise UserError(f"XLA rejects {gpu.name}: {str(error).splitlines()[0]}") from error
    sharding = SingleDeviceSharding(topology.devices[0])

    def shape(x):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    def compile_for_gpu(function: jax.stages.Wrapped, *args: PyTree) -> jax.stages.Compiled:
        return function.trace(*jax.tree.map(shape, args)).lower(lowering_platforms=("cuda",)).compile()

    return compile_for_gpu
