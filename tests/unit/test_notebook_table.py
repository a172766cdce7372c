"""The table of results that a notebook shows."""

import re

import pandas as pd
import pyarrow as pa
import pytest

from digitq.notebook import Results
from digitq.protocol.asked.reading import Reading, digits
from digitq.protocol.chunk import FORM_SCHEMA, NUMBER_SCHEMA, RESULT_SCHEMA, TRUTH
from digitq.protocol.prediction import NumberPrediction, Prediction


def row(number: int, confidence: float | None, review: bool = False, **other: object) -> dict:
    label = None if confidence is None else 1
    return {
        **{"id": f"{number}.png", "label": label, "confidence": confidence, "probabilities": None},
        **{"error": None, "review": review, "reason": "unsure" if review else None, **other},
    }


def html_of(rows: list[dict], schema: pa.Schema = RESULT_SCHEMA) -> str:
    """The notebook's text for results in batches of 40 rows."""
    batches = pa.Table.from_pylist(rows, schema).to_batches(40)
    return Results(pa.Table.from_batches(batches, schema), digits(), "a summary")._repr_html_()


def test_of_many_rows_those_that_most_need_a_look_are_shown() -> None:
    """Errors come first, then answers to review, then the least sure of the others."""
    rows = [row(number, 0.5 + number / 1000) for number in range(300)]
    rows[250], rows[120] = row(250, 0.999, review=True), row(120, 0.3, review=True)
    rows[121], rows[200] = row(121, 0.2), row(200, None, True, error="torn", reason="error")
    html = html_of(rows)
    shown = [int(number) for number in re.findall(r">(\d+)\.png", html)]
    assert shown == [200, 120, 250, 121, *range(16)]
    assert "torn" in html and "a summary. The 20 that most need a look:" in html


def test_few_rows_are_all_shown_in_their_order() -> None:
    rows = [row(0, None, True, error="torn"), row(1, 0.9), row(2, 0.1, True), row(3, 0.95, truth=7)]
    html = html_of([{"truth": None, **row} for row in rows], RESULT_SCHEMA.append(TRUTH))
    assert re.findall(r">(\d)\.png", html) == ["0", "1", "2", "3"]
    assert "torn" in html and "unsure" in html and "not 7" in html and "10.00%" in html
    assert html_of([]).count("<tr>") == 1


def test_nothing_in_a_row_becomes_markup() -> None:
    odd = "<img src=x onerror=alert(1)>\n\"'$x$=1+1.png"
    html = html_of([row(0, 0.9, id=odd), row(1, None, True, error="<script>")])
    assert "<img" not in html and "<script" not in html
    assert "&lt;img src=x onerror=alert(1)&gt;\\n&quot;&#x27;$x$=1+1.png" in html


def test_results_are_a_sequence_and_a_table_of_arrow() -> None:
    rows = [row(0, None, True, error="torn"), row(1, 0.9, probabilities=[0.1] * 10)]
    results = Results[Prediction](pa.Table.from_pylist(rows, RESULT_SCHEMA), digits(), "a summary")
    first, second = results
    assert (first.id, second.id) == ("0.png", "1.png")
    assert results[0] == first and results[-1] == second
    assert (results[0].id, results[1].label) == ("0.png", 1)
    for number in (2, -3):
        with pytest.raises(IndexError, match=f"there is no result {number}: there are 2"):
            results[number]
    assert pa.table(results) == results.table
    frame = results.to_pandas()
    assert frame["label"].dtype == "Int8" and frame["label"].to_list() == [pd.NA, 1]


def test_each_field_of_a_page_goes_beside_its_row_of_a_dataframe() -> None:
    """In the line that docs/python.md shows."""
    fields = [{"id": f"{page}/{cell}", "page": page} for page in "ab" for cell in "xyz"]
    reading = Reading[NumberPrediction]("number")
    results = Results(pa.Table.from_pylist(fields, FORM_SCHEMA), reading, "a summary")
    frame = pd.DataFrame({"path": ["a", "b"], "who": ["Ann", "Bob"]})
    both = results.to_pandas().merge(frame, left_on="page", right_on="path")
    assert [*both["id"]] == results.table["id"].to_pylist()
    assert [*both["who"]] == ["Ann"] * 3 + ["Bob"] * 3


def test_a_whole_number_is_shown() -> None:
    number = {"id": "a", "number": "007", "confidence": 0.9, "review": False}
    assert ">007</td>" in html_of([number], NUMBER_SCHEMA)
