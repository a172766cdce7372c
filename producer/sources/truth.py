"""Right answers: a table with the id of each image and its digit or number, and their types."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from digitq.producer.sources.source import Entry, SourceItem, TruthGaps
from digitq.protocol.asked.form import Cell
from digitq.protocol.asked.values import (
    MAX_CHARACTERS,
    NO_VALUES,
    WRITTEN,
    WRITTEN_WORDS,
    is_written,
    tidy,
)
from digitq.protocol.chunk import CELL_FIELDS, CORRECTED, NUMBER_TRUTH
from digitq.protocol.errors import UsageError
from digitq.protocol.formats.csv_rows import find, find_column, find_first, open_rows
from digitq.protocol.formats.csv_text import plain_text
from digitq.protocol.text import printable

# Names of columns: of each list, the first that a table has counts
PATH_NAMES = ("path", "file", "image", "name", "filename", "file_name", "image_path")
ID_NAMES = ("id", *PATH_NAMES)
ANSWER_NAMES = ("truth", "number", "label", "digit", "class", "target")
MAX_TRUTH_BYTES = 4 << 30  # a table of right answers is at most this large
MAX_ANSWER = 1000  # characters: RE2 counts no further, and a question has few options
Cells = Mapping[str, str]  # those of a row, by the name of the column


def read_truths(where: Path) -> dict[str, str]:
    """The right answers by id, in a table and perhaps a column that `find_column` finds. Raises
    `UsageError` if there are none, or one is no number.

    An id is the whole cell, with any spaces; `page`, `field` and `row` of a form may stand for it.
    A row without an answer is left out, but an empty cell in the column `number` says that nothing
    is written. In a table that was corrected, a person's answer counts more than `truth`. Without a
    truth, any answer counts that is not to be reviewed.
    """
    truths: dict[str, str] = {}
    path, sheet, column = find_column(where)
    with open_rows(path, sheet, MAX_TRUTH_BYTES) as rows:
        names: list[str] = rows.fieldnames or []
        find_id, find_answer = id_finder(path, names), answer_finder(path, names, column)
        error = find_first(names, ["error"])
        for row in rows:
            cells = {name: cell or "" for name, cell in row.items()}
            id, answer = find_id(cells), find_answer(cells)
            has_no_value = error is not None and cells[error] in NO_VALUES
            if answer is None or not id or has_no_value:
                continue
            if not is_written(answer) and "/" not in id:  # a field of a page may have any answer
                raise UsageError(
                    f"line {rows.line_num} of {path} has the right answer {answer!r}: "
                    f"it must be {WRITTEN_WORDS}"
                )
            if truths.setdefault(id, answer) != answer:
                raise UsageError(f"{path} has two right answers for {id}")
    if not truths:
        raise UsageError(f"{path} has no right answers")
    return truths


def place_truths(truths: dict[str, str], table: Path, folder: str) -> dict[str, str]:
    """The right answers by id in this folder, also if the table has paths from its own folder.

    Raises `UsageError` if the folder has no file of either name.
    """
    try:
        files = {*map(printable, os.listdir(folder))}
    except OSError:  # whoever reads the folder says what is wrong
        return truths

    def has_any(ids: Iterable[str]) -> bool:
        return any(re.split("[/#]", id)[0] in files or id.split("/")[0] in files for id in ids)

    if has_any(truths):
        return truths
    placed = {os.path.relpath(table.parent / id, folder): one for id, one in truths.items()}
    if has_any(placed):
        return placed
    raise UsageError(
        f"no path in {table} is that of an image, such as {next(iter(truths))}: paths begin in "
        f"{folder}, or where {table.name} is"
    )


def id_finder(path: Path, names: list[str]) -> Callable[[Cells], str]:
    """What gives the id in the cells of a row; see `take_truth` if they have `page` and `field`.

    Raises `UsageError` if there is no column for it.
    """
    columns = (*(field.name for field in CELL_FIELDS), "table")
    page, field, row, table = (find_first(names, [name]) for name in columns)
    own = find_first(names, ID_NAMES)
    is_wide = page is not None and (own is None or find_first(names, ["review"]) is not None)
    if is_wide and field is None:
        raise UsageError(
            f"{path} has all fields of a page in one row: right answers have a row for each field, "
            "with the columns page, field, row and number"
        )
    if page is None or field is None or own is not None:
        id = find(path, names, ID_NAMES)
        return lambda cells: plain_text(cells[id])

    def join(cells: Cells) -> str:
        number = "" if row is None else cells[row].strip()
        name = plain_text(cells[field].strip())
        where = "" if table is None else plain_text(cells[table].strip())
        return f"{plain_text(cells[page])}/{f'{where}/{number}/{name}' if number else name}"

    return join


def take_truth(
    truths: dict[str, str], id: str, page: str = "", row: int | None = None, field: str = ""
) -> str | None:
    """Remove and give the right answer for an id; None if there is none.

    If it is the id of a cell in this row of a table, the answer may be known without the table's
    name: that for `page.png/marks/4/c1` as that for `page.png//4/c1`.
    """
    found = truths.pop(id, None)
    return truths.pop(f"{page}//{row}/{field}", None) if row and found is None else found


def has_truth(truths: Mapping[str, str], page: str, cells: Sequence[Cell]) -> bool:
    """Whether there is a right answer for any cell of a page, which `take_truth` would give."""
    return any(
        f"{page}/{cell.id}" in truths or f"{page}//{cell.row}/{cell.field}" in truths
        for cell in cells
    )


def answer_finder(path: Path, names: list[str], column: str = "") -> Callable[[Cells], str | None]:
    """What finds the right answer in the cells of a row, if one is named in this column; it is None
    if there is none.

    Raises `UsageError` if there is no column for it, or only one with a network's answers.
    """
    answer = find(path, names, [column.strip().lower()] if column else ANSWER_NAMES)
    if column:
        return lambda cells: read_answer(answer, cells[answer])
    truth, by_person, review, confidence = (
        find_first(names, [name]) for name in ("truth", CORRECTED.name, "review", "confidence")
    )
    result = find_first(names, ANSWER_NAMES[1:])
    if by_person is None or result is None:
        if truth is None and confidence is not None:
            raise UsageError(
                f"{path} has the answers of a network, not right ones: correct them first"
            )
        return lambda cells: read_answer(answer, cells[answer])

    def find_corrected(cells: Cells) -> str | None:
        found = read_answer(result, cells[result])
        if is_true(cells[by_person]):
            return found
        right = None if truth is None else tidy(plain_text(cells[truth]))
        is_doubtful = review is not None and is_true(cells[review])
        return right or (None if is_doubtful else found)

    return find_corrected


def read_answer(name: str, cell: str) -> str | None:
    """The answer in a cell; None if there is no value, and for an empty cell, unless the column
    is `number`."""
    answer = tidy(plain_text(cell)) or ("" if name.strip().lower() == "number" else None)
    return None if answer in NO_VALUES else answer


def is_true(cell: str) -> bool:
    return cell.strip().lower() == "true"


def set_truths(
    items: Iterable[SourceItem], find_truth: Callable[..., str | None]
) -> Iterator[SourceItem]:
    """Yield the images with the right answers that are found by their ids in place of their own; or
    the same result rows, of which those of pages are found as by `take_truth`."""
    for item in items:
        if isinstance(item, Entry):
            yield item._replace(truth=find_truth(item.id))
            continue
        if "truth" in item.schema.names:
            item = item.drop_columns(["truth"])
        names = [name for name in ("id", "page", "row", "field") if name in item.schema.names]
        found = map(find_truth, *(item.column(name).to_pylist() for name in names))
        yield item.append_column(NUMBER_TRUTH, pa.array(found, NUMBER_TRUTH.type))


def add_field_truths(
    pages: Iterable[pa.RecordBatch], cells: Sequence[Cell], truths: dict[str, str], gaps: TruthGaps
) -> Iterator[pa.RecordBatch]:
    """Yield the pages, each with the right answers for its cells as `truth`, a list. `gaps` counts
    what is missing."""
    for batch in pages:
        found = list[list[str | None]]()
        for page in batch.column("id").to_pylist():
            ids = [f"{page}/{cell.id}" for cell in cells]
            named = zip(ids, cells, strict=True)
            answers = [take_truth(truths, id, page, cell.row, cell.field) for id, cell in named]
            for at, (cell, answer) in enumerate(zip(cells, answers, strict=True)):
                if answer is not None and not cell.known.can_be(answer):
                    gaps.invalid, answers[at] = gaps.invalid + 1, None
                    gaps.invalid_label = gaps.invalid_label or answer
            missing = [id for id, answer in zip(ids, answers, strict=True) if answer is None]
            gaps.missing += len(missing)
            gaps.missing_id = gaps.missing_id or next(iter(missing), "")
            found.append(answers)
        yield batch.append_column("truth", pa.array(found, pa.list_(NUMBER_TRUTH.type)))


def adapt_truth(batch: pa.RecordBatch, truth: pa.Field | None, gaps: TruthGaps) -> pa.RecordBatch:
    """The batch with this column `truth`, or without one. `gaps` counts what is missing."""
    index = batch.schema.get_field_index("truth")
    if truth is None:
        return batch if index < 0 else batch.drop_columns(["truth"])
    if index < 0:
        batch = batch.append_column(truth, pa.nulls(batch.num_rows, truth.type))
    elif truth.type == pa.string() or batch.column(index).type != truth.type:
        texts = pc.cast(batch.column(index), pa.string())
        truths = parse_labels(texts, truth.type, are_fields="field" in batch.schema.names)
        if len(invalid := texts.filter(pc.and_(truths.is_null(), pc.not_equal(texts, "")))):
            gaps.invalid += len(invalid)
            gaps.invalid_label = gaps.invalid_label or invalid[0].as_py()
        batch = batch.set_column(index, truth, truths)
    gaps.count_missing(batch)
    return batch


def are_written(texts: pa.StringArray) -> pa.BooleanArray:
    """Whether each text can be a number as it is written, or nothing at all; null for null."""
    is_short = pc.less_equal(pc.utf8_length(texts), MAX_CHARACTERS)
    return pc.and_(is_short, pc.match_substring_regex(texts, WRITTEN))


def are_answers(texts: pa.StringArray) -> pa.BooleanArray:
    """Whether each text can be the answer of a field, which may be a question; null for null."""
    return pc.match_substring_regex(texts, f"^[^[:cntrl:]]{{0,{MAX_ANSWER}}}$")


def parse_labels(
    labels: pa.StringArray, kind: pa.DataType, *, are_fields: bool = False
) -> pa.Array:
    """The labels as digits (int8; `3.0` is 3) or numbers as written (text); null if it is none.
    Those of the fields of pages may be answers to questions."""
    if kind == NUMBER_TRUTH.type:
        if pc.any(pc.match_substring(labels, " ")).as_py():  # few tables have any: it takes time
            labels = pa.array([one and tidy(one) for one in labels.to_pylist()], kind)
        return pc.if_else((are_answers if are_fields else are_written)(labels), labels, None)
    digits = pc.replace_substring_regex(labels, r"^0*(\d)(\.0*)?$", r"\1")
    return pc.cast(pc.index_in(digits, pa.array("0123456789", pa.string())), kind)
