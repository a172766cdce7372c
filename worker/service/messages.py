"""What a worker accepts as a message. Anything else is dropped, with one line in the log.

Whoever may write to the queue can write any bytes there. Celery and kombu trust what they read: a
wrong header ends the worker, or takes one of its processes for ever. So they get a new message with
the few fields that are checked here, and never see the rest.
"""

import json
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NamedTuple

from kombu.utils.json import dumps, loads
from pydantic import BaseModel, Field, Strict, TypeAdapter, ValidationError

from digitq.protocol.text import in_one_line

MAX_SHOWN_CHARACTERS = 200  # the log and Flower show no more of what others have written
MAX_PRIORITY = 9  # kombu's lowest one

Text = Annotated[str, Strict()]
Name = Annotated[str, Field(strict=True, pattern="^[!-~]{1,200}$")]  # ASCII without spaces
JobId = Annotated[str, Field(strict=True, pattern=r"^[A-Za-z0-9_-]{1,100}$")]
ChunkNumber = Annotated[int, Field(strict=True, ge=0, lt=1 << 31)]


class Headers(BaseModel):
    """The headers that digitq needs. Others are not looked at, as Celery's limits of time."""

    task: Literal["digitq.classify", "digitq.classify_image"]
    id: Name
    argsrepr: Text | None = None  # what Flower shows
    expires: datetime | None = None


class Properties(BaseModel):
    """The properties that kombu needs."""

    delivery_tag: Name
    priority: Annotated[int, Strict()] | None = None
    body_encoding: Literal["base64", "utf-8"] | None = None


class Queued(BaseModel):
    """A message in the queue, as kombu writes it, of Celery's protocol 2."""

    body: Text  # JSON, perhaps in base64
    headers: Headers
    properties: Properties


QUEUED = TypeAdapter(Queued)
# The arguments, and what follows the task: callbacks, a chain, a chord
BODY = TypeAdapter(tuple[list[Any], dict[str, Any], dict[str, Any]])
CHUNK = TypeAdapter(tuple[JobId, ChunkNumber])  # the arguments of a task of the ledger
as_json: Any = dumps  # kombu has no types here
as_python: Any = loads


class SentImage(NamedTuple):
    """The message of another program's image."""

    args: list[Any]
    kwargs: dict[str, Any]
    expires: datetime | None  # after this time nobody wants the answer


def read_message(content: object, queue: str) -> dict[str, Any]:
    """The message for Celery, made of what was in a queue of chunks. It can be read in this way
    again. Raises `ValueError` with a reason of one line."""
    with one_line():
        sent = QUEUED.validate_python(content)
        args, kwargs, following = read_body(sent)
        chunk = CHUNK.validate_python(args)
        if kwargs | following:
            raise ValueError("a chunk has other arguments than its job and its number")
    headers, properties = sent.headers, sent.properties
    return {
        "body": as_json([chunk, {}, {}]),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {
            "lang": "py",
            "task": headers.task,
            "id": headers.id,
            "root_id": headers.id,
            "argsrepr": shorten(headers.argsrepr or ""),
            "kwargsrepr": "",
            "chunk": chunk,  # Celery tells whoever hears of a revoked task its headers only
        },
        "properties": {
            "correlation_id": headers.id,
            "delivery_tag": properties.delivery_tag,
            "delivery_mode": 2,
            "priority": max(0, min(MAX_PRIORITY, properties.priority or 0)),
            "body_encoding": "utf-8",
            "delivery_info": {"exchange": "", "routing_key": queue},
        },
    }


def read_image(content: bytes) -> SentImage:
    """What another program has sent. Raises `ValueError` with a reason of one line.

    Nothing follows the task: a worker would send callbacks with rights that their sender lacks.
    They become arguments that the task does not know, so that it says so.
    """
    with one_line():
        sent = QUEUED.validate_python(json.loads(content))
        args, kwargs, following = read_body(sent)
        expires = sent.headers.expires
        if expires:  # without a time zone it is UTC
            expires = expires.astimezone(UTC) if expires.tzinfo else expires.replace(tzinfo=UTC)
        return SentImage(args, kwargs | following, expires)


def read_body(sent: Queued) -> tuple[list[Any], dict[str, Any], dict[str, None]]:
    """The arguments of a message, and the names of what follows the task. Raises any error."""
    body = sent.body
    if sent.properties.body_encoding == "base64":
        body = b64decode(body, validate=True).decode()
    body.encode()  # raises an error for half a character
    args, kwargs, following = BODY.validate_python(as_python(body))
    return args, kwargs, {name: None for name, what in following.items() if what}


@contextmanager
def one_line() -> Iterator[None]:
    """Gives every error as a `ValueError` with a reason of one line."""
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "it"
        raise ValueError(shorten(f"{place}: {first['msg']}")) from None
    except Exception as error:  # kombu's decoders raise any error
        raise ValueError(shorten(str(error)) or type(error).__name__) from None


def shorten(text: str) -> str:
    """The beginning of a text of others, in one line."""
    return in_one_line(text[:MAX_SHOWN_CHARACTERS])
