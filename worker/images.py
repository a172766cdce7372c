"""The Celery task for programs without digitq: one image as base64, answered in JSON."""

import binascii
import re
import time
from contextlib import suppress
from typing import Any

import pyarrow as pa
from celery import Task, states
from celery.exceptions import Reject
from celery.result import AsyncResult
from celery.worker.request import Request
from redis import RedisError

from protocol.celery import CLASSIFY_IMAGE, app
from protocol.chunk import ERROR, ID, IMAGE_FIELD, Chunk, answers, count_reviews
from protocol.errors import BrokerError, UsageError
from protocol.reading import choose_reading
from protocol.settings import NUMBER, settings
from protocol.text import too_large
from worker.classify import classify_chunk
from worker.service.limits import MAX_CLOCK_SECONDS
from worker.service.worker_log import log_chunk, log_trouble
from worker.tasks import FATAL_DEATHS, ledger_without_retry

MAX_STORE_SECONDS = 60.0  # for this long, an answer that Redis refuses is tried again
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
    reject_on_worker_lost=True,  # it is sent again, and `count_attempts` counts how often
    time_limit=3 * MAX_CLOCK_SECONDS,  # for a process that hangs in spite of its limits
    resultrepr_maxsize=130,  # characters that Flower shows: label, confidence and error
)
def classify_image(
    self: Task,
    image: object = None,
    model: Any = None,
    read: Any = "digit",
    *more: object,
    **others: object,
) -> dict[str, Any]:
    """Classify one image, or read its number. Whatever is wrong with the arguments is the answer's
    `error`: another program does not understand an exception of Python."""
    begun, attempt = time.monotonic(), 1
    if self.request.delivery_info["redelivered"]:
        noted = self.AsyncResult(self.request.id)
        if noted.state == states.SUCCESS:  # it was sent again because it took long
            done: dict[str, Any] = noted.result
            return done
        attempt = count_attempts(self, noted)
    name = NUMBER if read == "number" else settings().model
    try:
        if more or others:
            raise UsageError(f"{CLASSIFY_IMAGE} takes image, model and read, and no more")
        name = choose_reading(model, read).model
        row = {"id": "", "image": decode_image(image)}
        if attempt > FATAL_DEATHS:
            raise UsageError("this image crashes workers")
    except UsageError as error:
        row = {"id": "", "error": str(error)}
    batch = pa.RecordBatch.from_pylist([row], pa.schema([ID, IMAGE_FIELD, ERROR]))
    result = classify_chunk(Chunk(0, batch), name)
    seconds, failed = time.monotonic() - begun, answers(result).null_count
    log_chunk(self.request.id, 0, name, result, seconds, attempt)
    with suppress(BrokerError):  # an answer is worth more than its count
        ledger_without_retry().count(
            name, failed, count_reviews(result), seconds, self.request.hostname or ""
        )
    answer: dict[str, Any] = result.drop_columns(["id"]).to_pylist()[0]
    store(self, states.SUCCESS, answer)
    self.request.ignore_result = True  # Celery would store it once more
    return answer


def store(task: Task, state: str, content: dict[str, Any]) -> None:
    """Store Celery's result of this image. While Redis is full or lost, try again.

    Raises `Reject` after `MAX_STORE_SECONDS`: the image then goes back to its queue, and this
    attempt does not count, since no worker died.
    """
    id, end, pause = task.request.id, time.monotonic() + MAX_STORE_SECONDS, MIN_PAUSE_SECONDS
    while True:
        try:
            task.backend.store_result(id, content, state, request=task.request)
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


def count_attempts(task: Task, noted: AsyncResult) -> int:
    """How often an image whose message came before was begun, now included. Its worker may have
    died of it, so each further attempt is noted where the answer will be."""
    attempt = noted.info["attempt"] + 1 if noted.state == states.STARTED else 2
    store(task, states.STARTED, {"attempt": attempt})
    return attempt


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
