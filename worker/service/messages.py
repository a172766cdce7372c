"""What a worker accepts as a message. Anything else is dropped, with one line in the log.

Whoever may write to the queue can write any bytes there. Celery and kombu trust what they read: a
wrong header ends the worker, or takes one of its processes for ever. So they get a new message with
the few fields that are checked here, and never see the rest.
"""

import re
from base64 import b64decode
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from kombu.utils.json import dumps, loads
from pydantic import BaseModel, Field, Strict, TypeAdapter, ValidationError

from digitq.protocol.app import CLASSIFY
from digitq.protocol.text import in_one_line

MAX_SHOWN_CHARACTERS = 200  # the log and Flower show no more of what others have written
MAX_PRIORITY = 9  # kombu's lowest one

Text = Annotated[str, Strict()]
NAME = "[!-~]{1,200}"  # printable ASCII without spaces
IS_NAME = re.compile(NAME).fullmatch
Name = Annotated[str, Field(strict=True, pattern=f"^{NAME}$")]
JobId = Annotated[str, Field(strict=True, pattern=r"^[A-Za-z0-9_-]{1,100}$")]
ChunkNumber = Annotated[int, Field(strict=True, ge=0, lt=1 << 31)]


class Headers(BaseModel):
    """The headers that digitq needs. Others are not looked at, as Celery's limits of time."""

    task: Literal["digitq.classify", "digitq.classify_image"]
    id: Name
    argsrepr: Text | None = None  # what Flower shows of a chunk
    expires: datetime | None = None


class Delivery(BaseModel):
    """What kombu notes in a message that is sent again."""

    redelivered: Annotated[bool, Strict()] = False


class Properties(BaseModel):
    """The properties that kombu needs."""

    delivery_tag: Name
    delivery_info: Delivery = Delivery()
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
CHUNK = TypeAdapter(tuple[JobId, ChunkNumber])  # the arguments of `digitq.classify`
as_json: Any = dumps  # kombu has no types here
as_python: Any = loads


def read_message(content: object, queue: str) -> dict[str, Any]:
    """The message for Celery, made of what was in the queue. It can be read in this way again.

    Raises `ValueError` with a reason of one line.
    """
    try:
        sent = QUEUED.validate_python(content)
        body, expires = read_body(sent), read_time(sent.headers.expires)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "it"
        raise ValueError(shorten(f"{place}: {first['msg']}")) from None
    except Exception as error:  # kombu's decoders raise any error
        raise ValueError(shorten(str(error)) or type(error).__name__) from None
    headers, properties = sent.headers, sent.properties
    redelivered = properties.delivery_info.redelivered
    return {
        "body": body,
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {
            "lang": "py",
            "task": headers.task,
            "id": headers.id,
            "root_id": headers.id,
            "argsrepr": shorten(headers.argsrepr or ""),
            "kwargsrepr": "",
            "expires": expires,
        },
        "properties": {
            "correlation_id": headers.id,
            "delivery_tag": properties.delivery_tag,
            "delivery_mode": 2,
            "priority": max(0, min(MAX_PRIORITY, properties.priority or 0)),
            "body_encoding": "utf-8",
            "delivery_info": {"exchange": "", "routing_key": queue, "redelivered": redelivered},
        },
    }


def read_body(sent: Queued) -> str:
    """The body of a message for Celery, in JSON. Raises any error for one that can't be read.

    Nothing follows the task: a worker would send callbacks with rights that their sender lacks. In
    the body of an image they become arguments that the task does not know, so that it says so.
    """
    body = sent.body
    if sent.properties.body_encoding == "base64":
        body = b64decode(body, validate=True).decode()
    args, kwargs, following = BODY.validate_python(as_python(body))
    following = {name: None for name, what in following.items() if what}
    if sent.headers.task == CLASSIFY:
        args, kwargs = [*CHUNK.validate_python(args)], kwargs | following
        if kwargs:
            raise ValueError("a chunk has other arguments than its job and its number")
    elif not following:
        body.encode()  # raises an error for half a character
        return body
    return str(as_json([args, kwargs | following, {}]))


def read_time(time: datetime | None) -> str | None:
    """A time as Celery reads it; without a time zone it is UTC. Raises `OverflowError`."""
    if time is None:
        return None
    return (time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)).isoformat()


def shorten(text: str) -> str:
    """The beginning of a text of others, in one line."""
    return in_one_line(text[:MAX_SHOWN_CHARACTERS])
