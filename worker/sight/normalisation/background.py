"""Separates the ink from its background, whichever is darker, and in uneven light."""

from bisect import bisect_right
from functools import cache, lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from digitq.worker.picture import MIN_CONTRAST, Grey, ImageError, Mask
from digitq.worker.sight.normalisation.measuring import (
    FULL_INK,
    SortedPixels,
    border,
    mask_over,
    measure_radius,
    ones,
    otsu_threshold,
    percentiles,
    shrink,
    sort_pixels,
)

ROUGH_SIDE = 48  # px: the background is judged in an image whose longer side is at most this
DARKEST, LIGHTEST = 1, 99  # percentiles: specks have fewer pixels than one percent

# Whether an image is a photo
DRAWN_SPREAD = 3  # grey values: a drawing's paper and ink vary by at most this
MIN_BETWEEN = 0.5  # more than this share of a photo is neither as dark nor as light as a drawing is
MIN_FLAT = 0.2  # a drawn background has at least this share of the pixels; a photo's light varies

# Whether the background is dark, by votes
DECISIVE_VOTE = 0.7  # if the vote by area is as clear as this, the other two are not taken
DECISIVE_SUM = 1.0  # if the votes by area and width add up to this, the third is not taken
WIDTH_WEIGHT, CONTRAST_WEIGHT = 0.5, 2.0  # the weights of the second and third vote; area has 1
MIN_LIGHT_VARIANCE = 0.5  # if light explains more of a photo's variance, it is levelled first
LIGHT_PAPER_BIAS = 0.7  # votes on a levelled photo must exceed this for a dark background
RING_INSETS = 0, 0.04, 0.08, 0.12  # shares of the shorter side at which rings of pixels count more
CORNER = 0.15  # the corners, whose pixels count more, are this share of each side
SPECKLESS = 99.9  # percentile: a few specks may have a higher contrast

# Ink, and what is too pale or too wide for it
MAX_NOISE = 48  # grey values: the grain of paper is no stronger than this
CELL_RIM = 0.2  # a form has its lines within this share of each side
MIN_SPAN = 0.9  # lines of a form span at least this share of the image
MIN_SHADE_PIXELS = 9  # fewer pixels are not wider than a stroke
MIN_SHADE = 0.06  # shade has a larger radius than this share of the shorter side
SHADE_RADIUS = 1.5, 1  # dark shade has more than 1.5 times the radius of strokes, plus 1 px

# The light on the paper
NARROW_CLOSING, WIDE_CLOSING = 0.25, 0.45  # shares of the longer side: strokes up to this go
MIN_EVENNESS = 0.92  # light is even if its 5th percentile is at least this share of its 95th
MIN_SHADOW_LIGHT = 0.4  # the darkest shadow leaves at least this share of the usual light
MAX_FIT_ERROR = 0.008  # smooth light differs from a polynomial by at most this share of its mean
MIN_EDGE_LIGHT = 0.85  # light keeps at least this share of its strength towards an edge

Surface = NDArray[np.float32]  # (height, width), or (terms, pixels) for a fit


def is_background_dark(small: Grey) -> bool:
    """Whether the ink is lighter than its background, by a vote of three.

    The background covers more area than the ink, it is wider than strokes, and it differs less from
    the pixels around it. If light dominates a photo, it is levelled for the first two votes. As
    most photos show light paper, a dark background then needs a clear majority.

    If the mean grey value decides instead, 97 instead of 100 % of the photos of paper are right.
    """
    pixels = sort_pixels(small)
    dark = find_dark(small, pixels)
    vote = vote_by_area(dark)
    # a shadow may cover most of a photo, so a dark majority decides only in a drawing
    if vote <= -DECISIVE_VOTE or vote >= DECISIVE_VOTE and not is_photo(pixels):
        return vote > 0
    votes = vote + vote_by_width(dark)
    if votes > -DECISIVE_SUM and is_photo(pixels):
        light = fit_surface(small) - cv2.mean(small)[0]
        if cv2.meanStdDev(light)[1] ** 2 > MIN_LIGHT_VARIANCE * cv2.meanStdDev(small)[1] ** 2:
            level = cv2.subtract(small, light, dtype=cv2.CV_8U)
            dark = find_dark(level, sort_pixels(level))
            votes = vote_by_area(dark) + vote_by_width(dark) - LIGHT_PAPER_BIAS
    if abs(votes) < DECISIVE_SUM:
        median = cv2.medianBlur(small, ROUGH_SIDE // 2 - 3)  # the kernel is wider than most strokes
        lighter, darker = cv2.subtract(small, median), cv2.subtract(median, small)
        contrasts = [percentiles(sort_pixels(part), SPECKLESS)[0] for part in (lighter, darker)]
        votes += CONTRAST_WEIGHT * relative_difference(*contrasts)
    return votes > 1e-9  # rounding errors make less than this of a tie


def is_photo(pixels: SortedPixels) -> bool:
    """Whether most pixels are neither as dark nor as light as the pixels of a drawing."""
    low, high = percentiles(pixels, DARKEST, LIGHTEST)
    dark = bisect_right(pixels, low + DRAWN_SPREAD)
    between = bisect_right(pixels, max(low + DRAWN_SPREAD, high - DRAWN_SPREAD - 1)) - dark
    return between > MIN_BETWEEN * len(pixels) and not has_drawn_background(pixels)


def has_drawn_background(pixels: SortedPixels) -> bool:
    """Whether many pixels have the darkest grey value; the light on a photo would vary it."""
    (low,) = percentiles(pixels, DARKEST)
    return bisect_right(pixels, low + 1) >= MIN_FLAT * len(pixels)


def find_dark(small: Grey, pixels: SortedPixels) -> Mask:
    """The pixels that are nearer to the darkest than to the lightest."""
    low, high = percentiles(pixels, DARKEST, LIGHTEST)
    if high - low < MIN_CONTRAST:  # a small digit has less than 1 % of the pixels
        low, high = int(small.min()), int(small.max())
    return cv2.threshold(small, (low + high - 1) // 2, 1, cv2.THRESH_BINARY_INV)[1]


def vote_by_area(dark: Mask) -> float:
    """How clearly most of the image is dark: from −1 to 1."""
    return 2 * cv2.norm(background_weights(*dark.shape), cv2.NORM_L1, dark) - 1


def vote_by_width(dark: Mask) -> float:
    """How clearly the dark parts are wider than the others: from −0.5 to 0.5, by `WIDTH_WEIGHT`."""
    return WIDTH_WEIGHT * relative_difference(measure_radius(dark), measure_radius(1 - dark))


def relative_difference(first: float, second: float) -> float:
    """The difference as a share of the larger value: from −1 to 1."""
    return (first - second) / max(first, second, 1)


@cache  # there are only as many shapes as fit in ROUGH_SIDE
def background_weights(height: int, width: int) -> NDArray[np.float64]:
    """The weight of each pixel in the vote by area, 1 in all: more near the border and corners."""
    indices = np.arange(height * width).reshape(height, width)
    # inner rings count as well, since the border may be the frame of a form's cell
    insets = [round(share * min(height, width)) for share in RING_INSETS]
    parts = [border(indices[inset : height - inset, inset : width - inset]) for inset in insets]
    rows, columns = (round(CORNER * side) + 1 for side in (height, width))
    ends = np.concatenate([indices[:rows], indices[-rows:]])
    parts += [indices, np.concatenate([ends[:, :columns], ends[:, -columns:]])]
    shares = [np.bincount(part.ravel(), minlength=indices.size) / part.size for part in parts]
    return np.mean(shares, axis=0).reshape(height, width)


def extract_ink(grey: Grey) -> Grey:
    """Light ink on a background of 0, of the same shape. Raises `ImageError` for a blank image.

    The image is inverted if its background is dark, and divided by the background. So a pixel is
    ink if it is darker than the paper around it by a share of the paper's lightness. If only the
    lines of a form exceed the threshold, a paler digit gets its own threshold.
    """
    low, high, *_ = cv2.minMaxLoc(grey)
    if high - low < MIN_CONTRAST:
        raise ImageError("blank: no ink to be seen")
    small = shrink(grey, ROUGH_SIDE)
    is_dark = is_background_dark(small)
    is_even = is_dark and has_drawn_background(sort_pixels(small))
    if is_dark:
        grey, small = cv2.bitwise_not(grey), cv2.bitwise_not(small)
    background = small if is_even else estimate_background(small)
    darkest, lightest, *_ = cv2.minMaxLoc(background)
    is_even = is_even or darkest == lightest
    if is_even:
        background = np.full(grey.shape, lightest, np.uint8)
    else:
        background = cv2.resize(background, grey.shape[::-1], interpolation=cv2.INTER_LINEAR)
    ink = cv2.bitwise_not(cv2.divide(grey, background, scale=255))
    strongest, noise = int(cv2.minMaxLoc(ink)[1]), 0
    if 2 * cv2.countNonZero(ink) >= ink.size:  # otherwise the median is 0, and sorting is slower
        noise = min(MAX_NOISE, 2 * percentiles(sort_pixels(ink), 50)[0])
    if strongest <= noise or strongest < MIN_CONTRAST:
        raise ImageError("blank: no ink to be seen")
    threshold, full = measure_ink(ink, noise)
    interior = cell_interior(ink)
    strongest = int(cv2.minMaxLoc(interior)[1])
    line_threshold = max(threshold, full // 4)
    is_paler = max(noise, MIN_CONTRAST) < strongest <= line_threshold
    if is_paler and spans_image(ink, line_threshold):
        threshold, full = measure_ink(np.ascontiguousarray(interior), noise)
    faintest = int(max(threshold / 2, full / 4, noise))
    if not is_even:
        faintest = exclude_shade(ink, faintest, threshold)
    kept = cv2.threshold(ink, faintest, 0, cv2.THRESH_TOZERO)[1]
    return cv2.convertScaleAbs(kept, alpha=255 / full)


def measure_ink(ink: Grey, noise: int) -> tuple[int, int]:
    """The threshold between ink and the grain of the paper, and the grey value of full ink."""
    near = cv2.dilate(mask_over(ink, otsu_threshold(ink[ink > noise])), ones(5, 5))
    # near ink, ink and grain have similar areas, which makes Otsu's threshold more exact
    near_ink = ink[near.view(np.bool_)]
    threshold = otsu_threshold(near_ink)
    pixels = sort_pixels(near_ink)
    (full,) = percentiles(pixels[bisect_right(pixels, threshold) :], FULL_INK)
    return threshold, full


def cell_interior(ink: Grey) -> Grey:
    """The part of an image that is inside the lines of a form's cell."""
    down, right = (round(CELL_RIM * side) for side in ink.shape)
    return ink[down : ink.shape[0] - down, right : ink.shape[1] - right]


def is_form(ink: Grey, threshold: int) -> bool:
    """Whether all ink over a threshold is where a form has its lines."""
    return cv2.minMaxLoc(cell_interior(ink))[1] <= threshold and spans_image(ink, threshold)


def spans_image(ink: Grey, threshold: int) -> bool:
    """Whether ink over a threshold spans the image's width or height."""
    _, _, w, h = cv2.boundingRect(mask_over(ink, threshold))
    return w >= MIN_SPAN * ink.shape[1] or h >= MIN_SPAN * ink.shape[0]


def exclude_shade(ink: Grey, faintest: int, threshold: int) -> int:
    """Raise the threshold `faintest` above shadows, smears and creases, if there are any.

    It is not raised if only the lines of a form would be left: the digit in it may be paler.

    Without this rule, 15 instead of 3 % of the photos with smears are marked for review.
    """
    if has_shade(ink, faintest, threshold) and not is_form(ink, threshold):
        faintest = threshold
    threshold = otsu_threshold(ink[ink > faintest])
    shade = has_shade(ink, faintest, threshold, *SHADE_RADIUS) and not is_form(ink, threshold)
    return threshold if shade else faintest


def has_shade(ink: Grey, faintest: int, threshold: int, times: float = 1, more: float = 0) -> bool:
    """Whether pale ink, away from ink over the threshold, is wider than strokes can be.

    Shade has a radius of more than `times` that of strokes, plus `more` px.
    """
    if threshold <= faintest:
        return False
    strong, pale = mask_over(ink, threshold), mask_over(ink, faintest)
    pale -= cv2.min(pale, cv2.dilate(strong, ones(5, 5)))
    if cv2.countNonZero(pale) < MIN_SHADE_PIXELS:
        return False
    max_radius = max(times * max(1, measure_radius(strong)) + more, MIN_SHADE * min(ink.shape))
    return measure_radius(pale) > max_radius


def estimate_background(small: Grey) -> Grey:
    """The paper's lightness at each pixel of a small image, from a closing that removes the ink.

    If the light is even or smooth, a wider closing removes wide strokes too. Otherwise the
    background follows the edges of shadows. These are widened, as their rest would look like lines.

    With one grey value for all pixels, 97 instead of 100 % of the photos of paper are right.
    """
    closed = close(small, NARROW_CLOSING)
    low, high, *_ = cv2.minMaxLoc(closed)
    if 0 < low == high:
        return closed  # the paper has one grey value, which the steps below would not change
    mean = cv2.mean(closed)[0]
    light = fit_light(closed, mean)
    level = small if light is None else cv2.divide(small, light, scale=mean, dtype=cv2.CV_8U)
    background = close(level, WIDE_CLOSING)
    low, usual, high = percentiles(sort_pixels(background), 5, 50, 95)
    if low < MIN_EVENNESS * high:
        background = cv2.erode(darken_edges(closed), ones(3, 3))
        (usual,) = percentiles(sort_pixels(background), 50)
    elif light is not None:
        background = cv2.multiply(background, light, scale=1 / mean, dtype=cv2.CV_8U)
    return cv2.max(background, int(max(1, MIN_SHADOW_LIGHT * usual)))


def close(grey: Grey, share: float) -> Grey:
    """Remove dark strokes that are thinner than a share of the longer side (closing)."""
    side = 2 * kernel_radius(grey, share) + 1  # an even kernel would shift the image by a pixel
    return cv2.morphologyEx(grey, cv2.MORPH_CLOSE, ones(side, side))


def kernel_radius(grey: Grey, share: float) -> int:
    """Half of a share of the longer side, in px."""
    return max(1, round(share * max(grey.shape)) // 2)


def fit_light(closed: Grey, mean: float) -> Surface | None:
    """The light on paper without strokes, or `None` if a quadratic polynomial does not fit it."""
    # near the edges, closing has spread the light from further inside
    margin = min(kernel_radius(closed, NARROW_CLOSING), (min(closed.shape) - 1) // 3)
    light = fit_surface(closed, margin)
    height, width = closed.shape
    inner = np.s_[margin : height - margin, margin : width - margin]
    squares = cv2.norm(light[inner], closed[inner].astype(np.float32), cv2.NORM_L2SQR)
    is_smooth = squares <= (MAX_FIT_ERROR * mean) ** 2 * closed[inner].size
    return light if is_smooth and light.min() > MIN_SHADOW_LIGHT * mean else None


def fit_surface(image: Grey, margin: int = 0) -> Surface:
    """The least-squares quadratic polynomial in row and column; the margin (px) has no weight."""
    height, width = image.shape
    terms, solve = prepare_fit(height, width, margin)
    inner = image[margin : height - margin, margin : width - margin]
    values = inner.astype(np.float32).reshape(1, -1)
    # the order of additions in NumPy's product would depend on the number of threads
    factors = cv2.gemm(values, solve, 1, None, 0, flags=cv2.GEMM_2_T)
    return cv2.gemm(factors, terms, 1, None, 0).reshape(height, width)


@lru_cache(256)
def prepare_fit(height: int, width: int, margin: int) -> tuple[Surface, Surface]:
    """The polynomial's terms, and their pseudo-inverse, which gives its factors from the pixels."""
    down, right = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    terms = np.stack([down**i * right**j for i in range(3) for j in range(3 - i)])
    inner = terms[:, margin : height - margin, margin : width - margin]
    solve = np.linalg.pinv(inner.reshape(len(terms), -1).T)
    return terms.reshape(len(terms), -1).astype(np.float32), solve.astype(np.float32)


def darken_edges(closed: Grey) -> Grey:
    """Continue the slope of the light up to the edges, where closing has made it constant."""
    lit, reach = closed.astype(np.int16), kernel_radius(closed, NARROW_CLOSING)
    background = lit.copy()
    sides = [(image, image[::-1], image.T, image.T[::-1]) for image in (lit, background)]
    for seen, rows in zip(*sides, strict=True):  # each turns another edge to the top
        if len(seen) > 2 * reach:
            onward = 2 * seen[reach] - seen[2 * reach : reach : -1]
            lowest = (MIN_EDGE_LIGHT * seen[:reach]).astype(np.int16)
            np.minimum(rows[:reach], np.maximum(onward, lowest), out=rows[:reach])
    return background.astype(np.uint8)
