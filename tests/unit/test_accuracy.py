"""The command that measures the tables of docs/accuracy.md, and writes them there."""

import csv
import re
import shutil
from pathlib import Path

import pytest

from benchmarks.accuracy import PAGE, TABLES, Table, main, replace_table
from digitq.protocol.chunk import WEIGHTS_DIGITS
from digitq.worker.models.card import hash_card

DIGITS = Path(__file__).parents[2] / "examples/digits"
OTHER = Table(["mlp"], ["model", "right"], [["`mlp`", "1.0 %"], ["`cnn`", ""]])


def test_every_table_is_on_the_page() -> None:
    found = re.findall(r"<!-- accuracy: (\w+) -->\n\|", PAGE.read_text(encoding="utf-8"))
    found.remove("adapting")  # `benchmarks.adapting` writes it
    assert found == list(TABLES)


def test_a_table_takes_the_place_of_the_one_before() -> None:
    page = PAGE.read_text(encoding="utf-8")
    written = replace_table(page, "photos", OTHER)
    (row,) = re.findall(r"<!-- accuracy: photos -->\n((?:\|.*\n)+)\nWeights: (.*)\n", written)
    assert row[0] == "| model | right |\n|---|---|\n| `mlp` | 1.0 % |\n| `cnn` | |\n"
    assert row[1].startswith(f"`mlp` {hash_card('mlp')[:WEIGHTS_DIGITS]}; measured on 2")
    before, _, after = page.partition("<!-- accuracy: photos -->")
    assert written.startswith(before)
    assert written.endswith(after.partition("\nWeights: ")[2].partition("\n")[2])
    assert replace_table(written, "photos", OTHER) == written


def test_a_table_without_a_place_is_an_error() -> None:
    with pytest.raises(ValueError, match="no line <!-- accuracy: photos -->"):
        replace_table("# Accuracy\n", "photos", OTHER)


def test_photos_are_read_and_their_table_is_written(tmp_path: Path) -> None:
    photos, page = tmp_path / "photos", tmp_path / "page.md"
    shutil.copytree(DIGITS, photos)
    with (photos / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [[f"{label}.png", label, "drawn"] for label in (0, 1, 3)]
        csv.writer(file).writerows([["path", "label", "kind"], *rows, ["4.png", 5, "processed"]])
    page.write_text("<!-- accuracy: photos -->\n\n## Next\n")
    main([str(tmp_path), "--only", "photos", "--page", str(page)])
    written = page.read_text()
    right = "| 100.00 % | 0.00 % | 0.00 % " * 2
    assert f"\n| drawn | 3 {right}|\n" in written
    assert "\n| photos, processed by other programs | 1 | 0.00 % | 0.00 % | 100.00 % " in written
    assert re.search(r"\n\| all \| 4 \| 75.00 % .*\n", written)
    assert written.endswith(".\n\n## Next\n") and "\nWeights: `cnn` " in written
