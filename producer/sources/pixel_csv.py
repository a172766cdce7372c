"""CSV files with a column for each pixel."""

import codecs
import csv
import os
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from producer.sources.batches import number_pieces
from producer.sources.columns import (
    TEXTS,
    PixelColumns,
    build_pixels,
    find_pixels,
    is_broken,
    list_columns,
)
from producer.sources.source import EmptyError, Source
from protocol.chunk import PIXELS
from protocol.errors import UsageError

CSV_BYTES = 4 << 20  # that are parsed at a time
MAX_COLUMNS = 8192  # of a CSV
MAX_LINES, MAX_LINES_BYTES = 100, 1 << 20  # of one row, in a quoted cell; of one line
MAX_ODD = PIXELS // 10  # columns of pixels that have odd cells: else they are no pixels
NUMBER = re.compile(r"[-+]?[\d.]+(e[-+]?\d+)?|nan?", re.ASCII | re.IGNORECASE)
SMALL_NUMBER = re.compile(r"-?\d{1,9}", re.ASCII)
POINT_ZERO = re.compile(r"\.0*$")


def pixel_csv_source(path: Path, prefix: str) -> Source:
    with open(path, "rb") as file:
        sample = file.read(CSV_BYTES)
    all_read = len(sample) < CSV_BYTES
    if not all_read and b"\r" in sample and b"\n" not in sample:  # it is cut at line feeds
        raise UsageError(rf"{path} ends its lines with \r alone: `tr '\r' '\n'` mends that")
    sample = sample.removeprefix(codecs.BOM_UTF8)
    lines = sample.splitlines(keepends=True)
    first = next((number for number, line in enumerate(lines) if line.strip()), 0)
    cells = next(csv.reader([line.decode(errors="replace") for line in lines[first:]]), [])
    cells = [cell.strip() for cell in cells]
    if len(cells) > MAX_COLUMNS:  # of each, Arrow takes 14 kB
        raise UsageError(f"{path} has over {MAX_COLUMNS:,} columns; {PIXELS} of pixels are needed")
    named = _are_names(cells)
    names = cells if named else [str(place) for place in range(len(cells))]
    rows = lines[first + named : len(lines) if all_read or len(lines) == 1 else -1]
    try:
        table = _parse_sample(b"".join(rows), names, lines_in_cells=True)
    except pa.ArrowInvalid:  # a stray quote
        table = _parse_sample(b"".join(rows), names, lines_in_cells=False)
    if not table.num_rows:
        raise EmptyError(f"no image in {path}: it has no rows of as many cells as its first line")
    schema = table.schema
    found = find_pixels(path, schema, named, MAX_ODD)
    if not found:
        raise UsageError(
            f"{path} has no {PIXELS} columns of whole numbers that may be pixels, separated by "
            f"commas; its columns: {list_columns(schema)}"
        )
    skipped = sum(map(len, lines[: first + named]))
    parts = (_parse_csv(block, schema, found) for block in _read_blocks(path, skipped))
    label = None if found.label is None else PIXELS
    items = number_pieces(parts, prefix, partial(build_pixels, PixelColumns(range(PIXELS), label)))
    return Source(str(path), items, label is not None)


def _parse_sample(sample: bytes, names: Sequence[str], lines_in_cells: bool) -> pa.Table:
    """The first rows, to see what columns there are."""
    return pyarrow.csv.read_csv(
        pa.BufferReader(sample.decode(errors="replace").encode()),  # else a row may stop Arrow
        pyarrow.csv.ReadOptions(column_names=names),
        pyarrow.csv.ParseOptions(
            newlines_in_values=lines_in_cells, invalid_row_handler=lambda row: "skip"
        ),
    )


def _are_names(cells: Sequence[str]) -> bool:
    """Whether a first line names columns: most are text, or most differ, as in `label,0,1,…,783`.
    (Of 784 pixels at most 256 do.)"""
    texts = sum(not NUMBER.fullmatch(cell) for cell in cells if cell)
    return 2 * texts > len(cells) or 2 * len(set(cells)) > len(cells)


def _read_blocks(path: Path, skipped: int) -> Iterator[bytes]:
    """Whole rows of a file, many at a time, after so many bytes: a quoted cell may have lines."""
    with open(path, "rb") as file:
        if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
            file.seek(0)
        file.seek(skipped, os.SEEK_CUR)
        read_line = partial(file.readline, MAX_LINES_BYTES)
        while block := file.read(CSV_BYTES):
            parts = [block, read_line()]
            end = file.tell() + MAX_LINES_BYTES
            open_quotes = sum(part.count(b'"') for part in parts)
            while open_quotes % 2 and file.tell() < end and (line := read_line()):
                open_quotes += line.count(b'"')
                parts.append(line)
            yield b"".join(parts)


def _parse_csv(block: bytes, schema: pa.Schema, found: PixelColumns) -> pa.RecordBatch:
    """Columns of pixels, and of labels where there are some. What is no number is null."""
    names = [str(place) for place in range(len(schema))]  # no two alike
    types = {str(place): pa.int64() for place in found.pixels}
    if found.label is not None:
        types[str(found.label)] = schema.field(found.label).type
    try:
        if block.count(b'"') % 2:  # a stray one: what follows it would be one cell
            raise pa.ArrowInvalid("an open quote")
        table = pyarrow.csv.read_csv(
            pa.BufferReader(block),
            pyarrow.csv.ReadOptions(use_threads=False, column_names=names),
            pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=types, include_columns=[*types], strings_can_be_null=True
            ),
        )
        return table.combine_chunks().to_batches()[0]
    except (pa.ArrowInvalid, IndexError):  # the latter where there is no row
        pass
    rows = []
    for cells in _split_rows(block.splitlines(keepends=True), len(schema)):
        whole = len(cells) == len(schema)
        rows.append([cells[int(name)].strip() if whole else "" for name in types])
    columns = [*zip(*rows, strict=True)] or [()] * len(types)
    arrays = [
        pa.array(column if kind in TEXTS else [_to_number(cell, kind) for cell in column], kind)
        for column, kind in zip(columns, types.values(), strict=True)
    ]
    return pa.record_batch(arrays, names=[*types])


def _split_rows(lines: Sequence[bytes], width: int) -> Iterator[list[str]]:
    """The cells of each row. A stray quote is its line's alone."""
    start = 0
    while start < len(lines):
        row, end = lines[start], start + 1
        while row.count(b'"') % 2 and end < min(start + MAX_LINES, len(lines)):
            row, end = row + lines[end], end + 1
        if len(cells := _split(row)) != width or row.count(b'"') % 2:
            cells, end = _split(lines[start]), start + 1
        if lines[start].strip():
            yield cells
        start = end


def _split(row: bytes) -> list[str]:
    """A row's cells; none where it is no CSV."""
    try:
        return next(csv.reader([row.decode(errors="replace")]), [])
    except csv.Error:
        return []


def _to_number(cell: str, kind: pa.DataType) -> int | None:
    """A whole number; of what need not be one, as a label, 3.0 too."""
    whole = POINT_ZERO.sub("", cell) if is_broken(kind) else cell
    return int(whole) if SMALL_NUMBER.fullmatch(whole) else None
