"""Results outside Redis, in a folder that workers and collectors share."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from digitq.cli import main
from digitq.private import processes
from digitq.private.processes import Local
from producer import Client
from protocol import room
from protocol.errors import BrokerError, ResultsExpiredError, UsageError
from protocol.keys import record_key
from protocol.outside import find_deployment, read_result, remove_unneeded, write_result
from protocol.settings import settings
from tests.drawing import random_digits
from tests.waiting import freeze, wait_for

DIGITS = random_digits(2000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def deployment(folder: Path) -> Iterator[Local]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIGITQ_RESULTS", str(folder))
        patch.setenv("DIGITQ_DEADLINE_SECONDS", "2")
        patch.setattr(processes, "HARMLESS", (*processes.HARMLESS, "+config|set"))
        settings.cache_clear()
        with Local(workers=1) as running:
            running.wait_until_ready()
            yield running


@pytest.fixture
def outside(
    deployment: Local, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Client, Path]]:
    """A client of the deployment, and the folder of its jobs."""
    monkeypatch.setenv("DIGITQ_RESULTS", str(folder))
    monkeypatch.setenv("DIGITQ_CHUNK_ROWS", "500")
    monkeypatch.setenv("DIGITQ_DEADLINE_SECONDS", "2")  # for a worker that is started again
    settings.cache_clear()
    with Client(deployment.url, retry_seconds=0) as client:
        yield client, folder / find_deployment(client.ledger)


def test_redis_has_the_names_of_results_and_the_folder_has_the_results(
    outside: tuple[Client, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, folder = outside
    expected = client.submit(DIGITS).table()
    job = client.submit(DIGITS, detached=True)
    assert job.table() == expected == Client(client.url).job(job.id).table()
    monkeypatch.setattr(room, "MAX_FILL", -1.0)  # Redis seems full, and others may still collect
    again = client.job(job.id)
    assert pa.Table.from_batches(again.results(sync=lambda: None)) == expected == again.table()
    kept = client.ledger.redis.hvals(f"{record_key(job.id)}:results")
    assert len(kept) == job.progress().chunks and max(map(len, kept)) < 100
    files = sorted(folder.parent / json.loads(entry)["name"] for entry in kept)
    # There are more if the machine is so busy that a chunk was begun twice
    assert {*files} <= {*(folder / job.id).iterdir()}
    assert [path.name[:6] for path in files] == [f"{number:06}" for number in range(len(kept))]
    assert [*folder.iterdir()] == [folder / job.id]  # the attached job left nothing there

    monkeypatch.delenv("DIGITQ_RESULTS")
    settings.cache_clear()
    with pytest.raises(UsageError, match="set DIGITQ_RESULTS as the workers have it"):
        client.job(job.id).table()
    monkeypatch.setenv("DIGITQ_RESULTS", str(folder.parent))
    settings.cache_clear()
    files[3].write_bytes(files[3].read_bytes()[:-1])
    with pytest.raises(ResultsExpiredError, match=r"000003-\w+.arrow is cut off"):
        client.job(job.id).table()
    files[0].unlink()
    with pytest.raises(ResultsExpiredError, match=r"000000-\w+.arrow is not there"):
        client.job(job.id).table()


def test_a_worker_that_dies_loses_none_and_the_folder_may_be_away_for_a_while(
    outside: tuple[Client, Path], deployment: Local
) -> None:
    client, folder = outside
    expected = client.submit(DIGITS).table()
    worker = deployment._processes["worker1"]
    freeze(worker.pid)
    away = folder.parent.rename(folder.parent.with_name("away"))
    job = client.submit(DIGITS, detached=True)
    assert job.wait_until_stored(60)
    os.killpg(worker.pid, signal.SIGCONT)
    wait_for(lambda: client.ledger.record(job.id).most_attempts > 1)
    assert client.ledger.record(job.id).done_images == 0
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    away.rename(folder.parent)
    deployment.check()
    assert job.table() == expected


def test_a_full_redis_lets_results_pass_and_a_host_without_the_folder_writes_none(
    outside: tuple[Client, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ledger = outside[0].ledger
    ledger.redis.config_set("maxmemory", 1)
    try:
        entry = write_result(ledger, "job", 0, b"rows")
    finally:
        ledger.redis.config_set("maxmemory", 0)
    assert read_result(entry) == b"rows"
    monkeypatch.setenv("DIGITQ_RESULTS", str(tmp_path))
    settings.cache_clear()
    with pytest.raises(BrokerError, match=r"is not there: is DIGITQ_RESULTS mounted\?"):
        write_result(ledger, "job", 0, b"rows")
    assert not [*tmp_path.iterdir()]
    monkeypatch.setenv("DIGITQ_RESULTS", str(tmp_path / "gone"))
    settings.cache_clear()
    with pytest.raises(SystemExit, match="2"):
        main(["submit", "mnist:sample", "--broker", ledger.redis.url])
    assert f"DIGITQ_RESULTS={tmp_path / 'gone'}: there is no such folder" in capsys.readouterr().err


def test_what_nobody_needs_is_removed(outside: tuple[Client, Path]) -> None:
    client, folder = outside
    jobs = [client.submit(np.flip(DIGITS), detached=True) for _ in range(3)]
    wait_for(lambda: all(job.progress().state == "done" for job in jobs))
    other = folder.parent / "another"
    (other / "job").mkdir(parents=True)
    (folder / "job").mkdir(exist_ok=True)
    remove_unneeded(client.ledger)
    assert {job.id for job in jobs} <= {path.name for path in folder.iterdir()}
    jobs[0].cancel()
    client.ledger.redis.delete(f"{record_key(jobs[1].id)}:results")  # as if it had expired
    remove_unneeded(client.ledger)
    left = {path.name for path in folder.iterdir()}
    assert jobs[2].id in left and not {"job", jobs[0].id, jobs[1].id} & left
    assert (other / "job").is_dir()
    assert jobs[2].table().num_rows == len(DIGITS)
