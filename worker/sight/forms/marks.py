"""Reads marks: which bubbles or boxes of a question are filled, ticked or crossed."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from digitq.protocol.asked.known import TICK, Known
from digitq.protocol.asked.risk import Risk
from digitq.protocol.chunk import Alternative, Reason
from digitq.worker.sight.forms.beside import NOTHING, Beside
from digitq.worker.sight.forms.cutting import MARK_SIDE, Mark
from digitq.worker.sight.numbers.recognition import NumberReading
from digitq.worker.sight.numbers.weighing import Proposal

INK, FAINT_INK = 0.25, 0.07  # what is darker than the blank by these shares is ink, or may be
PRINT = 0.5  # where print is darker than paper by this share, no mark can be seen
FAINT_PRINT = 0.1  # if all of the print is fainter, it does not show where a bubble is
CORE = 0.6  # the print that is sought has at least this share of the darkest print
MAX_VEIL = 1.4  # ink is made darker by at most this factor: blur makes print lighter, too
STROKE = 25  # px: what is narrower is no shadow
LIGHT_BLUR = 10.0  # px: light changes slowly
DARKEST_SHADOW = 0.75  # a shadow in a cell leaves this share of the light
SEARCH = 12  # px: print is sought so far from where it should be
SEARCH_COST = 0.2  # so far away, this share less of the print must be missing
PRINT_REACH = 2  # px: print may be so much wider on the page
PAGE_REACH = 0.8  # px of the page: it may be so much wider, too
RING = 0.7  # strokes leave a bubble if they reach this share of what is seen around it
FEW = 0.006  # this share of ink is added, so that a bubble without any is not infinitely sure
UNMARKED, MARKED = 0.012, 0.04  # at most so much of an empty bubble is inked, of a marked one more
SURE_SLOPE = 6.0  # how fast a bubble with more ink becomes more surely marked
ERASED = 0.17  # so much of an empty bubble is faintly dark if a mark was erased
STRONG = 0.47  # this share of a mark is clearly dark, if it is not faint
WEAK = 0.6  # a mark with less than this share of the usual darkness may be erased
FILLED = 0.42  # half of a bubble has more ink if all of it is filled
DENSE_HALF, EVEN = 0.28, 0.16  # half of a half filled bubble has more ink, the other less of that
# The chance that a bubble is marked is between these. So of two clear marks, either may count
MIN_MARK_CHANCE, MAX_MARK_CHANCE = 1e-4, 0.995
BESIDE_CHANCE = 0.9  # the chance that a mark is meant if its ink is only beside the bubbles
CROSSED_CHANCE = 0.2  # the chance that a mark is meant that seems to be crossed out, beside another
UNSURE_BELOW = 0.95  # an answer of a lower confidence is marked for review
MAX_LOST_PRINT = 0.4  # with a larger share of the print missing, it is another place of the page
MAX_ANSWERS = 6  # so many answers of a question are proposed
MAX_DOUBTFUL = 4  # answers differ in the most doubtful bubbles only


Share = NDArray[np.float32]  # (height, width), 0 to 1


class Look(NamedTuple):
    """What a bubble shows beside its print. Shares are those of its inside."""

    ink: float  # the share that is clearly dark
    faint: float  # the share that is dark, or may be
    densest: float  # the share of ink in the half that has most
    emptiest: float  # and in the half that has least
    strokes: int  # how many strokes leave the bubble
    dark: float = 0.0  # how much darker its ink is than paper
    missing: float = 0.0  # how much of its print is not on the page
    beside: Beside = NOTHING  # the ink around it

    @property
    def is_marked(self) -> bool:
        return self.ink > UNMARKED or self.beside.is_circled

    @property
    def is_crossed_out(self) -> bool:
        """Whether it is filled, and strokes leave it."""
        return self.is_marked and self.densest > FILLED and self.strokes > 1


class Usual(NamedTuple):
    """What the bubbles of a page usually show."""

    faint: float = 0.0  # of those without a mark: a blurred page shows more
    dark: float = 0.0  # of those with a mark: people press their pens differently


@dataclass(frozen=True)
class MarkReadings:
    """What may be marked in a question."""

    known: Known
    looks: list[Look]  # of each option's bubble
    needs_answer: bool  # whether nothing marked is to be looked at
    usual: Usual = Usual()

    @property
    def calibrated(self) -> list[Proposal]:
        """The answers, with the probability that each is right, the best first."""
        chances, options = find_chances(self.looks), self.known.options
        if self.known.many:
            answers = [
                (self.known.join([options[at] for at in marked]), chance)
                for marked, chance in combine(chances)
            ]
        else:
            odds = [chance / (1 - chance) for chance in chances]
            answers = [("", 1.0), *zip(options, odds, strict=True)]
        answers.sort(key=lambda one: -one[1])
        whole = sum(chance for _, chance in answers)
        return [Proposal(answer, chance / whole) for answer, chance in answers[:MAX_ANSWERS]]

    @property
    def is_there(self) -> bool:
        """Whether the bubbles are where the blank has them."""
        return float(np.median([one.missing for one in self.looks])) < MAX_LOST_PRINT

    def choose(
        self,
        number: str,
        confidence: float,
        alternatives: list[Alternative],
        to_page: NDArray[np.float64],
        risk: Risk | None = None,
    ) -> NumberReading:
        """This answer, which a person should look at if it is not sure. There are no digits."""
        reason = find_doubt(self.looks, self.known.many, self.usual)
        reason = reason or ("unsure" if confidence < UNSURE_BELOW else "")
        if not number and not reason and self.needs_answer:
            reason = "empty"
        return NumberReading(number, confidence, [], alternatives, reason)


def read_marks(marks: Sequence[Mark], known: Known, optional: bool) -> MarkReadings:
    """What is marked of a question's bubbles, one for each of its options."""
    return MarkReadings(known, [*map(look, marks)], not optional and known.options != TICK)


def find_usual(questions: Iterable[MarkReadings]) -> Usual:
    """What the bubbles of a page usually show."""
    looks = [one for each in questions for one in each.looks]
    empty = [one.faint for one in looks if one.ink <= UNMARKED]
    marked = [one.dark for one in looks if one.ink > UNMARKED]
    return Usual(*(float(np.median(each)) if each else 0.0 for each in (empty, marked)))


def look(mark: Mark) -> Look:
    """Measure what is dark on the page, and not on the blank."""
    inside = find_inside(mark)
    dark, seen, missing = see_ink(mark, inside)
    ink, free = (dark > INK) & seen, seen & inside
    usual = max(1.0, min(float(free.sum()), np.pi / 4 * MARK_SIDE**2))  # a cell may be wide
    faint = (dark > FAINT_INK) & free
    height, width = ink.shape
    y, x = np.mgrid[0.5:height, 0.5:width]
    halves = []
    for angle in np.arange(8) * np.pi / 4:
        half = free & ((x - width / 2) * np.cos(angle) + (y - height / 2) * np.sin(angle) > 0)
        halves.append(float((ink & half).sum()) / max(1.0, half.sum()))
    return Look(
        float((ink & inside).sum()) / usual,
        float(faint.sum()) / usual,
        max(halves),
        min(halves),
        count_strokes(ink, mark.rim),
        float(dark[ink & inside].mean()) if (ink & inside).any() else 0.0,
        missing,
        mark.beside if missing < MAX_LOST_PRINT else NOTHING,
    )


def count_strokes(ink: NDArray[np.bool_], rim: int) -> int:
    """How many strokes cross a line around the bubble."""
    height, width = ink.shape
    angles = np.arange(0, 2 * np.pi, 0.05)
    across, down = (side / 2 - (1 - RING) * rim for side in (width, height))
    x = (width / 2 + across * np.cos(angles)).astype(int).clip(0, width - 1)
    y = (height / 2 + down * np.sin(angles)).astype(int).clip(0, height - 1)
    crossed = ink[y, x]
    return int((crossed & ~np.roll(crossed, 1)).sum()) if rim else 0


def find_inside(mark: Mark) -> NDArray[np.bool_]:
    """What is in the bubble, which may be round, or in the cell."""
    height, width = mark.picture.shape
    inside = np.zeros((height, width), np.uint8)
    if mark.is_cell:
        inside[mark.rim : height - mark.rim, mark.rim : width - mark.rim] = 1
        return inside > 0
    axes = width / 2 - mark.rim, height / 2 - mark.rim
    cv2.ellipse(inside, ((width / 2, height / 2), (2 * axes[0], 2 * axes[1]), 0), 1, -1)
    return inside > 0


def see_ink(mark: Mark, inside: NDArray[np.bool_]) -> tuple[Share, NDArray[np.bool_], float]:
    """How much darker than the blank the page is, where this can be seen, and the share of the
    print that is missing."""
    seen = mark.picture.astype(np.float32)
    dark = darken(seen, find_light(seen, None if mark.is_cell else inside))
    if mark.printed is None:
        return dark, np.ones(seen.shape, bool), 0.0
    blank = mark.printed.astype(np.float32)
    printed = darken(blank, np.full_like(blank, np.percentile(blank, 90)))
    darkest = float(np.percentile(printed, 98))
    core = (printed > CORE * darkest).astype(np.float32)
    missing = 0.0
    if darkest > FAINT_PRINT:
        dark, missing = move_to_print(dark, core, CORE * darkest)
        # The same veil of light is over print and pen
        print_here = max(0.01, float(np.median(dark[core > 0])))
        dark *= np.clip(float(np.median(printed[core > 0])) / print_here, 1, MAX_VEIL)
    reach = round(max(PRINT_REACH, PAGE_REACH * mark.scale))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    printed = cv2.dilate(printed, disc)
    return np.asarray(dark - printed), printed < PRINT, missing


def find_light(seen: Share, inside: NDArray[np.bool_] | None) -> Share:
    """The grey value of paper at each place, which shadows change: by what is around a bubble, or
    by what is in a cell."""
    paper = cv2.morphologyEx(seen, cv2.MORPH_CLOSE, np.ones((STROKE, STROKE), np.uint8))
    if inside is None:
        light = cv2.GaussianBlur(paper, (0, 0), LIGHT_BLUR)
        return np.asarray(np.maximum(light, DARKEST_SHADOW * np.percentile(seen, 75)))
    around = (~inside).astype(np.float32)
    weights = cv2.GaussianBlur(around, (0, 0), LIGHT_BLUR)
    return np.asarray(cv2.GaussianBlur(paper * around, (0, 0), LIGHT_BLUR) / (weights + 1e-6))


def darken(grey: Share, light: Share) -> Share:
    """How much darker it is than paper in this light, as a share: 0 to 1."""
    return np.asarray((1 - grey / np.maximum(light, 1)).clip(0, 1))


def move_to_print(dark: Share, core: Share, least: float) -> tuple[Share, float]:
    """The page, moved by up to SEARCH px so that its print is where that of the blank is; and the
    share of the print that is missing there.

    Marks only make a page darker. So it is right where the least print is missing: what is not as
    dark as `least`.
    """
    light = np.maximum(1 - dark / least, 0)
    wide = cv2.copyMakeBorder(light, *(SEARCH,) * 4, cv2.BORDER_REPLICATE)
    steps = np.arange(-SEARCH, SEARCH + 1) / SEARCH
    missing = cv2.matchTemplate(wide, core, cv2.TM_CCORR) / core.sum()
    costs = missing + SEARCH_COST * (steps[:, None] ** 2 + steps**2).astype(np.float32)
    down, right = np.unravel_index(costs.argmin(), costs.shape)
    wide = cv2.copyMakeBorder(dark, *(SEARCH,) * 4, cv2.BORDER_REPLICATE)
    height, width = dark.shape
    moved = np.array(wide[down : down + height, right : right + width])
    return moved, float(missing[down, right])


def find_chance(look: Look) -> float:
    """How probable it is that the bubble is marked: by the ink in it, or a circle around it."""
    if look.beside.is_circled:
        return MAX_MARK_CHANCE
    odds = ((look.ink + FEW) / (np.sqrt(UNMARKED * MARKED) + FEW)) ** SURE_SLOPE
    return float(np.clip(odds / (1 + odds), MIN_MARK_CHANCE, MAX_MARK_CHANCE))


def find_chances(looks: Sequence[Look]) -> list[float]:
    """How probable it is that each bubble is marked; if none is, by the ink beside it. What
    seems to be crossed out is hardly meant if there is another mark."""
    if is_beside(looks):
        most = max(one.beside.ink for one in looks)
        is_nearest = [one.beside.ink == most for one in looks]
        return [BESIDE_CHANCE if one else MIN_MARK_CHANCE for one in is_nearest]
    has_other = any(one.is_marked and not one.is_crossed_out for one in looks)
    return [
        CROSSED_CHANCE if has_other and one.is_crossed_out else find_chance(one) for one in looks
    ]


def is_beside(looks: Sequence[Look]) -> bool:
    """Whether no bubble of a question is marked, and there is ink beside one."""
    return not any(one.is_marked for one in looks) and any(one.beside.ink for one in looks)


def combine(chances: Sequence[float]) -> Iterator[tuple[list[int], float]]:
    """Which bubbles may be marked, with the probability of each combination. Only those of which it
    is most doubtful differ."""
    order = sorted(range(len(chances)), key=lambda at: abs(chances[at] - 0.5))
    open_ones, others = order[:MAX_DOUBTFUL], order[MAX_DOUBTFUL:]
    sure = [at for at in others if chances[at] > 0.5]
    for choice in product((False, True), repeat=len(open_ones)):
        chance = 1.0
        for at, is_marked in zip(open_ones, choice, strict=True):
            chance *= chances[at] if is_marked else 1 - chances[at]
        marked = [at for at, is_marked in zip(open_ones, choice, strict=True) if is_marked]
        yield sorted(marked + sure), chance


def find_doubt(looks: Sequence[Look], many: bool, usual: Usual) -> Reason:
    """Why a person should look at the marks of a question; "" if there is no need."""
    if is_beside(looks) or many and any(one.beside.ink and not one.is_marked for one in looks):
        return "beside the box"
    marked = [one for one in looks if one.is_marked]
    inked = [one for one in marked if not one.beside.is_circled]
    faint = [one for one in looks if one.faint > usual.faint + ERASED]
    weak = [one for one in inked if one.ink <= MARKED or one.dark < WEAK * usual.dark]
    if any(one.is_crossed_out for one in marked):
        return "crossed out?"
    if weak or any(one.ink < STRONG * one.faint for one in faint):
        return "erased?"
    if not many and len(marked) > 1 or any(one.beside.is_shared for one in marked):
        return "two marks"
    if any(one.densest > DENSE_HALF and one.emptiest < EVEN * one.densest for one in marked):
        return "half filled"
    return ""
