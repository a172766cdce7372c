"""Finds the images of result rows again: in folders, archives, tables and sets."""

import io
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import chdir
from datetime import datetime
from typing import NamedTuple

import PIL.Image

from digitq.producer.provenance import Record
from digitq.producer.sources.objects import path_entries
from digitq.producer.sources.opening import count_files, open_source, prefix_of, refuse_overlap
from digitq.producer.sources.source import (
    EmptyError,
    Entry,
    Naming,
    SkippedFiles,
    SourceItem,
    UniqueIds,
)
from digitq.protocol.chunk import ARRAY, PIXELS, Kind, kind_of
from digitq.protocol.errors import UsageError
from digitq.protocol.formats import UnreadableImageError
from digitq.protocol.text import printable

NUMBER_MARK = re.compile(r"#\d+$")  # a page has it, or the second of two equal ids


class FoundImage(NamedTuple):
    """The bytes of one row's image. `problem` says why there are none, or that the file may have
    changed."""

    id: str
    content: bytes | None
    problem: str | None = None
    is_array: bool = False  # it was 28×28 pixels, which a network sees as they are


def find_images(
    record: Record | None, sources: Sequence[str], ids: Collection[str]
) -> Iterator[FoundImage]:
    """The images of these rows, in the order of the sources; those that are not found come last.

    They are looked for in `sources`, or where the record says that they were. While this goes on,
    the current folder is that of the record. 28×28 pixels become a PNG. Raises `UsageError` if one
    of `sources` can't be read.
    """
    missing = dict.fromkeys(ids, "not found")  # why each has no image
    if sources:
        refuse_overlap(sources)
        yield from _find([*sources], None, missing)
    elif record and record.sources:
        finished = datetime.fromisoformat(record.finished).timestamp()
        if record.more_sources:
            problem = "not found in the SOURCEs on record, which are not all: name the SOURCEs"
            missing = dict.fromkeys(ids, problem)
        try:
            with chdir(record.folder or "."):  # ids and SOURCEs are relative to it
                yield from _find([*record.sources], finished, missing)
        except OSError as error:
            reason = f"can't open the folder {record.folder}: {error.strerror}: name their SOURCE"
            missing = dict.fromkeys(missing, reason)
    else:
        missing = dict.fromkeys(ids, "no SOURCE is known: name it after the result file")
    yield from (FoundImage(id, None, problem) for id, problem in missing.items())


def _find(
    names: list[str], finished: float | None, missing: dict[str, str]
) -> Iterator[FoundImage]:
    """The images that can be read. They leave `missing`, which then says why there are no others.
    `finished` is when the rows were finished; None if the user has named the sources."""
    for name, items in _open_each(names, missing):
        try:
            for item in items:
                for found in read_item(item, missing):
                    path = find_file(found.id, name, len(names))
                    if finished is not None and path and changed_since(path, finished):
                        problem = found.problem or "it may have changed since it was read"
                        found = found._replace(problem=problem)
                    del missing[found.id]
                    yield found
                if not missing:
                    return
        except (UsageError, OSError) as error:
            if finished is None and not (isinstance(error, EmptyError) and len(names) > 1):
                raise UsageError(_reason(error)) from None
            hint = (
                "" if os.path.lexists(name) else f" in {os.getcwd()}: name its SOURCE if it moved"
            )
            for id in missing:
                own = printable(name), f"{printable(name)}#", prefix_of(name)
                if len(names) == 1 or id == own[0] or id.startswith(own[1:]):
                    missing[id] = _reason(error) + hint


def _open_each(
    names: list[str], missing: Collection[str]
) -> Iterator[tuple[str, Iterable[SourceItem]]]:
    """Each SOURCE with its images, opened when its first one is asked for."""
    if names == ["-"]:
        for id in [*missing]:  # each id is a path; the second of two equal paths ends in #2
            path = id if os.path.lexists(id) else NUMBER_MARK.sub("", id)
            if id in missing:  # it was not among the pages of an earlier path
                yield path, _read_file(path, id)
    elif count_files(names):
        for name in names:
            yield name, _read_file(name, printable(name))
    else:
        unique = UniqueIds() if len(names) > 1 else None
        for name in names:
            yield name, _read(name, unique)


def _read_file(path: str, id: str) -> Iterator[Entry]:
    """The image with this id, or the pages of the file."""
    naming = Naming(unique=lambda name: id if name == printable(path) else name)
    return path_entries(naming, path)


def _read(name: str, unique: UniqueIds | None) -> Iterator[SourceItem]:
    yield from open_source(name, unique, False, SkippedFiles()).items


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def read_item(item: SourceItem, wanted: Collection[str]) -> Iterator[FoundImage]:
    """The wanted images in an item of a source."""
    if isinstance(item, Entry):
        if item.id in wanted:
            try:
                yield make_found(item.id, item.read(), "image")
            except (OSError, UnreadableImageError) as error:
                yield FoundImage(item.id, None, _reason(error))
        return
    kind = kind_of(item)
    for index, id in enumerate(item.column("id").to_pylist()):
        if id in wanted:
            yield make_found(id, item.column(kind)[index].as_py(), kind)


def make_found(id: str, content: bytes | None, kind: Kind) -> FoundImage:
    """28×28 pixels as a PNG, or the bytes of an image file as they are."""
    if content is None:
        return FoundImage(id, None, "no image in this row")
    pixels = content.removeprefix(ARRAY)
    is_array = kind == "pixels" or (len(pixels) == PIXELS and content.startswith(ARRAY))
    if not is_array:
        return FoundImage(id, content)
    file = io.BytesIO()
    PIL.Image.frombytes("L", (28, 28), pixels).save(file, "PNG")
    return FoundImage(id, file.getvalue(), is_array=True)


def changed_since(path: str, seconds: float) -> bool:
    """Whether a file is there, and was changed, renamed or put there after this time."""
    if not os.path.isfile(path):
        return False
    found = os.stat(path)
    return max(found.st_mtime, found.st_ctime) > seconds + 1


def find_file(id: str, source: str, sources: int) -> str | None:
    """The file of an image, or the file of many that has it; None if there is none. If there are
    several `sources`, the id begins with the source's name."""
    if id == printable(source):
        return source
    rest = id.removeprefix(prefix_of(source)) if sources > 1 else id
    beside = os.path.join(os.path.dirname(source), rest)  # the source is a list of files
    document = os.path.join(source, NUMBER_MARK.sub("", rest))  # the image is one of its pages
    paths = os.path.join(source, rest), beside, rest, document, source
    return next(filter(os.path.isfile, paths), None)
