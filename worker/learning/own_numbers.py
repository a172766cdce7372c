"""Goes on training `number` with one's own numbers.

The networks find the digits of each number. The detector stays as it is. The columns and the expert
learn the lines of the numbers beside rendered ones. The calibration stays as it is, too: some
dozen images held back would make it worse for other sheets.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import cycle
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import torch

from digitq.protocol.asked.form import Form
from digitq.protocol.asked.known import Known
from digitq.protocol.asked.values import Automaton, ValueSet, accepts, is_written, only_digits
from digitq.protocol.chunk import FILES_SCHEMA, NUMBER_TRUTH, Chunk, kind_of, name_fields
from digitq.protocol.errors import UsageError
from digitq.protocol.host.cores import usable_cores
from digitq.protocol.text import name_some, plural
from digitq.worker.classify import Outcome, as_file, read_image, read_images
from digitq.worker.learning.calibration import (
    Judged,
    NumberPicture,
    measure_calibration_error,
    measure_share,
)
from digitq.worker.learning.column_batches import (
    NumberRecipe,
    Rng,
    StripBatch,
    batch_strips,
    draw_batches,
    measure_losses,
)
from digitq.worker.learning.columns import Columns, Expert, fold
from digitq.worker.learning.learner import Learner
from digitq.worker.learning.number_examples import (
    PlacedNumber,
    RealNumber,
    Scene,
    cut_number,
    cut_strips,
    place_number,
)
from digitq.worker.learning.own import Compared, OwnImage, Trained, leave_out, read_own
from digitq.worker.learning.strip_variations import vary
from digitq.worker.models.card import Card
from digitq.worker.models.number_networks import (
    COLUMNS_SIZE,
    EXPERT_SIZE,
    NumberReader,
    StripSize,
    Weights,
    make_reader,
    read_number_weights,
    take_weights,
)
from digitq.worker.picture import Grey, ImageError
from digitq.worker.sight.decoding.any_file import read_picture
from digitq.worker.sight.decoding.scales import DECODED_SIDE
from digitq.worker.sight.forms.cutting import Cut
from digitq.worker.sight.forms.page_reading import trace_page
from digitq.worker.sight.normalisation.colours import to_grey
from digitq.worker.sight.numbers.recognition import find_readings

RECIPE = NumberRecipe(epochs=16, warm_up_steps=20, ema_decay=0.98)
COLUMNS_RATE, EXPERT_RATE = 5e-4, 1e-4  # with the columns' rate, the expert unlearns what it knows
OWN_SHARE = 0.5  # this many own numbers are learned for each rehearsed scene
MISCOUNTED = "the detector misses two digits or more, or sees as many too many"
Asked = tuple[NumberPicture, Known, bool]  # what is known of its number, and whether signs are
REHEARSAL_FILE = Path(__file__).parent / "rehearsal.arrow"


def load_rehearsal() -> tuple[list[Scene], list[Scene]]:
    """Rendered scenes to learn from, so that no network forgets them, and others to test with.

    They are in a file, which `python -m training rehearsal` made.
    """
    learned: list[Scene] = []
    held_back: list[Scene] = []
    with pa.ipc.open_file(REHEARSAL_FILE) as file:
        rows = file.read_all().to_pylist()
    for row in rows:
        part = held_back if row.pop("is_held_back") else learned
        content = np.frombuffer(row["picture"], np.uint8)
        row["picture"] = cv2.imdecode(content, cv2.IMREAD_GRAYSCALE)
        for name in ("boxes", "text_boxes"):
            row[name] = np.array(row[name], np.float32).reshape(-1, 4)
        part.append(Scene(**row))
    return learned, held_back


def read_own_pictures(batch: pa.RecordBatch) -> list[Outcome[Grey]]:
    """The picture in each image, or its error."""
    kind = kind_of(batch)

    def reader(content: bytes) -> Iterator[Grey]:
        yield to_grey(read_picture(as_file(content, kind), DECODED_SIDE))

    return read_images(batch, reader, read_image)


def cut_fields(chunk: Chunk, form: Form) -> Chunk:
    """The fields of pages that have a right number, as images. The first row of a page has its
    file."""
    kind, cells = kind_of(chunk.batch), form.cells

    def reader(content: bytes) -> Iterator[list[Cut | ImageError | None] | None]:
        return trace_page(as_file(content, kind), form)

    ids, truths = (pa.array(one).to_pylist() for one in (name_fields(chunk.batch), chunk.truth))
    pages = chunk.batch.take(pa.array(range(0, chunk.rows, len(cells))))
    rows, places = [], zip(ids, truths, cycle(cells), strict=False)
    for cuts, error in read_images(pages, reader, read_image):
        for cut in cuts or [None] * len(cells):
            id, truth, cell = next(places)
            if truth and is_written(truth) and not cell.known.options:
                image, why, values = None, "", cell.known.automaton
                digits = only_digits(truth)
                if isinstance(values, ValueSet) and not accepts(values.without_signs, digits):
                    why = f"the form does not allow {truth}"
                elif isinstance(cut, Cut):
                    image = cv2.imencode(".png", cut.picture)[1].tobytes()
                else:
                    why = error or str(cut or "its page has no such row")
                rows.append({"id": id, "image": image, "error": why or None, "truth": truth})
    batch = pa.RecordBatch.from_pylist(rows, FILES_SCHEMA)
    return Chunk(0, batch.drop_columns([NUMBER_TRUTH.name]), batch.column(NUMBER_TRUTH.name))


def mix_strips(
    own: Sequence[PlacedNumber], size: StripSize, scenes: Sequence[Scene], rng: Rng
) -> list[StripBatch]:
    """What a network of columns learns: lines of rehearsed scenes, and of own numbers."""
    chosen = rng.integers(len(own), size=round(OWN_SHARE * len(scenes)))
    numbers = (cut_number(own[row], rng, size) for row in chosen.tolist())
    strips = *cut_strips(scenes, rng, size), *numbers
    return batch_strips(vary(strips, rng), rng)


def learn_lines(
    weights: Weights,
    own: Sequence[PlacedNumber],
    scenes: Sequence[Scene],
    seed: int,
    recipe: NumberRecipe,
) -> Weights:
    """Train the networks that read a line; gives the weights with their new ones."""
    torch.set_num_threads(usable_cores())
    for name, network, size, rate in (
        ("columns", fold(Columns()), COLUMNS_SIZE, COLUMNS_RATE),
        ("expert", fold(Expert()), EXPERT_SIZE, EXPERT_RATE),
    ):
        print(f"training the {name}", file=sys.stderr)
        torch.manual_seed(seed)
        old = take_weights(weights, name)
        network.load_state_dict({key: torch.from_numpy(value) for key, value in old.items()})
        optimiser = torch.optim.AdamW(
            network.parameters(), rate, weight_decay=recipe.weight_decay, fused=True
        )
        learner = Learner(network, measure_losses, recipe, [optimiser])
        learned = learner.train(partial(draw_batches, scenes, partial(mix_strips, own, size), seed))
        new = {f"{name}.{key}": value.numpy() for key, value in learned.state_dict().items()}
        weights = weights | new
    torch.set_num_threads(1)
    return weights


def judge_numbers(networks: tuple[NumberReader, Card], pictures: Iterable[Asked]) -> Judged:
    """What a worker would read in each picture, with what is known of it.

    If signs are not known, an answer with the right digits is right.
    """
    rows = []
    for (picture, number), known, knows_signs in pictures:
        compared = str if knows_signs else only_digits
        confidence, is_right = 0.0, False
        with suppress(ImageError):
            readings = find_readings(picture, known, networks)
            best = readings.numbers[0].number
            is_right = compared(best) == compared(number)
            if best and not readings.reason:
                confidence = readings.confidence
        rows.append((confidence, is_right))
    return Judged(*(torch.tensor(column) for column in zip(*rows, strict=True)))


def match_answers(
    own: Sequence[OwnImage[Grey]], known: Known | Form
) -> dict[str, tuple[Known, bool]]:
    """What is known of each number when it is read, and whether its signs are learned, by the id.

    Signs are not learned if no right answer has one, or if the pattern says where they are: then a
    sign may be missing in the picture. Raises `UsageError` for right answers that can't be read.
    """
    has_signs = not all(text.isdecimal() for _, _, text in own)
    if isinstance(known, Known):
        known = check_answers(own, known, has_signs)
    matched = dict[str, tuple[Known, bool]]()
    for id, _, text in own:
        of_field = known.known_of(id) if isinstance(known, Form) else known
        values, is_said = of_field.automaton, False
        if isinstance(values, ValueSet):
            texts, has_all = values.without_signs.put_signs_in(only_digits(text))
            is_said = has_all and len(texts) == 1
        matched[id] = of_field, has_signs and not is_said
    return matched


def check_answers(own: Sequence[OwnImage[Grey]], known: Known, has_signs: bool) -> Known:
    """What is known of numbers of which these are right. Raises `UsageError` as `match_answers`."""
    if known.is_nothing and not has_signs:
        print(
            "no right answer has a sign such as a point: images are read with --pattern integer",
            file=sys.stderr,
        )
        known = replace(known, pattern="integer")
    values = known.automaton
    if not isinstance(values, ValueSet):
        return known
    possible: Automaton = values if has_signs else values.without_signs
    wrong = [f"{id} ({text})" for id, _, text in own if not accepts(possible, text)]
    if wrong:
        listed = "the list of allowed numbers"
        what = listed if known.allowed is not None else f"the pattern {known.pattern}"
        raise UsageError(
            f"{plural(len(wrong), 'right answer')} can't be read with {what}: {name_some(wrong)}; "
            "correct them, leave them out, or say what numbers there are besides"
        )
    return known


def train_own_numbers(
    chunks: Iterable[Chunk], known: Known | Form, seed: int, epochs: int | None
) -> Trained:
    """Go on training `number`; what is known serves to read those held back. The images of a form
    are its pages."""
    torch.set_num_threads(1)
    weights, before = read_number_weights()
    images = (cut_fields(one, known) if isinstance(known, Form) else one for one in chunks)
    own, held_back, left_out = read_own(images, read_own_pictures, "number", seed)
    matched = match_answers([*own, *held_back], known)
    reader = make_reader(weights)
    real = [
        (id, RealNumber(picture, text if knows_signs else only_digits(text), knows_signs, ""))
        for id, picture, text, (_, knows_signs) in ((*one, matched[one[0]]) for one in own)
    ]
    placed = [(id, place_number(reader, one)) for id, one in real]
    learned = [one for _, one in placed if one]
    left_out |= leave_out([id for id, one in placed if not one], MISCOUNTED)
    if not learned:
        raise UsageError("in no image the detector sees as many digits as the right answer has")
    scenes, tested = load_rehearsal()
    rendered = [NumberPicture(one.picture, one.text) for one in tested if not one.doubt]
    sets = (
        [(NumberPicture(picture, text), *matched[id]) for id, picture, text in held_back],
        [(one, Known(), True) for one in rendered],
    )
    old = [judge_numbers((reader, before), part) for part in sets]
    recipe = replace(RECIPE, epochs=epochs or RECIPE.epochs)
    weights = learn_lines(weights, learned, scenes, seed, recipe)
    print("testing …", file=sys.stderr)
    reader = make_reader(weights)
    new = [judge_numbers((reader, before), part) for part in sets]
    confidence, is_right = (torch.cat(columns) for columns in zip(*new, strict=True))
    is_sure = confidence > 0  # the others are to be reviewed for another reason
    card = replace(
        before,
        validation_accuracy=measure_share(is_right),
        test_accuracy=measure_share(new[1].is_right),
        test_calibration_error=measure_calibration_error(confidence[is_sure], is_right[is_sure]),
        own_images=len(learned),
        own_held_back=len(held_back),
        own_left_out=left_out,
    )
    own_numbers, rehearsed = map(Compared, old, new)
    tensors = {name: torch.from_numpy(value) for name, value in weights.items()}
    ids = [id for id, _, _ in held_back]
    return Trained(before, card, tensors, own_numbers, ids, rehearsed, "rendered numbers")
