"""A network that learns its own surest answers to a batch, and reads it again."""

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save

import digitq
from digitq import Client, UsageError, phases
from digitq.cli import main
from digitq.phases import WEIGHTS, Ended, adapt_network
from digitq.private.processes import Local
from digitq.producer.adapted import Adapted, draw_images
from digitq.producer.provenance import find_record
from digitq.producer.sources.in_memory import image_source
from digitq.producer.sources.source import Entry, Source
from digitq.protocol.chunk import pixels_batch
from digitq.protocol.formats.mnist import load_mnist
from digitq.protocol.settings import settings
from digitq.worker.models.card import read_card
from tests.drawing import draw_one, random_digits
from tests.weights import copy_weights

EXAMPLES = Path(__file__).parents[2] / "examples"
OTHERWISE = "read otherwise before"
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], local: Local) -> Run:
    """Runs a command with the workers in this process; gives the exit status and what it said."""

    def run(*arguments: object) -> tuple[int, str]:
        capsys.readouterr()
        settings.cache_clear()
        with pytest.raises(SystemExit) as ended:
            main([*map(str, arguments), "--broker", local.url])
        return int(ended.value.code or 0), capsys.readouterr().err

    return run


@pytest.fixture(scope="module")
def slanted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of digits that all slant: a hand that the networks know less well."""
    images, labels = load_mnist("sample")
    slant = np.array([[1, -0.7, 9.8], [0, 1, 0]], np.float32)
    rows = range(0, len(images), 7)
    pictures = [np.array(images[row]).reshape(28, 28) for row in rows]
    files = [
        cv2.imencode(".png", 255 - cv2.warpAffine(one, slant, (28, 28)))[1] for one in pictures
    ]
    path = tmp_path_factory.mktemp("slanted") / "slanted.parquet"
    table = {"id": [f"{row}.png" for row in rows], "image": [one.tobytes() for one in files]}
    pq.write_table(pa.table(table), path)
    return path


@pytest.fixture
def taught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """In place of the training, weights that are surer of all; gives the tasks."""
    tasks: list[dict[str, Any]] = []

    def train(task: dict[str, Any], log: Path, *_: object) -> Ended:
        tasks.append(task)
        out = copy_weights(Path(task["out"]), task["name"], review_below=0.0)
        if task["name"] == "mlp":  # it takes more for a 3
            path = out / "mlp.safetensors"
            weights = load_file(path)
            weights["b2"][3] += 1.0
            content = save(weights)
            path.write_bytes(content)
            card = replace(read_card(out / "mlp.json"), sha256=hashlib.sha256(content).hexdigest())
            card.write(out / "mlp.json")
        return Ended(0)

    monkeypatch.setattr(phases, "run_training", train)
    return tasks


def test_a_hand_is_read_better_once_it_is_known(
    run: Run, slanted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phases, "EPOCHS", 3)
    out, plain = tmp_path / "out.csv", tmp_path / "plain.csv"
    assert run("classify", slanted, "-o", plain)[0] == 0
    status, said = run("classify", slanted, "-o", out, "--adapt")
    before, after = (find_record(path) for path in (plain, out))
    assert before and after and status == 0
    assert after.adapted == before.counts.images == after.counts.images == 715
    reviews = before.counts.review, after.counts.review
    line = f"adapted to 715 images: {reviews[0]} to review became {reviews[1]}"
    assert line in said.splitlines() and reviews[1] < reviews[0]
    assert not [*tmp_path.glob("*.adapting")]
    ids = [
        [line.partition(",")[0] for line in path.read_text().splitlines()] for path in (plain, out)
    ]
    assert ids[0] == ids[1]


def test_where_nothing_is_gained_the_first_answers_stay(run: Run, tmp_path: Path) -> None:
    for number in range(9):
        draw_one(ink=number * 9).save(tmp_path / f"{number}.png")
    (tmp_path / "9.png").write_bytes(b"no image")
    for suffix in ("csv", "parquet"):
        plain, out = tmp_path / f"plain.{suffix}", tmp_path / f"out.{suffix}"
        assert run("classify", tmp_path, "-o", plain)[0] == 1
        plain.rename(tmp_path / "kept")
        status, said = run("classify", tmp_path, "-o", out, "--adapt")
        (tmp_path / "kept").rename(plain)
        assert status == 1
        assert "not adapted: only " in said and "sure: at least 60 are needed" in said
        if suffix == "csv":
            assert out.read_bytes() == plain.read_bytes()
        else:
            assert pq.read_table(out).equals(pq.read_table(plain))
        record = find_record(out)
        assert record and record.adapted is None and record.counts.failed == 1
        for path in (plain, out):
            path.unlink()


def test_what_is_read_otherwise_is_marked(
    run: Run, taught: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Also in rows of pages, in a job that outlives its submitter, and in Python."""
    images = random_digits(300)
    np.save(tmp_path / "images.npy", images)
    page = tmp_path / "page.html"
    command = ("classify", tmp_path / "images.npy", "-o", tmp_path / "a.parquet", "--adapt")
    assert run(*command, "--report", page)[0] == 0
    assert re.search(r"adapted to</[^>]+>\s*<[^>]+>300 images<", page.read_text())
    rows = pq.read_table(tmp_path / "a.parquet")
    plain = pq.read_table(classify_plain(run, tmp_path))
    changed = np.array(rows["label"]) != np.array(plain["label"])
    reasons = np.array(rows["reason"].to_pylist())
    assert 0 < changed.sum() < 300
    assert {*reasons[changed]} <= {OTHERWISE, "no digit"} and OTHERWISE in reasons[changed]
    assert not (reasons[~changed] == OTHERWISE).any()
    assert len(taught) == 1 and taught[0]["name"] == "mlp"


def classify_plain(run: Run, folder: Path) -> Path:
    out = folder / "plain.parquet"
    assert run("classify", folder / "images.npy", "-o", out)[0] == 0
    return out


def test_pages_are_adapted_to_as_well(
    run: Run, taught: list[dict[str, Any]], tmp_path: Path
) -> None:
    form, pages = EXAMPLES / "forms/form.toml", EXAMPLES / "forms/pages"
    command = ("classify", pages, "--form", form, "-o")
    plain = run(*command, tmp_path / "plain.parquet")
    status, said = run(*command, tmp_path / "out.parquet", "--adapt", "--wide")
    assert status == plain[0] and "fields: " in said and "adapted to " in said
    first, last = (pq.read_table(tmp_path / name) for name in ("plain.parquet", "out.parquet"))
    assert first.select(["page", "field"]).equals(last.select(["page", "field"]))


def test_a_run_goes_on_in_the_phase_where_it_was(
    run: Run, taught: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "images.npy", random_digits(2000))
    command = ("classify", tmp_path / "images.npy", "-o")
    quiet, out = tmp_path / "quiet.csv", tmp_path / "out.csv"
    assert run(*command, quiet, "--adapt")[0] == 0
    train = phases.run_training

    def break_off(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    folder = tmp_path / "out.csv.adapting"
    monkeypatch.setattr(phases, "run_training", break_off)
    assert run(*command, out, "--adapt")[0] == 130
    assert (folder / "first.parquet").exists() and not (folder / WEIGHTS).exists()
    monkeypatch.setattr(phases, "run_training", train)
    real, reads = Client.write_results, list[str]()

    def write(self: Client, job: Any, sink: Any, sync: Any, tell: Any) -> None:
        def stop(batch: pa.RecordBatch) -> None:
            tell(batch)
            raise KeyboardInterrupt

        reads.append(job.id)
        real(self, job, sink, sync, stop)

    monkeypatch.setattr(Client, "write_results", write)
    status, said = run(*command, out, "--adapt")
    assert status == 130 and len(reads) == 1  # the first reading is not done again
    assert "rows in" in said and (folder / WEIGHTS).exists()
    monkeypatch.setattr(Client, "write_results", real)
    assert run("classify", tmp_path / "images.npy", "-o", out)[0] == 2  # it belongs to --adapt
    status, said = run(*command, out, "--adapt")
    assert status == 0 and "continuing" in said
    assert out.read_bytes() == quiet.read_bytes()
    assert len(taught) == 2 and not folder.exists()
    run(*command, out, "--adapt", "--overwrite")
    assert len(taught) == 3


def test_a_job_that_is_handed_over_brings_what_has_learned(
    run: Run, client: Client, taught: list[dict[str, Any]], tmp_path: Path
) -> None:
    np.save(tmp_path / "images.npy", random_digits(300))
    status, said = run("submit", tmp_path / "images.npy", "--adapt")
    assert status == 0 and "300 images are in Redis" in said
    job = client.jobs()[-1].id
    assert run("collect", job, "-o", tmp_path / "out.parquet")[0] == 0
    rows = pq.read_table(tmp_path / "out.parquet")
    assert OTHERWISE in rows["reason"].to_pylist()
    record = find_record(tmp_path / "out.parquet")
    assert record and record.adapted == 300
    again = client.submit(random_digits(300), adapt=True)
    assert again.table()["label"].equals(rows["label"])


def test_python_adapts_to_images_in_memory(
    client: Client, taught: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    results = digitq.classify(random_digits(300), client=client, adapt=True)
    assert OTHERWISE in results.table["reason"].to_pylist()
    assert "adapted to 300 images: " in capsys.readouterr().err
    with pytest.raises(UsageError, match="reads the images more than once"):
        digitq.classify(iter([draw_one()]), client=client, adapt=True)
    with pytest.raises(UsageError, match="reads the images more than once"):
        client.submit((one for one in [draw_one()]), adapt=True)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--model", "random"], "has no sure answers to learn from"),
        (["--read", "number", "--risk", "5%"], "a risk can't be promised of a network that is"),
    ],
)
def test_what_can_t_be_adapted(run: Run, options: list[str], why: str, tmp_path: Path) -> None:
    draw_one().save(tmp_path / "1.png")
    for command in (["classify", tmp_path, "-o", tmp_path / "o.csv"], ["submit", tmp_path]):
        status, said = run(*command, *options, "--adapt")
        assert status == 2 and why in said


def test_a_training_that_dies_is_told(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_one().save(tmp_path / "1.png")
    monkeypatch.setattr(phases, "run_training", lambda *_: Ended(-9, last="last words"))
    status, said = run("classify", tmp_path, "-o", tmp_path / "o.csv", "--adapt")
    assert status != 0 and "the training died: last words" in said


def test_workers_with_another_network_are_named(
    tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has answered is what goes on to learn."""
    monkeypatch.setenv("DIGITQ_WEIGHTS", str(copy_weights(tmp_path / "mine", "mlp", seed=7)))
    settings.cache_clear()
    with pytest.raises(UsageError, match="the workers have read with .* would learn: name their"):
        client.submit(random_digits(3), adapt=True)


def test_of_many_images_a_part_is_drawn_however_they_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that have a right answer are all there if these are wanted. Of an unknown number, the
    first are there."""
    monkeypatch.setattr("digitq.producer.adapted.MAX_SEEN", 100)
    read: list[str] = []

    def open_entries() -> Source:
        def entry(number: int) -> Entry:
            truth = {501: "7", 502: "folder"}.get(number)
            return Entry(str(number), lambda: read.append(str(number)) or b"", truth)

        return Source("entries", map(entry, range(1000)))

    truth = pa.array([7 if row == 501 else None for row in range(1000)], pa.int8())
    batch = pixels_batch(pa.array([*map(str, range(1000))]), random_digits(1000), truth)

    def draw(images: int | None, *right: Any) -> list[str]:
        drawn = draw_images(open_entries(), digitq.digits(), images, *right).items
        ids = [item.id for item in drawn if isinstance(item, Entry)]
        for size in (10, 500):
            batches = [batch.slice(row, size) for row in range(0, 1000, size)]
            some = draw_images(Source("batches", batches), digitq.digits(), images, *right).items
            assert [id for one in some for id in one.column("id").to_pylist()] == ids
        return ids

    without = draw(1000)
    assert 70 < len(without) <= 100 and "501" not in without and not read
    drawn = draw(1000, "[0-9]")
    assert {*drawn} == {*without, "501"} and len(drawn) == len(without) + 1
    assert draw(None) == [str(number) for number in range(100)]
    assert draw(None, "[0-9]")[100:] == ["501"]
    assert draw(100) == draw(None)
    assert draw(1000, "[0-9]", lambda: True) == ["501"]


def test_of_many_pages_those_with_right_answers_are_all_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ticks teach nothing, so they do not count."""
    shutil.copy(EXAMPLES / "forms/blank.png", tmp_path)
    ticks = '[choices.q]\noptions = ["A", "B"]\nrows = 2\nbox = [60, 50, 260, 100]\n'
    text = (EXAMPLES / "forms/form.toml").read_text()
    (tmp_path / "form.toml").write_text(text.replace("[[checks]]", f"{ticks}\n[[checks]]", 1))
    reading = digitq.form(tmp_path / "form.toml")
    numbers = sum(not cell.known.options for cell in reading.cells)
    assert 0 < numbers < len(reading.cells)
    monkeypatch.setattr("digitq.producer.adapted.MAX_SEEN_NUMBERS", 10 * numbers)
    field = reading.cells[0].id

    def draw(truths: dict[str, str]) -> list[str]:
        pages = [Entry(f"{number}.png", bytes) for number in range(1000)]
        source = Source("pages", pages, truths=truths)
        return [
            one.id for one in draw_images(source, reading, None).items if isinstance(one, Entry)
        ]

    first = [f"{number}.png" for number in range(10)]
    assert draw({}) == first
    assert draw({f"700.png/{field}": "4", f"3.png/{field}": "1"}) == [*first, "700.png"]


@pytest.mark.parametrize("second", [["a", "c"], ["a"], ["a", "b", "c"]])
def test_images_that_have_changed_between_the_phases_are_refused(
    second: list[str], client: Client, taught: list[dict[str, Any]], tmp_path: Path
) -> None:
    sources = [["a", "b"], ["a", "b"], second]

    def open_next() -> Source:
        return image_source([(id, draw_one()) for id in sources.pop(0)])

    adapted = adapt_network(client, open_next, digitq.digits(), tmp_path / "f", {})
    job = client.submit_source(open_next(), adapted=adapted)
    with pytest.raises(UsageError, match="have changed since the first reading: --overwrite"):
        job.table()


@pytest.mark.parametrize("gained", [False, True])
def test_images_that_come_while_a_run_is_interrupted_are_not_left_out(
    gained: bool, run: Run, taught: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, out = tmp_path / "images", tmp_path / "out.csv"
    images.mkdir()
    for name in ("a", "b"):
        draw_one().save(images / f"{name}.png")
    command = ("classify", images, "-o", out, "--adapt")
    train = phases.run_training if gained else lambda *_: Ended(1, why="nothing is gained")

    def break_off(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(phases, "run_training", break_off)
    assert run(*command)[0] == 130
    monkeypatch.setattr(phases, "run_training", train)
    (images / "a.png").rename(images / "c.png")
    status, said = run(*command)
    assert status == 2 and "the source has changed: its first 2 images are not those" in said
    (images / "c.png").rename(images / "a.png")
    draw_one().save(images / "c.png")
    status, said = run(*command)
    assert status == 2 and "the images have changed since the first reading" in said
    assert run(*command, "--overwrite")[0] == 0
    assert len(out.read_text().splitlines()) == 4


def test_what_another_run_has_left_is_not_taken(
    run: Run, taught: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", random_digits(9, ord(name)))
    train, out = phases.run_training, tmp_path / "out.csv"

    def break_off(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(phases, "run_training", break_off)
    status, said = run("classify", tmp_path / "a.npy", "-o", out, "--adapt")
    assert status == 130 and "out.csv.adapting: the same command goes on from there" in said
    monkeypatch.setattr(phases, "run_training", train)
    for others in ([tmp_path / "b.npy"], [tmp_path / "a.npy", "--limit", 3]):
        status, said = run("classify", *others, "-o", out, "--adapt")
        assert status == 2 and "belongs to another run" in said
    (tmp_path / "out.csv.adapting" / "first.parquet.json").unlink()  # it was killed before that
    assert run("classify", tmp_path / "a.npy", "-o", out, "--adapt")[0] == 0
    assert len(taught) == 1


def test_a_source_without_a_readable_image_keeps_its_errors(run: Run, tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    for number in range(3):
        (tmp_path / "scans" / f"{number}.png").write_bytes(b"broken")
    status, said = run("classify", tmp_path / "scans", "-o", tmp_path / "o.csv", "--adapt")
    assert status == 1 and "not adapted: no image can be read" in said
    assert len((tmp_path / "o.csv").read_text().splitlines()) == 4


def test_paths_on_stdin_are_read_in_each_phase(
    local: Local, taught: list[dict[str, Any]], run: Run, tmp_path: Path
) -> None:
    draw_one().save(tmp_path / "1.png")
    for command in (["classify", "-", "-o", tmp_path / "o.csv"], ["submit", "-"]):
        with (tmp_path / "paths").open("w+") as paths, pytest.MonkeyPatch.context() as patch:
            paths.write(f"{tmp_path}/1.png\n")
            paths.seek(0)
            patch.setattr("sys.stdin", paths)
            status, said = run(*command, "--adapt")
        assert status == 0 and ("adapted to 1 image: " in said or "1 image is in Redis" in said)
    assert "1.png" in (tmp_path / "o.csv").read_text()


def test_open_files_are_refused(client: Client, tmp_path: Path) -> None:
    draw_one().save(tmp_path / "1.png")
    with (tmp_path / "1.png").open("rb") as file:
        for images in (file, [file], [("a", file)]):
            with pytest.raises(UsageError, match="not an open file"):
                client.submit(images, adapt=True)


def test_a_training_that_fails_is_no_training_without_gain(tmp_path: Path) -> None:
    """A status of 1 is that of a traceback, too."""
    with TemporaryFile() as file:
        task = {"name": "mlp", "images": file.fileno(), "known": file.fileno()}
        ended = phases.run_training(task, tmp_path / "log", dict(os.environ), print)
    assert ended.status == 1 and not ended.why and "KeyError" in ended.last


def test_pages_are_not_cut(run: Run, tmp_path: Path) -> None:
    form, pages = EXAMPLES / "forms/form.toml", EXAMPLES / "forms/pages"
    out = tmp_path / "first.parquet"
    assert run("classify", pages, "--form", form, "-o", out)[0] == 0
    file, record = pq.ParquetFile(out), find_record(out)
    assert record
    adapted = Adapted(digitq.form(form), cut_small(file, tmp_path), record)
    batches = [*adapted.rows()]
    assert pa.Table.from_batches(batches).equals(file.read())
    pages_of = [{*batch.column("page").to_pylist()} for batch in batches]
    assert len(pages_of) > 1 and not set.intersection(*pages_of)


def cut_small(file: pq.ParquetFile, folder: Path) -> pq.ParquetFile:
    """The same rows in row groups that cut pages."""
    pq.write_table(file.read(), folder / "small.parquet", row_group_size=5)
    return pq.ParquetFile(folder / "small.parquet")
