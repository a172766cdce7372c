"""A random sample of unmarked rows: how it is drawn, and what it says about all of them."""

import csv
import json
import re
from collections.abc import Iterable
from html import unescape
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from digitq.cli import main
from digitq.producer.provenance import record_path
from digitq.producer.results import open_results
from digitq.protocol.asked.sample import bound_count, bound_share, show_bound
from digitq.protocol.chunk import FORM_SCHEMA, RESULT_SCHEMA, TRUTH
from digitq.review.survey import Survey
from tests.unit.test_results import SHARES, write

ROWS, MARKED = 300, 60


@pytest.mark.parametrize(
    ("wrong", "looked_at", "bound"),
    # R: binom.test(wrong, looked_at, alternative = "less")$conf.int[2]
    [(3, 20, 0.3436638), (0, 100, 0.0295130), (1, 200, 0.0234985), (0, 0, 1), (5, 5, 1)],
)
def test_clopper_and_pearson_as_r_has_it(wrong: int, looked_at: int, bound: float) -> None:
    assert bound_share(wrong, looked_at) == pytest.approx(bound, abs=1e-6)


@pytest.mark.parametrize(("wrong", "looked_at", "rows"), [(0, 30, 50), (2, 40, 300), (7, 20, 21)])
def test_a_bound_for_few_rows_is_the_largest_that_is_likely_enough(
    wrong: int, looked_at: int, rows: int
) -> None:
    def chance(count: int) -> float:
        ways = (comb(count, few) * comb(rows - count, looked_at - few) for few in range(wrong + 1))
        return sum(ways) / comb(rows, looked_at)

    bound = bound_count(wrong, looked_at, rows)
    most = rows - (looked_at - wrong)
    assert chance(bound) > 0.05 and (bound == most or chance(bound + 1) <= 0.05)
    assert bound <= bound_share(wrong, looked_at) * rows
    assert bound_count(wrong, looked_at, looked_at) == wrong  # all were looked at
    assert bound_count(1, 200, 10**7) / 10**7 == pytest.approx(bound_share(1, 200), abs=1e-5)


def test_a_bound_holds_for_95_percent_of_the_samples() -> None:
    random = np.random.default_rng(5)
    found = random.hypergeometric(12, 288, 100, 4000)
    held = [bound_count(int(wrong), 100, 300) >= 12 for wrong in found]
    assert 0.94 < np.mean(held) < 1


def test_a_bound_is_rounded_up() -> None:
    shown = {0.0234985: "2.4 %", 0.00327: "0.33 %", 0.95: "95 %", 1: "100 %", 0: "0 %"}
    assert {share: show_bound(share) for share in shown} == shown


def make_rows(wrong: Iterable[int] = ()) -> pa.RecordBatch:
    """Digits, of which the first are marked; the answer 2 is right but in these rows."""
    rows = [
        {
            "id": f"{n}.png",
            "label": 2,
            "confidence": 0.9,
            "probabilities": SHARES,
            "review": n < MARKED,
            "reason": "unsure" if n < MARKED else None,
        }
        for n in range(ROWS)
    ]
    truths = [3 if n in {*wrong} else 2 for n in range(ROWS)]
    batch = pa.RecordBatch.from_pylist(rows, RESULT_SCHEMA)
    return batch.append_column(TRUTH, pa.array(truths, TRUTH.type))


def run(*arguments: object, status: int = 0) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments)])
    assert (ended.value.code or 0) == status


def read_sample(page: Path) -> list[str]:
    """The ids of the page's sample, in the order of the draw."""
    cards = re.findall(r'data-id="(.*?)".*? data-drawn="(\d+)"', page.read_text())
    return [json.loads(unescape(id)) for id, _ in sorted(cards, key=lambda card: int(card[1]))]


def record_of(results: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(record_path(results).read_text())
    return found


def save(path: Path, rows: Iterable[tuple[str, str, object]]) -> Path:
    """As the page saves them."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("id", "label", "sample"), *rows])
    return path


def draw(batches: Iterable[pa.RecordBatch], sample: int) -> list[int]:
    rows = Survey("digit", batches, sample).groups()["sample"]
    return [number for number, _ in rows]


def test_the_same_rows_are_drawn_however_the_file_is_read() -> None:
    rows = make_rows()
    drawn = draw([rows], 50)
    assert drawn == draw([rows.slice(n, 7) for n in range(0, ROWS, 7)], 50)
    assert drawn == draw([rows.drop_columns(["truth"])], 50)
    assert drawn == draw([rows], 100)[:50]
    assert len({*drawn}) == 50 and min(drawn) >= MARKED
    assert len(draw([rows], ROWS)) == ROWS - MARKED
    counts = np.bincount(np.array(draw([rows], 120)) // 60, minlength=5)
    assert counts[1:].min() > 15  # from all of the file


def test_a_looked_at_sample_says_how_many_others_are_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "out.csv"
    write(results, make_rows())
    run("report", results, "--sample", 100)
    ids = read_sample(tmp_path / "out.html")
    assert len(ids) == 100
    given = [(id, "7" if place == 30 else "2", place) for place, id in enumerate(ids, 1)]
    others = [("0.png", "5", ""), ("1.png", "2", "")]  # they are marked
    more = next(f"{n}.png" for n in range(MARKED, ROWS) if f"{n}.png" not in ids)
    corrections = save(tmp_path / "corrections.csv", [*given, *others, (more, "4", "")])
    capsys.readouterr()
    run("correct", results, corrections, "-o", tmp_path / "final.csv")
    most = bound_count(1, 100, 240)
    said = capsys.readouterr().err
    line = f"of 240 unmarked rows at most {show_bound(most / 240)} are wrong (95 % confidence; "
    assert line + "1 of 100 looked at was)" in said
    assert f"so at most {most - 2} of the 139 that nobody looked at are" in said
    record = record_of(tmp_path / "final.csv")["sample"]
    assert (record["unmarked"], record["looked_at"], record["wrong"]) == (240, 100, 1)
    assert record["at_most"] == pytest.approx(most / 240) and record["confidence"] == 0.95
    assert (record["left"], record["left_at_most"]) == (139, most - 2)
    # No worker has said from which confidence on rows were not marked
    assert record_of(tmp_path / "final.csv")["curve"][0][0] == pytest.approx(0.9)
    final = open_results(tmp_path / "final.csv").record
    assert final and final.sample and final.sample.left == 139
    corrections.write_text("id,label\n2.png,7\n")
    run("correct", tmp_path / "final.csv", corrections, "-o", tmp_path / "last.csv")
    last = open_results(tmp_path / "last.csv").record
    assert last and (last.sample, last.curve) == (final.sample, final.curve)


def test_rows_after_one_that_was_skipped_do_not_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "out.csv"
    write(results, make_rows())
    run("report", results, "--sample", 40)
    ids = read_sample(tmp_path / "out.html")
    given = [(id, "illegible" if place == 5 else "2", place) for place, id in enumerate(ids, 1)]
    del given[20]
    corrections = save(tmp_path / "corrections.csv", given)
    capsys.readouterr()
    run("correct", results, corrections, "-o", tmp_path / "final.csv")
    said = capsys.readouterr().err
    assert "1 of 20 looked at was)" in said  # what nobody can read is not right
    assert "19 answers of the sample came after a row without an answer" in said
    save(corrections, given[20:])
    run("correct", results, corrections, "-o", tmp_path / "last.csv")
    assert "looked at" not in capsys.readouterr().err
    assert record_of(tmp_path / "last.csv")["sample"] is None


def test_answers_outside_of_a_sample_say_nothing_about_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, corrections = tmp_path / "out.csv", tmp_path / "corrections.csv"
    write(results, make_rows())
    corrections.write_text("id,label\n" + "".join(f"{n}.png,2\n" for n in range(ROWS)))
    run("correct", results, corrections, "-o", tmp_path / "final.csv")
    assert "looked at" not in capsys.readouterr().err
    save(corrections, [("100.png", "2", "first")])
    run("correct", results, corrections, "-o", tmp_path / "last.csv", status=2)
    assert "line 2" in (said := capsys.readouterr().err) and "has the sample 'first'" in said
    run("report", results, "--sample", 20, "-o", tmp_path / "shown.xlsx", status=2)
    assert "--sample and --key are parts of a page" in capsys.readouterr().err


def test_what_a_person_answered_is_not_drawn_again(tmp_path: Path) -> None:
    results = tmp_path / "out.csv"
    write(results, make_rows())
    run("report", results, "--sample", 20)
    first = read_sample(tmp_path / "out.html")
    rows = [(id, "2", place) for place, id in enumerate(first, 1)]
    run("correct", results, save(tmp_path / "c.csv", rows), "-o", tmp_path / "final.csv")
    run("report", tmp_path / "final.csv", "--sample", 20)
    assert not {*first} & {*read_sample(tmp_path / "final.html")}


def test_fields_of_pages_are_drawn_one_by_one_and_the_bound_is_for_these_pages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"id": f"{page}/t/{row}/c", "page": page, "field": "c", "row": row}
        | {"number": "7", "confidence": 0.99, "review": False}
        for page in ("a.png", "b.png")
        for row in range(1, 31)
    ]
    results = tmp_path / "out.jsonl"
    write(results, pa.RecordBatch.from_pylist(rows, FORM_SCHEMA))
    run("report", results, "--sample", 30)
    text = (tmp_path / "out.html").read_text()
    assert text.count('class="card"') == 60  # no cells beside those of the sample
    ids = read_sample(tmp_path / "out.html")
    with (tmp_path / "c.csv").open("w", newline="") as file:
        csv.writer(file).writerow(("id", "number", "sample"))
        csv.writer(file).writerows((id, "7", place) for place, id in enumerate(ids, 1))
    run("correct", results, tmp_path / "c.csv", "-o", tmp_path / "final.jsonl")
    said = capsys.readouterr().err
    assert "of 60 unmarked rows at most 6.7 % are wrong (95 % confidence; 0 of 30" in said
    assert "this holds for these pages: numbers of a page are alike" in said


@pytest.mark.parametrize("has_all", [True, False])
def test_evaluate_says_it_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], has_all: bool
) -> None:
    rows = make_rows([3, 100, 200])
    if not has_all:
        truths = rows["truth"].to_pylist()[:150] + [None] * 150
        rows = rows.set_column(rows.num_columns - 1, TRUTH, pa.array(truths, TRUTH.type))
    write(tmp_path / "out.csv", rows)
    looked_at, wrong, verb = (240, 2, "were") if has_all else (90, 1, "was")
    bound = bound_share(wrong, looked_at)
    run("evaluate", tmp_path / "out.csv")
    line = f"of 240 unmarked rows at most {show_bound(bound)} are wrong (95 % confidence; "
    line += f"{wrong} of {looked_at} looked at {verb})"
    said = capsys.readouterr().out
    assert line in said and ("if these are a random part of them" in said) != has_all
    run("evaluate", tmp_path / "out.csv", "--json")
    figures = json.loads(capsys.readouterr().out)["unmarked"]
    assert figures == {
        "unmarked": 240,
        "looked_at": looked_at,
        "wrong": wrong,
        "at_most": pytest.approx(bound),
        "confidence": 0.95,
        "promised": None,
    }
