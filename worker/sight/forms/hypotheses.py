"""Where a form may be on a page: several guesses, each of which is settled and judged."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial

import cv2
import numpy as np

from digitq.worker.picture import Grey, ImageError
from digitq.worker.sight.forms.alignment import (
    GUESS,
    NOT_ALIGNED,
    TWICE,
    Alignment,
    Template,
    centre,
    find_features,
    find_form,
    is_plausible,
    settle,
)
from digitq.worker.sight.forms.perspective import Points, to_corners
from digitq.worker.sight.forms.smooth_shift import NO_SHIFT

# a page's longer side, px, and its most features: the second look follows if the first does not fit
LOOKS = (400, 1000), (1100, 1800)
MAX_SCAN_RATIO, MAX_PHOTO_RATIO = 1.04, 1.25  # so much longer may a sheet be, in its breadths
SHEET_SIDE = 400  # px: a sheet's edges are sought where the page's longer side is this
MAX_ALONE = 0.6  # a form that covers less of the page leaves room for another one
MIN_SHEET = 0.2  # a sheet covers at least this share of the page
MAX_EDGE_ERROR = 0.02  # so far is a sheet's outline from its four corners, in its circumference


def align(template: Template, page: Grey) -> Alignment:
    """Where the blank is on a page. Raises `ImageError` if it can't be found for sure."""
    problem = ImageError(f"{NOT_ALIGNED}: the form is not found on it")
    first, second = (partial(find_by_features, look=look) for look in LOOKS)
    ways: list[Callable[[Template, Grey], Alignment | None]] = [first, lay_on_page]
    ways += [second] if max(page.shape) > LOOKS[0][0] else []
    for way in [*ways, lay_on_sheet]:
        try:
            if found := way(template, page):
                if way is first:
                    check_alone(template, page, found)
                return found
        except ImageError as error:
            problem = error
            if str(error) == TWICE:  # no guess may choose one of both in silence
                break
    raise problem


def check_alone(template: Template, page: Grey, found: Alignment) -> None:
    """Raises `ImageError` if there is a second form on the page, where there is room for one: the
    first look may be too coarse to see it."""
    corners = found.to_page(to_corners((0, 0, *template.grey.shape[::-1])))
    if cv2.contourArea(corners.astype(np.float32)) < MAX_ALONE * page.size:
        try:
            find_form(template, page.shape, *find_features(page, *LOOKS[1]))
        except ImageError as error:
            if str(error) == TWICE:
                raise


def guess_corners(template: Template, page: Grey) -> Points:
    """Where the corners (4, 2) of the blank most likely are on a page that it is not found on: by
    its features, or else those of the sheet, or of the page."""
    for look in LOOKS:
        with suppress(ImageError):
            found = find_form(template, page.shape, *find_features(page, *look))
            return found.to_page(to_corners((0, 0, *template.grey.shape[::-1])))
    sheet = find_sheet(page)
    return to_corners((0, 0, *page.shape[::-1])) if sheet is None else sheet


def find_by_features(template: Template, page: Grey, look: tuple[int, int]) -> Alignment:
    """The form where its features are. Raises `ImageError`."""
    return settle(template, page, find_form(template, page.shape, *find_features(page, *look)))


def lay_on_page(template: Template, page: Grey) -> Alignment | None:
    """The form on all of a scan. Raises `ImageError` if it fits in two ways."""
    corners = to_corners((0, 0, *page.shape[::-1]))
    return lay_on(template, page, corners, MAX_SCAN_RATIO)


def lay_on_sheet(template: Template, page: Grey) -> Alignment | None:
    """The form on the sheet of a photo. Raises `ImageError` if it fits in two ways."""
    corners = find_sheet(page)
    return None if corners is None else lay_on(template, page, corners, MAX_PHOTO_RATIO)


def lay_on(template: Template, page: Grey, corners: Points, max_ratio: float) -> Alignment | None:
    """The form with its corners at these, the blank turned by quarters, if it fits so.

    The sheet may be so many times as long as the blank if both are as broad. Raises `ImageError` if
    it fits in two ways.
    """
    height, width = template.grey.shape
    blank = to_corners((0, 0, width, height))
    found = list[Alignment]()
    for turns in range(4):
        targets = np.roll(corners, turns, axis=0)
        across, down = np.linalg.norm(np.diff(targets[:3], axis=0), axis=1)
        if abs(np.log(down / across * width / height)) > np.log(max_ratio):
            continue
        matrix = cv2.getPerspectiveTransform(blank.astype(np.float32), targets.astype(np.float32))
        if is_plausible(matrix, (width, height), page.shape):
            found += settle_guess(template, page, Alignment(matrix, NO_SHIFT, (width, height)))
    if len(found) > 1:
        raise ImageError(f"{NOT_ALIGNED}: it is not clear which way up the form is")
    return found[0] if found else None


def settle_guess(template: Template, page: Grey, guess: Alignment) -> list[Alignment]:
    """The guess, or else what is nearby and correlates best, if it fits."""
    for is_moved in (False, True):
        try:
            start = centre(template, page, guess) if is_moved else guess
            return [settle(template, page, start, GUESS)]
        except ImageError:
            continue
    return []


def find_sheet(page: Grey) -> Points | None:
    """The corners (4, 2) of a bright sheet, clockwise from the left upper one, or `None`."""
    scale = SHEET_SIDE / max(page.shape)
    size = [max(1, round(side * scale)) for side in page.shape[::-1]]
    small = cv2.resize(page, size, interpolation=cv2.INTER_AREA)
    _, bright = cv2.threshold(small, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    closed = cv2.morphologyEx(bright, cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
    outlines, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not outlines:
        return None
    hull = cv2.convexHull(max(outlines, key=cv2.contourArea))
    corners = cv2.approxPolyDP(hull, MAX_EDGE_ERROR * cv2.arcLength(hull, True), True)[:, 0]
    if len(corners) != 4 or cv2.contourArea(corners) < MIN_SHEET * small.size:
        return None
    first = int(corners.sum(1).argmin())
    return np.asarray(np.roll(corners, -first, axis=0) / scale)
