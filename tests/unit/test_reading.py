"""What is read is a value: its type says what an answer is, without a word more."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, assert_type

import numpy as np
import pytest

import digitq
from digitq import Client, NumberPrediction, Prediction, Reading, UsageError, digits, form, numbers

EXAMPLES = Path(__file__).parents[2] / "examples"
Fields = dict[str, NumberPrediction]

if TYPE_CHECKING:  # `make lint` checks this file, as well as digitq

    async def infer_types(client: Client) -> None:
        """A reading says what the answers are; without one they are those of digits."""
        assert_type(client.classify("7.png"), Prediction)
        assert_type(client.classify("7.png", timeout_seconds=5), Prediction)
        assert_type(client.classify("7.png", digits("cnn", weights="mine")), Prediction)
        assert_type(client.classify("id.png", numbers(length=9)), NumberPrediction)
        assert_type(client.classify("sheet.png", form("form.toml")), Fields)
        assert_type(await client.classify_async("7.png"), Prediction)
        assert_type(await client.classify_async("id.png", numbers()), NumberPrediction)
        assert_type(await client.classify_async("sheet.png", form("form.toml")), Fields)
        assert_type(digitq.classify("scans"), digitq.Results[Prediction])
        assert_type(digitq.classify("fields", numbers(), client=client)[0], NumberPrediction)
        for page in digitq.classify("scans.pdf", form("form.toml")):
            assert_type(page, Fields)
        answers = asyncio.gather(client.classify_async("1.png"), client.classify_async("2.png"))
        assert_type(await answers, tuple[Prediction, Prediction])
        answer = ThreadPoolExecutor().submit(client.classify, "7.png", digits())
        assert_type(answer.result(), Prediction)
        any_of_them: list[Reading[digitq.Answer]] = [digits(), numbers(), form("form.toml")]
        assert_type(client.classify("7.png", any_of_them[0]), digitq.Answer)


def test_an_answer_is_of_the_type_that_its_reading_says() -> None:
    digit = digitq.reader().classify(EXAMPLES / "digits/7.png")
    assert_type(digit, Prediction)
    assert isinstance(digit, Prediction) and digit.label == 7
    number = digitq.reader(numbers(length=5)).classify(EXAMPLES / "numbers/41902.png")
    assert_type(number, NumberPrediction)
    assert isinstance(number, NumberPrediction) and number.number == "41902"


def test_the_answers_of_pages_are_as_many_as_the_pages() -> None:
    pages = sorted((EXAMPLES / "forms/pages").iterdir())
    reader = digitq.reader(form(EXAMPLES / "forms/form.toml"))
    results = reader.classify_all(pages)
    assert_type(results, digitq.Results[Fields])
    assert len(results) == len(pages) == len([*results])
    fields = results.table.num_rows // len(pages)
    assert fields > 1 and [*map(len, results)] == [fields] * len(pages)
    assert results[-1] == reader.classify(pages[-1]) == [*results][-1]
    assert [one.id for one in results[0].values()] == results.table["id"].to_pylist()[:fields]
    with pytest.raises(IndexError, match=f"there are {len(pages)}"):
        results[len(pages)]


def test_a_reading_is_a_value() -> None:
    """Calls with equal ones share a batch."""
    nine = numbers(length=9)
    assert nine == numbers(pattern=r"\d{9}") != numbers() and {nine: 1}[numbers(length=9)]
    assert digits() == digits("mlp") != digits("cnn") and hash(digits()) == hash(digits("mlp"))
    assert repr(digits("cnn", risk=0.1)) == (
        "Reading(model='cnn', form_name=None, risk=0.1, like=None, second_reader=False)"
    )
    assert len(repr(numbers(allowed=range(10_000)))) < 100  # a notebook shows it
    with pytest.raises(AttributeError, match="cannot assign"):
        nine.model = "mlp"  # type: ignore[misc]
    with pytest.raises(TypeError, match="unexpected keyword argument 'length'"):
        digits(length=9)  # type: ignore[call-arg]
    with pytest.raises(UsageError, match="there is no model 'number'"):
        digits("number")


def test_one_image_is_not_a_list() -> None:
    with pytest.raises(UsageError, match="`classify` takes one image"):
        digitq.reader().classify(["1.png", "2.png"])  # type: ignore[arg-type]
    assert len(digitq.reader().classify_all([np.zeros((28, 28), np.uint8)] * 2)) == 2
