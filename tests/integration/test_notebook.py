"""A notebook and a script of a user, run for real, with a private Redis and worker each."""

import gc
import os
import re
import signal
import subprocess
import sys
import uuid
import zipfile
from pathlib import Path
from threading import Event, Thread, get_ident
from typing import Any
from weakref import finalize

import nbclient
import nbformat
import pandas as pd
import pytest

import digitq
from digitq import Client
from digitq.backend import LocalClient
from digitq.private import processes
from digitq.private.processes import Local
from digitq.producer.sources.opening import open_images
from digitq.protocol.broker.connection import connect
from digitq.protocol.chunk import RESULT_SCHEMA
from digitq.protocol.errors import BrokerError, DigitqError, UsageError
from digitq.protocol.host.thread import DaemonThread
from digitq.protocol.settings import settings
from tests.drawing import draw_one, random_digits
from tests.waiting import processes_marked, wait_for
from tests.weights import copy_weights

BAD = "<b>1 & 'x'.png"
CELLS = [
    "from threading import Thread\nimport digitq\nclients = []\n"
    "starter = Thread(target=lambda: clients.append(digitq.local(workers=1)))\n"
    "starter.start()\nstarter.join()\n(client,) = clients",
    "results = digitq.classify('photos', client=client)\nresults",
    "job = client.submit(['photos/1.png'] * 3)\njob.wait_until_stored()",
    "async for batch in job.results_async():\n    print(batch.num_rows)",
    "job",
    "digitq.classify('nowhere', client=client)",
    "client.close()\njob",
]
SCRIPT = """
from threading import Thread

from digitq.private.processes import Local
from digitq import Client

started = []
starter = Thread(target=lambda: started.append(Local(workers=0).__enter__()))
starter.start()
starter.join()
print(Client(started[0].url).jobs())
"""

START = """
import os
import time
from threading import Thread, main_thread

from digitq.private.processes import Local
from digitq.protocol.broker.connection import connect

def look(local):
    print(connect(local.url).ping(), local.folder.exists())
"""
FORK = f"""{START}
local = Local(workers=0).__enter__()
if child := os.fork():
    os.waitpid(child, 0)
    look(local)
"""
LAST_THREAD = f"""{START}
def work():
    with Local(workers=0) as local:
        main_thread().join()
        time.sleep(0.3)  # in which Python ends the threads of executors
        look(local)

Thread(target=work).start()
"""


def start_without_workers(monkeypatch: pytest.MonkeyPatch) -> LocalClient:
    monkeypatch.setattr(Local, "_start_worker", lambda local, name: None)
    monkeypatch.setattr(Local, "wait_until_ready", lambda local, workers: None)
    return digitq.local(workers=1)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with an image, and with a file of an odd name that is none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    draw_one().save(folder / "1.png")
    (folder / BAD).write_bytes(b"text")
    return folder


def test_a_notebook(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that ends starts the worker."""
    mark = uuid.uuid4().hex
    monkeypatch.setenv("DIGITQ_TEST_MARK", mark)
    cells = [nbformat.v4.new_code_cell(cell) for cell in CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells)
    place = {"metadata": {"path": str(photos.parent)}}
    nbclient.NotebookClient(notebook, timeout=120, resources=place, allow_errors=True).execute()
    outputs = [cell.outputs for cell in notebook.cells]

    assert outputs[0] == []
    bar, results = (output["data"]["text/html"] for output in outputs[1])
    assert "100%" in bar and "2/2" in bar and "1 with an error" in bar
    assert "<p>2 images, 1 with an error</p>" in results
    assert results.count("<tr>") == 3 and "not an image that can be read" in results
    assert "<b>" not in results and "&lt;b&gt;1 &amp; &#x27;x&#x27;.png" in results
    assert outputs[3][0]["text"] == "3\n"
    shown = outputs[4][0]["data"]["text/html"]
    assert shown.startswith('<progress value="3" max="3"></progress> job ')
    assert "collected, 3 of 3 images done, 0 with an error, " in shown and "model mlp" in shown
    assert outputs[5][0]["evalue"] == "no such file or folder: nowhere"
    assert "can&#x27;t reach Redis" in outputs[6][0]["data"]["text/html"]
    assert sum(output["output_type"] == "error" for cell in outputs for output in cell) == 1
    wait_for(lambda: not processes_marked(mark))


def test_a_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end ends what a thread has started that is gone."""
    mark = uuid.uuid4().hex
    monkeypatch.setenv("DIGITQ_TEST_MARK", mark)
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert done.returncode == 0
    wait_for(lambda: not processes_marked(mark))


def test_a_worker_that_dies_is_started_again_and_in_the_end_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[str] = []

    def start(local: Local, name: str) -> None:
        started.append(name)
        local._start(name, "false")

    monkeypatch.setattr(processes, "MAX_RESTARTS", 2)
    monkeypatch.setattr(Local, "_start_worker", start)
    monkeypatch.setattr(Local, "wait_until_ready", lambda local, workers: None)
    with digitq.local(workers=1) as client:
        with pytest.raises(DigitqError, match="worker1 has died"):
            client.classify(random_digits(1)[0])
        assert started == ["worker1"] * 3
        with pytest.raises(DigitqError, match="worker1 has died"):
            client.submit(random_digits(1)).table()


def test_private_processes_outlive_the_thread_that_starts_them_and_end_with_their_object() -> None:
    started: list[Local] = []
    thread = Thread(target=lambda: started.append(Local(workers=0).__enter__()))
    thread.start()
    thread.join()
    redis = connect(started[0].url)
    folder = started[0].folder
    assert redis.ping() and folder.exists()
    started.clear()
    gc.collect()
    assert not folder.exists()
    with pytest.raises(BrokerError):
        redis.ping()


@pytest.mark.parametrize("script", [FORK, LAST_THREAD])
def test_private_processes_end_neither_with_a_fork_nor_with_the_main_thread(script: str) -> None:
    # From Python 3.12 on, it warns of a fork beside threads, which is what the script is for
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("True True\n", "")


def test_a_thread_that_starts_processes_may_be_the_last_that_has_them() -> None:
    """Their object is deleted in it, where its caller was interrupted."""
    thread, deleted = DaemonThread("starter"), Event()

    class Owner:
        def __init__(self) -> None:
            finalize(self, lambda: (thread.shutdown(), deleted.set()))

        def start(self) -> None:
            pass

    thread.submit(Event().wait, 0.1)
    thread.submit(Owner().start)
    assert deleted.wait(10)


def test_what_is_taken_as_a_source(client: Client, photos: Path) -> None:
    def ids(images: Any) -> list[str]:
        results = digitq.classify(images, client=client)
        assert len(results) == len([*results]) == results.table.num_rows
        return results.table.column("id").to_pylist()

    image, archive = str(photos / "1.png"), photos / "two.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(image, "1.png")
        file.write(photos / BAD, "2.png")
    assert ids(photos) == ["1.png", BAD]
    skipping = "<Results: 2 images, 1 with an error, 1 other file (.zip) skipped>"
    assert repr(digitq.classify(photos, client=client)) == skipping
    assert ids(image) == ids([image]) == [image]
    assert ids(archive) == ["1.png", "2.png"]
    assert ids([image, archive]) == [image, f"{archive}/1.png", f"{archive}/2.png"]
    assert ids([image, "missing.png"]) == [image, "missing.png"]
    assert ids(random_digits(3)) == ids(iter(random_digits(3))) == ["0", "1", "2"]
    assert ids([]) == []


def test_jobs_that_run_at_the_same_time_leave_the_client_as_it_was(local: Local) -> None:
    """The one that was started first ends first."""
    waiting: set[int] = set()
    client = Client(local.url)
    client.on_disconnect = print
    client.ledger.on_idle = lambda: waiting.add(get_ident())
    threads: list[tuple[Thread, Event]] = []
    for number in (1, 2):
        go_on = Event()
        images = (digit for digit in random_digits(1) if go_on.wait())
        thread = Thread(target=digitq.classify, args=(images,), kwargs={"client": client})
        thread.start()
        threads.append((thread, go_on))
        wait_for(lambda number=number: len(waiting) == number)  # type: ignore[misc]
    for thread, go_on in threads:
        go_on.set()
        thread.join()
    assert client.on_disconnect is print


@pytest.mark.parametrize(
    ("images", "number"),
    [
        (["a.png", Path("b.png")], 2),
        (["a.png", b"", random_digits(1)[0]], 3),
        ([("a", b""), random_digits(1)[0]], 2),
        ([random_digits(2)], None),
        (random_digits(2), None),
        (iter(["a.png"]), None),
        ([], 0),
    ],
)
def test_how_many_images_there_are_is_told_where_it_is_known(
    images: Any, number: int | None
) -> None:
    source, known = open_images(images)
    assert known == source.count() == number


def test_answers_stand_beside_a_table_in_the_line_that_the_docs_show(
    local: Local, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIGITQ_BROKER_URL", local.url)
    settings.cache_clear()
    monkeypatch.chdir(photos)
    draw_one().save("a.png")
    Path("b.png").write_text("text")
    page = (Path(__file__).parents[2] / "docs/python.md").read_text()
    (example,) = re.findall(
        "^```python\n(.*?)^```", page.partition("### Beside a table")[2], re.M | re.S
    )[:1]
    names: dict[str, Any] = {}
    exec(example, names)
    frame, both, table = names["frame"], names["both"], names["table"]
    assert [*frame["digit"]] == [1, pd.NA] and frame["digit"].dtype == "Int8"
    assert frame.index.has_duplicates and both.index.equals(frame.index)
    assert both["read_id"].equals(both["path"]) and both["read_label"].equals(frame["digit"])
    assert table.to_pylist() == [
        {"path": "a.png", "who": "Ann", "digit": 1},
        {"path": "b.png", "who": "Bob", "digit": None},
    ]


def test_a_table_has_an_answer_for_each_row_in_their_order(client: Client) -> None:
    given = pd.DataFrame(random_digits(300).reshape(300, -1)).add_prefix("pixel")
    expected = client.submit(random_digits(300)).table().column("probabilities")
    assert digitq.classify(given, client=client).table.column("probabilities") == expected
    results = digitq.classify(given.assign(id=range(300, 0, -1)), client=client).table
    assert results.schema.names == RESULT_SCHEMA.names
    assert results.column("id").to_pylist() == [*map(str, range(300, 0, -1))]
    assert results.column("probabilities") == expected


def test_submit_reads_a_folder_as_classify_does(client: Client, photos: Path) -> None:
    for path in (photos, str(photos), [photos]):
        assert client.submit(path).table().column("id").to_pylist() == ["1.png", BAD]


def test_classify_uses_the_redis_that_is_set(
    local: Local, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIGITQ_BROKER_URL", local.url)
    settings.cache_clear()
    before = len(Client(local.url).jobs())
    results = digitq.classify(photos, digitq.digits("cnn"))
    assert repr(results) == "<Results: 2 images, 1 with an error>"
    assert [answer.label for answer in results][1:] == [None]
    assert len(Client(local.url).jobs()) == before + 1


def test_own_weights_in_one_line(client: Client, tmp_path: Path) -> None:
    mine, image = copy_weights(tmp_path / "mine", "cnn", temperature=7.0), draw_one()
    (own,) = digitq.classify([image], digitq.digits("cnn", weights=mine))
    built_in = client.classify(image, digitq.digits("cnn")).confidence
    assert own.confidence and built_in and own.confidence < built_in - 0.05


@pytest.mark.parametrize("workers", [0, -1, 10_000, "two"])
def test_a_number_of_workers_that_can_t_be(workers: Any) -> None:
    with pytest.raises(UsageError, match=f"can't be {workers!r} workers: there can be 1 to "):
        digitq.local(workers)


def test_a_client_that_is_closed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with start_without_workers(monkeypatch) as client:
        job = client.submit(random_digits(1))
    for call in (job.table, job.progress, lambda: client.classify(random_digits(1)[0])):
        with pytest.raises(BrokerError, match="the private Redis has ended: its client was closed"):
            call()


def test_a_private_redis_that_is_killed_is_said_to_have_died(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with start_without_workers(monkeypatch) as client:
        job = client.submit(random_digits(1))
        os.kill(client.ledger.redis.info()["process_id"], signal.SIGKILL)
        with pytest.raises(BrokerError, match=r"the private Redis has died \(signal 9\)"):
            job.table()


def test_the_processes_end_with_the_last_variable_that_has_their_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a job, too, and without the collector of cycles."""
    client = start_without_workers(monkeypatch)
    folder = client.processes.folder
    gc.disable()
    try:
        assert len(digitq.classify([], client=client)) == 0
        del client
        wait_for(lambda: not folder.exists(), 20)
    finally:
        gc.enable()
