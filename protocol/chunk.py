"""The formats of chunks and results, which are Arrow IPC streams: schemas, encoding, decoding."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO, Literal, NamedTuple, Self, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from digitq.protocol.errors import BrokerError, DigitqError
from digitq.protocol.settings import NUMBER, What, settings
from digitq.protocol.text import name_some, plural

TILE_ROWS = 1024  # rows of the largest tile (see `Model.classify`) and of a job's first chunks
# The first chunks of a job, and batches of single calls, have at most so many rows
MODEL_ROWS = {"cnn": 512, NUMBER: 64}

PIXELS = 28 * 28
CALIBRATION_BINS = 15  # the usual number for the expected calibration error
CLASSES = 10

ID = pa.field("id", pa.string(), nullable=False)
PLACE = (  # these columns stand in place of `id` if each row is a field of a page
    pa.field("page", pa.string(), nullable=False),  # the page's id
    pa.field("table", pa.string()),  # the name of a table; null for a field outside of tables
    pa.field("row", pa.int32()),  # the row of the table, from 1; null for a field outside of tables
    pa.field("field", pa.string(), nullable=False),  # the name of a field, or of a table's column
)
PIXELS_FIELD = pa.field("pixels", pa.binary(PIXELS))  # 28×28, 8 bits each, a light digit on dark
IMAGE_FIELD = pa.field("image", pa.binary())  # an image file, or `ARRAY` and `PIXELS` bytes
ARRAY = b"\x93digitq 28x28\n"  # marks 28×28 pixels among image files
ERROR = pa.field("error", pa.string())  # null if there is none
BEFORE = pa.field("before", pa.string())  # the answer of an earlier reading; null if it had none
TRUTH = pa.field("truth", pa.int8())  # the label in the source; null if unknown
NUMBER_TRUTH = pa.field("truth", pa.string())  # a whole number is text: `007` stays `007`
CORRECTED = pa.field("corrected", pa.bool_())  # whether a person gave the answer of a result
FILES_SCHEMA = pa.schema([ID, IMAGE_FIELD, ERROR, NUMBER_TRUTH])

CHUNK_TYPES = {  # the columns that a chunk may have, and their types
    field.name: field.type for field in (ID, *PLACE, PIXELS_FIELD, IMAGE_FIELD, ERROR, BEFORE)
}

Kind = Literal["pixels", "image"]  # the column of a chunk that contains its images
KINDS: tuple[Kind, ...] = get_args(Kind)

# Why a person should check an answer; "" if there is no need, which is null in a result
Reason = Literal[
    "",
    "empty",
    "ink, but no digit",
    "unsure",
    "unsure at first",
    "no digit",
    "several digits",
    "several lines",
    "other signs",
    "not allowed",
    "too solid",
    "pages",
    "two marks",
    "beside the box",
    "erased?",
    "half filled",
    "crossed out?",
    "check failed",
    "read otherwise before",
    "error",
]
REASONS: tuple[Reason, ...] = get_args(Reason)
ABSENT = "absent"  # a worker's reason if the page has no such row of a table: nobody gets the row
NO_SUCH_ROW = "the page has no such row"  # the error if a right answer says that it has one

PROBABILITIES = pa.list_(pa.field("item", pa.float32()), CLASSES)
CHECK_FIELDS = (
    ERROR,
    pa.field("review", pa.bool_(), nullable=False),  # whether a person should check the answer
    pa.field("reason", pa.string()),  # one of `REASONS`; null if `review` is false
)
CONFIDENCE = pa.field("confidence", pa.float32())
RESULT_SCHEMA = pa.schema(
    [ID, ("label", pa.int8()), CONFIDENCE, ("probabilities", PROBABILITIES), *CHECK_FIELDS]
)


class FoundDigit(NamedTuple):
    """One digit of a number, and its box in px of the upright picture."""

    digit: int
    confidence: float
    left: float
    top: float
    right: float
    bottom: float


class Alternative(NamedTuple):
    """Another number that an image may show."""

    number: str
    probability: float


SIDES = [(side, pa.float32()) for side in FoundDigit._fields[2:]]
FOUND_DIGIT = pa.struct([("digit", pa.int8()), CONFIDENCE, *SIDES])
ALTERNATIVE = pa.struct([("number", pa.string()), ("probability", pa.float32())])
NUMBER_SCHEMA = pa.schema(  # the results of a job that reads whole numbers
    [
        ID,
        ("number", pa.string()),
        CONFIDENCE,
        ("digits", pa.list_(FOUND_DIGIT)),
        ("alternatives", pa.list_(ALTERNATIVE)),
        *CHECK_FIELDS,
    ]
)
PAGE_SCHEMA = pa.schema([*PLACE, *[*NUMBER_SCHEMA][1:]])  # the results of a job with a form
CELL_FIELDS = (  # these columns follow the id in what people get of the results of pages
    pa.field("page", pa.string()),
    pa.field("field", pa.string()),
    pa.field("row", pa.int32()),
)
FORM_SCHEMA = pa.schema([ID, *CELL_FIELDS, *[*NUMBER_SCHEMA][1:]])  # what people get of them


# In the metadata of a result batch
WEIGHTS_KEY = b"weights"  # the first digits of the SHA-256 of the network's card
REVIEW_BELOW_KEY = b"review below"  # answers of a lower confidence are to be reviewed
LIKENESS_KEY = b"likeness"  # a `Likeness` in JSON, if a risk is asked for
ABSENT_KEY = b"absent"  # how many rows are left out, as their pages lack them
FINGERPRINT_KEY = b"fingerprint"  # the worker's, see `digitq.worker.service.identity`
WEIGHTS_DIGITS = 16


def untimed_rows(model: str) -> int:
    """The maximum number of images in a chunk for this model while their speed is unknown."""
    rows = settings().chunk_rows
    return min(rows, MODEL_ROWS.get(model, rows))


def result_schema(read: What, has_form: bool = False) -> pa.Schema:
    """The columns of a job's results in Redis."""
    if has_form:
        return PAGE_SCHEMA
    return NUMBER_SCHEMA if read == "number" else RESULT_SCHEMA


def named_schema(read: What, has_form: bool = False) -> pa.Schema:
    """The columns of a job's results as people get them, without `truth`."""
    return FORM_SCHEMA if has_form else result_schema(read)


def naming_fields(batch: pa.RecordBatch) -> list[pa.Field]:
    """The columns that name the rows of a chunk or a result: `ID`, or `PLACE`."""
    return [field for field in (ID, *PLACE) if field.name in batch.schema.names]


def name_fields(batch: pa.RecordBatch) -> pa.StringArray:
    """The ids of rows with the columns `PLACE`: `PAGE/FIELD`, or `PAGE/TABLE/ROW/COLUMN`."""
    page, table, row, field = (batch.column(one.name) for one in PLACE)
    row = row.cast(pa.string())
    return pc.binary_join_element_wise(page, table, row, field, "/", null_handling="skip")


def name_rows(results: pa.RecordBatch, truth: pa.Array | None = None) -> pa.RecordBatch:
    """The result rows as people get them: fields of pages have an id, and no column `table`, and
    rows that a page does not have are left out. The right answers of the rows, if there are any,
    are the last column."""
    has_pages = PLACE[0].name in results.schema.names
    if has_pages:
        named = results.append_column(ID, name_fields(results)).select(FORM_SCHEMA.names)
        schema = FORM_SCHEMA.with_metadata(results.schema.metadata)
        results = pa.record_batch(named.columns, schema=schema)
    if truth is not None:
        results = results.append_column(TRUTH.name, truth)
    return leave_out_absent(results) if has_pages else results


def leave_out_absent(results: pa.RecordBatch) -> pa.RecordBatch:
    """The rows without those that their page does not have. If a right answer is known for one, it
    was not found: it stays, with an error."""
    is_absent = pc.equal(results.column("reason"), ABSENT).fill_null(False)
    if TRUTH.name in results.schema.names:
        is_lost = pc.and_(is_absent, pc.greater(results.column(TRUTH.name), "").fill_null(False))
        is_absent = pc.and_not(is_absent, is_lost)
        for name, value in (("error", NO_SUCH_ROW), ("review", True), ("reason", "error")):
            column = pc.if_else(is_lost, value, results.column(name))
            index = results.schema.get_field_index(name)
            results = results.set_column(index, results.schema.field(name), column)
    count = {ABSENT_KEY: str(is_absent.true_count)}
    kept = results.filter(pc.invert(is_absent))
    return kept.replace_schema_metadata({**(results.schema.metadata or {}), **count})


def page_starts(rows: pa.RecordBatch | pa.Table) -> list[int]:
    """The numbers of the rows with which a page begins, of results as people get them. All pages
    have the place of the first row."""
    if not rows.num_rows:
        return []
    ((id, page),) = zip(
        *(rows.column(name)[:1].to_pylist() for name in ("id", "page")), strict=True
    )
    first = pc.binary_join_element_wise(rows.column("page"), id.removeprefix(page), "")
    return [int(row) for row in pc.indices_nonzero(pc.equal(rows.column("id"), first)).to_pylist()]


def truth_field(read: What) -> pa.Field:
    """The column `truth` of a job's results."""
    return NUMBER_TRUTH if read == "number" else TRUTH


def answers(results: pa.RecordBatch) -> pa.Array:
    """The column with the answers, `label` or `number`; null in a row with an error."""
    return results.column("number" if "number" in results.schema.names else "label")


def corrected(results: pa.RecordBatch) -> pa.Array:
    """Whether a person gave the answer of each row. The confidence is not of that answer."""
    if CORRECTED.name in results.schema.names:
        return results.column(CORRECTED.name).fill_null(False)
    return pa.repeat(False, results.num_rows)


def failures(results: pa.RecordBatch) -> pa.Array:
    """Whether each row has an error; not if a person says that there is no digit."""
    return pc.and_not(results.column("error").is_valid(), corrected(results))


def unmarked(results: pa.RecordBatch) -> pa.Array:
    """Whether each row has an answer of the network that nobody is asked to check."""
    by_network = pc.and_not(answers(results).is_valid(), corrected(results))
    return pc.and_not(by_network, results.column("review"))


def count_failures(results: pa.RecordBatch) -> int:
    """How many rows `failures` finds."""
    return int(failures(results).true_count)


def count_reviews(results: pa.RecordBatch) -> int:
    """How many rows have an answer that a person should check."""
    review = results.column("review")
    if answers(results).null_count:
        review = pc.and_(review, answers(results).is_valid())
    return int(review.true_count)


def pixels_batch(
    ids: pa.Array, pixels: np.ndarray, truth: pa.Array | None = None
) -> pa.RecordBatch:
    """A record batch that shares the memory of `pixels`, (N, 784) uint8; `truth` is (N,)."""
    buffer = pa.py_buffer(np.ascontiguousarray(pixels))
    column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(PIXELS), len(pixels), [None, buffer])
    batch = pa.record_batch([ids, column], schema=pa.schema([ID, PIXELS_FIELD]))
    return batch if truth is None else batch.append_column(TRUTH.name, truth)


def kind_of(batch: pa.RecordBatch) -> Kind:
    """The kind of the images in a chunk's batch."""
    return "pixels" if "pixels" in batch.schema.names else "image"


def encode(batch: pa.RecordBatch) -> memoryview:
    """Encode a batch as one Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return memoryview(sink.getvalue())


def decode(payload: bytes | memoryview) -> pa.RecordBatch:
    """The one batch of an Arrow IPC stream, without a copy. Raises `pa.ArrowInvalid`."""
    stream = pa.BufferReader(payload)
    schema = pa.ipc.read_schema(stream)
    message = pa.ipc.read_message(stream)
    if is_compressed(message):  # a small stream could fill the memory
        raise pa.ArrowInvalid("the Arrow stream is compressed, or older than version 5 of Arrow")
    batch = pa.ipc.read_record_batch(message, schema)
    batch.validate(full=True)  # a process that follows a wrong offset could crash
    return batch


def decode_result(
    payload: bytes | memoryview, schema: pa.Schema, rows: int | None = None
) -> pa.RecordBatch:
    """The result rows of a chunk, with the columns of `schema`. `rows` is how many the chunk has,
    if that is known. Raises `BrokerError` if they are damaged, or not what a worker hands in."""
    try:
        batch = decode(payload)
        check_result(batch, schema)
        if rows not in (None, batch.num_rows):
            raise pa.ArrowInvalid(f"it has {plural(batch.num_rows, 'row')}, and its chunk {rows:,}")
        return batch
    except (OSError, EOFError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0]
        raise BrokerError(
            f"a result in Redis is damaged ({reason}): submit the job again"
        ) from None


def encode_truth(truth: pa.Array) -> memoryview:
    """Encode the right answers of a chunk as one Arrow IPC stream."""
    return encode(pa.record_batch([truth], names=[TRUTH.name]))


def decode_truth(payload: bytes | memoryview, read: What, rows: int) -> pa.Array:
    """What `encode_truth` encoded for a chunk of so many rows. Raises `BrokerError`."""
    return decode_result(payload, pa.schema([truth_field(read)]), rows).column(0)


def check_result(batch: pa.RecordBatch, schema: pa.Schema) -> None:
    """Raises `pa.ArrowInvalid` if the columns are not those of `schema`, or if a value is missing
    that every row has."""
    if not batch.schema.equals(schema):
        raise pa.ArrowInvalid("it has other columns: another version of digitq may have written it")
    for field, column in zip(batch.schema, batch.columns, strict=True):
        if column.null_count and not field.nullable:
            raise pa.ArrowInvalid(f"`{field.name}` is missing in a row")
        if pa.types.is_nested(field.type) and column.flatten().null_count:
            raise pa.ArrowInvalid(f"a part of `{field.name}` is missing in a row")


def check_chunk(batch: pa.RecordBatch) -> None:
    """Raises `pa.ArrowInvalid` if a column is missing, doubled, unknown or of another type, or if a
    row has no name."""
    names, kind = batch.schema.names, kind_of(batch)
    named = naming_fields(batch)
    is_known = kind in names and {*names} <= {*CHUNK_TYPES} and len({*names}) == len(names)
    if not is_known or named not in ([ID], [*PLACE]):
        raise pa.ArrowInvalid(f"its columns are {name_some(names)}")
    for field in batch.schema:
        if field.type != CHUNK_TYPES[field.name]:
            raise pa.ArrowInvalid(f"its column {field.name} is {field.type}")
    for field in named:
        if batch.column(field.name).null_count and not field.nullable:
            raise pa.ArrowInvalid(f"a row has no {field.name}")


def is_compressed(message: pa.ipc.Message) -> bool:
    """Whether the body of a batch is compressed, or might be: pyarrow does not say. So its metadata
    is read, which is a flatbuffer: in `Message`, field 2 is the header, here a `RecordBatch`, of
    which field 3 is the compression. Before version 5, compression may be noted elsewhere."""
    data = bytes(message.metadata)

    def find_field(table: int, number: int) -> int:
        """Where a table has a field; 0 if it has none."""
        vtable = table - int.from_bytes(data[table : table + 4], "little", signed=True)
        size, entry = int.from_bytes(data[vtable : vtable + 2], "little"), 4 + 2 * number
        found = int.from_bytes(data[vtable + entry : vtable + entry + 2], "little")
        return table + found if found and entry < size else 0

    def follow(place: int) -> int:
        return place + int.from_bytes(data[place : place + 4], "little")

    header = follow(find_field(follow(0), 2))
    return message.metadata_version != pa.ipc.MetadataVersion.V5 or bool(find_field(header, 3))


@dataclass(frozen=True)
class Chunk:
    """The images of one message."""

    first_row: int  # the first image's position in the job, and so in the network's tiles
    # `id`, or the columns `PLACE`; either `pixels` or `image`; and perhaps `error` for files that
    # the producer could not read, whose `image` is null, and `before`
    batch: pa.RecordBatch
    truth: pa.Array | None = None  # the right answers, which the producer keeps to itself

    @property
    def rows(self) -> int:
        return int(self.batch.num_rows)

    def encode(self) -> memoryview:
        """Encode the chunk as one Arrow IPC stream, without the right answers."""
        return encode(self.batch.replace_schema_metadata({"first_row": str(self.first_row)}))

    @classmethod
    def decode(cls, payload: bytes | memoryview) -> Self:
        """Decode a chunk. Raises `DigitqError` if it is damaged, or not what a producer stores."""
        try:
            batch = decode(payload)
            check_chunk(batch)
            return cls(int((batch.schema.metadata or {})[b"first_row"]), batch)
        except (OSError, EOFError, ValueError, KeyError, pa.ArrowException) as error:
            reason = str(error).partition("\n")[0]
            raise DigitqError(f"a chunk is damaged ({reason})") from None


def write_chunk(file: IO[bytes], chunk: Chunk) -> None:
    """Append a chunk and its right answers, null if there are none, to a file: of each the size in
    eight bytes, then its stream."""
    truth = pa.nulls(chunk.rows) if chunk.truth is None else chunk.truth
    for payload in (chunk.encode(), encode_truth(truth)):
        file.write(len(payload).to_bytes(8, "big"))
        file.write(payload)


def read_chunks(file: IO[bytes]) -> Iterator[Chunk]:
    """The chunks in a file of `write_chunk`. Raises `DigitqError`."""

    def read_part(size: bytes) -> bytes:
        return file.read(int.from_bytes(size, "big"))

    while size := file.read(8):
        chunk = Chunk.decode(read_part(size))
        yield replace(chunk, truth=decode(read_part(file.read(8))).column(0))
