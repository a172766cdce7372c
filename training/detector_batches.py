"""What the detector learns from: scenes at random scales, in batches, with targets."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from digitq.worker.learning.column_batches import Rng, answer
from digitq.worker.learning.number_examples import Scene
from digitq.worker.models.number_networks import CELL, EDGES, MULTIPLE, SIZE_UNIT, divide
from digitq.worker.sight.numbers.finding import equalise, shrink_by_factor
from digitq.worker.sight.numbers.line_strip import Boxes

MAX_SIZE = (128, 352)  # px: a larger scene is cut to this height and width
BATCH_PIXELS = 400_000  # a batch has as many scenes as fit
DIGIT_HEIGHTS = (12, 42)  # px: the heights of digits at which the detector works
MIN_SEEN = 0.5  # a digit counts as background if less than this share of it can be seen
CLEARLY_SEEN = 0.85  # a digit's heat is learned if at least this share of it can be seen
BUMP, MIN_BUMP = 0.11, 2.2  # the heat's deviation is this share of the box, at least this in px
NEAR = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))  # cells that learn a digit and its edges
PADDING = 8  # px: rounding up to a multiple of 16 adds about this much to a side


class Batch(NamedTuple):
    images: Tensor  # (N, 1, H, W)
    heat: Tensor  # (N, h, w): 1 in the middle of a digit, and less beside it
    weight: Tensor  # (N, h, w): 0 where nothing is learned of the heat
    places: Tensor  # (M, 3): picture, row and column of the cell of each digit
    signs: Tensor  # (M,)
    edges: Tensor  # (M, 4)


class Sample(NamedTuple):
    values: NDArray[np.float32]  # (height, width): a scene at a random scale, normalised
    boxes: Boxes  # what can be seen of each digit
    seen: NDArray[np.float32]  # the share of each digit that can be seen
    signs: list[int]


def draw_sample(scene: Scene, rng: Rng) -> Sample:
    """A scene at a random scale, in random light, and cut to `MAX_SIZE`."""
    picture, boxes = scene.picture, scene.boxes
    heights = boxes[:, 3] - boxes[:, 1]
    if len(heights):
        scale = np.exp(rng.uniform(*np.log(DIGIT_HEIGHTS))) / np.median(heights)
        if rng.random() < 0.9:  # mostly the whole number can be seen
            for edges, room in ((boxes[:, ::2], MAX_SIZE[1]), (boxes[:, 1::2], MAX_SIZE[0])):
                scale = min(scale, 0.97 * room / (edges.max() - edges.min()))
    else:
        scale = np.exp(rng.uniform(np.log(0.3), np.log(1.0)))
    scale = min(scale, 3.0)
    wide = scale * np.exp(rng.normal(0, 0.08))
    size = max(8, round(picture.shape[1] * wide)), max(8, round(picture.shape[0] * scale))
    coarse, factor = shrink_by_factor(picture, scale)
    small = cv2.resize(coarse, size)
    moved = boxes * (np.array(size * 2, np.float32) / np.array(coarse.shape[1::-1] * 2) / factor)
    left = choose_start(size[0], MAX_SIZE[1], moved[:, ::2], rng)
    top = choose_start(size[1], MAX_SIZE[0], moved[:, 1::2], rng)
    small = small[top : top + MAX_SIZE[0], left : left + MAX_SIZE[1]]
    moved = (moved - (left, top, left, top)).astype(np.float32)
    cut = np.clip(moved, 0, np.array(small.shape[1::-1] * 2, np.float32))
    shares = (cut[:, 2:] - cut[:, :2]).prod(1) / (moved[:, 2:] - moved[:, :2]).prod(1)
    if rng.random() < 0.15:
        small = 255 - small
    if rng.random() < 0.3:
        gamma = np.exp(rng.normal(0, 0.35))
        small = (255 * (small / np.float32(255)) ** gamma).astype(np.uint8)
    values = equalise(small)
    if rng.random() < 0.3:
        values += rng.normal(0, rng.uniform(0, 0.25), values.shape).astype(np.float32)
    return Sample(values, cut, shares, scene.signs)


def choose_start(length: int, room: int, edges: Boxes, rng: Rng) -> int:
    """The first px of a part of at most `room` px; it shows all digits if they fit."""
    if length <= room:
        return 0
    low, high = 0, length - room
    if len(edges) and edges.max() - edges.min() <= room:
        low, high = max(low, int(edges.max()) - room), min(high, int(edges.min()))
    return int(rng.integers(min(low, high), max(low, high) + 1))


def make_batches(scenes: Sequence[Scene], rng: Rng) -> list[Batch]:
    """Samples of the scenes, with others of a similar size in each batch, in random order."""
    samples = [draw_sample(scene, rng) for scene in scenes]
    samples.sort(key=lambda sample: (sample.values.shape[0] // 16, sample.values.shape[1]))
    groups: list[list[Sample]] = [[]]
    largest = np.zeros(2, int)
    for sample in samples:
        largest = np.maximum(largest, sample.values.shape)
        if (len(groups[-1]) + 1) * np.prod(largest + PADDING) > BATCH_PIXELS:
            groups.append([])
            largest = np.array(sample.values.shape)
        groups[-1].append(sample)
    return [collate(groups[number], rng) for number in rng.permutation(len(groups))]


def collate(samples: Sequence[Sample], rng: Rng) -> Batch:
    """Samples at random places of canvases of one size, with their targets."""
    sizes: NDArray[np.int64] = np.array([sample.values.shape for sample in samples])
    size = -(-sizes.max(axis=0) // MULTIPLE) * MULTIPLE
    images = np.zeros((len(samples), 1, *size), np.float32)
    heat = np.zeros((len(samples), *size // CELL), np.float32)
    weight = np.ones_like(heat)
    places: list[tuple[int, int, int]] = []
    signs: list[int] = []
    edges: list[Boxes] = []
    for number, sample in enumerate(samples):
        top, left = rng.integers(0, size - sample.values.shape + 1).tolist()
        height, width = sample.values.shape
        images[number, 0, top : top + height, left : left + width] = sample.values
        boxes = sample.boxes + np.array((left, top, left, top), np.float32)
        for box, share, sign in zip(boxes, sample.seen, sample.signs, strict=True):
            if share < MIN_SEEN:
                continue
            row, column, bump = draw_bump(box, heat.shape[1:])
            if share < CLEARLY_SEEN:
                weight[number][bump > 0.05] = 0
                continue
            np.maximum(heat[number], bump, out=heat[number])
            for down, right in NEAR:
                y, x = row + down, column + right
                if 0 <= y < heat.shape[1] and 0 <= x < heat.shape[2]:
                    middle = (np.array((x, y), np.float32) + 0.5) * CELL
                    places.append((number, y, x))
                    signs.append(sign)
                    edges.append(np.concatenate([middle - box[:2], box[2:] - middle]))
    return Batch(
        torch.from_numpy(images),
        torch.from_numpy(heat),
        torch.from_numpy(weight),
        torch.tensor(places, dtype=torch.long).view(-1, 3),
        torch.tensor(signs, dtype=torch.long),
        torch.from_numpy(np.array(edges, np.float32).reshape(-1, EDGES)) / SIZE_UNIT,
    )


def draw_bump(box: Boxes, shape: tuple[int, ...]) -> tuple[int, int, NDArray[np.float32]]:
    """Row and column of the cell in the middle of a box, and the heat around it: 1 in that cell."""
    middle, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    column, row = (
        int(min(at // CELL, most - 1)) for at, most in zip(middle, shape[::-1], strict=True)
    )
    wide, tall = np.maximum(MIN_BUMP, BUMP * size) / CELL
    across = np.exp(-((np.arange(shape[1]) - column) ** 2) / (2 * wide**2))
    down = np.exp(-((np.arange(shape[0]) - row) ** 2) / (2 * tall**2))
    return row, column, (down[:, None] * across).astype(np.float32)


def measure_losses(network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """The focal loss of the heat (Law and Deng, 2018), and the losses of signs and edges."""
    maps = divide(answer(network, batch.images))
    exact = batch.heat == 1
    log_yes, log_no = F.logsigmoid(maps.middle), F.logsigmoid(-maps.middle)
    yes = maps.middle.sigmoid()
    found = (1 - yes) ** 2 * log_yes * exact
    rest = (1 - batch.heat) ** 4 * yes**2 * log_no * ~exact
    count = exact.sum().clamp(min=1)
    heat = -((found + rest) * batch.weight).sum() / count
    picture, row, column = batch.places.unbind(1)
    cells = max(1, len(batch.signs))  # a batch may be without digits
    scores, found = maps.signs[picture, :, row, column], maps.edges[picture, :, row, column]
    signs = F.cross_entropy(scores, batch.signs, label_smoothing=0.02, reduction="sum") / cells
    edges = F.smooth_l1_loss(found, batch.edges, beta=0.2, reduction="sum") / (EDGES * cells)
    return heat, signs, edges
