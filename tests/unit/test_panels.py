"""A digit on a panel is read without what is around the panel."""

import cv2
import numpy as np
import pytest

from tests.drawing import RING, draw_ring, same_digit
from worker.images import normalise, trace_steps
from worker.panels import find_panel


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


@pytest.mark.parametrize("tilt", [0, -4, 8])
@pytest.mark.parametrize(("ink", "ground", "wall"), [(255, 0, 255), (20, 220, 90), (240, 60, 150)])
def test_a_digit_on_a_panel_is_read(ink: int, ground: int, wall: int, tilt: float) -> None:
    ring = cv2.resize(draw_ring(width=12, ink=ink, ground=ground), None, fx=2.5, fy=2.5)
    on_panel, alone = (normalise(hang(ring, around, 90, tilt)) for around in (wall, ground))
    assert same_digit(on_panel, alone, least=0.9)


def test_what_is_around_is_seen_first() -> None:
    picture = hang(255 - draw_ring(width=12), 255, 40)
    names = [step.name for step in trace_steps(lambda side: picture)]
    assert names[:5] == ["grey", "shrink", "separate ink", "closer", "shrink"]


def draw_block(width: int, height: int, holes: list[tuple[int, int, int, int]]) -> np.ndarray:
    ink = np.zeros((64, 64), np.uint8)
    ink[:height, :width] = 255
    for top, bottom, left, right in holes:
        ink[top:bottom, left:right] = 0
    return np.roll(ink, (4, 8), (0, 1))


@pytest.mark.parametrize(
    "ink",
    [
        draw_block(34, 56, [(10, 24, 10, 24), (34, 46, 10, 24)]),
        draw_block(36, 56, [(16, 40, 14, 22)]),
        draw_block(50, 50, []),
        draw_block(50, 50, [(20, 26, 20, 26)]),
        cv2.rectangle(np.zeros((64, 64), np.uint8), (6, 6), (58, 58), 255, 4),
        cv2.circle(np.full((64, 64), 255, np.uint8), (32, 32), 12, 0, -1),
        cv2.circle(
            cv2.circle(np.zeros((64, 64), np.uint8), (32, 32), 28, 255, -1), (32, 32), 9, 0, 4
        ),
        RING,
        np.zeros((64, 64), np.uint8),
        np.full((1, 1), 255, np.uint8),
    ],
    ids=["8", "0", "empty", "with a dot", "frame", "all", "disc", "ring", "nothing", "a pixel"],
)
def test_what_is_no_panel(ink: np.ndarray) -> None:
    assert find_panel(ink) is None
