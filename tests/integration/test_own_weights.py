"""Weights belong to a reading: private workers load them, and others must have them."""

from pathlib import Path

import numpy as np
import pytest

import digitq
from digitq import Client, JobFailedError, UsageError
from digitq.private.processes import Local, find_free_port
from tests.drawing import draw_one, random_digits
from tests.weights import copy_weights

EXAMPLES = Path(__file__).parents[2] / "examples"
PAGE = min((EXAMPLES / "forms/pages").iterdir())


def test_private_workers_load_what_each_reading_names(client: Client, tmp_path: Path) -> None:
    """In turns, and in calls and jobs of the same workers."""
    cold = copy_weights(tmp_path / "cold", "cnn", temperature=0.5)
    warm = copy_weights(tmp_path / "warm", "cnn", temperature=7.0)
    built_in = digitq.digits("cnn")
    readings = built_in, *(digitq.digits("cnn", weights=one) for one in (cold, warm))
    array, stack = random_digits(1)[0], random_digits(40)
    for image in (draw_one(), array, array, draw_one()):
        answers = [client.classify(image, reading) for reading in readings]
        assert answers == [digitq.reader(reading).classify(image) for reading in readings]
        assert len({answer.confidence for answer in answers}) == 3
    tables = [client.submit(stack, reading).table() for reading in readings]
    for table, reading in zip(tables, readings, strict=True):
        assert table.equals(digitq.classify(stack, reading, client=client).table)
        assert table.equals(digitq.reader(reading).classify_all(stack).table)
    names = {table.to_batches()[0].schema.metadata[b"weights"] for table in tables}
    assert len(names) == 3


def test_numbers_and_pages_with_weights_of_one_s_own(client: Client, tmp_path: Path) -> None:
    own = copy_weights(tmp_path / "own", "number", review_below=1.0)
    image, page_form = EXAMPLES / "numbers/41902.png", EXAMPLES / "forms/form.toml"
    number = client.classify(image, digitq.numbers(length=5, weights=own))
    assert number.number == "41902" and number.reason == "unsure"
    assert not client.classify(image, digitq.numbers(length=5)).review
    fields = client.classify(PAGE, digitq.form(page_form, weights=own))
    assert fields == digitq.reader(digitq.form(page_form, weights=own)).classify(PAGE)
    default = client.classify(PAGE, digitq.form(page_form))
    marked = [sum(one.review for one in page.values()) for page in (default, fields)]
    assert marked[0] < marked[1]


def test_weights_that_were_trained_anew_have_another_name(client: Client, tmp_path: Path) -> None:
    """The same workers load them from the same folder."""
    mine, image = tmp_path / "mine", random_digits(1)[0]
    before = digitq.digits("cnn", weights=copy_weights(mine, "cnn", temperature=0.5))
    first = client.classify(image, before)
    (mine / "cnn.json").write_bytes(
        (copy_weights(tmp_path / "new", "cnn", temperature=7.0) / "cnn.json").read_bytes()
    )
    after = digitq.digits("cnn", weights=mine)
    assert client.classify(image, after).confidence != first.confidence
    assert after != before
    (mine / "cnn.json").unlink()
    with pytest.raises(UsageError, match="weights=.*mine: no NAME.json"):
        digitq.digits("cnn", weights=mine)


def test_workers_of_a_broker_answer_only_if_they_have_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where others than this user can reach Redis, a worker loads no folder that a job names."""
    mine = copy_weights(tmp_path / "mine", "mlp", temperature=7.0)
    other = copy_weights(tmp_path / "other", "mlp", temperature=0.5)
    monkeypatch.setenv("DIGITQ_WEIGHTS", str(mine))
    with Local(workers=1, port=find_free_port()) as local, Client(local.url) as client:
        image = np.full((28, 28), 200, np.uint8)
        answer = client.classify(image, digitq.digits(weights=mine))
        assert answer == client.classify(image)
        why = f"the weights of mlp are to be .*{other}.* start workers with `--weights {other}`"
        for reading in (digitq.digits(weights=other), digitq.digits("mlp", weights=other)):
            with pytest.raises(JobFailedError, match=why):
                client.classify(image, reading)
            with pytest.raises(JobFailedError, match=why):
                client.submit(random_digits(3), reading).table()
