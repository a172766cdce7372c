"""Weights belong to a reading, and travel with its jobs and calls."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load, save

import digitq
from digitq import Client, JobFailedError, UsageError
from digitq.private.processes import Local
from digitq.producer.batching import CALL_TTL_SECONDS
from digitq.protocol.asked.own_network import CARD_SIZE, name_network, unpack_network
from digitq.protocol.keys import NETWORK
from digitq.worker.models.card import read_card
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


def test_a_network_travels_to_workers_that_do_not_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis has it once for all jobs and calls, and forgets it with the last job that names it."""
    mine = copy_weights(tmp_path / "mine", "mlp", temperature=7.0)
    other = copy_weights(tmp_path / "other", "mlp", temperature=0.5)
    monkeypatch.setenv("DIGITQ_WEIGHTS", str(mine))
    stack = random_digits(40)
    with Local(workers=1) as local, Client(local.url) as client:
        same, reading = digitq.digits(weights=mine), digitq.digits(weights=other)
        assert client.classify(stack[0], same) == client.classify(stack[0])
        first, second = (client.submit(stack, reading, detached=True) for _ in range(2))
        wanted = digitq.reader(reading).classify_all(stack).table
        assert first.table().equals(wanted)
        assert second.table().equals(wanted)
        assert network_key(other) not in networks_in(client)
        assert client.classify(stack[0], reading).confidence == wanted["confidence"][0].as_py()
        assert network_key(other) in networks_in(client)
        assert 0 < client.ledger.redis.ttl(network_key(other)) <= CALL_TTL_SECONDS


def test_a_network_is_freed_with_the_last_job_that_names_it(tmp_path: Path) -> None:
    reading = digitq.digits(weights=copy_weights(tmp_path / "own", "mlp", temperature=7.0))
    with Local(workers=0) as local, Client(local.url) as client:
        jobs = [client.submit(random_digits(9), reading, detached=True) for _ in range(2)]
        for job in jobs:
            job.wait_until_stored()
            assert networks_in(client) == [network_key(tmp_path / "own")]
        jobs[0].cancel()
        assert networks_in(client) == [network_key(tmp_path / "own")]
        assert client.ledger.redis.ttl(network_key(tmp_path / "own")) > 0  # if all of them die
        jobs[1].cancel()
        assert networks_in(client) == []


def test_a_redis_that_has_lost_the_network_gets_it_again(tmp_path: Path) -> None:
    own = copy_weights(tmp_path / "own", "mlp", temperature=7.0)
    reading, image = digitq.digits(weights=own), random_digits(1)[0]
    with Local(workers=1) as local, Client(local.url) as client:
        answer = client.classify(image, reading)
        client.ledger.redis.flushdb()
        assert client.classify(image, reading) == answer


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda card, weights: (card + b" ", weights), "another card than its name says"),
        (lambda card, weights: (card, weights[:-4]), "SHA-256 differs"),
        (lambda card, weights: (card, weights + bytes(16 << 20)), "more than 16 MB"),
    ],
)
def test_a_worker_refuses_a_network_that_is_damaged(
    client: Client, tmp_path: Path, change: Any, why: str
) -> None:
    own = copy_weights(tmp_path / "own", "mlp", temperature=7.0)
    reading = digitq.digits(weights=own)
    assert reading.network
    card, weights = change(*unpack_network(reading.network))
    payload = CARD_SIZE.pack(len(card)) + card + weights
    damaged = replace(reading, network=replace(reading.network, payload=payload))
    with pytest.raises(JobFailedError, match=f"the network .* can't be used: .*{why}"):
        client.submit(random_digits(3), damaged).table()


@pytest.mark.parametrize("model", ["mlp", "cnn", "number"])
def test_a_worker_refuses_weights_of_another_shape(
    client: Client, tmp_path: Path, model: str
) -> None:
    own = copy_weights(tmp_path / "own", model)
    path = own / f"{model}.safetensors"
    weights = load(path.read_bytes())
    weights.pop(min(weights))
    path.write_bytes(content := save(weights))
    card = replace(read_card(own / f"{model}.json"), sha256=hashlib.sha256(content).hexdigest())
    card.write(own / f"{model}.json")
    is_number = model == "number"
    reading: Any = digitq.numbers(weights=own) if is_number else digitq.digits(model, weights=own)
    with pytest.raises(JobFailedError, match="can't be used: the weights are not of th"):
        client.submit([draw_one()], reading).table()


def network_key(folder: Path) -> str:
    """The key of the only network in a folder."""
    (card,) = folder.glob("*.json")
    return NETWORK + name_network(card.read_bytes())


def networks_in(client: Client) -> list[str]:
    """The keys of the networks that Redis has, without those of their users."""
    found = [key.decode() for key in client.ledger.redis.keys(f"{NETWORK}*")]
    return [key for key in found if not key.endswith(":users")]
