"""Where images come from: each SOURCE becomes a stream of entries or of whole record batches.

Nothing here decodes an image. Names are listed a folder at a time, as they are read, since those
must be sorted; only a zip, and whoever asks for the count, goes through all of them first.
"""

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from producer.sources import archives, arrays, mnist
from producer.sources.archives import ARCHIVE_SUFFIXES
from producer.sources.folders import folder_source
from producer.sources.names import SkippedFiles, is_image_name
from producer.sources.parquet import parquet_source
from producer.sources.paths import paths_source, stdin_paths
from producer.sources.pixel_csv import pixel_csv_source
from producer.sources.source import EmptyError, PathName, Source, SourceItem, UniqueIds, take_first
from protocol.errors import UsageError
from protocol.text import printable

SUFFIXES = (".parquet", ".csv")


# Of files that are no image, named as SOURCE: one error row would pass for one bad image
FOREIGN_SETS = {
    *(".7z", ".bz2", ".gz", ".rar", ".xz", ".zst"),
    *(".arrow", ".feather", ".h5", ".json", ".jsonl", ".npz", ".orc", ".pkl", ".pt", ".xlsx"),
}


def open_sources(
    sources: PathName | Sequence[PathName],
    truth_from_parent: bool = False,
    limit: int | None = None,
) -> Source:
    """One or several SOURCEs, as the command line takes them, or the first `limit` images of them.

    With `truth_from_parent` the right answer is the name of an image's folder. Raises `UsageError`
    for a source that can't be read.

    One folder's ids are relative to it. Where there are several sources, each id begins with
    the source's name, so that no two images of a job share one.
    """
    if isinstance(sources, str | os.PathLike):
        sources = [sources]
    names = [os.fspath(source) for source in sources]
    if not names:
        raise UsageError("no SOURCE is named")
    if limit is not None and limit < 1:
        raise UsageError(f"a limit of {limit} images leaves none")
    if "-" in names and len(names) > 1:
        raise UsageError("- takes no other SOURCE beside it: put their paths on stdin too")
    _refuse_overlap(names)
    skipped = SkippedFiles()
    opened, items = _open_all(names, truth_from_parent, skipped)
    return Source(
        name=opened[0].name if len(names) == 1 else f"{opened[0].name} and {len(names) - 1} more",
        items=items if limit is None else take_first(items, limit),
        has_truth=any(source.has_truth for source in opened),
        count=lambda: _count([source.count for source in opened], limit),
        skipped=skipped,
    )


def _open_all(
    names: Sequence[str], truth_from_parent: bool, skipped: SkippedFiles
) -> tuple[list[Source], Iterable[SourceItem]]:
    """Each SOURCE, and the images of all. Where there are several, an empty one is passed over, and
    each is opened twice: at once, to see that it can be read, and when its turn comes, since a
    process may have only so many files open. Raises `UsageError`."""
    if len(names) == 1:
        source = _open(names[0], None, truth_from_parent, skipped)
        return [source], source.items
    sources, kept = [], []
    empty: EmptyError | None = None
    for name in names:
        try:
            source = _open(name, UniqueIds(), truth_from_parent, SkippedFiles())
        except EmptyError as error:
            empty = error
            skipped.skip(name, "empty SOURCE")
        else:
            sources.append(replace(source, items=()))
            kept.append(name)
    if empty and not sources:
        raise empty

    def items() -> Iterator[SourceItem]:
        unique = UniqueIds()
        for name in kept:
            try:
                yield from _open(name, unique, truth_from_parent, skipped).items
            except EmptyError:  # by now
                skipped.skip(name, "empty SOURCE")

    return sources, items()


def is_set(name: str) -> bool:
    """Whether a SOURCE is a file whose images have numbers for names."""
    return os.path.isfile(name) and name.lower().endswith((*SUFFIXES, *arrays.SUFFIXES))


def count_files(names: Sequence[str]) -> int | None:
    """How many images, where each SOURCE is an image file by its name; else None."""
    return len(names) if all(map(is_image_name, names)) else None


def _open(
    name: str, unique: "UniqueIds | None", truth_from_parent: bool, skipped: SkippedFiles
) -> Source:
    """One SOURCE; among several, with a name that is `unique`: some are written alike."""

    def prefix() -> str:
        return f"{unique(printable(os.path.normpath(name)))}/" if unique else ""

    if name == "-":
        return paths_source("paths on stdin", stdin_paths(), truth_from_parent)
    if not name:
        raise UsageError("a SOURCE is empty; the current folder is .")
    if name.startswith("mnist:"):
        return mnist.mnist_source(name.removeprefix("mnist:"))
    path = Path(name)
    _check_kind(name, path)
    if os.path.isdir(path):
        return folder_source(path, prefix(), truth_from_parent, skipped)
    if path.name.lower().endswith(ARCHIVE_SUFFIXES):
        return archives.archive_source(path, prefix(), truth_from_parent, skipped)
    if path.suffix.lower() in SUFFIXES:
        return table_source(path, prefix())
    if path.name.lower().endswith(arrays.SUFFIXES):
        return arrays.array_source(path, prefix())
    return paths_source(name, [name], truth_from_parent, unique)


def _check_kind(name: str, path: Path) -> None:
    """Raises `UsageError` where there is nothing of that name, or nothing that is read here."""
    sets = (*ARCHIVE_SUFFIXES, *SUFFIXES, *arrays.SUFFIXES)
    try:
        path.stat()
    except (OSError, ValueError) as error:
        nowhere = isinstance(error, FileNotFoundError) and not os.path.islink(path)
        if nowhere or not isinstance(error, OSError):  # such as for a 0 byte in it
            hint = "; MNIST's are mnist:test and mnist:train" if name.lower() == "mnist" else ""
            raise UsageError(f"no such file or folder: {name}{hint}") from None
        if is_image_name(name):
            return  # its row tells
        raise UsageError(f"can't read {name}: {error.strerror}") from None
    if os.path.isdir(path):
        return
    if not os.path.isfile(path) and name.lower().endswith(sets):
        raise UsageError(f"{name} is no file: a pipe, a socket or a device")
    if path.suffix.lower() in FOREIGN_SETS and not name.lower().endswith(sets):
        raise UsageError(
            f"{name} may be a whole set of images, of a kind that is not read here: "
            "`digitq classify --help` lists those that are"
        )


def _refuse_overlap(names: Sequence[str]) -> None:
    """Raise `UsageError` where one SOURCE is, or lies in, another."""
    named: dict[str, str] = {}  # by where it really is
    for name in names:
        path = os.path.realpath(name) if os.path.exists(name) else name
        if path in named:
            raise UsageError(f"{named[path]} and {name} overlap: name each image once")
        named[path] = name
    for path, name in named.items():
        folders = [*Path(path).parents]
        if os.path.islink(name) and not os.path.isdir(name):  # a folder has those in it, too
            folders += (Path(name).parent.resolve() / "link").parents
        for above in map(str, folders):
            if above in named:
                raise UsageError(f"{named[above]} and {name} overlap: name each image once")


def _count(counts: list[Callable[[], int | None]], limit: int | None) -> int | None:
    """The sum, as far as the limit; None where a part isn't known."""
    total = 0
    for count in counts:
        if (part := count()) is None:
            return None
        total += part
    return total if limit is None else min(total, limit)


def table_source(path: Path, prefix: str) -> Source:
    """The images of a table; an id is its row's number.

    The image column is the one called `image` or the only one that can be one: bytes, or a struct
    with `bytes`, as Hugging Face's data sets have it. Else 784 columns of whole numbers are pixels,
    row by row. A column of labels, numbers or text, is the truth, where it is a digit. Raises
    `UsageError` where there are no such columns.
    """
    try:
        is_csv = path.suffix.lower() == ".csv"
        return (pixel_csv_source if is_csv else parquet_source)(path, prefix)
    except (OSError, UnicodeError, csv.Error, pa.ArrowException) as error:
        raise UsageError(f"can't read {path}: {error}") from None
