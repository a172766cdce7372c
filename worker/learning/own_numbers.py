"""Goes on training `number` with one's own numbers: `digitq train number --data SOURCE`.

The detector stays as it is, and cuts out the line of each number. The network of columns learns
these lines beside rendered ones. A fifth of the images is held back.
"""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from protocol.chunk import Chunk, Kind, kind_of
from protocol.errors import UsageError
from protocol.host.cores import usable_cores
from protocol.settings import NUMBER
from worker.classify import as_file, read_image, read_images, watch
from worker.learning import column_batches
from worker.learning.column_batches import (
    LearnedStrip,
    Rng,
    StripBatch,
    batch_strips,
    cut_inexactly,
    vary,
)
from worker.learning.columns import Columns, fold
from worker.learning.epochs import EpochsRecipe, Learner
from worker.learning.number_calibration import (
    Answers,
    NumberPicture,
    calibrate_card,
    measure_gaps,
    measure_right,
    read_pictures,
)
from worker.learning.own import UNREADABLE, check_enough, hold_back, report, report_failed
from worker.learning.rehearsal import load_rehearsal
from worker.learning.stages import make_writable, write_model
from worker.models.card import Card
from worker.models.number import NumberReader, make_reader, read_number_weights, take_weights
from worker.sight.decoding.any_file import read_picture
from worker.sight.normalisation.colours import to_grey
from worker.sight.numbers.recognition import DECODED_SIDE, list_digits, look
from worker.sight.numbers.search import CLEAR
from worker.sight.types import Grey, ImageError

RECIPE = EpochsRecipe(epochs=4, learning_rate=5e-4, warm_up_steps=20, ema_decay=0.98)
OWN_SHARE = 0.5  # so many own numbers are learned for each rehearsed one
MAX_MISSED = 1  # the detector may see so many digits more or fewer than the number has
MISCOUNTED = "the detector misses two digits or more, or sees as many too many"


def read_own_numbers(chunks: Iterable[Chunk]) -> tuple[dict[str, NumberPicture], int]:
    """The pictures of chunks whose rows all have a truth, by their ids; and how many can't be read.

    Says which these are. Raises `UsageError` if too few can, or all have the same number.
    """
    pictures: dict[str, NumberPicture] = {}
    failed: list[str] = []
    for chunk in chunks:
        kind = kind_of(chunk.batch)

        def reader(content: bytes, kind: Kind = kind) -> Iterator[Grey]:
            yield to_grey(read_picture(as_file(content, kind), DECODED_SIDE))

        watch.forget()
        outcomes = read_images(chunk.batch, reader, read_image)
        truths = zip(
            *(chunk.batch.column(name).to_pylist() for name in ("id", "truth")), strict=True
        )
        for (picture, error), (id, number) in zip(outcomes, truths, strict=True):
            if picture is None:
                failed.append(f"{id} ({error})")
            else:
                pictures[id] = NumberPicture(picture, number)
    report_failed(failed, UNREADABLE)
    check_enough([picture.number for picture in pictures.values()], "number")
    return pictures, len(failed)


def place_digits(reader: NumberReader, own: NumberPicture) -> NumberPicture | None:
    """The picture with the box of each digit; None if the detector sees too few or too many."""
    try:
        seen = look(reader, own.picture)
    except ImageError:
        return None
    count = int((seen.line.chances >= CLEAR).sum())
    if abs(count - len(own.number)) > MAX_MISSED:
        return None
    height, width = own.picture.shape
    found = list_digits(seen, own.number, (width, height), (width, height))
    return own._replace(boxes=np.array([digit[2:] for digit in found], np.float32))


def learn_columns(
    columns: Columns,
    own: Sequence[NumberPicture],
    rehearsed: Sequence[LearnedStrip],
    seed: int,
    recipe: EpochsRecipe,
) -> Columns:
    """Train the network of columns with own pictures, which have boxes, beside rehearsed strips."""

    def make_batches(strips: Sequence[LearnedStrip], rng: Rng) -> list[StripBatch]:
        chosen = rng.integers(len(own), size=round(OWN_SHARE * len(strips)))
        cut = (
            cut_inexactly(picture, boxes, number, rng)
            for picture, number, boxes in (own[row] for row in chosen.tolist())
        )
        return batch_strips([vary(strip, rng) for strip in (*strips, *cut)], rng)

    optimiser = torch.optim.AdamW(
        columns.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
    )
    learner = Learner(columns, make_batches, column_batches.measure_losses, recipe, [optimiser])
    started = time.monotonic()
    for epoch in range(recipe.epochs):
        losses = learner.show(rehearsed, epoch, seed, usable_cores())
        seconds = time.monotonic() - started
        left = seconds / (epoch + 1) * (recipe.epochs - epoch - 1)
        print(
            f"epoch {epoch + 1}/{recipe.epochs}  loss {losses}  {seconds:.0f} s, {left:.0f} s left",
            file=sys.stderr,
        )
    torch.set_num_threads(1)
    return fold(learner.learned)


def train_own_numbers(
    chunks: Iterable[Chunk], seed: int, epochs: int | None, out: Path, command: str
) -> Card | None:
    """Go on training the columns of `number`, and write `out/number.safetensors` and its card.

    If it then reads the images that are held back no better than before, nothing is written, and
    None is returned.
    """
    torch.set_num_threads(1)
    make_writable(out, NUMBER)
    weights, before = read_number_weights()
    own, unreadable = read_own_numbers(chunks)
    ids = np.array([*own])
    learned_rows, held_back_rows = hold_back(np.array([one.number for one in own.values()]), seed)
    held_back = [own[id] for id in ids[held_back_rows].tolist()]
    reader = make_reader(weights)
    placed = {id: place_digits(reader, own[id]) for id in ids[learned_rows].tolist()}
    learned = [one for one in placed.values() if one]
    miscounted = [id for id, one in placed.items() if not one]
    report_failed(miscounted, MISCOUNTED)
    if not learned:
        raise UsageError("in no image the detector sees as many digits as the right answer has")
    rehearsal = load_rehearsal()
    sets = (held_back, rehearsal.pictures)
    own_before, rehearsed_before = (measure_right(read_pictures(reader, part)) for part in sets)
    recipe = RECIPE if epochs is None else replace(RECIPE, epochs=epochs)
    torch.manual_seed(seed)
    columns = fold(Columns())
    old = take_weights(weights, "columns")
    columns.load_state_dict({name: torch.from_numpy(value) for name, value in old.items()})
    columns = learn_columns(columns, learned, rehearsal.strips, seed, recipe)
    print("calibrating and testing …", file=sys.stderr)
    new = {f"columns.{name}": value.numpy() for name, value in columns.state_dict().items()}
    weights = weights | new
    read = [read_pictures(make_reader(weights), part) for part in sets]
    both = Answers(*(torch.cat(parts) for parts in zip(*read, strict=True)))
    card = calibrate_card(before, both)
    card = replace(
        card,
        seed=seed,
        command=f"{before.command}; {command}",
        validation_accuracy=measure_right(both),
        test_accuracy=measure_right(read[1]),
        test_calibration_error=measure_gaps(card, both),
        own_images=len(learned),
        own_held_back=len(held_back),
        own_left_out={
            why: count
            for why, count in ((UNREADABLE, unreadable), (MISCOUNTED, len(miscounted)))
            if count
        },
        own_accuracy_before=own_before,
        own_accuracy=measure_right(read[0]),
    )
    others = f"{len(rehearsal.pictures)} rendered numbers"
    if not report(before, card, (others, rehearsed_before, measure_right(read[1]))):
        return None
    return write_model(out, card, {name: torch.from_numpy(one) for name, one in weights.items()})
