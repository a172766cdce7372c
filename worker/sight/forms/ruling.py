"""Finds a table by its ruled lines, which may be bent, have gaps, and be seen at an angle."""

from dataclasses import dataclass, replace
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from digitq.worker.picture import Grey, ImageError, Mask
from digitq.worker.sight.forms.perspective import Points, project, warp
from digitq.worker.sight.forms.smooth_shift import (
    DEGREES,
    NO_SHIFT,
    Shift,
    monomials,
    undo_shift,
    warp_smoothly,
)

WORK_SIDE = 1400  # px: lines are sought where the page's longer side is this
MIN_SEGMENT = 20  # px: a shorter segment tells no direction
MIN_SEGMENTS = 6  # fewer show no table
MAX_LEAN = 30  # degrees: how far a line may lean from the usual direction of its kind
MAX_LINE = 13  # px: a line is not thicker
LINE_WINDOW, LINE_CONTRAST = 51, 6  # px, grey values: ink is darker by this than what is around it
MIN_PIECE = 24  # px: a piece of a line is at least this long
MAX_LINE_GAP = 4  # px: a piece has no longer gap
SAMPLES = 8  # points on a piece tell where it is
SAME_LINE = 5.0  # px: pieces whose lines are nearer are one line, once bends are taken out
TOUCHING = 12.0  # px: pieces that nearly reach each other belong to one table
BEND_WEIGHT = 1e-3  # keeps the shift that takes bends out small
NEAR_COLUMN = 6  # px: a row's line crosses the columns' lines, and words and digits do not
MIN_COVER = 0.12  # a line that is needed is drawn for at least this share of where it is sought
MIN_SURE_COVER = 0.4  # any other line is drawn for at least this share of where it is sought
MIN_LINE_STRENGTH = 0.65  # it is also drawn for at least this share of what is usual
MAX_GUESSED = 1 / 3  # at most this share of the lines is missing or hardly drawn
MAX_ROW_DIFFERENCE = 0.3  # a gap that differs by more from the usual one is not a row's
MAX_TIP = 0.5  # the lines between columns go no farther beyond the outer rows, in heights of a row
MAX_REACH = 1.5  # they are followed so far beyond these, in heights of a row
PAGE_EDGE = 0.01  # what is nearer to the edge of the page, as a share of its side, may be cut off
MAX_SPREAD = 1.5  # what is seen from so low that it is drawn out by more is left out
TABLE_RIM = 20  # px: what is around a straightened table
MIN_CROSSINGS = 4  # a table has at least two lines each way
MIN_SPACING = 0.4  # lines are no nearer than this share of the median distance
HALF_DRAWN = 99  # grey value: a pixel that is higher is ink
NO_TABLE = "page not aligned: no ruled table is found"
GAP_ERROR = 0.2  # a missing line is where a gap is a multiple of the distance, to this share


@dataclass(frozen=True)
class Pieces:
    """Pieces of lines of one direction."""

    points: NDArray[np.float64]  # (N, SAMPLES, 2): px, on each piece from its start to its end
    way: int  # 0 if they go from left to right, 1 if from top to bottom

    def spans(self) -> NDArray[np.float64]:
        """Where each starts and ends along its way, (N, 2)."""
        return self.points[:, [0, -1], self.way]

    def places(self) -> NDArray[np.float64]:
        """Where each is across its way, (N,)."""
        return np.asarray(self.points[:, :, 1 - self.way].mean(1))

    def take(self, chosen: NDArray[np.bool_]) -> "Pieces":
        return Pieces(self.points[chosen], self.way)


@dataclass(frozen=True)
class Grid:
    """A table on a page: its lines, as they are once the table is made square and straight."""

    columns: NDArray[np.float64]  # (C + 1,): from left to right, px of the straight table
    rows: NDArray[np.float64]  # (R + 1,): from top to bottom
    to_page: NDArray[np.float64]  # (3, 3): from px of the squared picture to px of the page
    shift: Shift  # is added to px of the squared picture to make lines straight
    size: tuple[int, int]  # the size of the squared picture, px
    # Where the lines between columns begin and end, px of the straight table; None if the form
    # says how many rows there are
    tips: tuple[float, float] | None = None

    def place(self, points: Points) -> Points:
        """Points (N, 2) of the straight table on the page."""
        return project(self.to_page, undo_shift(points, self.shift, self.size))

    def may_lack_rows(self) -> bool:
        """Whether a row is as high as several others, so that a line between may be missing."""
        heights = self.heights
        times = np.rint(heights)
        return bool(np.any((times > 1) & (np.abs(heights - times) < GAP_ERROR)))

    @property
    def heights(self) -> NDArray[np.float64]:
        """The height of each row, (R,); the usual one is 1."""
        heights = np.diff(self.rows)
        return np.asarray(heights / np.median(heights))

    def check_ends(self, shape: tuple[int, ...]) -> None:
        """Raises `ImageError` if the table may have rows beyond its outer lines.

        `shape` is that of the page, at whose edge the table may be cut off.
        """
        usual = np.median(np.diff(self.rows))
        middle, size = self.columns[[0, -1]].mean(), np.array(shape[1::-1])
        assert self.tips
        for outer, end in zip(self.rows[[0, -1]], self.tips, strict=True):
            beyond = abs(end - outer) / usual
            place = self.place(np.array([(middle, end)]))[0] / size
            is_cut = np.any((place < PAGE_EDGE) | (place > 1 - PAGE_EDGE))
            if beyond > (GAP_ERROR if is_cut else MAX_TIP):
                raise ImageError("page not aligned: its table goes on beyond its outer lines")

    def has_even_rows(self) -> bool:
        """Whether all rows are about as high as the usual one."""
        return bool(np.abs(self.heights - 1).max() < MAX_ROW_DIFFERENCE)


def find_grid(page: Grey, rows: range, columns: int, is_open: bool = False) -> Grid:
    """The largest ruled table, if it has so many columns; it should have one of these numbers of
    rows.

    If any of these is as likely, no line is guessed, and no other table of the page may be like it.
    Raises `ImageError`.
    """
    small = resize_to_work(page)
    to_small, size = square(small)
    ink = find_ink(warp(small, to_small, size))
    masks = find_line_ink(ink, 0), find_line_ink(ink, 1)
    enlarge = np.diag([*np.array(page.shape[::-1]) / small.shape[::-1], 1.0])
    to_page = enlarge @ to_small
    largest, *others = find_tables(find_pieces(masks[0], 0), find_pieces(masks[1], 1))
    grid = measure_grid(largest, masks, to_page, rows, columns, is_open)
    if not is_open:
        return grid
    if any(is_like(grid, other, masks, to_page) for other in others):
        raise ImageError(f"page not aligned: it has several tables of {columns} columns")
    return replace(grid, tips=find_tips(masks[1], grid))


def is_like(
    grid: Grid,
    other: tuple[Pieces, Pieces],
    masks: tuple[Mask, Mask],
    to_page: NDArray[np.float64],
) -> bool:
    """Whether another table has as many columns, and about the same width."""
    columns = len(grid.columns) - 1
    if len(other[0].points) < 2 or len(other[1].points) <= columns:
        return False
    try:
        rows = range(1, len(other[0].points) + 1)
        found = measure_grid(other, masks, to_page, rows, columns, True)
    except ImageError:
        return False
    return bool(abs(np.ptp(found.columns) / np.ptp(grid.columns) - 1) < MAX_ROW_DIFFERENCE)


def measure_grid(
    table: tuple[Pieces, Pieces],
    masks: tuple[Mask, Mask],
    to_page: NDArray[np.float64],
    rows: range,
    columns: int,
    is_open: bool,
) -> Grid:
    """The lines of a table that has these pieces of them. Raises `ImageError`."""
    size = masks[0].shape[1], masks[0].shape[0]
    shift = straighten(*table, size)
    ends = np.concatenate([each.points.reshape(-1, 2) for each in table])
    ends += monomials(ends, size) @ shift
    (left, top), (right, bottom) = ends.min(0), ends.max(0)
    extent = right - left, bottom - top
    frame = round(extent[0]) + 2 * TABLE_RIM, round(extent[1]) + 2 * TABLE_RIM
    origin = (left - TABLE_RIM, top - TABLE_RIM)
    level, upright = (
        warp_smoothly(255 * mask, lambda points: undo_shift(points + origin, shift, size), frame)
        for mask in masks
    )
    upright = np.ascontiguousarray(upright.T)
    inside = upright[:, TABLE_RIM:-TABLE_RIM]
    spaces = range(columns, columns + 1)
    across = choose_lines(inside, find_ends(level), spaces)
    if len(across) - 1 not in spaces:
        raise differ(len(across) - 1, spaces, "columns")
    places = np.arange(round(across[0]), round(across[-1]))
    near = places[np.abs(places[:, None] - across).min(1) < NEAR_COLUMN]
    tips = find_ends(upright)
    down = choose_lines(level[:, near], tips, rows, has_foot=True, is_open=is_open)
    return Grid(across + origin[0], down + origin[1], to_page, shift, size)


def find_tips(upright: Mask, grid: Grid) -> tuple[float, float]:
    """From where to where at least two of the lines between columns go, px of the straight table.

    They are followed for `MAX_REACH` rows beyond the outer ones, over gaps.
    """
    reach = round(MAX_REACH * float(np.median(np.diff(grid.rows))))
    origin = grid.columns[0] - TABLE_RIM, grid.rows[0] - reach
    across = np.rint(grid.columns - origin[0]).astype(int)
    bottom = round(grid.rows[-1] - origin[1])
    seen = warp_smoothly(
        255 * upright,
        lambda points: undo_shift(points + origin, grid.shift, grid.size),
        (int(across[-1]) + TABLE_RIM, bottom + reach),
    )
    near = np.ones((1, 2 * NEAR_COLUMN + 1), np.uint8)
    lines = (cv2.dilate(seen, near)[:, across] > HALF_DRAWN).sum(1)
    drawn = (np.minimum(lines, 2)[:, None] > 1).astype(np.uint8)
    drawn = cv2.morphologyEx(drawn, cv2.MORPH_CLOSE, np.ones((MIN_PIECE, 1), np.uint8))[:, 0]
    above, below = drawn[:reach][::-1], drawn[bottom:]
    tips = (int(np.append(each, 0).argmin()) for each in (above, below))
    return float(grid.rows[0] - next(tips)), float(grid.rows[-1] + next(tips))


def resize_to_work(page: Grey) -> Grey:
    """The page as large as the constants above mean it."""
    scale = WORK_SIDE / max(page.shape)
    size = [max(1, round(side * scale)) for side in page.shape[::-1]]
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(page, size, interpolation=how))


def find_ends(lines: Grey) -> tuple[int, int]:
    """Between which px at least two level lines go at each place."""
    counts = (lines > HALF_DRAWN).sum(0)
    many = np.flatnonzero(
        cv2.erode(np.minimum(counts, 2).astype(np.uint8)[None], np.ones((1, 5), np.uint8))[0] > 1
    )
    return int(many[0]), int(many[-1])


def choose_lines(
    ink: Grey,
    ends: tuple[int, int],
    spaces: range,
    *,
    has_foot: bool = False,
    is_open: bool = False,
) -> NDArray[np.float64]:
    """The places of the level lines of a straight table, between which so many spaces should be.

    If a line is missing, and their number is not open, it may be at one of the `ends` of the lines
    that cross these. If there are too many, one of another height may be a foot. Raises
    `ImageError` if there are hardly any lines.
    """
    drawn = cv2.dilate((ink > HALF_DRAWN).astype(np.float32), np.ones((3, 3), np.uint8))
    cover = drawn.mean(1).astype(np.float64)
    cover = np.convolve(cover, [0.25, 0.5, 0.25], "same")
    peaks = np.flatnonzero((cover >= MIN_COVER) & (cover == find_highest(cover)))
    peaks = peaks[np.diff(peaks, prepend=-9) > 1]  # one of a plateau
    clear = int((cover[peaks] >= MIN_SURE_COVER).sum())
    count = min(max(clear, spaces[0] + 1), spaces[-1] + 1)
    usual = np.median(np.sort(cover[peaks])[-count:]) if len(peaks) else 0
    sure = peaks[cover[peaks] > max(MIN_LINE_STRENGTH * usual, MIN_SURE_COVER)]
    if len(sure) < 2:
        raise ImageError(NO_TABLE)
    lines = fill_gaps(sure, peaks, cover, ends, range(0) if is_open else spaces)
    while has_foot and len(lines) - 1 > spaces[-1] and is_odd(np.diff(lines)):
        lines = lines[:-1]
    return np.asarray(lines + 0.5, np.float64)


def differ(found: int, wanted: range, kind: str) -> ImageError:
    """The error of a page whose table has another number of rows or columns than the form."""
    few, many = wanted[0], wanted[-1]
    form = f"{few}" if few == many else f"{few} to {many}"
    return ImageError(f"page not aligned: its table has {found} {kind}, the form {form}")


def is_odd(gaps: NDArray[np.intp]) -> bool:
    """Whether the last of the gaps between lines is unlike the others."""
    return bool(abs(gaps[-1] / np.median(gaps) - 1) > MAX_ROW_DIFFERENCE)


def find_highest(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The highest value near each."""
    kernel = np.ones((round(2 * SAME_LINE + 1), 1), np.uint8)
    return np.asarray(cv2.dilate(values[:, None], kernel).reshape(-1))


def fill_gaps(
    strong: NDArray[np.intp],
    peaks: NDArray[np.intp],
    cover: NDArray[np.float64],
    ends: tuple[int, int],
    spaces: range,
) -> NDArray[np.intp]:
    """Strong lines, weaker ones where a gap shows that they are missing, and at last guesses, if
    these give one of the numbers of `spaces`."""
    usual = float(np.median(np.diff(strong))) if len(strong) > 1 else float(len(cover))
    lines: list[int] = []
    for line in strong.tolist():  # double lines
        if lines and line - lines[-1] < MIN_SPACING * usual:
            if cover[line] > cover[lines[-1]]:
                lines[-1] = line
        else:
            lines.append(line)
    if len(spaces) == 1 and len(lines) - 1 in spaces:  # a wide column lacks no line
        return np.array(lines)
    usual = float(np.median(np.diff(lines))) if len(lines) > 2 else usual
    guesses: list[int] = []
    for before, after in pairwise(lines):
        times = round((after - before) / usual)
        if times > 1 and abs((after - before) / usual - times) < GAP_ERROR * times:
            for part in range(1, times):
                guess = round(before + (after - before) * part / times)
                near = peaks[np.abs(peaks - guess) < GAP_ERROR / 2 * usual]
                guesses.append(int(near[cover[near].argmax()]) if len(near) else -guess)
    if len(guesses) > MAX_GUESSED * (len(lines) + len(guesses)):
        return np.array(lines)
    found = sorted({*lines, *(guess for guess in guesses if guess > 0)})
    unseen = [-guess for guess in guesses if guess < 0]
    unseen += [
        end
        for end in ends
        if min(abs(end - found[0]), abs(end - found[-1])) > usual / 2
        and not found[0] < end < found[-1]
    ]
    if len(found) - 1 not in spaces and len(found) + len(unseen) - 1 in spaces:
        found = sorted([*found, *unseen])
    return np.array(found)


def find_ink(grey: Grey) -> Mask:
    """What is a thin dark line: neither a shadow nor the edge of the paper."""
    dark = cv2.morphologyEx(grey, cv2.MORPH_BLACKHAT, np.ones((MAX_LINE, MAX_LINE), np.uint8))
    mean, black = cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY
    return np.asarray(cv2.adaptiveThreshold(dark, 1, mean, black, LINE_WINDOW, -LINE_CONTRAST))


def square(grey: Grey) -> tuple[NDArray[np.float64], tuple[int, int]]:
    """The homography (3, 3) from a picture in which lines are level or upright, and its size.

    Lines that are parallel on paper meet in a vanishing point; there are two of them. The upper
    edge of the squared picture is nearly that of `grey`. Raises `ImageError`.
    """
    found = cv2.createLineSegmentDetector(cv2.LSD_REFINE_STD).detect(grey)[0]
    segments = np.zeros((0, 4)) if found is None else found.reshape(-1, 4).astype(np.float64) + 0.5
    ways = segments[:, 2:] - segments[:, :2]
    lengths = np.linalg.norm(ways, axis=1)
    segments, ways = segments[lengths > MIN_SEGMENT], ways[lengths > MIN_SEGMENT]
    lengths = lengths[lengths > MIN_SEGMENT]
    if len(segments) < MIN_SEGMENTS:
        raise ImageError(NO_TABLE)
    angles = np.degrees(np.arctan2(ways[:, 1], ways[:, 0])) % 180
    level = find_direction(angles, lengths, None)
    upright = find_direction(angles, lengths, (level + 90) % 180)
    if abs((level + 90) % 180 - 90) > abs((upright + 90) % 180 - 90):
        level, upright = upright, level
    middle = np.array(grey.shape[::-1]) / 2
    kinds = [difference(angles, one) < MAX_LEAN / 2 for one in (level, upright)]
    if not all(near.any() for near in kinds):
        raise ImageError(NO_TABLE)
    points = [find_vanishing_point(segments[near], lengths[near], middle) for near in kinds]
    matrix = np.column_stack([*points, np.append(middle, 1)])
    for column, way in ((0, (1, 0)), (1, (0, 1))):
        step = matrix[:2, column] - middle * matrix[2, column]  # what a px is in the middle
        matrix[:, column] /= np.linalg.norm(step) * (1 if step @ way > 0 else -1)
    if np.linalg.det(matrix) <= 1e-6:
        raise ImageError(NO_TABLE)
    seen = project(np.linalg.inv(matrix), segments.reshape(-1, 2))
    near = np.abs(seen).max(1) < MAX_SPREAD * max(grey.shape)
    (left, top), (right, bottom) = seen[near].min(0) - TABLE_RIM, seen[near].max(0) + TABLE_RIM
    shrink = max(1.0, (right - left) / (1.5 * WORK_SIDE), (bottom - top) / (1.5 * WORK_SIDE))
    size = round((right - left) / shrink), round((bottom - top) / shrink)
    return matrix @ np.array([[shrink, 0, left], [0, shrink, top], [0, 0, 1]]), size


def difference(angles: NDArray[np.float64], other: float) -> NDArray[np.float64]:
    """How far directions are from another, in degrees up to 90."""
    return np.abs((angles - other + 90) % 180 - 90)


def find_direction(
    angles: NDArray[np.float64], lengths: NDArray[np.float64], near: float | None
) -> float:
    """The direction of most lines, in degrees, or of most lines of about one direction."""
    weights = lengths if near is None else lengths * (difference(angles, near) < MAX_LEAN)
    counts = np.bincount(np.rint(angles).astype(int) % 180, weights, 180)
    smooth = np.convolve(np.concatenate([counts] * 3), np.hanning(13), "same")[180:360]
    return float(smooth.argmax()) if smooth.any() else float(near or 0)


def find_vanishing_point(
    segments: NDArray[np.float64], lengths: NDArray[np.float64], middle: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Where the lines through segments (N, 4) meet, homogeneous (3,)."""
    scale = float(middle.max())
    start, end = ((segments[:, at : at + 2] - middle) / scale for at in (0, 2))
    ones = np.ones(len(segments))
    lines = np.cross(np.column_stack([start, ones]), np.column_stack([end, ones]))
    lines /= np.linalg.norm(lines[:, :2], axis=1, keepdims=True)
    centres = np.column_stack([(start + end) / 2, ones])
    trust = np.ones(len(segments))
    point = np.zeros(3)
    for _ in range(12):
        weighted = lines * (lengths * trust)[:, None]
        point = np.linalg.svd(weighted, full_matrices=False)[2][-1]
        # the sine of the angle between a segment and the direction to the point
        to_point = point[:2] - centres[:, :2] * point[2]
        sines = (lines @ point) / np.maximum(np.linalg.norm(to_point, axis=1), 1e-9)
        trust = 1 / (1 + (sines / 0.02) ** 2)
    return np.array(
        [point[0] * scale + middle[0] * point[2], point[1] * scale + middle[1] * point[2], point[2]]
    )


def find_line_ink(ink: Mask, way: int) -> Mask:
    """The ink in pieces of lines that go from left to right (0) or from top to bottom (1)."""
    along, across = (1, MAX_LINE_GAP), (3, 1)
    piece = (1, MIN_PIECE)
    if way:
        along, across, piece = along[::-1], across[::-1], piece[::-1]
    thick = cv2.dilate(ink, np.ones(across, np.uint8))
    closed = cv2.morphologyEx(thick, cv2.MORPH_CLOSE, np.ones(along, np.uint8))
    return np.asarray(cv2.morphologyEx(closed, cv2.MORPH_OPEN, np.ones(piece, np.uint8)))


def find_pieces(opened: Mask, way: int) -> Pieces:
    """The pieces of lines in their ink."""
    opened = np.ascontiguousarray(opened.T) if way else opened
    count, labels, stats, _ = cv2.connectedComponentsWithStats(opened)
    pieces = []
    for label in range(1, count):
        left, top, width, height, area = stats[label]
        if width < MIN_PIECE or width < 3 * area / width:  # a patch
            continue
        part = labels[top : top + height, left : left + width] == label
        down = (part * np.arange(height)[:, None]).sum(0) / np.maximum(1, part.sum(0))
        at = np.linspace(0, width - 1, SAMPLES + 1).round().astype(int)
        middles = [down[a : b + 1].mean() for a, b in zip(at[:-1], at[1:], strict=True)]
        along = left + np.linspace(0, width, SAMPLES)
        points = np.stack([along, top + 0.5 + np.array(middles)], axis=1)
        pieces.append(points[:, ::-1] if way else points)
    return Pieces(np.array(pieces).reshape(-1, SAMPLES, 2), way)


def find_tables(across: Pieces, down: Pieces) -> list[tuple[Pieces, Pieces]]:
    """The pieces of each table, which touch each other, the largest table first.

    Raises `ImageError` if there is none.
    """
    y, x = across.places()[:, None], down.places()[None]
    (left, right), (top, bottom) = across.spans().T[..., None], down.spans().T[:, None]
    touch = (
        (x > left - TOUCHING)
        & (x < right + TOUCHING)
        & (y > top - TOUCHING)
        & (y < bottom + TOUCHING)
    )
    tables = list[tuple[int, NDArray[np.bool_]]]()
    rest = touch.any(1)
    while rest.any():
        rows = np.arange(len(rest)) == rest.argmax()
        while True:
            more = touch[:, touch[rows].any(0)].any(1)
            if (more == rows).all():
                break
            rows = more
        rest &= ~rows
        if (crossings := int(touch[rows].sum())) >= MIN_CROSSINGS:
            tables.append((crossings, rows))
    if not tables:
        raise ImageError(NO_TABLE)
    tables.sort(key=lambda one: -one[0])
    return [(across.take(rows), down.take(touch[rows].any(0))) for _, rows in tables]


def straighten(across: Pieces, down: Pieces, size: tuple[int, int]) -> Shift:
    """The smooth shift after which each piece is level or upright."""
    shift = NO_SHIFT.copy()
    for pieces in (across, down):
        count = len(pieces.points)
        terms = monomials(pieces.points.reshape(-1, 2), size)
        values = pieces.points[:, :, 1 - pieces.way]
        # a piece's own place is free: only what differs from its mean is bent
        terms = terms.reshape(count, SAMPLES, -1)
        terms = (terms - terms.mean(1, keepdims=True)).reshape(count * SAMPLES, -1)
        bent = (values - values.mean(1, keepdims=True)).reshape(-1)
        lengths = np.repeat(np.ptp(pieces.spans(), axis=1), SAMPLES)
        trust = np.ones(len(bent))
        for _ in range(6):
            weights = lengths / lengths.sum() * trust
            left = terms.T @ (weights[:, None] * terms) + BEND_WEIGHT * np.diag(DEGREES**2 + 1e-6)
            solved = np.linalg.solve(left, -terms.T @ (weights * bent))
            trust = 1 / (1 + ((bent + terms @ solved) / 2) ** 2)
        shift[:, 1 - pieces.way] = solved
    return shift
