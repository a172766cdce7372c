"""The private folder of a run: for its owner alone, and with room for a socket."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from digitq.private import run_folder as folders
from digitq.private.run_folder import LOCK, MAX_PARENT_BYTES, private_folder, remove_leftovers
from digitq.protocol.errors import UsageError

HOLD = (
    "from digitq.private.run_folder import private_folder\n"
    "with private_folder() as folder: print(folder, flush=True); input()"
)


@pytest.fixture
def base() -> Iterator[Path]:
    """A folder with a short path, which pytest's own may not have."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        yield Path(name)


def test_it_is_private_and_goes_in_the_end(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(base))
    with private_folder() as folder:
        assert folder.parent == base and folder.stat().st_mode & 0o077 == 0
        (folder / "redis.log").write_text("started")
    assert not folder.exists()


def test_a_killed_run_s_folder_goes_with_the_next_run(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(base))
    with subprocess.Popen(
        [sys.executable, "-c", HOLD],
        env={**os.environ, "TMPDIR": str(base)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout
        held = Path(other.stdout.readline().strip())
        with private_folder() as own:
            remove_leftovers(base)
            assert {*base.iterdir()} == {held, own}
        (held / "redis.log").write_text("killed")
        other.kill()
        other.wait()
    assert held.exists()
    with private_folder() as own:
        assert {*base.iterdir()} == {own}


def test_what_is_no_run_s_folder_stays(base: Path) -> None:
    for name in ("digitq-none", "digitq-link", "other"):
        (base / name).mkdir()
    (base / "digitq-file").touch()
    (base / "other" / LOCK).touch()
    (base / "digitq-link" / LOCK).symlink_to(base / "other" / LOCK)
    (base / "digitq-linked").symlink_to(base / "other")
    pipe = base / "digitq-pipe" / LOCK
    pipe.parent.mkdir()
    os.mkfifo(pipe)  # opening it must not wait
    there = {*base.rglob("*")} - {pipe, pipe.parent}
    remove_leftovers(base)
    assert there <= {*base.rglob("*")}


@pytest.mark.parametrize("excess", [0, 1])
def test_a_socket_fits_into_it_however_long_the_usual_path_is(
    excess: int, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = base / ("x" * (MAX_PARENT_BYTES + excess - len(f"{base}/")))
    parent.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(parent))
    with private_folder() as folder, socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{folder}/redis.sock")
        assert folder.parent == (Path("/tmp") if excess else parent)
        assert len(f"{folder}/redis.sock") <= 103  # on macOS


def test_a_path_that_no_url_can_name_is_not_used(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", os.fsdecode(os.fsencode(base) + b"\xff"))
    with private_folder() as folder:
        assert folder.parent == Path("/tmp")
    monkeypatch.setattr(folders, "SHORT_PARENT", "/dev/null")
    with pytest.raises(UsageError, match="set TMPDIR to a folder"), private_folder():
        pass
