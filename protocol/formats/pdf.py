"""PDF documents, which pdfium opens and draws. Only one thread at a time may use it."""

import io
import math
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import IO, Any

import PIL.Image
import PIL.ImageChops

PDF = b"%PDF"  # how a document begins
PAGE_DPI = 200  # the resolution at which a page is drawn
POINTS_PER_INCH = 72
MAX_PAGE_PIXELS = 60_000_000  # a larger page, such as A0, is drawn at a lower resolution
DAMAGED_PAGE = "damaged: the page can't be read"
MAX_PAGE_SIDE = 1 << 16  # px: so is a longer one

pdfium_lock = threading.RLock()  # the end of a document, by Python's collector, may come within


class PageError(Exception):
    """Raised if a document or a page can't be read; its text becomes the error of a row."""


@contextmanager
def use_pdfium() -> Iterator[Any]:
    """The library, for this thread alone. Within this context, its errors become `PageError`."""
    import pypdfium2

    with pdfium_lock:
        try:
            yield pypdfium2
        except pypdfium2.PdfiumError as error:
            if "password" in str(error):
                raise PageError("encrypted: the PDF needs a password") from None
            raise PageError("damaged: the PDF can't be read, or has no pages") from None


@contextmanager
def open_pdf(content: bytes | IO[bytes]) -> Iterator[Any]:
    """The document in a file, or in its bytes, for this thread alone. Raises `PageError`."""
    with use_pdfium() as pdfium, closing(pdfium.PdfDocument(content)) as document:
        yield document


def count_pdf_pages(content: bytes) -> int:
    """How many pages a document has. Raises `PageError`."""
    with open_pdf(content) as document:
        return len(document)


def find_scale(width: float, height: float) -> float:
    """How many px a point becomes of a page with these sides in points.

    It is a little less, because pdfium rounds sides up: a scan at `PAGE_DPI` keeps its pixels.
    """
    fitting = math.sqrt(MAX_PAGE_PIXELS / (width * height)), MAX_PAGE_SIDE / max(width, height)
    return min(PAGE_DPI / POINTS_PER_INCH, *fitting) * (1 - 1e-6)


def measure_page(content: bytes) -> tuple[int, int]:
    """Width and height of what `draw_page` gives, in px. Raises `PageError`."""
    with open_pdf(content) as document:
        sides = document.get_page_size(0)  # pdfium does not look at what is on the page
        width, height = (math.ceil(side * find_scale(*sides)) for side in sides)
        return width, height


def draw_page(content: bytes) -> PIL.Image.Image:
    """The first page at `PAGE_DPI`, in grey if it has no colours. Raises `PageError`.

    It may take hours and end the process, so only `protocol/formats/drawer.py` calls it.
    """
    with open_pdf(content) as document:
        page = document[0]
        scale = find_scale(*page.get_size())
        with closing(page.render(scale=scale, rev_byteorder=True)) as bitmap:
            image: PIL.Image.Image = bitmap.to_pil()
    red, *others = image.split()
    is_grey = not any(PIL.ImageChops.difference(red, other).getbbox() for other in others)
    return red if is_grey else image


def cut_page(document: Any, index: int) -> bytes:
    """A page of an open document as a document of its own. Raises `PageError`."""
    file = io.BytesIO()
    try:
        with use_pdfium() as pdfium, closing(pdfium.PdfDocument.new()) as page:
            page.import_pages(document, [index])
            page.save(file)
    except PageError:
        raise PageError(DAMAGED_PAGE) from None
    return file.getvalue()
