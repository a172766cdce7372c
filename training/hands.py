"""Real handwriting to learn from, in folders: single digits, whole numbers, and papers.

Such a folder has any of these; a SOURCE is a name:
- `glyphs/SOURCE.npz`: `image`, (N, 48, 48) uint8, bright ink on 0; `label`, (N,); `writer`, (N,)
- `strings/SOURCE/labels.csv` with columns `path`, `text` and `writer`, and the pictures
- `backgrounds/SOURCE/*.png`: paper without digits

A source of numbers none of whose texts has a sign is taken not to say which signs there are. The
last tenth of a source's writers, in the order of their names, is held back from training.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from digitq.protocol.asked.values import ALPHABET
from digitq.protocol.errors import UsageError
from digitq.worker.learning.number_examples import RealNumber
from digitq.worker.picture import Grey
from training.chance import Images, Labels, Rng, pick

HELD_BACK_SHARE = 10  # one writer in this many is held back
GLYPH_MARGIN = 4  # px: with it, digits fill as much of their squares as MNIST's
DIGITS = range(10)


@dataclass(frozen=True)
class Writers:
    """The digits of a source's writers."""

    source: str
    writers: list[list[Images]]  # for each writer, the images of each of the ten digits

    def choose_digits(self, rng: Rng) -> list[Images]:
        """One writer's images of each of the ten digits.

        Another writer of the source lends what is missing; there may be none.
        """
        own = pick(self.writers, rng)
        return [own[digit] if len(own[digit]) else self._lend(digit, rng) for digit in DIGITS]

    def _lend(self, digit: int, rng: Rng) -> Images:
        others = [writer[digit] for writer in self.writers if len(writer[digit])]
        return pick(others, rng) if others else self.writers[0][digit]


def choose_glyphs(
    sources: Sequence[Writers], count: int, rng: Rng
) -> tuple[Images, Labels, dict[str, float]]:
    """Draw glyphs, (count, 56, 56), and give their labels and the share of each source.

    Of a source with four times as many glyphs, twice as many are drawn.
    """
    parts = [
        (digit, images)
        for one in sources
        for own in one.writers
        for digit, images in enumerate(own)
    ]
    sizes = [sum(len(images) for own in one.writers for images in own) for one in sources]
    shares = np.sqrt(sizes) / np.sqrt(sizes).sum()
    rows = rng.choice(sum(sizes), count, p=np.repeat(shares / sizes, sizes))
    labels = np.repeat([digit for digit, _ in parts], [len(images) for _, images in parts])
    images = np.concatenate([images for _, images in parts])
    names = [one.source for one in sources]
    return images[rows], labels[rows], dict(zip(names, shares.tolist(), strict=True))


def split_writers(names: Sequence[str], held_back: bool) -> NDArray[np.bool_]:
    """Which rows are of writers that are held back, or of all others: (N,)."""
    writers = sorted(set(names))
    last = set(writers[len(writers) - len(writers) // HELD_BACK_SHARE :])
    return np.array([(name in last) is held_back for name in names], bool)


def list_sources(folders: Sequence[Path], pattern: str) -> list[Path]:
    return sorted(path for folder in folders for path in folder.glob(pattern))


@cache
def load_glyphs(folders: tuple[Path, ...], held_back: bool) -> list[Writers]:
    """The writers of each source; a source with one writer only is never held back."""
    sources = []
    for path in list_sources(folders, "glyphs/*.npz"):
        with np.load(path) as file:
            images, labels, names = file["image"], file["label"], file["writer"].tolist()
        images = np.pad(images, ((0, 0), (GLYPH_MARGIN,) * 2, (GLYPH_MARGIN,) * 2))
        kept = split_writers(names, held_back)
        rows = np.flatnonzero(kept)
        by_writer: dict[str, list[int]] = {}
        for row in rows.tolist():
            by_writer.setdefault(names[row], []).append(row)
        writers = [
            [images[[row for row in own if labels[row] == digit]] for digit in DIGITS]
            for own in by_writer.values()
        ]
        if writers:
            sources.append(Writers(path.stem, writers))
    return sources


@cache
def load_papers(folders: tuple[Path, ...]) -> list[Grey]:
    """Pictures of paper without digits."""
    return [read_grey(path) for path in list_sources(folders, "backgrounds/*/*.png")]


def load_numbers(folders: Sequence[Path], held_back: bool | None) -> Iterator[RealNumber]:
    """The numbers of writers that are held back, of all others, or of all for None.

    Raises `UsageError` for a file of labels that lacks a column.
    """
    for path in list_sources(folders, "strings/*/labels.csv"):
        with path.open(newline="", encoding="utf-8") as file:
            rows = [*csv.DictReader(file)]
        try:
            texts = ["".join(sign for sign in row["text"] if sign in ALPHABET) for row in rows]
            writers, names = ([row[key] for row in rows] for key in ("writer", "path"))
        except KeyError as error:
            raise UsageError(f"{path} has no column {error}") from None
        knows_signs = not all(text.isdecimal() for text in texts)
        kept = [True] * len(rows) if held_back is None else split_writers(writers, held_back)
        for name, text, is_kept in zip(names, texts, kept, strict=True):
            if is_kept and any(sign.isdecimal() for sign in text):
                yield RealNumber(read_grey(path.parent / name), text, knows_signs, path.parent.name)


def read_grey(path: Path) -> Grey:
    """The grey values of a picture. Raises `UsageError` if it can't be read."""
    picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if picture is None:
        raise UsageError(f"{path} can't be read as a picture")
    return np.asarray(picture, np.uint8)
