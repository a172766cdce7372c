"""Cuts a TIFF of several pages apart: tags and compressed pictures are copied as they are."""

import struct
from typing import IO

from digitq.protocol.formats.pdf import DAMAGED_PAGE, PageError
from digitq.protocol.settings import settings
from digitq.protocol.text import too_large

BYTE_ORDERS = {b"II": "<", b"MM": ">"}
BIG = (b"+\0", b"\0+")  # a BigTIFF, whose offsets have 64 bits, has this after its byte order
# The types of values, and how many bytes each takes
TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8}
WHOLE_TYPES = {3: "H", 4: "I", 16: "Q"}  # types of whole numbers, for `struct`
SUBFILE_TAG = 254
NOT_A_PAGE = 0b101  # bits of this tag: a smaller picture of a page, or its mask
BLOCK_TAGS = {273: 279, 324: 325}  # where a page's strips or tiles are, and their sizes
POINTER_TAGS = (330, 34665, 34853)  # further pictures and data, which are left out
NO_PAGE = -1  # where a damaged page is
TIFF_ERRORS = (LookupError, OSError, OverflowError, ValueError, struct.error)

Tag = tuple[int, int, bytes]  # the type, how many values, and the values or where they are


class TiffPages:
    """The pages of an open file, of which a damaged one is the last. Raises one of `TIFF_ERRORS`
    for anything but a TIFF of several pages."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        head = self._read(0, 8)
        if head[:2] not in BYTE_ORDERS:
            raise ValueError("not a TIFF")
        self._order, is_big = BYTE_ORDERS[head[:2]], head[2:4] in BIG
        self._head = head if is_big else head[:4]  # what is before the offset of the first page
        self._offset, self._count, self._tag = (
            struct.Struct(self._order + kinds)
            for kinds in (("Q", "Q", "HHQ8s") if is_big else ("I", "H", "HHI4s"))
        )
        self._starts = self._find_pages()
        if len(self._starts) < 2:
            raise ValueError("one page")

    def __len__(self) -> int:
        return len(self._starts)

    def close(self) -> None:
        self._file.close()

    def cut(self, index: int) -> bytes:
        """A page as a file of its own. Raises `PageError`."""
        try:
            tags, _ = self._read_tags(self._starts[index])
            return self._build(tags)
        except TIFF_ERRORS:
            raise PageError(DAMAGED_PAGE) from None

    def _find_pages(self) -> list[int]:
        """Where the tags of each page are."""
        place, starts, seen = len(self._head), list[int](), set[int]()
        try:
            while (start := self._read_one(self._offset, place)) and start not in seen:
                seen.add(start)
                tags, place = self._read_tags(start)
                kind = self._read_numbers(tags[SUBFILE_TAG])[0] if SUBFILE_TAG in tags else 0
                if not kind & NOT_A_PAGE:
                    starts.append(start)
        except TIFF_ERRORS:
            starts.append(NO_PAGE)
        return starts

    def _read_tags(self, start: int) -> tuple[dict[int, Tag], int]:
        """The tags of a page, and where the offset of the next page is."""
        count = self._read_one(self._count, start)
        content = self._read(start + self._count.size, count * self._tag.size)
        tags = {tag: (*rest,) for tag, *rest in self._tag.iter_unpack(content)}
        return tags, start + self._count.size + len(content)

    def _read_values(self, tag: Tag) -> bytes:
        kind, count, field = tag
        size = TYPE_BYTES[kind] * count
        if size <= len(field):
            return field[:size]
        return self._read(self._offset.unpack(field)[0], size)

    def _read_numbers(self, tag: Tag) -> tuple[int, ...]:
        kind, count, _ = tag
        return struct.unpack(f"{self._order}{count}{WHOLE_TYPES[kind]}", self._read_values(tag))

    def _read_one(self, number: struct.Struct, start: int) -> int:
        return int(number.unpack(self._read(start, number.size))[0])

    def _read(self, start: int, size: int) -> bytes:
        if size > (limit := settings().image_bytes):
            raise PageError(too_large(limit))
        self._file.seek(start)
        content = self._file.read(size)
        if len(content) < size:
            raise ValueError("it is truncated")
        return content

    def _build(self, tags: dict[int, Tag]) -> bytes:
        """A file of one page with these tags, their values, and its strips or tiles."""
        content = bytearray(self._head + self._offset.pack(0))

        def put(data: bytes) -> int:
            content.extend(bytes(len(content) % 2) + data)  # offsets in a TIFF are even
            return len(content) - len(data)

        where = min(tags.keys() & BLOCK_TAGS, default=0)
        sizes = self._read_numbers(tags[BLOCK_TAGS[where]])
        if sum(sizes) > (limit := settings().image_bytes):
            raise PageError(too_large(limit))
        blocks = zip(self._read_numbers(tags[where]), sizes, strict=True)
        moved = [put(self._read(start, size)) for start, size in blocks]
        kind = 16 if self._offset.size == 8 else 4
        values = {where: (kind, len(moved), b"".join(map(self._offset.pack, moved)))}
        for tag, (kind, count, field) in tags.items():
            if kind in TYPE_BYTES and tag not in (where, *POINTER_TAGS):
                values[tag] = kind, count, self._read_values((kind, count, field))
        fields = [
            self._tag.pack(
                *(tag, kind, count),
                value if len(value) <= self._offset.size else self._offset.pack(put(value)),
            )
            for tag, (kind, count, value) in sorted(values.items())
        ]
        start = put(self._count.pack(len(fields)) + b"".join(fields) + self._offset.pack(0))
        self._offset.pack_into(content, len(self._head), start)
        return bytes(content)
