"""Reads a page with a form: its places are cut out and read, then its rules decide."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from protocol.form import Cell, Form
from worker.sight.decoding.any_file import has_more_pages, read_picture
from worker.sight.decoding.scales import scale_to_file
from worker.sight.forms.checks import decide
from worker.sight.forms.cutting import PAGE_SIDE, Cut, cut_cells
from worker.sight.normalisation.colours import to_grey
from worker.sight.numbers.recognition import (
    NumberReading,
    Readings,
    trace_readings,
)
from worker.sight.types import ImageError

SEVERAL_PAGES = "the file has several pages: give it as a SOURCE, which reads each"


def trace_page(content: bytes, form: Form) -> Iterator[list[Cut | ImageError] | None]:
    """The pictures of a page's places, or why there is none, after the last step; `None` after each
    one before. Their matrices lead to px of the picture in the file. Raises `ImageError`."""
    if has_more_pages(content):  # a SOURCE gives each page of a document alone
        raise ImageError(SEVERAL_PAGES)
    grey = to_grey(read_picture(content, PAGE_SIDE))
    yield None
    to_file = scale_to_file(content, grey.shape)
    yield [
        cut if isinstance(cut, ImageError) else replace(cut, to_page=to_file @ cut.to_page)
        for cut in cut_cells(form, grey)
    ]


def trace_cell(
    cut: Cut | ImageError, cell: Cell, content: bytes = b""
) -> Iterator[Readings | None]:
    """What a place may show, after the last step. Raises `ImageError`, also if there is no cut."""
    if isinstance(cut, ImageError):
        raise cut
    readings = yield from trace_readings(cut.picture, cell.known)
    yield readings


def decide_page(
    form: Form,
    cuts: Sequence[Cut | ImageError],
    outcomes: Sequence[tuple[Readings | None, str | None]],
) -> list[tuple[NumberReading | None, str | None]]:
    """The number at each place that the form's rules make the most probable, or the error there.

    If the rules can't be computed with these numbers, all of the page are marked.
    """
    numbers = [readings.calibrated if readings else [] for readings, _ in outcomes]
    try:
        decisions = decide(form.cells, numbers, form.checks)
    except ArithmeticError:
        unchecked = decide(form.cells, numbers, ())
        decisions = [one._replace(failed=True) for one in unchecked]
    decided: list[tuple[NumberReading | None, str | None]] = []
    for cut, (readings, error), decision in zip(cuts, outcomes, decisions, strict=True):
        if readings is None or isinstance(cut, ImageError):
            decided.append((None, error))
            continue
        reading = readings.choose(
            decision.number, decision.confidence, decision.alternatives, cut.to_page, form.risk
        )
        if decision.failed:
            reading = replace(reading, reason="check failed")
        decided.append((reading, None))
    return decided
