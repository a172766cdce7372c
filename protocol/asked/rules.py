"""Rules between values of a page, such as `valid + invalid == total`; nothing is executed."""

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache, reduce
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from digitq.protocol.asked.check_digits import CHECK_DIGITS
from digitq.protocol.asked.values import FRACTIONS
from digitq.protocol.errors import UsageError
from digitq.protocol.text import name_some

MAX_RULE = 2_000  # a rule has at most this many characters
MAX_OPERATIONS = 150  # a rule has at most this many + - * /, because each nests the others
MAX_NUMBER = 10**15  # the numbers in a rule are at most this large, and their denominators
HOW = (
    "it is like a + b == c: names, numbers, + - * /, sum(c, d), digits(c, d), (c == 'text'), ( ) "
    "and == != < <= > >=; or luhn(a), mod11(a), mod97(a)"
)
MAX_VALUE_DIGITS = 15  # sums of more digits would not be exact
ROUNDING = 1e-9  # sides of a rule with products are equal if they differ by this share
SUM = "sum("  # the key of a sum begins so
JOINED = "digits"  # the function that makes a number of places with a digit each
QUOTE = "a name in a rule begins with a letter, or is in quotes"
BEGINS_WITH_DIGIT = re.compile(r"(?<![\w.'\"])\d+[^\W\d]\w*")  # such as 2b
VALUE = re.compile(r"([+-]?)(\d*(?:[.,]\d+)*)[.,]?[-%]?")  # such as 1,234.50 or 50.- or 40%
# No value: a zero at the beginning, a fraction or a time, or the point after a date's month
NO_AMOUNT = re.compile(r"[+-]?0\d|.*[/:]|.*[.,]\d+[.,]$")
POINTS = (".", ",")
SEPARATOR = re.compile("[.,]")
ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
# Whether a rule holds where the left side is more than the right one by d, and may be by w
COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: lambda d, w: abs(d) <= w,
    ast.NotEq: lambda d, w: abs(d) > w,
    ast.Lt: lambda d, w: d < w,
    ast.LtE: lambda d, w: d <= w,
    ast.Gt: lambda d, w: d > -w,
    ast.GtE: lambda d, w: d >= -w,
}
Columns = dict[str, dict[int, int]]  # by the table and the row of a name: the index of the place
Place = tuple[str, str, int]  # the name of a field or column, the table ("" for a field), the row


@dataclass(frozen=True)
class Value:
    """A value in a rule."""

    names: tuple[str, ...]  # of the places that it is made of; several only for a sum
    is_sum: bool = False
    # It is 1 or 0: whether this is true of what is written. None: it is what the number is worth
    test: Callable[[str], bool] | None = None
    text: str | None = None  # what is compared with what is written
    fault: str = ""  # what is wrong with a number whose check digit is not right

    def measure(self, number: str | None, worth: Fraction | None) -> Fraction | None:
        """The value where this number is written, which is worth so much; None if it has none.
        `number` is None if it could not be read."""
        if self.test is None:
            return worth
        return None if number is None else Fraction(self.test(number))


@dataclass(frozen=True)
class Rule:
    """Two sides that are compared.

    A value in them has a key: its name, `sum(name, name)`, or `name == 'text'`. The last one is 1
    or 0, so that a rule with it is linear, and the same place may occur under several keys.
    """

    left: ast.expr
    right: ast.expr
    compare: Callable[[Any, Any], Any]  # one of `COMPARISONS`

    @cached_property
    def values(self) -> dict[str, Value]:
        """The values by their keys, which are sorted."""
        return dict(sorted((find_values(self.left) | find_values(self.right)).items()))

    @property
    def keys(self) -> list[str]:
        return [*self.values]

    @cached_property
    def filled(self) -> set[str]:
        """The keys of places that are a digit of a number: an empty one is no 0."""
        nodes = [*ast.walk(self.left), *ast.walk(self.right)]
        return {key for node in nodes if is_call(node, JOINED) for key in find_values(node)}

    @property
    def has_check_digit(self) -> bool:
        return any(one.fault for one in self.values.values())

    @cached_property
    def is_linear(self) -> bool:
        """Whether no value is multiplied or divided by one."""
        nodes = [*ast.walk(self.left), *ast.walk(self.right)]
        return not any(
            find_values(node.right) and (isinstance(node.op, ast.Div) or find_values(node.left))
            for node in nodes
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.Div)
        )

    @cached_property
    def coefficients(self) -> dict[str, Fraction]:
        """What each value of a linear rule is multiplied by in left - right; "" is the constant."""
        zeros = dict.fromkeys(self.keys, Fraction(0))
        constant = self.subtract(zeros)
        found = {key: self.subtract(zeros | {key: Fraction(1)}) - constant for key in zeros}
        return found | {"": constant}

    def subtract(self, values: Mapping[str, Fraction]) -> Fraction:
        """The left side without the right one."""
        left, right = self.measure(values)
        return Fraction(left - right)

    @property
    def is_equation(self) -> bool:
        return self.compare is COMPARISONS[ast.Eq]

    def are_satisfied(
        self, values: Mapping[str, NDArray[np.float64]], within: float
    ) -> NDArray[np.bool_]:
        """Whether it is satisfied with each of these values by their keys, (N,), but for rounding.

        A division by zero satisfies nothing.
        """
        with np.errstate(all="ignore"):
            left, right = self.measure(values, float)
            difference = left - right
            is_near = abs(abs(difference) - within) <= ROUNDING * np.maximum(abs(left), abs(right))
            exact = np.where(is_near, np.copysign(within, difference), difference)
            return np.asarray(np.isfinite(difference) & self.compare(exact, within))

    def measure(self, values: Mapping[str, Any], number: type = Fraction) -> tuple[Any, Any]:
        """Both sides, for the values by their keys. `number` is the type of the numbers beside."""
        return measure(self.left, values, number), measure(self.right, values, number)


@lru_cache(maxsize=256)  # a worker asks for each page
def parse_rule(text: str) -> list[Rule]:
    """The rules that a text says: `a < b < c` says two. Raises `UsageError`."""
    if len(text) > MAX_RULE:
        raise UsageError(f"a rule has at most {MAX_RULE:,} characters, not {len(text):,}")
    try:
        rules = split_rules(text)
    except KeyError:
        raise UsageError(f"{text!r} has a comparison that is not supported: {HOW}") from None
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = getattr(error, "msg", None) or error
        if name := BEGINS_WITH_DIGIT.search(text):
            raise UsageError(f"`{name[0]}`: {QUOTE}") from None
        raise UsageError(f"{text!r} can't be read ({reason}): {HOW}") from None
    for rule in rules:
        if not rule.keys:
            raise UsageError(f"{text!r} compares no values: {HOW}")
        numbers: list[Fraction] = [*rule.coefficients.values()] if rule.is_linear else []
        denominator = math.lcm(*(one.denominator for one in numbers))
        if any(abs(one) > MAX_NUMBER for one in (Fraction(denominator), *numbers)):
            raise UsageError(f"{text!r} has numbers that are too large or have too many decimals")
    return rules


def split_rules(text: str) -> list[Rule]:
    """The rules that a text says, with whatever values. Raises `UsageError` if it compares none,
    and the errors of `ast.parse`."""
    compared = ast.parse(text.strip(), mode="eval").body
    if any(is_call(compared, name) for name in CHECK_DIGITS):
        compared = ast.Compare(compared, [ast.Eq()], [ast.Constant(1)])
    if isinstance(compared, ast.BoolOp):
        raise UsageError(f"{text!r} joins rules: each is a rule of its own")
    if not isinstance(compared, ast.Compare):
        raise UsageError(f"{text!r} compares nothing: {HOW}")
    signs = ast.operator | ast.unaryop
    operations = sum(isinstance(node, signs) for node in ast.walk(compared))
    if operations > MAX_OPERATIONS:
        raise UsageError(f"a rule has at most {MAX_OPERATIONS} operations, not {operations}")
    sides = pairwise(map(Unquote().visit, [compared.left, *compared.comparators]))
    kinds = [COMPARISONS[type(kind)] for kind in compared.ops]
    return [Rule(*both, kind) for both, kind in zip(sides, kinds, strict=True)]


class Unquote(ast.NodeTransformer):
    """Makes names of those in a side that are in quotes, which may have other signs than letters.
    A text that a name is compared with stays one."""

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        return ast.Compare(self.visit(node.left), node.ops, node.comparators)

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        match node.value:
            case str() as name if name and not name.startswith(SUM):
                return ast.Name(name)
        return node


def is_call(node: ast.AST, name: str) -> bool:
    """Whether a node calls the function of this name."""
    return isinstance(node, ast.Call) and ast.unparse(node.func) == name


def find_values(side: ast.AST) -> dict[str, Value]:
    """The values in a side by their keys. Raises `UsageError` for what a rule can't have."""
    match side:
        case ast.Name(id=name):
            return {name: Value((name,))}
        case ast.Call() | ast.Compare() if found := find_computed(side):
            return found
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            if abs(value) <= MAX_NUMBER:
                return {}
        case ast.UnaryOp(ast.UAdd() | ast.USub(), inner):
            return find_values(inner)
        case ast.BinOp(left, kind, right) if type(kind) in ARITHMETIC:
            values = find_values(right)
            if isinstance(kind, ast.Div) and not values and not measure(right, {}, Fraction):
                raise UsageError(f"`{ast.unparse(side)}` divides by zero")
            return find_values(left) | values
    raise UsageError(f"`{ast.unparse(side)}` is not supported: {HOW}")


def find_computed(node: ast.Call | ast.Compare) -> dict[str, Value]:
    """The values in a call or a comparison by their keys; none if it is not supported."""
    key = ast.unparse(node)
    match node:
        case ast.Call(ast.Name(id=function), [_, *_] as places, []):
            names = [one.id for one in places if isinstance(one, ast.Name) and "," not in one.id]
            if len(names) < len(places):
                return {}
            if function == "sum":
                return {key: Value((*names,), is_sum=True)}
            if function == JOINED:
                return {name: Value((name,)) for name in names}
            if function in CHECK_DIGITS and len(names) == 1:
                test, check = CHECK_DIGITS[function]
                return {key: Value((*names,), test=test, fault=f"has no {check} check digit")}
        case ast.Compare(ast.Name(id=name), [ast.Eq()], [ast.Constant(str() as text)]):
            return {key: Value((name,), test=text.__eq__, text=text)}
        case ast.Compare(ast.Name(id=name), [ast.NotEq()], [ast.Constant(str() as text)]):
            return {key: Value((name,), test=lambda one: one not in ("", text), text=text)}
        case ast.Compare(ast.Name(id=name), [ast.Eq() | ast.NotEq()], [ast.Name(id=text)]):
            raise UsageError(f"`{key}`: a text is in quotes: {name} == {text!r}")
    return {}


def measure(side: ast.expr, values: Mapping[str, Any], number: type) -> Any:
    """A side, for the values by their keys."""
    match side:
        case ast.Constant(value):
            return number(repr(value))
        case ast.UnaryOp(kind, inner):
            inside = measure(inner, values, number)
            return -inside if isinstance(kind, ast.USub) else inside
        case ast.BinOp(left, kind, right):
            both = measure(left, values, number), measure(right, values, number)
            return ARITHMETIC[type(kind)](*both)
        case ast.Call(ast.Name("digits"), places):
            return reduce(lambda total, one: 10 * total + values[ast.unparse(one)], places, 0)
    return values[ast.unparse(side)]


def bind_rule(rule: Rule, places: Sequence[Place]) -> list[dict[str, list[int]]]:
    """Where a rule is held: for each time, the indexes of the places by the keys of their values.

    A rule about columns is held for each row of each table that has all of them. A sum is that of
    fields, and of whole columns: in this table if it has the column, else in the only one that has
    it. Raises `UsageError` if there is no such place.
    """
    columns: dict[str, Columns] = {}
    for index, (name, table, row) in enumerate(places):
        columns.setdefault(name, {}).setdefault(table, {})[row] = index
    for name in (name for value in rule.values.values() for name in value.names):
        if name not in columns:
            raise UsageError(
                f"there is no field or column {name!r}; there are {name_some(columns)}"
            )
    for side in (rule.left, rule.right):
        for node in ast.walk(side):
            if isinstance(node, ast.Constant) and repr(node.value) in columns:
                raise UsageError(
                    f"`{node.value!r}`: {QUOTE}; the number is {float(repr(node.value))!r}"
                )
    single = {key: one.names[0] for key, one in rule.values.items() if not one.is_sum}
    in_rows = [name for name in single.values() if "" not in columns[name]]
    tables = [
        table
        for table in dict.fromkeys(table for _, table, _ in places if table)
        if all(table in columns[name] for name in in_rows)
    ]
    if in_rows and not tables:
        raise UsageError(f"no table has all of the columns {name_some(dict.fromkeys(in_rows))}")
    bound = []
    for table in tables if in_rows else [""]:
        sums = {
            key: [
                index
                for name in one.names
                for index in find_column(key, name, table, columns).values()
            ]
            for key, one in rule.values.items()
            if one.is_sum
        }
        for row in columns[in_rows[0]][table] if in_rows else [0]:
            values = {
                key: [columns[name][""][0] if "" in columns[name] else columns[name][table][row]]
                for key, name in single.items()
            }
            bound.append(values | sums)
    return bound


def find_column(key: str, name: str, table: str, columns: Mapping[str, Columns]) -> dict[int, int]:
    """The indexes by row of the column, or the field, that is summed. Raises `UsageError` if it is
    not clear."""
    found = columns[name]
    if table not in found and len(found) > 1:
        raise UsageError(f"`{key}`: several tables have such a column: {name_some(found)}")
    return found.get(table) or next(iter(found.values()))


def read_values(number: str) -> list[Fraction]:
    """What a number may be worth: 12.500 may be twelve and a half, or twelve thousand five hundred.

    Dates, times, fractions such as 3/4, and what is empty or has more than 15 digits, have no
    value; 7½ has one.
    """
    for sign, worth in FRACTIONS.items():
        if sign in number:
            whole, _, rest = number.partition(sign)
            values = read_values(f"{whole}{rest}" if whole.strip("+-") else f"{whole}0{rest}")
            is_last = not rest.strip("-%") and whole[-1:] not in POINTS
            signed = -worth if whole.startswith("-") else worth
            return [one + signed for one in values if is_last and one.denominator == 1]
    match = VALUE.fullmatch(number)
    if not match or not 0 < len(match[2]) - len(SEPARATOR.findall(match[2])) <= MAX_VALUE_DIGITS:
        return []
    first, *groups = SEPARATOR.split(match[2])
    separators = SEPARATOR.findall(match[2])
    found = []
    if not groups or are_thousands(first, groups, separators):
        found.append(first + "".join(groups))
    if (
        len(groups) == 1
        or groups
        and separators[-1] not in separators[:-1]
        and are_thousands(first, groups[:-1], separators[:-1])
    ):
        found.append(f"{first}{''.join(groups[:-1])}.{groups[-1]}")
    return [Fraction(match[1] + one) for one in found]


def are_thousands(first: str, groups: Sequence[str], separators: Sequence[str]) -> bool:
    """Whether these groups of digits are separated as thousands, all with the same sign."""
    is_first = 0 < len(first) <= 3 and first[0] != "0"
    return is_first and {*map(len, groups)} == {3} and len({*separators}) == 1
