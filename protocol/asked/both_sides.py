"""Tells how a rule is broken: both sides with the values put in, `11 + 12 = 23, written 24`."""

import ast
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import reduce
from textwrap import shorten

from digitq.protocol.asked.rules import COMPARISONS, JOINED, Rule, find_values, is_call

MAX_SHOWN_PLACES = 6  # a sum of more places is shown by its name
MAX_SIDE_CHARACTERS = 60  # a longer side is cut
COMPARISON_SIGNS = dict(zip(COMPARISONS.values(), "=≠<≤>≥", strict=True))


def tell_sides(
    rule: Rule,
    written: Mapping[str, Sequence[str]],
    values: Mapping[str, Fraction] | None,
    within: Fraction,
) -> str:
    """How a rule is broken, by what is written in the places of each key and what it is worth;
    None if something could not be read."""
    checked = [(key, one.fault) for key, one in rule.values.items() if one.fault]
    if checked:
        return f"{written[checked[0][0]][0]} {checked[0][1]}"
    sides = rule.left, rule.right
    put = [put_in(side, written) for side in sides]
    texts = [ast.unparse(side).replace(" * ", " × ") for side in put]
    texts = [shorten(text, MAX_SIDE_CHARACTERS, placeholder=" …") for text in texts]
    try:
        worth = [show(one) for one in rule.measure(values or {})]
    except (ZeroDivisionError, KeyError):
        worth = []
    near = f" (± {show(within)})" if within else ""
    simple = ast.Name | ast.Compare
    computed = [not isinstance(side, simple) and bool(find_values(side)) for side in sides]
    if not (rule.is_equation and worth and any(computed)):
        return f" {COMPARISON_SIGNS[rule.compare]} ".join(texts) + f"{near} does not hold"
    if all(computed):
        return f"{texts[0]} = {worth[0]}, but {texts[1]} = {worth[1]}{near}"
    at = computed.index(True)
    word = "written" if isinstance(sides[1 - at], ast.Name) else "not"
    return f"{texts[at]} = {worth[at]}, {word} {texts[1 - at]}{near}"


def put_in(side: ast.expr, written: Mapping[str, Sequence[str]]) -> ast.expr:
    """A side with what is written in the place of its names."""
    match side:
        case ast.UnaryOp(kind, inner):
            return ast.UnaryOp(kind, put_in(inner, written))
        case ast.BinOp(left, kind, right):
            return ast.BinOp(put_in(left, written), kind, put_in(right, written))
        case ast.Call(function, places) if is_call(side, JOINED):
            return ast.Call(function, [put_in(one, written) for one in places], [])
    terms: list[ast.expr] = [ast.Name(text) for text in written.get(ast.unparse(side), ())]
    if not 0 < len(terms) <= MAX_SHOWN_PLACES:
        return side
    return reduce(lambda sum, one: ast.BinOp(sum, ast.Add(), one), terms)


def show(value: Fraction) -> str:
    """A value in decimals."""
    return f"{float(value):.10g}"
