"""Cuts single digits out of pictures of real numbers, with what is written around them."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

import cv2
import numpy as np

from digitq.worker.learning.number_examples import PlacedNumber, RealNumber, place_number
from digitq.worker.models.number_networks import load_networks
from digitq.worker.picture import INPUT_SIDE, Grey, ImageError
from digitq.worker.sight.decoding.pillow import prepare_libraries
from digitq.worker.sight.normalisation.steps import normalise
from training.chance import Rng
from training.hands import load_numbers
from training.synthetic.rendering import Labelled, join, start_processes

BLOCK_NUMBERS = 100  # a process cuts this many numbers at a time, from a seed of their own
# A picture ends this many heights of a digit beyond the digit's box, so that neighbours reach in
MARGINS = -0.06, 0.22
MIN_CUT_HEIGHT = 14  # px: the digit of a picture that is made smaller keeps at least this height
SHRUNK_SHARE = 0.4  # this share of the pictures is made smaller


def cut_digit(placed: PlacedNumber, place: int, rng: Rng) -> Grey:
    """The picture around one digit of a number."""
    picture, boxes = placed.real.picture, placed.digits
    height = float(np.median(boxes[:, 3] - boxes[:, 1]))
    off = height * rng.uniform(*MARGINS, 4) * (-1, -1, 1, 1)
    left, top, right, bottom = np.round(boxes[place] + off).astype(int).tolist()
    part = picture[max(0, top) : max(1, bottom), max(0, left) : max(1, right)]
    if rng.random() < SHRUNK_SHARE and height > MIN_CUT_HEIGHT:
        scale = rng.uniform(MIN_CUT_HEIGHT, height) / height
        size = [max(8, round(side * scale)) for side in part.shape[::-1]]
        return np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)
    return part.copy()


def cut_block(numbers: Sequence[RealNumber], seed: int) -> tuple[Labelled, list[str]]:
    """The digits of the numbers that are found digit by digit, normalised, and their sources."""
    prepare_libraries()
    rng, reader = np.random.default_rng(seed), load_networks()[0]
    seen, sources = list[tuple[Grey, int]](), list[str]()
    for number in numbers:
        placed = place_number(reader, number)
        if not (placed and placed.is_exact):
            continue
        labels = [int(sign) for sign in number.text if sign.isdecimal()]
        for place, label in enumerate(labels):
            with suppress(ImageError):
                seen.append((normalise(cut_digit(placed, place, rng)), label))
                sources.append(number.source)
    images = np.array([image for image, _ in seen], np.uint8).reshape(-1, INPUT_SIDE, INPUT_SIDE)
    return (images, np.array([label for _, label in seen], np.int64)), sources


def cut_set(hands: Sequence[Path], seed: int, held_back: bool) -> tuple[Labelled, Counter[str]]:
    """The digits of the real numbers of writers that are held back, or of all others, as a worker
    sees them: (N, 28, 28) and (N,). Also gives how many each source has."""
    numbers = [*load_numbers(hands, held_back)]
    starts = range(0, max(1, len(numbers)), BLOCK_NUMBERS)  # a block may be empty
    blocks = [numbers[start : start + BLOCK_NUMBERS] for start in starts]
    with start_processes() as pool:
        parts = [*pool.map(cut_block, blocks, count(seed * 1_000_003))]
    counts = Counter(source for _, sources in parts for source in sources)
    return join([digits for digits, _ in parts]), counts
