"""The cores that a process may use."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")  # lines `hierarchy:controllers:path`


def usable_cores() -> int:
    """The number of cores that this process may use, by its affinity and its control groups.

    A quota is rounded up: 1.5 cores count as two.
    """
    quotas = [math.ceil(cores) for cores in read_quotas(CGROUPS, MEMBERSHIP)]
    return max(1, min([len(usable_cpus()), *quotas]))


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
    for line in _read(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = cgroups / controllers
        if not mount.is_dir():
            mount = (
                cgroups / "cpu"
            )  # a link, needed if the controllers are mounted as `cpuacct,cpu`
        own = mount / path.lstrip("/")
        for folder in (own, *own.parents):
            names = ["cpu.cfs_quota_us", "cpu.cfs_period_us"] if controllers else ["cpu.max"]
            match " ".join(_read(folder / name) for name in names).split():
                case [quota, period] if quota.isdecimal():  # no quota is `max` or -1
                    yield int(quota) / int(period)
            if folder == mount:
                break


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
