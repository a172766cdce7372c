"""Who of a form's lists of people is read on no page, or on several."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from digitq.producer.results import ResultFile
from digitq.protocol.asked.form import Form
from digitq.protocol.asked.known import NOBODY
from digitq.protocol.chunk import corrected
from digitq.protocol.text import in_one_line, name_some, plural

OCCURS_TWICE = "occurs twice"  # the reason to review the number of a person on several pages
MAX_TOLD = 30  # a line names at most so many people or pages
Pages = Mapping[str, Sequence[str]]  # by the number; "" for pages without one of the list


def find_pages(results: ResultFile, form: Form | None) -> dict[str, Pages]:
    """The pages on which each number of a list with `show` is read, by the list's field. The form
    is that of the results. Raises `UsageError` if a row can't be read."""
    listed = {one.name: one.known.people for one in form.fields} if form else {}
    found = {name: defaultdict[str, list[str]](list) for name in listed if listed[name].columns}
    for batch in results.batches() if found else ():
        rows = batch.filter(pc.is_in(batch["field"], pa.array([*found])))
        for row in rows.select(["page", "field", "number"]).to_pylist():
            is_listed = row["number"] in listed[row["field"]].rows
            found[row["field"]][row["number"] if is_listed else ""].append(row["page"])
    return {**found}


def call_roll(results: ResultFile, form: Form | None) -> Iterator[str]:
    """Lines for people about who is missing or occurs twice, and about pages without a number."""
    for field, pages in find_pages(results, form).items():
        people = form.known_by_name[field].people if form else NOBODY
        names = {number: f"{number} {people.describe(number)}".rstrip() for number in people.rows}
        missing = [name for number, name in names.items() if number not in pages]
        twice = [
            f"{name} ({name_some(pages[number])})"
            for number, name in names.items()
            if len(pages.get(number, ())) > 1
        ]
        file = in_one_line(people.file.name)
        for who, where in ((missing, "no page"), (twice, "several pages")):
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
        for field, pages in find_pages(results, form).items()
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
