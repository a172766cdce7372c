"""A line that is read column by column: strips, proposals, weights, the places of digits."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from digitq.protocol.asked.known import Known
from digitq.protocol.asked.values import ValueSet
from digitq.worker.learning.column_batches import NOT_LEARNED, measure_losses
from digitq.worker.learning.columns import Columns, Expert, fold
from digitq.worker.learning.number_examples import cut_strips
from digitq.worker.learning.strip_variations import cut_off, draw_sides, show_row, vary
from digitq.worker.models.number_networks import BLANK, COLUMNS_SIZE, EXPERT_SIZE, STRIDE, StripSize
from digitq.worker.sight.numbers.ctc import (
    align,
    choose_columns,
    propose,
    spell,
    sum_paths,
    weigh,
)
from digitq.worker.sight.numbers.line_strip import MAX_STRIP, cut_strip, fit_line
from tests.scenes import draw_scene
from training.number_trainer import RealNumbers


def answer(*columns: dict[int, float]) -> np.ndarray:
    """Log-probabilities, (21, T), of columns in which the named classes share what is named."""
    shares = np.full((len(columns), BLANK + 1), 1e-6)
    for row, column in enumerate(columns):
        shares[row, [*column]] = [*column.values()]
    return np.log(shares / shares.sum(1, keepdims=True)).T.astype(np.float32)


NONE = {BLANK: 1.0}


def test_the_same_digit_twice_needs_a_column_between() -> None:
    assert propose(answer(NONE, {7: 1}, {7: 1}, NONE, {7: 1}, NONE))[0] == "77"
    assert propose(answer(NONE, {7: 1}, {7: 1}, {3: 1}, NONE))[0] == "73"
    assert propose(answer(NONE, NONE)) == []


def test_a_number_has_the_sum_of_all_its_ways() -> None:
    rng = np.random.default_rng(0)
    some = np.log(rng.dirichlet(np.full(3, 0.7), 6))
    table = np.full((BLANK + 1, 6), -40, np.float32)
    table[[1, 2, BLANK]] = some.T
    sums: dict[str, float] = {}
    for way in itertools.product((1, 2, BLANK), repeat=6):
        number = "".join(str(sign) for sign, _ in itertools.groupby(way) if sign != BLANK)
        chance = np.exp(sum(table[sign, at] for at, sign in enumerate(way)))
        sums[number] = sums.get(number, 0) + float(chance)
    numbers = [number for number in sums if number]
    assert np.exp(weigh(table, numbers)) == pytest.approx([sums[n] for n in numbers], rel=1e-3)
    assert propose(table)[0] == max(numbers, key=lambda number: sums[number])


def test_a_long_answer_is_weighed_as_a_ctc_loss() -> None:
    logits = torch.from_numpy(np.random.default_rng(0).normal(0, 2, (600, 1, BLANK + 1)))
    table = logits.log_softmax(2)
    numbers = ["7", "00", "1234567890", "11223344556677889900"]
    losses = [
        F.ctc_loss(table, torch.tensor([[*map(int, number)]]), (600,), (len(number),), BLANK, "sum")
        for number in numbers
    ]
    weights = weigh(table[:, 0].T.numpy().astype(np.float32), numbers)
    assert weights.max() < np.log(np.finfo(float).tiny)  # no float is so small
    assert weights == pytest.approx([-float(loss) for loss in losses], rel=1e-5)


@pytest.mark.parametrize(
    ("length", "allowed", "number"),
    [
        (None, None, "17"),
        ("3", None, "147"),
        ("1", None, "7"),
        (None, ["29", "47", "8"], "47"),
        ("3", ["17", "147", "194"], "147"),
    ],
)
def test_what_is_known_leaves_numbers_out(
    length: str | None, allowed: list[str] | None, number: str
) -> None:
    columns = answer(NONE, {1: 0.9, BLANK: 0.1}, {4: 0.2, BLANK: 0.8}, {7: 0.95, 9: 0.05}, NONE)
    assert propose(columns, Known.check(length, allowed).automaton)[0] == number


def test_the_likeliest_classes_spell_digits() -> None:
    columns = answer({1: 0.6, BLANK: 0.4}, {1: 1}, NONE, {1: 0.6, BLANK: 0.4}, {4: 1}, NONE)
    assert spell(columns) == [("1", 1), ("1", 3), ("4", 4)]
    assert spell(answer(NONE)) == []


def test_columns_that_are_none_count_once() -> None:
    columns = answer(NONE, NONE, {7: 1}, NONE, NONE, {3: 1}, {3: 1}, NONE, NONE)
    assert choose_columns(columns, 2).tolist() == [2, 3, 5, 6, 7]
    assert choose_columns(columns, 4).tolist() == [*range(9)]  # too few for so many digits


def test_digits_are_where_they_are_clearest() -> None:
    columns = answer(NONE, {3: 0.6, BLANK: 0.4}, {3: 1}, NONE, NONE, {3: 1}, {8: 1}, NONE)
    assert align(columns, "338") == [2, 5, 6]
    unsure = answer(NONE, {3: 0.6, 5: 0.4}, {3: 0.9, 5: 0.1}, NONE, {8: 1}, NONE)
    assert align(unsure, "38") == [2, 4] and align(unsure, "58") == [1, 4]
    assert np.diff(align(answer(*[NONE] * 7), "111")).min() >= 2  # a column between the same digits
    assert weigh(answer(*[NONE] * 5), ["12345", "11111"]) == pytest.approx([-69, -np.inf], rel=0.1)


@pytest.mark.parametrize("size", [COLUMNS_SIZE, EXPERT_SIZE])
def test_a_strip_is_upright_and_of_one_height(size: StripSize) -> None:
    picture = np.full((400, 600), 255, np.uint8)
    boxes = []
    for place in range(6):  # squares on a line that falls by 14°
        left, top = 60 + 80 * place, 60 + 20 * place
        picture[top : top + 60, left : left + 60] = 0
        boxes.append((left, top, left + 60, top + 60))
    place = fit_line(np.array(boxes, np.float32))
    strip, matrix = cut_strip(picture, place, 0.5, 0.5, size)
    assert strip.shape[0] == size.height and strip.shape[1] % STRIDE == 0
    middles = np.array([(left + 30, top + 30, 1) for left, top, *_ in boxes]) @ matrix.T
    assert middles[:, 1] == pytest.approx(size.height / 2, abs=1)
    ink = strip[:, np.round(middles[:, 0]).astype(int)] < strip.mean()
    assert abs(ink.sum(0).mean() - size.digit) < 3
    beside = strip[:, np.round(middles[:-1, 0] + 40 * size.digit / 60).astype(int)]
    assert (beside[6:-6] > strip.mean()).all()


def test_a_very_long_line_is_squeezed() -> None:
    lefts = np.arange(20) * 100.0
    boxes = np.stack([lefts, np.full(20, 5.0), lefts + 12, np.full(20, 25.0)], 1)
    picture = np.full((30, 2000), 255, np.uint8)
    strip, matrix = cut_strip(picture, fit_line(boxes.astype(np.float32)), 0, 0, COLUMNS_SIZE)
    last = matrix @ (1906, 15, 1)
    assert strip.shape == (COLUMNS_SIZE.height, MAX_STRIP) and last[0] < MAX_STRIP
    assert last[1] == pytest.approx(COLUMNS_SIZE.height / 2, abs=0.5)


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ((1, 10_000), (0, 0, 9, 1)),
        ((40, 30), (-5, -5, 60, 60)),
        ((700, 700), (10, 10, 12, 690)),
        ((9, 9), (4, 4, 5, 5)),
    ],
)
def test_any_line_can_be_cut(shape: tuple[int, int], box: tuple[int, ...]) -> None:
    place = fit_line(np.array([box], np.float32))
    strip, _ = cut_strip(np.zeros(shape, np.uint8), place, 1, 1, COLUMNS_SIZE)
    assert strip.shape[0] == COLUMNS_SIZE.height and 0 < strip.shape[1] <= MAX_STRIP
    assert np.isfinite(strip).all()


@pytest.mark.parametrize("size", [COLUMNS_SIZE, EXPERT_SIZE])
def test_each_digit_has_its_columns(size: StripSize) -> None:
    scenes = [draw_scene([1, 5, 5, 9][: 1 + number % 4]) for number in range(60)]
    scenes += [draw_scene([]), scenes[0]._replace(doubt="letters")]  # nothing is learned of them
    batches = RealNumbers(()).make_strip_batches(scenes, np.random.default_rng(0), size, 0)
    assert sum(len(batch.images) for batch in batches) == 60
    for batch in batches:
        start = 0
        for image, columns, length in zip(batch.images, batch.columns, batch.lengths, strict=True):
            digits = batch.classes[start : start + length].tolist()
            start += int(length)
            signs = [column for column in columns.tolist() if column != NOT_LEARNED]
            named = [sign for sign, _ in itertools.groupby(signs) if sign != BLANK]
            assert named == digits
            at_digit = ((columns >= 0) & (columns < BLANK)).nonzero()[:, 0]
            ink = image[0, size.height // 2, STRIDE * at_digit]
            assert abs(ink.mean() - image[image != 0].median()) > 0.3  # 0 beyond the strip


def test_signs_that_are_cut_off_are_not_learned() -> None:
    rng = np.random.default_rng(0)
    (whole,) = cut_strips([draw_scene([1, 5, 7, 9])], rng, EXPERT_SIZE)
    parts = [cut_off(whole, rng) for _ in range(40)]
    assert {"1", "9", "157", "579"} < {part.text for part in parts}
    for part in parts:
        width = part.values.shape[1]
        assert len(part.middles) == len(part.text) < 4 and width % STRIDE == 0
        assert ((part.middles > 0) & (part.middles < width)).all()
        at = whole.text.index(part.text)
        apart = whole.middles[at : at + len(part.text)] - part.middles
        assert np.allclose(apart, apart[0])  # the digits stay where they are in the picture


def test_a_strip_is_shown_between_the_rules_of_a_table() -> None:
    rng = np.random.default_rng(0)
    (whole,) = cut_strips([draw_scene([1, 5, 7, 9])], rng, EXPERT_SIZE)
    left, right = whole.middles[[0, -1]].round().astype(int)
    sides = []
    for _ in range(40):
        drawn = draw_sides(whole.values, whole.middles, rng)
        assert drawn.shape == whole.values.shape and drawn.dtype == np.float32
        assert abs(drawn.mean()) < 1e-4 and drawn.std() == pytest.approx(1, abs=0.01)
        is_rule = (drawn < -0.5).mean(0) > 0.9
        sides.append((is_rule[:left].any(), is_rule[right:].any()))
        assert not is_rule[left + 6 : right - 6].any()
    assert {*map(tuple, sides)} >= {(True, True), (True, False), (False, True)}


def test_the_row_beside_a_strip_covers_none_of_its_ink() -> None:
    rng = np.random.default_rng(0)
    first, second = cut_strips([draw_scene([1, 5]), draw_scene([8, 8])], rng, EXPERT_SIZE)
    changed = []
    for _ in range(20):
        shown = show_row(first.values, second.values, rng)
        assert (shown <= first.values).all()
        changed.append((shown < first.values).any(1))
    middle = EXPERT_SIZE.height // 2
    assert not np.any(changed, 0)[middle - 2 : middle + 2].any()
    assert {(bool(one[:middle].any()), bool(one[middle:].any())) for one in changed} == {
        (True, False),
        (False, True),
    }


def test_a_varied_strip_is_still_what_it_was() -> None:
    rng = np.random.default_rng(0)
    strips = [*cut_strips([draw_scene([1, 5, 7, 9]), draw_scene([3])], rng, EXPERT_SIZE)]
    changed = 0
    for _ in range(30):
        for before, after in zip(strips, vary(strips, rng), strict=True):
            assert after.values.dtype == np.float32 and np.isfinite(after.values).all()
            changed += not np.array_equal(after.values, before.values)
            assert after.values.shape[0] == EXPERT_SIZE.height
            assert after.values.shape[1] % STRIDE == 0
            assert after.text in before.text and len(after.middles) == len(after.text)
            assert (after.middles > 0).all() and (after.middles < after.values.shape[1]).all()
    assert changed > 50  # of 60


@pytest.mark.parametrize(("make", "size"), [(Columns, COLUMNS_SIZE), (Expert, EXPERT_SIZE)])
def test_it_learns_and_folding_keeps_its_answers(
    make: type[Columns] | type[Expert], size: StripSize
) -> None:
    torch.manual_seed(0)
    network, rng = make(), np.random.default_rng(0)
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    (batch,) = RealNumbers(()).make_strip_batches([draw_scene([1, 2, 3])] * 20, rng, size, 0)
    losses = []
    for _ in range(12):
        loss = torch.stack(measure_losses(network, batch)).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 3
    with torch.no_grad():
        before = network.eval()(batch.images)
        assert torch.allclose(fold(network)(batch.images), before, atol=1e-3)


@pytest.mark.parametrize(
    ("pattern", "allowed"),
    [
        ("integer", None),
        (r"\d{2}", None),
        (r"1+2?|\d1{2,}", None),
        (r"\d+\.\d", None),  # what is left without the sign: two digits or more
        (r"-?1[.,]?2|21", None),
        (None, ["12", "1", "211", "2-2", "33"]),
    ],
)
def test_all_paths_of_a_pattern_or_a_list_are_summed_up(
    pattern: str | None, allowed: list[str] | None
) -> None:
    rng = np.random.default_rng(1)
    table = np.full((BLANK + 1, 6), -40, np.float32)
    table[[1, 2, BLANK]] = np.log(rng.dirichlet(np.full(3, 0.7), 6)).T
    automaton = Known.check(pattern=pattern, allowed=allowed).automaton
    assert isinstance(automaton, ValueSet)
    total = 0.0
    for way in itertools.product((1, 2, BLANK), repeat=6):
        number = "".join(str(sign) for sign, _ in itertools.groupby(way) if sign != BLANK)
        if not number or automaton.without_signs.put_signs_in(number)[0]:
            total += float(np.exp(sum(table[sign, at] for at, sign in enumerate(way))))
    assert 0.01 < total < 1.0001
    found = sum_paths(table, automaton.without_signs)
    assert found == pytest.approx(total, abs=1e-3) and found > total - 1e-6


def test_a_sum_over_more_states_than_have_numbers_is_never_too_low() -> None:
    """Of ten digits, each may be two: 1,024 numbers, one in three of which is allowed."""
    columns = answer(*[{sign: 0.5, sign + 1: 0.5} if sign else NONE for sign in [0, 1, 0, 3] * 5])
    both = [str(one) + str(other) for one in (1, 2) for other in (3, 4)]
    allowed = ["".join(parts) for parts in itertools.product(both, repeat=5)][::3]
    list_of_them = Known.check(allowed=allowed).automaton
    assert isinstance(list_of_them, ValueSet)
    total = float(np.exp(weigh(columns, allowed)).sum())
    first = sum_paths(columns, list_of_them.without_signs)
    assert total - 1e-6 < first < 1
    sum_paths(answer({7: 1}, NONE), list_of_them.without_signs)
    assert sum_paths(columns, list_of_them.without_signs) == first  # whatever was read before
