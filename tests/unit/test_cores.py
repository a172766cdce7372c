"""The number of cores that a process may use, by affinity and by control groups."""

import os
from pathlib import Path

import pytest

from digitq.protocol.host import cores
from digitq.protocol.host.cores import read_quotas, usable_cores

VERSIONS = pytest.mark.parametrize("version", [1, 2])


def lay_out(folder: Path, version: int, path: str, quotas: dict[str, str]) -> tuple[Path, Path]:
    """Write the files that the kernel shows to a process in the group `path`."""
    membership = folder / "membership"
    groups = folder / "cgroup"
    mount = groups / "cpu,cpuacct" if version == 1 else groups
    membership.write_text(f"5:devices:/x\n4:cpu,cpuacct:{path}\n" * (version == 1) + f"0::{path}\n")
    for name, quota in quotas.items():
        (mount / name).mkdir(parents=True, exist_ok=True)
        if version == 1:
            for kind, number in zip(("quota", "period"), quota.split(), strict=True):
                (mount / name / f"cpu.cfs_{kind}_us").write_text(number + "\n")
        else:
            (mount / name / "cpu.max").write_text(quota + "\n")
    return groups, membership


@VERSIONS
def test_a_quota_is_read(version: int, tmp_path: Path) -> None:
    assert list(read_quotas(*lay_out(tmp_path, version, "/a", {"a": "150000 100000"}))) == [1.5]


def test_controllers_are_mounted_in_another_order(tmp_path: Path) -> None:
    groups, membership = lay_out(tmp_path, 1, "/a", {"a": "150000 100000"})
    membership.write_text(membership.read_text().replace("cpu,cpuacct", "cpuacct,cpu"))
    (groups / "cpu").symlink_to("cpu,cpuacct")
    assert list(read_quotas(groups, membership)) == [1.5]


@VERSIONS
def test_groups_above_count_too(version: int, tmp_path: Path) -> None:
    paths = lay_out(tmp_path, version, "/a/b", {"a": "50000 100000", "a/b": "200000 100000"})
    assert sorted(read_quotas(*paths)) == [0.5, 2.0]


@VERSIONS
def test_in_a_container_the_path_is_the_hosts(version: int, tmp_path: Path) -> None:
    paths = lay_out(tmp_path, version, "/docker/0123", {"": "100000 100000"})
    assert list(read_quotas(*paths)) == [1.0]


@pytest.mark.parametrize(("version", "none"), [(1, "-1 100000"), (2, "max 100000")])
def test_without_a_quota(version: int, none: str, tmp_path: Path) -> None:
    assert not list(read_quotas(*lay_out(tmp_path, version, "/a", {"a": none})))


def test_where_there_are_no_groups(tmp_path: Path) -> None:
    assert not list(read_quotas(tmp_path / "cgroup", tmp_path / "membership"))


@pytest.mark.parametrize(("quota", "count"), [("20000 100000", 1), ("99900000 100000", None)])
def test_the_scarcer_of_quota_and_affinity(
    quota: str, count: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups, membership = lay_out(tmp_path, 2, "/", {"": quota})
    monkeypatch.setattr(cores, "CGROUPS", groups)
    monkeypatch.setattr(cores, "MEMBERSHIP", membership)
    assert usable_cores() == (count or len(os.sched_getaffinity(0)))
