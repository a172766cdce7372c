"""Ink and ground: which of the two is lighter, what light falls on it, and the ink alone."""

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.normalisation.measuring import (
    Ordered,
    border,
    count_to,
    measure_reach,
    ones,
    order,
    otsu_threshold,
    percentiles,
    shrink,
)
from worker.pictures import MIN_CONTRAST, Grey, ImageError, Mask

ROUGH_SIDE = 48  # px: the size at which ink and ground, and the light on it, are looked at
RINGS = (0, 0.04, 0.08, 0.12)  # of the shorter side: so far in lie the rings that are asked
CORNER = 0.15  # of either side
STRAYS = 99.9  # %: pixels that stray farther from those around are specks
WIDTH_VOTE, STRAYS_VOTE = 0.5, 2.0  # against 1 for how much of the image it is
OBVIOUS = 0.7  # of the first vote's 1 is enough, but for a photo's dark ground: see there
CERTAIN = 1.0  # of the 1.5 that the first two votes have: the third never said otherwise
LIT = 0.5  # of how much its pixels vary is smooth light: else an image shows ink above all
PAPER_IS_LIGHT = 0.7  # of all the votes: less is not enough for a photo of light ink
SHADES = 3  # grey values from the lightest and the darkest: most pixels of a drawing are as near
DRAWN_GROUND = 0.2  # of a drawing, or more, is a dark ground without any shade
INK_NEIGHBOURHOOD = np.ones((5, 5), np.uint8)  # px around ink
TIE = 1e-9  # where the votes balance, up to what sums of floats are off
WIDE_STROKE_SHARE, STROKE_SHARE = 0.45, 0.25  # of the longer side: strokes that are closed over
EVEN = 0.92  # of the most light is the least, in even light
SMOOTH = 0.008  # of the light: so far is smooth light off a polynomial (root mean square)
STEEPEST = 0.85  # of the light that is seen at an edge of the image is left there at least
DEEPEST_SHADOW = 0.4  # of the usual light
PALE_SHADE_REACH = 1.5, 1  # shade little paler than ink reaches so many times farther, and px
SHADE = 0.06  # of the shorter side: no stroke reaches so far from its middle
MIN_SHADE = 9  # pixels: with less, it reaches no farther than any stroke
INSET = 0.2  # of each side: a digit in a cell reaches further in
ACROSS = 0.9  # of a side, or more: so far go the lines of a form
MAX_NOISE = 48  # of 255: what paper has of it


def is_ground_dark(small: Grey) -> bool:
    """Whether the ink is lighter than its ground: a vote of three.

    Ground is most of the image; it is wider than strokes are; and pixels unlike those around them
    are ink, which is true in any light. In a photo that is mostly light and shade the first two
    are asked again with the light levelled, unless it has a light ground for certain; for a dark
    one it needs a clear majority, since most are of light paper. What is obvious from the first is
    not asked further, but for a dark ground of a photo: it may be a shadow over most of it.
    """
    ordered = order(small)
    dark = find_dark(small, ordered)
    vote = ask_share(dark)
    if vote <= -OBVIOUS or vote >= OBVIOUS and not is_photo(ordered):
        return vote > 0
    votes = vote + ask_width(dark)
    if votes > -CERTAIN and is_photo(ordered):
        light = fit_surface(small) - cv2.mean(small)[0]
        if cv2.meanStdDev(light)[1] ** 2 > LIT * cv2.meanStdDev(small)[1] ** 2:
            level = cv2.subtract(small, light, dtype=cv2.CV_8U)
            dark = find_dark(level, order(level))
            votes = ask_share(dark) + ask_width(dark) - PAPER_IS_LIGHT
    if abs(votes) < CERTAIN:
        around = cv2.medianBlur(small, ROUGH_SIDE // 2 - 3)
        lighter, darker = cv2.subtract(small, around), cv2.subtract(around, small)
        far = [percentiles(order(part), STRAYS)[0] for part in (lighter, darker)]
        votes += STRAYS_VOTE * weigh(*far)
    return votes > TIE


def is_photo(ordered: Ordered) -> bool:
    """Whether most pixels are neither about the lightest nor the darkest, as a drawing's are."""
    low, high = percentiles(ordered, 1, 99)
    dark = count_to(ordered, low + SHADES)
    between = count_to(ordered, max(low + SHADES, high - SHADES - 1)) - dark
    return between > 0.5 * len(ordered) and not has_drawn_ground(ordered)


def has_drawn_ground(ordered: Ordered) -> bool:
    """Whether much is just the darkest, as light hardly leaves a dark ground. (A light one is all
    white in many a photo, with a shadow beside it.)"""
    (low,) = percentiles(ordered, 1)
    return count_to(ordered, low + 1) >= DRAWN_GROUND * len(ordered)


def find_dark(small: Grey, ordered: Ordered) -> Mask:
    """Which pixels are nearer to the darkest than to the lightest."""
    low, high = percentiles(ordered, 1, 99)
    if high - low < MIN_CONTRAST:  # the digit is small
        low, high = int(small.min()), int(small.max())
    return cv2.threshold(small, (low + high - 1) // 2, 1, cv2.THRESH_BINARY_INV)[1]


def ask_share(dark: Mask) -> float:
    """Whether most of the image is dark: from −1 to 1."""
    return 2 * cv2.norm(weigh_ground(*dark.shape), cv2.NORM_L1, dark) - 1


def ask_width(dark: Mask) -> float:
    """Whether what is dark is wider than what isn't: from −`WIDTH_VOTE` to as much."""
    return WIDTH_VOTE * weigh(measure_reach(dark), measure_reach(1 - dark))


def weigh(first: float, second: float) -> float:
    """By how much the first is more than the second: from −1 to 1."""
    return (first - second) / max(first, second, 1)


@cache  # of so many shapes as are up to ROUGH_SIDE
def weigh_ground(height: int, width: int) -> NDArray[np.float64]:
    """How much each pixel tells of the ground's colour, 1 in all: the edge and the corners more.

    Rings further in are asked as well: the outermost may be the frame of a form's cell.
    """
    places = np.arange(height * width).reshape(height, width)
    insets = [round(part * min(height, width)) for part in RINGS]
    parts = [border(places[inset : height - inset, inset : width - inset]) for inset in insets]
    above, left = round(CORNER * height) + 1, round(CORNER * width) + 1
    corners = np.concatenate([places[:above], places[-above:]])
    parts += [places, np.concatenate([corners[:, :left], corners[:, -left:]])]
    shares = [np.bincount(part.ravel(), minlength=places.size) / part.size for part in parts]
    return np.mean(shares, axis=0).reshape(height, width)


def extract_ink(grey: Grey) -> Grey:
    """Ink light on a ground of 0. Raises `ImageError` for a blank image.

    Light falls unevenly on paper; ink is what is darker than the paper around it by a share of
    that paper's light. Otsu's threshold parts the ink from the grain of the paper, first over
    all, then only near ink, where there is about as much of the one as of the other. Where all ink
    is the lines of a form, around a digit that is much paler, it is asked again inside of them.
    """
    low, high, *_ = cv2.minMaxLoc(grey)
    if high - low < MIN_CONTRAST:
        raise ImageError("blank: no ink to be seen")
    small = shrink(grey, ROUGH_SIDE)
    is_even = False
    if is_ground_dark(small):
        is_even = has_drawn_ground(order(small))
        grey, small = cv2.bitwise_not(grey), cv2.bitwise_not(small)
    background = small if is_even else estimate_ground(small)
    darkest, lightest, *_ = cv2.minMaxLoc(background)
    is_even = is_even or darkest == lightest
    if is_even:
        background = np.full(grey.shape, lightest, np.uint8)
    else:
        background = cv2.resize(background, grey.shape[::-1], interpolation=cv2.INTER_LINEAR)
    ink = cv2.bitwise_not(cv2.divide(grey, background, scale=255))
    strongest, noise = int(cv2.minMaxLoc(ink)[1]), 0
    if 2 * cv2.countNonZero(ink) >= ink.size:  # else half of it is 0, and counting takes longer
        noise = min(MAX_NOISE, 2 * percentiles(order(ink), 50)[0])
    if strongest <= noise or strongest < MIN_CONTRAST:
        raise ImageError("blank: no ink to be seen")
    threshold, full = measure_ink(ink, noise)
    inside = inside_of(ink)
    strongest = int(cv2.minMaxLoc(inside)[1])
    most = max(threshold, full // 4)
    if max(noise, MIN_CONTRAST) < strongest <= most and goes_across(ink, most):
        threshold, full = measure_ink(np.ascontiguousarray(inside), noise)  # paler than lines
    faintest = int(max(threshold / 2, full / 4, noise))
    if not is_even:
        faintest = leave_out_shade(ink, faintest, threshold)
    kept = cv2.threshold(ink, faintest, 0, cv2.THRESH_TOZERO)[1]
    return cv2.convertScaleAbs(kept, alpha=255 / full)


def measure_ink(ink: Grey, noise: int) -> tuple[int, int]:
    """The threshold between ink and the grain of the paper near it, and how strong full ink is."""
    threshold = otsu_threshold(ink[ink > noise])
    near = cv2.dilate(cv2.threshold(ink, threshold, 1, cv2.THRESH_BINARY)[1], INK_NEIGHBOURHOOD)
    inked = ink[near.view(np.bool_)]
    threshold = otsu_threshold(inked)
    ordered = order(inked)
    (full,) = percentiles(ordered[count_to(ordered, threshold) :], 90)  # of what is over it
    return threshold, full


def inside_of(ink: Grey) -> Grey:
    """What is inside of the lines of a form's cell."""
    down, right = (round(INSET * side) for side in ink.shape)
    return ink[down : ink.shape[0] - down, right : ink.shape[1] - right]


def is_form(ink: Grey, threshold: int) -> bool:
    """Whether all that is over a threshold is lines of a form, as far as their place tells."""
    return cv2.minMaxLoc(inside_of(ink))[1] <= threshold and goes_across(ink, threshold)


def goes_across(ink: Grey, threshold: int) -> bool:
    """Whether what is over a threshold reaches from one side of the image to the other, as lines
    do."""
    mask = cv2.threshold(ink, threshold, 1, cv2.THRESH_BINARY)[1]
    (height, width), (_, _, w, h) = ink.shape, cv2.boundingRect(mask)
    return w >= ACROSS * width or h >= ACROSS * height


def leave_out_shade(ink: Grey, faintest: int, threshold: int) -> int:
    """The faintest ink, or the threshold under which there is shade, a smear, creases; but not
    one over which there are lines of a form alone: what is under it is a digit among these."""
    if has_shade(ink, faintest, threshold) and not is_form(ink, threshold):
        faintest = threshold
    threshold = otsu_threshold(ink[ink > faintest])
    shade = has_shade(ink, faintest, threshold, *PALE_SHADE_REACH) and not is_form(ink, threshold)
    return threshold if shade else faintest


def has_shade(ink: Grey, faintest: int, threshold: int, times: float = 1, more: float = 0) -> bool:
    """Whether what is paler than a threshold, and away from what is not, is no stroke: it reaches
    so many times as far as strokes do, and so many px more."""
    if threshold <= faintest:
        return False
    strong = cv2.threshold(ink, threshold, 1, cv2.THRESH_BINARY)[1]
    pale = cv2.threshold(ink, faintest, 1, cv2.THRESH_BINARY)[1]
    pale -= cv2.min(pale, cv2.dilate(strong, INK_NEIGHBOURHOOD))
    if cv2.countNonZero(pale) < MIN_SHADE:
        return False
    widest = max(times * max(1, measure_reach(strong)) + more, SHADE * min(ink.shape))
    return measure_reach(pale) > widest


def estimate_ground(small: Grey) -> Grey:
    """The paper's lightness at each pixel of a small image: the ink closed over.

    Smooth light is taken out first. Even light is seen when even wide strokes are closed over;
    under uneven light, closing over no more than strokes follows the edge of a shadow; it is taken
    to reach a little further, lest that edge be drawn as a line.
    """
    closed = close(small, STROKE_SHARE)
    low, high, *_ = cv2.minMaxLoc(closed)
    if 0 < low == high:
        return closed  # blank paper in one light, which all that follows would leave as it is
    mean = cv2.mean(closed)[0]
    light = fit_light(closed, mean)
    level = small if light is None else cv2.divide(small, light, scale=mean, dtype=cv2.CV_8U)
    background = close(level, WIDE_STROKE_SHARE)
    low, usual, high = percentiles(order(background), 5, 50, 95)
    if low < EVEN * high:
        background = cv2.erode(darken_edges(closed), ones(3, 3))
        (usual,) = percentiles(order(background), 50)
    elif light is not None:
        background = cv2.multiply(background, light, scale=1 / mean, dtype=cv2.CV_8U)
    return cv2.max(background, int(max(1, DEEPEST_SHADOW * usual)))


def close(grey: Grey, share: float) -> Grey:
    """Closed over what is dark and narrower than a share of the longer side."""
    side = 2 * reach_of(grey, share) + 1  # by an even one, all would move by a pixel
    return cv2.morphologyEx(grey, cv2.MORPH_CLOSE, ones(side, side))


def reach_of(grey: Grey, share: float) -> int:
    """Half a share of the longer side, in px."""
    return max(1, round(share * max(grey.shape)) // 2)


def fit_light(closed: Grey, mean: float) -> NDArray[np.float32] | None:
    """The light on a ground that strokes are closed over in; `None` where it isn't smooth, or the
    strokes are wide.

    As smooth counts what a polynomial of the second degree describes: it is found without the
    edges of the image, where closing takes the light from further in, and goes on to these.
    """
    margin = min(reach_of(closed, STROKE_SHARE), (min(closed.shape) - 1) // 3)
    light = fit_surface(closed, margin)
    height, width = closed.shape
    inner = np.s_[margin : height - margin, margin : width - margin]
    misfit = cv2.norm(light[inner], closed[inner].astype(np.float32), cv2.NORM_L2SQR)
    smooth = misfit <= (SMOOTH * mean) ** 2 * closed[inner].size
    return light if smooth and light.min() > DEEPEST_SHADOW * mean else None


def fit_surface(image: Grey, margin: int = 0) -> NDArray[np.float32]:
    """The polynomial of the second degree in row and column that is nearest to the values of an
    image (least squares), asked of all but a margin: (height, width)."""
    height, width = image.shape
    terms, solve = prepare_fit(height, width, margin)
    inner = image[margin : height - margin, margin : width - margin]
    values = inner.astype(np.float32).reshape(1, -1)
    # numpy's product would add up in another order with other threads
    factors = cv2.gemm(values, solve, 1, None, 0, flags=cv2.GEMM_2_T)
    return cv2.gemm(factors, terms, 1, None, 0).reshape(height, width)


@lru_cache(256)
def prepare_fit(
    height: int, width: int, margin: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Each term of a polynomial at each pixel, (terms, pixels); and what takes the values inside
    of the margin to the terms' factors, in the same form."""
    down, right = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    powers = [(i, j) for i in range(3) for j in range(3 - i)]
    terms = np.stack([down**i * right**j for i, j in powers])
    inner = terms[:, margin : height - margin, margin : width - margin]
    solve = np.linalg.pinv(inner.reshape(len(powers), -1).T)
    return terms.reshape(len(powers), -1).astype(np.float32), solve.astype(np.float32)


def darken_edges(closed: Grey) -> Grey:
    """Where the light falls off towards an edge of the image, it goes on as it does further in:
    closing takes it from there."""
    lit, reach = closed.astype(np.int16), reach_of(closed, STROKE_SHARE)
    floor = (STEEPEST * lit).astype(np.int16)
    background = lit.copy()
    for seen, least, rows in zip(sides(lit), sides(floor), sides(background), strict=True):
        if len(seen) > 2 * reach:
            onward = np.maximum(2 * seen[reach] - seen[2 * reach : reach : -1], least[:reach])
            np.minimum(rows[:reach], onward, out=rows[:reach])
    return background.astype(np.uint8)


def sides(image: NDArray[Any]) -> Sequence[NDArray[Any]]:
    """Views of an image whose first rows are those at one of its edges, each in turn."""
    return image, image[::-1], image.T, image.T[::-1]
