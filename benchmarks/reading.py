"""How long a worker takes to read an image file, beside decoders alone.

`python -m benchmarks.reading [--rounds N] [FILE...]` prints µs an image on one core, the median of
the rounds. The files must be PNG or JPEG and show a digit. Without files, it takes MNIST test
images as PNG, and as JPEG photos rendered around them with ruled lines, shadows and noise. A
decoder only gives the whole picture in colour; a worker goes on to the 28×28 that the network sees.
"""

import argparse
import io
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import PIL.Image
import pyarrow as pa
import torch
import torchvision

from digitq.worker.classify import read_image, read_pixels, watch
from digitq.worker.dataset import load_mnist
from digitq.worker.picture import Picture
from digitq.worker.sight.digits import trace_digit
from training.synthetic.scenes import PICTURE_KINDS, draw_shape, enlarge, warp

FILE_COUNTS = {"28×28 PNG": 1000, "500×500 JPEG": 200, "4000×3000 JPEG": 8}
JPEG_QUALITY = 85
CAMERA_NOISE = 3.0  # standard deviation in grey values
Files = list[bytes]


def draw_photos(width: int, height: int, count: int) -> Iterator[Picture]:
    """Photos of MNIST test images on paper, (height, width, 3)."""
    digits, labels = (tensor.numpy() for tensor in load_mnist("test"))
    rng = np.random.default_rng(0)
    for digit, other, label in zip(digits[:count], digits[-count:], labels.tolist(), strict=False):
        scene = PICTURE_KINDS["paper"](
            draw_shape(digit, label, rng), warp(enlarge(other, rng), rng), rng
        )
        photo = cv2.resize(scene, (width, height), interpolation=cv2.INTER_CUBIC)
        if photo.ndim == 2:
            photo = cv2.cvtColor(photo, cv2.COLOR_GRAY2RGB)
        yield cv2.add(photo, rng.normal(0, CAMERA_NOISE, photo.shape), dtype=cv2.CV_8U)


def encode(picture: Picture, format: str) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(picture).save(file, format, quality=JPEG_QUALITY)
    return file.getvalue()


def write_files(kind: str) -> Files:
    size, format = kind.split()
    width, height = map(int, size.split("×"))
    if format == "PNG":
        return [
            encode(digit, format) for digit in load_mnist("test")[0].numpy()[: FILE_COUNTS[kind]]
        ]
    return [encode(photo, format) for photo in draw_photos(width, height, FILE_COUNTS[kind])]


def by_worker(files: Files) -> None:
    watch.forget()
    ids = [str(number) for number in range(len(files))]
    read_pixels(pa.record_batch({"id": ids, "image": files}), read_image)


def one_by_one(files: Files) -> None:
    for content in files:
        deque(trace_digit(content), maxlen=0)


def by_opencv(files: Files) -> None:
    for content in files:
        cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)


def by_pillow(files: Files) -> None:
    for content in files:
        PIL.Image.open(io.BytesIO(content)).convert("RGB")


def by_torchvision(files: Files) -> None:
    for content in files:
        data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        torchvision.io.decode_image(data, torchvision.io.ImageReadMode.RGB)


READERS: dict[str, Callable[[Files], None]] = {
    "a worker": by_worker,
    "one by one": one_by_one,
    "OpenCV": by_opencv,
    "Pillow": by_pillow,
    "torchvision": by_torchvision,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("files", metavar="FILE", type=Path, nargs="*")
    options = parser.parse_args()
    own = {"these": [file.read_bytes() for file in options.files]}
    torch.set_num_threads(1)
    print(f"{'µs an image':16}{'kB':>8}", *(f"{name:>12}" for name in READERS))
    for kind in own if options.files else FILE_COUNTS:
        files = own.get(kind) or write_files(kind)
        seconds: dict[str, list[float]] = {name: [] for name in READERS}
        for _ in range(options.rounds):
            for name, read in READERS.items():
                started = time.process_time()
                read(files)
                seconds[name].append(time.process_time() - started)
        taken = [median(seconds[name]) / len(files) * 1e6 for name in READERS]
        size = sum(map(len, files)) / len(files) / 1e3
        print(f"{kind:16}{size:8.1f}", *(f"{each:12,.0f}" for each in taken))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
