"""Files of all formats, modes and orientations are decoded; errors say what is wrong."""

import io
import struct
import subprocess
import sys
import zlib
from unittest.mock import Mock

import cv2
import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.PngImagePlugin
import pillow_heif
import pytest

from digitq.worker.picture import ImageError
from digitq.worker.sight.decoding import any_file, pillow, plain
from digitq.worker.sight.decoding.any_file import open_image, read_picture
from digitq.worker.sight.decoding.pillow import (
    decode_image,
    flatten_alpha,
    load_heif,
    prepare_libraries,
    reduce,
    to_picture,
)
from digitq.worker.sight.decoding.plain import decode_plain_jpeg, decode_plain_png, read_jpeg_frame
from tests.drawing import draw_one, encode_image
from tests.reading import read_digit

prepare_libraries()
load_heif()  # else Pillow can't write these formats
SHORTER_SIDE = 112  # px: the shorter side may be reduced to this
REFERENCE = read_digit(encode_image(draw_one())).image


def likeness(digit: np.ndarray) -> float:
    """Correlation with the digit of the plain image."""
    return float(np.corrcoef(digit.reshape(-1), REFERENCE.reshape(-1))[0, 1])


@pytest.mark.parametrize(
    "format", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "HEIF"]
)
def test_formats(format: str) -> None:
    assert likeness(read_digit(encode_image(draw_one(), format)).image) > 0.97


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "I;16", "F"])
def test_modes(mode: str) -> None:
    image = draw_one(mode="L").convert(mode) if mode != "I;16" else _sixteen_bit(draw_one())
    format = "PNG" if mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else "TIFF"
    assert likeness(read_digit(encode_image(image, format)).image) > 0.95


def _sixteen_bit(image: PIL.Image.Image) -> PIL.Image.Image:
    return PIL.Image.fromarray(np.asarray(image).astype(np.uint16) * 257)


@pytest.mark.parametrize("colour", ["white", "black", "navy"])
def test_a_digit_only_in_the_alpha_channel(colour: str) -> None:
    image = PIL.Image.new("RGBA", (60, 80), colour)
    image.putalpha(draw_one(ink=255, ground=0))
    assert likeness(read_digit(encode_image(image)).image) > 0.95


def test_transparent_parts_take_white_unless_that_hides_the_rest() -> None:
    for colour, ground in [("black", 255), ("white", 0)]:
        image = PIL.Image.new("RGBA", (30, 30), (9, 9, 9, 0))
        image.paste(colour, (10, 10, 20, 20))
        flat = np.asarray(flatten_alpha(image))
        assert (flat[0, 0] == ground).all() and (flat[15, 15] == 255 - ground).all()


@pytest.mark.parametrize("digit", ["white", "black"])
def test_edges_that_have_the_colour_of_what_was_around_do_not_count(digit: str) -> None:
    """Such edges come from resizing an image whose transparent parts are black."""
    image = PIL.Image.new("RGBA", (600, 800), (0, 0, 0, 0))
    shape = draw_one((600, 800), ink=255, ground=0).convert("L")
    image.paste(digit, mask=shape)
    small = PIL.Image.fromarray(
        cv2.resize(np.asarray(image), (60, 80), interpolation=cv2.INTER_AREA)
    )
    shown = np.asarray(flatten_alpha(small).convert("L"))
    assert shown[0, 0] == (255 if digit == "black" else 0)
    assert likeness(read_digit(encode_image(small)).image) > 0.9


@pytest.mark.parametrize("spot", [1, 20])
def test_ink_that_is_not_quite_opaque_shows_beside_what_is(spot: int) -> None:
    image = PIL.Image.new("RGBA", (60, 80), (0, 0, 0, 0))
    shape = draw_one(ink=255, ground=0).convert("L").point(lambda alpha: alpha * 4 // 5)
    image.putalpha(shape)
    image.paste("white", (0, 0, spot, spot))
    assert (np.asarray(flatten_alpha(image))[-1, -1] == 255).all()
    assert likeness(read_digit(encode_image(image)).image) > 0.95


@pytest.mark.parametrize("format", ["JPEG", "HEIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_upright(format: str, orientation: int) -> None:
    stored = {
        1: None,
        2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
        3: PIL.Image.Transpose.ROTATE_180,
        4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
        5: PIL.Image.Transpose.TRANSPOSE,
        6: PIL.Image.Transpose.ROTATE_90,
        7: PIL.Image.Transpose.TRANSVERSE,
        8: PIL.Image.Transpose.ROTATE_270,
    }[orientation]
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    image = draw_one() if stored is None else draw_one().transpose(stored)
    assert likeness(read_digit(encode_image(image, format, exif=exif.tobytes())).image) > 0.95


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_a_photo_that_is_shrunk_is_turned_upright_too(format: str) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    stored = draw_one((900, 1200)).transpose(PIL.Image.Transpose.ROTATE_90)
    width, height = decode_image(
        encode_image(stored, format, exif=exif.tobytes()), SHORTER_SIDE
    ).size
    assert SHORTER_SIDE <= width < height < 1200


@pytest.mark.parametrize("kind", ["notes", "profile"])
def test_large_notes_in_a_png_are_no_damage(kind: str) -> None:
    large = b"<x:xmpmeta/>" * 200_000
    info = PIL.PngImagePlugin.PngInfo()
    info.add_text("XML:com.adobe.xmp", large.decode(), zip=True)
    options = {"pnginfo": info} if kind == "notes" else {"icc_profile": large}
    assert likeness(read_digit(encode_image(draw_one(), **options)).image) > 0.97


@pytest.mark.parametrize("packed", [False, True])
def test_a_tiff_of_floats_of_64_bits(packed: bool) -> None:
    """`tifffile` writes NumPy's floats like this."""
    values = np.asarray(draw_one()) / 255
    (height, width), data = values.shape, values.astype("<f8").tobytes()
    data = zlib.compress(data) if packed else data
    data += bytes(len(data) % 2)
    tags = [
        *[(256, width), (257, height), (258, 64), (259, 8 if packed else 1), (262, 1), (273, 8)],
        *[(277, 1), (278, height), (279, len(data)), (339, 3)],
    ]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    start = b"II*\0" + struct.pack("<I", 8 + len(data))
    content = start + data + struct.pack("<H", len(tags)) + entries + bytes(4)
    assert np.array_equal(read_picture(content, SHORTER_SIDE), np.asarray(draw_one()))


def test_a_bmp_whose_alpha_is_empty_is_not_transparent() -> None:
    """A BMP with a filled alpha channel is opaque too."""
    image = draw_one(mode="RGBA")
    for alpha in (0, 255):
        image.putalpha(alpha)
        plain = encode_image(image, "BMP")  # its header has no alpha
        masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
        header = struct.pack("<I", 124) + plain[18:30] + struct.pack("<I", 3) + plain[34:54] + masks
        offset = struct.pack("<I", 14 + 124)
        content = plain[:10] + offset + header.ljust(124, b"\0") + plain[54:]
        assert PIL.Image.open(io.BytesIO(content)).mode == "RGBA"
        assert likeness(read_digit(content).image) > 0.97


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_a_large_photo_is_shrunk_as_it_is_decoded(format: str) -> None:
    content = encode_image(draw_one((3000, 4000)), format)
    assert SHORTER_SIDE <= min(decode_image(content, SHORTER_SIDE).size) < 2 * SHORTER_SIDE
    assert SHORTER_SIDE <= min(read_picture(content, SHORTER_SIDE).shape[:2]) < 2 * SHORTER_SIDE


def test_only_a_jpeg_is_decoded_for_every_look(monkeypatch: pytest.MonkeyPatch) -> None:
    read = Mock(side_effect=read_picture)
    monkeypatch.setattr(any_file, "read_picture", read)
    for format, times in [("PNG", 1), ("WEBP", 1), ("JPEG", 2)]:
        look = open_image(encode_image(draw_one((900, 1200)), format), 448)
        for side in (SHORTER_SIDE, 448):
            assert side <= min(look(side).shape[:2]) <= 900
        assert read.call_count == times
        read.reset_mock()


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize(
    ("size", "shape"),
    [((1200, 900), (450, 600)), ((1300, 440), (440, 1300)), ((6000, 300), (75, 1500))],
)
def test_a_long_image_is_shrunk_by_its_longer_side(
    size: tuple[int, int], shape: tuple[int, int], format: str
) -> None:
    """No image then takes more than three times the memory of a square one."""
    assert read_picture(encode_image(draw_one(size), format), 448).shape[:2] == shape


@pytest.mark.parametrize("bits", [9, 10, 12, 14, 16])
def test_a_scanner_s_bits_in_a_file_of_sixteen(bits: int) -> None:
    deep = np.asarray(draw_one()).astype(np.uint16) * (2**bits - 1) // 255
    image = PIL.Image.fromarray(deep.astype(np.uint16))
    assert likeness(read_digit(encode_image(image, "TIFF")).image) > 0.95


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0, 255), (0, 3e38), (-255, 0), (-100, 155), (-1, 1)]
)
def test_floats_of_any_range(low: float, high: float) -> None:
    share = np.asarray(draw_one(), np.float32) / 255
    image = PIL.Image.fromarray(np.float32(low) + share * np.float32(high - low))
    picture = read_picture(encode_image(image, "TIFF"), SHORTER_SIDE)
    assert np.array_equal(picture, np.asarray(draw_one()))


def test_floats_that_are_no_numbers_change_no_others() -> None:
    values = np.array(draw_one(), np.float32)
    values[0, :3] = np.nan, np.inf, -np.inf
    picture = to_picture(PIL.Image.fromarray(values))
    assert np.array_equal(picture[1:], np.asarray(draw_one())[1:])


@pytest.mark.parametrize(
    ("format", "mode", "options", "limit"),
    [
        ("WEBP", "L", {}, 1),
        ("TIFF", "L", {}, 2),
        ("TIFF", "RGB", {}, 2),
        ("TIFF", "RGBA", {}, 1),
        ("TIFF", "L", {"tiffinfo": {274: 6}}, 1),
        ("AVIF", "RGB", {"speed": 10}, 2),
        ("AVIF", "RGBA", {"speed": 10}, 1),
        ("JPEG", "L", {"progressive": True}, 2),
        ("JPEG", "L", {}, 3),
        ("PNG", "RGBA", {}, 3),
    ],
)
def test_each_format_has_its_limit(
    format: str,
    mode: str,
    options: dict[str, object],
    limit: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pillow, "MAX_MEGAPIXELS_DEEP", 1)
    monkeypatch.setattr(pillow, "MAX_MEGAPIXELS_WHOLE", 2)
    monkeypatch.setattr(pillow, "MAX_MEGAPIXELS", 3)
    monkeypatch.setattr(plain, "MAX_MEGAPIXELS", 3)
    within, above = (
        encode_image(PIL.Image.new(mode, (1000, 1000 * limit + more)), format, **options)
        for more in (0, 1)
    )
    assert read_picture(within, SHORTER_SIDE).size
    with pytest.raises(ImageError, match=f"too large: .*{limit}001.* pixels, over {limit} mega"):
        read_picture(above, SHORTER_SIDE)


def test_deep_colours_of_a_heic_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoder holds two bytes for each value."""
    monkeypatch.setattr(pillow, "MAX_MEGAPIXELS_DEEP", 0.01)
    size = (128, 128)
    for mode, bytes_each in (("RGB", 3), ("RGB;16", 6)):
        file = io.BytesIO()
        pillow_heif.encode(mode, size, bytes(128 * 128 * bytes_each), file)
        if bytes_each == 3:
            assert read_picture(file.getvalue(), SHORTER_SIDE).size
            continue
        with pytest.raises(ImageError, match="too large: 128×128 pixels, over 0.01 megapixels"):
            read_picture(file.getvalue(), SHORTER_SIDE)


def test_a_strip_may_be_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pillow, "MAX_SIDE", 1000)
    for size in ((1, 1000), (1000, 1)):
        assert read_picture(encode_image(PIL.Image.new("RGBA", size)), SHORTER_SIDE).size
        longer = encode_image(PIL.Image.new("RGBA", tuple(side + 1 for side in size)))
        with pytest.raises(ImageError, match="too large: .*1001.* pixels, over 1000 on a side"):
            read_picture(longer, SHORTER_SIDE)


@pytest.mark.parametrize(
    ("format", "length", "reason"),
    [
        ("JPEG", 300, "image file is truncated"),
        ("PNG", 60, "image file is truncated"),
        ("WEBP", 60, "could not create decoder object"),
        ("HEIF", 60, "Unexpected end of file"),
    ],
)
def test_an_error_of_the_decoder_is_passed_on(format: str, length: int, reason: str) -> None:
    content = encode_image(draw_one((100, 100)), format)
    with pytest.raises(ImageError, match=f"^damaged: .*{reason}"):
        read_picture(content[:-length], SHORTER_SIDE)


def test_a_fill_byte_in_a_jpeg_is_passed_over() -> None:
    content = encode_image(PIL.Image.new("RGB", (64, 64)), "JPEG")
    frame = content.index(b"\xff\xc0")
    filled = content[:frame] + b"\xff" + content[frame:]
    assert read_jpeg_frame(filled) == read_jpeg_frame(content) == b"\0\x40\0\x40\x03"
    assert read_jpeg_frame(content[:frame]) is read_jpeg_frame(b"\xff\xd8" + bytes(99)) is None


def test_a_jpeg_that_is_held_whole_has_a_limit_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its frame has three components, and each scan has one of them."""
    monkeypatch.setattr(pillow, "MAX_MEGAPIXELS_WHOLE", 0.001)
    content = encode_image(PIL.Image.new("RGB", (64, 64)), "JPEG")
    assert read_picture(content, SHORTER_SIDE).size
    scan = content.index(b"\xff\xda")
    apart = b"\xff\xda\0\x08\x01" + content[scan + 5 : scan + 7] + b"\0\x3f\0"
    with pytest.raises(ImageError, match="too large: 64×64 pixels"):
        read_picture(content[:scan] + apart + content[scan + 14 :], SHORTER_SIDE)


@pytest.mark.parametrize("size", [(900, 700), (451, 1333), (5000, 300), (31_111, 20)])
@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "I;16"])
def test_shrinking_in_tiles_is_shrinking(
    mode: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = _sixteen_bit(draw_one(size)) if mode == "I;16" else draw_one(size).convert(mode)
    whole = reduce(image, SHORTER_SIDE)
    monkeypatch.setattr(pillow, "TILE_PIXELS", 5000)
    assert whole.size != image.size
    assert np.array_equal(np.asarray(reduce(image, SHORTER_SIDE)), np.asarray(whole))


def test_a_plain_png_is_read_as_pillow_reads_it() -> None:
    for seed in range(20):
        random = np.random.default_rng(seed)
        grey = random.integers(0, 256, random.integers(1, 60, 2), np.uint8)
        content = encode_image(PIL.Image.fromarray(grey), optimize=bool(seed % 2))
        assert np.array_equal(decode_plain_png(content, SHORTER_SIDE), grey)
        for length in (0, 20, 40, len(content) // 2, len(content) - 13):
            assert decode_plain_png(content[:length], SHORTER_SIDE) is None


@pytest.mark.parametrize("mode", ["RGB", "P"])
@pytest.mark.parametrize("size", [(1, 1), (28, 28), (60, 223)])
def test_a_plain_png_in_colour_is_read_as_pillow_reads_it(size: tuple[int, int], mode: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    image = PIL.Image.fromarray(noise).resize(size).convert(mode)
    content = encode_image(image)
    assert np.array_equal(
        decode_plain_png(content, SHORTER_SIDE), to_picture(decode_image(content, SHORTER_SIDE))
    )


def test_other_files_are_no_plain_png() -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    turned = encode_image(draw_one(), exif=exif.tobytes())
    others = [encode_image(draw_one(mode=mode)) for mode in ("RGBA", "LA", "1")]
    others += [encode_image(draw_one(), "JPEG"), encode_image(draw_one((1100, 1000)))]
    damaged = bytearray(encode_image(draw_one(), dpi=(72, 72)))
    damaged[damaged.index(b"pHYs") + 5] ^= 1  # OpenCV would ignore this, Pillow does not
    others += [turned, encode_image(draw_one(), transparency=255), bytes(damaged), b"", b"text"]
    assert [decode_plain_png(content, SHORTER_SIDE) for content in others] == [None] * len(others)
    assert likeness(read_digit(encode_image(draw_one(), transparency=255)).image) > 0.95


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(
    "size", [(20, 30), (150, 223), (224, 300), (300, 447), (895, 1000), (1791, 900)]
)
def test_a_plain_jpeg_is_read_as_pillow_reads_it(size: tuple[int, int], mode: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    image = PIL.Image.fromarray(noise).resize(size, PIL.Image.Resampling.BICUBIC).convert(mode)
    content = encode_image(image, "JPEG", quality=85)
    picture = decode_plain_jpeg(content, SHORTER_SIDE)
    pillow = to_picture(decode_image(content, SHORTER_SIDE))
    assert picture is not None and min(picture.shape[:2]) >= min(SHORTER_SIDE, *size)
    if min(size) // SHORTER_SIDE in (
        0,
        1,
        2,
        4,
        8,
    ):  # at other factors both reduce it further, each in its own way
        assert np.array_equal(picture, pillow)
    for length in (0, 3, 20, 200, len(content) // 2, len(content) - 1):
        assert decode_plain_jpeg(content[:length], SHORTER_SIDE) is None
        assert (
            decode_plain_jpeg(content[:length] + b"\xff\xd9", SHORTER_SIDE) is None or length > 200
        )


def test_other_files_are_no_plain_jpeg() -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    others = [
        encode_image(draw_one(), "JPEG", exif=exif.tobytes()),
        encode_image(draw_one(), "JPEG", progressive=True),
        encode_image(draw_one(mode="CMYK"), "JPEG"),
        encode_image(draw_one()),
        b"\xff\xd8\xff\xd9",
    ]
    assert [decode_plain_jpeg(content, SHORTER_SIDE) for content in others] == [None] * len(others)


PNG = encode_image(draw_one())
HEADER = struct.pack(">II", 20_000, 20_000) + PNG[24:29]
HUGE_PNG = PNG[:16] + HEADER + struct.pack(">I", zlib.crc32(b"IHDR" + HEADER)) + PNG[33:]
DEEP_JPEG = encode_image(draw_one(), "JPEG").replace(b"\xff\xc0\0\x0b\x08", b"\xff\xc1\0\x0b\x0c")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"label,path\n7,x.png\n", "not an image that can be read, but text"),
        (PNG[:60], "damaged"),
        (encode_image(PIL.Image.new("L", (50, 50), 255)), "blank"),
        (HUGE_PNG, "too large: 20000×20000 pixels, over 100 megapixels"),
        (b"%PDF-1.7 and more", "damaged: the PDF can't be read"),
        (b"\0\0\0\x18ftypmp42 a film", "not an image that can be read$"),
        (DEEP_JPEG, "not an image that can be read, but a JPEG that is damaged, or of a rare kind"),
        (
            b"II*\0\x08\0\0\0" + bytes(99),
            "can be read, but a TIFF that is damaged, or of a rare kind",
        ),
    ],
)
def test_what_is_wrong_is_said_in_plain_words(content: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        read_digit(content)


def test_a_frame_of_one_pixel_is_no_crash() -> None:
    for size in [(1, 1), (1, 30), (2, 2)]:
        file = io.BytesIO()
        PIL.Image.new("RGB", size, "red").save(file, "PNG")
        with pytest.raises(ImageError):
            read_digit(file.getvalue())


def test_an_import_changes_no_other_library() -> None:
    code = """
import cv2
import PIL.Image, PIL.PngImagePlugin, PIL.TiffImagePlugin
def look():
    return (PIL.Image.MAX_IMAGE_PIXELS, PIL.PngImagePlugin.MAX_TEXT_CHUNK, cv2.getNumThreads(),
            len(PIL.TiffImagePlugin.OPEN_INFO), cv2.utils.logging.getLogLevel())
before = look()
import digitq.worker.sight.limits, digitq.worker.sight.digits, training.synthetic.scenes
assert look() == before
digitq.worker.sight.decoding.pillow.prepare_libraries()
assert look() != before
"""
    subprocess.run([sys.executable, "-c", code], check=True)
