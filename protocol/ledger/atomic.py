"""The atomic steps of the ledger, with the types of their arguments and replies.

Each is the Lua function in `steps/` with its name, which explains it. `base` and `base_row` are the
oldest chunk that is not collected and its first row, and `spec` is `JobSpec.flat()`: if Redis has
lost the job's record, a step makes it again from these.
"""

from typing import Any, Literal

from digitq.protocol.broker.connection import Payload
from digitq.protocol.chunk import Kind
from digitq.protocol.ledger.script import Argument, lua_step


@lua_step
def open(*spec: str | int) -> None: ...


@lua_step
def know(base: int, base_row: int, payload: Payload, *spec: str | int) -> None: ...


@lua_step
def lend(base: int, base_row: int, payload: Payload, *spec: str | int) -> int | None: ...


@lua_step
def dispatch(base: int, base_row: int, n: int, count: int, *spec: str | int) -> int | None: ...


@lua_step
def seal(base: int, base_row: int, total: int, *spec: str | int) -> int | None: ...


@lua_step
def submit(
    count: int,
    payload: Payload,
    known_payload: Payload,
    network_payload: Payload,
    call: Literal["shared", "alone"],
    name: str,
    network: str,
    *spec: str | int,
) -> int | None: ...


@lua_step
def heartbeat(held: int) -> None: ...


@lua_step
def begin(n: int, worker: str) -> list[Any]: ...


@lua_step
def begin_calls(count: int, images: int, bytes: int, worker: str) -> list[bytes]: ...


@lua_step
def renew(n: int, noted: str = "") -> int: ...


@lua_step
def fail(n: int) -> int: ...


@lua_step
def complete(
    n: int,
    payload: Payload,
    failed: int,
    kind: Kind,
    image_seconds: float,
    silent_seconds: float,
    review: int,
    work_seconds: float,
    worker: str,
    fingerprint: str,
    model: str,
) -> list[bytes] | None: ...


@lua_step
def complete_calls(text: str, *parts: Argument) -> None: ...


@lua_step
def requeue(n: int, worker: str) -> None: ...


@lua_step
def sweep(deadline: float, seconds: float) -> int | None: ...


@lua_step
def sweep_job(deadline: float) -> None: ...


@lua_step
def book_images() -> tuple[int, list[bytes]]: ...


@lua_step
def note_worker(name: str, seconds: float, about: str) -> tuple[int, bytes, bytes | None]: ...


@lua_step
def free(count: int, images: int) -> None: ...


@lua_step
def close(state: Literal["collected", "cancelled", "failed"], reason: str = "") -> None: ...
