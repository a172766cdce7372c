"""Ids in a CSV: an apostrophe stands before one that a spreadsheet would take for a formula."""

import re

import pyarrow as pa
import pyarrow.compute as pc

FORMULA = r"^([=+\-@\t\r\n'])"  # an id that begins so gets an apostrophe
PLAIN = "^'" + FORMULA[1:]


def guard_ids(ids: pa.StringArray) -> pa.StringArray:
    """The ids as the cells of a CSV."""
    return pc.replace_substring_regex(ids, FORMULA, r"'\1")


def guard_id(id: str) -> str:
    """One id as the cell of a CSV."""
    return re.sub(FORMULA, r"'\1", id)


def plain_ids(cells: pa.StringArray) -> pa.StringArray:
    """The ids in the cells of a CSV as they are."""
    return pc.replace_substring_regex(cells, PLAIN, r"\1")


def plain_id(cell: str) -> str:
    """The id in one cell."""
    return re.sub(PLAIN, r"\1", cell)
