"""Pictures that exercise one rule of normalisation each, beside the ordinary kinds of training.

Each kind is drawn like those of `training/synthetic/scenes.py`: a digit, another digit and
a random generator give a picture. `UNANSWERABLE` are the kinds for which no answer is right: two
digits, or none. A worker should mark them for review.
"""

import cv2
import numpy as np

from digitq.worker.picture import Mask, Picture
from training.chance import Rng
from training.synthetic.scenes import (
    IN_A_FORM,
    Kind,
    PhotoRanges,
    blurred,
    compress,
    draw_line,
    photograph,
    put,
    resize,
)

CLEAN = PhotoRanges((200, 255), (5, 90), 0.1, 3, 0.2)
BOARD = PhotoRanges((20, 90), (170, 250), 0.5, 5, 0)


def centred(mask: Mask, rng: Rng, share: float, side: int = 0) -> tuple[Mask, int]:
    """The digit near the middle of a square canvas, its longer side a share of the canvas."""
    side = side or int(rng.integers(100, 260))
    digit = resize(mask, mask.shape[0] * share * side / max(mask.shape))
    canvas = np.zeros((side, side), np.uint8)
    top, left = ((side - length) // 2 + int(rng.normal(0, 0.01 * side)) for length in digit.shape)
    put(canvas, digit, top, left)
    return canvas, side


def shoot(canvas: Mask, rng: Rng, ranges: PhotoRanges = CLEAN) -> Picture:
    """A photo or scan of ink on paper."""
    image = photograph(blurred(canvas, rng, len(canvas) / 150), ranges, rng)
    return compress(image, rng, 60) if rng.random() < 0.5 else image


def pen(side: int, rng: Rng) -> int:
    return max(2, int(rng.uniform(0.012, 0.035) * side))


def circled(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """In a circle of strokes, which may be open."""
    canvas, side = centred(mask, rng, rng.uniform(0.35, 0.55))
    axes = [int(side * rng.uniform(0.38, 0.46)) for _ in range(2)]
    start, gap = int(rng.integers(360)), int(rng.choice([0, 0, 20, 60]))
    middle = (side // 2, side // 2)
    cv2.ellipse(canvas, middle, axes, 0, start, start + 360 - gap, 255, pen(side, rng), cv2.LINE_AA)
    return shoot(canvas, rng)


def circled_small(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """A digit that is small in its circle: either may be meant."""
    canvas, side = centred(mask, rng, rng.uniform(0.18, 0.26))
    radius = int(side * rng.uniform(0.38, 0.44))
    cv2.circle(canvas, (side // 2, side // 2), radius, 255, pen(side, rng) + 2, cv2.LINE_AA)
    return shoot(canvas, rng)


def box_in_row(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """A box of a row: two lines go across the image, two sides end at these."""
    canvas, side = centred(mask, rng, rng.uniform(0.35, 0.55))
    top, bottom = int(side * rng.uniform(0.06, 0.18)), int(side * rng.uniform(0.82, 0.94))
    left, right = int(side * rng.uniform(0.03, 0.2)), int(side * rng.uniform(0.8, 0.97))
    width = pen(side, rng)
    for start, end in (
        ((0, top), (side, top)), ((0, bottom), (side, bottom)),
        ((left, top), (left, bottom)), ((right, top), (right, bottom)),
    ):  # fmt: skip
        draw_line(canvas, start, end, 1, width)
    return shoot(np.rot90(canvas).copy() if rng.random() < 0.2 else canvas, rng, IN_A_FORM)


def pale_in_form(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """A pale digit among the strong lines of a form."""
    canvas, side = centred(mask, rng, rng.uniform(0.3, 0.5))
    canvas = (canvas * rng.uniform(0.15, 0.35)).astype(np.uint8)
    for place in (0.04, 0.96):
        draw_line(canvas, (0, place * side), (side, place * side), 1, pen(side, rng))
        if rng.random() < 0.5:
            draw_line(canvas, (place * side, 0), (place * side, side), 1, pen(side, rng))
    return shoot(canvas, rng, PhotoRanges((200, 255), (0, 40), 0.1, 2, 0))


def underlined(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """A line or two under the digit, which are no wider than twice it."""
    canvas, side = centred(mask, rng, rng.uniform(0.4, 0.6))
    left, top, width, height = cv2.boundingRect(canvas)
    reach = max(width, 0.4 * height) * rng.uniform(0.6, 1.2)
    y = top + height * (1 + rng.uniform(0.08, 0.2))
    middle = left + width / 2
    for _ in range(rng.integers(1, 3)):
        tilt = rng.normal(0, 0.03) * reach
        draw_line(canvas, (middle - reach, y - tilt), (middle + reach, y + tilt), 1, pen(side, rng))
        y += 0.12 * height
    return shoot(canvas, rng)


def printed(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """Small print beside the digit."""
    canvas, side = centred(mask, rng, rng.uniform(0.45, 0.6))
    text = str(rng.choice(["No.", "Nr 12", "a)", "12.", "Datum", "S. 4", "Q12", "DAY"]))
    size = side * rng.uniform(0.003, 0.005)
    place = (int(side * rng.uniform(0.03, 0.3)), int(side * rng.choice([0.15, 0.95])))
    cv2.putText(canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, 255, max(1, side // 110))
    return shoot(canvas, rng)


def punched(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """A punched hole beside the digit."""
    canvas, side = centred(mask, rng, rng.uniform(0.35, 0.5))
    x = rng.choice([rng.uniform(0.08, 0.14), rng.uniform(0.86, 0.92)])
    radius = int(side * rng.uniform(0.04, 0.07))
    cv2.circle(canvas, (int(x * side), int(rng.uniform(0.2, 0.8) * side)), radius, 255, -1)
    return shoot(canvas, rng)


def smeared(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """Pale smears and creases around strong ink."""
    canvas, side = centred(mask, rng, rng.uniform(0.35, 0.6))
    smear = np.zeros_like(canvas)
    for _ in range(rng.integers(1, 4)):
        place = tuple(int(v) for v in rng.uniform(0, side, 2))
        axes = tuple(int(v) for v in rng.uniform(0.06, 0.25, 2) * side)
        cv2.ellipse(
            smear, place, axes, int(rng.integers(180)), 0, 360, int(rng.uniform(40, 90)), -1
        )
    smear = cv2.GaussianBlur(smear, (0, 0), rng.uniform(0.5, 0.02 * side))
    return shoot(np.maximum(canvas, smear), rng)


def on_board(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """Light ink on a dark ground, under uneven light."""
    canvas, side = centred(mask, rng, rng.uniform(0.4, 0.85))
    return shoot(canvas, rng, BOARD)


def in_shadow(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """A photo whose light falls off strongly, most of it in a shadow with an edge."""
    canvas, side = centred(mask, rng, rng.uniform(0.35, 0.6))
    picture = photograph(
        blurred(canvas, rng, 1), PhotoRanges((180, 255), (10, 90), 0.4, 4, 0.1), rng
    )
    along = np.add.outer(*(np.linspace(0, rng.uniform(0, 1), side) for _ in range(2)))
    edge = 1 / (1 + np.exp(-(along - rng.uniform(0.2, 0.8)) * rng.uniform(10, 80)))
    light = 1 - rng.uniform(0.3, 0.65) * edge
    light = light[..., None] if picture.ndim == 3 else light
    return np.asarray((picture * light).astype(np.uint8))


def equal_luma(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """Coloured ink about as light as its paper."""
    canvas, side = centred(mask, rng, rng.uniform(0.4, 0.7))
    while True:
        paper, ink = rng.uniform(0, 255, (2, 3))
        luma = np.array([0.299, 0.587, 0.114])
        if abs((paper - ink) @ luma) < 8 and np.abs(paper - ink).max() > 90:
            break
    share = blurred(canvas, rng, 1.0)[..., None]
    grain = rng.normal(0, 3, (side, side, 1))
    return np.asarray(np.clip(paper + share * (ink - paper) + grain, 0, 255).astype(np.uint8))


def on_plate(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """On a plate, a disc or another convex panel, on a wall."""
    canvas, side = centred(mask, rng, rng.uniform(0.3, 0.45))
    plate = np.zeros_like(canvas)
    half = int(side * rng.uniform(0.33, 0.4))
    middle = (side // 2, side // 2)
    form = rng.integers(3)
    if form == 0:
        sizes = (2 * half, 2 * half * rng.uniform(0.8, 1.1))
        box = cv2.boxPoints((middle, sizes, rng.normal(0, 6)))
        cv2.fillPoly(plate, [box.astype(np.int32)], 255)
    elif form == 1:
        cv2.circle(plate, middle, half, 255, -1)
    else:
        cv2.fillPoly(plate, [cv2.ellipse2Poly(middle, (half, half), 22, 0, 360, 45)], 255)
    dark = rng.random() < 0.5
    wall, ground, ink = (230, 50, 235) if dark else (60, 225, 40)
    picture = np.where(plate > 0, ground, wall).astype(np.float32)
    picture += canvas / np.float32(255) * (ink - picture)
    picture = cv2.GaussianBlur(picture, (0, 0), 1) + rng.normal(0, 3, picture.shape)
    return np.asarray(np.clip(picture, 0, 255).astype(np.uint8))


def beside_desk(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """A page whose desk is seen at one edge or two of the image."""
    canvas, side = centred(mask, rng, rng.uniform(0.3, 0.5))
    picture = photograph(blurred(canvas, rng, 1), CLEAN, rng)
    desk = rng.uniform(20, 80)
    for turn in rng.choice(4, rng.integers(1, 3), replace=False):
        picture = np.rot90(picture, turn).copy()
        start, end = (int(v) for v in rng.uniform(0.04, 0.16, 2) * side)
        points = np.array([(0, 0), (start, 0), (end, side), (0, side)], np.int32)
        cv2.fillPoly(picture, [points], (desk, desk, desk))
        picture = np.rot90(picture, -turn).copy()
    return picture


def on_desk(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """A sheet on a darker desk."""
    return lay_sheet(mask, rng, 0.03)


def aslant(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """A sheet on a darker desk, seen aslant."""
    return lay_sheet(mask, rng, 0.14)


def lay_sheet(mask: Mask, rng: Rng, off: float) -> Picture:
    canvas, side = centred(mask, rng, rng.uniform(0.35, 0.55), 240)
    sheet = photograph(blurred(canvas, rng, 1), CLEAN, rng)
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.float32)
    seen = 0.2 + 0.6 * corners + rng.uniform(-off, off, corners.shape)
    matrix = cv2.getPerspectiveTransform(corners * side, (seen * 320).astype(np.float32))
    desk = rng.uniform(20, 110)
    colour = (desk, desk, desk)
    picture = cv2.warpPerspective(sheet, matrix, (320, 320), borderValue=colour)
    return np.asarray(np.clip(picture + rng.normal(0, 3, picture.shape), 0, 255).astype(np.uint8))


def hollow(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """Drawn as an outline."""
    canvas, side = centred(mask, rng, rng.uniform(0.6, 0.8))
    bold = cv2.dilate((canvas > 127).astype(np.uint8), np.ones((7, 7), np.uint8))
    bold = cv2.morphologyEx(bold, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    return shoot(bold * np.uint8(255), rng)


def two_beside(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """Two digits side by side."""
    height = int(rng.integers(60, 160))
    first, second = resize(mask, height), resize(other, height * rng.uniform(0.8, 1.1))
    gap = int(height * rng.uniform(0.05, 0.5))
    canvas = np.zeros((int(1.2 * height), first.shape[1] + gap + second.shape[1]), np.uint8)
    put(canvas, first, height // 10, 0)
    put(canvas, second, height // 20, first.shape[1] + gap)
    return shoot(np.pad(canvas, height // 4), rng)


def two_at_edge(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """Two digits side by side; an edge cuts off up to 0.3 of the right one."""
    height = int(rng.integers(60, 160))
    first, second = resize(mask, height), resize(other, height * rng.uniform(0.8, 1.1))
    rim, gap = height // 4, int(height * rng.uniform(0.08, 0.5))
    left = rim + first.shape[1] + gap
    seen = max(1, int(second.shape[1] * rng.uniform(0.7, 1)))
    canvas = np.zeros((int(1.7 * height), left + seen), np.uint8)
    put(canvas, first, rim, rim)
    put(canvas, second, int(height * rng.uniform(0.2, 0.4)), left)
    return shoot(canvas, rng)


def two_stacked(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """Two digits, one above the other."""
    height = int(rng.integers(50, 120))
    first, second = resize(mask, height), resize(other, height * rng.uniform(0.8, 1.1))
    gap = int(height * rng.uniform(0.05, 0.4))
    width = max(first.shape[1], second.shape[1])
    canvas = np.zeros((height + gap + len(second), width), np.uint8)
    put(canvas, first, 0, (width - first.shape[1]) // 2)
    put(canvas, second, height + gap, (width - second.shape[1]) // 2)
    return shoot(np.pad(canvas, height // 3), rng)


ONE_DIGIT: tuple[Kind, ...] = (
    circled, box_in_row, pale_in_form, underlined, printed, punched, smeared, on_board,
    in_shadow, equal_luma, on_plate, beside_desk, on_desk, aslant, hollow,
)  # fmt: skip
UNANSWERABLE: tuple[Kind, ...] = (two_beside, two_at_edge, two_stacked, circled_small)
