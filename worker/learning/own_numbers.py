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
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pyarrow as pa
import torch

from digitq.protocol.asked.broken_rules import hold_checks
from digitq.protocol.asked.form import Cell, Form
from digitq.protocol.asked.known import Known
from digitq.protocol.asked.values import Automaton, ValueSet, accepts, is_written, only_digits
from digitq.protocol.chunk import BEFORE, FILES_SCHEMA, NUMBER_TRUTH, Chunk, kind_of, name_fields
from digitq.protocol.errors import UsageError
from digitq.protocol.text import name_some, plural
from digitq.worker.classify import Outcome, as_file, read_image, read_images
from digitq.worker.learning.calibration import (
    Judged,
    NumberPicture,
    measure_calibration_error,
    measure_share,
)
from digitq.worker.learning.column_batches import (
    MakeBatches,
    NumberRecipe,
    Rng,
    StripBatch,
    batch_strips,
    draw_batches,
    measure_losses,
)
from digitq.worker.learning.columns import Columns, Expert, fold
from digitq.worker.learning.learner import Course, Learner
from digitq.worker.learning.number_examples import (
    PlacedNumber,
    RealNumber,
    Scene,
    cut_number,
    cut_strips,
    place_number,
)
from digitq.worker.learning.own import (
    Compared,
    OwnImage,
    Taught,
    Trained,
    leave_out,
    read_own,
)
from digitq.worker.learning.strip_variations import vary
from digitq.worker.learning.surest import GIVEN, TooFewError, choose_surest, refuse_few
from digitq.worker.models.card import Card
from digitq.worker.models.number_networks import (
    COLUMNS_SIZE,
    EXPERT_SIZE,
    NumberReader,
    StripSize,
    make_reader,
    read_number_weights,
    take_weights,
)
from digitq.worker.models.onnx_session import Weights
from digitq.worker.models.second_reader import is_second_reader_used, load_second_reader
from digitq.worker.picture import Grey, ImageError
from digitq.worker.sight.decoding.any_file import read_picture
from digitq.worker.sight.decoding.scales import DECODED_SIDE
from digitq.worker.sight.forms.cutting import Cut
from digitq.worker.sight.forms.page_reading import trace_page
from digitq.worker.sight.normalisation.colours import to_grey
from digitq.worker.sight.numbers.recognition import find_readings
from digitq.worker.sight.numbers.weighing import propose_numbers

RECIPE = NumberRecipe(epochs=16, warm_up_steps=20, ema_decay=0.98)
COLUMNS_RATE, EXPERT_RATE = 5e-4, 1e-4  # with the columns' rate, the expert unlearns what it knows
# In each round the networks learn this share of their answers, the surest ones
NUMBER_ROUNDS = (0.55, 0.8)
MAX_JUDGED = 600  # so many are read once more, to see whether anything is gained
# With these odds of the threshold, no more are wrong without a mark than before (measured with
# `benchmarks.adapting` on sources that nobody trained with)
SURER = 2.5
MISCOUNTED = "the detector misses two digits or more, or sees as many too many"


class Plan(NamedTuple):
    """How the networks that read a line go on to learn."""

    columns_epochs: int = RECIPE.epochs
    expert_epochs: int = RECIPE.epochs
    scenes: int | None = None  # so many rehearsed scenes are shown; None for all
    own_share: float = 0.5  # so many own numbers are learned for each of these


TEACHING_PLAN = Plan(columns_epochs=8, expert_epochs=6, scenes=300, own_share=2.0)
Asked = tuple[NumberPicture, Known, bool]  # what is known of its number, and whether signs are
REHEARSAL_FILE = Path(__file__).parent / "rehearsal.arrow"


class OwnNumber(NamedTuple):
    """The picture of a number, and what is known of it."""

    picture: Grey
    known: Known
    real: RealNumber | None = None  # the same with the right answer, if there is one
    said: str | None = None  # what a form's rules confirm

    def take(self, answer: "Answered") -> RealNumber:
        """The number as an answer says. Signs are not learned: which there are is not sure."""
        return RealNumber(self.picture, only_digits(answer.number), False, "")


class Answered(NamedTuple):
    """What the networks read in a picture."""

    number: str
    confidence: float  # 0 where the answer is doubted
    is_confirmed: bool  # by something else than the confidence
    is_agreed: bool = False  # whether the second reader alone reads it, and the others without it

    @property
    def sureness(self) -> float:
        """A confirmed answer comes before all others."""
        return self.confidence + self.is_confirmed


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


def cut_fields(chunk: Chunk, form: Form, said: dict[str, str]) -> Chunk:
    """The fields of pages, as images; those without a right number only if they can be read. The
    first row of a page has its file.

    Puts into `said` by the id what a first reading answered at each place that a rule binds, if the
    answer was not to review.
    """
    kind, cells = kind_of(chunk.batch), form.cells

    def reader(content: bytes) -> Iterator[list[Cut | ImageError | None] | None]:
        return trace_page(as_file(content, kind), form)

    no_answers: list[str | None] = [None] * chunk.rows
    has_answers = BEFORE.name in chunk.batch.schema.names
    answers = chunk.batch.column(BEFORE.name).to_pylist() if has_answers else no_answers
    truths = pa.array(chunk.truth).to_pylist() if chunk.truth else no_answers
    bound = {
        at for one in hold_checks(cells, form.checks) for ats in one.places.values() for at in ats
    }
    pages = chunk.batch.take(pa.array(range(0, chunk.rows, len(cells))))
    found: list[tuple[Cut | ImageError | None, str | None]] = []
    for cuts, error in read_images(pages, reader, read_image):
        found += [(cut, error) for cut in cuts or [None] * len(cells)]
    rows = []
    places = zip(name_fields(chunk.batch).to_pylist(), truths, answers, found, strict=True)
    for row, (id, truth, answer, (cut, error)) in enumerate(places):
        at = row % len(cells)
        if truth and is_written(truth) and not cells[at].known.options:
            why = refuse_field(cells[at], truth, cut, error)
        elif truth or cells[at].known.options or not isinstance(cut, Cut):
            continue
        else:
            why = None
        if answer and at in bound:
            said[id] = answer
        image = cv2.imencode(".png", cut.picture)[1].tobytes() if isinstance(cut, Cut) else None
        rows.append({"id": id, "image": image, "error": why, "truth": truth or None})
    batch = pa.RecordBatch.from_pylist(rows, FILES_SCHEMA)
    return Chunk(0, batch.drop_columns([NUMBER_TRUTH.name]), batch.column(NUMBER_TRUTH.name))


def refuse_field(
    cell: Cell, truth: str, cut: Cut | ImageError | None, error: str | None
) -> str | None:
    """Why a field can't be learned, or None."""
    values, digits = cell.known.automaton, only_digits(truth)
    if isinstance(values, ValueSet) and not accepts(values.without_signs, digits):
        return f"the form does not allow {truth}"
    if isinstance(cut, Cut):
        return None
    return error or str(cut or "its page has no such row")


def mix_strips(
    own: Sequence[PlacedNumber], size: StripSize, share: float, scenes: Sequence[Scene], rng: Rng
) -> list[StripBatch]:
    """What a network of columns learns: lines of rehearsed scenes, and of own numbers, `share` of
    them for each scene."""
    chosen = rng.integers(len(own), size=round(share * len(scenes)))
    numbers = (cut_number(own[row], rng, size) for row in chosen.tolist())
    strips = *cut_strips(scenes, rng, size), *numbers
    return batch_strips(vary(strips, rng), rng)


def draw_some(
    scenes: Sequence[Scene], count: int | None, make_batches: MakeBatches, seed: int, epoch: int
) -> Iterator[tuple[float, StripBatch]]:
    """The batches of an epoch, which shows so many of the scenes; None for all."""
    order = np.random.default_rng((seed, epoch, 2)).permutation(len(scenes))[:count]
    shown = scenes if count is None else [scenes[row] for row in order.tolist()]
    return draw_batches(shown, make_batches, seed, epoch)


def learn_lines(
    weights: Weights,
    own: Sequence[PlacedNumber],
    scenes: Sequence[Scene],
    plan: Plan,
    course: Course,
) -> Weights:
    """Train the networks that read a line; gives the weights with their new ones."""
    for number, (name, network, size, rate, epochs) in enumerate(
        (
            ("columns", fold(Columns()), COLUMNS_SIZE, COLUMNS_RATE, plan.columns_epochs),
            ("expert", fold(Expert()), EXPERT_SIZE, EXPERT_RATE, plan.expert_epochs),
        )
    ):
        print(f"training the {name}", file=sys.stderr)
        torch.manual_seed(course.seed)
        old = take_weights(weights, name)
        network.load_state_dict({key: torch.from_numpy(value) for key, value in old.items()})
        recipe = replace(RECIPE, epochs=course.epochs or epochs)
        optimiser = torch.optim.AdamW(
            network.parameters(), rate, weight_decay=recipe.weight_decay, fused=True
        )
        learner = Learner(network, measure_losses, recipe, [optimiser])
        mixed = partial(mix_strips, own, size, plan.own_share)
        draw = partial(draw_some, scenes, plan.scenes, mixed, course.seed)
        with course.many_threads():
            learned = learner.train(draw, course.part(number, 2).tell)
        new = {f"{name}.{key}": value.numpy() for key, value in learned.state_dict().items()}
        weights = weights | new
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
    if isinstance(known, Known) and own:
        known = check_answers(own, known, has_signs)
    matched = dict[str, tuple[Known, bool]]()
    for id, _, text in own:
        known_of = of_field(known, id)
        values, is_said = known_of.automaton, False
        if isinstance(values, ValueSet):
            texts, has_all = values.without_signs.put_signs_in(only_digits(text))
            is_said = has_all and len(texts) == 1
        matched[id] = known_of, has_signs and not is_said
    return matched


def of_field(known: Known | Form, id: str) -> Known:
    """What is known of the number of this id."""
    return known.known_of(id) if isinstance(known, Form) else known


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


def read_surely(
    networks: tuple[NumberReader, Card], picture: Grey, known: Known, said: str | None
) -> Answered:
    """The number in a picture. It is confirmed if it is what was `said`; or, without a second
    reader, if all networks read the same digits."""
    try:
        readings = find_readings(picture, known, networks)
    except ImageError:
        return Answered("", 0.0, False)
    number, first, values = readings.numbers[0].number, readings.first, known.automaton
    if not number or readings.reason:
        return Answered(number, 0.0, False)
    if readings.seen.second is not None:  # its confidence says whether both agree
        return Answered(number, readings.confidence, number == said, readings.is_agreed)
    closer = first.look_closer() if first.look_closer else first
    possible = values.without_signs if isinstance(values, ValueSet) else values
    each = first.weigh(values), closer.weigh(values), propose_numbers(first.line, possible)
    is_same = all(one and only_digits(one[0].number) == only_digits(number) for one in each)
    return Answered(number, readings.confidence, is_same or number == said)


def raise_odds(review_below: float) -> float:
    """The confidence below which answers are to be reviewed, once networks have learned their own:
    they have become surer of all, also of their errors."""
    odds = SURER * review_below / max(1 - review_below, 1e-9)
    return round(odds / (1 + odds), 4)


def teach_numbers(
    weights: Weights, card: Card, own: Sequence[OwnNumber], scenes: Sequence[Scene], course: Course
) -> tuple[Weights, Taught]:
    """The weights after the networks have learned own numbers by their own answers, the surest of
    each round, and by the right ones where there are any. Raises `TooFewError`."""

    def answer(some: Sequence[OwnNumber]) -> list[Answered]:
        networks = make_reader(weights, second), card
        return [read_surely(networks, one.picture, one.known, one.said) for one in some]

    second = load_second_reader() if is_second_reader_used() else None
    judged = slice(None, None, -(-len(own) // MAX_JUDGED))
    first = list[Answered]()
    for number, share in enumerate(NUMBER_ROUNDS):
        answers = answer(own)
        first = first or answers[judged]
        sureness = [
            GIVEN if one.real else each.sureness for one, each in zip(own, answers, strict=True)
        ]
        lengths = np.array([len(only_digits(one.number)) for one in answers])
        rows = choose_surest(np.array(sureness), lengths, share).tolist()
        real = [own[row].real or own[row].take(answers[row]) for row in rows]
        reader = make_reader(weights)
        placed = [one for one in (place_number(reader, each) for each in real) if one]
        refuse_few(np.zeros(len(placed), int))
        part = course.part(number, len(NUMBER_ROUNDS))
        weights = learn_lines(weights, placed, scenes, TEACHING_PLAN, part)
    last = answer(own[judged])
    was_unmarked, is_unmarked = (
        np.array([one.confidence >= below for one in each])
        for each, below in ((first, card.review_below), (last, raise_odds(card.review_below)))
    )
    has_changed = [one.number != other.number for one, other in zip(first, last, strict=True)]
    before, after = (sum(one.is_agreed for one in each) for each in (first, last))
    agreed = (before, after) if second else None
    return weights, Taught(was_unmarked, is_unmarked, np.array(has_changed), agreed=agreed)


def train_own_numbers(chunks: Iterable[Chunk], known: Known | Form, course: Course) -> Trained:
    """Go on training `number`; what is known serves to read those held back. The images of a form
    are its pages. Raises `TooFewError` if too few images have a right answer, and too few answers
    are sure."""
    torch.set_num_threads(1)
    second = load_second_reader() if is_second_reader_used() else None
    old, alone = read_number_weights()
    before = alone.in_use(second is not None)
    said = dict[str, str]()
    images = (cut_fields(one, known, said) if isinstance(known, Form) else one for one in chunks)
    own = read_own(images, read_own_pictures, "number", course.seed)
    matched = match_answers([*own.learned, *own.held_back], known)
    real = {
        id: RealNumber(picture, text if knows_signs else only_digits(text), knows_signs, "")
        for id, picture, text, (_, knows_signs) in ((*one, matched[one[0]]) for one in own.learned)
    }
    scenes, tested = load_rehearsal()
    judged: Compared | Taught | None = None
    card = alone
    rehearsed, left_out, learned = None, own.left_out, len(own.learned) + len(own.unknown)
    try:
        if own.unknown:
            numbers = [
                OwnNumber(
                    picture,
                    matched[id][0] if id in matched else of_field(known, id),
                    real.get(id),
                    said.get(id),
                )
                for id, picture, _ in (*own.learned, *own.unknown)
            ]
            weights, judged = teach_numbers(old, before, numbers, scenes, course)
            card = alone.mark_below(*map(raise_odds, alone.thresholds))
    except TooFewError as error:
        if not own.held_back:
            raise
        print(f"{error}, so only right answers are learned", file=sys.stderr)
    if not judged:
        reader = make_reader(old)
        placed = [(id, place_number(reader, one)) for id, one in real.items()]
        clear = [one for _, one in placed if one]
        left_out |= leave_out([id for id, one in placed if not one], MISCOUNTED)
        if not clear:
            raise UsageError("in no image the detector sees as many digits as the right answer has")
        weights, learned = learn_lines(old, clear, scenes, Plan(), course), len(clear)
    card = replace(
        card, own_images=learned, own_held_back=len(own.held_back), own_left_out=left_out
    )
    if own.held_back:
        print("testing …", file=sys.stderr)
        rendered = [NumberPicture(one.picture, one.text) for one in tested if not one.doubt]
        sets = (
            [(NumberPicture(picture, text), *matched[id]) for id, picture, text in own.held_back],
            [(one, Known(), True) for one in rendered],
        )
        readers = make_reader(old, second), make_reader(weights, second)
        judged, rehearsed = (
            Compared(*(judge_numbers((one, before), part) for one in readers)) for part in sets
        )
        card = measure_card(card, judged.after, rehearsed.after)
    assert judged
    tensors = {name: torch.from_numpy(value) for name, value in weights.items()}
    ids = [id for id, _, _ in own.held_back]
    return Trained(before, card, tensors, judged, ids, rehearsed, "rendered numbers")


def measure_card(card: Card, own: Judged, rehearsed: Judged) -> Card:
    """The card with what was measured on own numbers and rendered ones that were held back."""
    confidence, is_right = (torch.cat(columns) for columns in zip(own, rehearsed, strict=True))
    is_sure = confidence > 0  # the others are to be reviewed for another reason
    return replace(
        card,
        validation_accuracy=measure_share(is_right),
        test_accuracy=measure_share(rehearsed.is_right),
        test_calibration_error=measure_calibration_error(confidence[is_sure], is_right[is_sure]),
    )
