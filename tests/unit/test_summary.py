"""What a person reads at the end."""

import zlib
from dataclasses import replace

import pyarrow as pa

from digitq.operate.tables import describe_job, list_jobs
from digitq.producer.counts import Counts, add_ids
from digitq.protocol.records import JobRecord
from digitq.summary import summarise


def test_a_summary_has_what_there_is_to_say() -> None:
    assert summarise(Counts(1000)) == "1,000 images"
    assert summarise(Counts(1), "1 other file (.txt)") == "1 image, 1 other file (.txt) skipped"
    assert summarise(Counts(10, 7, failed=2, labelled=8, correct=6, review=1)) == (
        "10 images, 2 with an error, 1 more to review, accuracy 75.00% of 8"
    )


def test_written_adds_up() -> None:
    batch = pa.record_batch(
        {
            "id": ["a", "b", "c", "d"],
            "label": pa.array([1, 2, None, 4], pa.int8()),
            "truth": pa.array([1, 3, 3, None], pa.int8()),
            "error": [None, None, "damaged", None],
            "review": [False, True, True, False],
            "reason": pa.array([None, "unsure", "error", None], pa.string()),
        }
    )
    ids = zlib.crc32(b"abcdabcd")
    assert Counts().add(batch).add(batch) == Counts(
        8, ids, failed=2, labelled=4, correct=2, review=2, unlabelled=2
    )


def test_the_checksum_of_ids_does_not_depend_on_how_they_are_cut() -> None:
    ids = pa.array(["a", "", "ß", *map(str, range(97))])
    whole = add_ids(0, ids)
    assert whole == zlib.crc32("".join(ids.to_pylist()).encode())
    for size in (1, 3, 40):
        checksum = 0
        for start in range(0, len(ids), size):
            checksum = add_ids(checksum, ids.slice(start, size))
        assert checksum == whole
    assert add_ids(7, pa.array([], pa.string())) == add_ids(7, pa.array([""])) == 7


def test_a_job_is_one_line_whatever_its_source_is_called() -> None:
    counts = ("created", "images", "done_images", "stored", "done_chunks", "attached")
    named = {"id": "j", "state": "done", "model": "mlp", "source": "a\nb\x1b[2J\u202eé ü"}
    record = JobRecord.parse(dict.fromkeys(counts, "0") | named, now=0)
    shown = r"a\nb\x1b[2J\u202eé ü"
    assert describe_job(record)[0] == f"job j: done, model mlp, {shown}"
    _, line = list_jobs([record])
    assert line.endswith(f" {shown}")


def test_a_job_of_whole_numbers_says_so() -> None:
    counts = ("created", "images", "done_images", "stored", "done_chunks", "attached")
    named = {"id": "j", "state": "done", "model": "number", "source": "a"}
    record = JobRecord.parse(dict.fromkeys(counts, "0") | named, now=0)
    assert describe_job(record)[0] == "job j: done, whole numbers, a"


def test_a_job_that_stopped_says_why_in_one_line() -> None:
    counts = ("created", "images", "done_images", "stored", "done_chunks", "attached")
    named = {
        "id": "j",
        "state": "failed",
        "model": "mlp",
        "source": "a",
        "reason": "chunk 3\nwas begun",
    }
    record = JobRecord.parse(dict.fromkeys(counts, "0") | named, now=0)
    assert describe_job(record)[3:] == [r"  failed: chunk 3\nwas begun"]
    assert len(describe_job(replace(record, reason=None))) == 3


def test_a_job_that_workers_of_two_kinds_answered_says_so() -> None:
    counts = ("created", "images", "done_images", "stored", "done_chunks", "attached")
    named = {"id": "j", "state": "done", "model": "mlp", "source": "a"}
    record = JobRecord.parse(dict.fromkeys(counts, "0") | named | {"fingerprints": "a b "}, now=0)
    assert describe_job(record)[3].startswith("  workers of 2 kinds answered (a, b)")
    assert len(describe_job(replace(record, fingerprints=("a",)))) == 3
