"""Flower in a real browser: a row for each chunk says what it is, and no pixel is in it."""

import os
import re
import signal
import socket
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from digitq import Client
from digitq.private import processes
from digitq.private.processes import Local, find_free_port, is_free
from digitq.producer import Job
from digitq.protocol.broker.connection import connect
from tests.browser import open_browser
from tests.drawing import draw_one, random_digits
from tests.waiting import run_digitq, wait_for


@pytest.fixture(scope="module")
def watched() -> Iterator[Local]:
    with Local(workers=1, flower=True) as local:
        local.wait_until_ready()
        yield local


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with open_browser() as browser:
        yield browser.new_page(viewport={"width": 1400, "height": 700})


def test_a_flower_that_dies_is_started_again_at_its_address(watched: Local) -> None:
    url, first = watched.flower_url, watched._processes["flower"]
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    watched.check()
    assert watched.flower_url == url and watched._processes["flower"].pid != first.pid
    watched.wait_until_ready()
    with urlopen(f"{url}/tasks") as answer:  # it is not only the dead one's queue that is there
        assert answer.status == 200


def show_tasks(
    page: Page, flower_url: str, job: Job, count: int, state: str = "SUCCESS"
) -> Locator:
    """The rows of a job's tasks, once Flower has heard that so many are in this state."""
    rows = page.locator("table tbody tr", has_text=f"job {job.id}").filter(has_text=state)

    def are_shown() -> bool:
        page.goto(f"{flower_url}/tasks", wait_until="networkidle")  # it does not look again
        return rows.count() == count

    wait_for(are_shown)
    return rows


def test_a_port_that_is_taken_in_the_meantime(monkeypatch: pytest.MonkeyPatch, page: Page) -> None:
    """Chunks that wait in the queue, with no worker, are rows too."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setattr(processes, "FLOWER_PORT", port)
        monkeypatch.setattr(processes, "is_free", lambda _: next(answers, False))
        answers = iter([True])  # at first it is free
        with Local(workers=0, flower=True) as local:
            assert local.flower_url == f"http://127.0.0.1:{port}"
            local.wait_until_ready()
            assert local.flower_url != f"http://127.0.0.1:{port}"
            with connect(local.url) as redis:  # it binds its queue a moment before it listens
                wait_for(redis.pubsub_numpat)
            job = Client(local.url).submit(random_digits(3000), detached=True)
            rows = show_tasks(page, str(local.flower_url), job, 3, "PENDING")
            expect(rows.filter(has_text=f"job {job.id}, chunk 0, 1024 images")).to_have_count(1)
            with connect(local.url) as redis:  # and another user's rights don't matter
                redis.execute_command("ACL", "SETUSER", "default", "resetchannels")
                assert Client(local.url).submit(draw_one(), detached=True).wait_until_stored(10)


def test_each_chunk_is_a_row(watched: Local, page: Page) -> None:
    client = Client(watched.url)
    job = client.submit([random_digits(3000), b"broken", draw_one(), b""])
    assert job.table().num_rows == 3003
    rows = show_tasks(page, watched.flower_url, job, 4)
    texts = sorted(re.sub(r"\s+", " ", text) for text in rows.all_inner_texts())
    done_images = []
    for number, images in enumerate((1024, 1024, 952, 3)):
        (text,) = (
            text for text in texts if f"job {job.id}, chunk {number}, {images} images" in text
        )
        count = r"([\d,]+) of [\d,]+ (?:stored so far|\(\d+ %\)), [02] failed, [\d,]+ images/s"
        found = re.search(rf"SUCCESS .* {count} .*worker1@", text)
        assert found, text
        done_images.append(int(found[1].replace(",", "")))
    assert max(done_images) == 3003 and len({*done_images}) == 4


def test_a_job_is_found_by_its_id(watched: Local, page: Page) -> None:
    """Rows of other jobs are left out."""
    client = Client(watched.url)
    jobs = [client.submit(random_digits(10)) for _ in range(2)]
    for job in jobs:
        job.table()
        show_tasks(page, str(watched.flower_url), job, 1)
    rows = page.locator("table tbody tr", has_text="chunk")
    for job in jobs:
        page.get_by_role("searchbox").fill(job.id)
        expect(rows).to_have_count(1)
        expect(rows).to_contain_text(job.id)
    page.get_by_role("searchbox").fill("")  # the browser keeps it for the next visit
    expect(rows).not_to_have_count(1)


def test_a_password_closes_flower_s_metrics_too(
    watched: Local, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without one, they are open, as is all of Flower."""
    with urlopen(f"{watched.flower_url}/metrics") as reply:
        assert b"flower_events_total" in reply.read()
    monkeypatch.setenv("FLOWER_BASIC_AUTH", "user:secret")
    port, log = find_free_port(), tmp_path / "log"
    with run_digitq(log, "flower", "--broker", watched.url, f"--port={port}"):
        wait_for(lambda: not is_free(port))
        url = f"http://127.0.0.1:{port}/metrics"
        with pytest.raises(HTTPError, match="401"):
            urlopen(url)
        login = b64encode(b"user:secret").decode()
        with urlopen(Request(url, headers={"Authorization": f"Basic {login}"})) as reply:
            assert reply.status == 200


def test_workers_and_broker_are_shown(watched: Local, page: Page) -> None:
    page.goto(f"{watched.flower_url}/workers")
    expect(page.locator("table tbody")).to_contain_text("worker1@", timeout=20_000)


def test_no_pixels_reach_flower(watched: Local, page: Page) -> None:
    secret = np.frombuffer(b"PIXELS!!" * 98, np.uint8).reshape(28, 28)
    job = Client(watched.url).submit([secret])
    job.table()
    row = show_tasks(page, watched.flower_url, job, 1)
    assert "PIXELS" not in page.content()
    assert len(row.inner_text()) < 200
