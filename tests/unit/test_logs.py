"""What a line of a log is made of."""

import json
import logging
import sys

import pyarrow as pa
import pytest

from digitq.protocol.logs import JsonFormatter, give_times_an_offset
from digitq.protocol.records import JobRecord
from digitq.worker.service.worker_log import MAX_ERRORS_NAMED, count_errors, log_chunk, log_end


def make_record(text: str, **others: object) -> logging.LogRecord:
    named = {"levelname": "INFO", "msg": text, "created": 1.5, "msecs": 500.0}
    return logging.makeLogRecord(named | others)


def make_result(errors: list[str | None]) -> pa.RecordBatch:
    return pa.record_batch({"error": pa.array(errors, pa.string())})


def test_json_has_what_programs_look_for() -> None:
    record = make_record("%d\nlines", args=(2,), facts={"event": "chunk", "job": "j"})
    assert json.loads(JsonFormatter().format(record)) == {
        "time": "1970-01-01T00:00:01.500+00:00",
        "level": "INFO",
        "process": "MainProcess",
        "message": "2\nlines",
        "event": "chunk",
        "job": "j",
    }


def test_json_is_one_line_whatever_is_logged() -> None:
    try:
        raise ValueError("odd")
    except ValueError:
        record = make_record("\ud800 é", exc_info=sys.exc_info(), facts={"unknown": object()})
    line = JsonFormatter().format(record)
    assert line.isascii() and "\n" not in line
    assert json.loads(line)["traceback"].endswith("ValueError: odd")


def test_times_in_words_have_their_offset() -> None:
    formatter = logging.Formatter("%(asctime)s %(message)s")
    give_times_an_offset(formatter)
    assert formatter.format(make_record("text")) == "1970-01-01 00:00:01.500+00:00 text"


def test_the_most_frequent_errors_are_named() -> None:
    errors = [f"error {n}" for n in range(MAX_ERRORS_NAMED + 2) for _ in range(10 - n)]
    counts = count_errors(make_result([None, *errors]))
    assert counts == {
        **{f"error {n}": 10 - n for n in range(MAX_ERRORS_NAMED)},
        "other errors": len(errors) - sum(10 - n for n in range(MAX_ERRORS_NAMED)),
    }


@pytest.mark.parametrize(
    ("errors", "attempt", "line"),
    [
        ([None], 1, "1 image, 0 failed, 0.250 s, model mlp"),
        ([None, "a\nb"] * 2, 2, "4 images, 2 failed (2 a\\nb), 0.250 s, model mlp, attempt 2"),
    ],
)
def test_a_chunk_in_words(
    errors: list[str | None], attempt: int, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    log_chunk("j", 4, "mlp", make_result(errors), 0.25, attempt)
    assert caplog.messages == [f"chunk 4 of job j: {line}"]


@pytest.mark.parametrize(
    ("state", "reason", "line"),
    [
        ("done", None, "is done: 9 of 10 images, 1 failed, 2.5 s, model mlp"),
        ("collected", None, "is done: 9 of 10 images, 1 failed, 2.5 s, model mlp"),
        ("cancelled", None, "was cancelled: 9 of 10 images, 1 failed, 2.5 s, model mlp"),
        ("failed", "x", "has failed: 9 of 10 images, 1 failed, 2.5 s, model mlp; x"),
    ],
)
def test_the_end_of_a_job_in_words(
    state: str, reason: str | None, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    numbers = {"images": 10, "done_images": 9, "failed": 1, "stored": 1, "done_chunks": 1}
    times = {"created": 0, "finished": 2.5}
    texts = {"id": "j", "state": state, "model": "mlp", "source": "s", "attached": "0"}
    fields = texts | {name: str(number) for name, number in (numbers | times).items()}
    log_end(JobRecord.parse(fields | ({"reason": reason} if reason else {}), now=0))
    assert caplog.messages == [f"job j {line}"]
    assert caplog.records[0].levelname == ("ERROR" if reason else "INFO")
