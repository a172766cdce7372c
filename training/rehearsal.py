"""Writes the rendered numbers that `digitq train number --data` rehearses, once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from training.rendered import collect, start_rendering
from training.synthetic.rendering import start_processes
from worker.learning.own_numbers import REHEARSAL_FILE
from worker.learning.scenes import cut_strips
from worker.sight.types import Grey

STRIP_SCENES = 2_300  # about a fifth of them has no clear number
PICTURE_SCENES = 400
WEBP_QUALITY = 80
SCHEMA = pa.schema({"image": pa.binary(), "number": pa.string(), "middles": pa.list_(pa.float32())})


def write_rehearsal(out: Path, seed: int) -> None:
    """Write `out/rehearsal.arrow`: strips of MNIST's training digits, and whole pictures.

    The pictures are of the digits that are held back.
    """
    with start_processes() as pool:
        learned, held_back = (
            collect(start_rendering(pool, is_held_back, (), (seed, is_held_back), count))
            for is_held_back, count in ((False, STRIP_SCENES), (True, PICTURE_SCENES))
        )

    def rows() -> Iterator[dict[str, Any]]:
        for strip in cut_strips(learned, np.random.default_rng(seed)):
            low, high = strip.values.min(), strip.values.max()
            grey = np.round((strip.values - low) * (255 / (high - low))).astype(np.uint8)
            yield {"image": encode(grey), "number": strip.text, "middles": strip.middles.tolist()}
        for scene in held_back:
            if not scene.doubt:
                yield {"image": encode(scene.picture), "number": scene.text}

    table = pa.Table.from_pylist([*rows()], SCHEMA)
    with pa.ipc.new_file(out / REHEARSAL_FILE.name, SCHEMA) as file:
        file.write_table(table)


def encode(grey: Grey) -> bytes:
    """The picture as a WebP file."""
    return cv2.imencode(".webp", grey, [cv2.IMWRITE_WEBP_QUALITY, WEBP_QUALITY])[1].tobytes()
