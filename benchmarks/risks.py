"""How much of what is not marked is wrong, by the confidence from which answers are not marked.

`python -m benchmarks.risks NAME HANDS... [--out DIR]` reads real hands that nobody trained with, in
folders whose form `training/hands.py` describes: `glyphs` for `mlp` and `cnn`, whole numbers for
`number`. It prints for each source: images, right, marked `review`, and wrong among the unmarked
ones. Then it prints the curve of all sources together, and what `--risk` costs with it. With
`--out` it writes the model's card with this curve to a folder.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.held_out import list_ways, read
from protocol.chunk import Chunk, Reason, answers
from protocol.known import Known
from protocol.risk import find_threshold, measure_curve
from protocol.settings import NUMBER
from training.hands import list_sources
from worker.classify import classify_chunk
from worker.models.card import card_path, read_card

MAX_GLYPHS = 2000  # at most this many digits of a source count, or one source would decide
BATCH_IMAGES = 500  # images in a chunk
SHOWN_RISKS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05)
BY_CONFIDENCE: tuple[Reason, ...] = ("unsure", "unsure at first")  # the threshold decides
MIN_SHOWN = 50  # a source with fewer unmarked answers is no example
SEED = 0


class Read(NamedTuple):
    """The answers for a source."""

    source: str
    confidence: NDArray[np.float64]  # (N,); 0 if there is no answer
    is_right: NDArray[np.bool_]  # (N,)
    is_marked: NDArray[np.bool_]  # (N,): to review by the model's own threshold
    is_doubted: NDArray[np.bool_]  # (N,): to review however sure the model is

    def is_wrong_from(self, threshold: float) -> NDArray[np.bool_]:
        """Whether each answer is wrong that is not marked with this threshold."""
        return ~self.is_right[~self.is_doubted & (self.confidence >= threshold)]


def classify(
    images: Sequence[bytes], model: str, known: Known
) -> tuple[list[str | None], NDArray[np.float64], list[str | None]]:
    """The answer to each image, its confidence and its reason to review."""
    given: list[str | None] = []
    confidences: list[float] = []
    reasons: list[str | None] = []
    for first in range(0, len(images), BATCH_IMAGES):
        part = images[first : first + BATCH_IMAGES]
        batch = pa.record_batch({"id": [""] * len(part), "image": part})
        rows = classify_chunk(Chunk(0, batch), model, known=known)
        given += answers(rows).cast(pa.string()).to_pylist()
        confidences += rows.column("confidence").fill_null(0.0).to_pylist()
        reasons += rows.column("reason").to_pylist()
    return given, np.array(confidences, np.float64), reasons


def judge(
    source: str,
    right: Sequence[bool],
    confidence: NDArray[np.float64],
    reasons: Sequence[str | None],
) -> Read:
    is_doubted = np.array([reason not in (None, *BY_CONFIDENCE) for reason in reasons])
    is_marked = np.array([reason is not None for reason in reasons])
    return Read(source, confidence, np.array(right), is_marked, is_doubted)


def read_glyphs(folders: Sequence[Path], model: str) -> Iterator[Read]:
    """The single digits of each source."""
    for path in list_sources(folders, "glyphs/*.npz"):
        with np.load(path) as file:
            images, labels = file["image"], file["label"].tolist()
        rows = choose_rows(len(images))
        files = [cv2.imencode(".png", images[row])[1].tobytes() for row in rows]
        given, confidence, reasons = classify(files, model, Known())
        right = [answer == str(labels[row]) for answer, row in zip(given, rows, strict=True)]
        yield judge(path.stem, right, confidence, reasons)


def read_strings(folders: Sequence[Path]) -> Iterator[Read]:
    """The whole numbers of each source, for each way to read them.

    The ways take the pictures in turn: the same picture does not count twice.
    """
    for path in list_sources(folders, "*/*/labels.csv"):
        ways = [way for way in list_ways(path) if way.name != "listed"]
        turns = {item.path: turn for turn, item in enumerate(ways[0].items)}
        for place, way in enumerate(ways):
            items = [item for item in way.items if turns[item.path] % len(ways) == place]
            rows = [read(item, way.known(item)) for item in items]
            right = [
                row["number"] is not None and way.is_right(row["number"], item.truth)
                for row, item in zip(rows, items, strict=True)
            ]
            confidence = np.array([row["confidence"] or 0.0 for row in rows], np.float64)
            reasons = [row["reason"] for row in rows]
            yield judge(f"{path.parent.name}, {way.name}", right, confidence, reasons)


def choose_rows(count: int) -> list[int]:
    """At most `MAX_GLYPHS` of so many images, drawn at random and always the same."""
    rows = np.random.default_rng(SEED).permutation(count)[:MAX_GLYPHS]
    return sorted(rows.tolist())


def measure(reads: Sequence[Read], name: str, out: Path | None) -> None:
    """Print the figures of the sources and the curve, and write the card."""
    print(f"{'':34}{'images':>8}{'right':>9}{'marked':>9}{'wrong, unmarked':>17}")
    for one in reads:
        wrong = ~one.is_right[~one.is_marked]
        print(
            f"{one.source:34}{len(one.is_right):8,}{one.is_right.mean():9.2%}"
            f"{one.is_marked.mean():9.2%}{wrong.mean():17.2%}"
        )
    sure = np.concatenate([one.confidence[~one.is_doubted] for one in reads])
    curve = measure_curve(sure, np.concatenate([one.is_wrong_from(0.0) for one in reads]))
    print(f"\n{'from':>10}{'at most':>9}{'measured':>10}{'marked':>9}")
    count = sum(len(one.is_right) for one in reads)
    for threshold, most in curve:
        wrong = np.concatenate([one.is_wrong_from(threshold) for one in reads])
        marked = 1 - len(wrong) / count
        print(f"{threshold:10.6f}{most:9.3%}{wrong.mean():10.3%}{marked:9.2%}")
    print(f"\n{'risk':>8}{'from':>10}{'marked':>9}   worst source")
    for share in SHOWN_RISKS:
        if min(most for _, most in curve) > share:
            print(f"{share:8.2%}  can't be promised")
            continue
        threshold = find_threshold(curve, share, name)
        parts = {one.source: one.is_wrong_from(threshold) for one in reads}
        means = {name: one.mean() for name, one in parts.items() if len(one) >= MIN_SHOWN}
        worst = max(means, key=lambda source: means[source])
        marked = 1 - sum(map(len, parts.values())) / count
        print(f"{share:8.2%}{threshold:10.6f}{marked:9.2%}   {parts[worst].mean():.2%} of {worst}")
    if out:
        out.mkdir(parents=True, exist_ok=True)
        replace(read_card(card_path(name)), risks=curve).write(out / f"{name}.json")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.risks", description=__doc__)
    parser.add_argument("name", choices=["mlp", "cnn", NUMBER])
    parser.add_argument("hands", type=Path, nargs="+", metavar="HANDS")
    parser.add_argument("--skip", action="append", default=[], metavar="SOURCE")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the card")
    options = parser.parse_args()
    is_number = options.name == NUMBER
    reads = read_strings(options.hands) if is_number else read_glyphs(options.hands, options.name)
    kept = [one for one in reads if one.source.partition(",")[0] not in options.skip]
    measure(kept, options.name, options.out)


if __name__ == "__main__":
    main()
