"""Every wrong input is one line, an exit status, and no traceback."""

import os
import re
import signal
import socket
import subprocess
import sys
import zipfile
from contextlib import closing, suppress
from copy import copy
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from digitq.cli import COMPLETE, SECTIONS, main
from digitq.commands.run import read_flower_options
from digitq.private.processes import find_free_port, find_redis_server
from digitq.producer.sinks.resumable import FileSink
from digitq.protocol.chunk import RESULT_SCHEMA
from digitq.protocol.errors import (
    BrokerError,
    JobCancelledError,
    OutputError,
    UnknownJobError,
    UsageError,
)
from digitq.protocol.host.process import Unfailing
from digitq.summary import report_interruption
from tests.drawing import draw_one, encode_image, random_digits
from tests.waiting import DIGITQ


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    draw_one().save(folder / "1.png")
    return folder


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def check(capsys: pytest.CaptureFixture[str], status: int, message: str, *arguments: str) -> None:
    assert run(*arguments) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err.splitlines()[-1]
    assert "Traceback" not in err


@pytest.mark.parametrize(("ignored", "meanwhile"), [(False, "SIG_DFL"), (True, "SIG_IGN")])
@pytest.mark.parametrize(
    ("command", "heavy"),
    [("digitq", "digitq.cli"), ("worker inspect", "digitq.worker.subcommands")],
)
def test_ctrl_c_ends_a_command_that_is_still_imported(
    command: str, heavy: str, ignored: bool, meanwhile: str, tmp_path: Path
) -> None:
    """At once and without a word; unless it is ignored, as in a script's background."""
    look = f"import signal, sys; print(signal.getsignal(2) == signal.{meanwhile}); sys.exit()"
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util, sys, importlib.abc\n"
        "class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name == {heavy!r}:\n"
        "            return importlib.util.spec_from_loader(name, self)\n"
        f"    def exec_module(self, module):\n        {look}\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", *command.split()],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_IGN if ignored else signal.SIG_DFL
        ),
        capture_output=True,
        text=True,
    )
    assert done.stdout == "True\n"


def test_later_ctrl_c_is_for_the_command_to_handle() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        run("--version")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_hang_up_that_is_ignored_stays_so() -> None:
    """As by nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run("--version")
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        run("--version")
        assert callable(signal.getsignal(signal.SIGHUP))
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("closed", ["out", "in"])
def test_a_stream_that_is_closed(closed: str, images: Path) -> None:
    command = "classify IMAGES >&-" if closed == "out" else "classify - -o IMAGES/x.csv <&-"
    shell = f"{sys.executable} -m digitq {command.replace('IMAGES', str(images))}"
    done = subprocess.run(shell, shell=True, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and f"digitq: {'stdout' if closed == 'out' else 'no paths'}" in (
        done.stderr
    )


@pytest.mark.parametrize(
    ("command", "stdout", "status"),
    [
        ("digitq --version", "full", 3),
        ("digitq --version", "closed", 128 + signal.SIGPIPE),
        (
            'worker inspect {"out":null,"model":"mlp","known":0} 1.png',  # nothing is known
            "closed",
            128 + signal.SIGPIPE,
        ),
        ("worker inspect --help", "full", 3),
        ("worker inspect --help", "closed", 1),  # as click has it
    ],
)
def test_a_stdout_that_can_t_be_written(
    command: str, stdout: str, status: int, images: Path
) -> None:
    """Its status is no row's, and not Python's own."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    environment.pop("PYTHONUNBUFFERED", None)
    if stdout == "full":
        file = os.open("/dev/full", os.O_WRONLY)
    else:
        reading, file = os.pipe()
        os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", *command.split()],
        cwd=images,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=file,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(file)
    assert done.returncode == status
    assert ("digitq: " in done.stderr or stdout == "closed") and "Error" not in done.stderr


@pytest.mark.parametrize(
    ("command", "status"),
    [("digitq jobs --broker redis://127.0.0.1:1", 3), ("worker inspect", 2)],
)
def test_a_stderr_that_can_t_be_written_changes_no_status(
    command: str, status: int, images: Path
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    reading, closed = os.pipe()
    os.close(reading)
    full = os.open("/dev/full", os.O_WRONLY)
    for stderr in (full, closed):
        done = subprocess.run(
            [sys.executable, "-m", *command.split()], cwd=images, env=environment, stderr=stderr
        )
        os.close(stderr)
        assert done.returncode == status


def test_a_stderr_that_was_set_not_to_wait_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """By another program that has the same pipe or terminal."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with Unfailing(writing, "wb") as file, open(reading, "rb", buffering=0) as pipe:
        with suppress(BlockingIOError):
            while os.write(writing, b"." * 65536):
                pass
        monkeypatch.setattr("select.select", lambda *_: pipe.read(1 << 20))
        assert file.write(b"said") == 4
        assert pipe.read(5) == b"said"


def test_a_thread_that_is_at_work_changes_no_status() -> None:
    """In Arrow's code, it makes Python end by SIGABRT."""
    code = """
import sys, threading, time, pyarrow
from digitq import __main__, cli

begun = threading.Event()

class Endless:
    closed = False

    def read(self, size):
        begun.set()
        time.sleep(0.001)
        return bytes(size)

def work():
    file = pyarrow.PythonFile(Endless(), "r")
    while True:
        file.read(1000)

def main():
    for _ in range(20):
        threading.Thread(target=work, daemon=True).start()
    begun.wait()
    sys.exit(5)

cli.main = main
__main__.main()
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 5


@pytest.mark.parametrize(
    "program", ["import digitq", "runpy.run_module('digitq', run_name='__main__')"]
)
def test_windows_is_told_what_to_use_instead(program: str) -> None:
    code = f"import runpy, signal, sys; sys.platform = 'win32'; del signal.SIGHUP; {program}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode and "WSL" in done.stderr and "Docker" in done.stderr
    assert done.stderr.count("\n") == 1 and not done.stdout


NUMBERS = ("--read", "number")
FORM = ("--form", str(Path(__file__).parents[2] / "examples/forms/form.toml"))
NO_BROKER = ("--broker", "redis://127.0.0.1:1/0")
TWO_BROKERS = ("--broker", "redis://127.0.0.1:1 redis://127.0.0.1:2")
ONE_URL = "name one URL, of one Redis; a second Redis is a deployment of its own"


@pytest.mark.parametrize(
    ("status", "message", "arguments"),
    [
        (2, "no such file or folder: nowhere", ["classify", "nowhere"]),
        (2, "'x' is not one of", ["classify", "IMAGES", "--model", "x"]),
        (2, "Missing argument", ["classify"]),
        (
            2,
            "--report reads OUT, and results are read from .csv, .jsonl or .parquet: name such an "
            "OUT in place of o.xlsx",
            ["classify", "IMAGES", "-o", "o.xlsx", "--report", "o.html"],
        ),
        (2, "--wide reads OUT", ["classify", "IMAGES", "-o", "o.xlsx", "--wide", *FORM]),
        (2, "must end in .csv or .jsonl", ["classify", "IMAGES", "-o", "out.xls"]),
        (2, "there is no folder nowhere", ["classify", "IMAGES", "-o", "nowhere/out.csv"]),
        (2, "1.png is a SOURCE", ["classify", "IMAGES/1.png", "-o", "IMAGES/../images/1.png"]),
        (2, "is not a Redis URL", ["classify", "IMAGES", "--broker", "amqp://localhost"]),
        (2, ONE_URL, ["jobs", *TWO_BROKERS]),
        (2, ONE_URL, ["classify", "IMAGES", *TWO_BROKERS]),
        (2, ONE_URL, ["worker", *TWO_BROKERS]),
        (2, ONE_URL, ["flower", "--port=0", *TWO_BROKERS]),  # 5555 may be in use
        (2, ONE_URL, ["doctor", *TWO_BROKERS]),
        (2, ONE_URL, ["metrics", *TWO_BROKERS]),
        (2, "its database is not a number", ["metrics", "--broker", "redis://127.0.0.1:2/abc"]),
        (2, "its database is not a number", ["jobs", "--broker", "redis://127.0.0.1:1/abc"]),
        (3, "can't reach Redis at redis://127.0.0.1:1/0", ["classify", "IMAGES", *NO_BROKER]),
        (3, "can't reach Redis", ["submit", "IMAGES", *NO_BROKER]),
        (3, "can't reach Redis", ["status", "abc", *NO_BROKER]),
        (3, "can't reach Redis", ["collect", "abc", *NO_BROKER]),
        (3, "can't reach Redis", ["cancel", "abc", *NO_BROKER]),
        (3, "can't reach Redis", ["jobs", *NO_BROKER]),
        (3, "can't reach Redis", ["evaluate", "mnist:sample", *NO_BROKER]),
        (3, "can't reach Redis", ["doctor", *NO_BROKER]),
        (2, "is not a URL such as http://localhost:5555", ["doctor", "--flower", "localhost"]),
        (2, "is not a URL such as", ["doctor", "--flower", "http://["]),
        (2, "is not a URL such as", ["doctor", "--flower", "http://localhost:99999"]),
        (2, "no Flower answers there", ["doctor", "--flower", "http://a..b:5555"]),
        (2, "no Flower answers there", ["doctor", "--flower", "http://127.0.0.1:1"]),
        (2, "no Flower answers there", ["doctor", "--flower", "http://127.0.0.1:1/é ü"]),
        (2, "no Flower answers there", ["doctor", "--flower", "http://a b:1"]),
        (2, "//***@127.0.0.1:1: no Flower", ["doctor", "--flower", "http://a:b@127.0.0.1:1"]),
        (2, "a SOURCE is an empty string", ["classify", ""]),
        (2, "does not go with --broker", ["classify", "IMAGES", "--workers", "2", *NO_BROKER]),
        (2, "leave out the model 'cnn'", ["classify", "IMAGES", *NUMBERS, "--model", "cnn"]),
        (2, "'number' is not one of", ["classify", "IMAGES", "--model", "number"]),
        (2, "the length '6-3' must be", ["classify", "IMAGES", *NUMBERS, "--length", "6-3"]),
        (2, "need whole numbers: --read number", ["submit", "IMAGES", "--length", "9"]),
        (2, "needs 'k': a number has", ["classify", "IMAGES", *NUMBERS, "--pattern", r"\d+kg"]),
        (2, "missing )", ["submit", "IMAGES", *NUMBERS, "--pattern", "("]),
        (
            2,
            "give one of the two",
            ["submit", "IMAGES", *NUMBERS, "--pattern", "1", "--length", "1"],
        ),
        (2, "can't read nowhere", ["submit", "IMAGES", *NUMBERS, "--allowed", "nowhere"]),
        (
            2,
            "list of allowed numbers is empty",
            ["evaluate", "IMAGES", *NUMBERS, "--allowed", "EMPTY"],
        ),
        (
            2,
            "neither `parent` nor a .csv, .xlsx or .parquet file",
            ["classify", "IMAGES", "--truth", "x"],
        ),
        (2, "read nowhere.csv: No such file", ["classify", "IMAGES", "--truth", "nowhere.csv"]),
        (2, "has no right answers", ["evaluate", "IMAGES", *NUMBERS]),
        (
            3,
            "can't reach Redis",
            ["evaluate", "mnist:sample", *NUMBERS, "--length", "1", *NO_BROKER],
        ),
        (3, "can't reach Redis", ["submit", "IMAGES", *NUMBERS, *NO_BROKER]),
        (2, "Flower has no option --prot; is it --port?", ["flower", "--prot=5556"]),
        (2, "Flower has no option 5556", ["flower", "5556"]),
        (2, "No such command", ["clasify"]),
        (2, "is not in the range", ["classify", "IMAGES", "--workers", "0"]),
        (2, "9999 is not in the range", ["classify", "IMAGES", "--workers", "9999"]),
    ],
)
def test_bad_usage(
    status: int,
    message: str,
    arguments: list[str],
    images: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DIGITQ_BROKER_RETRY_SECONDS", "0.01")
    (images.parent / "none.txt").touch()
    names = {"IMAGES": str(images), "EMPTY": str(images.parent / "none.txt")}
    for word, path in names.items():
        arguments = [one.replace(word, path) for one in arguments]
    check(capsys, status, message, *arguments)


@pytest.mark.parametrize("command", ["status abc", "jobs", "jobs --watch", "doctor"])
def test_what_shows_the_present_state_does_not_wait_for_redis(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*command.split(), *NO_BROKER) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("digitq: can't reach Redis at redis://127.0.0.1:1/0 (")


CONTINUES = "1 row in {}: the same command continues from there\n"


@pytest.mark.parametrize(
    ("error", "how", "told"),
    [
        (KeyboardInterrupt(), {}, CONTINUES),
        (SystemExit(143), {}, CONTINUES),
        (OutputError("full"), {"collected": "j"}, CONTINUES),
        (
            BrokerError("gone"),
            {"overwrite": True},
            CONTINUES.replace(" continues", " without --overwrite continues"),
        ),
        (JobCancelledError("cancelled"), {}, CONTINUES),
        (JobCancelledError("cancelled"), {"collected": "j"}, "1 row in {}\n"),
        (UsageError("the source has changed"), {}, ""),
        (KeyboardInterrupt(), {"collected": "j"}, CONTINUES),
    ],
)
def test_a_run_broken_off_says_what_there_is(
    error: BaseException,
    how: dict[str, Any],
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    row = {"id": "x", "error": "gone", "review": True}
    sink = FileSink(tmp_path / "out.csv", {})
    sink.write(pa.RecordBatch.from_pylist([row], RESULT_SCHEMA))
    reported = report_interruption(sink, **{"overwrite": False, **how})
    with closing(sink), pytest.raises(type(error)), reported:
        raise error
    assert capsys.readouterr().err == told.format(tmp_path / "out.csv.partial")


def test_a_run_that_was_to_replace_a_file_promises_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.csv"
    out.write_text("of an earlier run")
    sink = FileSink(out, {}, overwrite=True)
    row = {"id": "x", "error": "gone", "review": True}
    sink.write(pa.RecordBatch.from_pylist([row], RESULT_SCHEMA))
    with closing(sink), pytest.raises(BrokerError), report_interruption(sink, overwrite=True):
        raise BrokerError("gone")
    assert capsys.readouterr().err == f"1 row in {out}.partial\n"
    with pytest.raises(UsageError, match="out.csv exists: --overwrite replaces it"):
        FileSink(out, {})


def test_a_collect_broken_off_at_once_says_that_the_job_stays(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(KeyboardInterrupt), report_interruption(Mock(), False, "j"):
        raise KeyboardInterrupt
    assert capsys.readouterr().err == "job j is unchanged: the same command collects it\n"


def test_a_job_that_redis_loses_as_it_is_collected_is_no_bad_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sink = FileSink(tmp_path / "out.csv", {})
    row = {"id": "x", "error": "gone", "review": True}
    sink.write(pa.RecordBatch.from_pylist([row], RESULT_SCHEMA))
    reported = report_interruption(sink, False, "j")
    with closing(sink), pytest.raises(BrokerError, match="Redis no longer has job j"), reported:
        raise UnknownJobError("no job 'j'")
    assert capsys.readouterr().err == f"1 row in {tmp_path}/out.csv.partial\n"


@pytest.mark.parametrize("name", ["a.npy", "a.zip", "a.pdf"])
def test_a_run_over_a_set_that_was_written_anew_does_not_go_on(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIGITQ_BROKER_RETRY_SECONDS", "0.01")
    table, truth, out = tmp_path / name, tmp_path / "truth.csv", tmp_path / "out.csv"
    if name == "a.npy":
        np.save(table, random_digits(2))
    elif name == "a.pdf":
        draw_one().save(table)
    else:
        with zipfile.ZipFile(table, "w") as archive:
            archive.writestr("0.png", encode_image(draw_one()))
    truth.write_text("id,label\n0,1\n")
    run = {"sources": [str(table)], "model": "mlp", "known": None, "limit": None}
    run |= {"weights": None, "digitq": version("digitq")}
    times = [path.stat().st_mtime_ns for path in (table, truth)]
    sink = FileSink(out, {**run, "truth": str(truth), "modified": times})
    row = {"id": "0", "error": "gone", "review": True}
    sink.write(pa.RecordBatch.from_pylist([row], RESULT_SCHEMA))
    sink.close()
    command = ("classify", str(table), "-o", str(out), "--truth", str(truth), *NO_BROKER)
    check(capsys, 3, "can't reach Redis", *command)  # the run is its own
    for path, time in zip((table, truth), times, strict=True):
        os.utime(path, ns=(0, 0))
        changed = "(a table, a set, a document or the right answers have changed since)"
        check(capsys, 2, f"belongs to another run {changed}", *command)
        os.utime(path, ns=(time, time))
    check(capsys, 3, "can't reach Redis", *command)


def test_a_result_file_is_no_folder(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (images / "out.csv").mkdir()
    command = ("classify", str(images), "-o", f"{images}/out.csv", "--overwrite")
    check(capsys, 2, "it is a folder", *command)


def test_an_empty_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(capsys, 2, f"no image in {tmp_path}", "classify", str(tmp_path))


@pytest.mark.parametrize("command", ["worker", "flower"])
def test_help_starts_nothing(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("-h", "--help"):
        assert run(command, option) == 0
        assert capsys.readouterr().out.startswith(f"Usage: digitq {command} [OPTIONS]")


def test_short_options_of_celery_are_no_call_for_help(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda path, arguments: started.append(arguments))
    run("worker", "-Pthreads", "-nw1@%h")
    assert started[0][-2:] == ["-Pthreads", "-nw1@%h"]


def test_a_worker_has_the_broker_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given by its variable, whatever that was."""
    urls: list[str | None] = []
    monkeypatch.setattr(os, "execv", lambda *_: urls.append(os.environ["DIGITQ_BROKER_URL"]))
    monkeypatch.setenv("DIGITQ_BROKER_URL", "redis://one/0")
    for options in ([], ["--broker", "redis://two/3"]):
        run("worker", *options)
    assert urls == ["redis://one/0", "redis://two/3"]


def test_flower_is_for_this_host_alone_unless_it_is_told_else(
    unset: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda path, arguments: started.append(arguments))
    run("flower", "--port=0", "--address=0.0.0.0")
    assert started[0][-3:] == ["--address=127.0.0.1", "--port=0", "--address=0.0.0.0"]


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tornado's options, one set for the process, as they were before."""
    import_module("flower.options")
    known = vars(import_module("tornado.options").options)["_options"]
    for name, option in list(known.items()):
        monkeypatch.setitem(known, name, copy(option))


def test_flower_s_options_are_as_it_knows_them(
    unset: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        with pytest.raises(UsageError, match=f"port {port} is in use"):
            read_flower_options(["--port", port])
        monkeypatch.setenv("FLOWER_PORT", port)
        with pytest.raises(UsageError, match=f"port {port} is in use"):
            read_flower_options([])
        options = read_flower_options(
            ["--unix_socket=a.sock", "--persistent", "--basic-auth", "a:b"]
        )
    assert options == ["--unix_socket=a.sock", "--persistent", "--basic-auth=a:b"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port"], "Option 'port' requires a value"),
        (["--port", "abc"], "invalid literal"),
        (["--port=70000"], "there is no port 70000"),
        (["--port=70000", "--address=127.0.0.1"], "there is no port 70000"),
        (["-A", "x"], "no option -A"),
        (["--conf=/nowhere/conf.py"], "--conf: no such file: /nowhere/conf.py"),
        (["--address", "300.1.1.1"], "--address 300.1.1.1: no such address"),
        (["--persistent=yes", "--db=/nowhere/db"], "--db /nowhere/db: can't write to its folder"),
    ],
)
def test_values_that_flower_can_t_read(unset: None, options: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_flower_options(options)


def test_a_wrong_setting(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIGITQ_CHUNK_ROWS", "none")
    check(capsys, 2, "DIGITQ_CHUNK_ROWS='none'", "jobs")


def test_weights_that_are_none_are_told_before_workers_start(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DIGITQ_WEIGHTS", str(tmp_path))
    message = f"DIGITQ_WEIGHTS={tmp_path}: no NAME.json of `digitq train` is there"
    check(capsys, 2, message, "up", "--port", str(find_free_port()))


@pytest.mark.parametrize(
    ("command", "model", "message"),
    [
        ("classify x.png", "", "has no mlp.json, but cnn: add `--model cnn`"),
        ("evaluate x.png", "", "has no mlp.json, but cnn: add `--model cnn`"),
        ("inspect x.png", "", "has no mlp.json, but cnn: add `--model cnn`"),
        (
            "classify x.png --read number --weights .",
            "",
            "has no number.json, but cnn: `digitq train number` makes one",
        ),
        ("classify x.png --model mlp", "", "x.png"),
        ("classify x.png --read number", "", "x.png"),
        ("classify x.png", "mlp", "x.png"),
        ("demo", "", "has no mlp.json, but cnn"),
    ],
)
def test_own_weights_are_not_passed_over_in_silence(
    command: str,
    model: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """But they are where the default model, or another one, is asked for by its name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cnn.json").touch()
    monkeypatch.setenv("DIGITQ_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("DIGITQ_MODEL", model)
    check(capsys, 2, message, *command.split())


@pytest.mark.parametrize(
    "command",
    ["classify x.png", "evaluate", "demo", "up", "worker", "train mlp --data x --out new"],
)
def test_weights_of_an_option_are_told_by_its_name(
    command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    message = f"--weights {tmp_path}: no NAME.json of `digitq train` is there"
    check(capsys, 2, message, *command.split(), "--weights", str(tmp_path))


def test_help_shows_what_can_be_read_and_where_the_docs_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Read handwritten digits, whole numbers and pages" in text and "docs/forms.md" in text
    for option in ("", " --read number", " --form form.toml"):
        assert re.search(rf"digitq classify \S+{option} -o \S+\.csv", text)


@pytest.mark.parametrize(
    "command",
    ["classify x.png --model cnn", "evaluate --read number", "train cnn --data x --out new"],
)
def test_weights_of_another_network_are_refused(
    command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "mlp.json").touch()
    check(capsys, 2, "json, but mlp", *command.split(), "--weights", str(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["random"], "'random' is not one of"),
        (["mlp", "--seed", str(2**64)], "is not in the range"),
        (["mlp", "--truth", "parent"], "Missing option '--data'"),
        (["number", "--data", "IMAGES", "--epochs", "0"], "is not in the range"),
        (["mlp", "--data", "IMAGES", "--limit", "0"], "'--limit': 0 is not in the range"),
        (["mlp", "--data", "nowhere"], "no such file or folder: nowhere"),
        (["cnn", "--data", "nowhere", "--length", "3"], "which `digitq train number` learns"),
        (["cnn", "--data", "nowhere", "--form", "x"], "which `digitq train number` learns"),
        (["number", "--data", "nowhere", "--form", "no.toml"], "no.toml: No such file or director"),
        (["number", "--data", "nowhere", "--pattern", "(1"], "the pattern '(1' is neither a"),
        (["number", "--data", "nowhere", "--allowed", "no.txt"], "can't read no.txt: No such file"),
        (
            ["mlp", "--data", "IMAGES", "--truth", "TABLE"],
            "1 right answer can't be learned, as a digit is needed: 1.png (12); "
            "`digitq train number` learns whole numbers",
        ),
    ],
)
def test_what_train_does_not_take(
    options: list[str],
    message: str,
    images: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    (tmp_path / "truth.csv").write_text("id,label\n1.png,12\n")
    names = {"IMAGES": str(images), "TABLE": str(tmp_path / "truth.csv")}
    options = [names.get(option, option) for option in options]
    check(capsys, 2, message, "train", *options, "--out", str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("command", "name", "value"),
    [
        ("worker", "BROKER_URL", "foo"),
        ("worker", "BROKER_URL", "redis://h?x=1"),
        ("worker", "CHUNK_ROWS", "abc"),
        ("flower --port=0", "BROKER_URL", "redis://h?x=1"),  # 5555 may be in use
    ],
)
def test_a_wrong_setting_of_what_digitq_becomes(command: str, name: str, value: str) -> None:
    done = subprocess.run(
        [*DIGITQ, *command.split()],
        env={**os.environ, f"DIGITQ_{name}": value},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and name in done.stderr and value in done.stderr


@pytest.mark.parametrize(
    ("module", "extra", "command"),
    [
        ("flower", "flower", ["flower"]),
        ("flower", "flower", ["up", "--port", "1"]),
        ("torch", "worker", ["worker"]),
        ("onnxruntime", "worker", ["worker"]),
        ("torch", "worker", ["train", "mlp", "--data", "x", "--out", "new"]),
        ("cv2", "worker", ["inspect", "x.png"]),
        ("torch", "worker", ["classify", "IMAGES"]),
        (
            "rapidocr",
            "second-reader",
            ["classify", "IMAGES", "--read", "number", "--second-reader"],
        ),
    ],
)
def test_what_is_not_installed(
    module: str,
    extra: str,
    command: list[str],
    images: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    command = [part.replace("IMAGES", str(images)) for part in command]
    check(capsys, 2, f"{module} is not installed: run `pip install 'digitq[{extra}]'`", *command)


def test_a_wrong_model_by_setting(
    images: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIGITQ_MODEL", "resnet")
    check(capsys, 2, "DIGITQ_MODEL='resnet': Input should be", "classify", str(images))


def test_no_redis_server_to_be_found(
    images: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    monkeypatch.setattr("digitq.private.processes.find_spec", lambda name: None)
    check(capsys, 2, "no redis-server: install Redis", "classify", str(images))


def test_valkey_is_taken_where_there_is_no_redis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "valkey-server").touch(mode=0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("digitq.private.processes.find_spec", lambda name: None)
    assert find_redis_server() == str(tmp_path / "valkey-server")


def test_up_on_a_port_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        check(capsys, 2, f"port {port} is in use", "up", "--port", str(port))


def test_a_fault_of_its_own_is_no_row_s_error(
    images: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "digitq.producer.sources.opening.open_sources", Mock(side_effect=ZeroDivisionError)
    )
    assert run("classify", str(images)) == 3
    assert "Traceback" in capsys.readouterr().err


def test_every_command_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    named = [command.name for commands in SECTIONS.values() for command in commands]
    run("--help")
    shown = re.findall(r"^  (\w+) {2,}\w", capsys.readouterr().out, re.MULTILINE)
    assert shown == named


@pytest.mark.parametrize(
    ("words", "found"),
    [("cl", ["classify"]), ("classify --model m", ["mlp"]), ("evaluate --js", ["--json"])],
)
def test_a_shell_completes_commands(
    words: str,
    found: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(COMPLETE, "bash_complete")
    monkeypatch.setenv("COMP_WORDS", f"digitq {words}")
    monkeypatch.setenv("COMP_CWORD", str(len(words.split())))
    assert run() == 0
    assert capsys.readouterr().out.split() == [f"plain,{word}" for word in found]


def test_what_lies_in_the_current_folder_is_not_run(tmp_path: Path) -> None:
    """Celery takes a folder for a place of its app's modules. test_worker.py has a worker there."""
    (tmp_path / "protocol.py").write_text("print('hostile', flush=True)")
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "digitq", "flower", "--port=0", *NO_BROKER],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout
        said = ""
        for line in process.stdout:
            said += line
            if "127.0.0.1:1" in line:  # it is at work, and looks for Redis
                break
        process.kill()
    assert "127.0.0.1:1" in said and "hostile" not in said


def test_names_in_messages_can_t_steer_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"\x1b]0;title\x07\x1b[2J": [1]}), path)
    check(capsys, 2, r"its columns: \x1b]0;title\x07\x1b[2J", "classify", str(path))
