"""What a number is written on: grain, security patterns, watermarks, stains and other textures."""

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from training.chance import Rng, pick
from training.synthetic.handwriting import Shape
from training.synthetic.scenes import (
    put,
)
from training.synthetic.sheets import choose_text, print_text

Layer = NDArray[np.float32]  # (height, width)
NOISE_SIDE = 1024  # px, of the noise from which all grain is cut
WAVE_STEPS = 256  # values of a wave in its table


@cache
def noise_tile() -> Layer:
    """Noise of deviation 1, (1024, 1024), always the same."""
    return np.random.default_rng(7).standard_normal((NOISE_SIDE, NOISE_SIDE), np.float32)


def cut_noise(height: int, width: int, rng: Rng) -> Layer:
    """Noise of deviation 1, cut from the tile at a random place."""
    top = rng.integers(NOISE_SIDE - height + 1)
    left = rng.integers(NOISE_SIDE - width + 1)
    part = noise_tile()[top : top + height, left : left + width]
    return part[:, ::-1] if rng.random() < 0.5 else part


def draw_clouds(height: int, width: int, scale: tuple[float, float], rng: Rng) -> Layer:
    """Smooth noise of deviation about 1, whose clouds have a height and width in px."""
    size = [max(2, round(n / by) + 1) for n, by in zip((height, width), scale, strict=True)]
    coarse = rng.standard_normal(size, np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def draw_waves(height: int, width: int, tall: float, rng: Rng) -> Layer:
    """Wavy lines or rosettes as on cheques and banknotes; `tall` is a digit's height in px."""
    pitch = max(2.5, tall * np.exp(rng.uniform(np.log(0.06), np.log(0.6))))
    y = np.arange(height, dtype=np.float32)[:, None]
    x = np.arange(width, dtype=np.float32)[None]
    if rng.random() < 0.3:  # a rosette
        dy, dx = y - rng.uniform(-0.2, 1.2) * height, x - rng.uniform(-0.2, 1.2) * width
        radius, angle = cv2.cartToPolar(dx + 0 * dy, dy + 0 * dx)
        petals, depth = int(rng.integers(3, 24)), rng.uniform(0.2, 3)
        phase = radius * np.float32(1 / pitch) + np.float32(depth) * np.sin(angle * petals)
    else:
        phase = y + np.float32(rng.normal(0, 0.3)) * x
        for _ in range(rng.integers(1, 4)):
            length = tall * np.exp(rng.uniform(np.log(0.3), np.log(8)))
            size = min(length, tall) * rng.uniform(0.05, 0.5)
            phase = phase + np.float32(size) * np.sin(x / length * 6.28 + rng.uniform(0, 6.28))
        if rng.random() < 0.3:  # each line has a phase of its own
            phase = phase + np.float32(0.3 * tall) * np.sin(y / tall * rng.uniform(0.5, 3))
        phase = phase / np.float32(pitch)
    share = rng.uniform(0.15, 0.6)  # this share of the pitch is inked
    wave = np.cos(np.linspace(0, 2 * np.pi, WAVE_STEPS, endpoint=False)) - np.cos(np.pi * share)
    table = np.clip(0.5 + wave * rng.uniform(0.8, 3), 0, 1).astype(np.float32)
    return np.asarray(table[(phase * WAVE_STEPS).astype(np.int32) & (WAVE_STEPS - 1)])


def draw_watermark(height: int, width: int, tall: float, rng: Rng) -> Layer:
    """Large faint text, once or in rows, or a large letter."""
    layer = np.zeros((height, width), np.uint8)
    text = print_text(choose_text(rng), tall * rng.uniform(0.8, 3), rng)
    if rng.random() < 0.5:
        put(layer, text, int(rng.uniform(-0.3, 0.7) * height), int(rng.uniform(-0.3, 0.5) * width))
    else:
        for top in np.arange(-rng.uniform(0, 1) * tall, height, 1.5 * text.shape[0]):
            for left in range(-int(rng.integers(text.shape[1])), width, text.shape[1] + 9):
                put(layer, text, int(top), left)
    return layer * np.float32(1 / 255)


def draw_squares(height: int, width: int, tall: float, rng: Rng) -> Layer:
    """A fine grid or rows of dots."""
    pitch = max(3, int(tall * rng.uniform(0.08, 0.6)))
    layer = np.zeros((height, width), np.float32)
    if rng.random() < 0.5:
        layer[:: int(rng.integers(3, 2 * pitch + 4)), ::pitch] = 1
    else:
        layer[::pitch] = layer[:, ::pitch] = 1
    return layer


def draw_cloth(height: int, width: int, tall: float, rng: Rng) -> Layer:
    """Clouds in several sizes, round or along one direction, as of skin, wood, cloth or stains."""
    stretch = np.exp(rng.normal(0, 0.2) if rng.random() < 0.6 else rng.uniform(-2, 2))
    layer = np.zeros((height, width), np.float32)
    scale, weight = tall * rng.uniform(1, 5), 1.0
    for _ in range(rng.integers(1, 5)):
        clouds = draw_clouds(height, width, (scale * stretch, scale / stretch), rng)
        layer += np.float32(0.25 * weight) * clouds
        scale, weight = scale * 0.4, weight * rng.uniform(0.4, 1)
    if rng.random() < 0.25:  # threads
        pitch = max(2, int(rng.integers(2, 6)))
        layer[::pitch] += np.float32(0.15)
        layer[:, ::pitch] += np.float32(0.15)
    return np.clip(0.5 + layer, 0, 1)


def draw_creases(height: int, width: int, tall: float, rng: Rng) -> Layer:
    """One to three soft straight lines, as of folds."""
    layer = np.zeros((height, width), np.uint8)
    for _ in range(rng.integers(1, 4)):
        ends = (rng.uniform(-0.2, 1.2, (2, 2)) * (width, height)).astype(int).tolist()
        cv2.line(layer, ends[0], ends[1], int(rng.integers(100, 256)), int(rng.integers(1, 4)))
    soft = cv2.GaussianBlur(layer, (0, 0), rng.uniform(0.5, 0.08 * tall + 0.6))
    return soft * np.float32(1 / 255)


def show_through(ink: Shape, rng: Rng) -> Layer:
    """The writing of the other side of the sheet: the same, mirrored, moved and blurred."""
    mirrored = np.roll(ink[::-1] if rng.random() < 0.3 else ink[:, ::-1], rng.integers(-9, 9), 0)
    soft = cv2.GaussianBlur(mirrored, (0, 0), rng.uniform(0.8, 2.5))
    return soft * np.float32(1 / 255)


PATTERNS = (
    *(draw_waves, draw_waves, draw_waves, draw_waves, draw_watermark, draw_squares),
    *(draw_cloth, draw_cloth, draw_creases),
)


def draw_pattern(ink: Shape, tall: float, rng: Rng) -> Layer | None:
    """What is faintly on the paper below the ink, 0..1; nothing on most papers."""
    kind = rng.random()
    if kind < 0.55:
        return None
    if kind < 0.6:
        return show_through(ink, rng) * np.float32(rng.uniform(0.1, 0.3))
    height, width = ink.shape
    pattern = pick(PATTERNS, rng)(height, width, tall, rng)
    if rng.random() < 0.2:
        pattern = np.maximum(pattern, draw_waves(height, width, tall, rng))
    strength = rng.uniform(0.08, 0.5) if rng.random() < 0.8 else rng.uniform(0.4, 0.8)
    return pattern * np.float32(strength)
