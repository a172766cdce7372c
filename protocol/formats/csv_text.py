"""Text in a CSV: an apostrophe stands before what a spreadsheet would take for a formula."""

import re

import pyarrow as pa
import pyarrow.compute as pc

FORMULA = r"^([=+\-@\t\r\n'])"  # text that begins so gets an apostrophe
PLAIN = "^'" + FORMULA[1:]
# but a number with a sign does not: it is no formula, and other programs read it
SIGNED = r"[+\-][0-9][0-9½¼¾]*([.,/: ][0-9½¼¾]+)*"


def guard_texts(texts: pa.StringArray) -> pa.StringArray:
    """The texts as the cells of a CSV."""
    if texts.null_count == len(texts):
        return texts
    guarded = pc.replace_substring_regex(texts, FORMULA, r"'\1")
    return pc.if_else(pc.match_substring_regex(texts, rf"\A{SIGNED}\z"), texts, guarded)


def guard_text(text: str) -> str:
    """One text as the cell of a CSV."""
    return text if re.fullmatch(SIGNED, text) else re.sub(FORMULA, r"'\1", text)


def plain_texts(cells: pa.StringArray) -> pa.StringArray:
    """The texts in the cells of a CSV as they are."""
    return pc.replace_substring_regex(cells, PLAIN, r"\1")


def plain_text(cell: str) -> str:
    """The text in one cell."""
    return re.sub(PLAIN, r"\1", cell)
