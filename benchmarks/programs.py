"""`python -m benchmarks.programs IMAGE…`: the Celery task beside `Client.classify`, in one run."""

import base64
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path

from celery import Celery

from digitq import Client
from digitq.private.processes import Local
from digitq.protocol.app import CLASSIFY_IMAGE
from digitq.protocol.broker.address import read_address
from digitq.protocol.keys import IMAGES_QUEUE

CALLS = 64
ROUNDS = 4  # the first one warms up
TIMEOUT_SECONDS = 60


def main(paths: list[str]) -> None:
    contents = [Path(path).read_bytes() for path in islice(cycle(paths), CALLS)]
    texts = [base64.b64encode(content).decode() for content in contents]
    with Local(workers=2) as local, ThreadPoolExecutor(CALLS) as pool:
        local.wait_until_ready()
        url = read_address(local.url).celery_url
        client, app = Client(local.url), Celery(broker=url, backend=url)

        def call(number: int) -> object:
            return client.classify(contents[number])

        def send(number: int) -> object:
            return app.send_task(CLASSIFY_IMAGE, [texts[number]], queue=IMAGES_QUEUE).get(
                TIMEOUT_SECONDS
            )

        for round in range(ROUNDS):
            for name, ask in (("Client.classify", call), ("the task", send)):
                alone = statistics.median(measure(ask, number) for number in range(CALLS))
                together = measure(lambda ask=ask: list(pool.map(ask, range(CALLS))))
                shown = f"alone {alone:5.1f} ms, {CALLS} at once {together:5.0f} ms"
                print(f"{'warm' if round else 'cold'}  {name:15}  {shown}", flush=True)


def measure(ask: Callable[..., object], *arguments: int) -> float:
    """The time of a call in ms."""
    begun = time.perf_counter()
    ask(*arguments)
    return 1e3 * (time.perf_counter() - begun)


if __name__ == "__main__":
    main(sys.argv[1:])
