"""What a worker accepts as a message, and what it makes of it."""

import json
import logging
from base64 import b64encode
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from unittest.mock import Mock

import pytest
from celery.worker.request import Request
from hypothesis import given, settings
from hypothesis import strategies as st
from kombu.transport.virtual import Message

from digitq.protocol.app import CLASSIFY, CLASSIFY_IMAGE, make_app
from digitq.protocol.keys import QUEUE
from digitq.worker.service.messages import read_image, read_message

NOTHING_FOLLOWS = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
HEADERS = {"lang": "py", "task": CLASSIFY, "id": "job-3-1.5", "argsrepr": "job job, chunk 3"}
PROPERTIES = {
    "correlation_id": "job-3-1.5",
    "delivery_tag": "tag",
    "delivery_info": {"exchange": "", "routing_key": "elsewhere"},
    "priority": 0,
    "body_encoding": "utf-8",
}
BODY = [["job", 3], {}, NOTHING_FOLLOWS]


def message(
    headers: Mapping[str, object] = {},
    properties: Mapping[str, object] = {},
    body: object = json.dumps(BODY),
) -> dict[str, Any]:
    """A chunk's message, with some of its parts changed."""
    return {
        "body": body,
        "headers": HEADERS | {**headers},
        "properties": PROPERTIES | {**properties},
        "content-type": "application/json",
        "content-encoding": "utf-8",
    }


def image(headers: Mapping[str, object] = {}) -> dict[str, Any]:
    """The message of another program's image."""
    body = json.dumps([["AAAA"], {}, NOTHING_FOLLOWS])
    return message({"task": CLASSIFY_IMAGE, **headers}, body=body)


def arguments(read: Mapping[str, Any]) -> Any:
    return json.loads(read["body"])


def as_request(read: dict[str, Any]) -> Request:
    """What a worker's main process makes of it."""
    app = make_app("redis://localhost:6379/0")
    channel = Mock(decode_body=lambda body, encoding: body, no_ack_consumers=None)
    task = Mock(ignore_result=True)
    found = Message(read, channel=channel, accept=["json", "application/json"])
    return Request(found, app=app, task=task)


def test_a_chunk_is_read_and_goes_back_to_the_queue_where_it_was() -> None:
    read = read_message(message(), QUEUE)
    assert arguments(read) == [["job", 3], {}, {}]
    assert read["headers"]["argsrepr"] == "job job, chunk 3"
    assert read["properties"]["delivery_info"]["routing_key"] == QUEUE
    assert as_request(read).args == ["job", 3]
    assert read_message(read, QUEUE) == read


def test_headers_that_digitq_does_not_need_are_not_handed_on() -> None:
    """Celery ends at some of them, and obeys others."""
    others = {
        "timelimit": ["x", {}],
        "eta": "9999-12-31T23:59:59",
        "shadow": "another",
        "compression": "zlib",
        "group": "g",
        "ignore_result": False,
        "stamped_headers": 5,
    }
    read = read_message(message(others), QUEUE)
    assert read == read_message(message(), QUEUE)


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("2026-12-01T08:00:00", datetime(2026, 12, 1, 8, tzinfo=UTC)),
        ("2026-12-01T08:00:00+02:00", datetime(2026, 12, 1, 6, tzinfo=UTC)),
        (None, None),
    ],
)
def test_an_image_may_expire(time: str | None, expected: datetime | None) -> None:
    assert read_image(json.dumps(image({"expires": time})).encode()).expires == expected


def test_what_would_follow_an_image_becomes_an_argument_that_it_does_not_know() -> None:
    """Its answer then says so, and the worker sends nothing for others."""
    following = NOTHING_FOLLOWS | {"chain": [{"task": "others.task", "args": []}]}
    body = b64encode(json.dumps([["AAAA"], {"model": "cnn"}, following]).encode()).decode()
    sent = message({"task": CLASSIFY_IMAGE}, {"body_encoding": "base64"}, body)
    read = read_image(json.dumps(sent).encode())
    assert (read.args, read.kwargs) == (["AAAA"], {"model": "cnn", "chain": None})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (5, "it: Input should be a valid dictionary"),
        ({}, "body: Field required"),
        (message(body="5"), "it: Input should be a valid tuple"),
        (message(body=5), "body: Input should be a valid string"),
        (message(body="[" * 100_000), ""),
        (message(body='[["job"], {}, {}]'), "1: Field required"),
        (message(body='[["job:results", 1], {}, {}]'), "0: String should match"),
        (message(body='[["job", -1], {}, {}]'), "1: Input should be greater than or equal to 0"),
        (message(body='[["job", true], {}, {}]'), "1: Input should be a valid integer"),
        (message(body='[["job", 1], {"x": 1}, {}]'), "a chunk has other arguments"),
        (message(body='[["job", 1], {}, {"chain": [5]}]'), "a chunk has other arguments"),
        (message(properties={"body_encoding": "base64"}), ""),
        (message(properties={"body_encoding": "x"}), "properties.body_encoding: "),
        (message(properties={"delivery_tag": {}}), "properties.delivery_tag: "),
        (message(properties={"priority": "high"}), "properties.priority: "),
        (message({"task": "celery.backend_cleanup"}), "headers.task: Input should be 'digitq.cl"),
        (message({"task": {}}), "headers.task: "),
        (message({"id": "a b"}), "headers.id: String should match pattern"),
        (message({"id": None}), "headers.id: Input should be a valid string"),
        (message({"expires": "soon"}), "headers.expires: "),
    ],
)
def test_anything_else_is_refused_with_one_line(content: object, reason: str) -> None:
    check_refusal(lambda: read_message(content, QUEUE), reason)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "Expecting property name"),
        (b"\xff", "'utf-8' codec can't decode"),
        (b"[" * 100_000, ""),
        ({"body": "5"}, "it: Input should be a valid tuple"),
        (
            {"headers": HEADERS | {"expires": "0001-01-01T00:00:00+23:00"}},
            "date value out of range",
        ),
        ({"body": '[["\ud800"], {}, {}]'}, "'utf-8' codec can't encode"),
        ({"body": '[[{"__type__": [], "__value__": 0}], {}, {}]'}, "unhashable type"),
    ],
)
def test_a_message_of_no_image_is_refused_with_one_line(content: Any, reason: str) -> None:
    if not isinstance(content, bytes):
        content = json.dumps(image() | content).encode()
    check_refusal(lambda: read_image(content), reason)


def check_refusal(read: Callable[[], object], reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        read()
    text = str(caught.value)
    assert text.startswith(reason) and text.isprintable() and len(text) <= 1000


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
PLACES = (
    "body",
    "headers",
    "properties",
    *(f"headers.{name}" for name in [*HEADERS, "expires"]),
) + (*(f"properties.{name}" for name in PROPERTIES),)


@settings(max_examples=200)
@given(st.sampled_from(PLACES), JSON, st.sampled_from([CLASSIFY, CLASSIFY_IMAGE]))
def test_whatever_is_accepted_celery_can_take(place: str, value: object, task: str) -> None:
    content = message({"task": task})
    first, _, rest = place.partition(".")
    if rest:
        content[first] = content[first] | {rest: value}
    else:
        content[first] = json.dumps(value) if place == "body" else value
    try:
        read = read_message(json.loads(json.dumps(content)), QUEUE)
    except ValueError as error:
        assert str(error).isprintable() and str(error)
    else:
        logging.getLogger(__name__).debug(as_request(read).info())
        assert read_message(json.loads(json.dumps(read)), QUEUE) == read
