"""`digitq doctor` on real deployments: a sound one, and for each rule one that breaks it."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
from click.testing import CliRunner

from digitq import Client, __version__
from digitq.cli import digitq
from digitq.operate.doctor import examine
from digitq.operate.facts import Facts, gather_facts, look_at_flower
from digitq.operate.metrics import StateCollector
from digitq.private.processes import FLOWER_CONF, Local, find_free_port, find_redis_server
from digitq.protocol.app import app
from digitq.protocol.asked.reading import digits
from digitq.protocol.broker.address import read_address
from digitq.protocol.broker.connection import connect
from digitq.protocol.errors import BrokerError
from digitq.protocol.heartbeat import WorkerState
from digitq.protocol.overview import look_around
from digitq.protocol.records import JobRecord, JobSpec, RunningChunk
from digitq.protocol.settings import settings
from digitq.worker.models.card import WEIGHTS_FOLDER
from digitq.worker.service.heartbeat_threads import RedisHeartbeat
from tests.drawing import draw_one, encode_image, random_digits
from tests.waiting import DIGITQ, children_of, wait_for

HOUR_AHEAD = "import time; now = time.time; time.time = lambda: now() + 3600\n"
ONE_CORE = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
PASSWORD = "secret" * 3
SOUND = ["--appendonly", "yes", "--bind", "0.0.0.0", "--protected-mode", "no", "--maxmemory", "1gb"]


class Served(Local):
    """A Redis on a port, started with options; workers and Flower as they are started."""

    def __init__(self, *options: str, password: str = "") -> None:
        super().__init__(workers=0, port=find_free_port())
        self.options, self.password = options, password

    @property
    def url(self) -> str:
        login = f"{self.password}@" if self.password else ""
        return f"redis://{login}127.0.0.1:{self.port}/0"

    def _start_redis(self) -> None:
        folder, port = str(self.folder), str(self.port)
        options = ("--dir", folder, "--port", port, "--save", "", *self.options)
        self._start("redis", find_redis_server(), *options)

        def answers() -> bool:
            with suppress(BrokerError), connect(self.url) as client:
                return bool(client.ping())
            return False

        wait_for(answers)

    def start_workers(self, *names: str) -> None:
        for name in names:
            self._start_worker(name)
        self.workers += len(names)

    def wait_until_ready(self, workers: int | None = None) -> None:
        """Wait until all workers say so, too: their first heartbeat may come before they are ready,
        or after they answer."""
        super().wait_until_ready(workers)
        wanted = self.workers if workers is None else workers
        with Client(self.url) as client:
            wait_for(
                lambda: sum(not one.missing for one in client.ledger.workers()) >= wanted,
            )

    def start_flower(self, *options: str) -> str:
        """Gives its URL once it answers."""
        self._flower_port = port = find_free_port()
        command = ["-A", "digitq.protocol.app", "flower", f"--port={port}", *options]
        self._start_module(f"flower{port}", "celery", *command)
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: look_at_flower(url, required=False))
        return url


def found(facts: Facts, rule: str) -> str:
    """What the rule found, which must be one thing."""
    (line,) = (str(finding) for finding in examine(facts) if finding.rule == rule)
    return line


def say(facts: Facts) -> str:
    return "\n".join(map(str, examine(facts)))


def with_workers(facts: Facts, *workers: WorkerState) -> Facts:
    return replace(facts, overview=replace(facts.overview, workers=workers))


def with_jobs(facts: Facts, jobs: Sequence[JobRecord]) -> Facts:
    return replace(facts, overview=replace(facts.overview, jobs=tuple(jobs)))


def doctor(*options: str, **variables: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of the command."""
    run = subprocess.run(
        [*DIGITQ, "doctor", *options],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **variables},
    )
    return run.returncode, run.stdout, run.stderr


@pytest.fixture(scope="module")
def sound() -> Iterator[Served]:
    """A deployment that there is nothing to say about, though others may reach its Redis, and its
    Flower, which has a password."""
    with Served(*SOUND, "--requirepass", PASSWORD, password=f":{PASSWORD}") as served:
        served.start_workers("worker1")
        served.start_flower(f"--conf={FLOWER_CONF}", "--address=0.0.0.0", "--basic-auth=a:b")
        served.wait_until_ready()
        yield served


def test_a_sound_deployment(sound: Served) -> None:
    status, out, err = doctor("--broker", sound.url, "--flower", str(sound.flower_url))
    assert (status, out) == (0, "")
    assert err.startswith("nothing found; looked at Redis ")
    assert f" at redis://***@127.0.0.1:{sound.port}/0, 1 worker, " in err
    assert err.endswith(f"Flower at {sound.flower_url}\n")


def test_an_old_redis(sound: Served) -> None:
    facts = gather_facts(sound.url, sound.flower_url)
    old = replace(facts, redis={**facts.redis, "redis_version": "5.0.6"})
    assert [str(finding) for finding in examine(old)] == [
        "versions: Redis is version 5.0.6: no worker can connect to it; install Redis 6 or newer"
    ]


def test_workers_that_are_alike(sound: Served) -> None:
    facts = gather_facts(sound.url, sound.flower_url)
    (state,) = facts.overview.workers
    state = replace(state, cores=2, machine_cores=2)
    assert not examine(with_workers(facts, state, replace(state, name="twin")))


def test_a_flower_whose_metrics_are_open(sound: Served) -> None:
    """A Flower of Celery's own, with a password."""
    facts, port = gather_facts(sound.url, sound.flower_url), find_free_port()
    options = (f"--port={port}", "--address=0.0.0.0", "--basic-auth=a:b")
    sound._start("plain", sys.executable, "-P", "-m", "celery", "-b", sound.url, "flower", *options)
    url = f"http://127.0.0.1:{port}"
    wait_for(lambda: look_at_flower(url, required=False))
    plain = replace(facts, flower=look_at_flower(url, required=True))
    if not (plain.flower.open_at or os.environ.get("CI")):
        pytest.skip("this host is in no network")
    line = found(plain, "flower-password")
    assert line.startswith("flower-password: Flower needs no password for /metrics at ")
    assert "`digitq flower`" in line and "for / at" not in line


def test_a_worker_that_is_frozen_at_a_chunk(sound: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of its pool, and then all of it."""
    facts, client = gather_facts(sound.url, sound.flower_url), Client(sound.url)
    monkeypatch.setenv("DIGITQ_DEADLINE_SECONDS", "6")  # for doctor, not for the workers
    settings.cache_clear()
    job = client.submit(random_digits(30_000), digits("cnn"), detached=True)
    stopped = list[tuple[int, str]]()  # the main process, and what doctor is to say

    def stop_one() -> bool:
        for chunk in client.ledger.running_chunks([job.id]):
            main = sound._processes[chunk.worker.partition("@")[0]].pid
            (child,) = children_of(main)
            os.kill(child, signal.SIGSTOP)
            if client.ledger.is_running(job.id, chunk.number):
                at = rf"\d+ s at chunk {chunk.number} of job {job.id}"
                stopped.append((main, rf"frozen: {chunk.worker} was silent for {at}: it is frozen"))
                return True
            os.kill(child, signal.SIGCONT)
        return False

    wait_for(stop_one)
    main, text = stopped[0]
    try:
        wait_for(
            lambda: re.search(text, say(replace(facts, overview=look_around(client.ledger)))),
            pause_seconds=0.2,
        )
        os.killpg(main, signal.SIGSTOP)
        assert re.search(text, say(gather_facts(sound.url, sound.flower_url)))
        all_of_it = r"frozen: worker1@\S+ was silent for \d+ s: "
        wait_for(
            lambda: re.search(all_of_it, say(gather_facts(sound.url, sound.flower_url))),
            pause_seconds=0.2,
        )
    finally:
        os.killpg(main, signal.SIGCONT)
        client.ledger.cancel(job.id)


def test_an_idle_worker_whose_process_is_frozen(sound: Served) -> None:
    """And it is sound again when the process goes on."""
    (child,) = children_of(sound._processes["worker1"].pid)
    os.kill(child, signal.SIGSTOP)
    text = rf"workers: worker1@\S+ is not ready: process {child} is stopped; "
    try:
        wait_for(
            lambda: re.search(text, say(gather_facts(sound.url, sound.flower_url))),
            pause_seconds=0.2,
        )
    finally:
        os.kill(child, signal.SIGCONT)
    wait_for(lambda: not examine(gather_facts(sound.url, sound.flower_url)), pause_seconds=0.2)


def test_a_redis_that_keeps_its_configuration_and_users_to_itself(sound: Served) -> None:
    with connect(sound.url) as redis:
        rights = f"on >{PASSWORD} ~* &* +@all -@admin".split()
        redis.execute_command("ACL SETUSER", "app", *rights)
        try:
            facts = gather_facts(sound.url.replace("//:", "//app:"), None)
        finally:
            redis.acl_deluser("app")
    assert (
        "; could not see appendfsync (Redis refuses CONFIG), the rights of users (Redis refuses A"
        in (facts.describe())
    )


def test_a_file_that_is_written_at_some_time(sound: Served) -> None:
    with connect(sound.url) as redis:
        redis.config_set("appendfsync", "no")
        facts = gather_facts(sound.url, sound.flower_url)
        redis.config_set("appendfsync", "everysec")
    assert "(appendfsync no)" in found(facts, "append-only")


def test_the_clock_of_this_host(sound: Served, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HOUR_AHEAD)
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    status, out, _ = doctor("--broker", sound.url, PYTHONPATH=path)
    assert status == 1
    assert re.search(
        r"clocks: the clock of this host is 3,(599\.\d|600\.0) s ahead of that of R", out
    )


@pytest.fixture(scope="module")
def guarded() -> Iterator[Served]:
    """A sound Redis without workers, which others reach. The user `admin` may do all."""
    with Served(*SOUND, "--user", *f"admin on >{PASSWORD} ~* &* +@all".split()) as served:
        served.password = f"admin:{PASSWORD}"
        with connect(served.url) as redis:  # nobody else can log in
            redis.execute_command("ACL SETUSER", "default", "reset", "~*", "&*", "+@all")
        yield served


@pytest.mark.parametrize(
    ("user", "rights", "text"),
    [
        ("default", "off -@all", "append-only: a restart loses every job: Redis reads its"),
        ("default", "off ~* &* +@all", ""),
        ("default", "on nopass ~* -@all +@read +@write", "redis-password: Redis needs no password"),
        (
            "default",
            "on nopass ~* -@all +@write -@read",
            "redis-password: anyone can log in to Redis",
        ),
        ("open", "on nopass ~digitq* +@read", "redis-password: anyone can log in to Redis as the "),
        ("closed", "on nopass ~* -@all", ""),
    ],
)
def test_rights_of_users(guarded: Served, user: str, rights: str, text: str) -> None:
    with connect(guarded.url) as redis:
        if int(redis.info()["redis_version"].split(".")[0]) < 7:
            pytest.skip("needs a Redis that says what a user may do")
        redis.execute_command("ACL SETUSER", user, "reset", *rights.split())
        try:
            facts = gather_facts(guarded.url, None)
        finally:
            redis.execute_command("ACL SETUSER", "default", *["reset", "~*", "&*", "+@all"])
            redis.acl_deluser("open", "closed")
    if "nopass" in rights and user == "default" and not facts.redis_seen_at:
        pytest.skip("this host is in no network")
    said = [str(finding) for finding in examine(facts) if finding.rule != "workers"]
    assert [line[: len(text)] for line in said] == ([text] if text else [])


def test_a_short_password(guarded: Served) -> None:
    facts = gather_facts(guarded.url, None)
    short = replace(facts, password_characters=3, redis_seen_at=["192.0.2.2"])
    line = found(short, "redis-password")
    assert "password of Redis has 3 characters, which others may guess at 192.0.2.2; take" in line
    for other in (replace(short, redis_seen_at=[]), replace(short, password_characters=0)):
        assert [finding.rule for finding in examine(other)] == ["workers"]  # there is none


@pytest.fixture(scope="module")
def careless() -> Iterator[Served]:
    """A Redis as it comes, open to all, nearly full, with a job and no worker; an open Flower."""
    with Served("--bind", "0.0.0.0", "--protected-mode", "no") as served:
        Client(served.url).submit(draw_one(), detached=True).wait_until_stored()
        served.start_flower("--address=0.0.0.0")
        with connect(served.url) as redis:
            redis.setrange("ballast", 20 << 20, b"x")  # a SET of it would swell the buffers
            redis.config_set("maxmemory-policy", "allkeys-lru")
            redis.config_set("maxmemory", redis.info()["used_memory"] * 5 // 4)
        yield served


@pytest.fixture(scope="module")
def neglected(careless: Served) -> Facts:
    return gather_facts(careless.url, careless.flower_url)


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("append-only", "Redis keeps no append-only file"),
        ("eviction", "Redis may evict the keys of a job (maxmemory-policy allkeys-lru)"),
        ("workers", "no worker lives, and job "),
        ("redis-password", "Redis needs no password at "),
        ("flower-password", "Flower needs no password for / at "),
    ],
)
def test_a_careless_deployment(rule: str, text: str, neglected: Facts) -> None:
    if rule.endswith("password") and not (neglected.redis_open_at or os.environ.get("CI")):
        pytest.skip("this host is in no network")
    assert found(neglected, rule).startswith(f"{rule}: {text}")


def test_a_job_that_is_cancelled_waits_for_no_worker(neglected: Facts) -> None:
    cancelled = [replace(job, state="cancelled") for job in neglected.overview.jobs]
    line = found(with_jobs(neglected, cancelled), "workers")
    assert cancelled and line.startswith("workers: no worker lives; start one")


def test_a_worker_that_stands_still_at_an_image_of_another_program(neglected: Facts) -> None:
    """Images are not among the jobs that the doctor looks at."""
    running = (RunningChunk("image", 0, "one@host", 100, 100),)
    findings = examine(replace(neglected, overview=replace(neglected.overview, running=running)))
    assert any("100 s at chunk 0 of job image" in str(one) for one in findings)


def test_a_job_that_waits_for_room(neglected: Facts) -> None:
    (job,) = neglected.overview.jobs
    findings = examine(with_jobs(neglected, [replace(job, held_images=5)]))
    assert any(f"memory: job {job.id} waits for room in Redis" in str(one) for one in findings)


def test_a_worker_that_was_silent_for_longer_than_the_deadline(neglected: Facts) -> None:
    seconds = settings().deadline_seconds + 5
    silent = [replace(job, silent_seconds=seconds) for job in neglected.overview.jobs]
    line = found(with_jobs(neglected, silent), "deadline")
    assert "was silent for 35.0 s, but the deadline is 30 s (here)" in line
    assert "DIGITQ_DEADLINE_SECONDS=105 everywhere" in line


def test_no_command_has_a_masked_password(neglected: Facts) -> None:
    odd = replace(neglected, redis_url="rediss://***@h:1/0")
    assert found(odd, "workers").endswith("start one: `digitq worker --broker URL`")
    assert "***" not in "".join(map(str, examine(odd)))


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("ssl_cert_reqs=none", "TLS does not check which server answers"),
        ("ssl_check_hostname=false&ssl_ca_certs=/ca.pem", "TLS does not check which server"),
        ("ssl_ca_certs=/ca.pem", ""),
    ],
)
def test_tls_that_verifies_nothing(query: str, text: str, neglected: Facts) -> None:
    odd = replace(neglected, address=read_address(f"rediss://h/0?{query}"))
    if text:
        assert found(odd, "tls").startswith(f"tls: {text}")
    else:
        assert "tls" not in {finding.rule for finding in examine(odd)}


def test_memory(neglected: Facts) -> None:
    small, full = [str(f) for f in examine(neglected) if f.rule == "memory"]
    assert re.search(
        "one job may put 256 MB into Redis, which has maxmemory [23][0-9] MB; set it to 366 MB",
        small,
    )
    assert re.search(r"Redis holds 2\d MB, over 70% of its maxmemory", full)
    for limit, finds in [(300 << 20, True), (400 << 20, False)]:  # a job's 256 MB are 70% of 366
        redis = neglected.redis | {"maxmemory": limit}
        rules = [finding.rule for finding in examine(replace(neglected, redis=redis))]
        assert ("memory" in rules) == finds
    unlimited = neglected.redis | {"maxmemory": 0, "total_system_memory": 8 << 30}
    line = found(replace(neglected, redis=unlimited), "memory")
    assert line.startswith("memory: Redis has no maxmemory: producers never wait")
    assert "set `maxmemory 4096mb` in redis.conf; an administrator can also set it at once" in line


def test_a_full_redis_is_looked_at(careless: Served) -> None:
    with connect(careless.url) as redis:
        usual = redis.config_get("maxmemory")["maxmemory"]
        redis.config_set("maxmemory-policy", "noeviction")
        redis.config_set("maxmemory", redis.info()["used_memory"] // 2)
        try:
            full = gather_facts(careless.url, careless.flower_url)
        finally:
            redis.config_set("maxmemory", usual)
            redis.config_set("maxmemory-policy", "allkeys-lru")
    assert "over 70% of its maxmemory" in " ".join(map(str, examine(full)))


def test_a_replica(careless: Served) -> None:
    with connect(careless.url) as redis:
        redis.replicaof("127.0.0.1", 1)
        try:
            replica = gather_facts(careless.url, careless.flower_url)
        finally:
            redis.replicaof("NO", "ONE")
    assert found(replica, "replica").endswith("name its master as the broker, on 127.0.0.1:1")


def test_a_line_and_an_object_for_each_finding(careless: Served, neglected: Facts) -> None:
    rules = [finding.rule for finding in examine(neglected)]
    command = ["doctor", "--broker", careless.url, "--flower", str(careless.flower_url)]
    lines = CliRunner().invoke(digitq, command)
    named = [line.partition(":")[0] for line in lines.stdout.splitlines()]
    assert (lines.exit_code, named) == (1, rules)
    assert lines.stderr.startswith(f"{len(rules)} found; looked at Redis ")
    objects = CliRunner().invoke(digitq, [*command, "--json"])
    findings = [json.loads(line) for line in objects.stdout.splitlines()]
    assert (objects.exit_code, [finding["rule"] for finding in findings]) == (1, rules)
    assert all(finding["problem"] and finding["remedy"] for finding in findings)


def test_a_flower_that_anyone_may_control(careless: Served, neglected: Facts) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLOWER_UNAUTHENTICATED_API", "true")
        url = careless.start_flower("--address=127.0.0.1")
    flower = look_at_flower(url, required=True)
    line = found(replace(neglected, flower=flower), "flower-password")
    assert "Flower needs no password for /api/workers at 127.0.0.1: anyone may watch" in line


@pytest.fixture(scope="module")
def motley(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Facts]:
    """Two workers on one Redis: a good one, and one that is wrong in many ways. A job has run."""
    site = tmp_path_factory.mktemp("site")
    shutil.copytree(WEIGHTS_FOLDER.parents[2], site / "digitq")
    with (site / "digitq/worker/models/weights/cnn.safetensors").open("r+b") as weights:
        weights.write(b"damaged")
    (site / "digitq-0.0.9.dist-info").mkdir()
    (site / "digitq-0.0.9.dist-info/METADATA").write_text("Name: digitq\nVersion: 0.0.9\n")
    (site / "sitecustomize.py").write_text(HOUR_AHEAD + ONE_CORE)
    with Served() as served:
        served.start_workers("good")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
            patch.setenv("DIGITQ_DEADLINE_SECONDS", "0.05")
            patch.setenv("ATEN_CPU_CAPABILITY", "default")
            app = ("--hostname", "odd@%h", "--concurrency", "2")
            served._start_module("odd", "celery", "-A", "digitq.worker", "worker", *app)
            served.workers += 1
        served.wait_until_ready()
        client = Client(served.url)
        client.submit([encode_image(draw_one((300, 400)))] * 20).table()

        def all_tell_their_time() -> bool:  # known from the second heartbeat on
            clocks = [worker.clock_seconds for worker in client.ledger.workers()]
            return len(clocks) == 2 and max(clocks) > 1

        wait_for(all_tell_their_time)
        seen = gather_facts(served.url, None)
        yield with_jobs(seen, [replace(job, silent_seconds=1.0) for job in seen.overview.jobs])


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("clocks", r"the clock of odd@HOST is 3,(599\.\d|600\.0) s ahead of that of Redis"),
        (
            "fingerprints",
            r"workers differ, so their answers may: good@HOST \(digitq .*, torch .*, weights \w+\)"
            r"; odd@HOST \(digitq 0.0.9, torch ",
        ),
        (
            "models",
            "odd@HOST: can't use the model cnn: .*cnn.safetensors isn't the file that its card "
            r"describes .*: install digitq again or train the model again; restart it",
        ),
        (
            "deadline",
            r"a worker on job \w+ was silent for 1.0 s, but the deadline is 0.05 s \(odd@",
        ),
        ("threads", ".*odd@HOST: . threads share 1 core: chunks take longer"),
        ("versions", "odd@HOST: runs digitq 0.0.9, this is "),
    ],
)
def test_workers_that_do_not_fit(rule: str, text: str, motley: Facts) -> None:
    assert re.match(f"{rule}: {text.replace('HOST', socket.gethostname())}", found(motley, rule))


def test_a_worker_of_an_older_version(redis_only: Local) -> None:
    """Its heartbeat has fewer fields, and each is a text of its own."""
    ledger = Client(redis_only.url).ledger
    ledger.note_worker("old@h", {})
    old = {"host": "h", "version": "0.0.9", "fingerprint": "f", "processes": 2, "started": 1.5}
    ledger.redis.hset("digitq:worker:old@h", mapping={**old, "images_per_second": 0.5})
    facts = gather_facts(redis_only.url, None)
    line = found(facts, "versions")
    assert line.startswith(f"versions: old@h: runs digitq 0.0.9, this is {__version__}: ")
    assert {finding.rule for finding in examine(facts)} == {
        "append-only",
        "memory",
        "versions",
    }


def test_workers_that_have_chunks_and_give_no_heartbeat(redis_only: Local) -> None:
    """Steps of the ledger stand for workers of older versions, which also may give no name."""
    ledger = Client(redis_only.url).ledger
    spec = JobSpec("j", "mlp", "test", attached=False, in_flight=9, ttl=600)
    for number, worker_name in enumerate(["", "old@h"]):
        ledger.dispatch(spec, (0, 0), number, 10, b"chunk")
        ledger.begin("j", number, worker_name)
    line = found(gather_facts(redis_only.url, None), "versions")
    assert line.startswith("versions: old@h, the worker of job j: is no worker of digitq ")


def test_workers_that_fit_their_shares_and_not_their_machine(motley: Facts) -> None:
    (good,) = (one for one in motley.overview.workers if one.name.startswith("good"))
    good = replace(good, cores=4, machine_cores=4, processes=3)
    crowd = [replace(good, name=name, share=name) for name in ("a", "b")]
    assert "a, b: 6 threads share 4 cores" in found(with_workers(motley, *crowd), "threads")
    assert "threads" not in {finding.rule for finding in examine(with_workers(motley, crowd[0]))}


def test_a_key_of_another_type(redis_only: Local) -> None:
    """Doctor names it; whoever submits, looks or works says so and ends."""
    with connect(redis_only.url) as redis:
        client = Client(redis_only.url)
        job = client.submit(random_digits(1))
        for key, kind, command in (
            ("digitq:counters", "hash", ["status", "x"]),
            ("digitq-booked", "list", ["worker"]),
        ):
            redis.set(key, "x")
            line = found(gather_facts(redis_only.url, None), "keys")
            assert line.startswith(f"keys: the key '{key}' is a string, and must be a {kind}: ")
            with pytest.raises(BrokerError, match=f"its key '{key}' is a string"):
                job.table()
            run = subprocess.run(
                [*DIGITQ, *command, "--broker", redis_only.url], capture_output=True, text=True
            )
            assert run.returncode == 3 and f"its key '{key}' is a string" in run.stderr
            redis.delete(key)
        client.abandon(job)


def test_no_worker_or_another_database() -> None:
    with Served() as served:
        assert "no worker lives; start one" in found(gather_facts(served.url, None), "workers")
        other = served.url[:-1] + "1"
        with Client(other) as client:
            client.ledger.note_worker("w@h", {})
            line = found(gather_facts(served.url, None), "workers")
            assert "no worker lives, but database 1 has jobs or workers; start one" in line
            assert line.endswith(", or name that database in --broker: …/1")


def test_two_workers_of_one_name(redis_only: Local) -> None:
    ledger, worker = Client(redis_only.url).ledger, Mock(hostname="twin@h")
    worker.pool.num_processes = 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(app.conf, "digitq_database_url", redis_only.url)
        one, two = RedisHeartbeat(worker, lambda: ""), RedisHeartbeat(worker, lambda: "")
    one.write()
    one.write()
    assert not ledger.workers()[0].missing
    for _ in range(2):
        two.write()
        one.write()
    text = (
        "workers: twin@h is not ready: another worker has this name: start each with a --hostname"
    )
    assert found(gather_facts(redis_only.url, None), "workers").startswith(text)
    families = {one.name: one for one in StateCollector(ledger).collect()}
    (ready,) = families["digitq_worker_ready"].samples
    assert ready.labels["worker"] == "twin@h" and ready.value == 0
