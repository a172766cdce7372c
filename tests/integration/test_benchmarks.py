"""`python -m benchmarks.deployment` and `python -m benchmarks.rivals`, with few images."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from digitq.private.processes import Local

ROOT = Path(__file__).parents[2]
SMALL = ("--images", "2048", "--rounds", "1", "--json")


def read_rows(out: str, err: str) -> dict[str, dict[str, float]]:
    """The rows that `--json` prints; the machine is told first, and no figure is 0."""
    assert any(", Python 3" in line for line in err.splitlines()[:3])
    rows: dict[str, dict[str, float]] = json.loads(out)
    assert all(figure > 0 for figures in rows.values() for figure in figures.values())
    return rows


def measure(
    program: str, *options: str, **variables: str
) -> tuple[dict[str, dict[str, float]], str]:
    """The rows of a benchmark, and what it tells on stderr."""
    command = [sys.executable, "-m", f"benchmarks.{program}", *SMALL, *options]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, **variables}
    )
    assert done.returncode == 0, done.stderr
    return read_rows(done.stdout, done.stderr), done.stderr


@pytest.mark.slow
def test_private_workers(mnist_root: Path) -> None:
    rows, err = measure("deployment", "--only", "network", "--only", "queue")
    assert "2 private workers" in err
    assert list(rows) == ["network", "queue", "queue (parquet)"]
    alone = rows["network"]["images_per_second"]
    for name in ("queue", "queue (parquet)"):
        assert rows[name]["of_network"] == rows[name]["images_per_second"] / alone
    assert set(rows["queue"]) == {"images_per_second", "of_network", "producer_mb", "redis_mb"}


def test_the_workers_of_a_broker(local: Local, mnist_root: Path, tmp_path: Path) -> None:
    """Where torch is not installed."""
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['torch'] = None")
    rows, err = measure("deployment", "--broker", local.url, PYTHONPATH=str(tmp_path))
    assert "`network` is left out" in err and "it has no row for one worker" in err
    assert f"of {local.url}" in err
    assert list(rows) == [
        *("queue", "queue (parquet)", "latency", "concurrent", "concurrent (asyncio)"),
        *("scale", "numbers"),
    ]
    assert set(rows["queue"]) == {"images_per_second", "producer_mb"}
    assert set(rows["latency"]) == {"median_ms", "p99_ms"}


@pytest.mark.slow
def test_plain_celery_beside_digitq(mnist_root: Path) -> None:
    rows, _ = measure("rivals", "--only", "latency", "--only", "celery")
    assert list(rows) == ["celery", "celery (batches)", "latency", "latency (celery)"]
    ours, theirs = (rows[name]["median_ms"] for name in ("latency", "latency (celery)"))
    assert rows["latency"]["of_celery"] == ours / theirs
    one, batches = (rows[name]["images_per_second"] for name in ("celery", "celery (batches)"))
    assert rows["celery (batches)"]["of_celery"] == batches / one > 1


@pytest.mark.slow
def test_one_worker_beside_two(mnist_root: Path) -> None:
    rows, _ = measure("deployment", "--only", "scale")
    two, one = (rows[name]["images_per_second"] for name in ("scale", "scale (one worker)"))
    assert rows["scale"]["of_one_worker"] == two / one


@pytest.mark.slow
def test_all_rivals(mnist_root: Path) -> None:
    rows, _ = measure("rivals")
    assert {name.partition(" (")[0] for name in rows} == {
        *("torch", "queue", "celery", "dataloader", "folder", "latency", "concurrent")
    }
    ours, theirs = (rows[name] for name in ("folder", "folder (ImageFolder)"))
    ratio = ours["images_per_second"] / theirs["images_per_second"]
    assert ours["of_imagefolder"] == ratio
    assert "of_celery" in rows["concurrent (asyncio)"]
