"""Rendered numbers that `number` rehearses, so that it does not forget them while it learns others.

`python -m training rehearsal` made the file: an Arrow table with `image`, a WebP picture of grey
values; `number`; and `middles`, where the middle of each digit is in a strip, in px. A row without
`middles` is a whole picture, which calibrates and measures.
"""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pyarrow as pa

from worker.learning.column_batches import LearnedStrip
from worker.learning.number_calibration import NumberPicture
from worker.sight.numbers.finding import equalise

REHEARSAL_FILE = Path(__file__).parent / "rehearsal.arrow"


class Rehearsal(NamedTuple):
    strips: list[LearnedStrip]
    pictures: list[NumberPicture]


def load_rehearsal() -> Rehearsal:
    """All strips and pictures of the file."""
    strips, pictures = [], []
    with pa.ipc.open_file(REHEARSAL_FILE) as file:
        rows = file.read_all().to_pylist()
    for row in rows:
        number, content = row["number"], np.frombuffer(row["image"], np.uint8)
        grey = np.asarray(cv2.imdecode(content, cv2.IMREAD_GRAYSCALE), np.uint8)
        if row["middles"] is None:
            pictures.append(NumberPicture(grey, number))
        else:
            middles = np.array(row["middles"], np.float64)
            strips.append(LearnedStrip(equalise(grey), middles, [*map(int, number)]))
    return Rehearsal(strips, pictures)
