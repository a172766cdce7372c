"""The worker's log: its format, and what it says about jobs, chunks and processes that die."""

import logging
import os
from collections import Counter
from typing import Any

import pyarrow as pa
from billiard.exceptions import WorkerLostError
from celery.signals import after_setup_task_logger
from celery.utils.log import get_logger, get_multiprocessing_logger

from digitq.protocol.errors import DigitqError
from digitq.protocol.logs import JsonFormatter, give_times_an_offset
from digitq.protocol.records import JobRecord
from digitq.protocol.settings import settings
from digitq.protocol.text import in_one_line, plural

MAX_ERRORS_NAMED = 5  # a line names this many different errors of a chunk, the most frequent ones
# These say at INFO that a message came, and how its task ended; `log_chunk` says it better
REPLACED_LOGGERS = ("celery.worker.strategy", "celery.app.trace")
ENDS = {"cancelled": "was cancelled", "failed": "has failed"}

logger = get_logger(__name__)


@after_setup_task_logger.connect
def set_format(**_: Any) -> None:
    """Give Celery's handlers the format of the settings, in the worker and in its processes."""
    is_json = settings().log_format == "json"
    for name in REPLACED_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("celery.worker.request").addFilter(drop_death_traceback)
    logging.getLogger("celery.app.trace").addFilter(drop_told_traceback)
    for owner in (logging.getLogger(), get_logger("celery.task"), get_multiprocessing_logger()):
        for handler in owner.handlers:
            if is_json:
                handler.setFormatter(JsonFormatter())
            elif handler.formatter:
                give_times_an_offset(handler.formatter)
    if is_json:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Celery prints words for people on stdout


def say(level: int, event: str, text: str, job_id: str, **facts: object) -> None:
    """Log what happened to a job: `text` for people, and `facts` for programs."""
    about = {"event": event, "job": job_id, **facts}
    logger.log(level, "%s", in_one_line(text), extra={"facts": about})


def log_begin(job_id: str, model: str, source: str) -> None:
    """Log that a job's first chunk was begun."""
    text = f"job {job_id} begins: model {model}, {source}"
    say(logging.INFO, "job begin", text, job_id, model=model, source=source)


def log_chunk(
    job_id: str, number: int, model: str, result: pa.RecordBatch, seconds: float, attempt: int
) -> None:
    """Log that a chunk is done: its images, its errors, and how long it took."""
    if not logger.isEnabledFor(logging.INFO):
        return
    errors = count_errors(result)
    failed = sum(errors.values())
    named = "; ".join(f"{count:,} {error}" for error, count in errors.items())
    text = (
        f"chunk {number} of job {job_id}: {plural(result.num_rows, 'image')}, {failed:,} failed"
        + f" ({named})" * bool(named)
        + f", {seconds:.3f} s, model {model}"
        + f", attempt {attempt}" * (attempt > 1)
    )
    say(
        logging.INFO,
        "chunk",
        text,
        job_id,
        chunk=number,
        images=result.num_rows,
        failed=failed,
        errors=errors,
        seconds=round(seconds, 3),
        model=model,
        attempt=attempt,
    )


def count_errors(result: pa.RecordBatch) -> dict[str, int]:
    """How many rows have each error, the most frequent first; rare ones are counted together."""
    counts = Counter(result.column("error").drop_null().to_pylist())
    errors = dict(counts.most_common(MAX_ERRORS_NAMED))
    if others := counts.total() - sum(errors.values()):
        errors["other errors"] = others
    return errors


def log_end(job: JobRecord) -> bool:
    """Log that a job has ended, if this log's level lets the line pass; say whether it does."""
    level = logging.ERROR if job.state == "failed" else logging.INFO
    if not logger.isEnabledFor(level):
        return False
    how = ENDS.get(job.state, "is done")
    why = f"; {job.reason}" if job.reason else ""
    seconds = round(job.seconds, 3)
    text = (
        f"job {job.id} {how}: {job.done_images:,} of {plural(job.images, 'image')}, "
        f"{job.failed:,} failed, {seconds:,} s, model {job.model}{why}"
    )
    say(
        level,
        "job end",
        text,
        job.id,
        state=job.state if job.is_stopped else "done",
        images=job.images,
        done=job.done_images,
        failed=job.failed,
        seconds=seconds,
        model=job.model,
        reason=job.reason,
    )
    return True


def log_trouble(job_id: str, number: int, trouble: str) -> None:
    """Log that a chunk has no result from this worker."""
    text = f"chunk {number} of job {job_id}: {trouble}"
    say(logging.WARNING, "trouble", text, job_id, chunk=number, trouble=trouble)


def log_death(job_id: str, number: int, error: WorkerLostError) -> None:
    """Log which chunk a process of the pool had when it died."""
    how = str(error).partition(": ")[2].partition(" Job: ")[0]
    text = f"a process died at chunk {number} of job {job_id}: {how}"
    say(logging.ERROR, "death", text, job_id, chunk=number, how=how)


def drop_death_traceback(record: logging.LogRecord) -> bool:
    """Leaves out Celery's traceback of a death, which shows only code of Celery."""
    return not any(isinstance(part, WorkerLostError) for part in record.args or ())


def drop_told_traceback(record: logging.LogRecord) -> bool:
    """Leaves out Celery's traceback of digitq's own errors: `log_trouble` has logged them."""
    return not (record.exc_info and isinstance(record.exc_info[1], DigitqError))
