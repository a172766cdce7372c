"""Reads the digits of a line again, each alone, with the network of single digits."""

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from protocol.chunk import PIXELS
from worker.models.card import WEIGHTS_FOLDER
from worker.models.model import Model, read_model
from worker.normalisation.placing import STROKE_SIDE, centre, crop, dilate_thin_strokes, scale
from worker.numbers.finding import Candidates
from worker.pictures import SIDE, Grey, ImageError

FAINT_SHARE = 0.5  # what has less than this share of the strongest digit's contrast is faint
FAINT_FACTOR = 0.1  # multiplies the odds that a faint candidate is a digit
DIGIT_MARGIN, PAPER_MARGIN = 0.06, 0.24  # of a digit's height, around its box


@cache
def load_reader() -> Model:
    """digitq's own `cnn`, with which the chances of numbers were calibrated.

    Raises `DigitqError` if the weights don't match their card.
    """
    return read_model(WEIGHTS_FOLDER / "cnn.json")


def read_again(picture: Grey, line: Candidates) -> Candidates:
    """The candidates with the product of both networks' probabilities of each digit.

    A number is written with one pen. So a candidate that is much fainter than the strongest one is
    less likely a digit: it may be a printed guide mark.
    """
    if not len(line.chances):
        return line
    parts, contrasts = zip(*(cut_digit(picture, box) for box in line.boxes), strict=True)
    answers = load_reader().classify_together(np.stack(parts).reshape(-1, PIXELS))
    product = line.digits * (answers + 1e-3)  # so that the second network excludes no digit
    contrast = np.array(contrasts)
    faint = contrast < FAINT_SHARE * contrast[line.chances >= 0.4].max(initial=0)
    odds = line.chances / (1 - line.chances + 1e-6) * np.where(faint, FAINT_FACTOR, 1)
    chances = (odds / (1 + odds)).astype(np.float32)
    return line._replace(chances=chances, digits=product / product.sum(1, keepdims=True))


def cut_digit(picture: Grey, box: NDArray[np.float32]) -> tuple[Grey, float]:
    """The ink in a box, as MNIST has it, and its contrast in grey values.

    It is 28×28, light on dark; black where there is no ink.
    """
    part, around = (cut(picture, box, margin) for margin in (DIGIT_MARGIN, PAPER_MARGIN))
    contrast = np.median(around) - scale(part, STROKE_SIDE).astype(np.float32)
    if contrast.mean() < 0:  # light ink
        contrast = -contrast
    strong = max(20.0, float(np.percentile(contrast, 98)))  # grey values; paper stays pale
    ink = np.clip(contrast * (255 / strong), 0, 255).astype(np.uint8)
    level, _ = cv2.threshold(ink, 0, 255, cv2.THRESH_OTSU)
    faint = 0.6 * level
    ink = np.clip((ink - faint) * (255 / (255 - faint)), 0, 255).astype(np.uint8)
    try:
        return centre(scale(dilate_thin_strokes(crop(ink)))), strong
    except ImageError:
        return np.zeros((SIDE, SIDE), np.uint8), strong


def cut(picture: Grey, box: NDArray[np.float32], margin: float) -> Grey:
    """The part of a picture in a box that is widened by a share of its height; never empty."""
    left, top, right, bottom = box + margin * (box[3] - box[1]) * np.array([-1, -1, 1, 1])
    height, width = picture.shape
    left, top = min(max(0, int(left)), width - 1), min(max(0, int(top)), height - 1)
    return picture[top : max(top, int(bottom)) + 1, left : max(left, int(right)) + 1]
