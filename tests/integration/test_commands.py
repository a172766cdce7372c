"""The commands as a person types them, on private and on shared workers."""

import csv
import hashlib
import io
import json
import os
import pty
import re
import shlex
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from rich.progress import Progress

import digitq.backend
import digitq.producer.job
from digitq import Client
from digitq.backend import Bar, LocalClient, open_client, watch_idle
from digitq.cli import main
from digitq.private import tether
from digitq.private.processes import MAX_RESTARTS, RESTART_WINDOW_SECONDS, Local
from digitq.producer import chunking
from digitq.producer.provenance import find_record
from digitq.producer.sinks.resumable import FileSink
from digitq.producer.sources import contents
from digitq.producer.sources.in_memory import Image
from digitq.producer.sources.opening import count_files, open_sources
from digitq.progress import progress_bar
from digitq.protocol.broker.connection import connect
from digitq.protocol.chunk import encode
from digitq.protocol.errors import BrokerError, DigitqError, UsageError
from digitq.protocol.keys import ACTIVE, JOBS, LIVING, WORKER, record_key
from digitq.protocol.ledger import Ledger
from digitq.protocol.overview import look_around
from digitq.protocol.records import SUBMITTER_SECONDS, JobSpec
from digitq.protocol.settings import CELERY_VARIABLES, settings
from tests.drawing import draw_one, encode_image, random_digits
from tests.integration.test_watch import beat
from tests.readme import mask, shown_output
from tests.waiting import DIGITQ, children_of, processes_marked, wait_for
from tests.weights import copy_weights

ROWS = 10_000
CONTINUES = r"[0-9,]+ rows in {}/out.csv.partial: the same command continues from there\n"


class Command:
    """A running `digitq`, and whatever it starts."""

    def __init__(self, *arguments: object, cwd: Path | None = None, **variables: object) -> None:
        self.mark = uuid.uuid4().hex
        marked = {"DIGITQ_TEST_MARK": self.mark} | {k: str(v) for k, v in variables.items()}
        self.process = subprocess.Popen(
            [*DIGITQ, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env={**os.environ, **marked},
        )

    def end(self, seconds: float = 60) -> tuple[int, str, str]:
        """Exit status, stdout, stderr; nothing of it runs on."""
        with self.process:
            try:
                out, err = self.process.communicate(timeout=seconds)
            finally:
                self.process.kill()
        wait_for(lambda: not processes_marked(self.mark), seconds=20)
        assert "Traceback" not in err, err
        return self.process.returncode, out, err


def run(*arguments: object, **variables: object) -> tuple[int, str, str]:
    return Command(*arguments, **variables).end()


Ask = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Ask:
    """Runs a command as `run` does, but in this process, which is quicker."""

    def ask(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        settings.cache_clear()  # a new process reads them anew
        with pytest.raises(SystemExit) as ended:
            main([*map(str, arguments)])
        return int(ended.value.code or 0), *capsys.readouterr()

    return ask


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Parquet file of some thousand images: seconds of work."""
    path = tmp_path_factory.mktemp("images") / "images.parquet"
    images = [
        encode_image(draw_one((40 + n % 40, 60), ink=n % 100)) if n % 50 else b"broken"
        for n in range(200)
    ]
    pq.write_table(pa.table({"image": images * (ROWS // 200)}), path)
    return path


@pytest.fixture(scope="module")
def quiet(local: Local, table: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The result of a run that nothing disturbs."""
    out = tmp_path_factory.mktemp("quiet") / "out.csv"
    status, _, err = run("classify", table, "-o", out, "--broker", local.url)
    assert status == 1 and f"{ROWS:,} images, {ROWS // 50:,} with an error" in err
    return out.read_bytes()


@pytest.mark.parametrize(
    ("names", "workers"), [(["a.png"], 1), (["a.png"] * 65, 2), (["a.png", "folder"], 9)]
)
def test_a_few_images_start_few_workers(
    names: list[str], workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digitq.backend, "usable_cores", lambda: 9)
    monkeypatch.setattr(Local, "_start_worker", lambda self, name: None)
    monkeypatch.setattr(Local, "wait_until_ready", lambda self, workers: None)
    with open_client(None, None, count_files(names)) as running:
        assert isinstance(running, LocalClient) and running.processes.workers == workers


def test_a_folder_becomes_a_table(local: Local, tmp_path: Path, ask: Ask) -> None:
    (tmp_path / "images" / "1").mkdir(parents=True)
    draw_one().save(tmp_path / "images" / "1" / "good.png")
    (tmp_path / "images" / "bad.png").write_bytes(b"text")
    (tmp_path / "images" / "notes.txt").write_bytes(b"text")
    folder = tmp_path / "images"
    status, out, err = ask("classify", folder, "--truth", "parent", "--broker", local.url)
    rows = list(csv.DictReader(out.splitlines()))
    assert status == 1
    assert [row["id"] for row in rows] == ["1/good.png", "bad.png"]
    assert rows[0]["truth"] == "1" and rows[0]["error"] == ""
    assert rows[1]["label"] == "" and rows[1]["error"] == "not an image that can be read"
    assert "2 images, 1 with an error, 1 other file (.txt) skipped, accuracy" in err


def test_pandas_is_not_imported(local: Local, tmp_path: Path) -> None:
    folder, out = Path(__file__).parents[2] / "examples" / "digits", tmp_path / "out.csv"
    for command in (["classify", folder, "-o", out, "--broker", local.url], ["wide", out]):
        _, _, err = run(*command, PYTHONPROFILEIMPORTTIME=1)
        assert "pyarrow.lib" in err and "pandas.core" not in err


def test_a_worker_that_can_t_start_says_so_and_is_not_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DIGITQ_DEVICE", "cuda")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    reason = "DIGITQ_DEVICE=cuda, but torch finds no GPU"
    with Local(workers=1) as local:
        with pytest.raises(DigitqError, match=rf"^worker1 has died \(by itself\): {reason}"):
            local.wait_until_ready()
        assert (local.folder / "worker1.log").read_text().startswith(f"digitq: {reason}")
        assert local._processes["worker1"].returncode == 2 and local._deaths == {}


def test_what_a_shown_worker_says_is_on_stderr_only() -> None:
    """Celery's banner on stdout would be taken for the reason of its death."""
    with Local(workers=0, show_logs=True) as local:
        local._start("worker1", "echo", "banner")
        local._processes["worker1"].wait()
        assert local._last_words("worker1") == "its log is above"


def test_deaths_of_long_ago_count_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    monkeypatch.setattr(Local, "_start_worker", lambda self, name: started.append(name))
    with Local(workers=0) as local:
        local._start("nobody", "false")
        local._processes["nobody"].wait()
        local._deaths["nobody"] = [time.monotonic() - RESTART_WINDOW_SECONDS - 1] * MAX_RESTARTS
        local.check()
        assert started == ["nobody"]
        local._deaths["nobody"] = [time.monotonic()] * MAX_RESTARTS
        with pytest.raises(DigitqError, match="nobody has died"):
            local.check()


@pytest.mark.parametrize("chunk_rows", [100, 2048])
def test_the_result_is_the_same_however_it_is_cut(
    chunk_rows: int,
    local: Local,
    table: Path,
    quiet: bytes,
    tmp_path: Path,
    ask: Ask,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out.csv"
    monkeypatch.setenv("DIGITQ_CHUNK_ROWS", str(chunk_rows))
    ask("classify", table, "-o", out, "--limit", 1000, "--broker", local.url)
    assert out.read_bytes() == first_rows(quiet, 1000)


def first_rows(result: bytes, rows: int) -> bytes:
    return b"".join(result.splitlines(keepends=True)[: rows + 1])


def start_and_disturb(table: Path, out: Path, *options: object, **variables: object) -> Command:
    """A run that has written some more rows and has others before it."""
    before = written(out)
    command = Command("classify", table, "-o", out, *options, **variables)
    wait_for_rows(out, before)
    return command


def written(out: Path) -> int:
    """The bytes of an unfinished result file."""
    file = out.with_name(out.name + ".partial")
    return file.stat().st_size if file.exists() else 0


def wait_for_rows(out: Path, before: int) -> None:
    """Wait until some hundred rows more are written."""
    wait_for(lambda: written(out) > before + 50_000)


def test_broken_off_in_any_way_it_goes_on_where_it_was(
    local: Local, table: Path, quiet: bytes, tmp_path: Path
) -> None:
    """Killed, stopped, or without its Redis; each time nothing runs on, and no row is lost. If its
    only worker is killed, another is started. Other networks may not continue it."""
    out = tmp_path / "out.csv"
    private, shared = ("--workers", 1), ("--broker", local.url)
    command = start_and_disturb(table, out, *private)
    command.process.kill()
    assert command.end()[0] == -signal.SIGKILL
    for options, number, status, last in [
        (shared, signal.SIGINT, 130, "interrupted\n"),
        (shared, signal.SIGTERM, 143, ""),
        (private, signal.SIGKILL, 3, "digitq: the private Redis has died .*\n"),
    ]:
        command = start_and_disturb(table, out, *options, DIGITQ_DEADLINE_SECONDS=2)
        if number == signal.SIGKILL:
            killed = kill_child(command, "worker1")
            wait_for(partial(has_another, command, "worker1", killed))
            wait_for_rows(out, written(out))
            kill_child(command, "-server")  # Redis or Valkey
        else:
            command.process.send_signal(number)
        ended, _, err = command.end()
        assert ended == status and f"continuing {out} after" in err
        assert re.search(rf"{CONTINUES.format(tmp_path)}{last}$", err)
        assert not out.exists()
    mine = copy_weights(tmp_path / "mine", "mlp")
    status, _, err = run("classify", table, "-o", out, *private, "--weights", mine)
    assert status == 2 and "belongs to another run (its weights were built in, not " in err
    assert "--overwrite starts again, and the old weights continue it" in err
    journal = tmp_path / "out.csv.partial.run"
    content, (weights,) = (
        journal.read_text(),
        {*re.findall(r'"weights":\["(\w+)"', journal.read_text())},
    )
    journal.write_text(content.replace(weights, "0" * 16))  # as if other workers had written
    status, _, err = run("classify", table, "-o", out, *shared)
    assert status == 2 and f"the workers have other weights ({weights}) than those that" in err
    journal.write_text(content)
    status, _, err = run("classify", table, "-o", out, *shared)
    assert status == 1 and f"continuing {out} after" in err
    assert f"{ROWS:,} images, {ROWS // 50:,} with an error" in err
    assert out.read_bytes() == quiet
    record = find_record(out)
    assert record and sum(part.images for part in record.parts) == ROWS == record.counts.images
    assert len({part.job for part in record.parts}) == len(record.parts) == 5
    assert {part.weights for part in record.parts} == {(weights,)}
    assert {len(part.fingerprints) for part in record.parts} == {1}


def kill_child(command: Command, name: str) -> int:
    """SIGKILL the process that the command has started under this name."""
    (pid,) = find_children(command, name)
    os.kill(pid, signal.SIGKILL)
    return pid


def has_another(command: Command, name: str, killed: int) -> bool:
    """Whether the command has started a process of this name in place of a killed one."""
    return find_children(command, name) not in ([], [killed])


def find_children(command: Command, name: str) -> list[int]:
    """The processes that the command has started under this name: one, or none between two."""
    found = []
    for pid in children_of(command.process.pid):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            if name in Path(f"/proc/{pid}/cmdline").read_text():
                found.append(pid)
    return found


def test_a_closed_pipe_is_no_error(local: Local, table: Path) -> None:
    """As in `digitq classify … | head -1`."""
    command = Command("classify", table, "--broker", local.url)
    assert command.process.stdout
    assert command.process.stdout.readline().startswith("id,label")
    command.process.stdout.close()
    command.process.stdout = None
    assert command.end()[0] == 128 + signal.SIGPIPE


def test_who_waits_for_a_worker_is_told_how_to_start_one(
    redis_only: Local, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(digitq.backend, "MAX_SILENT_SECONDS", 0)
    with open_client(redis_only.url, None) as running:
        job = running.submit([draw_one()])
        wait_for(lambda: job.progress().chunks)
        look = watch_idle(job, Bar(progress_bar()))
        look()
        look()  # it is said once
        broker = shlex.quote(redis_only.url)
        said = f"waiting for a worker: `digitq worker --broker {broker}` starts one\n"
        assert capsys.readouterr() == ("", said)
        running.abandon(job)


def test_a_slow_source_is_what_is_waited_for(
    local: Local, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And not from the start on, but since the last result."""
    go_on = threading.Event()

    def images() -> Iterator[PIL.Image.Image]:
        for _ in range(3):  # an image is sent as the next but one comes
            yield draw_one()
        go_on.wait()

    monkeypatch.setattr(chunking, "PENDING_SECONDS", -1.0)
    monkeypatch.setattr(contents, "GATHER_FILES_SECONDS", -1.0)
    with open_client(local.url, None) as running:
        job = running.submit(images())
        bar = Bar(progress_bar())
        look = watch_idle(job, bar)
        monkeypatch.setattr(digitq.backend, "MAX_SILENT_SECONDS", 0)
        assert next(job.results()).num_rows == 1
        assert job.lacks == "the source"
        look()
        assert capsys.readouterr().err == "waiting for the source\n"
        look = watch_idle(job, bar)
        monkeypatch.setattr(digitq.backend, "MAX_SILENT_SECONDS", 60)
        monkeypatch.setattr(time, "monotonic", lambda now=time.monotonic: now() + 3600)
        bar.done = 1
        look()
        assert capsys.readouterr().err == ""
        go_on.set()
        running.abandon(job)


def test_who_waits_behind_others_is_not_told_to_start_a_worker(
    redis_only: Local, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_one().save(tmp_path / "1.png")
    client = Client(redis_only.url)
    other = client.submit([draw_one()], detached=True)
    assert other.wait_until_stored(60)
    beat(client.ledger)  # as a worker does
    with open_client(redis_only.url, None) as running:
        job = running.submit([draw_one()])
        wait_for(lambda: job.progress().chunks)
        monkeypatch.setattr(digitq.backend, "MAX_SILENT_SECONDS", 0)
        bar = Bar(Progress(console=Console(file=(said := io.StringIO())), disable=True))
        look = watch_idle(job, bar)
        look()
        assert said.getvalue() == ""
        assert bar.progress.tasks[0].fields["waiting"] == "behind other jobs"
        client.ledger.redis.delete(LIVING)  # as if it gave no sign of life any more
        look()
        assert said.getvalue().startswith("waiting for a worker: `digitq worker --broker ")
        client.abandon(job)


def test_a_classify_broken_off_cancels_its_job(redis_only: Local, tmp_path: Path) -> None:
    for number in range(40):
        draw_one().save(tmp_path / f"{number}.png")
    command = Command("classify", tmp_path, "--broker", redis_only.url, DIGITQ_CHUNK_ROWS=1)
    client = Client(redis_only.url)
    wait_for(client.jobs)
    command.process.send_signal(signal.SIGINT)
    assert command.end()[::2] == (130, "interrupted\n")
    assert [job.state for job in client.jobs()] == ["cancelled"]


def test_a_submit_broken_off_leaves_nothing(redis_only: Local) -> None:
    command = Command("submit", "-", "--broker", redis_only.url)
    assert command.process.stdin
    command.process.stdin.write("some.png\n")
    command.process.stdin.flush()
    client = Client(redis_only.url)
    wait_for(client.jobs)
    command.process.send_signal(signal.SIGINT)
    (job,) = client.jobs()
    status, _, err = command.end()
    told = f"job {job.id} is cancelled\n"  # not where it was broken off while it was begun
    assert status == 130 and err.removeprefix(told) == "interrupted\n"
    (job,) = client.jobs()
    assert (job.source, job.state) == ("paths on stdin", "cancelled")


def test_a_submitter_that_was_killed(
    local: Local, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digitq.producer.job, "GONE_SECONDS", 0.1)
    command = Command("submit", "-", "--broker", local.url)
    assert command.process.stdin
    command.process.stdin.write("some.png\n")
    command.process.stdin.flush()
    client, broker = Client(local.url), ("--broker", local.url)

    def feeding() -> list[str]:
        return [job.id for job in client.jobs() if job.state == "feeding"]

    wait_for(feeding)
    (job,) = feeding()
    command.process.kill()
    command.end()
    with connect(local.url) as redis:
        redis.hset(record_key(job), "fed", redis.time()[0] - SUBMITTER_SECONDS - 1)
    state = ask("status", job, *broker)[1]
    assert f"job {job}: abandoned" in state and "0 of 0 images stored so far" in state
    assert re.search(f"^{job} +abandoned +0 +0 +\\? +0 ", ask("jobs", *broker)[1], re.MULTILINE)
    status, _, err = ask("collect", job, *broker)
    assert status == 3 and "its submitter is gone" in err


def test_paths_on_stdin(local: Local, tmp_path: Path) -> None:
    draw_one().save(tmp_path / "a.png")
    done = subprocess.run(
        [*DIGITQ, "classify", "-", "--broker", local.url],
        input=f"{tmp_path}/a.png\n{tmp_path}/none.png\n",
        capture_output=True,
        text=True,
        check=False,
    )
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert done.returncode == 1
    assert [row["error"] for row in rows] == ["", "can't be read: No such file or directory"]


def test_a_job_is_handed_over_and_collected(
    local: Local, table: Path, tmp_path: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = ("--broker", local.url)
    status, out, err = ask("submit", table, "--limit", 1000, *broker)
    job = out.strip()
    assert status == 0 and (
        f"`digitq collect {job} -o OUT --broker {shlex.quote(local.url)}` collects the results, "
        "which need about 0.1 MB in Redis" in err
    )
    out = tmp_path / "out.jsonl"
    monkeypatch.setenv("DIGITQ_BROKER_URL", local.url)
    assert ask("collect", job, "-o", out)[0] == 1
    lines = out.read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [str(n) for n in range(1000)]
    state = json.loads(ask("status", job, "--json", *broker)[1])
    assert (state["state"], state["done_images"], state["failed"]) == ("done", 1000, 20)
    assert "1,000 of 1,000 images (100%), 20 with an error" in ask("status", job, *broker)[1]
    assert job in ask("jobs", *broker)[1]
    assert job in [
        json.loads(line)["id"] for line in ask("jobs", "--json", *broker)[1].splitlines()
    ]


@pytest.mark.parametrize("out", [(), ("-o", "out.parquet")])
def test_an_entry_that_no_worker_made_ends_collect_with_a_line(
    out: tuple[str, ...], client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: Ask
) -> None:
    """Whoever may submit can write it. It names no file that is read."""
    monkeypatch.chdir(tmp_path)
    stolen = encode(client.submit(random_digits(2)).table().to_batches()[0])
    (tmp_path / "stolen.arrow").write_bytes(stolen)
    os.mkfifo(tmp_path / "pipe")
    job = client.submit(random_digits(2), detached=True)
    wait_for(lambda: job.progress().state == "done")
    redis, key = client.ledger.redis, f"{record_key(job.id)}:results"
    entries = [
        *(json.dumps({"name": name, "size": len(stolen)}) for name in ("stolen.arrow", "pipe")),
        bytes(stolen[: len(stolen) // 2]),
        bytes(encode(pa.record_batch({"id": ["a", "b"], "label": [1, 2]}))),
    ]
    for entry in entries:
        redis.hset(key, 0, entry)
        status, told, err = ask("collect", job.id, *out, "--broker", client.url)
        assert (status, told) == (3, "")
        assert err.startswith("digitq: a result in Redis is damaged (") and err.count("\n") == 1
    redis.set(key, "text")
    status, _, err = ask("collect", job.id, *out, "--broker", client.url)
    assert status == 3 and "says: WRONGTYPE" in err


def test_collected_again_it_goes_on_where_it_was(
    client: Client, table: Path, quiet: bytes, tmp_path: Path, ask: Ask
) -> None:
    """In the midst of a chunk."""
    out = tmp_path / "out.csv"
    job = client.submit_source(open_sources([str(table)], limit=1000), detached=True)
    batch = next(job.results())
    with closing(FileSink(out, {"job": job.id})) as sink:
        sink.write(batch.slice(0, batch.num_rows - 7))
    assert ask("collect", job.id, "-o", out, "--broker", client.url)[0] == 1
    assert out.read_bytes() == first_rows(quiet, 1000)


def test_the_bar_of_a_job_that_is_still_fed_shows_no_total(client: Client, tmp_path: Path) -> None:
    has_shown_first = threading.Event()

    def give_images() -> Iterator[Image]:
        yield from (random_digits(2048), random_digits(2048))
        assert has_shown_first.wait(60)
        yield random_digits(2048)

    def look(shown: str) -> None:
        if "2,048" in shown or "4,096" in shown:
            has_shown_first.set()

    job = client.submit(give_images(), detached=True)
    collect = ("collect", job.id, "-o", tmp_path / "out.csv", "--broker", client.url)
    shown = on_terminal(80, *collect, look=look)
    assert "6,144 images" in shown and {*re.findall(r"[0-9]/([0-9,]+)", shown)} <= {"6,144"}


def test_a_cancelled_job_has_nothing_to_collect(local: Local, table: Path, ask: Ask) -> None:
    broker = ("--broker", local.url)
    job = ask("submit", table, *broker)[1].strip()
    assert ask("cancel", job, *broker)[0] == 0
    status, _, err = ask("collect", job, *broker)
    assert status == 3 and f"job {job} was cancelled" in err
    assert "cancelled" in ask("status", job, *broker)[1]


def test_who_cancels_a_job_that_is_done_is_told(
    local: Local, client: Client, table: Path, ask: Ask
) -> None:
    broker = ("--broker", local.url)
    job = ask("submit", table, "--limit", 500, *broker)[1].strip()
    wait_for(lambda: client.job(job).progress().state == "done")
    assert f"job {job} was done; its results are dropped" in ask("cancel", job, *broker)[2]


def test_no_jobs_are_said_to_be_none(redis_only: Local, ask: Ask) -> None:
    assert ask("jobs", "--broker", redis_only.url)[1:] == ("", "no jobs\n")
    assert ask("jobs", "--json", "--broker", redis_only.url)[1:] == ("", "")


def test_older_jobs_are_told_if_the_limit_leaves_some_out(
    redis_only: Local, tmp_path: Path, ask: Ask
) -> None:
    """Jobs that have expired may still be in Redis's list."""
    broker = ("--broker", redis_only.url)
    draw_one().save(tmp_path / "1.png")
    jobs = [ask("submit", tmp_path, *broker)[1].strip() for _ in range(3)]
    for job in jobs:
        ask("cancel", job, *broker)
    assert ask("jobs", "--limit", 1, *broker)[2] == "2 older jobs not shown: --limit shows more\n"
    with connect(redis_only.url) as redis:
        redis.delete(record_key(jobs[0]))
    assert ask("jobs", *broker)[2] == ""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("state", "odd"), ("created", "x"), ("created", "1e999"), ("stored", "many")),
        *(("origin", "{"), ("origin", '{"form": 5}'), ("images", b"\xff"), ("timed_images", "1.5")),
    ],
)
def test_a_damaged_record_hides_no_other_job(
    name: str, value: str | bytes, redis_only: Local, ask: Ask
) -> None:
    """Whoever may submit can write it."""
    with Client(redis_only.url) as client:
        damaged, other = (client.submit([draw_one()], detached=True) for _ in range(2))
        assert damaged.wait_until_stored(60) and other.wait_until_stored(60)
        client.ledger.redis.hset(record_key(damaged.id), name, value)
    status, out, _ = ask("jobs", "--json", "--broker", redis_only.url)
    assert status == 0 and [json.loads(line)["id"] for line in out.splitlines()] == [other.id]
    for command in ("status", "collect", "cancel"):
        status, _, err = ask(command, damaged.id, "--broker", redis_only.url)
        told = f"digitq: job '{damaged.id}' can't be read: its record in Redis is damaged\n"
        assert (status, err) == (2, told)


def test_a_record_of_another_type_hides_no_other_job(redis_only: Local, ask: Ask) -> None:
    """`jobs` ended with Redis's error, for everybody."""
    with Client(redis_only.url) as client:
        job = client.submit([draw_one()], detached=True)
        assert job.wait_until_stored(60)
        redis = client.ledger.redis
        for suffix in ("", ":running", ":begun"):
            redis.set(f"{record_key('x')}{suffix}", "y")
        redis.set(f"{WORKER}x", "y")
        for key in (JOBS, LIVING):
            redis.zadd(key, {"x": 1e12})
        redis.sadd(ACTIVE, "x")
        redis.set(f"{record_key(job.id)}:running", "y")
        assert look_around(client.ledger).backlog_images == 1
    status, out, _ = ask("jobs", "--json", "--broker", redis_only.url)
    assert status == 0 and [json.loads(line)["id"] for line in out.splitlines()] == [job.id]
    status, out, _ = ask("jobs", "--watch", "--broker", redis_only.url)
    assert status == 0 and job.id in out
    status, _, err = ask("status", "x", "--broker", redis_only.url)
    assert (status, err) == (
        2,
        "digitq: job 'x' can't be read: its record in Redis is damaged\n",
    )


def test_a_job_that_nobody_works_on_is_told(
    redis_only: Local, client: Client, tmp_path: Path, ask: Ask
) -> None:
    draw_one().save(tmp_path / "1.png")
    job = ask("submit", tmp_path, "--broker", redis_only.url)[1].strip()
    told = (
        f"no worker is running: `digitq worker --broker {shlex.quote(redis_only.url)}` starts one"
    )
    for command in (["jobs"], ["status", job]):
        assert ask(*command, "--broker", redis_only.url)[2] == f"{told}\n"
    ask("cancel", job, "--broker", redis_only.url)
    assert ask("jobs", "--broker", redis_only.url)[2] == ""
    wait_for(client.ledger.has_worker)


def test_a_job_whose_id_can_t_be_written_is_told(redis_only: Local, tmp_path: Path) -> None:
    draw_one().save(tmp_path / "1.png")
    command = [*DIGITQ, "submit", tmp_path, "--broker", redis_only.url]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    (job,) = Client(redis_only.url).jobs()
    assert done.returncode == 3 and f"`digitq collect {job.id} -o OUT " in done.stderr


def test_an_unknown_job_is_bad_usage(local: Local, ask: Ask) -> None:
    for command in ("status", "collect", "cancel"):
        status, _, err = ask(command, "nope", "--broker", local.url)
        assert status == 2 and "no job 'nope'" in err


def test_the_first_letters_of_a_job_are_enough(redis_only: Local, ask: Ask) -> None:
    """But not to cancel it."""
    with connect(redis_only.url) as redis:
        for id in ("prefix1a", "prefix1b", "prefix2a"):
            spec = JobSpec(id, "mlp", "scans", attached=False, in_flight=9, ttl=600)
            Ledger(redis).open(spec)
    broker = ("--broker", redis_only.url)
    status, out, _ = ask("status", "prefix2", *broker)
    assert status == 0 and out.startswith("job prefix2a: ")
    status, _, err = ask("status", "prefix1", *broker)
    named = "prefix1b, prefix1a" if "prefix1b, prefix1a" in err else "prefix1a, prefix1b"
    assert status == 2 and f"no job 'prefix1': {named} begin so; give all of an id" in err
    status, _, err = ask("cancel", "prefix2", *broker)
    assert status == 2 and "no job 'prefix2': prefix2a begins so; give all of an id" in err
    assert ask("cancel", "prefix2a", *broker)[0] == 0


def test_a_password_that_is_wrong(local: Local, ask: Ask) -> None:
    with connect(local.url) as redis:
        redis.acl_setuser(
            "guest", enabled=True, passwords=["+right"], categories=["+@all"], keys="*"
        )
    url = local.url.replace("unix://", "unix://guest:wrong@")
    status, _, err = ask("jobs", "--broker", url)
    assert status == 3 and "refuses the login" in err and "wrong" not in err.partition("(")[0]


def test_a_password_that_is_hidden_changes_no_command(redis_only: Local, tmp_path: Path) -> None:
    draw_one().save(tmp_path / "1.png")
    with connect(redis_only.url) as redis:
        redis.acl_setuser(
            "guest", enabled=True, passwords=["+right"], categories=["+@all"], keys="*"
        )
    url = redis_only.url.replace("unix://", "unix://guest:right@")
    _, job, err = run("submit", tmp_path, "--broker", url)
    assert f"`digitq collect {job.strip()} -o OUT --broker URL`" in err
    status, _, err = run("classify", tmp_path, f"--broker={url}", "--workers", 2)
    assert status == 2 and "it does not go with --broker" in err
    status, _, err = run("report", tmp_path / "none.csv", "--broker", url)
    assert status == 2 and "No such option '--broker'" in err


def test_evaluate_prints_the_matrix(
    local: Local, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIGITQ_BROKER_URL", local.url)
    status, out, _ = ask("evaluate", "mnist:sample")
    assert status == 0 and out.splitlines()[1].startswith("truth    0")
    assert read_accuracy(out) > 98
    random = ("--model", "random", "--limit", 1000)
    status, out, _ = ask("evaluate", "mnist:sample", *random)
    assert 2 < read_accuracy(out) < 30


def read_accuracy(out: str) -> float:
    """The accuracy, in percent, that `evaluate` has printed."""
    match = re.search(r"^accuracy +([0-9.]+)%", out, re.MULTILINE)
    assert match
    return float(match[1])


@pytest.mark.parametrize("read", ["digit", "number"])
def test_evaluate_without_a_right_answer_says_so(
    read: str, local: Local, tmp_path: Path, ask: Ask
) -> None:
    (tmp_path / "1.png").write_bytes(encode_image(draw_one((60, 60))))
    options = ("--read", read, "--truth", "parent")
    status, out, err = ask("evaluate", tmp_path, *options, "--broker", local.url)
    assert (status, out) == (2, "")
    assert (
        f"for 1 of 1 images: their folders, such as `{tmp_path.name}`, are not named by a {read}"
        in err
    )


def test_images_without_a_right_answer_are_counted(local: Local, tmp_path: Path, ask: Ask) -> None:
    for folder in ("1", "scans", "12"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes(encode_image(draw_one((60, 60))))
    broker, truth = ("--broker", local.url), ("--truth", "parent")
    told = "no right answer for 2 of 3 images: their folders"
    for command in ("classify", "evaluate"):
        status, out, err = ask(command, tmp_path, *truth, *broker)
        assert status == 0 and f"{told}, such as `12`, are not named by a digit" in err
    assert read_accuracy(out) == 100
    _, job, err = ask("submit", tmp_path, *truth, *broker)
    assert f"{told}, such as `12`, are" in err
    assert f"{told} are not named by a digit" in ask("collect", job.strip(), *broker)[2]


def test_demo_classifies_mnist_s_test_images(mnist_root: Path, tmp_path: Path) -> None:
    status, _, err = run("demo", cwd=tmp_path)
    assert status == 0 and mask(err) == mask(shown_output("make demo"))
    assert len((tmp_path / "results" / "demo.csv").read_text().splitlines()) == 10_001


def test_demo_takes_the_sample_if_a_firewall_swallows_its_packets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DIGITQ_MNIST", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # a proxy that never answers
        proxy = f"http://127.0.0.1:{silent.getsockname()[1]}"
        status, _, err = run(
            "demo", "--workers", 1, cwd=tmp_path, https_proxy=proxy, DIGITQ_CACHE_DIR=tmp_path
        )
    assert status == 0, err
    for part in (
        "MNIST can't be downloaded",
        "5,000 images that the networks were trained on (mnist:sample), so no accuracy is shown",
        "5,000 images, ",
        "images/s",
        "results/demo.csv",
        "http://127.0.0.1:",
    ):
        assert part in err
    assert "%" not in err
    header, *rows = (tmp_path / "results" / "demo.csv").read_text().splitlines()
    assert len(rows) == 5_000 and "truth" not in header


def test_up_runs_until_it_is_stopped(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    command = Command("up", "--workers", 1, "--port", port, "--log-format", "json")
    assert command.process.stderr
    log = (json.loads(line) for line in command.process.stderr if line.startswith("{"))
    for shown in shown_output("digitq up").splitlines():
        assert any(mask(line["message"]) == mask(shown) for line in log)
    draw_one().save(tmp_path / "1.png")
    broker = f"redis://127.0.0.1:{port}/0"
    assert run("classify", tmp_path, "--broker", broker)[0] == 0
    with connect(broker) as stranger:  # of this host, perhaps: it may write no file of ours
        for harm in (("CONFIG", "SET", "dir", "/tmp"), ("SAVE",), ("SHUTDOWN",), ("FLUSHALL",)):
            with pytest.raises(BrokerError, match="no permissions"):
                stranger.execute_command(*harm)
        assert stranger.config_get("appendonly") == {"appendonly": "no"}
    command.process.send_signal(signal.SIGINT)
    status, out, err = command.end()
    log = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    assert [line["images"] for line in log if line.get("event") == "chunk"] == [1]
    assert status == 0 and log[-1]["message"] == "all stopped" and not out


def on_terminal(
    width: int, *arguments: object, look: Callable[[str], None] = lambda shown: None
) -> str:
    """What a command shows on a terminal of so many columns, stdout and stderr together. `look` is
    called with what it has shown so far."""
    child, terminal = pty.fork()
    if not child:
        os.environ["TERM"] = "xterm-256color"
        os.execv(sys.executable, [*DIGITQ, *map(str, arguments)])
    termios.tcsetwinsize(terminal, (24, width))
    shown = b""
    with suppress(OSError), open(terminal, "rb", buffering=0) as file:  # the other end is closed
        while block := file.read(1 << 16):
            shown += block
            look(shown.decode(errors="replace"))
    os.waitpid(child, 0)
    return shown.decode()


def test_on_a_terminal_rows_are_lines_to_read(local: Local, tmp_path: Path) -> None:
    """And no bar comes between them."""
    draw_one().save(tmp_path / "1.png")
    (tmp_path / "torn.png").write_bytes(b"")
    shown = on_terminal(80, "classify", tmp_path, "--broker", local.url)
    first, second, last = shown.splitlines()
    assert re.fullmatch(r"1   [ \d]\d\.\d\d% {18}1\.png", first)
    assert second == "-           error           torn.png: the file is empty"
    assert re.fullmatch(r"2 images, 1 with an error, \d+\.\d s", last)
    as_csv = on_terminal(80, "classify", tmp_path, "--broker", local.url, "-o", "-")
    assert as_csv.startswith("id,label,confidence,p0,")


def test_a_bar_shows_how_far_it_is_and_is_gone_in_the_end(
    local: Local, table: Path, tmp_path: Path
) -> None:
    """On a narrow terminal, too."""
    out = tmp_path / "out.csv"
    shown = on_terminal(40, "classify", table, "-o", out, "--broker", local.url, "--limit", 1000)
    assert "1,000/1,000" in shown and "100%" in shown
    bar, _, rest = shown.rpartition("\x1b[2K")  # which erases the bar
    assert "20 with an error" in bar
    last = rest.split("\r\n")
    assert last[0].startswith("1,000 images, 20 with an error") and last[0].endswith("images/s")
    assert last[1:] == [f"the rows are in {out}", ""]


def test_report_has_a_bar_too(local: Local, tmp_path: Path) -> None:
    for number in range(3):
        draw_one().save(tmp_path / f"{number}.png")
    out = tmp_path / "out.csv"
    on_terminal(80, "classify", tmp_path, "-o", out, "--broker", local.url)
    bar, _, rest = on_terminal(80, "report", out).rpartition("\x1b[2K")  # which erases the bar
    assert "3/3" in bar and "100%" in bar
    assert rest.startswith(f"the page is {out.with_suffix('.html')}: 3 images")


def test_neither_forks_nor_stderr_nor_what_a_folder_or_another_program_has_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On macOS, Celery's processes are no forks. They have the weights that the command names.
    Stderr is closed: no file that the command opens takes its place."""
    here, site, spawned = tmp_path / "here", tmp_path / "site", tmp_path / "spawned"
    here.mkdir()
    site.mkdir()
    start = (
        "import sys\n"
        "from billiard.context import _default_context as it\n"
        "it._default_context = it.get_context('spawn')\n"
        f"'spawn_main' in str(sys.orig_argv) and open({str(spawned)!r}, 'w')\n"
    )
    (site / "sitecustomize.py").write_text(start)
    for name in ("redis.py", "torch.py", "worker.py"):
        (here / name).write_text("raise SystemExit('was run')")
    draw_one().save(here / "1.png")
    monkeypatch.chdir(here)
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.setenv("PYTHONSAFEPATH", "1")  # for `python -c`; the console script needs none
    for name in CELERY_VARIABLES:
        monkeypatch.setenv(name, "redis://127.0.0.1:1/0")
    mine, out = copy_weights(tmp_path / "mine", "mlp"), tmp_path / "out.csv"
    command = f"{' '.join(DIGITQ)} classify . --workers 1 --weights {mine} -o {out} 2>&-"
    done = subprocess.run(command, shell=True, stdout=subprocess.PIPE, text=True)
    assert (done.returncode, done.stdout) == (0, "")
    assert out.read_text().startswith("id,label,")
    assert spawned.exists()
    record = find_record(out)
    card = hashlib.sha256((mine / "mlp.json").read_bytes()).hexdigest()
    assert record and record.parts[0].weights and card.startswith(record.parts[0].weights[0])


def test_a_redis_that_is_too_old_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("digitq.private.processes.OLDEST_REDIS", 1000)
    with pytest.raises(UsageError, match=r"-server is Redis \d.*: 6 or newer is needed"):
        Local(workers=0).__enter__()


def test_whoever_is_tied_to_a_process_ends_with_it_on_other_systems(tmp_path: Path) -> None:
    """Where the kernel doesn't see to that."""
    code = (
        "import os, runpy, sys; sys.platform = 'darwin'; "
        f"sys.argv = ['tether', sys.argv[1], *sys.argv[2:]]; "
        f"runpy.run_path({tether.__file__!r}, run_name='__main__')"
    )
    start = (
        "import os, subprocess, sys; "
        "subprocess.run([sys.executable, '-c', sys.argv[1], str(os.getpid()), "
        "sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)"
    )
    mark = uuid.uuid4().hex
    parent = subprocess.Popen(
        [sys.executable, "-c", start, code], env={**os.environ, "DIGITQ_TEST_MARK": mark}
    )
    wait_for(lambda: len(processes_marked(mark)) == 3)
    parent.kill()
    parent.wait()
    wait_for(lambda: not processes_marked(mark))


@pytest.mark.parametrize(("how", "status"), [("sys.exit(3)", 3), ("os.kill(os.getpid(), 9)", 137)])
def test_its_status_is_the_command_s(how: str, status: int) -> None:
    command = [sys.executable, "-c", f"import os, sys; {how}"]
    assert tether.stand_by(os.getppid(), command) == status
