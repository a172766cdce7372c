"""Goes on training `number` with one's own numbers: `digitq train number --data SOURCE`.

The detector stays as it is, and cuts out the line of each number. The network of columns learns
these lines beside rendered ones. A fifth of the images is held back.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from protocol.chunk import Chunk, Kind, kind_of
from protocol.errors import UsageError
from protocol.settings import NUMBER
from training.epochs import EpochsRecipe, Learner, train
from training.number_trainer import Answers, calibrate_card, measure_gaps, read_scenes
from training.rendered import Scene, collect, start_rendering
from training.synthetic.rendering import start_processes
from training.trainer import make_writable, write_model
from worker.classify import as_file, read_image, read_images, watch
from worker.learning import column_batches
from worker.learning.column_batches import Rng, StripBatch
from worker.learning.own import check_enough, hold_back, report, report_failed
from worker.models.card import Card
from worker.models.column_network import Columns
from worker.models.number import NumberReader, make_reader, read_networks
from worker.sight.decoding.any_file import read_picture
from worker.sight.normalisation.colours import to_grey
from worker.sight.numbers.recognition import DECODED_SIDE, list_digits, look
from worker.sight.numbers.search import CLEAR
from worker.sight.types import Grey, ImageError

RECIPE = EpochsRecipe(epochs=4, scenes=750, learning_rate=3e-4, warm_up_steps=20, ema_decay=0.98)
OWN_SHARE = 0.5  # so many own numbers are learned for each rendered scene
CALIBRATING_SCENES = 400  # rendered scenes that calibrate, beside the own numbers held back
MAX_MISSED = 1  # the detector may see so many digits more or fewer than the number has


def read_own_numbers(chunks: Iterable[Chunk]) -> list[Scene]:
    """The pictures of chunks whose rows all have a truth, as scenes without boxes.

    Says which can't be read. Raises `UsageError` if too few can, or all have the same number.
    """
    scenes, failed = [], []
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
                scenes.append(Scene(picture, [], np.zeros((0, 4), np.float32), number, ""))
    report_failed(failed)
    check_enough([scene.number for scene in scenes], "number")
    return scenes


def place_digits(reader: NumberReader, scene: Scene) -> Scene | None:
    """The scene with the box of each digit; None if the detector sees another number of digits."""
    try:
        seen = look(reader, scene.picture)
    except ImageError:
        return None
    count = int((seen.line.chances >= CLEAR).sum())
    if abs(count - len(scene.number)) > MAX_MISSED:
        return None
    height, width = scene.picture.shape
    found = list_digits(seen, scene.number, (width, height), (width, height))
    boxes = np.array([digit[2:] for digit in found], np.float32)
    return scene._replace(signs=[digit.digit for digit in found], boxes=boxes)


def learn_columns(
    columns: Columns, own: Sequence[Scene], seed: int, recipe: EpochsRecipe
) -> Columns:
    """Train the network of columns with own scenes, which have boxes, beside rendered ones."""

    def make_batches(scenes: Sequence[Scene], rng: Rng) -> list[StripBatch]:
        chosen = rng.integers(len(own), size=round(OWN_SHARE * len(scenes)))
        return column_batches.make_batches([*scenes, *(own[row] for row in chosen.tolist())], rng)

    learner = Learner(columns, make_batches, column_batches.measure_losses, recipe, shown_epochs=3)
    train({"columns": learner}, recipe, seed)
    return learner.learned


def train_own_numbers(
    chunks: Iterable[Chunk], seed: int, epochs: int | None, out: Path, command: str
) -> Card | None:
    """Go on training the columns of `number`, and write `out/number.safetensors` and its card.

    If it then reads the images that are held back worse than before, nothing is written, and None
    is returned.
    """
    torch.set_num_threads(1)
    make_writable(out, NUMBER)
    network, before = read_networks()
    own = read_own_numbers(chunks)
    learned, held_back = (
        [own[row] for row in rows.tolist()]
        for rows in hold_back(np.array([scene.number for scene in own]), seed)
    )
    reader = make_reader(network)
    placed = [scene for scene in (place_digits(reader, scene) for scene in learned) if scene]
    if not placed:
        raise UsageError("in no image the detector sees as many digits as the right answer has")
    with start_processes() as pool:
        blocks = start_rendering(pool, True, (seed, 1), CALIBRATING_SCENES)
        rendered = [scene for scene in collect(blocks) if not scene.doubt]
    sets = (held_back, rendered)
    own_before, rendered_before = (measure(read_scenes(network, part)) for part in sets)
    recipe = RECIPE if epochs is None else replace(RECIPE, epochs=epochs)
    torch.manual_seed(seed)
    network.columns = learn_columns(network.columns, placed, seed, recipe)
    print("calibrating and testing …", file=sys.stderr)
    read = [read_scenes(network, part) for part in sets]
    both = Answers(*(torch.cat(parts) for parts in zip(*read, strict=True)))
    card = calibrate_card(before, both)
    card = replace(
        card,
        seed=seed,
        command=f"{before.command}; {command}",
        validation_accuracy=measure(both),
        test_accuracy=measure(read[1]),
        test_calibration_error=measure_gaps(card, both),
        own_images=len(own),
        own_accuracy_before=own_before,
        own_accuracy=measure(read[0]),
    )
    before = replace(before, test_accuracy=rendered_before)
    is_kept = report(before, card, len(held_back), f"{len(rendered)} rendered numbers")
    return write_model(out, card, network) if is_kept else None


def measure(answers: Answers) -> float:
    """The share of right answers."""
    return round(answers.is_right.double().mean().item(), 6)
