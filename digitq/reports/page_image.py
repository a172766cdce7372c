"""One image of the page of a result file, or one field of a page with a form."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from digitq.reports.scores import percent
from digitq.reports.thumbnails import Thumbnail
from protocol.chunk import CORRECTED
from protocol.text import in_one_line


@dataclass
class PageImage:
    """One image of the page."""

    row: dict[str, Any]
    number: int  # of the row in the file, from 0
    groups: list[str] = field(default_factory=list)  # why it is shown
    picture: Thumbnail | None = None
    seen: str | None = None  # the URI of the 28×28 px that the network saw
    problem: str | None = None  # why there is no picture, or how it may be wrong
    rules: dict[str, None] = field(default_factory=dict)  # those of the form that fail here

    def __post_init__(self) -> None:
        row, answer, truth = self.row, self.row.get("number"), self.row.get("truth")
        answer = row.get("label") if answer is None else answer
        self.id, self.page = str(row["id"]), row.get("page")
        self.cell = self.id.removeprefix(f"{self.page}/")  # of a page
        self.name = in_one_line(self.cell if self.page else self.id)
        # The row of a table, such as `marks/4`
        self.line = self.cell.rpartition("/")[0] if row.get("row") else ""
        self.answer, self.truth = (None if one is None else str(one) for one in (answer, truth))
        self.is_corrected = bool(row.get(CORRECTED.name))
        is_shown = row["confidence"] is not None and not self.is_corrected  # it is the network's
        self.confidence = percent(row["confidence"]) if is_shown else ""
        self.reason = in_one_line(row["error"] or row["reason"] or "")

    @property
    def boxes(self) -> list[Sequence[float]]:
        """What is framed in the picture, in its px: the field, or else the digits."""
        if self.picture and self.picture.box:
            return [self.picture.box]
        sides = itemgetter("left", "top", "right", "bottom")
        return [sides(digit) for digit in self.row.get("digits") or ()]
