"""Archives are read member by member; what is damaged costs itself only."""

import io
import lzma
import os
import re
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from digitq.producer.sources.opening import open_sources
from digitq.producer.sources.source import Entry, UnreadableImageError
from digitq.protocol.errors import UsageError
from tests.cutting import cut_items
from tests.unit.test_sources import fill, make_odd_zip, make_zip, read_all, try_to_read


def make_tar(path: Path, *names: str, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(name.encode())
            archive.addfile(member, io.BytesIO(name.encode()))
    return path


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tgz", "a.tar.xz", "a.tbz2"])
def test_an_archive_is_read_in_its_own_order(name: str, tmp_path: Path) -> None:
    members = ("z/2.png", "a/1.png", "../../x.png", "README", "__MACOSX/._1.png", "z/inner.zip")
    if name.endswith(".zip"):
        path = make_zip(tmp_path / name, *members)
    else:
        path = make_tar(
            tmp_path / name,
            *members,
            mode="w:" + {"ar": "", "gz": "gz", "xz": "xz", "z2": "bz2"}[name[-2:]],
        )
    source = open_sources([str(path)])
    images = ["z/2.png", "a/1.png", "../../x.png"]
    assert read_all(source) == {member: member.encode() for member in images}
    assert source.skipped.describe() == "3 other files (no ending, hidden, .zip)"
    assert source.count() == (3 if name.endswith(".zip") else None)


def test_a_tar_of_a_folder_has_the_folder_s_ids(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", "./1.png", "./7/1.png", "./.hidden.png")
    assert list(read_all(open_sources([str(path)]))) == ["1.png", "7/1.png"]


def test_members_of_one_name_get_ids_of_their_own(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", "1.png", "1.png", "1.png#2.png")
    assert list(read_all(open_sources([str(path)]))) == ["1.png", "1.png#2", "1.png#2.png"]


@pytest.mark.parametrize(("mode", "lost"), [("w", 300_100), ("w:gz", 200)])
def test_a_tar_that_breaks_off_gives_what_it_has_and_says_so(
    mode: str, lost: int, tmp_path: Path
) -> None:
    path = make_tar(tmp_path / "a.tar", *(f"{n}.png" for n in range(500)), mode=mode)
    path.write_bytes(path.read_bytes()[:-lost])
    entries = iter(open_sources([str(path)]).items)
    *found, (last, error) = [try_to_read(entry) for entry in entries if isinstance(entry, Entry)]
    whole = [name for name, content in found if content == name.encode()]
    assert len(found) - 1 <= len(whole) < 500
    assert last == "(the rest)" and "broken" in str(error)


@pytest.mark.parametrize("kind", ["gz", "xz"])
def test_a_tar_that_is_damaged_inside_gives_what_it_has_and_says_so(
    kind: str, tmp_path: Path
) -> None:
    path = tmp_path / f"a.tar.{kind}"
    noise = np.random.default_rng(0)
    with tarfile.open(path, f"w:{kind}") as archive:
        for number in range(40):
            member = tarfile.TarInfo(f"{number}.png")
            member.size = 10_000
            archive.addfile(member, io.BytesIO(noise.bytes(5000).hex().encode()))
    content = bytearray(path.read_bytes())
    content[120_000:140_000] = b"\xff" * 20_000
    path.write_bytes(content)
    entries = iter(open_sources([str(path)]).items)
    found = [try_to_read(entry) for entry in entries if isinstance(entry, Entry)]
    assert 10 < sum(isinstance(content, bytes) for _, content in found) < 30
    last, error = found[-1]
    assert last == "(the rest)" and "the archive is broken from here on" in str(error)


TRUNCATED = "it is truncated|unexpected end of data"  # the latter in the words of Python 3.13


def test_a_tar_that_is_not_whole_is_told(tmp_path: Path) -> None:
    whole = make_tar(tmp_path / "whole.tar", "1.png", "2.png").read_bytes()
    endless = tarfile.TarInfo("2.png")
    endless.size = 1 << 60
    for content, message in [
        (whole[: 2 * tarfile.BLOCKSIZE], "it has no end mark"),
        (whole + whole, "more members follow after its end"),
        (whole[: 2 * tarfile.BLOCKSIZE] + endless.tobuf(tarfile.GNU_FORMAT), TRUNCATED),
    ]:
        (tmp_path / "a.tar").write_bytes(content)
        entries = [try_to_read(entry) for entry in open_sources([f"{tmp_path}/a.tar"]).items]  # type: ignore[arg-type]
        assert entries[0] == ("1.png", b"1.png")
        name, error = entries[-1]
        assert name == "(the rest)"
        assert re.fullmatch(f"the archive is broken from here on: ({message})", str(error))


def test_what_follows_the_end_of_a_tar_may_be_padding(tmp_path: Path) -> None:
    whole = make_tar(tmp_path / "whole.tar", "1.png").read_bytes()
    for padding in (b"", b"\n", bytes(700), b"signed by nobody" * 99):
        (tmp_path / "a.tar").write_bytes(whole + padding)
        assert list(read_all(open_sources([f"{tmp_path}/a.tar"]))) == ["1.png"]


def test_a_zip_that_is_cut_is_not_the_zip_in_it(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "inner.zip", "w") as inner:
        inner.writestr("b.png", b"b")
    inside = (tmp_path / "inner.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as outer:
        outer.writestr("a.png", b"a")
        outer.writestr("inner.zip", inside)
    content = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(content[: content.index(inside) + len(inside)])
    with pytest.raises(UsageError, match="it is truncated, is several archives in one"):
        open_sources(tmp_path / "a.zip")
    (tmp_path / "unpacks-itself.zip").write_bytes(b"#!/bin/sh\n" + inside)
    (entry,) = open_sources(tmp_path / "unpacks-itself.zip").items
    assert isinstance(entry, Entry) and entry.read() == b"b"


def test_a_zip_member_without_a_name_is_passed_over(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", "1.png", "X", "folder\\", "folder/")
    path.write_bytes(path.read_bytes().replace(b"X", b"\0"))  # at which zipfile cuts a name
    source = open_sources(path)
    assert list(read_all(source)) == ["1.png"]
    assert source.skipped.describe() == "1 other file (no ending)" and source.count() == 1


def test_a_damaged_zip_member_is_an_error_of_its_own(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", "1.png", "2.png")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"1.png1.png", b"1.png9.png", 1))
    entries = [item for item in open_sources([str(path)]).items if isinstance(item, Entry)]
    with pytest.raises(UnreadableImageError, match="can't be read from the archive"):
        entries[0].read()
    assert entries[1].read() == b"2.png"


@pytest.mark.parametrize(
    ("value", "central", "local", "message"),
    [
        (1, 8, 6, "encrypted: the archive needs a password"),
        (97, 10, 8, "compressed with another method than deflate"),
        (zipfile.ZIP_LZMA, 10, 8, "compressed with another method than deflate"),
    ],
    ids=["encrypted", "an unknown method", "one that unpacks without a limit"],
)
def test_a_zip_member_that_can_t_be_unpacked_says_why(
    value: int, central: int, local: int, message: str, tmp_path: Path
) -> None:
    path = make_odd_zip(tmp_path / "a.zip", value, central, local)
    (entry,) = open_sources([str(path)]).items
    assert isinstance(entry, Entry)
    with pytest.raises(UnreadableImageError, match=message):
        entry.read()


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_header_of_a_tar_that_is_huge_is_not_read(kind: bytes, tmp_path: Path) -> None:
    """tarfile reads it whole: gigabytes, which take some MB in a .tar.gz."""
    header = tarfile.TarInfo("x")
    header.type, header.size = kind, 2 << 20
    path = make_tar(tmp_path / "a.tar", "1.png")
    whole = path.read_bytes()
    path.write_bytes(whole[:1024] + header.tobuf() + bytes(2 << 20) + whole)
    *entries, last = [try_to_read(entry) for entry in open_sources([str(path)]).items]
    assert [name for name, _ in entries] == ["1.png"]
    assert last == (
        "(the rest)",
        "the archive is broken from here on: a header has 2,097,152 bytes",
    )


def test_an_xz_that_asks_for_gigabytes_is_refused(tmp_path: Path) -> None:
    make_tar(tmp_path / "a.tar", "1.png")
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 30}]
    content = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar.xz").write_bytes(lzma.compress(content, filters=filters))
    with pytest.raises(UsageError, match="a.tar.xz: Memory usage limit exceeded"):
        open_sources([f"{tmp_path}/a.tar.xz"])


def test_a_hard_link_in_a_tar_is_told(tmp_path: Path) -> None:
    """It holds the file once, under the name that came first."""
    fill(tmp_path, "7/a.png")
    os.link(tmp_path / "7/a.png", tmp_path / "7/b.png")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "7", "7")
    entries = iter(open_sources([f"{tmp_path}/a.tar"], truth_from_parent=True).items)
    first = next(entries)
    assert isinstance(first, Entry) and first.id == "7/a.png" and first.read()
    second = next(entries)
    assert isinstance(second, Entry) and (second.id, second.truth) == ("7/b.png", "7")
    with pytest.raises(UnreadableImageError, match="the archive has the image as 7/a.png"):
        second.read()


def test_a_hard_link_to_a_name_that_is_no_utf_8(tmp_path: Path) -> None:
    fill(tmp_path, "a.png")
    link = tarfile.TarInfo("b.png")
    link.type, link.linkname = tarfile.LNKTYPE, os.fsdecode(b"\xff.png")
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(link)
        archive.add(tmp_path / "a.png", "c.png")
    (chunk,) = cut_items(open_sources([f"{tmp_path}/a.tar"]).items)
    error, none = chunk.batch.column("error").to_pylist()
    assert error.endswith(r"the image as \xff.png") and none is None


def test_a_tar_that_begins_with_a_hard_link_and_breaks_off(tmp_path: Path) -> None:
    link = tarfile.TarInfo("1.png")
    link.type, link.linkname = tarfile.LNKTYPE, "x.txt"
    (tmp_path / "a.tar").write_bytes(link.tobuf(tarfile.GNU_FORMAT))
    ids = [entry.id for entry in open_sources([f"{tmp_path}/a.tar"]).items]  # type: ignore[union-attr]
    assert ids == ["1.png", "(the rest)"]
