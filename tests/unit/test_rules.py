"""Rules between values: how they are read, where they hold, and what is no rule."""

from fractions import Fraction

import pytest

from digitq.protocol.asked.rules import Place, bind_rule, parse_rule
from digitq.protocol.errors import UsageError

PLACES: list[Place] = [("student", "", 0), ("total", "", 0)]
PLACES += [(name, "marks", row) for row in (1, 2) for name in ("c1", "c2")]
PLACES += [(name, "more", 1) for name in ("c1", "c3")]


def check(text: str, **values: str) -> list[bool]:
    """Whether each of the rules in a text holds for these values."""
    found = []
    for rule in parse_rule(text):
        left, right = rule.measure({name: Fraction(value) for name, value in values.items()})
        found.append(rule.compare(left - right, 0))
    return found


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("a + b == c", True),
        ("a+b != c", False),
        ("c == 2 * (a + b) / 2", True),
        ("-a - -b == 0.2", True),
        ("a * b / c < 0.0666", False),
        ("a * b / c <= 0.075", True),
        ("c > b", True),
        ("a >= b", False),
        ("+a == .1", True),
    ],
)
def test_a_rule_is_held_exactly(text: str, holds: bool) -> None:
    assert check(text, a="0.1", b="0.3", c="0.4") == [holds]


def test_a_chain_is_several_rules() -> None:
    assert check("0 <= a < b == 3", a="1", b="3") == [True, True, True]
    assert check("0 <= a < b == 3", a="3", b="3") == [True, False, True]


def test_a_rule_may_be_nearly_held() -> None:
    (equal,), (less,), (more,) = map(parse_rule, ("a == b", "a <= b", "a >= b"))
    tenth = Fraction("0.1")
    assert [equal.compare(one * tenth, tenth) for one in (-2, -1, 0, 1, 2)] == [0, 1, 1, 1, 0]
    assert [less.compare(one * tenth, tenth) for one in (-2, 1, 2)] == [1, 1, 0]
    assert [more.compare(one * tenth, tenth) for one in (-2, -1, 2)] == [0, 1, 1]


def test_a_linear_rule_has_coefficients() -> None:
    (rule,) = parse_rule("mean == (max + min) / 2 + 0.5 * sum(c) - 3")
    assert rule.is_linear and rule.coefficients == {
        "mean": 1,
        "max": Fraction(-1, 2),
        "min": Fraction(-1, 2),
        "sum(c)": Fraction(-1, 2),
        "": 3,
    }
    for text in ("a * b == 1", "1 / a == 1", "a == b / (c + 1)", "1 == -(a * a)"):
        assert not parse_rule(text)[0].is_linear


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("student == total", [{"student": [0], "total": [1]}]),
        ("c1 < c2", [{"c1": [2], "c2": [3]}, {"c1": [4], "c2": [5]}]),
        ("c1 == total", [{"c1": [one], "total": [1]} for one in (2, 4, 6)]),
        ("sum(c2) == total", [{"sum(c2)": [3, 5], "total": [1]}]),
        ("sum(c2) == c3", [{"sum(c2)": [3, 5], "c3": [7]}]),
        ("sum(c1) == c3", [{"sum(c1)": [6], "c3": [7]}]),
        ("sum(student, total) == 9", [{"sum(student, total)": [0, 1]}]),
        ("sum(c2, c3) == total", [{"sum(c2, c3)": [3, 5, 7], "total": [1]}]),
        ("'student' == \"total\"", [{"student": [0], "total": [1]}]),
        ("total == 2 * ('student' == 'A')", [{"student == 'A'": [0], "total": [1]}]),
        ("c1 == (c2 != 'A')", [{"c1": [at], "c2 != 'A'": [at + 1]} for at in (2, 4)]),
        ("student == digits(total, student)", [{"student": [0], "total": [1]}]),
        ("luhn(c3)", [{"luhn(c3)": [7]}]),
    ],
)
def test_where_a_rule_is_held(text: str, bound: list[dict[str, list[int]]]) -> None:
    assert bind_rule(parse_rule(text)[0], PLACES) == bound


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a == total", "there is no field or column 'a'; there are student, total, c1, …"),
        ("sum(a) == total", "there is no field or column 'a'"),
        ("sum(total, a) == 1", "there is no field or column 'a'"),
        ("c2 == c3", "no table has all of the columns c2, c3"),
        ("sum(c1) == total", "`sum.c1.`: several tables have such a column: marks, more"),
    ],
)
def test_a_rule_about_no_value(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        bind_rule(parse_rule(text)[0], PLACES)


def test_a_name_that_is_no_word_is_in_quotes() -> None:
    places: list[Place] = [("1900", "", 0), ("2 b", "", 0), ("c", "", 0)]
    (rule,) = parse_rule("'1900' + \"2 b\" == c + 1901")
    assert bind_rule(rule, places) == [{"1900": [0], "2 b": [1], "c": [2]}]
    values = {"1900": Fraction(1), "2 b": Fraction(2), "c": Fraction(-1898)}
    assert rule.measure(values) == (3, 3)
    with pytest.raises(UsageError, match=r"`1900`: a name .* quotes; the number is 1900\.0"):
        bind_rule(parse_rule("c == 1900")[0], places)
    assert bind_rule(parse_rule("c == 1900.0")[0], places)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' can't be read .invalid syntax.: it is like a . b == c"),
        ("a ==", "can't be read"),
        ("a == 1\nb == 2", "can't be read"),
        ("a == \0", "can't be read"),
        ("a", "'a' compares nothing"),
        ("a < 5 and a > 1", "joins rules: each is a rule of its own"),
        ("a == 2 * (b == A)", "`b == A`: a text is in quotes: b == 'A'"),
        ("print(a)", "compares nothing"),
        ("a is b", "has a comparison that is not supported"),
        ("a in b", "has a comparison that is not supported"),
        ("1 == 1", "compares no values"),
        ("a == b ** 2", "`b .. 2` is not supported"),
        ("a == b // 2", "`b // 2` is not supported"),
        ("a == max(b, c)", "`max.b, c.` is not supported"),
        ("a == sum()", "`sum..` is not supported"),
        ("a == sum(b, 2)", "`sum.b, 2.` is not supported"),
        ("a == sum(b + c)", "`sum.b . c.` is not supported"),
        ("a == b.c", "`b.c` is not supported"),
        ("a == __import__('os').getpid()", "is not supported"),
        ("a == (b := 1)", "is not supported"),
        ("a == ''", "`''` is not supported"),
        ("a == 'sum(b)'", "`'sum.b.'` is not supported"),
        ("a == b'c'", "`b'c'` is not supported"),
        ("2b + a == c", "`2b`: a name in a rule begins with a letter, or is in quotes"),
        ("a == True", "`True` is not supported"),
        ("a == (b == c)", "`b == c`: a text is in quotes: b == 'c'"),
        ("a == ('b' == c)", "`b == c`: a text is in quotes: b == 'c'"),
        ("a == (b < 'c')", "`b < 'c'` is not supported"),
        ("a == (b == 'c' == 'd')", "`b == 'c' == 'd'` is not supported"),
        ("a == digits(b, 2)", "`digits.b, 2.` is not supported"),
        ("a == digits()", "`digits..` is not supported"),
        ("luhn(a, b)", "`luhn.a, b.` is not supported"),
        ("luhn(a + b)", "`luhn.a . b.` is not supported"),
        ("a == 1e999", "is not supported"),
        ("a == b / 0", "`b / 0` divides by zero"),
        ("a == b / (0.5 - 1 / 2)", "divides by zero"),
        ("a == 1 / (2 / (1 - 1))", "divides by zero"),
        ("a == 1e-20", "has numbers that are too large or have too many decimals"),
        ("a == 1e9 * 1e9", "has numbers that are too large or have too many decimals"),
        ("a == " + "(" * 300 + "b" + ")" * 100, "can't be read"),
        ("a == " + "b + " * 151 + "1", "a rule has at most 150 operations, not 151"),
        ("a == " + " " * 2000 + "b", "a rule has at most 2,000 characters, not 2,006"),
    ],
)
def test_what_is_no_rule(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_rule(text)


@pytest.mark.parametrize(
    ("rule", "right", "wrong"),
    [
        ("luhn(a)", ["79927398713", "0", "4111-1111-1111-1111"], ["79927398710", "97927398713"]),
        ("mod11(a)", ["0306406152", "0198526636", "0-306-40615-2"], ["0306406151", "0306460152"]),
        ("mod97(a)", ["98", "1", "1000000000000053"], ["2", "0", "97"]),
    ],
)
def test_check_digits(rule: str, right: list[str], wrong: list[str]) -> None:
    ((key, value),) = parse_rule(rule)[0].values.items()
    assert key == rule and value.names == ("a",)
    assert [value.measure(one, None) for one in right] == [1] * len(right)
    assert [value.measure(one, None) for one in [*wrong, "", "7½"]] == [0] * (len(wrong) + 2)
    assert value.measure(None, None) is None
