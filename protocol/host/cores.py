"""The cores that a process may use."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")  # lines `hierarchy:controllers:path`


def usable_cores() -> int:
    """The number of cores that this process may use: its affinity, or a quota, rounded up."""
    return min([len(usable_cpus()), *map(math.ceil, read_quotas(CGROUPS, MEMBERSHIP))])


def usable_cpus() -> list[int]:
    """The numbers of the processors on which this process may run."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def read_quotas(cgroups: Path, membership: Path) -> Iterator[float]:
    """The quotas of a process, in cores: those of its control groups and of all their parents.

    Version 2 of control groups has the file `cpu.max`, version 1 `cpu.cfs_quota_us`. In a container
    the path in `membership` may be the host's; then the files are at the root of the mount.
    """
    for line in read_text(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        names = ["cpu.cfs_quota_us", "cpu.cfs_period_us"] if controllers else ["cpu.max"]
        mount = cgroups / controllers
        if not mount.is_dir():
            mount = cgroups / "cpu"  # a link, for controllers that are mounted as `cpuacct,cpu`
        group = mount / path.lstrip("/")
        for folder in (group, *group.parents):
            match " ".join(read_text(folder / name) for name in names).split():
                case [quota, period] if quota.isdecimal():  # no quota is `max` or -1
                    yield int(quota) / int(period)


def read_text(path: Path) -> str:
    """The content of a file of the kernel; nothing if there is no such file."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
