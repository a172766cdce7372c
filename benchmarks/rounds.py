"""Rounds in which measurements take turns, and the table of their medians and ratios."""

from collections.abc import Callable, Sequence
from statistics import median
from typing import TypeVar

from digitq.terminal import echo_err

Measured = dict[str, float]  # each figure of a row by its name, such as `images/s`
Rows = dict[str, Measured]  # the keys are the names of rows
Ratios = dict[str, dict[str, str]]  # for each row, its ratios and what they compare it with
T = TypeVar("T")


def rotate(items: Sequence[T], number: int) -> list[T]:
    """The order of a round, counted from 0: in each round another item goes first."""
    first = number % len(items)
    return [*items[first:], *items[:first]]


def run_rounds(measures: Sequence[Callable[[], Rows]], rounds: int, ratios: Ratios) -> Rows:
    """The medians over the rounds, with their ratios; rows are in the order of `measures`."""
    samples: dict[str, list[Measured]] = {}
    for number in range(rounds):
        for measure in rotate(measures, number):
            for name, figures in measure().items():
                samples.setdefault(name, []).append(figures)
                echo_err(f"round {number + 1} of {rounds}: {name}: {_join(figures)}")
    medians = {
        name: {figure: median(sample[figure] for sample in found) for figure in found[0]}
        for name, found in samples.items()
    }
    return with_ratios(medians, ratios)


def with_ratios(rows: Rows, ratios: Ratios) -> Rows:
    """The rows with the ratios of their first figures to those of other rows that were measured."""
    first = {name: next(iter(figures.values())) for name, figures in rows.items()}
    return {
        name: figures
        | {
            ratio: first[name] / first[other]
            for ratio, other in ratios.get(name, {}).items()
            if other in rows
        }
        for name, figures in rows.items()
    }


def tabulate(rows: Rows) -> str:
    """A header, and a line for each row: images/s, then its other figures in words."""
    lines = [f"{'':22}{'images/s':>12}"]
    for name, figures in rows.items():
        others = dict(figures)
        rate = others.pop("images_per_second", None)
        shown = "" if rate is None else _number(rate)
        lines.append(f"{name:22}{shown:>12}  {_join(others)}".rstrip())
    return "\n".join(lines)


def _join(figures: Measured) -> str:
    return ", ".join(_describe(figure, value) for figure, value in figures.items())


def _describe(figure: str, value: float) -> str:
    kind, _, what = figure.partition("_")
    if kind == "of":
        return f"{_number(value)} of {what.replace('_', ' ')}"
    unit = figure.replace("images_per_second", "images/s").replace("_mb", " MB").replace("_", " ")
    return f"{_number(value)} {unit}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"
