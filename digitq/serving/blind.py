"""A person reads blind: neither the page nor its server tells any answer."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from digitq.producer.readers import MACHINE
from digitq.producer.results import ResultFile, blind_path
from digitq.protocol.chunk import CORRECTED
from digitq.protocol.errors import DigitqError, UsageError
from digitq.protocol.text import in_one_line
from digitq.review.page import ReviewPage
from digitq.serving.answers import AnswerFile, Asked, Connection, Desk

INITIALS = re.compile(r"[^\W_][\w-]{0,19}")  # they are a part of a file's name
ALLOWED = "1 to 20 letters and digits, also - and _ after the first"
TROUBLE = "the terminal of digitq may say why"  # the reason itself may have an answer in it


class BlindDesk(Desk):
    """Takes the answers of one person, and says only which rows have one."""

    def put(self, page: ReviewPage) -> None:
        """Serve this page, in which rows have other names: their own may say what is on them."""
        self.ids = {image.id: str(image.row["id"]) for image in page.images}
        self.shown = {id: name for name, id in self.ids.items()}
        self.version += 1

    def save(self, request: Sequence[Asked]) -> None:
        """Save answers: the last one counts. Raises `UsageError` if none is."""
        self.look()
        mine = [one._replace(id=self.ids.get(one.id, "")) for one in request]
        try:
            super().save([one._replace(known=[self.file.answers.get(one.id)]) for one in mine])
        except (DigitqError, OSError):
            raise UsageError(TROUBLE) from None

    def tell(self, ids: Iterable[str], *to: Connection) -> None:
        """Tell pages, or else all of this person, which of these rows have an answer."""
        done = [(self.shown[id], id in self.file.answers) for id in ids if id in self.shown]
        for one in to or [*self.connections]:
            one.tell({"done": done, "trouble": TROUBLE * bool(self._trouble)})


class BlindDesks(dict[str, BlindDesk]):
    """The desk of each person, by the initials."""

    def __init__(self, results: ResultFile, page: ReviewPage) -> None:
        self.results, self.page = results, page

    def __missing__(self, initials: str) -> BlindDesk:
        """Make a desk. Raises `UsageError` if these can't be initials."""
        if not INITIALS.fullmatch(initials) or initials in (MACHINE, CORRECTED.name):
            raise UsageError(f"initials are {ALLOWED}")
        file = AnswerFile(self.results, blind_path(self.results.path, initials))
        return self.setdefault(initials, BlindDesk(file, self.page))

    def look(self) -> None:
        """Called each second, see `Desk.look`."""
        for desk in self.values():
            desk.look()


class BlindConnection(Connection):
    """The page of one person."""

    def initialize(self, desk: Any) -> None:
        self.desks: BlindDesks = desk

    def open(self, *_: str, **__: str) -> None:
        try:
            self.desk = self.desks[self.get_query_argument("initials", "")]
        except (DigitqError, OSError) as error:
            self.tell({"refused": in_one_line(str(error))})
            return self.close()
        super().open()

    def on_close(self) -> None:
        if hasattr(self, "desk"):  # it was not refused
            super().on_close()
