"""Who of a form's lists of people is read on no page, or on several."""

from collections import defaultdict
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from digitq.producer.results import ResultFile
from digitq.protocol.asked.form import Form
from digitq.protocol.asked.known import People
from digitq.protocol.chunk import corrected
from digitq.protocol.text import in_one_line, name_some, plural

OCCURS_TWICE = "occurs twice"  # the reason to review the number of a person on several pages
MAX_TOLD = 30  # a line names at most so many people or pages
Pages = defaultdict[str, list[str]]  # by the number that is read on them


def find_pages(results: ResultFile, form: Form | None) -> list[tuple[str, People, Pages]]:
    """The fields of a form with a list of people, and the pages on which each number of it is read,
    or "" for none of the list. Raises `UsageError` if a row can't be read."""
    fields = [one for one in form.fields if one.known.people.columns] if form else []
    found = [(one.name, one.known.people, Pages(list)) for one in fields]
    for batch in results.batches() if found else ():
        for field, people, pages in found:
            rows = batch.filter(pc.equal(batch["field"], field)).select(["page", "number"])
            for row in rows.to_pylist():
                pages[row["number"] if row["number"] in people.rows else ""].append(row["page"])
    return found


def call_roll(results: ResultFile, form: Form | None) -> Iterator[str]:
    """Lines for people about who is missing or occurs twice, and about pages without a number."""
    for field, people, pages in find_pages(results, form):
        names = {number: f"{number} {people.describe(number)}".rstrip() for number in people.rows}
        missing = [name for number, name in names.items() if number not in pages]
        twice = [
            f"{name} ({name_some(pages[number])})"
            for number, name in names.items()
            if len(pages.get(number, ())) > 1
        ]
        file = in_one_line(people.file.name)
        for who, where in ((missing, "no page"), (twice, "several pages, all to review")):
            if who:
                count = f"{len(who):,} of {len(names):,} in {file}"
                yield f"{field}: {count} read on {where}: {name_some(who, MAX_TOLD)}"
        if without := pages.get(""):
            what = f"{plural(len(without), 'page')} without a number of {file}"
            yield f"{field}: {what}: {name_some(without, MAX_TOLD)}"


def mark_repeated(results: ResultFile, form: Form | None) -> Iterator[pa.RecordBatch]:
    """`ResultFile.places`, with numbers marked that are on several pages, unless a person gave
    them: one of them may be misread."""
    repeated = [
        f"{page}/{field}"
        for field, _, pages in find_pages(results, form)
        for number, found in pages.items()
        for page in (found if number and len(found) > 1 else ())
    ]
    for batch in results.places():
        is_marked = pc.is_in(batch["id"], pa.array(repeated, pa.string()))
        is_marked = pc.and_not(is_marked, corrected(batch))
        reason = pc.coalesce(batch["reason"], OCCURS_TWICE)
        changed = {
            "review": pc.or_(batch["review"], is_marked),
            "reason": pc.if_else(is_marked, reason, batch["reason"]),
        }
        columns = [changed.get(name, batch[name]) for name in batch.schema.names]
        yield pa.record_batch(columns, schema=batch.schema)
