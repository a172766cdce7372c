"""Finds what may be digits in a grey picture, with the detector, at one scale."""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from digitq.worker.models.number_networks import CELL, MULTIPLE, OTHER, SIZE_UNIT, divide
from digitq.worker.picture import Grey
from digitq.worker.sight.shrinking import shrink_by_factor as shrink_by_factor

MIN_HEAT = -3.5  # a cell whose logit is lower, which is a chance of 3 %, is no candidate
MAX_CANDIDATES = 512  # if there are more peaks, only the likeliest are candidates
SAME_OVERLAP = 0.6  # two boxes that overlap by more, as a share of the smaller, show one digit
FAINT_SHARE = 0.5  # a faint candidate has less than this share of the strongest one's contrast
FAINT_FACTOR = 0.1  # multiplies the odds that a faint candidate is a digit
PEN_CHANCE = 0.4  # candidates with at least this chance show how strong the pen's contrast is
PAPER_MARGIN = 0.2  # paper is measured up to this share of a digit's height around its box
PEAK_CELLS = np.ones((3, 3), np.uint8)  # a cell is a peak if none of these neighbours is higher
CONTRAST_ROWS = 24  # the contrast of a box is measured in about this many of its rows
EXTREME = 50  # one px in 50 may be darker than dark ink, and one lighter than light ink
MIN_DEVIATION = 6.0  # grey values: a picture with a smaller deviation is nearly blank


class Candidates(NamedTuple):
    """What may be digits, the likeliest first."""

    chances: NDArray[np.float32]  # (N,): the probability that there is a digit
    digits: NDArray[np.float32]  # (N, 10): which digit it is, if it is one
    others: NDArray[np.float32]  # (N,): the probability of a letter or a crossed-out digit
    boxes: NDArray[np.float32]  # (N, 4): left, top, right and bottom in px

    @property
    def middles(self) -> NDArray[np.float32]:
        """(N, 2): x and y in px."""
        return np.asarray((self.boxes[:, :2] + self.boxes[:, 2:]) / 2)

    @property
    def heights(self) -> NDArray[np.float32]:
        """(N,): in px."""
        return np.asarray(self.boxes[:, 3] - self.boxes[:, 1])

    def take(self, rows: NDArray[np.intp]) -> "Candidates":
        return Candidates(*(column[rows] for column in self))

    def likely(self, chance: float) -> "Candidates":
        """The candidates with at least this chance."""
        return self.take(np.flatnonzero(self.chances >= chance))


def find_candidates(
    detector: Callable[[Tensor], Tensor], picture: Grey, scale: float
) -> Candidates:
    """The candidates in a picture, (height, width), which the detector sees at `scale`."""
    height, width = (max(1, round(side * scale)) for side in picture.shape)
    coarse, factor = shrink_by_factor(picture, scale)
    small = cv2.resize(coarse, (width, height))
    canvas = np.zeros([-(-side // MULTIPLE) * MULTIPLE for side in (height, width)], np.float32)
    canvas[:height, :width] = equalise(small)
    answer = detector(torch.from_numpy(canvas)[None, None])[0].numpy()  # (16, height, width)
    heat = answer[0]
    rows, columns = np.nonzero((heat == cv2.dilate(heat, PEAK_CELLS)) & (heat >= MIN_HEAT))
    order = np.argsort(-heat[rows, columns], kind="stable")[:MAX_CANDIDATES]
    rows, columns = rows[order], columns[order]
    peaks = divide(answer[:, rows, columns].T)
    signs = np.exp(peaks.signs - peaks.signs.max(1, keepdims=True))
    signs /= signs.sum(1, keepdims=True) * (1 + np.exp(-peaks.middle))[:, None]
    middles = (np.stack([columns, rows], 1).astype(np.float32) + 0.5) * CELL
    edges = peaks.edges * np.float32(SIZE_UNIT)
    boxes = np.concatenate([middles - edges[:, :2], middles + edges[:, 2:]], 1)
    boxes *= np.array(coarse.shape[::-1] * 2, np.float32) * factor / ((width, height) * 2)
    likely = signs[:, :OTHER].sum(1)
    found = Candidates(likely, signs[:, :OTHER] / likely[:, None], signs[:, OTHER], boxes)
    rows = drop_copies(boxes)
    return found.take(rows[np.argsort(-likely[rows], kind="stable")])


def equalise(picture: Grey) -> NDArray[np.float32]:
    """Grey values of mean 0 and standard deviation 1, or less if the picture is nearly blank."""
    mean, deviation = (float(value[0, 0]) for value in cv2.meanStdDev(picture))
    return (picture.astype(np.float32) - mean) / max(MIN_DEVIATION, deviation)


def drop_copies(boxes: NDArray[np.float32]) -> NDArray[np.intp]:
    """The rows of boxes that don't show the digit of an earlier box."""
    is_copy = np.tril(measure_overlaps(boxes) > SAME_OVERLAP, -1)
    kept = np.ones(len(boxes), np.bool_)
    for row in np.flatnonzero(is_copy.any(1)):
        kept[row] = not (is_copy[row] & kept).any()
    return np.flatnonzero(kept)


def measure_overlaps(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """How much of each two boxes is the same, as a share of the smaller one: (N, N)."""
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    sides = (high - low).clip(0)
    areas = (boxes[:, 2:] - boxes[:, :2]).clip(1).prod(1)
    smaller = np.minimum(areas[:, None], areas[None])
    return np.asarray(sides[..., 0] * sides[..., 1] / smaller)


def doubt_faint_ones(picture: Grey, line: Candidates) -> Candidates:
    """The candidates, with lower chances for those that are much fainter than the strongest one.

    A number is written with one pen. What is fainter may be a printed guide mark.
    """
    contrasts = np.array([measure_contrast(picture, box) for box in line.boxes])
    strongest = contrasts[line.chances >= PEN_CHANCE].max(initial=0)
    factors = np.where(contrasts < FAINT_SHARE * strongest, FAINT_FACTOR, 1)
    odds = line.chances / (1 - line.chances + 1e-6) * factors
    return line._replace(chances=(odds / (1 + odds)).astype(np.float32))


def measure_contrast(picture: Grey, box: NDArray[np.float32]) -> float:
    """The difference between the ink in a box and the paper around it, in grey values."""
    left, top, right, bottom = box.tolist()
    margin = PAPER_MARGIN * (bottom - top)
    height, width = picture.shape
    left, top = (
        int(min(max(0, left - margin), width - 1)),
        int(min(max(0, top - margin), height - 1)),
    )
    right, bottom = int(max(right + margin, left)) + 1, int(max(bottom + margin, top)) + 1
    step = max(1, (min(bottom, height) - top) // CONTRAST_ROWS)
    part = picture[top:bottom:step, left:right]
    last = part.size - 1
    ranks = [last // EXTREME, last // 2, last - last // EXTREME]
    low, paper, high = np.partition(part, ranks, axis=None)[ranks].tolist()
    return float(max(paper - low, high - paper))


def find_median(values: NDArray[np.float32]) -> float:
    """Give the median, ten times as fast as `np.median` for few values."""
    ordered = np.sort(values)
    return float(ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
