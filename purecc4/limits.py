"""The cores and the memory that this process may use: those of the machine, within its affinity and control groups.

Batch systems and containers grant a job a part of a machine by CPU affinity (`taskset`, SLURM) or by Linux control
groups, versions 1 and 2 (`docker run --cpus 2 --memory 8g`, Kubernetes, systemd).
"""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MEMBERSHIP, CONTROL_GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
MEMORY_TABLE = Path("/proc/meminfo")


def cores() -> int:
    """CPU cores that this process may use, at least 1. A quota is rounded down to whole cores."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min([affinity, *_quotas()])))


def free_memory() -> int:
    """Bytes that this process may still allocate. Without /proc/meminfo, all memory of the machine."""
    return max(0, min([_machine_memory(), *_group_memory()]))


def _machine_memory() -> int:
    if MEMORY_TABLE.exists():
        fields = dict(line.split(":") for line in MEMORY_TABLE.read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _quotas() -> Iterator[float]:
    """Cores that each control group grants."""
    for group in _groups("cpu"):
        version_2 = _words(group / "cpu.max")
        version_1 = _words(group / "cpu.cfs_quota_us") + _words(group / "cpu.cfs_period_us")
        for words in (version_2, version_1):
            with suppress(ValueError):  # no such file, or no quota: "max"
                quota, period = map(float, words)
                if quota > 0:  # no quota in version 1: -1
                    yield quota / period


def _group_memory() -> Iterator[int]:
    """Bytes that each control group has left. Its file cache counts as free, since the kernel reclaims it first."""
    version_2 = "memory.max", "memory.current", "inactive_file"
    version_1 = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
    for group in _groups("memory"):
        statistics = _words(group / "memory.stat")
        cached = dict(zip(statistics[::2], statistics[1::2], strict=False))
        for limit, usage, cache in (version_2, version_1):
            with suppress(ValueError):  # no such file, or no limit: "max"
                allowed, used = (int(word) for name in (limit, usage) for word in _words(group / name))
                yield allowed - used + int(cached.get(cache, 0))


def _groups(controller: str) -> Iterator[Path]:
    """Folders of the control groups of this process that may limit a resource, from the innermost to the root.

    A container may see the path that its group has outside, but not the folder: then only the root remains.
    """
    for line in MEMBERSHIP.read_text().splitlines() if MEMBERSHIP.exists() else ():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = CONTROL_GROUPS / controller if controllers else CONTROL_GROUPS
        place = Path(path.lstrip("/"))
        yield from (root / folder for folder in (place, *place.parents) if (root / folder).is_dir())


def _words(path: Path) -> list[str]:
    with suppress(OSError):
        return path.read_text().split()
    return []
