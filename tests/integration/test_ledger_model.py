"""The ledger over random interleavings of a producer, two workers, sweeps, losses and crashes."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from digitq.private.processes import Local
from digitq.producer.feeder import Feeder, StoredChunk
from digitq.protocol.broker.connection import connect
from digitq.protocol.keys import QUEUE, record_key
from digitq.protocol.ledger import Ledger
from digitq.protocol.records import ChunkResult, JobSpec

CHUNKS, ROWS, IN_FLIGHT = 5, 10, 2
SPEC = JobSpec("j", "mlp", "test", attached=True, in_flight=IN_FLIGHT, ttl=60)
KEY = record_key("j")
IMAGES_COUNTED = {"images:mlp": ROWS, "failed:mlp": 1, "review:mlp": 2}  # of each chunk
HARM = (
    "a message comes again",
    "messages are dropped",
    "Redis forgets",
    "Redis forgets the script",
)
workers = st.sampled_from(["first worker", "second worker"])


def message(number: int) -> str:
    """The part of a worker's message that this test reads."""
    return json.dumps({"body": json.dumps([["j", number]])})


def arguments(message: bytes) -> list[Any]:
    """The job id and the chunk number in a message."""
    return list(json.loads(json.loads(message)["body"])[0])


def payload(number: int) -> bytes:
    return b"chunk %d" % number


class LedgerMachine(RuleBasedStateMachine):
    """The producer is the real feeder without its thread. Messages may be lost.

    A worker that crashes takes a message and does nothing more.
    """

    server: redis.Redis

    def __init__(self) -> None:
        super().__init__()
        self.server.flushall()
        self.redis: Any = self.server
        self.ledger = Ledger(self.server)
        self.feeder = Feeder(self.ledger, SPEC, iter(()))
        self.sent = 0
        self.sealed = False
        self.held: dict[str, int] = {}
        self.answers: dict[int, bytes] = {}  # the first answer to each chunk since Redis forgot all
        self.collected: list[bytes] = []
        self.counted = Counter[str]()  # what Redis must have counted since it forgot all
        self.ledger.open(SPEC)

    @precondition(lambda self: self.sent < CHUNKS)
    @rule()
    def dispatch(self) -> None:
        parcel = StoredChunk(self.sent, ROWS, memoryview(payload(self.sent)))
        self.feeder._window[parcel.number] = parcel
        self.feeder._send(parcel)
        self.sent += 1

    @precondition(lambda self: self.sent > len(self.collected))
    @rule()
    def dispatch_the_last_again(self) -> None:
        """As the client does if the reply was lost."""
        self.feeder._send(self.feeder._window[self.sent - 1])

    @precondition(lambda self: self.sent == CHUNKS)
    @rule()
    def seal(self) -> None:
        self.feeder._seal(CHUNKS)
        self.feeder.total = CHUNKS
        self.sealed = True

    @rule()
    def repair(self) -> None:
        self.feeder.repair()

    @precondition(lambda self: self.redis.llen(QUEUE))
    @rule(worker=workers)
    def begin(self, worker: str) -> None:
        """Take a message. The worker has crashed: it never completes the chunk that it had."""
        self.held.pop(worker, None)
        job_id, number = arguments(self.redis.rpop(QUEUE))
        assert job_id == "j"
        if begun := self.ledger.begin("j", number):
            assert begun.payload == payload(number)
            self.counted["begun"] += 1
            self.held[worker] = number

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        number = self.held[data.draw(st.sampled_from(sorted(self.held)))]
        assert self.ledger.renew("j", number) == self.redis.hexists(KEY + ":chunks", number)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        self.ledger.requeue("j", self.held.pop(data.draw(st.sampled_from(sorted(self.held)))), "")

    @precondition(lambda self: self.held)
    @rule(data=st.data(), times=st.integers(1, 2))
    def complete(self, data: st.DataObject, times: int) -> None:
        """If the reply was lost, the client sends the step again; that changes nothing."""
        self.complete_one(data.draw(st.sampled_from(sorted(self.held))), times)

    def complete_one(self, worker: str, times: int) -> None:
        number = self.held.pop(worker)
        answer = b"chunk %d by the %s" % (number, worker.encode())
        for _ in range(times):
            if self.ledger.complete("j", number, ChunkResult(answer, 1, "pixels", 0, 0, 2)):
                assert number not in self.answers
                self.answers[number] = answer
                self.counted += Counter(
                    {"completed": 1, "bytes": len(payload(number)), **IMAGES_COUNTED}
                )

    @rule()
    def sweep(self) -> None:
        self.ledger.sweep(deadline_seconds=0)

    @rule()
    def collect(self) -> None:
        """Take the next results in order and drop those taken before, as `Job.results` does."""
        taken = list(range(len(self.collected)))
        for answer, _ in self.ledger.results("j", len(self.collected), 3, drop=taken):
            if answer is None:
                break
            assert answer == self.answers[len(self.collected)]
            self.feeder.collected(len(self.collected))
            self.collected.append(answer)

    @rule(number=st.integers(0, CHUNKS), harm=st.sampled_from(HARM))
    def harm(self, number: int, harm: str) -> None:
        """One rule for all kinds of harm, so that most steps do none."""
        match harm:
            case "a message comes again":
                self.redis.lpush(QUEUE, message(number))
            case "messages are dropped":
                self.redis.delete(QUEUE)
            case "Redis forgets":  # chunks that were not collected must be done again
                self.redis.flushall()
                self.counted.clear()
                collected = len(self.collected)
                self.answers = {n: a for n, a in self.answers.items() if n < collected}
            case "Redis forgets the script":
                self.redis.script_flush()

    @invariant()
    def each_chunk_is_in_one_place(self) -> None:
        if not self.redis.exists(KEY):
            return
        record = self.ledger.record("j")
        queued, running = (
            self.redis.zrange(KEY + suffix, 0, -1) for suffix in (":queued", ":running")
        )
        results = [n for n in self.redis.hkeys(KEY + ":results")]
        published = int(self.redis.hget(KEY, "published"))
        places = sorted(map(int, [*queued, *running, *self.answers]))
        assert places == list(range(published))
        assert set(map(int, results)) <= set(self.answers)
        least = min(IN_FLIGHT, record.chunks - record.done_chunks)
        assert len(queued) + len(running) >= least  # more if the queue was empty
        assert record.done_chunks == len(self.answers)
        assert record.done_images == ROWS * len(self.answers)
        counters = Counter(self.ledger.counters())
        assert counters.pop("sent_again", 0) >= record.sent_again
        assert +counters == self.counted
        assert record.bytes == sum(map(len, self.redis.hvals(KEY + ":chunks")))
        assert (record.state == "done") <= (len(self.answers) == CHUNKS)

    def teardown(self) -> None:
        """In the end, one living worker is enough to complete the job."""
        for _ in range(4 * CHUNKS):
            while self.sent < CHUNKS:
                self.dispatch()
            self.repair()
            self.seal()
            self.redis.delete(QUEUE)
            self.sweep()
            while self.redis.llen(QUEUE):
                self.begin("first worker")
                if "first worker" in self.held:
                    self.complete_one("first worker", times=1)
            self.collect()
            self.each_chunk_is_in_one_place()
        assert [int(answer.split()[1]) for answer in self.collected] == list(range(CHUNKS))
        self.ledger.finish("j")
        left = set(self.redis.keys("digitq:job:*"))
        assert left == {KEY.encode(), KEY.encode() + b":done"}


@pytest.fixture
def server() -> Iterator[redis.Redis]:
    with Local(workers=0) as local, connect(local.url) as client:
        yield client


def run(server: redis.Redis, examples: int) -> None:
    LedgerMachine.server = server
    machine = LedgerMachine.TestCase
    machine.settings = settings(
        max_examples=examples,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    machine("runTest").runTest()


def test_interleavings(server: redis.Redis) -> None:
    run(server, 15)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_interleavings(server: redis.Redis) -> None:
    run(server, 2000)
