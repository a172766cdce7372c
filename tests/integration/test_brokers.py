"""Several Redis that share the jobs: what goes where, and what is found again."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from digitq.cli import main
from digitq.private.processes import Local, kill
from digitq.watching.metrics import StateCollector
from producer import Client
from protocol.broker.address import url_in_command
from protocol.brokers import Brokers
from protocol.errors import BrokerError, UnknownJobError
from protocol.records import JobSpec
from tests.drawing import random_digits
from tests.waiting import wait_for

SPEC = JobSpec("waits", "mlp", "test", attached=False, in_flight=9, ttl=600)  # it never ends


@pytest.fixture
def two_redis() -> Iterator[tuple[Local, Local]]:
    """Two private Redis without workers."""
    with Local(workers=0) as one, Local(workers=0) as other:
        yield one, other


def join(*several: Local) -> str:
    return " ".join(local.url for local in several)


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(part) for part in arguments])
    return int(ended.value.code or 0), *capsys.readouterr()


def read(brokers: Brokers, name: str) -> list[tuple[dict[str, str], float]]:
    """The labels and values of a metric."""
    families = [family for family in StateCollector(brokers).collect() if family.name == name]
    return [(one.labels, one.value) for family in families for one in family.samples]


def test_each_redis_has_workers_of_its_own_and_one_command_finds_all(
    local: Local, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The recipe of docs/deploy.md."""
    images = random_digits(20)
    with Local(workers=1) as other, Client(join(local, other)) as client:
        first, second = Client(local.url), Client(other.url)
        first.ledger.open(SPEC)
        jobs = [client.submit(images, detached=True)]
        assert [job.id for job in second.jobs()] == [jobs[0].id]
        wait_for(lambda: jobs[0].progress().state == "done")
        first.ledger.cancel(SPEC.id)
        second.ledger.open(SPEC)
        jobs.append(client.submit(images, detached=True))
        second.ledger.cancel(SPEC.id)
        assert jobs[1].id in [job.id for job in first.jobs()]
        broker = ("--broker", join(other, local))
        status, out, _ = run(capsys, "jobs", "--json", *broker)
        assert status == 0 and {job.id for job in jobs} <= {
            json.loads(line)["id"] for line in out.splitlines()
        }
        for job in jobs:
            result = tmp_path / f"{job.id}.csv"
            assert run(capsys, "collect", job.id, "-o", result, *broker)[0] == 0
            assert len(result.read_text().splitlines()) == 1 + len(images)
        counted = read(Brokers(join(local, other)), "digitq_images")
        done = [(one["redis"], value) for one, value in counted if one["model"] == "mlp"]
        assert {*done} == {(local.url, 20), (other.url, 20)}


def test_jobs_are_spread_evenly_and_found_whatever_the_order(
    two_redis: tuple[Local, Local], capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = two_redis
    with Client(join(one, other)) as client:
        jobs = [client.submit(random_digits(1), detached=True) for _ in range(6)]
        for job in jobs:
            assert job.wait_until_stored(60)
        assert [len(Client(local.url).jobs()) for local in two_redis] == [3, 3]
        assert [record.id for record in client.jobs()] == [job.id for job in jobs]
        with pytest.raises(UnknownJobError, match="no job 'nope'"):
            client.job("nope")
    for broker in (join(one, other), join(other, one)):
        for job in jobs[:2]:
            assert Client(broker).job(job.id).progress().images == 1
    status, out, err = run(capsys, "status", jobs[0].id, "--broker", join(one, other))
    assert status == 0 and f"job {jobs[0].id}: running" in out
    assert err.splitlines() == [
        f"no worker is running: `digitq worker --broker {url_in_command(local.url)}` starts one"
        for local in two_redis
    ]
    for job in jobs[:4]:
        assert run(capsys, "cancel", job.id, "--broker", join(other, one))[0] == 0
    status, out, err = run(capsys, "jobs", "--limit", "1", "--broker", join(one, other))
    assert [line.split()[0] for line in out.splitlines()[1:]] == [job.id for job in jobs[4:]]
    assert "4 older jobs not shown" in err
    status, out, _ = run(capsys, "jobs", "--watch", "--broker", join(one, other))
    assert status == 0 and all(job.id in out for job in jobs)
    assert out.count("0 workers; 1 stored image to do") == 2
    assert all(out.count(f"\n{local.url}\n") == 1 for local in two_redis)
    status, out, _ = run(capsys, "status", jobs[5].id, "--watch", "--broker", join(one, other))
    assert status == 0 and f"job {jobs[5].id}: running" in out and out.count("0 workers;") == 1


def test_a_lost_redis_hides_no_other_and_is_named(
    two_redis: tuple[Local, Local],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    one, other = two_redis
    broker = join(one, other)
    brokers = Brokers(broker)
    collector = StateCollector(brokers)
    with Client(broker) as client:
        jobs = [client.submit(random_digits(1), detached=True) for _ in range(2)]
        for job in jobs:
            assert job.wait_until_stored(60)
        here = {job.id for job in Client(other.url).jobs()}
        assert read(brokers, "digitq_redis_up") == [
            ({"redis": one.url}, 1),
            ({"redis": other.url}, 1),
        ]
        kill(one._processes["redis"])
        caplog.clear()
        for _ in range(2):
            families = {family.name: family for family in collector.collect()}
        up = [sample.value for sample in families["digitq_redis_up"].samples]
        backlog = [(s.labels, s.value) for s in families["digitq_backlog_images"].samples]
        assert up == [0, 1] and backlog == [({"redis": other.url}, 1)]
        assert len(caplog.messages) == 1 and one.url in caplog.messages[0]
        caplog.clear()
        jobs = [client.submit(random_digits(1), detached=True) for _ in range(2)]  # not to `one`
        assert all(job.wait_until_stored(60) for job in jobs)
        assert len(client.jobs()) == 3
        assert len(caplog.messages) == 1 and one.url in caplog.messages[0]
        assert client.job(*here).id in here
        with pytest.raises(BrokerError, match="can't reach Redis"):
            client.job("0123456789ab")  # it may be there
    status, out, err = run(capsys, "jobs", "--broker", broker)
    assert status == 0 and len(out.splitlines()) == 4
    status, out, _ = run(capsys, "jobs", "--watch", "--broker", broker)
    assert (
        status == 0 and f"can't reach Redis at {one.url}" in out and "3 stored images to do" in out
    )
    assert run(capsys, "status", "0123456789ab", "--broker", broker)[0] == 3
    with pytest.raises(BrokerError, match="can't reach Redis"):
        Client(f"{one.url} redis://127.0.0.1:1/0")
