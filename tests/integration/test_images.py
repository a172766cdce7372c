"""Images handed over from Python, of every kind, on a real Redis with two real workers."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pytest
import torch
from torch.utils.data import TensorDataset

from digitq import Client
from digitq.producer.chunking import BOUNDS
from digitq.protocol.chunk import ARRAY, KINDS, Kind
from digitq.protocol.errors import UsageError
from digitq.protocol.ledger import Ledger
from digitq.protocol.settings import settings
from digitq.worker.models.model import load_model
from tests.drawing import draw_one, encode_image, random_digits

DIGITS = random_digits(64)
torch.set_num_threads(1)  # as in a worker: the last bits change with the number of threads
EXPECTED = load_model("mlp").classify(DIGITS.reshape(-1, 784))


def probabilities(table: pa.Table) -> np.ndarray:
    return np.array(table.column("probabilities").to_pylist(), np.float32)


def test_every_kind_of_image_goes_together(client: Client, tmp_path: Path) -> None:
    image = draw_one()
    image.save(tmp_path / "1.png")
    images = [
        str(tmp_path / "1.png"),
        tmp_path / "1.png",
        encode_image(image),
        image,
        np.array(image)[..., None],
    ]
    table = client.submit(
        [*images, DIGITS[0], DIGITS[:3, ..., None], image.convert("CMYK")]
    ).table()
    assert table.column("id").to_pylist() == [
        f"{tmp_path}/1.png",
        f"{tmp_path}/1.png#2",
        "2",
        "3",
        "4",
        "5",
        "6",
        "7",
        "8",
        "9",
    ]
    assert table.column("error").null_count == 10
    found = probabilities(table)
    assert all(np.array_equal(found[0].argmax(), row.argmax()) for row in found[:5])
    assert np.array_equal(found[5].argmax(), EXPECTED[0].argmax())


def test_what_is_no_image_stops_the_job(client: Client) -> None:
    for wrong, message in [
        (object(), "image 0 has the type object"),
        (DIGITS.astype(np.int64), "must be uint8, or floats from 0 to 1, not int64"),
        (DIGITS.astype(np.float32), "its floats are from 0 to 255: undo"),
        (np.zeros((2, 5, 6, 7), np.uint8), r"it must be uint8, \(28, 28\), \(N, 28, 28\)"),
        (DIGITS.reshape(-1, 784), r"reshape it to \(-1, 28, 28\)"),
        (DIGITS[0].reshape(-1), r"reshape it to \(-1, 28, 28\)"),
    ]:
        with pytest.raises(UsageError, match=message):
            client.submit([wrong]).table()


def test_images_of_pillow_in_every_mode(client: Client) -> None:
    image, wide = draw_one(), np.asarray(draw_one()).astype(np.int32)
    modes = ["1", "L", "P", "CMYK", "YCbCr", "HSV", "LAB", "I", "F", "LA", "RGBA", "RGBX"]
    images = [image.convert("RGB").convert(mode) for mode in modes]
    for mode, final in [("LA", "La"), ("RGBA", "RGBa"), ("P", "PA")]:
        images.append(image.convert(mode).convert(final))
    images.append(PIL.Image.fromarray(wide * 257))
    table = client.submit([*images, wide.astype(np.int16)]).table()
    assert table.column("error").null_count == len(table)
    assert table.column("label").to_pylist() == [1] * len(table)


def test_an_image_of_pillow_that_can_t_be_read_is_its_row_s_error(
    client: Client, tmp_path: Path
) -> None:
    draw_one().save(tmp_path / "closed.png")
    with PIL.Image.open(tmp_path / "closed.png") as closed:
        pass
    content = bytearray(encode_image(draw_one()))
    content[content.find(b"IDAT") - 4 :] = b"\0\0\0\x05IDATxxxxx"
    damaged = PIL.Image.open(io.BytesIO(bytes(content)))
    table = client.submit([closed, damaged, draw_one()]).table()
    first, second, third = table.column("error").to_pylist()
    assert first.startswith("can't be read: ") and second.startswith("can't be read: ")
    assert third is None


def test_a_path_that_is_a_number_is_not_another_image_s_id(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    draw_one().save("1", "PNG")
    assert client.submit(["1", DIGITS[0]]).table().column("id").to_pylist() == ["./1", "1"]


def test_an_array_may_be_used_again(client: Client) -> None:
    def images() -> Iterator[np.ndarray]:
        one, many = np.empty((28, 28), np.uint8), np.empty((5, 28, 28), np.uint8)
        for number in range(0, 60, 6):
            one[:] = DIGITS[number]
            yield one
            many[:] = DIGITS[number + 1 : number + 6]
            yield many

    assert np.array_equal(probabilities(client.submit(images()).table()), EXPECTED[:60])


def test_images_of_other_libraries_get_the_answers_of_arrays(client: Client) -> None:
    floats = torch.tensor(DIGITS)[:, None].requires_grad_(False) / 255
    table = client.submit(floats.requires_grad_()).table()
    assert np.array_equal(probabilities(table), EXPECTED)
    pairs = client.submit((f"scan-{n}", image) for n, image in enumerate(floats[:3])).table()
    assert pairs.column("id").to_pylist() == ["scan-0", "scan-1", "scan-2"]
    assert np.array_equal(probabilities(pairs), EXPECTED[:3])
    labelled = TensorDataset(floats[:3], torch.arange(3))
    for given in (labelled, pa.table({"image": [encode_image(draw_one())], "label": [0]})):
        table = client.submit(given).table()
        assert table.column("truth").to_pylist() == [*range(len(table))]
    assert client.classify(floats[0]).probabilities == tuple(EXPECTED[0].tolist())
    assert client.classify(("an id", DIGITS[0])).label == EXPECTED[0].argmax()


def test_files_that_are_open_and_all_that_is_bytes(client: Client, tmp_path: Path) -> None:
    content = encode_image(draw_one())
    (tmp_path / "a.png").write_bytes(content)
    with open(tmp_path / "a.png", "rb") as file, open(tmp_path / "a.png", "rb") as other:
        images = [file, io.BytesIO(content), bytearray(content), memoryview(content)]
        table = client.submit(images).table()
        assert client.submit(other).table().column("label").to_pylist() == [1]
    assert table.column("label").to_pylist() == [1] * 4
    assert client.classify(io.BytesIO(content)).label == 1
    assert "open it with mode" in str(client.classify(io.StringIO("text")).error)


@pytest.mark.parametrize(("format", "mode"), [("JPEG", "RGB"), ("JPEG", "CMYK"), ("PNG", "L")])
def test_an_image_of_pillow_is_turned_as_its_file_is(
    format: str, mode: str, client: Client
) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    turned = draw_one().convert(mode).transpose(PIL.Image.Transpose.ROTATE_90)
    content = encode_image(turned, format, exif=exif.tobytes())
    table = client.submit([content, PIL.Image.open(io.BytesIO(content))]).table()
    assert table.column("label").to_pylist() == [1, 1]


def test_too_many_bytes_are_a_row_s_error(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITQ_IMAGE_BYTES", str(1 << 20))
    settings.cache_clear()
    table = client.submit([bytes(1 << 20), bytes((1 << 20) + 1)]).table()
    assert table.column("error").to_pylist()[1] == "larger than 1 MB"
    assert "larger" not in table.column("error").to_pylist()[0]


def test_arrays_among_files_share_their_chunks(client: Client) -> None:
    """And have the answers that they have in one array."""
    digits = random_digits(600)  # of noise: the network is unsure of many
    file = encode_image(draw_one())
    mixed = client.submit(image for digit in digits for image in (digit, file))
    table = mixed.table()
    assert mixed.progress().chunks < 60
    expected = client.submit(np.repeat(digits, 2, axis=0)).table()
    assert table.column("id").equals(expected.column("id"))
    for name in ("label", "confidence", "probabilities", "review"):
        assert table.column(name).to_pylist()[::2] == expected.column(name).to_pylist()[::2]


@pytest.mark.parametrize("slow", KINDS)
def test_where_images_of_a_kind_take_long_their_chunks_stay_small(
    slow: Kind, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatch = Ledger.dispatch
    paces = {kind: 1.0 if kind == slow else 1e-9 for kind in KINDS}
    monkeypatch.setattr(Ledger, "dispatch", lambda *chunk: (dispatch(*chunk)[0], paces))
    sources: dict[Kind, Any] = {"image": [b""] * 2000, "pixels": np.zeros((2000, 28, 28), "u1")}
    for kind, images in sources.items():
        job = client.submit(images)
        assert job.table().num_rows == 2000
        least, first, _ = BOUNDS[kind]
        assert (job.progress().chunks > (2000 - first) / least) == (kind == slow)


def test_an_array_that_is_cut_is_an_error(client: Client) -> None:
    table = client.submit([ARRAY + bytes(783), ARRAY + bytes(784)]).table()
    assert table.column("error").to_pylist() == ["an array of another size", None]
