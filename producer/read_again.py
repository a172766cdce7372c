"""Pages of a result file that were read again, after a person had shown where the form is on them.

They are kept beside the file, and take the place of what it has of these pages.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from digitq.producer.provenance import Record
from digitq.producer.sinks.sink import replacing
from digitq.protocol.chunk import FORM_SCHEMA

AGAIN_SCHEMA = FORM_SCHEMA.append(pa.field("picture", pa.binary()))  # in a page's first row
RESULTS_KEY = b"results"  # in the metadata: those that the pages belong to


class PageAgain(NamedTuple):
    """One page."""

    rows: pa.RecordBatch  # with FORM_SCHEMA
    picture: bytes  # the form alone, upright: a JPEG


def again_path(results: Path) -> Path:
    """Where the pages of a result file are that were read again."""
    return results.with_name(f"{results.name}.again.parquet")


def name_results(record: Record) -> bytes:
    """What differs for each result file."""
    return " ".join([record.finished, *(part.job for part in record.parts)]).encode()


def read_pages_again(path: Path, record: Record) -> dict[str, PageAgain]:
    """The pages of such a file, by their ids; none if they are of earlier results, which these have
    replaced. Raises what Arrow does."""
    table = pq.read_table(path)
    if (table.schema.metadata or {}).get(RESULTS_KEY) != name_results(record):
        return {}
    pages: dict[str, PageAgain] = {}
    for page in table.column("page").unique().to_pylist():
        (rows,) = table.filter(pc.equal(table["page"], page)).combine_chunks().to_batches()
        pages[page] = PageAgain(rows.drop_columns(["picture"]), rows.column("picture")[0].as_py())
    return pages


def write_pages_again(path: Path, record: Record, pages: Mapping[str, PageAgain]) -> None:
    """Write them as a whole. Raises `OutputError`."""
    schema = AGAIN_SCHEMA.with_metadata({RESULTS_KEY: name_results(record)})
    batches = []
    for rows, picture in pages.values():
        pictures = pa.array([picture, *[None] * (rows.num_rows - 1)], pa.binary())
        batches.append(pa.record_batch([*rows.columns, pictures], schema=schema))
    with replacing(path) as partial:
        pq.write_table(pa.Table.from_batches(batches), partial)
