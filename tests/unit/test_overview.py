"""What is computed of a deployment's state."""

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest

from digitq.protocol.heartbeat import WorkerState
from digitq.protocol.overview import ASSUMED_IMAGE_SECONDS, Overview
from digitq.protocol.records import JobRecord

NOW = datetime.now(UTC)


def job(images: int, done: int, **others: Any) -> JobRecord:
    common = {
        "id": "j",
        "model": "mlp",
        "source": "",
        "created": NOW,
        "chunks": 9,
        "attached": False,
    }
    fields = {"state": "running", "done_chunks": 0, **common, **others}
    return JobRecord(images=images, done_images=done, **fields)


def sign(rate: float, processes: int = 2) -> WorkerState:
    return WorkerState(
        name="w",
        host="h",
        version="1",
        fingerprint="f",
        processes=processes,
        started=NOW,
        images=0,
        images_per_second=rate,
        silent_seconds=0,
    )


def overview(
    *jobs: JobRecord,
    workers: tuple[WorkerState, ...] = (),
    counted: dict[str, int] | None = None,
    queued_images: int = 0,
) -> Overview:
    return Overview(
        jobs=jobs,
        running=(),
        workers=workers,
        counted=Counter(counted or {}),
        queued_images=queued_images,
        memory_bytes=0,
        memory_limit_bytes=0,
    )


def test_a_backlog_takes_as_long_as_the_living_workers_need_together() -> None:
    """Also if they were idle for most of the last seconds, in which they did few images."""
    others = job(300, 100, state="abandoned", image_seconds=0.2), job(50, 10, state="cancelled")
    jobs = job(900, 100, image_seconds=0.1), *others
    for rate in (30, 0.1, 0):
        seen = overview(*jobs, workers=(sign(rate), sign(20)))
        assert (seen.backlog_images, seen.backlog_seconds) == (1000, 30)


@pytest.mark.parametrize(
    ("workers", "processes"), [((), 1), ((sign(0),), 2), ((sign(0), sign(0, processes=3)), 5)]
)
def test_a_backlog_has_seconds_even_if_nobody_works(
    workers: tuple[WorkerState, ...], processes: int
) -> None:
    """By what the job's images took so far, else by those of the model, else by a guess."""
    mlp = {"images:mlp": 100, "failed:mlp": 0, "review:mlp": 0, "work_us:mlp": 2_000_000}
    waiting = job(100, 0, image_seconds=0.5), job(100, 0), job(100, 0, model="cnn")
    seen = overview(*waiting, workers=workers, counted=mlp)
    seconds = 100 * (0.5 + 0.02 + ASSUMED_IMAGE_SECONDS)
    assert seen.backlog_process_seconds == pytest.approx(seconds)
    assert seen.backlog_seconds == pytest.approx(seconds / processes)


def test_images_without_a_job_wait_too() -> None:
    seen = overview(job(100, 90), workers=(sign(5),), queued_images=20)
    assert seen.backlog_images == 30
    assert seen.backlog_seconds == pytest.approx(30 * ASSUMED_IMAGE_SECONDS / 2)
    assert overview(queued_images=20).backlog_process_seconds == 20 * ASSUMED_IMAGE_SECONDS


def test_without_work_a_backlog_takes_no_time() -> None:
    for workers in ((), (sign(0),), (sign(9),)):
        seen = overview(job(10, 10, state="done"), workers=workers)
        assert (seen.backlog_seconds, seen.backlog_process_seconds) == (0, 0)
