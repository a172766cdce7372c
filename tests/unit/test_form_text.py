"""The text of a form's file after edits: comments, order and all that is not edited stay."""

from copy import deepcopy
from pathlib import Path

import pytest

from digitq.protocol.errors import UsageError
from digitq.serving.form_text import change_parts, list_parts

TEXT = """# a form of ours
blank = "blank.png"  # scanned

# who
[fields.class] # c ]
box = [420, 150, 620, 200] # px
length = 4

# all marks

# of the summer
[tables."m ]arks"]  # m
box = [60, 310, 620, 560]
rows = 5
columns = [
  "",
  "oral", # spoken
  {name = "written", length = 2},
]
[choices.q]
options = ["A", "B"]
boxes = [
  [1, 700, 20, 720],
  [30, 700, 50, 720]
]

# they add up
[[checks]]
rule = "oral + written == 20"  # r
# the end
"""


def test_what_is_not_edited_stays_as_it_is() -> None:
    parts = list_parts(TEXT, Path("form.toml"))
    assert [(one["kind"], one["name"]) for one in parts] == [
        ("fields", "class"),
        ("tables", "m ]arks"),
        ("choices", "q"),
        ("checks", "1"),
    ]
    assert change_parts(TEXT, parts) == TEXT
    assert change_parts(TEXT.replace("\n", "\r\n"), parts) == TEXT.replace("\n", "\r\n")


def test_a_key_stays_while_parts_are_edited() -> None:
    key = '# the key\n[key]\nwrong = -0.25 # a guess\n[key.answers]\nq = "A"\n'
    for text in (TEXT + key, TEXT.replace("# all marks", f"{key}\n# all marks")):
        parts = list_parts(text, Path("form.toml"))
        parts[0]["name"] = "klasse"
        added = {"kind": "fields", "name": "new", "was": None, "keys": {"box": [1, 2, 3, 4]}}
        changed = change_parts(text, [*parts[1:], added, parts[0]])
        assert key in changed and "[fields.new]" in changed and "[fields.klasse]" in changed


def test_edits_keep_comments_and_order() -> None:
    parts = list_parts(TEXT, Path("form.toml"))
    field, table, _, check = parts
    field["name"] = "klasse ü"
    field["keys"] |= {"length": "3-4", "optional": True}
    table["keys"]["columns"][1] = "spoken"
    del table["keys"]["rows"]
    check["keys"]["within"] = 0.5
    new = {"kind": "fields", "name": "total", "was": None, "keys": {"box": [1, 2, 3, 4]}}
    rule = {"kind": "checks", "name": "2", "was": None, "keys": {"rule": "total == 'a b'"}}
    added = "\n[fields.total]\nbox = [1, 2, 3, 4]\n"
    expected = (
        TEXT.replace("[fields.class]", '[fields."klasse ü"]')
        .replace("length = 4\n", 'length = "3-4"\noptional = true\n' + added)
        .replace('"oral", #', '"spoken", #')
        .replace("rows = 5\n", "")
        .replace("# r\n", "# r\nwithin = 0.5\n\n[[checks]]\nrule = \"total == 'a b'\"\n")
    )
    assert change_parts(TEXT, [field, new, *parts[1:], rule]) == expected


def test_a_deleted_part_leaves_the_comments_of_others() -> None:
    parts = list_parts(TEXT, Path("form.toml"))
    left = change_parts(TEXT, [parts[0], parts[2]])
    begin, end = TEXT.index("# of the summer"), TEXT.index("[choices.q]")
    assert left == TEXT[:begin] + TEXT[end : TEXT.index("\n# they add up")] + "# the end\n"


def test_names_and_headers_must_be_clear() -> None:
    parts = list_parts(TEXT, Path("form.toml"))
    with pytest.raises(UsageError, match=r"fields\.class: this name is used twice"):
        change_parts(TEXT, [*parts, deepcopy(parts[0])])
    for text in ("fields.a.box = [1, 2, 3, 4]", "[fields]\na = {box = [1, 2, 3, 4]}"):
        with pytest.raises(UsageError, match=r"form.toml: fields: .* a header, \[fields.NAME\]"):
            list_parts(text, Path("form.toml"))
    with pytest.raises(UsageError, match="form.toml is not TOML any more"):
        list_parts("[", Path("form.toml"))


def test_columns_of_ticks_stay_in_their_table() -> None:
    keys = {"box": [0, 0, 9, 9], "rows": 3, "columns": [{"name": "a", "kind": "mark"}] * 2}
    text = change_parts(TEXT, [{"kind": "tables", "name": "t", "was": None, "keys": keys}])
    (part,) = list_parts(text, Path("form.toml"))
    assert part["keys"] == keys and "[[" not in text
