"""Turns the layers of a written sheet into a scan or a photo."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from digitq.worker.picture import Grey, Picture
from training.chance import Rng, pick
from training.synthetic.handwriting import Shape
from training.synthetic.papers import Layer, cut_noise, draw_clouds, draw_pattern
from training.synthetic.scenes import (
    compress,
    light_unevenly,
)

MIN_PEN_CONTRAST = 40  # grey values between paper and pen, before the light and the camera
MIN_LIGHT = 0.35  # share of full light in the darkest shadow
LIGHT_STEP = 4  # px: light is computed at every fourth pixel and enlarged


@dataclass(frozen=True)
class Colours:
    """Red, green and blue, or one grey value, of all that is on a sheet; 0..255."""

    paper: NDArray[np.float64]
    pattern: NDArray[np.float64]
    form: NDArray[np.float64]
    pen: NDArray[np.float64]

    @property
    def contrast(self) -> float:
        """Between paper and pen, in grey values."""
        return float(abs(self.pen.mean() - self.paper.mean()))


def choose_colours(rng: Rng) -> Colours:
    """Draw the colours of a sheet: dark ink on light paper, or chalk on a blackboard."""
    tinted = rng.random() < 0.4
    strong = 0.6 if rng.random() < 0.2 else 0.25  # the most light that a colour lacks
    brightness = rng.uniform(215, 255) if rng.random() < 0.4 else rng.uniform(110, 245)
    paper = brightness * (1 - rng.uniform(0, strong, 3) * tinted)
    faint = rng.random() < 0.12
    darkness = rng.uniform(0.4, 0.78) if faint else rng.uniform(0.02, 0.5)
    pen = paper * darkness
    if rng.random() < 0.35:  # a coloured pen
        pen = paper * np.clip(darkness + rng.uniform(-0.3, 0.4, 3), 0.02, 0.8)
        pen[rng.integers(3)] *= rng.uniform(0.1, 0.6)
    form = paper * rng.uniform(0.05, 0.8)
    if rng.random() < 0.3:
        form = paper * rng.uniform(0.2, 1, 3)
    pattern = paper * (rng.uniform(0, 0.9, 3) if rng.random() < 0.7 else rng.uniform(0, 0.9))
    colours = np.stack([paper, pattern, form, pen])
    if rng.random() < 0.08:  # chalk
        colours = 255 - colours
        colours[0] *= rng.uniform(0.4, 1.6)
    if Colours(*colours).contrast < MIN_PEN_CONTRAST:
        colours[3] = 250 if colours[0].mean() < 128 else 20
    return Colours(*(colours.mean(axis=1, keepdims=True) if rng.random() < 0.5 else colours))


def wear(ink: Shape, tall: float, rng: Rng) -> Layer:
    """Ink of 0..1 as it comes from a pencil, a dry pen, a wet one, or just as it was drawn."""
    height, width = ink.shape
    kind = rng.random()
    if kind < 0.08:  # it bleeds
        ink = cv2.GaussianBlur(ink, (0, 0), 0.03 * tall + 0.2)
        ink = cv2.convertScaleAbs(ink, alpha=rng.uniform(1.4, 2.4))
    soft = ink * np.float32(1 / 255)
    if 0.08 < kind < 0.2:  # a pencil, or chalk
        grain = cut_noise(height, width, rng)
        soft *= np.clip(grain * np.float32(rng.uniform(0.1, 0.5)) + np.float32(0.7), 0, 1)
    elif 0.2 < kind < 0.3:  # strokes with gaps
        size = max(2.0, tall * rng.uniform(0.05, 0.2))
        gaps = draw_clouds(height, width, (size, size), rng)
        soft *= np.clip((gaps + np.float32(rng.uniform(0.9, 2.2))) * 2, 0, 1)
    elif 0.3 < kind < 0.45:  # more ink here than there
        soft *= np.clip(draw_clouds(height, width, (tall, tall), rng) * 0.2 + 0.85, 0.3, 1)
    return soft


def lay_layers(
    ink: Shape, form: Shape, colours: Colours, tall: float, rng: Rng, paper: Grey | None = None
) -> Layer:
    """Paper, pattern, form and ink in colour or grey: (height, width, 3 or 1)."""
    layers = [(form * np.float32(1 / 255), colours.form), (wear(ink, tall, rng), colours.pen)]
    pattern = draw_pattern(ink, tall, rng) if paper is None else cover(paper, *ink.shape)
    if pattern is not None:  # less contrast than the ink has
        loudest = pattern.max() * np.abs(colours.pattern - colours.paper).mean()
        share = rng.uniform(0.05, 0.5) if rng.random() < 0.9 else 0.65
        pattern *= np.float32(min(1.0, share * colours.contrast / max(1.0, loudest)))
        layers.insert(0, (pattern, colours.pattern))
    planes = []
    for channel in range(len(colours.paper)):
        plane = np.full(ink.shape, colours.paper[channel], np.float32)
        for layer, colour in layers:
            plane += layer * (np.float32(colour[channel]) - plane)
        planes.append(plane)
    return cv2.merge(planes) if len(planes) > 1 else planes[0][..., None]


def cover(paper: Grey, height: int, width: int) -> Layer:
    """How dark a picture of paper is, 0..1, enlarged to at least this size and cut to it."""
    scale = max(height / paper.shape[0], width / paper.shape[1])
    size = [
        max(part, round(side * scale))
        for part, side in zip((width, height), paper.shape[::-1], strict=True)
    ]
    dark = 255 - cv2.resize(paper, size)[:height, :width].astype(np.float32)
    return np.clip((dark - dark.min()) / 255, 0, 1)


def take(
    ink: Shape,
    form: Shape,
    outside: Shape | None,
    tall: float,
    rng: Rng,
    paper: Grey | None = None,
) -> Picture:
    """Photograph or scan the layers of a sheet; where `outside` is 255, there is no paper.

    The sheet may look like a picture of `paper`.
    """
    if rng.random() < 0.08:
        return draw_on_screen(ink, form, rng)
    height, width = ink.shape
    colours = choose_colours(rng)
    image = lay_layers(ink, form, colours, tall, rng, paper)
    if outside is not None:
        dark = rng.uniform(0, 60) if rng.random() < 0.7 else rng.uniform(0, 255)
        cover = (outside * np.float32(1 / 255))[..., None]
        image += cover * (np.float32(dark) - image)
    if rng.random() < 0.35:
        image = _blur(image, tall, rng)
    elif rng.random() < 0.1:  # sharpened, with bright rims
        soft = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.8, 2.5)).reshape(image.shape)
        image += np.float32(rng.uniform(0.3, 1.5)) * (image - soft)
    loudest = min(10.0, 0.2 * colours.contrast)
    grain = cut_noise(height, width, rng) * np.float32(rng.uniform(0, 1) ** 2 * loudest)
    if rng.random() < 0.3:
        rough = draw_clouds(height, width, (3, 3), rng)
        grain = grain + rough * np.float32(rng.uniform(0, 0.6 * loudest))
    image += grain[..., None]
    if rng.random() < 0.12:
        return finish(_threshold(image, ink, float(colours.paper.mean()), rng), rng)
    image *= _light(height, width, rng)[..., None]
    if rng.random() < 0.1:  # little contrast
        image = image * np.float32(rng.uniform(0.45, 0.8)) + np.float32(rng.uniform(0, 70))
    picture: Picture = np.clip(image, 0, 255).astype(np.uint8)
    picture = picture if picture.shape[2] == 3 else picture[..., 0]
    if rng.random() < 0.15 and tall > 14:
        picture = _coarsen(picture, tall, rng)
    return finish(picture, rng)


def draw_on_screen(ink: Shape, form: Shape, rng: Rng) -> Picture:
    """Give a clean picture in black and white, as a drawing program or MNIST has it."""
    both = np.maximum(ink, (form * np.float32(rng.uniform(0.3, 1))).astype(np.uint8))
    if rng.random() < 0.3:
        both = np.where(both > 127, 255, 0).astype(np.uint8)
    picture = both if rng.random() < 0.45 else 255 - both
    if rng.random() < 0.3:
        colour = rng.uniform(0, 1, 3) if rng.random() < 0.5 else np.ones(3)
        picture = (picture[..., None] * colour).astype(np.uint8)
    return compress(picture, rng, 30) if rng.random() < 0.3 else picture


def _light(height: int, width: int, rng: Rng) -> Layer:
    strength = 0.12 if rng.random() < 0.6 else 0.45
    small = (height // LIGHT_STEP + 2, width // LIGHT_STEP + 2)
    light = light_unevenly(*small, strength, rng)
    kind = rng.random()
    if kind < 0.1:  # dark corners, or a glare
        y, x = (np.linspace(-1, 1, n, dtype=np.float32) - rng.normal(0, 0.3) for n in small)
        far = y[:, None] ** 2 + x[None] ** 2
        light = light * (1 - np.float32(rng.uniform(0.1, 0.5)) * np.minimum(far, 1.3))
        if kind < 0.03:
            light = light + np.float32(rng.uniform(0.1, 0.4)) * np.exp(-6 * far).astype(np.float32)
    light = np.maximum(light, np.float32(MIN_LIGHT))
    return cv2.resize(light, (width, height), interpolation=cv2.INTER_LINEAR)


def _blur(image: Layer, tall: float, rng: Rng) -> Layer:
    """Out of focus, or moved."""
    size = tall * rng.uniform(0.005, 0.055)
    if rng.random() < 0.7:
        soft = cv2.GaussianBlur(image, (0, 0), max(0.4, size))
    else:
        length = max(3, int(3 * size) | 1)
        kernel = np.zeros((length, length), np.float32)
        angle = rng.uniform(0, np.pi)
        reach = np.array([np.cos(angle), np.sin(angle)]) * (length // 2)
        ends = [tuple(int(v) for v in np.round(length // 2 + s * reach)) for s in (-1, 1)]
        cv2.line(kernel, ends[0], ends[1], 1)
        soft = cv2.filter2D(image, -1, kernel / kernel.sum())
    return soft.reshape(image.shape)


def finish(picture: Picture, rng: Rng) -> Picture:
    """What a program may do in the end: invert it, and save it as JPEG."""
    if rng.random() < 0.12:
        picture = 255 - picture
    return compress(picture, rng, 20) if rng.random() < 0.45 else picture


def _threshold(image: Layer, ink: Shape, paper: float, rng: Rng) -> Picture:
    """Black and white, as of a scanner: with ragged edges, and a few wrong pixels."""
    grey = image.mean(axis=2)
    inked = grey[ink > 128]
    pen = np.median(inked) if len(inked) else 0.3 * paper
    black = (grey - paper) / (pen - paper + 1e-3) > rng.uniform(0.35, 0.75)
    if rng.random() < 0.4:
        height, width = ink.shape
        black ^= cut_noise(height, width, rng) > rng.uniform(2.2, 3.2)
    return np.where(black, 0, 255).astype(np.uint8)


def _coarsen(picture: Picture, tall: float, rng: Rng) -> Picture:
    """Fewer pixels, with digits of 11 to 18 px, enlarged again to the same size."""
    height, width = picture.shape[:2]
    scale = min(1.0, rng.uniform(11, 18) / tall)
    size = (max(4, round(width * scale)), max(4, round(height * scale)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    if rng.random() < 0.4:
        small = compress(small, rng, 40)
    how = pick((cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST), rng)
    return cv2.resize(small, (width, height), interpolation=how)
