"""The answers of all who have the page of results open, and the file that keeps them."""

import asyncio
import csv
import fcntl
import io
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from digitq.producer.results import ResultFile
from digitq.producer.sinks.sink import replacing
from digitq.protocol.errors import DigitqError, UsageError
from digitq.protocol.formats.csv_ids import guard_id
from digitq.protocol.text import in_one_line, plural
from digitq.review.corrections import checksum, find_fault, read_corrections, select_written
from digitq.review.page import ReviewPage
from digitq.review.page_fields import BrokenRule, Told, find_broken_rules, find_form, tell_rules
from digitq.review.wide import read_pages
from digitq.serving.server import LiveConnection
from digitq.terminal import echo_err

MAX_ROWS_KEPT = 1 << 18  # this many rows of the file are kept as text, about 50 MB
SETTLED_SECONDS = 0.5  # a file that was changed just now may not be whole
Answers = Mapping[str, str]  # by id; "" if there is no digit, or nothing is written


class Asked(NamedTuple):
    """What a person wants to be saved."""

    id: str
    answer: str | None  # None takes the answer back
    known: list[str | None]  # it replaces one of these without a question


REQUESTS = TypeAdapter(list[Asked])  # what a page sends


def name_corrections(results: Path) -> Path:
    """Where the answers to a result file are saved: beside it."""
    return results.with_suffix(".corrections.csv")


@contextmanager
def served_once(results: Path) -> Iterator[None]:
    """Raises `UsageError` if another process serves the results: both would write the answers."""
    with open(results, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"{results} is served already: use the link of that terminal, or end it there"
            ) from None
        except OSError:  # the file system has no locks
            pass
        yield


class AnswerFile:
    """The file of the answers. A person may change it, too."""

    def __init__(self, results: ResultFile) -> None:
        """Raises `UsageError` if the file has answers to earlier results, or can't be read."""
        self.results, self.path = results, name_corrections(results.path)
        self.form = find_form(results.record)[0] if results.has_form else None
        self.answers: Answers = {}
        self.drawn: dict[str, int] = {}  # by id: the place of a row in a page's random sample
        self._seen: object = None  # the state of the file that was read or written last
        self._fault = ""  # why it can't be read
        record = results.record
        finished = datetime.fromisoformat(record.finished).timestamp() if record else 0
        if self.path.exists() and self.path.stat().st_mtime < finished - 1:
            raise UsageError(
                f"{self.path} is older than the results, so its answers are of earlier ones: "
                "rename it, or `touch` it if they are of these"
            )
        self.read_again()

    @property
    def is_being_written(self) -> bool:
        """Whether someone may be writing the file right now."""
        if not self.path.exists() or describe(found := os.stat(self.path)) == self._seen:
            return False
        return 0 <= time.time() - found.st_mtime < SETTLED_SECONDS

    def read_again(self) -> set[str]:
        """Read the file if someone has changed it; gives the ids that have another answer then.

        If it is gone, its answers stay. Raises `UsageError` if it can't be read.
        """
        changed = set[str]()
        now = describe(os.stat(self.path)) if self.path.exists() else None
        if now != self._seen:
            self._seen, self._fault, before = now, "", self.answers
            try:
                found, drawn = read_corrections(self.path, self.results, self.form)
            except UsageError as error:
                self._fault = str(error) if now else ""  # if it is gone, its answers stay
            else:
                self.answers = {id: one or "" for id, one in found.items()}
                self.drawn |= drawn
                every = before.keys() | self.answers.keys()
                changed = {id for id in every if before.get(id) != self.answers.get(id)}
        if self._fault:
            raise UsageError(self._fault)
        return changed

    def write(self, answers: Answers) -> None:
        """Write these answers as a whole. Raises `OutputError`."""
        columns = ("id", self.results.answer_column, *["sample"] * bool(self.drawn))
        rows = [
            encode_row(id, one, *[self.drawn.get(id, "")] * bool(self.drawn))
            for id, one in answers.items()
        ]
        with (
            replacing(self.path) as partial,
            open(partial, "w", encoding="utf-8", newline="") as file,
        ):
            file.write("".join([encode_row(*columns), *rows]))
            file.flush()
            if self.path.exists():
                os.fchmod(file.fileno(), os.stat(self.path).st_mode)
            os.fsync(file.fileno())
            self._seen = describe(os.fstat(file.fileno()))
        self.answers = answers


@lru_cache(MAX_ROWS_KEPT)
def encode_row(id: str, *cells: object) -> str:
    """A row of CSV. The file is written with each answer, and few of its rows are new."""
    row = io.StringIO()
    csv.writer(row).writerow([guard_id(id), *cells])
    return row.getvalue()


def describe(found: os.stat_result) -> object:
    """What differs in another file, or after a change."""
    return found.st_ino, found.st_size, found.st_mtime_ns


class Desk:
    """Takes the answers of all pages, saves them, and tells all pages."""

    def __init__(self, file: AnswerFile, page: ReviewPage) -> None:
        self.file = file
        file.drawn |= {image.id: image.drawn for image in page.images if image.drawn}
        self.shown = {image.id: image.page or "" for image in page.images}
        self.connections: set[Connection] = set()
        self._waiting: dict[tuple[Connection, str], Asked] = {}  # by who asks, and the id
        self._trouble = ""  # why nothing is saved
        self._sum = self._first_sum = checksum(file.results.path)
        self._results_seen = describe(os.stat(file.results.path))
        shown = {*self.shown.values()}
        pages = read_pages(file.results) if file.form else ()
        self._pages = {one[0]["page"]: one for one in pages if one[0]["page"] in shown}
        self._first = {page: self._judge(page, {}) for page in self._pages}

    def join(self, connection: "Connection") -> None:
        """Tell a new page all."""
        self.connections.add(connection)
        connection.tell(self._describe(self.shown) | {"isWhole": True})

    def ask(self, connection: "Connection", request: Iterable[Asked]) -> None:
        """Save answers as soon as those that have arrived by now are known."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self.settle)
        self._waiting |= {(connection, one.id): one for one in request}

    def settle(self) -> None:
        """Save what waits, after what another program has written; then tell all pages. Called each
        second, too: what could not be saved is tried again."""
        if self.file.is_being_written:
            return
        try:
            self._check_results()
            changed = self.file.read_again()
            if changed:
                echo_err(f"{self.file.path} was changed: {plural(len(changed), 'other answer')}")
            contested = self._save()
            changed |= {id for _, id in self._waiting}
            if self._trouble:  # changes that were read meanwhile are not told yet
                changed |= self.shown.keys()
            self._waiting, trouble = {}, ""
        except (DigitqError, OSError) as error:
            changed, contested, trouble = set(), {}, in_one_line(str(error))
        if trouble and trouble != self._trouble:
            echo_err(f"answers are not saved: {trouble}")
        if changed or trouble != self._trouble:
            self._trouble = trouble
            message = self._describe(changed)
            for one in [*self.connections]:
                one.tell(message | {"contested": contested.get(one, [])})

    def _save(self) -> "dict[Connection, list[str]]":
        """Save what waits; gives the ids for which another person has given another answer."""
        answers, contested = {**self.file.answers}, defaultdict(list)
        for (connection, _), (id, answer, known) in self._waiting.items():
            if answers.get(id) not in (answer, *known):
                contested[connection].append(id)
            elif answer is None:
                answers.pop(id, None)
            else:
                answers[id] = answer
        if answers != self.file.answers or (answers and not self.file.path.exists()):
            self.file.write(answers)
        return contested

    def _check_results(self) -> None:
        """Raises `UsageError` if the results are not those of the page."""
        path = self.file.results.path
        if (now := describe(os.stat(path))) != self._results_seen:
            self._results_seen, self._sum = now, checksum(path)
        if self._sum != self._first_sum:
            raise UsageError(
                f"{path} has other results now: end `digitq review`, move {self.file.path} away, "
                "and start it anew"
            )

    def _describe(self, ids: Iterable[str]) -> dict[str, Any]:
        """What the pages are told about these ids, and about the rules that bind them."""
        ids = [id for id in ids if id in self.shown]
        rules: dict[str, list[Told]] = {}
        for page in dict.fromkeys(self.shown[id] for id in ids):
            if page in self._pages:
                rules |= self._compare(page)
        return {
            "answers": [(id, self.file.answers.get(id)) for id in ids],
            "rules": rules,
            "trouble": self._trouble,
        }

    def _compare(self, page: str) -> dict[str, list[Told]]:
        """By id, the rules that are broken, and those that only the answers have mended."""
        now = self._judge(page, self.file.answers)
        rules = {row["id"]: list[Told]() for row in self._pages[page]} | tell_rules(page, now)
        are_broken = [(one.rule, one.bound) for one in now]
        for broken in self._first[page]:
            for id in broken.ids if (broken.rule, broken.bound) not in are_broken else ():
                rules[id].append(Told("", broken.rule, "", False))
        return {id: each for id, each in rules.items() if id in self.shown}

    def _judge(self, page: str, answers: Answers) -> list[BrokenRule]:
        """The rules of the form that are broken with these answers."""
        form, rows = self.file.form, self._pages[page]
        return [*find_broken_rules(form, rows, select_written(rows, answers))] if form else []


class Connection(LiveConnection):
    """One page that is open."""

    def initialize(self, desk: Desk) -> None:
        self.desk = desk

    def open(self, *_: str, **__: str) -> None:
        self.desk.join(self)

    def on_message(self, message: str | bytes) -> None:
        try:
            desk, request = self.desk, REQUESTS.validate_json(message)
            for one in request:
                if one.id not in desk.shown:
                    raise ValueError(f"the page has no {in_one_line(one.id)}")
                if fault := find_fault(one.id, one.answer or "", desk.file.results, desk.file.form):
                    raise ValueError(fault)
        except ValueError as error:  # pydantic's is one
            self.tell({"trouble": in_one_line(str(error))})
        else:
            desk.ask(self, request)

    def on_close(self) -> None:
        self.desk.connections.discard(self)
