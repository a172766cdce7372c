"""Chunks and results as Arrow IPC streams: the two schemas, their encoding and decoding."""

from dataclasses import dataclass
from typing import Literal, Self, get_args

import pyarrow as pa

from protocol.settings import settings

TILE_ROWS = 1024  # the largest tile, see Model.classify; and a job's first chunks
MODEL_ROWS = {"cnn": 512}  # most in a job's first chunks, and in one of single calls


PIXELS = 28 * 28
CLASSES = 10

ID = pa.field("id", pa.string(), nullable=False)
PIXELS_FIELD = pa.field("pixels", pa.binary(PIXELS))  # 28×28, 8 bit, light ink on dark
IMAGE_FIELD = pa.field("image", pa.binary())  # an encoded file, or what begins with `ARRAY`
ARRAY = b"\x93digitq 28x28\n"  # before an image that is as in `pixels`, among files
ERROR = pa.field("error", pa.string())  # null when classified
TRUTH = pa.field("truth", pa.int8())  # the right answer, where the source knows it

Kind = Literal["pixels", "image"]  # of images, by the column that has them
KINDS: tuple[Kind, ...] = get_args(Kind)

PROBABILITIES = pa.list_(pa.field("item", pa.float32()), CLASSES)
RESULT_FIELDS = (
    ID,
    pa.field("label", pa.int8()),
    pa.field("confidence", pa.float32()),
    pa.field("probabilities", PROBABILITIES),
    ERROR,
    pa.field("review", pa.bool_(), nullable=False),  # whether a person should look at it
)
RESULT_SCHEMA = pa.schema(RESULT_FIELDS)


def most_rows(model: str) -> int:
    """Most images in one chunk for this model, as long as nobody knows how long they take."""
    rows = settings().chunk_rows
    return min(rows, MODEL_ROWS.get(model, rows))


def kind_of(batch: pa.RecordBatch) -> Kind:
    """Which images a chunk's batch holds."""
    return "pixels" if "pixels" in batch.schema.names else "image"


def encode(batch: pa.RecordBatch) -> memoryview:
    """The batch as one Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return memoryview(sink.getvalue())


def decode(payload: bytes | memoryview) -> pa.RecordBatch:
    """The one batch of an Arrow IPC stream, without copying it. Raises `pa.ArrowInvalid`, also
    for a bad offset, which would crash whoever follows it."""
    with pa.ipc.open_stream(payload) as reader:
        batch = reader.read_next_batch()
    batch.validate(full=True)
    return batch


@dataclass(frozen=True)
class Chunk:
    """The images of one message.

    `batch` has the column `id`, and `pixels` or `image`; `error` where the producer could not
    read a file (its image is null), and `truth` where the source knows it. `first_row` is the
    place of the first image in its job: the network's tiles are laid out by it.
    """

    first_row: int
    batch: pa.RecordBatch

    @property
    def rows(self) -> int:
        return int(self.batch.num_rows)

    def encode(self) -> memoryview:
        """As it is stored in Redis: one Arrow IPC stream."""
        return encode(self.batch.replace_schema_metadata({"first_row": str(self.first_row)}))

    @classmethod
    def decode(cls, payload: bytes | memoryview) -> Self:
        """The chunk that `encode` gave. Raises `pa.ArrowInvalid`."""
        batch = decode(payload)
        return cls(int(batch.schema.metadata[b"first_row"]), batch)
