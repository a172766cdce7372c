"""A folder of everything that may be wrong, or only odd, with an image file."""

import io
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import PIL.Image

from digitq.worker.sight.decoding.pillow import load_heif
from tests.drawing import draw_one, encode_image

READ = ""  # what a file that can be read is expected to say
LARGE = Path(__file__).parent / "large.zip"  # `python -m tests.gallery` makes it in 10 s
BEYOND = "beyond.jpeg"


def make_gallery(folder: Path) -> dict[str, str]:
    """Fill the folder; gives each id, and how its error begins: `READ` where there is none."""
    good = draw_one((80, 100), mode="RGB")
    expected: dict[str, str] = {}

    def add(name: str, content: bytes, error: str = READ) -> None:
        (folder / name).write_bytes(content)
        expected[name] = error

    add("empty.png", b"", "the file is empty")
    load_heif()  # else Pillow can't write it
    for format in ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "AVIF", "HEIF"):
        content = encode_image(good, format)
        for tenth in range(1, 10):
            cut = content[: len(content) * tenth // 10]
            add(f"cut{tenth}.{format.lower()}", cut, "?")
    add("a jpeg.png", encode_image(good, "JPEG"))
    add("a png.jpg", encode_image(good))
    add("text.png", b"Dear sir or madam\n", "not an image that can be read")
    add("a program.png", b"\x7fELF" + bytes(200), "not an image that can be read")
    add("huge.png", build_png((50_000, 50_000), 2, bytes(1000)), "too large")
    add("no palette.png", build_png((28, 28), 3, bytes(range(29)) * 28), "damaged: no palette")
    add("huge.bmp", claim_bmp(50_000, 50_000), "too large")
    frames = [draw_one((80, 100 + n % 2)) for n in range(1000)]
    add("frames.gif", encode_image(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    add("cmyk.tiff", encode_image(good.convert("CMYK"), "TIFF"))
    add("cmyk.jpg", encode_image(good.convert("CMYK"), "JPEG"))
    add("deep.tiff", encode_image(deepen(good), "TIFF"))
    add("deep.png", encode_image(deepen(good)))
    add("bits.tiff", encode_image(good.convert("1"), "TIFF", compression="group4"))
    add("float.tiff", encode_image(good.convert("F"), "TIFF"))
    add(
        "nan.tiff", encode_image(PIL.Image.fromarray(np.full((9, 9), np.nan, "f")), "TIFF"), "blank"
    )
    add("interlaced.png", interlace(np.asarray(draw_one((80, 100)))))
    add("progressive.jpg", encode_image(good, "JPEG", progressive=True))
    add("exif bomb.jpg", encode_image(good, "JPEG", exif=exif_bomb()))
    for format in ("PNG", "WEBP", "JPEG"):
        add(f"odd exif.{format.lower()}", encode_image(good, format, exif=b"Exif\0\0garbage-"))
    add("exif loop.tiff", tiff_loop(), "?")
    add(
        "text bomb.png",
        insert_chunk(encode_image(good), b"zTXt", b"k\0\0" + zlib.compress(bytes(1 << 26))),
        "?",
    )
    add("profile.jpg", encode_image(good, "JPEG", icc_profile=b"broken" * 50))
    add("profile.png", encode_image(good, icc_profile=b"broken" * 50))
    large = PIL.Image.new("P", (10_000, 10_000), 1)
    large.putpalette([0, 0, 0, 255, 255, 255])
    large.paste(0, (4000, 2000, 5000, 8000))
    add("large.png", encode_image(large, transparency=1, compress_level=1))
    with zipfile.ZipFile(LARGE) as archive:
        for name in archive.namelist():
            add(name, archive.read(name), "too large" if name == BEYOND else "blank")
    add("white.png", encode_image(PIL.Image.new("L", (50, 50), 255)), "blank")
    add("one pixel.png", encode_image(PIL.Image.new("L", (1, 1))), "blank")
    add("line.png", encode_image(PIL.Image.new("L", (30_000, 1)).convert("1")), "blank")
    add("'quoted', \"name\" \n.png", encode_image(good))
    (folder / "link.png").symlink_to("a png.jpg")
    expected["link.png"] = READ
    (folder / "loop.png").symlink_to("loop.png")
    expected["loop.png"] = "can't be read: Too many levels of symbolic links"
    (folder / "nowhere.png").symlink_to("gone.png")
    expected["nowhere.png"] = "can't be read: No such file or directory"
    (folder / "around").symlink_to(folder)  # followed, it would never end
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")  # skipped: no file
    (folder / "notes.txt").write_text("skipped")
    (folder / os.fsdecode(b"n\xe4me.png")).write_bytes(encode_image(good))
    expected["n\\xe4me.png"] = READ
    return expected


def write_large() -> None:
    """Write `LARGE`: images of one colour as large as each format may have them, and one beyond."""
    load_heif()
    wide = PIL.Image.new("RGB", (900_000, 100), "white")
    beyond = PIL.Image.new("L", (8_000, 8_000))
    with zipfile.ZipFile(LARGE, "w", zipfile.ZIP_LZMA) as archive:
        for format, mode, side, options in [
            ("WEBP", "RGB", 5_900, {"lossless": True, "quality": 0, "method": 0}),
            ("TIFF", "RGBA", 5_900, {"compression": "tiff_lzw", "tiffinfo": {274: 6}}),
            ("TIFF", "RGB", 7_700, {"compression": "tiff_lzw"}),
            ("JPEG", "CMYK", 5_900, {"progressive": True}),
            ("JPEG", "RGB", 7_700, {"progressive": True}),
            ("AVIF", "RGBA", 5_900, {"speed": 10}),
            ("AVIF", "RGB", 7_700, {"speed": 10}),
        ]:
            content = encode_image(PIL.Image.new(mode, (side, side)), format, **options)
            archive.writestr(f"large {mode}.{format.lower()}", content)
        archive.writestr("wide.png", encode_image(wide, compress_level=1))
        archive.writestr(BEYOND, encode_image(beyond, "JPEG", progressive=True))


def make_zip(path: Path) -> dict[str, str]:
    """An archive of odd members; gives each id, and how its error begins."""
    good = encode_image(draw_one())
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("inside.png", good)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../x.png", good)
        archive.writestr("/etc/y.png", good)
        archive.writestr("inner.zip", inner.getvalue())
        archive.writestr("inner zip.png", inner.getvalue())
        archive.writestr("bomb.png", bytes(100 << 20))
    return {
        "../../x.png": READ,
        "/etc/y.png": READ,
        "inner zip.png": "not an image that can be read, but a zip archive",
        "bomb.png": "larger than 64 MB",
    }


def deepen(image: PIL.Image.Image) -> PIL.Image.Image:
    """With 16 bits a pixel."""
    return PIL.Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG file."""
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


def insert_chunk(png: bytes, kind: bytes, content: bytes) -> bytes:
    """A PNG file with one more chunk, after its header."""
    return png[:33] + chunk(kind, content) + png[33:]


def build_png(size: tuple[int, int], colour_type: int, rows: bytes, interlaced: int = 0) -> bytes:
    """A PNG of 8 bits, of nothing but a header and these rows."""
    header = struct.pack(">IIBBBBB", *size, 8, colour_type, 0, 0, interlaced)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def claim_bmp(width: int, height: int) -> bytes:
    """A BMP of a few bytes that claims to be large."""
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 1000, 0, 0, 54) + header + bytes(946)


def interlace(grey: np.ndarray) -> bytes:
    """8-bit grey values as an interlaced PNG."""
    height, width = grey.shape
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4)]
    passes += [(2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]  # Adam7: top, left, and steps
    rows = b"".join(
        b"\0" + row.tobytes()
        for top, left, down, right in passes
        for row in grey[top::down, left::right]
    )
    return build_png((width, height), 0, rows, interlaced=1)


def exif_bomb() -> bytes:
    """EXIF whose entries claim gigabytes, and whose directory goes on with itself."""
    entries = b"".join(
        struct.pack("<HHII", tag, 12, 0x7FFFFFFF, 8) for tag in range(0x0100, 0x0100 + 400)
    )
    directory = struct.pack("<H", 400) + entries + struct.pack("<I", 8)
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + directory


def tiff_loop() -> bytes:
    """A TIFF of one directory that follows itself and has no image."""
    return (
        b"II*\0"
        + struct.pack("<IH", 8, 1)
        + struct.pack("<HHII", 0x8769, 4, 1, 8)
        + struct.pack("<I", 8)
    )


if __name__ == "__main__":
    write_large()
