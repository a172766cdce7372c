"""The Lua script of the ledger, each function of which is one atomic step."""

import re
from importlib.resources import files

from digitq.protocol import keys
from digitq.protocol.broker.connection import Payload

MAX_SWEPT = 500  # a sweep looks at this many jobs, so that it takes Redis some milliseconds
MAX_PEEKED = 1000  # a sweep looks at this many messages of Celery's default queue
MAX_PEEKED_BYTES = 4 << 20  # and no further once they are this large together
PATIENCE = 3  # a job's deadline is at least this many times its workers' longest silence
QUICK_ATTEMPTS = 5  # a chunk whose process died is queued again at once this many times
CONSTANTS = f"""
local PATIENCE, QUICK_ATTEMPTS = {PATIENCE}, {QUICK_ATTEMPTS}
local MAX_SWEPT, MAX_PEEKED, MAX_PEEKED_BYTES = {MAX_SWEPT}, {MAX_PEEKED}, {MAX_PEEKED_BYTES}
local WORKER, JOB, KNOWN = '{keys.WORKER}', '{keys.JOB}', '{keys.KNOWN}'
local IMAGES, DEFAULT_QUEUE = '{keys.IMAGES_QUEUE}', '{keys.DEFAULT_QUEUE}'
local UNACKED, UNACKED_INDEX = '{keys.UNACKED}', '{keys.UNACKED_INDEX}'
"""
SCRIPT = CONSTANTS + files("digitq.protocol.ledger").joinpath("shared.lua").read_text()
PARAMETERS = dict(re.findall(r"^function steps\.(\w+)\(\s*(.*?)\)", SCRIPT, re.MULTILINE))
Argument = Payload | str | float


def arrange(step: str, *rest: Argument, **named: Argument) -> list[Argument]:
    """The arguments of a step in the order of its Lua function, whose parameters are `named`."""
    position = PARAMETERS[step].split(", ").index
    return [*(named[name] for name in sorted(named, key=position)), *rest]
