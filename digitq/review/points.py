"""The points that pages get by the key of their form: which answers are right, and their worth."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, NamedTuple

from digitq.producer.results import ResultFile
from digitq.protocol.asked.form import Form, name_place
from digitq.protocol.asked.form_file import parse_form_file, telling
from digitq.protocol.asked.known import OPTION_SEPARATOR, Known
from digitq.protocol.asked.rules import parse_rule, read_values
from digitq.protocol.asked.values import TWO_MARKS, tidy
from digitq.protocol.chunk import CORRECTED
from digitq.protocol.errors import UsageError
from digitq.protocol.formats.csv_rows import find, find_column, open_rows
from digitq.protocol.text import name_some, plural
from digitq.review.page_fields import find_place
from digitq.review.people import MAX_TOLD

WIDE_COLUMNS = ("points", "undecided")  # of the wide table of a form with a key
WORTH = {"right": 1, "wrong": 0, "empty": 0, "several": 0}  # points for what comes of a question
PART = WORTH | {"version": "", "file": "", "answers": {}}  # what a form's file may say of its key
COLUMNS = ("version", "table", "row", "field", "answer", *WORTH)  # of a table of answers
Row = Mapping[str, Any]  # of `read_pages`
Outcomes = dict[str, tuple[str, str]]  # what came of a question, and its answer; by `name_place`
# The right answers, any of which is right, and what each of `WORTH` gives; by `name_place`, by the
# version, which is "" if there is only one
Questions = dict[str, dict[str, tuple[list[str], dict[str, Decimal]]]]
# Where a key names a question, its version, `name_place`, right answers, and points of its own
Entries = Iterator[tuple[str, str, str, list[Any], dict[str, Any]]]


class Key(NamedTuple):
    form: Form
    version: str  # the field that says which version a page is; "" if there is only one
    questions: Questions


def find_key(results: ResultFile, form: Form | None) -> Key | None:
    """The key of the form on record, if it has one. Raises `UsageError` as `read_key`."""
    if form and results.record and results.record.form:
        return read_key(form, results.record.form, results.key)
    if results.key:
        raise UsageError(f"--key: {results.path} has no form on record that can be read")
    return None


def read_key(form: Form, path: str, table: Path | None) -> Key | None:
    """The key in a form's file, or with a table in place of its answers. Raises `UsageError`."""
    part = parse_form_file(Path(path)).key
    if table:
        part = {**(part or {}), "file": str(table.absolute()), "answers": {}}
    if part is None:
        return None
    places = {cell.id: cell.known for cell in form.cells}
    with telling(path):
        for name, given in part.items():
            if name not in WORTH and type(given) is not type(PART.get(name)):
                raise UsageError(
                    f"key.{name}: a key has {', '.join(PART)}; version and file are text"
                )
        for cell in form.cells:
            if taken := {cell.field, *cell.known.people.columns} & {*WIDE_COLUMNS}:
                raise UsageError(f"key: the wide table needs the name {taken.pop()!r}: rename it")
        questions = read_questions(PART | part, places, Path(path).parent)
        field = part.get("version") or ("version" if any(questions) else "")
        with telling("key.version"):
            if field and field not in places:
                raise UsageError(f"the form has no field {field!r}")
            for version in questions if field else ():
                check_answer(version, places[field])
    return Key(form, field, questions)


def read_questions(part: dict[str, Any], places: Mapping[str, Known], folder: Path) -> Questions:
    """What is right in each place of each version. Raises `UsageError`."""
    points, found = {one: read_points(f"key.{one}", part[one]) for one in WORTH}, Questions()
    entries = list_rows(folder / part["file"]) if part["file"] else list_answers(part["answers"])
    for where, version, name, right, own in entries:
        with telling(where):
            if name not in places:
                raise UsageError(f"the form has no field {name!r}")
            if name in found.setdefault(version, {}):
                raise UsageError(f"{name!r} is in the key twice")
            answers = [check_answer(one, places[name]) for one in right]
            own_points = {one: read_points(one, text) for one, text in own.items()}
            found[version][name] = answers, points | own_points
    if not found or (part["file"] and part["answers"]):
        raise UsageError("key: give right answers, either in `answers` or in a `file`")
    return found


def list_answers(answers: dict[str, Any]) -> Entries:
    """What `answers` in a form's file says: by the question, or by the version before."""
    has_versions = all(isinstance(one, dict) for one in answers.values())
    for version, questions in (answers if has_versions else {"": answers}).items():
        for name, right in questions.items():
            where = ".".join(filter(None, ("key.answers", version, name)))
            yield where, version, name, right if isinstance(right, list) and right else [right], {}


def list_rows(table: Path) -> Entries:
    """What a table says; a row without an answer is left out. Raises `UsageError`."""
    path, sheet, _ = find_column(table)
    with open_rows(path, sheet) as rows:
        names = rows.fieldnames = [name.strip().lower() for name in rows.fieldnames or []]
        needed = [find(path, names, [name]) for name in ("field", "answer")]
        for name in {*names, *needed} - {*COLUMNS, ""}:
            raise UsageError(f"{path}: {name!r} is none of the columns {', '.join(COLUMNS)}")
        for row in rows:
            cells = {one: (row.get(one) or "").strip() for one in COLUMNS}
            name = "/".join(filter(None, (cells["table"], cells["row"], cells["field"])))
            own = {one: cells[one] for one in WORTH if cells[one]}
            if right := [*filter(None, cells["answer"].split("|"))]:
                yield f"line {rows.line_num} of {path}", cells["version"], name, right, own


def check_answer(answer: Any, known: Known) -> str:
    """A right answer as results have it. Raises `UsageError` if it can be none."""
    text = tidy(str(answer))
    marked = {one.strip() for one in text.split(OPTION_SEPARATOR)}
    found = known.join(marked) if marked <= {*known.options} else text
    if not found or not known.can_be(found):
        raise UsageError(f"{text!r} must be {known.wanted}")
    return found


def read_points(name: str, value: Any) -> Decimal:
    """A number of points, exactly. Raises `UsageError`."""
    with suppress(InvalidOperation):
        if (points := Decimal(str(value).replace(",", "."))).is_finite():
            return points
    raise UsageError(f"{name}: {value!r} is no number of points, such as -0.25")


def mark_page(key: Key, page: Iterable[Row]) -> tuple[float | None, int, str, Outcomes]:
    """The points of a page, None if nothing is decided; how many questions are undecided; its
    version, "" if that is to review; and what came of the questions."""
    rows: dict[str, Row] = {name_place(find_place(row)): row for row in page}
    version, outcomes, given = "", Outcomes(), list[Decimal]()
    if row := rows.get(key.version):
        known = key.form.known_of(key.version)
        found = {mark_answer(row, [one], known): one for one in key.questions}
        version = "" if "undecided" in found else found.get("right", row["number"] or "")
    asked = key.questions.get(version, max(key.questions.values(), key=len))
    for name in asked.keys() & rows.keys():
        outcome = mark_answer(rows[name], asked[name][0], key.form.known_of(name))
        outcome = outcome if version in key.questions else "undecided"
        outcomes[name] = outcome, rows[name]["number"] or rows[name]["error"]
        given += [asked[name][1][outcome]] if outcome in WORTH else []
    points = float(sum(given, Decimal())) if given else None
    return points, len(outcomes) - len(given), version, outcomes


def mark_answer(row: Row, right: Sequence[str], known: Known) -> str:
    """What comes of a row: one of `WORTH`, or "undecided" if a person must look first. What a
    person called illegible is wrong."""
    written, is_open = row["number"] or "", row["number"] is None or row["error"] is not None
    if row["review"] or (is_open and not row.get(CORRECTED.name)):
        return "undecided"
    if not written:
        return {None: "empty", TWO_MARKS: "several"}.get(row["error"], "wrong")
    worth = () if known.options else read_values(written)
    is_right = written in right or any({*worth} & {*read_values(one)} for one in right)
    return "right" if is_right else "wrong"


class Tally:
    """The points of all pages, and what came of each question."""

    def __init__(self, key: Key, pages: Iterable[Sequence[Row]]) -> None:
        # The points of pages that are decided, of those that are not, and 0 for those of no points
        self.decided, self.open, self.none = (list[float]() for _ in range(3))
        self.key, self.unknown = key, Counter[str]()  # pages by a version that the key lacks
        # What came of a version's question, and the answers of which this came
        self.counts: defaultdict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
        for page in pages:
            points, undecided, version, outcomes = mark_page(key, page)
            alike = self.none if points is None else self.open if undecided else self.decided
            alike.append(points or 0)
            self.unknown.update({version} - {"", *key.questions})
            for name, (outcome, answer) in outcomes.items():
                self.counts[version, name][outcome] += 1
                self.counts[version, name, outcome][answer] += 1

    def tell(self) -> Iterator[str]:
        """Lines about questions without a right answer, and versions that the key lacks."""
        rules = [rule for check in self.key.form.checks for rule in parse_rule(check.rule)]
        others = {self.key.version, *(name for rule in rules for name in rule.filled)}
        for version, asked in self.key.questions.items():
            missing = [
                cell.id
                for cell in self.key.form.cells
                if cell.id not in asked and cell.field not in others
                if len(cell.known.options) > 1 or f"{cell.table}/1/{cell.field}" in asked
            ]
            if missing:
                have = f"{plural(len(missing), 'question')} {'have' if missing[1:] else 'has'}"
                where = f"the key of version {version}" if version else "the key"
                yield f"{have} no right answer in {where}: {name_some(missing, MAX_TOLD)}"
        for version, count in self.unknown.items():
            yield f"{plural(count, 'page')} without points: the key has no version {version!r}"
