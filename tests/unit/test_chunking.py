"""Pieces of any kind and size become chunks that lose nothing and keep to their limits."""

import os
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from digitq.producer.chunking import BOUNDS, MAX_FILES
from digitq.producer.counts import Counts, add_ids
from digitq.producer.sources.arrays import number_ids
from digitq.producer.sources.contents import READ_FILES
from digitq.producer.sources.in_memory import image_source
from digitq.producer.sources.objects import paths_source
from digitq.producer.sources.opening import open_sources
from digitq.producer.sources.source import (
    Entry,
    Naming,
    SourceItem,
    UnreadableImageError,
    take_first,
)
from digitq.protocol.chunk import MODEL_ROWS, TILE_ROWS, kind_of, pixels_batch
from digitq.protocol.errors import UsageError
from digitq.protocol.settings import settings
from digitq.protocol.text import printable
from tests.cutting import cut_items
from tests.drawing import random_digits


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITQ_CHUNK_ROWS", "8")
    monkeypatch.setenv("DIGITQ_CHUNK_BYTES", "10000")


def make_pieces(sizes: list[tuple[str, int]]) -> list[SourceItem]:
    """Entries of so many bytes, and batches of so many rows, numbered through."""
    items: list[SourceItem] = []
    number = 0
    for kind, size in sizes:
        if kind == "entry":
            content = bytes([number % 256]) * size
            items.append(Entry(str(number), lambda content=content: content))  # type: ignore[misc]
            number += 1
        elif size:
            pixels = random_digits(size).reshape(size, 784)
            items.append(pixels_batch(number_ids("", number, size), pixels))
            number += size
    return items


pieces_strategy = st.lists(
    st.one_of(
        st.tuples(st.just("entry"), st.integers(0, 20_000)),
        st.tuples(st.just("batch"), st.integers(0, 30)),
    ),
    max_size=40,
)


def ids(chunks: list[pa.RecordBatch]) -> list[str]:
    return [id for batch in chunks for id in batch.column("id").to_pylist()]


@given(pieces_strategy)
def test_every_image_is_in_one_chunk_in_order(sizes: list[tuple[str, int]]) -> None:
    chunks = list(cut_items(make_pieces(sizes)))
    rows = ids([chunk.batch for chunk in chunks])
    assert rows == [str(number) for number in range(len(rows))]
    assert len(rows) == sum(size if kind == "batch" else 1 for kind, size in sizes)
    assert [chunk.first_row for chunk in chunks] == [
        int(c.batch.column("id")[0].as_py()) for c in chunks
    ]


@given(pieces_strategy)
def test_chunks_keep_to_their_limits(sizes: list[tuple[str, int]]) -> None:
    for chunk in cut_items(make_pieces(sizes)):
        assert 1 <= chunk.rows <= 8
        assert chunk.batch.nbytes <= 10_400 or chunk.rows == 1


@given(pieces_strategy, st.integers(0, 100))
def test_a_resumed_source_goes_on_where_it_was(sizes: list[tuple[str, int]], rows: int) -> None:
    whole = ids([chunk.batch for chunk in cut_items(make_pieces(sizes))])
    rows = min(rows, len(whole))
    written = written_of(whole[:rows])
    rest = list(cut_items(make_pieces(sizes), resume=written))
    assert ids([chunk.batch for chunk in rest]) == whole[rows:]
    assert not rest or rest[0].first_row == rows


@given(pieces_strategy, st.integers(1, 100) | st.just(10**20))
def test_a_limit_takes_the_first_images(sizes: list[tuple[str, int]], limit: int) -> None:
    whole = ids([chunk.batch for chunk in cut_items(make_pieces(sizes))])
    first = cut_items(take_first(make_pieces(sizes), limit))
    assert ids([chunk.batch for chunk in first]) == whole[:limit]


def written_of(ids: list[str]) -> Counts:
    return Counts(len(ids), add_ids(0, pa.array(ids, pa.string())))


@pytest.mark.parametrize(
    "written",
    [written_of(["0", "1", "9"]), written_of(["9", "1", "2"]), written_of([*map(str, range(50))])],
    ids=["the last is another", "the first is another", "there were more"],
)
def test_a_source_that_has_changed_is_not_resumed(written: Counts) -> None:
    items = make_pieces([("entry", 5)] * 10 + [("batch", 10)])
    with pytest.raises(UsageError, match="the source has changed"):
        list(cut_items(items, resume=written))


def test_skipped_files_are_not_read() -> None:
    def refuse() -> bytes:
        raise AssertionError("read")

    items = [Entry("0", refuse), Entry("1", lambda: b"one")]
    (chunk,) = cut_items(items, resume=written_of(["0"]))
    assert chunk.batch.column("image").to_pylist() == [b"one"]


def test_a_file_that_can_t_be_read_is_a_row_with_an_error(tmp_path: Path) -> None:
    def unreadable() -> bytes:
        raise UnreadableImageError("larger than 64 MB")

    gone = next(iter(open_sources([_touch(tmp_path / "gone.png")]).items))
    os.unlink(tmp_path / "gone.png")
    items = [gone, Entry("big", unreadable, "3"), *paths_source("x", ["a\0b.png"], Naming()).items]
    (chunk,) = cut_items(items, has_truth=True)
    assert chunk.batch.column("image").to_pylist() == [None] * 3
    *errors, null = chunk.batch.column("error").to_pylist()
    assert errors == ["can't be read: No such file or directory", "larger than 64 MB"]
    assert re.fullmatch(r"can't be read: .*embedded null .*", null)  # in Python's words
    assert pa.array(chunk.truth).to_pylist() == [None, 3, None]


def test_large_files_fill_their_chunks() -> None:
    """Of 10,000 bytes: three files of 3,000, whatever came before."""
    items = make_pieces([("entry", 3000)] * 12)
    assert [chunk.rows for chunk in cut_items(items)] == [3] * 4
    assert [
        chunk.rows for chunk in cut_items(items, resume=written_of(["0", "1", "2", "3", "4"]))
    ] == [3, 3, 1]


def test_files_travel_in_smaller_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITQ_CHUNK_ROWS", "2048")
    settings.cache_clear()
    chunks = cut_items(make_pieces([("entry", 1)] * 600), ask_pace=lambda kind: 1e-5)
    assert [chunk.rows for chunk in chunks] == [READ_FILES, 600 - READ_FILES]


@pytest.fixture
def usual_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DIGITQ_CHUNK_ROWS", "DIGITQ_CHUNK_BYTES"):
        monkeypatch.delenv(name)
    settings.cache_clear()


@pytest.mark.usefixtures("usual_chunks")
def test_chunks_of_files_begin_small() -> None:
    """And grow where nobody knows how long a file takes, as where no worker is there yet."""
    least = BOUNDS["image"][0]
    rows = [chunk.rows for chunk in cut_items(make_pieces([("entry", 1)] * 100 * 1024))]
    assert rows[:9] == [least] * 9 and max(rows) == MAX_FILES
    limits = [max(least, sum(rows[:n]) // 8) for n in range(len(rows))]
    assert all(row <= limit for row, limit in zip(rows, limits, strict=True))


@pytest.mark.usefixtures("usual_chunks")
def test_so_do_files_after_arrays() -> None:
    items = [*make_pieces([("batch", 10_000)]), *make_pieces([("entry", 1)] * 40)]
    kinds = [(kind_of(chunk.batch), chunk.rows) for chunk in cut_items(items)]
    least = BOUNDS["image"][0]
    assert [rows for kind, rows in kinds if kind == "image"] == [least, 40 - least]


@pytest.mark.usefixtures("usual_chunks")
@pytest.mark.parametrize(
    ("kind", "pace", "rows", "model"),
    [
        ("entry", 1e-5, 2048, "cnn"),
        ("entry", 1e-3, 200, "mlp"),
        ("entry", 1.0, 32, "mlp"),
        ("batch", 1e-7, 5120, "cnn"),
        ("batch", 1e-4, 1920, "mlp"),
        ("batch", 5e-4, 384, "cnn"),
        ("batch", 1.0, 128, "mlp"),
    ],
)
def test_chunks_take_as_long_whatever_an_image_takes(
    kind: str, pace: float, rows: int, model: str
) -> None:
    sizes = [("entry", 1)] * 50 * rows if kind == "entry" else [("batch", 16384)] * 11
    chunks = cut_items(make_pieces(sizes), model=model, ask_pace=lambda kind: pace)
    found = [chunk.rows for chunk in chunks]
    assert max(found) == rows
    assert min(found[:-1]) == min(rows, BOUNDS["image" if kind == "entry" else "pixels"][1])


@pytest.mark.usefixtures("usual_chunks")
def test_the_pace_is_asked_before_each_chunk() -> None:
    paces = iter([0.0, 1e-4, 4e-4, 0.0])
    chunks = cut_items(make_pieces([("batch", 2944)]), ask_pace=lambda kind: next(paces))
    assert [chunk.rows for chunk in chunks] == [1024, 1024, 384, 512]


@pytest.mark.usefixtures("usual_chunks")
def test_bytes_are_those_of_images() -> None:
    """Long ids cost an array none of its tiles."""
    pixels = random_digits(5000).reshape(-1, 784)
    ids = number_ids("a name of fifty letters or so, of one of several/", 0, 5000)
    items = [pixels_batch(ids, pixels)] * 40
    rows = [chunk.rows for chunk in cut_items(items)]
    assert max(rows) == settings().chunk_rows and all(row % 128 == 0 for row in rows[:-1])


@pytest.mark.usefixtures("usual_chunks")
def test_arrays_fill_their_chunks() -> None:
    """However they come, and what does is not copied where it need not be."""
    pixels = random_digits(6000).reshape(-1, 784)
    items = [pixels_batch(number_ids("", 6000 * n, 6000), pixels) for n in range(3)]
    chunks = [chunk.batch for chunk in cut_items(items)]
    assert [chunk.num_rows for chunk in chunks] == [1024] * 17 + [18_000 - 17 * 1024]
    addresses = [chunk.column("pixels").buffers()[1].address for chunk in chunks]
    assert addresses.count(pixels.ctypes.data) == 16  # of 18


@pytest.mark.usefixtures("usual_chunks")
def test_chunks_grow_with_the_job() -> None:
    """A small job is shared out; a large one's chunks are large, in whole tiles."""
    pixels = random_digits(16384).reshape(-1, 784)
    items = [pixels_batch(number_ids("", 16384 * n, 16384), pixels) for n in range(12)]
    rows = [chunk.rows for chunk in cut_items(items)]
    assert rows[:32] == [1024] * 32 and max(rows) == settings().chunk_rows
    assert sum(rows) == 12 * 16384
    limits = [max(1024, sum(rows[:n]) // 32) for n in range(len(rows))]
    assert all(row <= limit for row, limit in zip(rows, limits, strict=True))
    assert sum(row % TILE_ROWS != 0 for row in rows) <= 1  # the last


@pytest.mark.usefixtures("usual_chunks")
@pytest.mark.parametrize("kind", ["pixels", "entry"])
def test_chunks_of_a_slow_model_stay_small(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody knows how slow it is; unless settings ask for smaller ones yet."""
    rows = 72 * 1024
    pixels = [pixels_batch(number_ids("", 0, rows), np.zeros((rows, 784), np.uint8))]
    items = pixels if kind == "pixels" else make_pieces([("entry", 1)] * rows)

    def largest(model: str) -> int:
        return max(chunk.rows for chunk in cut_items(items, model=model))

    assert largest("cnn") == MODEL_ROWS["cnn"] < largest("mlp")
    monkeypatch.setenv("DIGITQ_CHUNK_ROWS", "128")
    settings.cache_clear()
    assert largest("cnn") == 128


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("é/7.png", "é/7.png"),
        (os.fsdecode(b"a\xff.png"), "a\\xff.png"),
        ("\ud83d.png", "\\xed\\xa0\\xbd.png"),  # as JSON may have it
    ],
)
def test_a_name_that_is_no_text_is_spelled_out(name: str, id: str) -> None:
    assert printable(name) == id
    items = list(image_source([name, id, "last"]).items)
    (chunk,) = cut_items(items)
    assert ids([chunk.batch]) == [id, f"{id}#2", "last"]  # and no two alike
    (rest,) = cut_items(items, resume=written_of([id, f"{id}#2"]))
    assert ids([rest.batch]) == ["last"]


def _touch(path: Path) -> str:
    path.write_bytes(b"")
    return str(path)
