"""From the bytes of a file to the number in the picture."""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import PIL.Image

from protocol.chunk import Reason
from protocol.known import Known
from worker.decoding.opening import has_more_pages, read_picture
from worker.models.detector import load_detector
from worker.normalisation.colours import to_grey
from worker.numbers.finding import Candidates, find_candidates, merge
from worker.numbers.lines import choose_line
from worker.numbers.readings import Path, weigh_readings
from worker.numbers.rereading import read_again
from worker.pictures import Grey, ImageError

DECODED_SIDE = 700  # px: the shorter side to which a large picture may be reduced
LOOKS = (64, 160, 480)  # px: the shorter sides at which a picture is searched, one after the other
MAX_LOOK_AREA = 300_000  # px: a long picture is shrunk to this area
MAX_SCALE = 2.5  # a small picture is enlarged at most by this factor
CLEAR = 0.5  # a candidate with this chance is taken for a digit
MIN_HEIGHT = 12  # px: if the digits are smaller, a closer look may find more of them
SURE = 0.9  # the first look is enough if its best reading has this probability ...
GOOD_HEIGHTS = (18, 40)  # ... and its digits were between these heights, in px
BEST_HEIGHTS = (26, 36)  # px: otherwise the line is scaled to both of these heights and read again
MARGIN = 2.0  # the closer looks show this many digit heights around the line
OTHER_HEIGHT = 0.6  # digits beside the line count if they have this share of its digits' height
MIN_ALLOWED = 1e-4  # an allowed number that is less probable is not what was written
ALTERNATIVES = 5  # at most this many other numbers are reported
MIN_ALTERNATIVE = 0.001  # a less probable number is not reported

Box = tuple[float, float, float, float]  # left, top, right, bottom, in px of the upright picture
Find = Callable[[Grey, float], Candidates]  # finds candidates in a picture, at a scale


@dataclass(frozen=True)
class FoundDigit:
    """One digit of a number."""

    digit: int
    confidence: float
    box: Box


@dataclass(frozen=True)
class NumberReading:
    """The number in a picture."""

    number: str
    confidence: float  # the probability that the whole number is right
    digits: list[FoundDigit]
    alternatives: list[tuple[str, float]]  # up to five other numbers with their probability
    reason: Reason  # why a person should look at it; "" if there is no need


@dataclass(frozen=True)
class Seen:
    """The line that was found in a picture, before its readings are weighed."""

    line: Candidates  # the candidates of its line, from left to right
    reason: Reason  # what else is in the picture, so that a person should look at it

    @cached_property
    def readings(self) -> list[Path]:
        """What the line may say if nothing is known, the most probable first."""
        return weigh_readings(self.line)


def read_number(content: bytes, known: Known) -> NumberReading:
    """The number in an image file. Raises `ImageError`, also if there is none."""
    detector, card = load_detector()
    picture = read_picture(content, DECODED_SIDE)
    seen = look(partial(find_candidates, detector), to_grey(picture))
    readings, reason = choose_readings(seen, known)
    best = readings[0]
    confidence = card.calibrate(best.chance)
    if has_more_pages(content):
        reason = "pages"
    ratio = scale_of(content, picture.shape[:2])
    return NumberReading(
        best.number,
        confidence,
        list_digits(seen.line, best, ratio),
        list_alternatives(readings, confidence),
        reason or ("unsure" if confidence < card.review_below else ""),
    )


def look(find: Find, picture: Grey) -> Seen:
    """Look for a number: first at the whole picture, then closer at what was found."""
    found, line, scale = search(find, picture)
    clear = line.take(np.flatnonzero(line.chances >= CLEAR))
    if not len(clear.chances):
        return Seen(line, "")
    height = float(np.median(clear.boxes[:, 3] - clear.boxes[:, 1]))
    seen = Seen(line, find_others(found, line, height))
    if GOOD_HEIGHTS[0] <= height * scale <= GOOD_HEIGHTS[1]:
        if seen.readings[0].chance >= SURE:
            return seen
        seen = Seen(read_again(picture, line), seen.reason)
        if seen.readings[0].chance >= SURE:
            return seen
    low = (clear.boxes[:, :2].min(0) - MARGIN * height).clip(0).astype(int)
    high = np.minimum(picture.shape[::-1], clear.boxes[:, 2:].max(0) + MARGIN * height).astype(int)
    part = np.ascontiguousarray(picture[low[1] : high[1], low[0] : high[0]])
    found = merge(*(find(part, min(MAX_SCALE, best / height)) for best in BEST_HEIGHTS))
    found = found._replace(boxes=found.boxes + np.tile(low, 2).astype(np.float32))
    closer = found.take(choose_line(found))
    if not len(closer.chances):
        return seen
    return Seen(read_again(picture, closer), seen.reason or find_others(found, closer, height))


def search(find: Find, picture: Grey) -> tuple[Candidates, Candidates, float]:
    """Candidates in the picture, those of the best line, and the scale at which it was seen."""
    height, width = picture.shape
    most = min(MAX_SCALE, math.sqrt(MAX_LOOK_AREA / (height * width)))
    best: tuple[Candidates, Candidates, float] | None = None
    most_seen = -1.0
    for side in LOOKS:
        scale = min(most, side / min(height, width))
        found = find(picture, scale)
        line = found.take(choose_line(found))
        clear = line.take(np.flatnonzero(line.chances >= CLEAR))
        if best is None or clear.chances.sum() > most_seen + 0.5:
            best, most_seen = (found, line, scale), float(clear.chances.sum())
        heights = clear.boxes[:, 3] - clear.boxes[:, 1]
        is_large = len(heights) > 0 and float(np.median(heights)) * scale >= MIN_HEIGHT
        if is_large or scale >= min(1.0, most):
            break
    assert best
    return best


def find_others(found: Candidates, line: Candidates, height: float) -> Reason:
    """What else is written, nearly as tall as the line: digits beside it, or other signs."""
    is_tall = found.boxes[:, 3] - found.boxes[:, 1] >= OTHER_HEIGHT * height
    if (is_tall & (found.others >= CLEAR)).any():
        return "other signs"
    middles = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    low, high = line.boxes[:, :2].min(0), line.boxes[:, 2:].max(0)
    beside = ((middles < low) | (middles > high)).any(1)
    return "several lines" if (is_tall & beside & (found.chances >= CLEAR)).any() else ""


def choose_readings(seen: Seen, known: Known) -> tuple[list[Path], Reason]:
    """Readings with their probability, the best first, and why a person should check the first.

    If numbers are known, the probability is that among those; if none of them is plausible, the
    readings are free. Raises `ImageError` if nothing can be read.
    """
    if not seen.readings:
        raise ImageError("no number can be seen")
    if known.is_nothing:
        return seen.readings, seen.reason
    wanted = weigh_readings(seen.line, known)
    if not wanted or wanted[0].chance < MIN_ALLOWED:
        return seen.readings, seen.reason or "not allowed"
    total = sum(path.chance for path in wanted)
    return [path._replace(chance=path.chance / total) for path in wanted], seen.reason


def list_digits(line: Candidates, path: Path, ratio: float) -> list[FoundDigit]:
    """The digits of a reading; boxes are multiplied by `ratio`."""
    found = []
    for digit, row in zip(map(int, path.number), path.taken, strict=True):
        left, top, right, bottom = (round(side * ratio, 1) for side in line.boxes[row].tolist())
        chance = float(line.chances[row] * line.digits[row, digit])
        found.append(FoundDigit(digit, chance, (left, top, right, bottom)))
    return found


def list_alternatives(readings: list[Path], confidence: float) -> list[tuple[str, float]]:
    """The numbers after the first; they share what its confidence leaves."""
    rest = readings[1 : 1 + ALTERNATIVES]
    total = sum(path.chance for path in readings[1:])
    shares = [(path.number, (1 - confidence) * path.chance / total) for path in rest if total > 0]
    return [(number, share) for number, share in shares if share >= MIN_ALTERNATIVE]


def scale_of(content: bytes, shape: tuple[int, ...]) -> float:
    """The side of the picture in the file, divided by that of the decoded one."""
    with PIL.Image.open(io.BytesIO(content)) as image:  # reads only the header
        return float(max(image.size) / max(shape))
