"""Tables and lines of jobs and workers, on terminals of any width."""

import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, RenderableType

from digitq.operate.tables import (
    clock,
    describe_job,
    describe_memory,
    describe_progress,
    describe_work,
    in_watching_order,
    list_jobs,
    render,
    show_job,
    stack_jobs,
    tabulate_jobs,
    tabulate_workers,
)
from digitq.protocol.heartbeat import WorkerState
from digitq.protocol.overview import Overview
from digitq.protocol.records import JobRecord, JobState

NOW = datetime.now(UTC)


def job(job_id: str = "7e3f350e5555", state: JobState = "running", **others: Any) -> JobRecord:
    counts = {"images": 120_000, "done_images": 48_512, "chunks": 9, "done_chunks": 4}
    named = {"model": "mlp", "source": "[red]scans/:smile:", "created": NOW, "attached": False}
    return JobRecord(id=job_id, state=state, **{**counts, **named, **others})


def worker(name: str, rate: float) -> WorkerState:
    about: dict[str, Any] = {"host": "h", "version": "0.2.0", "fingerprint": "f", "started": NOW}
    return WorkerState(
        name=name, processes=2, images=1000, images_per_second=rate, silent_seconds=1, **about
    )


def overview(*jobs: JobRecord, workers: tuple[WorkerState, ...] = (), limit: int = 0) -> Overview:
    return Overview(
        jobs=jobs,
        running=(),
        workers=workers,
        counted=Counter(),
        queued_images=0,
        memory_bytes=1_000_000,
        memory_limit_bytes=limit,
    )


def lines_at(columns: int, part: RenderableType) -> list[str]:
    """What a terminal of this width shows, from which nothing is cut off."""
    console = Console(width=columns, color_system=None)
    with console.capture() as captured:
        console.print(part)
    lines = captured.get().splitlines()
    assert max(map(len, lines)) <= columns
    return [" ".join(line.split()) for line in lines]


def test_progress_says_what_there_is_to_say() -> None:
    assert describe_progress(job()) == "48,512 of 120,000 images (40%)"
    flawed = job(failed=16, review=3, sent_again=1)
    assert describe_progress(flawed, rate=288.4) == (
        "48,512 of 120,000 images (40%), 288 images/s, 0:04:08 left, 16 with an error, "
        "3 more to review, 1 chunk sent again"
    )
    almost = job(images=10_000, done_images=9_999)  # and nobody works on it
    assert describe_progress(almost, rate=0) == "9,999 of 10,000 images (99%), 0 images/s"
    assert clock(90_000) == "1 day, 1:00:00"


def test_of_a_job_that_is_not_all_stored_the_rest_is_unknown() -> None:
    for state in ("feeding", "abandoned"):
        record = job(state=state)
        assert (
            describe_progress(record, 100) == "48,512 of 120,000 images stored so far, 100 images/s"
        )
        (row,) = render(tabulate_jobs([record], {record.id: 100})).splitlines()[1:]
        assert row.split()[2:7] == ["48,512", "120,000", "?", "100", "?"]


def test_chunks_are_not_counted_for_people() -> None:
    """They differ in size."""
    assert "chunk" not in describe_job(job())


def test_a_table_has_a_line_for_each_job_and_its_errors() -> None:
    jobs = [job(failed=16, review=3, sent_again=2), job("a", "done")]
    header, first, second = list_jobs(jobs)
    assert header.split()[:8] == [
        "JOB",
        "STATE",
        "DONE",
        "IMAGES",
        "%",
        "ERRORS",
        "REVIEW",
        "AGAIN",
    ]
    assert first.split()[2:8] == ["48,512", "120,000", "40%", "16", "3", "2"]
    assert first.endswith("[red]scans/:smile:") and second.startswith("a            done")


def test_many_jobs_are_listed_at_once() -> None:
    """rich took a millisecond for each."""
    jobs, started = [job(f"{number:012}") for number in range(20_000)], time.process_time()
    assert len(list_jobs(jobs)) == 20_001
    assert time.process_time() - started < 5


def test_nothing_is_lost_on_a_narrow_terminal() -> None:
    record = job(failed=16, review=3, sent_again=2)
    rates = {record.id: 288.0}
    for part in (stack_jobs([record], rates), show_job(record, 288)):
        text = " ".join(lines_at(40, part))
        assert describe_progress(record, 288) in text and record.id in text and "━" in text
    (row,) = lines_at(100, tabulate_jobs([record], rates))[1:]
    assert {"40%", "288", "0:04:08", "16", "3", "2"} <= {*row.split()}


def test_a_worker_is_a_line_at_any_width() -> None:
    long = worker("worker1@gpu-node-17.some.where.example", rate=144)
    (row,) = lines_at(40, tabulate_workers([long], 40))[1:]
    assert row.startswith("worker1@gpu") and row.endswith("… 144 0.2.0 1 s ago")
    header, row = lines_at(100, tabulate_workers([long], 100))
    assert header == "WORKER IMAGES/S PROCESSES DONE VERSION FINGERPRINT HEARD"
    assert row == f"{long.name} 144 2 1,000 0.2.0 f 1 s ago"


def test_all_work_and_memory_are_a_line_each() -> None:
    seen = overview(job(), workers=(worker("a", 200), worker("b", 88)), limit=10_000_000)
    assert describe_work(seen) == (
        "2 workers (4 processes), 288 images/s; 71,488 stored images to do: 0:02:59"
    )
    assert describe_memory(seen) == "Redis uses 1.0 MB of 10.0 MB (10%)"
    assert describe_work(overview(job())) == "0 workers; 71,488 stored images to do"
    assert describe_work(overview(job(state="done"))) == "0 workers; nothing waits"
    assert describe_memory(overview()) == "Redis uses 1.0 MB; it has no maxmemory"


def test_jobs_under_way_come_first_and_then_the_latest_to_have_been_created() -> None:
    jobs = [job("a", "done"), job("b"), job("c", "failed"), job("d", "feeding")]
    assert [record.id for record in in_watching_order(jobs)] == ["b", "d", "c", "a"]
