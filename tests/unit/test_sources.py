"""Every kind of SOURCE gives its images in order, under ids that are theirs alone."""

import io
import math
import os
import re
import struct
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from digitq.producer.sources.files import sort_naturally, stdin_paths
from digitq.producer.sources.image_tables import PATH_ONLY
from digitq.producer.sources.in_memory import image_source
from digitq.producer.sources.opening import open_sources
from digitq.producer.sources.source import (
    MAX_COUNTED_KINDS,
    Entry,
    SkippedFiles,
    Source,
    UniqueIds,
    UnreadableImageError,
    read_limited,
)
from digitq.producer.sources.truth import parse_labels
from digitq.protocol.errors import UsageError
from digitq.protocol.settings import settings


def read_all(source: Source) -> dict[str, bytes]:
    """Id → content. Each entry is read before the next is asked for, as the chunker does."""
    return {item.id: item.read() for item in source.items if isinstance(item, Entry)}


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(os.fsencode(name))
    return folder


def make_zip(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, name.encode())
    return path


def make_odd_zip(path: Path, value: int, central: int, local: int | None = None) -> Path:
    """With another value so many bytes into the headers of its only member."""
    content = bytearray(make_zip(path, "1.png").read_bytes())
    content[content.index(b"PK\x01\x02") + central] = value
    if local is not None:
        content[content.index(b"PK\x03\x04") + local] = value
    path.write_bytes(content)
    return path


def make_table(folder: Path, **columns: Any) -> str:
    pq.write_table(pa.table(columns), folder / "made.parquet")
    return f"{folder}/made.parquet"


def test_a_folder_is_read_in_natural_order(tmp_path: Path) -> None:
    fill(tmp_path, "b/10.png", "b/2.jpg", "a.TIFF", "c1/x.gif")
    source = open_sources([str(tmp_path)])
    assert list(read_all(source)) == ["a.TIFF", "b/2.jpg", "b/10.png", "c1/x.gif"]
    assert source.count() == 4
    for limit, count in [(3, 3), (9, 4)]:
        assert open_sources([str(tmp_path)], limit=limit).count() == count


def test_hidden_files_and_what_is_no_image_are_counted(tmp_path: Path) -> None:
    fill(tmp_path, "1.png", ".hidden.png", "notes.txt", ".git/2.png", "sub/labels.csv")
    fill(tmp_path, "1.inspect.png")
    os.mkfifo(tmp_path / "pipe.png")
    source = open_sources([str(tmp_path)])
    assert list(read_all(source)) == ["1.png"]
    assert source.skipped.total() == 6
    assert source.skipped.describe() == "6 other files (hidden folder, hidden, .inspect.png, …)"


def test_what_was_passed_over_is_told_in_plain_characters() -> None:
    skipped = SkippedFiles()
    assert skipped.describe() == ""
    for name in ("a.\x1b[31m", "b.\udcff", "c.very-long-ending", "d.", "e.001"):
        skipped.skip(name)
    assert skipped.describe() == r"5 other files (.\x1b[31m, .\xff, .very-long-ending, …)"
    for number in range(MAX_COUNTED_KINDS):
        skipped.skip(f"f.x{number}")
    assert len(skipped) == MAX_COUNTED_KINDS + 1
    assert skipped.total() == 5 + MAX_COUNTED_KINDS


def test_what_is_no_file_is_told_as_what_it_is(tmp_path: Path) -> None:
    fill(tmp_path, "images/1.png", "notes.txt")
    (tmp_path / "images" / "photos").symlink_to(tmp_path / "images")
    (tmp_path / "images" / "photos.png").symlink_to(tmp_path / "images")
    (tmp_path / "images" / "loop").symlink_to("loop")
    (tmp_path / "images" / "text").symlink_to(tmp_path / "notes.txt")
    os.mkfifo(tmp_path / "images" / "pipe.png")
    source = open_sources([str(tmp_path / "images")])
    assert list(read_all(source)) == ["1.png"]
    kinds = ["broken link", "linked folder", "no ending", "pipe or device"]
    assert sorted(source.skipped) == kinds


def test_links_to_images_are_followed_and_those_to_folders_do_not_loop(tmp_path: Path) -> None:
    fill(tmp_path, "1.png")
    (tmp_path / "again").symlink_to(tmp_path)
    (tmp_path / "2.png").symlink_to("1.png")
    assert read_all(open_sources([str(tmp_path)])) == {"1.png": b"1.png", "2.png": b"1.png"}


def test_a_folder_is_not_listed_before_it_is_read(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.png", "b/1.png")
    items = iter(open_sources([str(tmp_path)]).items)
    assert next(items).id == "a/1.png"  # type: ignore[union-attr]
    fill(tmp_path, "b/2.png")
    assert [item.id for item in items if isinstance(item, Entry)] == ["b/1.png", "b/2.png"]


def test_numbers_count_as_numbers() -> None:
    names = ["2", "02", "10", "a", "a2b", "a2b1", "a10b", "a10b\udcff", "img9.png", "img10.png"]
    names += ["img99999.png", "img123456.png", "img20240501123456.png", "é9", "é10.½", "\ud83d1"]
    expected = sorted(names[:2]) + names[2:]
    names.reverse()
    sort_naturally(names)
    assert names == expected


@given(st.lists(st.text(st.sampled_from("0019ab/é\udcff\U0001f58a"), max_size=30), unique=True))
def test_order_is_that_of_texts_in_which_numbers_are_padded(names: list[str]) -> None:
    def key(name: str) -> tuple[str, str]:
        return re.sub("[0-9]+", lambda number: number[0].rjust(20, "0"), name), name

    expected = sorted(names, key=key)
    sort_naturally(names)
    assert names == expected


def try_to_read(entry: Entry) -> tuple[str, bytes | str]:
    try:
        return entry.id, entry.read()
    except UnreadableImageError as error:
        return entry.id, str(error)


def test_a_file_over_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITQ_IMAGE_BYTES", "4")
    settings.cache_clear()
    fill(tmp_path, "1.png")
    make_zip(tmp_path / "a.zip", "1.png")
    for name in ("1.png", "a.zip"):
        (entry,) = open_sources([str(tmp_path / name)]).items
        assert isinstance(entry, Entry)
        with pytest.raises(UnreadableImageError, match="larger than"):
            entry.read()


@pytest.mark.parametrize(
    "images",
    [
        pa.array([b"one", None]),
        pa.array([{"bytes": b"one", "path": "x"}, None]),
        pa.array([b"one", None], pa.large_binary()),
        pa.array([b"one", None]).dictionary_encode(),
    ],
    ids=lambda images: str(images.type),
)
def test_parquet_has_images_and_labels(images: pa.Array, tmp_path: Path) -> None:
    table = pa.table({"thumbnail": [b"no", b"no"], "image": images, "label": [7, -1]})
    pq.write_table(table, tmp_path / "a.parquet")
    source = open_sources([str(tmp_path / "a.parquet")])
    (batch,) = source.items
    assert isinstance(batch, pa.RecordBatch)
    assert batch.to_pylist() == [
        {"id": "0", "image": b"one", "error": None, "truth": "7"},
        {"id": "1", "image": None, "error": None, "truth": "-1"},
    ]
    assert source.has_truth and source.count() == 2


@pytest.mark.parametrize(
    "labels",
    [
        pa.array([7, 12, None], pa.uint8()),
        pa.array([7.0, 6.5, math.nan]),
        pa.array(["7", "seven", None]),
        pa.array([7, 8.5, None], pa.float32()),
        pa.array(np.array([7, 8.5, 12], np.float16)),
        pa.array([Decimal("7"), Decimal("8.5"), None]),
        pa.array(["7", "77", ""], pa.large_string()),
        pa.array(["7", "x", None]).dictionary_encode(),
    ],
    ids=lambda labels: str(labels.type),
)
def test_labels_are_digits_as_numbers_or_as_text(labels: pa.Array, tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"one"] * 3, "label": labels}), tmp_path / "a.parquet")
    (batch,) = open_sources([str(tmp_path / "a.parquet")]).items
    assert isinstance(batch, pa.RecordBatch)
    assert parse_labels(batch.column("truth"), pa.int8()).to_pylist() == [7, None, None]


def test_a_number_is_right_as_it_is_written_in_a_list(tmp_path: Path) -> None:
    """An empty cell says that nothing is written, if the column is `number`."""
    for name, empty in (("number", ""), ("truth", None)):
        (tmp_path / "a.csv").write_text(f'path,{name}\na,12.0\nb,"-4,5"\nc,\nd,-\n')
        source = open_sources([str(tmp_path / "a.csv")])
        truths = pa.array([item.truth for item in source.items if isinstance(item, Entry)])
        assert parse_labels(truths, pa.string()).to_pylist() == ["12.0", "-4,5", empty, None]
        assert parse_labels(truths, pa.int8()).to_pylist() == [None] * 4


def test_a_fraction_in_a_list_may_be_spelled_out() -> None:
    labels = pa.array(["7 1/2", "12¾", "1/2", "7 2/4", None])
    assert parse_labels(labels, pa.string()).to_pylist() == ["7½", "12¾", "1/2", None, None]


def test_zeros_before_a_label_do_not_count(tmp_path: Path) -> None:
    table = pa.table({"image": [b"one"] * 2, "label": ["07", "00"]})
    pq.write_table(table, tmp_path / "a.parquet")
    (batch,) = open_sources([str(tmp_path / "a.parquet")]).items
    assert isinstance(batch, pa.RecordBatch)
    assert parse_labels(batch.column("truth"), pa.int8()).to_pylist() == [7, 0]
    assert parse_labels(batch.column("truth"), pa.string()).to_pylist() == ["07", "00"]


def test_parquet_without_an_image_names_its_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1], "b": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(UsageError, match="a, b"):
        open_sources([str(tmp_path / "a.parquet")])


def test_parquet_with_images_in_several_columns_must_say_which(tmp_path: Path) -> None:
    table = pa.table({"front": [b"1"], "back": [b"2"], "note": ["x"]})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UsageError, match="front, back; name the one"):
        open_sources([str(tmp_path / "a.parquet")])


def test_paths_come_from_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "scan", "2.png")
    lines = f"\ufeff{tmp_path}/scan\n\n{tmp_path}/2.png\r\n{tmp_path}/scan\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    source = open_sources(["-"])
    assert read_all(source) == {
        f"{tmp_path}/scan": b"scan",
        f"{tmp_path}/2.png": b"2.png",
        f"{tmp_path}/scan#2": b"scan",
    }


def test_paths_on_stdin_may_end_in_zeros(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `find -print0` writes them, however they come: even a name with a line's end in it."""
    fill(tmp_path, "a\nb", *(f"{number}.png" for number in range(3000)))
    paths = [f"{tmp_path}/{name}" for name in os.listdir(tmp_path)]
    content = b"".join(path.encode() + b"\0" for path in paths)
    pipe = io.BufferedReader(io.BytesIO(content), buffer_size=1000)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(pipe))
    assert set(read_all(open_sources(["-"]))) == set(paths)


class InTwo(io.BytesIO):
    """What was written in two parts, the first of which has no end of a path."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(3)


def test_what_ends_a_path_may_come_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Mock(buffer=InTwo(b"one.png\0two\n.png\0")))
    assert [*stdin_paths()] == ["one.png", "two\n.png"]


def test_a_stdin_that_does_not_wait_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with open(reading, "rb") as stdin:
        monkeypatch.setattr(sys, "stdin", Mock(buffer=stdin))
        paths = stdin_paths()
        threading.Timer(0.2, lambda: os.write(writing, b"one.png\n")).start()
        assert next(paths) == "one.png"
        os.close(writing)
        assert [*paths] == []


def test_a_source_is_read_once(tmp_path: Path) -> None:
    fill(tmp_path, "1.png")
    source = open_sources(tmp_path)
    assert len([*source.take()]) == 1
    with pytest.raises(UsageError, match="has been read: open it again"):
        next(source.take())


def test_a_path_on_stdin_is_taken_as_soon_as_its_line_is_there() -> None:
    script = (
        "from digitq.producer.sources.files import stdin_paths as p; print(next(p()), flush=True)"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as child:
        assert child.stdin and child.stdout
        child.stdin.write("one.png\ntwo")
        child.stdin.flush()
        assert child.stdout.readline() == "one.png\n"


def test_several_sources_keep_their_ids_apart(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.png", "b/1.png", "c.png")
    names = [str(tmp_path / name) for name in ("a", "b", "c.png")]
    assert list(read_all(open_sources(names))) == [
        f"{tmp_path}/a/1.png",
        f"{tmp_path}/b/1.png",
        f"{tmp_path}/c.png",
    ]


@pytest.mark.parametrize(
    "names",
    [
        *[("a", "a"), ("a", "a/1.png"), ("a/1.png", "a"), ("a/../a", "a/.")],
        *[("a/1.png", "linked.png"), ("b", "b/linked.png"), ("b", "b/broken.png")],
    ],
)
def test_no_image_is_named_twice(
    names: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "linked.png").symlink_to("a/1.png")
    (tmp_path / "b/linked.png").symlink_to("../a/1.png")
    (tmp_path / "b/broken.png").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="overlap: name each image once") as caught:
        open_sources(names)
    assert set(str(caught.value).split(" overlap")[0].split(" and ")) == set(names)


def test_a_linked_folder_is_none_of_the_folder_that_has_the_link(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "b/a").symlink_to("../a")
    ids = read_all(open_sources([tmp_path / "b", tmp_path / "b/a"]))
    assert [*ids] == [f"{tmp_path}/b/2.png", f"{tmp_path}/b/a/1.png"]


@pytest.mark.parametrize("names", [("-", "-"), ("a", "-"), ("-", "a")])
def test_paths_on_stdin_stand_alone(names: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match="no other SOURCE can be given with -"):
        open_sources(names)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_of_no_image_is_an_error(limit: int, tmp_path: Path) -> None:
    fill(tmp_path, "1.png")
    with pytest.raises(UsageError, match=f"the limit is {limit} images"):
        open_sources(tmp_path, limit=limit)


def test_no_source_is_an_error() -> None:
    with pytest.raises(UsageError, match="no SOURCE was given"):
        open_sources([])


def test_folders_may_be_nested_as_deep_as_paths_are_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(1200):
        os.mkdir("d")
        os.chdir("d")
    Path("1.png").touch()
    monkeypatch.chdir(tmp_path)
    assert len(list(open_sources(["d"]).items)) == 1
    subprocess.run(["rm", "-r", "d"], check=True)  # Python 3.11's rmtree can't


@pytest.mark.skipif(sys.platform == "darwin", reason="its names are UTF-8")
def test_names_of_sources_need_not_be_utf_8(tmp_path: Path) -> None:
    folder, archive = (tmp_path / os.fsdecode(name) for name in (b"caf\xe9", b"\xff.zip"))
    fill(folder, "1.png")
    make_zip(archive, "2.png")
    ids = [f"{tmp_path}/caf\\xe9/1.png", f"{tmp_path}/\\xff.zip/2.png"]
    assert list(read_all(open_sources([str(folder), str(archive)]))) == ids
    table = tmp_path / os.fsdecode(b"\xff.parquet")
    table.touch()
    with pytest.raises(UsageError, match="can't read"):
        open_sources([str(table)])


def test_the_truth_is_the_folder_s_name(tmp_path: Path) -> None:
    fill(tmp_path, "7/a.png", "x/b.png", "12/c.png")
    make_zip(tmp_path / "z.zip", "3/a.png", "b.png")
    make_zip(tmp_path / "windows.zip", "4\\a.png", "4\\.hidden.png")
    for name, truths in [
        ("", ["7", "x", "12"]),  # what is no number is left out when chunks are cut
        ("7", ["7"]),
        ("7/a.png", ["7"]),
        ("z.zip", ["3", None]),
        ("windows.zip", ["4"]),
    ]:
        source = open_sources([str(tmp_path / name)], truth_from_parent=True)
        found = {item.id: item.truth for item in source.items if isinstance(item, Entry)}
        assert sorted(found.values(), key=str, reverse=False) == sorted(truths, key=str)


def test_an_image_that_is_named_and_can_t_be_opened_is_a_row(tmp_path: Path) -> None:
    for name, target in [("loop.png", "loop.png"), ("gone.png", "nowhere"), ("gone.zip", "x.zip")]:
        (tmp_path / name).symlink_to(target)
    (tmp_path / "a.png").write_bytes(b"a")
    names = [str(tmp_path / name) for name in ("loop.png", "a.png", "gone.png")]
    entries = [item for item in open_sources(names).items if isinstance(item, Entry)]
    for entry, message in zip(entries, ["Too many levels", "", "No such file"], strict=True):
        with pytest.raises(OSError, match=message) if message else nullcontext():
            assert entry.read()
    with pytest.raises(UsageError, match=r"can't read .*gone\.zip: No such file"):
        open_sources(tmp_path / "gone.zip")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: "nowhere", "no such file or folder"),
        (lambda folder: str(folder), "no image in .*: it has no files$"),
        (
            lambda folder: str(make_zip(folder / "a.zip", "x.txt")),
            r"no image in .*a.zip, but 1 other file \(.txt\): images end in .png .* a SOURCE",
        ),
        (lambda folder: str(fill(folder, "b.zip") / "b.zip"), "can't read the archive"),
        (lambda folder: str(make_odd_zip(folder / "a.zip", 99, 6)), "can't read the archive"),
        (lambda folder: str(fill(folder, "b.tar.gz") / "b.tar.gz"), "can't read the archive"),
        (lambda folder: str(fill(folder, "b.parquet") / "b.parquet"), "can't read"),
        (lambda folder: "mnist:validation", "mnist:test, mnist:train and mnist:sample"),
        (lambda folder: make_table(folder, image=pa.array([], pa.binary())), "it has no rows"),
        (
            lambda folder: make_table(folder, **{f"pixel{n}": [0] for n in range(700)}),
            "its columns: pixel0, pixel1, pixel2, …$",
        ),
        (
            lambda folder: make_table(
                folder, id=["a"], number=["7"], confidence=[1], review=[False]
            ),
            "has results, not images: `digitq report` and ",
        ),
    ],
)
def test_an_unusable_source_is_said_at_once(make, message: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=message):
        open_sources([make(tmp_path)])


def test_mnist_s_sample_has_its_images_and_labels() -> None:
    source = open_sources(["mnist:sample"])
    batch = next(iter(source.items))
    assert isinstance(batch, pa.RecordBatch)
    assert source.count() == 5_000
    assert batch.column("id")[:2].to_pylist() == ["mnist/sample/0", "mnist/sample/1"]
    assert batch.column("truth")[:4].to_pylist() == [0, 1, 2, 3]
    assert len(batch.column("pixels")[0].as_py()) == 784


def test_a_folder_without_mnist_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITQ_MNIST", str(tmp_path))
    settings.cache_clear()
    with pytest.raises(UsageError, match=f"DIGITQ_MNIST={tmp_path}"):
        open_sources(["mnist:test"])


@pytest.mark.parametrize(
    ("magic", "labels", "message"),
    [
        (2051, 3, "2 images but 3 labels"),
        (2050, 2, "t10k-images-idx3-ubyte is not an MNIST file"),
    ],
)
def test_files_of_mnist_that_do_not_fit(
    magic: int, labels: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / "MNIST/raw"
    raw.mkdir(parents=True)
    header = struct.pack(">4i", magic, 2, 28, 28)
    (raw / "t10k-images-idx3-ubyte").write_bytes(header + bytes(2 * 784))
    header = struct.pack(">2i", 2049, labels)
    (raw / "t10k-labels-idx1-ubyte").write_bytes(header + bytes(labels))
    monkeypatch.setenv("DIGITQ_MNIST", str(tmp_path))
    settings.cache_clear()
    with pytest.raises(UsageError, match=message):
        open_sources(["mnist:test"])


def test_a_damaged_parquet_file_gives_what_it_has(tmp_path: Path) -> None:
    images = [bytes([n]) * 1000 for n in range(200)]
    pq.write_table(
        pa.table({"image": images}),
        tmp_path / "a.parquet",
        row_group_size=50,
        compression="none",
        use_dictionary=False,
    )
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    content[120_000:120_200] = b"\xff" * 200
    (tmp_path / "a.parquet").write_bytes(content)
    items = list(open_sources([str(tmp_path / "a.parquet")]).items)
    assert sum(item.num_rows for item in items if isinstance(item, pa.RecordBatch)) >= 100


@pytest.mark.parametrize(
    ("place", "value", "whole", "missing"),
    [(1, 1, [], "2 rows"), (8, 2, [b"a"], "1 row")],
    ids=["another kind of page", "fewer values in it"],
)
def test_rows_that_a_damaged_page_loses_are_told_and_shift_no_other(
    place: int, value: int, whole: list[bytes], missing: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.parquet"
    images = pa.table({"image": [b"a", b"b", b"c", b"d"]})
    pq.write_table(images, path, row_group_size=2, use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[pq.read_metadata(path).row_group(0).column(0).data_page_offset + place] = value
    path.write_bytes(content)
    *batches, rest = open_sources(path).items
    found = [image for batch in batches for image in batch.column("image").to_pylist()]  # type: ignore[union-attr]
    assert found == whole
    assert isinstance(rest, Entry) and rest.id == str(len(whole))
    with pytest.raises(UnreadableImageError, match=f"damaged from here on: {missing} missing"):
        rest.read()


def test_a_parquet_image_over_the_limit_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIGITQ_IMAGE_BYTES", "4")
    pq.write_table(pa.table({"image": [b"tiny", b"large"]}), tmp_path / "a.parquet")
    (batch,) = open_sources([str(tmp_path / "a.parquet")]).items
    assert isinstance(batch, pa.RecordBatch)
    assert batch.column("image").to_pylist() == [b"tiny", None]
    assert batch.column("error")[1].as_py().startswith("larger than")


def test_a_name_that_is_too_long_is_no_traceback() -> None:
    with pytest.raises(UsageError, match="File name too long"):
        open_sources(["x" * 300])
    (entry,) = open_sources("x" * 300 + ".png").items
    assert isinstance(entry, Entry)
    with pytest.raises(OSError, match="File name too long"):
        entry.read()
    with pytest.raises(UsageError, match="no such file"):
        open_sources("a\0.png")


def test_a_folder_that_can_t_be_read_is_a_row_unless_it_is_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "a.png", "b/1.png", "c.png")
    scan = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    entries = [item for item in open_sources([str(tmp_path)]).items if isinstance(item, Entry)]
    assert [entry.id for entry in entries] == ["a.png", "b", "c.png"]
    with pytest.raises(OSError):
        entries[1].read()
    with pytest.raises(UsageError, match=r"can't read the folder .*/b: Permission denied"):
        open_sources([f"{tmp_path}/b"])


@pytest.mark.parametrize("name", ["a.tar", "a.zip", "a.parquet", "a.CSV", "a.npy", "idx3-ubyte"])
def test_a_pipe_that_is_named_like_a_set_is_none(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(UsageError, match=f"{name} is not a file, but a pipe, a socket or a device"):
        open_sources([f"{tmp_path}/{name}"])


def test_names_that_are_written_alike_are_two_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [os.fsdecode(b"\xff.png"), r"\xff.png", r"\x.png"]
    (tmp_path / "folder").mkdir()
    for name in names:
        (tmp_path / "folder" / name).touch()
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in names:
            archive.add(tmp_path / "folder" / name, name)
    expected = [r"\x.png", r"\xff.png", r"\xff.png#2"]
    for source in (tmp_path / "folder", tmp_path / "a.tar"):
        assert sorted(read_all(open_sources([str(source)]))) == expected
    monkeypatch.setattr(sys, "stdin", Mock(buffer=io.BytesIO(os.fsencode("\n".join(names)))))
    assert sorted(entry.id for entry in open_sources(["-"]).items) == expected  # type: ignore[union-attr]


@pytest.mark.skipif(sys.platform == "darwin", reason="its names are UTF-8")
def test_sources_that_are_written_alike_are_not_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path, os.fsdecode(b"\xff.png"), r"\xff.png")
    fill(tmp_path, os.fsdecode(b"\xff/1.png"), r"\xff/1.png", "x/y/1.png", "y/1.png", "x/z/1.png")
    (tmp_path / "link").symlink_to("x/z")  # so that link/../y is not y
    names = [os.fsdecode(b"\xff.png"), r"\xff.png", os.fsdecode(b"\xff"), r"\xff", "link/../y", "y"]
    ids = [r"\xff.png", r"\xff.png#2", r"\xff/1.png", r"\xff#2/1.png", "y/1.png", "y#2/1.png"]
    assert list(read_all(open_sources(names))) == ids


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (entry,) = open_sources([str(tmp_path / "pipe.png")]).items
    assert isinstance(entry, Entry)
    with pytest.raises(UnreadableImageError, match="a pipe"):
        entry.read()


def test_no_paths_on_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with pytest.raises(UsageError, match="no paths on stdin"):
        open_sources(["-"])


def test_a_file_that_is_read_in_parts_or_grows_is_read_whole() -> None:
    for size, content in ((250, bytes(250)), (250, bytes(400)), (400, bytes(250)), (0, b"new")):
        parts = io.BytesIO(content)
        assert read_limited(lambda most, parts=parts: parts.read(min(most, 100)), size) == content


def test_a_file_that_grows_over_the_limit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITQ_IMAGE_BYTES", "300")
    settings.cache_clear()
    for size in (299, 300, 301):
        with pytest.raises(UnreadableImageError, match="larger than"):
            read_limited(io.BytesIO(bytes(301)).read, size)


def test_ids_are_unique_whatever_names_there_are(tmp_path: Path) -> None:
    unique = UniqueIds()
    names = ["a", "a#2", "a", "a", "a#3", *("a" + "#2" * n for n in range(2, 2000)), "a"]
    ids = [unique(name) for name in names]
    assert len({*ids}) == len(ids) and ids[:4] == ["a", "a#2", "a#3", "a#4"]


def test_many_sources_are_not_open_at_once(tmp_path: Path) -> None:
    """A process may have only so many files open: 256 on some systems."""
    for number in range(20):
        make_zip(tmp_path / f"{number}.zip", "1.png")
        pq.write_table(pa.table({"image": [b"x"]}), tmp_path / f"{number}.parquet")
    names = [str(path) for path in tmp_path.iterdir()]
    before = len(os.listdir("/proc/self/fd"))
    source = open_sources(names)
    assert source.count() == 40
    opened = [len(os.listdir("/proc/self/fd")) - before for _ in source.items]
    assert len(opened) == 40 and max(opened) < 4


def test_an_empty_source_among_others_is_counted(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.png", "c/2.png")
    (tmp_path / "b").mkdir()
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), tmp_path / "d.parquet")
    names = [f"{tmp_path}/{name}" for name in ("a", "b", "c", "d.parquet")]
    fill(tmp_path, "a/notes.txt")
    source = open_sources(names)
    assert [*read_all(source).values()] == [b"a/1.png", b"c/2.png"]
    assert source.skipped.describe() == "3 other files (empty SOURCE, .txt)"
    source = open_sources(names)
    (tmp_path / "c/2.png").unlink()  # it is empty when its turn comes
    assert [*read_all(source).values()] == [b"a/1.png"]
    with pytest.raises(UsageError, match="no image in"):
        open_sources([names[1], names[3]])


@pytest.mark.parametrize("name", ["a.csv.gz", "a.npz", "a.jsonl", "A.ZST"])
def test_a_set_of_another_kind_is_no_image(name: str, tmp_path: Path) -> None:
    """Else ten thousand images are one row with an error, as of one bad image."""
    fill(tmp_path, name)
    with pytest.raises(UsageError, match="a set of images in a format that is not supported"):
        open_sources([f"{tmp_path}/{name}"])


def test_mnist_is_hinted_at() -> None:
    with pytest.raises(UsageError, match="folder: mnist; MNIST's are mnist:test, mnist:train"):
        open_sources(["mnist"])


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
def test_any_type_of_bytes_may_be_images(kind: pa.DataType, tmp_path: Path) -> None:
    labels = pa.array(["1", "2"], pa.string_view() if kind == pa.binary_view() else pa.string())
    table = pa.table({"image": pa.array([b"1", b"2"], kind), "label": labels})
    pq.write_table(table, tmp_path / "a.parquet")
    (batch,) = open_sources([f"{tmp_path}/a.parquet"]).items
    assert isinstance(batch, pa.RecordBatch)
    assert batch.column("image").to_pylist() == [b"1", b"2"]
    assert batch.column("truth").to_pylist() == ["1", "2"]


def test_a_row_that_has_a_path_and_no_bytes_says_so(tmp_path: Path) -> None:
    """As Hugging Face's data sets have it where images were not embedded."""
    images = [{"bytes": None, "path": "1.png"}, {"bytes": b"2", "path": "2.png"}, None]
    pq.write_table(pa.table({"image": images}), tmp_path / "a.parquet", compression="none")
    (batch,) = open_sources([f"{tmp_path}/a.parquet"]).items
    assert isinstance(batch, pa.RecordBatch)
    assert batch.column("image").to_pylist() == [None, b"2", None]
    assert batch.column("error").to_pylist() == [PATH_ONLY, None, None]


def test_a_parquet_file_is_read_a_little_at_a_time(tmp_path: Path) -> None:
    """Its writer may have put all rows into one group."""
    image = os.urandom(5000)
    images = [image + n.to_bytes(2, "big") for n in range(10_000)]  # a page holds 1,024
    pq.write_table(pa.table({"image": images}), tmp_path / "a.parquet", compression="none")
    before = pa.total_allocated_bytes()
    items = open_sources([f"{tmp_path}/a.parquet"]).items
    held = [pa.total_allocated_bytes() - before for _ in items]
    assert len(held) == 625 and max(held) < 20 << 20


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: open_sources({"a.png": 1}), "takes a path or a list of paths, not a dict"),  # type: ignore[arg-type]
        (lambda: open_sources([b"a.png"]), "takes a path or a list of paths, not a list"),  # type: ignore[list-item]
        (lambda: open_sources("ftp://a.org/1.png"), "is a URL: download it"),
        (
            lambda: image_source(Mock(spec=["__arrow_c_stream__"])),
            "a Mock can't be read as a table: ",
        ),
        (lambda: next(iter(image_source("s3://a/1.png").items)), "is a URL: download it"),
    ],
)
def test_what_is_no_path_or_image_is_told(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


def test_a_url_among_images_costs_its_row_alone() -> None:
    entries = [*image_source([b"1", "https://a.org/2.png", b"3"]).items]
    assert [try_to_read(entry) for entry in entries] == [
        ("0", b"1"),
        ("https://a.org/2.png", "a URL: download it and give the path of the file"),
        ("2", b"3"),
    ]


def test_any_iterable_of_paths_names_sources(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "b.png").touch()
    assert len([*open_sources(tmp_path.glob("*.png")).items]) == 2


@pytest.mark.parametrize("limit", [None, 2])
def test_a_set_that_is_written_while_it_is_read_is_refused(
    limit: int | None, tmp_path: Path
) -> None:
    """Its rows would be of images of both versions, under the same ids."""
    folder, archive = tmp_path / "folder", tmp_path / "a.zip"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"x")
    with zipfile.ZipFile(archive, "w") as file:
        for name in ("a.png", "b.png"):
            file.writestr(name, b"x")
    items = iter(open_sources(archive, limit=limit).take())
    next(items)
    os.utime(archive, ns=(0, 0))
    next(items)
    with pytest.raises(UsageError, match=r"a\.zip was written while it was read, so images of"):
        next(items)
    items = iter(open_sources([folder, archive], limit=limit).take())
    archive.rename(tmp_path / "b.zip")  # but then it is gone, and opened once more
    next(items)
    with pytest.raises(UsageError, match="no such file or folder"):
        next(items)
