"""Where one Redis ends: the processor time that it spends on images.

`python -m benchmarks.one_redis` classifies MNIST's arrays and the same digits as PNG files, by a
private Redis and two workers, over TCP, over a Unix socket, and with an append-only file. It prints
how many images a second would fill the thread in which Redis works. Only the processor time of
that thread is measured, so other work on the machine matters little.
"""

import io
from collections.abc import Iterable
from itertools import chain, repeat

import numpy as np
import PIL.Image

import digitq
from digitq import Client
from digitq.private.processes import Local, find_free_port
from digitq.protocol.formats.mnist import load_mnist

ARRAYS, FILES = 600_000, 60_000
WORKERS = 2


def main() -> None:
    digits = load_mnist("train")[0].reshape(-1, 28, 28)
    print(f"{'images/s':24}{'arrays':>12}{'PNG files':>12}")

    def measure_both(client: Client, name: str) -> None:
        arrays = chain.from_iterable(repeat(digits, ARRAYS // len(digits)))
        rates = measure(client, arrays), measure(client, map(encode, digits[:FILES]))
        print(f"{name:24}{rates[0]:12,.0f}{rates[1]:12,.0f}", flush=True)

    for port in (find_free_port(), None):
        with Local(workers=WORKERS, port=port) as local, Client(local.url) as client:
            local.wait_until_ready(WORKERS)
            list(client.submit(digits[:1000], digitq.digits("mlp")).results())  # warms up
            measure_both(client, "TCP" if port else "Unix socket")
            if not port:  # on TCP, Redis is as `digitq up` has it, and refuses CONFIG
                client.ledger.redis.config_set("appendonly", "yes")
                measure_both(client, "… and append-only file")


def encode(digit: np.ndarray) -> bytes:
    """A PNG file of (28, 28) pixels."""
    file = io.BytesIO()
    PIL.Image.fromarray(digit).save(file, "PNG")
    return file.getvalue()


def measure(client: Client, images: Iterable[np.ndarray | bytes]) -> float:
    """How many of these images a second would fill the main thread of Redis."""
    before = spent_seconds(client)
    count = sum(batch.num_rows for batch in client.submit(images, digitq.digits("mlp")).results())
    return float(count / (spent_seconds(client) - before))


def spent_seconds(client: Client) -> float:
    """The processor time of the main thread of Redis so far."""
    cpu = client.ledger.redis.info("cpu")
    return float(cpu["used_cpu_user_main_thread"] + cpu["used_cpu_sys_main_thread"])


if __name__ == "__main__":
    main()
