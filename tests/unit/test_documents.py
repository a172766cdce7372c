"""Each page of a PDF, and of a TIFF with several, is an image of its own."""

import io
import os
import re
import signal
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import PIL.Image
import pyarrow as pa
import pypdfium2
import pytest
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from digitq.producer.batching import read_call
from digitq.producer.counts import Counts, add_ids
from digitq.producer.found_images import find_images
from digitq.producer.provenance import Record
from digitq.producer.sources.documents import page_entries
from digitq.producer.sources.in_memory import image_source
from digitq.producer.sources.opening import open_sources
from digitq.producer.sources.source import Entry, Naming
from digitq.protocol.asked.reading import digits
from digitq.protocol.chunk import Chunk
from digitq.protocol.errors import UsageError
from digitq.protocol.formats import drawer
from digitq.protocol.formats.drawer import render_page
from digitq.protocol.formats.pdf import (
    MAX_PAGE_PIXELS,
    MAX_PAGE_SIDE,
    PageError,
    cut_page,
    measure_page,
)
from digitq.protocol.origin import Origin
from digitq.protocol.settings import NUMBER, settings
from digitq.review.thumbnails import make_thumbnail
from digitq.worker.classify import classify_chunk
from digitq.worker.picture import ImageError
from digitq.worker.show.drawings import read
from digitq.worker.show.inspection import Panels, collect_panels
from digitq.worker.sight import limits
from digitq.worker.sight.decoding.any_file import has_more_pages, read_picture
from digitq.worker.sight.decoding.pillow import measure_image
from tests.cutting import cut_items
from tests.drawing import draw_one, encode_image
from tests.reading import read_digit
from tests.unit.test_decoding import likeness
from tests.unit.test_sources import read_all, try_to_read
from tests.waiting import children_of, freeze, wait_for

ROOT = Path(__file__).parents[2]
# What a PDF needs so that it asks for a password: 40-bit RC4, whose keys are of another text
LOCK = b"<</Filter/Standard/V 1/R 2/P -4/O<" + b"31" * 32 + b">/U<" + b"32" * 32 + b">>>"


def draw_pages(count: int, mode: str = "L") -> list[PIL.Image.Image]:
    """Pages that differ in their grey."""
    return [draw_one(ground=250 - 20 * number).convert(mode) for number in range(count)]


def make_document(count: int, format: str, mode: str = "L", **options: Any) -> bytes:
    first, *others = draw_pages(count, mode)
    return encode_image(first, format, save_all=True, append_images=others, **options)


def make_plain_pdf(count: int, size: tuple[float, float] = (72, 72)) -> bytes:
    file = io.BytesIO()
    document = pypdfium2.PdfDocument.new()
    for _ in range(count):
        document.new_page(*size).close()
    document.save(file)
    document.close()
    return file.getvalue()


def write_pdf(*contents: bytes) -> bytes:
    """A PDF of one A4 page, whose content is the first; each may draw the next one as `/F`."""
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 4 0 R%b>>"
    form = b"/Type/XObject/Subtype/Form/BBox[0 0 595 842]%b"
    next_one = [
        b"/Resources<</XObject<</F %d 0 R>>>>" % (5 + n) for n in range(len(contents) - 1)
    ] + [b""]
    parts = [b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[3 0 R]/Count 1>>"]
    parts.append(page % next_one[0])
    for number, content in enumerate(contents):
        packed = zlib.compress(content, 9)
        about = form % next_one[number] if number else b""
        head = b"<<%b/Filter/FlateDecode/Length %d>>stream\n" % (about, len(packed))
        parts.append(head + packed + b"\nendstream")
    objects = (b"%d 0 obj\n%b\nendobj\n" % one for one in enumerate(parts, 1))
    return b"%PDF-1.7\n" + b"".join(objects) + b"trailer<</Root 1 0 R>>\n%%EOF"


LINE = b"0 0 m 500 800 l S\n"
BOMBS = {
    "objects": write_pdf(LINE * 400_000),
    "a path": write_pdf(b"0 0 m " + b"500 800 l 0 9 l " * 400_000 + b"S"),
    "forms": write_pdf(b"/F Do", *[b"/F Do " * 10] * 6, LINE),
}


def lock(pdf: bytes) -> bytes:
    """The same PDF, for which a password is missing."""
    return re.sub(rb"trailer\s*<<", b"trailer<</ID[<31><31>]/Encrypt" + LOCK, pdf)


def read_back(content: bytes) -> np.ndarray:
    with PIL.Image.open(io.BytesIO(content)) as image:
        assert getattr(image, "n_frames", 1) == 1
        return np.asarray(image)


def see(content: bytes | None) -> bytes:
    """The pixels of a file: two copies of a PDF's page differ in their date."""
    return read_picture(content or b"", 60).tobytes()


def see_all(path: Path | str) -> dict[str, bytes]:
    return {id: see(content) for id, content in read_all(open_sources(str(path))).items()}


def rows_of(path: Path | str, **options: Any) -> list[dict[str, Any]]:
    chunks = cut_items(open_sources(str(path), **options).items)
    return [row for chunk in chunks for row in chunk.batch.to_pylist()]


def test_each_page_of_a_pdf_is_an_image(tmp_path: Path) -> None:
    (tmp_path / "a.PDF").write_bytes(make_document(3, "PDF", resolution=200))
    source = open_sources(str(tmp_path / "a.PDF"))
    pages = read_all(source)
    assert [*pages] == [f"{tmp_path}/a.PDF#{number}" for number in (1, 2, 3)]
    assert source.count() == 3
    for page, drawn in zip(pages.values(), draw_pages(3), strict=True):
        assert page.startswith(b"%PDF") and not has_more_pages(page)
        seen = read_picture(page, 60)
        assert seen.shape == (80, 60) == measure_image(page)[::-1]
        assert abs(int(seen[0, 0]) - int(np.asarray(drawn)[0, 0])) <= 1
        assert likeness(read_digit(page).image) > 0.95
    whole = (tmp_path / "a.PDF").read_bytes()
    assert read_digit(whole).review_reason == "pages"
    assert read_digit([*pages.values()][0]).review_reason == ""


def test_a_page_in_colours_stays_so() -> None:
    page = encode_image(PIL.Image.new("RGB", (20, 30), (200, 30, 30)), "PDF", resolution=200)
    assert np.abs(render_page(page) - np.array([200, 30, 30])).max() < 9
    assert render_page(make_document(1, "PDF", "RGB")).mode == "L"


def drawers() -> list[int]:
    """The processes that draw pages for this one."""
    lines = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children_of(os.getpid())}
    return [pid for pid, line in lines.items() if b"digitq.protocol.formats.drawer" in line]


@pytest.mark.parametrize("kind", BOMBS)
def test_a_page_that_takes_pdfium_minutes_is_a_row_with_an_error(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is on it. pdfium does not return meanwhile, which ended three workers."""
    monkeypatch.setattr(drawer, "MAX_DRAWING_SECONDS", 1)
    assert len(BOMBS[kind]) < 30_000
    batch = pa.record_batch({"id": ["a", "b"], "image": [BOMBS[kind], make_document(1, "PDF")]})
    result = classify_chunk(Chunk(0, batch), NUMBER)
    assert result.column("error").to_pylist() == ["takes longer than 1 s", None]


def test_a_page_at_which_pdfium_crashes_is_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    crash = "import os, sys; sys.stdin.buffer.read(8); os.kill(os.getpid(), 9)"
    command = [sys.executable, "-c", crash]
    start = partial(subprocess.Popen, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    page, own = make_plain_pdf(1), drawer.Drawer()
    with monkeypatch.context() as patch:
        patch.setattr(drawer, "start", start)
        with pytest.raises(PageError, match="damaged: pdfium ends with status -9"):
            own.draw(page)
    assert own.draw(page).mode == "L"
    own.stop()


def test_a_drawer_that_has_ended_starts_again() -> None:
    page = make_plain_pdf(1)
    size = render_page(page).size
    (process,) = drawers()
    os.kill(process, signal.SIGKILL)
    wait_for(lambda: Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] == "Z")
    assert render_page(page).size == size and drawers() != [process]


def test_a_limit_of_the_image_ends_the_drawing_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as that of the time that passes."""
    monkeypatch.setattr(limits, "MAX_CLOCK_SECONDS", 1.0)
    page = make_plain_pdf(1)
    render_page(page)
    (process,) = drawers()
    freeze(process)
    batch = pa.record_batch({"id": ["a"], "image": [page]})
    (error,) = classify_chunk(Chunk(0, batch), NUMBER).column("error").to_pylist()
    assert error.startswith("takes longer than") and not drawers()


def test_the_process_that_draws_ends_with_the_one_that_asked() -> None:
    code = """
import os, sys
from digitq.protocol.formats.drawer import render_page
from tests.waiting import children_of, freeze, wait_for
render_page(sys.stdin.buffer.read())
print(*children_of(os.getpid()), flush=True)
os.kill(os.getpid(), 9)
"""
    asked = [sys.executable, "-c", code]
    done = subprocess.run(asked, input=make_plain_pdf(1), stdout=subprocess.PIPE, cwd=ROOT)
    (process,) = map(int, done.stdout.split())
    wait_for(lambda: not Path(f"/proc/{process}/cmdline").exists())


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("L", {}),
        ("RGB", {"compression": "tiff_lzw"}),
        ("RGB", {"compression": "jpeg"}),
        ("1", {"compression": "group4"}),
        ("P", {}),
        ("I;16", {"compression": "tiff_deflate"}),
        ("L", {"big_tiff": True}),
        ("L", {"strip_size": 600}),
    ],
)
def test_each_page_of_a_tiff_is_an_image(mode: str, options: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(make_document(3, "TIFF", mode, **options))
    source = open_sources(str(tmp_path))
    pages = read_all(source)
    assert [*pages] == ["a.tif#1", "a.tif#2", "a.tif#3"] and source.count() == 3
    for number, page in enumerate(pages.values()):
        with PIL.Image.open(path) as whole:
            whole.seek(number)
            assert np.array_equal(read_back(page), np.asarray(whole))
        assert len(page) < os.path.getsize(path) and not has_more_pages(page)


def build_tiff(*pages: dict[int, int], order: str = "<") -> bytes:
    """A TIFF with a tile of 16×16 px for each page, of these further tags."""
    names = {"<": b"II*\0", ">": b"MM\0*"}
    content, pointer = bytearray(names[order] + bytes(4)), 4
    for number, others in enumerate(pages):
        tile = len(content)
        content += bytes([number]) * 256
        tags = {256: 16, 257: 16, 258: 8, 259: 1, 262: 1, 277: 1, 322: 16, 323: 16}
        tags |= {324: tile, 325: 256} | others
        struct.pack_into(f"{order}I", content, pointer, len(content))
        content += struct.pack(f"{order}H", len(tags))
        for tag, value in sorted(tags.items()):
            content += struct.pack(f"{order}HHII", tag, 4, 1, value)
        pointer = len(content)
        content += bytes(4)
    return bytes(content)


@pytest.mark.parametrize("order", "<>")
def test_tiles_and_both_byte_orders(order: str, tmp_path: Path) -> None:
    (tmp_path / "a.tiff").write_bytes(build_tiff({}, {}, {}, order=order))
    for number, page in enumerate(read_all(open_sources(str(tmp_path))).values()):
        assert (read_back(page) == np.full((16, 16), number)).all()


def test_a_page_stays_turned(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(make_document(2, "TIFF", tiffinfo={274: 6}))
    for page in read_all(open_sources(str(tmp_path))).values():
        assert read_picture(page, 60).shape == (60, 80)


def test_a_tiff_of_one_page_keeps_its_name(tmp_path: Path) -> None:
    files = {
        "one.tif": build_tiff({}),
        "thumbnail.tif": build_tiff({}, {254: 1}),
        "mask.tif": build_tiff({254: 2}, {254: 4}),
        "other.tif": encode_image(draw_one()),
        "other.pdf": encode_image(draw_one(), "JPEG"),
        "empty.tif": b"",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    source = open_sources(str(tmp_path))
    assert read_all(source) == files and source.count() == len(files)


def test_archives_have_documents(tmp_path: Path) -> None:
    members = {
        "x/a.pdf": make_document(2, "PDF"),
        "b.tif": make_document(2, "TIFF"),
        "c.png": encode_image(draw_one()),
    }
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, content in {**members, "b.cls": b"7"}.items():
            archive.writestr(name, content)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    ids = ["x/a.pdf#1", "x/a.pdf#2", "b.tif#1", "b.tif#2", "c.png"]
    pages = see_all(tmp_path / "a.zip")
    assert [*pages] == ids and pages == see_all(tmp_path / "a.tar")
    source = open_sources(str(tmp_path / "a.zip"))
    assert source.count() is None
    truths = {item.id: item.truth for item in source.items if isinstance(item, Entry)}
    assert truths["b.tif#1"] == truths["b.tif#2"] == "7" and not truths["c.png"]


def test_documents_of_one_name_have_ids_of_their_own(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive, pytest.warns(UserWarning):
        for content in (make_document(2, "PDF"), make_document(1, "PDF"), b"%PDF-"):
            archive.writestr("a.pdf", content)
    ids = [row["id"] for row in rows_of(tmp_path / "a.zip")]
    assert ids == ["a.pdf#1", "a.pdf#2", "a.pdf#1#2", "a.pdf"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (lock(make_document(2, "PDF")), "encrypted: the PDF needs a password"),
        (make_document(2, "PDF")[:700], "damaged: the PDF can't be read"),
        (make_plain_pdf(0), "damaged: the PDF can't be read, or has no pages"),
        (b"", "the file is empty"),
    ],
)
def test_a_pdf_without_pages_that_can_be_read_is_one_row(
    content: bytes, problem: str, tmp_path: Path
) -> None:
    (tmp_path / "a.pdf").write_bytes(content)
    (row,) = rows_of(tmp_path)
    assert row["id"] == "a.pdf" and row["image"] == content
    with pytest.raises(ImageError, match=problem):
        read_digit(content)
    assert not has_more_pages(content)


def test_a_damaged_page_is_one_row(tmp_path: Path) -> None:
    pdf, tiff = make_document(3, "PDF"), build_tiff({}, {}, {}, {})
    (tmp_path / "a.pdf").write_bytes(pdf.replace(b"[ 1 0 R 3 0 R", b"[ 1 0 R 0 0 R"))
    (tmp_path / "a.tif").write_bytes(tiff[:-300])
    rows = rows_of(tmp_path)
    ids = [f"a.pdf#{number}" for number in (1, 2, 3)] + [
        f"a.tif#{number}" for number in range(1, 5)
    ]
    assert [row["id"] for row in rows] == ids
    for row in rows:
        if row["id"] in ("a.pdf#2", "a.tif#4"):
            assert row["error"] == "damaged: the page can't be read"
        else:
            assert read_picture(row["image"], 9).size


@settings_of_hypothesis(max_examples=100, deadline=None)
@given(st.data())
def test_a_damaged_tiff_gives_rows(data: st.DataObject) -> None:
    content = bytearray(build_tiff({}, {254: 2}, {}))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.sampled_from([0, 1, 2, 16, 127, 255]))
    end = data.draw(st.sampled_from([None, -3, -300]))
    entries = page_entries(Naming(), "a.tif", lambda: bytes(content[:end]))
    assert all(try_to_read(entry) for entry in entries)


def test_a_missing_document_is_one_row(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="no such file"):
        open_sources(str(tmp_path / "a.pdf"))
    (tmp_path / "a.pdf").symlink_to("nowhere")
    os.mkfifo(tmp_path / "b.pdf")
    (row,) = rows_of(tmp_path)
    assert row["id"] == "a.pdf" and "No such file" in row["error"]


@pytest.mark.parametrize("format", ["PDF", "TIFF"])
def test_a_page_over_the_limit_is_one_row(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200), np.uint8)
    pages = [draw_one(), PIL.Image.fromarray(noise), draw_one()]
    path = tmp_path / f"a.{format[:4].lower()}"
    path.write_bytes(encode_image(pages[0], format, save_all=True, append_images=pages[1:]))
    monkeypatch.setenv("DIGITQ_IMAGE_BYTES", "9000")
    settings.cache_clear()
    assert os.path.getsize(path) > 9000
    errors = [row["error"] for row in rows_of(tmp_path)]
    assert errors[::2] == [None, None] and "larger than" in errors[1]
    settings.cache_clear()


def count_cuts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The indices of the pages that are cut out from now on."""
    cuts: list[int] = []

    def cut(document: Any, index: int) -> bytes:
        cuts.append(index)
        return cut_page(document, index)

    monkeypatch.setattr("digitq.producer.sources.documents.cut_page", cut)
    return cuts


def test_many_pages_are_read_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run goes on in the middle, and a limit ends it, without a look at the other pages."""
    path = str(tmp_path / "a.pdf")
    Path(path).write_bytes(make_plain_pdf(2000))
    cuts, ids = count_cuts(monkeypatch), [f"{path}#{number}" for number in range(1, 2001)]
    files = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    items = open_sources(path).items
    for item, id in zip(items, ids, strict=True):
        assert isinstance(item, Entry) and item.id == id and item.read()
        assert not files or len(os.listdir("/proc/self/fd")) <= files + 1
    assert cuts == [*range(2000)]
    assert not files or len(os.listdir("/proc/self/fd")) == files
    cuts.clear()
    resume = Counts(1990, add_ids(0, pa.array(ids[:1990])))
    for limit, rest in [(None, [*range(1990, 2000)]), (1993, [1990, 1991, 1992])]:
        source = open_sources(path, limit=limit)
        chunks = [*cut_items(source.items, resume=resume)]
        assert [id for one in chunks for id in one.batch["id"].to_pylist()] == [
            ids[index] for index in rest
        ]
        assert cuts == rest
        cuts.clear()


def test_what_pdfium_keeps_of_a_document_is_freed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(make_document(6, "PDF"))
    pages = read_all(open_sources(str(path)))
    monkeypatch.setattr(
        "digitq.producer.sources.documents.MAX_HELD_BYTES", 2 * max(map(len, pages.values()))
    )
    with patch("pypdfium2.PdfDocument", wraps=pypdfium2.PdfDocument) as opened:
        opened.new = pypdfium2.PdfDocument.new
        again = read_all(open_sources(str(path)))
    assert opened.call_count == 2
    assert [*map(see, again.values())] == [*map(see, pages.values())]


def test_threads_cut_pages_at_the_same_time(tmp_path: Path) -> None:
    for name, pages in [("a", 30), ("b", 40)]:
        (tmp_path / f"{name}.pdf").write_bytes(make_document(pages, "PDF"))
    paths = [str(tmp_path / f"{name}.pdf") for name in "abab"]
    alone = [see_all(path) for path in paths]
    with ThreadPoolExecutor(4) as pool:
        together = [*pool.map(see_all, paths)]
    assert together == alone and [*map(len, alone)] == [30, 40, 30, 40]


def test_a_process_ends_quietly_in_the_middle_of_a_document(tmp_path: Path) -> None:
    """A feeder that still uploads at the end has all pages."""
    (tmp_path / "a.pdf").write_bytes(make_document(9, "PDF"))
    code = """
import atexit, sys, threading
from digitq.producer.feeder import feeders
from digitq.producer.sources.opening import open_sources

class Slow(threading.Thread):
    attached = is_stopped = False
    def stop(self): pass
    def run(self):
        is_exiting.wait()
        print(sum(len(item.read()) > 500 for item in items))

is_exiting = threading.Event()
first = open_sources(sys.argv[1], limit=1)
assert [item.read() for item in first.items]
items = open_sources(sys.argv[1]).items
slow = Slow(daemon=True)
feeders.add(slow)
slow.start()
atexit.register(is_exiting.set)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "a.pdf")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("9\n", "", 0)


@pytest.mark.parametrize(
    "size", [(28_346.0, 28_346.0), (28_346.0, 3.0), (1e9, 1e-3), (2384.0, 3370.0), (3.0, 0.001)]
)
def test_a_page_of_10_m_has_a_lower_resolution(size: tuple[float, float]) -> None:
    width, height = measure_page(make_plain_pdf(1, size))
    assert 1 <= width * height <= MAX_PAGE_PIXELS + MAX_PAGE_SIDE
    assert max(width, height) <= MAX_PAGE_SIDE
    if width * height < 1e6:
        assert render_page(make_plain_pdf(1, size)).size == (width, height)


def test_documents_given_from_python(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(make_document(2, "PDF"))
    (tmp_path / "a.tif").write_bytes(make_document(1, "TIFF"))
    images = [path, ("own", str(path)), path, tmp_path / "a.tif"]
    source = image_source(images)  # type: ignore[arg-type]
    entries = [item for item in source.items if isinstance(item, Entry)]
    name = str(path)
    ids = [f"{name}#1", f"{name}#2", "own#1", "own#2", f"{name}#1#2", f"{name}#2#2"]
    assert [entry.id for entry in entries] == [*ids, str(tmp_path / "a.tif")]
    assert source.count() == 7
    with pytest.raises(UsageError, match="`classify` takes one image"):
        read_call(path, digits())


def test_pages_are_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans/a.pdf").write_bytes(make_document(3, "PDF"))
    draw_one().save("b.tif")
    pages = read_all(open_sources("scans"))
    for sources, ids in [
        (["scans"], ["a.pdf#3", "a.pdf#1"]),
        (["scans/a.pdf"], ["scans/a.pdf#3"]),
        (["scans/a.pdf", "b.tif"], ["scans/a.pdf#3", "b.tif"]),
        (["-"], ["scans/a.pdf#3", "scans/a.pdf#1", "b.tif", "b.tif#2"]),
    ]:
        origin = Origin(tuple(sources), str(tmp_path))
        record = Record.build("mlp", origin, Counts(), ())
        for one in (record, replace(record, finished="1999-01-01T00:00:00+00:00")):
            found = {image.id: image for image in find_images(one, [], ids)}
            assert found.keys() == {*ids}
            for id, image in found.items():
                page = pages.get(id.removeprefix("scans/"), (tmp_path / "b.tif").read_bytes())
                assert see(image.content) == see(page)
                changed = "it may have changed since it was read"
                assert image.problem == (changed if one is not record else None)


@pytest.mark.parametrize("format", ["PDF", "TIFF"])
def test_a_page_is_inspected_by_its_id(format: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{format[:3]}"
    path.write_bytes(make_document(3, format))
    for id, page in read_all(open_sources(str(path))).items():
        assert see(read(Path(id))) == see(page)
    with pytest.raises(UsageError, match="has 3 pages: there is no #4"):
        read(Path(f"{path}#4"))
    with pytest.raises(UsageError, match="can't read page 1 of none.pdf: No such file"):
        read(Path("none.pdf#1"))
    path.write_bytes(b"?")
    with pytest.raises(UsageError, match="can't read page 1 of .*: (damaged|it is truncated)"):
        read(Path(f"{path}#1"))


def test_inspect_and_a_report_show_a_page() -> None:
    panels: Panels = []
    collect_panels(make_document(1, "PDF", resolution=200), panels)
    assert panels[0][0][0] == "original\n60 x 80"
    thumbnail = make_thumbnail(make_document(1, "PDF", resolution=200))
    assert thumbnail and (thumbnail.width, thumbnail.height) == (60, 80)
    assert make_thumbnail(b"%PDF-1.7") is None
