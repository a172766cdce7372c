"""What docker-compose.yml runs on: Redis's users, who may do their own work only, and passwords."""

import base64
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import HTTPBasicAuthHandler, HTTPPasswordMgrWithPriorAuth, build_opener, urlopen

import pytest
import redis
import yaml
from click.testing import CliRunner
from kombu.exceptions import OperationalError

from digitq import Client
from digitq.cli import digitq
from digitq.private.processes import Local, find_free_port, find_redis_server
from digitq.protocol.app import CLASSIFY_IMAGE, make_app
from digitq.protocol.asked.reading import digits, numbers
from digitq.protocol.broker.connection import connect
from digitq.protocol.errors import BrokerError
from digitq.protocol.keys import CALLS_QUEUE, TASK_EVENTS
from digitq.protocol.ledger import Ledger
from digitq.protocol.ledger.script import SCRIPT
from tests.drawing import draw_one, encode_image, random_digits
from tests.servers import Server, serve
from tests.waiting import children_of, run_digitq, wait_for
from tests.weights import copy_weights

LOOP = "while true do end"

ROOT = Path(__file__).parents[2]
CONF = (ROOT / "deploy/redis/redis.conf").read_text()
USERS = re.findall(r"<([A-Z]+)>", CONF.partition("\nuser default off ")[2])
JOB = "digitq:job:0123456789ab"
CHUNKS = f"{JOB}:chunks"
CONTROL = "/0.celery.pidbox"  # the channel of Celery's remote control


def is_new_enough(program: str | None) -> bool:
    """Whether it is a Redis that knows all of redis.conf."""
    command = [program or "false", "--version"]
    found = re.search(
        r"v=(\d+)\.(\d+)", subprocess.run(command, capture_output=True, text=True).stdout
    )
    return bool(found) and (int(found[1]), int(found[2])) >= (7, 2)


@contextmanager
def serve_users(folder: Path) -> Iterator[Server]:
    """Each user's password is its name, twice. There is also a user `admin` without one."""
    program = next(
        filter(is_new_enough, [find_redis_server(), shutil.which("valkey-server")]), None
    )
    if not program:
        pytest.skip("needs valkey-server, or Redis 7.2")
    (folder / "redis.conf").write_text(
        re.sub("<([A-Z]+)>", lambda found: 2 * found[1].lower(), CONF)
        + "user admin on nopass ~* &* +@all\n"
    )
    options = ("--maxmemory", "1gb", "--busy-reply-threshold", "50")
    with serve(folder, str(folder / "redis.conf"), *options, program=program) as server:
        yield server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve_users(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def admin(server: Server) -> Iterator[redis.Redis]:
    with redis.Redis(port=server.port, username="admin", password="any") as client:
        yield client


def url_of(server: Server, user: str) -> str:
    return f"redis://{user}:{user}{user}@127.0.0.1:{server.port}/0"


def may(admin: Any, user: str, *command: str) -> bool:
    return admin.execute_command("ACL", "DRYRUN", user, *command) == b"OK"


def test_each_may_do_its_work(server: Server, admin: Any, tmp_path: Path) -> None:
    admin.acl_log_reset()
    producer, flower = url_of(server, "producer"), f"http://127.0.0.1:{find_free_port()}"
    logins = HTTPPasswordMgrWithPriorAuth()
    logins.add_password(None, flower, "ada", "enchantress", is_authenticated=True)
    opener = build_opener(HTTPBasicAuthHandler(logins))
    worker_options = ("--broker", url_of(server, "worker"), "--concurrency=1", "--task-events")
    flower_options = (f"--port={flower.rpartition(':')[2]}", "--basic-auth=ada:enchantress")

    def page(path: str) -> str:
        with opener.open(flower + path) as answer:
            return str(answer.read().decode())

    def digitq_says(*arguments: str) -> str:
        run = CliRunner().invoke(digitq, [*arguments, "--broker", producer])
        assert run.exit_code == 0, run.output
        return run.output

    metrics = f"http://127.0.0.1:{find_free_port()}/metrics"
    metrics_options = ("--broker", url_of(server, "metrics"), "--port", metrics[17:-8])
    with (
        run_digitq(tmp_path / "worker", "worker", *worker_options) as worker_process,
        run_digitq(
            tmp_path / "flower", "flower", "--broker", url_of(server, "flower"), *flower_options
        ) as flower_process,
        run_digitq(tmp_path / "metrics", "metrics", *metrics_options) as metrics_process,
        Client(producer) as client,
    ):
        pixels = random_digits(3000)
        wait_for(client.ledger.has_script)  # a worker loads the steps when it starts
        assert client.classify(pixels[0]).error is None
        assert client.classify(pixels[0], numbers(length=2)).error is None
        assert client.submit(pixels).table().num_rows == 3000
        own = digits("cnn", weights=copy_weights(tmp_path / "own", "cnn", temperature=7.0))
        (answer,) = client.submit(pixels[:1], own).table()["confidence"].to_pylist()
        assert client.classify(pixels[0], own).confidence == answer
        assert client.classify(pixels[0], digits("cnn")).confidence != answer
        job = client.submit(pixels, detached=True)
        admin.script_flush()
        assert job.table().num_rows == 3000
        assert job.id in digitq_says("status", job.id) and job.id in digitq_says("jobs")
        (name,) = json.loads(page("/api/workers?refresh=1"))
        wait_for(lambda: f"job {job.id}, chunk 0" in page("/api/tasks"))
        assert "digitq" in page("/broker") and name in page(f"/worker/{name}")
        with urlopen(metrics) as answer:
            seen = answer.read().decode()
        assert 'digitq_images_total{model="mlp"} 6001.0' in seen and "digitq_workers 1.0" in seen
        for process in (worker_process, flower_process, metrics_process):
            said = Path(f"/proc/{process.pid}/cmdline").read_text()  # everyone may read it
            assert "port=" in said or "--port" in said or "--concurrency" in said
            assert not re.search(r":\w+@", said)
        with make_app(producer).connection_for_write() as connection:
            image = base64.b64encode(encode_image(draw_one())).decode()
            sent = make_app(producer).send_task(CLASSIFY_IMAGE, [image], connection=connection)
            assert sent.get(timeout=60)["error"] is None
        for command in ("shutdown", "cancel_consumer"):
            with pytest.raises(OperationalError, match="No permissions to access a channel"):
                make_app(producer).control.broadcast(command, arguments={"queue": "digitq"})
        assert len(make_app(url_of(server, "flower")).control.ping(timeout=30, limit=1)) == 1
        digitq_says("cancel", job.id)
        wait_for(lambda: not any(worker.missing for worker in client.ledger.workers()))
        assert "could not see appendfsync (Redis refuses CONFIG)" in digitq_says(
            "doctor", "--flower", flower
        )
    refused = {(entry["username"], entry["object"]) for entry in admin.acl_log()}
    told = {
        ("producer", CONTROL),
        ("producer", "script|load"),
        ("flower", "type"),
        ("metrics", "type"),
    }
    assert refused - told == {
        ("producer", command) for command in ("config|get", "acl|list", "acl|dryrun")
    }


def test_redis_remembers_jobs_when_it_starts_again(tmp_path: Path) -> None:
    with serve_users(tmp_path) as server, Client(url_of(server, "producer")) as client:
        Ledger(connect(url_of(server, "worker"))).sweep(30)  # loads the steps
        job = client.submit(random_digits(3000), detached=True)
        job.wait_until_stored()
        before = client.jobs()
        server.process.kill()
    with serve_users(tmp_path) as server, Client(url_of(server, "producer")) as client:
        assert client.jobs() == before and before[0].images == 3000


def test_workers_and_producers_may_run_all_of_the_ledger(admin: Any) -> None:
    for name in sorted({*re.findall(r"'([A-Z]{3,})'", SCRIPT)} - {"SCRIPT"}):
        (found,) = admin.execute_command("COMMAND INFO", name)
        arity = abs(found[1]) if found else 0  # the name may be another word of a command
        for user in ("producer", "worker"):
            arguments = ["digitq:job:x"] * (arity - 1)
            if name == "PUBLISH":
                arguments[0] = TASK_EVENTS.format(0) + "sent"
            assert not found or may(admin, user, name, *arguments), f"{user} can't run {name}"


@pytest.mark.parametrize("user", sorted(map(str.lower, USERS)))
def test_nobody_may_do_harm(admin: Any, user: str) -> None:
    for command in (
        *("FLUSHALL", "FLUSHDB", "SHUTDOWN", "KEYS *", "CONFIG GET *", "CONFIG SET dir /tmp"),
        *("ACL LIST", "MONITOR", "DEBUG SLEEP 1", "REPLICAOF h 1", "MODULE LIST", "CLIENT LIST"),
        *("EVAL return 0", "EVAL_RO return 0", "FUNCTION LOAD x", "FCALL x 0"),
        *("SCAN 0", "RANDOMKEY", "DBSIZE"),  # other programs' keys have names, too
        *("FUNCTION FLUSH", "SCRIPT FLUSH", "SAVE", "BGREWRITEAOF", "GET other", "SET other 1"),
    ):
        assert not may(admin, user, *command.split()), command


def test_each_may_do_no_more(server: Server, admin: Any) -> None:
    with redis.Redis(port=server.port) as nobody, pytest.raises(redis.AuthenticationError):
        nobody.ping()
    assert may(admin, "metrics", "HGETALL", JOB)
    for key in (CHUNKS, f"{JOB}:results", f"{JOB}:known", "digitq-taken"):
        for command in (("HGETALL", key), ("HGET", key, "0"), ("GET", key)):
            assert not may(admin, "metrics", *command)
    for command in (("LRANGE", "digitq-images", "0", "9"), ("HSET", JOB, "state", "done")):
        assert not may(admin, "metrics", *command)
    assert not may(admin, "metrics", "EVAL", "while true do end", "0")
    for user in ("producer", "worker", "metrics"):
        assert not may(admin, user, "PUBLISH", CONTROL, "shutdown")
        assert user == "worker" or not may(admin, user, "LPUSH", "w@h.celery.pidbox", "shutdown")
    assert may(admin, "flower", "PUBLISH", CONTROL, "shutdown")
    for queue in ("digitq", CALLS_QUEUE):
        assert may(admin, "flower", "LLEN", queue) and may(admin, "flower", "LPUSH", queue, "x")
        assert not may(admin, "flower", "BRPOP", queue, "1")
    for command in (("HGET", CHUNKS, "0"), ("LLEN", CHUNKS), ("DEL", CHUNKS), ("EXISTS", CHUNKS)):
        assert not may(admin, "flower", *command)


def test_a_producer_runs_only_steps_that_a_worker_has_loaded(server: Server, admin: Any) -> None:
    admin.script_flush()
    url = url_of(server, "producer")
    for command in (("SCRIPT", "LOAD", LOOP), ("EVAL", LOOP, "0"), ("SUNION", "digitq:a")):
        assert not may(admin, "producer", *command)
    with Client(url, retry_seconds=0) as hasty, pytest.raises(BrokerError) as error:
        hasty.submit(random_digits(1), detached=True)
    assert str(error.value).endswith(", which a worker loads: start one of this version")
    with Client(url) as client, connect(url_of(server, "worker")) as worker:
        told = list[str]()
        client.on_disconnect = told.append
        with ThreadPoolExecutor(1) as pool:
            job = pool.submit(client.submit, random_digits(10), detached=True)
            wait_for(lambda: told)
            assert "lacks the ledger's steps of digitq" in told[0]
            ledger = Ledger(worker)
            ledger.note_worker("w@h", {})  # as a heartbeat does
            assert job.result().wait_until_stored()
        id = job.result().id
        for refused in (
            lambda: client.ledger.begin(id, 0),
            lambda: client.ledger.note_worker("w@h", {}),
            lambda: client.ledger.give_up(id, "x" * 100_000),
        ):
            with pytest.raises(BrokerError, match="only a worker may do this step"):
                refused()
        assert ledger.begin(id, 0)
        client.ledger.cancel(id)


def test_an_operator_ends_a_script_that_does_not_end(server: Server) -> None:
    def run() -> object:
        with redis.Redis.from_url(url_of(server, "worker")) as worker:
            return worker.evalsha(worker.script_load(LOOP), 0)

    with ThreadPoolExecutor(1) as pool, redis.Redis.from_url(url_of(server, "flower")) as operator:
        loop = pool.submit(run)

        def is_killed() -> bool:
            with suppress(redis.ResponseError):  # it does not run yet
                return bool(operator.script_kill())
            return False

        wait_for(is_killed)
        with pytest.raises(redis.ResponseError, match="killed"):
            loop.result()


def test_the_results_that_celery_keeps(admin: Any) -> None:
    key = "celery-task-meta-1"
    assert may(admin, "worker", "SET", key, "{}") and may(admin, "worker", "PUBLISH", key, "{}")
    for user in ("producer", "flower"):
        assert may(admin, user, "GET", key) and may(admin, user, "SUBSCRIBE", key)


def test_the_compose_file_limits_processes_and_a_worker_has_fewer(local: Local) -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    limits = {service["deploy"]["resources"]["limits"]["pids"] for service in services.values()}
    assert len(limits) == 1 and not any("pids_limit" in service for service in services.values())
    client, image = Client(local.url), draw_one()
    assert client.classify(encode_image(image, "PDF"), numbers()).error is None
    assert client.submit([encode_image(image, kind) for kind in ("PNG", "JPEG", "AVIF")]).table()
    tree = [local._processes["worker1"].pid]
    for pid in tree:
        tree += children_of(pid)
    threads = sum(len(os.listdir(f"/proc/{pid}/task")) for pid in tree)
    assert len(tree) > 3 and threads < min(limits) / 8


def test_the_compose_file_sets_each_password(tmp_path: Path) -> None:
    start, example = (ROOT / "deploy/redis/start").read_text(), ROOT / ".env.example"
    assert f"for user in {' '.join(USERS)}; do" in start
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    shutil.copy(example, tmp_path)
    shutil.copy(example, tmp_path / ".env")
    (tmp_path / ".env").chmod(0o644)
    with open(tmp_path / ".env", "a") as file:
        file.write("REDIS_WORKER_PASSWORD=mine")
    for _ in range(2):  # the second time, none is missing
        subprocess.run([tmp_path / "deploy/passwords"], check=True, capture_output=True)
        assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
        lines = (tmp_path / ".env").read_text().splitlines()
        set_to = dict(line.split("=") for line in lines if line[:1].isalpha())
        assert set_to.pop("REDIS_WORKER_PASSWORD") == "mine"
        assert re.fullmatch("digitq:[0-9a-f]{32}", set_to.pop("FLOWER_BASIC_AUTH"))
        users = {f"REDIS_{user}_PASSWORD" for user in USERS} - {"REDIS_WORKER_PASSWORD"}
        assert set_to.keys() == users | {"GRAFANA_PASSWORD"}
        assert all(re.fullmatch("[0-9a-f]{32}", password) for password in set_to.values())
        assert len(set(set_to.values())) == len(set_to)
        assert len(lines) == len(example.read_text().splitlines()) + 6
