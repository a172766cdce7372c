"""Tables and lines of jobs."""

import time
from datetime import UTC, datetime
from typing import Any

from digitq.operate.tables import describe_job, describe_progress, list_jobs, put_active_first
from digitq.protocol.records import JobRecord, JobState

NOW = datetime.now(UTC)


def job(job_id: str = "7e3f350e5555", state: JobState = "running", **others: Any) -> JobRecord:
    counts = {"images": 120_000, "done_images": 48_512, "chunks": 9, "done_chunks": 4}
    named = {"model": "mlp", "source": "[red]scans/:smile:", "created": NOW, "attached": False}
    return JobRecord(id=job_id, state=state, **{**counts, **named, **others})


def test_progress_says_what_there_is_to_say() -> None:
    assert describe_progress(job()) == "48,512 of 120,000 images (40%)"
    flawed = job(failed=16, review=3, sent_again=1)
    assert describe_progress(flawed) == (
        "48,512 of 120,000 images (40%), 16 with an error, 3 more to review, 1 chunk sent again"
    )
    almost = job(images=10_000, done_images=9_999)
    assert describe_progress(almost) == "9,999 of 10,000 images (99%)"


def test_of_a_job_that_is_not_all_stored_the_rest_is_unknown() -> None:
    for state in ("feeding", "abandoned"):
        record = job(state=state)
        assert describe_progress(record) == "48,512 of 120,000 images stored so far"
        _, row = list_jobs([record])
        assert row.split()[2:5] == ["48,512", "120,000", "?"]


def test_chunks_are_not_counted_for_people() -> None:
    """They differ in size."""
    assert "chunk" not in " ".join(describe_job(job()))


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


def test_jobs_under_way_come_first_and_then_the_latest_to_have_been_created() -> None:
    jobs = [job("a", "done"), job("b"), job("c", "failed"), job("d", "feeding")]
    assert [record.id for record in put_active_first(jobs)] == ["b", "d", "c", "a"]
