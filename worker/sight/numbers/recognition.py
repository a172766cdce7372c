"""From the bytes of a file to the number in the picture."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from math import log
from operator import itemgetter
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from digitq.protocol.asked.known import Known
from digitq.protocol.asked.risk import Risk
from digitq.protocol.asked.values import (
    AS_WRITTEN,
    DIGITS_ONLY,
    MAX_DIGITS,
    NUMERALS,
    AnyValue,
    Automaton,
    ValueSet,
    only_digits,
)
from digitq.protocol.chunk import Alternative, FoundDigit, Reason
from digitq.worker.models.card import Card
from digitq.worker.models.number_networks import (
    COLUMNS_SIZE,
    EXPERT_SIZE,
    SECOND_SIZE,
    STRIDE,
    NumberReader,
    StripSize,
    load_networks,
)
from digitq.worker.picture import Grey, ImageError
from digitq.worker.sight.decoding.any_file import has_more_pages, read_picture
from digitq.worker.sight.decoding.scales import DECODED_SIDE, scale_to_file
from digitq.worker.sight.normalisation.colours import to_grey
from digitq.worker.sight.numbers.ctc import (
    NO_SIGNS,
    Answer,
    align,
    pass_over,
    propose,
    spell,
    sum_paths,
)
from digitq.worker.sight.numbers.ctc import weigh as weigh_columns
from digitq.worker.sight.numbers.finding import Candidates
from digitq.worker.sight.numbers.fractions import may_be_fraction
from digitq.worker.sight.numbers.ink import INK_CONTRAST, find_ink, find_runs, has_ink, has_strokes
from digitq.worker.sight.numbers.line_strip import place_line, read_strip
from digitq.worker.sight.numbers.search import CLEAR, FoundLine, find_line, find_others
from digitq.worker.sight.numbers.weighing import MIN_DOUBT, Proposal, propose_numbers

# The exponents of the probabilities: of the detector, of the columns or the expert, and of the
# second reader. With them, most real numbers of other sources are right
DETECTOR_POWER, COLUMNS_POWER, SECOND_POWER = 0.1, 0.9, 0.4
SURE_CHANCE = 0.97  # the expert looks at a line whose number has a lower chance
SURE_OF_BOTH = 0.999  # the same with the second reader, which makes the chances greater
EXPERT_SHIFT = 0.12  # heights of a digit: it looks so much higher than the line is placed
LIKELY_CHANCE = 0.7  # if its number has a lower chance, it looks again, at the line itself
MIN_SUM = -60.0  # the least logarithm of a sum of probabilities
MIN_WHOLE = 1e-30  # the least sum of the probabilities of all numbers that there can be
MIN_SECOND = -40.0  # the second reader's logarithm of a probability counts as this at least
MAX_PROPOSALS = 8  # this many numbers of each network are weighed
# If the numbers that are weighed have a greater probability, all others are not summed up
SURE_SHARE = 0.9999
MIN_WEIGHED_SHARE = 1e-9  # the numbers that are weighed have at least this share of all
UNSEEN_CHANCE = 0.01  # the detector's probability of a number that it does not propose
MIN_DETECTOR_CHANCE = 1e-9  # a lower probability would only show how the detector is calibrated
MIN_PLAUSIBLE = 0.02  # an allowed number is plausible with this share of the best free one's chance
MAX_ALTERNATIVES = 5  # this many other numbers are reported at most
MIN_ALTERNATIVE = 0.001  # a less probable number is not reported
NOTHING_SEEN = "no number can be seen"
INK_ONLY: Reason = "ink, but no digit"
SURE_EMPTY = 0.85  # surely nothing is written where that has a greater probability
DOUBTED_EMPTY = 0.75  # the probability where a network sees a number, and there is no ink
SURE = 0.95  # where the detector gives a digit at least this chance, something is written
# With a greater share of other ink, the picture is a page or a texture; marks may fill small boxes
MAX_EMPTY_INK, MAX_FILLED_INK = 0.25, 0.5
USUAL_WIDTH = 0.6  # a digit without a candidate gets a box of this many times its height


@dataclass(frozen=True)
class NumberReading:
    """The number in a picture."""

    number: str
    confidence: float  # the probability that the whole number is right
    digits: list[FoundDigit]
    alternatives: list[Alternative]  # up to five other numbers, the most probable first
    reason: Reason  # why a person should look at it; "" if there is no need


@dataclass(frozen=True)
class Seen:
    """The line that was found in a picture, before its readings are weighed."""

    line: Candidates  # the candidates of its line, from left to right
    answer: Answer  # what a network sees in its columns
    to_strip: NDArray[np.float64]  # (2, 3): from px of the candidates to px of the strip
    to_original: NDArray[np.float64]  # (2, 3): from px of the candidates to px of the picture
    reason: Reason  # why a person should look at it: what else is written in the picture
    size: StripSize = COLUMNS_SIZE
    look_closer: "Callable[[], Seen] | None" = None  # the same line as it is seen next, if unsure
    sure_chance: float = SURE_CHANCE  # nobody looks closer if the number has this chance
    second: Answer | None = None  # what the second reader sees, if it is in use

    @cached_property
    def digits_answer(self) -> Answer:
        """The answer as if all signs were blank."""
        return pass_over(self.answer, DIGITS_ONLY)

    @cached_property
    def second_digits(self) -> Answer:
        """The second reader's answer as if all signs were blank."""
        assert self.second is not None
        return pass_over(self.second, DIGITS_ONLY)

    def weigh(
        self, automaton: Automaton = AS_WRITTEN, others: Iterable[Proposal] = ()
    ) -> list[Proposal]:
        """The numbers of the automaton, and others, that the line may show, the best first.

        Their chances are shares of all numbers that the automaton has. The signs of a pattern or a
        list are put in where they are not seen. The detector is one judge, the network that read
        the line another. The product of their probabilities counts, each to a power, because they
        learned from the same scenes. The second reader, if it is in use, is the third judge. The
        detector and the second reader judge the digits only.
        """
        answer = pass_over(self.answer, automaton)
        chances = dict(others) | self.list_numbers(automaton, answer)
        numbers = [*chances]
        scores = weigh_columns(answer, numbers)
        share = float(np.exp(scores).sum())  # what these numbers are of all that there can be
        whole = 1.0
        if isinstance(automaton, ValueSet):
            if automaton.signs:  # how likely it is to put one in says nothing: digits count
                parts = sorted({*map(only_digits, numbers)})  # "" is the first
                digits = weigh_columns(self.digits_answer, parts)
                share = float(np.exp(digits).sum())
                some = np.array([number > "" for number in numbers])
                before, after = (
                    max(float(np.logaddexp.reduce(part)), MIN_SUM)
                    for part in (scores[some], digits[1:])
                )
                scores[some] += after - before
            if share < SURE_SHARE:
                whole = max(share, sum_paths(self.digits_answer, automaton.without_signs))
                share /= whole
        scores = COLUMNS_POWER * scores + DETECTOR_POWER * np.log([*chances.values()])
        if self.second is not None:
            scores -= COLUMNS_POWER * log(max(whole, MIN_WHOLE))
            scores, share = self.ask_second(automaton, numbers, scores, share)
        shares = np.exp(scores - max(scores.max(), -1e9))  # the line may be too short for them all
        shares *= min(max(share, MIN_WEIGHED_SHARE), 1.0) / max(shares.sum(), 1e-9)
        readings = map(Proposal, numbers, shares.tolist())
        possible = [one for one in readings if one.chance > 0]
        # An empty answer wins only above one half
        return sorted(possible, key=lambda one: -one.chance * (one.number > "" or one.chance > 0.5))

    def ask_second(
        self,
        automaton: Automaton,
        numbers: Sequence[str],
        scores: NDArray[np.float64],
        share: float,
    ) -> tuple[NDArray[np.float64], float]:
        """The scores of numbers, (N,), and their share of all that the automaton has, once the
        second reader has judged the digits, too."""
        parts = sorted({*map(only_digits, numbers)})
        logs = weigh_columns(self.second_digits, parts)
        part, whole = float(np.exp(logs).sum()), 1.0
        if isinstance(automaton, ValueSet) and part < SURE_SHARE:
            whole = sum_paths(self.second_digits, automaton.without_signs)
        whole = max(whole, part, MIN_WHOLE)
        logs = (logs - log(whole)).clip(MIN_SECOND)
        by_digits = dict(zip(parts, logs.tolist(), strict=True))
        scores = scores + SECOND_POWER * np.array([by_digits[only_digits(one)] for one in numbers])
        # All numbers that are not weighed count as one more, which the detector has not seen
        rest = max(1 - share, 0.0) ** COLUMNS_POWER * UNSEEN_CHANCE**DETECTOR_POWER
        rest *= (1 - part / whole) ** SECOND_POWER
        weighed = float(np.exp(scores).sum())
        return scores, weighed / max(weighed + rest, MIN_WHOLE)

    def is_agreed(self, number: str, automaton: Automaton) -> bool:
        """Whether the second reader alone, and the others without it, read this number. The signs
        of a pattern or a list say nothing."""
        if self.second is None:
            return False
        if isinstance(automaton, ValueSet):
            number = only_digits(number)
            seconds = propose(self.second_digits, automaton.without_signs)
        else:
            seconds = propose(pass_over(self.second, automaton), automaton)
        if seconds[:1] != [number]:
            return False
        alone = [one.number for one in replace(self, second=None).weigh(automaton)[:1]]
        return number in (alone if isinstance(automaton, AnyValue) else map(only_digits, alone))

    def list_numbers(self, automaton: Automaton, answer: Answer) -> dict[str, float]:
        """The numbers that either network takes for likely, the second reader's first, and "" for
        none, with the detector's probability.
        """
        values = automaton.without_signs if isinstance(automaton, ValueSet) else None
        second = list[str]()
        if self.second is not None:
            second = propose(self.second_digits, values or DIGITS_ONLY)[:1]
        paths = propose_numbers(self.line, values or automaton)[:MAX_PROPOSALS]
        found = {path.number: max(path.chance, MIN_DETECTOR_CHANCE) for path in paths}
        read, written, has_all = list[str](), [*found], False
        if values and automaton.signs:
            digits = propose(self.digits_answer, values)[:MAX_PROPOSALS]
            parts = [values.put_signs_in(one) for one in dict.fromkeys([*digits, *found, *second])]
            written = [one for part, _ in parts for one in part]
            has_all = all(is_whole for _, is_whole in parts)
        if not has_all:
            read = propose(answer, automaton)[:MAX_PROPOSALS]
            read += second
        read += written
        chances = {one: found.get(only_digits(one), UNSEEN_CHANCE) for one in read}
        no_digit = float((1 - self.line.chances.clip(MIN_DOUBT)).prod())
        return chances | {"": max(no_digit, MIN_DETECTOR_CHANCE)}


@dataclass(frozen=True)
class Readings:
    """What a picture may show, before one of the numbers is chosen."""

    numbers: list[Proposal]  # the best first
    confidence: float  # the probability that the first is right
    seen: Seen
    first: Seen  # the same as the network of columns saw it
    picture: Grey
    reason: Reason  # why a person should look at it, whichever number it is
    fill: str = ""  # marks that fill unused boxes, and count as paper
    printed: Grey | None = None  # this part of the form's blank
    needs_answer: bool = True  # whether a person should look at it if nothing is written
    is_agreed: bool = False  # whether each of two readers alone reads it, see `Seen.is_agreed`

    @property
    def calibrated(self) -> list[Proposal]:
        """The numbers, with the probability that each is right."""
        first = self.numbers[0]._replace(chance=self.confidence)
        return [first, *share_rest(self.numbers, self.confidence)]

    def choose(
        self,
        number: str,
        confidence: float,
        alternatives: list[Alternative],
        to_page: NDArray[np.float64],
        risk: Risk | None = None,
    ) -> NumberReading:
        """This number as the answer, which a person should look at if more than the risk may be
        wrong. The boxes of its digits are in px of the page, to which the (3, 3) matrix leads."""
        if not number:
            return NumberReading("", confidence, [], [], self.doubt_emptiness(confidence))
        _, card = load_networks()
        digits = list_digits(self.seen, number, self.picture.shape, to_page)
        reason = self.reason or ("unsure" if confidence < card.find_threshold(risk) else "")
        return NumberReading(number, confidence, digits, alternatives, reason)

    def doubt_emptiness(self, confidence: float) -> Reason:
        """Why a person should look at a place where no number is; "" if there is no need. Marks of
        `fill` are clear ink."""
        shown = self.picture, self.printed
        is_sure = not self.needs_answer and confidence > SURE_EMPTY
        if is_sure and (not has_ink(*shown) or self.fill and has_ink(*shown, INK_CONTRAST)):
            return ""
        return INK_ONLY if not self.fill and has_strokes(*shown) else "empty"


def read_number(content: bytes, known: Known) -> NumberReading:
    """The number in an image file. Raises `ImageError`, also if there is none."""
    *_, reading = trace_number(content, known)
    assert reading
    return reading


def trace_number(content: bytes, known: Known) -> Iterator[NumberReading | None]:
    """Read a number step by step: yields `None` after each step, and the number after the last."""
    grey = to_grey(read_picture(content, DECODED_SIDE))  # a batch has no room for all colours
    yield None
    readings = yield from trace_readings(grey, known)
    yield None
    if has_more_pages(content):
        readings = replace(readings, reason="pages")
    best, confidence = readings.numbers[0].number, readings.confidence
    alternatives = list_alternatives(readings.numbers, confidence)
    to_file = scale_to_file(content, grey.shape)
    yield readings.choose(best, confidence, alternatives, to_file, known.risk)


def trace_readings(
    grey: Grey,
    known: Known,
    printed: Grey | None = None,
    networks: tuple[NumberReader, Card] | None = None,
) -> Generator[None, None, Readings]:
    """Returns what a picture may show; yields after each step. `printed` is the same part of an
    empty form, if there is one; the networks are those that are in use, unless others are given.
    Raises `ImageError` if nothing can be read."""
    reader, card = networks or load_networks()
    found = find_line(reader, grey)
    if "X" in known.fill:
        candidates = found.candidates
        found = found._replace(candidates=candidates._replace(others=0 * candidates.others))
    yield None
    first = read_line(reader, found)
    yield None
    numbers, reason, is_free, seen = choose_readings(first, known)
    best, is_agreed = numbers[0], False
    if best.number:
        is_agreed = seen.is_agreed(best.number, AS_WRITTEN if is_free else known.automaton)
        confidence = card.calibrate(best.chance, not is_free and known.fixes_length, is_agreed)
        if printed is not None and not has_ink(grey, printed):  # what is seen is print
            others = [one for one in numbers if one.number]
            numbers, confidence = [Proposal("", DOUBTED_EMPTY), *others], DOUBTED_EMPTY
    else:
        confidence = measure_emptiness(found, best.chance, known.fill)
    return Readings(
        *(numbers, confidence, seen, first, grey, reason, known.fill, printed),
        is_agreed=is_agreed,
    )


def find_readings(
    grey: Grey, known: Known, networks: tuple[NumberReader, Card] | None = None
) -> Readings:
    """What `trace_readings` returns, found in one go. Raises `ImageError` as it does."""
    steps = trace_readings(grey, known, networks=networks)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            readings: Readings = end.value
            return readings


def measure_emptiness(found: FoundLine, chance: float, fill: str) -> float:
    """The probability that nothing is written in a picture, where no number is seen.

    `chance` is that of no number. Raises `ImageError` if the picture is a page, or of something
    else.
    """
    other, digit = (
        float(each.max(initial=0)) for each in (found.candidates.others, found.candidates.chances)
    )
    is_digit = digit >= SURE and "/" not in fill  # a stroke looks like a 1 to the detector
    ink = find_ink(found.picture)
    most = MAX_FILLED_INK if "X" in fill else MAX_EMPTY_INK
    if other >= CLEAR or is_digit or (ink > find_runs(ink)).mean() > most:
        raise ImageError(NOTHING_SEEN)
    return chance * (1 - other)


def look(reader: NumberReader, picture: Grey) -> Seen:
    """Find the line of the number in a picture, and read it. Raises `ImageError` without one."""
    found = find_line(reader, picture)
    if not len(found.line.chances):
        raise ImageError(NOTHING_SEEN)
    return read_line(reader, found)


def read_line(reader: NumberReader, found: FoundLine) -> Seen:
    """Read the line column by column. Raises `ImageError` if it has too many digits."""
    line = found.line
    if not len(line.chances):
        return Seen(line, NO_SIGNS, np.eye(2, 3), found.to_original, "")
    fitted = place_line(line)
    answer, to_strip = read_strip(reader.columns, found.picture, fitted, COLUMNS_SIZE)
    spelled = "".join(sign for sign, _ in spell(answer))
    if len(only_digits(spelled)) > MAX_DIGITS:
        raise ImageError(f"the line has more than {MAX_DIGITS} digits")
    reason = find_others(found.candidates, line, fitted.height, "/" in spelled)
    reason = reason or ("other signs" if found.is_struck else "")
    second = None
    if reader.second:
        second, _ = read_strip(reader.second, found.picture, fitted, SECOND_SIZE)
    sure_chance = SURE_OF_BOTH if reader.second else SURE_CHANCE
    first = Seen(
        *(line, answer, to_strip, found.to_original, reason),
        sure_chance=sure_chance,
        second=second,
    )

    @cache
    def look_closer() -> Seen:
        higher = fitted._replace(y=fitted.y - EXPERT_SHIFT * fitted.height)
        answer, to_strip = read_strip(reader.expert, found.picture, higher, EXPERT_SIZE)
        closer = replace(
            first, answer=answer, to_strip=to_strip, size=EXPERT_SIZE, sure_chance=LIKELY_CHANCE
        )

        @cache
        def look_again() -> Seen:
            again, _ = read_strip(reader.expert, found.picture, fitted, EXPERT_SIZE)
            return replace(closer, answer=average(answer, again))

        return replace(closer, look_closer=look_again)

    return replace(first, look_closer=look_closer)


def average(first: Answer, second: Answer) -> Answer:
    """The mean of the log-probabilities, as an answer; both have columns in the same places."""
    mean = (first + second) / 2
    return np.asarray(mean - np.logaddexp.reduce(mean), np.float32)


class Choice(NamedTuple):
    """What a line may show."""

    numbers: list[Proposal]  # the best first
    reason: Reason  # why a person should check the first
    is_free: bool  # whether nothing was known, or no known number is plausible
    seen: Seen  # as the network saw it whose readings these are

    @property
    def is_sure(self) -> bool:
        """Whether nobody needs to look closer. The expert has learned no line without a digit."""
        best = self.numbers[0]
        is_likely = best.chance >= self.seen.sure_chance
        return not best.number or (is_likely and self.reason != "not allowed")


def choose_readings(seen: Seen, known: Known) -> Choice:
    """What a line may show. If numbers are known, their chances are those among these.

    Raises `ImageError` if nothing can be read.
    """
    choice = choose_in(seen, known)
    while seen.look_closer and not (choice and choice.is_sure):
        seen = seen.look_closer()
        choice = choose_in(seen, known)
    if not choice:
        raise ImageError(NOTHING_SEEN)
    return choice


def choose_in(seen: Seen, known: Known) -> Choice | None:
    """What a line may show as one network saw it; None if nothing can be read."""
    automaton = known.automaton
    wanted = seen.weigh(automaton)
    if wanted and (known.is_nothing or is_plausible(seen, wanted[0].number)):
        is_fraction = may_be_fraction(seen.answer, seen.line, wanted[0].number, known)
        reason: Reason = seen.reason or ("other signs" if is_fraction else "")
        return Choice(wanted, reason, known.is_nothing, seen)
    free = [] if known.is_nothing else seen.weigh()
    return Choice(free, seen.reason or "not allowed", True, seen) if free else None


def is_plausible(seen: Seen, number: str) -> bool:
    """Whether the digits of a number are not much less probable than the likeliest ones.

    That nothing is written must be the likeliest.
    """
    digits = only_digits(number)
    if digits == "".join(sign for sign, _ in spell(seen.digits_answer)):
        return True  # mostly
    chances = dict(seen.weigh(DIGITS_ONLY, others=[Proposal(digits, UNSEEN_CHANCE)]))
    share = MIN_PLAUSIBLE if digits else 1.0
    return chances.get(digits, 0.0) >= share * max(chances.values(), default=1.0)


def list_digits(
    seen: Seen, number: str, shape: tuple[int, ...], to_page: NDArray[np.float64]
) -> list[FoundDigit]:
    """The digits of a number, without its signs; their boxes are in px of a page.

    `shape` is the height and width of the picture in which the number was found; the (3, 3) matrix
    leads from its px to those of the page. A digit's box is that of a candidate around its middle,
    else one of the usual width. Parts of it beyond the picture's edges are left out.
    """
    answer = seen.answer
    columns = np.array(align(answer, number))
    is_digit = [sign in NUMERALS for sign in number]
    columns, number = columns[is_digit], "".join(sign for sign in number if sign in NUMERALS)
    if not number:  # a fraction alone
        return []
    to_picture = cv2.invertAffineTransform(seen.to_strip)
    middles = np.outer((columns + 0.5) * STRIDE, to_picture[:, 0])
    middles += to_picture @ (0, seen.size.height / 2, 1)
    chances = np.exp(answer[[*map(int, number)], columns]).tolist()
    candidates = [*zip(seen.line.chances.tolist(), seen.line.boxes.tolist(), strict=True)]
    half = seen.size.digit / 2 * float(np.hypot(*to_picture[:, 0]))
    to_original = np.vstack([seen.to_original, (0, 0, 1)])
    boxes = list[list[float]]()
    for x, y in middles.tolist():
        around = [one for one in candidates if one[1][0] < x < one[1][2]]
        usual = [x - USUAL_WIDTH * half, y - half, x + USUAL_WIDTH * half, y + half]
        boxes.append(max(around, key=itemgetter(0))[1] if around else usual)
    inside = map_boxes(np.array(boxes), to_original).clip(0, shape[::-1] * 2)
    sides = map_boxes(inside, to_page).round(1).tolist()
    found = zip(map(int, number), chances, sides, strict=True)
    return [FoundDigit(digit, chance, *box) for digit, chance, box in found]


def map_boxes(boxes: NDArray[np.float64], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The upright boxes around boxes, both (N, 4), in the px of another picture, to which the
    matrix leads."""
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(1, -1, 2)
    moved = cv2.perspectiveTransform(corners, matrix).reshape(-1, 4, 2)
    return np.concatenate([moved.min(1), moved.max(1)], 1)


def share_rest(readings: list[Proposal], confidence: float) -> list[Proposal]:
    """The numbers after the first, with the probability that each is right.

    They have the share of what the first one's confidence leaves that they had of what its chance
    left. The rest is that of numbers that were not weighed.
    """
    first, *others = readings
    left = max(1 - first.chance, sum(one.chance for one in others), 1e-9)
    return [one._replace(chance=(1 - confidence) * one.chance / left) for one in others]


def list_alternatives(readings: list[Proposal], confidence: float) -> list[Alternative]:
    """The likeliest numbers after the first; none is more probable than the first."""
    rest = [one for one in share_rest(readings, confidence) if one.number]
    return [
        Alternative(one.number, min(one.chance, confidence))
        for one in rest[:MAX_ALTERNATIVES]
        if one.chance >= MIN_ALTERNATIVE
    ]
