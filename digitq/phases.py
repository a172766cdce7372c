"""The phases in which a network is adapted to images, and the `Client` that has them.

The network goes on to learn its own surest answers to the images.

A first job reads all images. Then a process of this machine trains the network, so no worker that
serves others does. A second job reads the images again with what has learned. What the first two
phases make is in one folder, so that a run that is interrupted goes on where it was.
"""

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, Any, NamedTuple, Protocol

import pyarrow.parquet as pq

from digitq.private import tether
from digitq.producer import client
from digitq.producer.adapted import CHANGED, Adapted, draw_chunks
from digitq.producer.job import Job
from digitq.producer.provenance import Record, all_weights, find_record
from digitq.producer.sinks.journal import Identity
from digitq.producer.sinks.resumable import FileSink
from digitq.producer.sinks.sink import Sink
from digitq.producer.sources.contents import read_source
from digitq.producer.sources.in_memory import Images
from digitq.producer.sources.opening import reopen
from digitq.producer.sources.source import Source
from digitq.protocol.asked.own_network import find_own_network, unpack_network
from digitq.protocol.asked.reading import AnswerT, Reading, check_reading
from digitq.protocol.chunk import write_chunk
from digitq.protocol.errors import DigitqError, OutputError, UsageError
from digitq.protocol.formats.mnist import NoMnistError, ensure_mnist, load_mnist
from digitq.protocol.prediction import Answer
from digitq.protocol.settings import NUMBER
from digitq.terminal import require

logger = logging.getLogger(__name__)

FIRST, WEIGHTS, WHY, LOG = "first.parquet", "weights", "why.txt", "training.log"
SEED = 0  # the same images give the same weights
EPOCHS: int | None = None  # those of the recipe


class Phases(Protocol):
    """Shows a person how far the phases are."""

    def take(self, client: client.Client, job: Job, sink: Sink, source: Source) -> None:
        """Write the results of the first job."""

    def learn(self, share: float) -> None:
        """So much of the training is done, from 0 to 1."""


class Quiet:
    """Shows nothing."""

    def take(self, client: client.Client, job: Job, sink: Sink, source: Source) -> None:
        client.write_results(job, sink)

    def learn(self, share: float) -> None: ...


def refuse_adapting(reading: Reading[Any]) -> None:
    """Raises `UsageError` if a network can't be adapted for what is asked."""
    if reading.model == "random":
        raise UsageError("`random` has learned nothing, so it has no sure answers to learn from")
    if reading.risk is not None:
        raise UsageError(
            "a risk can't be promised of a network that is adapted: nobody has measured what its "
            "confidence means. Leave out the risk, or adapt nothing"
        )
    if reading.form and all(cell.known.options for cell in reading.cells):
        raise UsageError("the form has no numbers: what finds ticks does not learn")


def adapt_network(
    client: client.Client,
    open_source: Callable[[], Source],
    reading: Reading[AnswerT],
    folder: Path,
    run: Identity,
    threads: int | None = None,
    phases: Phases = Quiet(),  # noqa: B008 (it has no state)
    seed: int = SEED,
) -> Adapted[AnswerT]:
    """Read the images that `open_source` opens anew each time, and train the network with them.

    What is made stays in the folder, and is not made again by the same run. Raises what
    `Client.submit_source` and the job raise; `UsageError` if something can't be adapted.
    """
    require("worker")
    refuse_adapting(reading)
    asked = {"seed": seed, "threads": threads, "mnist": choose_rehearsed(reading)}
    check_folder(folder, run)
    first = folder / FIRST
    if first.exists() and (record := find_record(first)):
        refuse_changed(open_source(), reading, record)
    else:
        first.unlink(missing_ok=True)  # what was killed between a file and its record
        with closing(FileSink(first, run)) as sink:
            source = open_source()
            job = client.submit_source(source, reading, resume=sink.counts)
            phases.take(client, job, sink, source)
    record = find_record(first)
    assert record
    adapted = Adapted(reading, pq.ParquetFile(first), record)
    weights, nothing = folder / WEIGHTS, folder / WHY
    if not (weights.exists() or nothing.exists()):
        with TemporaryFile(dir=folder) as images:
            phases.learn(0.0)
            spool(images, adapted, open_source())
            learn(folder, adapted, images, phases.learn, asked)
    if nothing.exists():
        return replace(adapted, why=nothing.read_text().strip())
    network = find_own_network(weights, reading.model)
    return replace(adapted, reading=reading.with_network(network))


def check_folder(folder: Path, run: Identity) -> None:
    """Make the folder of a run. Raises `UsageError` if it belongs to another one, or if it can't be
    written."""
    named, wanted = folder / "run.json", json.dumps(run)
    try:
        folder.mkdir(exist_ok=True)
        if not named.exists():
            replace_text(named, wanted)
        is_own = named.read_text() == wanted
    except OSError as error:
        raise UsageError(f"can't write {folder}: {error.strerror or error}") from None
    if not is_own:
        raise UsageError(
            f"{folder} belongs to another run (other images or options, or they have changed "
            "since): --overwrite starts again"
        )


def refuse_changed(source: Source, reading: Reading[Any], record: Record) -> None:
    """Raises `UsageError` if a source has other images than those whose rows have this record."""
    counts = record.counts
    batches = read_source(source, reading, counts.done, counts.ids)
    if any(batch.num_rows for batch in batches):
        raise UsageError(CHANGED)


def choose_rehearsed(reading: Reading[Any]) -> str | None:
    """The part of MNIST that digits are learned beside: its sample, if that is installed, or
    `train`. Raises `UsageError` if neither is to be had."""
    if reading.model == NUMBER:
        return None
    try:
        load_mnist("sample")
        return "sample"
    except UsageError as error:
        reason = str(error)
    try:
        ensure_mnist()
        return "train"
    except NoMnistError as error:
        raise UsageError(f"{reason}; {error}") from None


def spool(file: IO[bytes], adapted: Adapted[Any], source: Source) -> None:
    """Write the images to look at to a file, as chunks without right answers."""
    reading, done = adapted.reading, adapted.record.counts.done
    source = replace(source, has_truth=False, truths={})
    chunks = draw_chunks(file, source, reading, done // reading.rows_of_image)
    if reading.form:
        chunks = adapted.add_before(chunks, only_unmarked=True)
    for chunk in chunks:
        write_chunk(file, chunk)


def learn(
    folder: Path,
    adapted: Adapted[Any],
    images: IO[bytes],
    tell: Callable[[float], None],
    asked: dict[str, Any],
) -> None:
    """Train in a process, as is `asked`; puts the weights, or why nothing was gained, into the
    folder.

    Raises `DigitqError` as the process does, or if it dies.
    """
    reading = adapted.reading
    begin, out = folder / "begin", folder / "new"
    shutil.rmtree(out, ignore_errors=True)
    environment = dict(os.environ)
    if reading.network:
        begin.mkdir(exist_ok=True)
        for suffix, content in zip(
            ("json", "safetensors"), unpack_network(reading.network), strict=True
        ):
            (begin / f"{reading.model}.{suffix}").write_bytes(content)
        environment["DIGITQ_WEIGHTS"] = str(begin)
    with TemporaryFile() as known:
        known.write(reading.known)
        for file in (images, known):
            file.seek(0)
        task = {
            "name": reading.model,
            "out": str(out),
            **asked,
            "epochs": EPOCHS,
            "command": "--adapt",
            "use": "",
            "tells": True,
            "weights": all_weights(adapted.record.parts),
            "images": images.fileno(),
            "known": known.fileno(),
        }
        ended = run_training(task, folder / LOG, environment, tell)
    shutil.rmtree(begin, ignore_errors=True)
    if ended.status == 0:
        out.rename(folder / WEIGHTS)
    elif ended.why:
        replace_text(folder / WHY, ended.why)
    else:
        error = {2: UsageError, 3: OutputError}.get(ended.status)
        if not error:
            raise DigitqError(f"the training died: {ended.last}")
        raise error(ended.last.removeprefix("digitq: "))


class Ended(NamedTuple):
    """How a training ended."""

    status: int  # its exit status
    why: str = ""  # why nothing was gained, if that is how
    last: str = "it printed nothing"  # the last line for people


def run_training(
    task: dict[str, Any],
    log: Path,
    environment: dict[str, str],
    tell: Callable[[float], None],
) -> Ended:
    """Run the process that trains, and tell how far it is. It ends with this process."""
    training = [sys.executable, "-P", "-m", "digitq.worker", "train", json.dumps(task)]
    arguments = [sys.executable, "-ISE", tether.__file__, str(os.getpid()), *training]
    files, why = (task["images"], task["known"]), ""
    with (
        open(log, "w+", encoding="utf-8", errors="replace") as lines,
        subprocess.Popen(
            arguments, stdout=subprocess.PIPE, stderr=lines, pass_fds=files, env=environment
        ) as process,
    ):
        try:
            assert process.stdout
            for line in process.stdout:
                said = json.loads(line)  # how much is done, or why nothing was gained
                if isinstance(said, str):
                    why = said
                else:
                    tell(said)
            status = process.wait()
        except BaseException:
            process.kill()
            raise
        lines.seek(0)
        *_, last = [Ended(status).last, *filter(None, lines.read().splitlines())]
    return Ended(status, why, last)


def replace_text(path: Path, text: str) -> None:
    """Write a file as a whole."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


class Client(client.Client):
    """Submits jobs to the workers of one Redis, also with a network that is adapted first."""

    def submit(
        self,
        images: Images,
        reading: Reading[Answer] | None = None,
        detached: bool = False,
        adapt: bool = False,
    ) -> Job:
        """Start a job over images, as `digitq.producer.client.Client.submit` does.

        With `adapt=True` the images are first read, and the network learns its own surest answers
        in a process of this machine, which takes a minute or more. The job that then starts reads
        them with what has learned, or with the same network if nothing was gained.

        Raises as that does, as the first job, and as `adapt`; and `UsageError` for images that can
        be read only once.
        """
        if not adapt:
            return super().submit(images, reading, detached)
        opened = reopen(images)
        with TemporaryDirectory() as folder:
            adapted = adapt_network(self, opened, check_reading(reading), Path(folder), {})
        if adapted.why:
            logger.warning("not adapted: %s", adapted.why)
        return self.submit_source(opened(), detached=detached, adapted=adapted)
