"""Renders scenes of numbers in other processes, while a network learns."""

from concurrent.futures import Future, ProcessPoolExecutor
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from digitq.worker.dataset import load_mnist
from digitq.worker.learning.number_examples import Scene
from digitq.worker.learning.own_digits import VALIDATION_IMAGES
from digitq.worker.sight.decoding.pillow import prepare_libraries
from training.hands import load_glyphs, load_papers
from training.synthetic.number_scenes import render_number
from training.synthetic.writing import Scripts

BLOCK_SCENES = 250  # a process renders this many scenes at a time, from a seed of their own


Blocks = list["Future[list[Scene]]"]


@cache
def load_scripts(held_back: bool, hands: tuple[Path, ...]) -> Scripts:
    """MNIST's last training images and the writers that are held back, or all others."""
    images, labels = (tensor.numpy() for tensor in load_mnist("train"))
    part = slice(-VALIDATION_IMAGES, None) if held_back else slice(-VALIDATION_IMAGES)
    return Scripts(images[part], labels[part], load_glyphs(hands, held_back))


def render_scenes(
    held_back: bool, hands: tuple[Path, ...], seed: tuple[int, ...], count: int
) -> list[Scene]:
    """Render scenes of digits to learn from, or of those that are held back."""
    prepare_libraries()
    scripts, papers = load_scripts(held_back, hands), load_papers(hands)
    rng = np.random.default_rng(seed)
    scenes = []
    for _ in range(count):
        scene = render_number(scripts, rng, papers=papers)
        picture = scene.picture
        grey = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        signs = [*scene.digits, *scene.other_signs]
        boxes = np.concatenate([scene.boxes, scene.other_boxes])
        number = "".join(map(str, scene.digits))
        scenes.append(
            Scene(
                *(grey, signs, boxes, number, scene.text, scene.text_boxes),
                *(scene.knows_signs, scene.doubt),
            )
        )
    return scenes


def start_rendering(
    pool: ProcessPoolExecutor,
    held_back: bool,
    hands: tuple[Path, ...],
    seed: tuple[int, ...],
    count: int,
) -> Blocks:
    """Begin to render scenes in blocks, in other processes, with MNIST's digits and `hands`."""
    return [
        pool.submit(
            render_scenes, held_back, hands, (*seed, start), min(BLOCK_SCENES, count - start)
        )
        for start in range(0, count, BLOCK_SCENES)
    ]


def collect(blocks: Blocks) -> list[Scene]:
    """The scenes of blocks, once they are rendered."""
    return [scene for block in blocks for scene in block.result()]
