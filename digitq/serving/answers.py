"""The answers of all who have the page of results open, and the file that keeps them."""

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter

from digitq.producer.results import ResultFile, check_age
from digitq.producer.sinks.sink import replacing
from digitq.protocol.errors import DigitqError, UsageError
from digitq.protocol.formats.csv_text import guard_text
from digitq.protocol.text import in_one_line, plural
from digitq.review.corrections import read_corrections, select_written
from digitq.review.page import ReviewPage
from digitq.review.page_fields import Told, find_form, tell_rules
from digitq.review.wide import read_pages
from digitq.serving.server import LiveConnection
from digitq.terminal import echo_err

Answers = Mapping[str, str]  # by id; "" if there is no digit, or nothing is written


class Asked(NamedTuple):
    """What a person wants to be saved."""

    id: str
    answer: str | None  # None takes the answer back
    known: list[str | None]  # it replaces one of these without a question


# What a page sends: answers, or the id of the card at which the person is; "" for none
REQUESTS: TypeAdapter[list[Asked] | str] = TypeAdapter(list[Asked] | str)


class AnswerFile:
    """The file of the answers. A person may change it, too."""

    def __init__(self, results: ResultFile, path: Path | None = None) -> None:
        """Raises `UsageError` if the file has answers to earlier results, or can't be read."""
        self.results = results
        self.path = path or results.path.with_suffix(".corrections.csv")
        self.form = find_form(results.record)[0] if results.has_form else None
        self.answers: Answers = {}
        self.drawn: dict[str, int] = {}  # by id: the place of a row in a page's random sample
        self._seen: object = None  # the state of the file that was read or written last
        check_age(self.path, results.record)
        self.read_again()

    def read_again(self) -> set[str]:
        """Read the file if someone has changed it; gives the ids that have another answer then.

        If it is gone, it is written again. Raises `UsageError` if it can't be read.
        """
        if not self.path.exists():
            if self.answers:
                self.write(self.answers)
            return set()
        now, before = describe(self.path), self.answers
        if now != self._seen:
            found, drawn, _ = read_corrections(self.path, self.results)
            self.answers = {id: one or "" for id, one in found.items()}
            self.drawn |= drawn
            self._seen = now
        every = before.keys() | self.answers.keys()
        return {id for id in every if before.get(id) != self.answers.get(id)}

    def write(self, answers: Answers) -> None:
        """Write these answers as a whole. Raises `OutputError`."""
        with (
            replacing(self.path) as partial,
            open(partial, "w", encoding="utf-8", newline="") as file,
        ):
            file.write(f"id,{self.results.answer_column},sample\r\n")
            rows = csv.writer(file, quoting=csv.QUOTE_ALL)  # some spreadsheets split at a semicolon
            rows.writerows(
                (guard_text(id), guard_text(one), self.drawn.get(id, ""))
                for id, one in answers.items()
            )
            file.flush()
            if self.path.exists():
                os.fchmod(file.fileno(), os.stat(self.path).st_mode)
            os.fsync(file.fileno())
        self.answers, self._seen = answers, describe(self.path)


def describe(path: Path) -> object:
    """What differs in another file, or after a change."""
    found = os.stat(path)
    return found.st_ino, found.st_size, found.st_mtime_ns


class Desk:
    """Takes the answers of all pages, saves them, and tells all pages."""

    def __init__(self, file: AnswerFile, page: ReviewPage) -> None:
        self.file = file
        self.connections: set[Connection] = set()
        self._trouble = ""  # why nothing is saved
        self._results_seen = describe(file.results.path)
        self.version = 0  # of the page; a browser may miss that there is another one
        self.put(page)

    def put(self, page: ReviewPage) -> None:
        """Serve this page. Browsers that show another one load it."""
        self.page = page
        self.file.drawn |= {image.id: image.drawn for image in page.images if image.drawn}
        self.shown = {image.id: image.page or "" for image in page.images}
        shown = {*self.shown.values()}
        pages = read_pages(self.file.results) if self.file.form else ()
        self._pages = {one[0]["page"]: one for one in pages if one[0]["page"] in shown}
        self.version += 1
        for one in self.connections:
            one.tell({"version": self.version})

    def look(self) -> None:
        """Tell all pages what another program has written. Called each second, too."""
        results, changed, trouble = self.file.results.path, set[str](), ""
        try:
            if describe(results) != self._results_seen:
                raise UsageError(
                    f"{results} has other results now: end `digitq review`, move "
                    f"{self.file.path} away, and start it anew"
                )
            changed = self.file.read_again()
        except (DigitqError, OSError) as error:
            trouble = in_one_line(str(error))
        if changed:
            echo_err(f"{self.file.path} was changed: {plural(len(changed), 'other answer')}")
        if trouble and trouble != self._trouble:
            echo_err(f"answers are not saved: {trouble}")
        if changed or trouble != self._trouble:
            self._trouble = trouble
            self.tell(changed)

    def save(self, request: Sequence[Asked]) -> None:
        """Save answers, except those for which another person has given another one; tell all
        pages what is saved. Raises `UsageError` or `OutputError` if nothing is."""
        for one in request:
            if one.id not in self.shown:
                raise UsageError(f"the page has no {in_one_line(one.id)}")
            if fault := self.file.results.find_fault(one.id, one.answer or ""):
                raise UsageError(fault)
        self.look()
        if self._trouble:
            raise UsageError(self._trouble)
        before = self.file.answers
        taken = {one.id: one.answer for one in request if before.get(one.id) in one.known}
        answers = {id: one for id, one in {**before, **taken}.items() if one is not None}
        if answers != before:
            self.file.write(answers)
        self.tell([one.id for one in request])

    def tell(self, ids: Iterable[str], *to: "Connection") -> None:
        """Tell pages, or else all of them, these answers, and which rules are broken then."""
        ids = [id for id in ids if id in self.shown]
        rules: dict[str, list[Told]] = {}
        for page in dict.fromkeys(self.shown[id] for id in ids):
            if self.file.form and page in self._pages:
                rows = self._pages[page]
                given = select_written(rows, self.file.answers)
                rules |= tell_rules(self.file.form, rows, given)
        message = {
            "answers": [(id, self.file.answers.get(id)) for id in ids],
            "rules": {id: each for id, each in rules.items() if id in self.shown},
            "trouble": self._trouble,
        }
        for one in to or [*self.connections]:
            one.tell(message)

    def tell_places(self, to: Iterable["Connection"]) -> None:
        """Tell these pages at which cards the other people are."""
        for one in [*to]:
            others = {other.at for other in self.connections if other is not one}
            one.tell({"others": sorted(others - {""})})


class Connection(LiveConnection):
    """One page that is open."""

    at = ""  # the id of the card at which the person is

    def initialize(self, desk: Desk) -> None:
        self.desk = desk

    def open(self, *_: str, **__: str) -> None:
        self.desk.connections.add(self)
        self.tell({"version": self.desk.version})
        self.desk.tell(self.desk.shown, self)
        self.desk.tell_places({self})

    def on_message(self, message: str | bytes) -> None:
        try:
            request = REQUESTS.validate_json(message)
            if isinstance(request, str):
                self.at = request if request in self.desk.shown else ""
                self.desk.tell_places(self.desk.connections - {self})
                return
            self.desk.save(request)
        except (DigitqError, ValueError, OSError) as error:  # pydantic's is a ValueError
            self.tell({"trouble": in_one_line(str(error))})
        self.tell({"isReply": True})

    def on_close(self) -> None:
        self.desk.connections.discard(self)
        self.desk.tell_places(self.desk.connections)
