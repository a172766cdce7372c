"""Chunks and results are decoded to what was encoded."""

from typing import Any

import pyarrow as pa
import pytest

from digitq.producer.sources.arrays import number_ids
from digitq.protocol.chunk import (
    FORM_SCHEMA,
    PAGE_SCHEMA,
    RESULT_SCHEMA,
    Chunk,
    decode,
    decode_result,
    decode_truth,
    encode,
    encode_truth,
    name_rows,
    pixels_batch,
)
from digitq.protocol.errors import BrokerError, DigitqError
from tests.drawing import random_digits

ROWS: list[dict[str, Any]] = [
    {"id": "a", "label": 3, "confidence": 0.9, "probabilities": [0.1] * 10, "review": False},
    {"id": "b", "error": "can't be read", "review": False},
]
TRUTHS = pa.array([0, 1, None], pa.int8())
RESULTS = pa.RecordBatch.from_pylist(ROWS, RESULT_SCHEMA)


def change(name: str, value: object) -> pa.RecordBatch:
    """The results with another value in the first row."""
    return pa.RecordBatch.from_pylist([{**ROWS[0], name: value}, *ROWS[1:]], RESULT_SCHEMA)


def test_a_chunk_survives_its_encoding() -> None:
    batch = pixels_batch(number_ids("x/", 5, 3), random_digits(3).reshape(3, 784))
    chunk = Chunk.decode(Chunk(4096, batch, TRUTHS).encode())
    assert (chunk.first_row, chunk.rows) == (4096, 3) and chunk.truth is None
    assert chunk.batch.column("id").to_pylist() == ["x/5", "x/6", "x/7"]
    assert chunk.batch.equals(batch)


def test_a_slice_is_encoded_alone() -> None:
    batch = pixels_batch(number_ids("", 0, 1000), random_digits(1000).reshape(-1, 784))
    assert len(encode(batch.slice(10, 2))) < 4000
    assert decode(encode(batch.slice(10, 2))).equals(batch.slice(10, 2))


@pytest.mark.parametrize("payload", [b"", b"not arrow", encode(pa.record_batch({"a": [1]}))[:40]])
def test_what_is_no_stream_is_refused(payload: bytes) -> None:
    with pytest.raises(pa.ArrowInvalid):
        decode(payload)


def test_a_damaged_result_is_an_error_with_a_remedy() -> None:
    payload = bytes(encode(RESULTS))
    damaged = [payload[:size] for size in range(len(payload) - 16)]  # without the end of a body
    damaged += [bytes([*payload[:4], byte, *payload[5:]]) for byte in (0, 255)]
    for part in damaged:
        with pytest.raises(BrokerError, match="a result in Redis is damaged .*: submit the job ag"):
            decode_result(part, RESULT_SCHEMA)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (b"", "null or length 0"),
        (b'{"name": "../../stolen.arrow", "size": 9}', ""),
        (encode(RESULTS.drop_columns(["label"])), "it has other columns"),
        (encode(RESULTS.rename_columns([*"abcdefg"])), "it has other columns"),
        (encode(RESULTS.append_column("truth", pa.array(["1", None]))), "it has other columns"),
        (encode(RESULTS.set_column(1, "label", pa.nulls(2))), "it has other columns"),
        (encode(RESULTS).tobytes().replace(b"label", b"l\xffbel"), "it has other columns"),
        (encode(change("id", None)), "`id` is missing in a row"),
        (encode(change("review", None)), "`review` is missing in a row"),
        (encode(change("probabilities", [None] * 10)), "a part of `probabilities` is missing"),
    ],
)
def test_only_what_workers_hand_in_is_a_result(entry: bytes, told: str) -> None:
    """Whoever may submit can write any entry."""
    with pytest.raises(BrokerError, match=f"a result in Redis is damaged .*{told}.*: submit the"):
        decode_result(entry, RESULT_SCHEMA)


def test_right_answers_are_encoded_apart() -> None:
    assert decode_truth(encode_truth(TRUTHS), "digit", 3).equals(TRUTHS)
    for payload, read, rows in (
        (b"x", "digit", 3),
        (encode_truth(TRUTHS), "number", 3),
        (encode_truth(TRUTHS), "digit", 2),
    ):
        with pytest.raises(BrokerError, match="a result in Redis is damaged .*: submit the job"):
            decode_truth(payload, read, rows)


def test_people_get_ids_of_fields_and_right_answers() -> None:
    rows = [
        {"page": "a.png", "field": "total", "number": "40", "review": False},
        {"page": "a.png", "table": "marks", "row": 2, "field": "c1", "review": True},
    ]
    results = pa.RecordBatch.from_pylist(rows, PAGE_SCHEMA)
    named = name_rows(results, pa.array(["40", None]))
    assert named.schema.names == [*FORM_SCHEMA.names, "truth"]
    assert named.column("id").to_pylist() == ["a.png/total", "a.png/marks/2/c1"]
    assert named.select(["page", "row", "number", "truth"]).to_pylist() == [
        {"page": "a.png", "row": None, "number": "40", "truth": "40"},
        {"page": "a.png", "row": 2, "number": None, "truth": None},
    ]
    assert name_rows(RESULTS) is RESULTS


@pytest.mark.parametrize(
    "names",
    [{}, {"page": ["a"]}, {"id": ["a"], "page": ["a"]}, {"page": [None], "field": ["x"]}],
)
def test_a_row_of_a_chunk_has_an_id_or_a_place(names: dict[str, Any]) -> None:
    if "field" in names:
        names |= {"table": pa.nulls(1, pa.string()), "row": pa.nulls(1, pa.int32())}
        names["page"] = pa.array([None], pa.string())
    batch = pa.record_batch({**names, "image": pa.array([b"x"])})
    with pytest.raises(DigitqError, match="a chunk is damaged"):
        Chunk.decode(Chunk(0, batch).encode())


def test_a_wrong_offset_is_refused_before_it_is_followed() -> None:
    """It could crash the process that follows it."""
    batch = pa.record_batch({"id": ["a"] * 100, "image": [b"x" * 100] * 100})
    payload = bytearray(Chunk(0, batch).encode())
    offset = payload.index((5000).to_bytes(4, "little"))  # the offset of the 50th image
    payload[offset : offset + 4] = (2_000_000_000).to_bytes(4, "little")
    with pytest.raises(pa.ArrowInvalid):
        decode(payload)


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "zstd"},
        {"compression": "lz4"},
        {"compression": "zstd", "metadata_version": pa.ipc.MetadataVersion.V4},
    ],
)
def test_a_compressed_stream_is_refused(options: dict[str, Any]) -> None:
    batch = pa.record_batch({"id": ["a"], "image": [bytes(1 << 20)]})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_batch(batch)
    with pytest.raises(pa.ArrowInvalid, match="is compressed, or older"):
        decode(sink.getvalue())
