"""The curve of a model's card: what is wrong among the answers from a confidence on.

`python -m benchmarks.risks NAME HANDS... [--out DIR]` reads real hands that nobody trained with, in
folders whose form `training/hands.py` describes: `glyphs` for `mlp` and `cnn`, whole numbers for
`number`. It prints the curve of all sources together, and how each of them compares. With `--out`
it writes the model's card with this curve to a folder.

With `--second-reader`, `number` reads together with the second reader. Then the card gets the
lowest threshold for `review`, too, with which no more is wrong and not marked than without it.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.held_out import Read, judge, list_ways, read
from digitq.protocol.asked.risk import Curve, compare, measure_curve
from digitq.protocol.chunk import Chunk
from digitq.protocol.settings import NUMBER
from digitq.worker.classify import BY_CONFIDENCE, classify_chunk
from digitq.worker.models.card import card_path, read_card
from digitq.worker.models.second_reader import use_second_reader
from training.hands import list_sources

MAX_GLYPHS = 2000  # at most this many digits of a source count, or one source would decide
BATCH_IMAGES = 500  # images in a chunk
CURVE_SKIPS = ("halves_in",)  # the networks do not know fractions: see docs/numbers.md
SEED = 0
THRESHOLD_STEP = 1e-3  # thresholds are tried at this distance
MIN_SOURCE = 100  # a source with fewer images does not choose a threshold
RISKS = (0.05, 0.02, 0.01, 0.005, 0.0025)

Reads = dict[str, Read]  # by the name of the source


def wrong_from(one: Read, threshold: float) -> NDArray[np.bool_]:
    """Whether each answer is wrong that is not marked with this threshold."""
    return ~one.is_right[can_be_sure(one) & (one.confidence >= threshold)]


def can_be_sure(one: Read) -> NDArray[np.bool_]:
    """Whether each answer is marked by its confidence, if at all: (N,)."""
    return np.array([reason in (None, *BY_CONFIDENCE) for reason in one.reasons])


def read_glyphs(folders: Sequence[Path], model: str) -> Iterator[tuple[str, Read]]:
    """The single digits of each source."""
    for path in list_sources(folders, "glyphs/*.npz"):
        with np.load(path) as file:
            images, labels = file["image"], file["label"].tolist()
        rows, results = choose_rows(len(images)), list[dict[str, Any]]()
        for first in range(0, len(rows), BATCH_IMAGES):
            part = images[rows[first : first + BATCH_IMAGES]]
            files = [cv2.imencode(".png", image)[1].tobytes() for image in part]
            batch = pa.record_batch({"id": [""] * len(part), "image": files})
            results += classify_chunk(Chunk(0, batch), model).to_pylist()
        right = [one["label"] == labels[row] for one, row in zip(results, rows, strict=True)]
        yield path.stem, judge(right, results)


def read_strings(folders: Sequence[Path]) -> Iterator[tuple[str, Read]]:
    """The whole numbers of each source, for each way to read them.

    The ways take the pictures in turn: the same picture does not count twice.
    """
    for path in list_sources(folders, "*/*/labels.csv"):
        if path.parent.name in CURVE_SKIPS:
            continue
        ways = [way for way in list_ways(path) if way.name != "listed"]
        turns = {item.path: turn for turn, item in enumerate(ways[0].items)}
        for place, way in enumerate(ways):
            items = [item for item in way.items if turns[item.path] % len(ways) == place]
            yield f"{path.parent.name}, {way.name}", read(way, items)


def choose_rows(count: int) -> list[int]:
    """At most `MAX_GLYPHS` of so many images, drawn at random and always the same."""
    rows = np.random.default_rng(SEED).permutation(count)[:MAX_GLYPHS]
    return sorted(rows.tolist())


def share_marked(reads: Reads, threshold: float) -> float:
    """The share of all images that is marked with this threshold."""
    unmarked = sum(len(wrong_from(one, threshold)) for one in reads.values())
    return 1 - unmarked / sum(len(one.is_right) for one in reads.values())


def measure(reads: Reads) -> Curve:
    """Print the curve of all sources together."""
    sure = np.concatenate([one.confidence[can_be_sure(one)] for one in reads.values()])
    curve = measure_curve(sure, np.concatenate([wrong_from(one, 0) for one in reads.values()]))
    print(f"{'from':>10}{'at most':>9}{'measured':>10}{'marked':>9}")
    for threshold, most in curve:
        wrong = np.concatenate([wrong_from(one, threshold) for one in reads.values()])
        marked = share_marked(reads, threshold)
        print(f"{threshold:10.6f}{most:9.3%}{wrong.mean():10.3%}{marked:9.2%}")
    return curve


def compare_sources(reads: Reads, curve: Curve) -> None:
    """Print for each source how many times more answers are unsure than of all sources together,
    whether that is told, and what is wrong among those that are not marked at each risk."""
    print(f"{'times unsure':>12}{'told':>6}" + "".join(f"{share:8.2%}" for share in RISKS))
    for name, one in reads.items():
        likeness = compare(curve, one.confidence[can_be_sure(one)])
        times = likeness.unsure / max(1, likeness.compared) / likeness.usual
        wrong = ""
        for share in RISKS:
            lowest = next((threshold for threshold, most in curve if most <= share), None)
            wrong += f"{'':8}" if lowest is None else f"{wrong_from(one, lowest).mean():8.2%}"
        told = "yes" if likeness.is_harder else "no"
        print(f"{times:12.2f}{told:>6}{wrong}  {name}, {likeness.compared}")


def choose_threshold(alone: Reads, both: Reads, below: float) -> float:
    """The lowest threshold with which no more answers are wrong and not marked than those of the
    network `alone` below its own threshold. Each source counts the same, but for small ones."""
    threshold, most = 1.0, measure_unmarked_errors(alone, below)
    while measure_unmarked_errors(both, threshold - THRESHOLD_STEP) <= most:
        threshold = round(threshold - THRESHOLD_STEP, 4)
    return threshold


def measure_unmarked_errors(reads: Reads, threshold: float) -> float:
    """The share of answers that are wrong and not marked with this threshold: the mean over all
    sources but small ones."""
    counts: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for name, one in reads.items():
        counts[name.partition(",")[0]].append((wrong_from(one, threshold).sum(), len(one.is_right)))
    sums = [tuple(map(sum, zip(*parts, strict=True))) for parts in counts.values()]
    return mean(wrong / images for wrong, images in sums if images >= MIN_SOURCE)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.risks", description=__doc__)
    parser.add_argument("name", choices=["mlp", "cnn", NUMBER])
    parser.add_argument("hands", type=Path, nargs="+", metavar="HANDS")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the card")
    parser.add_argument("--second-reader", action="store_true", help="use the second reader")
    options = parser.parse_args()
    is_number = options.name == NUMBER
    card = read_card(card_path(options.name))

    def read_all(has_second: bool) -> Reads:
        with use_second_reader(has_second):
            if is_number:
                return dict(read_strings(options.hands))
            return dict(read_glyphs(options.hands, options.name))

    reads = read_all(options.second_reader)
    curve = measure(reads)
    compare_sources(reads, curve)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        if options.second_reader:
            below = choose_threshold(read_all(False), reads, card.review_below)
            second = {**card.second_reader, "review_below": below, "risks": curve}
            card = replace(card, second_reader=second)
        else:
            card = replace(card, risks=curve)
        card.write(options.out / f"{options.name}.json")


if __name__ == "__main__":
    main()
