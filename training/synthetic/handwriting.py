"""Draws digits stroke by stroke in styles that are rare in MNIST.

MNIST's writers were American: few of their ones have a flag, few of their sevens are crossed, and
few of their fours are open.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

SHAPE_SIDE = 112  # px: the side of the square in which a digit is drawn
GLYPH_SIDE = 80  # px: the side of the box in its middle that holds the control points
CURVE_POINTS = 12  # a curve has this many points from one control point to the next

Shape = NDArray[np.uint8]  # (height, width), ink 255 on 0
Points = NDArray[np.float64]  # (N, 2): x, y, where 0 is left or top, and 1 is right or bottom

# The glyphs of digits and letters. Strokes are separated by "/", and are control points x,y in
# hundredths; a point that is given twice makes a corner.
GLYPH_TABLE = """\
0  55,0 10,25 5,70 45,100 90,70 90,25 50,2
0  75,10 30,2 2,50 35,100 95,70 90,20 60,5 35,15
0  20,15 50,0 95,40 70,95 20,95 2,50 25,8
1  50,0 50,100
1  60,0 40,100
1  10,35 55,0 55,0 55,100
1  0,50 60,0 60,0 50,100
1  15,25 50,0 50,0 50,100 / 10,100 90,100
1  5,55 35,30 70,0 70,0 65,50 55,100
1  0,75 75,0 75,0 75,100
1  -10,60 40,30 80,0 80,0 60,100
1  0,90 30,45 80,0 80,0 85,100
1  -20,45 30,25 70,0 70,0 75,50 70,100
1  0,60 60,0 60,0 50,100 / 0,100 100,97
1  10,40 30,10 60,0 75,20 70,100
1  0,35 45,3 60,0 67,12 60,100
1  -10,50 35,15 65,0 75,12 65,60 55,100
1  0,60 50,0 50,0 85,100
1  -20,40 30,20 70,0 70,0 50,100
2  5,25 40,0 85,20 60,60 5,100 5,100 95,97
2  10,20 50,0 85,25 50,70 10,95 10,75 35,80 95,100
2  0,8 80,3 80,3 5,98 5,98 95,95
2  15,40 10,20 45,0 80,20 65,55 0,100 0,100 60,93 100,100
3  5,12 50,0 85,20 35,48 35,48 90,70 50,100 0,88
3  5,3 85,3 85,3 40,42 40,42 95,65 60,100 2,90
3  10,10 60,0 80,22 45,45 30,47 60,50 90,75 40,100 5,85
4  35,0 5,60 5,60 95,58 / 70,30 65,100
4  15,0 10,50 10,50 90,48 / 80,5 75,100
4  75,100 75,0 75,0 2,68 2,68 100,66
4  60,0 30,30 0,65 0,65 95,62 / 60,35 55,100
4  30,0 10,55 10,55 85,50 85,50 85,10 85,10 75,100
4  40,0 10,55 10,55 60,45 70,35 65,50 50,100
4  55,100 60,10 50,0 10,55 30,65 100,60
4  10,0 2,50 35,55 90,45 / 75,0 65,100
5  90,2 20,2 20,2 15,45 15,45 60,38 90,70 50,100 0,90
5  20,5 15,45 15,45 70,42 85,75 40,100 0,88 / 20,3 95,0
5  95,0 40,5 15,30 40,45 75,60 65,92 5,98
5  25,10 20,40 20,40 65,40 80,80 30,100 2,85 / 30,2 80,4
6  75,0 25,30 5,75 45,100 85,75 50,50 10,70
6  55,0 15,45 10,85 50,100 80,75 50,58 15,80
6  95,5 50,5 5,50 20,95 70,98 85,65 50,50 20,65
6  40,0 10,50 15,90 60,100 85,75 50,65 35,85
7  2,3 90,3 90,3 35,100
7  2,5 90,2 90,2 40,100 / 25,50 90,48
7  5,18 8,2 8,2 90,3 90,3 55,50 40,100 / 20,55 85,50
7  0,12 30,2 60,10 95,0 95,0 60,45 45,100
7  0,12 30,2 60,10 95,0 95,0 60,45 45,100 / 15,60 95,55
7  5,20 10,3 10,3 85,5 85,5 60,50 55,100
7  0,30 20,0 30,25 55,20 90,0 60,50 50,100 / 20,70 95,65
7  10,25 15,0 15,0 50,12 95,0 95,0 50,100 / 30,50 100,55
8  80,12 45,0 15,20 50,48 85,78 45,100 10,78 50,46 85,20 60,2
8  50,0 20,20 50,42 80,20 48,0 / 50,42 10,70 50,100 90,70 50,43
8  95,0 50,40 10,80 35,100 60,80 30,35 45,5 75,5 65,35
8  90,5 50,50 10,85 45,100 75,80 45,50 20,20 50,0 85,10
8  45,2 35,12 50,25 95,65 50,100 10,65 50,25 65,10 50,0
8  50,5 25,20 55,40 80,75 45,100 20,75 50,35 80,12 45,0
9  80,20 40,0 10,25 40,50 80,20 80,20 70,100
9  85,25 50,0 10,25 50,48 85,20 85,60 60,98 10,92
9  80,10 30,5 10,35 50,50 85,20 85,20 85,75 50,100 5,85
9  60,25 40,12 35,35 70,40 85,15 50,0 10,20 15,50 60,50 90,25 85,70 40,100 10,90
9  75,5 25,10 15,40 55,40 80,5 75,50 65,100
9  90,20 60,0 30,15 35,40 70,35 85,10 55,55 0,100
9  55,20 50,35 80,30 80,8 40,0 10,25 40,50 80,40 95,70 50,100 5,90
A  0,100 50,0 50,0 100,100 / 20,60 80,60
C  90,15 40,0 5,50 40,100 95,85
E  90,0 5,0 5,0 5,100 5,100 95,100 / 5,50 70,50
F  90,0 5,0 5,0 5,100 / 5,50 70,50
H  5,0 5,100 / 95,0 95,100 / 5,50 95,50
K  5,0 5,100 / 90,0 5,55 5,55 95,100
L  5,0 5,100 5,100 90,100
M  0,100 10,0 10,0 50,70 50,70 90,0 90,0 100,100
N  5,100 5,0 5,0 95,100 95,100 95,0
P  10,100 10,0 10,0 80,10 70,50 10,50
R  10,100 10,0 10,0 80,10 70,50 10,50 10,50 90,100
T  0,0 100,0 / 50,0 50,100
U  5,0 10,80 50,100 90,80 95,0
V  0,0 50,100 50,100 100,0
W  0,0 25,100 25,100 50,30 50,30 75,100 75,100 100,0
X  0,0 100,100 / 100,0 0,100
Y  0,0 50,50 50,50 100,0 / 50,50 50,100
m  0,100 0,30 / 0,50 30,30 50,50 50,100 / 50,50 80,30 100,50 100,100
"""
_ROWS = [line.split("  ") for line in GLYPH_TABLE.splitlines()]
GLYPHS = {digit: [strokes for sign, strokes in _ROWS if sign == str(digit)] for digit in range(10)}
LETTERS = [strokes for sign, strokes in _ROWS if sign.isalpha()]  # they look like no digit


def draw_digit(label: int, rng: np.random.Generator) -> Shape:
    """Draw a random glyph of a digit: (112, 112)."""
    return draw_glyph(GLYPHS[label], (0.3, 0.8) if label == 1 else (0.45, 1.0), rng)


def draw_letter(rng: np.random.Generator) -> Shape:
    """Draw a random one of `LETTERS`: (112, 112)."""
    return draw_glyph(LETTERS, (0.5, 1.0), rng)


def draw_glyph(glyphs: list[str], widths: tuple[float, float], rng: np.random.Generator) -> Shape:
    """Draw a random one of the glyphs, with each control point moved a little: (112, 112)."""
    strokes = [
        np.array([point.split(",") for point in stroke.split()], float) / 100
        for stroke in glyphs[rng.integers(len(glyphs))].split("/")
    ]
    return draw_strokes(strokes, rng.uniform(*widths), rng.uniform(0.01, 0.05), rng)


def draw_strokes(
    strokes: list[Points], width: float, loose: float, rng: np.random.Generator
) -> Shape:
    """Draw strokes of random thickness; width and noise (`loose`) are shares of the height."""
    mask = np.zeros((SHAPE_SIDE, SHAPE_SIDE), np.uint8)
    thickness = int(rng.integers(3, 15))
    for points in strokes:
        off = rng.normal(0, loose, points.shape)
        same = np.all(np.diff(points, axis=0) == 0, axis=1)
        off[1:][same] = off[:-1][same]  # a corner stays a corner
        moved = (points + off - 0.5) * (width, 1) * GLYPH_SIDE + SHAPE_SIDE / 2
        curve = np.round(smooth(moved) * 16).astype(np.int32)
        cv2.polylines(mask, [curve], False, 255, thickness, cv2.LINE_AA, 4)
    return mask


def smooth(points: Points) -> Points:
    """A Catmull-Rom curve through points, (N, 2) → (M, 2); two equal points make a corner."""
    padded = np.concatenate([points[:1], points, points[-1:]])
    t = np.linspace(0, 1, CURVE_POINTS, endpoint=False)[:, None]
    parts = []
    for before, start, end, after in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        out = (end - before) / 2 if np.any(start != before) else end - start
        into = (after - start) / 2 if np.any(end != after) else end - start
        parts.append(
            (2 * t**3 - 3 * t**2 + 1) * start
            + (t**3 - 2 * t**2 + t) * out
            + (3 * t**2 - 2 * t**3) * end
            + (t**3 - t**2) * into
        )
    return np.concatenate([*parts, points[-1:]])
