"""`digitq bench`: rounds in which the contenders take turns, and their medians side by side."""

from collections.abc import Callable, Sequence
from statistics import median
from typing import TypeVar

BENCHMARKS = (
    "torch",
    "queue",
    "celery",
    "dataloader",
    "folder",
    "latency",
    "concurrent",
    "scale",
)
RIVALS = {  # of a row: its ratios, and to which row each is
    "torch": {"of_torch": "torch"},
    "queue": {"of_torch": "torch", "of_celery": "celery"},
    "queue (parquet)": {"of_torch": "torch", "of_csv": "queue"},
    "celery": {"of_torch": "torch"},
    "dataloader": {"of_torch": "torch"},
    "folder": {"of_torch": "torch", "of_imagefolder": "folder (ImageFolder)"},
    "folder (ImageFolder)": {"of_torch": "torch"},
    "latency": {"of_celery": "latency (celery)"},
    "concurrent": {"of_torch": "torch", "of_celery": "celery"},
    "concurrent (asyncio)": {"of_torch": "torch", "of_celery": "celery"},
    "scale": {"of_one_worker": "scale (one worker)"},
}
MAIN_FIGURES = ("images_per_second", "median_ms")  # what ratios are of

Figures = dict[str, float]
Rows = dict[str, Figures]  # by the row's name
T = TypeVar("T")


def rotate(contenders: Sequence[T], number: int) -> list[T]:
    """The order of a round, counted from 0: each goes first in its turn."""
    first = number % len(contenders)
    return [*contenders[first:], *contenders[:first]]


def run_rounds(
    measures: Sequence[Callable[[], Rows]], rounds: int, echo_err: Callable[[str], None]
) -> Rows:
    """The medians of so many rounds, with ratios; the rows are in the order of `measures`."""
    samples: dict[str, list[Figures]] = {}
    for number in range(rounds):
        for measure in rotate(measures, number):
            for name, figures in measure().items():
                samples.setdefault(name, []).append(figures)
                echo_err(f"round {number + 1} of {rounds}: {describe(name, figures)}")
    return with_ratios({name: take_medians(found) for name, found in samples.items()})


def take_medians(samples: Sequence[Figures]) -> Figures:
    """Of each figure of one row, the median over the rounds."""
    return {figure: median(sample[figure] for sample in samples) for figure in samples[0]}


def with_ratios(rows: Rows) -> Rows:
    """The rows with their ratios to those rivals that were measured as well."""
    compared = {}
    for name, figures in rows.items():
        main = next(figure for figure in MAIN_FIGURES if figure in figures)
        ratios = {
            ratio: figures[main] / rows[rival][main]
            for ratio, rival in RIVALS.get(name, {}).items()
            if rival in rows
        }
        compared[name] = figures | ratios
    return compared


def describe(name: str, figures: Figures) -> str:
    """A line: the row, and each of its figures."""
    return f"{name}: " + ", ".join(map(_word, figures, figures.values()))


def tabulate(rows: Rows) -> str:
    """A line for each row: images/s, the share of bare torch, and whatever else was measured."""
    lines = [f"{'':22}{'images/s':>12}{'of torch':>10}"]
    for name, figures in rows.items():
        rest = dict(figures)
        columns = [rest.pop("images_per_second", None), rest.pop("of_torch", None)]
        rate, share = ("" if value is None else _number(value) for value in columns)
        others = ", ".join(map(_word, rest, rest.values()))
        lines.append(f"{name:22}{rate:>12}{share:>10}  {others}".rstrip())
    return "\n".join(lines)


def _word(figure: str, value: float) -> str:
    kind, _, what = figure.partition("_")
    if kind == "of":
        return f"{_number(value)} of {what.replace('_', ' ')}"
    unit = figure.replace("images_per_second", "images/s").replace("_mb", " MB").replace("_", " ")
    return f"{_number(value)} {unit}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"
