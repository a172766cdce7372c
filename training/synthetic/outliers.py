"""Draws shapes that are no digit: the networks learn ten equal probabilities for them."""

import cv2
import numpy as np

from training.chance import Rng
from training.synthetic.handwriting import SHAPE_SIDE, Shape, draw_letter, draw_strokes
from training.synthetic.scenes import (
    Kind,
    lay_out,
    put,
    resize,
    warp,
)


def letter(mask: Shape, other: Shape, rng: Rng) -> Shape:
    """A letter that looks like no digit."""
    return lay_out(warp(draw_letter(rng), rng), rng, SHAPE_SIDE, SHAPE_SIDE, 0.6, 1)


def scribble(mask: Shape, other: Shape, rng: Rng) -> Shape:
    """Two to five curves through random points."""
    strokes = [rng.uniform(0, 1, (rng.integers(2, 7), 2)) for _ in range(rng.integers(2, 6))]
    return draw_strokes(strokes, 1, 0, rng)


def several(mask: Shape, other: Shape, rng: Rng) -> Shape:
    """Two digits side by side, or one above the other."""
    first, second = resize(mask, SHAPE_SIDE), resize(other, SHAPE_SIDE * rng.uniform(0.7, 1.2))
    if rng.random() < 0.2:
        first, second = first.T, second.T
    height = max(len(first), len(second))
    gap = int(rng.integers(-4, 16))
    canvas = np.zeros((height, first.shape[1] + max(0, gap) + second.shape[1]), np.uint8)
    put(canvas, first, int(rng.integers(height - len(first) + 1)), 0)
    left = first.shape[1] + gap
    put(canvas, second, int(rng.integers(height - len(second) + 1)), left)
    return canvas


def filled(mask: Shape, other: Shape, rng: Rng) -> Shape:
    """One to three filled shapes, plain or patterned, like garments and other objects."""
    canvas = np.zeros((SHAPE_SIDE, SHAPE_SIDE), np.uint8)
    for _ in range(rng.integers(1, 4)):
        corners = int(rng.integers(3, 10))
        angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
        reach = rng.uniform(0.25, 1, (corners, 1)) * SHAPE_SIDE / 2 * rng.uniform(0.5, 1, 2)
        points = SHAPE_SIDE / 2 + reach * np.column_stack([np.cos(angles), np.sin(angles)])
        points += rng.normal(0, SHAPE_SIDE / 10, 2)
        if rng.random() < 0.5:  # the shape becomes symmetrical
            points = np.concatenate([points, (SHAPE_SIDE, 0) + points[::-1] * (-1, 1)])
        cv2.fillPoly(canvas, [points.astype(np.int32)], int(rng.integers(90, 256)), cv2.LINE_AA)
    if rng.random() < 0.6:
        canvas = (canvas * texture(mask, other, rng).astype(np.float32) / 255).astype(np.uint8)
    return canvas


def texture(mask: Shape, other: Shape, rng: Rng) -> Shape:
    """Fine or coarse noise, or stripes."""
    grain = int(rng.integers(3, 40))
    noise = rng.normal(0, 1, (grain, grain if rng.random() < 0.5 else 2)).astype(np.float32)
    noise = cv2.resize(noise, (SHAPE_SIDE, SHAPE_SIDE), interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.3:
        noise = np.where(noise > 0, 1, -1)
    low = rng.uniform(-3, -0.3)
    return (np.clip((noise - low) / (1 - low), 0, 1) * 255).astype(np.uint8)


NEGATIVES: tuple[Kind, ...] = (letter, scribble, several, filled, texture)
