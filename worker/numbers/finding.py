"""Finds what may be digits in a grey picture, with the detector, at one scale."""

from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from worker.models.detector import CELL, MULTIPLE, OTHER, SIZE_UNIT, Detector
from worker.pictures import Grey

MIN_CHANCE = 0.03  # a cell whose chance is lower is not a candidate
SAME_OVERLAP = 0.6  # two boxes that overlap by more, as a share of the smaller, show one digit
FAINT_SHARE = 0.5  # what has less than this share of the strongest digit's contrast is faint
FAINT_FACTOR = 0.1  # multiplies the odds that a faint candidate is a digit
PEN_CHANCE = 0.4  # a candidate with this chance shows the pen
PAPER_MARGIN = 0.2  # of a digit's height, around its box
MIN_DEVIATION = 6.0  # grey values: the contrast of a nearly blank picture is not raised above this


class Candidates(NamedTuple):
    """What may be digits, the likeliest first."""

    chances: NDArray[np.float32]  # (N,): the probability that there is a digit
    digits: NDArray[np.float32]  # (N, 10): which digit it is, if it is one
    others: NDArray[
        np.float32
    ]  # (N,): the probability that there is a letter or a crossed-out digit
    boxes: NDArray[np.float32]  # (N, 4): left, top, right and bottom in px

    def take(self, rows: NDArray[np.intp]) -> "Candidates":
        return Candidates(*(column[rows] for column in self))


def find_candidates(detector: Detector, picture: Grey, scale: float) -> Candidates:
    """The candidates in a picture, (height, width), which the detector sees at `scale`."""
    height, width = (max(1, round(side * scale)) for side in picture.shape)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = picture if scale == 1 else cv2.resize(picture, (width, height), interpolation=how)
    canvas = np.zeros([-(-side // MULTIPLE) * MULTIPLE for side in (height, width)], np.float32)
    canvas[:height, :width] = equalise(small)
    with torch.inference_mode():
        maps = detector(torch.from_numpy(canvas)[None, None])
        chances = maps.middle.sigmoid()
        is_peak = (chances == F.max_pool2d(chances, 3, 1, 1)) & (chances >= MIN_CHANCE)
        _, rows, columns = is_peak.nonzero(as_tuple=True)
        order = chances[0, rows, columns].argsort(descending=True, stable=True)
        rows, columns = rows[order], columns[order]
        middles = (torch.stack([columns, rows], 1) + 0.5) * CELL
        edges = maps.edges[0][:, rows, columns].T * SIZE_UNIT
        boxes = torch.cat([middles - edges[:, :2], middles + edges[:, 2:]], 1).numpy()
        boxes /= np.array([width, height] * 2, np.float32) / np.array(picture.shape[::-1] * 2)
        signs = maps.signs[0][:, rows, columns].T.softmax(1) * chances[0, rows, columns, None]
        likely = signs[:, :OTHER].sum(1, keepdim=True)
        found = Candidates(
            likely[:, 0].numpy(),
            (signs[:, :OTHER] / likely).numpy(),
            signs[:, OTHER].numpy(),
            boxes,
        )
    found = found.take(drop_copies(found.boxes))
    return found.take(np.argsort(-found.chances, kind="stable"))


def equalise(picture: Grey) -> NDArray[np.float32]:
    """Grey values of mean 0 and standard deviation 1, or less if the picture is nearly blank."""
    mean, deviation = (float(value[0, 0]) for value in cv2.meanStdDev(picture))
    return (picture.astype(np.float32) - mean) / max(MIN_DEVIATION, deviation)


def drop_copies(boxes: NDArray[np.float32]) -> NDArray[np.intp]:
    """The rows of boxes that don't show the digit of an earlier box."""
    areas = (boxes[:, 2:] - boxes[:, :2]).clip(1).prod(1)
    kept: list[int] = []
    for row, box in enumerate(boxes):
        low, high = np.maximum(box[:2], boxes[kept, :2]), np.minimum(box[2:], boxes[kept, 2:])
        shared = (high - low).clip(0).prod(1) / np.minimum(areas[row], areas[kept])
        if not (shared > SAME_OVERLAP).any():
            kept.append(row)
    return np.array(kept, np.intp)


def doubt_faint_ones(picture: Grey, line: Candidates) -> Candidates:
    """The candidates; those that are much fainter than the strongest one are less likely digits.

    A number is written with one pen. What is fainter may be a printed guide mark.
    """
    contrasts = np.array([measure_contrast(picture, box) for box in line.boxes])
    strongest = contrasts[line.chances >= PEN_CHANCE].max(initial=0)
    factors = np.where(contrasts < FAINT_SHARE * strongest, FAINT_FACTOR, 1)
    odds = line.chances / (1 - line.chances + 1e-6) * factors
    return line._replace(chances=(odds / (1 + odds)).astype(np.float32))


def measure_contrast(picture: Grey, box: NDArray[np.float32]) -> float:
    """The difference between the ink in a box and the paper around it, in grey values."""
    margin = PAPER_MARGIN * (box[3] - box[1])
    height, width = picture.shape
    left, top = np.clip(box[:2] - margin, 0, (width - 1, height - 1)).astype(int)
    right, bottom = np.maximum(box[2:] + margin + 1, (left + 1, top + 1)).astype(int)
    part = picture[top:bottom, left:right]
    low, paper, high = np.percentile(part, (2, 50, 98))
    return float(max(paper - low, high - paper))
