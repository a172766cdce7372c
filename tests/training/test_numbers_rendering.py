"""The rendered pictures of whole numbers: what is in them, and where."""

import cv2
import numpy as np
import pytest

from digitq.protocol.asked.values import ALPHABET
from digitq.worker.models.number_networks import OTHER
from training.synthetic import number_scenes as numbers
from training.synthetic import papers
from training.synthetic import printed_forms as forms
from training.synthetic.arranging import (
    choose_digits,
    hull_of,
    write_in_cells,
    write_line,
)
from training.synthetic.glyphs import ANGULAR_DIGITS, MARKS, ROUND_DIGITS
from training.synthetic.number_scenes import (
    DOUBT_SHARES,
    MAX_PERSPECTIVE,
    NumberScene,
    choose_canvas,
    render_number,
)
from training.synthetic.sheets import corners_of, move
from training.synthetic.strays import mix_in_letters
from training.synthetic.tracing import thin, trace
from training.synthetic.writing import Hand, Scripts, choose_hand, draw_strokes, write_mark

SHAPES = np.zeros((40, 28, 28), np.uint8)
SHAPES[:, 4:24, 12:16] = SHAPES[:, 20:24, 8:20] = 255
SCRIPTS = Scripts(SHAPES, np.arange(40) % 10)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def render(seed: int) -> NumberScene:
    return render_number(SCRIPTS, rng(seed))


def hand(seed: int) -> Hand:
    return choose_hand(SCRIPTS, rng(seed))


@pytest.mark.parametrize("seed", range(40))
def test_each_digit_has_a_box_inside_the_picture(seed: int) -> None:
    scene = render(seed)
    height, width = scene.picture.shape[:2]
    assert scene.picture.dtype == np.uint8 and height >= 8 and width >= 8
    for signs, boxes, last in (
        (scene.digits, scene.boxes, 9),
        (scene.other_signs, scene.other_boxes, OTHER),
    ):
        assert boxes.shape == (len(signs), 4) and all(0 <= sign <= last for sign in signs)
        assert (boxes >= 0).all() and (boxes <= (width, height, width, height)).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()


@pytest.mark.parametrize("seed", range(40))
def test_a_box_ends_where_the_ink_of_its_digit_ends(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numbers, "take", lambda ink, *others: ink)
    scene = render(seed)
    for box in scene.boxes:
        left, top, right, bottom = np.clip(np.round(box), 0, None).astype(int)
        if left == 0 or right == scene.picture.shape[1]:
            continue  # the picture may end within the digit
        inked = scene.picture[top:bottom, left:right] > 40
        assert inked[:3].any() and inked[-3:].any()
        assert inked[:, :3].any() and inked[:, -3:].any()


@pytest.mark.parametrize("seed", range(5))
def test_the_same_seed_gives_the_same_bits(seed: int) -> None:
    one, other = render(seed), render(seed)
    assert one.picture.tobytes() == other.picture.tobytes()
    assert one.digits == other.digits and (one.boxes == other.boxes).all()


def test_no_picture_reaches_to_the_horizon() -> None:
    turn = np.eye(3)
    turn[2, :2] = MAX_PERSPECTIVE / 40
    number = move(corners_of(np.array([-20, -20, 20, 20])), turn)
    for seed in range(500):
        size, view = choose_canvas(turn, number, 40, rng(seed))
        sheet = move(corners_of(np.array([0, 0, *size])), np.linalg.inv(view))
        assert np.ptp(sheet, axis=0).prod() < 4 * np.prod(size)


@pytest.mark.slow
def test_every_doubt_and_every_kind_of_picture_appears() -> None:
    scenes = [render(seed) for seed in range(250)]
    assert {scene.doubt for scene in scenes} == {"", *DOUBT_SHARES}
    assert {scene.picture.ndim for scene in scenes} == {2, 3}
    assert not any(scene.digits for scene in scenes if scene.doubt == "no number")
    assert all(scene.text for scene in scenes if scene.doubt in ("", "letters"))  # ½ has no digit
    assert all(scene.doubt for scene in scenes if scene.other_signs)
    kinds = {scene.doubt for scene in scenes if OTHER in scene.other_signs}
    assert {"letters", "crossed out"} <= kinds <= {"letters", "crossed out", "no number"}
    lengths = [len(scene.digits) for scene in scenes]
    assert min(lengths) == 0 and max(lengths) > 12
    light = np.array([np.median(scene.picture) > 127 for scene in scenes])
    assert 0.3 < light.mean() < 0.95


def test_each_form_is_printed_around_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = []
    for name, (form, share) in forms.FORMS.items():

        def note(*arguments: object, name: str = name, form: forms.Form = form) -> None:
            printed.append(name)
            form(*arguments)  # type: ignore[arg-type]

        monkeypatch.setitem(numbers.FORMS, name, (note, share))
    for seed in range(60):
        render(seed)
    assert {*printed} == {*forms.FORMS}


@pytest.mark.parametrize("write", [write_line, write_in_cells])
def test_digits_are_written_in_their_order(write: object) -> None:
    assert callable(write)
    for seed in range(30):
        digits = choose_digits(rng(seed))
        line = write(digits, 30, hand(seed), rng(seed))
        read = [sign for sign in line.signs if sign.digit is not None]
        assert [sign.digit for sign in read] == digits
        middles = [hull_of(sign)[:, 0].mean() for sign in read]
        assert middles == sorted(middles)


def test_numbers_have_1_to_20_digits_and_amounts_end_in_zeros() -> None:
    drawn = [choose_digits(rng(seed)) for seed in range(2000)]
    assert {len(digits) for digits in drawn} == {*range(1, 21)}
    last = [digits[-1] for digits in drawn]
    assert {*last} == {*range(10)} and last.count(0) > 0.2 * len(last)


@pytest.mark.parametrize("glyphs", [ROUND_DIGITS, ANGULAR_DIGITS])
def test_every_glyph_is_drawn(glyphs: dict[int, list[str]]) -> None:
    assert [*glyphs] == [*range(10)] and all(glyphs.values())
    for glyph in (glyph for variants in glyphs.values() for glyph in variants):
        mask, start, end = draw_strokes(glyph, (28, 40), 3, hand(0), rng())
        assert 35 < mask.shape[0] < 70 and 0.02 < (mask > 127).mean() <= 1
        assert start.shape == end.shape == (2,)


@pytest.mark.parametrize("name", MARKS)
def test_every_mark_is_written(name: str) -> None:
    mark = write_mark(name, 30, hand(1), rng())
    assert mark.digit is None and mark.mask.max() > 127


def test_a_digit_is_thinned_to_lines_that_hold_together() -> None:
    mask = (SHAPES[0] > 127).astype(np.uint8)
    line = thin(mask)
    parts, _ = cv2.connectedComponents(line)
    assert parts == 2 and 20 < line.sum() < 0.4 * mask.sum()  # the background is a part, too


def test_a_wider_pen_leaves_more_ink() -> None:
    inks = [(trace(SHAPES[0], pen, 0, 1) > 127).sum() for pen in (0.05, 0.1, 0.15)]
    assert inks == sorted(inks) and inks[-1] > 2 * inks[0]


@pytest.mark.parametrize("draw", dict.fromkeys(papers.PATTERNS), ids=lambda draw: draw.__name__)
def test_patterns_are_shares(draw: object) -> None:
    assert callable(draw)
    for seed in range(5):
        pattern = draw(50, 80, 20, rng(seed))
        assert pattern.shape == (50, 80) and pattern.min() >= 0 and pattern.max() <= 1


def test_letters_take_the_places_of_some_digits() -> None:
    line = write_line([1, 2, 3, 4, 5], 40, hand(0), rng())
    mixed = mix_in_letters(line, 40, hand(0), rng(1))
    before, after = ([sign.digit for sign in one.digits] for one in (line, mixed))
    others = [place for place, digit in enumerate(after) if digit == OTHER]
    assert 1 <= len(others) <= 2 and len(after) == len(before)
    assert all(after[place] == before[place] for place in range(5) if place not in others)
    for place in others:  # a letter stands where its digit stood
        middles = [
            (one.digits[place].bounds[0] + one.digits[place].bounds[2]) / 2 for one in (line, mixed)
        ]
        assert abs(middles[0] - middles[1]) <= 1


def test_a_unit_is_before_the_digits_and_is_none() -> None:
    lines = [write_line([7, 8], 40, hand(seed), rng(seed)) for seed in range(200)]
    first = [line.signs[0] for line in lines]
    assert 0.1 < np.mean([sign.digit is None for sign in first]) < 0.4
    assert all([sign.digit for sign in line.digits] == [7, 8] for line in lines)


@pytest.mark.parametrize(("darker", "is_seen"), [(60, True), (10, False), (-60, True)])
def test_a_point_is_visible_if_it_differs_by_more_than_the_grain(
    darker: int, is_seen: bool
) -> None:
    picture = 150 + np.random.default_rng(0).normal(0, 12, (30, 40))
    picture[14:17, 20:23] -= darker
    box = np.array([20, 14, 23, 17], np.float32)
    assert numbers.is_visible(picture.clip(0, 255).astype(np.uint8), box) == is_seen


def test_signs_that_nobody_can_see_or_name_are_not_in_the_text() -> None:
    generator = np.random.default_rng(3)
    scenes = [render_number(SCRIPTS, generator) for _ in range(150)]
    unknown = [scene for scene in scenes if not scene.knows_signs]
    assert 5 < len(unknown) < 50
    assert all(scene.text == "".join(map(str, scene.digits)) for scene in unknown)
    assert all(set(scene.text) <= set(ALPHABET) for scene in scenes)
