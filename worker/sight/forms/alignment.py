"""Lays a form's blank on a page: by features, then by what is printed on its tiles and places."""

from dataclasses import dataclass, replace
from itertools import product

import cv2
import numpy as np
from numpy.typing import NDArray

from digitq.protocol.asked.form_file import Box
from digitq.worker.picture import Grey, ImageError
from digitq.worker.sight.forms.perspective import Points, project, to_corners, warp
from digitq.worker.sight.forms.smooth_shift import (
    DEGREES,
    Shift,
    fit_shift,
    monomials,
    warp_smoothly,
)
from digitq.worker.sight.shrinking import shrink_by_factor

FEATURE_SIDE = 700  # px: the blank's longer side where its features are sought
BLANK_FEATURES = 1800  # at most so many features of the blank
# px: the finest scale at which features are sought, in a picture of twice the size. With SIFT's own
# 1.6, a picture would have to be larger by a half to show the same features
FEATURE_BLUR = 1.1
INK_PERCENT, SIFT_INK, MIN_SIFT_INK = 2.0, 100, 8  # the darkest share in %, grey values
PAPER = 190  # grey value of paper where features are sought
MAX_RATIO = 0.8  # a match is at most this many times as far as the next one in the blank
NEAR_BLANK_PX = 6  # two features of the blank that are nearer are one place
MAGSAC_PX, MAGSAC_SIDE = 3.0, 800  # px: so far a match may be off on a page with this longer side
MAGSAC_CONFIDENCE, MAGSAC_ITERATIONS = 0.999, 3000
MIN_INLIERS = 12
MIN_FORM_AREA = 0.04  # the form covers at least this share of the page
MAX_STRETCH = 3.0  # a side of the form is at most this many times as long as the opposite one
MAX_BEND = 0.02  # a bent page is so far from a flat one, in shares of the blank's longer side

TILE_SIDE = 600  # px: the blank's longer side where tiles are compared
TILE = 60  # px
MIN_TILE_INK = 4.0  # grey values: a tile whose spread is lower shows nothing printed
GROUND_PX = 41  # the ground at a place is the mean of a square with this side
MIN_VISIBLE_TILES = 4
NEAR_PEAK, FAR_PEAK = 7, 40  # px: other places of the whole form are so far from where it is laid
MAX_OTHER_PLACE = 0.98  # a place with this share of the correlation fits as well
ROBUST_PX = 1.5  # a tile's shift that is farther from the smooth one counts less

PLACE_HEIGHT = 48  # px: a place is compared at the scale at which its shorter side is about so long
PLACE_MARGIN = 0.35  # what is around a place, in shorter sides, is compared too
PLACE_SEARCH = 8  # px
SHIFT_COST = 0.25  # a shift by all of PLACE_SEARCH needs this much more correlation than none
MIN_PLACE_FIT = 0.15  # with a lower correlation, the place keeps the smooth shift
NOT_ALIGNED = "page not aligned"
TWICE = f"{NOT_ALIGNED}: the form is on it twice"


@dataclass(frozen=True)
class Strictness:
    """How a form that is laid on a page is settled, and when it fits."""

    # px: a tile is sought this far from where it is laid, then from where it is after that
    searches: tuple[int, int]
    min_correlation: float  # a tile whose correlation is at least this fits
    min_fitting: float  # at least this share of the printed tiles that are on the page fits
    max_bend: float  # px at TILE_SIDE: the page is bent by at most so much where its tiles are


# many features agree on a place before it is judged. A guess has nothing else, and may be farther
FEATURES_AGREE, GUESS = (
    Strictness((12, 4), 0.3, 0.65, np.inf),
    Strictness((24, 4), 0.5, 0.9, 3.0),  # bubbles are at least 8 px apart: one that is missed shows
)


@dataclass(frozen=True)
class Template:
    """What is known of a blank."""

    grey: Grey
    points: Points  # (N, 2): the features' places, px
    descriptors: NDArray[np.float32]  # (N, 128)
    is_near: NDArray[np.bool_]  # (N, N): whether two features are at one place
    scale: float  # px of `tiles` in a px of the blank
    tiles: list["Tile"]
    flat: NDArray[np.float32]  # the picture that the tiles are from, without its ground

    @property
    def size(self) -> tuple[int, int]:
        """The width and height of `flat`, px."""
        return self.flat.shape[1], self.flat.shape[0]


@dataclass(frozen=True)
class Tile:
    """A part of the blank on which something is printed."""

    area: tuple[slice, slice]  # rows and columns, px at TILE_SIDE
    flat: NDArray[np.float32]  # without its ground
    structure: NDArray[np.float64]  # (2, 2): how well it shows shifts in each direction

    @property
    def corners(self) -> Points:
        down, right = self.area
        return to_corners((right.start, down.start, right.stop, down.stop))


@dataclass(frozen=True)
class BlankBox:
    """A box of the blank, and what is printed in it and around it."""

    box: Box  # px of the blank
    scale: float  # px of `flat` in a px of the blank
    around: Box  # what `flat` shows, px of the blank
    flat: NDArray[np.float32] | None  # without its ground; `None` if nothing is printed


@dataclass(frozen=True)
class Alignment:
    """From px of the blank to px of the page: a homography after a smooth shift."""

    homography: NDArray[np.float64]  # (3, 3)
    shift: Shift  # px of the blank
    size: tuple[int, int]  # the blank's width and height, px

    def to_page(self, points: Points) -> Points:
        """Points (N, 2) of the blank on the page."""
        return project(self.homography, points + monomials(points, self.size) @ self.shift)


def make_template(grey: Grey) -> Template:
    """Find what is printed on a blank. Raises `ImageError`."""
    points, descriptors = find_features(grey, FEATURE_SIDE, BLANK_FEATURES)
    scale = min(1.0, TILE_SIDE / max(grey.shape))
    high, wide = (max(1, round(side * scale)) for side in grey.shape)
    flat = flatten(warp(grey, np.diag([1 / scale, 1 / scale, 1]), (wide, high)))
    starts = (range(0, max(1, side - TILE // 2), TILE) for side in flat.shape)
    areas = [
        (slice(top, min(high, top + TILE)), slice(left, min(wide, left + TILE)))
        for top, left in product(*starts)
    ]
    tiles = [
        Tile(area, flat[area], measure_structure(flat[area]))
        for area in areas
        if flat[area].std() > MIN_TILE_INK
    ]
    if len(points) < MIN_INLIERS or len(tiles) < MIN_VISIBLE_TILES:
        raise ImageError(f"{NOT_ALIGNED}: too little is printed on the form's blank")
    is_near = np.abs(points[:, None] - points).max(2) < NEAR_BLANK_PX
    return Template(grey, points, descriptors, is_near, scale, tiles, flat)


def shrink(grey: Grey, scale: float) -> tuple[Grey, NDArray[np.float64]]:
    """A smaller picture, and the px of the larger one in one of its px, across and down. A picture
    that would be larger stays as it is."""
    if scale >= 1:
        return grey, np.ones(2)
    size = [max(1, round(side * scale)) for side in grey.shape[::-1]]
    part, factor = shrink_by_factor(grey, scale)  # in one step, this takes five times as long
    small = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA))
    return small, factor * np.array(part.shape[::-1]) / size


def flatten(grey: Grey) -> NDArray[np.float32]:
    """Without the ground and its shadows: 0 on paper, negative in ink."""
    values = grey.astype(np.float32)
    flat = cv2.GaussianBlur(values, (0, 0), 0.8) - cv2.blur(values, (GROUND_PX, GROUND_PX))
    return np.asarray(flat, np.float32)


def find_features(grey: Grey, side: int, count: int) -> tuple[Points, NDArray[np.float32]]:
    """The places (N, 2) in px, and descriptors (N, 128), of features of a picture."""
    small, scale = shrink(grey, side / max(grey.shape))
    # ink is made as dark on all pictures, because faint features are passed over
    flat = flatten(small)
    flat *= SIFT_INK / max(MIN_SIFT_INK, -float(np.percentile(flat, INK_PERCENT)))
    sift = cv2.SIFT.create(count, sigma=FEATURE_BLUR)
    seen = (flat + PAPER).clip(0, 255).astype(np.uint8)
    keypoints, descriptors = sift.detectAndCompute(seen, None)
    if not keypoints:  # `descriptors` is empty then, or `None` before OpenCV 5.1
        return np.zeros((0, 2)), np.zeros((0, 128), np.float32)
    points = (np.asarray(cv2.KeyPoint.convert(keypoints), np.float64) + 0.5) * scale
    # the root of a descriptor's shares is compared: Arandjelović and Zisserman, 2012
    return points, np.sqrt(descriptors / np.maximum(descriptors.sum(1, keepdims=True), 1e-6))


def match(template: Template, points: Points, descriptors: NDArray[np.float32]) -> NDArray[np.intp]:
    """Pairs (M, 2) of features of the blank and of the page."""
    if not len(points):
        return np.zeros((0, 2), np.intp)
    # 1 for equal ones; NumPy's product would take all cores
    alike = cv2.gemm(descriptors, template.descriptors, 1, None, 0, flags=cv2.GEMM_2_T)
    first = alike.argmax(1)
    best = alike.max(1)
    # the second best is at another place: the blank may have several features at one place
    alike[template.is_near[first]] = -1
    gaps = 1 - np.stack([best, alike.max(1)])  # half of the squared distances
    is_clear = gaps[0] < MAX_RATIO**2 * gaps[1]
    return np.asarray(np.stack([first, np.arange(len(points))], axis=1)[is_clear])


def find_form(
    template: Template,
    shape: tuple[int, ...],
    points: Points,
    descriptors: NDArray[np.float32],
) -> Alignment:
    """Where the features of a page put the blank. Raises `ImageError`."""
    pairs = match(template, points, descriptors)
    sources, targets = template.points[pairs[:, 0]], points[pairs[:, 1]]
    matrix = fit_homography(sources, targets, max(shape))
    if matrix is None:
        raise ImageError(f"{NOT_ALIGNED}: the form is not found on it")
    height, width = template.grey.shape
    if not is_plausible(matrix, (width, height), shape):
        raise ImageError(f"{NOT_ALIGNED}: the form is not found on it")
    back = project(np.asarray(np.linalg.inv(matrix), np.float64), targets)
    outside = (back != back.clip(0, (width, height))).any(1)
    second = fit_homography(sources[outside], targets[outside], max(shape))
    if second is not None and is_plausible(second, (width, height), shape):
        raise ImageError(TWICE)
    misses = back - sources
    bent = np.abs(misses).max(1) < MAX_BEND * max(height, width)
    terms = monomials(sources[bent], (width, height))
    weights = np.broadcast_to(np.eye(2), (len(terms), 2, 2))
    near = ROBUST_PX / template.scale
    return Alignment(matrix, fit_shift(terms, misses[bent], weights, near), (width, height))


def fit_homography(sources: Points, targets: Points, side: int) -> NDArray[np.float64] | None:
    """The homography of most matches, or `None`."""
    if len(sources) < MIN_INLIERS:
        return None
    threshold = MAGSAC_PX * side / MAGSAC_SIDE
    matrix, inliers = cv2.findHomography(
        sources, targets, cv2.USAC_MAGSAC, threshold, None, MAGSAC_ITERATIONS, MAGSAC_CONFIDENCE
    )
    return None if matrix is None or inliers.sum() < MIN_INLIERS else matrix


def is_plausible(
    matrix: NDArray[np.float64], size: tuple[int, int], shape: tuple[int, ...]
) -> bool:
    """Whether a camera can see the blank so: neither mirrored nor folded, tiny nor drawn out."""
    blank = to_corners((0, 0, *size))
    corners = project(matrix, blank).astype(np.float32)
    third = np.column_stack([blank, np.ones(4)]) @ matrix[2]
    sides = np.linalg.norm(corners - np.roll(corners, 1, axis=0), axis=1)
    opposite = np.abs(np.log(sides[:2] / sides[2:]))
    return bool(
        (third * third[0] > 0).all()
        and cv2.isContourConvex(corners)
        and cv2.contourArea(corners, oriented=True) > MIN_FORM_AREA * shape[0] * shape[1]
        and (opposite < np.log(MAX_STRETCH)).all()
    )


def settle(
    template: Template, page: Grey, alignment: Alignment, strictness: Strictness = FEATURES_AGREE
) -> Alignment:
    """Add the smooth shift that the printed tiles show. Raises `ImageError` if they don't fit."""
    middle = np.array(alignment.size) / 2 + np.array([(0, 0), (1 / template.scale, 0)])
    step = float(np.linalg.norm(np.diff(alignment.to_page(middle), axis=0)))
    small, scale = shrink(page, 1 / max(1e-6, step))
    coarse = replace(alignment, homography=np.diag([*1 / scale, 1.0]) @ alignment.homography)
    tiles = find_visible(template, small, coarse)
    if len(tiles) < MIN_VISIBLE_TILES:
        raise ImageError(f"{NOT_ALIGNED}: too little of the form is on it")
    for reach in strictness.searches:
        coarse = follow_tiles(template, small, coarse, tiles, reach)
    seen = see(template, small, coarse)
    fits = np.array([correlate(tile.flat, seen[tile.area]) for tile in tiles])
    if (
        np.mean(fits > strictness.min_correlation) < strictness.min_fitting
        or measure_bend(template, coarse, tiles) > strictness.max_bend
    ):
        raise ImageError(f"{NOT_ALIGNED}: what is printed on it does not fit the form")
    check_place(template, seen)
    return replace(alignment, shift=coarse.shift)


def measure_bend(template: Template, alignment: Alignment, tiles: list[Tile]) -> float:
    """How far the smooth shift of tiles is at most from a flat page's, px at TILE_SIDE."""
    middles = np.array([tile.corners.mean(0) for tile in tiles]) / template.scale
    terms = monomials(middles, alignment.size)
    shifts, flat = terms @ alignment.shift * template.scale, terms[:, DEGREES <= 1]
    bent = shifts - flat @ np.linalg.lstsq(flat, shifts)[0]
    return float(np.abs(bent).max())


def check_place(template: Template, seen: NDArray[np.float32]) -> None:
    """Raises `ImageError` if the form fits about as well where it is not laid: bubbles and rows
    repeat, and a page may be off by one of them."""
    fits = correlate_places(template, seen)
    near = slice(FAR_PEAK - NEAR_PEAK, FAR_PEAK + NEAR_PEAK + 1)
    here = float(fits[near, near].max())
    fits[near, near] = 0
    if fits.max() > MAX_OTHER_PLACE * here:
        raise ImageError(f"{NOT_ALIGNED}: the form fits in two places")


def correlate_places(template: Template, seen: NDArray[np.float32]) -> NDArray[np.float32]:
    """How well the whole form fits up to FAR_PEAK px lower and further right, or less, of its
    place."""
    wide = cv2.copyMakeBorder(seen, *(FAR_PEAK,) * 4, cv2.BORDER_CONSTANT)
    return np.asarray(cv2.matchTemplate(wide, template.flat, cv2.TM_CCOEFF_NORMED))


def centre(template: Template, page: Grey, alignment: Alignment) -> Alignment:
    """The alignment moved, without turning it, to where the whole form fits best."""
    fits = correlate_places(template, see(template, page, alignment))
    down, right = np.unravel_index(fits.argmax(), fits.shape)
    shift = alignment.shift.copy()
    shift[0] += (np.array([right, down]) - FAR_PEAK) / template.scale
    return replace(alignment, shift=shift)


def find_visible(template: Template, page: Grey, alignment: Alignment) -> list[Tile]:
    """The tiles all of which are on the page."""
    corners = np.concatenate([tile.corners for tile in template.tiles]) / template.scale
    targets = alignment.to_page(corners)
    is_inside = ((targets > -1) & (targets < np.array(page.shape[::-1]) + 1)).reshape(-1, 8)
    return [template.tiles[at] for at in np.flatnonzero(is_inside.all(1))]


def follow_tiles(
    template: Template, page: Grey, alignment: Alignment, tiles: list[Tile], reach: int
) -> Alignment:
    """The alignment with the smooth shift that brings tiles to where they are seen, up to `reach`
    px at TILE_SIDE from where they are sought."""
    wide = cv2.copyMakeBorder(see(template, page, alignment), *(reach,) * 4, cv2.BORDER_CONSTANT)
    shifts, weights = [], []
    for tile in tiles:
        down, right = (slice(each.start, each.stop + 2 * reach) for each in tile.area)
        *shift, fit = find_shift(tile.flat, wide[down, right], reach)
        shifts.append(shift)
        weights.append(max(0.0, fit) ** 2 * tile.structure)
    middles = np.array([tile.corners.mean(0) for tile in tiles]) / template.scale
    terms = monomials(middles, alignment.size)
    whole = terms @ alignment.shift + np.array(shifts) / template.scale
    near = ROBUST_PX / template.scale
    return replace(alignment, shift=fit_shift(terms, whole, np.array(weights), near))


def see(template: Template, page: Grey, alignment: Alignment) -> NDArray[np.float32]:
    """The page as it lies on the blank at TILE_SIDE, without its ground."""

    def place(points: Points) -> Points:
        return alignment.to_page(points / template.scale)

    return flatten(warp_smoothly(page, place, template.size))


def find_shift(
    tile: NDArray[np.float32], around: NDArray[np.float32], reach: int
) -> tuple[float, float, float]:
    """Where a tile fits best in what is `reach` px around it: right, down, and the correlation."""
    scores = cv2.matchTemplate(around, tile, cv2.TM_CCOEFF_NORMED)
    steps = np.arange(-reach, reach + 1, dtype=np.float32) / reach
    scores = np.nan_to_num(scores, posinf=0, neginf=0)
    likely = scores - SHIFT_COST * (steps[:, None] ** 2 + steps**2)
    down, right = np.unravel_index(likely.argmax(), likely.shape)
    best = float(scores[down, right])
    across = right + find_peak(likely[down], int(right)) - reach
    return float(across), float(down + find_peak(likely[:, right], int(down)) - reach), best


def find_peak(values: NDArray[np.float32], at: int) -> float:
    """How far the top of the parabola through three values is from the middle one."""
    if not 0 < at < len(values) - 1:
        return 0.0
    before, here, after = map(float, values[at - 1 : at + 2])
    bend = before - 2 * here + after
    return (before - after) / (2 * bend) if bend < -1e-9 else 0.0


def measure_structure(tile: NDArray[np.float32]) -> NDArray[np.float64]:
    """How well a tile shows shifts in each direction, (2, 2): its structure tensor, with trace 2.

    A tile with a single line shows no shift along it.
    """
    down, right = np.gradient(tile)
    tensor = np.array([[(right * right).mean(), (right * down).mean()], [0, (down * down).mean()]])
    tensor[1, 0] = tensor[0, 1]
    return 2 * tensor / max(float(np.trace(tensor)), 1e-6)


def correlate(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Pearson's correlation of two pictures."""
    first, second = first - first.mean(), second - second.mean()
    lengths = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float((first * second).sum()) / max(1e-6, lengths)


def make_place(blank: Grey, box: Box) -> BlankBox:
    """What is printed at a box of the blank."""
    left, top, right, bottom = box
    side = min(right - left, bottom - top)  # a column of bubbles is narrow
    margin = max(PLACE_MARGIN * side, 6.0)
    scale = min(1.0, PLACE_HEIGHT / max(1.0, side))
    height, width = blank.shape
    left, top = max(0.0, left - margin), max(0.0, top - margin)
    right, bottom = min(float(width), right + margin), min(float(height), bottom + margin)
    around = left, top, right, bottom
    size = round((right - left) * scale), round((bottom - top) * scale)
    if min(size) < 8:
        return BlankBox(box, scale, around, None)
    to_blank = np.array([[1 / scale, 0, left], [0, 1 / scale, top], [0, 0, 1]])
    flat = flatten(warp(blank, to_blank, size))
    return BlankBox(box, scale, around, flat if flat.std() >= MIN_TILE_INK else None)


def settle_place(page: Grey, alignment: Alignment, place: BlankBox) -> NDArray[np.float64]:
    """How far a box of the blank is shifted by its own lines, (2,).

    It is added to px of the blank before `Alignment.to_page`.
    """
    if place.flat is None:
        return np.zeros(2)
    reach = PLACE_SEARCH / place.scale
    corners = to_corners(place.around) + to_corners((-reach, -reach, reach, reach))
    height, width = place.flat.shape
    size = width + 2 * PLACE_SEARCH, height + 2 * PLACE_SEARCH
    frame = to_corners((0, 0, *size)).astype(np.float32)
    matrix = cv2.getPerspectiveTransform(frame, alignment.to_page(corners).astype(np.float32))
    across, down, fit = find_shift(place.flat, flatten(warp(page, matrix, size)), PLACE_SEARCH)
    return np.array([across, down]) / place.scale if fit >= MIN_PLACE_FIT else np.zeros(2)
