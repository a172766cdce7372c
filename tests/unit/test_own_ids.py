"""Ids, right answers and images of one's own: tables, lists of files, pairs, tensors and rows."""

import csv
import io
import math
import os
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from digitq.producer.counts import Counts, add_ids
from digitq.producer.sources import csv_files
from digitq.producer.sources.in_memory import image_source
from digitq.producer.sources.objects import find_reader
from digitq.producer.sources.opening import open_sources
from digitq.producer.sources.source import Entry, Source, UnreadableImageError
from digitq.producer.sources.truth import read_truths
from digitq.protocol.chunk import ARRAY
from digitq.protocol.errors import UsageError
from digitq.protocol.settings import settings
from tests.cutting import cut_items
from tests.drawing import draw_one, encode_image, random_digits
from tests.unit.test_sets import PIXEL_NAMES, read_pieces, small_blocks, write_lines
from tests.unit.test_sources import fill

__all__ = ["small_blocks"]  # a fixture

ODD = ['a "quoted" name', "=1+1.png", "NA", "null", "nan", " x ", "1.0", "007", "a,b", "ä", "<b>"]


def rows_of(source: Source) -> list[tuple[str, bytes | str | None, str | None]]:
    """The id, the content or error, and the truth of each image, as a job of numbers has them."""
    rows = []
    for chunk in cut_items(source.items, source.has_truth, model="number"):
        cells = chunk.batch.to_pydict()
        images = cells.get("image") or cells["pixels"]
        nothing = [None] * len(images)
        errors = cells.get("error", nothing)
        truths = nothing if chunk.truth is None else chunk.truth.to_pylist()
        rows += [
            (id, error or image, truth)
            for id, image, error, truth in zip(cells["id"], images, errors, truths, strict=True)
        ]
    return rows


def write_csv(path: Path, *rows: Iterable[object]) -> Path:
    with open(path, "w", newline="", errors="surrogateescape") as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.mark.parametrize(
    ("ids", "found"),
    [
        (pa.array(["b", "a", "b", None]), ["b", "a", "b#2", "3"]),
        (pa.array([7, 7, 2, None]), ["7", "7#2", "2", "3"]),
        (pa.array([7.0, 2.5, None, 3.0]), ["7", "2.5", "2", "3"]),
        (
            pa.array([1e10 + 1, 12345678901.0, 1e30, -7]),
            ["10000000001", "12345678901", "1e+30", "-7"],
        ),
        (pa.array([7, 2, 0.5, 9], pa.float16()), ["7", "2", "0.5", "9"]),
        (pa.array(["3.0", "", "1", " 1 "]).dictionary_encode(), ["3.0", "1", "1#2", " 1 "]),
        (
            pa.array(["a\nb", '"', "=1+1.png", "3"], pa.large_string()),
            ["a\nb", '"', "=1+1.png", "3"],
        ),
        (pa.array([b"\xff", b"a", b"b", b"c"]).view(pa.string()), ["\\xff", "a", "b", "c"]),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)
def test_a_column_of_a_table_has_the_ids(ids: pa.Array, found: list[str], tmp_path: Path) -> None:
    pixels = dict.fromkeys(PIXEL_NAMES, [0] * 4)
    for name, others in [
        ("id", {"image": [b"x"] * 4}),
        ("Path", {"image": [b"x"] * 4}),
        ("ID", pixels),
    ]:
        table = pa.table({name: ids, **others})
        assert [id for id, _, _ in rows_of(image_source(table))] == found
        pq.write_table(table, tmp_path / "a.parquet")
        assert [id for id, _, _ in rows_of(open_sources(tmp_path / "a.parquet"))] == found
    fill(tmp_path, "b.png")
    several = rows_of(open_sources([tmp_path / "a.parquet", tmp_path / "b.png"]))
    assert [id for id, _, _ in several[:4]] == [f"{tmp_path}/a.parquet/{id}" for id in found]


def test_id_comes_before_path_and_is_no_pixel(tmp_path: Path) -> None:
    (digit,) = random_digits(1)
    names, cells = [*map(str, range(784))], digit.ravel().tolist()
    for columns in (
        ["id", "path", *names],
        ["path", "ID", *names],
        ["id", *(f"{n}x" for n in range(784))],
    ):
        values = {
            "id": 42,
            "ID": 42,
            "path": "a.png",
            **dict(zip(columns[-784:], cells, strict=True)),
        }
        path = write_lines(tmp_path / "a.csv", [[*columns], [values[name] for name in columns]])
        expected = [("42", digit.tobytes(), None)]
        assert rows_of(open_sources(path)) == expected
        assert rows_of(image_source(pa.table({k: [values[k]] for k in columns}))) == expected


def test_ids_in_a_csv_stay_what_they_are_in_any_block(tmp_path: Path, small_blocks: None) -> None:
    """One odd line has its block read in another way, which must give the same."""
    digits = random_digits(300)
    ids = [*ODD, "", *ODD, *(f"n{n}" for n in range(300))][:300]
    rows: list[list[object]] = [
        [id, n % 10, *digit.ravel()] for n, (id, digit) in enumerate(zip(ids, digits, strict=True))
    ]
    expected = [*ODD, "11", *(f"{id}#2" for id in ODD), *ids[23:]]
    path = write_csv(tmp_path / "a.csv", ["id", "label", *PIXEL_NAMES], *rows)
    assert read_pieces(open_sources(path).items)[0] == expected
    rows[5][0], rows[6][9], rows[290][0] = os.fsdecode(b"\xff"), "", "ü"
    expected[5], expected[290], expected[17] = "\\xff", "ü", " x "
    write_csv(path, ["id", "label", *PIXEL_NAMES], *rows)
    found, _, truths = read_pieces(open_sources(path).items)
    assert found == expected and truths == [n % 10 for n in range(300)]


def test_a_csv_of_paths_is_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "set/1.png", "set/sub/2.png", "here/3.png", "here/1.png")
    path = write_csv(
        tmp_path / "set/labels.csv",
        *[["Path", "note", "Label"], ["1.png", "x", 7], ["sub/2.png", "", "3.0"]],
        *[["3.png", "", ""], [tmp_path / "set/1.png", "", "x"], ["gone.png", "", ""], ["", "", 4]],
        *[["1.png", "", "007"], ["https://a.org/1.png", "", ""]],
    )
    monkeypatch.chdir(tmp_path / "here")
    missing, url = (
        "can't be read: No such file or directory",
        "a URL: download it and give the path of the file",
    )
    expected = [
        *[("1.png", b"set/1.png", "7"), ("sub/2.png", b"set/sub/2.png", "3.0")],
        *[("3.png", b"here/3.png", ""), (f"{tmp_path}/set/1.png", b"set/1.png", None)],
        *[("gone.png", missing, None), ("5", "the row has no path", "4")],
        *[("1.png#2", b"set/1.png", "007"), ("https://a.org/1.png", url, None)],
    ]
    source = open_sources(path)
    assert source.has_truth and source.count() == 8
    assert [(id, image, truth or "") for id, image, truth in rows_of(source)] == [
        (id, image, truth or "") for id, image, truth in expected
    ]


@pytest.mark.parametrize(
    ("header", "row", "id", "truth"),
    [
        ("path", "a.png", "a.png", None),
        ("path,truth", "a.png,5", "a.png", "5"),
        ("path,number", "a.png,5", "a.png", "5"),
        ("file,label", "a.png,5", "a.png", "5"),
        ("image,digit,id", "a.png,5,n1", "n1", "5"),
        ("ID, Truth, Path", "n1,5,a.png", "n1", "5"),
        ("path,label,number", "a.png,5,55", "a.png", "55"),
        ("path,x,y", "a.png,5,6", "a.png", None),  # a place in the image
    ],
)
def test_names_of_columns_are_those_of_truth(
    header: str, row: str, id: str, truth: str | None, tmp_path: Path
) -> None:
    fill(tmp_path, "a.png")
    path = tmp_path / "a.csv"
    for start in ("", "\ufeff"):
        path.write_text(f"{start}{header}\n\n{row}\n")
        source = open_sources(path)
        assert source.has_truth == (truth is not None)
        assert rows_of(source) == [(id, b"a.png", truth)]
    path.write_text(f"{header}\n{row}\n".replace(",", ";"))  # as some spreadsheets save it
    assert rows_of(open_sources(path)) == [(id, b"a.png", truth)]


IDS = ["id", "path", "file", "image", "name", "filename", "file_name", "image_path"]
ANSWERS = ["truth", "number", "label", "digit", "class", "target"]


@pytest.mark.parametrize("first", range(len(ANSWERS)))
def test_tables_of_all_kinds_have_the_same_names_of_columns(first: int, tmp_path: Path) -> None:
    """Of several such columns the first in the list counts, wherever it stands in the table."""
    ids = dict.fromkeys(IDS[:first:-1], "x") | {IDS[first]: "a"}
    answers = dict.fromkeys(ANSWERS[:first:-1], "9") | {ANSWERS[first]: "5"}
    pixels = dict(zip(PIXEL_NAMES, DIGITS[0].ravel().tolist(), strict=True))
    row: dict[str, Any] = ids | answers
    table = write_csv(tmp_path / "a.csv", row.keys(), row.values())
    assert read_truths(table) == {"a": "5"}
    images: Any
    for images in (None, {"scan": b"1"}, pixels):  # no images: the table is a list of paths
        source = image_source(pa.Table.from_pylist([row | images])) if images else None
        ((id, _, truth),) = rows_of(source or open_sources(table))
        assert (id, truth) == ("a", "5")


def test_odd_names_in_a_list_are_found(tmp_path: Path) -> None:
    names = ["a\nb.png", 'say "7".png', "=1+1.png", "a,b.png", "ü.png", " 1.png", "5"]
    names += [] if sys.platform == "darwin" else [os.fsdecode(b"\xff.png"), "\\xff.png"]
    fill(tmp_path, *names)
    path = write_csv(tmp_path / "a.csv", ["path"], *([name] for name in names))
    found = rows_of(open_sources(path))
    assert [content for _, content, _ in found] == [*map(os.fsencode, names)]
    shown = [*names[:7], "\\xff.png", "\\xff.png#2"]
    assert [id for id, _, _ in found] == shown[: len(names)]


def test_a_list_that_is_no_csv_from_some_row_on_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "a.png")
    path = write_csv(tmp_path / "a.csv", ["path"], *[["a.png"]] * 3)
    with open(path, "a") as file:
        file.write("a.png,3\n")
    with pytest.raises(UsageError, match="line 5 has 2 cells, but the first line has 1"):
        open_sources(path)
    monkeypatch.setattr(csv_files, "CSV_BLOCK_BYTES", 16)
    *whole, (last, error, _) = rows_of(open_sources(path))
    assert [id for id, _, _ in whole] == ["a.png", "a.png#2", "a.png#3"][: len(whole)] and whole
    assert last == str(len(whole))
    assert error == (
        "the file is damaged from here on: line 5 has 2 cells, but the first line has 1"
    )
    write_csv(path, ["path", "label"])
    with pytest.raises(UsageError, match="no image in .*a.csv: it has no rows"):
        open_sources(path)


def test_the_folder_of_a_path_in_a_list_is_its_truth(tmp_path: Path) -> None:
    fill(tmp_path, "3/a.png", "x/b.png")
    path = write_csv(tmp_path / "a.csv", ["path"], ["3/a.png"], ["x/b.png"])
    source = open_sources(path, truth_from_parent=True)
    assert source.has_truth and [truth for _, _, truth in rows_of(source)] == ["3", None]
    write_csv(path, ["path", "label"], ["3/a.png", 5], ["3/a.png", ""])
    assert [t for _, _, t in rows_of(open_sources(path, truth_from_parent=True))] == ["5", "3"]


def test_a_table_without_images_may_list_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "a.png")
    table = pa.table({"path": ["a.png", None], "id": [8, None], "label": [3.0, None]})
    pq.write_table(table, tmp_path / "a.parquet")
    expected = [("8", b"a.png", "3"), ("1", "the row has no path", None)]
    assert rows_of(open_sources(tmp_path / "a.parquet")) == expected
    monkeypatch.chdir(tmp_path)
    assert rows_of(image_source(table)) == expected


def test_a_run_goes_on_after_images_with_ids_of_their_own(tmp_path: Path) -> None:
    fill(tmp_path, "a.png", "b.png")
    path = write_csv(tmp_path / "a.csv", ["path", "id"], ["a.png", "x"], ["b.png", "x"])
    table = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [b"1", b"2"], "id": ["x", "x"]}), table)
    written = Counts(1, add_ids(0, pa.array(["x"])))
    for source in (path, table):
        (chunk,) = cut_items(open_sources(source).items, resume=written)
        assert chunk.first_row == 1 and chunk.batch.column("id").to_pylist() == ["x#2"]
    write_csv(path, ["path", "id"], ["a.png", "y"], ["b.png", "x"])
    with pytest.raises(UsageError, match="the source has changed"):
        list(cut_items(open_sources(path).items, resume=written))


def make_samples(path: Path, members: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return path
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("name", ["a.tar", "a.zip"])
def test_a_cls_beside_an_image_is_its_truth(name: str, tmp_path: Path) -> None:
    """As WebDataset has it, before or after the image."""
    members = {"0.cls": b"3\n", "0.json": b"{}", "0.png": b"0", "a/1.jpg": b"1", "a/1.cls": b"7"}
    members |= {"2.png": b"2", "3.cls": b"one", "3.png": b"3", "4.cls": b"9", "5.x.png": b"5"}
    members |= {
        "5.x.cls": b"0",
        "5.x.jpg": b"5j",
        "6.png": b"6",
        "6.cls": b"1" * 65,
        ".7.cls": b"1",
    }
    path = make_samples(tmp_path / name, members)
    source = open_sources(path)
    assert source.has_truth
    assert rows_of(source) == [
        *[("0.png", b"0", "3"), ("a/1.jpg", b"1", "7"), ("2.png", b"2", None)],
        *[("3.png", b"3", None), ("5.x.png", b"5", "0"), ("5.x.jpg", b"5j", "0")],
        ("6.png", b"6", None),
    ]
    assert source.skipped == {".json": 1, ".cls": 1, "hidden": 1}
    source = open_sources(
        make_samples(tmp_path / name, {"7/0.png": b"", "1.png": b"", "1.cls": b"2"})
    )
    assert source.has_truth == (name == "a.zip") and source.skipped.total() == 0
    source = open_sources(tmp_path / name, truth_from_parent=True)
    assert [truth for _, _, truth in rows_of(source)] == ["7", "2"]


def test_a_tar_of_one_stem_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITQ_IMAGE_BYTES", "2000")
    settings.cache_clear()
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for _ in range(20):
            tar.addfile(tarfile.TarInfo("x.png"))
        label = tarfile.TarInfo("x.cls")
        label.size = 1
        tar.addfile(label, io.BytesIO(b"3"))
    truths = [item.truth for item in open_sources(path).items if isinstance(item, Entry)]
    assert len(truths) == 20 and truths[0] is None and truths[-1] == "3"


def test_a_tar_that_breaks_off_gives_the_image_that_it_holds(tmp_path: Path) -> None:
    path = make_samples(tmp_path / "a.tar", {"0.cls": b"3", "0.png": b"0"})
    path.write_bytes(path.read_bytes()[:2048])
    first, last = rows_of(open_sources(path))
    assert first == ("0.png", b"0", "3") and last[0] == "(the rest)"


DIGITS = random_digits(3)
TENSOR = torch.tensor(DIGITS)


@pytest.mark.parametrize(
    "images",
    [
        TENSOR,
        TENSOR[:, None],
        TENSOR / 255,
        (TENSOR[:, None] / 255).requires_grad_(),
        (TENSOR / 255).double(),
        (TENSOR / 255).half(),
        TENSOR.mT.contiguous().mT,
        DIGITS[:, None],
        DIGITS / 255,
        (DIGITS / 255).astype(np.float16)[..., None],
        (DIGITS / 255).astype(">f4"),
    ],
    ids=lambda images: f"{type(images).__name__} {images.dtype} {tuple(images.shape)}",
)
def test_tensors_and_floats_are_the_same_images(images: Any) -> None:
    expected = [(str(n), digit.tobytes(), None) for n, digit in enumerate(DIGITS)]
    assert rows_of(image_source(images)) == expected
    marked = [(id, ARRAY + content, None) for id, content, _ in expected]
    assert rows_of(image_source([*images])) == marked
    assert rows_of(image_source(images[0])) == marked[:1]
    doubled = [(str(n), digit.tobytes(), None) for n, digit in enumerate([*DIGITS, *DIGITS])]
    assert rows_of(image_source(iter([images, images]))) == doubled
    named = [(f"n{id}", content, None) for id, content, _ in marked]
    assert rows_of(image_source((f"n{n}", image) for n, image in enumerate(images))) == named


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ((TENSOR / 255 - 0.1307) / 0.3081, r"floats are from -0.424\d to .*: undo a normalisation"),
        (
            TENSOR.float(),
            "or floats from 0 to 1, but its floats are from 0 to 255: .*divide by 255",
        ),
        (np.full((28, 28), np.nan), "its floats are from nan to nan"),
        (TENSOR.long(), "must be uint8, or floats from 0 to 1, not int64"),
        (torch.zeros(2, 28, 28, device="meta"), "a Tensor can't be read as an array of NumPy"),
        (torch.zeros(5, 50, 60), r"uint8\(5, 50, 60\) is not an image: .*\(N, 1, 28, 28\)"),
        (torch.zeros(3, 50, 60) - 1, "its floats are from -1 to -1: undo a normalisation"),
        (
            [(TENSOR[0], 3, 4)],
            r"image 0 has the type tuple: .*; a pair is \(id, image\), and the id",
        ),
        ([(3, 4)], r"image 0 has the type int: .*; a pair is \(id, image\)"),
        (
            [(TENSOR[0], 3)],
            "image 0 has the type tuple: .*images with labels are a Dataset of torch",
        ),
        (
            DataLoader(TensorDataset(TENSOR, torch.arange(3)), batch_size=2),
            "image 0 has the type list: .*such as the `dataset` of a DataLoader, or a table",
        ),
        ([{"id": "a", "image": b"1"}], r"type dict: .*as in \(\(row\['id'\], row\['image'\]\) for"),
        ([("a", TENSOR)], r"image 0: .*give a pair \(id, image\) for each image"),
        ([TENSOR, ("a", DIGITS[0])], r"image 3: .*give a pair \(id, image\) for each image"),
        ([torch.zeros(2, 40, 50, 3), ("a", b"")], r"image 2: .*give a pair \(id, image\) for each"),
        (TensorDataset(TENSOR[None], torch.arange(1)), "image 0: an array of several images has"),
        (TensorDataset(TENSOR), r"item 0 of the TensorDataset is no pair \(image, label\): give"),
        ({"a": b"1"}, r"a dict is not a list of images: its .items\(\) are"),
        (pa.table({"a": ["x"]}), "the Table has no image column .*; its columns: a"),
        (
            pa.table([pa.array(["a"])] * 2 + [pa.array([b"x"])], ["id", "id", "image"]),
            "several columns id",
        ),
    ],
)
def test_what_is_no_image_says_what_is_right(images: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        rows_of(image_source(images))


def test_pairs_have_ids_of_their_own() -> None:
    pairs = {"a.png": b"1", 5: b"2", "=1+1": b"3", "a\nb": b"4", "\udcff": b"5", "": b"6"}
    expected = ["a.png", "5", "=1+1", "a\nb", "\\xff", "5#2", "6"]
    images = [*[*pairs.items()][:5], ("5", b"7"), ("", b"6")]
    assert [id for id, _, _ in rows_of(image_source(images))] == expected
    assert [id for id, _, _ in rows_of(image_source(pairs.items()))][:2] == ["a.png", "5"]


class Digits(torch.utils.data.Dataset):
    """Pairs of an image and its label, as torchvision's datasets give them."""

    def __init__(self, images: Any, *labels: Any) -> None:
        self._pairs = [*zip(images, *labels, strict=True)]

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, number: int) -> Any:
        return self._pairs[number]


def test_a_dataset_of_torch_has_labels() -> None:
    """A label may be missing, but the first row says whether there are any."""
    labels = ["007", np.int64(8), torch.tensor(9.0)]
    expected = [
        (str(n), ARRAY + digit.tobytes(), label)
        for n, (digit, label) in enumerate(zip(DIGITS, ["007", "8", "9"], strict=True))
    ]
    source = image_source(Digits(TENSOR[:, None] / 255, labels))
    assert source.count() == 3 and rows_of(source) == expected
    assert rows_of(image_source(TensorDataset(TENSOR, torch.arange(7, 10))))[1] == expected[1]
    partly = rows_of(image_source(Digits([b"x", None], [3, None])))
    assert partly == [("0", b"x", "3"), ("1", "the row has no image", None)]
    (chunk,) = cut_items(image_source(Digits([b"x", b"y"], [None, 3])).items, None)
    assert chunk.truth is None


def test_pictures_of_torch_have_their_channels_first() -> None:
    pictures = torch.rand(3, 3, 40, 50)
    last = [
        Image.fromarray(np.rint(one.permute(1, 2, 0).numpy() * 255).astype("u1"))
        for one in pictures
    ]
    expected = [(str(n), encode_image(one), None) for n, one in enumerate(last)]
    assert rows_of(image_source(pictures)) == rows_of(image_source([pictures])) == expected
    assert rows_of(image_source([*pictures])) == expected


@pytest.mark.parametrize("image", [{"bytes": b"x", "path": None}, b"x"])
def test_a_column_of_images_may_have_any_name(image: Any) -> None:
    row = {"note": "a", "scan": image, "label": 3}
    assert rows_of(image_source(pa.Table.from_pylist([row]))) == [("0", b"x", "3")]


def test_a_dataframe_of_objects_says_how_to_make_pairs_of_them(tmp_path: Path) -> None:
    """pandas may have NaN where something is missing."""
    fill(tmp_path, "a.png")
    cells = [math.nan, draw_one(), None, DIGITS[0], tmp_path / "a.png"]
    frame = pd.DataFrame({"id": [5, 6, 7, 8, 9], "image": cells})
    with pytest.raises(UsageError, match=r"for column image .* pairs: zip\(frame\['id'\], frame"):
        image_source(frame)
    assert rows_of(image_source(zip(frame["id"], frame["image"], strict=True))) == [
        ("5", "the row has no image", None),
        ("6", encode_image(draw_one()), None),
        ("7", "the row has no image", None),
        ("8", ARRAY + DIGITS[0].tobytes(), None),
        ("9", b"a.png", None),
    ]
    with pytest.raises(UsageError, match="a Series can't be read as a table: .* as a list"):
        image_source(frame["image"])
    assert len(rows_of(image_source([*frame["image"]]))) == 5


def test_a_table_without_rows_has_no_images() -> None:
    for table in (pd.DataFrame({"path": []}), pa.table({"image": pa.array([])})):
        assert rows_of(image_source(table)) == []


def test_a_dataframe_of_paths(tmp_path: Path) -> None:
    """Other columns do no harm, and a named index is a column."""
    fill(tmp_path, "a.png")
    path = str(tmp_path / "a.png")
    frame = pd.DataFrame({"path": [path, None], "mark": [1.5, None]}, ["x", "y"])
    assert rows_of(image_source(frame)) == [
        (path, b"a.png", None),
        ("1", "the row has no path", None),
    ]
    assert [id for id, _, _ in rows_of(image_source(frame.rename_axis("id")))] == ["x", "y"]
    for name in ("filename", "file_name", "image_path"):
        named = image_source(pd.DataFrame({name: [path], "x": 1}))
        assert rows_of(named) == [(path, b"a.png", None)]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame({"path": ["a", "b"], "label": ["7", 3]}), "for column label with type"),
        (pd.DataFrame({"path": ["a"], "x": [{1}]}).assign(x=object()), "leave out columns that"),
        (pd.DataFrame([["a", 1, 2]], columns=["path", "label", "label"]), "Duplicate column names"),
        (pd.DataFrame({"scan": ["a", "x"]}), "no column `path` of image files: rename the one"),
    ],
)
def test_a_dataframe_whose_columns_are_not_clear(frame: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        image_source(frame)


class Frame:
    """A table that is only known by what it offers to Arrow, as Polars and others do."""

    def __init__(self, **columns: Any) -> None:
        self._table = pa.table(columns)

    def __arrow_c_stream__(self, requested_schema: Any = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


def test_tables_in_memory() -> None:
    columns = {"image": [b"1", b"2"], "label": [7, 8], "id": ["a", "b"]}
    expected = [("a", b"1", "7"), ("b", b"2", "8")]
    table = pa.concat_tables([pa.table(columns).slice(n, 1) for n in range(2)])
    for given in (table, pa.record_batch(columns), table.to_reader(), Frame(**columns)):
        assert rows_of(image_source(given)) == expected
    pixels = Frame(**{f"column_{n}": DIGITS.reshape(3, 784)[:, n] for n in range(784)})
    assert [image for _, image, _ in rows_of(image_source(pixels))] == [d.tobytes() for d in DIGITS]


def test_a_large_table_in_memory_is_not_copied_at_once() -> None:
    table = pa.table({"image": pa.array([os.urandom(5000)] * 4000), "id": range(4000)})
    before = pa.total_allocated_bytes()
    held = [pa.total_allocated_bytes() - before for _ in image_source(table).items]
    assert len(held) == 250 and max(held) < 5 << 20


def test_a_url_in_a_list_is_not_fetched() -> None:
    with pytest.raises(UnreadableImageError, match="a URL: download it"):
        find_reader("https://a.org/1.png", "folder")()
