"""Right answers: a CSV file with the id of each image and its digit or number, and their types."""

import csv
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.compute as pc

from producer.sinks.encoders import plain_id
from producer.sources.source import Entry, SourceItem, TruthGaps
from protocol.chunk import CORRECTED, NUMBER_TRUTH
from protocol.errors import UsageError
from protocol.known import IS_NUMBER, MAX_DIGITS

ID_NAMES = ("id", "path", "file", "image", "name")  # the first of these columns has the ids
PATH_NAMES = ID_NAMES[1:]  # the first of these columns of a list has the paths
RESULT_NAMES = ("number", "label", "digit")  # the first of these has the answers of results
ANSWER_NAMES = ("truth", *RESULT_NAMES)  # the first of these has the right answers


def read_truths(path: Path) -> dict[str, str]:
    """The right answers by id. Raises `UsageError` if the file has none, or one that is no number.

    An id is the whole cell, with any spaces. A row without an answer is left out. In a table that
    was corrected, a person's answer counts more than `truth`. Without a truth, any answer counts
    that is not to be reviewed.
    """
    truths: dict[str, str] = {}
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = read_cells(file)
            names: list[str] = next(rows, [])
            id_index, find_answer = find(path, names, ID_NAMES), answer_finder(path, names)
            for row in rows:
                cells = row + [""] * (len(names) - len(row))
                id, answer = plain_id(cells[id_index]), find_answer(cells)
                if answer and not IS_NUMBER(answer):
                    raise UsageError(
                        f"line {rows.line_num} of {path} has the right answer {answer!r}: "
                        f"it must be 1 to {MAX_DIGITS} digits"
                    )
                if answer and truths.setdefault(id, answer) != answer:
                    raise UsageError(f"{path} has two right answers for {id}")
    except (OSError, UnicodeError, csv.Error) as error:
        raise UsageError(f"can't read the right answers in {path}: {why(error)}") from None
    if not truths:
        raise UsageError(f"{path} has no right answers")
    return truths


def answer_finder(path: Path, names: list[str]) -> Callable[[list[str]], str]:
    """What finds the right answer in the cells of a row; it is empty if there is none.

    Raises `UsageError` if there is no column for it, or only one with a network's answers.
    """
    answer = find(path, names, ANSWER_NAMES)
    truth, result, by_person, review, confidence = (
        find_first(names, wanted)
        for wanted in (["truth"], RESULT_NAMES, [CORRECTED.name], ["review"], ["confidence"])
    )
    if by_person is None or result is None:
        if truth is None and confidence is not None:
            raise UsageError(
                f"{path} has the answers of a network, not right ones: correct them first"
            )
        return lambda cells: cells[answer].strip()

    def find_corrected(cells: list[str]) -> str:
        found = cells[result].strip()
        if is_true(cells[by_person]):
            return found
        right = "" if truth is None else cells[truth].strip()
        is_doubtful = review is not None and is_true(cells[review])
        return right or ("" if is_doubtful else found)

    return find_corrected


def is_true(cell: str) -> bool:
    return cell.strip().lower() == "true"


def read_cells(file: TextIO) -> Any:
    """The rows of a CSV file from its start."""
    delimiter = choose_delimiter(file.readline())
    file.seek(0)
    return csv.reader(file, delimiter=delimiter)


def choose_delimiter(first: str) -> str:
    """What separates the cells of a CSV file with this first line. Without a comma, it is a
    semicolon or a tab, as spreadsheets in some countries write it."""
    others = [one for one in ";\t" if one in first and "," not in first]
    return others[0] if others else ","


def why(error: Exception) -> str:
    """Why a CSV file can't be read."""
    if isinstance(error, UnicodeError):
        return "it is not in UTF-8: save it as `CSV UTF-8`"
    return getattr(error, "strerror", None) or str(error)


def find(path: Path, names: list[str], wanted: tuple[str, ...]) -> int:
    """The index of the first wanted column. Raises `UsageError` if there is none."""
    if not names:
        raise UsageError(f"{path} is empty, or its first line is")
    if (index := find_first(names, wanted)) is None:
        raise UsageError(
            f"the first line of {path} has none of these names of columns: {', '.join(wanted)}"
        )
    return index


def find_first(names: Iterable[str], wanted: Iterable[str]) -> int | None:
    """The index of the first wanted column, in any case of letters; None if there is none."""
    found = [name.strip().lower() for name in names]
    return next((found.index(name) for name in wanted if name in found), None)


def set_truths(
    items: Iterable[SourceItem], find_truth: Callable[[str], str | None]
) -> Iterator[SourceItem]:
    """The same images with the right answers that are found by their ids in place of their own."""
    for item in items:
        if isinstance(item, Entry):
            yield item._replace(truth=find_truth(item.id))
            continue
        if "truth" in item.schema.names:
            item = item.drop_columns(["truth"])
        found = [find_truth(id) for id in item.column("id").to_pylist()]
        yield item.append_column(NUMBER_TRUTH, pa.array(found, NUMBER_TRUTH.type))


def adapt_truth(batch: pa.RecordBatch, truth: pa.Field | None, gaps: TruthGaps) -> pa.RecordBatch:
    """The batch with this column `truth`, or without one. `gaps` counts what is missing."""
    index = batch.schema.get_field_index("truth")
    if truth is None:
        return batch if index < 0 else batch.drop_columns(["truth"])
    if index < 0:
        batch = batch.append_column(truth, pa.nulls(batch.num_rows, truth.type))
    elif truth.type == pa.string() or batch.column(index).type != truth.type:
        texts = pc.cast(batch.column(index), pa.string())
        truths = parse_labels(texts, truth.type)
        if len(invalid := texts.filter(pc.and_(truths.is_null(), pc.not_equal(texts, "")))):
            gaps.invalid += len(invalid)
            gaps.invalid_label = gaps.invalid_label or invalid[0].as_py()
        batch = batch.set_column(index, truth, truths)
    gaps.count_missing(batch)
    return batch


def parse_labels(labels: pa.StringArray, kind: pa.DataType) -> pa.Array:
    """The labels as digits (int8) or whole numbers (text); null if one is neither."""
    if kind == NUMBER_TRUTH.type:
        is_number = pc.match_substring_regex(labels, rf"^[0-9]{{1,{MAX_DIGITS}}}$")
        return pc.if_else(is_number, labels, None)
    digits = pc.replace_substring_regex(labels, r"^0*(\d)$", r"\1")
    return pc.cast(pc.index_in(digits, pa.array("0123456789", pa.string())), kind)
