"""Shows a strip as other pens, papers, tables and cameras might show it."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from digitq.protocol.asked.values import DIGIT_SIGNS
from digitq.worker.learning.column_batches import LearnedStrip, Rng
from digitq.worker.models.number_networks import STRIDE

CELL_SHARE = 0.2  # this share of the strips is between the rules of a table's column
CUT_OFF_SHARE = 0.12  # this share of the strips lacks signs at one end
GREY_STEPS = (1, 1, 2, 3, 3, 7)  # one less than how many grey values a coarse picture has
INK_SHARES = (1.0, 1.0, 0.6, 0.35, 0.25)  # how much of a rule is ink: solid, dashed or dotted

Values = NDArray[np.float32]  # (height, W), those of a strip


def vary(strips: Sequence[LearnedStrip], rng: Rng) -> list[LearnedStrip]:
    """The strips, each a little changed.

    Some also show a part of another strip, as the row above or below.
    """
    return [vary_one(strip, strips[int(rng.integers(len(strips)))], rng) for strip in strips]


def vary_one(strip: LearnedStrip, other: LearnedStrip, rng: Rng) -> LearnedStrip:
    if 1 < len(strip.text) == len(strip.middles) and rng.random() < CUT_OFF_SHARE:
        strip = cut_off(strip, rng)
    height, width = strip.values.shape
    wide = max(2 * STRIDE, STRIDE * round(width * np.exp(rng.normal(0, 0.1)) / STRIDE))
    values, middles = cv2.resize(strip.values, (wide, height)), strip.middles * (wide / width)
    values = change_strokes(values, rng)
    values = add_table(values, middles, other.values, rng)
    values = change_greys(values, rng)
    return strip._replace(values=values, middles=middles)


def change_strokes(values: Values, rng: Rng) -> Values:
    """The strip as if another hand, pen or scanner had made it."""
    if rng.random() < 0.4:
        values = bend(values, rng)
    if rng.random() < 0.2:
        values = change_pen(values, rng)
    if rng.random() < 0.2:
        values = coarsen(values, rng)
    return values


def add_table(values: Values, middles: NDArray[np.float64], other: Values, rng: Rng) -> Values:
    """The strip as in a table, with a part of the row above or below, and with rules."""
    if rng.random() < 0.12:
        values = show_row(values, other, rng)
    is_cell = rng.random() < CELL_SHARE
    if is_cell:
        values = draw_sides(values, middles, rng)
    if rng.random() < (0.7 if is_cell else 0.15):
        values = draw_rule(values, rng)
    return values


def change_greys(values: Values, rng: Rng) -> Values:
    """The strip as light on dark, in another light, or with noise."""
    if rng.random() < 0.15:
        values = -values
    if rng.random() < 0.3:
        low, high = float(values.min()), float(values.max())
        values = normalise(((values - low) / (high - low + 1e-6)) ** np.exp(rng.normal(0, 0.35)))
    if rng.random() < 0.3:
        noise = rng.normal(0, rng.uniform(0, 0.25), values.shape)
        values = np.asarray(values + noise, np.float32)
    return values


def cut_off(strip: LearnedStrip, rng: Rng) -> LearnedStrip:
    """Leave out signs at one end, as if the edge of a cell were there, or its rule.

    A part of the last one that is left out may be seen: it is no digit of the number.
    """
    values, middles, text, _ = strip
    at = int(rng.integers(1, len(text)))
    first, second = middles[at - 1 : at + 1]
    is_left = rng.random() < 0.5
    share = rng.uniform(0.25, 0.6) if is_left else rng.uniform(0.4, 0.75)
    cut = STRIDE * round((first + share * (second - first)) / STRIDE)
    kept = np.s_[cut:] if is_left else np.s_[:cut]
    values, texts = values[:, kept].copy(), (text[at:] if is_left else text[:at])
    if not any(sign in DIGIT_SIGNS for sign in texts) or values.shape[1] < len(values) // 2:
        return strip
    if rng.random() < 0.4:
        wide, off = rng.integers(1, 4), rng.integers(0, 4)
        low, high = np.percentile(values, [5, 60])
        rule = np.s_[off : off + wide] if is_left else np.s_[-off - wide : -off or None]
        values[:, rule] = high + (low - high) * rng.uniform(0.4, 1)
    middles = middles[at:] - cut if is_left else middles[:at]
    return strip._replace(values=values, middles=middles, text=texts)


def bend(values: Values, rng: Rng) -> Values:
    """Slant the digits, and move their parts a little; their middles stay."""
    height, width = values.shape
    across, down = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height))
    slant = rng.normal(0, 0.12) * (down - height / 2)
    rough = rng.normal(0, rng.uniform(0, 0.025) * height, (2, 4, 2 + width * 4 // height))
    dx, dy = (cv2.resize(each.astype(np.float32), (width, height)) for each in rough)
    moved = (across + dx + slant).astype(np.float32), (down + dy).astype(np.float32)
    bent = cv2.remap(values, *moved, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(bent, np.float32)


def change_pen(values: Values, rng: Rng) -> Values:
    """Make the dark strokes thicker or thinner, by up to a pixel."""
    change = cv2.erode if rng.random() < 0.5 else cv2.dilate
    share = rng.uniform(0.3, 1)
    changed = (1 - share) * values + share * change(values, np.ones((2, 2), np.uint8))
    return np.asarray(changed, np.float32)


def coarsen(values: Values, rng: Rng) -> Values:
    """Lose detail, as in a small picture, or in one with few grey values."""
    height, width = values.shape
    factor = rng.uniform(1, 2.5)
    size = max(4, round(width / factor)), max(8, round(height / factor))
    values = cv2.resize(values, size, interpolation=cv2.INTER_AREA)
    if rng.random() < 0.4:
        lowest = values.min()
        step = (values.max() - lowest) / rng.choice(GREY_STEPS) + 1e-6
        values = np.round((values - lowest) / step) * step
        values = normalise(values)
    near = cv2.INTER_LINEAR if rng.random() < 0.7 else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(values, (width, height), interpolation=near), np.float32)


def show_row(values: Values, other: Values, rng: Rng) -> Values:
    """Show the feet or the heads of another strip's digits at the upper or the lower edge."""
    height, width = values.shape
    deep = round(rng.uniform(0.22, 0.45) * height)
    row = np.tile(other, 1 + width // other.shape[1])
    start = int(rng.integers(row.shape[1] - width + 1))
    is_above = rng.random() < 0.6
    at, part = (np.s_[:deep], np.s_[-deep:]) if is_above else (np.s_[-deep:], np.s_[:deep])
    values = values.copy()
    values[at] = np.minimum(values[at], row[part, start : start + width])
    return values


def draw_sides(values: Values, middles: NDArray[np.float64], rng: Rng) -> Values:
    """Draw the rules of a table's column, mostly darker than ink, beside or on the outer signs.

    Beyond a rule, the strip may repeat the column at the rule, as it does beyond a picture's edge.
    """
    height, width = values.shape
    values = values.copy()
    low, high = np.percentile(values, [2, 70])
    dark = low - rng.uniform(-0.2, 2) * (high - low)
    ends = (middles[0], middles[-1]) if len(middles) else (0.3 * height, width - 0.3 * height)
    lean = rng.normal(0, 0.04) * height
    for end, side in zip(ends, (-1, 1), strict=True):
        if rng.random() < 0.2:
            continue
        thick = int(rng.integers(1, 6))
        away = rng.uniform(0.18, 0.6) * height
        at = round(float(np.clip(end + side * away, 0, width - 1)))
        if rng.random() < 0.5:
            beyond = np.s_[:, : at + 1] if side < 0 else np.s_[:, at:]
            values[beyond] = values[:, at : at + 1] + rng.normal(0, 0.3)
        mask = np.zeros((height, width), np.float32)
        foot = round(at + lean + rng.normal(0, 0.01) * height)
        cv2.line(mask, (round(at - lean), 0), (foot, height - 1), 1.0, thick)
        mask = cv2.GaussianBlur(mask, (3, 3), rng.uniform(0.3, 1))
        values = np.minimum(values, values * (1 - mask) + dark * mask)
    return normalise(values)


def draw_rule(values: Values, rng: Rng) -> Values:
    """Draw a solid, dashed or dotted line along the strip, such as digits are written on."""
    height, width = values.shape
    thick = int(rng.integers(1, 3))
    at = rng.normal(0.78, 0.12) if rng.random() < 0.8 else rng.uniform(0, 1)
    top = int(np.clip(at * height, 0, height - thick))
    across = np.arange(width)
    period = rng.uniform(2, 10)
    is_drawn = (across + rng.uniform(0, period)) % period < rng.choice(INK_SHARES) * period
    low, high = np.percentile(values, [5, 60])
    dark = high + (low - high) * rng.uniform(0.25, 1)
    values = values.copy()
    tops = np.clip(top + np.round(rng.normal(0, 0.02) * (across - width / 2)), 0, height - thick)
    for down in range(thick):
        rows = (tops + down).astype(int)[is_drawn]
        columns = across[is_drawn]
        values[rows, columns] = np.minimum(values[rows, columns], dark)
    return values


def normalise(values: NDArray[Any]) -> Values:
    """The values with a mean of 0 and a standard deviation of 1."""
    return np.asarray((values - values.mean()) / (values.std() + 1e-3), np.float32)
