"""Every table of accuracy in docs/accuracy.md, measured with the installed weights.

`python -m benchmarks.accuracy DATA [--only TABLE]` reads the images in the folder DATA, and writes
each table into the page, with the hash of the weights and the date below it. DATA has:
- `handwriting/dev`: real hands, in the form that `training/hands.py` describes
- `photos`: pictures of single digits, and `labels.csv` with the columns `path`, `label` and `kind`
- `numbers`: pictures of whole numbers, and `labels.csv` with the columns `path` and `number`
- `pages/*`: folders with `form.toml`, `truth.csv` and a folder `pages`

The other tables of the page were measured by hand, on images that are not in DATA. They stay.
"""

import argparse
import csv
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.held_out import (
    Read,
    Way,
    always,
    find_calibration_error,
    has_digits,
    has_value,
    judge,
    list_items,
    list_ways,
    read,
)
from benchmarks.rendered_numbers import read_scenes, render_scenes
from benchmarks.risks import Reads, read_glyphs, read_strings, share_marked
from digitq.producer.sources.arrays import label_batches
from digitq.protocol.asked.known import Known
from digitq.protocol.asked.risk import find_threshold
from digitq.protocol.asked.sample import show_bound
from digitq.protocol.chunk import WEIGHTS_DIGITS, Chunk
from digitq.protocol.formats.mnist import load_mnist
from digitq.protocol.settings import NUMBER
from digitq.worker.classify import classify_chunk
from digitq.worker.models.card import card_path, hash_card, read_card
from training.hands import list_sources

PAGE = Path(__file__).parents[1] / "docs/accuracy.md"
TABLE = "<!-- accuracy: {} -->\n"  # the line above a table that this program writes
BLOCK = r"(?:(?:\|.*\n)+\nWeights: .*\n)?"  # a table, and the line with its weights
SINGLE = ("cnn", "mlp")
SHARES = ("right", "to review", "wrong and unmarked")
HALVES = "halves_in"  # they have a table of their own
RISKS = (0.05, 0.02, 0.01, 0.005, 0.0025)
NAMES = {  # what the page calls a source, or a kind of picture
    "chars74k_hnd": "tablets, 55 people",
    "copiste_qc": "copied texts, Quebec",
    "crohme_expressmatch_br": "formulas, Brazil",
    "crohme_hamex_fr": "formulas, France",
    "crohme_kaist_kr": "formulas, Korea",
    "crohme_mathbrush_ca": "formulas, Canada",
    "crohme_mfrdb_cz": "formulas, Czech Republic",
    "crohme_num": "formulas, five countries",
    "digilets_de": "tablets, Germany",
    "kawalc1_id": "boxed election forms, Indonesia",
    "lectaurep_md_fr": "registers, Paris",
    "usps_train": "envelopes, USA",
    "weather_cd": "weather registers, Congo",
    "drawn_inv": "drawn, light on dark",
    "exam_pencil": "exam sheets, pencil",
    "photo": "photos",
    "photo_binarised_stretched": "photos, binarised and stretched",
    "processed": "photos, processed by other programs",
}
WAYS = {  # how the page says in which way numbers were read
    "free": "no option",
    "integer": "`--pattern integer`",
    "decimal": "`--pattern decimal`",
    "its form": "`--pattern`, that of the number",
    "listed": "`--allowed`, all numbers of the source",
}


class Table(NamedTuple):
    """A table of the page."""

    models: Sequence[str]  # the weights that it is of
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    program: str = "benchmarks.accuracy"

    def write(self) -> str:
        """Gives Markdown, with the weights and the date below it."""
        lines = [" | ".join(cells) for cells in (self.head, *self.rows)]
        lines.insert(1, "---|" * (len(self.head) - 1) + "---")
        weights = ", ".join(f"`{name}` {hash_card(name)[:WEIGHTS_DIGITS]}" for name in self.models)
        table = "".join(f"| {line} |\n" for line in lines).replace("  ", " ")
        table = table.replace("| ---", "|---").replace("--- |", "---|")
        how = f"measured on {date.today()} by `python -m {self.program}`"
        return f"{table}\nWeights: {weights}; {how}.\n"


def measure_shares(one: Read) -> NDArray[np.float64]:
    """The figures of `SHARES`, each 0..1: (3,)."""
    wrong = ~one.is_right & ~one.is_marked
    return np.array([part.mean() for part in (one.is_right, one.is_marked, wrong)])


def show_shares(shares: Iterable[float], decimals: int = 1) -> list[str]:
    return [f"{100 * share:.{decimals}f} %" for share in shares]


def count_shares(one: Read) -> list[str]:
    """How many images there are, and the figures of `SHARES`."""
    return [f"{len(one.is_right):,}", *show_shares(measure_shares(one))]


def measure_mnist(data: Path) -> Table:
    """MNIST's test images, as arrays."""
    images, labels = load_mnist("test")
    rows = []
    for model in (*SINGLE, "random"):
        one = read_digits(label_batches("", images, labels), model)
        figures = [*measure_shares(one), find_calibration_error(one)]
        rows.append([f"`{model}`", *show_shares(figures, 2)])
    return Table(SINGLE, ["model", *SHARES, "calibration error"], rows)


def read_digits(batches: Iterable[pa.RecordBatch], model: str) -> Read:
    """The answers to digits whose batches have their truth."""
    rows, right = list[dict[str, Any]](), list[bool]()
    for batch in batches:
        part = classify_chunk(Chunk(0, batch), model).to_pylist()
        truths = batch.column("truth").to_pylist()
        right += [row["label"] == truth for row, truth in zip(part, truths, strict=True)]
        rows += part
    return judge(right, rows)


def measure_hands(data: Path) -> Table:
    """Single digits of each source of real hands, and the mean of the sources."""
    reads = {model: all_glyphs(data, model) for model in SINGLE}
    table = tabulate_digits("hands", reads)
    means = [np.mean([*map(measure_shares, reads[model].values())], axis=0) for model in SINGLE]
    mean = ["mean of these sources", "", *show_shares(np.concatenate(means), 2)]
    return table._replace(rows=[*table.rows, mean])


@cache
def all_glyphs(data: Path, model: str) -> Reads:
    return dict(read_glyphs([data / "handwriting/dev"], model))


@cache
def all_strings(data: Path) -> Reads:
    return dict(read_strings([data / "handwriting/dev"]))


def measure_photos(data: Path) -> Table:
    """Photos, drawings and scans of single digits by their kind, as files."""
    with (data / "photos/labels.csv").open(newline="", encoding="utf-8") as file:
        lines = [*csv.DictReader(file)]
    parts = {"all": lines}
    for line in lines:
        parts.setdefault(line["kind"], []).append(line)
    reads: dict[str, Reads] = {model: {} for model in SINGLE}
    for kind, part in parts.items():
        batch = pa.record_batch(
            {
                "id": [line["path"] for line in part],
                "image": [(data / "photos" / line["path"]).read_bytes() for line in part],
                "truth": pa.array([int(line["label"]) for line in part], pa.int8()),
            }
        )
        for model in SINGLE:
            reads[model][kind] = read_digits([batch], model)
    return tabulate_digits("pictures", reads)


def tabulate_digits(what: str, reads: dict[str, Reads]) -> Table:
    """The answers of each model to each part of the images."""
    head = [what, "images"]
    for model in reads:
        head += [f"`{model}` right", *SHARES[1:]]
    rows = [
        [
            NAMES.get(name, name),
            f"{len(one.is_right):,}",
            *show_shares(
                np.concatenate([measure_shares(reads[model][name]) for model in reads]), 2
            ),
        ]
        for name, one in reads[SINGLE[0]].items()
    ]
    return Table([*reads], head, rows)


def measure_numbers(data: Path) -> Table:
    """Whole numbers of each source, in each way to read them."""
    sources = list_sources([data / "handwriting/dev"], "*/*/labels.csv")
    ways = [
        (path.parent.name, way)
        for path in sources
        if path.parent.name != HALVES
        for way in list_ways(path)
    ]
    items = list_items(data / "numbers/labels.csv", "number")
    known = always(Known.check(pattern="integer"))
    ways.append(("numbers in boxes and on paper", Way("integer", known, has_digits, items)))
    rows, before = [], ""
    for source, way in ways:
        name = "" if source == before else NAMES.get(source, source)
        rows.append([name, name_way(way), *count_shares(read(way, way.items))])
        before = source
    return Table([NUMBER], ["numbers", "read with", "images", *SHARES], rows)


def name_way(way: Way) -> str:
    return WAYS.get(way.name, f"`--pattern '{way.name}'`")


def measure_halves(data: Path) -> Table:
    """Marks with a half, in ways in which a person may read them."""
    items = list_items(data / "handwriting/dev/cells" / HALVES / "labels.csv", "value")
    rows = []
    for pattern in (None, r"\d*½?"):
        known = always(Known.check(pattern=pattern))
        way = Way(pattern or "free", known, has_value, items)
        rows.append([name_way(way), *count_shares(read(way, items))])
    return Table([NUMBER], ["read with", "images", *SHARES], rows)


def measure_rendered(data: Path) -> Table:
    """Rendered numbers on each kind of form, and doubtful ones."""
    rows = [[kind, *count_shares(read_scenes(scenes))] for kind, scenes in render_scenes().items()]
    return Table([NUMBER], ["rendered numbers", "images", *SHARES], rows)


def measure_pages(data: Path) -> Table:
    """The fields of pages with a form, as `digitq classify` reads them."""
    rows, parts = [], []
    for form in list_sources([data], "pages/*/form.toml"):
        found = read_pages(form)
        parts += found
        rows.append([form.parent.name.replace("_", " "), *tabulate_fields(found)])
    return Table([NUMBER], ["form", "fields", *SHARES], [*rows, ["all", *tabulate_fields(parts)]])


def read_pages(form: Path) -> list[dict[str, str]]:
    """The rows of the fields whose truth is known."""
    with TemporaryDirectory() as folder:
        out = Path(folder) / "rows.csv"
        command = [sys.executable, "-m", "digitq", "classify", "pages", "--form", form.name]
        done = subprocess.run(
            [*command, "-o", str(out)], cwd=form.parent, capture_output=True, text=True
        )
        if done.returncode > 1:  # 1 says that a row has an error
            raise SystemExit(f"{form}: {done.stderr}")
        with out.open(newline="", encoding="utf-8") as file:
            truths = list_truths(form.parent / "truth.csv")
            return [
                row | {"truth": truths[key]}
                for row in csv.DictReader(file)
                if (key := (row["page"], row["field"], row["row"])) in truths
            ]


def list_truths(path: Path) -> dict[tuple[str, str, str], str]:
    """What is written in each place: its page, field and row."""
    with path.open(newline="", encoding="utf-8") as file:
        return {
            (row["page"], row["field"], row["row"]): row["number"] for row in csv.DictReader(file)
        }


def tabulate_fields(rows: Sequence[dict[str, str]]) -> list[str]:
    right = [not row["error"] and row["number"] == row["truth"] for row in rows]
    reasons = [row["reason"] or None for row in rows]
    return count_shares(Read(np.array(right), np.zeros(len(rows)), reasons))


def measure_risk(data: Path) -> Table:
    """From which confidence each model promises a risk, and what is then marked of real hands."""
    reads = {model: all_glyphs(data, model) for model in SINGLE} | {NUMBER: all_strings(data)}
    curves = {model: read_card(card_path(model)).risks for model in reads}
    rows = []
    for share in RISKS:
        rows.append([f"{100 * share:g} %"])
        for model, curve in curves.items():
            cells = ["", ""]  # the curve promises no such risk
            if share >= min(most for _, most in curve):
                threshold = find_threshold(curve, share, model)
                cells = show_shares([threshold, share_marked(reads[model], threshold)])
            rows[-1] += cells
    head = [cell for model in reads for cell in (f"`{model}`: marked below", "rows marked")]
    rows.append(["smallest"])
    for model, curve in curves.items():
        least, threshold = min((most, threshold) for threshold, most in curve)
        marked = share_marked(reads[model], threshold)
        rows[-1] += [f"{show_bound(least)} at best", *show_shares([marked])]
    return Table([*reads], ["risk", *head], rows)


TABLES: dict[str, Callable[[Path], Table]] = {
    "mnist": measure_mnist,
    "hands": measure_hands,
    "photos": measure_photos,
    "numbers": measure_numbers,
    "halves": measure_halves,
    "rendered": measure_rendered,
    "pages": measure_pages,
    "risk": measure_risk,
}


def replace_table(page: str, name: str, table: Table) -> str:
    """The page with another table of this name. Raises `ValueError` if it has none."""
    marker = TABLE.format(name)
    page, count = re.subn(
        re.escape(marker) + BLOCK, lambda _: marker + table.write(), page, count=1
    )
    if not count:
        raise ValueError(f"the page has no line {marker.strip()}")
    return page


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--only", choices=TABLES, action="append", help="may be given again")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page that is written")
    options = parser.parse_args(arguments)
    for name in options.only or TABLES:
        table = TABLES[name](options.data.resolve())
        options.page.write_text(
            replace_table(options.page.read_text(encoding="utf-8"), name, table), encoding="utf-8"
        )
        print(f"{name}\n{table.write()}", flush=True)


if __name__ == "__main__":
    main()
