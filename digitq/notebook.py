"""`digitq.classify`: many images in one line, and the `Results` that it gives."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from html import escape
from typing import Any, Unpack

import pyarrow as pa
import pyarrow.compute as pc

from digitq.backend import open_client, take_results
from digitq.summary import summarise
from producer.client import Client
from producer.prediction import Answer, to_predictions
from producer.sinks.encoders import describe_rows
from producer.sinks.sink import Sink
from producer.sources.in_memory import Images, image_source
from producer.sources.opening import count_files, open_sources
from producer.sources.source import Source
from protocol.chunk import result_schema
from protocol.known import WhatIsKnown
from protocol.reading import FormLike, choose_reading
from protocol.settings import What

MAX_SHOWN_ROWS = 20  # a notebook shows at most this many rows


class Results:
    """The answers for many images, in the order of the images.

    It can be iterated over: each item is a `Prediction` or a `NumberPrediction`. A notebook shows
    a table: all rows if there are few, otherwise those that most need a look.
    """

    def __init__(self, table: pa.Table, summary: str) -> None:
        self.table = table  # one row for each image, with the columns of `Job.results`
        self._summary = summary

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __iter__(self) -> Iterator[Answer]:
        for batch in self.table.to_batches():
            yield from to_predictions(batch)

    def __repr__(self) -> str:
        return f"<Results: {self._summary}>"

    def _repr_html_(self) -> str:
        rows, note = self.table, ""
        if len(rows) > MAX_SHOWN_ROWS:
            # Rows without an error are the last, as nulls are
            order = [("error", "ascending"), ("review", "descending"), ("confidence", "ascending")]
            rows = rows.take(pc.sort_indices(rows, order)[:MAX_SHOWN_ROWS])
            note = f". The {MAX_SHOWN_ROWS} that most need a look:"
        # MathJax leaves this class alone: an id may have dollar signs
        summary = f'<div class="tex2jax_ignore"><p>{escape(self._summary)}{note}</p>'
        return f"{summary}{tabulate(rows)}</div>"

    def to_pandas(self) -> Any:
        """The table as a DataFrame of pandas, which must be installed."""
        return self.table.to_pandas()


def classify(
    images: Images,
    model: str | None = None,
    *,
    read: What = "digit",
    form: FormLike | None = None,
    client: Client | None = None,
    **known: Unpack[WhatIsKnown],
) -> Results:
    """Classify all images, and wait for the results. A bar shows how far it is.

    `images` is what `Client.submit` takes. A path, or one in a list, may also name a folder, an
    archive or another SOURCE of the command line; see `Client.submit` for the other arguments too.

    Without a `client` it uses the Redis that DIGITQ_BROKER_URL names. If there is none, it starts a
    private Redis and workers, which takes some seconds, and ends them: `local` keeps them running.

    Raises as `Client.submit`, `open_sources`, `Job.results` and `local`.
    """
    reading = choose_reading(model, read, form, **known)
    source, number = open_images(images)
    sink = TableSink()
    opened: AbstractContextManager[Client] = (
        nullcontext(client) if client else open_client(None, None, reading.count_rows(number))
    )
    with opened as client:
        job = client.start(source, reading)
        take_results(client, job, sink, lambda: reading.count_rows(source.count()))
    schema = (
        sink.batches[0].schema
        if sink.batches
        else result_schema(reading.what, reading.form is not None)
    )
    summary = summarise(sink.counts, source.skipped.describe(), reading.row)
    return Results(pa.Table.from_batches(sink.batches, schema), summary)


def tabulate(rows: pa.Table) -> str:
    """Rows as a table of HTML, whose texts can't become markup."""
    lines = ["<table>", "<tr><th>answer</th><th>confidence</th><th>note</th><th>id</th></tr>"]
    cell = '<td style="text-align:left;overflow-wrap:anywhere">'
    for batch in rows.to_batches():
        for texts in describe_rows(batch):
            lines.append(
                "".join(["<tr>", *(f"{cell}{escape(text)}</td>" for text in texts), "</tr>"])
            )
    return "\n".join([*lines, "</table>"])


def open_images(images: Images) -> tuple[Source, int | None]:
    """The images of `classify` as a source, and their number if it is known at once.

    Several paths that end as images do are not opened as SOURCEs: one that is missing becomes a row
    with an error. Raises `UsageError`.
    """
    is_one = isinstance(images, str | os.PathLike)
    paths: Any = [images] if is_one else images
    if isinstance(paths, list | tuple) and all(isinstance(one, str | os.PathLike) for one in paths):
        files = count_files([os.fspath(path) for path in paths])
        if is_one or files is None:
            return open_sources(paths), files
    source = image_source(images)
    return source, source.count()


class TableSink(Sink):
    """Keeps all rows in memory."""

    def __init__(self) -> None:
        self.batches: list[pa.RecordBatch] = []

    def write(self, batch: pa.RecordBatch) -> None:
        self.batches.append(batch)
        self.count(batch)
