"""`digitq bench`, small: every contender runs, and what it prints is what was asked for."""

import json
from pathlib import Path

import pytest

from tests.integration.test_commands import run


def measure(*names: str) -> dict[str, dict[str, float]]:
    """One round of these benchmarks, as JSON."""
    only = [word for name in names for word in ("--only", name)]
    status, out, err = run("bench", *only, "--images", 2048, "--rounds", 1, "--json")
    assert status == 0, err
    assert ", Python 3" in err.splitlines()[0]
    rows: dict[str, dict[str, float]] = json.loads(out)
    assert all(figure > 0 for figures in rows.values() for figure in figures.values())
    return rows


def test_the_queue_beside_bare_torch(mnist_root: Path) -> None:
    rows = measure("torch", "queue")
    assert list(rows) == ["torch", "queue", "queue (parquet)"]
    bare = rows["torch"]["images_per_second"]
    for figures in rows.values():
        assert figures["of_torch"] == figures["images_per_second"] / bare
    assert set(rows["queue"]) == {"images_per_second", "of_torch", "producer_mb", "redis_mb"}


@pytest.mark.slow
def test_all_the_others(mnist_root: Path) -> None:
    names = ("celery", "dataloader", "folder", "latency", "concurrent", "scale")
    rows = measure(*names)
    assert {name.partition(" (")[0] for name in rows} == set(names)
    for ours, theirs, ratio, figure in [
        ("folder", "folder (ImageFolder)", "of_imagefolder", "images_per_second"),
        ("latency", "latency (celery)", "of_celery", "median_ms"),
        ("scale", "scale (one worker)", "of_one_worker", "images_per_second"),
    ]:
        assert rows[ours][ratio] == rows[ours][figure] / rows[theirs][figure]
    assert "of_celery" in rows["concurrent (asyncio)"]
    assert {"median_ms", "p99_ms"} <= set(rows["latency"])
