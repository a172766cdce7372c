"""How long a worker takes for rendered whole numbers, beside its network alone.

`python -m benchmarks.rendered_numbers [--rounds N]` renders numbers of MNIST test digits. It prints
ms an image on one core, the median of the rounds, from the file to the row: of fields of 300×100 px
as PNG, and of photos of 12 megapixels as JPEG of which the number is a small part. The network
alone sees each picture once, at the scale of the first look. `benchmarks/accuracy.py` reads scenes
of each form and of each doubt.
"""

import argparse
import io
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median

import cv2
import numpy as np
import PIL.Image
import pyarrow as pa

from benchmarks.held_out import Read, judge
from digitq.protocol.asked.known import Known
from digitq.protocol.asked.values import FRACTIONS
from digitq.worker.classify import read_image, read_numbers
from digitq.worker.dataset import load_mnist
from digitq.worker.models.number_networks import load_networks
from digitq.worker.sight.numbers.finding import find_candidates
from digitq.worker.sight.numbers.line_strip import turn
from digitq.worker.sight.numbers.search import FIRST_LOOK
from training.synthetic.number_scenes import DOUBT_SHARES, NumberScene, render_number
from training.synthetic.printed_forms import FORMS
from training.synthetic.writing import Scripts

FIELD = (300, 100)  # px: width and height
PHOTO = (4000, 3000)
PHOTO_SHARE = 0.3  # the number's picture takes this share of the photo's width
SCENES = 200  # clear numbers on each form
TILTS = (15, 30, 45)  # degrees: by these, those on plain paper are turned to the left or right
COUNTS = {"300×100 PNG": 200, "4000×3000 JPEG": 8}


def draw_fields(count: int) -> list[np.ndarray]:
    """Rendered numbers of an ordinary shape, resized to a field."""
    images, labels = load_mnist("test")
    scripts = Scripts(images.numpy(), labels.numpy())
    rng = np.random.default_rng(0)
    fields: list[np.ndarray] = []
    while len(fields) < count:
        scene = render_number(scripts, rng)
        height, width = scene.picture.shape[:2]
        if not scene.doubt and 2 < width / height < 4:
            fields.append(cv2.resize(scene.picture, FIELD, interpolation=cv2.INTER_AREA))
    return fields


def render_scenes() -> dict[str, list[NumberScene]]:
    """Clear numbers on each form, tilted ones, and doubtful ones of each kind."""
    images, labels = load_mnist("test")
    scripts = Scripts(images.numpy(), labels.numpy())
    rng = np.random.default_rng(1)
    scenes: dict[str, list[NumberScene]] = {
        kind: [] for kind in (*FORMS, *filter(None, DOUBT_SHARES))
    }
    for form in FORMS:
        while len(scenes[form]) < SCENES:
            scene = render_number(scripts, rng, form)
            if not {*scene.text} & {*FRACTIONS}:  # such a number is no integer
                scenes[scene.doubt or form].append(scene)
    for tilt in TILTS:
        scenes[f"plain, {tilt}°"] = [
            replace(scene, picture=turn(scene.picture, (-tilt, tilt)[place % 2])[0])
            for place, scene in enumerate(scenes["plain"])
        ]
    return scenes


def read_scenes(scenes: list[NumberScene]) -> Read:
    """The answers to scenes, of which only the digits count."""
    rows = by_worker([encode(scene.picture, "PNG") for scene in scenes]).to_pylist()
    is_right = [
        (row["number"] or "") == "".join(map(str, scene.digits))
        for row, scene in zip(rows, scenes, strict=True)
    ]
    return judge(is_right, rows)


def encode(picture: np.ndarray, format: str) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(picture).save(file, format, quality=85)
    return file.getvalue()


def draw_photo(field: np.ndarray) -> bytes:
    """A field in the middle of a photo whose paper has the field's colour."""
    colour = np.median(field.reshape(-1, *field.shape[2:]), axis=0)
    photo = np.full((PHOTO[1], PHOTO[0], *field.shape[2:]), colour, np.uint8)
    width = int(PHOTO_SHARE * PHOTO[0])
    large = cv2.resize(field, (width, width * FIELD[1] // FIELD[0]), interpolation=cv2.INTER_CUBIC)
    top, left = (PHOTO[1] - large.shape[0]) // 2, (PHOTO[0] - width) // 2
    photo[top : top + large.shape[0], left : left + width] = large
    return encode(photo, "JPEG")


def by_worker(files: list[bytes]) -> pa.RecordBatch:
    batch = pa.record_batch({"id": [str(n) for n in range(len(files))], "image": files})
    return read_numbers(batch, read_image, Known("integer"))


def by_network(files: list[bytes]) -> None:
    detector = load_networks()[0].detector
    for _ in files:
        find_candidates(detector, BLANK_FIELD, FIRST_LOOK / FIELD[1])


BLANK_FIELD = np.full(FIELD[::-1], 255, np.uint8)
READERS: dict[str, Callable[[list[bytes]], object]] = {"a worker": by_worker, "network": by_network}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    fields = draw_fields(COUNTS["300×100 PNG"])
    sets = {
        "300×100 PNG": [encode(field, "PNG") for field in fields],
        "4000×3000 JPEG": [draw_photo(field) for field in fields[: COUNTS["4000×3000 JPEG"]]],
    }
    print(f"{'ms an image':16}", *(f"{name:>10}" for name in READERS))
    for kind, files in sets.items():
        taken = []
        for read in READERS.values():
            seconds = []
            for _ in range(rounds):
                started = time.process_time()
                read(files)
                seconds.append(time.process_time() - started)
            taken.append(median(seconds) / len(files) * 1e3)
        print(f"{kind:16}", *(f"{each:10.1f}" for each in taken))


if __name__ == "__main__":
    main()
