"""Reads the image that `digitq inspect` or `form show` is to draw, and writes the drawing."""

import io
import os
import re
import signal
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from itertools import chain, count
from pathlib import Path

import PIL.Image
from PIL.PngImagePlugin import PngInfo

from digitq.protocol.errors import OutputError, UsageError
from digitq.protocol.formats.pdf import PageError, cut_page, open_pdf
from digitq.protocol.formats.tiff import TIFF_ERRORS, TiffPages
from digitq.protocol.host.folders import check_folder
from digitq.protocol.settings import INSPECT_SUFFIX, settings
from digitq.protocol.text import in_one_line, plural, too_large
from digitq.worker.sight.decoding.pillow import prepare_libraries

PAGE_OF = re.compile(r"(.+\.(?:pdf|tiff?))#([1-9]\d*)", re.IGNORECASE)  # as SOURCEs name pages
SOFTWARE = "digitq inspect"  # the program's name in the PNG file
# What is printed, the picture if there is one, and the exit status
Inspected = tuple[list[str], PIL.Image.Image | None, int]


def draw_file(
    path: Path, out: Path | None, content: bytes, look: Callable[[bytes, str], Inspected]
) -> int:
    """Save the picture and print the lines that `look` gives for a file; gives the exit status.

    Raises `UsageError`, `OutputError`.
    """
    prepare_libraries()  # `check_out` and `choose_out` open pictures, too
    if out:
        check_out(out)
    source = ascii(os.path.realpath(path))[1:-1]
    out = out or choose_out(path, source)
    lines, picture, status = look(content, in_one_line(path.name))
    if picture:
        save_picture(picture, out, source)
    print(*lines, sep="\n")
    if picture:
        print(f"the picture is {in_one_line(str(out))}", file=sys.stderr)
    return status


def read(path: Path) -> bytes:
    """The bytes of an image file, or of a page such as `scan.pdf#3`. Raises `UsageError`."""
    if (page := PAGE_OF.fullmatch(str(path))) and not path.exists():
        return read_page(Path(page[1]), int(page[2]))
    limit = settings().image_bytes
    if path.is_dir():
        raise UsageError(f"{path} is a folder: pass the images in it")
    try:
        with open(path, "rb") as file:
            content = file.read(limit + 1)
    except FileNotFoundError:
        raise UsageError(f"no such file or folder: {path}") from None
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}") from None
    if len(content) > limit:
        raise UsageError(f"{path} is {too_large(limit)}")
    return content


def read_page(path: Path, number: int) -> bytes:
    """A page of a document, as a SOURCE gives it. Raises `UsageError`."""
    is_pdf = path.suffix.lower() == ".pdf"
    try:
        with (
            open(path, "rb") as file,
            open_pdf(file) if is_pdf else closing(TiffPages(file)) as pages,
        ):
            if number > len(pages):
                raise UsageError(f"{path} has {plural(len(pages), 'page')}: there is no #{number}")
            return cut_page(pages, number - 1) if is_pdf else pages.cut(number - 1)
    except (PageError, *TIFF_ERRORS) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"can't read page {number} of {path}: {reason}") from None


def check_out(out: Path) -> None:
    """Raises `UsageError` if the picture would replace a file that `inspect` has not made."""
    if out.suffix.lower() != ".png":
        raise UsageError(f"--out {out} must end in .png")
    check_folder(out)
    if out.exists() and drawn_from(out) is None:
        raise UsageError(f"{out} exists, and digitq has not drawn it: choose another --out")


def choose_out(path: Path, source: str) -> Path:
    """The first name that is free, or that has an earlier picture of the same image."""
    endings = chain([""], (f"-{number}" for number in count(2)))
    names = (Path(f"{path.stem}{ending}{INSPECT_SUFFIX}") for ending in endings)
    return next(out for out in names if not out.exists() or drawn_from(out) == source)


def drawn_from(path: Path) -> str | None:
    """The image that `inspect` drew this picture from; `None` if `inspect` has not made it."""
    with suppress(OSError, SyntaxError, ValueError), PIL.Image.open(path) as picture:
        if picture.info.get("Software") == SOFTWARE:
            return str(picture.info.get("Source"))
    return None


def save_picture(picture: PIL.Image.Image, out: Path, source: str) -> None:
    """Write the picture as a PNG that names its image. Raises `OutputError`."""
    partial, content, info = out.with_name(out.name + ".partial"), io.BytesIO(), PngInfo()
    info.add_text("Software", SOFTWARE)
    info.add_text("Source", source)
    picture.save(content, "PNG", pnginfo=info)
    # Ctrl-C ends this process at once; here it waits until the partial file is gone
    interrupts: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, frame: interrupts.append(number))
    try:
        partial.write_bytes(content.getvalue())
        partial.replace(out)
    except OSError as error:
        raise OutputError(f"can't write {out}: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            partial.unlink()
        signal.signal(signal.SIGINT, handler)
    if interrupts:
        signal.raise_signal(signal.SIGINT)
