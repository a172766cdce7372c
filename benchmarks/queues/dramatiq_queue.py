"""Dramatiq over Redis: a message for each chunk, its answers through the result backend."""

import os
import time

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.encoder import PickleEncoder
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
from redis import Redis

from benchmarks.queues.shared import (
    classify_chunk,
    cut_chunks,
    running,
    start_worker,
    write_answers,
)
from digitq.bench.measures import ANSWER_SECONDS, WORKERS, Bench
from digitq.bench.rounds import Rows
from digitq.local.processes import Local
from protocol.chunk import decode, encode

CHUNK_ROWS = 1024
WAIT = 1000 * ANSWER_SECONDS  # milliseconds
REDIS_URL = "BENCHMARK_REDIS_URL"


def answer_chunk(chunk: bytes) -> bytes:
    """Images to answers, both as an Arrow stream."""
    return bytes(encode(classify_chunk(decode(chunk))))


def declare(url: str) -> dramatiq.Actor:
    """`answer_chunk` as an actor over the Redis at `url`."""
    dramatiq.set_encoder(PickleEncoder())  # bytes as they are: JSON would need base64
    broker = RedisBroker(url=url)
    client = Redis.from_url(url, socket_timeout=None)  # its own default is shorter than a wait
    broker.add_middleware(Results(backend=RedisBackend(client=client, encoder=PickleEncoder())))
    dramatiq.set_broker(broker)
    return dramatiq.actor(answer_chunk, store_results=True)


def serve() -> None:
    """What each worker process runs as it starts."""
    declare(os.environ[REDIS_URL])
    start_worker()


def measure_dramatiq(bench: Bench) -> Rows:
    """All chunks sent, then all answers taken and written in the order of the images."""
    options = ["--processes", str(WORKERS), "--threads", "1", "--skip-logging"]
    command = ["-m", "dramatiq", "benchmarks.queues.dramatiq_queue:serve", *options]
    with Local(workers=0) as redis, running(*command, **{REDIS_URL: redis.url}):
        actor = declare(redis.url)
        started = time.perf_counter()
        messages = [actor.send(bytes(encode(chunk))) for chunk in cut_chunks(bench, CHUNK_ROWS)]
        results = (message.get_result(block=True, timeout=WAIT) for message in messages)
        write_answers(bench, "dramatiq.csv", map(decode, results))
        seconds = time.perf_counter() - started
    return {"dramatiq": {"images_per_second": bench.images / seconds}}
