"""`Job.results_async`, and what a client does while it waits."""

import asyncio
import itertools
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from digitq import Client
from digitq.private.processes import Local
from digitq.producer.job import Job
from digitq.protocol.errors import JobCancelledError, UsageError
from tests.drawing import random_digits
from tests.waiting import wait_for

DIGITS = random_digits(3000)


CANCELLED = """
import asyncio
from contextlib import suppress

from digitq.private.processes import Local
from digitq import Client
from tests.drawing import random_digits

async def main():
    with Local(workers=0) as local:
        job = Client(local.url).submit(random_digits(1))
    with suppress(TimeoutError):
        async with asyncio.timeout(0.5):
            async for batch in job.results_async():
                pass

asyncio.run(main())
"""


async def collect(job: Job, ids: list[str]) -> None:
    async for batch in job.results_async():
        ids += batch.column("id").to_pylist()


def test_it_gives_the_results_in_order(client: Client) -> None:
    """And a second call goes on where the first one stopped."""

    async def run() -> None:
        job = client.submit(DIGITS)
        ids: list[str] = []
        async for batch in job.results_async():
            ids += batch.column("id").to_pylist()
            break
        assert 0 < len(ids) < len(DIGITS)
        await collect(job, ids)
        assert ids == [str(number) for number in range(len(DIGITS))]
        assert job.progress().state == "collected"

    asyncio.run(run())


def test_the_event_loop_goes_on_and_no_result_is_lost_by_a_cancelled_wait(client: Client) -> None:
    go_on = threading.Event()

    def images() -> Iterator[np.ndarray]:
        go_on.wait()
        yield from DIGITS[:3]

    async def run() -> None:
        job = client.submit(images())
        ids: list[str] = []
        waiting = asyncio.create_task(collect(job, ids))
        for _ in range(20):
            await asyncio.sleep(0.01)
        waiting.cancel()
        go_on.set()
        with suppress(asyncio.CancelledError):
            async with asyncio.timeout(0.3):  # less than a wait takes
                await waiting
        assert waiting.cancelled() and not ids
        await collect(job, ids)
        assert ids == ["0", "1", "2"]

    asyncio.run(run())


def test_a_job_that_nobody_has_after_a_cancelled_wait_is_cancelled(redis_only: Local) -> None:
    client = Client(redis_only.url)

    async def wait() -> None:
        await collect(client.submit(itertools.repeat(DIGITS)), [])

    async def run() -> None:
        waiting = asyncio.create_task(wait())
        while not client.jobs():
            await asyncio.sleep(0.01)
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting

    asyncio.run(run())
    wait_for(lambda: client.jobs()[0].state == "cancelled")


def test_a_cancelled_wait_for_a_lost_redis_does_not_keep_the_process_alive() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", CANCELLED], cwd=root, timeout=30, check=False)
    assert done.returncode == 0


def test_it_raises_what_results_raises(client: Client) -> None:
    def torn() -> Iterator[np.ndarray]:
        yield DIGITS[0]
        raise ValueError("torn")

    ids: list[str] = []
    with pytest.raises(ValueError, match="torn"):
        asyncio.run(collect(client.submit(torn()), ids))
    assert ids == ["0"]
    job = client.submit(DIGITS)
    with pytest.raises(UsageError, match="is collected by the process that submitted it"):
        asyncio.run(collect(client.job(job.id), []))
    job.cancel()
    with pytest.raises(JobCancelledError):
        asyncio.run(collect(job, []))


def test_what_on_idle_raises_ends_the_wait(redis_only: Local) -> None:
    def look() -> None:
        raise RuntimeError("no worker will come")

    client = Client(redis_only.url)
    client.ledger.on_idle = look
    with pytest.raises(RuntimeError, match="no worker will come"):
        client.classify(DIGITS[0])
    job = client.submit(DIGITS, detached=True)
    assert job.wait_until_stored()
    for same in (job, client.job(job.id)):
        with pytest.raises(RuntimeError, match="no worker will come"):
            asyncio.run(collect(same, []))
