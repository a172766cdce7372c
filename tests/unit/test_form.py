"""Forms: the file that describes one, what of it travels, and which mistakes are told."""

from protocol.form import Check, Field, Form, Table
from protocol.known import Known


def test_the_cells_of_a_page_are_in_order() -> None:
    digits = Known.check("1-2")
    tables = Table("marks", None, 2, ("", "c1", "c2"), digits), Table("b", None, 1, ("c1",), digits)
    form = Form(None, "lines", (Field("student", None, Known()),), tables, ())
    ids = ["student", "marks/1/c1", "marks/1/c2", "marks/2/c1", "marks/2/c2", "b/1/c1"]
    assert [cell.id for cell in form.cells] == ids
    assert [(one.field, one.table, one.row) for one in form.cells[:2]] == [
        ("student", "", 0),
        ("c1", "marks", 1),
    ]
    assert form.cells[1].known is digits


def test_a_form_travels_unchanged() -> None:
    known = [Known.check(pattern=r"\d\.\d", fill="X"), Known.check(3, ["007", "123"]), Known()]
    box = (0.5, 1.0, 20.0, 30.0)
    fields = tuple(Field(name, box, one) for name, one in zip("äbc", known, strict=True))
    table = Table("marks", None, 15, ("", "c1"), known[1])
    form = Form(b"\n\xff\n", "page", fields, (table,), (Check("ä == b", 0.1),))
    payload = form.encode()
    found = Form.decode(payload)
    assert payload.startswith(b"FORM") and found.encode() == payload
    assert (found.blank, found.align, found.checks) == (form.blank, form.align, form.checks)
    assert [(one.name, one.box) for one in found.fields] == [(one, box) for one in "äbc"]
    assert found.tables[0].columns == ("", "c1") and found.tables[0].rows == 15
    assert found.fields[1].known.allowed is not None and found.fields[0].known.fill == "X"
    assert Form.decode(Form(None, "lines", (), (), ()).encode()).blank is None
