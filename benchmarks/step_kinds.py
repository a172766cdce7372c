"""Pictures that exercise one rule of normalisation each, beside the ordinary kinds of training.

Each kind is drawn like those of `training/synthetic/scenes.py`: a digit, another digit and
a random generator give a picture. `UNANSWERABLE` are the kinds for which no answer is right: two
digits, or none. A worker should mark them for review.
"""

from collections.abc import Callable

import cv2
import numpy as np

from training.synthetic.outliers import filled, letter, scribble, texture
from training.synthetic.scenes import (
    IN_A_FORM,
    Rng,
    Scene,
    blurred,
    compress,
    draw_line,
    photograph,
    put,
    resize,
)
from worker.sight.types import Mask, Picture

Kind = Callable[[Mask, Mask, Rng], Picture]
CLEAN = Scene((200, 255), (5, 90), 0.1, 3, 0.2)
BOARD = Scene((20, 90), (170, 250), 0.5, 5, 0)


def centred(mask: Mask, rng: Rng, share: float, side: int = 0) -> tuple[Mask, int]:
    """The digit near the middle of a square canvas, its longer side a share of the canvas."""
    side = side or int(rng.integers(100, 260))
    digit = resize(mask, mask.shape[0] * share * side / max(mask.shape))
    canvas = np.zeros((side, side), np.uint8)
    top, left = ((side - length) // 2 + int(rng.normal(0, 0.01 * side)) for length in digit.shape)
    put(canvas, digit, top, left)
    return canvas, side


def shoot(canvas: Mask, rng: Rng, scene: Scene = CLEAN) -> Picture:
    """A photo or scan of ink on paper."""
    image = photograph(blurred(canvas, rng, len(canvas) / 150), scene, rng)
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


def framed(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """In a frame with sharp or round corners, away from the edges of the image."""
    canvas, side = centred(mask, rng, rng.uniform(0.3, 0.62))
    near, far = int(side * rng.uniform(0.08, 0.18)), int(side * rng.uniform(0.82, 0.92))
    draw_frame(canvas, near, far, int(side * rng.choice([0, 0.06, 0.12])), pen(side, rng))
    return shoot(canvas, rng, IN_A_FORM)


def draw_frame(canvas: Mask, near: int, far: int, corner: int, width: int) -> None:
    for start, end in (
        ((near + corner, near), (far - corner, near)),
        ((near + corner, far), (far - corner, far)),
        ((near, near + corner), (near, far - corner)),
        ((far, near + corner), (far, far - corner)),
    ):
        cv2.line(canvas, start, end, 255, width, cv2.LINE_AA)
    if corner:
        low, high = near + corner, far - corner
        for middle, angle in (
            ((low, low), 180), ((high, low), 270), ((high, high), 0), ((low, high), 90),
        ):  # fmt: skip
            cv2.ellipse(canvas, middle, (corner, corner), angle, 0, 90, 255, width, cv2.LINE_AA)


def frame_touched(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """A frame with sharp or round corners that the digit reaches."""
    canvas, side = centred(mask, rng, rng.uniform(0.6, 0.7))
    left, top, width, height = cv2.boundingRect(canvas)
    inset = (side - max(width, height)) // 2 - int(side * rng.uniform(-0.02, 0.0))
    draw_frame(canvas, inset, side - inset, int(side * rng.choice([0, 0.1])), pen(side, rng))
    return shoot(canvas, rng, IN_A_FORM)


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


def crossed(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """Lines right across the image, through the digit."""
    canvas, side = centred(mask, rng, rng.uniform(0.5, 0.75))
    pitch, tilt = rng.uniform(0.15, 0.4) * side, rng.normal(0, 0.01)
    for y in np.arange(rng.uniform(0, pitch), side, pitch):
        draw_line(canvas, (0, y), (side, y + tilt * side), 0.9, max(1, pen(side, rng) // 2))
    return shoot(canvas, rng)


def pale_in_form(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """A pale digit among the strong lines of a form."""
    canvas, side = centred(mask, rng, rng.uniform(0.3, 0.5))
    canvas = (canvas * rng.uniform(0.15, 0.35)).astype(np.uint8)
    for place in (0.04, 0.96):
        draw_line(canvas, (0, place * side), (side, place * side), 1, pen(side, rng))
        if rng.random() < 0.5:
            draw_line(canvas, (place * side, 0), (place * side, side), 1, pen(side, rng))
    return shoot(canvas, rng, Scene((200, 255), (0, 40), 0.1, 2, 0))


def comb(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """Over a line with ticks, as a form's comb has it, with the neighbours' ends."""
    canvas, side = centred(mask, rng, rng.uniform(0.45, 0.6))
    base, width = int(side * rng.uniform(0.88, 0.95)), pen(side, rng)
    draw_line(canvas, (0, base), (side, base), 1, width)
    for x in (0.06, 0.94):
        draw_line(canvas, (x * side, base - 0.25 * side), (x * side, base), 1, width)
    draw_line(canvas, (0.4 * side, 0), (0.6 * side, 0), 1, width)
    return shoot(canvas, rng, IN_A_FORM)


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


def over_button(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """A filled button under the digit."""
    canvas, side = centred(mask, rng, rng.uniform(0.4, 0.55))
    left, top, width, height = cv2.boundingRect(canvas)
    y, half = int(top + height * 1.12), int(height * rng.uniform(0.25, 0.5))
    middle = left + width // 2
    cv2.rectangle(canvas, (middle - half, y), (middle + half, y + int(0.5 * half)), 255, -1)
    return shoot(canvas, rng)


def printed(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """Small print beside the digit."""
    canvas, side = centred(mask, rng, rng.uniform(0.45, 0.6))
    text = str(rng.choice(["No.", "Nr 12", "a)", "12.", "Datum", "S. 4", "Q12", "DAY"]))
    size = side * rng.uniform(0.003, 0.005)
    place = (int(side * rng.uniform(0.03, 0.3)), int(side * rng.choice([0.15, 0.95])))
    cv2.putText(canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, 255, max(1, side // 110))
    return shoot(canvas, rng)


def full_stop(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """A full stop or a comma after the digit."""
    canvas, side = centred(mask, rng, rng.uniform(0.4, 0.6))
    left, top, width, height = cv2.boundingRect(canvas)
    dot = (int(left + width + height * rng.uniform(0.08, 0.2)), int(top + height * 0.95))
    radius = max(2, int(height * rng.uniform(0.03, 0.07)))
    cv2.circle(canvas, dot, radius, 255, -1)
    if rng.random() < 0.4:
        cv2.line(canvas, dot, (dot[0] - 2 * radius, dot[1] + 3 * radius), 255, radius)
    return shoot(canvas, rng)


def punched(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """A punched hole beside the digit."""
    canvas, side = centred(mask, rng, rng.uniform(0.35, 0.5))
    x = rng.choice([rng.uniform(0.08, 0.14), rng.uniform(0.86, 0.92)])
    radius = int(side * rng.uniform(0.04, 0.07))
    cv2.circle(canvas, (int(x * side), int(rng.uniform(0.2, 0.8) * side)), radius, 255, -1)
    return shoot(canvas, rng)


def margin(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """What is seen of a notebook's margin beside the digit."""
    canvas, side = centred(mask, rng, rng.uniform(0.25, 0.45))
    x = rng.choice([rng.uniform(0.1, 0.2), rng.uniform(0.8, 0.9)]) * side
    start, end = rng.uniform(0.02, 0.12) * side, rng.uniform(0.88, 0.98) * side
    draw_line(canvas, (x, start), (x + rng.normal(0, 1), end), rng.uniform(0.4, 0.7), side // 90)
    return shoot(canvas, rng)


def wedge(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """The dark end of a shadow, or a desk, in a corner."""
    canvas, side = centred(mask, rng, rng.uniform(0.35, 0.55))
    long, short = rng.uniform(0.4, 0.8) * side, rng.uniform(0.08, 0.25) * side
    points = np.array([(0, side), (0, side - long), (short, side)], np.int32)
    corner = cv2.fillPoly(np.zeros_like(canvas), [points], 255)
    corner = np.rot90(corner, int(rng.integers(4)))
    canvas = np.maximum(canvas, corner.T if rng.random() < 0.5 else corner)
    return shoot(np.ascontiguousarray(canvas), rng)


def sliver(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """Parts of a frame along two edges of the image."""
    canvas, side = centred(mask, rng, rng.uniform(0.35, 0.55))
    thick = pen(side, rng) + 1
    for turn in rng.choice(4, 2, replace=False):
        canvas = np.rot90(canvas, turn).copy()
        start = int(rng.uniform(0, 0.4) * side)
        canvas[:thick, start : start + int(rng.uniform(0.35, 0.6) * side)] = 255
        canvas = np.rot90(canvas, -turn).copy()
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
    picture = photograph(blurred(canvas, rng, 1), Scene((180, 255), (10, 90), 0.4, 4, 0.1), rng)
    along = np.add.outer(*(np.linspace(0, rng.uniform(0, 1), side) for _ in range(2)))
    edge = 1 / (1 + np.exp(-(along - rng.uniform(0.2, 0.8)) * rng.uniform(10, 80)))
    light = 1 - rng.uniform(0.3, 0.65) * edge
    light = light[..., None] if picture.ndim == 3 else light
    return np.asarray((picture * light).astype(np.uint8))


def small_in_shadow(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """Small on paper, of which a part lies in a shadow."""
    canvas, side = centred(mask, rng, rng.uniform(0.08, 0.2), 200)
    canvas = np.roll(canvas, tuple(int(v) for v in rng.uniform(-0.3, 0.3, 2) * side), (0, 1))
    picture = photograph(blurred(canvas, rng, 1), Scene((180, 255), (10, 90), 0.2, 3, 0), rng)
    down, right = np.meshgrid(*(np.linspace(-1, 1, side) for _ in range(2)), indexing="ij")
    angle = rng.uniform(0, 2 * np.pi)
    along = right * np.cos(angle) + down * np.sin(angle)
    light = 1 - rng.uniform(0.2, 0.6) / (1 + np.exp((rng.uniform(-0.6, 0.6) - along) / 0.03))
    light = light[..., None] if picture.ndim == 3 else light
    return np.asarray((picture * light).astype(np.uint8))


def thick(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """In strokes so thick that a 0 is like a disc with a hole."""
    canvas, side = centred(mask, rng, 0.6)
    width = int(rng.uniform(0.06, 0.12) * side)
    return shoot(cv2.dilate(canvas, np.ones((width, width), np.uint8)), rng)


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


def between_bars(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """Between the black bars of a screen of another shape."""
    canvas, side = centred(mask, rng, rng.uniform(0.4, 0.7))
    picture = photograph(blurred(canvas, rng, 1), CLEAN, rng)
    above, below = (int(bar) for bar in rng.uniform(0.1, 0.6, 2) * side)
    sides = (above, below, 0, 0) if rng.random() < 0.5 else (0, 0, above, below)
    return np.asarray(cv2.copyMakeBorder(picture, *sides, cv2.BORDER_CONSTANT))


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


def sheet_with_corners(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """A tilted sheet that leaves only corners of the desk."""
    canvas, side = centred(mask, rng, rng.uniform(0.3, 0.5), 280)
    sheet = photograph(blurred(canvas, rng, 1), CLEAN, rng)
    tilt, desk = rng.choice([-1, 1]) * rng.uniform(4, 12), rng.uniform(20, 110)
    turn = cv2.getRotationMatrix2D((side // 2, side // 2), tilt, rng.uniform(0.9, 1.0))
    picture = cv2.warpAffine(sheet, turn, (side, side), borderValue=(desk, desk, desk))
    noise = rng.normal(0, 3, picture.shape)
    return np.asarray(np.clip(picture + noise, 0, 255).astype(np.uint8))


def soft(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """A scan of few pixels, enlarged: soft strokes on black that fill the image."""
    few = cv2.resize(mask, (int(rng.integers(8, 14)), 14), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(few, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC))


def hollow(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """Drawn as an outline."""
    canvas, side = centred(mask, rng, rng.uniform(0.6, 0.8))
    bold = cv2.dilate((canvas > 127).astype(np.uint8), np.ones((7, 7), np.uint8))
    bold = cv2.morphologyEx(bold, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    return shoot(bold * np.uint8(255), rng)


def small(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """Small in a large photo."""
    canvas, side = centred(mask, rng, rng.uniform(0.05, 0.2), int(rng.integers(450, 900)))
    move = (int(v) for v in rng.uniform(-0.3, 0.3, 2) * side)
    return shoot(np.roll(canvas, tuple(move), (0, 1)), rng)


def thin_and_large(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """A stroke that is too thin for a glance, in a large photo, with a blot beside it."""
    canvas, side = centred(mask, rng, 0.6, int(rng.integers(500, 900)))
    depth = cv2.distanceTransform((canvas > 127).astype(np.uint8), cv2.DIST_L2, 3)
    ridge = (depth >= cv2.dilate(depth, np.ones((5, 5), np.uint8)) - 0.5) & (depth > 1)
    thin = cv2.morphologyEx(ridge.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    thin = thin * np.uint8(rng.uniform(90, 255))
    cv2.circle(thin, (side // 8, int(0.92 * side)), side // 70, 255, -1)
    return shoot(thin, rng)


def dashed(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """In broken strokes."""
    canvas, side = centred(mask, rng, rng.uniform(0.5, 0.85))
    pitch = max(5, int(side * rng.uniform(0.06, 0.12)))
    gap = max(1, int(pitch * rng.uniform(0.15, 0.3)))
    place = np.add.outer(np.arange(side), np.arange(side) * rng.choice([0, 1]))
    canvas[place % pitch < gap] = 0
    return shoot(canvas, rng)


def cut_off(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """Cut off a little at an edge of the image."""
    canvas, side = centred(mask, rng, 0.6)
    left, top, width, height = cv2.boundingRect(canvas)
    lost = rng.uniform(0.02, 0.1)
    first, last = top + int(lost * height), top + int((1 - lost) * height)
    if rng.random() < 0.5:
        canvas = canvas.T.copy()
        first, last = left + int(lost * width), left + int((1 - lost) * width)
    part = canvas[first:] if rng.random() < 0.5 else canvas[:last]
    return shoot(part.copy(), rng)


def tight(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """In thick ink that reaches all edges of the image."""
    shape = resize(mask, rng.uniform(40, 160))
    side = max(3, int(rng.uniform(0.1, 0.18) * len(shape)))
    shape = cv2.dilate(shape, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
    return shoot(shape, rng)


def in_string(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """Cut from a string of digits, with neighbours at both sides."""
    height = int(rng.integers(60, 160))
    digit, beside = resize(mask, height), resize(other, height)
    gap = int(height * rng.uniform(0.04, 0.25))
    seen = int(beside.shape[1] * rng.uniform(0.1, 0.5)) + 1
    parts = [beside[:, -seen:], digit, beside[:, :seen]]
    space = np.zeros((height, gap), np.uint8)
    row = np.concatenate([parts[0], space, parts[1], space, parts[2]], axis=1)
    return shoot(np.pad(row, ((height // 6, height // 6), (0, 0))), rng)


def mnist(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """Light on black, 28×28, at its place, with noise of a JPEG."""
    canvas, _ = centred(mask, rng, 20 / 28, 28)
    moments = cv2.moments(canvas)
    row, column = (moments[name] / (moments["m00"] or 1) for name in ("m01", "m10"))
    return compress(np.roll(canvas, (round(13.5 - row), round(13.5 - column)), (0, 1)), rng, 80)


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


def four_digits(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """Two digits above two."""
    height = int(rng.integers(50, 120))
    canvas = np.zeros((5 * height // 2, 5 * height // 2), np.uint8)
    for number, shape in enumerate((mask, other, other, mask)):
        digit = resize(shape, height if len(shape) >= shape.shape[1] else 0.6 * height)
        put(canvas, digit, number // 2 * 5 * height // 4, number % 2 * 5 * height // 4)
    return shoot(np.pad(canvas, height // 3), rng)


def far_apart(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """Two small digits, far from each other, in a large photo."""
    side = int(rng.integers(450, 800))
    canvas = np.zeros((side, side), np.uint8)
    for shape, left in ((mask, 0.1), (other, 0.65)):
        digit = resize(shape, side * rng.uniform(0.1, 0.18))
        put(canvas, digit, int(rng.uniform(0.2, 0.7) * side), int(left * side))
    return shoot(canvas, rng)


def empty_cell(mask: Mask, other: Mask, rng: Rng) -> Picture:
    """The lines of a form's cell, without a digit."""
    canvas, side = np.zeros((120, 120), np.uint8), 120
    near, far = (int(side * rng.uniform(*part)) for part in ((0.02, 0.15), (0.85, 0.98)))
    for place in (near, far):
        draw_line(canvas, (0, place), (side, place), 1, pen(side, rng))
        if rng.random() < 0.7:
            draw_line(canvas, (place, 0), (place, side), 1, pen(side, rng))
    return shoot(canvas, rng, IN_A_FORM)


def on_paper(draw: Callable[[Mask, Mask, Rng], Mask]) -> Kind:
    """A shape that is no digit, on paper."""

    def render(mask: Mask, other: Mask, rng: Rng) -> Picture:
        shape = np.pad(draw(mask, other, rng), 20)
        return shoot(shape, rng) if rng.random() < 0.5 else 255 - shape

    render.__name__ = draw.__name__
    return render


ONE_DIGIT: tuple[Kind, ...] = (
    circled, framed, frame_touched, box_in_row, crossed, pale_in_form, comb, underlined,
    over_button, printed, full_stop, punched, margin, wedge, sliver, smeared, on_board,
    in_shadow, small_in_shadow, thick, equal_luma, on_plate, between_bars, beside_desk, on_desk,
    aslant, sheet_with_corners, soft, hollow, small, thin_and_large, dashed, cut_off, tight,
    in_string, mnist,
)  # fmt: skip
UNANSWERABLE: tuple[Kind, ...] = (
    two_beside, two_at_edge, two_stacked, four_digits, far_apart, circled_small, empty_cell,
    *(on_paper(draw) for draw in (letter, scribble, filled, texture)),
)  # fmt: skip
