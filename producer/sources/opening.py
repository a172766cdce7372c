"""Opens a SOURCE of any kind as a stream of entries or record batches. No image is decoded here."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Any, TypeAlias

from digitq.producer.sources.archives import ARCHIVE_SUFFIXES, archive_source
from digitq.producer.sources.arrays import ARRAY_SUFFIXES, MNIST_NAMES, array_source, mnist_source
from digitq.producer.sources.documents import count_pages, is_document_name
from digitq.producer.sources.files import file_source, folder_source, stdin_paths
from digitq.producer.sources.image_tables import TABLE_SUFFIXES, table_source
from digitq.producer.sources.in_memory import Images, image_source
from digitq.producer.sources.objects import Copy, copy_object, objects_source, paths_source
from digitq.producer.sources.source import (
    EmptyError,
    Naming,
    SkippedFiles,
    Source,
    SourceItem,
    TruthGaps,
    UniqueIds,
    is_image_name,
    refuse_url,
    take_first,
    unreadable,
)
from digitq.producer.sources.truth import place_truths, read_truths, set_truths
from digitq.protocol.errors import UsageError
from digitq.protocol.formats.csv_rows import find_column
from digitq.protocol.formats.stores import find_object, is_stored
from digitq.protocol.origin import Origin
from digitq.protocol.settings import settings
from digitq.protocol.text import printable, shown, too_large

PathName: TypeAlias = str | os.PathLike[str]
SET_SUFFIXES = (*ARCHIVE_SUFFIXES, *TABLE_SUFFIXES, *ARRAY_SUFFIXES)
MAX_NAMES_BYTES = 1 << 14  # the SOURCEs on record take at most this: they go with each chunk
FOREIGN_SETS = {  # they are refused, because an error row would look like a single bad image
    *(".7z", ".bz2", ".gz", ".rar", ".xz", ".zst"),
    *(".arrow", ".feather", ".h5", ".json", ".jsonl", ".npz", ".orc", ".pkl", ".pt", ".xlsx"),
}


def open_sources(
    sources: PathName | Iterable[PathName],
    truth_from_parent: bool = False,
    limit: int | None = None,
    truth_file: PathName | None = None,
) -> Source:
    """Open one or several SOURCEs, as the command line takes them; at most `limit` images.

    With `truth_from_parent` the label of an image is the name of its folder. A `truth_file` is a
    CSV, an Excel or a Parquet file with the ids of images and their labels, or one of its columns,
    such as `FILE.csv:COLUMN`. An id is relative to its source; if there are several sources, it
    begins with the source's name, so that ids are unique. Paths from the folder of the file are
    taken for those of a single folder, too. Raises `UsageError` if a source or the file can't be
    read, or the file has no path in that folder.
    """
    if isinstance(sources, str | os.PathLike):
        sources = [sources]
    is_table = isinstance(sources, Mapping) or hasattr(sources, "__arrow_c_stream__")
    paths = [*sources] if isinstance(sources, Iterable) and not is_table else [None]
    names = [os.fspath(path) for path in paths if isinstance(path, str | os.PathLike)]
    if len(names) < len(paths):
        raise UsageError(
            f"open_sources takes a path or a list of paths, not a {type(sources).__name__}; "
            "`Client.submit` takes images that are in memory"
        )
    if not names:
        raise UsageError("no SOURCE was given")
    if limit is not None and limit < 1:
        raise UsageError(f"the limit is {limit} images: it must be at least 1")
    refuse_overlap(names)
    truths = {} if truth_file is None else read_truths(Path(truth_file))
    if truths and len(names) == 1 and os.path.isdir(names[0]):
        table, *_ = find_column(Path(os.fspath(truth_file or "")))
        truths = place_truths(truths, table, names[0])
    skipped = SkippedFiles()
    files = [name for name in names if is_set(name) and not is_stored(name)]  # others are copied
    changes = [*map(find_change, files)]
    opened, items = _open_all(names, truth_from_parent, skipped)
    if truths:
        items = set_truths(items, lambda id: truths.pop(id, None))
    return Source(
        name=opened[0].name if len(names) == 1 else f"{opened[0].name} and {len(names) - 1} more",
        items=_refuse_changed(items if limit is None else take_first(items, limit), files, changes),
        has_truth=bool(truths) or any(source.has_truth for source in opened),
        count=lambda: _count(opened, limit),
        skipped=skipped,
        origin=describe_origin(
            names,
            "parent" if truth_from_parent else printable(os.fspath(truth_file or "")) or None,
            limit,
        ),
        gaps=TruthGaps(unused=truths if limit is None else {}),
        truths=truths,
    )


def open_images(images: Images) -> tuple[Source, int | None]:
    """What Python gives as a source: a path or a list of paths as `open_sources` opens them, or
    images as `image_source` takes them; and their number if it is known at once.

    Several paths that end as images do are not opened as SOURCEs: one that is missing becomes a row
    with an error. Raises `UsageError`.
    """
    is_one = isinstance(images, str | os.PathLike)
    paths: Any = [images] if is_one else images
    if isinstance(paths, list | tuple) and all(isinstance(one, str | os.PathLike) for one in paths):
        files = count_files([os.fspath(path) for path in paths])
        if is_one or files is None:
            return open_sources(paths), files
    source = image_source(images)
    return source, source.count()


def reopen(images: Images) -> Callable[[], Source]:
    """A function that opens the same images each time. Raises `UsageError` if they can be read only
    once."""
    items = images if isinstance(images, list | tuple) else [images]
    parts = [part for one in items for part in (one if isinstance(one, tuple) else [one])]
    if isinstance(images, Iterator) or any(hasattr(part, "read") for part in parts):
        raise UsageError(
            "adapting reads the images more than once: give a list or a path, and not an open file "
            "or what can be iterated over only once"
        )
    return lambda: open_images(images)[0]


def describe_origin(names: Sequence[str], truth: str | None, limit: int | None) -> Origin:
    """What is on record of these SOURCEs. Names that take more than `MAX_NAMES_BYTES` are cut; if
    they are image files, they are recorded as `-`, paths on stdin, because each path is an id."""
    sources = [printable(shown(name)) for name in names]
    sizes = accumulate(len(source.encode()) for source in sources)
    kept = sum(1 for _ in takewhile(MAX_NAMES_BYTES.__ge__, sizes))
    if kept < len(sources) and count_files(names):
        sources, kept = ["-"], 1
    folder = ""
    with suppress(FileNotFoundError):  # it has been removed
        folder = printable(os.getcwd())
    return Origin(tuple(sources[:kept]), folder, truth, limit, more_sources=len(sources) - kept)


def _open_all(
    names: Sequence[str], truth_from_parent: bool, skipped: SkippedFiles
) -> tuple[list[Source], Iterable[SourceItem]]:
    """Each SOURCE, and the images of all. If there are several, empty ones are skipped, and each is
    opened twice: now, to check that it can be read, and again when its turn comes, because the
    number of open files is limited."""
    if len(names) == 1:
        source = open_source(names[0], None, truth_from_parent, skipped)
        return [source], source.items
    sources: dict[str, Source] = {}
    for name in names:
        try:
            source = open_source(name, UniqueIds(), truth_from_parent, SkippedFiles())
        except EmptyError as error:
            empty = error
            skipped.skip(name, "empty SOURCE")
        else:
            sources[name] = replace(source, items=())
    if not sources:
        raise empty

    def items() -> Iterator[SourceItem]:
        unique = UniqueIds()
        for name in sources:
            try:
                yield from open_source(name, unique, truth_from_parent, skipped).items
            except EmptyError:  # it was emptied since the first check
                skipped.skip(name, "empty SOURCE")

    return [*sources.values()], items()


def is_set(name: str) -> bool:
    """Whether a SOURCE is a file of several images: if it changes, an id may get another image."""
    file_name = shown(name).lower()
    is_one = file_name.endswith(SET_SUFFIXES) or is_document_name(file_name)
    return is_one and (is_stored(name) or os.path.isfile(name))


def find_change(name: PathName) -> int | None:
    """What differs if a file, or an object in a store, has changed."""
    if is_stored(url := os.fspath(name)):
        found = find_object(url)
        return found.modified or found.size
    with suppress(OSError):  # whoever reads the file says what is wrong
        return os.stat(name).st_mtime_ns
    return None


def _refuse_changed(
    items: Iterable[SourceItem], files: Sequence[str], changes: Sequence[int | None]
) -> Iterator[SourceItem]:
    """Yield the items unchanged. Raises `UsageError` at their end if a file has changed meanwhile.

    A file that is gone was open until here, so it is as it was.
    """
    yield from items
    for name, change in zip(files, changes, strict=True):
        if find_change(name) not in (None, change):
            raise UsageError(
                f"{name} was written while it was read, so images of both versions may be mixed: "
                "start again"
            )


def count_files(names: Sequence[str]) -> int | None:
    """How many images there are if each SOURCE is an image file, whose path is in the ids; else
    None."""
    are_files = all(is_image_name(name) and not os.path.isdir(name) for name in names)
    return sum(map(count_pages, names)) if are_files else None


def prefix_of(name: str) -> str:
    """What the ids of a SOURCE with many images begin with, if it is one of several."""
    return printable(shown(name).rstrip("/") if is_stored(name) else os.path.normpath(name)) + "/"


def open_source(
    name: str, unique: UniqueIds | None, truth_from_parent: bool, skipped: SkippedFiles
) -> Source:
    """Open one SOURCE; one of several gets an id prefix that is `unique`."""
    naming = Naming("", unique or UniqueIds(), truth_from_parent, skipped)
    if name == "-":
        return paths_source("paths on stdin", stdin_paths(), naming)
    if not name:
        raise UsageError("a SOURCE is an empty string; the current folder is .")
    if name.startswith("mnist:"):
        return mnist_source(name.removeprefix("mnist:"))
    if is_stored(name):
        return _open_stored(name, naming, unique)
    path = Path(name)
    _check_kind(name, path)
    return _open_path(name, path, naming, unique)


def _open_path(name: str, path: Path, naming: Naming, unique: UniqueIds | None) -> Source:
    """Open what is at the path; the ids have its name."""
    is_folder, file_name = os.path.isdir(path), path.name.lower()
    if not is_folder and not file_name.endswith(SET_SUFFIXES):
        return file_source(name, str(path), naming)
    naming = _name_many(name, naming, unique)
    if is_folder:
        return folder_source(path, naming)
    if file_name.endswith(ARCHIVE_SUFFIXES):
        return archive_source(path, naming)
    if file_name.endswith(TABLE_SUFFIXES):
        return table_source(path, naming)
    return array_source(path, naming.prefix)


def _name_many(name: str, naming: Naming, unique: UniqueIds | None) -> Naming:
    """The naming of the images in a SOURCE that has many."""
    prefix = f"{unique(prefix_of(name)[:-1])}/" if unique else ""
    return replace(naming, prefix=prefix, unique=UniqueIds())


def _open_stored(url: str, naming: Naming, unique: UniqueIds | None) -> Source:
    """Open a folder in a store, or a copy of an object. Raises `UsageError`."""
    found, name = find_object(url), shown(url)
    if found.is_folder:
        return objects_source(url.rstrip("/"), _name_many(name, naming, unique))
    _refuse_foreign(name, Path(name))
    limit = settings().image_bytes
    is_image = not (name.lower().endswith(SET_SUFFIXES) or is_document_name(name))
    if is_image and (found.size or 0) > limit:
        entry = naming.entry(name, unreadable(too_large(limit)))
        return Source(name, [entry], naming.truth_from_parent, lambda: 1)
    copy = copy_object(url, found)
    naming.folder = name.rpartition("/")[0]
    try:
        source = _open_path(name, copy.path, naming, unique)
    except UsageError as error:
        raise type(error)(str(error).replace(str(copy.path), name)) from None

    return replace(
        source,
        name=name,
        items=_hold(source.items, copy),
        count=lambda: source.count() if copy else None,
    )


def _hold(items: Iterable[SourceItem], copy: Copy) -> Iterator[SourceItem]:
    """Yield the items unchanged; the copy that they are read from lives until the last one."""
    yield from items


def _check_kind(name: str, path: Path) -> None:
    """Raises `UsageError` if there is nothing of that name, or its kind is not supported."""
    refuse_url(name)
    try:
        path.stat()
    except (OSError, ValueError) as error:
        nowhere = isinstance(error, FileNotFoundError) and not os.path.islink(path)
        if nowhere or not isinstance(error, OSError):  # it has a 0 byte
            hint = f"; MNIST's are {MNIST_NAMES}" if name.lower() == "mnist" else ""
            raise UsageError(f"no such file or folder: {name}{hint}") from None
        if is_image_name(name):
            return  # it becomes a row with the error
        raise UsageError(f"can't read {name}: {error.strerror}") from None
    if os.path.isdir(path):
        return
    if path.name.lower().endswith(SET_SUFFIXES) and not os.path.isfile(path):
        raise UsageError(f"{name} is not a file, but a pipe, a socket or a device")
    _refuse_foreign(name, path)


def _refuse_foreign(name: str, path: Path) -> None:
    """Raises `UsageError` for the file of a set whose format is not supported."""
    if path.suffix.lower() in FOREIGN_SETS and not path.name.lower().endswith(SET_SUFFIXES):
        raise UsageError(
            f"{name} may be a set of images in a format that is not supported: "
            "`digitq classify --help` lists the formats that are"
        )


def refuse_overlap(names: Sequence[str]) -> None:
    """Raises `UsageError` if one SOURCE is, or is inside, another, or may be, as `-`."""
    if "-" in names and len(names) > 1:
        raise UsageError("no other SOURCE can be given with -: put their paths on stdin too")
    named: dict[str, str] = {}  # the name of each source by its real path
    for name in names:
        path = os.path.realpath(name) if os.path.exists(name) else name
        if is_stored(name):
            path = str(Path(name))  # as `parents` writes it
        if path in named:
            raise UsageError(f"{named[path]} and {name} overlap: name each image once")
        named[path] = name
    for path, name in named.items():
        folders = [*Path(path).parents]
        if os.path.islink(name) and not os.path.isdir(name):  # the link is inside these folders too
            folders += (Path(name).parent.resolve() / "link").parents
        for above in map(str, folders):
            if above in named:
                raise UsageError(f"{named[above]} and {name} overlap: name each image once")


def _count(sources: list[Source], limit: int | None) -> int | None:
    """How many images all sources have, at most `limit`; None if one does not know."""
    total = 0
    for source in sources:
        if (part := source.count()) is None:
            return None
        total += part
    return total if limit is None else min(total, limit)
