"""The cores that a process may use."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")  # lines `hierarchy:controllers:path`


def usable_cores() -> int:
    """The cores this process may run on, by its affinity and by the quota of its control groups.

    A quota counts as the whole cores it takes to use it up: 1.5 are two.
    """
    quotas = [math.ceil(cores) for cores in read_quotas(CGROUPS, MEMBERSHIP)]
    return max(1, min([len(usable_cpus()), *quotas]))


def usable_cpus() -> list[int]:
    """The numbers of the processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def read_quotas(cgroups: Path, membership: Path) -> Iterator[float]:
    """The quotas that hold for a process, in cores: of its control groups and of all above them.

    `cpu.max` is of version 2, `cpu.cfs_quota_us` of version 1. In a container the path in
    `membership` may be the host's; then the files lie at the root of the mount.
    """
    for line in _read(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = cgroups / controllers
        if not mount.is_dir():
            mount = cgroups / "cpu"  # a link: those mounted together are named in another order
        own = mount / path.lstrip("/")
        for folder in (own, *own.parents):
            names = ["cpu.cfs_quota_us", "cpu.cfs_period_us"] if controllers else ["cpu.max"]
            match " ".join(_read(folder / name) for name in names).split():
                case [quota, period] if quota.isdecimal():  # neither `max` nor -1
                    yield int(quota) / int(period)
            if folder == mount:
                break


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
