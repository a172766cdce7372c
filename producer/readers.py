"""Rows that several readers have read: what agrees is confirmed, and what differs is marked."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

from digitq.producer.sources.truth import ANSWER_NAMES, id_finder
from digitq.protocol.asked.rules import NO_AMOUNT, read_values
from digitq.protocol.asked.values import NO_VALUES, tidy
from digitq.protocol.chunk import CORRECTED, answers, corrected
from digitq.protocol.errors import UsageError
from digitq.protocol.formats.csv_rows import find, find_column, find_first, open_rows
from digitq.protocol.formats.csv_text import plain_text
from digitq.protocol.text import in_one_line

READINGS = pa.field("readings", pa.string())  # null if nobody else has read, see `parse_readings`
MACHINE = "digitq"  # the name of the first reader, unless a person has given the answer
DIFFER = "two readings"  # the reason to review a row whose readings differ
NOTHING_THERE = "no digit"  # the error of a row in which a person sees no digit
# What a person has read who left this error
ERROR_READINGS = {error: error for error in NO_VALUES} | {NOTHING_THERE: ""}
DIGIT = re.compile(r"0*(\d)(\.0*)?")  # as pandas and spreadsheets may write a digit
Readers = Mapping[str, Mapping[str, str]]  # what each has read, by the reader and the row's id


def read_reader(
    where: Path | str, answer_column: str, find_fault: Callable[[str, str], str]
) -> dict[str, str]:
    """What is read in a table, and perhaps a column that `find_column` finds, by id; an empty cell
    says that nothing is written. `find_fault` says what is wrong with an id and its answer.

    A row with an error is left out, unless the error is what a person has read. Raises
    `UsageError` if the table or a row can't be read, and if it has an id twice.
    """
    path, sheet, column = find_column(where)
    wanted = [column.strip().lower()] if column else [answer_column, *ANSWER_NAMES[1:], "truth"]
    found: dict[str, str] = {}
    with open_rows(path, sheet) as rows:
        names = rows.fieldnames or []
        find_id, answer = id_finder(path, names), find(path, names, wanted)
        error = find_first(names, ["error"])
        for row in rows:
            cells = {name: row[name] or "" for name in names}
            place, id = f"line {rows.line_num:,} of {path}", find_id(cells)
            failed = cells[error].strip() if error else ""
            if not any(cells.values()) or (failed and failed not in ERROR_READINGS):
                continue
            text = ERROR_READINGS[failed] if failed else tidy(plain_text(cells[answer]))
            if answer_column == "label" and (digit := DIGIT.fullmatch(text)):
                text = digit[1]
            fault = find_fault(id, text)
            if fault or not id:
                raise UsageError(f"{place} has {fault or 'no id'}")
            if id in found:
                raise UsageError(f"{place} has {in_one_line(id)} again: rows are matched by id")
            found[id] = text
    return found


def parse_readings(text: str | None) -> dict[str, str]:
    """What was read in a row, by the reader: the first one's first. Raises `ValueError` if the
    text is no JSON object of texts."""
    found = json.loads(text or "{}")
    if not (isinstance(found, dict) and all(isinstance(one, str) for one in found.values())):
        raise ValueError("it is no JSON object of texts")
    return found


def are_readings(text: str | None) -> bool:
    """Whether a cell has what was read in a row, or is empty."""
    with suppress(ValueError):
        return text is None or bool(parse_readings(text))
    return False


def agree(texts: Iterable[str], is_text: bool) -> bool:
    """Whether all of these readings are the same text, or else worth the same."""

    def measure(text: str) -> object:
        return text if is_text or NO_AMOUNT.match(text) else frozenset(read_values(text)) or text

    return len({*map(measure, texts)}) == 1


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
    found, review, reason = columns = [batch.column(name).to_pylist() for name in names]
    decided, ids = corrected(batch).to_pylist(), batch["id"].to_pylist()
    for at, (id, own) in enumerate(zip(ids, own_answers(batch), strict=True)):
        read = {name: texts[id] for name, texts in readers.items() if id in texts}
        kept = parse_readings(found[at]) if read else {}
        new = {name: text for name, text in read.items() if kept.get(name) != text}
        if not new:
            continue
        if not kept and own is not None:
            kept = {CORRECTED.name if decided[at] else MACHINE: own}
        found[at] = json.dumps(kept | new, ensure_ascii=False)
        before = [own or ""] if decided[at] else kept.values()
        if own is None or not agree([*before, *new.values()], is_text(id)):
            review[at], reason[at] = True, reason[at] if own is None else DIFFER
        elif not decided[at]:
            review[at], reason[at] = False, None
    for name, values in zip(names, columns, strict=True):
        place = batch.schema.get_field_index(name)
        field = batch.schema.field(place)
        batch = batch.set_column(place, field, pa.array(values, field.type))
    return batch
