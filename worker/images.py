"""The Celery task of images from programs without digitq, which the ledger has as single calls: a
message with base64 becomes a row of a chunk, and the row's answer becomes Celery's result."""

import binascii
import re
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

import pyarrow as pa
from celery import states
from celery.signals import task_revoked

from digitq.protocol.app import CLASSIFY_IMAGE, app
from digitq.protocol.asked import UnmetError
from digitq.protocol.asked.reading import Reading, choose_reading, decode_known
from digitq.protocol.chunk import ERROR, ID, IMAGE_FIELD, Chunk
from digitq.protocol.errors import BrokerError, UsageError
from digitq.protocol.prediction import Answer
from digitq.protocol.records import Begun, BegunCall, ChunkResult
from digitq.protocol.settings import NUMBER, settings
from digitq.protocol.text import plural, printable, too_large
from digitq.worker.classify import Read, classify_chunk
from digitq.worker.picture import describe
from digitq.worker.service.messages import as_json, read_image
from digitq.worker.service.worker_log import log_chunk, log_trouble
from digitq.worker.sight.limits import MAX_CLOCK_SECONDS
from digitq.worker.tasks import (
    CAREFUL_ATTEMPT,
    MAX_LISTS,
    NOTHING_TO_DO,
    Deadline,
    Dropped,
    careful_reader,
    discard,
    ledger,
    ledger_without_retry,
    measure,
)

ARGUMENTS = ("image", "model", "read", "length", "allowed", "pattern", "fill", "risk")
MAX_OTHERS = 7  # at most this many images are classified together with another one
MAX_OTHERS_BYTES = 1 << 19  # their messages together, which Redis reads in some 5 ms
MAX_MESSAGE_NUMBERS = 10_000  # a message may have this many allowed numbers
MAX_IMAGE_ATTEMPTS = 5  # if an image was begun this often and never done, it is not looked at
ROW = 0  # the row of an image that is alone in its chunk

decode_asked = lru_cache(MAX_LISTS)(decode_known)


class Sent(NamedTuple):
    """An image that a program has sent."""

    task: str  # its id
    # None if there is nothing to read, and `result` is what Celery keeps
    reading: Reading[Answer] | None
    row: dict[str, Any]  # the image or an error, as a chunk has it
    result: bytes = b""


class Answered(NamedTuple):
    """An image that is done."""

    answer: dict[str, Any] | None
    result: ChunkResult


@app.task(
    name=CLASSIFY_IMAGE,
    # For a process that hangs in spite of its limits, which hold for each image
    time_limit=(MAX_OTHERS + 3) * MAX_CLOCK_SECONDS,
    resultrepr_maxsize=130,  # characters that Flower shows: label, confidence and error
)
def classify_image(job_id: str, number: int) -> dict[str, Any] | str | None:
    """Classify one image, or read its number, together with others that wait. Returns its answer,
    or a line, for Flower. Whatever is wrong with the arguments is the answer's `error`: another
    program does not understand an exception of Python."""
    worker = classify_image.request.hostname or ""
    begun = ledger().begin(job_id, number, worker)
    if begun is None:
        return NOTHING_TO_DO
    own, others = BegunCall(job_id, begun.payload, begun.task), list[BegunCall]()
    if begun.shares:
        others = ledger().begin_calls(job_id, MAX_OTHERS, MAX_OTHERS_BYTES, worker)
    try:
        answered = answer_calls([own, *others], begun, worker)
    except Dropped:
        return discard(begun.task, number)
    except Exception as error:  # all are begun again after their deadline, each alone
        log_trouble(begun.task, number, f"not classified: {describe(error)}")
        raise
    progress = ledger().complete(job_id, number, answered[begun.task].result)
    if others:
        results = [(call, answered[call.message_id].result) for call in others]
        ledger().complete_calls(plural(1 + len(others), "image"), results)
    return discard(begun.task, number) if progress is None else answered[begun.task].answer


@task_revoked.connect
def answer_revoked(sender: Any, request: Any, terminated: bool, **_: Any) -> None:
    """End an image that somebody has revoked: the ledger would send it again for ever. Runs in the
    worker's main process."""
    if sender.name == CLASSIFY_IMAGE:
        job_id, number = request.chunk
        result = revoked(request.id, "terminated" if terminated else "revoked")
        with suppress(BrokerError):  # it is sent again then, and revoked again
            ledger_without_retry().complete(job_id, number, unread(result))


def answer_calls(calls: Sequence[BegunCall], begun: Begun, worker: str) -> dict[str, Answered]:
    """What becomes of each image, by the id of its task. Those that are read in the same way share
    a chunk. Raises `Dropped`, and any error."""
    deadline = Deadline(calls[0].job_id, 0, begun.time)
    is_careful = begun.attempt >= CAREFUL_ATTEMPT  # then it is alone
    read = careful_reader(deadline, [ROW]) if is_careful else deadline.read
    groups, answered = defaultdict[Reading[Answer], list[Sent]](list), dict[str, Answered]()
    for call in calls:
        sent = open_call(call, begun.attempt)
        if sent.reading:
            groups[sent.reading].append(sent)
        else:
            answered[sent.task] = Answered(None, unread(sent.result))
    for reading, group in groups.items():
        started = time.monotonic()
        rows = classify_rows([sent.row for sent in group], reading, read)
        seconds = (time.monotonic() - started) / len(group)
        answers = rows.drop_columns(["id"]).to_pylist()
        for number, (sent, answer) in enumerate(zip(group, answers, strict=True)):
            row, result = rows.slice(number, 1), as_result(sent.task, answer)
            log_chunk(sent.task, 0, reading.model, row, seconds, begun.attempt)
            done = measure(row, "image", seconds, seconds, worker)
            done = done._replace(payload=result, model=reading.model)
            answered[sent.task] = Answered(answer, done)
    return answered


def open_call(call: BegunCall, attempt: int) -> Sent:
    """Read the message of an image."""
    task = call.message_id
    if attempt > MAX_IMAGE_ATTEMPTS:
        error = {"id": "", "error": "this image crashes workers"}
        return Sent(task, Reading(settings().model), error)
    try:
        message = read_image(bytes(call.payload))
    except ValueError as error:
        log_trouble(task, 0, f"dropped a message that can't be read: {error}")
        return Sent(task, None, {})
    if message.expires and message.expires < datetime.now(UTC):
        return Sent(task, None, {}, revoked(task, "expired"))
    return Sent(task, *read_arguments(message.args, message.kwargs))


def read_arguments(
    args: Sequence[Any], kwargs: dict[str, Any]
) -> tuple[Reading[Answer], dict[str, Any]]:
    """How an image is to be read, and its row of a chunk, which has what is wrong with either."""
    given: dict[str, Any] = dict(zip(ARGUMENTS, args, strict=False)) | kwargs
    reading: Reading[Answer] = Reading(
        NUMBER if given.get("read") == "number" else settings().model
    )
    try:
        if len(args) > len(ARGUMENTS) or not {*given} <= {*ARGUMENTS}:
            *names, last = ARGUMENTS
            raise UsageError(f"{CLASSIFY_IMAGE} takes {', '.join(names)} and {last}, and no more")
        image, allowed = given.pop("image", None), given.get("allowed")
        if isinstance(allowed, list) and len(allowed) > MAX_MESSAGE_NUMBERS:
            raise UsageError(
                f"{len(allowed):,} numbers are allowed: a message may have {MAX_MESSAGE_NUMBERS:,}"
            )
        reading = choose_reading(**given)
        return reading, {"id": "", "image": decode_image(image)}
    except UsageError as error:
        return reading, {"id": "", "error": printable(str(error))}


def classify_rows(
    rows: Sequence[dict[str, Any]], reading: Reading[Answer], read: Read
) -> pa.RecordBatch:
    """The results of images that are read in this way."""
    batch = pa.RecordBatch.from_pylist([*rows], pa.schema([ID, IMAGE_FIELD, ERROR]))
    try:
        return classify_chunk(Chunk(0, batch), reading.model, read, decode_asked(reading.known))
    except UnmetError as error:
        refused = [{"id": "", "error": str(error)}] * len(rows)
        return classify_rows(refused, Reading(reading.model), read)


def as_result(task: str, result: object, state: str = states.SUCCESS) -> bytes:
    """What Celery keeps of a task that has ended."""
    done = {"status": state, "result": result, "traceback": None, "children": [], "task_id": task}
    return str(as_json(done | {"date_done": app.now().isoformat()})).encode()


def revoked(task: str, reason: str) -> bytes:
    """What Celery keeps of a task that nobody wants any more; `get` raises an exception of it."""
    names = {"exc_type": "TaskRevokedError", "exc_module": "celery.exceptions"}
    return as_result(task, {**names, "exc_message": [reason]}, states.REVOKED)


def unread(result: bytes) -> ChunkResult:
    """The result of an image that no worker has read."""
    return ChunkResult(result, 1, "image", 0, 0, model=settings().model)


def decode_image(image: object) -> bytes:
    """The bytes of an image file from its base64. Raises `UsageError`."""
    if not isinstance(image, str):
        what = "no image" if image is None else f"the image is not text, but {type(image).__name__}"
        raise UsageError(f"{what}: give an image file in base64")
    limit = settings().image_bytes
    text = re.sub(r"\s+", "", image)  # the program `base64` breaks lines
    if 3 * len(text) // 4 - text.count("=", -2) > limit:
        raise UsageError(too_large(limit))
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:  # it has other characters, or was cut off
        raise UsageError("the image is not base64 of an image file") from None
