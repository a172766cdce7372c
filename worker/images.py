"""The Celery task for programs without digitq: one image as base64, answered in JSON.

Images that wait are classified together with the one that Celery gives, which takes half the time.
"""

import binascii
import json
import re
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple

import pyarrow as pa
from celery import Task, states
from celery.exceptions import Reject
from celery.result import AsyncResult
from celery.worker.request import Request
from redis import RedisError

from digitq.protocol.app import CLASSIFY_IMAGE, app
from digitq.protocol.asked import UnmetError
from digitq.protocol.asked.form import Form
from digitq.protocol.asked.known import Known
from digitq.protocol.asked.reading import Reading, choose_reading, decode_known
from digitq.protocol.chunk import ERROR, ID, IMAGE_FIELD, Chunk, answers, count_reviews
from digitq.protocol.errors import BrokerError, UsageError
from digitq.protocol.keys import IMAGES_QUEUE
from digitq.protocol.prediction import Answer
from digitq.protocol.settings import NUMBER, settings
from digitq.protocol.text import printable, too_large
from digitq.worker.classify import classify_chunk
from digitq.worker.picture import describe
from digitq.worker.service.messages import as_python, read_message
from digitq.worker.service.worker_log import log_chunk, log_trouble
from digitq.worker.sight.limits import MAX_CLOCK_SECONDS
from digitq.worker.tasks import FATAL_DEATHS, MAX_LISTS, ledger_without_retry

MAX_STORE_SECONDS = 60.0  # for this long, an answer that Redis refuses is tried again
ARGUMENTS = ("image", "model", "read", "length", "allowed", "pattern", "fill", "risk")
MAX_OTHERS = 7  # at most this many images are classified together with another one
MAX_OTHERS_BYTES = 1 << 19  # their messages together, which Redis reads in some 5 ms
MAX_MESSAGE_NUMBERS = 10_000  # a message may have this many allowed numbers
NOTHING = Known()
MIN_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.1, 1.0  # the pause between two attempts, which doubles


class ImageRequest(Request):
    """Flower shows the size of an image, and not the whole of it."""

    kwargsrepr = ""

    @property
    def argsrepr(self) -> str:
        kilobytes = 0.75 * len(self.message.body) / 1000  # base64 takes a third more
        return f"image of {kilobytes:,.1f} kB"


@app.task(
    name=CLASSIFY_IMAGE,
    bind=True,
    Request=f"{__name__}:{ImageRequest.__name__}",
    ignore_result=False,
    acks_late=True,
    reject_on_worker_lost=True,  # it is sent again, and its attempts are counted
    # For a process that hangs in spite of its limits, which hold for each image
    time_limit=(MAX_OTHERS + 3) * MAX_CLOCK_SECONDS,
    resultrepr_maxsize=130,  # characters that Flower shows: label, confidence and error
)
def classify_image(self: Task, /, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Classify one image, or read its number. Whatever is wrong with the arguments is the answer's
    `error`: another program does not understand an exception of Python."""
    attempt, others = 1, list[Sent]()
    if self.request.delivery_info["redelivered"]:
        found, attempt = read_note(self.AsyncResult(self.request.id))
        if found is not None:  # it was sent again because it took long
            return found
        store(self, self.request.id, states.STARTED, {"attempt": attempt})
    else:
        others = take_others()
    own = Sent(self.request.id, "", *read_arguments(args, kwargs, attempt))
    answers = classify_together([own, *others], attempt, self.request.hostname or "")
    for sent in (own, *others):
        store(self, sent.id, states.SUCCESS, answers[sent.id])
    if others:
        with suppress(BrokerError):  # they would be sent again, and have their answers
            ledger_without_retry().acknowledge_images([sent.tag for sent in others])
    self.request.ignore_result = True  # Celery would store it once more
    return dict(answers[own.id])


def read_note(noted: AsyncResult) -> tuple[dict[str, Any] | None, int]:
    """The answer of an image that comes again, if it has one, and which attempt this is.

    Its worker may have died of it, so attempts are noted where the answer will be.
    """
    try:
        if noted.state == states.SUCCESS:
            return dict(noted.result), 0
        return None, noted.info["attempt"] + 1 if noted.state == states.STARTED else 2
    except RedisError:
        raise
    except Exception as error:  # somebody else has written it, and Celery believes what it reads
        log_trouble(noted.id, 0, f"what is noted of it can't be read: {describe(error)}")
        noted.backend.forget(noted.id)  # Celery reads it once more before it stores another
        return None, 2


class Sent(NamedTuple):
    """An image that a program has sent."""

    id: str  # the task's
    tag: str  # the message's; empty if Celery acknowledges it
    reading: Reading[Answer]
    row: dict[str, Any]  # the image or an error, as a chunk has it


def take_others() -> list[Sent]:
    """Images that wait in the queue. Until they are acknowledged, they are sent again if this
    worker dies."""
    taken = list[Sent]()
    with suppress(BrokerError):
        for tag, message in ledger_without_retry().take_images(MAX_OTHERS, MAX_OTHERS_BYTES):
            try:
                checked = read_message(json.loads(message), IMAGES_QUEUE)
            except (ValueError, RecursionError):  # it is dropped where it comes again
                ledger_without_retry().hand_over_image(tag)
                continue
            args, kwargs, _ = as_python(checked["body"])
            taken.append(Sent(checked["headers"]["id"], tag, *read_arguments(args, kwargs)))
    return taken


def read_arguments(
    args: Sequence[Any], kwargs: dict[str, Any], attempt: int = 1
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
        if attempt > FATAL_DEATHS:
            raise UsageError("this image crashes workers")
        return reading, {"id": "", "image": decode_image(image)}
    except UsageError as error:
        return reading, {"id": "", "error": printable(str(error))}


def classify_together(images: Sequence[Sent], attempt: int, worker: str) -> dict[str, Any]:
    """The answer for each image by its id. Those that are read in the same way share a chunk."""
    groups, answered = defaultdict[Reading[Answer], list[Sent]](list), dict[str, Any]()
    for sent in images:
        groups[sent.reading].append(sent)
    for reading, group in groups.items():
        model, begun = reading.model, time.monotonic()
        try:
            result = classify_rows([sent.row for sent in group], model, load_known(reading.known))
        except UnmetError as error:
            result = classify_rows([{"id": "", "error": str(error)}] * len(group), model)
        seconds, failed = time.monotonic() - begun, answers(result).null_count
        for row, sent in enumerate(group):
            log_chunk(sent.id, 0, model, result.slice(row, 1), seconds / len(group), attempt)
        with suppress(BrokerError):  # an answer is worth more than its count
            ledger_without_retry().count(
                model, len(group), failed, count_reviews(result), seconds, worker
            )
        found = result.drop_columns(["id"]).to_pylist()
        answered |= {sent.id: answer for sent, answer in zip(group, found, strict=True)}
    return answered


def classify_rows(
    rows: list[dict[str, Any]], model: str, known: Known | Form = NOTHING
) -> pa.RecordBatch:
    """The results of a chunk with these rows. Raises as `classify_chunk`."""
    batch = pa.RecordBatch.from_pylist(rows, pa.schema([ID, IMAGE_FIELD, ERROR]))
    return classify_chunk(Chunk(0, batch), model, known=known)


load_known = lru_cache(MAX_LISTS)(decode_known)


def store(task: Task, id: str, state: str, content: dict[str, Any]) -> None:
    """Store Celery's result of an image. While Redis is full or lost, try again.

    Raises `Reject` after `MAX_STORE_SECONDS`: the task's image then goes back to its queue, and
    this attempt does not count, since no worker died.
    """
    end, pause = time.monotonic() + MAX_STORE_SECONDS, MIN_PAUSE_SECONDS
    request = task.request if id == task.request.id else None
    while True:
        try:
            task.backend.store_result(id, content, state, request=request)
            return
        except RedisError as error:
            if pause == MIN_PAUSE_SECONDS:
                log_trouble(id, 0, f"Redis does not take the answer: {error}")
            if time.monotonic() > end:
                with suppress(RedisError):
                    task.backend.forget(id)  # the attempts that are noted there
                raise Reject(str(error), requeue=True) from None
        time.sleep(pause)
        pause = min(2 * pause, MAX_PAUSE_SECONDS)


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
