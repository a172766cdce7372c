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
    written: Mapping[str, Sequence[str | None]],
    values: Mapping[str, Fraction] | None,
    within: Fraction,
) -> str:
    """How a rule is broken, by what is written in the places of each name or sum, and what its
    values are worth; None if something could not be read."""
    for one in rule.values.values():
        if one.fault:
            return f"{written[one.names[0]][0]} {one.fault}"
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
    put_beside = zip(texts, worth, computed, strict=True)
    both = [f"{text} = {one}" if is_so else text for text, one, is_so in put_beside]
    word = "written" if ast.Name in map(type, sides) else "not"
    return f", {word} ".join(both if computed[0] else both[::-1]) + near


def put_in(side: ast.expr, written: Mapping[str, Sequence[str | None]]) -> ast.expr:
    """A side with what is written in the place of its names."""
    match side:
        case ast.Compare(left, kinds, texts):
            return ast.Compare(put_in(left, written), kinds, texts)
        case ast.UnaryOp(kind, inner):
            return ast.UnaryOp(kind, put_in(inner, written))
        case ast.BinOp(left, kind, right):
            return ast.BinOp(put_in(left, written), kind, put_in(right, written))
        case ast.Call(function, places) if is_call(side, JOINED):
            return ast.Call(function, [put_in(one, written) for one in places], [])
    numbers = written.get(ast.unparse(side), ())
    terms: list[ast.expr] = [ast.Name("?" if one is None else one or "empty") for one in numbers]
    if not 0 < len(terms) <= MAX_SHOWN_PLACES:
        return side
    return reduce(lambda sum, one: ast.BinOp(sum, ast.Add(), one), terms)


def show(value: Fraction) -> str:
    """A value in decimals."""
    return f"{float(value):.10g}"
