"""Of a file with several pictures the first is read, and the answer is to be reviewed."""

import struct
from typing import Any

import numpy as np
import PIL.Image
import PIL.PngImagePlugin
import pytest

from digitq.worker.sight.decoding.any_file import has_more_pages
from digitq.worker.sight.decoding.pillow import load_heif
from tests.drawing import draw_one, encode_image
from tests.reading import read_digit
from tests.unit.test_decoding import likeness


@pytest.mark.parametrize("format", ["GIF", "TIFF", "PNG", "WEBP", "AVIF"])
def test_only_the_first_page_counts_and_that_is_told(format: str) -> None:
    load_heif()
    pages = [draw_one(), PIL.Image.new("L", (60, 80), 255)]
    content = encode_image(pages[0], format, save_all=True, append_images=pages[1:])
    both = read_digit(content)
    assert likeness(both.image) > 0.97 and both.review_reason == "pages"
    assert not read_digit(encode_image(pages[0], format)).review_reason
    assert not any(has_more_pages(content[:length]) for length in range(0, 12))


@pytest.mark.parametrize("mode", ["L", "P"])
def test_a_gif_s_second_picture_is_found_however_large_the_first(mode: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1300, 3), np.uint8)
    pages = [PIL.Image.fromarray(page).convert(mode) for page in (noise, noise[::-1])]
    options: dict[str, Any] = {"comment": bytes(range(256)) * 3, "transparency": 3}
    assert not has_more_pages(encode_image(pages[0], "GIF", **options))
    both = encode_image(pages[0], "GIF", save_all=True, append_images=pages[1:], **options)
    assert len(both) > 1 << 20 and has_more_pages(both)
    assert not has_more_pages(both[: len(both) // 3])


def test_an_animation_of_one_picture_has_no_other() -> None:
    size = draw_one().size
    control = struct.pack(">IIIIIHHBB", 0, *size, 0, 0, 1, 10, 0, 0)
    for pictures, frames, more in [(1, [control], False), (2, [control], True), (1, [], True)]:
        info = PIL.PngImagePlugin.PngInfo()
        info.add(b"acTL", struct.pack(">II", pictures, 0))
        for frame in frames:
            info.add(b"fcTL", frame)
        content = encode_image(draw_one(), pnginfo=info)
        assert has_more_pages(content) == more
    pages = [draw_one(), draw_one().rotate(90)]
    both = encode_image(pages[0], "WEBP", save_all=True, append_images=pages[1:])
    assert has_more_pages(both)
    assert not has_more_pages(both[: both.rindex(b"ANMF")])
