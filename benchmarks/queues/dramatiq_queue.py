"""Dramatiq over Redis: a message for each chunk, and its answers in the result backend."""

import os
import time

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.encoder import PickleEncoder
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
from redis import Redis

from benchmarks.deployment.measures import WORKERS, Bench
from benchmarks.queues.shared import (
    classify_chunk,
    cut_chunks,
    running,
    start_worker,
    write_answers,
)
from benchmarks.rounds import Rows
from digitq.private.processes import Local
from digitq.protocol.chunk import decode, encode

CHUNK_ROWS = 1024  # images in a message
DRAMATIQ_ANSWER_MS = 60_000  # without an answer for so long, a worker has died
REDIS_URL = "BENCHMARK_REDIS_URL"


def answer_chunk(chunk: bytes) -> bytes:
    """An Arrow stream of images to an Arrow stream of answers."""
    return bytes(encode(classify_chunk(decode(chunk))))


def declare(url: str) -> dramatiq.Actor:
    """`answer_chunk` as an actor over the Redis at `url`."""
    dramatiq.set_encoder(PickleEncoder())  # JSON would need base64 for bytes
    broker = RedisBroker(url=url)
    client = Redis.from_url(url, socket_timeout=None)  # a wait for a result outlasts the default
    broker.add_middleware(Results(backend=RedisBackend(client=client, encoder=PickleEncoder())))
    dramatiq.set_broker(broker)
    return dramatiq.actor(answer_chunk, store_results=True)


def serve() -> None:
    """Prepare a worker process; dramatiq calls this as the process starts."""
    declare(os.environ[REDIS_URL])
    start_worker()


def measure_dramatiq(bench: Bench) -> Rows:
    """All chunks are sent, then all answers are taken and written in the order of the images."""
    module = "benchmarks.queues.dramatiq_queue:serve"
    options = ["--processes", str(WORKERS), "--threads", "1", "--skip-logging"]
    command = ["-m", "dramatiq", module, *options]
    with Local(workers=0) as redis, running(*command, **{REDIS_URL: redis.url}):
        actor = declare(redis.url)
        started = time.perf_counter()
        messages = [actor.send(bytes(encode(chunk))) for chunk in cut_chunks(bench, CHUNK_ROWS)]
        results = (
            message.get_result(block=True, timeout=DRAMATIQ_ANSWER_MS) for message in messages
        )
        write_answers(bench, "dramatiq.csv", map(decode, results))
        seconds = time.perf_counter() - started
    return {"dramatiq": {"images_per_second": bench.images / seconds}}
