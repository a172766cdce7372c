"""Lists of image files: tables with a path in each row, such as a CSV of `path,label`."""

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import pyarrow as pa

from producer.sources.arrays import number_pieces
from producer.sources.columns import read_labels, read_texts
from producer.sources.source import (
    EmptyError,
    Entry,
    Naming,
    Source,
    find_reader,
    unreadable,
)
from producer.sources.truth import ANSWER_NAMES, ID_NAMES, find_first
from protocol.text import printable

PATH_NAMES = ID_NAMES[1:]  # the first of these columns has the paths
LIST_ROWS = 512  # this many rows are read at a time
LINE_CHARACTERS = 1 << 20  # a longer line is cut, so that a file of zeros can't fill the memory


def list_source(path: Path, names: Sequence[str], sign: str, naming: Naming) -> Source:
    """The images that a CSV file with these columns, separated by `sign`, lists. A path is
    relative to the folder of the file, or else to the current folder. The id is that in the column
    `id`, or else the path."""
    wanted = {"path": PATH_NAMES, "id": ("id",), "label": ANSWER_NAMES}
    found = {column: find_first(names, options) for column, options in wanted.items()}
    places = {column: place for column, place in found.items() if place is not None}
    if not any(_read_rows(path, sign)):
        raise EmptyError(f"no image in {path}: it has no rows")
    id = "id" if "id" in places else "path"
    label = "label" if "label" in places else None
    items = number_pieces(
        _read_parts(path, sign, places),
        naming.prefix,
        partial(build_entries, "path", label, str(path.parent), naming),
        lambda part: read_texts(part.column(id)),
    )
    has_truth = label is not None or naming.truth_from_parent
    return Source(str(path), items, has_truth, lambda: _count_rows(path, sign))


def build_entries(
    path: str, label: str | None, folder: str, naming: Naming, ids: pa.Array, batch: pa.RecordBatch
) -> Iterator[Entry]:
    """An image for each row of a batch; `path` and `label` are the names of its columns."""
    truths = read_labels(batch, label).to_pylist()
    files = read_texts(batch.column(path))
    for id, file, truth in zip(ids.to_pylist(), files, truths, strict=True):
        read = find_reader(file, folder) if file.strip() else unreadable("the row has no path")
        yield Entry(
            id, read, truth or naming.find_truth(os.path.abspath(os.path.join(folder, file)))
        )


def _read_parts(path: Path, sign: str, places: Mapping[str, int]) -> Iterator[pa.RecordBatch]:
    """The columns at these places, in batches. Raises `csv.Error` after the rows before it."""
    rows = _read_rows(path, sign)
    failure: csv.Error | None = None
    while not failure:
        part: list[list[str]] = []
        try:
            part.extend(islice(rows, LIST_ROWS))
        except csv.Error as error:
            failure = error
        if not (part or failure):
            return
        cells = {
            column: [row[place] if place < len(row) else "" for row in part]
            for column, place in places.items()
        }
        yield pa.record_batch(
            {
                column: [*map(printable if column == "label" else os.fsencode, texts)]
                for column, texts in cells.items()
            }
        )
    raise failure


def _read_rows(path: Path, sign: str) -> Iterator[list[str]]:
    """The cells of each row after the names of the columns; a blank line is no row."""
    with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        lines = iter(partial(file.readline, LINE_CHARACTERS), "")
        rows = (
            row
            for row in csv.reader(lines, delimiter=sign)
            if row and not (len(row) == 1 and row[0].isspace())
        )
        yield from islice(rows, 1, None)


def _count_rows(path: Path, sign: str) -> int | None:
    try:
        return sum(1 for _ in _read_rows(path, sign))
    except (OSError, csv.Error):
        return None
