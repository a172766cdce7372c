"""`--risk` from a command to the record, and `risk=` from Python to an answer."""

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import digitq
from digitq import Client
from digitq.cli import main
from digitq.private.processes import Local
from digitq.producer.provenance import find_record
from digitq.producer.results import open_results
from digitq.protocol.asked.risk import find_threshold
from digitq.protocol.errors import JobFailedError, UsageError
from digitq.protocol.formats.mnist import load_mnist
from digitq.protocol.keys import CALLS_QUEUE
from digitq.worker.models.model import load_model
from tests.waiting import wait_for

EXAMPLES = Path(__file__).parents[2] / "examples"
DIGITS = sorted((EXAMPLES / "digits").iterdir())
RISKS = load_model("cnn").card.risks
SAMPLE = load_mnist("sample")[0][:500].reshape(-1, 28, 28)
STRICT, LOOSE = 0.002, 0.3  # risks with more and fewer marks than the model's own threshold


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments)])
    return int(ended.value.code or 0)


@pytest.mark.parametrize("detached", [False, True])
def test_a_risk_travels_from_a_command_to_the_record(
    local: Local, tmp_path: Path, capsys: pytest.CaptureFixture[str], detached: bool
) -> None:
    out, asked = tmp_path / "out.csv", ["--model", "cnn", "--risk", f"{STRICT:.1%}"]
    if detached:
        assert run("submit", EXAMPLES / "digits", *asked, "--broker", local.url) == 0
        job = capsys.readouterr().out.strip()
        assert run("collect", job, "-o", out, "--broker", local.url) == 1
    else:
        source = EXAMPLES / "digits"
        assert run("classify", source, *asked, "-o", out, "--broker", local.url) == 1
    below = find_threshold(RISKS, STRICT, "cnn")
    said = capsys.readouterr().err
    assert f"below a confidence of {below:.2%} are marked: at most 0.20 % of the others are" in said
    record = find_record(out)
    assert record and record.risk == STRICT and record.parts[0].review_below == (below,)
    rows = [row for batch in open_results(out).batches() for row in batch.to_pylist()]
    assert all(row["review"] for row in rows if (row["confidence"] or 0) < below)
    assert not all(row["review"] for row in rows)


def test_a_risk_is_not_promised_of_images_that_are_harder(
    local: Local, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(4)
    for name, noise in (("usual", 0.0), ("harder", 0.35)):
        (tmp_path / name).mkdir()
        for row, image in enumerate(SAMPLE[:150]):
            pixels = (image + noise * random.normal(0, 255, image.shape)).clip(0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / name / f"{row}.png")
        out, asked = tmp_path / f"{name}.csv", ["--model", "mlp", "--risk", "1%"]
        run("classify", tmp_path / name, *asked, "-o", out, "--broker", local.url)
        said, record = capsys.readouterr().err, find_record(out)
        promise = (
            "at most 1.0 % of the others are wrong, as measured on handwriting of other people"
        )
        assert (promise in said) == (name == "usual"), said
        assert ("a risk of 1.0 % can't be promised: these images are harder" in said) == (
            name == "harder"
        ), said
        assert record and record.parts[0].likeness
        assert 50 < record.parts[0].likeness.compared <= 150
        assert record.parts[0].likeness.is_harder == (name == "harder")


def test_a_risk_that_can_t_be_promised_ends_a_job_at_once(
    local: Local, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, source = tmp_path / "out.csv", EXAMPLES / "digits"
    assert run("classify", source, "--risk", "0.001%", "-o", out, "--broker", local.url) == 3
    said = capsys.readouterr().err
    assert "mlp can promise a risk of" in said and "Traceback" not in said
    assert not out.exists()
    client = Client(local.url)
    with pytest.raises(JobFailedError, match="random can promise no risk"):
        client.classify(DIGITS[0], digitq.digits("random", risk=0.01))
    with pytest.raises(UsageError, match="it must be a share such as 0.5%"):
        client.classify(DIGITS[0], digitq.digits(risk=5))
    assert run("classify", source, "--risk", "5", "-o", out, "--broker", local.url) == 2
    final = tmp_path / "final.csv"
    command = "classify", source, "--risk", "1%", "--like", final, "--broker", local.url
    assert run(*command) == 2
    assert "final.csv.json is missing" in capsys.readouterr().err


def test_calls_keep_a_risk_of_their_own(local: Local) -> None:
    client, reader = Client(local.url), digitq.reader(digitq.digits("cnn", risk="30%"))
    loose = client.submit(DIGITS, digitq.digits("cnn", risk=LOOSE)).table()
    results = digitq.classify(DIGITS, digitq.digits("cnn", risk=LOOSE), client=client)
    assert results.table.equals(loose)
    default = client.submit(DIGITS, digitq.digits("cnn")).table()
    assert loose.column("label").equals(default.column("label"))
    assert loose.column("review").to_pylist() != default.column("review").to_pylist()
    for path, is_marked in zip(DIGITS, loose.column("review").to_pylist(), strict=True):
        answer = client.classify(path, digitq.digits("cnn", risk=LOOSE))
        assert answer.review == is_marked and answer == reader.classify(path)
        assert is_marked <= client.classify(path, digitq.digits("cnn")).review


def test_calls_of_separate_clients_keep_their_risks(local: Local) -> None:
    """They wait while the worker stands still, so that it could classify them together."""
    worker = local._processes["worker1"].pid
    usual, strict = digitq.digits("cnn"), digitq.digits("cnn", risk=STRICT)
    marks = digitq.reader(strict).classify_all([*SAMPLE]).table.column("review").to_pylist()
    digits = [digit for digit, is_marked in zip(SAMPLE, marks, strict=True) if is_marked][:8]
    asked = [usual, strict] * 4
    wanted = [digitq.reader(one).classify(digits[n]) for n, one in enumerate(asked)]
    assert len({answer.review for answer in wanted}) == 2
    with ThreadPoolExecutor(len(digits)) as callers:
        os.killpg(worker, signal.SIGSTOP)
        try:
            answers = [
                callers.submit(Client(local.url).classify, digit, one)
                for digit, one in zip(digits, asked, strict=True)
            ]
            redis = Client(local.url).ledger.redis
            wait_for(lambda: redis.llen(CALLS_QUEUE) >= len(digits) - 2)
        finally:
            os.killpg(worker, signal.SIGCONT)
        assert [answer.result().review for answer in answers] == [one.review for one in wanted]


def test_evaluate_prints_what_was_promised_and_what_is(
    local: Local, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = "mnist:sample", "--limit", 500, "--risk", "1%", "--broker", local.url
    assert run("evaluate", *asked) == 0
    said = capsys.readouterr().out
    assert "looked at w" in said and "1.0 % may be wrong, as promised; 0." in said
    assert run("classify", *asked, "-o", tmp_path / "out.csv") == 0
    capsys.readouterr()
    assert run("evaluate", tmp_path / "out.csv", "--json") == 0
    assert json.loads(capsys.readouterr().out)["unmarked"]["promised"] == 0.01
    assert run("evaluate", tmp_path / "out.csv", "--risk", "2%") == 2
    assert "--risk does not go with a result file" in capsys.readouterr().err
