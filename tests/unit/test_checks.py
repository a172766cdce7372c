"""The values of a page are decided together: readings, rules, and what a rule may not do."""

import math
import random
import time
from collections import defaultdict
from collections.abc import Callable
from fractions import Fraction
from itertools import product

import cv2
import numpy as np
import pytest

from benchmarks.marks import read_sheet
from digitq.protocol.asked.broken_rules import Written, find_breaches, hold_checks
from digitq.protocol.asked.form import Cell, Check, Choice, Field, Form
from digitq.protocol.asked.known import TICK, Known
from digitq.protocol.asked.rules import read_values
from digitq.worker.sight.forms.decision import BROKEN, Decision, decide
from digitq.worker.sight.numbers.weighing import Proposal
from tests.forms import FONT

Chances = dict[str, float]


def solve(fields: dict[str, Chances], *rules: str, within: float = 0.0) -> dict[str, Decision]:
    """Decide fields, and columns, which are named as `c1/2` for the second row."""
    cells = [
        Cell(name, "marks" if row else "", int(row or 0), Known())
        for name, _, row in (field.partition("/") for field in fields)
    ]
    readings = [[Proposal(*one) for one in chances.items()] for chances in fields.values()]
    decided = decide(cells, readings, [Check(rule, within) for rule in rules])
    return dict(zip(fields, decided, strict=True))


def numbers(decided: dict[str, Decision]) -> list[str]:
    return [one.number for one in decided.values()]


def failed(decided: dict[str, Decision]) -> list[str]:
    return [name for name, one in decided.items() if one.failed]


def test_without_rules_each_is_what_it_looks_like() -> None:
    decided = solve({"a": {"7": 0.6, "1": 0.3, "": 0.1}, "b": {}})
    assert decided["a"] == Decision("7", 0.6, [("1", 0.3)], False)
    assert decided["b"] == Decision("", 0.0, [], False)


def test_a_rule_chooses_among_what_may_be_read() -> None:
    fields = {"valid": {"63": 0.5, "68": 0.4, "65": 0.1}, "bad": {"7": 0.9, "1": 0.1}}
    decided = solve({**fields, "total": {"75": 0.7, "15": 0.3}}, "valid + bad == total")
    assert numbers(decided) == ["68", "7", "75"] and not failed(decided)
    assert decided["valid"].confidence > 0.95 and decided["bad"].confidence > 0.95
    assert decided["valid"].alternatives[0].number == "63"


def test_a_rule_does_not_overrule_what_is_clearly_written() -> None:
    clear = {"10": 0.998, "11": 0.002}
    decided = solve({"a": clear, "b": clear, "c": {"21": 0.999}}, "a + b == c")
    assert numbers(decided) == ["10", "10", "21"] and failed(decided) == ["a", "b", "c"]
    assert decided["a"].confidence > 0.7 and decided["c"].confidence == pytest.approx(1)


def test_what_no_combination_satisfies_is_marked_alone() -> None:
    rows = {
        "c1/1": {"1": 1.0},
        "c2/1": {"1": 1.0},
        "c1/2": {"3": 0.9, "2": 0.1},
        "c2/2": {"4": 1.0},
    }
    assert failed(solve(rows, "c1 == c2")) == ["c1/2", "c2/2"]


def test_two_rules_say_more_than_one() -> None:
    fields = {"a": {"1": 0.997, "7": 0.003}, "b": {"2": 1.0}, "c": {"9": 1.0}, "d": {"70": 1.0}}
    assert numbers(solve(fields, "a + b == c"))[0] == "1"
    assert numbers(solve(fields, "a + b == c", "a * 10 == d"))[0] == "7"


def test_a_column_and_its_sum() -> None:
    column = {f"c1/{row}": {str(row): 0.9, str(row + 3): 0.1} for row in range(1, 6)}
    column["c1/3"] = {"8": 0.6, "3": 0.4}
    decided = solve(column | {"total": {"15": 1.0}}, "sum(c1) == total")
    assert numbers(decided) == ["1", "2", "3", "4", "5", "15"] and not failed(decided)


def test_a_mean_may_be_rounded() -> None:
    fields = {"low": {"11.2": 1.0}, "high": {"20.5": 1.0}, "mean": {"15.0": 0.6, "15.9": 0.4}}
    rule = "mean == (high + low) / 2"
    assert failed(solve(fields, rule)) == [*fields]
    decided = solve(fields, rule, within=0.05)
    assert numbers(decided)[2] == "15.9" and not failed(decided)


def test_a_product_with_a_sum() -> None:
    column = {"c1/1": {"8": 0.6, "3": 0.4}, "c1/2": {"1": 1.0}, "total": {"2": 1.0}}
    decided = solve(column, "sum(c1) == total * total")
    assert numbers(decided) == ["3", "1", "2"] and not failed(decided)


@pytest.mark.parametrize(
    ("rule", "answer"),
    [
        ("a * b == 21", ["3", "7"]),
        ("a / b < 1", ["3", "7"]),
        ("b / (a - 8) > -1", ["3", "1"]),
        ("2 <= a <= 4", ["3", "1"]),
        ("a != 8", ["3", "1"]),
        ("a < b", ["3", "7"]),
    ],
)
def test_rules_of_any_kind(rule: str, answer: list[str]) -> None:
    fields = {"a": {"8": 0.6, "3": 0.4}, "b": {"1": 0.6, "7": 0.4}}
    decided = solve(fields, rule)
    assert numbers(decided) == answer and not failed(decided)


def test_an_empty_place_is_marked_where_a_rule_wants_a_number() -> None:
    decided = solve({"a": {"": 0.99, "5": 0.01}, "b": {"4": 1.0}, "c": {"9": 1.0}}, "a + b == c")
    assert numbers(decided) == ["", "4", "9"] and failed(decided) == ["a"]
    assert not failed(solve({"a": {"": 1.0}, "b": {"9": 1.0}, "c": {"9": 1.0}}, "a + b == c"))
    assert not failed(solve({"a": {"": 1.0}, "b": {"": 1.0}}, "1 <= a <= b"))  # an empty line
    clear = solve({"a": {"6": 0.97, "": 0.03}, "b": {"4": 1.0}, "c": {"9": 1.0}}, "a + b == c")
    assert numbers(clear) == ["6", "4", "9"] and failed(clear) == ["a", "b", "c"]
    assert not failed(solve({"a": {}, "b": {"4": 1.0}, "c": {"9": 1.0}}, "a + b == c"))


def judge(rule: str, pattern: str | None, **numbers: str | None) -> dict[str, str] | None:
    """The places to look at, and what a rule wants there; None if it is not broken."""
    known = Known.check(pattern=pattern)
    cells = [Cell(name, "", 0, known) for name in numbers]
    written = [Written(one) for one in numbers.values()]
    found = [*find_breaches(cells, written, hold_checks(cells, [Check(rule, 0)]))]
    return {cells[at].field: found[0].wanted for at in sorted(found[0].cells)} if found else None


@pytest.mark.parametrize(
    ("numbers", "looked_at"),
    [
        (("3", "4", "", "7"), None),
        (("3", "4", "", "9"), {"c": "2"}),
        (("3", "4", "", "17"), {"c": "10"}),
        (("3", "4", "", "18"), dict.fromkeys("abcd", "")),  # a pattern without 11
        (("3", "4", "", "6"), dict.fromkeys("abcd", "")),
        (("3", "", "", "9"), {"b": "", "c": ""}),
        (("3", "", "", "28"), dict.fromkeys("abcd", "")),
        (("3", "4", "5", ""), {"d": "12"}),
        (("3", "4", None, "9"), None),  # the place has an error anyway
        (("3", "4", None, "18"), dict.fromkeys("abcd", "")),
        (("", "", "", ""), None),
        (("3", "4", "", "1/2/24"), None),
    ],
)
def test_what_the_pattern_of_an_empty_place_allows(
    numbers: tuple[str, ...], looked_at: dict[str, str] | None
) -> None:
    found = judge("a + b + c == d", r"\d|10|12", **dict(zip("abcd", numbers, strict=True)))
    assert found == looked_at


@pytest.mark.parametrize(
    ("rule", "numbers", "looked_at"),
    [
        ("a < b", {"a": "", "b": "0"}, {"a": "", "b": ""}),
        ("a > b", {"a": "", "b": "3"}, {"a": ""}),
        ("a > b", {"a": "", "b": "999"}, {"a": "", "b": ""}),
        ("a * b == 12", {"a": "", "b": "4"}, {"a": ""}),
        ("a * b == 12", {"a": "", "b": "5"}, {"a": "", "b": ""}),
        ("a / 2 == b", {"a": "", "b": "4"}, {"a": "8"}),
        ("sum(a, b) == c", {"a": "", "b": "4", "c": "4"}, None),
        ("sum(a, b) == c", {"a": "", "b": "4", "c": "9"}, {"a": "", "b": "", "c": ""}),
    ],
)
def test_rules_with_an_empty_place(
    rule: str, numbers: dict[str, str], looked_at: dict[str, str] | None
) -> None:
    assert judge(rule, r"\d{1,3}", **numbers) == looked_at


def test_an_empty_place_that_may_be_anything_is_marked() -> None:
    assert judge("a + b == c", None, a="", b="4", c="9000") == {"a": "8996"}
    assert judge("a + b == c", r"\d+", a="", b="", c="9000") is not None
    assert judge("a + b == c", r"\d{5}", a="", b="7", c="5") == dict.fromkeys("abc", "")
    assert judge("a + b == c", r"-?\d{5}", a="", b="70000", c="50000") == {"a": "-20000"}


def test_a_person_s_empty_place_is_0() -> None:
    cells = [Cell(name, "", 0, Known()) for name in "abc"]
    held = hold_checks(cells, [Check("a + b == c", 0)])
    written = [Written("4"), Written("", is_sure=True), Written("9")]
    assert [one.cells for one in find_breaches(cells, written, held)] == [{0, 1, 2}]


def test_an_empty_place_of_a_column_adds_nothing_to_its_sum() -> None:
    column = {"c1/1": {"": 1.0}, "c1/2": {"4": 0.6, "9": 0.4}, "total": {"9": 1.0}}
    assert numbers(solve(column, "sum(c1) == total")) == ["", "9", "9"]
    unread = {"c1/1": {}, "c1/2": {"4": 1.0}, "total": {"9": 1.0}}
    assert not failed(solve(unread, "sum(c1) == total"))
    wrong = {"c1/1": {"": 1.0}, "c1/2": {"4": 1.0}, "total": {"9": 1.0}}
    assert failed(solve(wrong, "sum(c1) == total")) == [*wrong]


@pytest.mark.parametrize(
    ("number", "values"),
    [
        ("007", ["7"]),
        ("-12.5", ["-12.5"]),
        ("+3,25", ["3.25"]),
        ("12.500", ["12500", "12.5"]),
        ("0.125", ["0.125"]),
        ("1,234.50", ["1234.5"]),
        ("1.234.567", ["1234567"]),
        ("1.234.567,8", ["1234567.8"]),
        ("40%", ["40"]),
        ("50.-", ["50"]),
        (".5", ["0.5"]),
        ("5.", ["5"]),
        ("7½", ["7.5"]),
        ("-¾", ["-0.75"]),
        ("1.234¼", ["1234.25"]),
        ("7½%", ["7.5"]),
        *((other, []) for other in ("7.5½", "½7", "½½", "7.½", "1/2")),
        *((other, []) for other in ("", "-", "1.2.24", "12/05/2024", "12:30", "1" * 16, "1,2,3")),
    ],
)
def test_what_a_number_is_worth(number: str, values: list[str]) -> None:
    assert read_values(number) == [*map(Fraction, values)]


def test_a_dot_may_separate_thousands() -> None:
    fields = {"a": {"12.500": 1.0}, "b": {"500": 1.0}, "c": {"13.000": 1.0}}
    assert not failed(solve(fields, "a + b == c"))
    assert not failed(solve(fields, "a < 13", "c > 12000"))


CHECKED: list[dict[str, Callable[[int, int, int, int], bool]]] = [
    {
        "a + b == c": lambda a, b, c, d: a + b == c,
        "c - d <= 2": lambda a, b, c, d: c - d <= 2,
        "a * d != 6": lambda a, b, c, d: a * d != 6,
    },
    {
        "b == 2 * (a == '3') + (c != '5') + 1": lambda a, b, c, d: b == 2 * (a == 3) + (c != 5) + 1,
        "c * (d == '2') < 6": lambda a, b, c, d: c * (d == 2) < 6,
        "luhn(d)": lambda a, b, c, d: d == 0,
    },
]


@pytest.mark.parametrize("checks", CHECKED)
def test_it_is_the_most_probable_of_all_combinations(
    checks: dict[str, Callable[[int, int, int, int], bool]],
) -> None:
    """As if each combination were tried."""
    chance = random.Random(1)
    rules = [*checks]
    for _ in range(30):
        fields = {}
        for name in "abcd":
            shares = [chance.expovariate(1) ** 2 for _ in range(4)]
            read = map(str, chance.sample(range(8), 4))
            pairs = zip(read, (share / sum(shares) for share in shares), strict=True)
            fields[name] = dict(sorted(pairs, key=lambda one: -one[1]))
        weights = {}
        for chosen in product(*fields.values()):
            broken = sum(not check(*map(int, chosen)) for check in checks.values())
            likely = math.prod(fields[name][one] for name, one in zip(fields, chosen, strict=True))
            weights[chosen] = likely * BROKEN**broken
        decided = solve(fields, *rules)
        best = max(weights, key=lambda chosen: weights[chosen])
        assert numbers(decided) == [*best]
        for index, one in enumerate(decided.values()):
            shares_of: Chances = defaultdict(float)
            for chosen, weight in weights.items():
                shares_of[chosen[index]] += weight / sum(weights.values())
            assert one.confidence == pytest.approx(shares_of[one.number], abs=0.02)


def make_sheet(rows: int, columns: int) -> tuple[dict[str, Chances], list[str], list[str]]:
    """A sheet with sums of rows, in its last column, and of columns, on which one of fifteen values
    is misread; the right values, and the rules."""
    chance = random.Random(2)
    values = [[chance.randrange(100) for _ in range(columns - 1)] for _ in range(rows)]
    table = [(*row, sum(row)) for row in values]
    right = {f"t{i + 1}": sum(row[i] for row in table) for i in range(columns)}
    for index, row in enumerate(table, 1):
        right |= {f"c{i + 1}/{index}": value for i, value in enumerate(row)}
    fields = {}
    for index, (name, value) in enumerate(right.items()):
        others = [str(value + change) for change in (1, 10, 3, 7, 30, 11, 70)]
        sure = 0.35 if index % 15 == 7 else 0.9
        rest = [(1 - sure) * share for share in (0.7, 0.2, 0.06, 0.02, 0.01, 0.005, 0.005)]
        chances = dict(zip([str(value), *others], [sure, *rest], strict=True))
        fields[name] = dict(sorted(chances.items(), key=lambda one: -one[1]))
    names = [f"c{i + 1}" for i in range(columns)]
    rules = [f"{' + '.join(names[:-1])} == {names[-1]}"]
    rules += [f"sum({name}) == t{name[1:]}" for name in names]
    return fields, [*map(str, right.values())], rules


def test_a_table_with_sums_of_rows_and_columns_takes_little_time() -> None:
    fields, right, rules = make_sheet(31, 3)
    before = [next(iter(chances)) for chances in fields.values()]
    begun = time.process_time()
    decided = solve(fields, *rules)
    assert time.process_time() - begun < 1  # it takes 0.1 s alone; other processes slow it down
    assert sum(map(str.__ne__, before, right)) == 6
    assert numbers(decided) == right and not failed(decided)
    assert min(one.confidence for one in decided.values()) > 0.95
    assert solve(fields, *rules) == decided


def test_a_wide_table_with_sums_of_rows_and_columns() -> None:
    fields, right, rules = make_sheet(20, 21)
    decided = solve(fields, *rules)
    assert numbers(decided) == right and not failed(decided)
    assert sum(one.confidence > 0.95 for one in decided.values()) > 430


def test_rules_that_had_no_turn_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("digitq.worker.sight.forms.decision.MAX_VISITS", 0)
    fields, right, rules = make_sheet(12, 12)
    decided = solve(fields, *rules)
    wrong = [
        name
        for name, one, value in zip(fields, numbers(decided), right, strict=True)
        if one != value
    ]
    assert len(wrong) == 10 and {*wrong} <= {*failed(decided)}


def test_many_broken_rules() -> None:
    decided = solve({"a": {"3": 1.0}, "b": {"3": 1.0}}, *["a > b"] * 200)
    assert numbers(decided) == ["3", "3"] and failed(decided) == ["a", "b"]
    assert all(math.isfinite(one.confidence) for one in decided.values())


def test_empty_places_of_many_rows_are_tried_in_no_time() -> None:
    known = Known.check(pattern=r"\d{1,4}")  # 11,110 values
    cells = [Cell(name, "m", row, known) for row in range(300) for name in "abt"]
    written = [Written({"a": "", "b": "2", "t": "99999"}[cell.field]) for cell in cells]
    began = time.process_time()
    breaches = [*find_breaches(cells, written, hold_checks(cells, [Check("a + b == t", 0.0)]))]
    assert len(breaches) == 300 and all(len(one.cells) == 3 for one in breaches)
    assert time.process_time() - began < 10  # it was a minute


def test_an_empty_place_may_want_a_half() -> None:
    known = Known.check(pattern=r"\d½?")
    cells = [Cell("a", "", 0, known), Cell("b", "", 0, Known()), Cell("t", "", 0, Known())]
    written = [Written(number) for number in ("", "2", "9½")]
    (breach,) = find_breaches(cells, written, hold_checks(cells, [Check("a + b == t", 0.0)]))
    assert (breach.cells, breach.wanted) == ({0}, "7.5")


MARKED = {"A": 0.98, "B": 0.02}


@pytest.mark.parametrize(
    ("points", "q1", "q2", "answer", "marked"),
    [
        ({"4": 0.5, "9": 0.3, "2": 0.2}, MARKED, {"B": 1.0}, ["2", "A", "B"], []),
        ({"3": 1.0}, {"A": 0.6, "B": 0.4}, {"C": 1.0}, ["3", "B", "C"], []),
        ({"3": 1.0}, {"A": 0.6, "": 0.4}, {"C": 1.0}, ["3", "", "C"], []),
        ({"5": 1.0}, {"B": 1.0}, {"C": 1.0}, ["5", "B", "C"], ["points", "q1", "q2"]),
        ({"5": 1.0}, {"": 1.0}, {"C": 1.0}, ["5", "", "C"], ["points", "q1", "q2"]),
        ({"5": 1.0}, {}, {"C": 1.0}, ["5", "", "C"], []),  # it could not be read: it may be A
        ({"": 1.0}, {"A": 1.0}, {"C": 1.0}, ["", "A", "C"], ["points"]),
        ({"": 1.0}, {"": 1.0}, {"": 1.0}, ["", "", ""], []),
        ({"5": 1.0}, {"A": 1.0}, {"A,C": 0.6, "C": 0.4}, ["5", "A", "C"], []),
    ],
)
def test_points_are_decided_with_the_answers_that_give_them(
    points: Chances, q1: Chances, q2: Chances, answer: list[str], marked: list[str]
) -> None:
    fields = {"points": points, "q1": q1, "q2": q2}
    for rule in (
        'points == 2 * (q1 == "A") + 3 * (q2 == "C")',
        "points / (1 + 0 * points) == 2 * (q1 == 'A') + 3 * (q2 == 'C')",  # not linear
    ):
        decided = solve(fields, rule)
        unread = [name for name, chances in fields.items() if not chances]
        if "/" not in rule or not unread:
            assert numbers(decided) == answer and failed(decided) == marked
        assert not marked or failed(decided) or unread
    if not marked and points and q1 and q2 and points != {"": 1.0}:
        assert min(one.confidence for one in decided.values()) > 0.95


def test_an_answer_that_is_not_a_text() -> None:
    rule = 'points == 5 - (q1 != "A") - (q2 != "A") - 2 * (q1 == "") + (q2 == "A,C")'
    for q1, q2, points in (("A", "A", "5"), ("B", "A", "4"), ("", "B", "2"), ("A", "A,C", "5")):
        fields: dict[str, Chances] = {"points": {"9": 0.6, points: 0.4}, "q1": {q1: 1.0}}
        assert numbers(solve(fields | {"q2": {q2: 1.0}}, rule))[0] == points


def test_a_place_may_count_in_several_ways() -> None:
    rule = 'points == (q1 == "1") + 3 * (q1 == "2") + sum(q1, q2)'
    fields: dict[str, Chances] = {"points": {"7": 1.0}, "q1": {"1": 0.7, "2": 0.3}, "q2": {"2": 1}}
    assert numbers(solve(fields, rule)) == ["7", "2", "2"]
    assert not failed(solve(fields | {"points": {"4": 1.0}}, rule))
    table: dict[str, Chances] = {"q/1": {"A": 1.0}, "p/1": {"1": 0.6, "2": 0.4}}
    table |= {"q/2": {"B": 1.0}, "p/2": {"0": 0.7, "2": 0.3}}
    assert numbers(solve(table, "p == 2 * (q == 'A')")) == ["A", "2", "B", "0"]


BUBBLES: dict[str, Chances] = {"id1": {"2": 1.0}, "id2": {"0": 0.6, "8": 0.4}, "id3": {"5": 1.0}}


@pytest.mark.parametrize(
    ("changed", "answer", "marked"),
    [
        ({}, ["285", "2", "8", "5"], []),
        ({"id2": {"0": 1.0}}, ["205", "2", "0", "5"], []),
        ({"id2": {"": 0.97, "0": 0.03}, "student": {"205": 1.0}}, ["205", "2", "", "5"], ["id2"]),
        ({"id2": {"": 0.5, "0": 0.5}}, ["205", "2", "0", "5"], []),
        ({"id2": {"": 1.0}, "id3": {"": 1.0}}, ["285", "2", "", ""], ["id2", "id3"]),
        ({"id1": {"": 1.0}, "id2": {"": 1.0}, "id3": {"": 1.0}, "student": {"000": 1.0}},
         ["000", "", "", ""], ["id1", "id2", "id3"]),
        ({"id1": {"3": 1.0}}, ["285", "3", "0", "5"], ["student", "id1", "id2", "id3"]),
        ({"student": {"": 1.0}}, ["", "2", "0", "5"], ["student"]),
    ],
)  # fmt: skip
def test_a_number_and_its_bubbles_decide_together(
    changed: dict[str, Chances], answer: list[str], marked: list[str]
) -> None:
    fields = {"student": {"205": 0.4, "285": 0.6}, **BUBBLES, **changed}
    decided = solve(fields, "student == digits(id1, id2, id3)")
    assert numbers(decided) == answer and failed(decided) == marked
    is_sure = min(one.confidence for one in decided.values()) > 0.75
    assert is_sure == bool(changed) or marked  # without a change, 205 is as probable


def test_a_person_may_leave_bubbles_empty() -> None:
    cells = [Cell(name, "", 0, Known()) for name in ("student", "id1", "id2")]
    held = hold_checks(cells, [Check("student == digits(id1, id2)", 0)])
    written = [Written("20"), Written("2"), Written("", is_sure=True)]
    assert not [*find_breaches(cells, written, held)]


@pytest.mark.parametrize(
    ("rule", "written", "text"),
    [
        ("oral + written == points", ("11", "12", "24"), "11 + 12 = 23, written 24"),
        ("written == 3 * oral", ("12", "35", ""), "3 × 12 = 36, written 35"),
        ("oral < points", ("14", "", "12"), "14 < 12 does not hold"),
        ("oral + written <= points", ("7", "8", "12"), "7 + 8 ≤ 12 does not hold"),
        ("oral == points", ("12,5", "", "12"), "12,5 = 12 does not hold"),
        ("oral != points", ("12", "", "12"), "12 ≠ 12 does not hold"),
        ("(oral + written) / 2 == 4", ("3", "4", ""), "(3 + 4) / 2 = 3.5, not 4"),
        ("oral + 1 == written * 2", ("3", "4", ""), "3 + 1 = 4, not 4 × 2 = 8"),
        ("sum(oral, written) * 2 == points", ("3", "4", "7"), "(3 + 4) × 2 = 14, written 7"),
        ("oral + written == points", ("", "4", "9"), "empty + 4 = 4, written 9: 5 is missing"),
        ("oral + written == points", (None, "4", "1"), "? + 4 = 1 does not hold"),
        ("oral / points == written", ("4", "2", "0"), "4 / 0 = 2 does not hold"),
        ("points == 2 * (oral == '7') + 3", ("7", "", "4"), "2 × (7 == '7') + 3 = 5, written 4"),
        ("points == digits(oral, written)", ("1", "2", "13"), "digits(1, 2) = 12, written 13"),
        ("points == digits(oral, written)", ("1", "", "10"), "written is empty: 0 is missing"),
        ("luhn(points)", ("", "", "123456789"), "123456789 has no Luhn check digit"),
        ("mod11(points)", ("", "", "123"), "123 has no mod 11 check digit"),
        (f"points == {'+ '.join(['oral '] * 20)}", ("3", "", "5"),
         "3 + 3 + 3 + 3 + 3 + 3 + 3 + 3 + 3 + 3 + 3 + 3 + 3 + 3 + 3 … = 60, written 5"),
    ],
)  # fmt: skip
def test_a_broken_rule_is_told_with_its_values(
    rule: str, written: tuple[str | None, ...], text: str
) -> None:
    pattern = Known.check(pattern=r"\d{1,9}")
    cells = [Cell(name, "", 0, pattern) for name in ("oral", "written", "points")]
    (breach,) = find_breaches(cells, [*map(Written, written)], hold_checks(cells, [Check(rule, 0)]))
    assert breach.text == text and breach.rule == rule


def test_a_broken_sum_of_a_column_is_told_with_its_name() -> None:
    cells = [Cell("points", "marks", row, Known()) for row in range(1, 12)]
    cells.append(Cell("total", "", 0, Known()))
    written = [*[Written("12.5")] * 11, Written("132")]
    held = hold_checks(cells, [Check("total == sum(points)", 0.25)])
    (breach,) = find_breaches(cells, written, held)
    assert breach.text == "sum(points) = 137.5, written 132 (± 0.25)"
    assert breach.cells == breach.bound == {*range(12)}


def test_a_check_digit_decides_among_the_readings_of_a_number() -> None:
    doubtful = {"79927398719": 0.5, "79927398713": 0.4, "79927398773": 0.1}
    for name in ("id", "id/1"):  # a field, or a column
        (decided,) = solve({name: doubtful}, "luhn(id)").values()
        assert decided.number == "79927398713" and decided.confidence > 0.95 and not decided.failed
    (decided,) = solve({"id": {"79927398710": 0.99, "": 0.01}}, "luhn(id)").values()
    assert decided.number == "79927398710" and decided.failed
    assert not failed(solve({"id": {"": 1.0}}, "luhn(id)"))
    isbn = {"0306406157": 0.7, "0306406152": 0.3}
    both = solve({"id": doubtful, "isbn": isbn, "other": isbn}, "luhn(id)", "mod11(isbn)")
    assert numbers(both) == ["79927398713", "0306406152", "0306406157"]


def test_a_check_digit_makes_no_number_sure_that_others_may_be() -> None:
    """One in ten of the numbers that were not weighed has the right check digit, too."""
    chances = {"79927398719": 0.7, "79927398713": 0.01}
    (decided,) = solve({"id": chances}, "luhn(id)").values()
    assert decided.confidence < 0.5
    chances["79927398713"] = 0.299
    (decided,) = solve({"id": chances}, "luhn(id)").values()
    assert decided.number == "79927398713" and decided.confidence > 0.95


def test_a_number_and_its_bubbles_on_a_page() -> None:
    blank = np.full((700, 500), 255, np.uint8)
    cv2.putText(blank, "STUDENT NUMBER 2026", (40, 50), FONT, 1, 0, 2)
    cv2.rectangle(blank, (40, 80), (240, 160), 0, 2)
    for column, digit in product(range(3), range(10)):
        cv2.circle(blank, (80 + 60 * column, 200 + 45 * digit), 14, 0, 2)
    file = cv2.imencode(".png", blank)[1].tobytes()
    student = Field("student", (40, 80, 240, 160), Known.check(length=3))
    known, box = Known(options=tuple("0123456789")), (65, 185, 215, 620)
    bubbles = Choice(("id1", "id2", "id3"), known, box, is_across=False)
    rules = (Check("student == digits(id1, id2, id3)", 0),)
    form = Form(file, "page", (student,), (), rules, choices=(bubbles,))
    for marked, reasons in (
        ("205", ["", "", "", ""]),
        ("2 5", ["", "", "check failed", ""]),
        ("285", ["check failed"] * 4),
    ):
        page = blank.copy()
        cv2.putText(page, "205", (70, 140), FONT, 1.6, 40, 3, cv2.LINE_AA)
        for column, digit in enumerate(marked):
            if digit != " ":
                cv2.circle(page, (80 + 60 * column, 200 + 45 * int(digit)), 12, 40, -1)
        answers = read_sheet(form, page)
        assert [*answers.values()] == [
            (number.strip(), reason)
            for number, reason in zip(["205", *marked], reasons, strict=True)
        ]


def test_a_box_that_is_not_ticked_is_no_empty_place() -> None:
    cells = [Cell(name, "", 0, Known(options=TICK)) for name in "ab"]
    held = hold_checks(cells, [Check("a + b == 1", 0.0)])
    for numbers, is_broken in (("", ""), True), (("1", ""), False), (("1", "1"), True):
        breaches = [*find_breaches(cells, [Written(one) for one in numbers], held)]
        assert [one.cells for one in breaches] == [{0, 1}] * is_broken
