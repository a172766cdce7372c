"""Finds the pictures of result rows again: in folders, archives, tables and sets."""

import io
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import chdir
from datetime import datetime
from typing import NamedTuple

import PIL.Image
import pyarrow as pa

from producer.record import Record
from producer.sources.opening import open_sources
from producer.sources.source import Entry, UnreadableImageError, is_image_name
from protocol.chunk import ARRAY, PIXELS
from protocol.errors import UsageError


class Picture(NamedTuple):
    """The picture of one row: an image file's bytes, or why there is none, or what is odd."""

    id: str
    content: bytes | None
    problem: str | None = None
    is_array: bool = False  # it was 28×28 pixels, which a network sees as they are


def find_pictures(
    record: Record | None, sources: Sequence[str], ids: Collection[str]
) -> Iterator[Picture]:
    """The pictures of these rows, in the order of the images; those that are not found come last.

    They are looked for in `sources`, or where the record says that the images were. A picture of
    28×28 pixels becomes a PNG. Raises `UsageError` if no SOURCE is known, or if one of `sources`
    can't be read.
    """
    if sources or not record:
        folder, names, limit, finished = ".", [*sources], None, None
    else:
        folder, names, limit = record.folder or ".", [*record.sources], record.limit
        finished = datetime.fromisoformat(record.finished).timestamp()
    if not names:
        raise UsageError("where the images are is not on record: name their SOURCE")
    pictures = _find(names, limit, finished, dict.fromkeys(ids))
    while True:
        try:
            with chdir(folder):  # ids and SOURCEs are relative to it; the caller has another
                picture = next(pictures)
        except StopIteration:
            return
        except FileNotFoundError as error:
            if sources:
                raise
            yield from (Picture(id, None, f"{error.filename} is gone") for id in ids)
            return
        yield picture


def _find(
    names: list[str], limit: int | None, finished: float | None, missing: dict[str, None]
) -> Iterator[Picture]:
    if names == ["-"]:
        names = [*missing]  # the paths on stdin
    if all(map(is_image_name, names)):
        names = [*filter(os.path.exists, names)]
    problem = "not found"
    try:
        for item in open_sources(names, limit=limit).items if names else ():
            for picture in read_item(item, missing):
                del missing[picture.id]
                if finished is not None and changed_since(names, picture.id, finished):
                    problem_now = picture.problem or "it has changed since it was read"
                    picture = picture._replace(problem=problem_now)
                yield picture
            if not missing:
                break
    except UsageError as error:
        if finished is None:
            raise
        problem = str(error)
    yield from (Picture(id, None, problem) for id in missing)


def read_item(item: Entry | pa.RecordBatch, wanted: Collection[str]) -> Iterator[Picture]:
    """The wanted pictures in an item of a source."""
    if isinstance(item, Entry):
        if item.id in wanted:
            try:
                yield as_picture(item.id, item.read())
            except (OSError, UnreadableImageError) as error:
                yield Picture(item.id, None, getattr(error, "strerror", None) or str(error))
        return
    column = "pixels" if "pixels" in item.schema.names else "image"
    for place, id in enumerate(item.column("id").to_pylist()):
        if id in wanted:
            yield as_picture(id, item.column(column)[place].as_py())


def as_picture(id: str, content: bytes) -> Picture:
    """28×28 pixels as a PNG; any other bytes as they are."""
    pixels = content.removeprefix(ARRAY)
    if len(pixels) != PIXELS:
        return Picture(id, content)
    file = io.BytesIO()
    PIL.Image.frombytes("L", (28, 28), pixels).save(file, "PNG")
    return Picture(id, file.getvalue(), is_array=True)


def changed_since(sources: Sequence[str], id: str, seconds: float) -> bool:
    """Whether the file of an image, or the file of many that has it, was changed after this time.
    Ids of several sources begin with the source's name."""
    for source in sources:
        beside = os.path.join(os.path.dirname(source), id)  # as a list of files has them
        for path in (os.path.join(source, id), beside, id, source):
            if os.path.isfile(path):
                return os.stat(path).st_mtime > seconds + 1
    return False
