"""How long a worker takes for pages with a form, and whether its memory stays flat.

`python -m benchmarks.pages [--rounds N] [--pages N]` draws a form of A4 at 200 dpi with ten fields,
and pages of it: a scan that is shifted and a little askew, and a photo at an angle. It prints
seconds of processor time a page, the median of the rounds, on one core: the whole from the file to
the rows, then the reading of the ten fields once they are cut out; and how many fields are right.
Then it prints the memory of the process after a fifth of `--pages` pages, and after all of them.
"""

import argparse
import resource
import time
from statistics import median

import cv2
import numpy as np
from numpy.typing import NDArray

from digitq.producer.chunking import cut_chunks
from digitq.producer.sources.contents import read_items
from digitq.producer.sources.source import Entry
from digitq.protocol.asked.form import Field, Form
from digitq.protocol.asked.known import Known
from digitq.worker.classify import classify_chunk, read_image
from digitq.worker.picture import Grey
from digitq.worker.sight.decoding.any_file import read_picture
from digitq.worker.sight.forms.cutting import PAGE_SIDE, Cut, cut_cells
from digitq.worker.sight.normalisation.colours import to_grey
from digitq.worker.sight.numbers.recognition import trace_readings

SIZE = WIDTH, HEIGHT = 1654, 2339  # px: A4 at 200 dpi
FONT = cv2.FONT_HERSHEY_SIMPLEX
FIELDS = [(900.0, 250.0 + 180 * row, 1300.0, 330.0 + 180 * row) for row in range(10)]
NUMBERS = ["31275", "52641", "21354", "73165", "12345", "41275", "32175", "24", "13", "37"]
PHOTO = [(260, 200), (1800, 330), (1730, 2480), (120, 2300)]  # where the page's corners are
KNOWN = Known.check(pattern="integer")


def draw_blank() -> Grey:
    """The form: words, and ten boxes."""
    page, rng = np.full((HEIGHT, WIDTH), 255, np.uint8), np.random.default_rng(0)
    letters = [*"abcdefghiklmnoprstuvwyz"]
    for baseline in range(120, HEIGHT - 60, 60):
        text = " ".join("".join(rng.choice(letters, rng.integers(3, 9))) for _ in range(3))
        cv2.putText(page, text, (100, baseline), FONT, 1, 0, 2, cv2.LINE_AA)
    for box in FIELDS:
        left, top, right, bottom = map(int, box)
        cv2.rectangle(page, (left, top), (right, bottom), 0, 3)
    return page


def draw_pages(blank: Grey) -> dict[str, bytes]:
    """The pages as files, with a number in each field."""
    page = blank.copy()
    for box, number in zip(FIELDS, NUMBERS, strict=True):
        cv2.putText(page, number, (int(box[0]) + 40, int(box[3]) - 18), FONT, 2, 40, 4, cv2.LINE_AA)
    corners = np.array([(0, 0), (WIDTH, 0), (WIDTH, HEIGHT), (0, HEIGHT)], np.float32)

    def warp(places: NDArray[np.float32], size: tuple[int, int], around: int) -> bytes:
        matrix = cv2.getPerspectiveTransform(corners, places)
        seen = cv2.warpPerspective(page, matrix, size, borderValue=around)
        return cv2.imencode(".jpg", seen, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()

    return {
        "scan": warp(
            corners + np.array([(9, 4), (14, -6), (5, -9), (-2, 3)], np.float32), SIZE, 255
        ),
        "photo": warp(np.array(PHOTO, np.float32), (2000, 2700), 90),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--pages", type=int, default=200)
    options = parser.parse_args()
    blank = draw_blank()
    fields = (Field(f"f{row}", box, KNOWN) for row, box in enumerate(FIELDS))
    content = cv2.imencode(".png", blank)[1].tobytes()
    form = Form(content, "page", tuple(fields), (), ())

    def read(page: bytes) -> list[str]:
        batches = read_items([Entry("page.jpg", lambda: page)])
        (chunk,) = cut_chunks(batches, "number", form.cells)
        result = classify_chunk(chunk, "number", read_image, form)
        return [str(number) for number in result.column("number").to_pylist()]

    pages = draw_pages(blank)
    print(f"{'s a page':10} {'whole':>8} {'reading':>8} {'right':>10}")
    for name, page in pages.items():
        right = sum(map(str.__eq__, read(page), NUMBERS))  # this also reads the blank, once
        grey = to_grey(read_picture(page, PAGE_SIDE))
        cuts = [cut for cut in cut_cells(form, grey) if isinstance(cut, Cut)]
        taken: dict[str, list[float]] = {"whole": [], "reading": []}
        for _ in range(options.rounds):
            started = time.process_time()
            read(page)
            taken["whole"].append(time.process_time() - started)
            started = time.process_time()
            for cut in cuts:
                list(trace_readings(cut.picture, KNOWN))
            taken["reading"].append(time.process_time() - started)
        whole, reading = (median(each) for each in taken.values())
        print(f"{name:10} {whole:8.3f} {reading:8.3f} {right:5} of {len(NUMBERS)}")
    for count in (options.pages // 5, options.pages - options.pages // 5):
        for _ in range(count):
            read(pages["scan"])
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"after {count} pages more: {memory:,.0f} MB at most")


if __name__ == "__main__":
    main()
