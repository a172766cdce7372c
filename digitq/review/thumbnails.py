"""Small pictures for a page: an image, what the network saw of it, and the fields of a form."""

import io
import os
import subprocess
import sys
import warnings
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import PIL.Image
import PIL.ImageOps
import pyarrow as pa

from digitq.producer.found_images import FoundImage
from digitq.protocol.asked.form import Form
from digitq.protocol.asked.form_file import Box
from digitq.protocol.formats.drawer import render_page
from digitq.protocol.formats.pdf import PDF
from digitq.protocol.host.cores import usable_cores

THUMBNAIL_SIDES = (320, 224, 160, 96)  # px: the longer side; a smaller one if the file is too large
SURE_SIDES = THUMBNAIL_SIDES[2:]  # px: of a picture that is only shown among many
MAX_THUMBNAIL_BYTES = 10_000  # all pictures of a page then take less than 20 MB
TINY_SIDE = 64  # px: a picture up to this size is shown enlarged, pixel by pixel
MAX_CONVERTED_SIDE = 2048  # px: a larger picture loses pixels before it gets other colours
MAX_SHOWN_PIXELS = 100_000_000  # a larger picture would take too much memory
JPEG_QUALITY = 72
SHOW = [sys.executable, "-P", "-m", "digitq.worker", "show"]
# glibc then keeps the memory of a photo for the next one, which saves a fifth of the time
MAX_KEPT_BYTES = 256 << 20
MALLOC = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
KEEP_MEMORY = dict.fromkeys(MALLOC, str(MAX_KEPT_BYTES))
IMAGES_PER_EYE = 8  # a process takes about as long to start as to look at this many pages
MAX_ENDED = 5  # if this many images in a row end the process, no image is to blame
QUESTION = pa.schema([("image", pa.binary()), ("cells", pa.list_(pa.string()))])
# Pillow reads these itself; for other formats, such as EPS, it may start programs
THUMBNAIL_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP", "AVIF")


class Thumbnail(NamedTuple):
    """A picture within a page."""

    uri: str
    shown: tuple[int, int]  # px: width and height of the small picture
    width: int  # px: of the upright picture in the file
    height: int
    box: Box | None = None  # px of the upright picture: the field that it shows

    @property
    def is_tiny(self) -> bool:
        return max(self.shown) <= TINY_SIDE


def make_thumbnail(content: bytes, sides: Sequence[int] = THUMBNAIL_SIDES) -> Thumbnail | None:
    """The upright picture, small; `None` if it can't be shown."""
    formats = [*THUMBNAIL_FORMATS]
    if find_spec("pillow_heif"):
        from pillow_heif import register_heif_opener

        register_heif_opener()
        formats.append("HEIF")
    try:
        if content.startswith(PDF):
            return shrink(render_page(content), sides)
        with (
            warnings.catch_warnings(action="ignore"),
            PIL.Image.open(io.BytesIO(content), formats=formats) as image,
        ):
            return shrink(image, sides)
    except Exception:  # a decoder may raise anything
        return None


def shrink(image: PIL.Image.Image, sides: Sequence[int]) -> Thumbnail:
    """A picture that was opened, small and upright. Raises whatever its decoder does."""
    width, height = image.size
    if width * height > MAX_SHOWN_PIXELS:
        raise ValueError("too many pixels")
    side = sides[0]
    image.draft("RGB", (side, side))  # a large JPEG is decoded at a fraction of its size
    if image.mode in ("L", "RGB"):
        image.thumbnail((side, side))
    else:  # a conversion takes several copies in memory
        image.thumbnail((MAX_CONVERTED_SIDE, MAX_CONVERTED_SIDE), PIL.Image.Resampling.NEAREST)
    upright = PIL.ImageOps.exif_transpose(image)
    if upright.size != image.size:
        width, height = height, width
    image = upright
    if image.mode.startswith(("I", "F")):  # from its darkest to its lightest value
        values = np.asarray(image, np.float64)
        values = (values - values.min()) / max(np.ptp(values), 1e-9)
        image = PIL.Image.fromarray(np.uint8(values * 255))
    elif image.mode not in ("L", "RGB"):  # transparent parts are white
        ground = PIL.Image.new("RGBA", image.size, "white")
        image = PIL.Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")
    kind = "png" if max(width, height) <= TINY_SIDE else "jpeg"
    for side in sides:
        image.thumbnail((side, side))
        file = io.BytesIO()
        image.save(file, kind, quality=JPEG_QUALITY, optimize=True)
        if file.tell() <= MAX_THUMBNAIL_BYTES:
            break
    uri = f"data:image/{kind};base64,{b64encode(file.getvalue()).decode()}"
    return Thumbnail(uri, image.size, width, height)


class Eye:
    """Shows what the network sees of images, or where the fields of a form are on pages. The worker
    finds it, in a process."""

    _process: "subprocess.Popen[bytes] | None" = None  # it starts at the first image
    _ended = 0  # how many images in a row have ended the process
    _writer: pa.ipc.RecordBatchStreamWriter
    _reader: pa.ipc.RecordBatchStreamReader | None = None

    def __init__(self, form: Form | None = None) -> None:
        self.is_there = find_spec("cv2") is not None
        self._question = QUESTION.with_metadata({"form": form.encode()} if form else None)

    def show(self, content: bytes, cells: Sequence[str] = ("",)) -> list[Thumbnail | None]:
        """Strips of a page with these cells, or without a form one picture, the 28×28 px that the
        network sees; `None` for each that is not found."""
        shown: list[Thumbnail | None] = [None] * len(cells)
        if self._ended == MAX_ENDED or not self.is_there:
            return shown
        question = pa.record_batch([[content], [cells]], schema=self._question)
        try:
            if not self._process:
                pipe, null = subprocess.PIPE, subprocess.DEVNULL
                self._process = subprocess.Popen(
                    SHOW, stdin=pipe, stdout=pipe, stderr=null, env={**os.environ, **KEEP_MEMORY}
                )
                self._writer = pa.ipc.new_stream(self._process.stdin, self._question)
            self._writer.write_batch(question)
            if self._process.stdin:
                self._process.stdin.flush()
            self._reader = self._reader or pa.ipc.open_stream(self._process.stdout)
            for place, strip in enumerate(self._reader.read_next_batch().column(0).to_pylist()):
                picture = make_thumbnail(strip["picture"]) if strip else None
                shown[place] = picture and picture._replace(box=strip["box"])
            self._ended = 0
        except (OSError, StopIteration, pa.ArrowInvalid):  # an image has ended the process
            self.close()
            self._ended += 1
        return shown

    def close(self) -> None:
        """End the process."""
        if self._process:
            self._process.kill()
            with suppress(OSError):  # bytes that were not sent do not matter
                self._process.communicate()
            self._process = self._reader = None


class Eyes:
    """Several `Eye`s, at most one for each core, which look at images at the same time."""

    def __init__(self, form: Form | None, images: int) -> None:
        """Enough for this many images; a process starts when all others are busy."""
        count = max(1, min(usable_cores(), images // IMAGES_PER_EYE))
        self._idle = [Eye(form) for _ in range(count)]  # the one that was used last is at the end
        self._threads = ThreadPoolExecutor(count)
        self._max_waiting = 2 * count
        self.are_there = self._idle[0].is_there

    def look_at(
        self, images: Iterable[FoundImage], list_cells: Callable[[FoundImage], Sequence[str]]
    ) -> Iterator[tuple[FoundImage, list[Thumbnail | None]]]:
        """Yield the images, each with what `Eye.show` gives for those of its cells that are listed;
        the next ones are looked at meanwhile."""
        waiting: deque[tuple[FoundImage, Future[list[Thumbnail | None]]]] = deque()
        for image in images:
            shown = self._threads.submit(self._show, image.content or b"", list_cells(image))
            waiting.append((image, shown))
            if len(waiting) > self._max_waiting:
                first, shown = waiting.popleft()
                yield first, shown.result()
        for image, shown in waiting:
            yield image, shown.result()

    def _show(self, content: bytes, cells: Sequence[str]) -> list[Thumbnail | None]:
        if not cells:
            return []
        eye = self._idle.pop()  # there is one for each thread
        try:
            return eye.show(content, cells)
        finally:
            self._idle.append(eye)

    def close(self) -> None:
        """End the processes."""
        self._threads.shutdown(cancel_futures=True)
        for eye in self._idle:
            eye.close()
