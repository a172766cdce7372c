"""Digits drawn as outlines."""

import cv2
import numpy as np

from worker.pictures import Grey

OUTLINE_INK = 100  # of 255: a thin outline, too; paler ink inside of it is less
HOLLOW = 0.75  # of its own edge is the hole's of what is drawn as an outline, or more
MIN_ROUND_FILL, SLIMMEST = 0.85, 0.27  # of its hull is a 0; as wide as long it is, or wider


def fill_outline(ink: Grey) -> Grey:
    """A digit that is drawn hollow, filled; any other as it is.

    Of such a one the hole's edge is about as long as its own, and it is no ring, as a thin 0 is.
    """
    mask = cv2.threshold(ink, OUTLINE_INK, 1, cv2.THRESH_BINARY)[1]
    outlines, tree = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if len(outlines) < 2 or max(around := tree[0, :, 3].tolist()) < 0:
        return ink  # no hole
    sizes = [cv2.contourArea(outline) for outline in outlines]
    main = max((n for n, of in enumerate(around) if of < 0), key=sizes.__getitem__)
    holes = [hole for hole, of in zip(outlines, around, strict=True) if of == main]
    if not holes:
        return ink
    outer, hole = outlines[main], max(holes, key=cv2.contourArea)
    if cv2.arcLength(hole, True) < HOLLOW * cv2.arcLength(outer, True):
        return ink
    _, sides, _ = cv2.minAreaRect(outer)
    is_round = sizes[main] >= MIN_ROUND_FILL * cv2.contourArea(cv2.convexHull(outer))
    if is_round and min(sides) > SLIMMEST * max(sides):
        return ink
    filled = cv2.drawContours(np.zeros_like(ink), [outer], -1, 255, cv2.FILLED)
    for number, of in enumerate(around):
        if of < 0 or of == main:
            continue
        if cv2.pointPolygonTest(hole, outlines[of][0, 0].tolist(), False) > 0:
            cv2.drawContours(filled, outlines, number, 0, cv2.FILLED)  # a hole in the digit itself
    return np.asarray(cv2.max(ink, filled))
