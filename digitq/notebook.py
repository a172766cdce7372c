"""`digitq.classify`: many images in one line, and the `Results` that it gives."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from html import escape
from operator import index
from typing import Any, Generic, Literal, TypeVar, Unpack, cast, overload

import pyarrow as pa
import pyarrow.compute as pc

from digitq.backend import open_client, take_results
from digitq.producer.client import Client
from digitq.producer.sinks.encoders import describe_rows
from digitq.producer.sinks.sink import Sink
from digitq.producer.sources.in_memory import Images
from digitq.producer.sources.opening import open_images
from digitq.producer.sources.source import Source
from digitq.protocol.asked.reading import AskedOfNumbers, FormLike, Reading, choose_reading
from digitq.protocol.asked.risk import Asked
from digitq.protocol.chunk import named_schema
from digitq.protocol.errors import UsageError
from digitq.protocol.prediction import NumberPrediction, Prediction, to_predictions
from digitq.protocol.settings import FolderLike, What, choose_weights, settings
from digitq.summary import summarise

MAX_SHOWN_ROWS = 20  # a notebook shows at most this many rows
AnswerT = TypeVar("AnswerT", Prediction, NumberPrediction)


class Results(Generic[AnswerT]):
    """The answers for many images, in the order of the images.

    It can be iterated over and indexed: each item is a `Prediction` or a `NumberPrediction`. A
    notebook shows a table: all rows if there are few, otherwise those that most need a look. What
    takes Arrow's tables, such as Polars, takes it as it is.
    """

    def __init__(self, table: pa.Table, summary: str) -> None:
        self.table = table  # its columns are those of `Job.results`
        self._summary = summary

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __iter__(self) -> Iterator[AnswerT]:
        for batch in self.table.to_batches():
            yield from cast(list[AnswerT], to_predictions(batch))

    @overload
    def __getitem__(self, number: int) -> AnswerT: ...

    @overload
    def __getitem__(self, number: slice) -> list[AnswerT]: ...

    def __getitem__(self, number: int | slice) -> AnswerT | list[AnswerT]:
        if isinstance(number, slice):
            return [self[one] for one in range(len(self))[number]]
        if not -len(self) <= index(number) < len(self):
            raise IndexError(f"there is no result {number}: there are {len(self):,}")
        number = range(len(self))[number]  # from the end if it is negative
        (batch,) = self.table.slice(number, 1).to_batches()
        return cast(AnswerT, to_predictions(batch)[0])

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


@overload
def classify(
    images: Images,
    model: str | None = None,
    *,
    read: Literal["digit"] = "digit",
    client: Client | None = None,
    weights: FolderLike | None = None,
    **asked: Unpack[Asked],
) -> Results[Prediction]: ...


@overload
def classify(
    images: Images,
    *,
    read: Literal["number"],
    client: Client | None = None,
    weights: FolderLike | None = None,
    **asked: Unpack[AskedOfNumbers],
) -> Results[NumberPrediction]: ...


@overload
def classify(
    images: Images,
    *,
    read: Literal["number"] = "number",
    form: FormLike,
    client: Client | None = None,
    weights: FolderLike | None = None,
    **asked: Unpack[Asked],
) -> Results[NumberPrediction]: ...


def classify(
    images: Images,
    model: str | None = None,
    *,
    read: What = "digit",
    form: FormLike | None = None,
    client: Client | None = None,
    weights: FolderLike | None = None,
    **asked: Unpack[AskedOfNumbers],
) -> Results[Any]:
    """Classify all images, and wait for the results. A bar shows how far it is.

    `images` is what `Client.submit` takes; see there for the other arguments, too. The results are
    in the order of the images.

    Without a `client` it uses the Redis that DIGITQ_BROKER_URL names. If there is none, it starts a
    private Redis and workers, which takes some seconds, and ends them: `local` keeps them running.
    `weights` is a folder of `digitq train`, whose networks these workers use; other workers have
    networks of their own.

    Raises as `Client.submit`, `open_sources`, `Job.results` and `local`.
    """
    reading = choose_reading(model, read, form, **asked)
    if client and weights is not None:
        raise UsageError("a client's workers have networks of their own: give `weights` to `local`")
    if not (client or settings().broker_url):
        weights = choose_weights(weights, reading.model, model is not None)
    source, number = open_images(images)
    sink = TableSink()
    opened: AbstractContextManager[Client] = (
        nullcontext(client)
        if client
        else open_client(None, None, reading.count_rows(number), weights)
    )
    with opened as client:
        job = client.start(source, reading)
        take_results(client, job, sink, lambda: reading.count_rows(source.count()))
    return build_results(source, reading, sink)


def build_results(source: Source, reading: Reading, sink: "TableSink") -> Results[Any]:
    """The results for these images, whose rows the sink has."""
    schema = None if sink.batches else named_schema(reading.what, reading.form is not None)
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


class TableSink(Sink):
    """Keeps all rows in memory."""

    def __init__(self) -> None:
        self.batches: list[pa.RecordBatch] = []

    def write(self, batch: pa.RecordBatch) -> None:
        self.batches.append(batch)
        self.count(batch)
