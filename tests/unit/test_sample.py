"""Which rows of a job a notebook shows, and their thumbnails."""

import re

import numpy as np
import PIL.Image
import pyarrow as pa

from digitq.reports.pictures import Thumbnail
from digitq.sample import MAX_KEPT_BYTES, Sample
from protocol.chunk import FILES_SCHEMA, NUMBER_SCHEMA, RESULT_SCHEMA, Chunk
from tests.drawing import draw_one, encode_image

ONE = encode_image(draw_one())
CHUNK_ROWS = 40


def row(number: int, confidence: float | None, review: bool = False, **other: object) -> dict:
    label = None if confidence is None else 1
    return {
        **{"id": f"{number}.png", "label": label, "confidence": confidence, "probabilities": None},
        **{"error": None, "review": review, "reason": "unsure" if review else None, **other},
    }


def failed(number: int) -> dict:
    return row(number, None, True, error=f"torn {number}", reason="error")


def sample_of(
    rows: list[dict], image: bytes | None = ONE, schema: pa.Schema = RESULT_SCHEMA
) -> Sample:
    sample = Sample()
    for start in range(0, len(rows), CHUNK_ROWS):
        part = rows[start : start + CHUNK_ROWS]
        images = [{"id": row["id"], "image": image} for row in part]
        chunk = Chunk(start, pa.RecordBatch.from_pylist(images, FILES_SCHEMA))
        sample.add(chunk, pa.RecordBatch.from_pylist(part, schema))
    return sample


def test_of_many_rows_those_to_look_at_are_shown() -> None:
    """Answers to review come before less sure ones that are not."""
    rows = [row(number, 0.5 + number / 1000) for number in range(300)]
    rows[250] = row(250, 0.999, review=True)
    rows[120], rows[121] = row(120, 0.3, review=True), row(121, 0.2)
    for number in range(200, 210):
        rows[number] = failed(number)
    sample = sample_of(rows)
    shown = {
        caption: re.findall(r"<td[^>]*>(\d+)\.png</td>", table)
        for caption, table in re.findall(
            "<caption>(.*?)</caption>(.*?)</table>", sample.html(), re.S
        )
    }
    assert shown == {
        "with an error": ["200", "201", "202", "203", "204"],
        "least sure": ["120", "250", "121", "0", "1", "2", "3", "4", "5", "6"],
        "first": ["0", "1", "2", "3", "4"],
    }
    assert "torn 204" in sample.html() and sample.html().count("<img ") == 20
    assert len(sample.rows) <= 35


def test_few_rows_are_all_shown_in_their_order() -> None:
    rows = [failed(0), row(1, 0.9), row(2, 0.1, review=True), row(3, 0.95, truth=7)]
    schema = RESULT_SCHEMA.append(pa.field("truth", pa.int8()))
    html = sample_of([{"truth": None, **row} for row in rows], schema=schema).html()
    assert re.findall(r">(\d)\.png</td>", html) == ["0", "1", "2", "3"]
    assert "torn 0" in html and "unsure" in html and "not 7" in html and "10.00%" in html
    assert sample_of([]).html() == ""


def test_nothing_in_a_row_becomes_markup() -> None:
    odd = "<img src=x onerror=alert(1)>\n\"'$x$=1+1.png"
    rows = [row(0, 0.9, id=odd), row(1, None, True, error="<script>")]
    html = sample_of(rows, image=None).html()
    assert "<img" not in html and "<script" not in html
    assert "&lt;img src=x onerror=alert(1)&gt;\\n&quot;&#x27;$x$=1+1.png" in html
    assert html.count("no picture") == 2
    assert 'onerror=alert(1)&gt;\\n&quot;&#x27;$x$=1+1.png" style' in sample_of(rows).html()


def test_a_whole_number_is_shown() -> None:
    number = {"id": "a", "number": "007", "confidence": 0.9, "review": False}
    html = sample_of([number], schema=NUMBER_SCHEMA).html()
    assert ">007</td>" in html


def test_the_memory_for_large_images_is_bounded() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (700, 900, 3), np.uint8)
    large = encode_image(PIL.Image.fromarray(noise))
    assert len(large) > MAX_KEPT_BYTES
    sample = sample_of([row(number, 0.5) for number in range(CHUNK_ROWS)], large)
    assert all(isinstance(row["image"], Thumbnail) for row in sample.rows)
    assert sample.html().count("<img ") == 15


def test_a_file_of_784_bytes_is_no_array() -> None:
    assert "no picture" in sample_of([row(0, 0.9)], b"x" * 784).html()
