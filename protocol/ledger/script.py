"""The Lua script of the ledger, and what ties a Lua step to its typed signature in Python.

The script is `shared.lua` with all files of `steps/`, each of which is one atomic step.
"""

import inspect
import re
from collections.abc import Callable
from functools import wraps
from hashlib import sha1
from pathlib import Path
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar

from digitq.protocol import keys
from digitq.protocol.asked.own_network import MAX_NETWORK_BYTES
from digitq.protocol.broker.connection import Payload

MAX_SWEPT = 500  # a sweep looks at this many jobs, so that it takes Redis some milliseconds
MAX_PEEKED = 1000  # a sweep looks at this many messages of Celery's default queue
MAX_PEEKED_BYTES = 4 << 20  # a sweep stops there once the messages have this many bytes together
MAX_BOOKED = 256  # at most this many images of other programs wait in the ledger
MAX_BOOKED_BYTES = 4 << 20  # a step that has booked this much leaves the rest to the next one
IMAGE_TTL_SECONDS = 7 * 86400  # an image that no worker answers is forgotten after this time
RESULT_SECONDS = 3600  # Redis keeps the answer to an image of another program for this long
PATIENCE = 3  # a job's deadline is at least this many times its workers' longest silence
MAX_SENT_BYTES = 1 << 20  # a step queues messages of this size together, and leaves the rest
MAX_QUEUED_BYTES = 4096  # what a message names is no longer; digitq writes some 100 bytes
MAX_FIELDS = 100  # a record of a job has fewer fields
MAX_RESENT = 100_000  # chunks are not queued again while so many messages are in their queue
QUICK_ATTEMPTS = 5  # a chunk whose process died is queued again at once this many times
# The steps that a login may run without the right to load scripts, and the size of all arguments
# in bytes. Those without payload also run while Redis is full, so they must add little.
PRODUCER_STEPS = {
    **dict.fromkeys(("open", "dispatch", "seal", "heartbeat", "free", "sweep_job", "close"), 65536),
    **dict.fromkeys(("know", "submit"), 1 << 30),
    "lend": MAX_NETWORK_BYTES + 65536,
}
CONSTANTS = f"""
local PRODUCER_STEPS = {{{", ".join(f"{step} = {most}" for step, most in PRODUCER_STEPS.items())}}}
local MAX_SENT_BYTES, MAX_QUEUED_BYTES = {MAX_SENT_BYTES}, {MAX_QUEUED_BYTES}
local MAX_FIELDS = {MAX_FIELDS}
local MAX_RESENT = {MAX_RESENT}
local PATIENCE, QUICK_ATTEMPTS = {PATIENCE}, {QUICK_ATTEMPTS}
local MAX_SWEPT, MAX_PEEKED, MAX_PEEKED_BYTES = {MAX_SWEPT}, {MAX_PEEKED}, {MAX_PEEKED_BYTES}
local watermark, active, jobs = '{keys.WATERMARK}', '{keys.ACTIVE}', '{keys.JOBS}'
local queue, calls_queue, ended = '{keys.QUEUE}', '{keys.CALLS_QUEUE}', '{keys.ENDED}'
local counters, workers, sweeping = '{keys.COUNTERS}', '{keys.LIVING}', '{keys.SWEEPING}'
local WORKER, JOB, KNOWN = '{keys.WORKER}', '{keys.JOB}', '{keys.KNOWN}'
local NETWORK = '{keys.NETWORK}'
local IMAGES, DEFAULT_QUEUE = '{keys.IMAGES_QUEUE}', '{keys.DEFAULT_QUEUE}'
local UNBOOKED = {{'{"', '".join([keys.TAKEN, *keys.lists_of(keys.IMAGES_QUEUE)])}'}}
local BOOKED, ANSWER = '{keys.BOOKED_QUEUE}', '{keys.ANSWER}'
local MAX_BOOKED, MAX_BOOKED_BYTES = {MAX_BOOKED}, {MAX_BOOKED_BYTES}
local IMAGE_TTL_SECONDS, RESULT_SECONDS = {IMAGE_TTL_SECONDS}, {RESULT_SECONDS}
"""
ROOM = Path(__file__).parent
SHARED = (ROOM / "shared.lua").read_text()
LUA = {file.stem: file.read_text() for file in sorted((ROOM / "steps").glob("*.lua"))}
RUN_STEP = re.compile(r"(?<!function )steps\.(\w+)\(")


def _list_run(step: str) -> set[str]:
    """The step and those that it runs."""
    return {step}.union(*map(_list_run, RUN_STEP.findall(LUA[step])))


def _define(step: str) -> str:
    """The Lua code that defines a step if it is run; to define them all takes Redis some 10 µs."""
    runs = " or ".join(f"ARGV[1] == '{other}'" for other in LUA if step in _list_run(other))
    return f"if {runs} then\n{LUA[step]}end"


SCRIPT = "\n".join(
    [CONSTANTS + SHARED, *map(_define, LUA), "return finish(steps[ARGV[1]](unpack(ARGV, 3)))"]
)
SHA = sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()  # Redis's name for it

Argument = Payload | str | float
Given = ParamSpec("Given")
Reply = TypeVar("Reply")


class Call(NamedTuple, Generic[Reply]):
    """A call of a step, to which Redis replies with `Reply`."""

    step: str
    arguments: tuple[Argument, ...]


def lua_step(signature: Callable[Given, Reply]) -> Callable[Given, Call[Reply]]:
    """Make the signature of a step into a function that gives calls of it.

    An optional argument that is left out is nil in Lua. Raises `TypeError` if the Lua function with
    this name, in the file with this name, has other parameters.
    """
    name, parameters = signature.__name__, inspect.signature(signature)
    wanted = [
        "..." if one.kind is one.VAR_POSITIONAL else one.name
        for one in parameters.parameters.values()
    ]
    header = f"function steps.{name}({', '.join(wanted)})"
    if header not in " ".join(LUA.get(name, "").split()).replace("( ", "("):
        raise TypeError(f"steps/{name}.lua has no `{header}`, as its signature in Python wants")

    @wraps(signature)
    def call(*args: Given.args, **named: Given.kwargs) -> Call[Reply]:
        arguments: tuple[Any, ...] = args
        if named:
            arguments = parameters.bind(*args, **named).args
        return Call(name, arguments)

    return call
