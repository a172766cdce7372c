"""The whole page beside the cards of its fields, while results are reviewed."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache

from digitq.producer.found_images import find_images
from digitq.producer.provenance import Record
from digitq.protocol.errors import UsageError
from digitq.review.thumbnails import make_thumbnail
from digitq.serving.server import Guarded

WHOLE_SIDES = (1600,)  # px: the longer side of the picture
KEPT_PICTURES = 32  # so many pictures are kept, of some 300 kB


def page_viewer(record: Record | None, sources: Sequence[str]) -> Callable[[str], str]:
    """Gives the picture of a page as a `data:` URL; "" if there is none."""

    @lru_cache(KEPT_PICTURES)
    def show(page: str) -> str:
        with suppress(UsageError):
            for found in find_images(record, sources, [page]):
                picture = make_thumbnail(found.content or b"", WHOLE_SIDES)
                return picture.uri if picture else ""
        return ""

    return show


class WholePage(Guarded):
    """Answers the id of a card with the picture of its page."""

    def initialize(self, pages: dict[str, str], show: Callable[[str], str]) -> None:
        self.pages, self.show = pages, show

    def get(self) -> None:
        # Not in a thread: images are looked for in the folder of the record, which becomes current
        page = self.pages.get(self.get_query_argument("id", ""))
        self.set_header("Content-Type", "text/plain")
        self.finish(self.show(page) if page else "")
