"""The whole page beside the cards of its fields. A person may show where the form is on it."""

import asyncio
import json
from asyncio import Future
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property, lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, TypeVar

import pyarrow as pa
from pydantic import Field, TypeAdapter

from digitq.producer.found_images import find_images
from digitq.producer.provenance import Record, all_weights
from digitq.producer.read_again import PageAgain, again_path, write_pages_again
from digitq.producer.results import ResultFile, open_results
from digitq.protocol.asked.reading import Reading
from digitq.protocol.asked.reading import form as read_with
from digitq.protocol.chunk import ABSENT, PAGE_SCHEMA, name_rows
from digitq.protocol.errors import DigitqError, UsageError
from digitq.protocol.prediction import NumberPrediction
from digitq.protocol.text import in_one_line, plural
from digitq.review.page import ReviewPage
from digitq.review.thumbnails import make_thumbnail
from digitq.serving.answers import Desk
from digitq.serving.editor import WORKERS, run_worker
from digitq.serving.server import Guarded
from digitq.terminal import echo_err

WHOLE_SIDES = (1600,)  # px: the longer side of the picture
KEPT_PICTURES = 32  # so many pictures are kept, of some 300 kB
# Pictures are found in the folder of the record, which becomes the current one meanwhile. So one
# thread does this, and all others name files by whole paths
FINDER = ThreadPoolExecutor(1)
T = TypeVar("T")
Share = Annotated[float, Field(ge=-1, le=2)]
PLACED_CORNERS = TypeAdapter(
    Annotated[list[tuple[Share, Share]], Field(min_length=4, max_length=4)]
)


class WholePages:
    """The pages of the cards at a desk."""

    def __init__(
        self, desk: Desk, make: Callable[[ResultFile], ReviewPage], sources: Sequence[str]
    ) -> None:
        self.desk, self.make, self.sources = desk, make, sources
        self.show = lru_cache(KEPT_PICTURES)(self._show)

    def find(self, page: str) -> bytes:
        """The file of a page. Raises `UsageError` if it is not found."""
        record = self.desk.file.results.record
        found = next(find_images(record, self.sources, [page] if page else []), None)
        if not found or not found.content:
            raise UsageError(f"the page is {found and found.problem or 'not shown here'}")
        return found.content

    def _show(self, page: str) -> str:
        """The picture of a page as a `data:` URL; "" if there is none."""
        with suppress(UsageError):
            picture = make_thumbnail(self.find(page), WHOLE_SIDES)
            return picture.uri if picture else ""
        return ""

    @cached_property
    def reading(self) -> Reading[dict[str, NumberPrediction]]:
        """How the pages were read. Raises `UsageError`."""
        if not (form := self.desk.file.form):
            raise UsageError("the form is not on record, or can't be read any more")
        record = self.record
        return read_with(
            form, risk=record.risk, like=record.like, second_reader=record.second_reader
        )

    @property
    def record(self) -> Record:
        if not (record := self.desk.file.results.record):
            raise UsageError("the results have no record: nobody knows how they were read")
        return record

    def read(self, page: str, content: bytes, corners: list[tuple[float, float]]) -> PageAgain:
        """Read a page whose form has these corners. Raises `UsageError` if it can't be read, or if
        a random sample would have been drawn otherwise with its new rows."""
        if self.desk.file.drawn:
            raise UsageError("a random sample is drawn from the rows: read pages again before that")
        with TemporaryDirectory() as folder:
            paths = {name: str(Path(folder, name)) for name in ("known", "page", "out")}
            Path(paths["known"]).write_bytes(self.reading.known)
            Path(paths["page"]).write_bytes(content)
            status, text, error = run_worker("form", json.dumps(paths | {"corners": corners}))
            if status:
                raise UsageError(error.strip().splitlines()[-1].removeprefix("digitq: "))
            picture = Path(paths["out"]).read_bytes()
        found, known = json.loads(text), all_weights(self.record.parts)
        if known and found["weights"] not in known:
            raise UsageError(
                f"the pages were read with other weights ({', '.join(known)}): start `digitq "
                "review` with DIGITQ_WEIGHTS set to their folder"
            )
        errors = {row["error"] for row in found["rows"] if row["reason"] != ABSENT}
        if None not in errors:
            raise UsageError(" / ".join(errors))
        places = ((cell.table or None, cell.row or None, cell.field) for cell in self.reading.cells)
        rows = [
            {"page": page, "table": table, "row": row, "field": field} | one
            for (table, row, field), one in zip(places, found["rows"], strict=True)
        ]
        return PageAgain(name_rows(pa.RecordBatch.from_pylist(rows, PAGE_SCHEMA)), picture)

    async def put(self, page: str, again: PageAgain) -> None:
        """Keep a page that was read again, and show it. Raises `OutputError`."""
        file = self.desk.file
        path, pages = file.results.path, {**file.results.again, page: again}
        write_pages_again(again_path(path), self.record, pages)
        file.results = open_results(path)
        echo_err(f"{in_one_line(page)} was read again: {plural(again.rows.num_rows, 'field')}")
        self.desk.put(await run_with(FINDER, self.make, file.results))

    async def answer(self, page: str, body: bytes) -> str:
        """Read a page whose form has the corners in a message; gives what is wrong, in words."""
        try:
            corners = PLACED_CORNERS.validate_json(body)
            content = await run_with(FINDER, self.find, page)
            await self.put(page, await run_with(WORKERS, self.read, page, content, corners))
        except DigitqError as error:
            return in_one_line(error.for_others)
        except OSError as error:
            return str(error.strerror or error)
        except ValueError:  # that of pydantic
            return "a form has four corners, each with two numbers"
        return ""


def run_with(threads: ThreadPoolExecutor, call: Callable[..., T], *given: Any) -> "Future[T]":
    return asyncio.get_running_loop().run_in_executor(threads, call, *given)


class WholePage(Guarded):
    """Answers the id of a card with the picture of its page, and corners of the form on it with
    what is wrong, if anything is."""

    def initialize(self, pages: WholePages) -> None:
        self.pages = pages

    def find_page(self) -> str:
        return self.pages.desk.shown.get(self.get_query_argument("id", ""), "")

    async def get(self) -> None:
        self.set_header("Content-Type", "text/plain")
        self.finish(await run_with(FINDER, self.pages.show, self.find_page()))

    async def post(self) -> None:
        self.finish({"problem": await self.pages.answer(self.find_page(), bytes(self.received))})
