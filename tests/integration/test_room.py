"""Jobs whose results do not fit into Redis."""

import csv
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from digitq import Client
from digitq.cli import main
from digitq.private.processes import Local
from digitq.protocol import capacity as room
from digitq.protocol.errors import ResultsExpiredError
from digitq.protocol.overview import look_around
from digitq.protocol.settings import settings
from tests.drawing import random_digits
from tests.integration.test_commands import Command
from tests.waiting import DIGITQ, wait_for

DIGITS, TIMES = random_digits(5000), 12


@pytest.fixture
def small(local: Local, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client of a Redis with room for the results of some 20,000 images."""
    monkeypatch.setenv("DIGITQ_CHUNK_ROWS", "1024")
    settings.cache_clear()
    client = Client(local.url)
    used = client.ledger.memory().used_bytes
    client.ledger.redis.config_set("maxmemory", used + (4 << 20))
    yield client
    client.ledger.redis.config_set("maxmemory", 0)


def run(*arguments: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit status of a command, and what it says to people."""
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments)])
    return int(ended.value.code or 0), capsys.readouterr().err


def test_a_job_that_redis_has_no_room_for_is_done_as_it_is_collected(
    small: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = small.submit(np.concatenate([DIGITS] * TIMES), detached=True)
    at, out = ("--broker", small.url), tmp_path / "out.csv"

    def stands_still() -> bool:
        seen = look_around(small.ledger)
        (record,) = [record for record in seen.jobs if record.id == job.id]
        return seen.backlog_images == record.held_images > 0

    wait_for(stands_still)
    said = f"job {job.id} waits for room in Redis"
    for command in (["status", job.id], ["jobs"]):  # Redis may free a little, and have room again
        wait_for(lambda command=command: said in run(*command, *at, capsys=capsys)[1])
    with subprocess.Popen([*DIGITQ, "collect", job.id, "-o", str(out), *at]) as collector:
        wait_for(lambda: job.progress().freed_images)
        collector.kill()
    freed = job.progress().freed_images
    assert freed <= len((tmp_path / "out.csv.partial").read_text().splitlines()) - 1
    status, said = run("collect", job.id, "-o", tmp_path / "other.csv", *at, capsys=capsys)
    assert status == 3 and f"the results of the first {freed:,} images of job" in said
    status, said = run("collect", job.id, "-o", out, "--overwrite", *at, capsys=capsys)
    assert status == 2 and "leave out --overwrite" in said
    status, said = run("collect", job.id, "-o", out, *at, capsys=capsys)
    freed = job.progress().freed_images
    assert f"the results of {freed:,} images were deleted from Redis to make room" in said
    with open(out) as file:
        rows = [*csv.reader(file)][1:]
    assert [row[0] for row in rows] == [str(number) for number in range(TIMES * len(DIGITS))]
    labels = [row[1] for row in rows]
    assert labels == labels[: len(DIGITS)] * TIMES
    with pytest.raises(ResultsExpiredError, match="are only in the file"):
        Client(small.url).job(job.id).table()
    job.cancel()


def test_results_stay_for_other_collectors_if_they_are_to(
    small: Client,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = small.submit(DIGITS, detached=True)
    wait_for(lambda: job.progress().state == "done")
    monkeypatch.setattr(room, "MAX_FILL", 0.0)  # then Redis never has room
    for name, options in (("first.csv", ["--keep"]), ("-", []), ("second.csv", [])):
        assert not job.progress().freed_images
        out = name if name == "-" else tmp_path / name
        run("collect", job.id, "-o", out, "--broker", small.url, *options, capsys=capsys)
    assert job.progress().freed_images == len(DIGITS)
    assert (tmp_path / "first.csv").read_bytes() == (tmp_path / "second.csv").read_bytes()


def test_submit_says_at_its_start_that_the_results_do_not_fit(
    redis_only: Local, tmp_path: Path
) -> None:
    np.lib.format.open_memmap(tmp_path / "large.npy", "w+", np.uint8, (100_000, 28, 28))
    Client(redis_only.url).ledger.redis.config_set("maxmemory", "12mb")
    command = Command("submit", tmp_path / "large.npy", "--broker", redis_only.url)
    assert command.process.stderr
    first, second = (command.process.stderr.readline() for _ in range(2))
    assert first.startswith("the results of 100,000 images need about 8.0 MB, and Redis has room")
    assert "`digitq classify -o OUT`" in first
    (job,) = Client(redis_only.url).jobs()
    assert f"`digitq collect {job.id} -o OUT --broker " in first
    assert second.startswith("waiting for room in Redis: over 70% of its maxmemory is used; ")
    assert f"`digitq collect {job.id} -o OUT --broker " in second
    command.process.terminate()
    command.end()
