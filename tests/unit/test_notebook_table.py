"""The table of results that a notebook shows."""

import re
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from digitq.notebook import Results, TableSink, build_results
from digitq.producer.prediction import Prediction
from digitq.producer.sources.in_memory import image_source
from digitq.protocol.asked.reading import choose_reading
from digitq.protocol.chunk import FORM_SCHEMA, NUMBER_SCHEMA, RESULT_SCHEMA, TRUTH

EXAMPLES = Path(__file__).parents[2] / "examples"


def row(number: int, confidence: float | None, review: bool = False, **other: object) -> dict:
    label = None if confidence is None else 1
    return {
        **{"id": f"{number}.png", "label": label, "confidence": confidence, "probabilities": None},
        **{"error": None, "review": review, "reason": "unsure" if review else None, **other},
    }


def html_of(rows: list[dict], schema: pa.Schema = RESULT_SCHEMA) -> str:
    """The notebook's text for results in batches of 40 rows."""
    batches = pa.Table.from_pylist(rows, schema).to_batches(40)
    return Results(pa.Table.from_batches(batches, schema), "a summary")._repr_html_()


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
    results = Results[Prediction](pa.Table.from_pylist(rows, RESULT_SCHEMA), "a summary")
    first, second = results
    assert (first.id, second.id) == ("0.png", "1.png")
    assert results[0] == first and results[-1] == second
    assert (results[0].id, results[1].label) == ("0.png", 1)
    for number in (2, -3):
        with pytest.raises(IndexError, match=f"there is no result {number}: there are 2"):
            results[number]
    assert results[:1] == [first] and results[::-1] == [second, first] and results[5:] == []
    assert pa.table(results) == results.table
    others = pa.table({"number": ["40", "41"], "corrected": [True, True], "error": ["", ""]})
    joined = Results[Prediction](results.table, "a summary", others)
    assert joined.table.schema.names == [*RESULT_SCHEMA.names, "number", "corrected"]
    assert [*joined] == [first, second] and joined[1] == second
    assert joined._repr_html_() == results._repr_html_()
    frame = results.to_pandas()
    assert frame["label"].dtype == "Int8" and frame["label"].to_list() == [pd.NA, 1]


def test_each_field_of_a_page_has_the_index_and_the_other_columns_of_its_dataframe() -> None:
    reading = choose_reading(form=EXAMPLES / "forms/form.toml")
    sink, fields = TableSink(), len(reading.cells)
    ids = [{"id": f"{page}/{cell}", "error": ""} for page in "ab" for cell in reading.cells]
    sink.write(pa.RecordBatch.from_pylist(ids, FORM_SCHEMA))
    columns = {"path": ["a", "b"], "who": ["ann", "bob"], "number": [1, 2], "odd": [{1}, "x"]}
    frame = pd.DataFrame(columns, index=pd.Index([7, 7], name="class"))
    results = build_results(image_source(frame), reading, sink)
    assert results.table["who"].to_pylist() == ["ann"] * fields + ["bob"] * fields
    found = results.to_pandas()
    assert found.columns.to_list() == [*FORM_SCHEMA.names, "who", "odd"]
    assert [*found.index] == [7] * fields * 2 and found["odd"].to_list()[fields:] == ["x"] * fields
    assert found.index.name == "class" and results[0].number is None
    others = pa.table({"path": ["a", "b"], "who": ["ann", "bob"]})
    found = build_results(image_source(others), reading, sink).to_pandas()
    assert found["who"].to_list() == ["ann"] * fields + ["bob"] * fields
    strange = others.cast(pa.schema([("path", pa.string()), ("who", pa.string_view())]))
    assert len(build_results(image_source(strange), reading, sink)) == fields * 2


def test_a_whole_number_is_shown() -> None:
    number = {"id": "a", "number": "007", "confidence": 0.9, "review": False}
    assert ">007</td>" in html_of([number], NUMBER_SCHEMA)
