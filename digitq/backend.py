"""The workers that a command uses: those behind a broker, or private ones."""

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

FILES_OF_A_WORKER = 64  # fewer are done before another worker would have started


@dataclass(frozen=True)
class Backend:
    """A client, and the private processes behind it where there are any."""

    client: Client
    local: Local | None


@contextmanager
def open_backend(
    broker: str | None, workers: int | None, images: int | None = None
) -> Iterator[Backend]:
    """The broker that is named, or a private Redis with workers: one for each core, or fewer for
    few `images`, where their number is known. Raises as `Client` does."""
    if url := broker or settings().broker_url:
        if workers:
            of = "--broker" if broker else "DIGITQ_BROKER_URL"
            raise UsageError(f"--workers starts private ones: it does not go with {of}")
        if settings().weights:
            echo_err("DIGITQ_WEIGHTS is for workers: those of this Redis keep what they have")
        client = Client(url)
        client.on_disconnect = echo_err
        yield Backend(client, None)
        return
    if not workers:
        workers = usable_cores()
        if images is not None:
            workers = min(workers, -(-images // FILES_OF_A_WORKER))
    with ExitStack() as stack:
        starting = f"starting Redis and {plural(workers, 'worker')} …"
        with Console(stderr=True).status(starting) if sys.stderr.isatty() else nullcontext():
            local = stack.enter_context(Local(workers))
            running = stack.enter_context(private_backend(local))
        yield running


@contextmanager
def private_backend(local: Local) -> Iterator[Backend]:
    """Private processes as a service, once the first worker is ready. A private Redis that is gone
    does not come back: nobody waits for it."""
    local.wait_until_ready(workers=1)
    try:
        yield Backend(Client(local.url, retry_seconds=0), local)
    except BrokerError:
        local.check_after_loss()
        raise
