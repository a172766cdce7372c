"""How well marks are read: rendered sheets of five layouts, as scans and as photos.

`python -m benchmarks.marks [--sheets N] [--seed N] [--doubtful SHARE] [--around SHARE]` prints for
each layout the share of questions that are right, that are marked for review, and that are wrong
without a mark.
Doubtful marks (faint, half filled, erased, crossed out, two) are counted apart: they should be
marked for review. So are marks that are around a box or beside it, with `--around`.
"""

import argparse
from collections import Counter, defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from numpy.typing import NDArray

from digitq.protocol.asked.form import Form, read_form
from digitq.worker.picture import ImageError
from digitq.worker.sight.forms.page_reading import (
    CellReadings,
    decide_page,
    trace_cell,
    trace_page,
)
from training.synthetic.mark_sheets import LAYOUTS, Sheet, fill_in, photograph


def read_sheet(form: Form, page: NDArray[np.uint8]) -> dict[str, tuple[str | None, str]]:
    """The answer and the reason to review, by the id of a cell."""
    content = cv2.imencode(".png", page)[1].tobytes()
    try:
        *_, cuts = trace_page(content, form)
    except ImageError as error:
        return {cell.id: (None, str(error)) for cell in form.cells}
    assert cuts
    outcomes = list[tuple[CellReadings | None, str | None]]()
    for cut, cell in zip(cuts, form.cells, strict=True):
        try:
            *_, readings = trace_cell(cut, cell)
            outcomes.append((readings, None))
        except ImageError as error:
            outcomes.append((None, str(error)))
    decided = decide_page(form, cuts, outcomes)
    return {
        cell.id: (one.number, one.reason) if one else (None, error or "absent")
        for cell, (one, error) in zip(form.cells, decided, strict=True)
    }


def make_form(sheet: Sheet, folder: Path) -> Form:
    sheet.blank.save(folder / "blank.png")
    (folder / "form.toml").write_text(f'blank = "blank.png"\n{sheet.toml}')
    return read_form(folder / "form.toml")


def measure(
    layout: str,
    sheets: int,
    seed: int,
    doubtful: float,
    around: float,
    counts: dict[str, Counter[str]],
) -> None:
    """Count how the questions of some sheets, each of another person, are read."""
    for number in range(sheets):
        rng = np.random.default_rng([seed, number, [*LAYOUTS].index(layout)])
        sheet = LAYOUTS[layout](rng)
        with TemporaryDirectory() as folder:
            form = make_form(sheet, Path(folder))
        page = fill_in(sheet, rng, doubtful, around)
        pictures = {"scan": np.asarray(page), "photo": photograph(page, rng)}
        for way, picture in pictures.items():
            answers = read_sheet(form, picture)
            for one in sheet.questions:
                answer, reason = answers[one.id]
                is_clear = one.kind in ("", "fill", "scribble", "tick", "cross")
                group = f"{layout} {way}" if is_clear else one.kind
                count = counts[group]
                count["all"] += 1
                count["right"] += answer == one.truth
                count["review"] += bool(reason)
                count["silent"] += answer != one.truth and not reason
                if is_clear and (reason or answer != one.truth):
                    counts[group][f"{one.kind or 'none'}: {reason or 'WRONG'}"] += 1
                if not is_clear and answer != one.truth and not reason:
                    counts[group][f"{layout} {way} {number} {one.id} {one.truth}→{answer}"] += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sheets", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--doubtful", type=float, default=0.15)
    parser.add_argument("--around", type=float, default=0.0)
    args = parser.parse_args()
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for layout in LAYOUTS:
        measure(layout, args.sheets, args.seed, args.doubtful, args.around, counts)
    for group, count in counts.items():
        whole = count.pop("all")
        shares = [f"{100 * count.pop(name) / whole:6.2f}" for name in ("right", "review", "silent")]
        print(f"{group:16}{whole:6}{''.join(shares)}  {dict(count.most_common(6))}")


if __name__ == "__main__":
    main()
