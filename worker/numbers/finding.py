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
UNSEEN_LOG_ODDS = -3.5  # a candidate has these log-odds in a look that does not show it
SAME_OVERLAP = 0.6  # two boxes that overlap by more, as a share of the smaller, show one digit
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


def merge(first: Candidates, second: Candidates) -> Candidates:
    """The candidates of two looks: the means of the log-odds of those that show the same digit."""
    rows = match(first.boxes, second.boxes)
    both, lone = rows >= 0, np.setdiff1d(np.arange(len(second.boxes)), rows)
    odds = [np.log(look.chances / (1 - look.chances)) for look in (first, second)]
    digits = [np.log(look.digits + 1e-6) for look in (first, second)]
    odds[0] = (odds[0] + np.where(both, odds[1][rows] if len(odds[1]) else 0, UNSEEN_LOG_ODDS)) / 2
    digits[0][both] = (digits[0][both] + digits[1][rows[both]]) / 2
    others = first.others / 2
    others[both] += second.others[rows[both]] / 2
    chances = 1 / (1 + np.exp(-np.concatenate([odds[0], (odds[1][lone] + UNSEEN_LOG_ODDS) / 2])))
    likely = np.exp(np.concatenate([digits[0], digits[1][lone]]))
    merged = Candidates(
        chances.astype(np.float32),
        (likely / likely.sum(1, keepdims=True)).astype(np.float32),
        np.concatenate([others, second.others[lone] / 2]),
        np.concatenate([first.boxes, second.boxes[lone]]),
    )
    return merged.take(np.argsort(-merged.chances, kind="stable"))


def match(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.intp]:
    """For each of the first boxes, the row of the second that shows the same digit, or -1."""
    rows = np.full(len(first), -1)
    free = list(range(len(second)))
    for row, box in enumerate(first):
        if not free:
            break
        low, high = np.maximum(box[:2], second[free, :2]), np.minimum(box[2:], second[free, 2:])
        shared = (high - low).clip(0).prod(1)
        union = (box[2:] - box[:2]).prod() + (second[free, 2:] - second[free, :2]).prod(1) - shared
        best = int((shared / union).argmax())
        if (shared / union)[best] > 0.4:
            rows[row] = free.pop(best)
    return rows
