"""Drawn scenes from which the networks of whole numbers may learn in tests."""

import numpy as np

from digitq.worker.learning.number_examples import Scene


def draw_scene(digits: list[int]) -> Scene:
    """Black rectangles of 12×24 px in place of digits."""
    picture = np.full((60, 40 + 30 * len(digits)), 255, np.uint8)
    boxes = []
    for place in range(len(digits)):
        left = 20 + 30 * place
        picture[18:42, left : left + 12] = 0
        boxes.append((left, 18, left + 12, 42))
    found = np.array(boxes, np.float32).reshape(-1, 4)
    text = "".join(map(str, digits))
    return Scene(picture, digits, found, text, text, found, True, "")
