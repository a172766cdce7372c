"""More digits for whole numbers, and the marks that people write near them.

The rows are written as in `handwriting.GLYPH_TABLE`, whose own list trains other networks.
"""

from functools import cache

import numpy as np

from training.synthetic.handwriting import GLYPHS, Points, smooth

# Of old registers, of pens that are not lifted, and a few that other countries teach.
DIGIT_TABLE = """\
0  50,0 5,40 20,95 70,95 95,50 70,5 45,0
0  50,0 5,45 35,100 90,70 80,10 45,2 60,15 110,5
0  70,10 40,0 5,50 35,100 80,85 95,30 60,0 30,5
0  45,0 10,30 15,80 50,100 85,75 85,25 55,5 35,10
1  50,0 50,100
1  60,0 40,100
1  45,0 55,100
1  20,20 55,0 55,0 45,100
1  70,0 30,100 / 10,100 60,98
2  10,30 30,0 80,10 70,50 20,90 5,80 30,75 60,98 105,85
2  5,15 50,0 85,20 50,70 5,100 5,100 100,100
2  0,25 30,0 75,15 50,60 0,100 0,100 50,90 90,105
3  15,15 55,0 75,25 35,42 35,42 85,55 80,90 30,105 5,85
3  5,0 90,0 90,0 40,35 40,35 95,60 70,100 5,95
3  10,5 70,0 60,35 25,45 25,45 75,50 70,95 0,110
4  65,0 5,70 5,70 100,65 / 75,40 70,100
4  25,0 5,50 5,50 90,45 / 85,15 60,120
4  20,0 15,50 15,50 85,45 / 90,0 80,110
5  30,0 20,45 60,40 85,70 45,105 0,90 / 30,0 100,-5
5  85,0 25,5 25,5 15,45 60,42 75,75 35,100 0,92
5  25,5 15,40 50,35 80,60 50,100 5,95 / 25,5 50,10 95,-5
6  80,-10 30,30 10,75 45,100 80,75 50,55 15,75
6  60,0 20,40 5,80 40,100 75,85 60,60 10,75
7  0,10 0,0 0,0 95,0 95,0 40,100
7  0,5 90,0 90,0 30,60 15,115
7  0,0 95,0 95,0 95,0 50,100 / 35,45 90,55
8  75,15 40,0 20,20 75,70 50,100 15,80 80,25 70,5 50,0
8  70,5 30,5 25,30 75,65 60,100 20,95 30,60 80,30 70,0
9  85,25 45,0 10,25 40,50 80,25 85,20 70,80 30,120
9  80,5 30,0 10,30 45,45 80,10 80,10 75,100
9  75,20 40,0 10,20 35,45 75,15 80,10 60,110
"""
# Written along printed guides that look like an 8 of seven bars.
ANGULAR_TABLE = """\
0  5,0 95,0 95,0 95,100 95,100 5,100 5,100 5,0
1  95,0 95,100
2  0,0 95,0 95,0 95,50 95,50 5,50 5,50 5,100 5,100 95,100
3  0,0 90,0 90,0 90,100 90,100 0,100 / 20,50 90,50
4  5,0 5,50 5,50 95,50 / 95,0 95,100
5  95,0 5,0 5,0 5,50 5,50 95,50 95,50 95,100 95,100 5,100
6  90,0 5,0 5,0 5,100 5,100 95,100 95,100 95,50 95,50 5,50
7  0,0 95,0 95,0 95,100
8  5,0 95,0 95,0 95,100 95,100 5,100 5,100 5,0 / 5,50 95,50
9  95,50 5,50 5,50 5,0 5,0 95,0 95,0 95,100 95,100 5,100
"""
SLASHED_ZEROS = [f"{zero} / 95,5 5,95" for zero in GLYPHS[0]]
# Marks: name, height, width and the foot's depth below the baseline in heights of a
# digit, and strokes.
MARK_TABLE = """\
comma 0.25 0.12 0.15  60,0 60,40 10,100
point 0.06 0.06 0.0  40,40 60,60
apostrophe 0.25 0.1 -0.75  70,0 30,100
dash 0.06 0.5 -0.4  0,50 100,45
slash 1.1 0.4 0.1  100,0 0,100
steep 1.15 0.2 0.1  100,0 0,100
joined 1.1 0.8 0.1  50,0 0,100 / 10,60 100,55
plus 0.5 0.5 -0.2  50,0 50,100 / 0,50 100,50
equals 0.22 0.6 -0.35  0,15 100,10 / 0,90 100,85
star 0.5 0.45 -0.3  50,0 50,100 / 5,25 95,75 / 95,25 5,75
dollar 1.2 0.6 0.1  90,15 40,5 15,30 85,65 60,95 5,85 / 55,-15 45,115
tipped 1.2 0.6 0.1  95,15 45,2 12,25 80,70 60,97 5,85 / 55,-15 53,5 / 50,95 48,115
slanted 1.2 0.65 0.1  90,20 50,5 15,30 80,65 50,95 0,80 / 75,-15 25,115
bars 1.2 0.7 0.1  95,20 60,0 10,10 15,40 85,60 90,90 40,100 0,80 / 35,-12 35,112 / 65,-12 65,112
euro 1.0 0.7 0.0  95,10 45,0 15,50 45,100 95,90 / -5,40 70,38 / -5,60 65,58
pound 1.0 0.7 0.0  95,15 60,0 40,40 30,90 0,100 0,100 95,98 / 10,55 75,53
hash 0.9 0.8 0.0  35,0 20,100 / 75,0 60,100 / 5,35 100,30 / 0,70 95,65
colon 0.45 0.06 -0.1  45,0 55,5 / 45,95 55,100
open 1.2 0.25 0.15  80,0 20,30 20,70 80,100
close 1.2 0.25 0.15  20,0 80,30 80,70 20,100
percent 0.9 0.8 0.0  90,0 10,100 / 20,0 5,15 20,30 30,15 20,0 / 80,70 70,85 80,100 95,85 80,70
tick 0.8 0.7 0.0  0,60 30,100 30,100 110,0
cross 0.8 0.7 0.0  0,0 100,100 / 100,0 0,100
root 1.15 0.8 0.05  0,60 15,50 35,100 35,100 60,0 100,0
wave 0.15 0.6 -0.4  0,60 25,30 50,60 75,70 100,40
long 0.1 2.5 -0.35  0,50 30,20 60,70 100,50
"""


def _read(table: str) -> dict[int, list[str]]:
    rows = [line.split("  ") for line in table.splitlines()]
    return {digit: [row for sign, row in rows if sign == str(digit)] for digit in range(10)}


ROUND_DIGITS = {digit: GLYPHS[digit] + more for digit, more in _read(DIGIT_TABLE).items()}
ANGULAR_DIGITS = _read(ANGULAR_TABLE)
_MARKS = [line.split("  ") for line in MARK_TABLE.splitlines()]
MARKS = {head.split()[0]: strokes for head, strokes in _MARKS}
UNCLEAR = "?"  # it may be taken for a sign that is read, or be passed over
MARK_TEXTS = {  # those that are read; all others are passed over
    **{"comma": ",", "point": ".", "dash": "-", "plus": "+", "colon": ":", "percent": "%"},
    **{"slash": "/", "steep": "/"},
    **dict.fromkeys(("joined", "long", "wave"), UNCLEAR),
}
MARK_SIZES = {head.split()[0]: tuple(map(float, head.split()[1:])) for head, _ in _MARKS}


# A half as some write it: its slash and its 2, or all of it, in one stroke
JOINED_HALVES = (
    "35,0 5,100 5,100 30,55 55,50 60,70 40,95 40,95 60,92 100,96",
    "10,2 5,42 / 60,0 15,100 15,100 50,55 75,48 82,62 58,96 58,96 100,92",
    "10,2 5,45 / 65,0 20,100 / 50,60 70,50 85,62 60,98 60,98 80,90 110,98",
    "55,0 10,62 10,62 60,52 40,100 40,100 70,92 100,100",
    "60,0 20,20 55,42 55,42 12,70 45,96 100,90",
    "50,0 20,25 45,45 25,62 55,100 95,92",
)


@cache
def glyph_basis(glyph: str) -> tuple[Points, list[Points]]:
    """A glyph's separate points, (N, 2), and for each stroke the curve's weights of them, (M, N).

    A curve is linear in its points as long as those that are given twice stay together.
    """
    points: list[list[float]] = []
    places: list[list[int]] = []
    for stroke in glyph.split("/"):
        pairs = [[float(v) / 100 for v in point.split(",")] for point in stroke.split()]
        places.append([])
        for before, pair in zip([None, *pairs], pairs, strict=False):
            if pair != before:
                points.append(pair)
            places[-1].append(len(points) - 1)
    return np.array(points), [smooth(np.eye(len(points))[place]) for place in places]
