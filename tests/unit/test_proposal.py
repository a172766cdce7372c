"""Which fields and tables the ruled boxes of a blank are."""

from worker.sight.forms.proposal import RuledBox, propose


def row(top: int, answers: str, width: int = 40, left: int = 100) -> list[RuledBox]:
    """Adjoining boxes, where `_` is an empty one, and `x` one with print."""
    return [
        RuledBox(left + at * width, top, left + at * width + width - 4, top + 36, answer == "_")
        for at, answer in enumerate(answers)
    ]


def test_a_row_of_boxes_is_one_field() -> None:
    boxes = row(100, "x___") + row(300, "_" * 25) + row(500, "_") + row(500, "_", 90, 140)
    fields = [*propose(boxes)]
    assert [field.get("length") for field in fields] == ["1-3", None, None]
    assert fields[0]["box"] == [137, 97, 259, 139]


def test_equal_rows_are_a_table_without_its_printed_head_and_columns() -> None:
    boxes = row(100, "xxxx") + row(140, "x_x_") + row(180, "x___") + row(220, "xxx_")
    (table,) = propose(boxes + row(400, "xxx") + row(440, "xxx"))
    assert (table["rows"], table["columns"]) == (3, ["", "c1", "", "c2"])
    assert table["box"] == [97, 137, 259, 259]
