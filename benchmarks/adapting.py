"""What `--adapt` gains on sources of real handwriting that nobody trained with.

`python -m benchmarks.adapting HANDS... [--model NAME] [--only SOURCE] [--limit N] [--seeds N]`
reads each source of the folders, whose form `training/hands.py` describes, alone, and then all
together: single digits with `mlp` or `cnn`, whole numbers with `number`. It prints for each source,
before and after:
- right, to review, and wrong and unmarked, in % of the images, with the spread over the seeds
- the seconds of the training

Right answers are for judging only. `--keep DIR` keeps all rows there, a Parquet file for each run.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import digitq
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
from digitq.protocol.settings import NUMBER
from digitq.worker.learning.number_examples import place_number
from digitq.worker.models.number_networks import load_networks
from training.hands import list_sources, load_numbers
from training.neighbourhoods import cut_digit

WAYS = ("integer", r"\d+\.\d")  # the ways of `benchmarks.held_out` in which numbers are read
MIXED = "all together"
IsRight = Callable[[str, str], bool]


class Batch(NamedTuple):
    """The images of a source."""

    name: str
    reading: Reading[Any]
    images: list[bytes]
    truths: list[str]
    is_right: IsRight = str.__eq__


class Timed(Quiet):
    """Notes when the first reading ends."""

    read = 0.0

    def take(self, client: Client, job: Job, sink: Sink, source: Source) -> None:
        super().take(client, job, sink, source)
        self.read = time.monotonic()


Shares = tuple[float, float, float]  # right, marked, and wrong and unmarked, in %


def list_digits(folders: Sequence[Path], model: str) -> Iterator[Batch]:
    """The single digits of each source, and those of its numbers, which the networks cut out."""
    for path in list_sources(folders, "glyphs/*.npz"):
        with np.load(path) as file:
            images, labels = file["image"], file["label"].tolist()
        rows = choose_rows(len(images))
        files = [cv2.imencode(".png", images[row])[1].tobytes() for row in rows]
        yield Batch(path.stem, digits(model), files, [str(labels[row]) for row in rows])
    reader, _ = load_networks()
    for folder in list_sources(folders, "strings/*"):
        rng, cut, truths = np.random.default_rng(0), list[bytes](), list[str]()
        for number in load_numbers([folder.parent.parent], None):
            if number.source != folder.name or not (placed := place_number(reader, number)):
                continue
            if placed.is_exact:
                text = [sign for sign in number.text if sign.isdecimal()]
                truths += text
                for place in range(len(text)):
                    picture = cut_digit(placed, place, rng)
                    cut.append(cv2.imencode(".png", picture)[1].tobytes())
        rows = choose_rows(len(cut))
        name = f"{folder.name}, cut"
        yield Batch(name, digits(model), [cut[row] for row in rows], [truths[row] for row in rows])


def list_numbers(folders: Sequence[Path]) -> Iterator[Batch]:
    """The whole numbers of each source, for each way to read them."""
    for path in list_sources(folders, "*/*/labels.csv"):
        for way in list_ways(path):
            if way.name in WAYS and path.parent.name not in CURVE_SKIPS:
                items = [way.items[row] for row in choose_rows(len(way.items))]
                name, reading = f"{path.parent.name}, {way.name}", numbers(pattern=way.name)
                files, truths = zip(
                    *((one.path.read_bytes(), one.truth) for one in items), strict=True
                )
                yield Batch(name, reading, [*files], [*truths], way.is_right)


def mix(batches: Sequence[Batch]) -> Batch:
    """The images of all sources, shuffled."""
    rows = [
        (image, truth)
        for one in batches
        for image, truth in zip(one.images, one.truths, strict=True)
    ]
    order = np.random.default_rng(0).permutation(len(rows)).tolist()
    images, truths = zip(*(rows[row] for row in order), strict=True)
    return batches[0]._replace(name=MIXED, images=[*images], truths=[*truths])


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


def run(
    client: Client, batch: Batch, seed: int, keep: Path | None
) -> tuple[Shares, Shares, float, str]:
    """The shares before and after, the seconds of the training, and why nothing was gained."""
    pairs = [*zip(map(str, range(len(batch.images))), batch.images, strict=True)]
    opened = partial(image_source, pairs)
    phases = Timed()
    with TemporaryDirectory() as folder:
        adapted: Adapted[Any] = adapt_network(
            client, opened, batch.reading, Path(folder), {}, phases=phases, seed=seed
        )
        seconds = time.monotonic() - phases.read
        first = adapted.first.read()
        last = first
        if not adapted.why:
            job = client.submit_source(opened(), adapted=adapted)
            last = pa.Table.from_batches([*job.results()])
        if keep:
            for name, table in (("first", first), ("last", last)):
                table = table.append_column("right", pa.array(batch.truths))
                path = keep / f"{batch.name}-{batch.reading.model}-{seed}-{name}.parquet"
                pq.write_table(table.replace_schema_metadata(), path)
    return judge(batch, first), judge(batch, last), seconds, adapted.why


def show(values: Sequence[float]) -> str:
    """A mean, and the spread if there are several values."""
    spread = f"±{stdev(values):.2f}" if len(values) > 1 else ""
    return f"{mean(values):.2f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("hands", nargs="+", type=Path)
    parser.add_argument("--model", default="cnn", choices=["mlp", "cnn", NUMBER])
    parser.add_argument("--only", help="only sources with this in their name")
    parser.add_argument("--limit", type=int, help="only so many images of each")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--keep", type=Path)
    asked = parser.parse_args()
    is_number = asked.model == NUMBER
    batches = [*(list_numbers(asked.hands) if is_number else list_digits(asked.hands, asked.model))]
    batches += [] if is_number else [mix(batches)]
    if asked.keep:
        asked.keep.mkdir(parents=True, exist_ok=True)
    print("| source | images | right | to review | wrong and unmarked | seconds |")
    print("|---|---|---|---|---|---|")
    with digitq.local() as client:
        for batch in batches:
            if asked.only and asked.only not in batch.name:
                continue
            batch = batch._replace(
                images=batch.images[: asked.limit], truths=batch.truths[: asked.limit]
            )
            runs = [run(client, batch, seed, asked.keep) for seed in range(asked.seeds)]
            before = [f"{value:.2f}" for value in runs[0][0]]
            after = [show(values) for values in zip(*(one for _, one, _, _ in runs), strict=True)]
            cells = [f"{was} → {now}" for was, now in zip(before, after, strict=True)]
            seconds = show([one for _, _, one, _ in runs])
            print(
                f"| {batch.name} | {len(batch.images):,} | {' | '.join(cells)} | {seconds} |",
                flush=True,
            )
            for why in {why for *_, why in runs if why}:
                print(f"|  | not adapted: {why} | | | | |", flush=True)


if __name__ == "__main__":
    main()
