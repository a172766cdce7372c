"""What somebody may write to Redis who has a login and means no good, drawn at random."""

import json
from base64 import b64encode
from copy import deepcopy
from random import Random
from typing import Any

import pyarrow as pa

from digitq.protocol.app import CLASSIFY, CLASSIFY_IMAGE
from digitq.protocol.chunk import encode

VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 5, 1 << 70, 1e308, "", "x", "\ud800", "\x00\n", "a" * 5000),
    *([], {}, [[]], ["x", {}], {"a": {"b": []}}, "../../etc", "2026-12-01T08:00:00", "cnn"),
    {"__type__": "datetime", "__value__": 3},
    {"__type__": "bytes", "__value__": "x"},
)
SIGNATURE = {"task": CLASSIFY_IMAGE, "args": [], "kwargs": {}, "options": {"queue": "celery"}}
HEADERS: dict[str, tuple[Any, ...]] = {  # those of Celery, and what they might be besides `VALUES`
    "timelimit": (["x", {}], [1e-9, 1e-9], [0, None]),
    "eta": ("9999-12-31T23:59:59", "0001-01-01T00:00:00+23:59"),
    "expires": ("2000-01-01T00:00:00", "9999-12-31T23:59:59-23:59"),
    "task": (CLASSIFY, CLASSIFY_IMAGE, "celery.backend_cleanup", "celery.map", "celery.chord"),
    "compression": ("application/x-gzip", "application/x-bz2"),
    **dict.fromkeys(
        ("id", "root_id", "parent_id", "group", "shadow", "lang", "retries", "ignore_result"), ()
    ),
    **dict.fromkeys(("argsrepr", "kwargsrepr", "stamps", "stamped_headers", "redelivered"), ()),
    **dict.fromkeys(("replaced_task_nesting", "group_index", "meth", "origin", "clock"), ()),
}
FOLLOWING = ("callbacks", "errbacks", "chain", "chord")
TYPES = (pa.string(), pa.int8(), pa.int64(), pa.float32(), pa.binary(), pa.list_(pa.int8()))


def draw_message(random: Random, job_id: str, image: str) -> bytes:
    """A message of a chunk of this job, or of this image in base64, that was changed."""
    is_image, id = random.random() < 0.5, f"{random.getrandbits(60):x}"
    body: Any = [[image] if is_image else [job_id, 0], {}, dict.fromkeys(FOLLOWING)]
    content: Any = {
        "headers": {"task": CLASSIFY_IMAGE if is_image else CLASSIFY, "id": id, "lang": "py"},
        "properties": {
            **{"delivery_tag": id, "correlation_id": id, "priority": 0, "body_encoding": "utf-8"},
            "delivery_info": {"exchange": "", "routing_key": "digitq", "redelivered": False},
        },
        "content-type": "application/json",
        "content-encoding": "utf-8",
    }
    for _ in range(random.choice((0, 1, 1, 2))):
        name = random.choice([*HEADERS])
        content["headers"][name] = draw(random, *HEADERS[name], *VALUES)
    if random.random() < 0.3:
        body[2][random.choice(FOLLOWING)] = draw(random, [SIGNATURE], SIGNATURE, *VALUES)
    properties = content["properties"]
    for _ in range(random.choice((0, 1, 1, 2))):
        change(random, random.choice((body, content, properties)))
    text = json.dumps(body)
    if random.random() < 0.3:
        properties["body_encoding"] = "base64"
        text = b64encode(text.encode()).decode()
    content["body"] = random.choice((*VALUES, "[" * 50_000)) if random.random() < 0.1 else text
    raw = json.dumps(content).encode()
    match random.randrange(20):
        case 0:
            raw = raw[: random.randrange(len(raw))]
        case 1:
            raw = random.randbytes(random.randrange(200))
        case 2:
            raw = b"[" * 50_000
        case 3:
            raw = json.dumps(random.choice(VALUES)).encode()
    return raw


def draw(random: Random, *values: Any) -> Any:
    """A copy of one of the values: what `change` does to it must not reach the next message."""
    return deepcopy(random.choice(values))


def change(random: Random, part: Any) -> None:
    """Replace, remove or add something in a list or an object, or deep in it."""
    places = [*(range(len(part)) if isinstance(part, list) else part)]
    if not places:
        return
    place = random.choice(places)
    if isinstance(part[place], list | dict) and random.random() < 0.5:
        change(random, part[place])
    elif random.random() < 0.3:
        del part[place]
    else:
        part[place] = draw(random, *VALUES)
    if isinstance(part, dict) and random.random() < 0.2:
        part[random.choice([*HEADERS, *FOLLOWING, "self", "x"])] = draw(random, *VALUES)


def draw_batch(random: Random, batch: pa.RecordBatch) -> bytes:
    """An Arrow stream of these rows whose columns or bytes were changed."""
    columns, metadata = dict(zip(batch.schema.names, batch.columns, strict=True)), {}
    if random.random() < 0.7:
        metadata = dict(batch.schema.metadata or {})
    name = random.choice(batch.schema.names)
    match random.randrange(5):
        case 0:
            columns = {random.choice((f"{name}2", "page", "number")): columns.pop(name), **columns}
        case 1:
            columns[name] = pa.nulls(batch.num_rows, columns[name].type)
        case 2:
            columns[name] = pa.array([None] * batch.num_rows, random.choice(TYPES))
        case 3:
            del columns[name]
        case 4:
            metadata[b"first_row"] = random.choice((b"", b"x", b"-1", b"9" * 30))
    changed = bytearray(encode(pa.record_batch(columns).replace_schema_metadata(metadata)))
    for _ in range(random.choice((0, 0, 1, 20))):
        changed[random.randrange(len(changed))] = random.randrange(256)
    end = random.randrange(len(changed)) if random.random() < 0.2 else len(changed)
    return bytes(changed[:end])
