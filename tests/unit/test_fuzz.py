"""Any bytes become a digit, a number or an `ImageError` with a reason, and nothing else."""

import random

import numpy as np
import PIL.Image
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from digitq.protocol.asked.known import Known
from digitq.protocol.asked.values import is_written
from digitq.protocol.chunk import Chunk
from digitq.protocol.settings import NUMBER
from digitq.worker.classify import classify_chunk
from digitq.worker.picture import ImageError
from digitq.worker.sight.decoding.pillow import load_heif, prepare_libraries
from digitq.worker.sight.numbers.recognition import read_number
from tests.drawing import draw_one, encode_image
from tests.gallery import chunk
from tests.reading import read_digit

prepare_libraries()
load_heif()  # else Pillow can't write these formats
IMAGE = draw_one((50, 60), mode="RGB")
FILES = [
    encode_image(IMAGE),
    encode_image(IMAGE.convert("P")),
    encode_image(IMAGE.convert("LA")),
    encode_image(IMAGE, "JPEG"),
    encode_image(IMAGE, "JPEG", progressive=True),
    encode_image(IMAGE.convert("CMYK"), "JPEG"),
    encode_image(IMAGE, "GIF", save_all=True, append_images=[IMAGE.rotate(9)]),
    encode_image(IMAGE, "TIFF"),
    encode_image(IMAGE.convert("1"), "TIFF", compression="group4"),
    encode_image(IMAGE.convert("F"), "TIFF", compression="tiff_lzw"),
    encode_image(IMAGE, "PDF"),
    encode_image(IMAGE, "BMP"),
    encode_image(IMAGE, "PPM"),
    encode_image(IMAGE, "WEBP"),
    encode_image(IMAGE, "AVIF"),
    encode_image(IMAGE, "HEIF"),
]
UNFORESEEN = ("can't be decoded", "can't be read")  # how errors begin that we did not foresee
STARTS = sorted({content[:8] for content in FILES})


def read(content: bytes) -> None:
    try:
        digit = read_digit(content).image
    except ImageError as error:
        assert 0 < len(str(error)) < 200 and "\n" not in str(error)
        assert not str(error).startswith(UNFORESEEN)
    else:
        assert digit.shape == (28, 28) and digit.dtype == np.uint8
    try:
        number = read_number(content, Known())
    except ImageError as error:
        assert 0 < len(str(error)) < 200 and "\n" not in str(error)
        assert not str(error).startswith(UNFORESEEN)
    else:
        assert is_written(number.number) and 0 <= number.confidence <= 1


def mutate(content: bytes, random: random.Random) -> bytes:
    """The file with some bytes changed, removed, doubled or overwritten."""
    damaged = bytearray(content)
    for _ in range(random.randint(1, 6)):
        start = random.randrange(max(1, len(damaged)))
        stop = start + random.randint(1, 12)
        match random.randrange(4):
            case 0:
                damaged[start:stop] = random.randbytes(len(damaged[start:stop]))
            case 1:
                del damaged[start:stop]
            case 2:
                damaged[start:start] = damaged[start:stop]
            case 3:
                damaged[start:stop] = b"\xff" * len(damaged[start:stop])
    return mend(bytes(damaged)) if random.randrange(2) else bytes(damaged)


def mend(content: bytes) -> bytes:
    """Correct the checksums of a PNG's chunks: otherwise no decoder would read the content."""
    mended, start = content[:8], 8
    while content.startswith(b"\x89PNG") and start + 12 <= len(content):
        stop = start + 8 + int.from_bytes(content[start : start + 4], "big")
        mended += chunk(content[start + 4 : start + 8], content[start + 8 : stop])
        start = stop + 4
    return mended + content[start:]


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=400))
def test_bytes(content: bytes) -> None:
    read(content)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(STARTS), st.binary(max_size=400))
def test_bytes_that_begin_as_an_image(start: bytes, content: bytes) -> None:
    read(start + content)


@settings(max_examples=250, deadline=None)
@given(st.sampled_from(FILES), st.randoms(use_true_random=False))
def test_damaged_images(content: bytes, random: random.Random) -> None:
    read(mutate(content, random))


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["L", "1", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"]),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.integers(0, 2**32 - 1),
)
def test_noise(mode: str, size: tuple[int, int], seed: int) -> None:
    width, height = size
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 4), np.uint8)
    if mode in ("I;16", "F"):
        image = PIL.Image.fromarray(noise[..., 0].astype(np.uint16 if mode == "I;16" else "f"))
    else:
        image = PIL.Image.fromarray(noise).convert("RGB" if mode == "CMYK" else mode)
        image = image.convert(mode)
    read(encode_image(image, "TIFF"))


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "model"), [(seed, "mlp") for seed in range(10)] + [(10, NUMBER)])
def test_thousands_of_damaged_images_are_a_row_each(seed: int, model: str) -> None:
    source = random.Random(seed)
    images = [mutate(source.choice(FILES), source) for _ in range(1000)]
    batch = pa.record_batch({"id": [str(n) for n in range(1000)], "image": images})
    result = classify_chunk(Chunk(0, batch), model)
    assert result.column("id").equals(batch.column("id"))
    for error, answer in zip(result.column("error"), result.column(1), strict=True):
        assert error.is_valid != answer.is_valid
        assert not str(error.as_py() or "").startswith(UNFORESEEN)
