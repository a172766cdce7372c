"""Rows that several readers have read: what agrees is confirmed, and what differs is marked."""

import json
from collections.abc import Callable, Iterable, Mapping

import pyarrow as pa

from digitq.protocol.asked.rules import NO_AMOUNT, read_values
from digitq.protocol.asked.values import NO_VALUES
from digitq.protocol.chunk import CORRECTED, answers, corrected

READINGS = pa.field(
    "readings", pa.string()
)  # what `format_readings` gives; null if nobody else read
MACHINE = "digitq"  # the name of the first reader, unless a person has given the answer
DIFFER = "two readings"  # the reason to review a row whose readings differ
NOTHING_THERE = "no digit"  # the error of a row in which a person sees no digit
# What a person has read who left this error
ERROR_READINGS = {error: error for error in NO_VALUES} | {NOTHING_THERE: ""}
Readings = dict[
    str, str
]  # what each reader read in a row, by the reader's name, the first one's first
Readers = Mapping[
    str, Mapping[str, str]
]  # what each reader read, by the reader's name and the row's id


def parse_readings(text: str) -> Readings:
    """The readings of a row. Raises `ValueError` if they are no JSON object of texts."""
    found = json.loads(text)
    if not (isinstance(found, dict) and all(isinstance(one, str) for one in found.values())):
        raise ValueError("it is no JSON object of texts")
    return found


def format_readings(readings: Readings) -> str:
    """The readings of a row as the column has them."""
    return json.dumps(readings, ensure_ascii=False)


def agree(texts: Iterable[str], is_text: bool) -> bool:
    """Whether all of these readings are the same text, or else worth the same."""
    return len({text if is_text else measure_text(text) for text in texts}) == 1


def measure_text(text: str) -> object:
    """All that a number may be worth, such as 12.500; of a code or a word the text."""
    return frozenset([] if NO_AMOUNT.match(text) else read_values(text)) or text


def own_answers(batch: pa.RecordBatch) -> list[str | None]:
    """What the answer of each row says; None in a row that could not be read."""
    columns = answers(batch).cast(pa.string()), batch["error"], corrected(batch)
    return [
        ERROR_READINGS.get(error or "") if answer is None and is_decided else answer
        for answer, error, is_decided in zip(*map(pa.Array.to_pylist, columns), strict=True)
    ]


def lay_readings(
    batch: pa.RecordBatch, readers: Readers, is_text: Callable[[str], bool]
) -> pa.RecordBatch:
    """The rows with what these readers read in them, and the marks that follow.

    The mark of a row in which all readers agree is taken away. A person's answer stands for all
    that was read before it. `is_text` says of an id whether only the same text agrees.
    """
    if READINGS.name not in batch.schema.names:
        batch = batch.append_column(READINGS, pa.nulls(batch.num_rows, READINGS.type))
    names = (READINGS.name, "review", "reason")
    found, review, reason = (batch.column(name).to_pylist() for name in names)
    decided, ids = corrected(batch).to_pylist(), batch["id"].to_pylist()
    for at, (id, own) in enumerate(zip(ids, own_answers(batch), strict=True)):
        read = {name: texts[id] for name, texts in readers.items() if id in texts}
        kept = parse_readings(found[at]) if read and found[at] else {}
        new = {name: text for name, text in read.items() if kept.get(name) != text}
        if not new:
            continue
        if not kept and own is not None:
            kept = {CORRECTED.name if decided[at] else MACHINE: own}
        found[at] = format_readings(kept | new)
        before = [own or ""] if decided[at] else kept.values()
        if own is None or not agree([*before, *new.values()], is_text(id)):
            review[at], reason[at] = True, reason[at] if own is None else DIFFER
        elif not decided[at]:
            review[at], reason[at] = False, None
    changed = dict(zip(names, (found, review, reason), strict=True))
    columns = [
        pa.array(changed[field.name], field.type) if field.name in changed else batch[field.name]
        for field in batch.schema
    ]
    return pa.record_batch(columns, schema=batch.schema)
