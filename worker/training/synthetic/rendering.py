"""Renders the pictures that the networks learn from besides MNIST: of digits, and of no digit.

Each goes through the steps of `worker.normalisation` to 28×28, as a user's image does.
"""

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from threading import Thread

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from protocol.host.cores import usable_cores
from protocol.host.process import end_at_once
from worker.decoding.pillow import prepare_libraries
from worker.normalisation.steps import normalise
from worker.pictures import Grey, ImageError
from worker.training.synthetic.handwriting import SHAPE_SIDE
from worker.training.synthetic.outliers import NEGATIVES
from worker.training.synthetic.scenes import PICTURE_KINDS, Rng, draw_shape, enlarge, warp

Images = NDArray[np.uint8]  # (N, 28, 28)
Labels = NDArray[np.int64]  # (N,)
NO_DIGIT = -1  # the label of a picture without a digit
BLOCK_IMAGES = 1000  # are rendered by a process at a time, from a seed of their own


def render_digit(digit: Grey, label: int, other: Grey, rng: Rng) -> Grey:
    """Render a digit and normalise the picture to 28×28. Raises `ImageError`."""
    kinds = tuple(PICTURE_KINDS.values())
    kind = kinds[rng.integers(len(kinds))]
    picture = kind(draw_shape(digit, label, rng), warp(enlarge(other, rng), rng), rng)
    return normalise(picture)


def render_outlier(digit: Grey, other: Grey, rng: Rng) -> Grey:
    """Draw a shape that is no digit at 28×28, normalised as a digit is or only resized.

    Raises `ImageError`.
    """
    kind = NEGATIVES[rng.integers(len(NEGATIVES))]
    shape = kind(warp(enlarge(digit, rng), rng), warp(enlarge(other, rng), rng), rng)
    if rng.random() < 0.4:
        return cv2.resize(shape, (28, 28), interpolation=cv2.INTER_AREA)
    framed = np.pad(shape, SHAPE_SIDE // 10)
    return normalise(framed if rng.random() < 0.5 else 255 - framed)


def render_block(images: Images, labels: Labels, seed: int) -> tuple[Images, Labels]:
    """Render one picture of each digit, and one of no digit for every fifth."""
    prepare_libraries()
    rng = np.random.default_rng(seed)
    rendered: list[Grey] = []
    rendered_labels: list[int] = []
    for number, (digit, label) in enumerate(zip(images, labels, strict=True)):
        other = images[rng.integers(len(images))]
        for answer in (int(label), NO_DIGIT) if number % 5 == 0 else (int(label),):
            try:
                if answer == NO_DIGIT:
                    rendered.append(render_outlier(digit, other, rng))
                else:
                    rendered.append(render_digit(digit, answer, other, rng))
                rendered_labels.append(answer)
            except ImageError:
                pass  # the picture is too faint
    return np.stack(rendered), np.array(rendered_labels)


def start_processes() -> ProcessPoolExecutor:
    """Start a process for each core; they end with this one, even if it is killed."""
    return ProcessPoolExecutor(usable_cores(), get_context("spawn"), _end_with_parent)


def _end_with_parent() -> None:
    end_at_once()
    Thread(target=_await_parent, daemon=True).start()


def _await_parent() -> None:
    if parent := parent_process():
        parent.join()
        os._exit(1)


def render_set(images: Images, labels: Labels, seed: int, copies: int) -> tuple[Images, Labels]:
    """Render `copies` pictures of each digit on all cores, and a fifth as many without a digit.

    (N, 28, 28) and (N,) → about (1.2 N · copies, 28, 28) and as many labels.
    """
    starts = range(0, len(images), BLOCK_IMAGES)
    blocks = [slice(start, start + BLOCK_IMAGES) for start in starts] * copies
    seeds = [seed * 1_000_003 + number for number in range(len(blocks))]
    console = Console(stderr=True)
    with start_processes() as pool:
        digits, answers = ([of[block] for block in blocks] for of in (images, labels))
        done = pool.map(render_block, digits, answers, seeds)
        hidden = not console.is_terminal
        bar = track(done, "", len(blocks), console=console, transient=True, disable=hidden)
        parts = list(bar)
    rendered, rendered_labels = zip(*parts, strict=True)
    return np.concatenate(rendered), np.concatenate(rendered_labels)
