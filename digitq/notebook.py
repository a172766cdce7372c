"""`digitq.classify`: many images in one line, and the `Results` that it gives."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from html import escape
from operator import index
from typing import Any, Generic

import pyarrow as pa
import pyarrow.compute as pc

from digitq.adapting import report_adapted, take_adapted
from digitq.backend import open_client, take_results
from digitq.phases import refuse_adapting
from digitq.producer.client import Client
from digitq.producer.sinks.encoders import describe_rows
from digitq.producer.sinks.sink import Sink
from digitq.producer.sources.in_memory import Images
from digitq.producer.sources.opening import open_images, reopen
from digitq.producer.sources.source import Source
from digitq.protocol.asked.reading import AnswerT, Reading, check_reading
from digitq.protocol.chunk import named_schema, page_starts
from digitq.protocol.settings import settings
from digitq.summary import summarise

MAX_SHOWN_ROWS = 20  # a notebook shows at most this many rows


class Results(Generic[AnswerT]):
    """The answers for many images, in the order of the images.

    It can be iterated over and indexed: each item is the answer for one image, as `Client.classify`
    gives it. A notebook shows a table: all rows if there are few, otherwise those that most need a
    look. What takes Arrow's tables, such as Polars, takes it as it is.
    """

    def __init__(self, table: pa.Table, reading: Reading[AnswerT], summary: str) -> None:
        self.table = table  # its columns are those of `Job.results`
        self._reading, self._summary = reading, summary
        # The first row of each image
        self._starts = page_starts(table) if reading.form else range(len(table))

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[AnswerT]:
        for batch in self.table.to_batches():
            yield from self._reading.to_answers(batch)

    def __getitem__(self, number: int) -> AnswerT:
        if not -len(self) <= index(number) < len(self):
            raise IndexError(f"there is no result {number}: there are {len(self):,}")
        number = range(len(self))[number]  # from the end if it is negative
        start, end = [*self._starts, len(self.table)][number : number + 2]
        (batch,) = self.table.slice(start, end - start).to_batches()
        return self._reading.to_answers(batch)[0]

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)

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
        """The table as a DataFrame of pandas, which must be installed. `label` and other whole
        numbers may be missing, so their types are pandas' own, such as `Int8`."""
        import pandas as pd

        types = {pa.int8(): pd.Int8Dtype(), pa.int32(): pd.Int32Dtype()}
        fields = self.table.schema
        own = {field.name: types[field.type] for field in fields if field.type in types}
        return self.table.to_pandas().astype(own)


def classify(
    images: Images,
    reading: Reading[AnswerT] | None = None,
    *,
    client: Client | None = None,
    adapt: bool = False,
) -> Results[AnswerT]:
    """Classify all images, and wait for the results. A bar shows how far it is.

    `images` and `reading` are as in `Client.submit`. The results are in the order of the images.

    Without a `client` it uses the Redis that DIGITQ_BROKER_URL names. If there is none, it starts a
    private Redis and workers, which takes some seconds, and ends them: `local` keeps them running.

    With `adapt=True` the network learns its own surest answers to these images and reads them
    again, as in `Client.submit`; if nothing is gained, the first answers stay.

    Raises as `Client.submit`, `open_sources`, `Job.results` and `local`.
    """
    asked = check_reading(reading)
    asked.check_here(bool(client or settings().broker_url))
    if adapt:
        refuse_adapting(asked)
        open_again = reopen(images)
    source, number = open_images(images)
    sink = TableSink()
    opened: AbstractContextManager[Client] = (
        nullcontext(client) if client else open_client(None, None, asked.count_rows(number))
    )
    with opened as client:
        if adapt:
            first = [source]  # it counts what it skips

            def open_next() -> Source:
                return first.pop() if first else open_again()

            adapted = take_adapted(client, open_next, asked, sink, {})
            report_adapted(adapted, sink.counts.review)
        else:
            job = client.submit_source(source, asked)
            take_results(client, job, sink, lambda: asked.count_rows(source.count()))
    return build_results(source, asked, sink)


def build_results(source: Source, reading: Reading[AnswerT], sink: "TableSink") -> Results[AnswerT]:
    """The results for these images, whose rows the sink has."""
    schema = None if sink.batches else named_schema(reading.what, reading.form is not None)
    summary = summarise(sink.counts, source.skipped.describe(), reading.row)
    return Results(pa.Table.from_batches(sink.batches, schema), reading, summary)


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


class TableSink(Sink):
    """Keeps all rows in memory."""

    def __init__(self) -> None:
        self.batches: list[pa.RecordBatch] = []

    def write(self, batch: pa.RecordBatch) -> None:
        self.batches.append(batch)
        self.count(batch)
