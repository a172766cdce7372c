"""The workers that a command uses: private ones, or those behind a broker."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass

from rich.console import Console

from digitq.local.processes import Local
from digitq.terminal import echo_err
from producer.client import Client
from protocol.errors import BrokerError, UsageError
from protocol.host.cores import usable_cores
from protocol.settings import settings
from protocol.text import plural

FILES_PER_WORKER = 64  # that many files are classified before one more worker would have started


@dataclass(frozen=True)
class Backend:
    """A client, and the private processes behind it, if there are any."""

    client: Client
    local: Local | None = None


@contextmanager
def open_backend(
    broker: str | None, workers: int | None, images: int | None = None
) -> Iterator[Backend]:
    """The named broker, or a private Redis with a worker per core, or fewer for few `images`.

    Raises `UsageError` for `workers` with a broker, and whatever `Client` and `Local` raise.
    """
    if url := broker or settings().broker_url:
        if workers:
            named = "--broker" if broker else "DIGITQ_BROKER_URL"
            raise UsageError(f"--workers starts private workers: it does not go with {named}")
        if settings().weights:
            echo_err("DIGITQ_WEIGHTS has no effect here: running workers keep their own weights")
        yield Backend(Client(url))
        return
    if not workers:
        workers = usable_cores()
        if images is not None:
            workers = min(workers, -(-images // FILES_PER_WORKER))
    with ExitStack() as stack:
        starting = f"starting Redis and {plural(workers, 'worker')} …"
        with Console(stderr=True).status(starting) if sys.stderr.isatty() else nullcontext():
            local = stack.enter_context(Local(workers))
            backend = stack.enter_context(private_backend(local))
        yield backend


@contextmanager
def private_backend(local: Local) -> Iterator[Backend]:
    """Private processes as a backend, once the first worker is ready."""
    local.wait_until_ready(workers=1)
    try:  # a private Redis that died does not come back, so it is not waited for
        yield Backend(Client(local.url, retry_seconds=0), local)
    except BrokerError:
        local.check_after_loss()
        raise
