"""Ink and ground: which of the two is lighter, what light falls on it, and the ink alone."""

from bisect import bisect_right
from functools import cache, lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.normalisation.measuring import (
    Ordered,
    border,
    mask_over,
    measure_reach,
    ones,
    order,
    otsu_threshold,
    percentiles,
    shrink,
)
from worker.pictures import MIN_CONTRAST, Grey, ImageError, Mask

ROUGH_SIDE = 48  # px: ink, ground and the light on it are judged in an image of this size
WIDTH_VOTE, STRAYS_VOTE = 0.5, 2.0  # the weights of the other two votes on the ground
OBVIOUS = 0.7  # if the first vote is as clear as this, the other two are not taken
CERTAIN = 1.0  # if the first two votes of at most 1.5 give this, the third is not taken
LIT = 0.5  # if smooth light explains more of a photo's variance, it is levelled for the votes
PAPER_IS_LIGHT = 0.7  # a lit photo has a dark ground only if the votes exceed this
SHADES = 3  # in a drawing, most pixels are as near to the lightest or the darkest grey value
WIDE_STROKE_SHARE, STROKE_SHARE = 0.45, 0.25  # of the longer side: strokes that are closed over
EVEN = 0.92  # the light is even if the least of it is at least this share of the most
DEEPEST_SHADOW = 0.4  # no shadow leaves less than this share of the usual light
PALE_SHADE_REACH = 1.5, 1  # shade nearly as dark as ink must reach this much farther, plus 1 px
MAX_NOISE = 48  # of 255: the grain of paper is no stronger

Surface = NDArray[np.float32]


def is_ground_dark(small: Grey) -> bool:
    """Whether the ink is lighter than its ground, by a vote of three.

    Ground is most of the image, it is wider than strokes, and what differs from the pixels around
    it is ink. If light and shade dominate a photo, the first two votes are taken again with the
    light levelled. As most photos show light paper, a dark ground then needs a clear majority.
    """
    ordered = order(small)
    dark = find_dark(small, ordered)
    vote = ask_share(dark)
    # a photo may look dark only because a shadow covers most of it
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
        far = [percentiles(order(part), 99.9)[0] for part in (lighter, darker)]  # beyond are specks
        votes += STRAYS_VOTE * weigh(*far)
    return votes > 1e-9  # rounding may leave less than this of a tie


def is_photo(ordered: Ordered) -> bool:
    """Whether most pixels are far from the lightest and the darkest, unlike a drawing's."""
    low, high = percentiles(ordered, 1, 99)
    dark = bisect_right(ordered, low + SHADES)
    between = bisect_right(ordered, max(low + SHADES, high - SHADES - 1)) - dark
    return between > 0.5 * len(ordered) and not has_drawn_ground(ordered)


def has_drawn_ground(ordered: Ordered) -> bool:
    """Whether at least a fifth has just the darkest grey value, which light would vary."""
    (low,) = percentiles(ordered, 1)
    return bisect_right(ordered, low + 1) >= 0.2 * len(ordered)


def find_dark(small: Grey, ordered: Ordered) -> Mask:
    """The pixels that are nearer to the darkest than to the lightest."""
    low, high = percentiles(ordered, 1, 99)
    if high - low < MIN_CONTRAST:  # the digit is small
        low, high = int(small.min()), int(small.max())
    return cv2.threshold(small, (low + high - 1) // 2, 1, cv2.THRESH_BINARY_INV)[1]


def ask_share(dark: Mask) -> float:
    """How clearly most of the image is dark: from −1 to 1."""
    return 2 * cv2.norm(weigh_ground(*dark.shape), cv2.NORM_L1, dark) - 1


def ask_width(dark: Mask) -> float:
    """How clearly the dark parts are the wider ones: from −`WIDTH_VOTE` to `WIDTH_VOTE`."""
    return WIDTH_VOTE * weigh(measure_reach(dark), measure_reach(1 - dark))


def weigh(first: float, second: float) -> float:
    """By how much the first is more than the second: from −1 to 1."""
    return (first - second) / max(first, second, 1)


@cache  # there are only as many shapes as fit in ROUGH_SIDE
def weigh_ground(height: int, width: int) -> NDArray[np.float64]:
    """How much each pixel tells about the ground, 1 in all: more near the border and corners."""
    places = np.arange(height * width).reshape(height, width)
    # rings further in count as well, since the border may be the frame of a form's cell
    insets = [round(part * min(height, width)) for part in (0, 0.04, 0.08, 0.12)]
    parts = [border(places[inset : height - inset, inset : width - inset]) for inset in insets]
    above, left = round(0.15 * height) + 1, round(0.15 * width) + 1
    corners = np.concatenate([places[:above], places[-above:]])
    parts += [places, np.concatenate([corners[:, :left], corners[:, -left:]])]
    shares = [np.bincount(part.ravel(), minlength=places.size) / part.size for part in parts]
    return np.mean(shares, axis=0).reshape(height, width)


def extract_ink(grey: Grey) -> Grey:
    """Ink light on a ground of 0. Raises `ImageError` for a blank image.

    Ink is darker than the paper around it by a share of that paper's light. If all ink is lines of
    a form, its threshold is found again inside of them, where a much paler digit may be.
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
    if 2 * cv2.countNonZero(ink) >= ink.size:  # otherwise the median is 0, and sorting is slower
        noise = min(MAX_NOISE, 2 * percentiles(order(ink), 50)[0])
    if strongest <= noise or strongest < MIN_CONTRAST:
        raise ImageError("blank: no ink to be seen")
    threshold, full = measure_ink(ink, noise)
    inside = inside_of(ink)
    strongest = int(cv2.minMaxLoc(inside)[1])
    most = max(threshold, full // 4)
    if max(noise, MIN_CONTRAST) < strongest <= most and goes_across(ink, most):
        threshold, full = measure_ink(np.ascontiguousarray(inside), noise)
    faintest = int(max(threshold / 2, full / 4, noise))
    if not is_even:
        faintest = leave_out_shade(ink, faintest, threshold)
    kept = cv2.threshold(ink, faintest, 0, cv2.THRESH_TOZERO)[1]
    return cv2.convertScaleAbs(kept, alpha=255 / full)


def measure_ink(ink: Grey, noise: int) -> tuple[int, int]:
    """The threshold between ink and the grain of the paper, and how strong full ink is."""
    near = cv2.dilate(mask_over(ink, otsu_threshold(ink[ink > noise])), ones(5, 5))
    # near ink there is about as much grain as ink, which makes Otsu's threshold more exact
    inked = ink[near.view(np.bool_)]
    threshold = otsu_threshold(inked)
    ordered = order(inked)
    (full,) = percentiles(ordered[bisect_right(ordered, threshold) :], 90)
    return threshold, full


def inside_of(ink: Grey) -> Grey:
    """The part that lies inside of the lines of a form's cell."""
    down, right = (round(0.2 * side) for side in ink.shape)
    return ink[down : ink.shape[0] - down, right : ink.shape[1] - right]


def is_form(ink: Grey, threshold: int) -> bool:
    """Whether all ink over a threshold lies where the lines of a form do."""
    return cv2.minMaxLoc(inside_of(ink))[1] <= threshold and goes_across(ink, threshold)


def goes_across(ink: Grey, threshold: int) -> bool:
    """Whether ink over a threshold spans nine tenths of the image's width or height."""
    _, _, w, h = cv2.boundingRect(mask_over(ink, threshold))
    return w >= 0.9 * ink.shape[1] or h >= 0.9 * ink.shape[0]


def leave_out_shade(ink: Grey, faintest: int, threshold: int) -> int:
    """Raise the value of the faintest ink above shadows, smears and creases, if there are any.

    It is not raised if only the lines of a form would be left, with a paler digit among them.
    """
    if has_shade(ink, faintest, threshold) and not is_form(ink, threshold):
        faintest = threshold
    threshold = otsu_threshold(ink[ink > faintest])
    shade = has_shade(ink, faintest, threshold, *PALE_SHADE_REACH) and not is_form(ink, threshold)
    return threshold if shade else faintest


def has_shade(ink: Grey, faintest: int, threshold: int, times: float = 1, more: float = 0) -> bool:
    """Whether pale ink, away from ink over the threshold, is wider than strokes can be."""
    if threshold <= faintest:
        return False
    strong, pale = mask_over(ink, threshold), mask_over(ink, faintest)
    pale -= cv2.min(pale, cv2.dilate(strong, ones(5, 5)))
    if cv2.countNonZero(pale) < 9:  # so few pixels reach no farther than a stroke
        return False
    widest = max(times * max(1, measure_reach(strong)) + more, 0.06 * min(ink.shape))
    return measure_reach(pale) > widest


def estimate_ground(small: Grey) -> Grey:
    """The paper's lightness at each pixel of a small image, by closing over the ink.

    Wide strokes are closed over too if the light is even, once smooth light is divided out.
    Otherwise the ground follows the edges of shadows, which are widened lest they look like lines.
    """
    closed = close(small, STROKE_SHARE)
    low, high, *_ = cv2.minMaxLoc(closed)
    if 0 < low == high:
        return closed  # blank paper in one light, which the steps below would not change
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
    """Close over dark strokes that are narrower than a share of the longer side."""
    side = 2 * reach_of(grey, share) + 1  # an even kernel would move the image by a pixel
    return cv2.morphologyEx(grey, cv2.MORPH_CLOSE, ones(side, side))


def reach_of(grey: Grey, share: float) -> int:
    """Half of a share of the longer side, in px."""
    return max(1, round(share * max(grey.shape)) // 2)


def fit_light(closed: Grey, mean: float) -> Surface | None:
    """The light on a ground without strokes, if a polynomial of the second degree describes it."""
    # it is fitted without the edges, where closing has taken the light from further in
    margin = min(reach_of(closed, STROKE_SHARE), (min(closed.shape) - 1) // 3)
    light = fit_surface(closed, margin)
    height, width = closed.shape
    inner = np.s_[margin : height - margin, margin : width - margin]
    misfit = cv2.norm(light[inner], closed[inner].astype(np.float32), cv2.NORM_L2SQR)
    smooth = misfit <= (0.008 * mean) ** 2 * closed[inner].size  # root mean square
    return light if smooth and light.min() > DEEPEST_SHADOW * mean else None


def fit_surface(image: Grey, margin: int = 0) -> Surface:
    """The polynomial of the second degree in row and column that is nearest to all but a margin."""
    height, width = image.shape
    terms, solve = prepare_fit(height, width, margin)
    inner = image[margin : height - margin, margin : width - margin]
    values = inner.astype(np.float32).reshape(1, -1)
    # the order of additions in NumPy's product would depend on the number of threads
    factors = cv2.gemm(values, solve, 1, None, 0, flags=cv2.GEMM_2_T)
    return cv2.gemm(factors, terms, 1, None, 0).reshape(height, width)


@lru_cache(256)
def prepare_fit(height: int, width: int, margin: int) -> tuple[Surface, Surface]:
    """The polynomial's terms, and the matrix from inner pixels to factors: (terms, pixels) both."""
    down, right = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    powers = [(i, j) for i in range(3) for j in range(3 - i)]
    terms = np.stack([down**i * right**j for i, j in powers])
    inner = terms[:, margin : height - margin, margin : width - margin]
    solve = np.linalg.pinv(inner.reshape(len(powers), -1).T)
    return terms.reshape(len(powers), -1).astype(np.float32), solve.astype(np.float32)


def darken_edges(closed: Grey) -> Grey:
    """Let light fall off towards the edges as it does further in, from where closing took it."""
    lit, reach = closed.astype(np.int16), reach_of(closed, STROKE_SHARE)
    background = lit.copy()
    sides = [(image, image[::-1], image.T, image.T[::-1]) for image in (lit, background)]
    for seen, rows in zip(*sides, strict=True):  # the first rows are those at one edge
        if len(seen) > 2 * reach:
            onward = 2 * seen[reach] - seen[2 * reach : reach : -1]
            least = (0.85 * seen[:reach]).astype(np.int16)  # light falls off no more steeply
            np.minimum(rows[:reach], np.maximum(onward, least), out=rows[:reach])
    return background.astype(np.uint8)
