"""The Python signatures of the steps in `ledger.lua`, which says what each of them does.

Names and order are those of the Lua functions. A call gives the step's arguments for the script.
"""

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import ParamSpec

from protocol.broker.connection import Payload
from protocol.chunk import Kind

Argument = Payload | str | float
P = ParamSpec("P")


def step(declared: Callable[P, None]) -> Callable[P, list[Argument]]:
    """A function that gives the name of the declared one, and its arguments in their order."""
    bind = signature(declared).bind

    @wraps(declared)
    def call(*args: P.args, **kwargs: P.kwargs) -> list[Argument]:
        return [declared.__name__, *bind(*args, **kwargs).args]

    return call


# `fields` are names and values of a job's record in turn, from `JobSpec.flat`
@step
def open(*fields: str | int) -> None: ...
@step
def know(base: int, base_row: int, payload: bytes, *fields: str | int) -> None: ...
@step
def dispatch(base: int, base_row: int, n: int, count: int, *fields: str | int) -> None: ...
@step
def seal(base: int, base_row: int, total: int, *fields: str | int) -> None: ...
@step
def submit(
    count: int, payload: Payload, known_payload: bytes, call: str, name: str, *fields: str | int
) -> None: ...
@step
def heartbeat(held: int) -> None: ...
@step
def begin(n: int, worker: str) -> None: ...
@step
def begin_calls(count: int, images: int, worker: str) -> None: ...
@step
def renew(n: int, noted: str = "") -> None: ...
@step
def fail(n: int) -> None: ...
@step
def count(model: str, count: int, failed: int, review: int, work_us: int, worker: str) -> None: ...
@step
def complete(
    n: int,
    silent_ms: int,
    result: Payload,
    failed: int,
    kind: Kind,
    pace_ns: int,
    review: int,
    work_us: int,
    worker: str,
    fingerprint: str,
) -> None: ...
@step
def requeue(n: int, worker: str) -> None: ...
@step
def complete_calls(text: str, *fields: Argument) -> None: ...
@step
def sweep_job(deadline: float) -> None: ...
@step
def sweep(deadline: float, seconds: float) -> None: ...
@step
def note_worker(name: str, seconds: float, about: str) -> None: ...
@step
def free(count: int, images: int) -> None: ...
@step
def take() -> None: ...
@step
def close(state: str, reason: str = "") -> None: ...
