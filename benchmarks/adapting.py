"""What `--adapt` gains on sources of real handwriting that nobody trained with, and where it fails.

`python -m benchmarks.adapting DATA --out RUNS.jsonl [--model NAME] [--only SOURCE] [--seeds N]`
reads each source in `DATA/handwriting/dev`, whose form `training/hands.py` describes, alone: single
digits with `mlp` and `cnn`, whole numbers with `number`. Then it reads all digits together, and
batches from which little is to be learned. It appends a line for each run, before and after:
- right, to review, and wrong and unmarked, in % of the images
- the seconds of the training, and why nothing was gained

Runs that are in RUNS already are left out. Right answers are for judging only. `--keep DIR` keeps
all rows there, two Parquet files for each run. `--write` instead writes the table of all runs into
docs/accuracy.md. With `--second-reader`, a network of another make reads the whole numbers, too.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import digitq
from benchmarks.accuracy import NAMES, PAGE, SHARES, SINGLE, Table, replace_table
from benchmarks.held_out import list_ways
from benchmarks.risks import CURVE_SKIPS, choose_rows
from digitq.phases import Quiet, adapt_network
from digitq.producer.adapted import Adapted
from digitq.producer.client import Client
from digitq.producer.job import Job
from digitq.producer.sinks.sink import Sink
from digitq.producer.sources.in_memory import image_source
from digitq.producer.sources.source import Source
from digitq.protocol.asked.reading import Reading, digits, numbers
from digitq.protocol.chunk import answers, unmarked
from digitq.protocol.formats.mnist import load_mnist
from digitq.protocol.settings import NUMBER
from digitq.worker.learning.number_examples import place_number
from digitq.worker.models.number_networks import load_networks
from training.hands import list_sources, load_numbers
from training.neighbourhoods import cut_digit

WAYS = ("integer", r"\d+\.\d")  # the ways of `benchmarks.held_out` in which numbers are read
MIXED = "all together"
DEV = "handwriting/dev"
NO_DIGIT = "none"  # the right answer where no digit is: an unmarked digit is wrong
T = TypeVar("T")
IsRight = Callable[[str, str], bool]
Shares = tuple[float, float, float]  # right, marked, and wrong and unmarked, in %


class Batch(NamedTuple):
    """The images of a source."""

    name: str
    reading: Reading[Any]
    images: list[bytes]
    truths: list[str]
    is_right: IsRight = str.__eq__


class Run(NamedTuple):
    """What became of a batch."""

    source: str
    model: str
    seed: int
    images: int
    before: Shares
    after: Shares
    seconds: float  # of the training
    why: str  # why nothing was gained


class Timed(Quiet):
    """Notes when the first reading ends."""

    read = 0.0

    def take(self, client: Client, job: Job, sink: Sink, source: Source) -> None:
        super().take(client, job, sink, source)
        self.read = time.monotonic()


def encode(image: Any) -> bytes:
    return bytes(cv2.imencode(".png", image)[1])


def list_digits(folders: Sequence[Path], model: str, cuts: bool = True) -> Iterator[Batch]:
    """The single digits of each source, and those that the networks cut out of its numbers."""
    for path in list_sources(folders, "glyphs/*.npz"):
        with np.load(path) as file:
            images, labels = file["image"], file["label"].tolist()
        rows = choose_rows(len(images))
        files = [encode(images[row]) for row in rows]
        yield Batch(path.stem, digits(model), files, [str(labels[row]) for row in rows])
    reader, _ = load_networks()
    for folder in list_sources(folders, "strings/*") if cuts else []:
        rng, cut, truths = np.random.default_rng(0), list[bytes](), list[str]()
        for number in load_numbers([folder.parent.parent], None):
            if number.source != folder.name or not (placed := place_number(reader, number)):
                continue
            if placed.is_exact:
                text = [sign for sign in number.text if sign.isdecimal()]
                truths += text
                for place in range(len(text)):
                    cut.append(encode(cut_digit(placed, place, rng)))
        rows = choose_rows(len(cut))
        name = f"{folder.name}, cut"
        yield Batch(name, digits(model), [cut[row] for row in rows], [truths[row] for row in rows])


def list_numbers(folders: Sequence[Path], second_reader: bool) -> Iterator[Batch]:
    """The whole numbers of each source, for each way to read them."""
    for path in list_sources(folders, "*/*/labels.csv"):
        for way in list_ways(path):
            if way.name in WAYS and path.parent.name not in CURVE_SKIPS:
                items = [way.items[row] for row in choose_rows(len(way.items))]
                reading = numbers(pattern=way.name, second_reader=second_reader)
                name = f"{path.parent.name}, {way.name}"
                files, truths = zip(
                    *((one.path.read_bytes(), one.truth) for one in items), strict=True
                )
                yield Batch(name, reading, [*files], [*truths], way.is_right)


def judge(batch: Batch, rows: pa.Table) -> Shares:
    """What became of the images."""
    found, is_marked = list[str](), list[bool]()
    for part in rows.to_batches():
        found += [str(one) if one is not None else "" for one in answers(part).to_pylist()]
        is_marked += [not one for one in unmarked(part).to_pylist()]
    is_right = np.array(
        [
            bool(one) and batch.is_right(one, truth)
            for one, truth in zip(found, batch.truths, strict=True)
        ]
    )
    marked = np.array(is_marked)
    right, review, silent = (
        100 * float(one.mean()) for one in (is_right, marked, ~is_right & ~marked)
    )
    return right, review, silent


def list_trials(data: Path, model: str) -> Iterator[Batch]:
    """Batches from which little is to be learned, or something wrong."""
    images, labels = load_mnist("test" if (data / "mnist").exists() else "sample")
    rows = choose_rows(len(images))
    pixels = [np.asarray(images[row]).reshape(28, 28) for row in rows]
    truths = [str(labels[row]) for row in rows]
    mnist = Batch("MNIST", digits(model), [*map(encode, pixels)], truths)
    yield mnist
    yield take(mnist, "300 of MNIST", range(300))
    names = ("usps_train", "crohme_hamex_fr", "crohme_mathbrush_ca")
    sources = {one.name: one for one in list_digits([data / DEV], model, cuts=False)}
    usps, hamex, mathbrush = (sources[name] for name in names)
    yield take(usps, "one digit", [row for row, truth in enumerate(usps.truths) if truth == "4"])
    yield take(hamex, "300 images", range(300))
    with np.load(data / DEV / "signs/unipen_signs.npz") as file:
        signs = [(encode(image), NO_DIGIT) for image in file["image"][:1000]]
    half = take(usps, "", range(1000))
    yield mix(digits(model), "half no digits", zip(half.images, half.truths, strict=True), signs)
    # A French 1 begins with a long upstroke, as a 7 of North America that has no bar
    hands = [
        [pair for pair in zip(one.images, one.truths, strict=True) if pair[1] != missing]
        for one, missing in ((hamex, "7"), (mathbrush, "1"))
    ]
    yield mix(digits(model), "two writers, 1 of one as 7 of the other", *hands)


def mix(reading: Reading[Any], name: str, *parts: Iterable[tuple[bytes, str]]) -> Batch:
    """All images of several sources, with their right answers, in random order."""
    pairs = [pair for part in parts for pair in part]
    images, truths = zip(*shuffle(pairs), strict=True)
    return Batch(name, reading, [*images], [*truths])


def take(batch: Batch, name: str, rows: Iterable[int]) -> Batch:
    """Some images of a batch."""
    kept = [(batch.images[row], batch.truths[row]) for row in rows]
    return batch._replace(
        name=name, images=[one for one, _ in kept], truths=[one for _, one in kept]
    )


def shuffle(rows: Sequence[T]) -> list[T]:
    return [rows[row] for row in np.random.default_rng(0).permutation(len(rows)).tolist()]


def list_batches(data: Path, model: str, second_reader: bool = False) -> Iterator[Batch]:
    """All that is read with a model."""
    if model == NUMBER:
        yield from list_numbers([data / DEV], second_reader)
        return
    sources = [*list_digits([data / DEV], model)]
    yield from sources
    parts = (zip(one.images, one.truths, strict=True) for one in sources)
    yield mix(digits(model), MIXED, *parts)
    yield from list_trials(data, model)


def run(client: Client, batch: Batch, seed: int, keep: Path | None) -> Run:
    """Adapt to a batch, and judge what was gained."""
    pairs = [*zip(map(str, range(len(batch.images))), batch.images, strict=True)]
    opened = partial(image_source, pairs)
    phases = Timed()
    with TemporaryDirectory() as folder:
        adapted: Adapted[Any] = adapt_network(
            client, opened, batch.reading, Path(folder), {}, phases=phases, seed=seed
        )
        seconds = time.monotonic() - phases.read
        first = last = adapted.first.read()
        if not adapted.why:
            job = client.submit_source(opened(), adapted=adapted)
            last = pa.Table.from_batches([*job.results()])
    for name, table in (("first", first), ("last", last)):
        if keep:
            table = table.append_column("right", pa.array(batch.truths))
            path = keep / f"{batch.name}-{batch.reading.model}-{seed}-{name}.parquet"
            pq.write_table(table.replace_schema_metadata(), path)
    shares = judge(batch, first), judge(batch, last)
    return Run(batch.name, batch.reading.model, seed, len(pairs), *shares, seconds, adapted.why)


def tabulate(runs: Sequence[Run]) -> Table:
    """The means over the seeds, with their spread."""
    rows = []
    for model in (*SINGLE, NUMBER):
        named = [one for one in runs if one.model == model]
        for name in dict.fromkeys(one.source for one in named):
            same = [one for one in named if one.source == name]
            source, _, way = name.partition(", ")
            what = ", ".join(
                filter(None, [NAMES.get(source, source), way and f"`{way}`" * (way in WAYS) or way])
            )
            cells = [
                f"{was:.2f} → {show([one.after[at] for one in same])} %"
                for at, was in enumerate(same[0].before)
            ]
            refused = [one.why for one in same if one.why]
            some = f"{len(refused)} of {len(same)} seeds: " * (len(refused) < len(same))
            why = some + refused[0] if refused else ""
            seeds = str(len(same))
            rows.append([what, f"`{model}`", f"{same[0].images:,}", seeds, *cells, why])
    head = ["batch", "model", "images", "seeds", *SHARES, "why not adapted"]
    return Table([*SINGLE, NUMBER], head, rows, "benchmarks.adapting")


def show(values: Sequence[float]) -> str:
    """A mean, and the spread if there are several values."""
    spread = f" ± {stdev(values):.2f}" if len(values) > 1 and max(values) > min(values) else ""
    return f"{mean(values):.2f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adapting", description=__doc__)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--out", type=Path, required=True, metavar="RUNS.jsonl")
    parser.add_argument("--model", action="append", choices=[*SINGLE, NUMBER])
    parser.add_argument("--only", help="only batches with this in their name")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--second-reader", action="store_true")
    asked = parser.parse_args()
    asked.out.touch()
    runs = [Run(**json.loads(line)) for line in asked.out.read_text().splitlines()]
    if asked.write:
        page = replace_table(PAGE.read_text(encoding="utf-8"), "adapting", tabulate(runs))
        PAGE.write_text(page, encoding="utf-8")
        return
    done = {(one.source, one.model, one.seed) for one in runs}
    with digitq.local() as client, asked.out.open("a") as file:
        for model in asked.model or (*SINGLE, NUMBER):
            for batch in list_batches(asked.data, model, asked.second_reader):
                for seed in range(asked.seeds if (asked.only or "") in batch.name else 0):
                    if (batch.name, model, seed) not in done:
                        one = run(client, batch, seed, asked.keep)
                        print(json.dumps(one._asdict()), file=file, flush=True)


if __name__ == "__main__":
    main()
