"""How much may be wrong without a mark: the curve, what travels of it, and what workers mark."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pytest

from digitq.cli import main
from digitq.producer.provenance import find_record, record_path
from digitq.protocol.asked import UnmetError
from digitq.protocol.asked.form import Form, read_form
from digitq.protocol.asked.known import Known
from digitq.protocol.asked.reading import Reading, decode_known, digits, numbers
from digitq.protocol.asked.reading import form as read_pages
from digitq.protocol.asked.risk import (
    MAX_THRESHOLDS,
    Likeness,
    Risk,
    compare,
    find_threshold,
    measure_curve,
    read_share,
)
from digitq.protocol.asked.sample import bound_share
from digitq.protocol.chunk import FORM_SCHEMA, RESULT_SCHEMA, REVIEW_BELOW_KEY, Chunk
from digitq.protocol.errors import UsageError
from digitq.protocol.origin import Origin
from digitq.worker.classify import MIN_DIGIT_CONFIDENCE, classify_chunk
from digitq.worker.dataset import load_mnist
from digitq.worker.models.card import WEIGHTS_FOLDER, read_card
from digitq.worker.models.lent import describe_weights
from digitq.worker.models.model import load_model
from tests.drawing import draw_tight_ring, encode_image
from tests.unit.test_results import PART, SHARES, write

EXAMPLES = Path(__file__).parents[2] / "examples"
CARD = load_model("mlp").card


def draw(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Confidences, and whether each answer is wrong: as often as its confidence says."""
    random = np.random.default_rng(seed)
    confidences = 1 - 0.6 * random.random(rows) ** 6
    return confidences, random.random(rows) > confidences


def test_a_curve_has_rising_thresholds_and_bounds_that_were_measured() -> None:
    confidences, is_wrong = draw(20_000, 1)
    curve = measure_curve(confidences, is_wrong)
    thresholds = [threshold for threshold, _ in curve]
    assert thresholds == sorted({*thresholds}) and thresholds[0] == 0
    assert len(curve) == MAX_THRESHOLDS
    for threshold, most in curve:
        wrong = is_wrong[confidences >= threshold]
        bound = bound_share(int(wrong.sum()), len(wrong), 1 - 0.05 / MAX_THRESHOLDS)
        assert most == pytest.approx(bound, abs=1e-6) and most > wrong.mean()
    shares = [most for _, most in curve]
    assert shares[0] > 10 * min(shares)


def test_a_risk_is_kept_in_95_percent_of_the_samples() -> None:
    """Whichever threshold a risk chooses: it holds for the many rows that were not looked at."""
    confidences, is_wrong = draw(200_000, 2)
    kept = []
    for seed in range(100):
        rows = np.random.default_rng(seed).integers(len(confidences), size=1000)
        curve = measure_curve(confidences[rows], is_wrong[rows])
        for share in (0.02, 0.05, 0.1):
            if min(most for _, most in curve) <= share:
                threshold = find_threshold(curve, share, "it")
                kept.append(is_wrong[confidences >= threshold].mean() <= share)
    assert len(kept) > 200 and np.mean(kept) > 0.95


def test_few_answers_have_few_thresholds() -> None:
    confidences, is_wrong = draw(200, 3)
    ((threshold, most),) = measure_curve(confidences, is_wrong, lowest=0.9)
    assert threshold == 0.9
    wrong = is_wrong[confidences >= 0.9]
    assert most == pytest.approx(bound_share(int(wrong.sum()), len(wrong)), abs=1e-6)
    assert measure_curve(np.zeros(0), np.zeros(0, bool)) == ((0.0, 1.0),)


def test_the_lowest_threshold_that_keeps_a_risk_is_taken() -> None:
    curve = ((0.5, 0.04), (0.9, 0.02), (0.99, 0.006), (0.999, 0.008))
    found = [find_threshold(curve, share, "mlp") for share in (0.05, 0.04, 0.03, 0.007)]
    assert found == [0.5, 0.5, 0.9, 0.99]
    with pytest.raises(
        UnmetError, match="mlp can promise a risk of 0.60 % at best, and not of 0.10 %"
    ):
        find_threshold(curve, 0.001, "mlp")
    with pytest.raises(UnmetError, match="mlp can promise no risk, as nobody has measured it"):
        find_threshold((), 0.001, "mlp")


@pytest.mark.parametrize(("text", "share"), [("0.5%", 0.005), ("2 %", 0.02), (0.01, 0.01)])
def test_a_share_is_a_percentage_or_a_number(text: str | float, share: float) -> None:
    assert read_share(text) == pytest.approx(share)


@pytest.mark.parametrize("wrong", ["", "few", "0%", "-1%", "60%", "0.5", 1, "nan", True])
def test_a_share_that_can_t_be_is_told(wrong: Any) -> None:
    with pytest.raises(UsageError, match="it must be a share such as 0.5%, or 0.005"):
        digits(risk=wrong)


def test_it_travels_with_what_is_known() -> None:
    allowed = numbers(allowed=["7", "12"], risk="1%")
    for reading in (digits(risk="1%"), numbers(risk="1%"), allowed):
        known = decode_known(reading.known)
        assert known.risk == Risk(0.01) and reading.risk == 0.01
        assert isinstance(known, Known) and known.is_nothing == (reading is not allowed)
    form = read_form(EXAMPLES / "forms/form.toml")
    asked = decode_known(read_pages(form, risk=0.01).known)
    assert isinstance(asked, Form) and asked.risk == Risk(0.01) and asked.checks == form.checks
    risk = Risk(0.02, ((0.5, 0.03), (0.9, 0.01)), ("ab", "cd"))
    assert Known.decode(Known(r"\d", fill="X", risk=risk).encode()).risk == risk
    assert decode_known(replace(form, risk=risk).encode()).risk == risk
    assert digits().known == b""


def test_answers_are_harder_if_clearly_more_are_unsure() -> None:
    curve = measure_curve(*draw(20_000, 1))
    random = np.random.default_rng(2)
    for rows, is_harder in ((20, False), (400, True)):
        assert not compare(curve, draw(rows, 3)[0]).is_harder
        harder = draw(rows, 3)[0] - 0.5 * (random.random(rows) < 0.1)
        assert compare(curve, harder).is_harder == is_harder
    whole = compare(curve, harder[:100]) + compare(curve, harder[100:])
    assert whole == compare(curve, harder) and whole.usual == 0.1225
    assert compare(curve[:1], harder) == Likeness() and not Likeness().is_harder
    equal = (*curve[:7], (1.0, 0.01))  # a share of them is not known
    assert compare(equal, harder) == Likeness()


def images(*contents: bytes) -> Chunk:
    return Chunk(0, pa.record_batch({"id": [*map(str, range(len(contents)))], "image": contents}))


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_workers_mark_what_is_below_the_threshold_of_the_card(name: str) -> None:
    card = load_model(name).card
    digits, _ = load_mnist("sample")
    pixels = [image.numpy().tobytes() for image in digits[:300]]
    chunk = Chunk(
        0, pa.record_batch({"id": [""] * 300, "pixels": pa.array(pixels, pa.binary(784))})
    )
    marked = []
    for share in (None, 0.05, 0.01, 0.003):
        risk = Risk(share) if share else None
        rows = classify_chunk(chunk, name, known=Known(risk=risk))
        below = find_threshold(card.risks, share, name) if share else card.review_below
        assert float((rows.schema.metadata or {})[REVIEW_BELOW_KEY]) == below
        confidence = rows.column("confidence").to_numpy()
        is_marked = confidence < max(below, MIN_DIGIT_CONFIDENCE)
        assert rows.column("review").to_pylist() == is_marked.tolist()
        marked.append(int((confidence < below).sum()))
    assert marked[1] <= marked[2] < marked[3]


def test_an_image_that_only_other_views_make_sure_is_marked_as_well() -> None:
    content = encode_image(PIL.Image.fromarray(draw_tight_ring(35, 16)))
    rows = classify_chunk(images(content), "mlp", known=Known(risk=Risk(0.0025)))
    assert rows.column("review").to_pylist() == [True]


def test_fields_of_pages_keep_it_too() -> None:
    form = read_form(EXAMPLES / "forms/form.toml")
    content = (EXAMPLES / "forms/pages/scan.png").read_bytes()
    cells = [cell.id for cell in form.cells]
    contents = [content, *[None] * (len(cells) - 1)]
    ids = [f"scan.png/{cell}" for cell in cells]
    chunk = Chunk(0, pa.record_batch({"id": ids, "image": pa.array(contents, pa.binary())}))
    curve = ((0.0, 0.4), (0.9999999, 0.001))
    loose, strict = (
        classify_chunk(chunk, "number", known=replace(form, risk=Risk(share, curve)))
        for share in (0.4, 0.01)
    )
    assert "unsure" not in loose.column("reason").to_pylist()
    rows = strict.to_pylist()
    assert all(row["reason"] for row in rows if row["confidence"] < 0.9999999)
    assert "unsure" in strict.column("reason").to_pylist()
    assert loose.column("number").equals(strict.column("number"))


def test_what_can_t_be_promised_is_an_error() -> None:
    content = encode_image(PIL.Image.fromarray(draw_tight_ring()))
    with pytest.raises(UnmetError, match="mlp can promise a risk of"):
        classify_chunk(images(content), "mlp", known=Known(risk=Risk(1e-6)))
    with pytest.raises(UnmetError, match="random can promise no risk"):
        classify_chunk(images(content), "random", known=Known(risk=Risk(0.01)))
    own = Risk(0.01, ((0.5, 0.001),), ("0123456789abcdef",))
    with pytest.raises(UnmetError, match="were read with other weights of mlp"):
        classify_chunk(images(content), "mlp", known=Known(risk=own))
    own = replace(own, weights=("0123456789abcdef", describe_weights("mlp")))
    rows = classify_chunk(images(content), "mlp", known=Known(risk=own))
    assert (rows.schema.metadata or {})[REVIEW_BELOW_KEY] == b"0.5"


@pytest.mark.parametrize(("name", "share"), [("mlp", 0.0025), ("cnn", 0.0025), ("number", 0.01)])
def test_the_cards_have_a_curve(name: str, share: float) -> None:
    curve = read_card(WEIGHTS_FOLDER / f"{name}.json").risks
    assert len(curve) == MAX_THRESHOLDS
    assert find_threshold(curve, 0.02, name) < find_threshold(curve, share, name)


def write_final(path: Path, wrong: int, model: str = "cnn", rows: int = 1000) -> None:
    """A corrected result file, all rows of which were looked at; the least sure are wrong."""
    confidences = np.linspace(0.96, 0.99999, rows)
    found = [
        {"id": f"{n}.png", "label": 2, "confidence": one, "probabilities": SHARES, "review": False}
        for n, one in enumerate(confidences.tolist())
    ]
    results = path.with_name("results.csv")
    batch = pa.RecordBatch.from_pylist(found, RESULT_SCHEMA)
    part = replace(PART, images=rows, review_below=(0.96,), weights=(describe_weights(model),))
    write(results, batch, Origin(), parts=(part,), model=model)
    corrections = path.with_name("corrections.csv")
    with corrections.open("w", newline="") as file:
        csv.writer(file).writerow(("id", "label", "sample"))
        csv.writer(file).writerows(
            (f"{n}.png", "3" if n < wrong else "2", n + 1) for n in range(rows)
        )
    with pytest.raises(SystemExit) as ended:
        main(["correct", str(results), str(corrections), "-o", str(path), "--overwrite"])
    assert not ended.value.code


def test_a_harder_source_gets_a_stricter_threshold(tmp_path: Path) -> None:
    final = tmp_path / "final.csv"
    thresholds = []
    for wrong in (0, 20, 60):
        write_final(final, wrong)
        record = find_record(final)
        assert record and record.sample and record.sample.wrong == wrong
        risk = decode_known(digits("cnn", risk="2%", like=final).known).risk
        assert risk == Risk(0.02, record.curve, (describe_weights("cnn"),))
        thresholds.append(find_threshold(risk.curve, risk.share, "final.csv"))
    assert thresholds[0] == 0.96 < thresholds[1] < thresholds[2]
    reading = digits("cnn", risk=0.02, like=final)
    assert (reading.risk, reading.like) == (0.02, str(final))
    chunk = images(encode_image(PIL.Image.fromarray(draw_tight_ring())))
    rows = classify_chunk(chunk, "cnn", known=decode_known(reading.known))
    assert float((rows.schema.metadata or {})[REVIEW_BELOW_KEY]) == thresholds[2]


def test_results_that_were_read_in_another_way_are_not_like_these(tmp_path: Path) -> None:
    """A sample of what a pattern has given says nothing of what is read freely, or with a form."""
    final = tmp_path / "final.csv"
    write_final(final, 0, "number")
    form = 'align = "lines"\n[tables.marks]\nrows = 2\ncolumns = ["a"]\n'
    (tmp_path / "form.toml").write_text(form)
    ways: dict[str, Callable[..., Reading[Any]]] = {
        "no pattern, list or form": numbers,
        "the pattern integer": partial(numbers, pattern="integer"),
        "a list": partial(numbers, allowed=["7", "12"]),
        "a form": partial(read_pages, tmp_path / "form.toml"),
    }
    record = json.loads(record_path(final).read_text())
    for its, stored in zip(
        ways, ({}, {"pattern": "integer"}, {"allowed": 9}, {"form": "a"}), strict=True
    ):
        record_path(final).write_text(json.dumps(record | stored))
        for way, read in ways.items():
            if way == its:
                assert read(risk="2%", like=final).like == str(final)
            else:
                with pytest.raises(UsageError, match=f"was read with {its}, and not with {way}"):
                    read(risk="2%", like=final)


def test_results_that_can_t_be_like_others_are_told(tmp_path: Path) -> None:
    final = tmp_path / "final.csv"
    with pytest.raises(UsageError, match=r"final.csv.json is missing: .* `digitq correct` wrote"):
        digits("cnn", risk=0.01, like=final)
    write_final(final, 3)
    with pytest.raises(UsageError, match="was read with cnn, and not with number"):
        numbers(risk=0.01, like=final)
    with pytest.raises(UnmetError, match=r"final.csv can promise a risk of .* not of 0.10 %"):
        digits("cnn", risk="0.1%", like=final)
    with pytest.raises(UsageError, match="name the risk"):
        digits("cnn", like=final)
    with pytest.raises(UsageError, match="has no sample of unmarked rows"):
        digits("cnn", risk=0.01, like=tmp_path / "results.csv")
    record_path(final).write_text("{}")
    with pytest.raises(UsageError, match="is not the record of a result file"):
        digits("cnn", risk=0.01, like=final)


TICKED = """
blank = "blank.png"
[fields.done]
box = [0, 0, 9, 9]
kind = "mark"
"""
BOTH = """
align = "lines"
[tables.marks]
rows = 1
columns = ["a", { name = "done", kind = "mark" }]
"""


def test_a_form_of_ticks_takes_no_risk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    form, both = tmp_path / "ticks.toml", tmp_path / "both.toml"
    form.write_text(TICKED)
    PIL.Image.new("L", (9, 9)).save(tmp_path / "blank.png")
    both.write_text(BOTH)
    with pytest.raises(SystemExit) as ended:
        main(["classify", str(tmp_path), "--form", str(form), "--risk", "1%", "-o", "a.csv"])
    assert ended.value.code == 2
    assert "a risk holds for numbers, and the form has none" in capsys.readouterr().err
    assert read_pages(both, risk="1%").risk == 0.01


def write_both(folder: Path, wrong: str, pages: int = 300) -> Path:
    """Results of pages with a number and a tick each, where only the answers of `wrong` are."""
    (folder / "both.toml").write_text(BOTH)
    results, rows = folder / "results.csv", list[dict[str, Any]]()
    for page in range(pages):
        for field, number, confidence in (("a", "12", 0.99), ("done", "1", 0.999)):
            place = {"page": f"{page}.png", "table": "marks", "row": 1, "field": field}
            rows.append(
                {"id": f"{page}.png/marks/1/{field}", "number": number, "confidence": confidence}
                | {"review": False, **place}
            )
    batch = pa.RecordBatch.from_pylist(rows, FORM_SCHEMA)
    part = replace(PART, images=len(rows), review_below=(0.9,))
    origin = Origin(form=str(folder / "both.toml"), risk=0.02)
    write(results, batch, origin, parts=(part,), model="number")
    with (folder / "corrections.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(("id", "number", "sample"))
        for place, row in enumerate(rows, 1):
            right = "" if row["field"] == wrong else row["number"]
            lines.writerow((row["id"], right, place))
    return results


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments)])
    return int(ended.value.code or 0)


@pytest.mark.parametrize(("wrong", "share"), [("done", 0.0), ("a", 100.0)])
def test_ticks_are_no_part_of_what_is_promised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: str, share: float
) -> None:
    results = write_both(tmp_path, wrong)
    final, corrections = tmp_path / "final.csv", tmp_path / "corrections.csv"
    assert run("correct", results, corrections, "-o", final) == 0
    record = find_record(final)
    assert record and record.sample and record.sample.wrong == 300
    assert record.curve == ((0.9, pytest.approx(bound_share(3 * int(share), 300), abs=1e-6)),)
    capsys.readouterr()
    assert run("evaluate", results, "--truth", corrections) == 0
    said = capsys.readouterr().out
    assert "of 300 unmarked numbers at most" in said
    assert f"2.0 % may be wrong, as promised; {share:.2f} % are" in said
    assert run("report", results) == 0
    assert "2.0 % of the numbers that are not marked" in results.with_suffix(".html").read_text()


def test_without_its_form_nothing_is_promised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = write_both(tmp_path, "done")
    (tmp_path / "both.toml").unlink()
    final, corrections = tmp_path / "final.csv", tmp_path / "corrections.csv"
    assert run("correct", results, corrections, "-o", final) == 0
    assert "not checked again, and the file measures no risk" in capsys.readouterr().err
    record = find_record(final)
    assert record and record.sample and record.curve == ()
    assert run("evaluate", results, "--truth", corrections) == 0
    assert "promised" not in capsys.readouterr().out
