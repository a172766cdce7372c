"""Forms: the file that describes one, what of it travels, and which mistakes are told."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from digitq.protocol.asked.form import Check, Field, Form, Table, read_form
from digitq.protocol.asked.form_file import KINDS_OF_PART, ColumnPart, FormFile
from digitq.protocol.asked.known import Known
from digitq.protocol.asked.reading import decode_known
from digitq.protocol.errors import DigitqError, UsageError


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


def change_form(place: tuple[str | int, ...], **keys: object) -> bytes:
    """A form as it travels, with more keys at a place of it."""
    table = Table("t", None, 2, ("v",), Known(), head=0)
    form = Form(None, "lines", (Field("a", None, Known()),), (table,), (Check("a == 1", 0),))
    content = json.loads(form.encode().removeprefix(b"FORM3"))
    inside = content
    for key in place:
        inside = inside[key]
    inside.update(keys)
    return b"FORM3" + json.dumps(content).encode()


PLACES: list[tuple[str | int, ...]] = [(), ("fields", 0), ("tables", 0), ("checks", 0)]


@pytest.mark.parametrize("place", PLACES)
def test_a_worker_refuses_a_form_with_a_key_that_it_does_not_know(
    place: tuple[str | int, ...],
) -> None:
    """A worker that passed it over, such as `optional`, gave wrong answers in silence."""
    assert isinstance(decode_known(change_form(place)), Form)
    told = "update this worker or the submitter, whichever is older"
    for payload in (change_form(place, new=True), b"FORM4" + change_form(place)[5:]):
        with pytest.raises(DigitqError, match=told):
            decode_known(payload)


def test_a_form_of_an_older_program_is_read_and_none_is_read_by_an_older_worker() -> None:
    payload = Form(None, "lines", (), (Table("t", None, 2, ("v",), Known()),), ()).encode()
    content = json.loads(payload.removeprefix(b"FORM3"))
    del content["risk"]
    for key in ("fewest", "head", "optional"):
        del content["tables"][0][key]
    assert Form.decode(b"FORM" + json.dumps(content).encode()).tables[0].rows == 2
    with pytest.raises(ValueError, match="Extra data"):  # older workers take all after FORM as JSON
        json.loads(payload.removeprefix(b"FORM"))


FILE = """
blank = "blank.png"
[fields.student]
box = [10, 20.5, 90, 40]
length = 3
optional = true
allowed = "ids.csv:student"
[fields.total]
box = [10, 60, 90, 80]
fill = "X"
[tables.marks]
box = [0, 0, 100, 200]
rows = 2
columns = ["", "c1", "c2"]
pattern = '\\d{1,2}'
[[checks]]
rule = "sum(c1) == total"
[[checks]]
rule = "c1 == c2 / 2"
within = 0.5
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("L", (100, 200)).save(tmp_path / "blank.png")
    (tmp_path / "ids.csv").write_text("name,student\nAda,007\nBob,123\n")
    return tmp_path


def write(folder: Path, old: str = "", new: str = "") -> Path:
    assert old in FILE
    path = folder / "form.toml"
    path.write_text(FILE.replace(old, new, 1), encoding="utf-8-sig")
    return path


def test_a_file_gives_a_form(folder: Path) -> None:
    form = read_form(write(folder))
    assert form.blank == (folder / "blank.png").read_bytes() and form.align == "page"
    student, total = form.fields
    assert student.box == (10, 20.5, 90, 40) and total.known.fill == "X"
    assert student.known.allowed is not None and student.known.allowed.tolist() == [b"007", b"123"]
    assert form.tables[0].known.pattern == r"\d{1,2}" and len(form.cells) == 6
    assert (student.optional, total.optional, form.tables[0].optional) == (True, False, True)
    assert form.checks == (Check("sum(c1) == total", 0), Check("c1 == c2 / 2", 0.5))


def test_the_rows_of_a_table_by_its_lines_may_be_open(folder: Path) -> None:
    """A page shows them; the cells of those that it does not have are there, too."""
    path, table = folder / "form.toml", '[tables.marks]\ncolumns = ["", "c1"]\n'
    path.write_text(f'align = "lines"\n{table}rows = "3-40"\nhead = 1\n')
    form = read_form(path)
    assert form.tables[0].row_counts == range(3, 41) and len(form.cells) == 40
    (table_that_came,) = Form.decode(form.encode()).tables
    assert table_that_came.row_counts == range(3, 41) and table_that_came.head == 1
    path.write_text(f'align = "lines"\n{table}head = 0\n')
    assert read_form(path).tables[0].row_counts == range(1, 101)
    path.write_text(f'align = "lines"\nblank = "blank.png"\n{table}')  # it may show the head
    assert read_form(path).tables[0].row_counts == range(1, 101)
    for more, message in (
        ("", "tables.marks.head: it is missing: where the number of rows is open, and no blank"),
        ('rows = "40-3"\n', "tables.marks.rows: '40-3': rows are like 14 or \"1-40\", from 1 to"),
        ('rows = "all"\n', "tables.marks.rows: 'all': rows are like 14"),
        ("head = 9\n", "tables.marks.head: 9: "),
    ):
        path.write_text(f'align = "lines"\n{table}{more}')
        with pytest.raises(UsageError, match=message):
            read_form(path)


def test_a_table_by_its_lines_needs_no_blank(tmp_path: Path) -> None:
    path = tmp_path / "form.toml"
    path.write_text('align = "lines"\n[tables.marks]\nrows = 3\ncolumns = ["c1"]\n')
    form = read_form(path)
    assert form.blank is None and form.tables[0].box is None and len(form.cells) == 3


@pytest.mark.parametrize("turned", [False, True])
def test_a_blank_is_a_photo_too_and_upright(turned: bool, folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6 if turned else 1
    size = (200, 100) if turned else (100, 200)
    Image.new("L", size).save(folder / "blank.jpg", exif=exif)
    assert read_form(write(folder, "blank.png", "blank.jpg")).cells


def test_the_px_of_a_pdf_are_those_at_200_dpi(folder: Path) -> None:
    Image.new("L", (100, 200)).save(folder / "blank.pdf", resolution=200)
    assert read_form(write(folder, "blank.png", "blank.pdf")).cells
    with pytest.raises(
        UsageError, match=r"tables.marks.box: it is outside of the blank of 100×200"
    ):
        path = write(folder, "100, 200]", "101, 200]")
        path.write_text(path.read_text("utf-8-sig").replace("blank.png", "blank.pdf"))
        read_form(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[fields.total]", "[fields.student]", "is not TOML: .*line 8, column 16"),
        ("fill =", "fil =", "fields.total.fil: there is no such key; there are length, pattern, f"),
        ("box = [10, 60, 90, 80]", "bix = []", "fields.total.bix: there is no such key; there are"),
        ("[[checks]]", "[[check]]", "check: there is no such key; there are blank, align, fields"),
        ("within", "about", "checks.2.about: there is no such key; there are rule, within"),
        ("rows = 2", "", "tables.marks.rows: it is missing, .* give it, or have `digitq form new`"),
        ("rows = 2", "rows = 0", "tables.marks.rows: 0: "),
        ("rows = 2", "rows = 5000", "tables.marks.rows: 5000: "),
        (
            "rows = 2",
            'rows = "2-5"',
            "tables.marks.rows: a table with a box has as many rows",
        ),
        ("rows = 2", "rows = 2\nhead = 1", "tables.marks.head: a box is without the head"),
        ("rows = 2", "rows = 1500", "a form has at most 2,000 values, not 3,002"),
        ("box = [10, 60, 90, 80]", "", "fields.total.box: it is missing"),
        ("90, 80]", "90]", "fields.total.box.4: it is missing"),
        (
            "rows = 2",
            "rows = 2\noptional = 1",
            "tables.marks.optional: 1: Input should be a",
        ),
        ("90, 80]", "90, '80']", "fields.total.box.4: '80': Input should be a valid number"),
        ("90, 80]", "90, inf]", "fields.total.box.4: inf: Input should be a finite number"),
        (
            "[10, 60",
            "[-1, 60",
            "fields.total.box.1: -1: Input should be greater than",
        ),
        ("90, 80]", "90, 60]", "fields.total.box: .* a box is left, top, right, bottom, and has a"),
        ("90, 80]", "90, 201]", "fields.total.box: it is outside of the blank of 100×200 px"),
        ("box = [0, 0, 100, 200]", "", "tables.marks.box: it is missing: only with align"),
        ('blank = "blank.png"', "", "blank: it is missing: without one, align must be"),
        ('blank = "blank.png"', 'align = "lines"', "fields.student.box: a box is in px of the bla"),
        ("blank.png", "none.png", "blank: can't read .*none.png: No such file"),
        ("blank.png", "ids.csv", "blank: can't read .*ids.csv: it is no PNG, JPEG or PDF"),
        ("blank.png", "cut.png", "blank: can't read .*cut.png: it is no PNG, JPEG or PDF, or dama"),
        ("blank.png", "bad.pdf", "blank: can't read .*bad.pdf: damaged: the PDF"),
        ("fields.total", "fields.' '", "fields. : ' ': a name has no /, and no space around it"),
        ("fields.total", "fields.'a/b'", "fields.a/b: 'a/b': a name has no /"),
        ("fields.total", "fields.''", "fields.: '': String should have at least 1 character"),
        ('"c1"', '" c1"', "tables.marks.columns.2: ' c1': a name has no /"),
        ('"c1"', '"c2"', "tables.marks.columns: .*there must be a name, and none twice"),
        ('"c1", "c2"', '""', "tables.marks.columns: .*there must be a name, and none twice"),
        ('"c1"', '"row"', "tables.marks.columns.2: 'row': a column of results has this name"),
        ("fields.total", "fields.review", "fields.review: 'review': a column of results has"),
        ("fields.total", "fields.digits", "fields.digits: 'digits': a column of results has"),
        ('"c1"', '"total"', "tables.marks.columns: 'total' is the name of a field, too"),
        ("{1,2}'", "['", "tables.marks: the pattern .* is neither a regular expression"),
        ("length = 3", "length = '6-3'", "fields.student: the length '6-3' must be like 9"),
        ("length = 3", "length = 4", "fields.student: no allowed number has the length 4"),
        ("length = 3", "length = 3\npattern = 'date'", "fields.student: a length is a pattern of"),
        ('fill = "X"', 'fill = "Y"', "fields.total: the fill 'Y' must be some of X"),
        ("ids.csv:", "none.csv:", "fields.student: can't read .*none.csv: No such file"),
        ("ids.csv:", r"ids\u0000.csv:", "fields.student: can't read .*: embedded null "),
        ("ids.csv:student", r"\u0000", "fields.student: can't read .*: embedded null "),
        (":student", ":pupil", "fields.student: the first line of .*ids.csv has none of these"),
        ("sum(c1)", "sum(c3)", "checks.1.rule: there is no field or column 'c3'; there are studen"),
        ("c2 / 2", "c2 / (2 - 2)", r"checks.2.rule: `c2 / \(2 - 2\)` divides by zero"),
        ("within = 0.5", "within = -1", "checks.2.within: -1: Input should be greater"),
        ("within = 0.5", "within = 1e308", "checks.2.within: .*: Input should be less than"),
    ],
)
def test_a_mistake_is_told_with_its_key(old: str, new: str, message: str, folder: Path) -> None:
    (folder / "cut.png").write_bytes((folder / "blank.png").read_bytes()[:60])
    (folder / "bad.pdf").write_bytes(b"%PDF-1.7\n")
    path = write(folder, old, new)
    with pytest.raises(UsageError, match=f"{re.escape(str(path))}:? {message}"):
        read_form(path)


def test_rules_that_would_take_long_are_told(folder: Path) -> None:
    path = write(folder, "rows = 2", "rows = 200")
    path.write_text(path.read_text("utf-8-sig").replace("c1 == c2 / 2", "c1 == c2 / sum(c2)"))
    with pytest.raises(UsageError, match=r"checks.2.rule: the rules up to here connect 40,601 val"):
        read_form(path)


def test_a_file_that_can_t_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"can't read .*none.toml: No such file"):
        read_form(tmp_path / "none.toml")
    (tmp_path / "empty.toml").write_text('align = "lines"')
    with pytest.raises(UsageError, match="the form has no field"):
        read_form(tmp_path / "empty.toml")
    (tmp_path / "deep.toml").write_text(f"a = {'[' * 5000}")
    with pytest.raises(UsageError, match=r"deep.toml is not TOML"):
        read_form(tmp_path / "deep.toml")


def test_the_form_in_the_pages_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/forms.md").read_text()
    (tmp_path / "form.toml").write_text(page.split("```toml\n")[1].split("```")[0])
    (tmp_path / "students.csv").write_text("id\n202301587\n")
    Image.new("1", (1654, 2339), 1).save(tmp_path / "blank.pdf", resolution=200)
    assert len(read_form(tmp_path / "form.toml").cells) == 47
    table = page.split("| key | default |")[1].split("\n\n")[0]
    keys = {
        name
        for part in (*KINDS_OF_PART.values(), ColumnPart, FormFile)
        for name in part.model_fields
    }
    shown = " ".join(line.split(" | ")[0] for line in table.splitlines())
    assert {*re.findall(r"`(\w+)(?:\.NAME)?`", shown)} == keys


def write_choices(folder: Path, old: str = "", new: str = "") -> Path:
    """The form with marks of the docs, with a change, on a blank of 1200×1700 px."""
    page = (Path(__file__).parents[2] / "docs/forms.md").read_text()
    Image.new("1", (1200, 1700), 1).save(folder / "blank.png")
    text = 'blank = "blank.png"\n' + page.split("```toml\n")[2].split("```")[0]
    path = folder / "form.toml"
    path.write_text(text.replace(old, new, 1) if old else text)
    return path


def test_questions_are_fields(tmp_path: Path) -> None:
    form = read_form(write_choices(tmp_path))
    names = [cell.id for cell in form.cells]
    assert names[:2] == ["agreed", "q1"] and names[2:4] == ["answers1", "answers2"]
    assert len(names) == 1 + 1 + 20 + 9 and names[-1] == "id9"
    q1 = form.by_place["q1", "", 0].known
    assert [q1.can_be(one) for one in ("", "A", "A,B", "a", "F")] == [
        True,
        True,
        False,
        False,
        False,
    ]
    travelled = Form.decode(form.encode())
    assert travelled.cells[1].known.options == ("A", "B", "C", "D", "E")
    two = "boxes = [[160, 340, 300, 1624], [400, 340, 540, 1624]]\nrows = 10"
    path = write_choices(tmp_path, "box = [160, 340, 510, 1624]\nrows = 20", two)
    blocks = read_form(path).choices[1:3]
    assert blocks[0].names[-1] == "answers10" and blocks[1].names[0] == "answers11"
    assert blocks[1].box == (400, 340, 540, 1624) and blocks[1].is_across
    several = Known(options=("A", "B", "C"), many=True)
    assert [several.can_be(one) for one in ("A,C", "C,A", "A,A")] == [True, False, False]


def test_a_column_may_have_values_of_its_own(tmp_path: Path) -> None:
    columns = '[{ name = "present", kind = "mark" }, "", "points", { name = "id", length = 4 }]'
    path = tmp_path / "form.toml"
    path.write_text(f"align = 'lines'\n[tables.t]\nhead = 0\nlength = 2\ncolumns = {columns}\n")
    present, points, id = (cell.known for cell in read_form(path).cells[:3])
    assert present.options == ("1",) and points.pattern == r"\d{2}" and id.pattern == r"\d{4}"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("box = [160, 240, 510, 270]", "", "choices.q1: where are its bubbles"),
        ("box = [160, 240, 510, 270]", "boxes = [[1, 1, 9, 9]]", "choices.q1: there are 5 options"),
        ("box = [160, 240, 510, 270]", "boxes = []", "choices.q1: where are its bubbles"),
        (
            "[160, 180, 184, 204]",
            "[160, 180, 163, 204]",
            "fields.agreed: a box to mark is at least",
        ),
        ("rows = 20", "rows = 900", "a form has at most 4,000 bubbles, not 4,595"),
        ('"B", ', '"illegible", ', "choices.q1.options.2: 'illegible': this word says that there"),
        ("rows = 20", "rows = 20\ncolumns = 2", "choices.answers: rows are questions below each"),
        (
            "[160, 240, 510, 270]",
            "[160, 200, 510, 270]",
            r"choices.q1: the box .* of fields.agreed",
        ),
        (
            "[160, 240, 510, 270]",
            "[160, 240, 510, 2270]",
            "choices.q1.box: it is outside of the bl",
        ),
        ('"B", ', '"A", ', "choices.q1.options: .*there must be a name, and none twice"),
        ('"B", ', '"A,B", ', "choices.q1.options.2: 'A,B': an option has no ,"),
        (
            "choices.q1",
            "choices.answers7",
            "choices.answers: 'answers7' is the name of another fie",
        ),
        ('kind = "mark"', 'kind = "tick"', "fields.agreed.kind: 'tick': Input should be 'number'"),
        ('kind = "mark"', 'kind = "mark"\nlength = 1', "fields.agreed: a mark has no length: that"),
        (
            'options = ["A"',
            'option = ["A"',
            "choices.q1.option: there is no such key; there are opt",
        ),
    ],
)
def test_a_mistake_in_a_question_is_told(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = write_choices(tmp_path, old, new)
    with pytest.raises(UsageError, match=f"{re.escape(str(path))}:? {message}"):
        read_form(path)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("agreed == (q1 == 'A') + (answers20 == '')", ""),
        ("agreed == (agreed == '1') + id1", ""),
        ("agreed == (q1 == 'F')", "`q1 == 'F'`: q1 is one of A, B, C, D, E"),
        ("agreed == (q1 == 'A,B')", "`q1 == 'A,B'`: q1 is one of A, B, C, D, E"),
        ("luhn(q1)", r"`luhn\(q1\)`: q1 is A, B, C, D, E: only a number has a check digit"),
        ("agreed == (agreed == '2')", "`agreed == '2'`: agreed is one of 1"),
        ("agreed == q1", r"`q1`: q1 is no number, but A, B, C, D, E: compare it, .* \(q1 == 'A'\)"),
        ("sum(id1, q1) == 4", r"`sum\(id1, q1\)`: q1 is no number"),
    ],
)
def test_a_rule_compares_a_question_with_its_options(
    rule: str, message: str, tmp_path: Path
) -> None:
    path = write_choices(tmp_path)
    path.write_text(f'{path.read_text()}\n[[checks]]\nrule = "{rule}"\n')
    if not message:
        assert read_form(path).checks[0].rule == rule
        return
    with pytest.raises(UsageError, match=f"checks.1.rule: {message}"):
        read_form(path)


def test_a_rule_may_ask_for_several_options(tmp_path: Path) -> None:
    path = write_choices(tmp_path, "[choices.q1] ", "[choices.q1]\nmany = true\n#")
    text = path.read_text()
    path.write_text(f"{text}\n[[checks]]\nrule = \"agreed == (q1 == 'A,C')\"\n")
    assert read_form(path).checks
    path.write_text(f"{text}\n[[checks]]\nrule = \"agreed == (q1 == 'C,A')\"\n")
    with pytest.raises(UsageError, match="q1 is one of A, B, C, D, E, or several of them"):
        read_form(path)


def test_a_number_is_not_compared_with_words(folder: Path) -> None:
    path = write(folder, "c1 == c2 / 2", "c1 == (c2 == 'A')")
    with pytest.raises(UsageError, match=r"checks.2.rule: `c2 == 'A'`: c2 has 1 to 20 digits"):
        read_form(path)


def test_a_table_of_marks_needs_what_shows_the_way_up(tmp_path: Path) -> None:
    path = tmp_path / "form.toml"
    path.write_text('align = "lines"\n[tables.t]\nhead = 0\nkind = "mark"\ncolumns = ["a", "b"]\n')
    with pytest.raises(
        UsageError, match="tables.t.box: it is missing: only numbers show which way"
    ):
        read_form(path)
