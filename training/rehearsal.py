"""Writes the rendered scenes that `digitq train number --data` rehearses, once."""

from pathlib import Path

import cv2
import pyarrow as pa

from digitq.worker.learning.own_numbers import REHEARSAL_FILE
from digitq.worker.picture import Grey
from training.rendered import collect, start_rendering
from training.synthetic.rendering import start_processes

REHEARSED_SCENES, TESTED_SCENES = 1_050, 380
WEBP_QUALITY = 80
SCHEMA = pa.schema(
    {
        "picture": pa.binary(),
        "signs": pa.list_(pa.int8()),
        "boxes": pa.list_(pa.float32()),
        "number": pa.string(),
        "text": pa.string(),
        "text_boxes": pa.list_(pa.float32()),
        "knows_signs": pa.bool_(),
        "doubt": pa.string(),
        "is_held_back": pa.bool_(),
    }
)


def write_rehearsal(out: Path, seed: int) -> None:
    """Write `out/rehearsal.arrow`: scenes of MNIST's training digits, and of those held back."""
    parts = (False, REHEARSED_SCENES), (True, TESTED_SCENES)
    with start_processes() as pool:
        rows = [
            scene._asdict()
            | {
                "picture": encode(scene.picture),
                "boxes": scene.boxes.ravel(),
                "text_boxes": scene.text_boxes.ravel(),
                "is_held_back": is_held_back,
            }
            for is_held_back, count in parts
            for scene in collect(
                start_rendering(pool, is_held_back, (), (seed, is_held_back), count)
            )
        ]
    with pa.ipc.new_file(out / REHEARSAL_FILE.name, SCHEMA) as file:
        file.write_table(pa.Table.from_pylist(rows, SCHEMA))


def encode(grey: Grey) -> bytes:
    """The picture as a WebP file."""
    return cv2.imencode(".webp", grey, [cv2.IMWRITE_WEBP_QUALITY, WEBP_QUALITY])[1].tobytes()
