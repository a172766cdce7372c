"""Each step from a file to the 28×28 image that the network sees."""

import io

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest

from tests.drawing import draw_one, encode_image, random_digits
from worker.images import (
    BOX,
    ImageError,
    decode_image,
    find_box,
    grow,
    measure_stroke,
    otsu_threshold,
    place,
    read_digit,
    scale,
    separate_ink,
    thicken,
    to_grey,
)

REFERENCE = read_digit(encode_image(draw_one()))


def likeness(digit: np.ndarray) -> float:
    """Correlation with the digit of the plain image."""
    return float(np.corrcoef(digit.reshape(-1), REFERENCE.reshape(-1))[0, 1])


def test_what_is_mnist_like_passes_unchanged() -> None:
    (digit,) = random_digits(1)
    assert np.array_equal(read_digit(encode_image(PIL.Image.fromarray(digit))), digit)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_formats(format: str) -> None:
    assert likeness(read_digit(encode_image(draw_one(), format))) > 0.97


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "I;16", "F"])
def test_modes(mode: str) -> None:
    image = draw_one(mode="L").convert(mode) if mode != "I;16" else _sixteen_bit(draw_one())
    format = "PNG" if mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else "TIFF"
    assert likeness(read_digit(encode_image(image, format))) > 0.95


def _sixteen_bit(image: PIL.Image.Image) -> PIL.Image.Image:
    return PIL.Image.fromarray(np.asarray(image).astype(np.uint16) * 257)


@pytest.mark.parametrize(("ink", "ground"), [(0, 255), (255, 0), (40, 200), (220, 90), (100, 130)])
def test_ink_comes_out_light_on_black(ink: int, ground: int) -> None:
    digit = read_digit(encode_image(draw_one(ink=ink, ground=ground)))
    assert likeness(digit) > 0.95
    assert digit[0].max() == 0 and digit.max() > 200


@pytest.mark.parametrize("colour", ["white", "black", "navy"])
def test_a_digit_only_in_the_alpha_channel(colour: str) -> None:
    image = PIL.Image.new("RGBA", (60, 80), colour)
    image.putalpha(draw_one(ink=255, ground=0))
    assert likeness(read_digit(encode_image(image))) > 0.95


def test_a_photo_is_turned_upright() -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90° clockwise to view
    turned = encode_image(draw_one().rotate(90, expand=True), "JPEG", exif=exif.tobytes())
    assert likeness(read_digit(turned)) > 0.95


def test_only_the_first_frame_counts() -> None:
    frames = [draw_one(), PIL.Image.new("L", (60, 80), 255)]
    gif = encode_image(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert likeness(read_digit(gif)) > 0.97


def test_a_large_photo_is_shrunk_while_it_is_decoded() -> None:
    image = decode_image(encode_image(draw_one((3000, 4000)), "JPEG"))
    assert 256 <= min(image.size) < 1000


def test_the_centre_of_mass_is_in_the_middle() -> None:
    placed = place(scale(separate_ink(to_grey(draw_one((300, 200))))))
    rows, columns = np.mgrid[:28, :28]
    weights = placed / placed.sum(dtype=np.float64)
    assert (rows * weights).sum() == pytest.approx(13.5, abs=0.6)
    assert (columns * weights).sum() == pytest.approx(13.5, abs=0.6)


@pytest.mark.parametrize("shape", [(10, 10), (300, 40), (1, 50), (400, 1), (7, 3)])
def test_the_longer_side_fills_the_box(shape: tuple[int, int]) -> None:
    scaled = scale(np.full(shape, 255, np.uint8))
    assert max(scaled.shape) == BOX and min(scaled.shape) >= 1


def test_a_box_holds_all_of_a_mask() -> None:
    mask = np.zeros((9, 9), bool)
    mask[2, 5] = mask[6, 3] = True
    assert find_box(mask) == (slice(2, 7), slice(3, 6))


def test_a_thin_stroke_is_as_light_as_a_thick_one() -> None:
    image = PIL.Image.new("L", (400, 400), 255)
    PIL.ImageDraw.Draw(image).ellipse((50, 20, 350, 380), outline=0, width=3)
    digit = read_digit(encode_image(image))
    assert np.percentile(digit[digit > 0], 90) == 255


def test_a_thin_stroke_is_thickened_and_a_thick_one_left() -> None:
    def ring(width: int) -> np.ndarray:
        image = PIL.Image.new("L", (160, 160))
        PIL.ImageDraw.Draw(image).ellipse((0, 0, 159, 159), outline=255, width=width)
        return np.asarray(image)

    assert measure_stroke(ring(8)) == pytest.approx(8, abs=1.5)
    assert measure_stroke(scale(thicken(ring(4)), 160)) == pytest.approx(17.6, abs=2.5)
    assert np.array_equal(thicken(ring(24)), ring(24))


def test_ink_grows_to_a_disc() -> None:
    dot = np.zeros((3, 3), np.uint8)
    dot[1, 1] = 200
    grown = grow(dot, 4)
    assert grown.shape == (11, 11) and set(np.unique(grown)) == {0, 200}
    assert grown[5, 1] == grown[1, 5] == 200 and grown[1, 1] == 0


def test_otsu_parts_two_heaps() -> None:
    values = np.concatenate([np.full(900, 10.0), np.full(100, 200.0)])
    assert 10 <= otsu_threshold(values) < 200


PNG = encode_image(draw_one())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"label,path\n7,x.png\n", "not an image that can be read"),
        (PNG[:60], "damaged"),
        (encode_image(PIL.Image.new("L", (50, 50), 255)), "blank"),
        (encode_image(PIL.Image.new("L", (20_000, 20_000), 255).convert("1")), "too large"),
    ],
)
def test_what_is_wrong_is_said_in_plain_words(content: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        read_digit(content)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_a_file_cut_anywhere_gives_a_digit_or_an_error(format: str) -> None:
    content = encode_image(draw_one((40, 50), mode="RGB"), format)
    for length in range(0, len(content), max(1, len(content) // 50)):
        try:
            assert read_digit(content[:length]).shape == (28, 28)
        except ImageError as error:
            assert "\n" not in str(error)


def test_a_frame_of_one_pixel_is_no_crash() -> None:
    for size in [(1, 1), (1, 30), (2, 2)]:
        file = io.BytesIO()
        PIL.Image.new("RGB", size, "red").save(file, "PNG")
        with pytest.raises(ImageError):
            read_digit(file.getvalue())
