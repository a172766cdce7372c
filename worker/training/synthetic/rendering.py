"""Pictures of digits, and of what is none, at 28×28: what the networks learn from beside MNIST.

Each has gone through the steps of `worker.normalisation`, as a person's image does.
"""

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from threading import Thread

import cv2
import numpy as np
from numpy.typing import NDArray

from protocol.host.cores import usable_cores
from protocol.host.process import end_at_once
from worker.normalisation.steps import normalise
from worker.pictures import ImageError
from worker.training.synthetic.handwriting import SIDE
from worker.training.synthetic.outliers import NEGATIVES
from worker.training.synthetic.scenes import KINDS, Mask, Rng, draw_shape, enlarge, warp

Labels = NDArray[np.int64]  # (N,)
NO_DIGIT = -1  # the label of what is none


def render_digit(digit: Mask, label: int, other: Mask, rng: Rng) -> Mask:
    """A picture of a digit, as `worker.normalisation` brings it to 28×28. Raises `ImageError`."""
    kinds = tuple(KINDS.values())
    kind = kinds[rng.integers(len(kinds))]
    picture = kind(draw_shape(digit, label, rng), warp(enlarge(other, rng), rng), rng)
    return normalise(picture)


def render_outlier(digit: Mask, other: Mask, rng: Rng) -> Mask:
    """What is no digit, at 28×28: brought there as a digit is, or filling all of it."""
    kind = NEGATIVES[rng.integers(len(NEGATIVES))]
    shape = kind(warp(enlarge(digit, rng), rng), warp(enlarge(other, rng), rng), rng)
    if rng.random() < 0.4:
        return cv2.resize(shape, (28, 28), interpolation=cv2.INTER_AREA)
    framed = np.pad(shape, SIDE // 10)
    return normalise(framed if rng.random() < 0.5 else 255 - framed)


def render_block(images: Mask, labels: Labels, seed: int) -> tuple[Mask, Labels]:
    """One picture of each digit, and for every fifth what is none."""
    cv2.setNumThreads(1)
    rng = np.random.default_rng(seed)
    rendered: list[Mask] = []
    known: list[int] = []
    for place, (digit, label) in enumerate(zip(images, labels, strict=True)):
        other = images[rng.integers(len(images))]
        for answer in (int(label), NO_DIGIT) if place % 5 == 0 else (int(label),):
            try:
                if answer == NO_DIGIT:
                    rendered.append(render_outlier(digit, other, rng))
                else:
                    rendered.append(render_digit(digit, answer, other, rng))
                known.append(answer)
            except ImageError:
                pass  # too faint to be seen
    return np.stack(rendered), np.array(known)


def start_processes() -> ProcessPoolExecutor:
    """One for each core. They end with this one, however it ends; at Ctrl-C without a word."""
    return ProcessPoolExecutor(usable_cores(), get_context("spawn"), _end_with_parent)


def _end_with_parent() -> None:
    end_at_once()
    Thread(target=_await_parent, daemon=True).start()


def _await_parent() -> None:
    if parent := parent_process():
        parent.join()
        os._exit(1)


def render_set(images: Mask, labels: Labels, seed: int, copies: int) -> tuple[Mask, Labels]:
    """`copies` pictures of each digit at 28×28, and of things that are none, labelled `NO_DIGIT`.

    (N, 28, 28) and (N,) → about (1.2 N · copies, 28, 28) and as many labels. Uses all cores.
    """
    blocks = [slice(start, start + 1000) for start in range(0, len(images), 1000)] * copies
    seeds = [seed * 1_000_003 + number for number in range(len(blocks))]
    with start_processes() as pool:
        digits, answers = ([of[block] for block in blocks] for of in (images, labels))
        parts = list(pool.map(render_block, digits, answers, seeds))
    rendered, known = zip(*parts, strict=True)
    return np.concatenate(rendered), np.concatenate(known)
