"""Whatever files come: a row each, in plain words, and workers that live on."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest

from digitq import Client
from digitq.private.processes import Local
from digitq.producer.sources.opening import open_sources
from digitq.producer.sources.source import Source
from tests.drawing import draw_one, encode_image
from tests.gallery import READ, make_gallery, make_zip
from tests.waiting import children_of

# Beside what torch takes by itself. With its CPU build a worker stays under 1 GB; the CUDA build
# takes some 400 MB more.
IMAGES_KB = 685_000


@pytest.fixture(scope="module")
def local() -> Iterator[Local]:
    """A worker that has read nothing yet, since its memory is measured."""
    with Local(workers=1) as running:
        running.wait_until_ready()
        yield running


def classify(client: Client, source: Source) -> dict[str, str]:
    """Each row's error by its id; "" for none."""
    table: pa.Table = client.submit_source(source).table()
    ids, errors = (table.column(name).to_pylist() for name in ("id", "error"))
    assert len(set(ids)) == len(ids)
    answers = table.column("label").to_pylist()
    assert [answer is None for answer in answers] == [error is not None for error in errors]
    return {id: error or READ for id, error in zip(ids, errors, strict=True)}


def peak_memory_kb() -> int:
    """The most memory that one process below this one has had: Redis, or a worker."""
    return max(_high_water(pid) for pid in _below(os.getpid())[1:])


def peak_memory_at_rest_kb() -> int:
    """The same for processes that do nothing, and from here on their peaks are counted anew."""
    for pid in _below(os.getpid())[1:]:
        with suppress(FileNotFoundError):
            Path(f"/proc/{pid}/clear_refs").write_text("5")
    return peak_memory_kb()


def _below(pid: int) -> list[int]:
    return [pid] + [one for child in children_of(pid) for one in _below(child)]


def _high_water(pid: int) -> int:
    with suppress(FileNotFoundError):  # it has just ended
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1])
    return 0


def test_the_gallery(client: Client, tmp_path: Path) -> None:
    expected = make_gallery(tmp_path)
    at_rest = peak_memory_at_rest_kb()
    source = open_sources([str(tmp_path)])
    errors = classify(client, source)
    assert errors.keys() == expected.keys()
    for name, error in errors.items():
        assert len(error) < 120 and "\n" not in error and "Traceback" not in error, error
        assert expected[name] in ("?", READ) or error.startswith(expected[name]), (name, error)
        assert expected[name] != READ or error == READ, (name, error)
    assert source.skipped.total() == 3  # a pipe, a text, and a link to a folder
    assert peak_memory_kb() - at_rest < IMAGES_KB
    alive = classify(client, open_sources([str(tmp_path / "a png.jpg")]))
    assert list(alive.values()) == [READ]


def test_an_archive_of_odd_members(client: Client, tmp_path: Path) -> None:
    expected = make_zip(tmp_path / "odd.zip")
    source = open_sources([str(tmp_path / "odd.zip")])
    errors = classify(client, source)
    assert errors == expected
    assert source.skipped.total() == 1  # the archive within


def test_a_file_that_vanishes_and_one_that_is_cut(client: Client, tmp_path: Path) -> None:
    content = encode_image(draw_one())
    for name in ("1.png", "2.png", "3.png"):
        (tmp_path / name).write_bytes(content)
    source = open_sources([str(tmp_path)])
    source.items = [*source.items]  # the folder is listed by now
    (tmp_path / "1.png").unlink()
    os.truncate(tmp_path / "2.png", 60)
    errors = classify(client, source)
    assert errors["1.png"] == "can't be read: No such file or directory"
    assert errors["2.png"].startswith("damaged")
    assert errors["3.png"] == READ


@pytest.mark.skipif(os.getuid() == 0, reason="root may read anything")
def test_a_file_without_permission(client: Client, tmp_path: Path) -> None:
    (tmp_path / "mine.png").write_bytes(encode_image(draw_one()))
    (tmp_path / "yours.png").write_bytes(encode_image(draw_one()))
    (tmp_path / "yours.png").chmod(0)
    errors = classify(client, open_sources([str(tmp_path)]))
    assert errors == {"mine.png": READ, "yours.png": "can't be read: Permission denied"}
