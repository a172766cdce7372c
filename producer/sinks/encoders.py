"""Result batches as CSV, JSON lines, Arrow, or lines for a terminal."""

import csv
import io
import json
from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from digitq.protocol.chunk import CLASSES, answers
from digitq.protocol.formats.csv_text import guard_text, guard_texts
from digitq.protocol.formats.xlsx_rows import XLSX
from digitq.protocol.settings import settings
from digitq.protocol.text import in_one_line

CSV_WRITE_ROWS = 1 << 13  # Arrow formats this many rows at a time
LISTS = ("probabilities", "digits", "alternatives")  # columns with several values in each row
NUMBER_WIDTH = 10  # a line has at least this many characters for a whole number
Encode = Callable[[pa.RecordBatch, bool], bytes]


def encode_csv(batch: pa.RecordBatch, header: bool) -> bytes:
    """Rows as CSV, quoted as in RFC 4180, each ending in a line feed. Ten columns `p0` … `p9` stand
    in place of `probabilities`; of whole numbers, digits and alternatives are left out. Text that a
    spreadsheet would take for a formula has an apostrophe before it, also in the header."""
    batch = drop_lists(batch)
    file = io.BytesIO()
    if header:
        line = io.StringIO()
        csv.writer(line, lineterminator="\r\n").writerow(map(guard_text, batch.schema.names))
        mark = "\ufeff" if settings().csv_bom else ""
        file.write((mark + line.getvalue()[:-2] + "\n").encode())
    columns = [guard_texts(one) if pa.types.is_string(one.type) else one for one in batch.columns]
    batch = pa.record_batch(columns, batch.schema.names)
    options = pyarrow.csv.WriteOptions(include_header=False, batch_size=CSV_WRITE_ROWS)
    pyarrow.csv.write_csv(batch, file, options)
    return file.getvalue()


def drop_lists(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The rows without columns of several values, but `p0` … `p9` in place of `probabilities`."""
    batch = spread_probabilities(batch) if "probabilities" in batch.schema.names else batch
    return batch.select([name for name in batch.schema.names if name not in LISTS])


def spread_probabilities(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The rows with ten more columns, beside `probabilities`."""
    lists = batch.column("probabilities")
    numbers = lists.values.slice(lists.offset * CLASSES, len(lists) * CLASSES)
    values = numbers.to_numpy(zero_copy_only=False).reshape(-1, CLASSES)
    none = lists.is_null().to_numpy(zero_copy_only=False)
    index = batch.schema.get_field_index("probabilities")
    for digit in reversed(range(CLASSES)):  # Arrow's `list_element` takes ten times as long
        batch = batch.add_column(index, f"p{digit}", pa.array(values[:, digit], mask=none))
    return batch


def encode_jsonl(batch: pa.RecordBatch, header: bool) -> bytes:
    """Rows as one JSON object per line, with numbers as short as a float32 allows."""
    columns = {
        # These doubles print as 0.1, not 0.10000000149
        name: pc.cast(pc.cast(column, as_type(column.type, pa.string())), as_type(column.type))
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    }
    rows = pa.record_batch(columns).to_pylist()
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_type(
    kind: pa.DataType,
    floats: pa.DataType = pa.float64(),  # noqa: B008 (frozen)
) -> pa.DataType:
    """The type with another one in place of each float32 in it."""
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(part.name, as_type(part.type, floats)) for part in kind])
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(as_type(kind.value_type, floats), kind.list_size)
    if pa.types.is_list(kind):
        return pa.list_(as_type(kind.value_type, floats))
    return floats if pa.types.is_float32(kind) else kind


def encode_arrow(batch: pa.RecordBatch, header: bool) -> bytes:
    """Rows as messages of an Arrow stream."""
    return bytes(batch.schema.serialize() if header else b"") + bytes(batch.serialize())


def encode_lines(batch: pa.RecordBatch, header: bool) -> bytes:
    """One line per row for a terminal, as `describe_rows` has it."""
    width = NUMBER_WIDTH if "number" in batch.schema.names else 1
    lines = [
        f"{answer:{width}}  {sure:>7}  {note:14}  {name}\n"
        for answer, sure, note, name in describe_rows(batch)
    ]
    return "".join(lines).encode()


def describe_rows(batch: pa.RecordBatch) -> Iterator[tuple[str, str, str, str]]:
    """What a person reads of each row: the answer, its confidence, why it may be
    wrong, and the id with the error."""
    names = [name for name in batch.schema.names if name not in LISTS]
    rows = batch.select(names).to_pylist()
    for answer, row in zip(answers(batch).to_pylist(), rows, strict=True):
        if answer is None:
            yield "-", "", "error", in_one_line(f"{row['id']}: {row['error']}")
            continue
        note = "corrected" if row.get("corrected") else row["reason"] or ""
        if row.get("truth") not in (None, answer):
            note = f"not {row['truth'] if row['truth'] != '' else 'empty'}"
        confidence = row["confidence"]  # None if a person gave the answer
        sure = "" if confidence is None else f"{confidence:.2%}"
        yield str(answer), sure, note, in_one_line(row["id"])


ENCODERS: dict[str, Encode] = {
    ".csv": encode_csv,
    ".jsonl": encode_jsonl,
    ".parquet": encode_arrow,
    XLSX: encode_arrow,
}
