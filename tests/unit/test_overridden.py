"""What digitq overrides of kombu, Celery and redis-py is not public, so any version may change it.

Each function has the hash of the source that digitq was written for. If one has changed, read it
anew, mend what relies on it, and write the new hash here. The reasons are beside the overrides.
"""

import inspect
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest
from celery.worker import state
from celery.worker.consumer.gossip import Gossip
from celery.worker.consumer.mingle import Mingle
from kombu.transport import redis
from kombu.transport.virtual import base
from redis.connection import AbstractConnection, HiredisRespSerializer, PythonRespSerializer

from digitq.protocol.broker.connection import Packer
from digitq.worker.service import transport

SEEN: dict[Callable[..., Any], str] = {
    # `worker/service/transport.py: Channel` overrides these
    redis.Channel.__init__: "f189bdeb",
    redis.Channel.basic_consume: "34e0da85",
    redis.Channel._brpop_read: "c4251869",
    redis.Channel._size: "7cc839b4",
    redis.Channel._queue_bind: "29b73e02",
    redis.Channel._restore: "92e63e38",
    # It relies on what these do
    base.Channel.basic_consume: "0fec9626",  # keeps what takes a queue's messages in `_callbacks`
    base.Transport._deliver: "799e242f",  # calls it with a message's content
    redis.Channel._do_restore_message: "8b430df9",  # puts a message back into its queue
    base.Message.__init__: "c90d08cc",  # keeps a message's content as `_raw`
    # `worker/celery.py` changes what these read, `compatible_transports`
    Gossip.compatible_transport: "617d83ba",
    Mingle.compatible_transport: "617d83ba",
    # `worker/service/watchdog.py` reads what these write
    state.task_accepted: "fc90a50f",
    state.task_ready: "ad25f298",
    # `protocol/broker/connection.py: Packer` overrides the first two, calls the third, and the last
    # lets it take the place of a connection's own
    PythonRespSerializer.__init__: "460a28b5",
    PythonRespSerializer.pack: "235d7aef",
    HiredisRespSerializer.pack: "5f4b763d",
    AbstractConnection._construct_command_packer: "3ac6a5d2",
}
OURS = transport.Channel, transport.SentinelChannel, Packer


@pytest.mark.parametrize("function", SEEN, ids=lambda function: function.__qualname__)
def test_what_is_overridden_has_not_changed(function: Callable[..., Any]) -> None:
    found = sha256(inspect.getsource(function).encode()).hexdigest()[:8]
    assert found == SEEN[function], f"its hash is {found}"


@pytest.mark.parametrize("ours", OURS)
def test_each_override_is_listed(ours: type) -> None:
    for name in vars(ours):
        original = getattr(super(ours, ours), name, None)
        assert original in SEEN or not inspect.isfunction(original), name
