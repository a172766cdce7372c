"""Renders pictures, of digits and of other shapes, from which the networks learn besides MNIST."""

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context, parent_process
from threading import Thread

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track

from digitq.protocol.host.cores import usable_cores
from digitq.protocol.host.process import end_at_once
from digitq.worker.picture import INPUT_SIDE, Grey, ImageError
from digitq.worker.sight.decoding.pillow import prepare_libraries
from digitq.worker.sight.normalisation.steps import normalise
from training.chance import Images, Labels, Rng
from training.synthetic.handwriting import SHAPE_SIDE
from training.synthetic.outliers import NEGATIVES
from training.synthetic.scenes import (
    PICTURE_KINDS,
    draw_shape,
    enlarge,
    warp,
)

Labelled = tuple[Images, Labels]
NO_DIGIT = -1  # the label of a picture without a digit
# Python's resource tracker removes what a killed process leaves, and need not warn of it
SILENT_TRACKER = "ignore:resource_tracker:UserWarning"
BLOCK_IMAGES = 1000  # a process renders this many at a time; each block has a seed of its own


def render_digit(digit: Grey, label: int, other: Grey, rng: Rng) -> Grey:
    """Render a digit, normalised to 28×28 as a user's image is. Raises `ImageError`."""
    kind = [*PICTURE_KINDS.values()][rng.integers(len(PICTURE_KINDS))]
    return normalise(kind(draw_shape(digit, label, rng), warp(enlarge(other, rng), rng), rng))


def normalise_glyphs(images: Images, labels: Labels) -> Labelled:
    """What a worker sees of glyphs that are dark ink on white paper.

    (N, side, side) and (N,) → at most (N, 28, 28), and as many labels.
    """
    prepare_libraries()
    seen: list[tuple[Grey, int]] = []
    for image, label in zip(images, labels.tolist(), strict=True):
        large = cv2.resize(image, (SHAPE_SIDE, SHAPE_SIDE), interpolation=cv2.INTER_CUBIC)
        with suppress(ImageError):
            seen.append((normalise(255 - large), label))
    pictures, answers = zip(*seen, strict=True)
    return np.stack(pictures), np.array(answers)


def render_outlier(digit: Grey, other: Grey, rng: Rng) -> Grey:
    """Draw a shape that is no digit, normalised or only resized. Raises `ImageError`."""
    kind = NEGATIVES[rng.integers(len(NEGATIVES))]
    shape = kind(warp(enlarge(digit, rng), rng), warp(enlarge(other, rng), rng), rng)
    if rng.random() < 0.4:
        return cv2.resize(shape, (INPUT_SIDE, INPUT_SIDE), interpolation=cv2.INTER_AREA)
    framed = np.pad(shape, SHAPE_SIDE // 10)
    return normalise(framed if rng.random() < 0.5 else 255 - framed)


def render_block(images: Images, labels: Labels, seed: int) -> Labelled:
    """Render a picture of each digit, and for every fifth one a picture without a digit."""
    prepare_libraries()
    rng = np.random.default_rng(seed)
    rendered: list[tuple[Grey, int]] = []
    for number, (digit, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        other = images[rng.integers(len(images))]
        with suppress(ImageError):  # a picture may be too faint to be read
            rendered.append((render_digit(digit, label, other, rng), label))
        if number % 5 == 0:
            with suppress(ImageError):
                rendered.append((render_outlier(digit, other, rng), NO_DIGIT))
    pictures, answers = zip(*rendered, strict=True)
    return np.stack(pictures), np.array(answers)


def join(parts: Sequence[Labelled]) -> Labelled:
    images, labels = zip(*parts, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def start_processes() -> ProcessPoolExecutor:
    """Start a process for each core, with a low priority; they end with this one, even if it is
    killed."""
    if SILENT_TRACKER not in sys.warnoptions:
        sys.warnoptions.append(SILENT_TRACKER)
    return ProcessPoolExecutor(usable_cores(), get_context("spawn"), _begin)


def _begin() -> None:
    os.nice(10)  # this one may train meanwhile
    end_at_once()
    Thread(target=_await_parent, daemon=True).start()


def _await_parent() -> None:
    if parent := parent_process():
        parent.join()
        os._exit(1)


def render_set(images: Images, labels: Labels, seed: int, copies: int) -> Labelled:
    """Render `copies` pictures of each digit on all cores, and a fifth as many without a digit.

    (N, side, side) and (N,) → about (1.2 N · copies, 28, 28) and as many labels.
    """
    starts = [*range(0, len(images), BLOCK_IMAGES)] * copies
    digits, answers = (
        [of[start : start + BLOCK_IMAGES] for start in starts] for of in (images, labels)
    )
    seeds = range(seed * 1_000_003, seed * 1_000_003 + len(starts))
    console = Console(stderr=True)
    hidden = not console.is_terminal
    with start_processes() as pool:
        done = pool.map(render_block, digits, answers, seeds)
        bar = track(done, "", len(starts), console=console, transient=True, disable=hidden)
        return join([*bar])
