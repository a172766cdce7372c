"""PDFs, and TIFFs of several pages: each page becomes an image file, and none is decoded."""

import atexit
import io
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cache, partial
from typing import IO, TypeAlias
from weakref import WeakSet

from digitq.producer.feeder import end_feeders
from digitq.producer.sources.source import Entry, Naming, open_file
from digitq.protocol.formats import UnreadableImageError
from digitq.protocol.formats.pdf import PageError, cut_page, use_pdfium
from digitq.protocol.formats.tiff import TIFF_ERRORS, TiffPages

MAX_HELD_BYTES = 32 << 20  # a PDF is opened anew after pages of this size, to free their memory


class PdfPages:
    """The pages of an open PDF. Raises `PageError` if it can't be read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._open()
        if not self._pages:
            raise PageError("no pages")
        open_pdfs.add(self)
        _close_at_exit()

    def __len__(self) -> int:
        return self._pages

    def cut(self, index: int) -> bytes:
        """A page as a file of its own. Raises `PageError`."""
        if self._held_bytes > MAX_HELD_BYTES:
            self._close()
            self._open()
        content = cut_page(self._document, index)
        self._held_bytes += len(content)
        return content

    def close(self) -> None:
        if not self._file.closed:  # else Python may be about to exit
            self._close()
            self._file.close()

    def _open(self) -> None:
        with use_pdfium() as pdfium:
            self._document = pdfium.PdfDocument(self._file)
            self._pages = len(self._document)
        self._held_bytes = 0  # pdfium keeps what it has read of a document

    def _close(self) -> None:
        with use_pdfium():
            self._document.close()


open_pdfs: WeakSet[PdfPages] = WeakSet()


@cache
def _close_at_exit() -> None:
    """Python runs the latest exit handler first: this one runs before pdfium's own, and after it
    pdfium can't be used. So feeders that may still cut pages have to end now."""

    @atexit.register
    def close() -> None:
        end_feeders()
        for pdf in [*open_pdfs]:
            pdf.close()


Pages: TypeAlias = PdfPages | TiffPages
DOCUMENTS: dict[str, Callable[[IO[bytes]], Pages]] = {
    ".pdf": PdfPages,
    ".tif": TiffPages,
    ".tiff": TiffPages,
}


def page_entries(
    naming: Naming,
    name: str,
    read: Callable[[], bytes],
    path: str = "",
    truth: str | None = None,
    file: str = "",
) -> Iterator[Entry]:
    """The image of this name, or one for each page of a PDF, and of a TIFF that has several.

    The arguments are those of `Naming.entry`. If the image is a `file` on disk, its pages are read
    from there one by one. A page can be read until the next one is asked for.
    """
    pages = _open_pages(file or name, lambda: open_file(file) if file else io.BytesIO(read()))
    if pages is None:
        yield naming.entry(name, read, path, truth)
        return
    with closing(pages):
        for index in range(len(pages)):
            yield naming.entry(f"{name}#{index + 1}", partial(_cut, pages, index), path, truth)


def _cut(pages: Pages, index: int) -> bytes:
    try:
        return pages.cut(index)
    except PageError as error:
        raise UnreadableImageError(str(error)) from None


def count_pages(path: str) -> int:
    """How many images the file is."""
    pages = _open_pages(path, lambda: open_file(path))
    if pages is None:
        return 1
    with closing(pages):
        return len(pages)


def is_document_name(name: str) -> bool:
    """Whether a file of this name may have pages."""
    return os.path.splitext(name.lower())[1] in DOCUMENTS


def _open_pages(name: str, open_content: Callable[[], IO[bytes]]) -> Pages | None:
    """The pages of a document; None if it can't be split, so that its row says what is wrong."""
    split = DOCUMENTS.get(os.path.splitext(name.lower())[1])
    if split is None:
        return None
    try:
        file = open_content()
    except (OSError, ValueError, UnreadableImageError):  # a 0 byte in a path raises ValueError
        return None
    try:
        return split(file)
    except (PageError, *TIFF_ERRORS):
        file.close()
        return None
