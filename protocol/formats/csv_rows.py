"""The rows and columns of a CSV, JSON lines or Parquet file, or of a sheet of an Excel file."""

import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from digitq.protocol.errors import UsageError
from digitq.protocol.formats.xlsx_rows import XLSX, read_sheet
from digitq.protocol.host.regular_files import open_regular
from digitq.protocol.text import name_some

PARQUET, LINES = ".parquet", ".jsonl"


def find_column(where: str | Path) -> tuple[Path, str, str]:
    """The file, the sheet and the column that `FILE`, `FILE.csv:COLUMN`, `FILE.xlsx:COLUMN` or
    `FILE.xlsx:SHEET!COLUMN` names; "" for what it does not name."""
    name, _, column = str(where).rpartition(":")
    if not name or Path(where).exists():
        return Path(where), "", ""
    sheet, _, column = column.rpartition("!") if is_workbook(name) else ("", "", column)
    return Path(name), sheet, column


def is_workbook(name: str | Path) -> bool:
    return str(name).lower().endswith(XLSX)


@contextmanager
def open_rows(path: Path, sheet: str = "", limit: int = sys.maxsize) -> Iterator[Any]:
    """The rows of such a file, or of a sheet as `read_sheet` chooses it, as
    `csv.DictReader` gives them. Raises `UsageError` if they can't be read, or the file has more
    than `limit` bytes."""
    try:
        with open_text(path, sheet, limit) as file:
            delimiter = choose_delimiter(file.readline())
            file.seek(0)
            yield csv.DictReader(file, delimiter=delimiter)
    except UnicodeError:
        raise UsageError(f"can't read {path}: it is not in UTF-8: save it as `CSV UTF-8`") from None
    except (
        OSError,
        ValueError,
        TypeError,
        csv.Error,
    ) as error:  # a 0 byte in a path raises ValueError
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"can't read {path}: {reason}") from None


def open_text(path: Path, sheet: str, limit: int) -> IO[str]:
    """The rows as CSV."""
    if is_workbook(path):
        return read_sheet(path, sheet, limit)
    file: IO[bytes] = open_regular(path, limit)
    if (suffix := path.suffix.lower()) in (PARQUET, LINES):
        with file:
            file = copy_parquet(file) if suffix == PARQUET else copy_lines(file)
    return io.TextIOWrapper(file, "utf-8-sig", newline="")


def copy_parquet(file: IO[bytes]) -> IO[bytes]:
    """The columns of a Parquet file as CSV, without those of lists."""
    import pyarrow as pa  # it takes long to import, as do the others
    from pyarrow.csv import CSVWriter
    from pyarrow.parquet import ParquetFile

    table = ParquetFile(file)
    flat = [field for field in table.schema_arrow if not pa.types.is_nested(field.type)]
    names = [field.name for field in flat]
    copy = TemporaryFile()  # noqa: SIM115 - who reads it closes it
    with CSVWriter(copy, pa.schema(flat)) as writer:
        for batch in table.iter_batches(columns=names):
            writer.write_batch(batch)
    copy.seek(0)
    return copy


def copy_lines(file: IO[bytes]) -> IO[bytes]:
    """JSON lines as CSV, with the columns of the first line."""
    rows, text = [{**json.loads(line)} for line in file], io.StringIO()
    writer = csv.DictWriter(text, [*rows[0]] if rows else [], extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return io.BytesIO(text.getvalue().encode())


def choose_delimiter(first: str) -> str:
    """What separates the cells of a CSV file with this first line. Without a comma, it is a
    semicolon or a tab, as spreadsheets in some countries write it."""
    others = [one for one in ";\t" if one in first and "," not in first]
    return others[0] if others else ","


def find(path: Path, names: Sequence[str], wanted: Sequence[str]) -> str:
    """The name of the first wanted column. Raises `UsageError` if there is none."""
    if not names:
        raise UsageError(f"{path} is empty, or its first line is")
    if (name := find_first(names, wanted)) is None:
        raise UsageError(
            f"the first line of {path} has none of these names of columns: {', '.join(wanted)}; "
            f"it has {name_some(names)}",
            f"it has {name_some(names)}",
        )
    return name


def find_first(names: Sequence[str], wanted: Iterable[str]) -> str | None:
    """The name of the first wanted column, in any case of letters; None if there is none."""
    found = [name.strip().lower() for name in names]
    return next((names[found.index(name)] for name in wanted if name in found), None)
