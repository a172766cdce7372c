"""SOURCE and OUT in a bucket and on the web, on a real server behind a gate that fails."""

import csv
import io
import json
import signal
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from digitq.private.processes import Local
from digitq.producer import open_sources
from digitq.producer.found_images import find_images
from digitq.producer.sinks.stored import StoreSink
from digitq.producer.sources import objects
from digitq.producer.sources.opening import find_change, open_images
from digitq.producer.sources.source import Source
from digitq.protocol.errors import StoreError, UsageError
from digitq.protocol.formats import buckets as access
from digitq.protocol.formats import stores
from digitq.protocol.formats.stores import has_object
from tests.buckets import SECRET, Buckets, serve_buckets, serve_google
from tests.cutting import cut_items
from tests.drawing import draw_one, encode_image
from tests.waiting import DIGITQ, wait_for

KEY_ID = "AKIAEXAMPLE"
ONE = encode_image(draw_one())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buckets]:
    with serve_buckets(tmp_path_factory.mktemp("buckets") / "log") as buckets:
        yield buckets


@pytest.fixture
def buckets(server: Buckets, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Buckets]:
    """The server, for a user whose credentials are in the environment; the current folder is
    empty, and a failing request is not made often."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.gate.url)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setattr(access, "ATTEMPTS", 3)
    monkeypatch.setattr(access, "RETRY_SECONDS", 0.01)
    access._connect.cache_clear()
    yield server
    server.gate.release.set()
    server.gate.reset()
    access._connect.cache_clear()


def read_all(source: Source) -> dict[str, tuple[bytes | None, str | None]]:
    """The image, or the error, of each row."""
    return {
        row["id"]: (row["image"], row["error"])
        for chunk in cut_items(source.take())
        for row in pa.Table.from_batches([chunk.batch]).to_pylist()
    }


def fill_tiff(pages: int) -> bytes:
    file = io.BytesIO()
    page = PIL.Image.new("L", (28, 28))
    page.save(file, "TIFF", save_all=True, append_images=[page] * (pages - 1))
    return file.getvalue()


def test_a_prefix_is_read_as_a_folder_is(buckets: Buckets, tmp_path: Path) -> None:
    files = {
        **{f"{n}.png": ONE + bytes([n]) for n in range(11)},
        **{"b/7.png": ONE, "b/c d#?%20é.png": ONE, "10/x.png": ONE, "notes.txt": b"no image"},
        **{".hidden/1.png": ONE, "one.tif": fill_tiff(1), "two.tif": fill_tiff(2)},
    }
    for name, content in files.items():
        buckets.put(f"scans/folder/{name}", content)
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(content)
    here, there = open_sources("folder"), open_sources("s3://scans/folder/")
    expected = read_all(here)
    assert len(expected) == 17
    found = read_all(there)
    assert [*found.items()] == [*expected.items()]
    assert there.skipped == here.skipped
    gets = [
        path for method, path in buckets.gate.seen if method == "GET" and "list-type" not in path
    ]
    assert len(gets) == 16, "a file is read once, with all of its pages"
    first, second = open_sources("s3://scans/folder/b"), open_sources("s3://scans/folder/10")
    both = open_sources(["s3://scans/folder/b", "s3://scans/folder/10"])
    ids = [*(f"s3://scans/folder/b/{id}" for id in read_all(first))]
    assert [*read_all(both)] == [*ids, *(f"s3://scans/folder/10/{id}" for id in read_all(second))]


def test_a_prefix_in_google_s_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    access._connect.cache_clear()
    with serve_google("a/2.png", "a/b/c/3.png", "a/10.png", "a//4.png", "d/5.png") as host:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", host)
        found = read_all(open_sources("gs://scans/a"))
        assert [*found.items()] == [
            (name, (b"one", None)) for name in ("2.png", "10.png", "b/c/3.png")
        ]
        for url, text in (("gs://scans/x", "no such object"), ("gs://none/a", "no such bucket")):
            with pytest.raises(UsageError, match=text):
                open_sources(url)
    access._connect.cache_clear()


def test_many_are_read_at_once_and_only_so_far_ahead(
    buckets: Buckets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "SILENT_SECONDS", 60.0)
    for n in range(66):
        buckets.put(f"scans/many/{n}.png", ONE)
    running = 0

    def wait(method: str, path: str) -> str | None:
        nonlocal running
        if method == "GET" and "/many/" in path:
            running += 1
            return "hang"
        return None

    buckets.gate.fault = wait
    names = iter(objects.walk("s3://scans/many", open_sources("s3://scans/many").skipped))
    taken: list[str] = []

    def entries() -> Iterator[tuple[str, Callable[[], bytes]]]:
        for name, size in names:
            taken.append(name)
            yield name, objects.read_ahead(f"s3://scans/many/{name}", size)

    first = next(objects.start_ahead(entries(), lambda item: item[1]))
    assert first[0] == "0.png"
    wait_for(lambda: running >= 32)
    assert len(taken) == access.IN_FLIGHT_REQUESTS
    buckets.gate.fault = lambda method, path: None
    buckets.gate.release.set()
    assert first[1]() == ONE


def zip_of(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, ONE)
    return file.getvalue()


def table_of(*ids: str) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"id": ids, "image": [ONE] * len(ids)}), file)
    return file.getvalue()


@pytest.mark.parametrize("scheme", ["s3://", "web"])
@pytest.mark.parametrize(
    ("name", "content", "ids"),
    [
        ("set.zip", zip_of("a/1.png", "2.png"), ["a/1.png", "2.png"]),
        ("set.parquet", table_of("x", "y"), ["x", "y"]),
        ("list.csv", b"path,label\n../dir/7.png,1\n", ["../dir/7.png"]),
        ("two.tif", fill_tiff(2), ["{url}#1", "{url}#2"]),
        ("1.png", ONE, ["{url}"]),
    ],
)
def test_a_single_object(
    scheme: str, name: str, content: bytes, ids: list[str], buckets: Buckets
) -> None:
    buckets.put("scans/dir/7.png", ONE)
    buckets.put(f"scans/one/{name}", content)
    root = "s3://scans" if scheme == "s3://" else f"{buckets.gate.url}/scans"
    url = f"{root}/one/{name}"
    key = "?X-Amz-Signature=5ec3e7" if scheme == "web" else ""
    source = open_sources(url + key)
    assert source.name == url and source.origin.sources == (url,)
    assert source.count() == len(ids)
    found = read_all(source)
    assert [*found] == [id.format(url=url) for id in ids]
    assert not any(error for _, error in found.values())


def fail_at(
    part: str, fault: str, method: str = "", times: int = 1000
) -> Callable[..., str | None]:
    left = times

    def decide(seen: str, path: str) -> str | None:
        nonlocal left
        if part not in path or method not in seen or not left:
            return None
        left -= 1
        return fault

    return decide


@pytest.mark.parametrize(
    ("url", "fault", "text"),
    [
        ("s3://nowhere/dir", None, "s3://nowhere/dir: there is no such bucket"),
        ("s3://scans/nothing", None, "no such object or folder: s3://scans/nothing"),
        ("s3://scans/dir", "403", "can't read s3://scans/dir: no rights"),
        ("s3://scans/dir", "301", "in another region, which AWS_REGION must name"),
        ("s3://scans/dir", "503", "can't read s3://scans/dir: .*503"),
        ("s3://scans/dir", "hang", "it does not answer within"),
        ("s3://scans/dir", "turn", "it redirects without an end"),
        ("s3://key:word@scans/dir", None, "must not have a password"),
        ("s3://", None, "names no bucket"),
        ("{web}/none.zip?key=5ec3e7", None, "no such object or folder: http.*none.zip$"),
        ("{web}/x.zip?key=5ec3e7", "403", "x.zip: no rights"),
        ("{web}/x.zip?key=5ec3e7", "503", "x.zip: HTTP status 503"),
        ("{web}/x.zip?key=5ec3e7", "hang", "x.zip: .*timed out"),
        ("{web}/x.zip?key=5ec3e7", "turn", "x.zip: it redirects without an end"),
        ("http://me:word@localhost/x.zip", None, "must not have a password"),
        ("az://scans/dir", None, "AZURE_STORAGE_ACCOUNT"),
        ("https://[a/x.zip?key=5ec3e7", None, r"https://\[a/x.zip is no URL: Invalid IPv6"),
    ],
)
def test_what_can_t_be_opened_is_said_in_a_line(
    url: str, fault: str | None, text: str, buckets: Buckets, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault == "hang":
        monkeypatch.setattr(access, "SILENT_SECONDS", 1.0)
    if fault:
        buckets.gate.fault = lambda method, path: fault
    with pytest.raises(UsageError, match=text) as told:
        open_sources(url.format(web=f"{buckets.gate.url}/scans"))
    words = str(told.value)
    assert "\n" not in words
    assert not any(secret in words for secret in (SECRET, KEY_ID, "5ec3e7", "word@"))


def test_one_bad_object_is_a_row(buckets: Buckets, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(6):
        buckets.put(f"scans/bad/{n}.png", ONE)
    faults = {"1.png": "404", "2.png": "huge", "3.png": "403"}
    passing = {"4.png": ["503", "503"], "5.png": ["cut"]}

    def decide(method: str, path: str) -> str | None:
        name = path.rpartition("/")[2]
        if method == "GET" and passing.get(name):
            return passing[name].pop()
        return faults.get(name)

    buckets.gate.fault = decide
    found = read_all(open_sources("s3://scans/bad"))
    assert not any(passing.values())
    assert found == {
        "0.png": (ONE, None),
        "1.png": (None, "it is not in the store"),
        "2.png": (None, "larger than 64 MB"),
        "3.png": (None, access.NO_RIGHTS),
        "4.png": (ONE, None),
        "5.png": (ONE, None),
    }
    assert ("GET", "/scans/bad/2.png") not in buckets.gate.seen
    urls = [f"s3://scans/bad/{n}.png" for n in (0, 1)]
    expected = {urls[0]: (ONE, None), urls[1]: (None, "it is not in the store")}
    assert read_all(open_images(urls)[0]) == expected
    listed = "\n".join([*urls, "s3://", "s3://scans"])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(listed.encode())))
    no_object = (None, "it names no object, as s3://BUCKET/NAME does")
    assert read_all(open_sources("-")) == {
        **expected,
        **dict.fromkeys(("s3://", "s3://scans"), no_object),
    }
    for sources, id in ((["s3://scans/bad"], "0.png"), (urls, urls[0])):
        assert [image.content for image in find_images(None, sources, [id])] == [ONE]


@pytest.mark.parametrize("scheme", ["s3://", "web"])
def test_a_file_that_is_cut_is_copied_again(scheme: str, buckets: Buckets) -> None:
    content = zip_of("1.png", "2.png")
    buckets.put("scans/cut.zip", content)
    root = "s3://scans" if scheme == "s3://" else f"{buckets.gate.url}/scans"
    cuts = iter(["cut"])
    buckets.gate.fault = lambda method, path: (
        next(cuts, None) if method == "GET" and "cut.zip" in path else None
    )
    assert [*read_all(open_sources(f"{root}/cut.zip"))] == ["1.png", "2.png"]
    assert next(cuts, None) is None


def test_an_object_that_is_written_while_it_is_copied_is_copied_again(
    buckets: Buckets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parts of a copy would be of both versions."""
    monkeypatch.setattr(stores, "PART_BYTES", 200)
    old, new = (np.zeros((images, 28, 28), np.uint8) + images for images in (2, 3))
    contents = []
    for array in (old, new):
        file = io.BytesIO()
        np.save(file, array)
        contents.append(file.getvalue())
    buckets.put("scans/a.npy", contents[0])
    parts = 0

    def write_anew(method: str, path: str) -> None:
        nonlocal parts
        parts += method == "GET" and "a.npy" in path
        if parts == 3:
            parts += 1
            buckets.put("scans/a.npy", contents[1])

    buckets.gate.fault = write_anew
    batches = [*open_sources("s3://scans/a.npy").take()]
    pixels = [pixel for batch in batches for pixel in batch.column("pixels").to_pylist()]
    assert pixels == [bytes([3]) * 784] * 3


def test_a_change_of_an_object_is_seen(buckets: Buckets) -> None:
    buckets.put("scans/a.zip", b"one")
    before = find_change("s3://scans/a.zip")
    wait_for(
        lambda: buckets.put("scans/a.zip", b"two") or find_change("s3://scans/a.zip") != before
    )


def test_a_store_that_is_lost_ends_the_reading_after_what_came_before(buckets: Buckets) -> None:
    """So the same command makes progress."""
    for n in range(3):
        buckets.put(f"scans/lost/{n}.png", ONE)
    source = open_sources("s3://scans/lost")
    buckets.gate.fault = lambda method, path: "503" if "1.png" in path else None
    chunks = cut_items(source.take())
    assert next(chunks).batch.column("id").to_pylist() == ["0.png"]
    with pytest.raises(StoreError, match="can't read s3://scans/lost/1.png: .*503"):
        next(chunks)


def test_a_busy_store_is_asked_again(buckets: Buckets) -> None:
    """More often than Amazon's library does, which tires if many requests fail."""
    names = [f"{n:02}.png" for n in range(60)]
    for name in names:
        buckets.put(f"scans/busy/{name}", ONE)
    refusals = Counter({"list-type=2": 4} | {name: 7 for name in names[::3]})

    def refuse(method: str, path: str) -> str | None:
        for part in +refusals:
            if part in path:
                refusals[part] -= 1
                return "503"
        return None

    buckets.gate.fault = refuse
    assert read_all(open_sources("s3://scans/busy")) == dict.fromkeys(names, (ONE, None))
    assert not +refusals


def test_a_stuck_upload_is_interrupted_and_made_up_for(
    buckets: Buckets, local: Local, tmp_path: Path
) -> None:
    draw_one().save(tmp_path / "1.png")
    gate, out = buckets.gate, "s3://scans/stuck/rows.csv"
    command = [*DIGITQ, "classify", "1.png", "-o", out, "--broker", local.url]
    gate.fault = lambda method, path: "hang" if method in ("PUT", "POST") else None
    for number, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        gate.seen.clear()
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            wait_for(lambda: any(method in ("PUT", "POST") for method, _ in gate.seen))
            process.send_signal(number)
            assert process.wait(30) == status, "it waits for no request"
            assert process.stderr and "1 row in rows.csv.partial: the same" in process.stderr.read()
    gate.release.set()
    gate.reset()
    assert not has_object(out)
    assert subprocess.run(command).returncode == 0
    assert b"1.png" in buckets.get("scans/stuck/rows.csv")


@pytest.mark.parametrize(
    ("out", "text"),
    [
        ("s3://nowhere/out.csv", "there is no such bucket"),
        ("s3://scans/out.txt", "must end in .csv or .jsonl or .parquet"),
        ("s3://scans/there.csv", "s3://scans/there.csv exists: --overwrite replaces it"),
        ("https://a.org/out.csv?key=5ec3e7", "can't write https://a.org/out.csv: name a file"),
    ],
)
def test_an_out_that_can_t_be_written_is_said_at_once(
    out: str, text: str, buckets: Buckets
) -> None:
    buckets.put("scans/there.csv", b"")
    with pytest.raises(UsageError, match=text):
        StoreSink(out, {})
    assert not [*Path().iterdir()]


def test_a_killed_run_goes_on_and_a_failed_upload_is_made_up_for(
    buckets: Buckets, local: Local, tmp_path: Path
) -> None:
    buckets.put("scans/run/set.zip", zip_of(*(f"{n}.png" for n in range(600))))
    for n in range(3):
        buckets.put(f"scans/run/more/{n}.png", ONE)
    gate, partial = buckets.gate, tmp_path / "rows.csv.partial"
    names = ["s3://scans/run/set.zip", "s3://scans/run/more"]
    command = [*DIGITQ, "classify", *names, "-o", "s3://scans/out/rows.csv", "--broker", local.url]

    def run() -> tuple[int, str]:
        ended = subprocess.run(command, capture_output=True, text=True)
        return ended.returncode, ended.stderr

    gate.fault = fail_at("/run/more/", "hang")
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as first:
        wait_for(lambda: partial.exists() and partial.stat().st_size)
        first.kill()
    gate.seen.clear()
    with subprocess.Popen(command, stderr=subprocess.PIPE) as second:
        wait_for(lambda: any("/run/more/" in path for _, path in gate.seen))
        second.send_signal(signal.SIGINT)
        assert second.wait(30) == 130, "Ctrl-C waits for no request"
    gate.release.set()
    gate.reset()
    gate.fault = fail_at("/out/", "403", "P")
    status, told = run()
    assert status == 3 and "can't write s3://scans/out/rows.csv: no rights" in told
    assert "603 rows in rows.csv.partial: the same command continues from there" in told
    gate.reset()
    gate.fault = fail_at("run", "503", "G")  # nothing is read again
    status, told = run()
    assert status == 0, told
    assert "the rows are in s3://scans/out/rows.csv" in told
    assert not [*tmp_path.iterdir()]
    rows = [*csv.DictReader(io.StringIO(buckets.get("scans/out/rows.csv").decode()))]
    zipped = [f"{names[0]}/{n}.png" for n in range(600)]
    assert [row["id"] for row in rows] == [*zipped, *(f"{names[1]}/{n}.png" for n in range(3))]
    record: dict[str, Any] = json.loads(buckets.get("scans/out/rows.csv.json"))
    assert record["sources"] == names and record["counts"]["images"] == 603
    assert SECRET not in json.dumps(record) and KEY_ID not in json.dumps(record)
    status, told = run()
    assert status == 2 and "s3://scans/out/rows.csv exists" in told
