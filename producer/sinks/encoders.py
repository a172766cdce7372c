"""Result batches as CSV, JSON lines, Arrow, or lines for a terminal."""

import io
import json
from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from protocol.chunk import CLASSES, RESULT_SCHEMA
from protocol.text import in_one_line

CSV_WRITE_ROWS = 1 << 13  # Arrow formats this many rows at a time
NO_ROWS = pa.RecordBatch.from_pylist([], RESULT_SCHEMA)
JSON_CASTS = (
    ("confidence", pa.string(), pa.float64()),
    ("probabilities", pa.list_(pa.string(), CLASSES), pa.list_(pa.float64(), CLASSES)),
)
Encode = Callable[[pa.RecordBatch, bool], bytes]


def encode_csv(batch: pa.RecordBatch, header: bool) -> bytes:
    """Rows as CSV, quoted as in RFC 4180, each ending in a line feed. Ten columns `p0` … `p9` stand
    in place of `probabilities`."""
    lists = batch.column("probabilities")
    numbers = lists.values.slice(lists.offset * CLASSES, len(lists) * CLASSES)
    values = numbers.to_numpy(zero_copy_only=False).reshape(-1, CLASSES)
    none = lists.is_null().to_numpy(zero_copy_only=False)
    place = batch.schema.get_field_index("probabilities")
    for digit in reversed(range(CLASSES)):  # Arrow's `list_element` takes ten times as long
        batch = batch.add_column(place, f"p{digit}", pa.array(values[:, digit], mask=none))
    batch = batch.drop_columns(["probabilities"])
    file = io.BytesIO()
    if header:
        file.write(",".join(batch.schema.names).encode() + b"\n")
    options = pyarrow.csv.WriteOptions(include_header=False, batch_size=CSV_WRITE_ROWS)
    pyarrow.csv.write_csv(batch, file, options)
    return file.getvalue()


def encode_jsonl(batch: pa.RecordBatch, header: bool) -> bytes:
    """Rows as one JSON object per line, with numbers as short as a float32 allows."""
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    for name, text, double in JSON_CASTS:  # these doubles print as 0.1, not 0.10000000149
        columns[name] = pc.cast(pc.cast(columns[name], text), double)
    rows = pa.record_batch(columns).to_pylist()
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def encode_arrow(batch: pa.RecordBatch, header: bool) -> bytes:
    """Rows as messages of an Arrow stream."""
    return bytes(batch.schema.serialize() if header else b"") + bytes(batch.serialize())


def encode_lines(batch: pa.RecordBatch, header: bool) -> bytes:
    """One line per row for a terminal: label, confidence, reason to review or truth, id."""
    lines = []
    for row in batch.drop_columns(["probabilities"]).to_pylist():
        label, truth = row["label"], row.get("truth")
        if label is None:
            error = f"{row['id']}: {row['error']}"
            lines.append(f"-           {'error':14}  {in_one_line(error)}\n")
            continue
        mark = row["reason"] or ""
        if truth not in (None, label):
            mark = f"not {truth}"
        lines.append(f"{label}  {row['confidence']:7.2%}  {mark:14}  {in_one_line(row['id'])}\n")
    return "".join(lines).encode()


ENCODERS: dict[str, Encode] = {
    ".csv": encode_csv,
    ".jsonl": encode_jsonl,
    ".parquet": encode_arrow,
}
