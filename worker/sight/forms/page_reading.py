"""Reads a page with a form: its places are cut out and read, then its rules decide."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from digitq.protocol.asked.form import Cell, Form
from digitq.protocol.chunk import Reason
from digitq.worker.picture import ImageError
from digitq.worker.sight.decoding.any_file import has_more_pages, read_picture
from digitq.worker.sight.decoding.scales import scale_to_file
from digitq.worker.sight.forms.cutting import PAGE_SIDE, Cut, cut_cells
from digitq.worker.sight.forms.decision import decide
from digitq.worker.sight.forms.marks import MarkReadings, find_usual, read_marks
from digitq.worker.sight.normalisation.colours import to_grey
from digitq.worker.sight.numbers.recognition import (
    NumberReading,
    Readings,
    trace_readings,
)

CellReadings = Readings | MarkReadings
Outcome = tuple[CellReadings | None, str | None]  # what a place shows, or its error
NOT_THERE = "page not aligned: its bubbles are not where the blank has them"
SEVERAL_PAGES = "the file has several pages: give it as a SOURCE, which reads each"


def trace_page(content: bytes, form: Form) -> Iterator[list[Cut | ImageError | None] | None]:
    """What `cut_cells` gives, after the last step; `None` after each one before. The matrices lead
    to px of the picture in the file. Raises `ImageError`."""
    if has_more_pages(content):  # a SOURCE gives each page of a document alone
        raise ImageError(SEVERAL_PAGES)
    grey = to_grey(read_picture(content, PAGE_SIDE))
    yield None
    to_file = scale_to_file(content, grey.shape)
    yield [cut.move(to_file) if isinstance(cut, Cut) else cut for cut in cut_cells(form, grey)]


def trace_cell(
    cut: Cut | ImageError | None, cell: Cell, content: bytes = b""
) -> Iterator[CellReadings | None]:
    """What a place may show, after the last step; `None` of a row that the page does not have.
    Raises `ImageError`, also if the cut is one."""
    if isinstance(cut, ImageError):
        raise cut
    if cut is None:
        yield None
        return
    if cell.known.options:
        yield read_marks(cut.marks, cell.known, cell.optional)
        return
    readings = yield from trace_readings(cut.picture, cell.known, cut.printed)
    if cut.is_contested:
        reason = readings.reason or "several lines"
        readings = replace(readings, reason=reason)
    yield replace(readings, needs_answer=not cell.optional or cut.is_contested)


def decide_page(
    form: Form,
    cuts: Sequence[Cut | ImageError | None],
    outcomes: Sequence[Outcome],
) -> list[tuple[NumberReading | None, str | None]]:
    """The number at each place that the form's rules make the most probable, or the error there;
    neither if the page has no such row.

    If the rules can't be computed with these numbers, all of the page are marked.
    """
    outcomes = refuse_lost(form, outcomes)
    there = [at for at, cut in enumerate(cuts) if cut]
    cells = [form.cells[at] for at in there]
    usual = find_usual(one for one, _ in outcomes if isinstance(one, MarkReadings))
    readings = [
        replace(one, usual=usual) if isinstance(one, MarkReadings) else one
        for one in (outcomes[at][0] for at in there)
    ]
    numbers = [one.calibrated if one else [] for one in readings]
    try:
        decisions = decide(cells, numbers, form.checks)
    except ArithmeticError:
        unchecked = decide(cells, numbers, ())
        decisions = [one._replace(failed=True) for one in unchecked]
    decided: list[tuple[NumberReading | None, str | None]] = [(None, one) for _, one in outcomes]
    for at, one, decision in zip(there, readings, decisions, strict=True):
        cut = cuts[at]
        if one and isinstance(cut, Cut):
            reading = one.choose(
                decision.number, decision.confidence, decision.alternatives, cut.to_page, form.risk
            )
            reason: Reason = "check failed" if decision.failed else reading.reason
            decided[at] = replace(reading, reason=reason), None
    return decided


def refuse_lost(form: Form, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes, with an error in place of each box that is not where the blank has it, and of
    all questions of a block of which one is not: bubbles are alike, so the others may be a row off.
    """
    lost = {
        cell.field
        for cell, (one, _) in zip(form.cells, outcomes, strict=True)
        if isinstance(one, MarkReadings) and not one.is_there
    }
    lost.update(*(one.names for one in form.choices if not lost.isdisjoint(one.names)))
    return [
        (None, NOT_THERE) if cell.field in lost and not cell.row and not error else (one, error)
        for cell, (one, error) in zip(form.cells, outcomes, strict=True)
    ]
