"""A chunk gets one result row per image, in order, whatever other images are in the chunk."""

import resource
import shutil
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from digitq.producer.sources.arrays import number_ids
from digitq.producer.sources.in_memory import image_source
from digitq.protocol.chunk import (
    BEFORE,
    ID,
    IMAGE_FIELD,
    REASONS,
    RESULT_SCHEMA,
    Chunk,
    pixels_batch,
)
from digitq.protocol.errors import BrokerError, UsageError
from digitq.worker import classify
from digitq.worker.classify import (
    INTERLEAVED_IMAGES,
    SHARPNESS,
    TTA_BELOW,
    Reader,
    T,
    build_result,
    classify_chunk,
    combine_views,
    find_best,
    read_image,
    read_rows,
    take_turns,
)
from digitq.worker.models.card import WEIGHTS_FOLDER
from digitq.worker.models.model import load_model, load_on_device
from digitq.worker.picture import ImageError
from digitq.worker.sight.digits import trace_digit, trace_other_views
from digitq.worker.sight.limits import Watch
from digitq.worker.sight.normalisation.steps import Step
from tests.cutting import cut_items
from tests.drawing import draw_one, draw_tight_ring, encode_image, random_digits
from tests.reading import read_digit

DIGITS = random_digits(300)
WHOLE = load_model("mlp").classify(DIGITS.reshape(-1, 784))


def pixel_chunk(start: int, stop: int) -> Chunk:
    pixels = DIGITS[start:stop].reshape(-1, 784)
    return Chunk(start, pixels_batch(number_ids("", start, stop - start), pixels))


def test_a_result_has_a_row_for_each_image() -> None:
    result = classify_chunk(pixel_chunk(0, 300), "mlp")
    assert result.schema.equals(RESULT_SCHEMA)
    assert result.column("id").to_pylist() == [str(n) for n in range(300)]
    assert result.column("label").to_pylist() == WHOLE.argmax(axis=1).tolist()
    assert np.array_equal(result.column("confidence"), WHOLE.max(axis=1))
    assert np.array_equal(np.array(result.column("probabilities").to_pylist(), np.float32), WHOLE)
    assert result.column("error").null_count == 300


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 299), max_size=6, unique=True))
def test_an_answer_does_not_depend_on_its_company(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), 300]
    parts = [
        classify_chunk(pixel_chunk(start, stop), "mlp")
        for start, stop in zip(edges, edges[1:], strict=False)
    ]
    assert (
        pa.Table.from_batches(parts)
        .combine_chunks()
        .equals(
            pa.Table.from_batches([classify_chunk(pixel_chunk(0, 300), "mlp")]).combine_chunks()
        )
    )


def test_an_image_that_can_t_be_read_keeps_its_place() -> None:
    good = encode_image(draw_one())
    (whole,) = cut_items(image_source([good, b"", b"text", good]).items, has_truth=True)
    result = classify_chunk(whole, "mlp")
    assert [error and error.split(":")[0] for error in result.column("error").to_pylist()] == [
        None,
        "the file is empty",
        "not an image that can be read",
        None,
    ]
    assert result.column("label").null_count == result.column("probabilities").null_count == 2
    assert "truth" not in result.schema.names and pa.array(whole.truth).null_count == 4
    alone = classify_chunk(next(cut_items(image_source([good]).items)), "mlp")
    assert result.column("probabilities")[0].as_py() == alone.column("probabilities")[0].as_py()


def test_what_is_no_image_at_all_is_said_at_once() -> None:
    with pytest.raises(UsageError, match="int is neither an image nor a list of images"):
        image_source(5)  # type: ignore[arg-type]


def test_a_row_without_an_image_says_so() -> None:
    batch = pa.record_batch({"id": ["a"], "image": pa.array([None], pa.binary())})
    result = classify_chunk(Chunk(0, batch), "mlp")
    assert result.column("error").to_pylist() == ["no image in this row"]


def test_weights_that_are_damaged_are_each_row_s_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(WEIGHTS_FOLDER / "cnn.json", tmp_path)
    (tmp_path / "cnn.safetensors").write_bytes(b"")
    monkeypatch.setenv("DIGITQ_WEIGHTS", str(tmp_path))
    for load in (load_model, load_on_device):  # another test may have loaded the model
        load.cache_clear()
    result = classify_chunk(pixel_chunk(0, 2), "cnn")
    assert result.column("id").to_pylist() == ["0", "1"]
    assert all("SHA-256 differs" in error for error in result.column("error").to_pylist())


def test_an_error_of_the_producer_passes_through() -> None:
    batch = pa.record_batch(
        {"id": ["a"], "image": pa.array([None], pa.binary()), "error": ["gone"]}
    )
    assert classify_chunk(Chunk(0, batch), "mlp").column("error").to_pylist() == ["gone"]


def test_a_model_this_worker_lacks_is_an_error_in_each_row() -> None:
    result = classify_chunk(pixel_chunk(0, 3), "newer")
    assert result.column("label").null_count == 3
    assert all("newer" in error for error in result.column("error").to_pylist())


def test_of_equally_probable_digits_the_first_is_the_answer() -> None:
    levels = np.array([*product((0.1, 0.2, 0.3), repeat=4), [0.0] * 4], np.float32)
    probabilities = np.hstack([levels[:, :1], np.full((len(levels), 6), 0.1), levels[:, 1:]])
    probabilities = probabilities.astype(np.float32)
    label, confidence = find_best(probabilities)
    assert np.array_equal(label, probabilities.argmax(axis=1))
    assert np.array_equal(confidence, probabilities.max(axis=1))
    label, confidence = find_best(probabilities[:0])
    assert label.shape == confidence.shape == (0,)


def test_what_the_network_is_not_sure_of_is_to_be_reviewed() -> None:
    below = load_model("mlp").card.review_below
    result = classify_chunk(pixel_chunk(0, 300), "mlp")
    assert result.column("review").to_pylist() == (WHOLE.max(axis=1) < below).tolist()
    unread = classify_chunk(next(cut_items(image_source([b""]).items)), "mlp")
    assert unread.column("review").to_pylist() == [True]
    assert unread.column("reason").to_pylist() == ["error"]


def test_an_answer_that_was_another_one_before_is_to_be_reviewed() -> None:
    images = [encode_image(draw_one())] * 4 + [b"no image"]
    batch = pa.record_batch(
        {"id": [*"abcde"], "image": images}, schema=pa.schema([ID, IMAGE_FIELD])
    )
    result = classify_chunk(Chunk(0, batch), "cnn")
    assert result["label"].to_pylist() == [1] * 4 + [None]
    assert result["reason"].to_pylist() == [None] * 4 + ["error"]
    before = batch.append_column(BEFORE, pa.array(["1", "7", None, "1", None], BEFORE.type))
    again = classify_chunk(Chunk.decode(Chunk(0, before).encode()), "cnn")
    marks = [None, "read otherwise before", "read otherwise before", None, "error"]
    assert again["reason"].to_pylist() == marks
    assert again["review"].to_pylist() == [mark is not None for mark in marks]
    assert again.drop_columns(["review", "reason"]) == result.drop_columns(["review", "reason"])


def test_the_reason_for_review_is_the_first_that_holds() -> None:
    """An error, no digit at all, what was seen in the image, a low confidence."""
    sure, unsure, even = np.eye(10)[0], np.full(10, 0.5 / 9), np.full(10, 0.1)
    unsure[3] = 0.5
    batch = pa.record_batch({"id": [*"abcdefg"]})
    errors = pa.array([None] * 6 + ["damaged"], pa.string())
    pages, another = map(REASONS.index, ("pages", "several digits"))
    seen = np.array([0, 0, pages, another, 0, pages, pages], np.uint8)
    probabilities = np.array([sure, unsure, sure, unsure, even, even, even], np.float32)
    result = build_result(batch, probabilities, errors, seen, review_below=0.8)
    assert result.column("reason").to_pylist() == [
        *(None, "unsure", "pages", "several digits", "no digit", "no digit", "error")
    ]
    assert result.column("review").to_pylist() == [False] + [True] * 6
    assert seen.tolist() == [0, 0, pages, another, 0, pages, pages]


def test_an_image_that_failed_is_to_be_reviewed_however_sure_the_network_is() -> None:
    sure = np.eye(10, dtype=np.float32)[:2]
    batch = pa.record_batch({"id": ["a", "b"]})
    errors = pa.array([None, "damaged"], pa.string())
    result = build_result(batch, sure, errors, np.zeros(2, np.uint8), review_below=0.5)
    assert result.column("review").to_pylist() == [False, True]
    assert result.column("reason").to_pylist() == [None, "error"]
    assert result.column("label").to_pylist() == [0, None]


def test_a_digit_with_another_well_apart_is_to_be_reviewed() -> None:
    """This holds however sure the network is of the digit that it sees."""
    alone = draw_one((120, 120))
    two = PIL.Image.new("L", (400, 120), 255)
    two.paste(alone, (0, 0))
    two.paste(alone, (280, 0))
    images = image_source([encode_image(alone), encode_image(two)]).items
    result = classify_chunk(next(cut_items(images)), "mlp")
    assert result.column("label").to_pylist() == [1, 1]
    assert min(result.column("confidence").to_pylist()) > load_model("mlp").card.review_below
    assert result.column("review").to_pylist() == [False, True]
    assert result.column("reason").to_pylist() == [None, "several digits"]


@pytest.mark.parametrize("offset", [0, 1, 7])
def test_a_slice_of_pixels_is_its_own(offset: int) -> None:
    whole = pixel_chunk(0, 300).batch
    result = classify_chunk(Chunk(offset, whole.slice(offset, 5)), "mlp")
    assert np.array_equal(result.column("confidence"), WHOLE[offset : offset + 5].max(axis=1))


def test_whatever_an_image_does_to_a_step_is_its_own_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(content: bytes) -> Iterator[Step]:
        if content == b"odd":
            raise ZeroDivisionError("odd")
        return trace_digit(content)

    monkeypatch.setattr(classify, "trace_digit", fail)
    chunk = next(cut_items(image_source([b"odd", encode_image(draw_one())]).items))
    errors = classify_chunk(chunk, "mlp").column("error").to_pylist()
    assert errors == ["can't be read: odd", None]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ImageError("odd"), "odd"),
        (MemoryError(), "needs too much memory"),
        (ZeroDivisionError("odd"), "can't be read: odd"),
    ],
)
def test_images_take_turns(error: Exception, text: str) -> None:
    turns: list[tuple[int, int]] = []

    def count(row: int, last: int) -> Iterator[int]:
        for step in range(last + 1):
            turns.append((row, step))
            yield step
            if row == 7 and step == 1:
                raise error

    readings = {row: count(row, last) for row, last in [(5, 2), (7, 3), (6, 0), (9, 2)]}
    assert take_turns(readings) == [(2, None), (None, text), (0, None), (2, None)]
    assert turns == [*product([5, 7, 6, 9], [0])] + [*product([5, 7, 9], [1])] + [(5, 2), (9, 2)]


def test_what_yields_nothing_is_an_error() -> None:
    assert take_turns({3: iter(())}) == [(None, "nothing was read")]


def test_so_many_images_are_at_hand_at_once() -> None:
    turns: list[tuple[int, int]] = []

    def count(content: bytes) -> Iterator[int]:
        for step in range(3):
            turns.append((int(content), step))
            yield step

    rows = range(2 * INTERLEAVED_IMAGES)
    files = pa.array([str(row).encode() for row in rows], pa.binary())
    assert read_rows(files, rows, count, read_image) == [(2, None)] * len(rows)
    first, second = rows[:INTERLEAVED_IMAGES], rows[INTERLEAVED_IMAGES:]
    assert turns == [(row, step) for part in (first, second) for step in range(3) for row in part]


def test_an_image_is_read_as_alone_whatever_is_read_with_it() -> None:
    files = [encode_image(draw_one(ink=n)) for n in range(20)] + [b"", b"text", UNSURE] * 4
    order = np.random.default_rng(0).permutation(len(files)).tolist()
    together = classify_images([files[number] for number in order])
    for row, number in enumerate(order):
        alone = classify_images([files[number]])
        for name in ("probabilities", "error", "review"):
            assert together.column(name)[row] == alone.column(name)[0]


def test_a_lost_redis_is_no_fault_of_an_image_s() -> None:
    """If noting an image fails, the whole chunk fails, and it is delivered again."""

    def read(row: int, content: bytes, reader: Reader[T]) -> Iterator[T]:
        raise BrokerError("can't reach Redis")

    batch = pa.record_batch({"id": ["a"], "image": [encode_image(draw_one())]})
    with pytest.raises(BrokerError):
        classify_chunk(Chunk(0, batch), "mlp", read)


MLP = load_model("mlp")
BELOW = MLP.card.review_below
# images whose first view leaves the network unsure, almost sure, and sure
UNSURE, ALMOST, SURE = (
    encode_image(PIL.Image.fromarray(image) if isinstance(image, np.ndarray) else image)
    for image in (draw_tight_ring(), draw_tight_ring(35, 16), draw_one())
)
PARTS = ("middle", "trimmed", "middle_rows", "middle_columns")
VIEWS = ("softened", "extended", "framed", *PARTS)


def classify_images(images: list[bytes]) -> pa.RecordBatch:
    return classify_chunk(next(cut_items(image_source(images).items)), "mlp")


def first_answer(image: bytes) -> np.ndarray:
    return MLP.classify(read_digit(image).image.reshape(1, -1))[0]


@pytest.mark.parametrize("image", [UNSURE, ALMOST])
def test_where_the_network_is_unsure_other_views_are_asked_too(image: bytes) -> None:
    first = first_answer(image)
    *_, views = trace_other_views(image)
    assert tuple(views) == VIEWS
    squares = {view: MLP.classify(views[view].reshape(1, -1))[0] ** 2 for view in VIEWS}
    halves = sum(square / 2 if view in PARTS else square for view, square in squares.items())
    power = (first**2 + halves) ** SHARPNESS
    expected = power / power.sum()
    result = classify_images([image])
    answer = result.column("probabilities")[0].as_py()
    np.testing.assert_allclose(answer, expected, atol=1e-6)
    assert abs(sum(answer) - 1) < 1e-6
    assert result.column("label").to_pylist() == [expected.argmax()] != [first.argmax()]
    at_first = "unsure at first" if first.max() < BELOW else None
    reason = "unsure" if expected.max() < BELOW else at_first
    assert result.column("reason").to_pylist() == [reason]
    assert result.column("review").to_pylist() == [reason is not None]


def test_the_images_are_those_that_the_tests_are_about() -> None:
    assert first_answer(UNSURE).max() < BELOW < first_answer(ALMOST).max() < TTA_BELOW
    assert first_answer(SURE).max() > TTA_BELOW


def test_an_answer_of_several_views_does_not_depend_on_its_company_either() -> None:
    alone = classify_images([UNSURE])
    among = classify_images([SURE, SURE, UNSURE, SURE, ALMOST, UNSURE])
    assert among.column("probabilities")[-1] == alone.column("probabilities")[0]
    assert among.column("review").to_pylist() == [False, False, True, False, True, True]


def test_no_other_views_are_read_without_need(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other views are needed neither for a confident answer nor for an unreadable image."""
    read: list[bytes] = []
    monkeypatch.setattr(classify, "trace_other_views", read.append)
    classify_images([SURE, b"", SURE, b"text"])
    classify_chunk(pixel_chunk(0, 300), "mlp")
    assert read == []


def test_an_image_of_mnist_s_kind_has_no_other_views() -> None:
    """However unsure the network is, its answer for the pixels themselves stands."""
    files = [encode_image(PIL.Image.fromarray(digit)) for digit in DIGITS[:20]]
    assert WHOLE[:20].max(axis=1).min() < TTA_BELOW
    result = classify_images(files)
    assert np.array_equal(np.array(result.column("probabilities").to_pylist()), WHOLE[:20])


@pytest.mark.parametrize("error", [ZeroDivisionError("odd"), ImageError("odd"), MemoryError()])
def test_other_views_that_can_t_be_read_leave_the_first_answer(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(content: bytes) -> None:
        raise error

    monkeypatch.setattr(classify, "trace_other_views", fail)
    result = classify_images([UNSURE])
    assert np.array_equal(result.column("probabilities")[0].as_py(), first_answer(UNSURE))
    assert result.column("error").to_pylist() == [None]
    assert result.column("review").to_pylist() == [True]


def test_a_redis_that_is_lost_meanwhile_is_no_fault_of_an_image_s() -> None:
    def read(row: int, content: bytes, reader: Reader[T]) -> Iterator[T]:
        if reader is trace_other_views:
            raise BrokerError("can't reach Redis")
        return read_image(row, content, reader)

    batch = pa.record_batch({"id": ["a"], "image": [UNSURE]})
    with pytest.raises(BrokerError):
        classify_chunk(Chunk(0, batch), "mlp", read)


def test_other_views_have_their_time_and_memory_too(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[tuple[int, int]] = []

    def spin(content: bytes) -> None:
        limits.append(resource.getrlimit(resource.RLIMIT_DATA))
        while True:
            pass

    monkeypatch.setattr(classify, "watch", Watch(seconds=0.2))
    monkeypatch.setattr(classify, "trace_other_views", spin)
    result = classify_images([UNSURE])
    assert np.array_equal(result.column("probabilities")[0].as_py(), first_answer(UNSURE))
    assert limits != [resource.getrlimit(resource.RLIMIT_DATA)]


def test_a_worker_reads_other_views_as_it_reads_images() -> None:
    """So it renews its deadline, and notes each image if another worker died of the chunk."""
    read: list[tuple[int, str]] = []

    def note(row: int, content: bytes, reader: Reader[T]) -> Iterator[T]:
        read.append((row, reader.__name__))
        return read_image(row, content, reader)

    chunk = next(cut_items(image_source([SURE, UNSURE]).items))
    classify_chunk(chunk, "mlp", note)
    assert read == [(0, "trace_digit"), (1, "trace_digit"), (1, "trace_other_views")]


AGREED = dict.fromkeys("123456789", read_digit(SURE).image)


def test_an_answer_stays_to_be_reviewed_however_sure_the_other_views_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(classify, "trace_other_views", lambda content: [AGREED])
    result = classify_images([SURE, UNSURE])
    assert result.column("confidence")[1].as_py() > BELOW
    assert result.column("label").to_pylist() == [1, 1]
    assert result.column("reason").to_pylist() == [None, "unsure at first"]


def test_images_always_classified_together_need_no_zeros_around() -> None:
    for rows in (1, 3, 4):
        pixels = DIGITS[:rows].reshape(-1, 784)
        np.testing.assert_allclose(MLP.classify_together(pixels), WHOLE[:rows], atol=1e-6)


def test_the_mean_of_views_that_agree_is_surer() -> None:
    digit = read_digit(ALMOST).image
    first = first_answer(ALMOST)
    assert combine_views(MLP, first, dict.fromkeys(VIEWS, digit)).max() > first.max()
    assert combine_views(MLP, first, {}) is first
