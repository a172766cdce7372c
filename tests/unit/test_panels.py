"""A digit on a panel is read without what is around the panel."""

import cv2
import numpy as np
import pytest

from digitq.worker.sight.normalisation.panels import find_panel, find_sheet, measure_strip
from digitq.worker.sight.normalisation.steps import normalise, trace_steps
from tests.drawing import RING, RING_SIDE, add_grain, draw_ring, same_digit


def hang(panel: np.ndarray, wall: int, margin: int, tilt: float = 0) -> np.ndarray:
    """A panel on a wall of another grey value."""
    height, width = panel.shape
    middle = (width / 2, height / 2)
    turn = cv2.getRotationMatrix2D(middle, tilt, 1) + [[0, 0, margin], [0, 0, margin]]
    size = (width + 2 * margin, height + 2 * margin)
    return np.asarray(
        cv2.warpAffine(
            panel,
            turn,
            size,
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=wall,
        )
    )


@pytest.mark.parametrize("tilt", [0, -4, 8, 20])
@pytest.mark.parametrize(("ink", "ground", "wall"), [(255, 0, 255), (20, 220, 90), (240, 60, 150)])
def test_a_digit_on_a_panel_is_read(ink: int, ground: int, wall: int, tilt: float) -> None:
    ring = cv2.resize(draw_ring(width=12, ink=ink, ground=ground), None, fx=2.5, fy=2.5)
    on_panel, alone = (normalise(hang(ring, around, 90, tilt)) for around in (wall, ground))
    assert same_digit(on_panel, alone, least=0.9)


@pytest.mark.parametrize("tilt", [0, 6])
@pytest.mark.parametrize("desk", [40, 110, 150])
def test_a_digit_on_a_sheet_on_a_desk_is_read(desk: int, tilt: float) -> None:
    sheet = np.full((300, 260), 220, np.uint8)
    sheet[80:200, 70:190] = draw_ring(ink=40, ground=220)
    on_desk = add_grain(hang(sheet, desk, 110, tilt))
    assert same_digit(normalise(on_desk), normalise(hang(sheet, 220, 110, tilt)), least=0.85)
    *_, last = trace_steps(lambda side: on_desk)
    assert not last.review_reason


@pytest.mark.parametrize("turns", range(4))
def test_a_sheet_that_is_seen_aslant_is_read_as_from_above(turns: int) -> None:
    sheet = np.full((297, 210), 220, np.uint8)
    cv2.polylines(sheet, [np.array([(120, 190), (180, 190), (140, 270)])], False, 40, 9)
    sides = np.array([(0, 0), (209, 0), (209, 296), (0, 296)], np.float32)
    seen = np.array([(90, 40), (240, 62), (260, 330), (80, 320)], np.float32)
    aslant = cv2.getPerspectiveTransform(sides, seen)
    border = {"borderMode": cv2.BORDER_CONSTANT, "borderValue": 60}
    on_desk = add_grain(cv2.warpPerspective(sheet, aslant, (320, 400), **border))
    on_desk, sheet = (np.rot90(image, turns).copy() for image in (on_desk, sheet))
    assert same_digit(normalise(on_desk), normalise(sheet), least=0.8)


@pytest.mark.parametrize("desk", [20, 70])
def test_a_sheet_may_leave_only_corners_of_the_desk(desk: int) -> None:
    sheet = np.full((300, 260), 220, np.uint8)
    sheet[150:240, 100:190] = draw_ring(90, width=6, ink=60, ground=220)
    image = hang(sheet, desk, 10, 7)
    *_, last = trace_steps(lambda side: image)
    assert not last.review_reason
    assert same_digit(last.image, normalise(sheet), least=0.85)


@pytest.mark.parametrize(
    "outline",
    [
        [(24, 4), (40, 4), (40, 60), (24, 60)],
        [(22, 6), (60, 6), (42, 57), (4, 57)],
        [(18, 6), (46, 6), (56, 16), (56, 48), (46, 58), (18, 58), (8, 48), (8, 16)],
    ],
    ids=["a fat 1", "a slanted stroke", "an octagon"],
)
def test_a_light_shape_of_another_form_is_no_sheet(outline: list[tuple[int, int]]) -> None:
    dark = np.full((64, 64), 40, np.uint8)
    assert find_sheet(cv2.fillConvexPoly(dark, np.array(outline), 220)) is None


def test_what_lies_beside_as_much_that_is_as_light_is_no_sheet() -> None:
    desk = np.full((64, 64), 40, np.uint8)
    desk[14:50, 8:40] = 220
    assert find_sheet(desk)
    desk[10:54, 46:58] = 220
    assert find_sheet(desk) is None


def test_a_digit_whose_ends_are_in_the_corners_is_no_desk() -> None:
    light = np.tile(np.linspace(230, 150, 200).astype(np.uint8), (200, 1)).T.copy()
    cv2.rectangle(light, (0, 0), (199, 16), 20, cv2.FILLED)  # the bar of a 7, and its stem
    cv2.line(light, (150, 16), (110, 170), 20, 5)
    assert find_sheet(cv2.resize(light, (64, 64), interpolation=cv2.INTER_AREA)) is None


@pytest.mark.parametrize("turned", [False, True])
def test_a_sheet_may_go_on_to_two_edges_of_the_image(turned: bool) -> None:
    sheet = np.full((360, 330), 200, np.uint8)
    sheet[60:150, 180:270] = draw_ring(90, width=6, ink=90, ground=200)
    between = cv2.copyMakeBorder(sheet, 130, 130, 0, 0, cv2.BORDER_CONSTANT)
    if turned:
        sheet, between = sheet.T.copy(), between.T.copy()
    *_, last = trace_steps(lambda side: between)
    assert not last.review_reason
    assert same_digit(last.image, normalise(sheet), least=0.85)


@pytest.mark.parametrize("end", [24, 4, -8])
@pytest.mark.parametrize("turns", range(4))
def test_a_desk_beside_a_page_is_no_part_of_a_digit(turns: int, end: int) -> None:
    page = np.full((240, 200), 210, np.uint8)
    page[60:180, 50:170] = draw_ring(width=8, ink=150, ground=210)
    beside = cv2.fillPoly(page.copy(), [np.array([(0, 0), (24, 0), (end, 239), (0, 239)])], 40)
    beside, page = (np.rot90(image, turns).copy() for image in (beside, page))
    digit = normalise(beside)
    assert digit.max() > 200  # not as pale as it is beside a dark desk
    assert same_digit(digit, normalise(page), least=0.8)


def test_a_small_digit_on_a_ruled_page_beside_a_desk_and_a_neighbour_at_the_edge() -> None:
    page = np.full((240, 200), 210, np.uint8)
    page[110:170, 90:150] = draw_ring(60, width=4, ink=90, ground=210)
    page[::60] = 150
    ring = normalise(page)
    page[25:50, 185:] = 90
    page[:, :24] = 40
    assert same_digit(normalise(page), ring, least=0.8)


def test_a_digit_that_a_strip_reaches_is_not_cut() -> None:
    ink = np.zeros((64, 64), np.uint8)
    ink[:, :12] = 255
    cv2.line(ink, (10, 20), (40, 20), 255, 5)
    cv2.circle(ink, (35, 42), 12, 255, 4)
    assert find_panel(ink) is None


@pytest.mark.parametrize(("ink", "ground", "wall"), [(255, 60, 255), (20, 240, 60)])
def test_a_digit_on_a_disc_is_read(ink: int, ground: int, wall: int) -> None:
    disc = np.full((300, 300), wall, np.uint8)
    cv2.circle(disc, (150, 140), 100, ground, -1)
    cv2.ellipse(disc, (150, 140), (30, 50), 0, 0, 360, ink, 12)
    alone = np.full_like(disc, ground)
    cv2.ellipse(alone, (150, 140), (30, 50), 0, 0, 360, ink, 12)
    assert same_digit(normalise(disc), normalise(alone), least=0.9)


@pytest.mark.parametrize("panel", ["octagon", "oval", "sheet"])
def test_a_digit_on_any_convex_panel_is_read(panel: str) -> None:
    outlines = {
        "octagon": cv2.ellipse2Poly((150, 140), (110, 110), 22, 0, 360, 45),
        "oval": cv2.ellipse2Poly((150, 140), (95, 125), 10, 0, 360, 5),
        "sheet": np.array([[60, 40], [250, 50], [230, 250], [40, 240]]),
    }
    strokes = np.array([[115, 100], [185, 100], [140, 190]])
    wall, alone = np.full((300, 300), 60, np.uint8), np.full((300, 300), 230, np.uint8)
    cv2.fillConvexPoly(wall, outlines[panel], 230)
    for picture in (wall, alone):
        cv2.polylines(picture, [strokes], False, 20, 12)
    assert same_digit(normalise(wall), normalise(alone), least=0.9)


@pytest.mark.parametrize("stroke", [10, 16, 22])
@pytest.mark.parametrize("tilt", [0, 30, 60])
@pytest.mark.parametrize("curl", [0, 1])
def test_a_thick_0_is_no_panel(stroke: int, tilt: int, curl: int) -> None:
    """Even if it is tilted, or its stroke goes on inside."""
    ink = np.zeros((RING_SIDE, RING_SIDE), np.uint8)
    cv2.ellipse(ink, (60, 60), (24, 34), tilt, 0, 360, 255, stroke)
    cv2.line(ink, (60, 30), (60, 30 + curl * 22), 255, 6)
    assert find_panel(ink) is None


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("above", "below"), [(40, 40), (15, 40), (60, 60), (25, 120), (300, 300)])
def test_a_digit_between_bars_is_read(above: int, below: int, turned: bool) -> None:
    paper = cv2.copyMakeBorder(draw_ring(width=6), 0, 0, 40, 40, cv2.BORDER_REPLICATE)
    picture = cv2.copyMakeBorder(paper, above, below, 0, 0, cv2.BORDER_CONSTANT)
    if turned:
        paper, picture = paper.T.copy(), picture.T.copy()
    assert same_digit(normalise(picture), normalise(paper), least=0.85)  # it is looked at closer


def test_what_is_around_is_seen_first() -> None:
    picture = hang(255 - draw_ring(width=12), 255, 40)
    names = [step.name for step in trace_steps(lambda side: picture)]
    assert names[:3] == ["grey", "extract_ink", "closer"]


@pytest.mark.parametrize(
    "strokes", [[(32, 16), (32, 48)], [(44, 20), (20, 44)], [(22, 18), (42, 18), (30, 46)]]
)
def test_a_stroke_on_a_disc_is_no_hole_of_a_0(strokes: list[tuple[int, int]]) -> None:
    ink = cv2.polylines(draw_disc((28, 28)), [np.array(strokes)], False, 0, 7)
    window = find_panel(ink)
    assert window is not None and window[0] > 0.1


def draw_block(width: int, height: int, holes: list[tuple[int, int, int, int]]) -> np.ndarray:
    ink = np.zeros((64, 64), np.uint8)
    ink[:height, :width] = 255
    for top, bottom, left, right in holes:
        ink[top:bottom, left:right] = 0
    return np.roll(ink, (4, 8), (0, 1))


def draw_disc(radii: tuple[int, int]) -> np.ndarray:
    return cv2.ellipse(np.zeros((64, 64), np.uint8), (32, 32), radii, 0, 0, 360, 255, -1)


@pytest.mark.parametrize(
    "ink",
    [
        draw_block(34, 56, [(10, 24, 10, 24), (34, 46, 10, 24)]),
        draw_block(36, 56, [(16, 40, 14, 22)]),
        draw_block(50, 50, []),
        draw_block(50, 50, [(20, 26, 20, 26)]),
        cv2.rectangle(np.zeros((64, 64), np.uint8), (6, 6), (58, 58), 255, 4),
        cv2.circle(np.full((64, 64), 255, np.uint8), (32, 32), 12, 0, -1),
        cv2.ellipse(draw_disc((25, 29)), (32, 32), (3, 12), 0, 0, 360, 0, -1),
        cv2.line(draw_disc((28, 28)), (32, 29), (32, 35), 0, 4),
        cv2.ellipse(draw_disc((28, 29)), (32, 32), (9, 13), 0, 0, 360, 0, -1),
        np.pad(draw_block(30, 48, [(8, 40, 12, 18)])[4:52], ((0, 0), (9, 9))),
        RING,
        np.zeros((64, 64), np.uint8),
        np.full((1, 1), 255, np.uint8),
    ],
    ids=[
        "8",
        "0",
        "empty",
        "with a dot",
        "frame",
        "all",
        "thick 0",
        "disc with a dot",
        "round 0",
        "0 as high as the image",
        "ring",
        "nothing",
        "a pixel",
    ],
)
def test_what_is_no_panel(ink: np.ndarray) -> None:
    assert find_panel(ink) is None


def test_a_line_with_a_bar_along_it_is_no_desk() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[:8] = 1
    assert measure_strip(mask) > 8
    mask[2:8, :20] = mask[2:8, 44:] = 0  # a line, and under it the bar of a 7
    assert measure_strip(mask) == 0
